//! What a journal on a disk does when the disk fails: full, refusing to write, giving back other bytes than it got. Nothing
//! that was acknowledged is lost, nothing is written twice, and the journal goes on by itself when it can.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, reason = "a test")]

mod support;

use journal::{Append, Config, Content, Journal, MemoryObjects, Threads};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use stdx::Clock;
use support::child::{play, role, skipped, works};
use support::{NOW_MS, assert_intact, cancel, effect, input, keep, open, parts, run, session, write};

const MOUNTED: &[&str] = &["unshare", "--mount", "--propagation", "private", "--"];

/// A job of the writer that says nothing of the disk: when it is answered, what was queued before is done.
async fn caught_up(journal: &Journal) {
    let _ = journal.release_quarantine(&session(99)).await;
}

/// The child has a mount namespace of its own, which dies with it.
#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn fill_a_small_disk(directory: &Path) {
    let ballast = directory.join("ballast");
    std::fs::write(&ballast, vec![1; 6 << 20]).unwrap();
    let journal = open(directory).unwrap();
    let key = session(1);
    let mut kept = Vec::new();
    let error = loop {
        let plain = vec![u8::try_from(kept.len() % 251).unwrap(); 60_000];
        let (content, item) = journal.sealer(&key).await.unwrap().seal("text/plain", &plain).unwrap();
        match journal.append(input(&key, &cancel(run(1))).content(item)).await {
            Ok(_) => kept.push((content, plain)),
            Err(error) => break error,
        }
    };
    assert_eq!(error.code(), "journal_full", "{error}");
    let records = kept.len() as u64;
    assert!(records > 10, "full after {records}");
    assert_intact(&journal, &key, records).await;
    for _ in 0..3 {
        assert_eq!(journal.health().error.unwrap().code(), "journal_full");
        caught_up(&journal).await;
        let (_, item) = journal.sealer(&key).await.unwrap().seal("text/plain", &vec![0; 60_000]).unwrap();
        let refused = journal.append(input(&key, &cancel(run(1))).content(item)).await.unwrap_err();
        assert_eq!(refused.code(), "journal_full", "{refused}");
    }
    std::fs::remove_file(&ballast).unwrap();
    // Nobody appends while the service is not ready. That it is asked how it does is enough.
    journal.health();
    caught_up(&journal).await;
    assert!(journal.health().error.is_none(), "{:?}", journal.health());
    write(&journal, input(&key, &cancel(run(1)))).await;
    assert_intact(&journal, &key, records + 1).await;
    journal.close().await.unwrap();
    let journal = open(directory).unwrap();
    assert_intact(&journal, &key, records + 1).await;
    for (content, plain) in kept {
        assert!(journal.content(&key, &content).await.unwrap() == Content::Bytes(plain));
    }
    journal.close().await.unwrap();
}

fn mount(arguments: &[&str], at: &Path) {
    assert!(Command::new("mount").args(arguments).arg(at).status().unwrap().success(), "mount {arguments:?}");
}

#[test]
fn a_full_tmpfs_refuses_and_loses_nothing() {
    const NAME: &str = "a_full_tmpfs_refuses_and_loses_nothing";
    if let Some(directory) = role() {
        mount(&["-t", "tmpfs", "-o", "size=12m", "tmpfs"], &directory);
        return fill_a_small_disk(&directory);
    }
    let directory = tempfile::tempdir().unwrap();
    if !works("unshare", &["--mount", "true"]) {
        return skipped(NAME, "no mount namespace; run as root with util-linux");
    }
    play(MOUNTED, NAME, directory.path());
}

#[test]
fn a_full_ext4_refuses_and_loses_nothing() {
    const NAME: &str = "a_full_ext4_refuses_and_loses_nothing";
    if let Some(outer) = role() {
        let (image, directory) = (outer.join("image"), outer.join("data"));
        // The device is given back with the mount, and that dies with this process.
        mount(&["-t", "ext4", "-o", "loop", image.to_str().unwrap()], &directory);
        return fill_a_small_disk(&directory);
    }
    let outer = tempfile::tempdir().unwrap();
    let image = outer.path().join("image");
    std::fs::File::create(&image).unwrap().set_len(16 << 20).unwrap();
    std::fs::create_dir(outer.path().join("data")).unwrap();
    let image = image.to_str().unwrap().to_owned();
    if !works("mkfs.ext4", &["-q", "-O", "^has_journal", "-m", "0", &image]) {
        return skipped(NAME, "no mkfs.ext4; install e2fsprogs");
    }
    let data = outer.path().join("data");
    let probe = ["--mount", "mount", "-t", "ext4", "-o", "loop", &image, data.to_str().unwrap()];
    if !works("unshare", &probe) {
        return skipped(NAME, "no loop device can be mounted; run as root");
    }
    play(MOUNTED, NAME, outer.path());
}

/// From here on this process can't make a file longer than this.
fn file_bytes_max(bytes: Option<u64>) {
    let soft = bytes.map_or_else(|| "unlimited".to_owned(), |bytes| bytes.to_string());
    let (pid, limit) = (std::process::id().to_string(), format!("--fsize={soft}:unlimited"));
    assert!(works("prlimit", &["--pid", &pid, &limit]));
}

async fn large(journal: &Journal, epoch: u64, expect: u64) -> Append {
    let (_, item) = journal.sealer(&session(1)).await.unwrap().seal("text/plain", &vec![7; 60_000]).unwrap();
    effect(&session(1), epoch, expect, &cancel(run(1))).content(item)
}

