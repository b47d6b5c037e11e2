//! Sessions: listed, shown, forked, put aside, deleted.

use crate::answer;
use crate::app::{App, Asked, Told};
use crate::body::{self, Body};
use crate::handlers::session_id;
use crate::problem::No;
use crate::query::{Query, shown};
use crate::request::{idempotency, required};
use api::{
    Checkpoint, CheckpointList, Fork, ForkSession, OutsideEffect, Purged, Quarantine, QuarantineSession, Session,
    SessionList,
};
use domain::{Id, id};
use engine::{CheckpointView, ForkView, SessionName, SessionView};
use http::Response;
use hyper::body::Incoming;
use journal::query::SessionCursor;

/// `GET /sessions`.
pub(crate) async fn list(app: &App, asked: &Asked) -> Result<Response<Body>, No> {
    let query = Query::parse(asked.route.endpoint, asked.parts.uri.query())?;
    let limit = query.limit()?;
    let before = query.text("cursor").map(cursor).transpose()?;
    let page = app.engine.sessions(&asked.caller.tenant, before, limit).await?;
    let next = page.next.map(|cursor| format!("{}-{}", cursor.created_ms, cursor.session));
    answer::json(200, &SessionList { sessions: page.rows.into_iter().map(shown_session).collect(), next })
}

fn cursor(text: &str) -> Result<SessionCursor, No> {
    let parsed = text.split_once('-').and_then(|(created_ms, session)| {
        Some(SessionCursor { created_ms: created_ms.parse().ok()?, session: session.parse().ok()? })
    });
    parsed.ok_or_else(|| No::invalid("query parameter `cursor` is malformed; expected the `next` of a page"))
}

/// `GET /sessions/{session}`.
pub(crate) async fn get(app: &App, asked: &Asked) -> Result<Response<Body>, No> {
    let view = app.engine.session(&asked.caller.tenant, named(asked)?).await.map_err(|error| missing(asked, error))?;
    answer::json(200, &shown_session(view))
}

/// `GET /sessions/{session}/checkpoints`.
pub(crate) async fn checkpoints(app: &App, asked: &Asked) -> Result<Response<Body>, No> {
    let session = named(asked)?;
    let views = app.engine.checkpoints(&asked.caller.tenant, session).await.map_err(|error| missing(asked, error))?;
    answer::json(200, &CheckpointList { checkpoints: views.into_iter().map(shown_checkpoint).collect() })
}

/// `POST /sessions/{session}/fork`.
pub(crate) async fn fork(app: &App, asked: &Asked, body: Incoming) -> Result<Told, No> {
    let session = named(asked)?;
    let bytes = body::read(body, &app.config.limits).await?;
    let request: ForkSession = required(&asked.parts.headers, &bytes)?;
    let idempotency = idempotency(asked, &request)?;
    if let Some(name) = &request.session
        && !matches!(SessionName::parse(name), Some(SessionName::Named(_)))
    {
        let message = format!(
            "the body: `session` is `{}`; expected a name of 1 to {} printable characters without space",
            shown(name),
            SessionName::NAME_BYTES_MAX
        );
        return Err(No::invalid(&message));
    }
    let view = app
        .engine
        .fork(engine::Fork {
            tenant: asked.caller.tenant.to_string(),
            principal: asked.caller.principal,
            session,
            at: request.at,
            agent: request.agent,
            model: request.model,
            provider: request.provider,
            message: request.message,
            session_name: request.session,
            idempotency,
        })
        .await
        .map_err(|error| missing(asked, error))?;
    let run = view.run;
    let response = answer::json(201, &shown_fork(view))?;
    Ok(Told { response, run })
}

/// `POST /sessions/{session}/quarantine`.
pub(crate) async fn quarantine(app: &App, asked: &Asked, body: Incoming) -> Result<Response<Body>, No> {
    let session = named(asked)?;
    let bytes = body::read(body, &app.config.limits).await?;
    let QuarantineSession { reason } = required(&asked.parts.headers, &bytes)?;
    let (tenant, principal) = (&asked.caller.tenant, asked.caller.principal);
    let put_aside = app.engine.quarantine(tenant, session, principal, &reason).await;
    let quarantine = put_aside.map_err(|error| missing(asked, error))?;
    let (reason, since_ms) = (Some(quarantine.reason), Some(quarantine.since_ms));
    answer::json(200, &Quarantine { quarantined: true, reason, since_ms })
}

/// `POST /sessions/{session}/release`.
pub(crate) async fn release(app: &App, asked: &Asked) -> Result<Response<Body>, No> {
    let session = named(asked)?;
    app.engine.release(&asked.caller.tenant, session).await.map_err(|error| missing(asked, error))?;
    answer::json(200, &Quarantine { quarantined: false, reason: None, since_ms: None })
}

/// `DELETE /sessions/{session}`.
pub(crate) async fn purge(app: &App, asked: &Asked) -> Result<Response<Body>, No> {
    let session = named(asked)?;
    let principal = asked.caller.principal;
    let purged = app.engine.purge(&asked.caller.tenant, session, principal).await;
    let purged = purged.map_err(|error| missing(asked, error))?;
    let (records, head, purged_ms) = (purged.records, purged.head_hash, purged.purged_ms);
    answer::json(200, &Purged { session_id: session, records, head, purged_ms })
}

fn named(asked: &Asked) -> Result<Id<id::Session>, No> {
    session_id(&asked.caller.tenant, asked.route.parameter())
}

/// A session that is not there is named as the client named it.
fn missing(asked: &Asked, error: engine::Error) -> No {
    match error {
        engine::Error::NoSuchSession { .. } => No::no_session(&shown(asked.route.parameter())),
        error => error.into(),
    }
}

fn shown_session(view: SessionView) -> Session {
    Session {
        session_id: view.session,
        session: view.name.unwrap_or_else(|| view.session.to_string()),
        agent: view.agent,
        runs: view.runs,
        last_run_id: view.last_run,
        created_ms: view.created_ms,
        updated_ms: view.updated_ms,
        records: view.next_position,
        no_progress_seconds: view.no_progress_ms.map(|ms| ms / 1_000),
    }
}

fn shown_checkpoint(view: CheckpointView) -> Checkpoint {
    let CheckpointView { at, run, turn, checkpoint, at_ms } = view;
    Checkpoint { at, run_id: run, turn, checkpoint_id: checkpoint, at_ms }
}

fn shown_fork(view: ForkView) -> Fork {
    let effect = |effect: engine::OutsideEffect| OutsideEffect {
        run_id: effect.run,
        call_id: effect.call,
        tool: effect.tool,
        effect: effect.effect,
        position: effect.position,
        status: effect.status,
    };
    Fork {
        session_id: view.session,
        session: view.session_name.unwrap_or_else(|| view.session.to_string()),
        run_id: view.run,
        at: view.at,
        checkpoint_id: view.checkpoint,
        model: view.model,
        provider: view.provider,
        outside_effects: view.outside_effects.into_iter().map(effect).collect(),
    }
}
