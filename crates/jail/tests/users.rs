//! Sandboxes with users and groups of their own, on a real kernel: who they are inside, what they may, that none of them is
//! anybody outside, and that their files keep their owners.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a test with a main of its own is a test"
)]

#[path = "users/ordinary.rs"]
mod ordinary;
mod support;

use bytes::Bytes;
use domain::{Id, id};
use futures::StreamExt as _;
use sandbox::manifest::{Group, User};
use sandbox::{Accounts, Archive, ArchiveLimits, Change, Command, Error, Exit, Provider as _, Sandbox, Spec, Start};
use std::process::ExitCode;
use std::sync::Arc;
use support::{Case, Outcome, World, children_named, command, finish, new_id, path, until};

fn main() -> ExitCode {
    if let Some(code) = support::hostile::attempts::attacker() {
        return code;
    }
    if let Some(code) = support::victim() {
        return code;
    }
    if let Some(code) = ordinary::stepped_down() {
        return code;
    }
    // A variable of the harness that no sandbox may see, as the hostile suite wants it.
    if std::env::var_os(support::CANARY.0).is_none() {
        return support::again(&[], &[support::CANARY]);
    }
    let outer = support::Outer::enter("users", None);
    let (launcher, another) = (jail::launch().unwrap(), jail::launch().unwrap());
    let data = tempfile::tempdir().unwrap();
    if !rustix::process::geteuid().is_root() {
        support::skip("users", "only root can be everybody who is tried here");
        return ExitCode::SUCCESS;
    }
    let own = support::run(launcher, data.path(), cases());
    let data = support::hostile::data();
    let attacked = attack(another, data.path());
    drop(data);
    drop(outer);
    let ordinary = ordinary::everybody();
    if [own, attacked, ordinary].iter().all(|code| *code == ExitCode::SUCCESS) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Everything that attacks a sandbox attacks one with users, too, as one of them.
fn attack(launcher: jail::Launcher, data: &std::path::Path) -> ExitCode {
    support::DECLARED.set(accounts(Some("alice"))).unwrap();
    // Who the one user is that these say is said of all users; and here `/home` is theirs, not the host's.
    let of_one = [
        "who_and_where_it_is",
        "no_file_of_the_host",
        "nobody_becomes_somebody_else",
        "a_program_of_roots_is_an_ordinary_one",
    ];
    let cases = support::hostile::cases().into_iter().filter(|(name, _)| !of_one.contains(name)).collect();
    support::run(launcher, data, cases)
}

/// What holds for users whoever runs the service.
fn cases() -> Vec<Case> {
    crate::cases![
        users_are_who_they_say,
        nobody_inside_is_anybody_outside,
        root_inside_gets_no_further,
        no_program_makes_anybody_somebody_else,
        every_user_is_ended_and_halted,
        files_are_the_users,
        owners_come_back,
        a_terminal_is_its_users,
        who_is_not_there_is_told,
        what_they_cost_is_told,
    ]
}

/// The range of host ids that a sandbox's process has its ids in; `None`: no sandbox has such an id.
fn range_of(id: u32) -> Option<u32> {
    if rustix::process::geteuid().is_root() {
        return (0x1000_0000..0x2000_0000).contains(&id).then_some(id >> 16);
    }
    id.checked_sub(ordinary::FIRST).filter(|id| *id < ordinary::COUNT).map(|id| id / ordinary::PART_IDS)
}

fn accounts(user: Option<&str>) -> Accounts {
    let user_named = |name: &str| User { name: name.to_owned() };
    let team = Group { name: "team".to_owned(), users: vec!["alice".to_owned(), "bob".to_owned()] };
    Accounts {
        users: ["alice", "bob", "carol"].map(user_named).into(),
        groups: vec![team],
        user: user.map(str::to_owned),
    }
}

/// A sandbox of a session, with these users.
fn spec(world: &World, session: Id<id::Session>, start: Start, accounts: Accounts) -> Spec {
    Spec { accounts, ..world.spec(world.session(start, session)) }
}

async fn with(world: &World, accounts: Accounts) -> Arc<dyn Sandbox> {
    world.provider.create(spec(world, new_id(), Start::Fresh, accounts)).await.unwrap()
}

/// Tells whose every file of the workspace is, and what it allows.
const LOOK: &str = "cd /workspace; find . -printf '%p %U:%G %m\\n' | sort";

fn as_user(user: &str, argv: &[&str]) -> Command {
    Command { user: Some(user.to_owned()), ..command(argv) }
}

/// Runs a script as somebody.
async fn run(sandbox: &Arc<dyn Sandbox>, user: &str, script: &str) -> Outcome {
    let mut process = sandbox.start(as_user(user, &["/bin/sh", "-c", script])).await.unwrap();
    finish(process.as_mut()).await.unwrap()
}

async fn users_are_who_they_say(world: Arc<World>) {
    let sandbox = with(&world, accounts(None)).await;
    let rows = [
        ("agent", "uid=1000(agent) gid=1000(agent) groups=1000(agent)", "/workspace agent agent", "0000000000000000"),
        (
            "alice",
            "uid=2000(alice) gid=2000(alice) groups=2000(alice),2003(team)",
            "/home/alice alice alice",
            "0000000000000000",
        ),
        ("bob", "uid=2001(bob) gid=2001(bob) groups=2001(bob),2003(team)", "/home/bob bob bob", "0000000000000000"),
        ("carol", "uid=2002(carol) gid=2002(carol) groups=2002(carol)", "/home/carol carol carol", "0000000000000000"),
        ("root", "uid=0(root) gid=0(root) groups=0(root)", "/root root root", "00000000000000fb"),
    ];
    for (user, id, names, capabilities) in rows {
        let seen =
            run(&sandbox, user, "id; echo $HOME $USER $LOGNAME; grep -E '^Cap|NoNew|^Seccomp:' /proc/self/status")
                .await;
        let mut lines = seen.out.lines();
        assert_eq!((lines.next(), lines.next()), (Some(id), Some(names)), "{user}: {seen:?}");
        let status: Vec<&str> = lines.map(|line| line.split_whitespace().last().unwrap()).collect();
        let none = "0000000000000000";
        assert_eq!(status, [none, capabilities, capabilities, capabilities, none, "1", "2"], "{user}");
    }
    let seen = run(&sandbox, "agent", "pwd; stat -c '%U %a' . /home/alice /home/bob; ls /home/alice 2>&1").await;
    assert!(seen.out.starts_with("/workspace\nagent 755\nalice 700\nbob 700\nls: cannot open"), "{seen:?}");
    // What a group shares its members have, and nobody else.
    let shared = "chgrp team f; chmod 660 f";
    assert_eq!(run(&sandbox, "alice", &format!("cd /tmp; echo from alice > f; {shared}")).await.exit, Exit::Code(0));
    for (user, expected) in [("bob", "from alice\nfrom bob\n"), ("carol", ""), ("agent", "")] {
        let seen = run(&sandbox, user, &format!("cd /tmp; echo from {user} >> f && cat f")).await;
        assert_eq!(seen.out, expected, "{user}: {}", seen.err);
    }
    // Root gives files away, within what there is.
    let seen = run(&sandbox, "root", "cd /workspace; echo x > g; chown bob:team g; stat -c %U:%G g; chown 65535:65534 g; stat -c %u:%g g; chown 65536 g").await;
    assert_eq!((seen.out.as_str(), seen.exit), ("bob:team\n65535:65534\n", Exit::Code(1)), "{seen:?}");
    assert!(run(&sandbox, "alice", "chown carol /tmp/f").await.err.contains("not permitted"));
    sandbox.close().await;
    // Whoever is the main one has the workspace.
    let sandbox = with(&world, accounts(Some("alice"))).await;
    let mut process = sandbox.start(command(&["/bin/sh", "-c", "id -un; echo x > x; stat -c %U . x"])).await.unwrap();
    assert_eq!(finish(process.as_mut()).await.unwrap().out, "alice\nalice\nalice\n");
    sandbox.close().await;
}

/// The ids that the kernel knows a process by.
fn ids(pid: u32) -> Vec<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let of = status.lines().filter(|line| ["Uid:", "Gid:", "Groups:"].iter().any(|name| line.starts_with(name)));
    of.flat_map(|line| line.split_whitespace().skip(1).map(|id| id.parse().unwrap()).collect::<Vec<u32>>()).collect()
}

