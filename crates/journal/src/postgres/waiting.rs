//! What waits for somebody outside, in SQL.

use crate::append::{Existing, Idempotency};
use crate::postgres::Postgres;
use crate::postgres::pool::Sql;
use crate::postgres::read::{self, count, milliseconds};
use crate::query::{self, Page};
use crate::waiting::{HeldCursor, HeldRow, OutboxRow, Waiting};
use crate::{Error, SessionKey};
use async_trait::async_trait;
use domain::{Id, id};
use std::sync::Arc;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

macro_rules! held {
    ($rest:literal) => {
        concat!(
            "SELECT tenant, session, call, run, since_ms, expires_ms, is_open FROM public.held_index WHERE tenant = $1 AND ",
            $rest
        )
    };
}

const HELD: Sql = Sql {
    text: held!("is_open AND (since_ms, call) > ($2, $3) ORDER BY since_ms, call LIMIT $4"),
    types: &[Type::TEXT, Type::INT8, Type::TEXT, Type::INT8],
};
const HELD_OF: Sql = Sql {
    text: held!("is_open AND run = $2 ORDER BY since_ms, call LIMIT $3"),
    types: &[Type::TEXT, Type::TEXT, Type::INT8],
};
const HELD_CALL: Sql = Sql { text: held!("call = $2"), types: &[Type::TEXT, Type::TEXT] };

fn held_row(row: &Row) -> Result<HeldRow, Error> {
    Ok(HeldRow {
        key: SessionKey::new(read::tenant(row, 0)?, read::id(row, 1)?),
        call: read::id(row, 2)?,
        run: read::id(row, 3)?,
        since_ms: read::number(row, 4)?,
        expires_ms: read::number(row, 5)?,
        is_open: read::get(row, 6)?,
    })
}

macro_rules! outbox {
    ($rest:literal) => {
        concat!(
            "SELECT tenant, session, position, target, run, kind, at_ms, state, next_ms, version FROM public.outbox WHERE ",
            $rest
        )
    };
}

const OUTBOX: Sql = Sql { text: outbox!("next_ms <= $1 ORDER BY next_ms LIMIT $2"), types: &[Type::INT8, Type::INT8] };
const OUTBOX_OF: Sql = Sql {
    text: outbox!("tenant = $1 AND run = $2 ORDER BY position, target LIMIT $3"),
    types: &[Type::TEXT, Type::TEXT, Type::INT8],
};

/// $6: the new rows. A row that takes the place of the one that was read is changed, the others are added: one statement can
/// touch a row only once. That one is locked first; somebody else who was quicker has changed its version.
const PUT: Sql = Sql {
    text: "WITH read AS (
               SELECT 1 FROM public.outbox
               WHERE tenant = $1 AND session = $2 AND position = $3 AND target = $4 AND version = $5 FOR UPDATE),
           wanted AS (
               SELECT x.* FROM read, jsonb_to_recordset($6::jsonb) AS x(target text, run text, kind text, at_ms bigint,
                   state text, next_ms bigint, version bigint)),
           gone AS (
               DELETE FROM public.outbox USING read
               WHERE tenant = $1 AND session = $2 AND position = $3 AND target = $4
                   AND NOT EXISTS (SELECT 1 FROM wanted WHERE wanted.target = $4)),
           put AS (
               INSERT INTO public.outbox AS o
                   (tenant, session, position, target, run, kind, at_ms, state, next_ms, version)
               SELECT $1, $2, $3, w.target, w.run, w.kind, w.at_ms, w.state, w.next_ms, w.version FROM wanted AS w
               ON CONFLICT (tenant, session, position, target) DO UPDATE SET run = excluded.run, kind = excluded.kind,
                   at_ms = excluded.at_ms, state = excluded.state, next_ms = excluded.next_ms, version = excluded.version)
           SELECT 1 FROM read",
    types: &[Type::TEXT, Type::TEXT, Type::INT8, Type::TEXT, Type::INT8, Type::TEXT],
};

