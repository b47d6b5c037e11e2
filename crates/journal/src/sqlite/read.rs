//! The questions in SQL.

use crate::contents::{Form, Stored};
use crate::query::{
    self, Head, PAGE_BYTES_MAX, Page, RunFilter, SessionCursor, StoredRecord, Unfinished, UnfinishedCursor,
};
use crate::{ArtifactRow, DueRow, Error, RunRow, SessionKey, SessionRow};
use domain::{Cost, Digest, Id, RunStatus, Usage, Wait, id};
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, params};
use std::sync::Arc;

pub(crate) fn head(connection: &Connection, key: &SessionKey) -> Result<Head, Error> {
    let mut found =
        connection.prepare_cached("SELECT position, hash, epoch FROM heads WHERE tenant = ?1 AND session = ?2")?;
    let head = found.query_row(params![&*key.tenant, key.session.as_bytes()], |row| {
        Ok(Head { position: row.get(0)?, hash: Digest(row.get(1)?), epoch: row.get(2)? })
    });
    Ok(head.optional()?.unwrap_or(Head::EMPTY))
}

pub(crate) fn records(
    connection: &Connection,
    key: &SessionKey,
    from: u64,
    rows_max: usize,
) -> Result<Vec<StoredRecord>, Error> {
    let mut wanted = connection.prepare_cached(
        "SELECT position, hash, bytes, commit_id FROM records
         WHERE tenant = ?1 AND session = ?2 AND position >= ?3 ORDER BY position",
    )?;
    let Ok(from) = i64::try_from(from) else {
        return Ok(Vec::new());
    };
    let mut rows = wanted.query(params![&*key.tenant, key.session.as_bytes(), from])?;
    let mut found = Vec::new();
    let mut bytes = 0;
    while found.len() < rows_max
        && let Some(row) = rows.next()?
    {
        let body = row.get_ref(2)?.as_blob().map_err(Error::corrupt)?;
        bytes += body.len();
        if bytes > PAGE_BYTES_MAX && !found.is_empty() {
            break;
        }
        let hash = Digest(row.get(1)?);
        found.push(StoredRecord { position: row.get(0)?, hash, bytes: body.into(), commit_id: row.get(3)? });
    }
    Ok(found)
}

pub(crate) fn last_record(connection: &Connection, key: &SessionKey) -> Result<Option<StoredRecord>, Error> {
    let mut last = connection.prepare_cached(
        "SELECT position, hash, bytes, commit_id FROM records INDEXED BY records_by_place
         WHERE tenant = ?1 AND session = ?2 ORDER BY position DESC LIMIT 1",
    )?;
    let record = last.query_row(params![&*key.tenant, key.session.as_bytes()], |row| {
        let bytes = row.get_ref(2)?.as_blob()?.into();
        Ok(StoredRecord { position: row.get(0)?, hash: Digest(row.get(1)?), bytes, commit_id: row.get(3)? })
    });
    Ok(record.optional()?)
}

pub(crate) fn content(
    connection: &Connection,
    key: &SessionKey,
    item: Id<id::Content>,
) -> Result<Option<Stored>, Error> {
    let mut found = connection
        .prepare_cached("SELECT form, item_key, body FROM contents WHERE tenant = ?1 AND session = ?2 AND id = ?3")?;
    let stored = found.query_row(params![&*key.tenant, key.session.as_bytes(), item.as_bytes()], |row| {
        let form = Form::from_number(row.get(0)?).ok_or_else(|| unknown(0, "content form"))?;
        Ok(Stored { form, item_key: row.get(1)?, body: row.get(2)? })
    });
    Ok(stored.optional()?)
}

pub(crate) fn data_key(connection: &Connection, key: &SessionKey) -> Result<Option<Vec<u8>>, Error> {
    let mut found = connection.prepare_cached("SELECT wrapped FROM data_keys WHERE tenant = ?1 AND session = ?2")?;
    Ok(found.query_row(params![&*key.tenant, key.session.as_bytes()], |row| row.get(0)).optional()?)
}

/// The columns of [`run_row`]; `queued` is worked out: an earlier run of the session has not ended.
const RUN: &str = "SELECT run, session, agent, principal, status, created_ms, updated_ms, finished_ms,
    submitted_position, finished_position, turns, tool_calls, model_calls, input_tokens, cached_tokens,
    output_tokens, reasoning_tokens, cost_micro_usd, cost_listed, used_sandbox, waits_for, waits_until_ms,
    finished_ms IS NULL AND EXISTS(
        SELECT 1 FROM run_index AS earlier WHERE earlier.tenant = r.tenant AND earlier.session = r.session
        AND earlier.submitted_position < r.submitted_position AND earlier.finished_ms IS NULL)
    FROM run_index AS r";

