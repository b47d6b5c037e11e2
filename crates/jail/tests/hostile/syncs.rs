//! Writing out disks over and over: a call that waits until whole file systems are on their disks makes everybody wait who
//! writes to them, the harness's journal first. Wall: seccomp. What a program writes to its own workspace it may write out: that
//! goes to the workspace's file, and no further.

use super::attempts::{Attempt, Control, MODE, PROGRAM, hold, inside, told};
use super::raw::call_with;
use crate::support::{World, command, sh};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;

const fn row(name: &'static str, act: fn(&[String]) -> String, held: &'static str) -> Attempt {
    let walls: &[&str] = if held.is_empty() { &[] } else { &["seccomp"] };
    Attempt {
        name,
        act,
        arguments: &[],
        held: if held.is_empty() { super::attempts::WORKED } else { held },
        walls,
        control: Control::Plain,
    }
}

fn on(path: &str, call: i64) -> String {
    let opened = std::fs::File::open(path).unwrap();
    told(call_with(call, [i64::from(opened.as_raw_fd())]))
}

pub(crate) const ATTEMPTS: &[Attempt] = &[
    row("write out everything", |_| told(call_with(libc::SYS_sync, [])), "EPERM"),
    row("write out the host's disk", |_| on("/usr", libc::SYS_syncfs), "EPERM"),
    row("write out the own file system", |_| on(".", libc::SYS_syncfs), "EPERM"),
    row(
        "write out a file of one's own",
        |_| {
            let file = std::fs::File::create("written").unwrap();
            super::attempts::io(file.sync_all())
        },
        "",
    ),
];

/// Writes a file out over and over until it is killed.
fn storm(_: &[String]) -> String {
    println!("on");
    let own = std::fs::File::create("stormed").unwrap();
    let host = std::fs::File::open("/usr/bin/env").unwrap();
    loop {
        let _ = std::os::unix::fs::FileExt::write_at(&own, b"x", 0);
        let _ = (own.sync_all(), host.sync_all());
        let _ = call_with(libc::SYS_sync, []);
        let _ = call_with(libc::SYS_syncfs, [i64::from(host.as_raw_fd())]);
    }
}

pub(crate) const ACTS: &[super::Act] = &[("storm of writing out", storm)];

/// What writing out some bytes takes outside, as a journal does it: the median of some dozens, in microseconds.
fn journal_us() -> u128 {
    const TRIES: u8 = 60;
    let mut file = tempfile::tempfile().unwrap();
    let mut took: Vec<u128> = (0..TRIES)
        .map(|_| {
            let begun = std::time::Instant::now();
            std::io::Write::write_all(&mut file, &[1; 4_096]).and_then(|()| file.sync_data()).unwrap();
            begun.elapsed().as_micros()
        })
        .collect();
    took.sort_unstable();
    took[took.len() / 2]
}

pub(crate) async fn nobody_writes_out_the_hosts_disks(world: Arc<World>) {
    hold(&world, ATTEMPTS, &[], &[]).await;
    let alone_us = journal_us();
    let (sandbox, neighbour) = (world.sandbox().await, world.sandbox().await);
    let mut storm = sandbox.start(command(&[PROGRAM, &format!("{MODE}{}", ACTS[0].0)])).await.unwrap();
    assert!(matches!(storm.next().await.unwrap(), sandbox::Chunk::Output(..)));
    assert_eq!(sh(&neighbour, "echo x > f; sync f; cat f").await.out, "x\n");
    neighbour.close().await;
    println!("syncs: writing out takes {alone_us} us alone, {} us beside a storm of it inside", journal_us());
    storm.kill().await.unwrap();
    assert_eq!(inside(&sandbox, ATTEMPTS[3].name, &[]).await, super::attempts::WORKED);
    // The harness writes out what it restores and keeps, all the same.
    assert!(sandbox.changed(10).await.is_ok());
    sandbox.close().await;
}