fn outbox_row(row: &Row) -> Result<OutboxRow, Error> {
    let next_ms: Option<i64> = read::get(row, 8)?;
    Ok(OutboxRow {
        key: SessionKey::new(read::tenant(row, 0)?, read::id(row, 1)?),
        position: read::number(row, 2)?,
        target: read::get(row, 3)?,
        run: read::id(row, 4)?,
        kind: read::get(row, 5)?,
        at_ms: read::number(row, 6)?,
        state: read::get(row, 7)?,
        next_ms: next_ms.map(i64::unsigned_abs),
        version: read::number(row, 9)?,
    })
}

#[async_trait]
impl Waiting for Postgres {
    async fn held(
        &self,
        tenant: &Arc<str>,
        after: Option<HeldCursor>,
        rows_max: usize,
    ) -> Result<Page<HeldRow, HeldCursor>, Error> {
        let since_ms = after.map_or(-1, |after| milliseconds(after.since_ms));
        let call = after.map_or(String::new(), |after| after.call.to_string());
        let limit = count(rows_max).saturating_add(1);
        let rows = self.pool.ask(HELD, &[&&**tenant, &since_ms, &call, &limit]).await?;
        let rows = rows.iter().map(held_row).collect::<Result<_, _>>()?;
        Ok(query::page(rows, rows_max, HeldRow::cursor))
    }

    async fn held_of(&self, tenant: &Arc<str>, run: Id<id::Run>, rows_max: usize) -> Result<Vec<HeldRow>, Error> {
        let rows = self.pool.ask(HELD_OF, &[&&**tenant, &run.to_string(), &count(rows_max)]).await?;
        rows.iter().map(held_row).collect()
    }

    async fn held_call(&self, tenant: &Arc<str>, call: Id<id::Call>) -> Result<Option<HeldRow>, Error> {
        let rows = self.pool.ask(HELD_CALL, &[&&**tenant, &call.to_string()]).await?;
        rows.first().map(held_row).transpose()
    }

    async fn taken(&self, tenant: &Arc<str>, asked: &Idempotency) -> Result<Option<Existing>, Error> {
        self.appender.taken(tenant, asked).await
    }

    async fn outbox(&self, until_ms: u64, rows_max: usize) -> Result<Vec<OutboxRow>, Error> {
        let rows = self.pool.ask(OUTBOX, &[&milliseconds(until_ms), &count(rows_max)]).await?;
        rows.iter().map(outbox_row).collect()
    }

    async fn outbox_put(&self, read: &OutboxRow, rows: Vec<OutboxRow>) -> Result<bool, Error> {
        let put = |row: &OutboxRow| {
            serde_json::json!({
                "target": row.target, "run": row.run, "kind": row.kind, "at_ms": milliseconds(row.at_ms),
                "state": row.state, "next_ms": row.next_ms.map(milliseconds), "version": milliseconds(row.version + 1),
            })
        };
        let wanted = serde_json::Value::from(rows.iter().map(put).collect::<Vec<_>>()).to_string();
        let (session, position, version) =
            (read.key.session.to_string(), milliseconds(read.position), milliseconds(read.version));
        let params: [crate::postgres::pool::Param<'_>; 6] =
            [&&*read.key.tenant, &session, &position, &read.target, &version, &wanted];
        // Asked once: told twice that it was put, or that it was not, whoever asks could not tell the two apart.
        Ok(!self.pool.once(PUT, &params).await?.is_empty())
    }

    async fn outbox_of(&self, tenant: &Arc<str>, run: Id<id::Run>, rows_max: usize) -> Result<Vec<OutboxRow>, Error> {
        let rows = self.pool.ask(OUTBOX_OF, &[&&**tenant, &run.to_string(), &count(rows_max)]).await?;
        rows.iter().map(outbox_row).collect()
    }
}
