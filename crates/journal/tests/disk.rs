//! What only a journal on a disk must do: come back after a restart, a kill and a full disk, keep others out, tell damage.
//! Parts of it play in a child process, which is this test binary again with one test and its role in the environment.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, reason = "a test")]

mod support;

use domain::Digest;
use journal::{Append, Content, Fence, Idempotency, Verified};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Stdio};
use support::child::{child, role};
use support::{assert_intact, cancel, effect, input, keep, nothing, open, run, session, submitted, write};

fn database(directory: &Path) -> rusqlite::Connection {
    rusqlite::Connection::open(directory.join("journal.db")).unwrap()
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let key = session(1);
    let idempotency = Idempotency { key: Digest([1; 32]), body: Digest([2; 32]), run: run(1), expires_at_ms: u64::MAX };
    let keyed =
        Append::new(key.clone(), Fence::Input(Some(idempotency))).draft(&submitted(run(1), 5, "maya", nothing()));
    let first = open(directory.path()).unwrap();
    write(&first, keyed.clone()).await;
    let content = keep(&first, &key, "text/plain", b"kept").await;
    let old_epoch = first.claim(&key).await.unwrap().epoch;
    let written = write(&first, effect(&key, old_epoch, 2, &cancel(run(1)))).await;
    first.close().await.unwrap();
    assert!(!directory.path().join("journal.db-wal").exists(), "a closed journal leaves no write-ahead log");

    let second = open(directory.path()).unwrap();
    assert_eq!((first.boot(), second.boot()), (1, 2));
    assert_intact(&second, &key, 3).await;
    assert!(second.content(&key, &content).await.unwrap() == Content::Bytes(b"kept".to_vec()));
    assert!(second.append(keyed).await.unwrap().written().is_none(), "the key was forgotten");
    assert_eq!(second.unfinished(None, 10).await.unwrap().rows.len(), 1);
    let epoch = second.claim(&key).await.unwrap().epoch;
    assert!(epoch > old_epoch, "a restart must fence every driver before it");
    let after = write(&second, effect(&key, epoch, 3, &cancel(run(1)))).await;
    assert_eq!(after.commit_id, written.commit_id + 1);
    let late = second.append(effect(&key, old_epoch, 4, &cancel(run(1)))).await.unwrap_err();
    assert_eq!(late.code(), "journal_fenced");
    second.close().await.unwrap();
}

#[tokio::test]
async fn a_database_of_a_newer_program_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    open(directory.path()).unwrap().close().await.unwrap();
    for (schema, compatible, code) in [(99, 99, "journal_newer"), (99, 2, "ok"), (0, 0, "journal_corrupt")] {
        let sql = format!(
            "UPDATE meta SET value = {schema} WHERE key = 'schema'; UPDATE meta SET value = {compatible} WHERE key = 'compatible'"
        );
        database(directory.path()).execute_batch(&sql).unwrap();
        let said = match open(directory.path()) {
            Ok(journal) => {
                journal.close().await.unwrap();
                "ok"
            }
            Err(error) => error.code(),
        };
        assert_eq!(said, code, "schema {schema}, compatible down to {compatible}");
    }
    database(directory.path()).execute("DELETE FROM meta", []).unwrap();
    assert_eq!(open(directory.path()).unwrap_err().code(), "journal_corrupt");
    std::fs::write(
        directory.path().join("journal.db"),
        "this is no database, and long enough to be looked at".repeat(99),
    )
    .unwrap();
    assert_eq!(open(directory.path()).unwrap_err().code(), "journal_corrupt");
}

#[tokio::test]
async fn files_are_the_owners_alone() {
    let outer = tempfile::tempdir().unwrap();
    let directory = outer.path().join("data");
    std::fs::create_dir(&directory).unwrap();
    std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o755)).unwrap();
    let journal = open(&directory).unwrap();
    write(&journal, input(&session(1), &cancel(run(1)))).await;
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&directory), 0o700);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&directory).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
        names.push(path.file_name().unwrap().to_owned());
    }
    names.sort();
    assert_eq!(names, ["journal.db", "journal.db-shm", "journal.db-wal", "lock"]);
    journal.close().await.unwrap();
}

