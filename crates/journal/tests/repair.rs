//! Backups, the way back, repair, and databases of older programs.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test")]

mod support;

use domain::id::Run;
use domain::{Digest, Id, RunStatus};
use journal::backup::MANIFEST;
use journal::query::{Page, SessionCursor};
use journal::{Content, Fence, Idempotency, Journal, RunFilter, RunRow, SessionKey, SessionRow, Verified};
use std::ops::RangeInclusive;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use support::{
    NOW_MS, PRINCIPAL, assert_intact, cancel, effect, finished, input, nothing, open, run, session, submitted, write,
};

const SESSIONS: u8 = 40;

fn database(directory: &Path) -> rusqlite::Connection {
    rusqlite::Connection::open(directory.join("journal.db")).unwrap()
}

/// Forty sessions with a content each; the run of every fourth has not ended.
async fn filled(directory: &Path) -> Journal {
    let journal = open(directory).unwrap();
    futures::future::join_all((0..SESSIONS).map(|n| fill(&journal, n))).await;
    journal
}

async fn fill(journal: &Journal, n: u8) {
    let key = session(n);
    let (message, item) = journal.sealer(&key).await.unwrap().seal("text/plain", &[n; 600]).unwrap();
    let asked = submitted(run(n.into()), n.into(), "maya", message);
    write(journal, input(&key, &asked).content(item)).await;
    for position in 1..20 {
        write(journal, effect(&key, 5, position, &cancel(run(n.into())))).await;
    }
    if !n.is_multiple_of(4) {
        write(journal, effect(&key, 5, 20, &finished(run(n.into()), 99, RunStatus::Completed))).await;
    }
}

const fn records_of(n: u8) -> u64 {
    if n.is_multiple_of(4) { 20 } else { 21 }
}

async fn lists(journal: &Journal) -> (Page<RunRow, Id<Run>>, Page<SessionRow, SessionCursor>) {
    let tenant: Arc<str> = "default".into();
    let runs = journal.runs(&tenant, RunFilter::default(), None, 100).await.unwrap();
    (runs, journal.sessions(&tenant, None, 100).await.unwrap())
}

#[tokio::test]
async fn a_backup_is_of_one_moment_while_appends_go_on() {
    let outer = tempfile::tempdir().unwrap();
    let (data, backup) = (outer.path().join("data"), outer.path().join("backups/one"));
    let journal = filled(&data).await;
    let writers = (0..4u8).map(|n| {
        let journal = journal.clone();
        tokio::spawn(async move {
            for m in 0..300 {
                write(&journal, input(&session(100 + n), &cancel(run(m)))).await;
            }
        })
    });
    let (written, manifest) = tokio::join!(futures::future::join_all(writers), journal.backup(&backup));
    written.into_iter().for_each(|written| written.unwrap());
    let manifest = manifest.unwrap();
    assert_eq!((manifest.boot, manifest.made_ms, manifest.broken), (1, NOW_MS, 0));
    assert!(manifest.records >= (0..SESSIONS).map(records_of).sum(), "{manifest:?}");
    assert_eq!(journal::backup::manifest(&backup).unwrap(), manifest);
    let last = journal.claim(&session(1)).await.unwrap().epoch;
    let twice = journal.backup(&backup).await.unwrap_err();
    assert_eq!(twice.code(), "journal_backup", "{twice}");

    let elsewhere = outer.path().join("elsewhere");
    let restored = journal::restore(&backup, &elsewhere, NOW_MS + 7).unwrap();
    assert_eq!((restored.manifest, restored.quarantined), (manifest, u64::from(SESSIONS / 4)));
    let again = journal::restore(&backup, &elsewhere, NOW_MS).unwrap_err();
    assert_eq!(again.code(), "journal_backup", "{again}");
    // The first goes on, and is opened some times more; no epoch of it comes again.
    let copy = open(&elsewhere).unwrap();
    assert_eq!(copy.boot(), restored.boot + 1);
    assert!(copy.claim(&session(1)).await.unwrap().epoch > last + (1 << 40));
    for n in 0..SESSIONS {
        assert_intact(&copy, &session(n), records_of(n)).await;
        let put_aside = copy.quarantined(&session(n)).await.unwrap();
        assert_eq!(put_aside.is_some(), n % 4 == 0, "session {n}");
        let written = copy.append(input(&session(n), &cancel(run(n.into())))).await;
        assert_eq!(written.is_ok(), n % 4 != 0, "session {n}");
    }
    for n in 100..104 {
        let head = copy.head(&session(n)).await.unwrap();
        assert!(head.position <= 300);
        assert_intact(&copy, &session(n), head.position).await;
    }
    copy.close().await.unwrap();
    journal.close().await.unwrap();
}

