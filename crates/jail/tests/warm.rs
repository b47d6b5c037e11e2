//! Sandboxes that stand ready before anybody asks, and workspaces in stock: like any other, and nobody's before.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a test with a main of its own is a test"
)]

mod support;

use jail::Warm;
use sandbox::{Provider as _, Sandbox, Spec, Start, Workspace};
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use support::{KEPT, World, new_id, sh};

fn main() -> std::process::ExitCode {
    let launcher = jail::launch().unwrap();
    let data = tempfile::tempdir().unwrap();
    // As a process leaves it that was killed.
    std::fs::create_dir_all(data.path().join(DEAD)).unwrap();
    let cases = cases![
        one_that_stood_ready_is_like_any_other,
        nothing_is_seen_of_who_had_one_before,
        another_kind_is_made_as_ever,
        another_size_is_never_mixed_in,
        what_stood_ready_goes_when_it_is_not_wanted,
        one_that_was_killed_is_stood_in_for,
        what_could_not_be_made_ahead_harms_no_start,
        nobody_is_told_of_one,
        many_at_once_are_all_made,
        starts_that_are_given_up_leave_no_workspace,
        what_is_only_formatted_is_used_too,
        over_an_older_workspace_there_is_an_empty_one,
        what_a_killed_process_left_in_stock_is_removed,
    ];
    support::run_with(launcher, data.path(), cases, |provider| provider.with_stock(FORMATTED))
}

/// In stock, beside those that are mounted.
const FORMATTED: usize = 2;
const MOUNTED: usize = 4;
/// A workspace in stock, of a process that is gone.
const DEAD: &str = "workspaces/.stock/dead/blank";

/// What can stand ready: nothing of the host beside its tools.
fn plain(world: &World) -> Spec {
    Spec { binds: Vec::new(), ..world.spec(world.session(Start::Fresh, new_id())) }
}

