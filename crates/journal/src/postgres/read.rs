//! The questions in SQL.

use crate::contents::{Form, Stored};
use crate::postgres::append::Place;
use crate::postgres::pool::{Pool, Sql};
use crate::query::{
    self, Head, PAGE_BYTES_MAX, Page, RunFilter, SessionCursor, StoredRecord, Unfinished, UnfinishedCursor,
};
use crate::{ArtifactRow, DueRow, Error, RunRow, SessionKey, SessionRow};
use domain::{Cost, Digest, Id, RunStatus, Usage, Wait, id};
use std::sync::Arc;
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, Type};

const PLACE: Sql = Sql {
    text: "SELECT position, hash, epoch, erasures, quarantined FROM public.heads WHERE tenant = $1 AND session = $2",
    types: &[Type::TEXT, Type::TEXT],
};

/// Where a log stands.
pub(crate) async fn place(pool: &Pool, key: &SessionKey) -> Result<Place, Error> {
    let rows = pool.ask(PLACE, &[&&*key.tenant, &key.session.to_string()]).await?;
    let Some(row) = rows.first() else {
        return Ok(Place::EMPTY);
    };
    let head = Head { position: number(row, 0)?, hash: digest(row, 1)?, epoch: number(row, 2)? };
    Ok(Place { head, erasures: get(row, 3)?, quarantined: get(row, 4)?, data_key: None })
}

pub(crate) const RECORDS: Sql = Sql {
    // The sum of the lengths before a row keeps what is fetched within a page's bytes; the first row always comes.
    text: "SELECT position, hash, bytes, commit_id FROM (
               SELECT *, sum(octet_length(bytes)) OVER (ORDER BY position) AS until FROM (
                   SELECT position, hash, bytes, commit_id FROM public.records
                   WHERE tenant = $1 AND session = $2 AND position >= $3 ORDER BY position LIMIT $4) AS page
           ) AS page WHERE until <= $5 OR position = $3 ORDER BY position",
    types: &[Type::TEXT, Type::TEXT, Type::INT8, Type::INT8, Type::INT8],
};

pub(crate) async fn records(
    pool: &Pool,
    key: &SessionKey,
    from: u64,
    rows_max: usize,
) -> Result<Vec<StoredRecord>, Error> {
    let Ok(from) = i64::try_from(from) else {
        return Ok(Vec::new());
    };
    let (rows_max, bytes_max) = (count(rows_max), count(PAGE_BYTES_MAX));
    let session = key.session.to_string();
    let rows = pool.ask(RECORDS, &[&&*key.tenant, &session, &from, &rows_max, &bytes_max]).await?;
    rows.iter().map(|row| stored_record(row, 0)).collect()
}

/// A record from its four columns.
pub(crate) fn stored_record(row: &Row, at: usize) -> Result<StoredRecord, Error> {
    let bytes: &[u8] = get(row, at + 2)?;
    let hash = digest(row, at + 1)?;
    Ok(StoredRecord { position: number(row, at)?, hash, bytes: bytes.into(), commit_id: number(row, at + 3)? })
}

const CONTENT: Sql = Sql {
    text: "SELECT form, item_key, body FROM public.contents WHERE tenant = $1 AND session = $2 AND id = $3",
    types: &[Type::TEXT, Type::TEXT, Type::TEXT],
};

pub(crate) async fn content(pool: &Pool, key: &SessionKey, item: Id<id::Content>) -> Result<Option<Stored>, Error> {
    let rows = pool.ask(CONTENT, &[&&*key.tenant, &key.session.to_string(), &item.to_string()]).await?;
    rows.first().map(stored).transpose()
}

/// An item from its three columns.
pub(crate) fn stored(row: &Row) -> Result<Stored, Error> {
    let number: i16 = get(row, 0)?;
    let form = Form::from_number(number.into())
        .ok_or_else(|| Error::corrupt(format_args!("unknown content form {number}")))?;
    Ok(Stored { form, item_key: get(row, 1)?, body: get(row, 2)? })
}

const DATA_KEY: Sql = Sql {
    text: "SELECT wrapped FROM public.data_keys WHERE tenant = $1 AND session = $2",
    types: &[Type::TEXT, Type::TEXT],
};

