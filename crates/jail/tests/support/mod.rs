//! Runs tests that need the launcher: `main` forks it before any thread exists, then the cases run one after another and are
//! reported as cargo does. Also what every case needs: sandboxes, shell commands inside, and things seen from outside.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a test with a main of its own is a test"
)]
#![allow(dead_code, reason = "each of the programs that share this uses its own part of it")]

pub(crate) mod checkpoints;
pub(crate) mod conformance;
pub(crate) mod head;
#[path = "../hostile/mod.rs"]
pub(crate) mod hostile;
pub(crate) mod tar;
pub(crate) mod user;

use domain::{Id, id};
use sandbox::{
    Bind, Chunk, Command, Error, Exit, Limits, Process, Provider as _, RelPath, Sandbox, Spec, Start, Stream, Workspace,
};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use stdx::{Clock, Random};

/// A hang is a failure; nothing here takes near as long, unless the environment asks for more of it than usual.
const CASE_SECONDS_MAX: (&str, usize) = ("TOPSIDE_CASE_SECONDS_MAX", 120);
/// The name of a variable that is in the harness's environment, and its value: neither may be seen inside.
pub(crate) const CANARY: (&str, &str) = ("TOPSIDE_TEST_CANARY", "canary-5b1c9f72e0");

/// What the last sandbox under epoch 1 left, which is every sandbox's here unless a case says otherwise.
pub(crate) const KEPT: Start = Start::Kept { generation: 1 };

/// The users of every sandbox of this program, where it says some.
pub(crate) static DECLARED: std::sync::OnceLock<sandbox::Accounts> = std::sync::OnceLock::new();

pub(crate) type Case = (&'static str, fn(Arc<World>) -> Pin<Box<dyn Future<Output = ()> + Send>>);

/// Lists cases: the names of async functions that take the world.
#[macro_export]
macro_rules! cases {
    ($($name:ident),* $(,)?) => { vec![$({ let case: $crate::support::Case = (stringify!($name), |world| Box::pin($name(world))); case }),*] };
}

/// A number that the environment may set, and what it is otherwise.
pub(crate) fn environment((name, usual): (&str, usize)) -> usize {
    std::env::var(name).map_or(usual, |value| value.parse().unwrap_or_else(|_| panic!("{name}={value}")))
}

/// The provider, and limits that sandboxes get looser than their specs say.
#[derive(Debug)]
pub(crate) struct Outside {
    provider: Arc<jail::Provider>,
    loose: &'static [&'static str],
}

impl std::ops::Deref for Outside {
    type Target = jail::Provider;

    fn deref(&self) -> &jail::Provider {
        &self.provider
    }
}

impl Outside {
    pub(crate) fn new(provider: jail::Provider) -> Self {
        Self { provider: Arc::new(provider), loose: &[] }
    }

    /// The same provider with limits loosened: never removed, and still within what bounds the whole test program.
    pub(crate) fn loosened(&self, loose: &'static [&'static str]) -> Self {
        Self { provider: Arc::clone(&self.provider), loose }
    }

    /// Loosens one limit by its name.
    pub(crate) fn loosen(limits: &mut Limits, limit: &str) {
        match limit {
            "memory_bytes_max" => limits.memory_bytes_max = 2 << 30,
            "processes_max" => limits.processes_max = 400,
            "cpu_milli_max" => limits.cpu_milli_max = 64_000,
            "workspace_bytes_max" => limits.workspace_bytes_max = 256 << 20,
            "workspace_inodes_max" => limits.workspace_inodes_max = 20_000,
            // Above what memory there is for it.
            "tmp_bytes_max" => limits.tmp_bytes_max = 1 << 40,
            "commands_max" => limits.commands_max = 256,
            "io_bytes_per_second_max" => limits.io_bytes_per_second_max = 1 << 30,
            "io_operations_per_second_max" => limits.io_operations_per_second_max = 1_000_000,
            other => panic!("no limit `{other}` can be loosened"),
        }
    }
}

