//! What any provider must do with archives of a workspace, and with workspaces that others had since: round trips of whatever
//! a program can make, one content one archive, limits, halts that always end, hostile archives refused by name.

use super::tar::{self, Forged};
use super::{Case, World, command, descendants, finish, new_id, path, resident_bytes, sh, skip, until};
use bytes::Bytes;
use domain::{Id, id};
use futures::{StreamExt as _, stream};
use sandbox::{
    Archive, ArchiveLimits, Change, Chunk, Error, Exit, Export, Process, Provider as _, Rule, Sandbox, Start, Stream,
    Totals,
};
use std::future::Future;
use std::sync::Arc;
use std::task::Poll;

pub(crate) fn cases() -> Vec<Case> {
    crate::cases![
        whatever_a_program_makes_comes_back,
        one_content_is_one_archive,
        any_tar_reads_it,
        a_large_workspace_needs_little_memory,
        limits_of_archives_hold,
        programs_stand_still_and_go_on,
        who_stood_still_stays_so,
        who_fights_the_halt_is_halted,
        new_commands_wait_for_an_export,
        hostile_archives_are_refused_by_name,
        an_import_that_breaks_off_leaves_nothing_good,
        an_import_comes_first_and_once,
        a_restored_workspace_is_kept,
        a_stale_copy_is_told,
        a_replaced_driver_is_refused,
    ]
}

const WIDE: ArchiveLimits = ArchiveLimits { bytes_max: 1 << 30, entries_max: 100_000, duration_ms_max: 60_000 };

async fn read(export: &mut dyn Export) -> Result<(Vec<u8>, Totals), Error> {
    let mut bytes = Vec::new();
    while let Some(piece) = export.next().await? {
        assert!(piece.len() <= sandbox::archive::PIECE_BYTES_MAX, "a piece of {} bytes", piece.len());
        bytes.extend_from_slice(&piece);
    }
    Ok((bytes, export.totals()))
}

async fn exported(sandbox: &Arc<dyn Sandbox>) -> (Vec<u8>, Totals) {
    let mut export = sandbox.export(WIDE).await.unwrap();
    read(export.as_mut()).await.unwrap()
}

/// An archive in pieces of an odd length.
fn archive(bytes: &[u8]) -> Archive {
    let pieces: Vec<_> = bytes.chunks(10_007).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    stream::iter(pieces).boxed()
}

async fn restoring(world: &World, session: Id<id::Session>) -> Arc<dyn Sandbox> {
    world.provider.create(world.spec(world.session(Start::Restored, session))).await.unwrap()
}

/// A sandbox whose workspace is made from an archive.
async fn restored(world: &World, bytes: &[u8]) -> Arc<dyn Sandbox> {
    let sandbox = restoring(world, new_id()).await;
    sandbox.import(archive(bytes), WIDE).await.unwrap();
    sandbox
}

const NASTY: &str = r#"
    set -e
    mkdir -p empty/deeper 'with space' wide
    printf 'one\n' > plain; : > nothing
    ln plain 'with space/hard'; ln plain zz-hard
    ln -s plain soft; ln -s /etc/passwd absolute; ln -s ../../../outside up; ln -s nowhere dangling; ln -s self self
    ln -s "$(printf '%0300d' 0)" long-target
    printf x > "$(printf 'new\nline')"; printf x > "$(printf 'not\377text\303(')"; printf x > "$(printf 'tab\tend\001')"
    printf x > 'ünïcødé-日本'; printf x > -rf; printf x > '*'; printf x > "it's \"quoted\" \\"
    printf x > "$(printf '%0255d' 1)"
    d=$(printf 'd%.0s/' $(seq 1 120)); mkdir -p "deep/$d"; printf bottom > "deep/${d}file"
    long=$(printf 'x%.0s' $(seq 1 200)); mkdir -p "$long/$long/$long"; printf far > "$long/$long/$long/$long"
    ln "$long/$long/$long/$long" zz-far
    truncate -s 60M holes; printf begin | dd of=holes conv=notrunc 2>/dev/null
    printf middle | dd of=holes bs=1 seek=50000000 conv=notrunc 2>/dev/null
    head -c 300000 /dev/zero > zeros; truncate -s 30M only-hole
    head -c 40000 /dev/urandom > noise
    for i in $(seq 1 150); do printf "$i" > "wide/f$i"; done
    mkdir closed; printf hidden > closed/file; ln closed/file zz-through; mkdir closed/inner; printf x > closed/inner/y
    printf secret > unreadable; printf ro > read-only; printf run > runs; printf s > set-id; mkdir sticky
    touch -d '1970-01-02 03:04:05.123456789' plain; touch -h -d '2001-02-03 04:05:06.7' soft dangling
    touch -d '2033-01-01' empty; touch -d '1965-04-03 02:01:00.5' nothing
    chmod 0 unreadable; chmod 444 read-only; chmod 755 runs; chmod 4755 set-id; chmod 1777 sticky; chmod 500 wide
    chmod 000 closed/inner; chmod 000 closed
