//! Whole sessions and their contents: erased, deleted, put aside, looked for; and the index made anew. What needs several
//! statements is one transaction that begins by locking the session's head, so that no append comes in between.

use crate::contents::{Stored, object_key};
use crate::index::{self, Change};
use crate::postgres::Postgres;
use crate::postgres::fault::Fault;
use crate::postgres::index::Folded;
use crate::postgres::pool::{Lent, Pool, Sql};
use crate::postgres::read::{self, count, milliseconds};
use crate::postgres::statement::{self, now_ms};
use crate::query::{self, PAGE_BYTES_MAX, PAGE_ROWS_MAX, Page, SCAN_ROWS_MAX};
use crate::upkeep::{Quarantine, Tombstone, TombstoneCursor, Upkeep, content_objects};
use crate::{Error, SessionKey};
use async_trait::async_trait;
use domain::{Id, id};
use std::sync::Arc;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

const LOCK_HEAD: Sql = Sql {
    text: "SELECT position, hash, epoch, quarantined FROM public.heads WHERE tenant = $1 AND session = $2 FOR UPDATE",
    types: OF_SESSION,
};
const OF_SESSION: &[Type] = &[Type::TEXT, Type::TEXT];

/// The object is remembered until it is deleted: the answer may get lost, and the row is gone then.
const ERASE_ITEM: Sql = Sql {
    text: "WITH gone AS (
               DELETE FROM public.contents WHERE tenant = $1 AND session = $2 AND id = $3
               RETURNING form, item_key, body),
           garbage AS (
               INSERT INTO public.garbage (object) SELECT $4 FROM gone WHERE form IN (1, 3) ON CONFLICT DO NOTHING)
           SELECT form, item_key, body FROM gone",
    types: &[Type::TEXT, Type::TEXT, Type::TEXT, Type::TEXT],
};

pub(crate) async fn erase_item(pool: &Pool, key: &SessionKey, item: Id<id::Content>) -> Result<Option<Stored>, Error> {
    let (session, id, object) = (key.session.to_string(), item.to_string(), object_key(key, item));
    let rows = pool.ask(ERASE_ITEM, &[&&*key.tenant, &session, &id, &object]).await?;
    rows.first().map(read::stored).transpose()
}

const LARGE: Sql = Sql {
    text: "SELECT id FROM public.contents WHERE tenant = $1 AND session = $2 AND form IN (1, 3)",
    types: OF_SESSION,
};
const ERASE: [Sql; 3] = [
    Sql { text: "DELETE FROM public.contents WHERE tenant = $1 AND session = $2", types: OF_SESSION },
    Sql { text: "DELETE FROM public.data_keys WHERE tenant = $1 AND session = $2", types: OF_SESSION },
    Sql {
        text: "UPDATE public.heads SET erasures = erasures + 1 WHERE tenant = $1 AND session = $2",
        types: OF_SESSION,
    },
];
const DISCARD: Sql = Sql {
    text: "INSERT INTO public.garbage (object) SELECT unnest($1) ON CONFLICT DO NOTHING",
    types: &[Type::TEXT_ARRAY],
};

impl Postgres {
    pub(crate) async fn erase(&self, key: &SessionKey) -> Result<Vec<Id<id::Content>>, Error> {
        let session = key.session.to_string();
        let mut lent = self.pool.take().await?;
        lent.begin().await?;
        lent.query(LOCK_HEAD, &[&&*key.tenant, &session]).await?;
        let items = large(&mut lent, key).await?;
        lent.query(DISCARD, &[&content_objects(key, items.iter().copied())]).await?;
        for sql in ERASE {
            lent.query(sql, &[&&*key.tenant, &session]).await?;
        }
        lent.commit().await?;
        self.appender.destroy_key(key);
        Ok(items)
    }