#[async_trait::async_trait]
impl sandbox::Provider for Outside {
    fn name(&self) -> &'static str {
        self.provider.name()
    }

    async fn probe(&self) -> sandbox::Probe {
        self.provider.probe().await
    }

    async fn mounts_missing(&self) -> Option<String> {
        self.provider.mounts_missing().await
    }

    async fn accounts_missing(&self) -> Option<String> {
        self.provider.accounts_missing().await
    }

    async fn create(&self, mut spec: Spec) -> Result<Arc<dyn Sandbox>, Error> {
        self.loose.iter().for_each(|limit| Self::loosen(&mut spec.limits, limit));
        self.provider.create(spec).await
    }

    async fn workspace_exists(&self, workspace: &Workspace) -> Result<bool, Error> {
        self.provider.workspace_exists(workspace).await
    }

    async fn workspace_remove(&self, workspace: &Workspace) -> Result<(), Error> {
        self.provider.workspace_remove(workspace).await
    }

    async fn living(&self) -> Result<Vec<sandbox::Living>, Error> {
        self.provider.living().await
    }

    async fn find(&self, id: Id<id::Sandbox>) -> Option<Arc<dyn Sandbox>> {
        self.provider.find(id).await
    }

    async fn end(&self, id: Id<id::Sandbox>, why: &str) -> Result<(), Error> {
        self.provider.end(id, why).await
    }

    async fn farewell(&self) {
        self.provider.farewell().await;
    }
}

/// What cases share.
pub(crate) struct World {
    pub(crate) provider: Outside,
    pub(crate) data: PathBuf,
    pub(crate) root: bool,
}

/// The argument that makes a test program a harness that waits to be killed: the data directory, then the session.
pub(crate) const VICTIM: &str = "--victim";

/// The argument that makes a test program the harness that comes after it, with the same arguments.
pub(crate) const HEIR: &str = "--heir";

/// Is a harness with a busy sandbox, until somebody kills it, or the one that comes after it and says what it found. `None`
/// when neither was asked for.
pub(crate) fn victim() -> Option<ExitCode> {
    let (mode, data) = std::env::args().find_map(|argument| {
        let (mode, data) = argument.split_once('=')?;
        [VICTIM, HEIR].contains(&mode).then(|| (mode.to_owned(), PathBuf::from(data)))
    })?;
    let session = std::env::args().next_back()?.parse().ok()?;
    let launcher = jail::launch().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let provider = Outside::new(jail::Provider::new(launcher, data.clone(), Random::system()).unwrap());
    let world = World { provider, data, root: rustix::process::geteuid().is_root() };
    runtime.block_on(async {
        if mode == HEIR {
            let sandbox = world.provider.create(world.spec(world.session(KEPT, session))).await.unwrap();
            print!("{}", sh(&sandbox, "cat made; pgrep -c sleep").await.out);
            return sandbox.close().await;
        }
        let sandbox = world.provider.create(world.spec(world.session(Start::Fresh, session))).await.unwrap();
        sh(&sandbox, "echo before > made; setsid sleep 1000 &").await;
        let _held = sandbox.start(command(&["sleep", "1000"])).await.unwrap();
        println!("ready");
        std::future::pending::<()>().await;
    });
    Some(ExitCode::SUCCESS)
}

/// Runs the cases whose names hold what was asked for.
pub(crate) fn run(launcher: jail::Launcher, data: &Path, cases: Vec<Case>) -> ExitCode {
    run_with(launcher, data, cases, |provider| provider)
}

/// As [`run`], with a provider of one's own making.
pub(crate) fn run_with(
    launcher: jail::Launcher,
    data: &Path,
    cases: Vec<Case>,
    make: impl FnOnce(jail::Provider) -> jail::Provider,
) -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    if std::env::args().any(|argument| argument == "--list") {
        cases.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let root = rustix::process::geteuid().is_root();
    let provider = Outside::new(make(jail::Provider::new(launcher, data.to_owned(), Random::system()).unwrap()));
    let world = Arc::new(World { provider, data: data.to_owned(), root });
    let wait = Duration::from_secs(environment(CASE_SECONDS_MAX) as u64);
    let (mut passed, mut failed, mut filtered) = (0, Vec::new(), 0);
    for (name, case) in cases {
        if !wanted.is_empty() && !wanted.iter().any(|wanted| name.contains(wanted.as_str())) {
            filtered += 1;
            continue;
        }
        let done = runtime.block_on(async {
            let task = tokio::spawn(case(Arc::clone(&world)));
            match tokio::time::timeout(wait, task).await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err(format!("it hangs; below are\n{}", below())),
            }
        });
        match done {
            Ok(()) => {
                passed += 1;
                println!("test {name} ... ok");
            }
            Err(why) => {
                println!("{name}: {why}\ntest {name} ... FAILED");
                failed.push(format!("{name}: {why}"));
            }
        }
    }
    failed.iter().for_each(|failure| println!("failure: {failure}"));
    let result = if failed.is_empty() { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {result}. {passed} passed; {} failed; 0 ignored; 0 measured; {filtered} filtered out\n",
        failed.len()
    );
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Says that something was not tried; in CI that is a failure.
pub(crate) fn skip(name: &str, why: &str) {
    eprintln!("SKIPPED {name}: {why}");
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "CI skips nothing: {name}");
}

