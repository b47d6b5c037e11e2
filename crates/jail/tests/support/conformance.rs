//! What any provider must do: commands, terminals, files, workspaces; archives stand apart, beside. No attacks.

use super::{Case, KEPT, World, command, finish, new_id, path, resident_bytes, sh, until};
use bytes::Bytes;
use sandbox::{Bind, Change, Chunk, Error, Exit, FileKind, Provider as _, Sandbox, Start, Stream, Workspace};
use std::sync::Arc;

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = crate::cases![
        a_command_gives_output_and_its_end,
        starts_that_fail_say_why,
        input_goes_in_and_ends,
        a_terminal_is_one,
        environment_is_ours_alone,
        files_are_written_read_and_listed,
        changes_are_made_all_or_none,
        paths_stay_inside,
        a_grandchild_does_not_hold_the_end,
        a_kill_takes_the_whole_session,
        a_dropped_command_is_killed,
        much_output_needs_little_memory,
        a_slow_reader_blocks_only_itself,
        much_input_is_taken,
        limits_on_commands_hold,
        a_stale_lease_is_refused,
        a_workspace_outlives_its_sandbox,
        a_view_is_read_only,
        a_closed_sandbox_says_so,
        what_is_paused_stands_still_until_something_begins,
        many_start_at_once,
        the_probe_tries_every_wall,
    ];
    cases.extend(super::checkpoints::cases());
    cases
}

async fn a_command_gives_output_and_its_end(world: Arc<World>) {
    let sandbox = world.sandbox().await;
    let rows = [
        ("echo out; echo err >&2", "out\n", "err\n", Exit::Code(0)),
        ("exit 7", "", "", Exit::Code(7)),
        ("kill -15 $$", "", "", Exit::Signal(15)),
        ("printf 'no end'", "no end", "", Exit::Code(0)),
        ("pwd; id -u; whoami; hostname | cut -d- -f1", "/workspace\n1000\nagent\nsandbox\n", "", Exit::Code(0)),
        ("echo b a | tr ' ' '\\n' | sort | awk '{n++} END {print n}'", "2\n", "", Exit::Code(0)),
        ("echo hidden > /dev/null; head -c 3 /dev/zero | wc -c", "3\n", "", Exit::Code(0)),
    ];
    for (script, out, err, exit) in rows {
        let got = sh(&sandbox, script).await;
        assert_eq!((got.out.as_str(), got.err.as_str(), got.exit), (out, err, exit), "{script}");
    }
    sandbox.close().await;
}

async fn starts_that_fail_say_why(world: Arc<World>) {
    let sandbox = world.sandbox().await;
    let asked = |argv: &[&str], workdir: &str| sandbox::Command { workdir: path(workdir), ..command(argv) };
    let rows = [
        (asked(&["no-such"], "."), "`no-such`: no such program"),
        (asked(&["/etc/passwd"], "."), "ermission denied"),
        (asked(&[], "."), "no program is named"),
        (asked(&["true"], "absent"), "workdir"),
        (asked(&["true", "\0"], "."), "zero byte"),
        (asked(&["true", &"x".repeat(200 << 10)], "."), "argument_bytes_max"),
    ];
    for (asked, expected) in rows {
        let error = sandbox.start(asked).await.unwrap_err();
        assert_eq!(error.code(), "sandbox_command", "{error}");
        assert!(error.to_string().contains(expected), "{error} lacks {expected}");
    }
    assert_eq!(sh(&sandbox, "echo still here").await.out, "still here\n");
    sandbox.close().await;
}

async fn input_goes_in_and_ends(world: Arc<World>) {
    let sandbox = world.sandbox().await;
    let mut asked = command(&["cat"]);
    asked.stdin = true;
    let mut process = sandbox.start(asked).await.unwrap();
    process.write(Bytes::from_static(b"one\n")).await.unwrap();
    assert_eq!(process.next().await.unwrap(), Chunk::Output(Stream::Stdout, Bytes::from_static(b"one\n")));
    process.close_stdin().await.unwrap();
    assert_eq!(process.next().await.unwrap(), Chunk::Exit(Exit::Code(0)));
    assert!(matches!(process.next().await, Err(Error::NoProcess)));
    assert!(matches!(process.write(Bytes::from_static(b"late")).await, Err(Error::NoProcess)));
    assert_eq!(sh(&sandbox, "cat").await.exit, Exit::Code(0), "without stdin it is empty");
    sandbox.close().await;
}

