//! Operations on whole trees of a real sandbox, beside programs that work against them.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a test with a main of its own is a test"
)]

mod support;

use bytes::Bytes;
use futures::StreamExt as _;
use sandbox::files::EventKind;
use sandbox::{Archive, ArchiveLimits, Change, Depth, Error, Provider as _, Replace, Sandbox, Spec, Start};
use std::sync::Arc;
use support::{Case, World, command, new_id, path, sh};

const WIDE: ArchiveLimits = ArchiveLimits { bytes_max: 64 << 20, entries_max: 20_000, duration_ms_max: 60_000 };

fn main() -> std::process::ExitCode {
    let cases: Vec<Case> = crate::cases![
        files_move_and_trees_go,
        what_happens_is_told,
        a_watch_ends_with_its_directory,
        trees_go_up_and_down,
        modes_change_and_go_back,
        nothing_leads_out_however_fast_it_changes,
    ];
    support::head::main(cases)
}

/// A sandbox with a fresh workspace, and nothing shown in it but that.
async fn fresh(world: &World) -> Arc<dyn Sandbox> {
    let spec = world.spec(world.session(Start::Fresh, new_id()));
    world.provider.create(Spec { binds: Vec::new(), ..spec }).await.unwrap()
}

fn why(error: &Error) -> String {
    error.to_string()
}

async fn files_move_and_trees_go(world: Arc<World>) {
    let sandbox = fresh(&world).await;
    sh(&sandbox, "mkdir -p a/b full/x; echo 1 > a/one; echo 2 > two; ln -s /etc out; ln -s a in; mkfifo pipe").await;
    let rows = [
        ("two", "a/two", Replace::Never, Ok(())),
        ("a/one", "a/two", Replace::Never, Err("something stands there already")),
        ("a/one", "a/two", Replace::Always, Ok(())),
        ("a", "full", Replace::Always, Err("not empty")),
        ("a", "a/b/c", Replace::Never, Err("")),
        ("in", "moved-link", Replace::Never, Ok(())),
        ("absent", "x", Replace::Never, Err("no such file")),
        ("a/two", "out/x", Replace::Always, Err("leads out")),
        ("out/passwd", "x", Replace::Always, Err("leads out")),
        (".", "x", Replace::Never, Err("")),
        ("pipe", "a/pipe", Replace::Never, Ok(())),
    ];
    for (from, to, replace, expected) in rows {
        let done = sandbox.rename(&path(from), &path(to), replace).await;
        match expected {
            Ok(()) => done.unwrap_or_else(|error| panic!("{from} to {to}: {error}")),
            Err(part) => assert!(why(&done.unwrap_err()).contains(part), "{from} to {to}"),
        }
    }
    assert_eq!(
        sh(&sandbox, "cat a/two; readlink moved-link; find a | sort").await.out,
        "1\na\na\na/b\na/pipe\na/two\n"
    );
    sh(&sandbox, "mkdir -p big/shut/in; for i in $(seq 300); do echo x > big/$i; done; ln -s /tmp big/tmp; chmod 0 big/shut; touch /tmp/stays").await;
    let error = sandbox.remove(&path("big"), 100).await.unwrap_err();
    assert!(why(&error).contains("stopped after 100") && why(&error).contains("entries_max = 100"), "{error}");
    assert_eq!(sandbox.remove(&path("big"), 1_000).await.unwrap(), 304 - 100);
    assert_eq!(sandbox.remove(&path("out"), 10).await.unwrap(), 1, "the link, not what it leads to");
    assert!(sandbox.remove(&path("."), 10).await.is_err());
    assert_eq!(sandbox.remove(&path("a"), 10).await.unwrap(), 4);
    assert_eq!(sh(&sandbox, "ls /tmp; ls").await.out, "stays\nfull\nmoved-link\n");
    sandbox.close().await;
}

async fn what_happens_is_told(world: Arc<World>) {
    let sandbox = fresh(&world).await;
    sh(&sandbox, "mkdir -p w/sub; ln -s /etc w/etc").await;
    let mut watch = sandbox.watch(&path("w"), Depth::Below).await.unwrap();
    assert_eq!(watch.next().await.unwrap().unwrap().kind, EventKind::Begun);
    sh(&sandbox, "cd w; echo 1 > f; mv f sub/g; chmod 600 sub/g; mkdir new; rm -r sub").await;
    let (mut seen, wanted) = (
        Vec::new(),
        [
            (EventKind::Created, "f"),
            (EventKind::Written, "f"),
            (EventKind::MovedFrom, "f"),
            (EventKind::MovedTo, "sub/g"),
            (EventKind::Changed, "sub/g"),
            (EventKind::Created, "new"),
            (EventKind::Removed, "sub/g"),
            (EventKind::Removed, "sub"),
        ],
    );
    while seen.last() != Some(&(EventKind::Removed, "sub".to_owned())) {
        let event = watch.next().await.unwrap().unwrap();
        seen.push((event.kind, event.path));
    }
    for (kind, at) in wanted {
        assert!(seen.contains(&(kind, at.to_owned())), "{kind:?} {at}: {seen:?}");
    }
    sh(&sandbox, "echo 2 > w/new/below").await;
    loop {
        let event = watch.next().await.unwrap().unwrap();
        if event.path == "new/below" && event.kind == EventKind::Written {
            break;
        }
    }
    // A reader that does not read is told that something is missing.
    sh(&sandbox, "cd w; i=0; while [ $i -lt 45000 ]; do : > f$((i % 100)); i=$((i + 1)); done; : > last").await;
    loop {
        let event = watch.next().await.unwrap().unwrap();
        if event.kind == EventKind::Overflow {
            break;
        }
        assert_ne!(event.path, "last", "everything was kept, so nothing shows that an overflow is told");
    }
    drop(watch);
    sh(&sandbox, "ln -s /etc etc").await;
    for absent in ["absent", "etc"] {
        let mut watch = sandbox.watch(&path(absent), Depth::Below).await.unwrap();
        assert_eq!(watch.next().await.unwrap_err().code(), "sandbox_file", "{absent}");
    }
    sandbox.close().await;
}