async fn nobody_inside_is_anybody_outside(world: Arc<World>) {
    let (first, second) = (with(&world, accounts(None)).await, with(&world, accounts(None)).await);
    let mut ranges = Vec::new();
    for (sandbox, name) in [(&first, "first-sleep"), (&second, "other-sleep")] {
        let script = format!("cp /bin/sleep /tmp/{name} && exec /tmp/{name} 1000");
        let mut running = Vec::new();
        for (number, user) in ["root", "alice", "agent"].into_iter().enumerate() {
            let script = script.replace(name, &format!("{name}{number}"));
            running.push(sandbox.start(as_user(user, &["/bin/sh", "-c", &script])).await.unwrap());
        }
        let names: Vec<String> = (0..3).map(|number| format!("{name}{number}")).collect();
        until("they run", || names.iter().all(|name| !children_named(name).is_empty())).await;
        for name in &names {
            let seen = ids(children_named(name)[0]);
            assert!(seen.iter().all(|id| range_of(*id).is_some()), "{name}: {seen:?}");
            ranges.push(range_of(seen[0]));
        }
        for mut process in running {
            process.kill().await.unwrap();
        }
    }
    assert!(ranges[..3].iter().all(|range| *range == ranges[0]) && ranges[3..].iter().all(|range| *range == ranges[3]));
    assert_ne!(ranges[0], ranges[3], "each sandbox has a range of its own");
    // The first process, too, which has the powers that it takes to become others.
    let inits = children_named("topside-init");
    assert!(
        !inits.is_empty() && inits.iter().all(|pid| ids(*pid).iter().all(|id| range_of(*id).is_some())),
        "{inits:?}"
    );
    first.close().await;
    second.close().await;
}

