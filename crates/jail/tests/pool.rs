//! Checkpoints that are taken in a moment, forks of them, and the bound over all workspaces, on a real kernel. Where images
//! can't share blocks (an ordinary user, a kernel without the file system) the cases skip.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a test with a main of its own is a test"
)]

mod support;

use domain::{Id, id};
use sandbox::{ArchiveLimits, Checkpoint, Chunk, Error, Export, Provider as _, Sandbox, Spec, Start};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use stdx::Random;
use support::{Case, KEPT, World, new_id, sh};

const SMALL: &str = "--small=";
/// Fits the pool's own tables, two workspaces of 64 MiB and no third.
const SMALL_BYTES_MAX: u64 = 195 << 20;
/// The argument that opens the workspace of a session and says what it holds: the data directory, then the session.
const LOOK: &str = "--look=";
/// The argument that says where the data directory is.
const HERE: &str = "--here=";
/// The same on a disk that the case fills.
const NEAR: &str = "--near=";

fn main() -> ExitCode {
    if let Some(code) = support::head::part() {
        return code;
    }
    if !rustix::process::geteuid().is_root() {
        support::skip("pool", "an ordinary user's workspaces live in memory");
        return ExitCode::SUCCESS;
    }
    let named = |prefix| support::head::argument(prefix).map(PathBuf::from);
    if let Some(data) = named(LOOK) {
        return look(&data);
    }
    if let Some(data) = named(HERE) {
        let launcher = jail::launch().unwrap();
        return support::run(launcher, &data, shared_cases());
    }
    if let Some(data) = named(NEAR) {
        let launcher = jail::launch().unwrap();
        return support::run(launcher, &data, cases![a_disk_that_is_nearly_full_opens_nothing_new]);
    }
    if let Some(data) = named(SMALL) {
        let launcher = jail::launch().unwrap();
        return support::run_with(launcher, &data, small_cases(), |provider| {
            provider.with_workspaces_bytes_max(SMALL_BYTES_MAX)
        });
    }
    let data = tempfile::tempdir().unwrap();
    let bounded = support::again(&[&format!("{SMALL}{}", data.path().display())], &[]);
    let shared = on_a_disk("mkfs.xfs", &["-q", "-s", "size=4096"], HERE);
    let near = on_a_disk("mkfs.ext4", &["-q"], NEAR);
    let data = tempfile::tempdir().unwrap();
    let launcher = jail::launch().unwrap();
    let code = support::run(launcher, data.path(), cases());
    support::head::all([bounded, shared, near, code])
}

/// Cases on a small disk of one's own; on XFS the data directory's own file system shares blocks.
fn on_a_disk(make: &str, arguments: &[&str], part: &str) -> ExitCode {
    let directory = tempfile::tempdir().unwrap();
    let [image, point] = ["image", "point"].map(|name| directory.path().join(name).to_str().unwrap().to_owned());
    std::fs::File::create(&image).unwrap().set_len(1 << 30).unwrap();
    std::fs::create_dir(&point).unwrap();
    let ran = |program: &str, arguments: &[&str]| {
        std::process::Command::new(program).args(arguments).status().is_ok_and(|status| status.success())
    };
    let made = ran(make, &[arguments, &[image.as_str()]].concat());
    if !made || !ran("mount", &["-o", "loop", &image, &point]) {
        support::skip(part, &format!("nothing that {make} makes can be mounted"));
        return ExitCode::SUCCESS;
    }
    let code = support::again(&[&format!("{part}{point}")], &[]);
    let has_pool = Path::new(&point).join("workspaces.btrfs").exists();
    assert_eq!(has_pool, part != HERE, "a pool is where one is needed");
    // The launcher of that run may still be on its way out.
    let unmounted = (0..500).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        ran("umount", &["-q", &point])
    });
    assert!(unmounted, "{point} is busy");
    code
}