/// Waits until so many stand ready.
async fn ready(world: &World, count: usize) {
    let warm = Warm { min: count, max: count };
    for _ in 0..2_000 {
        if world.provider.keep_warm(&plain(world), warm).await.unwrap() == count {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never: {count} that stand ready");
}

async fn take(world: &World, spec: Spec) -> Arc<dyn Sandbox> {
    world.provider.create(spec).await.unwrap()
}

async fn one_that_stood_ready_is_like_any_other(world: Arc<World>) {
    let mut cold = plain(&world);
    cold.environment = vec![("WHO".to_owned(), "cold".to_owned())];
    let cold = take(&world, cold).await;
    ready(&world, 2).await;
    let mut spec = plain(&world);
    spec.environment = vec![("WHO".to_owned(), "warm".to_owned())];
    let warm = take(&world, spec).await;
    let (was, is) = (cold.started(), warm.started());
    assert!(is.root_us < was.root_us, "its root stood already: {is:?}, {was:?}");
    let set = |sandbox: &Arc<dyn Sandbox>| sandbox.walls().standing.iter().cloned().collect::<BTreeSet<_>>();
    assert_eq!(set(&warm), set(&cold), "the same walls");
    assert_eq!(warm.walls().missing, cold.walls().missing);
    assert_eq!(warm.walls().landlock_version, cold.walls().landlock_version);
    // The host's ids are each one's own, as the names are.
    let look = "grep -E '^(Cap|NoNewPrivs|Seccomp|Uid|Gid|Groups)' /proc/self/status; \
        cut -d' ' -f2- /proc/self/mounts | sed -E 's/[ug]id=[0-9]+//g' | sort; ulimit -a; ls /proc/self/fd; \
        ls -la --time-style=+T / /dev /tmp /etc | awk '{print $1, $3, $4, $NF}'; cat /proc/sys/user/max_user_namespaces; \
        touch /x /etc/x /dev/x 2>&1; stat -c '%a %u %g' /workspace; echo file > made && cat made";
    let (one, other) = (sh(&warm, look).await, sh(&cold, look).await);
    assert_eq!(one.out, other.out, "seen from inside");
    assert_eq!(sh(&warm, "echo $WHO").await.out, "warm\n");
    let limits = "cat /sys/fs/cgroup/memory.max 2>/dev/null; ulimit -n";
    assert_eq!(sh(&warm, limits).await.out, sh(&cold, limits).await.out);
    warm.close().await;
    cold.close().await;
}

async fn nothing_is_seen_of_who_had_one_before(world: Arc<World>) {
    let names = "cat /etc/hostname /etc/machine-id /proc/sys/kernel/random/boot_id; uname -n";
    let mut seen = BTreeSet::new();
    for round in 0..4 {
        ready(&world, 1).await;
        let mut spec = plain(&world);
        spec.environment = vec![(format!("SECRET_{round}"), "planted".to_owned())];
        let sandbox = take(&world, spec).await;
        let found = sh(&sandbox, "env; ls -A /workspace /tmp /dev/shm /run; ps 2>/dev/null | wc -l").await.out;
        assert_eq!(found.matches("SECRET_").count(), 1, "only its own: {found}");
        assert!(!found.contains("left"), "{found}");
        let own = sh(&sandbox, names).await.out;
        assert!(own.lines().count() == 4 && seen.insert(own.clone()), "names of its own: {own}");
        sh(&sandbox, "for place in /workspace /tmp /dev/shm; do echo left > $place/left; done").await;
        sandbox.close().await;
    }
}

async fn another_kind_is_made_as_ever(world: Arc<World>) {
    ready(&world, 1).await;
    let mut small = plain(&world);
    small.limits.open_files_max = 99;
    small.limits.workspace_bytes_max = 32 << 20;
    let sandbox = take(&world, small).await;
    assert_eq!(sh(&sandbox, "ulimit -n").await.out, "99\n");
    let kib: u64 = sh(&sandbox, "df -k /workspace | awk 'END {print $2}'").await.out.trim().parse().unwrap();
    assert!(kib < 48 << 10, "its own workspace: {kib} KiB");
    sandbox.close().await;
    let shown = world.spec(world.session(Start::Fresh, new_id()));
    let sandbox = take(&world, shown).await;
    let view = format!("test -e {} && echo there", support::hostile::attempts::PROGRAM);
    assert_eq!(sh(&sandbox, &view).await.out, "there\n", "views of the host are its own");
    sandbox.close().await;
}

/// What is made ahead has a workspace of its own size, whatever was asked for last.
async fn another_size_is_never_mixed_in(world: Arc<World>) {
    let kib = async |sandbox: &Arc<dyn Sandbox>| -> u64 {
        sh(sandbox, "df -k /workspace | awk 'END {print $2}'").await.out.trim().parse().unwrap()
    };
    ready(&world, 1).await;
    let first = take(&world, plain(&world)).await;
    let mut small = plain(&world);
    small.limits.workspace_bytes_max = 32 << 20;
    let small = take(&world, small).await;
    // Two that live, a root that is ready, and a sandbox that was made ahead.
    support::until("the next stands", || support::children_named("topside-init").len() == 4).await;
    let next = take(&world, plain(&world)).await;
    assert_eq!(next.started().way, Some(sandbox::report::Way::Warm));
    assert_eq!(kib(&next).await, kib(&first).await);
    assert!(kib(&small).await < kib(&next).await);
    for sandbox in [first, small, next] {
        sandbox.close().await;
    }
}

async fn what_stood_ready_goes_when_it_is_not_wanted(world: Arc<World>) {
    ready(&world, 3).await;
    assert!(support::children_named("topside-init").len() >= 3, "they are processes");
    assert_eq!(world.provider.keep_warm(&plain(&world), Warm::default()).await.unwrap(), 0);
    support::until("those that stood ready", || support::children_named("topside-init").is_empty()).await;
}

fn kill(process: u32) {
    let process = rustix::process::Pid::from_raw(i32::try_from(process).unwrap()).unwrap();
    // It may have ended meanwhile.
    let _ = rustix::process::kill_process(process, rustix::process::Signal::KILL);
}

/// The workspaces that they were made around are given to nobody else.
async fn what_could_not_be_made_ahead_harms_no_start(world: Arc<World>) {
    const KILLED_MIN: usize = 3;
    ready(&world, 0).await;
    take(&world, plain(&world)).await.close().await;
    world.provider.keep_warm(&plain(&world), Warm { min: 1, max: 1 }).await.unwrap();
    let killed = std::sync::Mutex::new(BTreeSet::new());
    // Each as soon as it is there, so that none comes to stand.
    support::until("some are killed while they are made", || {
        let found = support::children_named("topside-init");
        found.iter().copied().for_each(kill);
        let mut killed = killed.lock().unwrap();
        killed.extend(found);
        killed.len() >= KILLED_MIN
    })
    .await;
    for _ in 0..6 {
        let sandbox = take(&world, plain(&world)).await;
        assert_eq!(sh(&sandbox, "ls -A; echo up").await.out, "up\n");
        sandbox.close().await;
    }
}

async fn one_that_was_killed_is_stood_in_for(world: Arc<World>) {
    ready(&world, 2).await;
    let stood = support::children_named("topside-init");
    assert!(stood.len() >= 2, "{stood:?}");
    stood.iter().copied().for_each(kill);
    // Others may be made meanwhile.
    let is_dead = || support::children_named("topside-init").iter().all(|alive| !stood.contains(alive));
    support::until("they are dead", is_dead).await;
    let sandbox = take(&world, plain(&world)).await;
    assert_eq!(sh(&sandbox, "ls -A; echo up").await.out, "up\n");
    sandbox.close().await;
}

async fn nobody_is_told_of_one(world: Arc<World>) {
    ready(&world, 2).await;
    let living = async || world.provider.living().await.unwrap();
    assert_eq!(living().await.len(), 0, "{:?}", living().await);
    let mut spec = plain(&world);
    spec.epoch = 5;
    let id = spec.id;
    let sandbox = take(&world, spec).await;
    assert_eq!(sandbox.started().way, Some(sandbox::report::Way::Warm));
    let told: Vec<_> = living().await.into_iter().map(|one| (one.id, one.epoch, one.is_held)).collect();
    assert_eq!(told, [(id, 5, true)]);
    let mut stale = support::command(&["true"]);
    stale.epoch = 4;
    assert!(sandbox.start(stale).await.unwrap_err().to_string().contains("stale lease"), "it knows its lease");
    sandbox.close().await;
}

async fn many_at_once_are_all_made(world: Arc<World>) {
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..12 {
        let world = Arc::clone(&world);
        all.spawn(async move {
            let sandbox = take(&world, plain(&world)).await;
            let host = sh(&sandbox, "uname -n; id -u").await.out;
            sandbox.close().await;
            host
        });
    }
    let names: BTreeSet<String> =
        tokio::time::timeout(Duration::from_secs(60), all.join_all()).await.unwrap().into_iter().collect();
    assert_eq!(names.len(), 12, "{names:?}");
}

/// Given up after so many steps of its own, from before the first to about the last.
async fn starts_that_are_given_up_leave_no_workspace(world: Arc<World>) {
    for stand in [2, 0] {
        given_up(&world, stand).await;
    }
}

async fn given_up(world: &Arc<World>, stand: usize) {
    const ROUNDS: usize = 80;
    const STEPS_A_ROUND: usize = 200;
    ready(world, stand).await;
    world.sandbox().await.close().await;
    let sessions = || std::fs::read_dir(world.data.join("workspaces/default")).map_or(0, Iterator::count);
    let (before, mut made) = (sessions(), 0);
    for round in 0..ROUNDS {
        let spec = plain(world);
        let workspace = spec.workspace.clone();
        let mut starting = Box::pin(world.provider.create(spec));
        for _ in 0..round * STEPS_A_ROUND {
            if futures::future::FutureExt::now_or_never(&mut starting).is_some() {
                made += 1;
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(starting);
        world.provider.workspace_remove(&workspace).await.unwrap();
        assert!(!world.provider.workspace_exists(&workspace).await.unwrap());
    }
    println!("{stand} stand ready: {made} of {ROUNDS} starts were made before they were given up");
    // Those of earlier cases are kept.
    support::until("no session has a directory that had none", || sessions() == before).await;
    let most = MOUNTED + FORMATTED + stand;
    support::until("nothing of them is left in stock", || in_stock(world).len() <= most).await;
}

/// The directories of workspaces in stock, by their inodes.
fn in_stock(world: &World) -> BTreeSet<u64> {
    below(&world.data.join("workspaces/.stock"))
        .iter()
        .flat_map(|shelf| below(shelf))
        .map(|path| inode(&path))
        .collect()
}

fn below(directory: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

fn inode(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |found| found.ino())
}

/// Asked for twice, so that it is the usual size, and waits until the stock is full.
async fn full(world: &World) {
    for _ in 0..2 {
        take(world, plain(world)).await.close().await;
    }
    support::until("the stock is full", || world.provider.in_stock() == MOUNTED + FORMATTED).await;
}

async fn what_is_only_formatted_is_used_too(world: Arc<World>) {
    const ATTEMPTS_MAX: usize = 10;
    ready(&world, 0).await;
    // Where the machine is slow others may be made meanwhile, and are taken first.
    for _ in 0..ATTEMPTS_MAX {
        full(&world).await;
        support::until("nothing else is in stock", || in_stock(&world).len() == MOUNTED + FORMATTED).await;
        let stock = in_stock(&world);
        if stock.is_subset(&together(&world, stock.len() + 1).await) {
            return;
        }
    }
    panic!("never: all that was in stock is somebody's");
}

/// Starts so many sessions at once, and the same again when they have ended; the directories of their workspaces, by inodes.
async fn together(world: &Arc<World>, count: usize) -> BTreeSet<u64> {
    let start = |number: usize| {
        let world = Arc::clone(world);
        tokio::spawn(async move {
            let spec = plain(&world);
            let sandbox = take(&world, spec.clone()).await;
            let found = sh(&sandbox, &format!("ls -A; echo {number} > mine")).await.out;
            sandbox.close().await;
            (spec.workspace, found)
        })
    };
    let all: Vec<_> = (0..count).map(start).collect();
    let mut used = BTreeSet::new();
    for (number, made) in all.into_iter().enumerate() {
        let (workspace, found) = made.await.unwrap();
        assert_eq!(found, "", "it is empty");
        let Workspace::Session { session, .. } = workspace else { unreachable!("it was asked for") };
        used.insert(inode(&world.data.join(format!("workspaces/default/{session}"))));
        let sandbox = take(world, world.spec(world.session(KEPT, session))).await;
        assert_eq!(sh(&sandbox, "cat mine").await.out, format!("{number}\n"));
        sandbox.close().await;
    }
    used
}

/// What stands in the session's place makes way, whatever is in stock: in a sandbox, mounted, only formatted, or nothing.
async fn over_an_older_workspace_there_is_an_empty_one(world: Arc<World>) {
    for stand in [1, 0] {
        ready(&world, stand).await;
        full(&world).await;
        let session = new_id();
        // Each of the stock is used up.
        for number in 0..=MOUNTED + FORMATTED + stand {
            let sandbox =
                take(&world, Spec { binds: Vec::new(), ..world.spec(world.session(Start::Fresh, session)) }).await;
            assert_eq!(sh(&sandbox, "ls -A; touch older").await.out, "", "{number} of {stand}");
            sandbox.close().await;
        }
        let sandbox = take(&world, world.spec(world.session(KEPT, session))).await;
        assert_eq!(sh(&sandbox, "ls -A").await.out, "older\n");
        sandbox.close().await;
    }
}

async fn what_a_killed_process_left_in_stock_is_removed(world: Arc<World>) {
    full(&world).await;
    assert!(!world.data.join(DEAD).exists());
}