/// Writing fails with an error that is not "full", at a limit that this process sets itself.
#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn fail_to_write(directory: &Path) {
    // How far the write-ahead log may still grow, and whether the first commit that fails can be settled within it.
    for (threads, room_bytes, settled) in [
        (Threads::Own, 0, false),
        (Threads::Own, 50_000, true),
        (Threads::Inline, 0, false),
        (Threads::Inline, 50_000, true),
    ] {
        let directory = directory.join(format!("{threads:?}-{room_bytes}"));
        let clock = Clock::manual(NOW_MS);
        let config = Config { threads, ..Config::default() };
        let journal = Journal::open(&directory, parts(&clock, &MemoryObjects::default()), config).unwrap();
        let key = session(1);
        let epoch = journal.claim(&key).await.unwrap().epoch;
        for n in 0..5 {
            write(&journal, effect(&key, epoch, n, &cancel(run(1)))).await;
        }
        let log_bytes = directory.join("journal.db-wal").metadata().unwrap().len();
        file_bytes_max(Some(log_bytes + room_bytes));
        let entry = large(&journal, epoch, 5).await;
        for attempt in 0..3 {
            let refused = journal.append(entry.clone()).await.unwrap_err();
            assert_eq!(refused.code(), "journal_io", "{refused}");
            assert_eq!(refused.to_string().contains("not known yet"), !settled, "{attempt}: {refused}");
            assert_eq!(journal.health().error.unwrap().code(), "journal_io");
            assert_eq!(journal.head(&key).await.unwrap().position, 5, "what failed is not there");
        }
        // What would fit as well is not taken while it is not known what became of the others.
        let small = journal.append(effect(&session(2), 1, 0, &cancel(run(2)))).await;
        assert_eq!(small.is_err(), !settled, "{small:?}");
        file_bytes_max(None);
        journal.health();
        caught_up(&journal).await;
        assert!(journal.health().error.is_none(), "{:?}", journal.health());
        // The driver hands its entry in again, twice since it missed the answer.
        let first = journal.append(entry.clone()).await.unwrap();
        assert_eq!(journal.append(entry).await.unwrap(), first);
        assert_eq!(first.written().unwrap().first_position, 5);
        assert_intact(&journal, &key, 6).await;
        journal.close().await.unwrap();
        let journal = open(&directory).unwrap();
        assert_intact(&journal, &key, 6).await;
        assert_intact(&journal, &session(2), u64::from(settled)).await;
        journal.close().await.unwrap();
    }
}

#[test]
fn a_commit_that_fails_is_settled_before_anything_else() {
    const NAME: &str = "a_commit_that_fails_is_settled_before_anything_else";
    if let Some(directory) = role() {
        return fail_to_write(&directory);
    }
    if !works("prlimit", &["--fsize=1000000000:unlimited", "true"]) {
        return skipped(NAME, "no prlimit, or a hard limit on files; install util-linux");
    }
    let directory = tempfile::tempdir().unwrap();
    // Beyond the limit there is a signal as well, which would end the process.
    play(&["sh", "-c", "trap '' XFSZ; exec \"$0\" \"$@\""], NAME, directory.path());
}

/// Where in the database file a text lies.
fn place_of(file: &Path, text: &str) -> usize {
    let bytes = std::fs::read(file).unwrap();
    bytes.windows(text.len()).position(|window| window == text.as_bytes()).unwrap()
}

#[tokio::test]
async fn damage_stops_all_writing() {
    // What is done to a page with records of session 3, and what then tells.
    for (name, garbage) in [("a page of zeros", vec![0u8; 4096]), ("flipped bytes", b"}{".to_vec())] {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("journal.db");
        let journal = open(directory.path()).unwrap();
        for n in 0..200 {
            write(&journal, input(&session(3 + n / 40), &cancel(run(n.into())))).await;
        }
        let content = keep(&journal, &session(9), "text/plain", b"kept").await;
        journal.close().await.unwrap();
        let place = place_of(&file, &session(3).session.to_string());
        let at = if garbage.len() == 4096 { place / 4096 * 4096 } else { place };
        let database = std::fs::File::options().write(true).open(&file).unwrap();
        database.write_all_at(&garbage, at as u64).unwrap();

        let journal = open(directory.path()).unwrap();
        assert!(journal.health().error.is_none(), "{name}: nobody has looked yet");
        let told = journal.records(&session(3), 0, 100).await.unwrap_err();
        assert_eq!(told.code(), "journal_corrupt", "{name}: {told}");
        let health = journal.health().error.unwrap();
        assert_eq!(health.code(), "journal_corrupt", "{name}: {health}");
        for key in [session(3), session(8)] {
            let refused = journal.append(input(&key, &cancel(run(1)))).await.unwrap_err();
            assert_eq!(refused.code(), "journal_corrupt", "{name}: {refused}");
        }
        caught_up(&journal).await;
        assert_eq!(journal.health().error.unwrap().code(), "journal_corrupt", "{name}: it stays");
        assert!(journal.content(&session(9), &content).await.unwrap() == Content::Bytes(b"kept".to_vec()), "{name}");
        journal.close().await.unwrap();
        let after = std::fs::read(&file).unwrap();
        assert_eq!(after[at..][..garbage.len()], garbage, "{name}: it was written over");
    }
}