/// Opens what an earlier harness left.
fn look(data: &Path) -> ExitCode {
    let session = std::env::args().next_back().unwrap().parse().unwrap();
    let launcher = jail::launch().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let provider = support::Outside::new(jail::Provider::new(launcher, data.to_owned(), Random::system()).unwrap());
    let world = World { provider, data: data.to_owned(), root: true };
    runtime.block_on(async {
        let sandbox = open(&world, KEPT, session).await;
        println!("looked: {}", said(&sandbox, "cat made; ls | wc -l").await.replace('\n', " "));
        sandbox.close().await;
    });
    ExitCode::SUCCESS
}

fn cases() -> Vec<Case> {
    cases![
        a_checkpoint_gives_what_an_export_gives,
        a_checkpoint_is_of_one_moment,
        who_does_not_stand_still_is_left_alone,
        forks_go_their_own_ways,
        a_fork_has_the_limits_of_its_parent,
        a_fork_of_nothing_is_lost,
        a_fork_holds_nothing_that_its_checkpoint_leaves_out,
        older_images_go_on,
        as_many_checkpoints_are_kept_as_are_bounded,
        a_checkpoint_that_is_given_up_leaves_nothing,
        a_killed_harness_leaves_whole_workspaces,
        nothing_is_left,
    ]
}

fn shared_cases() -> Vec<Case> {
    cases![a_checkpoint_gives_what_an_export_gives, forks_go_their_own_ways, a_checkpoint_is_of_one_moment]
}

fn small_cases() -> Vec<Case> {
    cases![what_all_take_is_bounded]
}

/// What is open goes on with the last of the disk; nothing else begins.
async fn a_disk_that_is_nearly_full_opens_nothing_new(world: Arc<World>) {
    const LEFT_BYTES: u64 = 8 << 20;
    let session = new_id();
    let sandbox = open(&world, Start::Fresh, session).await;
    let found = rustix::fs::statvfs(&world.data).unwrap();
    let (all, free) = (found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize);
    assert!(LEFT_BYTES < all / 50, "{all} bytes");
    let ballast = world.data.join("ballast");
    let file = std::fs::File::create(&ballast).unwrap();
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, free - LEFT_BYTES).unwrap();
    let refused = world.provider.create(spec(&world, Start::Fresh, new_id(), 1)).await.unwrap_err();
    assert_eq!(refused.code(), "sandbox_limit");
    assert!(refused.to_string().contains("disk_free_bytes_min"), "{refused}");
    said(&sandbox, "head -c 1000000 /dev/urandom > more && sync").await;
    sandbox.close().await;
    drop(file);
    std::fs::remove_file(&ballast).unwrap();
    let sandbox = open(&world, KEPT, session).await;
    assert_eq!(said(&sandbox, "stat -c %s more").await, "1000000\n");
    sandbox.close().await;
}

const WIDE: ArchiveLimits = ArchiveLimits { bytes_max: 1 << 30, entries_max: 100_000, duration_ms_max: 60_000 };

fn spec(world: &World, start: Start, session: Id<id::Session>, epoch: u64) -> Spec {
    Spec { binds: Vec::new(), epoch, ..world.spec(world.session(start, session)) }
}

async fn open(world: &World, start: Start, session: Id<id::Session>) -> Arc<dyn Sandbox> {
    world.provider.create(spec(world, start, session, 1)).await.unwrap()
}

async fn said(sandbox: &Arc<dyn Sandbox>, script: &str) -> String {
    let outcome = sh(sandbox, script).await;
    assert_eq!((outcome.exit, outcome.err.as_str()), (sandbox::Exit::Code(0), ""), "{script}");
    outcome.out
}

/// A checkpoint, or `None` with a word where none can be had.
async fn taken(sandbox: &Arc<dyn Sandbox>, name: &str) -> Option<Arc<dyn Checkpoint>> {
    let taken = sandbox.checkpoint(new_id()).await.unwrap();
    if taken.is_none() {
        support::skip(name, "images share no blocks here");
    }
    taken
}

async fn bytes(mut export: Box<dyn Export>) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some(piece) = export.next().await.unwrap() {
        bytes.extend_from_slice(&piece);
    }
    bytes
}

