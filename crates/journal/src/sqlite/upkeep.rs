//! Whole sessions in SQL: deleted, put aside, looked for.

use super::Sqlite;
use super::apply::Outcome;
use super::transaction::Failed;
use super::writer::{Job, Writer};
use crate::query::{self, Head, Page, SCAN_ROWS_MAX};
use crate::sqlite::read;
use crate::upkeep::{Quarantine, Tombstone, TombstoneCursor, Upkeep, content_objects};
use crate::{Error, SessionKey};
use async_trait::async_trait;
use domain::{Digest, Id, id};
use rusqlite::{Connection, OptionalExtension, Row, params};
use std::collections::HashSet;
use std::sync::Arc;
use tokio::sync::oneshot;

impl Writer {
    pub(crate) fn purge(
        &mut self,
        key: &SessionKey,
        at_ms: u64,
        principal: Id<id::Principal>,
    ) -> Result<Option<Tombstone>, Error> {
        let purged = self.transaction(|writer| {
            let free = writer.shared.is_quarantined(key);
            purge(&writer.connection, key, at_ms, principal, free)
        });
        let purged = purged.map_err(Failed::into_error)??;
        if let Some(Tombstone { epoch, .. }) = purged {
            self.heads.put(key, Head { epoch, ..Head::EMPTY });
            // Before the next entry is looked at: it may hold contents sealed under this key.
            self.data_keys.destroy(key);
            self.shared.set_released(key);
            self.checkpoint();
        }
        Ok(purged)
    }

    pub(crate) fn swept(&mut self, objects: &[String]) -> Result<(), Error> {
        let swept = self.transaction(|writer| {
            let mut delete = writer.connection.prepare_cached("DELETE FROM garbage WHERE object = ?1")?;
            for object in objects {
                delete.execute([object])?;
            }
            Ok(())
        });
        swept.map_err(Failed::into_error)
    }

    pub(crate) fn quarantine(&mut self, quarantine: &Quarantine) -> Result<(), Error> {
        let put = self.transaction(|writer| insert_quarantine(&writer.connection, quarantine));
        put.map_err(Failed::into_error)?;
        self.shared.set_quarantined(&quarantine.key);
        Ok(())
    }

    pub(crate) fn release(&mut self, key: &SessionKey) -> Result<bool, Error> {
        let released = self.transaction(|writer| {
            let sql = "DELETE FROM quarantine WHERE tenant = ?1 AND session = ?2";
            Ok(writer.connection.execute(sql, params![&*key.tenant, key.session.as_bytes()])? > 0)
        });
        let released = released.map_err(Failed::into_error)?;
        self.shared.set_released(key);
        Ok(released)
    }
}

pub(crate) fn insert_quarantine(connection: &Connection, quarantine: &Quarantine) -> Result<(), Error> {
    let Quarantine { key, since_ms, principal, reason } = quarantine;
    let sql = "INSERT INTO quarantine(tenant, session, since_ms, principal, reason) VALUES (?1, ?2, ?3, ?4, ?5)
               ON CONFLICT DO NOTHING";
    connection.execute(sql, params![&*key.tenant, key.session.as_bytes(), since_ms, principal.as_bytes(), reason])?;
    Ok(())
}

/// What is said to an entry of a session in quarantine.
pub(crate) fn refused(connection: &Connection, key: &SessionKey) -> Result<Outcome, Error> {
    let reason = quarantined(connection, key)?.map_or_else(String::new, |found| found.reason);
    Ok(Outcome::Refused(Error::Quarantined { reason: reason.into() }))
}

/// Every session in quarantine: there are few.
pub(crate) fn all_quarantined(connection: &Connection) -> Result<HashSet<SessionKey>, Error> {
    let mut all = connection.prepare("SELECT tenant, session FROM quarantine")?;
    let rows = all.query_map([], read::session_key)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Whether a run of the session has not ended.
pub(crate) fn has_open_run(connection: &Connection, key: &SessionKey) -> Result<bool, Error> {
    let open = "SELECT EXISTS(SELECT 1 FROM run_index INDEXED BY runs_open
                WHERE tenant = ?1 AND session = ?2 AND finished_ms IS NULL)";
    Ok(connection.query_row(open, params![&*key.tenant, key.session.as_bytes()], |row| row.get(0))?)
}

