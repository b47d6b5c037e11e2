//! Reads what can be read of damaged tables, row by row, around the pages that can't.

use crate::Error;
use rusqlite::types::Value;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, params_from_iter};

/// What was read of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Salvaged {
    /// The table.
    pub table: &'static str,
    /// Rows that were read.
    pub rows: u64,
    /// Places at which something could not be read.
    pub gaps: u64,
}

/// A table and how to walk it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Table {
    pub(crate) name: &'static str,
    pub(crate) columns: &'static str,
    pub(crate) order: Order,
}

/// What the rows lie in order of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// A number of their own, which is kept.
    Rowid,
    /// Their primary key, which is these columns.
    Key(&'static str),
}

/// Everything that is not made anew from the records.
pub(crate) const TABLES: [Table; 10] = [
    Table { name: "records", columns: "tenant, session, position, hash, bytes, commit_id", order: Order::Rowid },
    Table { name: "contents", columns: "tenant, session, id, form, item_key, body", order: Order::Rowid },
    Table { name: "heads", columns: "tenant, session, position, hash, epoch", order: Order::Key("tenant, session") },
    Table { name: "data_keys", columns: "tenant, session, wrapped", order: Order::Key("tenant, session") },
    Table {
        name: "idempotency",
        columns: "tenant, key, body, session, run, position, expires_ms",
        order: Order::Key("tenant, key"),
    },
    Table {
        name: "tombstones",
        columns: "tenant, session, epoch, purged_ms, principal, records, head_hash",
        order: Order::Key("tenant, session, epoch"),
    },
    Table {
        name: "quarantine",
        columns: "tenant, session, since_ms, principal, reason",
        order: Order::Key("tenant, session"),
    },
    Table { name: "garbage", columns: "object", order: Order::Key("object") },
    Table { name: "announced", columns: "tenant, session, run", order: Order::Key("tenant, session, run") },
    Table {
        name: "outbox",
        columns: "tenant, session, position, target, run, kind, at_ms, state, next_ms, version",
        order: Order::Key("tenant, session, position, target"),
    },
];

/// Copies a table. What a newer schema added may be missing.
pub(crate) fn table(source: &Connection, target: &Connection, table: &Table) -> Result<Salvaged, Error> {
    let mut salvaged = Salvaged { table: table.name, rows: 0, gaps: 0 };
    let there = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1";
    if source.query_row(there, [table.name], |_| Ok(())).optional()?.is_none() {
        return Ok(salvaged);
    }
    match table.order {
        Order::Rowid => by_rowid(source, target, table, &mut salvaged)?,
        Order::Key(key) => {
            let forward = format!("SELECT {} FROM {} ORDER BY {key}", table.columns, table.name);
            if let Read::Unreadable { .. } = read(source, target, table, (&forward, None), &mut salvaged)? {
                salvaged.gaps += 1;
                // From the other end up to the same place.
                let backward = key.replace(',', " DESC,");
                let backward = format!("SELECT {} FROM {} ORDER BY {backward} DESC", table.columns, table.name);
                read(source, target, table, (&backward, None), &mut salvaged)?;
            }
        }
    }
    Ok(salvaged)
}

/// How far a reading came.
enum Read {
    Ended,
    Unreadable { after: Option<i64> },
}

fn by_rowid(source: &Connection, target: &Connection, table: &Table, salvaged: &mut Salvaged) -> Result<(), Error> {
    let sql =
        format!("SELECT rowid, {} FROM {} NOT INDEXED WHERE rowid >= ?1 ORDER BY rowid", table.columns, table.name);
    let mut from = i64::MIN;
    loop {
        match read(source, target, table, (&sql, Some(from)), salvaged)? {
            Read::Ended => return Ok(()),
            Read::Unreadable { after } => {
                salvaged.gaps += 1;
                let unreadable = after.map_or(from.max(0), |after| after + 1);
                match next_readable(source, &sql, unreadable)? {
                    Some(next) => from = next,
                    None => return Ok(()),
                }
            }
        }
    }
}

fn read(
    source: &Connection,
    target: &Connection,
    table: &Table,
    (sql, from): (&str, Option<i64>),
    salvaged: &mut Salvaged,
) -> Result<Read, Error> {
    let with_rowid = table.order == Order::Rowid;
    let columns = if with_rowid { format!("rowid, {}", table.columns) } else { table.columns.to_owned() };
    let places = vec!["?"; columns.split(',').count()].join(", ");
    let mut insert = target.prepare(&format!("INSERT OR IGNORE INTO {}({columns}) VALUES ({places})", table.name))?;
    let mut last = None;
    let mut all = match source.prepare(sql) {
        Ok(all) => all,
        Err(error) => return unreadable(error, last),
    };
    let mut rows = match all.query(params_from_iter(from)) {
        Ok(rows) => rows,
        Err(error) => return unreadable(error, last),
    };
    loop {
        let row = match rows.next() {
            Ok(Some(row)) => row,
            Ok(None) => return Ok(Read::Ended),
            Err(error) => return unreadable(error, last),
        };
        let values = match values(row) {
            Ok(values) => values,
            Err(error) => return unreadable(error, last),
        };
        if let (true, Some(Value::Integer(rowid))) = (with_rowid, values.first()) {
            last = Some(*rowid);
        }
        match insert.execute(params_from_iter(values)) {
            Ok(rows) => salvaged.rows += rows as u64,
            // A row that is none: damage that SQLite did not see.
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => salvaged.gaps += 1,
            Err(error) => return Err(error.into()),
        }
    }
}

fn values(row: &Row<'_>) -> rusqlite::Result<Vec<Value>> {
    (0..row.as_ref().column_count()).map(|column| row.get(column)).collect()
}

/// A page that is damaged, or that the disk does not give.
fn unreadable(error: rusqlite::Error, after: Option<i64>) -> Result<Read, Error> {
    if is_damage(&error) { Ok(Read::Unreadable { after }) } else { Err(error.into()) }
}

fn is_damage(error: &rusqlite::Error) -> bool {
    use ErrorCode::{DatabaseCorrupt, NotADatabase, SystemIoFailure};
    // Bytes that are no text where text should be are damage as well.
    matches!(error.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase | SystemIoFailure))
        || matches!(error, rusqlite::Error::FromSqlConversionFailure(..) | rusqlite::Error::Utf8Error(..))
}

/// The first number from which rows can be read again: looked for in steps that double, then between the last two.
fn next_readable(source: &Connection, sql: &str, unreadable: i64) -> Result<Option<i64>, Error> {
    let first = |from: i64| -> Result<Option<Option<i64>>, Error> {
        let mut one = source.prepare(&format!("{sql} LIMIT 1"))?;
        match one.query_row([from], |row| values(row).and_then(|_| row.get(0))).optional() {
            Ok(found) => Ok(Some(found)),
            Err(error) if is_damage(&error) => Ok(None),
            Err(error) => Err(error.into()),
        }
    };
    let mut low = unreadable;
    let mut step = 1;
    let (mut high, mut found) = loop {
        let Some(next) = unreadable.checked_add(step) else {
            return Ok(None);
        };
        if let Some(found) = first(next)? {
            break (next, found);
        }
        (low, step) = (next, step.saturating_mul(2));
    };
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        match first(middle)? {
            Some(nearer) => (high, found) = (middle, nearer),
            None => low = middle,
        }
    }
    Ok(found)
}
