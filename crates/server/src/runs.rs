//! Runs: asked for, looked at, listed, cancelled.

use crate::app::{App, Asked, Told};
use crate::body::Body;
use crate::handlers::{accepted, run_id, session_id};
use crate::problem::No;
use crate::query::{Prefer, Query, shown};
use crate::request::{idempotency, required};
use crate::wishes::limits;
use crate::{answer, artifacts};
use api::{ArtifactList, Callback, PostRun, Run, RunList};
use domain::record::Save;
use domain::{Id, RunStatus, id};
use engine::{RunView, SessionName, Submission};
use http::Response;
use journal::{RunFilter, SessionKey};
use std::time::Duration;

/// `POST /runs`.
pub(crate) async fn post(app: &App, asked: &Asked, body: &[u8]) -> Result<Told, No> {
    let headers = &asked.parts.headers;
    let request: PostRun = required(headers, body)?;
    let prefer = Prefer::parse(headers);
    let submission = submission(app, asked, request).await?;
    let ticket = app.engine.submit(submission).await?;
    let tenant = &asked.caller.tenant;
    let at_most = if prefer.respond_async {
        Duration::ZERO
    } else {
        let limit = app.config.limits.wait_seconds_max;
        Duration::from_secs(prefer.wait_seconds.map_or(limit, |seconds| seconds.min(limit)))
    };
    let view = waited(app, tenant, ticket.run, at_most).await.map_err(|no| no.about(ticket.run))?;
    let ended = view.status.is_end();
    let response = answer::json(200, &shown_run(app, asked, view).await?)?;
    let response = if ended { response } else { accepted(response, ticket.run, prefer.respond_async)? };
    Ok(Told::about(response, ticket.run))
}

/// The run at its end, or as it stands after `at_most` or when the service shuts down.
async fn waited(app: &App, tenant: &str, run: Id<id::Run>, at_most: Duration) -> Result<RunView, No> {
    if at_most.is_zero() {
        return Ok(app.engine.run(tenant, run).await?);
    }
    let mut draining = app.draining.clone();
    let drained = async { drop(draining.wait_for(|draining| *draining).await) };
    tokio::select! {
        view = app.engine.wait(tenant, run, at_most) => return Ok(view?),
        () = drained => {}
    }
    Ok(app.engine.run(tenant, run).await?)
}

async fn submission(app: &App, asked: &Asked, request: PostRun) -> Result<Submission, No> {
    let tenant = &asked.caller.tenant;
    let idempotency = idempotency(asked, &request)?;
    let session = match request.session.as_deref() {
        None => SessionName::New,
        Some(text) => SessionName::parse(text).ok_or_else(|| {
            No::invalid(&format!(
                "the body: `session` is `{}`; expected an id, or a name of 1 to {} printable characters without space",
                shown(text),
                SessionName::NAME_BYTES_MAX
            ))
        })?,
    };
    if let SessionName::Id(id) = &session {
        // An id is made here; one that is not there is a mistake, not a wish for a new session.
        let key = SessionKey::new(tenant.clone(), *id);
        app.engine.journal().session(&key).await?.ok_or_else(|| No::no_session(&id.to_string()))?;
    }
    Ok(Submission {
        tenant: tenant.to_string(),
        principal: asked.caller.principal,
        session,
        agent: request.agent,
        message: request.message,
        limits: request.limits.as_ref().map(limits).unwrap_or_default(),
        callback: request
            .callback
            .map(|Callback { url, events }| engine::Callback { url, events: events.unwrap_or_default() }),
        save: if request.save_artifact { Save::Reply } else { Save::Declared },
        idempotency,
    })
}

/// `GET /runs/{run_id}`.
pub(crate) async fn get(app: &App, asked: &Asked) -> Result<Told, No> {
    let run = run_id(asked.route.parameter())?;
    let view = app.engine.run(&asked.caller.tenant, run).await?;
    Ok(Told::about(answer::json(200, &shown_run(app, asked, view).await?)?, run))
}

/// `GET /runs/{run_id}/artifacts`.
pub(crate) async fn artifacts(app: &App, asked: &Asked) -> Result<Told, No> {
    let run = run_id(asked.route.parameter())?;
    let view = app.engine.run(&asked.caller.tenant, run).await?;
    let artifacts = shown_run(app, asked, view).await?.artifacts;
    Ok(Told::about(answer::json(200, &ArtifactList { artifacts })?, run))
}

/// `GET /runs`.
pub(crate) async fn list(app: &App, asked: &Asked) -> Result<Response<Body>, No> {
    let query = Query::parse(asked.route.endpoint, asked.parts.uri.query())?;
    let tenant = &asked.caller.tenant;
    let filter = RunFilter {
        session: query.text("session").map(|text| session_id(tenant, text)).transpose()?,
        status: query.text("status").map(status).transpose()?,
        agent: query.text("agent").map(str::to_owned),
    };
    let before = query.value("cursor", "the `next` of a page")?;
    let page = app.engine.runs(tenant, filter, before, query.limit()?).await?;
    let mut runs = Vec::with_capacity(page.rows.len());
    for view in page.rows {
        runs.push(shown_run(app, asked, view).await?);
    }
    answer::json(200, &RunList { runs, next: page.next.map(|run| run.to_string()) })
}

fn status(text: &str) -> Result<RunStatus, No> {
    RunStatus::ALL.iter().copied().find(|status| status.name() == text).ok_or_else(|| {
        let known = RunStatus::ALL.iter().map(|status| status.name()).collect::<Vec<_>>().join(", ");
        No::invalid(&format!("query parameter `status` is `{}`; expected one of {known}", shown(text)))
    })
}

/// A run as the wire shows it, with links to its files.
pub(crate) async fn shown_run(app: &App, asked: &Asked, view: RunView) -> Result<Run, No> {
    let base = app.base(asked.entry, &asked.parts.headers);
    let artifacts = artifacts::linked(app, &base, view.artifacts).await?;
    Ok(Run {
        run_id: view.run,
        session: view.session_name.unwrap_or_else(|| view.session.to_string()),
        agent: view.agent,
        status: view.status,
        waits_for: view.waits_for,
        waits_until_ms: view.waits_until_ms,
        approvals: view.approvals,
        in_doubt: view.in_doubt,
        reply: view.reply,
        error: view.failure.map(Into::into),
        used_sandbox: view.used_sandbox,
        artifact_url: artifacts.first().map(|artifact| artifact.url.clone()),
        artifacts,
        turns: view.turns,
        tool_calls: view.tool_calls,
        usage: view.usage.into(),
        cost: view.cost.into(),
        attempts: view.attempts,
        no_progress_seconds: view.no_progress_ms.map(|ms| ms / 1_000),
        created_ms: view.created_ms,
        finished_ms: view.finished_ms,
    })
}