#[tokio::test]
async fn what_is_no_whole_backup_is_not_restored() {
    let outer = tempfile::tempdir().unwrap();
    let (data, backup) = (outer.path().join("data"), outer.path().join("backup"));
    let journal = filled(&data).await;
    journal.backup(&backup).await.unwrap();
    journal.close().await.unwrap();
    let whole = std::fs::read_to_string(backup.join(MANIFEST)).unwrap();
    let newer = whole.replace("\"schema\": ", "\"schema\": 9");
    let other = whole.replace("\"made_ms\"", "\"made_at\"");
    assert!(newer != whole && other != whole);
    let target = outer.path().join("target");
    for (name, manifest, code) in
        [("newer", newer, "journal_newer"), ("other", other, "journal_backup"), ("no", String::new(), "journal_backup")]
    {
        std::fs::write(backup.join(MANIFEST), manifest).unwrap();
        assert_eq!(journal::restore(&backup, &target, NOW_MS).unwrap_err().code(), code, "{name} manifest");
    }
    std::fs::write(backup.join(MANIFEST), whole).unwrap();
    let copy = std::fs::File::options().write(true).open(backup.join("journal.db")).unwrap();
    copy.write_all_at(b"x", 9_000).unwrap();
    let refused = journal::restore(&backup, &target, NOW_MS).unwrap_err();
    assert!(refused.to_string().contains("not what its manifest says"), "{refused}");
    assert!(!target.join("journal.db").exists());
    std::fs::remove_file(backup.join(MANIFEST)).unwrap();
    assert_eq!(journal::restore(&backup, &target, NOW_MS).unwrap_err().code(), "journal_backup");
}

#[tokio::test]
async fn a_broken_log_is_not_backed_up_as_if_it_were_whole() {
    let outer = tempfile::tempdir().unwrap();
    let (data, backup) = (outer.path().join("data"), outer.path().join("backup"));
    let journal = filled(&data).await;
    database(&data).execute("DELETE FROM records WHERE session = ?1 AND position = 7", [[3u8; 16]]).unwrap();
    let refused = journal.backup(&backup).await.unwrap_err();
    assert_eq!(refused.code(), "journal_corrupt", "{refused}");
    assert!(refused.to_string().contains("record 7 of ses_0303"), "{refused}");
    assert!(!backup.join(MANIFEST).exists() && !backup.join("journal.db").exists());
    assert_eq!(journal.health().error.unwrap().code(), "journal_corrupt");
    journal.close().await.unwrap();
    // Put aside by somebody who looked, it goes along as it is.
    let journal = open(&data).unwrap();
    journal.quarantine(&session(3), "seen", PRINCIPAL).await.unwrap();
    let manifest = journal.backup(&backup).await.unwrap();
    assert_eq!(manifest.broken, 1);
    assert!(journal.records(&session(3), 0, 100).await.is_err());
    assert!(journal.health().error.is_none(), "damage that is put aside stops nobody else");
    journal.close().await.unwrap();
}

/// Overwrites the first page that has this text in it with zeros.
fn tear(directory: &Path, text: &[u8]) {
    let file = directory.join("journal.db");
    let bytes = std::fs::read(&file).unwrap();
    let at = bytes.windows(text.len()).position(|window| window == text).unwrap() / 4096 * 4096;
    std::fs::File::options().write(true).open(&file).unwrap().write_all_at(&[0; 4096], at as u64).unwrap();
}

/// What a session's content is stored as.
fn body_of(data: &Path, n: u8) -> Vec<u8> {
    let sql = "SELECT body FROM contents WHERE session = ?1";
    database(data).query_row(sql, [[n; 16]], |row| row.get(0)).unwrap()
}

/// Something that happened to a database, and what a repair then finds.
struct Damage {
    name: &'static str,
    done: fn(&Path),
    /// Whether the database sees it itself.
    is_seen: bool,
    /// How many sessions of the forty are put aside.
    put_aside: RangeInclusive<u64>,
}