async fn a_watch_ends_with_its_directory(world: Arc<World>) {
    let sandbox = fresh(&world).await;
    // Removed by whomever, or moved away.
    sh(&sandbox, "mkdir -p w/in moved/in up/mid/in").await;
    for (depth, at, script) in [
        (Depth::Directory, "w/in", "rmdir w/in"),
        (Depth::Below, "w", "rm -r w"),
        (Depth::Below, "moved", "mv moved elsewhere; mkdir -p moved/in elsewhere/later"),
    ] {
        let mut watch = sandbox.watch(&path(at), depth).await.unwrap();
        assert_eq!(watch.next().await.unwrap().unwrap().kind, EventKind::Begun);
        sh(&sandbox, script).await;
        while let Some(event) = watch.next().await.unwrap() {
            assert!(!event.path.contains("later"), "{event:?}");
        }
    }
    let mut watch = sandbox.watch(&path("elsewhere"), Depth::Directory).await.unwrap();
    assert_eq!(watch.next().await.unwrap().unwrap().kind, EventKind::Begun);
    sandbox.remove(&path("elsewhere"), 1_000).await.unwrap();
    while watch.next().await.unwrap().is_some() {}
    // Where something above it got another name, what is new below is said to be unwatched, and nothing else is watched for it.
    let mut watch = sandbox.watch(&path("up/mid"), Depth::Below).await.unwrap();
    assert_eq!(watch.next().await.unwrap().unwrap().kind, EventKind::Begun);
    sh(&sandbox, "mv up down; mkdir -p up/mid/new; mkdir down/mid/new; echo 3 > up/mid/new/x; echo 3 > down/mid/last")
        .await;
    let mut seen = Vec::new();
    while !seen.contains(&(EventKind::Written, "last".to_owned())) {
        let event = watch.next().await.unwrap().unwrap();
        seen.push((event.kind, event.path));
    }
    assert!(seen.contains(&(EventKind::Unwatched, "new".to_owned())), "{seen:?}");
    assert!(!seen.iter().any(|(_, path)| path == "new/x"), "{seen:?}");
    sandbox.close().await;
}

async fn downloaded(sandbox: &Arc<dyn Sandbox>, at: &str) -> Result<Vec<u8>, Error> {
    let mut export = sandbox.download(&path(at), WIDE).await?;
    let mut whole = Vec::new();
    while let Some(piece) = export.next().await? {
        whole.extend_from_slice(&piece);
    }
    assert_eq!(export.totals().bytes, whole.len() as u64);
    Ok(whole)
}

fn archive(bytes: &[u8]) -> Archive {
    let pieces: Vec<_> = bytes.chunks(10_007).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    futures::stream::iter(pieces).boxed()
}