fn run_row(tenant: &Arc<str>, row: &Row<'_>) -> rusqlite::Result<RunRow> {
    let micro_usd = row.get(17)?;
    let status = row.get_ref(4)?.as_str()?;
    Ok(RunRow {
        tenant: tenant.clone(),
        run: id(row, 0)?,
        session: id(row, 1)?,
        agent: row.get(2)?,
        principal: id(row, 3)?,
        status: if row.get(22)? { RunStatus::Queued } else { run_status(status)? },
        waits_for: row.get_ref(20)?.as_str_or_null()?.map(wait).transpose()?,
        waits_until_ms: row.get(21)?,
        created_ms: row.get(5)?,
        updated_ms: row.get(6)?,
        finished_ms: row.get(7)?,
        submitted_position: row.get(8)?,
        finished_position: row.get(9)?,
        turns: row.get(10)?,
        tool_calls: row.get(11)?,
        usage: Usage {
            model_calls: row.get(12)?,
            input_tokens: row.get(13)?,
            cached_tokens: row.get(14)?,
            output_tokens: row.get(15)?,
            reasoning_tokens: row.get(16)?,
        },
        cost: if row.get(18)? { Cost::Priced { micro_usd } } else { Cost::Unlisted { micro_usd } },
        used_sandbox: row.get(19)?,
    })
}

fn wait(name: &str) -> rusqlite::Result<Wait> {
    serde_json::from_value(name.into()).map_err(|_| unknown(20, "wait"))
}

fn run_status(name: &str) -> rusqlite::Result<RunStatus> {
    serde_json::from_value(name.into()).map_err(|_| unknown(4, "run status"))
}

pub(crate) fn run(connection: &Connection, tenant: &Arc<str>, run: Id<id::Run>) -> Result<Option<RunRow>, Error> {
    let mut found = connection.prepare_cached(&format!("{RUN} WHERE tenant = ?1 AND run = ?2"))?;
    Ok(found.query_row(params![&**tenant, run.as_bytes()], |row| run_row(tenant, row)).optional()?)
}

pub(crate) fn runs(
    connection: &Connection,
    tenant: &Arc<str>,
    filter: &RunFilter,
    before: Option<Id<id::Run>>,
    rows_max: usize,
) -> Result<Page<RunRow, Id<id::Run>>, Error> {
    // Ids of runs sort by the time they were made, so the primary key is the order.
    let before = before.unwrap_or(Id::from_bytes([0xff; 16]));
    let row = |row: &Row<'_>| run_row(tenant, row);
    if let Some(session) = filter.session {
        let sql = format!(
            "{RUN} INDEXED BY runs_by_session WHERE tenant = ?1 AND session = ?2 AND run < ?3 ORDER BY run DESC"
        );
        let mut older = connection.prepare_cached(&sql)?;
        let rows = older.query_map(params![&**tenant, session.as_bytes(), before.as_bytes()], row)?;
        return filter.page(rows.map(|row| Ok(row?)), rows_max);
    }
    let mut older = connection.prepare_cached(&format!("{RUN} WHERE tenant = ?1 AND run < ?2 ORDER BY run DESC"))?;
    let rows = older.query_map(params![&**tenant, before.as_bytes()], row)?;
    filter.page(rows.map(|row| Ok(row?)), rows_max)
}

const SESSION: &str = "SELECT s.session, created_ms, updated_ms, runs, last_run, agent, principal, heads.position
    FROM session_index AS s JOIN heads ON heads.tenant = s.tenant AND heads.session = s.session
    WHERE s.tenant = ?1";

fn session_row(tenant: &Arc<str>, row: &Row<'_>) -> rusqlite::Result<SessionRow> {
    Ok(SessionRow {
        tenant: tenant.clone(),
        session: id(row, 0)?,
        created_ms: row.get(1)?,
        updated_ms: row.get(2)?,
        runs: row.get(3)?,
        last_run: id(row, 4)?,
        agent: row.get(5)?,
        principal: id(row, 6)?,
        next_position: row.get(7)?,
    })
}

pub(crate) fn session(connection: &Connection, key: &SessionKey) -> Result<Option<SessionRow>, Error> {
    let mut found = connection.prepare_cached(&format!("{SESSION} AND s.session = ?2"))?;
    let row = |row: &Row<'_>| session_row(&key.tenant, row);
    Ok(found.query_row(params![&*key.tenant, key.session.as_bytes()], row).optional()?)
}

pub(crate) fn sessions(
    connection: &Connection,
    tenant: &Arc<str>,
    before: Option<SessionCursor>,
    rows_max: usize,
) -> Result<Page<SessionRow, SessionCursor>, Error> {
    let before =
        before.unwrap_or(SessionCursor { created_ms: i64::MAX.unsigned_abs(), session: Id::from_bytes([0xff; 16]) });
    let mut older = connection.prepare_cached(&format!(
        "{SESSION} AND (created_ms, s.session) < (?2, ?3) ORDER BY created_ms DESC, s.session DESC LIMIT ?4"
    ))?;
    let created_ms = i64::try_from(before.created_ms).unwrap_or(i64::MAX);
    // One more than asked for tells whether there is a next page.
    let rows = older
        .query_map(params![&**tenant, created_ms, before.session.as_bytes(), rows_max.saturating_add(1)], |row| {
            session_row(tenant, row)
        })?;
    Ok(query::page(rows.collect::<Result<_, _>>()?, rows_max, SessionRow::cursor))
}