/// The directories of images as this process sees them: in the pool's mount, or beside the marks.
fn images(world: &World, session: Id<id::Session>) -> PathBuf {
    let pid = std::process::id();
    let fds = std::fs::read_dir("/proc/self/fd").unwrap().flatten().map(|entry| entry.file_name());
    let mounts = fds.map(|number| PathBuf::from(format!("/proc/{pid}/fd")).join(number).join("default"));
    let mut places = mounts.chain([world.data.join("workspaces/default")]).map(|place| place.join(session.to_string()));
    places.find(|place| place.join("image.ext4").exists()).unwrap()
}

/// The format's own checker must find nothing to mend but sums that the kernel writes when it unmounts, and a directory for
/// finds that no workspace has.
fn is_sound(image: &Path) {
    let output = match std::process::Command::new("e2fsck").arg("-fn").arg(image).output() {
        Ok(output) => output,
        Err(error) => return support::skip("is_sound", &format!("e2fsck: {error}")),
    };
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("Pass 5"), "{}: {said}", image.display());
    let mut before = "";
    for line in said.lines() {
        let is_sum =
            ["Free blocks count wrong (", "Free inodes count wrong ("].iter().any(|sum| before.starts_with(sum));
        let is_known = line.starts_with("/lost+found not found") || (line == "Fix? no" && is_sum);
        assert!(!line.ends_with("? no") || is_known, "{}: {said}", image.display());
        before = line;
    }
}

async fn a_checkpoint_gives_what_an_export_gives(world: Arc<World>) {
    let (session, name) = (new_id(), "a_checkpoint_gives_what_an_export_gives");
    let sandbox = open(&world, Start::Fresh, session).await;
    let script = "mkdir -p a/b 'odd\nname'; echo one > a/b/one; ln a/b/one a/two; ln -s ../nowhere a/link; \
                  truncate -s 10M a/sparse; echo end >> a/sparse; echo secret > a/unreadable; chmod 0 a/unreadable; \
                  mkfifo a/fifo; touch -d @1000000000.123456789 a/b/one; mkdir closed; echo in > closed/in; chmod 0 closed";
    said(&sandbox, script).await;
    let Some(checkpoint) = taken(&sandbox, name).await else { return };
    let whole = bytes(sandbox.export(WIDE).await.unwrap()).await;
    assert!(whole.len() > 10_000);
    // Changes after it are not in it, and closing the sandbox does not end it.
    said(&sandbox, "echo more > later").await;
    assert_eq!(bytes(checkpoint.export(WIDE).await.unwrap()).await, whole);
    assert_ne!(bytes(sandbox.export(WIDE).await.unwrap()).await, whole);
    sandbox.close().await;
    assert_eq!(bytes(checkpoint.export(WIDE).await.unwrap()).await, whole);
    is_sound(&images(&world, session).join(format!("{}.ext4", checkpoint.id())));
    world.provider.workspace_remove(&world.session(KEPT, session)).await.unwrap();
    assert_eq!(checkpoint.export(WIDE).await.unwrap_err().code(), "workspace_lost");
}

async fn a_checkpoint_is_of_one_moment(world: Arc<World>) {
    let (session, name) = (new_id(), "a_checkpoint_is_of_one_moment");
    let sandbox = open(&world, Start::Fresh, session).await;
    // One writer counts in one file, then in the other; another fills and empties a third.
    let argv = ["/bin/sh", "-c", "i=0; while :; do i=$((i+1)); echo $i >> first; echo $i >> second; done"];
    let mut writer = sandbox.start(support::command(&argv)).await.unwrap();
    let argv = ["/bin/sh", "-c", "while :; do head -c 3000000 /dev/zero > third; rm third; done"];
    let mut other = sandbox.start(support::command(&argv)).await.unwrap();
    support::until_said(&sandbox, "test -s second && echo yes || echo no", "yes\n").await;
    let mut seen = BTreeMap::new();
    for round in 0..5 {
        let Some(checkpoint) = taken(&sandbox, name).await else { return };
        let forked = new_id();
        let fork = open(&world, Start::Forked { session, checkpoint: checkpoint.id() }, forked).await;
        let counts = said(&fork, "tail -n 1 first; tail -n 1 second").await;
        let counts: Vec<u64> = counts.lines().map(|line| line.parse().unwrap()).collect();
        assert!(counts[0] == counts[1] || counts[0] == counts[1] + 1, "{counts:?}");
        seen.insert(counts[0], round);
        fork.close().await;
        is_sound(&images(&world, session).join(format!("{}.ext4", checkpoint.id())));
        world.provider.workspace_remove(&world.session(KEPT, forked)).await.unwrap();
        // They go on.
        support::until_said(&sandbox, &format!("test $(tail -n 1 first) -gt {} && echo yes", counts[0]), "yes\n").await;
    }
    assert_eq!(seen.len(), 5, "each later than the one before");
    writer.kill().await.unwrap();
    other.kill().await.unwrap();
    sandbox.close().await;
}

