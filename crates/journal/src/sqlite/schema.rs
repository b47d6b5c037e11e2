//! Connections, the schema's version and what leads from one to the next. The tables are in `schema/`.
//!
//! `tenant` leads every primary key. Ids and digests are blobs of 16 and 32 bytes. Records and contents are rowid tables
//! with a unique index: rows of many sessions that share a commit go to the same last pages, and rows too long for an
//! index tree do not spill. The short, hot or sorted tables are `WITHOUT ROWID`.

use crate::sqlite::directory;
use crate::{Disk, Error};
use rusqlite::{Connection, OpenFlags, OptionalExtension};
use std::path::PathBuf;
use std::time::Duration;

/// The schema that this program writes.
pub(crate) const SCHEMA: u32 = 3;
/// How long a connection waits for somebody else's lock (a `sqlite3` shell).
const BUSY_MS: u64 = 5_000;

/// What leads from one schema to the next. A step is for ever: a database may be as old as the first.
struct Migration {
    /// The schema that it leads to.
    to: u32,
    /// The oldest schema whose program goes on serving a database of this one.
    compatible: u32,
    sql: &'static str,
}

/// Every step, from an empty file on.
const MIGRATIONS: &[Migration] = &[
    Migration { to: 1, compatible: 1, sql: include_str!("schema/1.sql") },
    Migration { to: 2, compatible: 2, sql: include_str!("schema/2.sql") },
    Migration { to: SCHEMA, compatible: SCHEMA, sql: include_str!("schema/3.sql") },
];

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
            Disk::Vfs(vfs) => Connection::open_with_flags_and_vfs(&self.file, flags, vfs.name)?,
        };
        connection.busy_timeout(Duration::from_millis(BUSY_MS))?;
        Ok(connection)
    }
}