async fn trees_go_up_and_down(world: Arc<World>) {
    let sandbox = fresh(&world).await;
    sh(&sandbox, "mkdir -p t/d; echo one > t/d/1; echo two > t/2; ln -s d t/link; chmod 750 t/d; ln t/2 t/hard; mkfifo t/pipe; ln -s /etc e").await;
    let mut busy = sandbox.start(command(&["/bin/sh", "-c", "while :; do :; done"])).await.unwrap();
    let bytes = downloaded(&sandbox, "t").await.unwrap();
    sh(&sandbox, "mkdir -p u/d; echo old > u/d/1; echo stays > u/d/other; echo file > u/link").await;
    let totals = sandbox.upload(&path("u"), archive(&bytes), WIDE).await.unwrap();
    assert_eq!((totals.entries, totals.bytes), (6, bytes.len() as u64));
    let seen = sh(
        &sandbox,
        "cat u/d/1 u/d/other u/hard u/link/1; readlink u/link; stat -c %a u/d; [ -e u/pipe ] || echo none",
    )
    .await;
    assert_eq!(seen.out, "one\nstays\ntwo\none\nd\n750\nnone\n", "{}", seen.err);
    for (at, part) in
        [("absent", "no such file"), ("t/2", "not a directory"), ("e", "not a directory"), ("e/x", "leads out")]
    {
        let error = downloaded(&sandbox, at).await.unwrap_err();
        assert!(why(&error).contains(part), "{at}: {error}");
    }
    assert_eq!(sandbox.upload(&path("e"), archive(&bytes), WIDE).await.unwrap_err().code(), "sandbox_file");
    // What comes twice replaces what came first here; every other rule is as for a restore.
    for (number, (name, rule, bytes)) in support::tar::hostile().into_iter().enumerate() {
        let at = path(&format!("hostile{number}"));
        sandbox.apply(vec![Change::MakeDir { path: at.clone() }]).await.unwrap();
        let limits = ArchiveLimits { entries_max: 50, bytes_max: 1 << 20, ..WIDE };
        let done = sandbox.upload(&at, archive(&bytes), limits).await;
        if rule != sandbox::Rule::Duplicate {
            assert!(matches!(&done, Err(Error::Archive { rule: got, .. }) if *got == rule), "{name}: {done:?}");
        }
    }
    let small = ArchiveLimits { entries_max: 3, ..WIDE };
    assert_eq!(sandbox.upload(&path("u"), archive(&bytes), small).await.unwrap_err().code(), "archive_refused");
    busy.kill().await.unwrap();
    sandbox.close().await;
}

async fn modes_change_and_go_back(world: Arc<World>) {
    let sandbox = fresh(&world).await;
    sh(&sandbox, "echo x > f; mkdir d; mkfifo pipe; ln -s /etc/passwd p").await;
    let mode = |at: &str, mode| Change::Mode { path: path(at), mode };
    sandbox.apply(vec![mode("f", 0o600), mode("d", 0o500)]).await.unwrap();
    assert_eq!(sh(&sandbox, "stat -c %a f d").await.out, "600\n500\n");
    for row in [vec![mode("f", 0o777), mode("absent", 0o700)], vec![mode("f", 0o777), mode("p", 0o700)]] {
        assert!(sandbox.apply(row).await.is_err());
        assert_eq!(sh(&sandbox, "stat -c %a f").await.out, "600\n");
    }
    sandbox.apply(vec![mode("pipe", 0o640)]).await.unwrap();
    sandbox.close().await;
}

/// Programs swap a directory for a link to the outside while everything is read, listed, written, removed and unpacked through
/// it. Outside of the workspace stands a word that must never be seen, and a file that must never be changed.
async fn nothing_leads_out_however_fast_it_changes(world: Arc<World>) {
    const WORD: &str = "outside-2b9f";
    let sandbox = fresh(&world).await;
    sh(&sandbox, &format!("mkdir /tmp/out; echo {WORD} > /tmp/out/f; mkdir real d; echo in > real/f; echo in > d/f"))
        .await;
    // The control: a path that is simply opened does lead out.
    assert!(sh(&sandbox, "ln -s /tmp/out direct; cat direct/f").await.out.contains(WORD));
    let swap = "while :; do mv d old && ln -s /tmp/out d; rm d; mv old d; ln -s /tmp/out/f l; rm l; mkfifo l; rm l; echo in > l; rm l; done 2>/dev/null";
    let mut swapping = sandbox.start(command(&["/bin/sh", "-c", swap])).await.unwrap();
    let (up, mut got) = (downloaded(&sandbox, "real").await.unwrap(), 0);
    for round in 0..400 {
        for at in ["d/f", "l"] {
            if let Ok(bytes) = sandbox.read(&path(at), 0, 100).await {
                assert!(bytes.is_empty() || &bytes[..] == b"in\n", "{round}: {bytes:?}");
                got += 1;
            }
        }
        if let Ok(listed) = sandbox.list(&path("d"), 100).await {
            assert!(listed.iter().all(|(name, _)| name.len() < 40), "{round}");
        }
        let _ = sandbox
            .apply(vec![Change::Write { path: path("d/f"), bytes: Bytes::from_static(b"in\n"), mode: None }])
            .await;
        let _ = sandbox.apply(vec![Change::Mode { path: path("d/f"), mode: 0o640 }]).await;
        if round % 10 == 0 {
            let _ = sandbox.upload(&path("d"), archive(&up), WIDE).await;
            let _ = sandbox.rename(&path("d/f"), &path("d/g"), Replace::Always).await;
            let _ = sandbox.remove(&path("d/g"), 10).await;
            if let Ok(bytes) = downloaded(&sandbox, "d").await {
                assert!(!bytes.windows(WORD.len()).any(|part| part == WORD.as_bytes()), "{round}");
            }
        }
    }
    assert!(got > 20, "the race was run: {got} reads came through");
    swapping.kill().await.unwrap();
    let after = sh(&sandbox, "cat /tmp/out/f; ls /tmp/out; stat -c %a /tmp/out/f").await;
    assert_eq!(after.out, format!("{WORD}\nf\n644\n"), "nothing outside was touched");
    sandbox.close().await;
}