/// Programs that stop and wake each other, and one that waits for a child in the kernel.
async fn who_does_not_stand_still_is_left_alone(world: Arc<World>) {
    let sandbox = open(&world, Start::Fresh, new_id()).await;
    let script = "echo kept > file; (while :; do kill -CONT -1; done) & (while :; do sh -c :; done) & sleep 1000";
    let mut fighters = sandbox.start(support::command(&["/bin/sh", "-c", script])).await.unwrap();
    support::until_said(&sandbox, "cat file 2>/dev/null || true", "kept\n").await;
    for _ in 0..3 {
        // Either is right; what is not is a checkpoint that is torn, or programs that stay halted.
        if let Some(checkpoint) = sandbox.checkpoint(new_id()).await.unwrap() {
            assert!(!bytes(checkpoint.export(WIDE).await.unwrap()).await.is_empty());
        }
        assert_eq!(said(&sandbox, "cat file").await, "kept\n");
    }
    fighters.kill().await.unwrap();
    sandbox.close().await;
}

/// What tells one machine from another.
const IDENTITY: &str = "stat -f -c %i .; uname -n; cat /etc/hostname | sed 's/^/file /'; cat /etc/machine-id; \
    cat /proc/sys/kernel/random/boot_id; cat /proc/sys/kernel/random/uuid";

async fn forks_go_their_own_ways(world: Arc<World>) {
    let (session, name) = (new_id(), "forks_go_their_own_ways");
    let parent = open(&world, Start::Fresh, session).await;
    said(&parent, "for i in $(seq 300); do echo $i > f$i; done").await;
    let Some(checkpoint) = taken(&parent, name).await else { return };
    said(&parent, "echo parent > f1; rm f2").await;
    let start = Start::Forked { session, checkpoint: checkpoint.id() };
    let sessions: Vec<Id<id::Session>> = (0..20).map(|_| new_id()).collect();
    let made = sessions.iter().map(|fork| {
        let (world, fork) = (Arc::clone(&world), *fork);
        tokio::spawn(async move { open(&world, start, fork).await })
    });
    let mut identities = Vec::new();
    for (number, made) in made.collect::<Vec<_>>().into_iter().enumerate() {
        let fork = made.await.unwrap();
        assert_eq!(said(&fork, "ls | wc -l; cat f1 f2").await, "300\n1\n2\n");
        said(&fork, &format!("echo {number} > f3")).await;
        assert_eq!(said(&fork, "cat f3").await, format!("{number}\n"));
        identities.push(said(&fork, IDENTITY).await);
        fork.close().await;
    }
    identities.push(said(&parent, IDENTITY).await);
    let mut parts: Vec<Vec<&str>> = identities.iter().map(|all| all.lines().collect()).collect();
    let count = parts[0].len();
    assert!(count == 6 && parts.iter().all(|of| of.len() == count), "{identities:?}");
    for part in 0..count {
        parts.sort_unstable_by_key(|of| of[part]);
        parts.dedup_by_key(|of| of[part]);
        assert_eq!(parts.len(), 21, "no two have the same identity: {part}, {identities:?}");
    }
    assert_eq!(said(&parent, "cat f1 f3; ls | wc -l").await, "parent\n3\n299\n");
    // A fork outlives its parent, is kept like any other, and can be forked.
    parent.close().await;
    world.provider.workspace_remove(&world.session(KEPT, session)).await.unwrap();
    let again = open(&world, KEPT, sessions[7]).await;
    assert_eq!(said(&again, "cat f1 f3").await, "1\n7\n");
    let second = again.checkpoint(new_id()).await.unwrap().unwrap();
    let grandchild = open(&world, Start::Forked { session: sessions[7], checkpoint: second.id() }, new_id()).await;
    assert_eq!(said(&grandchild, "cat f1 f3").await, "1\n7\n");
    grandchild.close().await;
    again.close().await;
    is_sound(&images(&world, sessions[7]).join("image.ext4"));
}

