//! Claims that processes share. Three facts make them safe without anybody's clock but the database's:
//!
//! - A worker is alive as long as its row is there. Its row is deleted only when its lease is over, by one statement that
//!   waits for a beat in flight; its number is never given again. So a worker that was found dead stays dead.
//! - A session's holder changes only by a statement that names the holder it saw: two claims can't both win.
//! - A claim raises the session's epoch in the row that every append checks: from then on the former driver writes nothing.

use crate::claims::{Claims, Ready, Release, WorkerSpec};
use crate::postgres::Postgres;
use crate::postgres::fault::Fault;
use crate::postgres::pool::Sql;
use crate::postgres::read::{self, milliseconds};
use crate::postgres::statement::now_ms;
use crate::{Error, SessionKey};
use async_trait::async_trait;
use domain::Digest;
use std::sync::Arc;
use tokio_postgres::types::Type;

/// How often a claim is tried when others claim the same session.
const ATTEMPTS_MAX: u32 = 8;
/// A session that is to wait longer waits for this long: some ten thousand years.
const WAIT_MS_MAX: u64 = 1 << 48;

const JOIN: Sql = Sql {
    text: concat!(
        "INSERT INTO public.workers (name, lease_ms, joined_ms, until_ms)
         SELECT $1, $2, now.ms, now.ms + $2 FROM (SELECT ",
        now_ms!(),
        " AS ms) AS now RETURNING id"
    ),
    types: &[Type::TEXT, Type::INT8],
};

/// A worker whose lease is over but whose row is still there has lost nothing yet.
const BEAT: Sql = Sql {
    text: concat!("UPDATE public.workers SET until_ms = ", now_ms!(), " + $2 WHERE id = $1 RETURNING id"),
    types: &[Type::INT8, Type::INT8],
};

const LEAVE: Sql = Sql { text: "DELETE FROM public.workers WHERE id = $1", types: &[Type::INT8] };

/// Waits for a beat in flight and then looks again: what it deletes was not beaten in time.
const BURY: Sql =
    Sql { text: concat!("DELETE FROM public.workers WHERE until_ms <= ", now_ms!(), " RETURNING id"), types: &[] };

/// $3: the new holder, $4: the holder that was seen, or NULL. What is claimed is ready until it is released, so that it is
/// found again when its driver dies.
const CLAIM: Sql = Sql {
    text: concat!(
        "WITH head AS (
             INSERT INTO public.heads AS h (tenant, session, position, hash, epoch, holder)
             SELECT $1, $2, 0, $5, 1, w.id FROM public.workers AS w WHERE w.id = $3
             ON CONFLICT (tenant, session) DO UPDATE SET epoch = h.epoch + 1, holder = $3
             WHERE h.holder IS NULL OR h.holder = $3 OR h.holder = $4
             RETURNING epoch),
         ready AS (
             INSERT INTO public.ready AS r (tenant, session, at_ms, position)
             SELECT $1, $2, ",
        now_ms!(),
        ", 0 FROM head
             ON CONFLICT (tenant, session) DO UPDATE SET at_ms = least(r.at_ms, excluded.at_ms)
             WHERE r.at_ms > excluded.at_ms)
         SELECT epoch FROM head"
    ),
    types: &[Type::TEXT, Type::TEXT, Type::INT8, Type::INT8, Type::BYTEA],
};

/// Whose the session is. The row of a holder was there before it held anything: when it is not, the holder is dead.
const HOLDER: Sql = Sql {
    text: "SELECT h.holder, w.name, w.until_ms, EXISTS (SELECT 1 FROM public.workers AS me WHERE me.id = $3)
           FROM (SELECT 1) AS one
           LEFT JOIN public.heads AS h ON h.tenant = $1 AND h.session = $2
           LEFT JOIN public.workers AS w ON w.id = h.holder",
    types: &[Type::TEXT, Type::TEXT, Type::INT8],
};

/// $5: as far as the driver has folded, $6: in how long there is something to do again. Whoever appended meanwhile has moved
/// `position` on, and the row is left as it is.
const RELEASE: Sql = Sql {
    text: concat!(
        "WITH head AS (
               UPDATE public.heads SET holder = NULL
               WHERE tenant = $1 AND session = $2 AND holder = $3 AND epoch = $4 RETURNING 1),
           next AS (
               SELECT least(",
        now_ms!(),
        " + $6, (SELECT min(at_ms) FROM public.due WHERE tenant = $1 AND session = $2)) AS at_ms
               FROM head),
           moved AS (
               INSERT INTO public.ready AS r (tenant, session, at_ms, position)
               SELECT $1, $2, next.at_ms, $5 FROM next WHERE next.at_ms IS NOT NULL
               ON CONFLICT (tenant, session) DO UPDATE SET at_ms = excluded.at_ms, position = excluded.position
               WHERE r.position <= excluded.position),
           gone AS (
               DELETE FROM public.ready AS r USING next
               WHERE r.tenant = $1 AND r.session = $2 AND next.at_ms IS NULL AND r.position <= $5)
           SELECT count(*) FROM head"
    ),
    types: &[Type::TEXT, Type::TEXT, Type::INT8, Type::INT8, Type::INT8, Type::INT8],
};

