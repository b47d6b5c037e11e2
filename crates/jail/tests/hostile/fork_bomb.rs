//! Behaviour 1: making processes without end. Wall: the group's process limit, felt inside as `EAGAIN`.

use super::attempts::inside;
use super::raw;
use crate::support::{World, children_named, command, sh, until};
use sandbox::{Chunk, Provider as _, Workspace};
use std::sync::Arc;

/// Makes processes that stand still until no more can be made, and says how many and why.
fn fork_until_refused(arguments: &[String]) -> String {
    let most: usize = arguments.first().map_or(1_000, |most| most.parse().unwrap());
    let mut made = Vec::new();
    let why = loop {
        if made.len() == most {
            break 0;
        }
        let pid = raw::child(|| raw::stay());
        if pid < 0 {
            break std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
        }
        made.push(i64::from(pid));
    };
    for pid in &made {
        let _ = raw::call_with(libc::SYS_kill, [*pid, i64::from(libc::SIGKILL)]);
    }
    let why = if why == 0 { "made".to_owned() } else { super::attempts::errno_name(why) };
    format!("{} {why}", made.len())
}

pub(crate) const ACTS: &[super::Act] = &[("fork until refused", fork_until_refused)];

/// The limit is what stops it: with twice the limit it goes twice as far.
pub(crate) async fn processes_are_limited(world: Arc<World>) {
    for limit in [32, 64] {
        let mut spec = world.spec(Workspace::Scratch);
        spec.limits.processes_max = limit;
        let sandbox = world.provider.create(spec).await.unwrap();
        let got = inside(&sandbox, ACTS[0].0, &[]).await;
        // The attacker itself is one of them; PID 1 and its helper are not counted.
        let expected: Vec<String> = (limit - 1..=limit + 1).map(|made| format!("{made} EAGAIN")).collect();
        assert!(expected.contains(&got), "{got}, of {limit}");
        assert_eq!(sh(&sandbox, "echo serves").await.out, "serves\n");
        sandbox.close().await;
    }
}

pub(crate) async fn a_fork_bomb_hurts_nobody_else(world: Arc<World>) {
    let neighbour = world.sandbox().await;
    let sandbox = world.sandbox().await;
    let mut bomb = sandbox.start(command(&["/bin/sh", "-c", "f() { f | f & }; f; sleep 1000"])).await.unwrap();
    let mut hit = false;
    while !hit {
        match bomb.next().await.unwrap() {
            Chunk::Output(_, bytes) => hit = String::from_utf8_lossy(&bytes).contains("fork"),
            Chunk::Exit(_) => break,
        }
    }
    assert!(hit, "the limit is felt inside");
    assert_eq!(sh(&neighbour, "echo fine").await.out, "fine\n");
    drop(bomb);
    sandbox.close().await;
    neighbour.close().await;
    until("all of the bomb is gone", || children_named("sh").is_empty()).await;
}