    /// Makes the index and the timers anew. Holds back every append meanwhile.
    pub(crate) async fn rebuild(&self) -> Result<u64, Error> {
        let mut lent = self.pool.take().await?;
        lent.begin().await?;
        lent.batch("LOCK TABLE public.heads IN SHARE MODE").await?;
        lent.batch(
            "DELETE FROM public.session_index; DELETE FROM public.run_index; DELETE FROM public.artifact_index;
             DELETE FROM public.checkpoint_index; DELETE FROM public.due; DELETE FROM public.held_index",
        )
        .await?;
        let mut read = 0;
        let (mut tenant, mut session) = (String::new(), String::new());
        loop {
            let rows = lent.query(LOGS, &[&tenant, &session, &count(PAGE_ROWS_MAX)]).await?;
            for row in &rows {
                tenant = read::get(row, 0)?;
                session = read::get(row, 1)?;
                read += rebuild_session(&mut lent, &tenant, &session).await?;
            }
            if rows.len() < PAGE_ROWS_MAX {
                break;
            }
        }
        lent.query(WAKE_UNFINISHED, &[]).await?;
        lent.commit().await?;
        Ok(read)
    }
}

const LOGS: Sql = Sql {
    text: "SELECT tenant, session FROM public.heads WHERE (tenant, session) > ($1, $2)
           ORDER BY tenant, session LIMIT $3",
    types: &[Type::TEXT, Type::TEXT, Type::INT8],
};

/// Whoever drives a session finds out whether there is something to do.
const WAKE_UNFINISHED: Sql = Sql {
    text: concat!(
        "INSERT INTO public.ready (tenant, session, at_ms, position)
         SELECT DISTINCT tenant, session, ",
        now_ms!(),
        ", 0 FROM public.run_index WHERE finished_ms IS NULL ON CONFLICT DO NOTHING"
    ),
    types: &[],
};

async fn rebuild_session(lent: &mut Lent<'_>, tenant: &str, session: &str) -> Result<u64, Error> {
    let mut from = 0i64;
    loop {
        let (rows_max, bytes_max) = (count(PAGE_ROWS_MAX), count(PAGE_BYTES_MAX));
        let rows = lent.query(read::RECORDS, &[&tenant, &session, &from, &rows_max, &bytes_max]).await?;
        let mut folded = Folded::default();
        for row in &rows {
            let stored = read::stored_record(row, 0)?;
            let record = stored.decode()?;
            for change in index::of(record.head.at_ms, record.head.principal, &record.event) {
                // What was told is not told again.
                if matches!(change, Change::Announced { .. } | Change::Told { .. }) {
                    continue;
                }
                folded.take(stored.position, &change)?;
            }
            from = milliseconds(stored.position + 1);
        }
        if let Some(json) = folded.json() {
            lent.query(statement::index(folded.parts()), &[&tenant, &session, &json]).await?;
        }
        if rows.is_empty() {
            return Ok(from.unsigned_abs());
        }
    }
}

async fn large(lent: &mut Lent<'_>, key: &SessionKey) -> Result<Vec<Id<id::Content>>, Error> {
    let rows = lent.query(LARGE, &[&&*key.tenant, &key.session.to_string()]).await?;
    rows.iter().map(|row| read::id(row, 0)).collect()
}

const UNENDED: Sql = Sql {
    text: "SELECT 1 FROM public.run_index WHERE tenant = $1 AND session = $2 AND finished_ms IS NULL LIMIT 1",
    types: OF_SESSION,
};

/// Objects of files and workspaces that nobody else goes on from.
const DISCARD_KEPT: Sql = Sql {
    text: "INSERT INTO public.garbage (object)
           SELECT object FROM public.artifact_index WHERE tenant = $1 AND session = $2
           UNION SELECT object FROM public.checkpoint_index AS own WHERE tenant = $1 AND session = $2 AND NOT EXISTS (
               SELECT 1 FROM public.checkpoint_index AS other
               WHERE other.tenant = $1 AND other.object = own.object AND other.session <> $2)
           ON CONFLICT DO NOTHING",
    types: OF_SESSION,
};

