//! Behaviour 2: taking memory without end, by every way there is. Walls: the group's memory limit, which kills the taker and
//! says so, and the bounds of file systems in memory.

use super::attempts::{MODE, PROGRAM, io};
use super::raw;
use crate::support::{World, children_named, command, finish, resident_bytes, sh};
use sandbox::{Exit, Provider as _, Workspace};
use std::io::Write as _;
use std::sync::Arc;

/// What every bomb takes: more than the tight limit, less than the loose one.
const BOMB_BYTES: usize = 160 << 20;
const CHUNK_BYTES: usize = 1 << 20;

fn file(at: &str) -> String {
    let chunk = vec![1; CHUNK_BYTES];
    let fill = || -> std::io::Result<()> {
        let mut file = std::fs::File::create(at)?;
        (0..BOMB_BYTES / CHUNK_BYTES).try_for_each(|_| file.write_all(&chunk))
    };
    let got = io(fill());
    let _ = std::fs::remove_file(at);
    got
}

/// Pages are touched one by one, so that they are there.
fn heap(_: &[String]) -> String {
    let mut chunks = Vec::new();
    for _ in 0..BOMB_BYTES / CHUNK_BYTES {
        chunks.push(vec![1_u8; CHUNK_BYTES]);
    }
    super::attempts::told(Ok::<_, i32>(std::hint::black_box(chunks).len()))
}

/// A file without a name.
fn memfd(_: &[String]) -> String {
    let fd = raw::call_with(libc::SYS_memfd_create, [raw::at(c"bomb"), 0]).unwrap();
    file(&format!("/proc/self/fd/{fd}"))
}

/// Full pipes that nobody reads.
fn pipes(_: &[String]) -> String {
    let mut held = Vec::new();
    let chunk = vec![1; 64 << 10];
    let mut taken = 0;
    while taken < BOMB_BYTES && held.len() < 450 {
        let (reader, mut writer) = std::io::pipe().unwrap();
        // As large as one may make them; beyond what a user may have they stay small.
        let _ = rustix::pipe::fcntl_setpipe_size(&writer, 1 << 20);
        rustix::io::ioctl_fionbio(&writer, true).unwrap();
        while let Ok(written) = writer.write(&chunk) {
            taken += written;
        }
        held.push((reader, writer));
    }
    super::attempts::told(Ok::<_, i32>(held.len()))
}

/// One page of every 2 MiB: each needs a page of the page table beside its own.
fn page_tables(_: &[String]) -> String {
    const STEP: usize = 2 << 20;
    let pages = BOMB_BYTES / 8_192;
    let got = raw::touch_sparsely(pages, STEP);
    super::attempts::told(got)
}

pub(crate) const ACTS: &[super::Act] = &[
    ("take memory", heap),
    ("take memory in a file without a name", memfd),
    ("take memory in pipes", pipes),
    ("take memory in page tables", page_tables),
    ("take memory in /tmp", |_| file("/tmp/bomb")),
    ("take memory in /dev/shm", |_| file("/dev/shm/bomb")),
    ("take memory in a workspace", |_| file("bomb")),
];

/// What each bomb meets in a sandbox of 64 MiB, and in one with room for it. A user's pipes are bounded by the kernel, too.
const MET: [(&str, Met); 7] = [
    ("take memory", Met::Killed),
    ("take memory in a file without a name", Met::Killed),
    ("take memory in pipes", Met::KilledOrWorked),
    ("take memory in page tables", Met::Killed),
    ("take memory in /tmp", Met::Full),
    ("take memory in /dev/shm", Met::Full),
    ("take memory in a workspace", Met::Full),
];

#[derive(Clone, Copy, PartialEq)]
enum Met {
    Killed,
    KilledOrWorked,
    Full,
}

pub(crate) async fn memory_is_limited_whichever_way_it_is_taken(world: Arc<World>) {
    let before = resident_bytes();
    for (bomb, met) in MET {
        for memory_bytes_max in [64 << 20, 1 << 30] {
            let loose = memory_bytes_max > 64 << 20;
            let mut spec = world.spec(Workspace::Scratch);
            spec.limits.memory_bytes_max = memory_bytes_max;
            if loose {
                spec.limits.tmp_bytes_max = 256 << 20;
                spec.limits.workspace_bytes_max = 256 << 20;
            }
            let sandbox = world.provider.create(spec).await.unwrap();
            let mut process = sandbox.start(command(&[PROGRAM, &format!("{MODE}{bomb}")])).await.unwrap();
            let got = finish(process.as_mut()).await.unwrap();
            let killed = got.exit == Exit::Signal(9) && got.err.contains("out of memory; memory_bytes_max = 67108864");
            let worked = got.out == "worked\n";
            let right = match (loose, met) {
                // /dev/shm has a bound of its own that is never looser.
                (true, _) => worked || (bomb.contains("/dev/shm") && got.out == "ENOSPC\n"),
                (false, Met::Killed) => killed,
                (false, Met::KilledOrWorked) => killed || worked,
                (false, Met::Full) => got.out == "ENOSPC\n",
            };
            assert!(right, "{bomb}, of {memory_bytes_max}: {got:?}");
            assert_eq!(sh(&sandbox, "echo lives").await.out, "lives\n", "only the bomb was killed");
            sandbox.close().await;
        }
    }
    assert!(resident_bytes().saturating_sub(before) < 16 << 20);
}

/// By size alone the first process could seem the largest, since much of what a bomb takes is counted to nobody.
pub(crate) async fn a_command_goes_before_the_first_process(world: Arc<World>) {
    let sandbox = world.sandbox().await;
    let scores = "cat /proc/self/oom_score_adj";
    assert_eq!(sh(&sandbox, scores).await.out, "1000\n");
    let own = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap();
    let first = children_named("topside-init").into_iter();
    // Those that were closed before may be on their way out.
    let scores = first.filter_map(|first| std::fs::read_to_string(format!("/proc/{first}/oom_score_adj")).ok());
    let scores: Vec<String> = scores.collect();
    assert!(!scores.is_empty() && scores.iter().all(|score| *score == own), "{scores:?}");
    sandbox.close().await;
}

/// A shell that reports its child's death is told on, too; an ordinary kill is not called one by memory.
pub(crate) async fn a_kill_by_memory_is_told(world: Arc<World>) {
    let mut spec = world.spec(Workspace::Scratch);
    spec.limits.memory_bytes_max = 64 << 20;
    let sandbox = world.provider.create(spec).await.unwrap();
    let got = sh(&sandbox, &format!("{PROGRAM} '{MODE}take memory'; exit $?")).await;
    assert!(got.err.contains("out of memory"), "{}", got.err);
    assert!(!sh(&sandbox, "kill -9 $$").await.err.contains("memory"));
    sandbox.close().await;
}
