//! The shortest loop that writes the rows of the measured runs: one thread, one connection with the journal's durability,
//! groups of whatever waits, prepared statements, answers after the commit. It neither seals nor hashes nor checks; the rows
//! are copies of those that the journal wrote for one session.

use crate::{Measured, parts, run, thread_seconds};
use journal::{Config, Journal};
use rusqlite::{Connection, params};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use stdx::{Clock, Random};
use tokio::sync::{mpsc, oneshot};

/// Entries that wait, and entries of one commit: as the journal's.
const QUEUE_ENTRIES_MAX: usize = 4_096;
const GROUP_ENTRIES_MAX: usize = 256;
/// Tables whose rows per session must come out as the journal's.
const TABLES: [&str; 6] = ["records", "contents", "data_keys", "heads", "session_index", "run_index"];

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The rows of one session.
#[derive(Debug)]
struct Template {
    /// Hash and bytes.
    records: Vec<(Vec<u8>, Vec<u8>)>,
    contents: Vec<Content>,
    data_key: Vec<u8>,
    principal: Vec<u8>,
}

#[derive(Debug)]
struct Content {
    id: Vec<u8>,
    form: i64,
    item_key: Option<Vec<u8>>,
    body: Vec<u8>,
}

/// One append.
struct Entry {
    session: [u8; 16],
    run: [u8; 16],
    at_ms: u64,
    step: run::Step,
    reply: oneshot::Sender<()>,
}

pub(crate) async fn measure(
    directory: &Path,
    time: Duration,
    writers: u32,
) -> Result<Measured, Box<dyn std::error::Error>> {
    let journal = Journal::open(directory, parts(), Config::default())?;
    run::one_session(&journal, &Clock::system(), &Random::system()).await?;
    journal.close().await?;
    let connection = connect(directory)?;
    let before = counts(&connection)?;
    let template = Arc::new(template(&connection)?);
    let (queue, entries) = mpsc::channel(QUEUE_ENTRIES_MAX);
    let thread = std::thread::Builder::new().name("bare".to_owned()).spawn(move || {
        let commits = write(&connection, entries, &template);
        (connection, commits, thread_seconds("bare").unwrap_or_default())
    })?;
    let clock = Clock::system();
    let tasks: Vec<_> = (0..writers).map(|_| tokio::spawn(drive(queue.clone(), clock.clone(), time))).collect();
    drop(queue);
    let mut driven = Vec::new();
    for task in tasks {
        driven.push(task.await?);
    }
    let seconds = clock.monotonic().as_secs_f64();
    let joined = tokio::task::spawn_blocking(move || thread.join()).await?;
    let (connection, commits, writer_seconds) = joined.map_err(|_| "the writer panicked")?;
    // When the writer failed, that is why nobody was answered.
    let commits = commits.map_err(|error| error.to_string())?;
    let sessions: Result<Vec<u64>, _> = driven.into_iter().collect();
    let sessions: u64 = sessions.map_err(|error| error.to_string())?.into_iter().sum();
    for (table, (before, after)) in TABLES.iter().zip(before.iter().zip(counts(&connection)?)) {
        if after != before * (sessions + 1) {
            return Err(format!("{table}: {after} rows after {sessions} sessions, the journal's has {before}").into());
        }
    }
    Ok(Measured { sessions, commits, seconds, writer_seconds })
}

/// The journal's own file, with its durability and its page cache.
fn connect(directory: &Path) -> Result<Connection, rusqlite::Error> {
    let connection = Connection::open(directory.join("journal.db"))?;
    connection.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA cache_size = -4096; PRAGMA wal_autocheckpoint = 2000;
         PRAGMA journal_size_limit = 33554432;",
    )?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

fn counts(connection: &Connection) -> Result<Vec<u64>, rusqlite::Error> {
    let count = |table| connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0));
    TABLES.into_iter().map(count).collect()
}

fn template(connection: &Connection) -> Result<Template, rusqlite::Error> {
    let mut records = connection.prepare("SELECT hash, bytes FROM records ORDER BY position")?;
    let records = records.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
    let mut contents = connection.prepare("SELECT id, form, item_key, body FROM contents ORDER BY rowid")?;
    let contents = contents.query_map([], |row| {
        Ok(Content { id: row.get(0)?, form: row.get(1)?, item_key: row.get(2)?, body: row.get(3)? })
    })?;
    let contents = contents.collect::<Result<_, _>>()?;
    let data_key = connection.query_row("SELECT wrapped FROM data_keys", [], |row| row.get(0))?;
    let principal = connection.query_row("SELECT principal FROM run_index", [], |row| row.get(0))?;
    Ok(Template { records, contents, data_key, principal })
}

