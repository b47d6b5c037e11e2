//! Tables, connections and the version of both.
//!
//! `tenant` leads every primary key. Ids and digests are blobs of 16 and 32 bytes. Records and contents are rowid tables
//! with a unique index: rows of many sessions that share a commit go to the same last pages, and rows too long for an
//! index tree do not spill. The short, hot or sorted tables are `WITHOUT ROWID`.

use crate::{Disk, Error};
use rusqlite::{Connection, OpenFlags, OptionalExtension};
use std::path::PathBuf;
use std::time::Duration;

/// The schema that this program writes.
const SCHEMA: u32 = 1;
/// How long a connection waits for somebody else's lock (a `sqlite3` shell).
const BUSY_MS: u64 = 5_000;

const TABLES: &str = "
CREATE TABLE meta(key TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;

CREATE TABLE records(
    tenant TEXT NOT NULL, session BLOB NOT NULL, position INTEGER NOT NULL,
    hash BLOB NOT NULL, bytes BLOB NOT NULL, commit_id INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX records_by_place ON records(tenant, session, position);

CREATE TABLE heads(
    tenant TEXT NOT NULL, session BLOB NOT NULL,
    position INTEGER NOT NULL, hash BLOB NOT NULL, epoch INTEGER NOT NULL,
    PRIMARY KEY(tenant, session)
) STRICT, WITHOUT ROWID;

CREATE TABLE contents(
    tenant TEXT NOT NULL, session BLOB NOT NULL, id BLOB NOT NULL,
    form INTEGER NOT NULL, item_key BLOB, body BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX contents_by_id ON contents(tenant, session, id);

CREATE TABLE data_keys(
    tenant TEXT NOT NULL, session BLOB NOT NULL, wrapped BLOB NOT NULL,
    PRIMARY KEY(tenant, session)
) STRICT, WITHOUT ROWID;

CREATE TABLE idempotency(
    tenant TEXT NOT NULL, key BLOB NOT NULL, body BLOB NOT NULL,
    session BLOB NOT NULL, run BLOB NOT NULL, position INTEGER NOT NULL, expires_ms INTEGER NOT NULL,
    PRIMARY KEY(tenant, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_by_expiry ON idempotency(expires_ms);

CREATE TABLE sessions(
    tenant TEXT NOT NULL, session BLOB NOT NULL,
    created_ms INTEGER NOT NULL, updated_ms INTEGER NOT NULL,
    runs INTEGER NOT NULL, last_run BLOB NOT NULL, agent TEXT NOT NULL, principal BLOB NOT NULL,
    PRIMARY KEY(tenant, session)
) STRICT, WITHOUT ROWID;
CREATE INDEX sessions_by_age ON sessions(tenant, created_ms, session);

CREATE TABLE runs(
    tenant TEXT NOT NULL, run BLOB NOT NULL, session BLOB NOT NULL,
    agent TEXT NOT NULL, principal BLOB NOT NULL, status TEXT NOT NULL,
    created_ms INTEGER NOT NULL, updated_ms INTEGER NOT NULL, finished_ms INTEGER,
    submitted_position INTEGER NOT NULL, finished_position INTEGER,
    turns INTEGER NOT NULL DEFAULT 0, tool_calls INTEGER NOT NULL DEFAULT 0,
    model_calls INTEGER NOT NULL DEFAULT 0, input_tokens INTEGER NOT NULL DEFAULT 0,
    cached_tokens INTEGER NOT NULL DEFAULT 0, output_tokens INTEGER NOT NULL DEFAULT 0,
    reasoning_tokens INTEGER NOT NULL DEFAULT 0,
    cost_micro_usd INTEGER NOT NULL DEFAULT 0, cost_listed INTEGER NOT NULL DEFAULT 1,
    used_sandbox INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY(tenant, run)
) STRICT, WITHOUT ROWID;
CREATE INDEX runs_by_session ON runs(tenant, session, run);
CREATE INDEX runs_open ON runs(tenant, session, submitted_position) WHERE finished_ms IS NULL;

CREATE TABLE artifacts(
    tenant TEXT NOT NULL, artifact BLOB NOT NULL, run BLOB NOT NULL, session BLOB NOT NULL,
    position INTEGER NOT NULL, name TEXT NOT NULL, media TEXT NOT NULL, bytes INTEGER NOT NULL,
    object TEXT NOT NULL, created_ms INTEGER NOT NULL,
    PRIMARY KEY(tenant, artifact)
) STRICT, WITHOUT ROWID;
CREATE INDEX artifacts_by_run ON artifacts(tenant, run, position);

CREATE TABLE due(
    tenant TEXT NOT NULL, session BLOB NOT NULL, run BLOB NOT NULL, kind TEXT NOT NULL, at_ms INTEGER NOT NULL,
    PRIMARY KEY(tenant, session, run, kind)
) STRICT, WITHOUT ROWID;
CREATE INDEX due_by_time ON due(at_ms);

-- For people with a sqlite3 shell.
CREATE VIEW log AS
SELECT tenant, 'ses_' || lower(hex(session)) AS session, position,
       CAST(bytes AS TEXT) ->> '$.kind' AS kind, CAST(bytes AS TEXT) AS record, commit_id
FROM records;
";

/// A database and the way to it.
#[derive(Clone, Debug)]
pub(crate) struct Database {
    pub(crate) file: PathBuf,
    pub(crate) disk: Disk,
}

impl Database {
    fn open(&self, flags: OpenFlags) -> Result<Connection, Error> {
        let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = match self.disk {
            Disk::System => Connection::open_with_flags(&self.file, flags)?,
            Disk::Vfs(vfs) => Connection::open_with_flags_and_vfs(&self.file, flags, vfs)?,
        };
        connection.busy_timeout(Duration::from_millis(BUSY_MS))?;
        Ok(connection)
    }
}

/// The connection that writes. `secure_delete` is on all the time: pages that a growing table moves rows out of must not
/// keep copies that a later erasure can't reach.
pub(crate) fn connect(database: &Database) -> Result<Connection, Error> {
    let flags = match database.disk {
        // The file is there: it was made with the right mode.
        Disk::System => OpenFlags::SQLITE_OPEN_READ_WRITE,
        Disk::Vfs(_) => OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE,
    };
    let connection = database.open(flags)?;
    connection.set_prepared_statement_cache_capacity(64);
    connection.execute_batch(
        "PRAGMA page_size = 4096;
         PRAGMA journal_mode = WAL;
         PRAGMA synchronous = FULL;
         PRAGMA foreign_keys = OFF;
         PRAGMA secure_delete = ON;
         PRAGMA temp_store = MEMORY;
         PRAGMA cache_size = -4096;
         PRAGMA wal_autocheckpoint = 2000;
         PRAGMA journal_size_limit = 33554432;",
    )?;
    Ok(connection)
}

/// A connection that reads.
pub(crate) fn connect_reader(database: &Database) -> Result<Connection, Error> {
    let connection = database.open(OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.set_prepared_statement_cache_capacity(32);
    connection.execute_batch("PRAGMA temp_store = MEMORY; PRAGMA cache_size = -1024;")?;
    Ok(connection)
}

/// Makes the tables of a new database, refuses those of a newer program, counts this boot. Returns its number.
pub(crate) fn prepare(connection: &mut Connection) -> Result<u64, Error> {
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let tables: i64 = transaction.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if tables == 0 {
        transaction.execute_batch(TABLES)?;
        transaction.execute("INSERT INTO meta(key, value) VALUES ('schema', ?1), ('boot', 0)", [SCHEMA])?;
    }
    let value = "SELECT value FROM meta WHERE key = 'schema'";
    let found: Option<u32> = transaction.query_row(value, [], |row| row.get(0)).optional()?;
    match found {
        Some(SCHEMA) => {}
        Some(found) if found > SCHEMA => return Err(Error::Newer { found, known: SCHEMA }),
        Some(found) => return Err(Error::corrupt(format_args!("schema {found} was never written by any release"))),
        None => return Err(Error::corrupt("the database names no schema")),
    }
    let boot = "UPDATE meta SET value = value + 1 WHERE key = 'boot' RETURNING value";
    let boot: u64 = transaction.query_row(boot, [], |row| row.get(0))?;
    transaction.commit()?;
    Ok(boot)
}

/// Number of the last commit: that of the row written last.
pub(crate) fn last_commit(connection: &Connection) -> Result<u64, Error> {
    let last = "SELECT commit_id FROM records ORDER BY rowid DESC LIMIT 1";
    Ok(connection.query_row(last, [], |row| row.get(0)).optional()?.unwrap_or(0))
}