async fn a_fork_has_the_limits_of_its_parent(world: Arc<World>) {
    let (session, name) = (new_id(), "a_fork_has_the_limits_of_its_parent");
    let parent = open(&world, Start::Fresh, session).await;
    let Some(checkpoint) = taken(&parent, name).await else { return };
    let fork = open(&world, Start::Forked { session, checkpoint: checkpoint.id() }, new_id()).await;
    let blocks: u64 = said(&fork, "df --output=size -B1 . | tail -n 1").await.trim().parse().unwrap();
    assert!((60 << 20..70 << 20).contains(&blocks), "df says {blocks}");
    let full = sh(&fork, "head -c 80000000 /dev/zero > full").await;
    assert!(full.err.contains("No space left"), "{full:?}");
    let many = sh(&fork, "rm full; for i in $(seq 3000); do : > f$i || exit 1; done").await;
    assert!(many.err.contains("No space left"), "{many:?}");
    // The neighbour, whose blocks it shares, has all of its room.
    said(&parent, "head -c 50000000 /dev/urandom > mine; cat mine > /dev/null").await;
    fork.close().await;
    parent.close().await;
}

async fn a_fork_of_nothing_is_lost(world: Arc<World>) {
    let (parent, session) = (new_id(), new_id());
    let start = Start::Forked { session: parent, checkpoint: new_id() };
    let error = world.provider.create(spec(&world, start, session, 1)).await.unwrap_err();
    assert_eq!(error.code(), "workspace_lost");
    // What it comes to instead begins as if nothing had been.
    let sandbox = open(&world, Start::Fresh, session).await;
    assert_eq!(said(&sandbox, "ls -A").await, "");
    sandbox.close().await;
}

/// What is laid again each time is in the image, since programs saw it there, and in no fork of it.
async fn a_fork_holds_nothing_that_its_checkpoint_leaves_out(world: Arc<World>) {
    let (session, name) = (new_id(), "a_fork_holds_nothing_that_its_checkpoint_leaves_out");
    let path = |text: &str| text.parse::<sandbox::RelPath>().unwrap();
    let left_out = vec![path("cache"), path("deep/token"), path("never")];
    let made = Spec { left_out: left_out.clone(), ..spec(&world, Start::Fresh, session, 1) };
    let parent = world.provider.create(made).await.unwrap();
    said(&parent, "mkdir -p cache/below deep; echo secret | tee cache/below/made deep/token > kept").await;
    let Some(checkpoint) = taken(&parent, name).await else { return };
    assert_eq!(said(&parent, "cat cache/below/made").await, "secret\n", "its own sandbox keeps it");
    let start = Start::Forked { session, checkpoint: checkpoint.id() };
    // Whatever the fork's own declaration leaves out.
    let fork = open(&world, start, new_id()).await;
    assert_eq!(said(&fork, "find . | sort").await, ".\n./deep\n./kept\n");
    assert_eq!(said(&fork, "cat kept").await, "secret\n");
    fork.close().await;
    parent.close().await;
}

