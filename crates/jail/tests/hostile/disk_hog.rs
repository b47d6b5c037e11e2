//! Reading and writing without end, so that nobody else gets at the disk. Wall, where a limit is set: what the group may read
//! from the workspace's device and write to it in a second. How long it takes is what such a limit says; the same without it
//! shows that nothing else takes that long.

use crate::support::{World, children_named, command, descendants, new_id, sh, skip, until};
use sandbox::{Error, Limits, Provider as _, Sandbox, Start, Workspace};
use std::sync::Arc;
use std::time::{Duration, Instant};

const BYTES_PER_SECOND: u64 = 4 << 20;
const OPERATIONS_PER_SECOND: u64 = 40;
/// How long each row takes at least, as its limit says: 8 MiB, or 80 operations.
const LEAST: Duration = Duration::from_secs(2);
/// A limit under which a write takes longer than any case may.
const STANDSTILL_BYTES_PER_SECOND: u64 = 64 << 10;
/// How often what nothing limits may be disturbed by others.
const TRIES: usize = 3;

/// Sets one limit.
type Set = fn(&mut Limits);

const BYTES: Set = |limits| limits.io_bytes_per_second_max = BYTES_PER_SECOND;
const OPERATIONS: Set = |limits| limits.io_operations_per_second_max = OPERATIONS_PER_SECOND;

/// What is limited, and what a program does.
const ROWS: &[(&str, Set, &str)] = &[
    ("bytes written", BYTES, "dd if=/dev/zero of=hog bs=64k count=128 oflag=direct"),
    ("bytes read", BYTES, "dd if=hog of=/dev/null bs=64k iflag=direct"),
    ("bytes written out", BYTES, "dd if=/dev/zero of=out bs=64k count=128 conv=fsync"),
    ("writes", OPERATIONS, "dd if=/dev/zero of=hog bs=4k count=80 oflag=direct conv=notrunc"),
    ("reads", OPERATIONS, "dd if=hog of=/dev/null bs=4k count=80 iflag=direct"),
];

/// A sandbox with a workspace on a device.
async fn limited(world: &World, set: Option<Set>) -> Arc<dyn Sandbox> {
    let mut spec = world.spec(world.session(Start::Fresh, new_id()));
    if let Some(set) = set {
        set(&mut spec.limits);
    }
    world.provider.create(spec).await.unwrap()
}

async fn took(sandbox: &Arc<dyn Sandbox>, script: &str) -> Duration {
    let began = Instant::now();
    let got = sh(sandbox, script).await;
    assert!(got.err.contains("copied"), "{script}: {}", got.err);
    began.elapsed()
}

/// Whether there are devices and a controller here. As an ordinary user there never are: see `what_can_not_be_limited_is_told`.
pub(crate) async fn is_here(world: &World, test: &str) -> bool {
    let probe = world.provider.probe().await;
    let found = probe.remarks.into_iter().find(|finding| finding.wall == "io_limit").unwrap();
    if world.root && !found.holds {
        skip(test, &found.detail);
    }
    found.holds
}

pub(crate) async fn a_disk_hog_is_slowed(world: Arc<World>) {
    if !is_here(&world, "a_disk_hog_is_slowed").await {
        return;
    }
    let free = limited(&world, None).await;
    assert!(!free.walls().standing.iter().chain(&free.walls().missing).any(|wall| wall == "io_limit"));
    for set in [BYTES, OPERATIONS] {
        let slowed = limited(&world, Some(set)).await;
        assert!(slowed.walls().standing.iter().any(|wall| wall == "io_limit"), "{:?}", slowed.walls());
        // Something to read.
        sh(&slowed, "dd if=/dev/zero of=hog bs=1M count=8").await;
        for (what, _, script) in ROWS.iter().filter(|(_, of, _)| std::ptr::fn_addr_eq(*of, set)) {
            let mut fastest = Duration::MAX;
            for _ in 0..TRIES {
                fastest = fastest.min(took(&free, script).await);
                if fastest < LEAST / 2 {
                    break;
                }
            }
            assert!(fastest < LEAST / 2, "{what}, with no limit: {fastest:?}");
            let slow = took(&slowed, script).await;
            assert!(slow >= LEAST * 9 / 10, "{what}: {slow:?}, and {fastest:?} with no limit");
        }
        slowed.close().await;
    }
    free.close().await;
}