pub(crate) fn unfinished(
    connection: &Connection,
    after: Option<&UnfinishedCursor>,
    rows_max: usize,
) -> Result<Page<Unfinished, UnfinishedCursor>, Error> {
    let mut open = connection.prepare_cached(
        "SELECT tenant, session, run, submitted_position FROM run_index INDEXED BY runs_open
         WHERE finished_ms IS NULL AND (tenant, session, submitted_position) > (?1, ?2, ?3) AND NOT EXISTS(
             SELECT 1 FROM quarantine AS q WHERE q.tenant = run_index.tenant AND q.session = run_index.session)
         ORDER BY tenant, session, submitted_position LIMIT ?4",
    )?;
    let (tenant, session, position) =
        after.map_or(("", &[][..], -1), |UnfinishedCursor { key, submitted_position }| {
            let position = i64::try_from(*submitted_position).unwrap_or(i64::MAX);
            (&*key.tenant, &key.session.as_bytes()[..], position)
        });
    // One more than asked for tells whether there is a next page.
    let rows = open.query_map(params![tenant, session, position, rows_max.saturating_add(1)], |row| {
        let tenant: Arc<str> = row.get(0)?;
        let key = SessionKey::new(tenant, id(row, 1)?);
        Ok(Unfinished { key, run: id(row, 2)?, submitted_position: row.get(3)? })
    })?;
    Ok(query::page(rows.collect::<Result<_, _>>()?, rows_max, Unfinished::cursor))
}

const ARTIFACT: &str = "SELECT artifact, run, session, position, name, media, bytes, object, created_ms
    FROM artifact_index WHERE tenant = ?1";

fn artifact_row(row: &Row<'_>) -> rusqlite::Result<ArtifactRow> {
    let name = serde_json::from_str(row.get_ref(4)?.as_str()?).map_err(|_| unknown(4, "artifact name"))?;
    Ok(ArtifactRow {
        artifact: id(row, 0)?,
        run: id(row, 1)?,
        session: id(row, 2)?,
        position: row.get(3)?,
        name,
        media: row.get(5)?,
        bytes: row.get(6)?,
        object: row.get(7)?,
        created_ms: row.get(8)?,
    })
}

pub(crate) fn artifacts(
    connection: &Connection,
    tenant: &Arc<str>,
    run: Id<id::Run>,
    rows_max: usize,
) -> Result<Vec<ArtifactRow>, Error> {
    let mut kept = connection.prepare_cached(&format!("{ARTIFACT} AND run = ?2 ORDER BY position LIMIT ?3"))?;
    let rows = kept.query_map(params![&**tenant, run.as_bytes(), rows_max], artifact_row)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(crate) fn artifact(
    connection: &Connection,
    tenant: &Arc<str>,
    artifact: Id<id::Artifact>,
) -> Result<Option<ArtifactRow>, Error> {
    let mut kept = connection.prepare_cached(&format!("{ARTIFACT} AND artifact = ?2"))?;
    Ok(kept.query_row(params![&**tenant, artifact.as_bytes()], artifact_row).optional()?)
}

pub(crate) fn due(connection: &Connection, until_ms: u64, rows_max: usize) -> Result<Vec<DueRow>, Error> {
    let mut due = connection.prepare_cached(
        "SELECT tenant, session, run, kind, at_ms FROM due WHERE at_ms <= ?1 AND NOT EXISTS(
             SELECT 1 FROM quarantine AS q WHERE q.tenant = due.tenant AND q.session = due.session)
         ORDER BY at_ms LIMIT ?2",
    )?;
    let until_ms = i64::try_from(until_ms).unwrap_or(i64::MAX);
    let rows = due.query_map(params![until_ms, rows_max], |row| {
        let tenant: Arc<str> = row.get(0)?;
        let key = SessionKey::new(tenant, id(row, 1)?);
        Ok(DueRow { key, run: id(row, 2)?, kind: row.get(3)?, at_ms: row.get(4)? })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn id<K: id::Kind>(row: &Row<'_>, column: usize) -> rusqlite::Result<Id<K>> {
    Ok(Id::from_bytes(row.get(column)?))
}

fn unknown(column: usize, what: &str) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, format!("unknown {what}").into())
}

pub(crate) fn session_key(row: &Row<'_>) -> rusqlite::Result<SessionKey> {
    let tenant: Arc<str> = row.get(0)?;
    Ok(SessionKey::new(tenant, id(row, 1)?))
}
