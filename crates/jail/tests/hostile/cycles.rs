//! Behaviour 40 again, many times over: sandboxes that do their worst and end at any moment, also while they are made. Of all of
//! them nothing may be left, and neither harness nor launcher may have grown.

use super::attempts::{MODE, PROGRAM, WORKED};
use super::raw;
use crate::support::{Traces, World, children_named, command, descendants, environment, new_id, pool, traces, until};
use sandbox::{Chunk, Provider as _, Spec, Start, Workspace};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How many cycles are run, unless the environment says otherwise.
const CYCLES: (&str, usize) = ("TOPSIDE_HOSTILE_CYCLES", 60);
/// Where the random choices begin; the environment may say otherwise, too.
const SEED: (&str, usize) = ("TOPSIDE_HOSTILE_SEED", 1);
/// What one process may hold more after all cycles than after a third of them, beside what each cycle may leave; and a part of
/// what it holds already, by which an allocator that was used a lot comes and goes.
const SETTLES_BYTES_MAX: u64 = 512 << 10;
/// What the pages of the harness may come to beyond that: its allocator has an arena for every thread, and which thread does
/// what is chance. What it has given out and not had back is counted by itself, without any of this.
const ARENAS_BYTES_MAX: u64 = 4 << 20;
/// Before anything is counted every deed is done, over and over until a round of them adds less than this to a process; rounds
/// that go on adding are a failure of their own.
const ROUND_BYTES_MAX: u64 = 128 << 10;
const ROUNDS_MAX: usize = 16;
const SETTLES_PART: u64 = 20;
/// What one cycle may leave in a process's memory: less than the smallest thing that is kept for one sandbox.
const CYCLE_BYTES_MAX: u64 = 256;
/// A start that is given up is given up within so many microseconds.
const START_MICROSECONDS_MAX: u64 = 12_000;
const SAMPLES: usize = 30;
/// More than ever stand ready.
const READY_MAX: usize = 8;

/// What a sandbox does when its end comes: each says a word first, then goes on until it is ended.
#[derive(Clone, Copy)]
enum Deed {
    Shell(&'static str),
    Act(&'static str),
    Terminal(&'static str),
}

const DEEDS: [(&str, Deed); 12] = [
    ("fork bomb", Deed::Shell("f() { f | f & }; echo on; f; exec sleep 1000")),
    ("storm of mounts", Deed::Act("storm mounts")),
    ("open files", Deed::Act("hold files")),
    ("deep tree", Deed::Shell("mkdir -p $(printf 'd/%.0s' $(seq 300)); touch $(seq 200); echo on; exec sleep 1000")),
    ("deaf", Deed::Act("be deaf")),
    ("memory", Deed::Act("take memory")),
    ("memory of nobody", Deed::Act("take memory in a file without a name")),
    ("orphans", Deed::Shell("for i in 1 2 3; do setsid sleep 1000 & done; echo on; exec sleep 1000")),
    ("output that nobody reads", Deed::Shell("exec yes")),
    ("stopped", Deed::Shell("sleep 1000 & echo on; kill -STOP $! $$; echo never")),
    (
        "full",
        Deed::Shell("dd if=/dev/zero of=fill bs=64k 2>/dev/null; echo on; exec dd if=/dev/zero of=/tmp/fill bs=64k"),
    ),
    ("terminal", Deed::Terminal("echo on; exec cat")),
];

/// How it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Closed,
    Dropped,
    /// Its first process is killed from outside.
    Killed,
    /// Nobody waits for its start any more.
    GivenUp,
    /// A process that stands ready for the next start is killed.
    NeverBegun,
}

const ENDS: [End; 7] =
    [End::Closed, End::Dropped, End::Killed, End::GivenUp, End::Closed, End::GivenUp, End::NeverBegun];

/// Tries every change of mounts over and over, as who it is and as root of namespaces of its own.
fn storm(_: &[String]) -> String {
    println!("on");
    raw::gain();
    let (tmpfs, tmp) = (raw::at(c"tmpfs"), raw::at(c"/tmp"));
    loop {
        let got = [
            raw::call_with(libc::SYS_mount, [tmpfs, tmp, tmpfs, 0, 0]),
            raw::call_with(libc::SYS_fsopen, [tmpfs, 0]),
            raw::call_with(libc::SYS_open_tree, [i64::from(libc::AT_FDCWD), tmp, 1]),
            raw::call_with(libc::SYS_umount2, [tmp, i64::from(libc::MNT_DETACH)]),
        ];
        if got.iter().any(Result::is_ok) {
            return WORKED.to_owned();
        }
    }
}

/// Holds as many files open as it may, in many processes.
fn hold(_: &[String]) -> String {
    for _ in 0..8 {
        raw::child(|| {
            let mut held = Vec::new();
            while let Ok(file) = std::fs::File::open("/proc/self/status") {
                held.push(file);
            }
            raw::stay()
        });
    }
    println!("on");
    raw::stay()
}

pub(crate) const ACTS: &[super::Act] = &[("storm mounts", storm), ("hold files", hold)];

/// A generator that gives the same choices for the same seed.
struct Choices(u64);

impl Choices {
    fn of(&mut self, count: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % count
    }
}

/// What must be as it was.
#[derive(Debug, PartialEq, Eq)]
struct Footprint {
    traces: Traces,
    launcher_descriptors: usize,
    launcher_children: usize,
    zombies: usize,
    stem_descriptors: usize,
    files: usize,
}

fn count(directory: &Path) -> usize {
    std::fs::read_dir(directory).map_or(0, |entries| entries.flatten().count())
}

/// Files and directories below, the contents of images not counted.
fn files(directory: &Path) -> usize {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| 1 + if entry.file_type().is_ok_and(|kind| kind.is_dir()) { files(&entry.path()) } else { 0 })
        .sum()
}

fn open_files(process: u32) -> usize {
    count(Path::new(&format!("/proc/{process}/fd")))
}

impl Footprint {
    fn now(world: &World) -> Self {
        let launcher = children_named("topside-launch")[0];
        let stems = children_named("topside-stem");
        Self {
            traces: traces(&world.data),
            launcher_descriptors: open_files(launcher),
            launcher_children: descendants(launcher).len(),
            zombies: zombies(launcher),
            stem_descriptors: stems.into_iter().map(open_files).max().unwrap_or(0),
            files: files(&world.data) + pool().map_or(0, |pool| files(&pool)),
        }
    }
}

/// Children of a process that ended and were not looked at.
fn zombies(of: u32) -> usize {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let states = entries.filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok());
    let of = format!(" {of}");
    states.filter(|stat| stat.rsplit_once(") Z").is_some_and(|(_, tail)| tail.starts_with(&format!("{of} ")))).count()
}

