//! Each operation of the contract to its handler; the small ones are here.

use crate::app::{App, Asked, Told};
use crate::body::{self, Body};
use crate::problem::No;
use crate::query::shown;
use crate::{
    answer, approvals, artifacts, compare, events, exec, ports, runs, sandboxes, sessions, wishes, workspaces,
};
use api::{Backends, Health, Operation, Ready, Refusal};
use domain::{Id, id};
use engine::SessionName;
use http::{HeaderValue, Response, StatusCode, header};
use hyper::body::Incoming;
use journal::Backend;
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
        Operation::GetArtifact => artifacts::get(&app, asked.route.parameter()).await.map(Told::from),
        Operation::RunDeliveries => compare::deliveries(&app, &asked).await,
        Operation::ReplayRun => compare::replay(&app, &asked).await,
        Operation::DiffRuns => compare::diff(&app, &asked).await,
        Operation::CancelRun
        | Operation::PauseRun
        | Operation::ResumeRun
        | Operation::SteerRun
        | Operation::RaiseRun
        | Operation::ResolveCall => Box::pin(wishes::wish(&app, &asked, body)).await,
        Operation::ListApprovals => approvals::list(&app, &asked).await.map(Told::from),
        Operation::GetApproval => approvals::get(&app, &asked).await,
        Operation::PostApproval => Box::pin(approvals::vote(&app, &asked, body)).await,
        Operation::ListSessions => sessions::list(&app, &asked).await.map(Told::from),
        Operation::GetSession => sessions::get(&app, &asked).await.map(Told::from),
        Operation::ListCheckpoints => sessions::checkpoints(&app, &asked).await.map(Told::from),
        Operation::ForkSession => Box::pin(sessions::fork(&app, &asked, body)).await,
        Operation::QuarantineSession => sessions::quarantine(&app, &asked, body).await.map(Told::from),
        Operation::ReleaseSession => sessions::release(&app, &asked).await.map(Told::from),
        Operation::GetWorkspace => workspaces::get(&app, &asked).await.map(Told::from),
        Operation::DiffWorkspace => Box::pin(workspaces::diff(&app, &asked)).await.map(Told::from),
        Operation::RestoreWorkspace => Box::pin(workspaces::restore(&app, &asked, body)).await.map(Told::from),
        Operation::PutWorkspace => Box::pin(workspaces::put(&app, &asked, body)).await.map(Told::from),
        Operation::PurgeSession => sessions::purge(&app, &asked).await.map(Told::from),
        Operation::ListSandboxes => sandboxes::list(&app, &asked).await.map(Told::from),
        Operation::GetSandbox => sandboxes::get(&app, &asked).await.map(Told::from),
        Operation::EndSandbox => sandboxes::end(&app, &asked).await.map(Told::from),
        Operation::ExecSandbox => Box::pin(exec::exec(app, asked)).await,
        Operation::LinkPort => Box::pin(ports::link(&app, &asked, body)).await.map(Told::from),
        Operation::Port => Box::pin(ports::carry(app, asked, body)).await,
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
        Operation::ErrorPage => error_page(&app, asked.route.parameter()).map(Told::from),
    }
}

fn health(app: &App) -> Result<Response<Body>, No> {
    let health = app.engine.health();
    let reason = health.ready.err();
    let journal = app.engine.journal();
    // What is wired and out of reach is not there.
    let is_reached = !matches!(journal.health().error, Some(journal::Error::Unreachable { .. }));
    let postgres = journal.backend() == Backend::Postgres && is_reached;
    let answer = Health {
        status: if reason.is_none() { "ok" } else { "degraded" }.into(),
        model: health.model,
        backends: Backends { postgres, sandbox: health.sandbox, r2: app.engine.blobs().is_remote() },
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