async fn a_terminal_is_one(world: Arc<World>) {
    let sandbox = world.sandbox().await;
    let mut asked = command(&["/bin/sh", "-c", "tty; stty size; read line; echo \"got $line\"; stty size; cat"]);
    asked.terminal = true;
    let mut process = sandbox.start(asked).await.unwrap();
    let mut seen = String::new();
    while !seen.contains("24 80") {
        seen.push_str(&output(process.next().await.unwrap()));
    }
    assert!(seen.starts_with("/dev/pts/0"), "{seen}");
    process.resize(50, 132).await.unwrap();
    process.write(Bytes::from_static(b"word\n")).await.unwrap();
    while !seen.contains("50 132") {
        seen.push_str(&output(process.next().await.unwrap()));
    }
    assert!(seen.contains("got word"), "{seen}");
    process.close_stdin().await.unwrap();
    assert_eq!(finish(process.as_mut()).await.unwrap().exit, Exit::Code(0));
    sandbox.close().await;
}

fn output(chunk: Chunk) -> String {
    match chunk {
        Chunk::Output(_, bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Chunk::Exit(exit) => panic!("it ended: {exit:?}"),
    }
}

async fn environment_is_ours_alone(world: Arc<World>) {
    let mut spec = world.spec(world.session(Start::Fresh, new_id()));
    spec.environment = vec![("LEVEL".to_owned(), "spec".to_owned()), ("KEPT".to_owned(), "yes".to_owned())];
    let sandbox = world.provider.create(spec).await.unwrap();
    let mut asked = command(&["env"]);
    asked.environment = vec![("LEVEL".to_owned(), "command".to_owned())];
    let mut process = sandbox.start(asked).await.unwrap();
    let got = finish(process.as_mut()).await.unwrap();
    let mut names: Vec<&str> = got.out.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    names.sort_unstable();
    assert_eq!(names, ["HOME", "KEPT", "LANG", "LEVEL", "LOGNAME", "PATH", "USER"]);
    assert!(got.out.contains("LEVEL=command\n") && got.out.contains("HOME=/workspace\n"), "{}", got.out);
    sandbox.close().await;
}

fn write(at: &str, text: &str) -> Change {
    Change::Write { path: path(at), bytes: Bytes::from(text.to_owned()), mode: None }
}

async fn text(sandbox: &Arc<dyn Sandbox>, at: &str) -> String {
    String::from_utf8(sandbox.read(&path(at), 0, 1 << 20).await.unwrap().to_vec()).unwrap()
}

async fn files_are_written_read_and_listed(world: Arc<World>) {
    let sandbox = world.sandbox().await;
    let script =
        Change::Write { path: path("bin/run"), bytes: Bytes::from_static(b"#!/bin/sh\necho ran\n"), mode: Some(0o755) };
    sandbox
        .apply(vec![write("a/b/c.txt", "hello"), script, Change::MakeDir { path: path("empty/deep") }])
        .await
        .unwrap();
    assert_eq!(text(&sandbox, "a/b/c.txt").await, "hello");
    assert_eq!(&sandbox.read(&path("a/b/c.txt"), 1, 3).await.unwrap()[..], b"ell");
    assert_eq!(sh(&sandbox, "bin/run").await.out, "ran\n");
    let stat = sandbox.stat(&path("a/b/c.txt")).await.unwrap();
    assert_eq!((stat.kind, stat.bytes, stat.mode), (FileKind::File, 5, 0o644));
    sandbox.apply(vec![write("bin/run", "#!/bin/sh\necho again\n")]).await.unwrap();
    assert_eq!(sh(&sandbox, "bin/run").await.out, "again\n", "the mode is kept");
    let names = |listed: Vec<(String, sandbox::Stat)>| listed.into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    assert_eq!(names(sandbox.list(&path("."), 10).await.unwrap()), ["a", "bin", "empty"]);
    assert_eq!(names(sandbox.list(&path("."), 2).await.unwrap()), ["a", "bin"]);
    let changed: Vec<String> =
        sandbox.changed(100).await.unwrap().into_iter().map(|(path, _)| path.to_string()).collect();
    assert_eq!(changed, ["a", "a/b", "a/b/c.txt", "bin", "bin/run", "empty", "empty/deep"]);
    sandbox.apply(vec![Change::Remove { path: path("a/b/c.txt") }]).await.unwrap();
    let Err(Error::File { missing, operation, .. }) = sandbox.read(&path("a/b/c.txt"), 0, 1).await else {
        panic!("read")
    };
    assert_eq!((missing, operation), (true, "read"));
    let large = vec![7; 5 << 20];
    let change = Change::Write { path: path("large"), bytes: Bytes::from(large.clone()), mode: None };
    sandbox.apply(vec![change]).await.unwrap();
    assert_eq!(sandbox.read(&path("large"), 0, 6 << 20).await.unwrap(), large);
    sandbox.close().await;
}

async fn changes_are_made_all_or_none(world: Arc<World>) {
    let sandbox = world.sandbox().await;
    sandbox.apply(vec![write("kept", "old"), write("gone", "old")]).await.unwrap();
    sh(&sandbox, "mkdir dir").await;
    let before = sh(&sandbox, "find . | sort").await.out;
    let rows = [
        vec![write("kept", "new"), write("new/file", "x"), Change::Remove { path: path("absent") }],
        vec![Change::Remove { path: path("gone") }, write("dir", "is a directory")],
        vec![write("a", "x"), Change::Remove { path: path("dir") }],
        vec![write("kept/below", "a file is no directory")],
        vec![write("a", "1"), write("a", "2")],
    ];
    for row in rows {
        let shown = format!("{row:?}");
        let error = sandbox.apply(row).await.unwrap_err();
        assert_eq!(error.code(), "sandbox_file", "{shown}: {error}");
        assert_eq!(sh(&sandbox, "find . | sort").await.out, before, "{shown}");
        assert_eq!(text(&sandbox, "kept").await, "old", "{shown}");
    }
    sandbox.apply(vec![write("kept", "new"), Change::Remove { path: path("gone") }]).await.unwrap();
    assert_eq!(sh(&sandbox, "cat kept; ls -a").await.out, "new.\n..\ndir\nkept\n");
    sandbox.close().await;
}

async fn paths_stay_inside(world: Arc<World>) {
    let sandbox = world.sandbox().await;
    sh(
        &sandbox,
        "ln -s /etc out; ln -s /etc/passwd file; mkfifo fifo; ln -s ../tmp up; mkdir in; echo ok > in/f; ln -s in link",
    )
    .await;
    for at in ["out/passwd", "file", "fifo", "up/x", "/dev/../x"] {
        let Ok(at) = at.parse() else { continue };
        assert_eq!(sandbox.read(&at, 0, 10).await.unwrap_err().code(), "sandbox_file", "{at}");
    }
    for at in ["out/new", "up/new"] {
        assert_eq!(sandbox.apply(vec![write(at, "x")]).await.unwrap_err().code(), "sandbox_file", "{at}");
    }
    assert_eq!(text(&sandbox, "link/f").await, "ok\n", "a link inside is a link");
    assert_eq!(sandbox.stat(&path("file")).await.unwrap().kind, FileKind::Link);
    assert_eq!(sandbox.stat(&path("fifo")).await.unwrap().kind, FileKind::Other);
    sandbox.apply(vec![write("file", "mine"), write("fifo", "mine")]).await.unwrap();
    assert_eq!(
        sh(&sandbox, "cat file fifo; grep -c agent /etc/passwd").await.out,
        "minemine1\n",
        "links are replaced, not followed"
    );
    sandbox.close().await;
}

async fn a_grandchild_does_not_hold_the_end(world: Arc<World>) {
    let sandbox = world.sandbox().await;
    let got = sh(&sandbox, "sleep 1000 & echo started").await;
    assert_eq!((got.out.as_str(), got.exit), ("started\n", Exit::Code(0)));
    assert_eq!(sh(&sandbox, "pgrep -c sleep").await.out, "1\n", "it lives on in the background");
    sandbox.close().await;
}

async fn a_kill_takes_the_whole_session(world: Arc<World>) {
    let sandbox = world.sandbox().await;
    let script = "trap '' TERM INT HUP; sleep 1000 & (sleep 1000; :) & echo up; wait";
    let mut process = sandbox.start(command(&["/bin/sh", "-c", script])).await.unwrap();
    assert_eq!(output(process.next().await.unwrap()), "up\n");
    assert_eq!(process.kill().await.unwrap(), Exit::Signal(9));
    assert_eq!(process.kill().await.unwrap(), Exit::Signal(9), "again is the same");
    assert_eq!(sh(&sandbox, "pgrep -c sleep").await.out, "0\n");
    sandbox.close().await;
}

async fn a_dropped_command_is_killed(world: Arc<World>) {
    let sandbox = world.sandbox().await;
    let mut process = sandbox.start(command(&["/bin/sh", "-c", "echo up; exec sleep 1000"])).await.unwrap();
    assert_eq!(output(process.next().await.unwrap()), "up\n");
    drop(process);
    let got = sh(&sandbox, "while pgrep sleep > /dev/null; do :; done; echo gone").await;
    assert_eq!(got.out, "gone\n");
    sandbox.close().await;
}

async fn much_output_needs_little_memory(world: Arc<World>) {
    let sandbox = world.sandbox().await;
    let before = resident_bytes();
    let mut process = sandbox.start(command(&["/bin/sh", "-c", "head -c 300000000 /dev/zero; exit 3"])).await.unwrap();
    let (mut bytes, mut peak) = (0, 0);
    let exit = loop {
        match process.next().await.unwrap() {
            Chunk::Output(_, chunk) => bytes += chunk.len(),
            Chunk::Exit(exit) => break exit,
        }
        peak = peak.max(resident_bytes());
    };
    assert_eq!((bytes, exit), (300_000_000, Exit::Code(3)));
    let grown = peak.saturating_sub(before);
    assert!(grown < 16 << 20, "grew by {grown} bytes");
    sandbox.close().await;
}

async fn a_slow_reader_blocks_only_itself(world: Arc<World>) {
    let sandbox = world.sandbox().await;
    let mut flood = sandbox.start(command(&["/bin/sh", "-c", "yes"])).await.unwrap();
    let _ = flood.next().await.unwrap();
    for _ in 0..20 {
        assert_eq!(sh(&sandbox, "echo through").await.out, "through\n");
    }
    assert_eq!(flood.kill().await.unwrap(), Exit::Signal(9));
    sandbox.close().await;
}

async fn much_input_is_taken(world: Arc<World>) {
    let sandbox = world.sandbox().await;
    let mut asked = command(&["/bin/sh", "-c", "wc -c"]);
    asked.stdin = true;
    let mut process = sandbox.start(asked).await.unwrap();
    for _ in 0..30 {
        process.write(Bytes::from(vec![b'x'; 1 << 20])).await.unwrap();
    }
    process.close_stdin().await.unwrap();
    assert_eq!(finish(process.as_mut()).await.unwrap().out, format!("{}\n", 30 << 20));
    let mut asked = command(&["true"]);
    asked.stdin = true;
    let mut deaf = sandbox.start(asked).await.unwrap();
    let wrote = async {
        for _ in 0..30 {
            if deaf.write(Bytes::from(vec![b'x'; 1 << 20])).await.is_err() {
                return;
            }
        }
    };
    wrote.await;
    assert_eq!(finish(deaf.as_mut()).await.unwrap().exit, Exit::Code(0), "input for nobody ends");
    sandbox.close().await;
}

async fn limits_on_commands_hold(world: Arc<World>) {
    let mut spec = world.spec(Workspace::Scratch);
    spec.limits.commands_max = 2;
    let sandbox = world.provider.create(spec).await.unwrap();
    let held = [
        sandbox.start(command(&["sleep", "1000"])).await.unwrap(),
        sandbox.start(command(&["sleep", "1000"])).await.unwrap(),
    ];
    let error = sandbox.start(command(&["true"])).await.unwrap_err();
    assert!(error.to_string().contains("commands_max = 2"), "{error}");
    drop(held);
    let mut fits = false;
    for _ in 0..1_000 {
        fits = fits || sandbox.start(command(&["true"])).await.is_ok();
    }
    assert!(fits, "places become free again");
    sandbox.close().await;
}

async fn a_stale_lease_is_refused(world: Arc<World>) {
    let mut spec = world.spec(Workspace::Scratch);
    spec.epoch = 5;
    let sandbox = world.provider.create(spec).await.unwrap();
    for (epoch, accepted) in [(5, true), (4, false), (7, true), (6, false), (7, true)] {
        let mut asked = command(&["true"]);
        asked.epoch = epoch;
        let started = sandbox.start(asked).await;
        assert_eq!(started.is_ok(), accepted, "epoch {epoch}");
        if let Err(error) = started {
            assert!(error.to_string().contains("stale lease"), "{error}");
        }
    }
    sandbox.close().await;
}

async fn a_workspace_outlives_its_sandbox(world: Arc<World>) {
    let session = new_id();
    let (fresh, again) = (world.session(Start::Fresh, session), world.session(KEPT, session));
    assert!(!world.provider.workspace_exists(&again).await.unwrap());
    let lost = world.provider.create(world.spec(again.clone())).await.unwrap_err();
    assert_eq!(lost.code(), "workspace_lost");
    let sandbox = world.provider.create(world.spec(fresh.clone())).await.unwrap();
    sh(&sandbox, "mkdir -p d; echo one > d/f; ln -s d/f l; ln d/f h; chmod 755 d/f; truncate -s 10M holes").await;
    // Dropped, not closed: the next start waits until it is gone.
    drop(sandbox);
    let sandbox = world.provider.create(world.spec(again.clone())).await.unwrap();
    let got =
        sh(&sandbox, "cat d/f l h; stat -c '%A %h %s' d/f; readlink l; stat -c %s holes; echo two > d/f; rm l").await;
    assert_eq!(got.out, "one\none\none\n-rwxr-xr-x 2 4\nd/f\n10485760\n", "{}", got.err);
    sandbox.close().await;
    let sandbox = world.provider.create(world.spec(again.clone())).await.unwrap();
    assert_eq!(sh(&sandbox, "cat d/f h; ls").await.out, "two\ntwo\nd\nh\nholes\n");
    sandbox.close().await;
    let sandbox = world.provider.create(world.spec(fresh)).await.unwrap();
    assert_eq!(sh(&sandbox, "ls -A").await.out, "", "fresh is empty");
    sandbox.close().await;
    assert!(world.provider.workspace_exists(&again).await.unwrap());
    world.provider.workspace_remove(&again).await.unwrap();
    assert!(!world.provider.workspace_exists(&again).await.unwrap());
    let mut odd = world.spec(Workspace::Session { tenant: "../x".to_owned(), session, start: Start::Fresh });
    odd.epoch = 1;
    assert_eq!(world.provider.create(odd).await.unwrap_err().code(), "sandbox_start");
}

async fn a_view_is_read_only(world: Arc<World>) {
    let shown = world.data.join("shown");
    std::fs::create_dir_all(&shown).unwrap();
    std::fs::write(shown.join("f"), "seen").unwrap();
    let bind = |inside: &str| Bind { host: shown.clone(), inside: inside.to_owned() };
    let mut spec = world.spec(Workspace::Scratch);
    spec.binds = vec![bind("/opt/data")];
    let sandbox = world.provider.create(spec).await.unwrap();
    let got = sh(&sandbox, "cat /opt/data/f; echo x > /opt/data/g").await;
    assert_eq!(got.out, "seen");
    assert_ne!(got.exit, Exit::Code(0));
    assert!(!shown.join("g").exists());
    sandbox.close().await;
    for inside in ["/usr/x", "/workspace/x", "relative", "/a/../etc", "/"] {
        let mut spec = world.spec(Workspace::Scratch);
        spec.binds = vec![bind(inside)];
        assert_eq!(world.provider.create(spec).await.unwrap_err().code(), "sandbox_path", "{inside}");
    }
}

async fn a_closed_sandbox_says_so(world: Arc<World>) {
    let sandbox = world.sandbox().await;
    let mut process = sandbox.start(command(&["sleep", "1000"])).await.unwrap();
    sandbox.close().await;
    sandbox.close().await;
    assert_eq!(process.next().await.unwrap_err().code(), "sandbox_gone");
    assert_eq!(sandbox.start(command(&["true"])).await.unwrap_err().code(), "sandbox_gone");
    assert_eq!(sandbox.read(&path("x"), 0, 1).await.unwrap_err().code(), "sandbox_gone");
    until("no first process is left", || super::children_named("topside-init").is_empty()).await;
}

/// How the host sees the program with this last argument.
fn state_of(marker: &str) -> Option<char> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).find_map(|process| {
        let command = std::fs::read(format!("/proc/{process}/cmdline")).ok()?;
        let last = command.split(|byte| *byte == 0).rfind(|argument| !argument.is_empty())?;
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        let state = stat.rsplit_once(')')?.1.trim_start().chars().next();
        state.filter(|_| last == marker.as_bytes())
    })
}