"#;

/// Everything that can be seen of a tree from inside.
const SEEN: &str = r#"find . \( -type d -printf '%P|%y|%m|%T@|%U\0' -o -printf '%P|%y|%m|%s|%T@|%l|%n|%U\0' \) 2>/dev/null | sort -z | sha256sum; \
    find . -type f -size -1G -readable -exec sha256sum {} + 2>/dev/null | sort | sha256sum; find . 2>/dev/null | wc -l"#;

async fn whatever_a_program_makes_comes_back(world: Arc<World>) {
    let first = world.sandbox().await;
    let made = sh(&first, NASTY).await;
    assert_eq!((made.exit, made.err.as_str()), (Exit::Code(0), ""), "{}", made.out);
    let (bytes, totals) = exported(&first).await;
    let seen = sh(&first, SEEN).await.out;
    assert!(totals.entries > 290 && totals.left_out == 0, "{totals:?}");
    assert_eq!(totals.bytes, bytes.len() as u64);
    assert!(bytes.len() < 2 << 20, "holes are kept: {} bytes", bytes.len());
    assert_eq!(sh(&first, "stat -c %a closed unreadable wide").await.out, "0\n0\n500\n", "modes are put back");

    let second = restored(&world, &bytes).await;
    assert_eq!(sh(&second, SEEN).await.out, seen);
    let got = sh(
        &second,
        "cat plain 'with space/hard' deep/*/*/*/../../../../plain; stat -c '%h %i' plain zz-hard | uniq | wc -l; \
         tail -c +50000001 holes | head -c 6; stat -c %b only-hole; readlink absolute; stat -c %h zz-through zz-far; \
         [ -r unreadable ] || echo kept shut; chmod 700 closed && cat closed/file && stat -c %a closed/inner && chmod 000 closed",
    )
    .await;
    assert_eq!(got.out, "one\none\none\n1\nmiddle0\n/etc/passwd\n2\n2\nkept shut\nhidden0\n", "{}", got.err);
    let (again, _) = exported(&second).await;
    assert!(again == bytes, "the archive of what was restored is the archive it was restored from");
    for sandbox in [first, second] {
        sandbox.close().await;
    }
}

async fn one_content_is_one_archive(world: Arc<World>) {
    // The same content, made in another order, through other names, with other holes and other blocks.
    let scripts = [
        "printf a > a; printf b > b; mkdir d; truncate -s 1M h; printf end >> h; head -c 200000 /dev/zero > z; ln b d/b2",
        "printf x > z; rm z; mkdir e; printf b > e/b; mv e d; ln d/b b; mv d/b d/b2; printf aa > a; truncate -s 1 a; \
         head -c 1M /dev/zero > h; printf end >> h; truncate -s 200000 z",
    ];
    let mut archives = Vec::new();
    for script in scripts {
        let sandbox = world.sandbox().await;
        sh(&sandbox, script).await;
        sh(&sandbox, "chmod 755 .; find . -exec touch -h -d '2020-01-02 03:04:05.678' {} +").await;
        let (first, _) = exported(&sandbox).await;
        let (second, _) = exported(&sandbox).await;
        assert!(first == second, "twice the same");
        archives.push(first);
        sandbox.close().await;
    }
    assert!(archives[0] == archives[1], "one content, one archive");
    assert_eq!(archives[0].len() % 512, 0);
}