#[tokio::test]
async fn damage_is_told_and_found() {
    // What is done to a log of five records behind the journal's back, and where the chain then breaks.
    for (name, damage, position) in [
        (
            "a changed byte",
            "UPDATE records SET bytes = CAST(replace(CAST(bytes AS TEXT), 'run_', 'ruN_') AS BLOB) WHERE position = 2",
            2,
        ),
        ("a changed hash", "UPDATE records SET hash = zeroblob(32) WHERE position = 1", 1),
        ("a dropped record", "DELETE FROM records WHERE position = 3", 3),
        ("a dropped end", "DELETE FROM records WHERE position = 4", 4),
        (
            "a swapped pair",
            "UPDATE records SET position = CASE position WHEN 1 THEN -2 ELSE -1 END WHERE position IN (1, 2); UPDATE records SET position = -position WHERE position < 0",
            1,
        ),
        ("a moved head", "UPDATE heads SET position = 3", 3),
        ("another head", "UPDATE heads SET hash = zeroblob(32)", 5),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let journal = open(directory.path()).unwrap();
        for n in 0..5 {
            write(&journal, input(&session(1), &cancel(run(n)))).await;
        }
        assert_intact(&journal, &session(1), 5).await;
        database(directory.path()).execute_batch(damage).unwrap();
        let verified = journal.verify(&session(1)).await.unwrap();
        assert!(
            matches!(verified, Verified::Broken { position: found, .. } if found == position),
            "{name}: {verified:?}"
        );
        if name.starts_with("a changed") {
            assert_eq!(journal.records(&session(1), 0, 9).await.unwrap_err().code(), "journal_corrupt", "{name}");
        }
        journal.close().await.unwrap();
    }
}