async fn what_is_paused_stands_still_until_something_begins(world: Arc<World>) {
    const LONG_MS: u64 = 600_000;
    let sandbox = world.sandbox().await;
    let marker = format!("paused-{}", sandbox.id());
    let counts = "i=0; while :; do i=$((i+1)); echo $i > next; mv next count; done";
    let counting = sandbox.start(command(&["sh", "-c", counts, &marker])).await.unwrap();
    let goes_on = "was=$(cat count); until [ $(cat count) -gt $was ]; do :; done";
    sh(&sandbox, "until [ -s count ]; do :; done").await;
    let is_paused = async || {
        let living = world.provider.living().await.unwrap();
        living.iter().find(|living| living.id == sandbox.id()).map(|living| living.is_paused)
    };
    assert_eq!(is_paused().await, Some(false));
    for _ in 0..3 {
        assert!(sandbox.pause(LONG_MS).await.unwrap());
        assert_eq!(state_of(&marker), Some('T'), "it does not stand still");
        // Who only looks wakes nobody, and nobody writes meanwhile.
        let (one, other) = (sandbox.read(&path("count"), 0, 64).await, sandbox.read(&path("count"), 0, 64).await);
        assert_eq!(one.unwrap(), other.unwrap());
        assert_eq!((state_of(&marker), is_paused().await), (Some('T'), Some(true)));
        // Who begins something does.
        assert_eq!(sh(&sandbox, goes_on).await.exit, Exit::Code(0));
        assert_eq!(is_paused().await, Some(false));
    }
    assert!(sandbox.pause(LONG_MS).await.unwrap());
    sandbox.resume().await.unwrap();
    sandbox.resume().await.unwrap();
    assert_eq!(is_paused().await, Some(false));
    assert_eq!(sh(&sandbox, goes_on).await.exit, Exit::Code(0));
    // Whoever comes while they are on their way to a halt waits for nobody else either.
    for _ in 0..20 {
        let (paused, begun) = tokio::join!(sandbox.pause(LONG_MS), sh(&sandbox, "true"));
        assert!(paused.is_ok(), "{paused:?}");
        assert_eq!(begun.exit, Exit::Code(0));
    }
    sandbox.resume().await.unwrap();
    // What stands still is ended like anything else.
    assert!(sandbox.pause(LONG_MS).await.unwrap());
    sandbox.close().await;
    assert_eq!(state_of(&marker), None);
    assert_eq!(sandbox.resume().await.unwrap_err().code(), "sandbox_gone");
    assert_eq!(sandbox.pause(LONG_MS).await.unwrap_err().code(), "sandbox_gone");
    drop(counting);
}