async fn any_tar_reads_it(world: Arc<World>) {
    let sandbox = world.sandbox().await;
    sh(&sandbox, NASTY).await;
    // GNU tar reads its own times before the epoch a second late, and warns of those to come.
    sh(&sandbox, "touch -d 2020-01-01 nothing empty").await;
    sh(&sandbox, "chmod -R u+rwX .; mkfifo fifo; perl -MIO::Socket::UNIX -e 'IO::Socket::UNIX->new(Local => q(socket), Listen => 1)'")
        .await;
    let (bytes, totals) = exported(&sandbox).await;
    let left_out = if std::path::Path::new("/usr/bin/perl").exists() { 2 } else { 1 };
    assert_eq!(totals.left_out, left_out);
    sh(&sandbox, "rm -f fifo socket; touch -d 2020-01-01 .").await;
    let seen = sh(&sandbox, SEEN).await.out;
    // Inside, where it belongs: unpacked in /tmp by the tar that is there.
    let mut asked = command(&["/bin/sh", "-c", "mkdir /tmp/t && cd /tmp/t && tar -xpf - && touch -d 2020-01-01 ."]);
    asked.stdin = true;
    let mut unpack = sandbox.start(asked).await.unwrap();
    unpack.write(bytes.into()).await.unwrap();
    unpack.close_stdin().await.unwrap();
    let unpacked = finish(unpack.as_mut()).await.unwrap();
    assert_eq!((unpacked.exit, unpacked.err.as_str()), (Exit::Code(0), ""));
    assert_eq!(sh(&sandbox, &format!("cd /tmp/t; {SEEN}")).await.out, seen);
    sandbox.close().await;
}

async fn a_large_workspace_needs_little_memory(world: Arc<World>) {
    let sandbox = world.sandbox().await;
    assert_eq!(sh(&sandbox, "head -c 45000000 /dev/urandom > large").await.exit, Exit::Code(0));
    let before = resident_bytes();
    let mut peak = 0;
    let other = restoring(&world, new_id()).await;
    let mut export = sandbox.export(WIDE).await.unwrap();
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let through = stream::unfold(receiver, |mut receiver: tokio::sync::mpsc::Receiver<Bytes>| async move {
        receiver.recv().await.map(|piece| (Ok(piece), receiver))
    });
    let import = other.import(through.boxed(), WIDE);
    let feed = async {
        while let Some(piece) = export.next().await.unwrap() {
            peak = peak.max(resident_bytes());
            sender.send(piece).await.unwrap();
        }
        drop(sender);
    };
    let (imported, ()) = tokio::join!(import, feed);
    assert!(imported.unwrap().bytes > 45_000_000);
    let grown = peak.saturating_sub(before);
    assert!(grown < 16 << 20, "grew by {grown} bytes");
    let sum = "sha256sum large";
    assert_eq!(sh(&sandbox, sum).await.out, sh(&other, sum).await.out);
    sandbox.close().await;
    other.close().await;
}

/// A program that says back what it is told, which one that stands still does not.
async fn parrot(sandbox: &Arc<dyn Sandbox>) -> Box<dyn Process> {
    let mut asked = command(&["cat"]);
    asked.stdin = true;
    let mut parrot = sandbox.start(asked).await.unwrap();
    speak(parrot.as_mut()).await;
    parrot
}

async fn speak(parrot: &mut dyn Process) {
    parrot.write(Bytes::from_static(b"word")).await.unwrap();
    assert_eq!(parrot.next().await.unwrap(), Chunk::Output(Stream::Stdout, Bytes::from_static(b"word")));
}

