//! Each operation of the contract to its handler; the small ones are here.

use crate::app::{App, Asked, Told};
use crate::body::{self, Body};
use crate::problem::No;
use crate::query::{Query, shown};
use crate::{answer, artifacts, events, runs};
use api::{Backends, Health, Operation, Ready, Refusal, Session, SessionList};
use domain::{Id, id};
use engine::{SessionName, SessionView};
use http::{HeaderValue, Response, StatusCode, header};
use hyper::body::Incoming;
use journal::query::SessionCursor;
use std::sync::Arc;

/// Answers a request that was let in.
pub(crate) async fn handle(app: Arc<App>, asked: Asked, body: Incoming) -> Result<Told, No> {
    match asked.route.endpoint.operation {
        Operation::Health => health(&app).map(Told::from),
        Operation::Live => answer::json(200, &Ready { status: "ok".into() }).map(Told::from),
        Operation::Ready => ready(&app).map(Told::from),
        Operation::PostRun => {
            let body = body::read(body, &app.config.limits).await?;
            Box::pin(runs::post(&app, &asked, &body)).await
        }
        Operation::ListRuns => runs::list(&app, &asked).await.map(Told::from),
        Operation::GetRun => runs::get(&app, &asked).await,
        Operation::RunEvents => Box::pin(events::of_run(app, asked)).await,
        Operation::RunArtifacts => runs::artifacts(&app, &asked).await,
        Operation::GetArtifact => artifacts::get(&app, &asked.route.parameter).await.map(Told::from),
        Operation::CancelRun => runs::cancel(&app, &asked).await,
        Operation::ListSessions => sessions(&app, &asked).await.map(Told::from),
        Operation::GetSession => session(&app, &asked).await.map(Told::from),
        Operation::SessionEvents => Box::pin(events::of_session(app, asked)).await.map(Told::from),
        Operation::Metrics => {
            let text = app.metrics.text(&app.engine);
            Ok(answer::text("text/plain; version=0.0.4; charset=utf-8", text).into())
        }
        Operation::OpenApi => Ok(answer::text("application/json", app.pages.openapi()).into()),
        Operation::Docs => {
            let base = app.base(asked.entry, &asked.parts.headers);
            Ok(answer::html(app.pages.docs(&base, app.wants_keys())).into())
        }
        Operation::ErrorPage => error_page(&app, &asked.route.parameter).map(Told::from),
    }
}

fn health(app: &App) -> Result<Response<Body>, No> {
    let health = app.engine.health();
    let reason = health.ready.err();
    let answer = Health {
        status: if reason.is_none() { "ok" } else { "degraded" }.into(),
        model: health.model,
        backends: Backends { postgres: false, sandbox: health.sandbox, r2: app.engine.blobs().is_remote() },
        reason,
        switched_off: app.engine.catalog().switched_off.iter().map(ToString::to_string).collect(),
        version: domain::VERSION.into(),
    };
    answer::json(200, &answer)
}

fn ready(app: &App) -> Result<Response<Body>, No> {
    if *app.draining.borrow() {
        return Err(No::refused(Refusal::NotReady, "the service is shutting down").retry_after(1));
    }
    match app.engine.health().ready {
        Ok(()) => answer::json(200, &Ready { status: "ok".into() }),
        Err(reason) => Err(No::refused(Refusal::NotReady, &reason).retry_after(1)),
    }
}

fn error_page(app: &App, code: &str) -> Result<Response<Body>, No> {
    match app.pages.error(code) {
        Some(page) => Ok(answer::html(page)),
        None => {
            let message = format!("there is no page for the code `{}`; hint: /docs lists the codes", shown(code));
            Err(No::refused(Refusal::PathUnknown, &message))
        }
    }
}

async fn sessions(app: &App, asked: &Asked) -> Result<Response<Body>, No> {
    let query = Query::parse(asked.route.endpoint, asked.parts.uri.query())?;
    let limit = query.limit()?;
    let before = query.text("cursor").map(session_cursor).transpose()?;
    let page = app.engine.sessions(&asked.caller.tenant, before, limit).await?;
    let next = page.next.map(|cursor| format!("{}-{}", cursor.created_ms, cursor.session));
    answer::json(200, &SessionList { sessions: page.rows.into_iter().map(shown_session).collect(), next })
}

fn session_cursor(text: &str) -> Result<SessionCursor, No> {
    let parsed = text.split_once('-').and_then(|(created_ms, session)| {
        Some(SessionCursor { created_ms: created_ms.parse().ok()?, session: session.parse().ok()? })
    });
    parsed.ok_or_else(|| No::invalid("query parameter `cursor` is malformed; expected the `next` of a page"))
}

async fn session(app: &App, asked: &Asked) -> Result<Response<Body>, No> {
    let session = session_id(&asked.caller.tenant, &asked.route.parameter)?;
    let view = app.engine.session(&asked.caller.tenant, session).await.map_err(|error| match error {
        engine::Error::NoSuchSession { .. } => No::no_session(&shown(&asked.route.parameter)),
        error => error.into(),
    })?;
    answer::json(200, &shown_session(view))
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
    }
}

/// The session that a path or a query names; a name that can't be one is not there.
pub(crate) fn session_id(tenant: &str, text: &str) -> Result<Id<id::Session>, No> {
    match SessionName::parse(text) {
        Some(SessionName::Id(session)) => Ok(session),
        Some(SessionName::Named(name)) => Ok(Id::from_name(tenant, &name)),
        Some(SessionName::New) | None => Err(No::no_session(&shown(text))),
    }
}

/// The run that a path names.
pub(crate) fn run_id(text: &str) -> Result<Id<id::Run>, No> {
    text.parse().map_err(|_| No::no_run(&shown(text)))
}

/// The answer for a run that is still under way.
pub(crate) fn accepted(
    mut response: Response<Body>,
    run: Id<id::Run>,
    respond_async: bool,
) -> Result<Response<Body>, No> {
    *response.status_mut() = StatusCode::ACCEPTED;
    let location = HeaderValue::from_str(&api::run_path(run)).map_err(|error| No::internal("internal", &error))?;
    response.headers_mut().insert(header::LOCATION, location);
    if respond_async {
        response.headers_mut().insert("preference-applied", HeaderValue::from_static("respond-async"));
    }
    Ok(response)
}
