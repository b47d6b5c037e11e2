//! What waits for somebody outside, in SQL.

use super::Sqlite;
use super::apply::taken;
use super::transaction::Failed;
use super::writer::{Job, Writer};
use crate::append::{Existing, Idempotency};
use crate::index::Change;
use crate::query::{self, Page};
use crate::sqlite::read::session_key;
use crate::waiting::{HeldCursor, HeldRow, OutboxRow, Waiting};
use crate::{Error, SessionKey};
use async_trait::async_trait;
use domain::{Id, id};
use rusqlite::{Connection, OptionalExtension, Row, params};
use std::sync::Arc;
use tokio::sync::oneshot;

impl Writer {
    pub(crate) fn outbox_put(&mut self, read: &OutboxRow, rows: &[OutboxRow]) -> Result<bool, Error> {
        self.transaction(|writer| put(&writer.connection, read, rows)).map_err(Failed::into_error)
    }
}

/// Applies a change to what waits.
pub(crate) fn apply(connection: &Connection, key: &SessionKey, position: u64, change: &Change) -> Result<(), Error> {
    match change {
        Change::Held { call, run, expires_ms, at_ms } => hold(connection, key, (*call, *run), (*at_ms, *expires_ms)),
        Change::Unheld { call } => unhold(connection, &key.tenant, *call),
        Change::Announced { run, at_ms } => {
            announce(connection, key, *run)?;
            tell(connection, key, (position, *run), "submitted", *at_ms)
        }
        Change::Told { run, kind, at_ms } => tell(connection, key, (position, *run), kind, *at_ms),
        _ => Ok(()),
    }
}

/// A call waits for approval from now on, or until another time than before.
fn hold(
    connection: &Connection,
    key: &SessionKey,
    (call, run): (Id<id::Call>, Id<id::Run>),
    (since_ms, expires_ms): (u64, u64),
) -> Result<(), Error> {
    let (session, call, run) = (key.session.as_bytes(), call.as_bytes(), run.as_bytes());
    connection
        .prepare_cached(
            "INSERT INTO held_index(tenant, call, run, session, since_ms, expires_ms, is_open)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, 1) ON CONFLICT DO UPDATE SET expires_ms = ?6, is_open = 1",
        )?
        .execute(params![&*key.tenant, call, run, session, clamp(since_ms), clamp(expires_ms)])?;
    Ok(())
}

fn unhold(connection: &Connection, tenant: &str, call: Id<id::Call>) -> Result<(), Error> {
    connection
        .prepare_cached("UPDATE held_index SET is_open = 0 WHERE tenant = ?1 AND call = ?2")?
        .execute(params![tenant, call.as_bytes()])?;
    Ok(())
}

/// A run ended: none of its calls waits any more.
pub(crate) fn unhold_all(connection: &Connection, tenant: &str, run: Id<id::Run>) -> Result<(), Error> {
    connection
        .prepare_cached(
            "UPDATE held_index INDEXED BY held_by_run SET is_open = 0 WHERE tenant = ?1 AND run = ?2 AND is_open = 1",
        )?
        .execute(params![tenant, run.as_bytes()])?;
    Ok(())
}

/// Others are told of a run from now on.
fn announce(connection: &Connection, key: &SessionKey, run: Id<id::Run>) -> Result<(), Error> {
    connection
        .prepare_cached("INSERT OR IGNORE INTO announced(tenant, session, run) VALUES (?1, ?2, ?3)")?
        .execute(params![&*key.tenant, key.session.as_bytes(), run.as_bytes()])?;
    Ok(())
}

/// A record of a run was written; when others are told of the run, it is to be told.
fn tell(
    connection: &Connection,
    key: &SessionKey,
    (position, run): (u64, Id<id::Run>),
    kind: &str,
    at_ms: u64,
) -> Result<(), Error> {
    let (session, run) = (key.session.as_bytes(), run.as_bytes());
    connection
        .prepare_cached(
            "INSERT INTO outbox(tenant, session, position, target, run, kind, at_ms, state, next_ms, version)
             SELECT tenant, session, ?4, '', run, ?5, ?6, '', ?6, 0 FROM announced
             WHERE tenant = ?1 AND session = ?2 AND run = ?3",
        )?
        .execute(params![&*key.tenant, session, run, position, kind, clamp(at_ms)])?;
    Ok(())
}