pub(crate) async fn data_key(pool: &Pool, key: &SessionKey) -> Result<Option<Vec<u8>>, Error> {
    let rows = pool.ask(DATA_KEY, &[&&*key.tenant, &key.session.to_string()]).await?;
    rows.first().map(|row| get(row, 0)).transpose()
}

/// The columns of [`run_row`].
macro_rules! runs {
    ($rest:literal) => {
        concat!(
            "SELECT tenant, run, session, agent, principal, created_ms, updated_ms, finished_ms, submitted_position,
                finished_position, turns, tool_calls, model_calls, input_tokens, cached_tokens, output_tokens,
                reasoning_tokens, cost_micro_usd, cost_listed, used_sandbox, status, waits_for, waits_until_ms
             FROM public.runs WHERE tenant = $1 AND ",
            $rest
        )
    };
}

const RUN: Sql = Sql { text: runs!("run = $2"), types: &[Type::TEXT, Type::TEXT] };
const RUNS: Sql = Sql {
    // Ids of runs sort by the time they were made, so the primary key is the order.
    text: runs!(
        "run < $2 AND ($3::text IS NULL OR session = $3) AND ($4::text IS NULL OR agent = $4)
         AND ($5::text IS NULL OR status = $5) ORDER BY run DESC LIMIT $6"
    ),
    types: &[Type::TEXT, Type::TEXT, Type::TEXT, Type::TEXT, Type::TEXT, Type::INT8],
};

fn run_row(row: &Row) -> Result<RunRow, Error> {
    let micro_usd = number(row, 17)?;
    let finished: Option<i64> = get(row, 7)?;
    let finished_position: Option<i64> = get(row, 9)?;
    let (waits_for, waits_until): (Option<&str>, Option<i64>) = (get(row, 21)?, get(row, 22)?);
    Ok(RunRow {
        tenant: tenant(row, 0)?,
        run: id(row, 1)?,
        session: id(row, 2)?,
        agent: get(row, 3)?,
        principal: id(row, 4)?,
        status: run_status(get(row, 20)?)?,
        waits_for: waits_for.map(wait).transpose()?,
        waits_until_ms: waits_until.map(i64::unsigned_abs),
        created_ms: number(row, 5)?,
        updated_ms: number(row, 6)?,
        finished_ms: finished.map(i64::unsigned_abs),
        submitted_position: number(row, 8)?,
        finished_position: finished_position.map(i64::unsigned_abs),
        turns: narrow(row, 10)?,
        tool_calls: narrow(row, 11)?,
        usage: Usage {
            model_calls: narrow(row, 12)?,
            input_tokens: narrow(row, 13)?,
            cached_tokens: narrow(row, 14)?,
            output_tokens: narrow(row, 15)?,
            reasoning_tokens: narrow(row, 16)?,
        },
        cost: if get(row, 18)? { Cost::Priced { micro_usd } } else { Cost::Unlisted { micro_usd } },
        used_sandbox: get(row, 19)?,
    })
}

fn run_status(name: &str) -> Result<RunStatus, Error> {
    serde_json::from_value(name.into()).map_err(|_| Error::corrupt(format_args!("unknown run status `{name}`")))
}

fn wait(name: &str) -> Result<Wait, Error> {
    serde_json::from_value(name.into()).map_err(|_| Error::corrupt(format_args!("unknown wait `{name}`")))
}

pub(crate) async fn run(pool: &Pool, tenant: &Arc<str>, run: Id<id::Run>) -> Result<Option<RunRow>, Error> {
    let rows = pool.ask(RUN, &[&&**tenant, &run.to_string()]).await?;
    rows.first().map(run_row).transpose()
}

pub(crate) async fn runs(
    pool: &Pool,
    tenant: &Arc<str>,
    filter: &RunFilter,
    before: Option<Id<id::Run>>,
    rows_max: usize,
) -> Result<Page<RunRow, Id<id::Run>>, Error> {
    let before = before.unwrap_or(Id::from_bytes([0xff; 16])).to_string();
    let session = filter.session.map(|session| session.to_string());
    let status = filter.status.map(RunStatus::name);
    let limit = count(rows_max).saturating_add(1);
    let rows = pool.ask(RUNS, &[&&**tenant, &before, &session, &filter.agent, &status, &limit]).await?;
    let rows = rows.iter().map(run_row).collect::<Result<_, _>>()?;
    Ok(query::page(rows, rows_max, |row| row.run))
}

