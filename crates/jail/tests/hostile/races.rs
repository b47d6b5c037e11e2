//! Behaviour 34 at speed: a directory and a link to the outside change places in one step, over and over, while every operation
//! on files goes through the name that they share. Wall: the kernel resolves each path beneath the workspace, as one act.

use super::attempts::{MODE, PROGRAM, inside};
use super::raw::{at, call_with};
use crate::support::{World, command, environment, path, sh};
use bytes::Bytes;
use futures::StreamExt as _;
use sandbox::{Archive, ArchiveLimits, Change, Depth, Replace, Sandbox};
use std::sync::Arc;

/// How many operations are tried, unless the environment says otherwise.
const RACES: (&str, usize) = ("TOPSIDE_HOSTILE_RACES", 300);
/// Operations that are under way at once.
const AT_ONCE: usize = 4;
/// What stands outside and may never be seen.
const WORD: &str = "outside-2b9f";
const LIMITS: ArchiveLimits = ArchiveLimits { bytes_max: 1 << 20, entries_max: 100, duration_ms_max: 60_000 };
const CWD: i64 = libc::AT_FDCWD as i64;

/// Lets the directory `d` and the link `e` change places until it is killed.
fn exchange(_: &[String]) -> String {
    const EXCHANGE: i64 = 2;
    println!("on");
    loop {
        if let Err(errno) = call_with(libc::SYS_renameat2, [CWD, at(c"d"), CWD, at(c"e"), EXCHANGE]) {
            return super::attempts::errno_name(errno);
        }
    }
}

/// Opens `d/f` as any program would, many times, and says whether it came out outside.
fn open_plainly(_: &[String]) -> String {
    let led_out = (0..100_000).any(|_| std::fs::read("d/f").is_ok_and(|bytes| bytes.starts_with(WORD.as_bytes())));
    if led_out { "led out" } else { "stayed inside" }.to_owned()
}

pub(crate) const ACTS: &[super::Act] = &[("exchange", exchange), ("open plainly", open_plainly)];

async fn downloaded(sandbox: &Arc<dyn Sandbox>, what: &str) -> Option<Vec<u8>> {
    let mut export = sandbox.download(&path(what), LIMITS).await.ok()?;
    let mut bytes = Vec::new();
    while let Some(piece) = export.next().await.ok()? {
        bytes.extend_from_slice(&piece);
    }
    Some(bytes)
}

fn archive(bytes: &[u8]) -> Archive {
    futures::stream::iter([Ok(Bytes::copy_from_slice(bytes))]).boxed()
}

/// One operation through the name; gives whether it came to something.
async fn operate(sandbox: &Arc<dyn Sandbox>, number: usize, tree: &[u8]) -> bool {
    let file = path("d/f");
    let write = |at: &str| Change::Write { path: path(at), bytes: Bytes::from_static(b"in\n"), mode: None };
    match number % 12 {
        0..=2 => match sandbox.read(&file, 0, 100).await {
            Ok(bytes) => {
                assert!(bytes.is_empty() || &bytes[..] == b"in\n", "{number}: {bytes:?}");
                true
            }
            Err(_) => false,
        },
        3 => match sandbox.list(&path("d"), 100).await {
            Ok(listed) => {
                assert!(listed.iter().all(|(name, _)| name != "only"), "{number}: {listed:?}");
                true
            }
            Err(_) => false,
        },
        4 => sandbox.stat(&path("d/only")).await.inspect(|stat| panic!("{number}: {stat:?}")).is_ok(),
        5 => sandbox.apply(vec![write("d/f"), write("d/new")]).await.is_ok(),
        6 => sandbox.apply(vec![Change::Mode { path: file, mode: 0o640 }]).await.is_ok(),
        7 => sandbox.rename(&path("d/new"), &path("d/other"), Replace::Always).await.is_ok(),
        8 => sandbox.remove(&path("d/other"), 10).await.is_ok(),
        9 => match downloaded(sandbox, "d").await {
            Some(bytes) => {
                assert!(!bytes.windows(WORD.len()).any(|part| part == WORD.as_bytes()), "{number}");
                true
            }
            None => false,
        },
        10 => sandbox.upload(&path("d"), archive(tree), LIMITS).await.is_ok(),
        _ => match sandbox.watch(&path("d"), Depth::Below).await {
            Ok(mut watch) => watch.next().await.is_ok(),
            Err(_) => false,
        },
    }
}

pub(crate) async fn races_against_every_operation_lead_nowhere(world: Arc<World>) {
    let races = environment(RACES);
    let sandbox = world.sandbox().await;
    let made = format!("mkdir /tmp/out d; echo {WORD} > /tmp/out/f; echo {WORD} > /tmp/out/only; echo in > d/f");
    sh(&sandbox, &made).await;
    let tree = downloaded(&sandbox, "d").await.unwrap();
    sh(&sandbox, "ln -s /tmp/out e").await;
    let mut exchanging = sandbox.start(command(&[PROGRAM, &format!("{MODE}{}", ACTS[0].0)])).await.unwrap();
    assert!(matches!(exchanging.next().await.unwrap(), sandbox::Chunk::Output(..)));
    // The control: whoever simply opens the path comes out outside.
    assert_eq!(inside(&sandbox, ACTS[1].0, &[]).await, "led out");
    let came = futures::stream::iter(0..races).map(|number| operate(&sandbox, number, &tree)).buffer_unordered(AT_ONCE);
    let came = came.filter(|came| std::future::ready(*came)).count().await;
    println!("races: {came} of {races} operations came to something, none of them outside");
    assert!(came > races / 20, "the race was run: {came} of {races} came through");
    exchanging.kill().await.unwrap();
    let after = sh(&sandbox, "cat /tmp/out/f; ls /tmp/out; stat -c %a /tmp/out/f /tmp/out").await;
    assert_eq!(after.out, format!("{WORD}\nf\nonly\n644\n755\n"), "nothing outside was touched");
    sandbox.close().await;
}