async fn root_inside_gets_no_further(world: Arc<World>) {
    let sandbox = with(&world, accounts(None)).await;
    let rows = [
        ("mount -t tmpfs none /tmp", "mounts"),
        ("umount /proc", "unmounts"),
        ("chroot / /bin/true", "another root"),
        ("mknod /tmp/null c 1 3", "a device"),
        ("unshare -m true", "a namespace"),
        ("unshare -U true", "a namespace of users"),
        ("nsenter -t 1 -m true", "the first process's namespaces"),
        ("echo x > /proc/sys/kernel/core_pattern", "a setting of the kernel"),
        ("echo 1 > /proc/sys/vm/drop_caches", "another"),
        ("hostname elsewhere", "the host's name"),
        ("cat /proc/1/environ", "the first process's variables"),
        ("ls /proc/1/fd/", "its files"),
        ("cat /proc/1/mem", "its memory"),
        ("ls -l /proc/1/exe && readlink /proc/1/exe", "its program"),
        ("echo x > /usr/bin/env", "the host's tools"),
        ("rm -f /usr/bin/env", "the same"),
        ("touch /x", "the root"),
        ("cat /etc/shadow", "the host's secrets"),
        ("chown 4294967294 /workspace", "an id that it has not"),
        ("python3 -c 'import os; os.setuid(65536)'", "becoming who it is not"),
        ("python3 -c 'import os; os.setuid(268435456)'", "becoming who is outside"),
        ("python3 -c 'import os; os.setgroups([65536])'", "groups that it has not"),
        (
            "cp /bin/true t && setfattr -n security.capability -v 0x0100000200000000000000000000000000000000 t",
            "a file's capabilities",
        ),
        ("dmesg", "the kernel's log"),
        ("ip link set lo down", "the network"),
        ("date -s 2001-01-01", "the clock"),
        ("renice -n -5 $$", "the scheduler"),
    ];
    for (script, what) in rows {
        let seen = run(&sandbox, "root", script).await;
        assert_ne!(seen.exit, Exit::Code(0), "{what}: {script}: {seen:?}");
    }
    // It is its own users' root: it ends what is theirs, not the first process, and goes on without those powers when it becomes one of them.
    let mut alice = sandbox.start(as_user("alice", &["sleep", "1000"])).await.unwrap();
    let seen = run(&sandbox, "alice", "echo $$; ls /proc | grep '^[0-9]' | tr '\\n' ' '").await;
    let own: Vec<u32> = seen.out.split_whitespace().map(|number| number.parse().unwrap()).collect();
    let sleeping = own[1..].iter().find(|number| **number < own[0] && **number > 1).unwrap();
    let seen = run(&sandbox, "root", &format!("kill -9 {sleeping}; kill -9 1; kill -STOP 1; echo lives")).await;
    assert_eq!(seen.out, "lives\n");
    assert_eq!(finish(alice.as_mut()).await.unwrap().exit, Exit::Signal(9));
    let become_alice = "import os; os.setgid(2000); os.setuid(2000); print(open('/proc/self/status').read().split('CapPrm:')[1].split()[0]); os.chown('/tmp', 0, 0)";
    let seen = run(&sandbox, "root", &format!("python3 -c \"{become_alice}\"")).await;
    assert!(seen.out == "0000000000000000\n" && seen.err.contains("PermissionError"), "{seen:?}");
    assert_eq!(run(&sandbox, "agent", "echo answers").await.out, "answers\n");
    let walls = sandbox.walls();
    assert!(walls.missing.is_empty() && walls.standing.iter().any(|wall| wall == "capabilities"), "{walls:?}");
    sandbox.close().await;
}