/// The inner error is a refusal: nothing was written for it.
fn purge(
    connection: &Connection,
    key: &SessionKey,
    at_ms: u64,
    principal: Id<id::Principal>,
    quarantined: bool,
) -> Result<Result<Option<Tombstone>, Error>, Error> {
    let of_session = params![&*key.tenant, key.session.as_bytes()];
    if !quarantined && has_open_run(connection, key)? {
        return Ok(Err(Error::Unended));
    }
    let Head { position: records, hash: head_hash, epoch } = read::head(connection, key)?;
    if records == 0 {
        return Ok(Ok(None));
    }
    let epoch = epoch + 1;
    for object in objects_of(connection, key)? {
        connection.prepare_cached("INSERT OR IGNORE INTO garbage(object) VALUES (?1)")?.execute([object])?;
    }
    // The key that a run was asked for with is in its record, and there is no other way to its row.
    connection.execute(
        "DELETE FROM idempotency WHERE tenant = ?1 AND key IN (
             SELECT unhex(CAST(bytes AS TEXT) ->> '$.body.idempotency') FROM records
             WHERE tenant = ?1 AND session = ?2 AND CAST(bytes AS TEXT) ->> '$.kind' = 'submitted')",
        of_session,
    )?;
    for table in [
        "records",
        "contents",
        "data_keys",
        "session_index",
        "run_index INDEXED BY runs_by_session",
        "artifact_index",
        "checkpoint_index",
        "due",
        "held_index INDEXED BY held_by_session",
        "announced",
        "outbox",
        "quarantine",
    ] {
        let sql = format!("DELETE FROM {table} WHERE tenant = ?1 AND session = ?2");
        connection.execute(&sql, of_session)?;
    }
    let sql = "UPDATE heads SET position = 0, hash = zeroblob(32), epoch = ?3 WHERE tenant = ?1 AND session = ?2";
    connection.execute(sql, params![&*key.tenant, key.session.as_bytes(), epoch])?;
    let sql = "INSERT INTO tombstones(tenant, session, epoch, purged_ms, principal, records, head_hash)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    let (session, by) = (key.session.as_bytes(), principal.as_bytes());
    connection.execute(sql, params![&*key.tenant, session, epoch, at_ms, by, records, head_hash.0])?;
    Ok(Ok(Some(Tombstone { key: key.clone(), epoch, purged_ms: at_ms, principal, records, head_hash })))
}

/// The objects that nothing points to once the session is gone.
fn objects_of(connection: &Connection, key: &SessionKey) -> Result<Vec<String>, Error> {
    let of_session = params![&*key.tenant, key.session.as_bytes()];
    let mut large =
        connection.prepare("SELECT id FROM contents WHERE tenant = ?1 AND session = ?2 AND form IN (1, 3)")?;
    let items = large.query_map(of_session, |row| Ok(Id::from_bytes(row.get(0)?)))?;
    let mut objects = content_objects(key, items.collect::<Result<Vec<_>, _>>()?);
    let mut kept = connection.prepare(
        "SELECT object FROM artifact_index WHERE tenant = ?1 AND session = ?2
         UNION SELECT object FROM checkpoint_index AS own WHERE tenant = ?1 AND session = ?2 AND NOT EXISTS(
             SELECT 1 FROM checkpoint_index AS other
             WHERE other.tenant = ?1 AND other.object = own.object AND other.session <> ?2)",
    )?;
    for object in kept.query_map(of_session, |row| row.get(0))? {
        objects.push(object?);
    }
    Ok(objects)
}

const QUARANTINE: &str = "SELECT tenant, session, since_ms, principal, reason FROM quarantine";

fn quarantine_row(row: &Row<'_>) -> rusqlite::Result<Quarantine> {
    let principal = Id::from_bytes(row.get(3)?);
    Ok(Quarantine { key: read::session_key(row)?, since_ms: row.get(2)?, principal, reason: row.get(4)? })
}

fn quarantined(connection: &Connection, key: &SessionKey) -> Result<Option<Quarantine>, Error> {
    let mut found = connection.prepare_cached(&format!("{QUARANTINE} WHERE tenant = ?1 AND session = ?2"))?;
    Ok(found.query_row(params![&*key.tenant, key.session.as_bytes()], quarantine_row).optional()?)
}

/// A key as the lower end of a range.
fn bound(after: Option<&SessionKey>) -> (&str, &[u8]) {
    after.map_or(("", &[]), |key| (&*key.tenant, key.session.as_bytes()))
}

fn quarantines(
    connection: &Connection,
    after: Option<&SessionKey>,
    rows_max: usize,
) -> Result<Page<Quarantine, SessionKey>, Error> {
    let sql = format!("{QUARANTINE} WHERE (tenant, session) > (?1, ?2) ORDER BY tenant, session LIMIT ?3");
    let mut all = connection.prepare_cached(&sql)?;
    let (tenant, session) = bound(after);
    let rows = all.query_map(params![tenant, session, rows_max.saturating_add(1)], quarantine_row)?;
    Ok(query::page(rows.collect::<Result<_, _>>()?, rows_max, |row: &Quarantine| row.key.clone()))
}