/// What a program writes and does not write out is written out by somebody else, some time later. Version 1 counts it as that
/// one's, version 2 as the program's.
pub(crate) async fn what_is_written_out_for_it(world: Arc<World>) {
    if !is_here(&world, "what_is_written_out_for_it").await {
        return;
    }
    let probe = world.provider.probe().await;
    let found = probe.remarks.iter().find(|finding| finding.wall == "io_limit").unwrap();
    let slowed = limited(&world, Some(BYTES)).await;
    let began = Instant::now();
    sh(&slowed, "dd if=/dev/zero of=late bs=64k count=128").await;
    let workspaces = children_named("topside-init").into_iter().map(|pid| format!("/proc/{pid}/root/workspace"));
    let workspace = workspaces.map(std::path::PathBuf::from).find(|path| path.join("late").exists()).unwrap();
    let written = tokio::task::spawn_blocking(move || {
        rustix::fs::syncfs(std::fs::File::open(workspace).unwrap()).unwrap();
        began.elapsed()
    });
    let written = written.await.unwrap();
    if found.detail.starts_with("cgroup v2") {
        assert!(written >= LEAST * 9 / 10, "{written:?}");
    } else {
        assert!(
            written < LEAST / 2,
            "{written:?}: version 1 counts it, and the page on sandboxes says that it does not"
        );
    }
    slowed.close().await;
}

/// A process whose requests the kernel holds back hears no signal. It ends with its sandbox all the same.
pub(crate) async fn a_slowed_sandbox_ends_at_once(world: Arc<World>) {
    if !is_here(&world, "a_slowed_sandbox_ends_at_once").await {
        return;
    }
    let standstill: Set = |limits| limits.io_bytes_per_second_max = STANDSTILL_BYTES_PER_SECOND;
    let sandbox = limited(&world, Some(standstill)).await;
    let _waits = sandbox.start(command(&["dd", "if=/dev/zero", "of=hog", "bs=32M", "count=1", "oflag=direct"])).await;
    let waits = || {
        let dd = descendants(std::process::id()).into_iter().find(|(_, name)| name == "dd");
        let stat = dd.and_then(|(pid, _)| std::fs::read_to_string(format!("/proc/{pid}/stat")).ok());
        stat.is_some_and(|stat| stat.contains(") D "))
    };
    until("a write that waits", waits).await;
    sandbox.close().await;
    assert!(!waits());
}

/// A limit that is asked for and can't be had is refused by name, or told to be missing where the policy does without it.
pub(crate) async fn what_can_not_be_limited_is_told(world: Arc<World>) {
    let memory = if world.root { Workspace::Scratch } else { world.session(Start::Fresh, new_id()) };
    let mut spec = world.spec(memory);
    world.provider.create(spec.clone()).await.unwrap().close().await;
    BYTES(&mut spec.limits);
    spec.id = new_id();
    match world.provider.create(spec.clone()).await {
        Err(Error::Wall { wall, detail, .. }) => {
            assert!(wall == "io_limit" && detail.contains("in memory"), "{wall}: {detail}");
        }
        other => panic!("{other:?}"),
    }
    spec.walls_optional.push("io_limit".to_owned());
    spec.id = new_id();
    let sandbox = world.provider.create(spec).await.unwrap();
    assert!(sandbox.walls().missing.iter().any(|wall| wall == "io_limit"), "{:?}", sandbox.walls());
    sandbox.close().await;
}
