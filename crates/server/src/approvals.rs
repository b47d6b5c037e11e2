//! Calls that wait for approval: listed, shown, voted on.

use crate::answer;
use crate::app::{App, Asked, Told};
use crate::body::{self, Body};
use crate::problem::No;
use crate::query::{Query, shown};
use crate::request::{idempotency, required};
use crate::resolve;
use api::{Approval, ApprovalList, ApprovalStatus, PostApproval, Text};
use domain::{Id, id};
use engine::{ApprovalCursor, ApprovalView, Ballot};
use http::Response;
use hyper::body::Incoming;

/// `GET /approvals`.
pub(crate) async fn list(app: &App, asked: &Asked) -> Result<Response<Body>, No> {
    let query = Query::parse(asked.route.endpoint, asked.parts.uri.query())?;
    let after = query.text("cursor").map(cursor).transpose()?;
    let page = app.engine.approvals(&asked.caller.tenant, after, query.limit()?).await?;
    let next = page.next.map(|cursor| format!("{}-{}", cursor.since_ms, cursor.call));
    answer::json(200, &ApprovalList { approvals: page.rows.into_iter().map(shown_approval).collect(), next })
}

fn cursor(text: &str) -> Result<ApprovalCursor, No> {
    let parsed = text.split_once('-').and_then(|(since_ms, call)| {
        Some(ApprovalCursor { since_ms: since_ms.parse().ok()?, call: call.parse().ok()? })
    });
    parsed.ok_or_else(|| No::invalid("query parameter `cursor` is malformed; expected the `next` of a page"))
}

/// `GET /approvals/{call_id}`.
pub(crate) async fn get(app: &App, asked: &Asked) -> Result<Told, No> {
    let call = call_id(asked.route.parameter())?;
    let view = app.engine.approval(&asked.caller.tenant, call).await?;
    let run = view.run;
    Ok(Told::about(answer::json(200, &shown_approval(view))?, run))
}

/// `POST /approvals/{call_id}`.
pub(crate) async fn vote(app: &App, asked: &Asked, body: Incoming) -> Result<Told, No> {
    let call = call_id(asked.route.parameter())?;
    let bytes = body::read(body, &app.config.limits).await?;
    let request: PostApproval = required(&asked.parts.headers, &bytes)?;
    let once = idempotency(asked, &request)?;
    let PostApproval { vote, reason, binding } = request;
    let ballot = Ballot { vote, reason, binding };
    let voter = asked.caller.voter();
    let view = app.engine.vote(&asked.caller.tenant, call, voter, ballot, once).await?;
    let run = view.run;
    Ok(Told::about(answer::json(200, &shown_approval(view))?, run))
}

fn call_id(text: &str) -> Result<Id<id::Call>, No> {
    text.parse().map_err(|_| No::no_approval(&shown(text)))
}

fn shown_approval(view: ApprovalView) -> Approval {
    let status = match view.status {
        engine::ApprovalStatus::Waiting => ApprovalStatus::Waiting,
        engine::ApprovalStatus::Approved => ApprovalStatus::Approved,
        engine::ApprovalStatus::Rejected => ApprovalStatus::Rejected,
        engine::ApprovalStatus::Expired => ApprovalStatus::Expired,
    };
    let arguments = match &view.arguments {
        Some(arguments) => resolve::cut(arguments),
        None => Text { erased: true, ..Text::default() },
    };
    Approval {
        call_id: view.call,
        status,
        run_id: view.run,
        session_id: view.session,
        agent: view.agent,
        tool: view.tool,
        arguments,
        requester: view.requester,
        since_ms: view.since_ms,
        expires_ms: view.expires_ms,
        quorum: view.quorum,
        approvals: view.approvals,
        binding: view.binding,
        hold: view.hold,
        reason: view.reason,
        policies: view.policies,
        pack: view.pack,
        scope: view.scope,
    }
}
