//! Tables and their versions: numbered migrations, each in a transaction of its own, one process at a time.
//!
//! A migration says down to which program it can be lived with (`min_reader`), so that old and new programs serve one
//! database while an upgrade rolls: it may add tables, columns with defaults and indexes; what takes something away comes
//! one release later.

use crate::Error;
use crate::postgres::fault::Fault;
use crate::postgres::pool::{Lent, Pool, Sql};
use tokio_postgres::Row;
use tokio_postgres::types::Type;

/// One step of the schema.
struct Migration {
    version: u32,
    /// The lowest schema that a program must know to work on the database after it.
    min_reader: u32,
    name: &'static str,
    sql: &'static str,
}

const MIGRATIONS: &[Migration] = &[
    Migration { version: 1, min_reader: 1, name: "journal", sql: include_str!("migrations/0001_journal.sql") },
    // A program that knows only the first writes no rows of what waits; the lists lack those until the index is made anew.
    Migration { version: 2, min_reader: 1, name: "waiting", sql: include_str!("migrations/0002_waiting.sql") },
];

/// The schema that this program writes.
const KNOWN: u32 = MIGRATIONS[MIGRATIONS.len() - 1].version;

/// Of `topside`, as a number: whoever migrates holds it.
const LOCK: Sql = Sql { text: "SELECT pg_advisory_xact_lock(8388065279042085)", types: &[] };
const TABLE: &str = "CREATE TABLE IF NOT EXISTS public.topside_migrations (
    version integer PRIMARY KEY, name text NOT NULL, min_reader integer NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now())";
const THERE: Sql = Sql { text: "SELECT to_regclass('public.topside_migrations') IS NOT NULL", types: &[] };
const FOUND: Sql = Sql {
    text: "SELECT coalesce(max(version), 0), coalesce(max(min_reader), 0) FROM public.topside_migrations",
    types: &[],
};
const APPLIED: Sql = Sql {
    text: "INSERT INTO public.topside_migrations (version, name, min_reader) VALUES ($1, $2, $3)",
    types: &[Type::INT4, Type::TEXT, Type::INT4],
};
const SAFETY: Sql = Sql {
    text: "SELECT current_setting('synchronous_commit'), current_setting('fsync'), current_setting('server_encoding'),
           pg_is_in_recovery()",
    types: &[],
};
const BOOT: Sql = Sql { text: "SELECT nextval('public.boots')", types: &[] };

/// Brings the tables up to what this program writes; refuses those of a newer program that this one can't live with.
pub(crate) async fn migrate(direct: &Pool) -> Result<(), Error> {
    // A program without the right to create tables may serve a database that is up to date.
    if there(direct).await? && found(&mut direct.take().await?).await? >= KNOWN {
        return Ok(());
    }
    let mut first = direct.take().await?;
    first.begin().await?;
    first.query(LOCK, &[]).await?;
    first.batch(TABLE).await?;
    first.commit().await?;
    for migration in MIGRATIONS {
        let mut lent = direct.take().await?;
        lent.begin().await?;
        // Held to the end of the transaction: another process may have been quicker, and is then found to have been.
        lent.query(LOCK, &[]).await?;
        if found(&mut lent).await? < migration.version {
            tracing::info!(version = migration.version, name = migration.name, "migrating the journal's database");
            lent.batch(migration.sql).await?;
            let (version, min_reader) = (number(migration.version), number(migration.min_reader));
            lent.query(APPLIED, &[&version, &migration.name, &min_reader]).await?;
        }
        lent.commit().await?;
    }
    Ok(())
}

async fn there(pool: &Pool) -> Result<bool, Error> {
    let rows = pool.ask(THERE, &[]).await?;
    column(rows.first(), 0)
}

/// The schema found; an error when this program can't live with it.
async fn found(lent: &mut Lent<'_>) -> Result<u32, Error> {
    let rows = lent.query(FOUND, &[]).await?;
    let found: i32 = column(rows.first(), 0)?;
    let min_reader: i32 = column(rows.first(), 1)?;
    let found = u32::try_from(found).unwrap_or(0);
    if found > KNOWN && min_reader > number(KNOWN) {
        return Err(Error::Newer { found, known: KNOWN });
    }
    Ok(found)
}

/// Refuses a database that would lose what it has acknowledged.
pub(crate) async fn check_safety(pool: &Pool) -> Result<(), Error> {
    let rows = pool.ask(SAFETY, &[]).await?;
    let synchronous_commit: String = column(rows.first(), 0)?;
    let fsync: String = column(rows.first(), 1)?;
    let encoding: String = column(rows.first(), 2)?;
    let standby: bool = column(rows.first(), 3)?;
    if standby {
        return Err(Error::Unreachable { reason: "the server is a standby; hint: name the primary".into() });
    }
    for (setting, found, wanted, safe) in [
        // `local` waits for this server's disk; `remote_write` and `remote_apply` wait for that and more.
        ("synchronous_commit", synchronous_commit.as_str(), "on", synchronous_commit != "off"),
        ("fsync", fsync.as_str(), "on", fsync == "on"),
        ("server_encoding", encoding.as_str(), "UTF8", encoding == "UTF8"),
    ] {
        if !safe {
            return Err(Error::Unsafe { setting, found: found.into(), wanted });
        }
    }
    Ok(())
}

/// Counts this opening.
pub(crate) async fn boot(pool: &Pool) -> Result<u64, Error> {
    let rows = pool.ask(BOOT, &[]).await?;
    let boot: i64 = column(rows.first(), 0)?;
    Ok(boot.unsigned_abs())
}

/// A column of the only row.
fn column<'a, T: tokio_postgres::types::FromSql<'a>>(row: Option<&'a Row>, at: usize) -> Result<T, Error> {
    let row = row.ok_or_else(|| Error::io("the database answered without a row"))?;
    row.try_get(at).map_err(|error| Fault::of(&error).into())
}

fn number(version: u32) -> i32 {
    i32::try_from(version).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn migrations_are_numbered_without_gaps_and_live_with_somebody() {
        for (at, migration) in MIGRATIONS.iter().enumerate() {
            assert_eq!(migration.version as usize, at + 1, "{}", migration.name);
            assert!((1..=migration.version).contains(&migration.min_reader), "{}", migration.name);
            for line in migration.sql.lines().filter(|line| line.starts_with("CREATE") || line.starts_with("ALTER")) {
                assert!(line.contains("public."), "{}: not qualified: {line}", migration.name);
            }
        }
    }
}
