//! What a question costs, counted in steps of SQLite's machine: as much in a journal of many sessions as in one of few.

use super::{read, schema, upkeep, waiting};
use crate::query::RunFilter;
use crate::{Change, SessionKey};
use domain::{Id, id};
use rusqlite::{Connection, params};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A journal of so many sessions of one tenant, each with one run, one held call and one thing to tell.
fn filled(sessions: u64) -> Connection {
    let connection = Connection::open_in_memory().unwrap();
    schema::create(&connection).unwrap();
    let rows = format!("WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {sessions})");
    let id = "unhex(printf('%032x', n))";
    for (table, columns, values) in [
        ("heads", "tenant, session, position, hash, epoch", format!("'t', {id}, 1, zeroblob(32), 1")),
        (
            "session_index",
            "tenant, session, created_ms, updated_ms, runs, last_run, agent, principal",
            format!("'t', {id}, n, n, 1, {id}, 'a', {id}"),
        ),
        (
            "run_index",
            "tenant, run, session, agent, principal, status, created_ms, updated_ms, submitted_position",
            format!("'t', {id}, {id}, 'a', {id}, 'waiting', n, n, 0"),
        ),
        (
            "held_index",
            "tenant, call, run, session, since_ms, expires_ms, is_open",
            format!("'t', {id}, {id}, {id}, n, n, 1"),
        ),
        ("due", "tenant, session, run, kind, at_ms", format!("'t', {id}, {id}, 'wait', n")),
        ("announced", "tenant, session, run", format!("'t', {id}, {id}")),
        (
            "outbox",
            "tenant, session, position, target, run, kind, at_ms, state, next_ms, version",
            format!("'t', {id}, 0, '', {id}, 'held', n, '', n, 0"),
        ),
    ] {
        let sql = format!("{rows} INSERT INTO {table}({columns}) SELECT {values} FROM n");
        connection.execute(&sql, params![]).unwrap();
    }
    connection
}

type Ask = fn(&Connection, &SessionKey, Id<id::Run>) -> usize;

/// Each gives the number of rows that it found or changed.
const QUESTIONS: &[(&str, Ask)] = &[
    ("a run", |connection, key, run| read::run(connection, &key.tenant, run).unwrap().iter().count()),
    ("runs of a session", |connection, key, _| {
        let filter = RunFilter { session: Some(key.session), ..RunFilter::default() };
        read::runs(connection, &key.tenant, &filter, None, 10).unwrap().rows.len()
    }),
    ("the newest runs", |connection, key, _| {
        read::runs(connection, &key.tenant, &RunFilter::default(), None, 1).unwrap().rows.len()
    }),
    ("the newest sessions", |connection, key, _| read::sessions(connection, &key.tenant, None, 1).unwrap().rows.len()),
    ("runs that have not ended", |connection, _, _| read::unfinished(connection, None, 1).unwrap().rows.len()),
    ("what is due", |connection, _, _| read::due(connection, 1_000_000, 1).unwrap().len()),
    ("what is held", |connection, key, _| waiting::held(connection, &key.tenant, None, 1).unwrap().rows.len()),
    ("what is held of a run", |connection, key, run| waiting::held_of(connection, &key.tenant, run, 10).unwrap().len()),
    ("what was told of a run", |connection, key, run| {
        waiting::outbox_of(connection, &key.tenant, run, 10).unwrap().len()
    }),
    ("whether a session rests", |connection, key, _| usize::from(upkeep::has_open_run(connection, key).unwrap())),
    ("to tell of a run", |connection, key, run| {
        let change = Change::Told { run, kind: "parked", at_ms: 1 };
        waiting::apply(connection, key, 7, &change).unwrap();
        usize::try_from(connection.changes()).unwrap()
    }),
    ("to let go of what is held of a run", |connection, key, run| {
        waiting::unhold_all(connection, &key.tenant, run).unwrap();
        usize::try_from(connection.changes()).unwrap()
    }),
];

#[test]
fn no_question_reads_what_other_sessions_have() {
    let (few, many) = (filled(20), filled(4_000));
    let (key, run) = (SessionKey::new("t", Id::from_bytes(7_u128.to_be_bytes())), Id::from_bytes(7_u128.to_be_bytes()));
    let steps = |connection: &Connection, ask: Ask| {
        let count = Arc::new(AtomicU64::new(0));
        let counted = count.clone();
        let each = move || {
            counted.fetch_add(1, Ordering::Relaxed);
            false
        };
        connection.progress_handler(1, Some(each));
        let rows = ask(connection, &key, run);
        connection.progress_handler(0, None::<fn() -> bool>);
        assert_eq!(rows, 1);
        count.load(Ordering::Relaxed)
    };
    for (name, ask) in QUESTIONS {
        let (few, many) = (steps(&few, *ask), steps(&many, *ask));
        assert!(few > 0, "{name}: no step was counted");
        assert!(many <= few + few / 2, "{name}: {few} steps among 20 sessions, {many} among 4000");
    }
}