const fn damage(name: &'static str, done: fn(&Path), is_seen: bool, put_aside: RangeInclusive<u64>) -> Damage {
    Damage { name, done, is_seen, put_aside }
}

fn of_session_7(data: &Path, sql: &str) {
    database(data).execute(sql, [[7u8; 16]]).unwrap();
}

#[tokio::test]
async fn a_repair_keeps_all_that_can_be_read() {
    const BYTE: &str = "UPDATE records SET bytes = CAST(replace(CAST(bytes AS TEXT), 'run_', 'ruN_') AS BLOB)
        WHERE session = ?1 AND position = 2";
    const INDEX: &str = "DELETE FROM run_index; DELETE FROM session_index; DROP INDEX runs_open; DROP TABLE due";
    for damage in [
        damage("nothing", |_| {}, false, 0..=0),
        damage("torn records", |data| tear(data, session(7).session.to_string().as_bytes()), true, 1..=9),
        damage("torn contents", |data| tear(data, &body_of(data, 9)), true, 1..=9),
        damage("a changed byte", |data| of_session_7(data, BYTE), false, 1..=1),
        damage("a lost head", |data| of_session_7(data, "DELETE FROM heads WHERE session = ?1"), false, 1..=1),
        damage(
            "a lost end",
            |data| of_session_7(data, "DELETE FROM records WHERE session = ?1 AND position > 10"),
            false,
            1..=1,
        ),
        damage("a lost index", |data| database(data).execute_batch(INDEX).unwrap(), false, 0..=0),
        damage("lost numbers", |data| database(data).execute_batch("DELETE FROM meta").unwrap(), false, 0..=0),
    ] {
        is_repaired(damage).await;
    }
}

async fn is_repaired(Damage { name, done, is_seen, put_aside }: Damage) {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    let journal = filled(data).await;
    let before = lists(&journal).await;
    let epoch = journal.claim(&session(1)).await.unwrap().epoch;
    journal.close().await.unwrap();
    done(data);
    let damaged = std::fs::read(data.join("journal.db")).unwrap();

    let repaired = journal::repair(data, NOW_MS).unwrap();
    assert_eq!(repaired.kept, data.join(format!("damaged-{NOW_MS}")), "{name}");
    assert_eq!(std::fs::read(repaired.kept.join("journal.db")).unwrap(), damaged, "{name}: kept as it was");
    assert_eq!(repaired.findings.is_empty(), !is_seen, "{name}: {:?}", repaired.findings);
    assert_eq!(repaired.tables.iter().any(|table| table.gaps > 0), is_seen, "{name}: {:?}", repaired.tables);
    assert!(put_aside.contains(&repaired.quarantined), "{name}: {} are put aside", repaired.quarantined);
    assert_eq!(repaired.sessions, u64::from(SESSIONS), "{name}");
    let mut names: Vec<_> = std::fs::read_dir(data).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    assert_eq!(names, [repaired.kept.clone(), data.join("journal.db"), data.join("lock")], "{name}");

    let journal = open(data).unwrap();
    assert!(journal.claim(&session(1)).await.unwrap().epoch > epoch, "{name}: epochs go back");
    if repaired.quarantined == 0 {
        assert_eq!(lists(&journal).await, before, "{name}");
        assert_eq!(journal.unfinished(None, 100).await.unwrap().rows.len(), 10, "{name}");
    }
    for n in 0..SESSIONS {
        let aside = repaired.quarantines.iter().any(|quarantine| quarantine.key == session(n));
        let verified = journal.verify(&session(n)).await.unwrap();
        let whole = matches!(verified, Verified::Intact { records, .. } if records == records_of(n));
        assert!(whole || aside, "{name}: session {n} is not put aside: {verified:?}");
        let written = journal.append(input(&session(n), &cancel(run(n.into())))).await;
        assert_eq!(written.is_err(), aside, "{name}: session {n}");
    }
    assert!(journal.health().error.is_none(), "{name}");
    journal.close().await.unwrap();
}