fn put(connection: &Connection, read: &OutboxRow, rows: &[OutboxRow]) -> Result<bool, Error> {
    let (tenant, session) = (&*read.key.tenant, read.key.session.as_bytes());
    let mut delete = connection.prepare_cached(
        "DELETE FROM outbox WHERE tenant = ?1 AND session = ?2 AND position = ?3 AND target = ?4 AND version = ?5",
    )?;
    if delete.execute(params![tenant, session, read.position, read.target, read.version])? == 0 {
        return Ok(false);
    }
    let mut insert = connection.prepare_cached(
        "INSERT INTO outbox(tenant, session, position, target, run, kind, at_ms, state, next_ms, version)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    )?;
    for row in rows {
        let OutboxRow { position, target, run, kind, at_ms, state, next_ms, version, .. } = row;
        let (run, next_ms, version) = (run.as_bytes(), next_ms.map(clamp), clamp(version + 1));
        insert.execute(params![
            tenant,
            session,
            position,
            target,
            run,
            kind,
            clamp(*at_ms),
            state,
            next_ms,
            version
        ])?;
    }
    Ok(true)
}

// The planner knows nothing of how many rows a tenant has. Where it would rather spare the sorting and read all that a tenant
// has, a question names its index; a test counts the steps of each (`costs`).

const HELD: &str = "SELECT tenant, session, call, run, since_ms, expires_ms, is_open FROM held_index";

fn held_row(row: &Row<'_>) -> rusqlite::Result<HeldRow> {
    Ok(HeldRow {
        key: session_key(row)?,
        call: Id::from_bytes(row.get(2)?),
        run: Id::from_bytes(row.get(3)?),
        since_ms: row.get(4)?,
        expires_ms: row.get(5)?,
        is_open: row.get(6)?,
    })
}

const OUTBOX: &str = "SELECT tenant, session, position, target, run, kind, at_ms, state, next_ms, version FROM outbox";

fn outbox_row(row: &Row<'_>) -> rusqlite::Result<OutboxRow> {
    Ok(OutboxRow {
        key: session_key(row)?,
        position: row.get(2)?,
        target: row.get(3)?,
        run: Id::from_bytes(row.get(4)?),
        kind: row.get(5)?,
        at_ms: row.get(6)?,
        state: row.get(7)?,
        next_ms: row.get(8)?,
        version: row.get(9)?,
    })
}

pub(crate) fn held(
    connection: &Connection,
    tenant: &str,
    after: Option<HeldCursor>,
    rows_max: usize,
) -> Result<Page<HeldRow, HeldCursor>, Error> {
    let sql = format!(
        "{HELD} INDEXED BY held_open WHERE tenant = ?1 AND is_open = 1 AND (since_ms, call) > (?2, ?3)
         ORDER BY since_ms, call LIMIT ?4"
    );
    let mut open = connection.prepare_cached(&sql)?;
    let (since_ms, call) =
        after.as_ref().map_or((-1, &[][..]), |after| (clamp(after.since_ms), &after.call.as_bytes()[..]));
    let rows = open.query_map(params![tenant, since_ms, call, rows_max.saturating_add(1)], held_row)?;
    Ok(query::page(rows.collect::<Result<_, _>>()?, rows_max, HeldRow::cursor))
}

pub(crate) fn held_of(
    connection: &Connection,
    tenant: &str,
    run: Id<id::Run>,
    rows_max: usize,
) -> Result<Vec<HeldRow>, Error> {
    let sql = format!(
        "{HELD} INDEXED BY held_by_run WHERE tenant = ?1 AND run = ?2 AND is_open = 1 ORDER BY since_ms, call LIMIT ?3"
    );
    let mut open = connection.prepare_cached(&sql)?;
    let rows = open.query_map(params![tenant, run.as_bytes(), rows_max], held_row)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(crate) fn outbox_of(
    connection: &Connection,
    tenant: &str,
    run: Id<id::Run>,
    rows_max: usize,
) -> Result<Vec<OutboxRow>, Error> {
    let sql =
        format!("{OUTBOX} INDEXED BY outbox_by_run WHERE tenant = ?1 AND run = ?2 ORDER BY position, target LIMIT ?3");
    let mut of_run = connection.prepare_cached(&sql)?;
    let rows = of_run.query_map(params![tenant, run.as_bytes(), rows_max], outbox_row)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// SQLite's integers have 63 bits for us.
fn clamp(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[async_trait]
impl Waiting for Sqlite {
    async fn held(
        &self,
        tenant: &Arc<str>,
        after: Option<HeldCursor>,
        rows_max: usize,
    ) -> Result<Page<HeldRow, HeldCursor>, Error> {
        let tenant = tenant.clone();
        self.readers.read(move |connection| held(connection, &tenant, after, rows_max)).await
    }

    async fn held_of(&self, tenant: &Arc<str>, run: Id<id::Run>, rows_max: usize) -> Result<Vec<HeldRow>, Error> {
        let tenant = tenant.clone();
        self.readers.read(move |connection| held_of(connection, &tenant, run, rows_max)).await
    }

    async fn held_call(&self, tenant: &Arc<str>, call: Id<id::Call>) -> Result<Option<HeldRow>, Error> {
        let tenant = tenant.clone();
        self.readers
            .read(move |connection| {
                let mut found = connection.prepare_cached(&format!("{HELD} WHERE tenant = ?1 AND call = ?2"))?;
                Ok(found.query_row(params![&*tenant, call.as_bytes()], held_row).optional()?)
            })
            .await
    }

    async fn taken(&self, tenant: &Arc<str>, asked: &Idempotency) -> Result<Option<Existing>, Error> {
        let (tenant, asked, now_ms) = (tenant.clone(), asked.clone(), self.clock.wall_ms());
        self.readers
            .read(move |connection| match taken(connection, &tenant, &asked, now_ms)? {
                None => Ok(None),
                Some((body, existing)) if body == asked.body => Ok(Some(existing)),
                Some((_, existing)) => Err(Error::IdempotencyConflict { run: existing.run }),
            })
            .await
    }

    async fn outbox(&self, until_ms: u64, rows_max: usize) -> Result<Vec<OutboxRow>, Error> {
        self.readers
            .read(move |connection| {
                let sql = format!("{OUTBOX} INDEXED BY outbox_by_time WHERE next_ms <= ?1 ORDER BY next_ms LIMIT ?2");
                let mut due = connection.prepare_cached(&sql)?;
                let rows = due.query_map(params![clamp(until_ms), rows_max], outbox_row)?;
                Ok(rows.collect::<Result<_, _>>()?)
            })
            .await
    }

    async fn outbox_put(&self, read: &OutboxRow, rows: Vec<OutboxRow>) -> Result<bool, Error> {
        let (reply, answer) = oneshot::channel();
        self.ask(Job::OutboxPut { read: Box::new(read.clone()), rows, reply }, answer).await
    }

    async fn outbox_of(&self, tenant: &Arc<str>, run: Id<id::Run>, rows_max: usize) -> Result<Vec<OutboxRow>, Error> {
        let tenant = tenant.clone();
        self.readers.read(move |connection| outbox_of(connection, &tenant, run, rows_max)).await
    }
}