async fn limits_of_archives_hold(world: Arc<World>) {
    let sandbox = world.sandbox().await;
    sh(&sandbox, "for i in $(seq 1 20); do printf x > f$i; done; head -c 3000000 /dev/urandom > large").await;
    let mut parrot = parrot(&sandbox).await;
    let (bytes, totals) = exported(&sandbox).await;
    assert_eq!(totals.entries, 22);
    let exact = bytes.len() as u64;
    let rows = [
        (ArchiveLimits { bytes_max: 2_000_000, ..WIDE }, "archive_bytes_max = 2000000"),
        (ArchiveLimits { bytes_max: 100, ..WIDE }, "archive_bytes_max = 100"),
        (ArchiveLimits { entries_max: 21, ..WIDE }, "archive_entries_max = 21"),
        (ArchiveLimits { duration_ms_max: 0, ..WIDE }, "archive_duration_ms_max = 0"),
    ];
    for (limits, expected) in rows {
        let mut export = sandbox.export(limits).await.unwrap();
        let error = read(export.as_mut()).await.unwrap_err();
        assert_eq!((error.code(), error.to_string()), ("sandbox_limit", format!("limit reached: {expected}")));
        assert!(matches!(export.next().await, Err(Error::NoProcess)), "it is over");
        // Not even dropped yet, and everything goes on.
        speak(parrot.as_mut()).await;
    }
    for (limits, rule) in [
        (ArchiveLimits { bytes_max: exact - 1, ..WIDE }, Rule::TooLarge),
        (ArchiveLimits { entries_max: 21, ..WIDE }, Rule::TooManyEntries),
    ] {
        let sandbox = restoring(&world, new_id()).await;
        let error = sandbox.import(archive(&bytes), limits).await.unwrap_err();
        assert!(matches!(error, Error::Archive { rule: found, .. } if found == rule), "{rule}: {error}");
        sandbox.close().await;
    }
    let late = restoring(&world, new_id()).await;
    let never = stream::pending().boxed();
    let error = late.import(never, ArchiveLimits { duration_ms_max: 50, ..WIDE }).await.unwrap_err();
    assert_eq!(error.code(), "sandbox_limit", "{error}");
    late.close().await;
    let fits = restoring(&world, new_id()).await;
    let limits = ArchiveLimits { bytes_max: exact, entries_max: 22, ..WIDE };
    assert_eq!(fits.import(archive(&bytes), limits).await.unwrap(), totals);
    fits.close().await;
    sandbox.close().await;
}

/// The states of the processes of this name that this program's sandboxes run.
fn states(name: &str) -> String {
    let found = descendants(std::process::id()).into_iter().filter(|(_, found)| found == name);
    let state = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(')')?.1.trim_start().chars().next()
    };
    found.filter_map(|(pid, _)| state(pid)).collect()
}

/// Begins an export of something large and reads only its beginning, so that it can't end by itself.
async fn begun(sandbox: &Arc<dyn Sandbox>) -> Box<dyn Export> {
    let mut export = sandbox.export(WIDE).await.unwrap();
    assert!(export.next().await.unwrap().is_some());
    export
}

async fn programs_stand_still_and_go_on(world: Arc<World>) {
    let sandbox = world.sandbox().await;
    sh(&sandbox, "head -c 5000000 /dev/urandom > large").await;
    let mut parrot = parrot(&sandbox).await;
    let writer = "i=0; while :; do i=$((i+1)); echo $i > number; done";
    let _writer = sandbox.start(command(&["/bin/sh", "-c", writer])).await.unwrap();
    for given_up in [false, true] {
        let mut export = begun(&sandbox).await;
        assert_eq!((states("cat").as_str(), states("sh").as_str()), ("T", "T"), "they stand still");
        if !given_up {
            assert!(read(export.as_mut()).await.unwrap().1.bytes > 4_000_000);
        }
        drop(export);
        speak(parrot.as_mut()).await;
    }
    // Given up at any moment, also before everything has come to a halt.
    for round in 0..200 {
        let mut export = sandbox.export(WIDE).await.unwrap();
        for _ in 0..round % 10 {
            tokio::task::yield_now().await;
        }
        if round % 3 == 0 {
            export.next().await.unwrap();
        }
        drop(export);
        speak(parrot.as_mut()).await;
    }
    // Whatever is written meanwhile, what is read is of one moment.
    for _ in 0..10 {
        exported(&sandbox).await;
    }
    let before = sh(&sandbox, "cat number").await.out;
    let moved = format!("until [ \"$(cat number)\" != \"{}\" ]; do :; done; echo moved", before.trim());
    assert_eq!(sh(&sandbox, &moved).await.out, "moved\n");
    sandbox.close().await;
}