/// What a command gave.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) exit: Exit,
}

impl World {
    pub(crate) fn session(&self, start: Start, session: Id<id::Session>) -> Workspace {
        Workspace::Session { tenant: "default".to_owned(), session, start }
    }

    pub(crate) fn spec(&self, workspace: Workspace) -> Spec {
        let limits = Limits {
            memory_bytes_max: 512 << 20,
            workspace_bytes_max: 64 << 20,
            workspace_inodes_max: 2_000,
            tmp_bytes_max: 16 << 20,
            processes_max: 64,
            ..Limits::default()
        };
        let program = std::env::current_exe().unwrap();
        let binds = vec![Bind { host: program, inside: hostile::attempts::PROGRAM.to_owned() }];
        let (environment, walls_optional) = (Vec::new(), Vec::new());
        Spec {
            id: new_id(),
            workspace,
            environment,
            root: sandbox::Root::default(),
            binds,
            mounts: Vec::new(),
            accounts: DECLARED.get().cloned().unwrap_or_default(),
            left_out: Vec::new(),
            limits,
            walls_optional,
            landlock_version_min: 0,
            epoch: 1,
        }
    }

    /// A sandbox with a fresh workspace.
    pub(crate) async fn sandbox(&self) -> Arc<dyn Sandbox> {
        self.provider.create(self.spec(self.session(Start::Fresh, new_id()))).await.unwrap()
    }
}

pub(crate) fn new_id<K: domain::id::Kind>() -> Id<K> {
    Id::new(Clock::system().wall_ms(), Random::system().bytes())
}

pub(crate) fn path(text: &str) -> RelPath {
    text.parse().unwrap()
}

pub(crate) fn command(argv: &[&str]) -> Command {
    let argv = argv.iter().map(|&argument| argument.to_owned()).collect();
    Command {
        argv,
        workdir: RelPath::root(),
        environment: Vec::new(),
        terminal: false,
        stdin: false,
        epoch: 1,
        name: None,
        user: None,
    }
}

/// Reads to the end, keeping at most a megabyte of each stream.
pub(crate) async fn finish(process: &mut dyn Process) -> Result<Outcome, Error> {
    const KEPT_BYTES_MAX: usize = 1 << 20;
    let (mut out, mut err) = (Vec::new(), Vec::new());
    loop {
        match process.next().await? {
            Chunk::Output(stream, bytes) => {
                let kept = if stream == Stream::Stdout { &mut out } else { &mut err };
                let room = KEPT_BYTES_MAX.saturating_sub(kept.len());
                kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
            }
            Chunk::Exit(exit) => {
                let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
                return Ok(Outcome { out: text(out), err: text(err), exit });
            }
        }
    }
}

/// Runs a shell script to its end.
pub(crate) async fn sh(sandbox: &Arc<dyn Sandbox>, script: &str) -> Outcome {
    let mut process = sandbox.start(command(&["/bin/sh", "-c", script])).await.unwrap();
    finish(process.as_mut()).await.unwrap()
}

/// Waits until something holds, looking again whenever others had their turn.
pub(crate) async fn until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..2_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never: {what}; last seen {:?}", descendants(std::process::id()));
}

/// Waits until a script inside says so.
pub(crate) async fn until_said(sandbox: &Arc<dyn Sandbox>, script: &str, wanted: &str) {
    for _ in 0..2_000 {
        if sh(sandbox, script).await.out == wanted {
            return;
        }
    }
    panic!("never: {script}");
}

/// This process's resident memory.
pub(crate) fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1_024
}

/// What a host would keep of sandboxes: processes by name, groups, loop devices, this process's descriptors.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Traces {
    pub(crate) processes: usize,
    pub(crate) groups: usize,
    /// Devices of workspaces.
    pub(crate) loops: usize,
    /// The device of the pool that images of workspaces stand in, as long as the harness lives.
    pub(crate) pools: usize,
    pub(crate) descriptors: usize,
    pub(crate) mounts: usize,
}

/// How long nothing must change before it counts: a launcher makes first processes for later when nobody has asked for a while.
const CALM: Duration = Duration::from_millis(40);
const LOOKS_MAX: usize = 250;

/// What there is when nothing is being made or removed.
pub(crate) fn traces(data: &Path) -> Traces {
    let mut last = look(data);
    for _ in 0..LOOKS_MAX {
        std::thread::sleep(CALM);
        let now = look(data);
        if now == last {
            break;
        }
        last = now;
    }
    last
}

