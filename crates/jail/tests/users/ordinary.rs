//! The same as an ordinary user: with a range of ids from `/etc/subuid` users are there as they are for root, in parts that no two
//! sandboxes share; without one, and with one that is not the user's alone, nothing starts and it is said why. The files that say
//! so stand over the machine's own in a mount namespace of the test's, and nowhere else.
#![expect(unsafe_code, reason = "stepping down to another user has no safe wrapper")]

use crate::support::{self, Case, KEPT, World, new_id};
use crate::{LOOK, accounts, run, spec, with};
use sandbox::{Accounts, Error, Exit, Provider as _, Sandbox, Start};
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

/// Nobody on any machine this runs on.
const USER: u32 = 12_345;
const NAME: &str = "topside-test";
/// What that user is given.
pub(crate) const FIRST: u32 = 0x3000_0000;
pub(crate) const COUNT: u32 = 0x1_0000;
/// What one sandbox gets of it.
pub(crate) const PART_IDS: u32 = 0x1000;
const MODE: &str = "--ordinary=";

/// What `/etc/subuid` says in each mode, and what is refused of it.
fn rows() -> [(&'static str, String, &'static str); 6] {
    let line = |name: &str, first: u32, count: u32| format!("{name}:{first}:{count}\n");
    [
        ("given", line(NAME, FIRST, COUNT), ""),
        ("without", line("somebody", 100_000, 65_536), "hint: add the line `topside-test:165536:65536`"),
        ("short", line(NAME, FIRST, PART_IDS - 1), "no range of at least 4096 ids"),
        ("own", line(NAME, USER - 100, COUNT), "contains root's id or the user's own"),
        ("roots", line(NAME, 0, COUNT), "contains root's id or the user's own"),
        (
            "overlapping",
            line(NAME, FIRST, COUNT) + &line("somebody", FIRST + 60_000, COUNT),
            "overlaps one of `somebody`",
        ),
    ]
}

/// The launcher beside the one that the cases' provider has.
static ANOTHER: Mutex<Option<jail::Launcher>> = Mutex::new(None);

/// Runs everything as that user in every mode.
pub(crate) fn everybody() -> ExitCode {
    if !Path::new("/usr/bin/newuidmap").exists() {
        support::skip("users as an ordinary user", "there is no newuidmap; hint: install `uidmap`");
        return ExitCode::SUCCESS;
    }
    let mut all = ExitCode::SUCCESS;
    for (mode, ..) in rows() {
        println!("as user {USER}, {mode}:");
        let data = support::hostile::data();
        std::os::unix::fs::chown(data.path(), Some(USER), Some(USER)).unwrap();
        let outer = support::Outer::enter("users", Some(USER));
        if support::again(&[&format!("{MODE}{mode}:{}", data.path().display())], &[]) != ExitCode::SUCCESS {
            all = ExitCode::FAILURE;
        }
        drop(outer);
        let locks = PathBuf::from(format!("/tmp/topside-ids-{USER}"));
        let _ = std::fs::remove_dir_all(locks);
    }
    all
}

/// One of them, when this process was started for it.
pub(crate) fn stepped_down() -> Option<ExitCode> {
    let mode = std::env::args().find_map(|argument| Some(argument.strip_prefix(MODE)?.to_owned()))?;
    let (mode, data) = mode.split_once(':')?;
    let (_, text, _) = rows().into_iter().find(|(name, ..)| *name == mode)?;
    say(Path::new(data), &text);
    step_down();
    let (launcher, another, attacked) = (jail::launch().unwrap(), jail::launch().unwrap(), jail::launch().unwrap());
    *ANOTHER.lock().unwrap() = Some(another);
    if mode != "given" {
        return Some(support::run(launcher, Path::new(data), crate::cases![it_is_said_why]));
    }
    let mut cases: Vec<Case> = crate::cases();
    cases.extend(crate::cases![
        no_two_sandboxes_share_a_part,
        files_change_hands,
        what_is_shown_of_the_users_own_is_seen,
    ]);
    let own = support::run(launcher, Path::new(data), cases);
    let attacked = crate::attack(attacked, Path::new(data));
    Some(if own == ExitCode::SUCCESS { attacked } else { own })
}