async fn who_stood_still_stays_so(world: Arc<World>) {
    let sandbox = world.sandbox().await;
    sh(
        &sandbox,
        "head -c 5000000 /dev/urandom > large; sleep 4321 & until pgrep sleep > /dev/null; do :; done; kill -STOP $!",
    )
    .await;
    until("it stands still", || states("sleep") == "T").await;
    let mut parrot = parrot(&sandbox).await;
    exported(&sandbox).await;
    drop(begun(&sandbox).await);
    speak(parrot.as_mut()).await;
    assert_eq!(states("sleep"), "T", "it was not woken");
    sh(&sandbox, "pkill -CONT sleep").await;
    until("it goes on when it is told to", || states("sleep") == "S").await;
    sandbox.close().await;
}

async fn who_fights_the_halt_is_halted(world: Arc<World>) {
    if !std::path::Path::new("/usr/bin/perl").exists() {
        return skip("who_fights_the_halt_is_halted", "perl is not installed");
    }
    let sandbox = world.sandbox().await;
    let scripts = [
        "$SIG{CONT} = sub {}; $0 = 'waker'; 1 while kill('CONT', -1) || 1",
        "$0 = 'forker'; while (1) { my $p = fork; exit if defined $p && !$p; waitpid($p, 0) if $p }",
        "syscall(157, 4, 0, 0, 0, 0); $0 = 'hidden'; $| = 1; while (<STDIN>) { print }",
    ];
    let mut held = Vec::new();
    for script in scripts {
        let mut asked = command(&["/usr/bin/perl", "-e", script]);
        asked.stdin = true;
        held.push(sandbox.start(asked).await.unwrap());
    }
    for _ in 0..20 {
        let (bytes, _) = exported(&sandbox).await;
        assert_eq!(bytes.len() % 512, 0);
    }
    let hidden = held.last_mut().unwrap();
    hidden.write(Bytes::from_static(b"there\n")).await.unwrap();
    assert_eq!(hidden.next().await.unwrap(), Chunk::Output(Stream::Stdout, Bytes::from_static(b"there\n")));
    drop(held);
    sandbox.close().await;
}

async fn new_commands_wait_for_an_export(world: Arc<World>) {
    let sandbox = world.sandbox().await;
    sh(&sandbox, "head -c 5000000 /dev/urandom > large").await;
    let export = begun(&sandbox).await;
    let mut late = Box::pin(sandbox.start(command(&["echo", "late"])));
    let mut other = Box::pin(sandbox.export(WIDE));
    let mut change = Box::pin(sandbox.apply(vec![Change::MakeDir { path: path("new") }]));
    for _ in 0..100 {
        tokio::task::yield_now().await;
        std::future::poll_fn(|context| {
            assert!(late.as_mut().poll(context).is_pending());
            assert!(other.as_mut().poll(context).is_pending());
            assert!(change.as_mut().poll(context).is_pending());
            Poll::Ready(())
        })
        .await;
    }
    drop(export);
    let mut process = late.await.unwrap();
    assert_eq!(finish(process.as_mut()).await.unwrap().out, "late\n");
    let mut other = other.await.unwrap();
    read(other.as_mut()).await.unwrap();
    change.await.unwrap();
    let mut open = sandbox.export(WIDE).await.unwrap();
    sandbox.close().await;
    // What had come already is read first; all of it is more than is ever under way.
    assert_eq!(read(open.as_mut()).await.unwrap_err().code(), "sandbox_gone");
}