/// The image of an earlier version stands beside the mark.
async fn older_images_go_on(world: Arc<World>) {
    let session: Id<id::Session> = new_id();
    let directory = world.data.join("workspaces/default").join(session.to_string());
    std::fs::create_dir_all(&directory).unwrap();
    let image = directory.join("image.ext4");
    std::fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
    let mut mkfs = std::process::Command::new("mkfs.ext4");
    mkfs.args(["-q", "-b", "4096", "-O", "^has_journal", "-E", "root_owner=1000:1000"]).arg(&image);
    if let Err(error) = mkfs.status() {
        return support::skip("older_images_go_on", &format!("mkfs.ext4: {error}"));
    }
    let removed = std::process::Command::new("debugfs").args(["-w", "-R", "rmdir lost+found"]).arg(&image).output();
    assert!(removed.unwrap().status.success());
    let kept = |generation| Start::Kept { generation };
    for (generation, expected) in [(0, ""), (1, "written\n")] {
        let sandbox = open(&world, kept(generation), session).await;
        assert_eq!(said(&sandbox, "cat file 2>/dev/null || true").await, expected);
        said(&sandbox, "echo written > file").await;
        // Whether it can be copied in a moment depends on where it stands; that it can be kept does not.
        let taken = sandbox.checkpoint(new_id()).await.unwrap();
        assert!(taken.is_none() || image.parent() == Some(&images(&world, session)));
        assert!(!bytes(sandbox.export(WIDE).await.unwrap()).await.is_empty());
        sandbox.close().await;
    }
    world.provider.workspace_remove(&world.session(KEPT, session)).await.unwrap();
    assert!(!directory.exists());
}

async fn as_many_checkpoints_are_kept_as_are_bounded(world: Arc<World>) {
    let (session, name) = (new_id(), "as_many_checkpoints_are_kept_as_are_bounded");
    let sandbox = open(&world, Start::Fresh, session).await;
    let Some(first) = taken(&sandbox, name).await else { return };
    for _ in 0..20 {
        sandbox.checkpoint(new_id()).await.unwrap().unwrap();
    }
    let place = images(&world, session);
    let kept = std::fs::read_dir(&place).unwrap().count();
    assert_eq!(kept, 17, "an image and its checkpoints");
    let last = sandbox.checkpoint(new_id()).await.unwrap().unwrap();
    for (checkpoint, expected) in [(&first, "workspace_lost"), (&last, "made")] {
        let start = Start::Forked { session, checkpoint: checkpoint.id() };
        let got = match world.provider.create(spec(&world, start, new_id(), 1)).await {
            Ok(fork) => {
                fork.close().await;
                "made"
            }
            Err(error) => error.code(),
        };
        assert_eq!(got, expected);
    }
    sandbox.close().await;
    world.provider.workspace_remove(&world.session(KEPT, session)).await.unwrap();
    assert!(!place.exists());
}

async fn a_checkpoint_that_is_given_up_leaves_nothing(world: Arc<World>) {
    let (session, name) = (new_id(), "a_checkpoint_that_is_given_up_leaves_nothing");
    let sandbox = open(&world, Start::Fresh, session).await;
    said(&sandbox, "for i in $(seq 500); do echo $i > f$i; done").await;
    let Some(_) = taken(&sandbox, name).await else { return };
    for steps in 0..60 {
        let mut taking = Box::pin(sandbox.checkpoint(new_id()));
        // Given up after so many steps of its own.
        for _ in 0..steps {
            if futures::future::FutureExt::now_or_never(&mut taking).is_some() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(taking);
        assert_eq!(said(&sandbox, "cat f7").await, "7\n");
    }
    let place = images(&world, session);
    for image in std::fs::read_dir(&place).unwrap().map(|entry| entry.unwrap().path()) {
        let is_checkpoint = image.extension().is_some_and(|extension| extension == "ext4");
        if is_checkpoint && !image.ends_with("image.ext4") {
            is_sound(&image);
        }
    }
    sandbox.close().await;
}

/// Killed with a sandbox that writes: what comes after has the whole workspace, and the pool is nobody else's.
async fn a_killed_harness_leaves_whole_workspaces(_: Arc<World>) {
    let data = tempfile::tempdir().unwrap();
    let session: Id<id::Session> = new_id();
    for round in 0..3 {
        let mut victim = std::process::Command::new(std::env::current_exe().unwrap())
            .arg(format!("{}={}", support::VICTIM, data.path().display()))
            .arg(session.to_string())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(victim.stdout.take().unwrap()), &mut line).unwrap();
        assert_eq!(line, "ready\n", "round {round}");
        victim.kill().unwrap();
        victim.wait().unwrap();
    }
    let loops = || {
        let left = support::traces(data.path());
        left.loops + left.pools
    };
    support::until("the loop devices are gone", || loops() == 0).await;
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .arg(format!("{LOOK}{}", data.path().display()))
        .arg(session.to_string())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("looked: before 1"), "{said}{}", String::from_utf8_lossy(&output.stderr));
    support::until("the loop devices are gone", || loops() == 0).await;
    let pool = data.path().join("workspaces.btrfs");
    match std::process::Command::new("btrfs").arg("check").arg(&pool).output() {
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => support::skip("a_killed_harness_leaves_whole_workspaces", &format!("btrfs: {error}")),
    }
}