/// Lays these files over the machine's, for this process and all it starts.
fn say(data: &Path, text: &str) {
    use rustix::mount::MountPropagationFlags;
    // SAFETY: this process has one thread, and a namespace of its own touches no memory.
    assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNS) }, 0, "a mount namespace");
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
    let account = |file: &str, line: String| std::fs::read_to_string(file).unwrap() + &line;
    let texts = [
        ("/etc/passwd", account("/etc/passwd", format!("{NAME}:x:{USER}:{USER}::/:/bin/sh\n"))),
        ("/etc/group", account("/etc/group", format!("{NAME}:x:{USER}:\n"))),
        ("/etc/subuid", text.to_owned()),
        ("/etc/subgid", text.to_owned()),
    ];
    for (file, text) in texts {
        let over = data.join(file.trim_start_matches("/etc/"));
        std::fs::write(&over, text).unwrap();
        rustix::mount::mount_bind(&over, file).unwrap();
    }
}

fn step_down() {
    // SAFETY: this process has one thread, and changing its credentials touches no memory.
    let done = unsafe {
        libc::setgroups(0, std::ptr::null()) | libc::setresgid(USER, USER, USER) | libc::setresuid(USER, USER, USER)
    };
    assert_eq!(done, 0, "stepping down");
    // Who starts as this user is dumpable; who steps down to it must say so.
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::Dumpable).unwrap();
}

async fn it_is_said_why(world: Arc<World>) {
    let mode =
        std::env::args().find_map(|argument| Some(argument.strip_prefix(MODE)?.split_once(':')?.0.to_owned())).unwrap();
    let (_, _, why) = rows().into_iter().find(|(name, ..)| *name == mode).unwrap();
    let missing = world.provider.accounts_missing().await.unwrap();
    assert!(missing.contains(why), "{missing}");
    let probe = world.provider.probe().await;
    let row = probe.remarks.iter().find(|finding| finding.wall == "user_ids").unwrap();
    assert!(!row.holds && row.detail.contains(why) && row.fix.is_some(), "{row:?}");
    let error = world.provider.create(spec(&world, new_id(), Start::Fresh, accounts(None))).await.unwrap_err();
    assert!(
        matches!(&error, Error::Wall { wall, detail, .. } if wall == "user_namespace" && detail.contains(why)),
        "{error}"
    );
    // Who asks for no users gets a sandbox.
    let sandbox = world.sandbox().await;
    assert_eq!(support::sh(&sandbox, "id -u").await.out, "1000\n");
    sandbox.close().await;
}

async fn no_two_sandboxes_share_a_part(world: Arc<World>) {
    let probe = world.provider.probe().await;
    let row = probe.remarks.iter().find(|finding| finding.wall == "user_ids").unwrap();
    assert!(row.holds && row.detail.contains("4096 ids") && row.detail.contains("16 at once"), "{row:?}");
    // Another launcher of the same user, with another data directory.
    let launcher = ANOTHER.lock().unwrap().take().unwrap();
    let data = world.data.join("another");
    let another = jail::Provider::new(launcher, data, stdx::Random::system()).unwrap();
    let mut sandboxes: Vec<Arc<dyn Sandbox>> = Vec::new();
    let mut parts = BTreeSet::new();
    let most = COUNT / PART_IDS;
    for number in 0..most {
        let spec = spec(&world, new_id(), Start::Fresh, accounts(None));
        let sandbox = if number % 2 == 0 { world.provider.create(spec).await } else { another.create(spec).await };
        let sandbox = sandbox.unwrap();
        let script = format!("cp /bin/sleep /tmp/part-{number}; exec /tmp/part-{number} 1000");
        let _running = sandbox.start(crate::as_user("alice", &["/bin/sh", "-c", &script])).await.unwrap();
        let name = format!("part-{number}");
        support::until("it runs", || !support::children_named(&name).is_empty()).await;
        let ids = crate::ids(support::children_named(&name)[0]);
        parts.insert(crate::range_of(ids[0]).unwrap());
        sandboxes.push(sandbox);
    }
    assert_eq!(parts.len(), most as usize, "{parts:?}");
    let spec = spec(&world, new_id(), Start::Fresh, accounts(None));
    let error = another.create(spec.clone()).await.unwrap_err();
    assert!(matches!(&error, Error::Limit { limit } if limit.starts_with("ids_parts_max = 16")), "{error}");
    // One that ends leaves its part to the next.
    sandboxes.pop().unwrap().close().await;
    another.create(spec).await.unwrap().close().await;
    for sandbox in sandboxes {
        sandbox.close().await;
    }
    another.farewell().await;
}