async fn the_probe_tries_every_wall(world: Arc<World>) {
    let before = super::traces(&world.data);
    let probe = world.provider.probe().await;
    assert!(probe.ready, "{probe:?}");
    let mut probed: Vec<&str> = probe.walls.iter().map(|finding| finding.wall.as_str()).collect();
    let sandbox = world.sandbox().await;
    let mut standing: Vec<&str> = sandbox.walls().standing.iter().map(String::as_str).collect();
    probed.sort_unstable();
    standing.sort_unstable();
    assert_eq!(probed, standing, "what is probed is what a sandbox gets");
    sandbox.close().await;
    drop(sandbox);
    until(&format!("as before: {before:?}"), || super::traces(&world.data) == before).await;
}

async fn many_start_at_once(world: Arc<World>) {
    // Where images stand in a pool, that is one loop device, and stays.
    world.sandbox().await.close().await;
    let before = super::traces(&world.data).loops;
    let tasks: Vec<_> = (0..24)
        .map(|number| {
            let world = Arc::clone(&world);
            tokio::spawn(async move {
                let sandbox = world.sandbox().await;
                let got = sh(&sandbox, &format!("echo {number} > own; cat own; ls | wc -l")).await;
                assert_eq!(got.out, format!("{number}\n1\n"));
                sandbox.close().await;
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    // One that is given up half way leaves nothing.
    for _ in 0..8 {
        let _ = tokio::time::timeout(std::time::Duration::from_millis(3), world.sandbox()).await;
    }
    // Requests are served in order, so behind this one nothing of them is still to be made.
    world.sandbox().await.close().await;
    until("those given up are gone", || {
        let left = super::traces(&world.data);
        (left.processes, left.loops) == (0, before)
    })
    .await;
}