async fn hostile_archives_are_refused_by_name(world: Arc<World>) {
    for (name, expected, bytes) in tar::hostile() {
        let session = new_id();
        let sandbox = restoring(&world, session).await;
        let limits = ArchiveLimits { entries_max: 50, bytes_max: 1 << 20, ..WIDE };
        let error = sandbox.import(archive(&bytes), limits).await.unwrap_err();
        match &error {
            Error::Archive { rule, entry } => {
                assert_eq!(*rule, expected, "{name}: {error}");
                assert!(entry.len() < 4_000 && !entry.contains(['\n', '\0']), "{name}: {entry:?}");
            }
            _ => panic!("{name}: {error}"),
        }
        let refused = sandbox.start(command(&["true"])).await.unwrap_err();
        assert_eq!(refused.code(), "workspace_lost", "{name}");
        sandbox.close().await;
        let kept = world.provider.create(world.spec(world.session(super::KEPT, session))).await.unwrap_err();
        assert_eq!(kept.code(), "workspace_lost", "{name}");
        assert!(!world.provider.workspace_exists(&world.session(super::KEPT, session)).await.unwrap(), "{name}");
        world.provider.workspace_remove(&world.session(super::KEPT, session)).await.unwrap();
    }
    // The builder of those makes good ones too, so each is refused for its own fault.
    let good =
        Forged::new().directory("./").file("a", b"x").directory("d/").link("d/l", "/etc/passwd").hard("h", "a").end();
    let sandbox = restored(&world, &good).await;
    assert_eq!(sh(&sandbox, "cat a h; readlink d/l").await.out, "xx/etc/passwd\n");
    sandbox.close().await;
    // A workspace that is full, and one that has no room for so many.
    let mut large = Forged::new().directory("./");
    for number in 0..80 {
        large = large.file(&format!("f{number}"), &vec![1; 1 << 20]);
    }
    let sandbox = restoring(&world, new_id()).await;
    let error = sandbox.import(archive(&large.end()), WIDE).await.unwrap_err();
    assert!(error.code() == "sandbox_file" && error.to_string().contains("full"), "{error}");
    sandbox.close().await;
}

async fn an_import_that_breaks_off_leaves_nothing_good(world: Arc<World>) {
    let good = Forged::new().directory("./").file("a", &[7; 100_000]).end();
    let session = new_id();
    let kept = world.session(super::KEPT, session);
    let lost = async |what: &str| {
        let error = world.provider.create(world.spec(kept.clone())).await.unwrap_err();
        assert_eq!(error.code(), "workspace_lost", "{what}");
    };
    // The source fails.
    let sandbox = restoring(&world, session).await;
    let broken = archive(&good[..50_000]).chain(stream::iter([Err(std::io::Error::other("storage is gone"))]));
    let error = sandbox.import(broken.boxed(), WIDE).await.unwrap_err();
    assert!(error.to_string().contains("storage is gone"), "{error}");
    sandbox.close().await;
    lost("a source that failed").await;
    // Whoever imports gives up.
    let sandbox = restoring(&world, session).await;
    let stalled = archive(&good[..50_000]).chain(stream::pending()).boxed();
    let mut import = Box::pin(sandbox.import(stalled, WIDE));
    for _ in 0..50 {
        tokio::task::yield_now().await;
        let pending = std::future::poll_fn(|context| Poll::Ready(import.as_mut().poll(context).is_pending())).await;
        assert!(pending, "it waits for more");
    }
    drop(import);
    drop(sandbox);
    lost("an import that was given up").await;
    // Nobody ever imports.
    drop(restoring(&world, session).await);
    lost("a workspace that waits for its import").await;
    // And then it works.
    let sandbox = restoring(&world, session).await;
    sandbox.import(archive(&good), WIDE).await.unwrap();
    sandbox.close().await;
    let sandbox = world.provider.create(world.spec(kept.clone())).await.unwrap();
    assert_eq!(sh(&sandbox, "stat -c %s a").await.out, "100000\n");
    sandbox.close().await;
}