fn look(data: &Path) -> Traces {
    let launcher = children_named("topside-launch").first().copied().unwrap_or(0);
    let bases = directories_named(Path::new("/sys/fs/cgroup"), &format!("topside-{launcher}"), 6);
    let groups = bases.iter().flat_map(|base| list(&base.display().to_string()).collect::<Vec<_>>());
    let groups = groups.filter(|name| name.parse::<u64>().is_ok()).count();
    let (loops, pools) = loops(data);
    Traces {
        processes: children_named("topside-init").len(),
        groups,
        loops,
        pools,
        descriptors: list("/proc/self/fd").count(),
        mounts: std::fs::read_to_string(format!("/proc/{launcher}/mountinfo")).map_or(0, |text| text.lines().count()),
    }
}

/// The directory that images of workspaces stand in, through this process's hold on the pool; `None` where there is no pool.
pub(crate) fn pool() -> Option<PathBuf> {
    const BTRFS: u64 = 0x9123_683e;
    let held = list("/proc/self/fd").map(|number| Path::new("/proc/self/fd").join(number));
    held.filter(|path| path.is_dir()).find(|path| {
        let found = rustix::fs::statfs(path).map(|found| found.f_type.cast_unsigned());
        // A data directory on btrfs needs no pool.
        found == Ok(BTRFS) && std::fs::read_link(path).is_ok_and(|target| target == Path::new("/"))
    })
}

/// Devices of workspaces of `data`, and of its pool.
fn loops(data: &Path) -> (usize, usize) {
    use std::os::unix::fs::MetadataExt as _;
    let data = data.display().to_string();
    let pool = pool().and_then(|pool| std::fs::metadata(pool).ok()).map(|metadata| metadata.dev());
    let (mut workspaces, mut pools) = (0, 0);
    for name in list("/sys/block").filter(|name| name.starts_with("loop")) {
        let file = format!("/sys/block/{name}/loop/backing_file");
        let Ok(backing) = std::fs::read_to_string(file) else { continue };
        let is_below = backing.starts_with(&data);
        if is_below && backing.trim_end().ends_with(".btrfs") {
            pools += 1;
        } else if is_below || (pool.is_some() && hostile::raw::backing_device(&name) == pool) {
            // What stands in the pool is named from the pool's root, and told apart by the file system that it is on.
            workspaces += 1;
        }
    }
    (workspaces, pools)
}

fn list(directory: &str) -> impl Iterator<Item = String> {
    std::fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
}

/// The directories of this name, at most so deep: where groups lie differs between versions of cgroups.
pub(crate) fn directories_named(below: &Path, name: &str, depth: usize) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(below).into_iter().flatten().flatten();
    let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let found = |path: PathBuf| match path.file_name().is_some_and(|found| found == name) {
        true => vec![path],
        false if depth > 0 => directories_named(&path, name, depth - 1),
        false => Vec::new(),
    };
    directories.flat_map(|entry| found(entry.path())).collect()
}

/// Descendants of this process with a name.
pub(crate) fn children_named(wanted: &str) -> Vec<u32> {
    descendants(std::process::id()).into_iter().filter(|(_, name)| name == wanted).map(|(pid, _)| pid).collect()
}

/// Living descendants of a process, with their names.
pub(crate) fn descendants(of: u32) -> Vec<(u32, String)> {
    let read = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (head, tail) = stat.rsplit_once(')')?;
        let mut tail = tail.split_ascii_whitespace();
        let alive = !matches!(tail.next(), Some("Z" | "X"));
        let parent: u32 = tail.next()?.parse().ok()?;
        alive.then(|| (pid, parent, head.split_once('(').map_or(String::new(), |(_, name)| name.to_owned())))
    };
    let all: Vec<_> = list("/proc").filter_map(|name| read(name.parse().ok()?)).collect();
    let (mut found, mut family) = (Vec::new(), vec![of]);
    while let Some(parent) = family.pop() {
        for (pid, _, name) in all.iter().filter(|(_, of, _)| *of == parent) {
            family.push(*pid);
            found.push((*pid, name.clone()));
        }
    }
    found
}

/// The processes below this one, each with its state and what it waits for: what a case that hangs leaves to look at.
fn below() -> String {
    let word = |pid: u32, file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let told = descendants(std::process::id()).into_iter().map(|(pid, name)| {
        let stat = word(pid, "stat");
        let state = stat.rsplit_once(')').and_then(|(_, tail)| tail.trim().chars().next()).unwrap_or('?');
        format!("  {pid} {name} {state} {} {}", word(pid, "wchan"), word(pid, "syscall").trim())
    });
    told.collect::<Vec<_>>().join("\n")
}