async fn no_program_makes_anybody_somebody_else(world: Arc<World>) {
    let sandbox = with(&world, accounts(None)).await;
    let made =
        "for at in /workspace /tmp /home; do cp /usr/bin/id $at/id && chmod 6755 $at/id && stat -c %a $at/id; done";
    assert_eq!(run(&sandbox, "root", made).await.out, "6755\n6755\n6755\n", "it can be made");
    for user in ["alice", "agent"] {
        for at in ["/workspace", "/tmp", "/home"] {
            let seen = run(&sandbox, user, &format!("{at}/id")).await;
            assert!(!seen.out.contains("euid") && !seen.out.contains("root"), "{user} {at}: {seen:?}");
        }
        for script in [
            "su -c id",
            "sudo -n id",
            "python3 -c 'import os; os.setuid(0)'",
            "python3 -c 'import os; os.setgroups([2003, 65533])'",
        ] {
            let seen = run(&sandbox, user, script).await;
            assert!(seen.exit != Exit::Code(0) && !seen.out.contains("uid=0"), "{user}: {script}: {seen:?}");
        }
    }
    sandbox.close().await;
}

async fn every_user_is_ended_and_halted(world: Arc<World>) {
    let sandbox = with(&world, accounts(None)).await;
    run(&sandbox, "root", "mkdir -m 777 /workspace/all").await;
    let write = "trap '' TERM; while :; do date +%N > /workspace/all/$(id -un); done & setsid sleep 1000 & wait";
    let mut writers = Vec::new();
    for user in ["alice", "bob", "root", "agent"] {
        writers.push(sandbox.start(as_user(user, &["/bin/sh", "-c", write])).await.unwrap());
    }
    let all = "ls /workspace/all | tr '\\n' ' '";
    while run(&sandbox, "agent", all).await.out != "agent alice bob root " {}
    // Nobody writes while it is read.
    for _ in 0..3 {
        assert!(exported(&sandbox).await.len() > 5_000);
    }
    let processes =
        "python3 -c \"import os; os.setgroups([65533]); print(sum(name.isdigit() for name in os.listdir('/proc')))\"";
    let before: u32 = run(&sandbox, "root", processes).await.out.trim().parse().unwrap();
    for mut writer in writers {
        writer.kill().await.unwrap();
    }
    let after: u32 = run(&sandbox, "root", processes).await.out.trim().parse().unwrap();
    assert!(before >= after + 8, "{before} {after}: those that are killed are gone, whoever's they are");
    sandbox.close().await;
}

async fn exported(sandbox: &Arc<dyn Sandbox>) -> Vec<u8> {
    let mut export = sandbox.export(ArchiveLimits::default()).await.unwrap();
    let pieces: Vec<_> = sandbox::archive::pieces(export.as_mut()).collect().await;
    pieces.into_iter().flat_map(|piece| piece.unwrap().to_vec()).collect()
}

fn archive(bytes: &[u8]) -> Archive {
    let pieces: Vec<_> = bytes.chunks(9_973).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    futures::stream::iter(pieces).boxed()
}