fn tombstones(
    connection: &Connection,
    tenant: &Arc<str>,
    after: Option<TombstoneCursor>,
    rows_max: usize,
) -> Result<Page<Tombstone, TombstoneCursor>, Error> {
    let mut all = connection.prepare_cached(
        "SELECT session, epoch, purged_ms, principal, records, head_hash FROM tombstones
         WHERE tenant = ?1 AND (session, epoch) > (?2, ?3) ORDER BY session, epoch LIMIT ?4",
    )?;
    let (session, epoch) = after.as_ref().map_or((&[][..], 0), |after| (&after.session.as_bytes()[..], after.epoch));
    let rows = all.query_map(params![&**tenant, session, epoch, rows_max.saturating_add(1)], |row| {
        Ok(Tombstone {
            key: SessionKey::new(tenant.clone(), Id::from_bytes(row.get(0)?)),
            epoch: row.get(1)?,
            purged_ms: row.get(2)?,
            principal: Id::from_bytes(row.get(3)?),
            records: row.get(4)?,
            head_hash: Digest(row.get(5)?),
        })
    })?;
    Ok(query::page(rows.collect::<Result<_, _>>()?, rows_max, Tombstone::cursor))
}

fn expired(
    connection: &Connection,
    ended_before_ms: u64,
    after: Option<&SessionKey>,
    rows_max: usize,
) -> Result<Page<SessionKey, SessionKey>, Error> {
    // Looks at a bounded number of sessions, so that a page of a journal with few old ones ends as well.
    let mut looked_at = connection.prepare_cached(
        "SELECT tenant, session,
             NOT EXISTS(SELECT 1 FROM run_index AS r INDEXED BY runs_by_session WHERE r.tenant = s.tenant AND r.session = s.session
                 AND (r.finished_ms IS NULL OR r.finished_ms >= ?1))
             AND NOT EXISTS(SELECT 1 FROM quarantine AS q WHERE q.tenant = s.tenant AND q.session = s.session)
             AND s.updated_ms < ?1
         FROM session_index AS s WHERE (tenant, session) > (?2, ?3) ORDER BY tenant, session LIMIT ?4",
    )?;
    let (tenant, session) = bound(after);
    let ended_before_ms = i64::try_from(ended_before_ms).unwrap_or(i64::MAX);
    let mut rows = looked_at.query(params![ended_before_ms, tenant, session, SCAN_ROWS_MAX])?;
    let mut page = Page { rows: Vec::new(), next: None };
    let mut last = None;
    let mut count = 0;
    while let Some(row) = rows.next()? {
        if page.rows.len() == rows_max {
            page.next = last;
            return Ok(page);
        }
        let key = read::session_key(row)?;
        count += 1;
        last = Some(key.clone());
        if row.get(2)? {
            page.rows.push(key);
        }
    }
    page.next = last.filter(|_| count == SCAN_ROWS_MAX);
    Ok(page)
}

#[async_trait]
impl Upkeep for Sqlite {
    async fn purge(
        &self,
        key: &SessionKey,
        at_ms: u64,
        principal: Id<id::Principal>,
    ) -> Result<Option<Tombstone>, Error> {
        let (reply, answer) = oneshot::channel();
        self.ask(Job::Purge { key: key.clone(), at_ms, principal, reply }, answer).await
    }

    async fn tombstones(
        &self,
        tenant: &Arc<str>,
        after: Option<TombstoneCursor>,
        rows_max: usize,
    ) -> Result<Page<Tombstone, TombstoneCursor>, Error> {
        let tenant = tenant.clone();
        self.readers.read(move |connection| tombstones(connection, &tenant, after, rows_max)).await
    }

    async fn expired(
        &self,
        ended_before_ms: u64,
        after: Option<&SessionKey>,
        rows_max: usize,
    ) -> Result<Page<SessionKey, SessionKey>, Error> {
        let after = after.cloned();
        self.readers.read(move |connection| expired(connection, ended_before_ms, after.as_ref(), rows_max)).await
    }

    async fn garbage(&self, rows_max: usize) -> Result<Vec<String>, Error> {
        self.readers
            .read(move |connection| {
                let mut some = connection.prepare_cached("SELECT object FROM garbage LIMIT ?1")?;
                let rows = some.query_map([rows_max], |row| row.get(0))?;
                Ok(rows.collect::<Result<_, _>>()?)
            })
            .await
    }

    async fn swept(&self, objects: Vec<String>) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        self.ask(Job::Swept { objects, reply }, answer).await
    }

    async fn quarantine(&self, quarantine: Quarantine) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        self.ask(Job::Quarantine { quarantine: Box::new(quarantine), reply }, answer).await
    }

    async fn release_quarantine(&self, key: &SessionKey) -> Result<bool, Error> {
        let (reply, answer) = oneshot::channel();
        self.ask(Job::Release { key: key.clone(), reply }, answer).await
    }

    async fn quarantined(&self, key: &SessionKey) -> Result<Option<Quarantine>, Error> {
        let key = key.clone();
        self.readers.read(move |connection| quarantined(connection, &key)).await
    }

    async fn quarantines(
        &self,
        after: Option<&SessionKey>,
        rows_max: usize,
    ) -> Result<Page<Quarantine, SessionKey>, Error> {
        let after = after.cloned();
        self.readers.read(move |connection| quarantines(connection, after.as_ref(), rows_max)).await
    }

    fn damaged(&self, key: &SessionKey, error: &Error) {
        self.shared.note(Some(key), error);
    }
}