/// Writes the write-ahead log of an earlier process once more, before SQLite reads it. When a sync fails, the operating system
/// counts what it should have written as clean, although only its cache may have it: it is read, it is in no later sync, and
/// it is gone with the power. A log with such a gap would be read up to the gap only, over a database that is newer.
/// (Rebello et al., "Can Applications Recover from fsync Failures?", USENIX ATC 2020.)
pub(crate) fn rewrite_log(database: &Database) -> Result<(), Error> {
    let mut log = database.file.clone().into_os_string();
    log.push("-wal");
    let log = PathBuf::from(log);
    let rewritten = match database.disk {
        Disk::System => directory::rewrite(&log),
        Disk::Vfs(vfs) => (vfs.rewrite)(&log),
    };
    rewritten.map_err(|error| Error::io(format_args!("{}: {error}", log.display())))
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

/// Makes the tables of a new database, brings those of an older program up to date, refuses those of a newer one that it
/// can't serve, counts this boot. Returns its number.
pub(crate) fn prepare(connection: &mut Connection) -> Result<u64, Error> {
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    migrate(&transaction, MIGRATIONS)?;
    let boot = "UPDATE meta SET value = value + 1 WHERE key = 'boot' RETURNING value";
    let boot = transaction.query_row(boot, [], |row| row.get(0)).optional()?;
    let boot: u64 = boot.ok_or_else(|| Error::corrupt("the database does not say how often it was opened"))?;
    transaction.commit()?;
    Ok(boot)
}

/// Makes the tables of a database that has none.
pub(crate) fn create(connection: &Connection) -> Result<(), Error> {
    migrate(connection, MIGRATIONS)
}

/// Takes the steps that are missing; all or none, in the caller's transaction.
fn migrate(connection: &Connection, migrations: &[Migration]) -> Result<(), Error> {
    let known = migrations.last().map_or(0, |last| last.to);
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let found = if tables == 0 { 0 } else { value(connection, "schema")?.unwrap_or(0) };
    if tables > 0 && found == 0 {
        return Err(Error::corrupt("the database names no schema that was ever written"));
    }
    if found > known {
        // Steps that a newer program took. It says how old a program may be that goes on beside it.
        return match value(connection, "compatible")? {
            Some(compatible) if compatible <= known => Ok(()),
            _ => Err(Error::Newer { found, known }),
        };
    }
    for Migration { to, compatible, sql } in migrations.iter().filter(|migration| migration.to > found) {
        connection.execute_batch(sql)?;
        let set = "INSERT INTO meta(key, value) VALUES ('boot', 0) ON CONFLICT DO NOTHING";
        connection.execute(set, [])?;
        let set = "INSERT INTO meta(key, value) VALUES ('schema', ?1), ('compatible', ?2)
                   ON CONFLICT(key) DO UPDATE SET value = excluded.value";
        connection.execute(set, [to, compatible])?;
        if found > 0 {
            tracing::info!(schema = to, "the journal's schema was brought up to date");
        }
    }
    Ok(())
}

fn value(connection: &Connection, key: &str) -> Result<Option<u32>, Error> {
    let sql = "SELECT value FROM meta WHERE key = ?1";
    Ok(connection.query_row(sql, [key], |row| row.get(0)).optional()?)
}

/// Number of the last commit: that of the row written last.
pub(crate) fn last_commit(connection: &Connection) -> Result<u64, Error> {
    let last = "SELECT commit_id FROM records ORDER BY rowid DESC LIMIT 1";
    Ok(connection.query_row(last, [], |row| row.get(0)).optional()?.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(connection: &Connection) -> (Option<u32>, Option<u32>) {
        (value(connection, "schema").unwrap(), value(connection, "compatible").unwrap())
    }

    #[test]
    fn steps_are_numbered_one_by_one() {
        for (at, migration) in MIGRATIONS.iter().enumerate() {
            assert_eq!(migration.to as usize, at + 1);
            assert!(migration.compatible <= migration.to);
        }
    }

    #[test]
    fn a_database_of_any_age_comes_to_the_newest_schema() {
        let newest = || {
            let connection = Connection::open_in_memory().unwrap();
            create(&connection).unwrap();
            let mut names = connection.prepare("SELECT name, sql FROM sqlite_schema ORDER BY name").unwrap();
            let rows = names.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
            rows.collect::<Result<Vec<(String, Option<String>)>, _>>().unwrap()
        };
        for age in 1..=MIGRATIONS.len() {
            let connection = Connection::open_in_memory().unwrap();
            migrate(&connection, &MIGRATIONS[..age]).unwrap();
            create(&connection).unwrap();
            assert_eq!(schema(&connection).0, Some(SCHEMA));
            let mut names = connection.prepare("SELECT name, sql FROM sqlite_schema ORDER BY name").unwrap();
            let rows = names.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
            assert_eq!(rows.collect::<Result<Vec<(String, Option<String>)>, _>>().unwrap(), newest(), "from {age}");
        }
    }

    #[test]
    fn what_the_next_program_writes_is_served_or_refused_as_it_says() {
        // A step of the next program, the oldest schema that it goes beside, and what this one says to it.
        for (sql, compatible, wanted) in [
            ("ALTER TABLE heads ADD COLUMN note TEXT; CREATE TABLE more(a INTEGER) STRICT;", SCHEMA, "served"),
            ("ALTER TABLE heads RENAME TO tips;", SCHEMA + 1, "journal_newer"),
            ("ALTER TABLE heads ADD COLUMN position TEXT;", SCHEMA, "failed"),
        ] {
            let mut connection = Connection::open_in_memory().unwrap();
            prepare(&mut connection).unwrap();
            let next = [Migration { to: 1, compatible: 1, sql: "" }, Migration { to: SCHEMA + 1, compatible, sql }];
            let transaction = connection.transaction().unwrap();
            let stepped = migrate(&transaction, &next);
            if wanted == "failed" {
                assert!(stepped.is_err());
                drop(transaction);
                assert_eq!(schema(&connection).0, Some(SCHEMA), "a step that fails leaves nothing behind");
                continue;
            }
            stepped.unwrap();
            transaction.commit().unwrap();
            let said = prepare(&mut connection).map_or_else(
                |error| error.code(),
                |boot| {
                    assert_eq!(boot, 2);
                    "served"
                },
            );
            assert_eq!(said, wanted, "{sql}");
            // It does not take the newer program's steps back.
            assert_eq!(schema(&connection), (Some(SCHEMA + 1), Some(compatible)));
        }
    }
}