#[tokio::test]
async fn changed_contents_do_not_open() {
    for (name, damage) in [
        ("a flipped byte", "UPDATE contents SET body = CAST(substr(body, 1, 40) || x'00' || substr(body, 42) AS BLOB)"),
        ("cut short", "UPDATE contents SET body = substr(body, 1, 8)"),
        ("another form", "UPDATE contents SET form = 2, item_key = zeroblob(32)"),
        ("an object that is not there", "UPDATE contents SET form = 1"),
        ("an unknown form", "UPDATE contents SET form = 9"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let journal = open(directory.path()).unwrap();
        let content = keep(&journal, &session(1), "text/plain", b"some words that matter").await;
        database(directory.path()).execute(damage, []).unwrap();
        let error = journal.content(&session(1), &content).await.unwrap_err();
        assert!(["journal_corrupt", "journal_io"].contains(&error.code()), "{name}: {error}");
        journal.close().await.unwrap();
    }
}

#[tokio::test]
async fn erased_bytes_are_gone_from_the_files() {
    let directory = tempfile::tempdir().unwrap();
    let clock = stdx::Clock::manual(support::NOW_MS);
    let parts = support::parts(&clock, &journal::MemoryObjects::default());
    let config = journal::Config { contents: journal::ContentsMode::Plain, ..journal::Config::default() };
    let journal = journal::Journal::open(directory.path(), parts, config).unwrap();
    let marker = |word: &str, n: usize| format!("{word}-{n}-in-a-haystack").repeat(1 + n * n % 700);
    let mut kept = Vec::new();
    for n in 0..200 {
        kept.push(keep(&journal, &session(1), "text/plain", marker("needle", n).as_bytes()).await);
        keep(&journal, &session(2), "text/plain", marker("spike", n).as_bytes()).await;
    }
    let on_disk = |text: &str| {
        ["journal.db", "journal.db-wal"].iter().any(|file| {
            let bytes = std::fs::read(directory.path().join(file)).unwrap_or_default();
            bytes.windows(text.len()).any(|window| window == text.as_bytes())
        })
    };
    assert!(on_disk("needle-3-") && on_disk("spike-"));
    journal.erase_item(&session(1), kept[3].id).await.unwrap();
    assert!(!on_disk("needle-3-") && on_disk("needle-4-") && on_disk("spike-"));
    journal.erase_session(&session(2)).await.unwrap();
    assert!(!on_disk("spike-"));
    assert_intact(&journal, &session(2), 200).await;
    journal.close().await.unwrap();
}

#[test]
fn a_second_process_is_kept_out() {
    if let Some(directory) = role() {
        let journal = open(&directory).unwrap();
        println!("\nopen {}", journal.boot());
        // Held until the parent kills this process.
        std::thread::park();
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut first = child("a_second_process_is_kept_out", directory.path()).stdout(Stdio::piped()).spawn().unwrap();
    lines(&mut first).find(|line| line.starts_with("open 1")).unwrap();
    let refused = open(directory.path()).unwrap_err();
    assert_eq!(refused.code(), "journal_locked");
    assert!(refused.to_string().contains(&format!("process {};", first.id())), "{refused}");
    first.kill().unwrap();
    first.wait().unwrap();
    assert_eq!(open(directory.path()).unwrap().boot(), 2, "the lock outlived its process");
}

fn lines(child: &mut Child) -> impl Iterator<Item = String> + use<> {
    BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok)
}

/// The child appends for several sessions at once and says what was acknowledged.
#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn append_for_ever(directory: &Path) {
    let journal = open(directory).unwrap();
    println!();
    let writers = (0..8).map(|n| {
        let journal = journal.clone();
        tokio::spawn(async move {
            let key = session(n);
            let epoch = journal.claim(&key).await.unwrap().epoch;
            let mut next = journal.head(&key).await.unwrap().position;
            loop {
                let plain = vec![n; 200 * usize::from(n)];
                let (content, item) = journal.sealer(&key).await.unwrap().seal("text/plain", &plain).unwrap();
                let entry = effect(&key, epoch, next, &submitted_once(next, n, content)).content(item);
                next = write(&journal, entry).await.next_position();
                println!("ack {n} {}", next - 1);
            }
        })
    });
    futures::future::join_all(writers).await;
}

/// A record with a content; each run is another one.
fn submitted_once(next: u64, n: u8, message: domain::ContentRef) -> domain::record::Draft {
    let number = u16::try_from(next % 8_000).unwrap() * 8 + u16::from(n);
    submitted(run(number), next, "maya", message)
}

#[test]
fn a_kill_loses_nothing_acknowledged() {
    if let Some(directory) = role() {
        return append_for_ever(&directory);
    }
    let directory = tempfile::tempdir().unwrap();
    let mut acknowledged = BTreeMap::new();
    for round in 1..=5usize {
        let mut writer =
            child("a_kill_loses_nothing_acknowledged", directory.path()).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = lines(&mut writer);
        for line in said.by_ref().filter(|line| line.starts_with("ack ")).take(200 * round + 7 * round) {
            acknowledge(&mut acknowledged, &line);
        }
        writer.kill().unwrap();
        // What was said before the kill arrived counts as well.
        said.for_each(|line| acknowledge(&mut acknowledged, &line));
        writer.wait().unwrap();
        check_acknowledged(directory.path(), &acknowledged);
    }
}

fn acknowledge(acknowledged: &mut BTreeMap<u8, u64>, line: &str) {
    let mut words = line.split(' ');
    if let (Some("ack"), Some(Ok(session)), Some(Ok(position))) =
        (words.next(), words.next().map(str::parse), words.next().map(str::parse))
    {
        acknowledged.insert(session, position);
    }
}