async fn nothing_is_left(world: Arc<World>) {
    open(&world, Start::Fresh, new_id()).await.close().await;
    let before = support::traces(&world.data);
    let mut sessions = Vec::new();
    for _ in 0..20 {
        let (session, forked) = (new_id(), new_id());
        let sandbox = open(&world, Start::Fresh, session).await;
        let Some(checkpoint) = taken(&sandbox, "nothing_is_left").await else { return };
        let mut export = checkpoint.export(WIDE).await.unwrap();
        export.next().await.unwrap();
        let fork = open(&world, Start::Forked { session, checkpoint: checkpoint.id() }, forked).await;
        let mut running = fork.start(support::command(&["sleep", "1000"])).await.unwrap();
        sandbox.close().await;
        fork.close().await;
        assert!(!matches!(running.next().await, Ok(Chunk::Exit(sandbox::Exit::Code(0)))));
        drop(export);
        for session in [session, forked] {
            world.provider.workspace_remove(&world.session(KEPT, session)).await.unwrap();
            sessions.push(session.to_string());
        }
    }
    support::until("nothing is left", || support::traces(&world.data) == before).await;
    // Loop devices name files of the pool as they stand in it.
    let devices =
        std::fs::read_dir("/sys/block").unwrap().flatten().map(|entry| entry.path().join("loop/backing_file"));
    let files: Vec<String> = devices.filter_map(|file| std::fs::read_to_string(file).ok()).collect();
    assert!(!files.iter().any(|file| sessions.iter().any(|session| file.contains(session))), "{files:?}");
}

async fn what_all_take_is_bounded(world: Arc<World>) {
    let sessions: Vec<Id<id::Session>> = (0..4).map(|_| new_id()).collect();
    let first = open(&world, Start::Fresh, sessions[0]).await;
    let second = open(&world, Start::Fresh, sessions[1]).await;
    if first.checkpoint(new_id()).await.unwrap().is_none() {
        return support::skip("what_all_take_is_bounded", "images share no blocks here");
    }
    let third = || world.provider.create(spec(&world, Start::Fresh, sessions[2], 1));
    let error = third().await.unwrap_err();
    assert!(matches!(&error, Error::Limit { limit } if limit.starts_with("workspaces_bytes_max")), "{error}");
    // Those that are open have all that was promised to them, at once.
    let fill = |bytes: u64| {
        format!(
            "head -c {bytes} /dev/urandom > full && sync full && cksum full > sum && cksum full | cmp - sum && echo same"
        )
    };
    let (large, little) = (fill(60_000_000), fill(10_000_000));
    let (one, two) = tokio::join!(said(&first, &large), said(&second, &little));
    assert_eq!((one.as_str(), two.as_str()), ("same\n", "same\n"));
    // No room to write all of it anew beside a copy: it is kept by an export.
    assert!(first.checkpoint(new_id()).await.unwrap().is_none());
    assert!(!bytes(first.export(WIDE).await.unwrap()).await.is_empty());
    // What is closed counts as it is, and what is removed not at all.
    first.close().await;
    assert_eq!(third().await.unwrap_err().code(), "sandbox_limit");
    world.provider.workspace_remove(&world.session(KEPT, sessions[0])).await.unwrap();
    let mut made = third().await;
    for _ in 0..200 {
        if made.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        made = third().await;
    }
    let made = made.unwrap();
    assert_eq!(said(&second, "cksum full | cmp - sum && echo same").await, "same\n");
    made.close().await;
    second.close().await;
}