const DELETE: [Sql; 12] = [
    Sql {
        // The key that a run was asked for with is in its record, and no index leads to its row otherwise.
        text: "DELETE FROM public.idempotency WHERE tenant = $1 AND key IN (
                   SELECT decode(record -> 'body' ->> 'idempotency', 'hex') FROM public.audit_log
                   WHERE tenant = $1 AND session = $2 AND kind = 'submitted')",
        types: OF_SESSION,
    },
    Sql { text: "DELETE FROM public.records WHERE tenant = $1 AND session = $2", types: OF_SESSION },
    Sql { text: "DELETE FROM public.contents WHERE tenant = $1 AND session = $2", types: OF_SESSION },
    Sql { text: "DELETE FROM public.data_keys WHERE tenant = $1 AND session = $2", types: OF_SESSION },
    Sql { text: "DELETE FROM public.session_index WHERE tenant = $1 AND session = $2", types: OF_SESSION },
    Sql { text: "DELETE FROM public.run_index WHERE tenant = $1 AND session = $2", types: OF_SESSION },
    Sql { text: "DELETE FROM public.artifact_index WHERE tenant = $1 AND session = $2", types: OF_SESSION },
    Sql { text: "DELETE FROM public.checkpoint_index WHERE tenant = $1 AND session = $2", types: OF_SESSION },
    Sql { text: "DELETE FROM public.held_index WHERE tenant = $1 AND session = $2", types: OF_SESSION },
    Sql {
        text: "WITH announced AS (DELETE FROM public.announced WHERE tenant = $1 AND session = $2)
               DELETE FROM public.outbox WHERE tenant = $1 AND session = $2",
        types: OF_SESSION,
    },
    Sql {
        text: "WITH timers AS (DELETE FROM public.due WHERE tenant = $1 AND session = $2)
               DELETE FROM public.ready WHERE tenant = $1 AND session = $2",
        types: OF_SESSION,
    },
    Sql { text: "DELETE FROM public.quarantine WHERE tenant = $1 AND session = $2", types: OF_SESSION },
];

/// What is left: the epoch, which fences every driver before, and a tombstone.
const BURY: Sql = Sql {
    text: "WITH head AS (
               UPDATE public.heads SET position = 0, hash = $3, epoch = epoch + 1, holder = NULL, quarantined = false,
                   erasures = erasures + 1
               WHERE tenant = $1 AND session = $2 RETURNING epoch)
           INSERT INTO public.tombstones (tenant, session, epoch, purged_ms, principal, records, head_hash)
           SELECT $1, $2, epoch, $4, $5, $6, $7 FROM head RETURNING epoch",
    types: &[Type::TEXT, Type::TEXT, Type::BYTEA, Type::INT8, Type::TEXT, Type::INT8, Type::BYTEA],
};

const TOMBSTONES: Sql = Sql {
    text: "SELECT session, epoch, purged_ms, principal, records, head_hash FROM public.tombstones
           WHERE tenant = $1 AND (session, epoch) > ($2, $3) ORDER BY session, epoch LIMIT $4",
    types: &[Type::TEXT, Type::TEXT, Type::INT8, Type::INT8],
};

/// Looks at a bounded number of sessions, so that a page of a journal with few old ones ends as well.
const EXPIRED: Sql = Sql {
    text: "SELECT tenant, session,
               NOT EXISTS (SELECT 1 FROM public.run_index AS r WHERE r.tenant = s.tenant AND r.session = s.session
                   AND (r.finished_ms IS NULL OR r.finished_ms >= $1))
               AND s.updated_ms < $1
               AND NOT EXISTS (SELECT 1 FROM public.quarantine AS q WHERE q.tenant = s.tenant AND q.session = s.session)
               AND s.updated_ms < $1
           FROM public.session_index AS s WHERE (tenant, session) > ($2, $3) ORDER BY tenant, session LIMIT $4",
    types: &[Type::INT8, Type::TEXT, Type::TEXT, Type::INT8],
};

const GARBAGE: Sql = Sql { text: "SELECT object FROM public.garbage LIMIT $1", types: &[Type::INT8] };
const SWEPT: Sql = Sql { text: "DELETE FROM public.garbage WHERE object = ANY ($1)", types: &[Type::TEXT_ARRAY] };

/// The head is marked in the same statement, so that it refuses appends from then on; a log that is empty gets one.
const QUARANTINE: Sql = Sql {
    text: "WITH head AS (
               INSERT INTO public.heads (tenant, session, position, hash, epoch, quarantined)
               VALUES ($1, $2, 0, $6, 0, true)
               ON CONFLICT (tenant, session) DO UPDATE SET quarantined = true RETURNING 1)
           INSERT INTO public.quarantine (tenant, session, since_ms, principal, reason)
           SELECT $1, $2, $3, $4, $5 FROM head ON CONFLICT DO NOTHING",
    types: &[Type::TEXT, Type::TEXT, Type::INT8, Type::TEXT, Type::TEXT, Type::BYTEA],
};

