//! What `docs/reference/journal.md` says of bytes and tables is true.

#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use domain::{Digest, record};
use support::{NOW_MS, assert_intact, cancel, input, open, submitted, write};

fn page() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/journal.md");
    std::fs::read_to_string(path).unwrap()
}

#[tokio::test]
async fn the_example_is_what_the_journal_writes() {
    let page = page();
    let shown: Vec<&str> = page.lines().filter(|line| line.starts_with("{\"v\":1")).collect();
    let directory = tempfile::tempdir().unwrap();
    let journal = open(directory.path()).unwrap();
    let key = support::session(1);
    let run = domain::Id::from_bytes([4; 16]);
    let message = domain::ContentRef {
        id: domain::Id::from_bytes([5; 16]),
        bytes: 5,
        media: domain::content::media::TEXT.to_owned(),
        mac: Digest([6; 32]),
    };
    write(&journal, input(&key, &submitted(run, NOW_MS, "maya", message)).draft(&cancel(run))).await;
    let records = journal.records(&key, 0, 10).await.unwrap();
    let written: Vec<_> = records.iter().map(|record| std::str::from_utf8(&record.bytes).unwrap()).collect();
    assert_eq!(written, shown);
    let head = record::hash(shown[1].as_bytes()).to_string();
    assert!(page.contains(&format!("`{head}`")), "the head {head} is not on the page");
    assert_intact(&journal, &key, 2).await;
    journal.close().await.unwrap();
}

#[tokio::test]
async fn every_kind_table_and_statement_of_the_page_exists() {
    let page = page();
    for kind in domain::Event::KINDS {
        assert!(page.contains(&format!("`{kind}`")), "kind {kind} is not on the page");
    }
    let directory = tempfile::tempdir().unwrap();
    open(directory.path()).unwrap().close().await.unwrap();
    let database = rusqlite::Connection::open(directory.path().join("journal.db")).unwrap();
    let sql = "SELECT name FROM sqlite_schema WHERE type IN ('table', 'view')";
    let mut tables = database.prepare(sql).unwrap();
    for table in tables.query_map([], |row| row.get::<_, String>(0)).unwrap() {
        let table = table.unwrap();
        assert!(page.contains(&format!("`{table}`")), "table {table} is not on the page");
    }
    let statements: Vec<&str> = page.lines().filter(|line| line.starts_with("SELECT ")).collect();
    assert_eq!(statements.len(), 3);
    for statement in statements {
        database.prepare(statement).unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
}