macro_rules! sessions {
    ($rest:literal) => {
        concat!(
            "SELECT sessions.tenant, sessions.session, created_ms, updated_ms, runs, last_run, agent, principal,
                heads.position
             FROM public.session_index AS sessions
             JOIN public.heads ON heads.tenant = sessions.tenant AND heads.session = sessions.session
             WHERE sessions.tenant = $1 AND ",
            $rest
        )
    };
}

const SESSION: Sql = Sql { text: sessions!("sessions.session = $2"), types: &[Type::TEXT, Type::TEXT] };
const SESSIONS: Sql = Sql {
    text: sessions!(
        "(created_ms, sessions.session) < ($2, $3) ORDER BY created_ms DESC, sessions.session DESC LIMIT $4"
    ),
    types: &[Type::TEXT, Type::INT8, Type::TEXT, Type::INT8],
};

fn session_row(row: &Row) -> Result<SessionRow, Error> {
    Ok(SessionRow {
        tenant: tenant(row, 0)?,
        session: id(row, 1)?,
        created_ms: number(row, 2)?,
        updated_ms: number(row, 3)?,
        runs: number(row, 4)?,
        last_run: id(row, 5)?,
        agent: get(row, 6)?,
        principal: id(row, 7)?,
        next_position: number(row, 8)?,
    })
}

pub(crate) async fn session(pool: &Pool, key: &SessionKey) -> Result<Option<SessionRow>, Error> {
    let rows = pool.ask(SESSION, &[&&*key.tenant, &key.session.to_string()]).await?;
    rows.first().map(session_row).transpose()
}

pub(crate) async fn sessions(
    pool: &Pool,
    tenant: &Arc<str>,
    before: Option<SessionCursor>,
    rows_max: usize,
) -> Result<Page<SessionRow, SessionCursor>, Error> {
    let created_ms = before.map_or(i64::MAX, |before| milliseconds(before.created_ms));
    let session = before.map_or(Id::from_bytes([0xff; 16]), |before| before.session).to_string();
    let limit = count(rows_max).saturating_add(1);
    let rows = pool.ask(SESSIONS, &[&&**tenant, &created_ms, &session, &limit]).await?;
    let rows = rows.iter().map(session_row).collect::<Result<_, _>>()?;
    Ok(query::page(rows, rows_max, SessionRow::cursor))
}

const UNFINISHED: Sql = Sql {
    text: "SELECT tenant, session, run, submitted_position FROM public.run_index
           WHERE finished_ms IS NULL AND (tenant, session, submitted_position) > ($1, $2, $3) AND NOT EXISTS (
               SELECT 1 FROM public.quarantine AS q
               WHERE q.tenant = run_index.tenant AND q.session = run_index.session)
           ORDER BY tenant, session, submitted_position LIMIT $4",
    types: &[Type::TEXT, Type::TEXT, Type::INT8, Type::INT8],
};

pub(crate) async fn unfinished(
    pool: &Pool,
    after: Option<&UnfinishedCursor>,
    rows_max: usize,
) -> Result<Page<Unfinished, UnfinishedCursor>, Error> {
    let tenant = after.map_or("", |after| &*after.key.tenant);
    let session = after.map_or(String::new(), |after| after.key.session.to_string());
    let position = after.map_or(-1, |after| milliseconds(after.submitted_position));
    let limit = count(rows_max).saturating_add(1);
    let rows = pool.ask(UNFINISHED, &[&tenant, &session, &position, &limit]).await?;
    let rows = rows.iter().map(|row| {
        let key = SessionKey::new(self::tenant(row, 0)?, id(row, 1)?);
        Ok(Unfinished { key, run: id(row, 2)?, submitted_position: number(row, 3)? })
    });
    Ok(query::page(rows.collect::<Result<_, Error>>()?, rows_max, Unfinished::cursor))
}