/// What was ready when it was put aside is ready again.
const RELEASE_QUARANTINE: Sql = Sql {
    text: "WITH head AS (
               UPDATE public.heads SET quarantined = false WHERE tenant = $1 AND session = $2 AND quarantined RETURNING 1)
           DELETE FROM public.quarantine USING head WHERE tenant = $1 AND session = $2 RETURNING 1",
    types: OF_SESSION,
};

const QUARANTINED: Sql = Sql {
    text: "SELECT tenant, session, since_ms, principal, reason FROM public.quarantine
           WHERE tenant = $1 AND session = $2",
    types: OF_SESSION,
};

const QUARANTINES: Sql = Sql {
    text: "SELECT tenant, session, since_ms, principal, reason FROM public.quarantine
           WHERE (tenant, session) > ($1, $2) ORDER BY tenant, session LIMIT $3",
    types: &[Type::TEXT, Type::TEXT, Type::INT8],
};

fn quarantine_row(row: &Row) -> Result<Quarantine, Error> {
    let key = session_key(row)?;
    Ok(Quarantine { key, since_ms: read::number(row, 2)?, principal: read::id(row, 3)?, reason: read::get(row, 4)? })
}

fn session_key(row: &Row) -> Result<SessionKey, Error> {
    Ok(SessionKey::new(read::tenant(row, 0)?, read::id(row, 1)?))
}

/// The session's quarantine, if it is in one.
pub(crate) async fn quarantined(pool: &Pool, key: &SessionKey) -> Result<Option<Quarantine>, Error> {
    let rows = pool.ask(QUARANTINED, &[&&*key.tenant, &key.session.to_string()]).await?;
    rows.first().map(quarantine_row).transpose()
}

/// A key as the lower end of a range.
fn bound(after: Option<&SessionKey>) -> (&str, String) {
    after.map_or(("", String::new()), |key| (&*key.tenant, key.session.to_string()))
}

#[async_trait]
impl Upkeep for Postgres {
    async fn purge(
        &self,
        key: &SessionKey,
        at_ms: u64,
        principal: Id<id::Principal>,
    ) -> Result<Option<Tombstone>, Error> {
        let (tenant, session, by) = (&*key.tenant, key.session.to_string(), principal.to_string());
        let mut lent = self.pool.take().await?;
        lent.begin().await?;
        let rows = lent.query(LOCK_HEAD, &[&tenant, &session]).await?;
        let Some(row) = rows.first() else {
            return Ok(None);
        };
        let (records, head_hash) = (read::number(row, 0)?, read::digest(row, 1)?);
        if !read::get::<bool>(row, 3)? && !lent.query(UNENDED, &[&tenant, &session]).await?.is_empty() {
            return Err(Error::Unended);
        }
        if records == 0 {
            return Ok(None);
        }
        let objects = content_objects(key, large(&mut lent, key).await?);
        lent.query(DISCARD, &[&objects]).await?;
        lent.query(DISCARD_KEPT, &[&tenant, &session]).await?;
        for sql in DELETE {
            lent.query(sql, &[&tenant, &session]).await?;
        }
        let (zero, hash): (&[u8], &[u8]) = (&domain::Digest::ZERO.0, &head_hash.0);
        let (at, length) = (milliseconds(at_ms), milliseconds(records));
        let rows = lent.query(BURY, &[&tenant, &session, &zero, &at, &by, &length, &hash]).await?;
        let row = rows.first().ok_or_else(|| Error::corrupt("a head that was locked is gone"))?;
        let epoch = read::number(row, 0)?;
        lent.commit().await?;
        self.appender.destroy_key(key);
        Ok(Some(Tombstone { key: key.clone(), epoch, purged_ms: at_ms, principal, records, head_hash }))
    }