async fn files_are_the_users(world: Arc<World>) {
    let sandbox = with(&world, accounts(Some("alice"))).await;
    let write = |at: &str| Change::Write { path: path(at), bytes: Bytes::from_static(b"x"), mode: Some(0o640) };
    let give = |at: &str, group: &str| Change::Group { path: path(at), group: group.to_owned() };
    sandbox.apply(vec![write("d/f"), write("g"), give("g", "team")]).await.unwrap();
    assert_eq!(
        run(&sandbox, "root", "stat -c '%U %G %a' d d/f g").await.out,
        "alice alice 755\nalice alice 640\nalice team 640\n"
    );
    // All or nothing, whose it was included.
    let error = sandbox.apply(vec![write("h"), give("g", "alice"), give("g", "absent")]).await.unwrap_err();
    assert!(error.code() == "sandbox_file" && error.to_string().contains("no group `absent`"), "{error}");
    let mut broken = vec![give("g", "alice"), Change::Mode { path: path("absent"), mode: 0o600 }];
    assert!(sandbox.apply(std::mem::take(&mut broken)).await.is_err());
    assert_eq!(run(&sandbox, "root", "stat -c %G g; ls h 2>/dev/null").await.out, "team\n");
    // What is not hers she can't read or change by asking for it either.
    run(&sandbox, "root", "mkdir -m 700 roots; echo s > roots/s; echo s > secret; chmod 600 secret").await;
    // Nor is it hers because a name of hers leads to it.
    run(
        &sandbox,
        "root",
        "echo r > readable; chmod 664 readable; ln -s readable led; ln readable tied; chown -h alice led",
    )
    .await;
    for at in ["roots/s", "secret", "readable", "led", "tied"] {
        let is_hidden = ["roots/s", "secret"].contains(&at);
        assert_eq!(sandbox.read(&path(at), 0, 10).await.is_err(), is_hidden, "{at}");
        assert!(sandbox.apply(vec![give(at, "team")]).await.is_err(), "{at}");
    }
    assert_eq!(run(&sandbox, "root", "stat -c %U:%G readable secret").await.out, "root:root\nroot:root\n");
    sandbox.close().await;
}