#[tokio::test]
async fn an_interrupted_repair_is_taken_up() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    let journal = filled(data).await;
    let before = lists(&journal).await;
    journal.close().await.unwrap();
    // It had kept the files, and died when the database itself was being replaced.
    std::fs::create_dir(data.join("repair")).unwrap();
    std::fs::rename(data.join("journal.db"), data.join("repair/journal.db")).unwrap();
    std::fs::write(data.join("journal.db"), "half of something").unwrap();
    std::fs::write(data.join("journal.db.repaired"), "half of another").unwrap();
    assert_eq!(open(data).unwrap_err().code(), "journal_unrepaired");
    let repaired = journal::repair(data, NOW_MS).unwrap();
    assert_eq!((repaired.quarantined, repaired.findings.len()), (0, 0));
    let journal = open(data).unwrap();
    assert_eq!(lists(&journal).await, before);
    let opened = journal.content(&session(1), &nothing()).await.unwrap();
    assert!(opened == Content::Erased);
    assert_eq!(journal::repair(data, NOW_MS).unwrap_err().code(), "journal_locked");
    journal.close().await.unwrap();
    let nothing_there = tempfile::tempdir().unwrap();
    assert_eq!(journal::repair(nothing_there.path(), NOW_MS).unwrap_err().code(), "journal_backup");
}

/// A database as the first release wrote it, with what a newer journal has in it.
async fn of_the_first_release(data: &Path, from: &Path) {
    let journal = filled(from).await;
    let asked = Idempotency { key: Digest([1; 32]), body: Digest([2; 32]), run: run(99), expires_at_ms: u64::MAX };
    let keyed = journal::Append::new(session(99), Fence::Input(Some(asked))).draft(&cancel(run(99)));
    write(&journal, keyed).await;
    journal.close().await.unwrap();
    std::fs::create_dir(data).unwrap();
    let old = database(data);
    old.execute_batch(include_str!("../src/sqlite/schema/1.sql")).unwrap();
    old.execute_batch("INSERT INTO meta(key, value) VALUES ('schema', 1), ('boot', 41)").unwrap();
    old.execute("ATTACH ?1 AS new", [from.join("journal.db").to_str().unwrap()]).unwrap();
    for (table, same) in [
        ("records", "records"),
        ("heads", "heads"),
        ("contents", "contents"),
        ("data_keys", "data_keys"),
        ("idempotency", "idempotency"),
        ("sessions", "session_index"),
        ("runs", "run_index"),
    ] {
        let sql = "SELECT group_concat(name, ', ') FROM pragma_table_info(?1)";
        let columns: String = old.query_row(sql, [table], |row| row.get(0)).unwrap();
        old.execute_batch(&format!("INSERT INTO {table} SELECT {columns} FROM new.{same}")).unwrap();
    }
}

#[tokio::test]
async fn a_database_of_the_first_release_goes_on() {
    let outer = tempfile::tempdir().unwrap();
    let (old, new) = (outer.path().join("old"), outer.path().join("new"));
    of_the_first_release(&old, &new).await;
    let journal = open(&old).unwrap();
    assert_eq!(journal.boot(), 42);
    let newer = open(&new).unwrap();
    assert_eq!(lists(&journal).await, lists(&newer).await);
    newer.close().await.unwrap();
    for n in 0..SESSIONS {
        assert_intact(&journal, &session(n), records_of(n)).await;
    }
    let key: SessionKey = session(1);
    let purged = journal.purge(&key, PRINCIPAL).await.unwrap().unwrap();
    assert_eq!(purged.records, 21);
    write(&journal, input(&session(2), &submitted(Id::from_bytes([77; 16]), 5, "maya", nothing()))).await;
    journal.close().await.unwrap();
    let journal = open(&old).unwrap();
    assert_eq!(journal.boot(), 43, "its schema is brought up to date once");
    journal.close().await.unwrap();
}

#[tokio::test]
async fn an_old_database_is_repaired_as_well() {
    let outer = tempfile::tempdir().unwrap();
    let (old, new) = (outer.path().join("old"), outer.path().join("new"));
    of_the_first_release(&old, &new).await;
    let repaired = journal::repair(&old, NOW_MS).unwrap();
    assert_eq!((repaired.quarantined, repaired.boot), (0, 41 + (1 << 16)));
    let journal = open(&old).unwrap();
    let newer = open(&new).unwrap();
    assert_eq!(lists(&journal).await, lists(&newer).await);
    newer.close().await.unwrap();
    journal.close().await.unwrap();
}