    async fn tombstones(
        &self,
        tenant: &Arc<str>,
        after: Option<TombstoneCursor>,
        rows_max: usize,
    ) -> Result<Page<Tombstone, TombstoneCursor>, Error> {
        let session = after.map_or(String::new(), |after| after.session.to_string());
        let epoch = after.map_or(0, |after| milliseconds(after.epoch));
        let limit = count(rows_max).saturating_add(1);
        let rows = self.pool.ask(TOMBSTONES, &[&&**tenant, &session, &epoch, &limit]).await?;
        let tombstone = |row: &Row| {
            Ok(Tombstone {
                key: SessionKey::new(tenant.clone(), read::id(row, 0)?),
                epoch: read::number(row, 1)?,
                purged_ms: read::number(row, 2)?,
                principal: read::id(row, 3)?,
                records: read::number(row, 4)?,
                head_hash: read::digest(row, 5)?,
            })
        };
        let rows = rows.iter().map(tombstone).collect::<Result<_, Error>>()?;
        Ok(query::page(rows, rows_max, Tombstone::cursor))
    }

    async fn expired(
        &self,
        ended_before_ms: u64,
        after: Option<&SessionKey>,
        rows_max: usize,
    ) -> Result<Page<SessionKey, SessionKey>, Error> {
        let (tenant, session) = bound(after);
        let (before, scan) = (milliseconds(ended_before_ms), count(SCAN_ROWS_MAX));
        let rows = self.pool.ask(EXPIRED, &[&before, &tenant, &session, &scan]).await?;
        let mut page = Page { rows: Vec::new(), next: None };
        let mut last = None;
        for row in &rows {
            if page.rows.len() == rows_max {
                page.next = last;
                return Ok(page);
            }
            let key = session_key(row)?;
            last = Some(key.clone());
            if read::get(row, 2)? {
                page.rows.push(key);
            }
        }
        page.next = last.filter(|_| rows.len() == SCAN_ROWS_MAX);
        Ok(page)
    }

    async fn garbage(&self, rows_max: usize) -> Result<Vec<String>, Error> {
        let rows = self.pool.ask(GARBAGE, &[&count(rows_max)]).await?;
        rows.iter().map(|row| read::get(row, 0)).collect()
    }

    async fn swept(&self, objects: Vec<String>) -> Result<(), Error> {
        self.pool.ask(SWEPT, &[&objects]).await?;
        Ok(())
    }

    async fn quarantine(&self, quarantine: Quarantine) -> Result<(), Error> {
        let Quarantine { key, since_ms, principal, reason } = &quarantine;
        let (session, by, since) = (key.session.to_string(), principal.to_string(), milliseconds(*since_ms));
        let zero: &[u8] = &domain::Digest::ZERO.0;
        // PostgreSQL takes every character but this one.
        let reason = reason.replace('\0', " ");
        self.pool.ask(QUARANTINE, &[&&*key.tenant, &session, &since, &by, &reason, &zero]).await?;
        self.appender.forget(key);
        Ok(())
    }

    async fn release_quarantine(&self, key: &SessionKey) -> Result<bool, Error> {
        let released = self.pool.ask(RELEASE_QUARANTINE, &[&&*key.tenant, &key.session.to_string()]).await?;
        self.appender.forget(key);
        Ok(!released.is_empty())
    }

    async fn quarantined(&self, key: &SessionKey) -> Result<Option<Quarantine>, Error> {
        quarantined(&self.pool, key).await
    }

    async fn quarantines(
        &self,
        after: Option<&SessionKey>,
        rows_max: usize,
    ) -> Result<Page<Quarantine, SessionKey>, Error> {
        let (tenant, session) = bound(after);
        let rows = self.pool.ask(QUARANTINES, &[&tenant, &session, &count(rows_max).saturating_add(1)]).await?;
        let rows = rows.iter().map(quarantine_row).collect::<Result<_, _>>()?;
        Ok(query::page(rows, rows_max, |row: &Quarantine| row.key.clone()))
    }

    fn damaged(&self, key: &SessionKey, error: &Error) {
        tracing::error!(tenant = %key.tenant, session = %key.session, %error, "a record is not what was written");
        self.pool.note(Fault::Refused(error.clone()));
    }
}