async fn owners_come_back(world: Arc<World>) {
    let session = new_id();
    let spec = |start, accounts| spec(&world, session, start, accounts);
    let sandbox = world.provider.create(spec(Start::Fresh, accounts(None))).await.unwrap();
    let made = "cd /workspace; for u in alice bob root agent; do mkdir -m 750 $u; echo $u > $u/f; ln -s f $u/l; chown -hR $u:team $u; done; chmod 700 bob; chmod 4755 alice/f; ln alice/f hard; chown alice:alice .";
    assert_eq!(run(&sandbox, "root", made).await.exit, Exit::Code(0));
    let seen = run(&sandbox, "root", LOOK).await.out;
    assert!(seen.contains("./bob/f 2001:2003 644") && seen.contains("./agent/l 1000:2003 777"), "{seen}");
    let bytes = exported(&sandbox).await;
    assert!(bytes == exported(&sandbox).await, "two exports of one content are the same bytes");
    let names = [("agent/f", "0001750\0"), ("alice/f", "0003720\0"), ("root/f", "0000000\0"), ("bob/", "0003721\0")];
    for (name, owner) in names {
        let at = bytes.chunks(512).find(|block| block.starts_with(format!("{name}\0").as_bytes())).unwrap();
        assert_eq!(&at[108..116], owner.as_bytes(), "{name}");
    }
    sandbox.close().await;
    // With the next sandbox of the session.
    let sandbox = world.provider.create(spec(support::KEPT, accounts(None))).await.unwrap();
    assert_eq!(run(&sandbox, "root", LOOK).await.out, seen);
    // A checkpoint of a moment is read in a sandbox of its own.
    if let Some(checkpoint) = sandbox.checkpoint(new_id()).await.unwrap() {
        let mut export = checkpoint.export(ArchiveLimits::default()).await.unwrap();
        let pieces: Vec<_> = sandbox::archive::pieces(export.as_mut()).collect().await;
        assert!(pieces.into_iter().flat_map(|piece| piece.unwrap().to_vec()).collect::<Vec<u8>>() == bytes);
    } else if world.root {
        eprintln!("SKIPPED owners_come_back: no checkpoint can be taken in a moment here");
    }
    sandbox.close().await;
    // Out of an archive, and the same archive again.
    let restored = |accounts| crate::spec(&world, new_id(), Start::Restored, accounts);
    let sandbox = world.provider.create(restored(accounts(None))).await.unwrap();
    sandbox.import(archive(&bytes), ArchiveLimits::default()).await.unwrap();
    assert_eq!(run(&sandbox, "root", LOOK).await.out, seen);
    assert!(bytes == exported(&sandbox).await, "what was restored is what was kept");
    sandbox.close().await;
    // Where nobody else is declared everything is the one user's.
    let sandbox = world.provider.create(restored(Accounts::default())).await.unwrap();
    sandbox.import(archive(&bytes), ArchiveLimits::default()).await.unwrap();
    let seen = support::sh(&sandbox, "find . -printf '%U:%G\\n' | sort -u; cat bob/f root/f").await;
    assert_eq!(seen.out, "1000:1000\nbob\nroot\n", "{}", seen.err);
    sandbox.close().await;
    // No archive makes anybody who is not there: beyond what any sandbox has, or an ordinary user's.
    for (number, is_there) in [(b"0200000\0", false), (b"0011610\0", world.root)] {
        let mut beyond = bytes.clone();
        let at = beyond.chunks(512).position(|block| block.starts_with(b"bob/\0")).unwrap() * 512;
        beyond[at + 108..at + 116].copy_from_slice(number);
        let sum: u32 = (0..512).map(|i| if (148..156).contains(&i) { 32 } else { u32::from(beyond[at + i]) }).sum();
        beyond[at + 148..at + 156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let sandbox = world.provider.create(restored(accounts(None))).await.unwrap();
        match sandbox.import(archive(&beyond), ArchiveLimits::default()).await {
            Ok(_) => assert!(is_there),
            Err(Error::Archive { rule: sandbox::Rule::Malformed, .. }) => assert!(!is_there),
            Err(error) => panic!("{error}"),
        }
        sandbox.close().await;
    }
}

async fn a_terminal_is_its_users(world: Arc<World>) {
    let sandbox = with(&world, accounts(None)).await;
    for user in ["alice", "root", "agent"] {
        let script = "stat -c %U $(tty); echo seen > $(tty) && echo again > /dev/tty";
        let mut process =
            sandbox.start(Command { terminal: true, ..as_user(user, &["/bin/sh", "-c", script]) }).await.unwrap();
        let seen = finish(process.as_mut()).await.unwrap();
        assert_eq!(seen.out, format!("{user}\r\nseen\r\nagain\r\n"));
    }
    sandbox.close().await;
}

async fn who_is_not_there_is_told(world: Arc<World>) {
    let sandbox = with(&world, accounts(None)).await;
    let error = sandbox.start(as_user("mallory", &["true"])).await.unwrap_err();
    assert!(error.code() == "sandbox_command" && error.to_string().contains("no user `mallory`"), "{error}");
    sandbox.close().await;
    let spec = spec(&world, new_id(), Start::Fresh, accounts(Some("mallory")));
    let error = world.provider.create(spec).await.unwrap_err();
    assert!(error.code() == "sandbox_start" && error.to_string().contains("no user `mallory`"), "{error}");
    // Without users there is one.
    let sandbox = world.sandbox().await;
    for user in ["root", "alice"] {
        let error = sandbox.start(as_user(user, &["true"])).await.unwrap_err();
        assert_eq!(error.code(), "sandbox_command", "{user}");
    }
    assert_eq!(run(&sandbox, "agent", "id -u").await.out, "1000\n");
    sandbox.close().await;
}

/// No more than told: how long it takes until a sandbox with users has said something, beside one without.
async fn what_they_cost_is_told(world: Arc<World>) {
    const SAMPLES: usize = 21;
    for (name, accounts) in [("one id", Accounts::default()), ("users", accounts(Some("alice")))] {
        let mut took = Vec::new();
        for _ in 0..SAMPLES {
            let begun = std::time::Instant::now();
            let sandbox = with(&world, accounts.clone()).await;
            let mut process = sandbox.start(command(&["/bin/echo", "up"])).await.unwrap();
            assert_eq!(finish(process.as_mut()).await.unwrap().out, "up\n");
            took.push(begun.elapsed());
            sandbox.close().await;
        }
        took.sort();
        println!(
            "{name}: {:.1} ms from nothing to the end of a command, median of {SAMPLES}",
            took[SAMPLES / 2].as_secs_f64() * 1e3
        );
    }
}