async fn drive(queue: mpsc::Sender<Entry>, clock: Clock, time: Duration) -> Result<u64, Failure> {
    let random = Random::system();
    let mut sessions = 0;
    while clock.monotonic() < time {
        let at_ms = clock.wall_ms();
        let id = || *domain::Id::<domain::id::Run>::new(at_ms, random.bytes()).as_bytes();
        let (session, mut run) = (id(), id());
        for step in run::steps() {
            if step.index == 0 {
                run = id();
            }
            let (reply, answer) = oneshot::channel();
            queue.send(Entry { session, run, at_ms, step, reply }).await.map_err(|_| "the writer is gone")?;
            answer.await?;
        }
        sessions += 1;
    }
    Ok(sessions)
}

/// Writes until nobody is there who could ask; gives the number of commits.
fn write(connection: &Connection, mut entries: mpsc::Receiver<Entry>, template: &Template) -> Result<u64, Failure> {
    let mut commits = 1;
    let mut group = Vec::with_capacity(GROUP_ENTRIES_MAX);
    while entries.blocking_recv_many(&mut group, GROUP_ENTRIES_MAX) > 0 {
        commits += 1;
        connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        for entry in &group {
            append(connection, template, entry, commits)?;
        }
        connection.prepare_cached("COMMIT")?.execute([])?;
        for entry in group.drain(..) {
            // Whoever asked waits for nothing else.
            let _ = entry.reply.send(());
        }
    }
    Ok(commits)
}

fn append(connection: &Connection, template: &Template, entry: &Entry, commit: u64) -> Result<(), rusqlite::Error> {
    let Entry { session, run, at_ms, step, .. } = entry;
    if step.index == 0 {
        begin(connection, template, entry)?;
    }
    let mut insert = connection.prepare_cached(
        "INSERT INTO contents(tenant, session, id, form, item_key, body) VALUES ('default', ?1, ?2, ?3, ?4, ?5)",
    )?;
    for content in &template.contents[step.contents.clone()] {
        let Content { id, form, item_key, body } = content;
        insert.execute(params![session, id, form, item_key, body])?;
    }
    let mut insert = connection.prepare_cached(
        "INSERT INTO records(tenant, session, position, hash, bytes, commit_id) VALUES ('default', ?1, ?2, ?3, ?4, ?5)",
    )?;
    for (position, (hash, bytes)) in template.records.iter().enumerate().take(step.records.end).skip(step.records.start)
    {
        insert.execute(params![session, position, hash, bytes, commit])?;
    }
    if step.index + 1 == run::APPENDS {
        let mut update = connection.prepare_cached(
            "UPDATE run_index SET status = 'completed', updated_ms = ?2, finished_ms = ?2, finished_position = ?3, turns = 3,
             tool_calls = 2, model_calls = 0, input_tokens = 0, cached_tokens = 0, output_tokens = 0, reasoning_tokens = 0,
             cost_micro_usd = 0, cost_listed = 1, used_sandbox = 0 WHERE tenant = 'default' AND run = ?1",
        )?;
        update.execute(params![run, at_ms, step.records.end - 1])?;
    }
    let mut head = connection.prepare_cached(
        "INSERT INTO heads(tenant, session, position, hash, epoch) VALUES ('default', ?1, ?2, ?3, ?4)
         ON CONFLICT DO UPDATE SET position = ?2, hash = ?3, epoch = ?4",
    )?;
    head.execute(params![session, step.records.end, template.records[step.records.end - 1].0, 1_i64 << 36])?;
    Ok(())
}

/// The rows that a run begins with, and a session with its first.
fn begin(connection: &Connection, template: &Template, entry: &Entry) -> Result<(), rusqlite::Error> {
    let Entry { session, run, at_ms, step, .. } = entry;
    if step.records.start == 0 {
        connection
            .prepare_cached("INSERT INTO data_keys(tenant, session, wrapped) VALUES ('default', ?1, ?2)")?
            .execute(params![session, template.data_key])?;
    }
    connection
        .prepare_cached(
            "INSERT INTO run_index(tenant, run, session, agent, principal, status, created_ms, updated_ms, submitted_position)
             VALUES ('default', ?1, ?2, 'maya', ?3, 'running', ?4, ?4, ?5)",
        )?
        .execute(params![run, session, template.principal, at_ms, step.records.start])?;
    connection
        .prepare_cached(
            "INSERT INTO session_index(tenant, session, created_ms, updated_ms, runs, last_run, agent, principal)
             VALUES ('default', ?1, ?2, ?2, 1, ?3, 'maya', ?4)
             ON CONFLICT DO UPDATE SET updated_ms = ?2, runs = runs + 1, last_run = ?3",
        )?
        .execute(params![session, at_ms, run, template.principal])?;
    Ok(())
}