async fn an_import_comes_first_and_once(world: Arc<World>) {
    let good = Forged::new().directory("./").file("a", b"x").end();
    let sandbox = restoring(&world, new_id()).await;
    assert_eq!(sandbox.start(command(&["true"])).await.unwrap_err().code(), "workspace_lost");
    assert_eq!(sandbox.export(WIDE).await.unwrap_err().code(), "workspace_lost");
    sandbox.import(archive(&good), WIDE).await.unwrap();
    let again = sandbox.import(archive(&good), WIDE).await.unwrap_err();
    assert!(matches!(again, Error::Archive { rule: Rule::NotEmpty, .. }), "{again}");
    assert_eq!(sh(&sandbox, "cat a").await.out, "x");
    sandbox.close().await;
    let fresh = world.sandbox().await;
    let error = fresh.import(archive(&good), WIDE).await.unwrap_err();
    assert!(matches!(error, Error::Archive { rule: Rule::NotEmpty, .. }), "{error}");
    assert_eq!(sh(&fresh, "ls -A").await.out, "", "it was left alone");
    fresh.close().await;
}

async fn a_restored_workspace_is_kept(world: Arc<World>) {
    let first = world.sandbox().await;
    sh(&first, NASTY).await;
    let (bytes, _) = exported(&first).await;
    let seen = sh(&first, SEEN).await.out;
    first.close().await;
    let session = new_id();
    let sandbox = restoring(&world, session).await;
    sandbox.import(archive(&bytes), WIDE).await.unwrap();
    // Dropped at once: what import said to be kept is kept.
    drop(sandbox);
    let sandbox = world.provider.create(world.spec(world.session(super::KEPT, session))).await.unwrap();
    assert_eq!(sh(&sandbox, SEEN).await.out, seen);
    assert!(exported(&sandbox).await.0 == bytes);
    sandbox.close().await;
}

async fn a_stale_copy_is_told(world: Arc<World>) {
    let session = new_id();
    let open = async |start, epoch| {
        let mut spec = world.spec(world.session(start, session));
        spec.epoch = epoch;
        world.provider.create(spec).await
    };
    let kept = |generation| Start::Kept { generation };
    open(Start::Fresh, 5).await.unwrap().close().await;
    for (start, epoch, expected) in [
        (kept(4), 6, "workspace_stale"),
        (kept(6), 6, "workspace_stale"),
        (kept(5), 6, "opened"),
        // The opening under 6 never came to be on record: nothing ran under it.
        (kept(5), 7, "opened"),
        (kept(6), 8, "workspace_stale"),
        (kept(7), 8, "opened"),
        (kept(0), 9, "opened"),
        (kept(9), 9, "opened"),
        (Start::Fresh, 12, "opened"),
        (kept(9), 13, "workspace_stale"),
        (kept(12), 13, "opened"),
    ] {
        let got = match open(start, epoch).await {
            Ok(sandbox) => {
                sandbox.close().await;
                "opened"
            }
            Err(error) => error.code(),
        };
        assert_eq!(got, expected, "{start:?} under {epoch}");
    }
    world.provider.workspace_remove(&world.session(kept(0), session)).await.unwrap();
    assert_eq!(open(kept(13), 14).await.unwrap_err().code(), "workspace_lost");
}

async fn a_replaced_driver_is_refused(world: Arc<World>) {
    let session = new_id();
    let open = async |start, epoch| {
        let mut spec = world.spec(world.session(start, session));
        spec.epoch = epoch;
        world.provider.create(spec).await
    };
    let newer = open(Start::Fresh, 8).await.unwrap();
    let mut asked = command(&["/bin/sh", "-c", "echo mine > file"]);
    asked.epoch = 8;
    finish(newer.start(asked).await.unwrap().as_mut()).await.unwrap();
    // While the newer one's sandbox lives it is told at once, and afterwards too.
    for _ in 0..2 {
        for start in [Start::Fresh, Start::Restored, Start::Kept { generation: 8 }, Start::Kept { generation: 0 }] {
            let error = open(start, 7).await.unwrap_err();
            assert_eq!(error.code(), "sandbox_stale_epoch", "{start:?}");
            assert_eq!(error.to_string(), "stale epoch: epoch 7 came after epoch 8");
        }
        newer.close().await;
    }
    let sandbox = open(Start::Kept { generation: 8 }, 8).await.unwrap();
    assert_eq!(&sandbox.read(&path("file"), 0, 10).await.unwrap()[..], b"mine\n", "nothing of it was touched");
    sandbox.close().await;
}