/// Memory that a process has of its own, in bytes.
fn own_bytes(process: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{process}/smaps_rollup")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("Anonymous:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// What this process's allocator has given out and not had back, in bytes.
#[expect(unsafe_code, reason = "no wrapper counts what is given out")]
fn given_out_bytes() -> u64 {
    // SAFETY: it takes no argument and gives a plain struct.
    let info = unsafe { libc::mallinfo2() };
    (info.uordblks + info.hblkhd) as u64
}

/// What was measured of one process, each with the number of cycles before it.
#[derive(Default)]
struct Growth(Vec<(u64, u64)>);

impl Growth {
    /// Without the first third, in which allocators and caches fill.
    fn settled(&self) -> &[(u64, u64)] {
        &self.0[self.0.len() / 3..]
    }

    /// Bytes a cycle, by least squares.
    fn slope(&self) -> f64 {
        let points: Vec<(f64, f64)> = self.settled().iter().map(|(x, y)| (*x as f64, *y as f64)).collect();
        let count = points.len() as f64;
        let (x, y) = points.iter().fold((0.0, 0.0), |(x, y), point| (x + point.0 / count, y + point.1 / count));
        let over: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
        let under: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
        over / under.max(1.0)
    }

    fn check(&self, who: &str, more_bytes: u64) {
        let settled = self.settled();
        let ((first_cycle, first), (last_cycle, last)) = (settled[0], settled[settled.len() - 1]);
        println!(
            "cycles: {who}: {} KiB of its own after {first_cycle} cycles, {} KiB after {last_cycle}, {:.0} bytes a cycle",
            first >> 10,
            last >> 10,
            self.slope()
        );
        let allowed =
            more_bytes + SETTLES_BYTES_MAX + first / SETTLES_PART + (last_cycle - first_cycle) * CYCLE_BYTES_MAX;
        assert!(last.saturating_sub(first) <= allowed, "{who} grew from {first} to {last} bytes");
    }
}

/// What each cycle asks for: small, so that everything that can be full is full soon.
fn spec(world: &World, workspace: Workspace) -> Spec {
    let mut spec = world.spec(workspace);
    spec.limits.memory_bytes_max = 64 << 20;
    spec.limits.workspace_bytes_max = 4 << 20;
    spec.limits.tmp_bytes_max = 1 << 20;
    spec
}

/// Starts the deed and waits until it says that it has begun, or has ended already.
async fn begin(sandbox: &Arc<dyn sandbox::Sandbox>, deed: Deed) -> Option<Box<dyn sandbox::Process>> {
    let mode;
    let mut asked = match deed {
        Deed::Shell(script) | Deed::Terminal(script) => command(&["/bin/sh", "-c", script]),
        Deed::Act(name) => {
            mode = format!("{MODE}{name}");
            command(&[PROGRAM, &mode])
        }
    };
    asked.terminal = matches!(deed, Deed::Terminal(_));
    let mut process = sandbox.start(asked).await.ok()?;
    match process.next().await {
        Ok(Chunk::Output(..)) => Some(process),
        Ok(Chunk::Exit(_)) | Err(_) => None,
    }
}

async fn cycle(world: &World, number: usize, choices: &mut Choices) {
    let (name, deed) = DEEDS[number % DEEDS.len()];
    let end = ENDS[usize::try_from(choices.of(ENDS.len() as u64)).unwrap()];
    let workspace = if choices.of(3) == 0 { Workspace::Scratch } else { world.session(Start::Fresh, new_id()) };
    let told = format!("cycle {number}: {name}, {end:?}");
    match end {
        End::GivenUp => {
            let time = Duration::from_micros(choices.of(START_MICROSECONDS_MAX));
            let _ = tokio::time::timeout(time, world.provider.create(spec(world, workspace.clone()))).await;
        }
        End::NeverBegun => {
            children_named("topside-stem").into_iter().for_each(kill);
            // Each that was killed may fail one start, and no more than that.
            for _ in 0..READY_MAX {
                if let Ok(sandbox) = world.provider.create(spec(world, workspace.clone())).await {
                    sandbox.close().await;
                }
            }
        }
        End::Closed | End::Dropped | End::Killed => {
            let made = world.provider.create(spec(world, workspace.clone())).await;
            let sandbox = made.unwrap_or_else(|error| panic!("{told}: {error}"));
            let process = begin(&sandbox, deed).await;
            if end == End::Killed {
                children_named("topside-init").into_iter().for_each(kill);
            }
            if end != End::Dropped {
                sandbox.close().await;
            }
            drop(process);
        }
    }
    let removed = world.provider.workspace_remove(&workspace).await;
    removed.unwrap_or_else(|error| panic!("{told}: {error}"));
}

fn kill(process: u32) {
    let process = i32::try_from(process).ok().and_then(rustix::process::Pid::from_raw);
    let _ = rustix::process::kill_process(process.unwrap(), rustix::process::Signal::KILL);
}

/// Does every deed until what is made once is made, and allocators and caches hold what they hold from then on.
async fn warm_up(world: &World, choices: &mut Choices, launcher: u32) {
    let own = || [given_out_bytes(), own_bytes(launcher)];
    let mut most = own();
    for _ in 0..ROUNDS_MAX {
        for number in 0..DEEDS.len() {
            cycle(world, number, choices).await;
        }
        let now = own();
        if now.iter().zip(most).all(|(now, most)| *now <= most + ROUND_BYTES_MAX) {
            return;
        }
        most = [now[0].max(most[0]), now[1].max(most[1])];
    }
    panic!("harness and launcher grew with each of {ROUNDS_MAX} rounds, to {most:?} bytes");
}

pub(crate) async fn hostile_cycles_leave_nothing(world: Arc<World>) {
    let cycles = environment(CYCLES);
    let mut choices = Choices(environment(SEED) as u64);
    until("the launcher has its name", || !children_named("topside-launch").is_empty()).await;
    let launcher = children_named("topside-launch")[0];
    warm_up(&world, &mut choices, launcher).await;
    let before = at_rest(&world).await;
    let given_out = given_out_bytes();
    let (mut harness_growth, mut launcher_growth) = (Growth::default(), Growth::default());
    for number in 0..cycles {
        if number % (cycles / SAMPLES).max(1) == 0 {
            harness_growth.0.push((number as u64, own_bytes(std::process::id())));
            launcher_growth.0.push((number as u64, own_bytes(launcher)));
        }
        cycle(&world, number, &mut choices).await;
    }
    settled(&world, &format!("everything is as before {cycles} cycles: {before:?}"), |now| *now == before).await;
    harness_growth.check("harness", ARENAS_BYTES_MAX);
    launcher_growth.check("launcher", 0);
    let now = given_out_bytes();
    println!("cycles: harness: {} KiB given out before, {} KiB after", given_out >> 10, now >> 10);
    let allowed = given_out + SETTLES_BYTES_MAX + cycles as u64 * CYCLE_BYTES_MAX;
    assert!(now <= allowed, "the harness has {given_out} bytes given out before and {now} after");
}

/// What there is when earlier sandboxes are gone and whatever is kept ready for the next ones is ready, however slow the machine.
async fn at_rest(world: &World) -> Footprint {
    const SAME_MIN: Duration = Duration::from_secs(1);
    let (mut last, mut since) = (Footprint::now(world), Instant::now());
    settled(world, "earlier sandboxes are gone and the next are ready", |now| {
        if *now != last {
            (last, since) = (Footprint { traces: Traces { ..now.traces }, ..*now }, Instant::now());
        }
        now.traces.processes == 0 && now.traces.loops == 0 && now.zombies == 0 && since.elapsed() >= SAME_MIN
    })
    .await;
    last
}

/// Waits until what is left is as it should be, and says what it is when that never happens.
async fn settled(world: &World, what: &str, mut holds: impl FnMut(&Footprint) -> bool) {
    // Much less than a case may take: what is left is to be told.
    const WAIT_MAX: Duration = Duration::from_secs(20);
    let begun = Instant::now();
    // What was last asked of the launcher is done when it answers.
    world.provider.create(spec(world, Workspace::Scratch)).await.unwrap().close().await;
    while begun.elapsed() < WAIT_MAX {
        if holds(&Footprint::now(world)) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let now = Footprint::now(world);
    assert!(holds(&now), "never: {what}; {now:?}");
}