#[tokio::main(flavor = "current_thread")]
async fn check_acknowledged(directory: &Path, acknowledged: &BTreeMap<u8, u64>) {
    let journal = open(directory).unwrap();
    assert_eq!(acknowledged.len(), 8);
    for (n, last) in acknowledged {
        let key = session(*n);
        let head = journal.head(&key).await.unwrap();
        assert!(head.position > *last, "session {n}: {last} was acknowledged, the log ends before {}", head.position);
        assert_intact(&journal, &key, head.position).await;
        let record = journal.records(&key, *last, 1).await.unwrap().remove(0).decode().unwrap();
        let domain::Event::Submitted(submitted) = record.event else { panic!("another event") };
        let opened = journal.content(&key, &submitted.message.unwrap()).await.unwrap();
        assert!(opened == Content::Bytes(vec![*n; 200 * usize::from(*n)]), "session {n}");
    }
    journal.close().await.unwrap();
}

#[tokio::test]
async fn no_question_of_the_start_scans() {
    let directory = tempfile::tempdir().unwrap();
    open(directory.path()).unwrap().close().await.unwrap();
    // A start reads only what it needs: the plans of its questions name an index or the primary key, never a scan of a
    // table that grows.
    let database = database(directory.path());
    for (question, allowed) in [
        ("SELECT commit_id FROM records ORDER BY rowid DESC LIMIT 1", "SCAN records"),
        (
            "SELECT tenant FROM run_index INDEXED BY runs_open WHERE finished_ms IS NULL AND (tenant, session, submitted_position) > ('', x'', -1)",
            "USING INDEX runs_open",
        ),
        ("SELECT 1 FROM due WHERE at_ms <= 5 ORDER BY at_ms LIMIT 9", "USING COVERING INDEX due_by_time"),
        ("SELECT run FROM run_index WHERE tenant = 'a' AND run < x'00' ORDER BY run DESC", "USING PRIMARY KEY"),
        (
            "SELECT run FROM run_index WHERE tenant = 'a' AND session = x'00' AND run < x'00' ORDER BY run DESC",
            "runs_by_session",
        ),
    ] {
        let mut plan = database.prepare(&format!("EXPLAIN QUERY PLAN {question}")).unwrap();
        let steps: Vec<String> = plan.query_map([], |row| row.get(3)).unwrap().map(Result::unwrap).collect();
        assert!(steps.len() == 1 && steps[0].contains(allowed), "{question}: {steps:?}");
    }
}

#[tokio::test]
async fn keys_that_are_over_are_taken_out_a_few_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let clock = stdx::Clock::manual(support::NOW_MS);
    let parts = support::parts(&clock, &journal::MemoryObjects::default());
    let journal = journal::Journal::open(directory.path(), parts, journal::Config::default()).unwrap();
    for n in 0..600u16 {
        let mut key = [0; 32];
        key[..2].copy_from_slice(&n.to_be_bytes());
        let expires_at_ms = support::NOW_MS + if n < 500 { 1_000 } else { 100_000 };
        let idempotency = Idempotency { key: Digest(key), body: Digest([2; 32]), run: run(n), expires_at_ms };
        write(&journal, Append::new(session(1), Fence::Input(Some(idempotency))).draft(&cancel(run(n)))).await;
    }
    clock.advance(std::time::Duration::from_secs(20));
    let mut left = Vec::new();
    for n in 0..4 {
        write(&journal, input(&session(2), &cancel(run(n)))).await;
        let count = "SELECT count(*) FROM idempotency";
        left.push(database(directory.path()).query_row(count, [], |row| row.get::<_, u32>(0)).unwrap());
    }
    assert_eq!(left, [344, 100, 100, 100]);
    journal.close().await.unwrap();
}

#[tokio::test]
async fn people_can_read_the_log_with_sql() {
    let directory = tempfile::tempdir().unwrap();
    let journal = open(directory.path()).unwrap();
    write(&journal, input(&session(1), &cancel(run(1)))).await;
    let wanted = (session(1).session.to_string(), "cancel_requested".to_owned(), run(1).to_string());
    let sql = "SELECT session, kind, record ->> '$.body.run' FROM log WHERE position = 0";
    let found = database(directory.path()).query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
    assert_eq!(found.unwrap(), wanted);
    journal.close().await.unwrap();
}