macro_rules! artifacts {
    ($rest:literal) => {
        concat!(
            "SELECT artifact, run, session, position, name, media, bytes, object, created_ms
             FROM public.artifact_index WHERE tenant = $1 AND ",
            $rest
        )
    };
}

const ARTIFACT: Sql = Sql { text: artifacts!("artifact = $2"), types: &[Type::TEXT, Type::TEXT] };
const ARTIFACTS: Sql =
    Sql { text: artifacts!("run = $2 ORDER BY position LIMIT $3"), types: &[Type::TEXT, Type::TEXT, Type::INT8] };

fn artifact_row(row: &Row) -> Result<ArtifactRow, Error> {
    let name = serde_json::from_str(get(row, 4)?).map_err(|_| Error::corrupt("an artifact's name"))?;
    Ok(ArtifactRow {
        artifact: id(row, 0)?,
        run: id(row, 1)?,
        session: id(row, 2)?,
        position: number(row, 3)?,
        name,
        media: get(row, 5)?,
        bytes: number(row, 6)?,
        object: get(row, 7)?,
        created_ms: number(row, 8)?,
    })
}

pub(crate) async fn artifacts(
    pool: &Pool,
    tenant: &Arc<str>,
    run: Id<id::Run>,
    rows_max: usize,
) -> Result<Vec<ArtifactRow>, Error> {
    let rows = pool.ask(ARTIFACTS, &[&&**tenant, &run.to_string(), &count(rows_max)]).await?;
    rows.iter().map(artifact_row).collect()
}

pub(crate) async fn artifact(
    pool: &Pool,
    tenant: &Arc<str>,
    artifact: Id<id::Artifact>,
) -> Result<Option<ArtifactRow>, Error> {
    let rows = pool.ask(ARTIFACT, &[&&**tenant, &artifact.to_string()]).await?;
    rows.first().map(artifact_row).transpose()
}

const DUE: Sql = Sql {
    text: "SELECT tenant, session, run, kind, at_ms FROM public.due WHERE at_ms <= $1 AND NOT EXISTS (
               SELECT 1 FROM public.quarantine AS q WHERE q.tenant = due.tenant AND q.session = due.session)
           ORDER BY at_ms LIMIT $2",
    types: &[Type::INT8, Type::INT8],
};

pub(crate) async fn due(pool: &Pool, until_ms: u64, rows_max: usize) -> Result<Vec<DueRow>, Error> {
    let rows = pool.ask(DUE, &[&milliseconds(until_ms), &count(rows_max)]).await?;
    let due = |row: &Row| {
        let key = SessionKey::new(tenant(row, 0)?, id(row, 1)?);
        Ok(DueRow { key, run: id(row, 2)?, kind: get(row, 3)?, at_ms: number(row, 4)? })
    };
    rows.iter().map(due).collect()
}

/// A column; of another type than expected, the table is not ours.
pub(crate) fn get<'a, T: FromSql<'a>>(row: &'a Row, at: usize) -> Result<T, Error> {
    row.try_get(at).map_err(Error::corrupt)
}

/// A number that is never below zero.
pub(crate) fn number(row: &Row, at: usize) -> Result<u64, Error> {
    let number: i64 = get(row, at)?;
    u64::try_from(number).map_err(Error::corrupt)
}

fn narrow<T: TryFrom<u64>>(row: &Row, at: usize) -> Result<T, Error> {
    let number = number(row, at)?;
    T::try_from(number).map_err(|_| Error::corrupt(format_args!("the number {number}")))
}

/// An id.
pub(crate) fn id<K: id::Kind>(row: &Row, at: usize) -> Result<Id<K>, Error> {
    let text: &str = get(row, at)?;
    text.parse().map_err(Error::corrupt)
}

/// A digest.
pub(crate) fn digest(row: &Row, at: usize) -> Result<Digest, Error> {
    let bytes: &[u8] = get(row, at)?;
    Ok(Digest(bytes.try_into().map_err(Error::corrupt)?))
}

/// A tenant.
pub(crate) fn tenant(row: &Row, at: usize) -> Result<Arc<str>, Error> {
    let text: &str = get(row, at)?;
    Ok(text.into())
}

/// A time or a position as a column holds it; what is beyond it never comes.
pub(crate) fn milliseconds(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A limit.
pub(crate) fn count(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}