/// Whose files below a directory are, on the host. What the user may not enter is asked of a sandbox, not here.
fn owners_of(directory: &Path) -> BTreeSet<Option<u32>> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let metadata = entry.path().symlink_metadata().unwrap();
        found.insert(crate::range_of(metadata.uid()));
        found.extend(owners_of(&entry.path()));
    }
    found
}

async fn files_change_hands(world: Arc<World>) {
    let session = new_id();
    let spec = |start, accounts| spec(&world, session, start, accounts);
    let sandbox = world.provider.create(spec(Start::Fresh, accounts(None))).await.unwrap();
    let made = "cd /workspace; mkdir -m 755 d; for u in alice bob root; do echo $u > d/$u; ln -s $u d/l$u; chown -h $u:team d/$u d/l$u; done; chmod 4711 d/alice; chmod 000 d/bob; mkdir -m 700 closed; chown carol closed; echo x > closed/x";
    assert_eq!(run(&sandbox, "root", made).await.exit, Exit::Code(0));
    let seen = run(&sandbox, "root", LOOK).await.out;
    assert!(seen.contains("./d/alice 2000:2003 4711") && seen.contains("./closed 2002:0 700"), "{seen}");
    sandbox.close().await;
    let files = world.data.join("workspaces/default").join(session.to_string()).join("files");
    let first = files.metadata().unwrap().uid();
    assert!(crate::range_of(first).is_some() && owners_of(&files).iter().all(Option::is_some), "nothing is the user's");
    // While another sandbox has those ids it gets others, and its files with it.
    let other = with(&world, accounts(None)).await;
    let sandbox = world.provider.create(spec(KEPT, accounts(None))).await.unwrap();
    assert_eq!(run(&sandbox, "root", LOOK).await.out, seen);
    sandbox.close().await;
    assert_ne!(crate::range_of(files.metadata().unwrap().uid()), crate::range_of(first));
    other.close().await;
    // Where nobody else is declared everything is the one user's, on the host the service's.
    let sandbox = world.provider.create(spec(KEPT, Accounts::default())).await.unwrap();
    let one =
        support::sh(&sandbox, "find . -printf '%U:%G\\n' | sort -u; cat d/root closed/x; stat -c %a d/alice").await;
    assert_eq!(one.out, "1000:1000\nroot\nx\n4711\n", "{}", one.err);
    sandbox.close().await;
    assert_eq!(owners_of(&files), BTreeSet::from([None]));
    // And back again.
    let sandbox = world.provider.create(spec(KEPT, accounts(None))).await.unwrap();
    let back = run(
        &sandbox,
        "root",
        "cd /workspace; find . -printf '%U:%G\\n' | sort -u; chown bob d/root; mkdir -m 700 shut; echo y > shut/y",
    )
    .await;
    assert_eq!(back.out, "1000:1000\n", "{}", back.err);
    sandbox.close().await;
    // Another start in its place, and its removal, leave nothing of what the user itself may not remove.
    assert!(std::fs::remove_dir_all(&files).is_err(), "it may not");
    let sandbox = world.provider.create(spec(Start::Fresh, Accounts::default())).await.unwrap();
    assert_eq!(support::sh(&sandbox, "ls -A").await.out, "");
    sandbox.close().await;
    let sandbox = world.provider.create(spec(KEPT, accounts(None))).await.unwrap();
    run(&sandbox, "root", made).await;
    sandbox.close().await;
    world.provider.workspace_remove(&world.session(KEPT, session)).await.unwrap();
    assert!(!files.parent().unwrap().exists());
}

async fn what_is_shown_of_the_users_own_is_seen(world: Arc<World>) {
    let private = world.data.join("private");
    std::fs::create_dir(&private).unwrap();
    std::fs::write(private.join("told"), "told\n").unwrap();
    std::fs::write(private.join("secret"), "secret\n").unwrap();
    let mode = |path: &Path, mode| {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    };
    mode(&private.join("secret"), 0o600);
    mode(&private, 0o755);
    mode(&world.data, 0o700);
    let mut spec = spec(&world, new_id(), Start::Fresh, accounts(None));
    spec.binds.push(sandbox::Bind { host: private, inside: "/shown".to_owned() });
    let sandbox = world.provider.create(spec).await.unwrap();
    for user in ["root", "alice", "agent"] {
        let seen = run(&sandbox, user, "cat /shown/told /shown/secret; stat -c %U /shown/told; touch /shown/x").await;
        // The user is nobody inside, not even to root.
        assert_eq!(seen.out, "told\nnobody\n", "{user}: {seen:?}");
    }
    sandbox.close().await;
}