/// Tenants are found by skipping through the index, so the cost goes by tenants and wanted rows, not by what is ready.
const CLAIMABLE: Sql = Sql {
    text: concat!(
        "WITH RECURSIVE tenants AS (
             (SELECT tenant FROM public.ready ORDER BY tenant LIMIT 1)
             UNION ALL
             SELECT (SELECT r.tenant FROM public.ready AS r WHERE r.tenant > t.tenant ORDER BY r.tenant LIMIT 1)
             FROM tenants AS t WHERE t.tenant IS NOT NULL),
         now AS MATERIALIZED (SELECT ",
        now_ms!(),
        " AS ms)
         SELECT page.tenant, page.session, page.at_ms
         FROM now, tenants AS t CROSS JOIN LATERAL (
             SELECT r.tenant, r.session, r.at_ms, row_number() OVER (ORDER BY r.at_ms, r.session) AS turn
             FROM public.ready AS r
             JOIN public.heads AS h ON h.tenant = r.tenant AND h.session = r.session
             WHERE r.tenant = t.tenant AND r.at_ms <= now.ms AND NOT h.quarantined
                 AND NOT EXISTS (SELECT 1 FROM public.workers AS w WHERE w.id = h.holder)
             ORDER BY r.at_ms, r.session LIMIT $1) AS page
         WHERE t.tenant IS NOT NULL AND t.tenant <> ALL ($2)
         ORDER BY page.turn, page.at_ms, page.tenant LIMIT $1"
    ),
    types: &[Type::INT8, Type::TEXT_ARRAY],
};

#[async_trait]
impl Claims for Postgres {
    async fn join(&self, spec: &WorkerSpec) -> Result<u64, Error> {
        let rows = self.pool.once(JOIN, &[&spec.name, &milliseconds(spec.lease_ms)]).await?;
        let row = rows.first().ok_or_else(|| Error::io("the worker got no number"))?;
        read::number(row, 0)
    }

    async fn beat(&self, worker: u64, lease_ms: u64) -> Result<(), Error> {
        let rows = self.pool.ask(BEAT, &[&milliseconds(worker), &milliseconds(lease_ms)]).await?;
        if rows.is_empty() { Err(Error::WorkerLost) } else { Ok(()) }
    }

    async fn leave(&self, worker: u64) -> Result<(), Error> {
        self.pool.ask(LEAVE, &[&milliseconds(worker)]).await?;
        Ok(())
    }

    async fn claim(&self, worker: u64, key: &SessionKey) -> Result<u64, Error> {
        let (tenant, session, worker) = (&*key.tenant, key.session.to_string(), milliseconds(worker));
        let zero: &[u8] = &Digest::ZERO.0;
        let mut seen: Option<i64> = None;
        for _ in 0..ATTEMPTS_MAX {
            // Asked again when the answer is lost: an epoch that nobody uses harms nobody.
            let rows = self.pool.ask(CLAIM, &[&tenant, &session, &worker, &seen, &zero]).await?;
            if let Some(row) = rows.first() {
                let epoch = read::number(row, 0)?;
                self.appender.forget(key);
                return Ok(epoch);
            }
            let rows = self.pool.ask(HOLDER, &[&tenant, &session, &worker]).await?;
            let row = rows.first().ok_or_else(|| Error::io("the session's holder was not told"))?;
            if !read::get::<bool>(row, 3)? {
                return Err(Error::WorkerLost);
            }
            let until_ms: Option<i64> = read::get(row, 2)?;
            let Some(until_ms) = until_ms else {
                seen = read::get(row, 0)?;
                continue;
            };
            if self.bury().await? == 0 {
                let by: &str = read::get(row, 1)?;
                return Err(Error::Held { by: by.into(), until_ms: until_ms.unsigned_abs() });
            }
        }
        Err(Error::io("too many others claim the session"))
    }

    async fn release(&self, worker: u64, key: &SessionKey, release: Release) -> Result<(), Error> {
        let (session, worker, epoch) = (key.session.to_string(), milliseconds(worker), milliseconds(release.epoch));
        // The time was told by this process's clock; the database's goes on from now.
        let now_ms = self.clock.wall_ms();
        let wait = release.next_ms.map(|next_ms| milliseconds(next_ms.saturating_sub(now_ms).min(WAIT_MS_MAX)));
        let folded = milliseconds(release.folded);
        self.pool.ask(RELEASE, &[&&*key.tenant, &session, &worker, &epoch, &folded, &wait]).await?;
        Ok(())
    }

    async fn claimable(&self, rows_max: usize, busy: &[Arc<str>]) -> Result<Vec<Ready>, Error> {
        self.bury().await?;
        let busy: Vec<&str> = busy.iter().map(|tenant| &**tenant).collect();
        let rows = self.pool.ask(CLAIMABLE, &[&read::count(rows_max), &busy]).await?;
        let ready = |row: &tokio_postgres::Row| {
            let key = SessionKey::new(read::tenant(row, 0)?, read::id(row, 1)?);
            Ok(Ready { key, at_ms: read::number(row, 2)? })
        };
        rows.iter().map(ready).collect()
    }
}

impl Postgres {
    /// Deletes workers whose lease is over; gives their number.
    async fn bury(&self) -> Result<usize, Error> {
        match self.pool.once(BURY, &[]).await {
            Ok(rows) => Ok(rows.len()),
            Err(Fault::Again(_)) => Ok(0),
            Err(fault) => Err(fault.into()),
        }
    }
}