/// Runs this program again with more arguments and variables, and gives its end.
pub(crate) fn again(arguments: &[&str], variables: &[(&str, &str)]) -> ExitCode {
    let own = std::env::current_exe().unwrap();
    let mut command = std::process::Command::new(own);
    command.args(std::env::args().skip(1)).args(arguments).envs(variables.iter().copied());
    let status = command.status().unwrap();
    if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Bounds of everything that a test program and its sandboxes do together.
const OUTER_MEMORY_BYTES_MAX: &str = "4294967296";
const OUTER_PROCESSES_MAX: &str = "2000";

/// Groups around a whole test program. As root they are made here; otherwise there are none.
pub(crate) struct Outer {
    /// The group of each controller, and the one it was made in.
    groups: Vec<(PathBuf, PathBuf)>,
}

impl Outer {
    /// Makes bounded groups below this process's own, given to `owner`, and moves this process into them.
    pub(crate) fn enter(name: &str, owner: Option<u32>) -> Self {
        let mut outer = Self { groups: Vec::new() };
        if !rustix::process::geteuid().is_root() {
            return outer;
        }
        let own = std::fs::read_to_string("/proc/self/cgroup").unwrap();
        if let Some(path) = own.lines().find_map(|line| line.strip_prefix("0::")) {
            outer.enter_unified(name, owner, Path::new(&format!("/sys/fs/cgroup{path}")));
        }
        for (controller, limit, value) in [
            ("memory", "memory.limit_in_bytes", OUTER_MEMORY_BYTES_MAX),
            ("pids", "pids.max", OUTER_PROCESSES_MAX),
            ("cpu", "", ""),
        ] {
            let path = own.lines().find_map(|line| {
                let mut fields = line.splitn(3, ':').skip(1);
                fields.next()?.split(',').any(|one| one == controller).then(|| fields.next())?
            });
            let Some(path) = path else { continue };
            let parent = PathBuf::from(format!("/sys/fs/cgroup/{controller}{path}"));
            let group = parent.join(format!("outer-{name}-{}", std::process::id()));
            if std::fs::create_dir(&group).is_err() {
                skip(name, &format!("no outer group of `{controller}` can be made"));
                continue;
            }
            if !limit.is_empty() {
                std::fs::write(group.join(limit), value).unwrap();
            }
            for file in ["", "cgroup.procs", "tasks"].iter().filter(|_| owner.is_some()) {
                std::os::unix::fs::chown(group.join(file), owner, owner).unwrap();
            }
            std::fs::write(group.join("cgroup.procs"), std::process::id().to_string()).unwrap();
            outer.groups.push((group, parent));
        }
        outer
    }
}

impl Outer {
    /// The same where controllers are of version 2. A hybrid machine's version 2 tree has none to offer.
    fn enter_unified(&mut self, name: &str, owner: Option<u32>, parent: &Path) {
        let offered = std::fs::read_to_string(parent.join("cgroup.controllers")).unwrap_or_default();
        if !offered.split_ascii_whitespace().any(|offered| offered == "memory") {
            return;
        }
        std::fs::write(parent.join("cgroup.subtree_control"), "+memory +pids +cpu").unwrap();
        // Not every kernel has it, and only few cases need it.
        let _ = std::fs::write(parent.join("cgroup.subtree_control"), "+io");
        let group = parent.join(format!("outer-{name}-{}", std::process::id()));
        std::fs::create_dir(&group).unwrap();
        for (limit, value) in [("memory.max", OUTER_MEMORY_BYTES_MAX), ("pids.max", OUTER_PROCESSES_MAX)] {
            std::fs::write(group.join(limit), value).unwrap();
        }
        for file in ["", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"].iter().filter(|_| owner.is_some())
        {
            std::os::unix::fs::chown(group.join(file), owner, owner).unwrap();
        }
        std::fs::write(group.join("cgroup.procs"), std::process::id().to_string()).unwrap();
        self.groups.push((group, parent.to_owned()));
    }
}

impl Drop for Outer {
    fn drop(&mut self) {
        for (group, parent) in &self.groups {
            let _ = std::fs::write(parent.join("cgroup.procs"), std::process::id().to_string());
            // The launcher may still be on its way out.
            for _ in 0..500 {
                // A launcher of version 2 leaves the leaf that its processes stood in.
                for below in list(&group.display().to_string()) {
                    let _ = std::fs::remove_dir(group.join(below));
                }
                if std::fs::remove_dir(group).is_ok() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}
