//! The records of a run or a session: one page as JSON, or a live stream.

use crate::app::{App, Asked, Told};
use crate::body::{self, Body};
use crate::handlers::{run_id, session_id};
use crate::problem::No;
use crate::query::{Query, shown, wants_stream};
use crate::stream::{Follower, From};
use crate::{answer, resolve};
use api::{RecordPage, Refusal};
use domain::Event;
use http::{HeaderValue, Response};
use journal::{RunRow, SessionKey};
use std::sync::Arc;

/// Bytes of text after which a page ends, although more records were asked for.
const PAGE_TEXT_BYTES: u64 = 4 << 20;

/// `GET /runs/{run_id}/events`.
pub(crate) async fn of_run(app: Arc<App>, asked: Asked) -> Result<Told, No> {
    let run = run_id(asked.route.parameter())?;
    let row = app.engine.journal().run(&asked.caller.tenant, run).await?.ok_or_else(|| No::no_run(&run.to_string()))?;
    let key = SessionKey::new(row.tenant.clone(), row.session);
    answered(app, &asked, key, Some(row)).await.map(|response| Told::about(response, run))
}

/// `GET /sessions/{session}/events`.
pub(crate) async fn of_session(app: Arc<App>, asked: Asked) -> Result<Response<Body>, No> {
    let session = session_id(&asked.caller.tenant, asked.route.parameter())?;
    let key = SessionKey::new(asked.caller.tenant.clone(), session);
    if app.engine.journal().session(&key).await?.is_none() {
        return Err(No::no_session(&shown(asked.route.parameter())));
    }
    answered(app, &asked, key, None).await
}

async fn answered(app: Arc<App>, asked: &Asked, key: SessionKey, run: Option<RunRow>) -> Result<Response<Body>, No> {
    let query = Query::parse(asked.route.endpoint, asked.parts.uri.query())?;
    let limit = query.limit()?;
    let after = query.after(&asked.parts.headers)?;
    let first = run.as_ref().map_or(0, |run| run.submitted_position);
    let position = after.map_or(first, |after| after.saturating_add(1).max(first));
    if !wants_stream(&asked.parts.headers) {
        return answer::json(200, &page(&app, &key, run.as_ref(), position, limit).await?);
    }
    let ended = run.as_ref().and_then(|run| run.finished_position).is_some_and(|finished| position > finished);
    if ended {
        // A browser would come back for ever; this status tells it not to (HTML standard §9.2.2).
        return Ok(answer::nothing());
    }
    let place = app.stream_place()?;
    let from = From { key, run: run.map(|run| run.run), position };
    let follower = Follower::new(app, from, place)
        .ok_or_else(|| No::refused(Refusal::NotReady, "the service is shutting down").retry_after(1))?;
    let pieces = futures::stream::unfold(follower, |mut follower| async move {
        let piece = follower.next().await?;
        Some((piece, follower))
    });
    let mut response = answer::stream("text/event-stream", body::endless(pieces));
    // A proxy that collects the answer would hold every event back.
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

/// A page of records from a position on.
async fn page(app: &App, key: &SessionKey, run: Option<&RunRow>, from: u64, limit: usize) -> Result<RecordPage, No> {
    let journal = app.engine.journal();
    let stored = journal.records(key, from, limit).await?;
    let full = stored.len() == limit;
    let (mut records, mut text_bytes, mut last) = (Vec::with_capacity(stored.len()), 0, None);
    let mut ended = false;
    for (at, record) in stored.iter().enumerate() {
        let decoded = record.decode()?;
        last = Some(record.position);
        if run.is_some_and(|run| run.run != decoded.event.run()) {
            continue;
        }
        ended = run.is_some() && matches!(decoded.event, Event::Finished(_));
        let shown = resolve::record(journal, key, decoded).await?;
        text_bytes += serde_json::to_vec(&shown).map_or(0, |bytes| bytes.len() as u64);
        records.push(shown);
        if ended || (text_bytes > PAGE_TEXT_BYTES && at + 1 < stored.len()) {
            break;
        }
    }
    let more = !ended && (full || text_bytes > PAGE_TEXT_BYTES);
    Ok(RecordPage { records, next: last.filter(|_| more) })
}
