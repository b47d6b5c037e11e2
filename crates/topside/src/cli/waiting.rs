//! `topside approvals`, and what a run that waits is told to wait for, with the commands that let it go on.

use super::Session;
use super::arguments::Approvals;
use super::clean::clean;
use super::ending::{Ending, Trouble};
use super::log::time;
use super::run::json_line;
use super::service::{Purpose, Service};
use super::summary::quoted;
use api::{Approval, Run};
use client::Client;
use domain::Wait;
use std::fmt::Write;
use topside::App;

/// Characters of a call's arguments that are shown.
const ARGUMENTS_CHARACTERS_MAX: usize = 2_000;

pub(crate) async fn approvals(session: Session, arguments: Approvals) -> Result<Ending, Trouble> {
    let (console, service) = Service::reach(session, &arguments.target, Purpose::Look).await?;
    let listed = all(service.client()).await.map(|approvals| {
        for approval in &approvals {
            match arguments.json {
                true => json_line(&console, &serde_json::json!({ "approval": approval })),
                false => console.data(&told(approval)),
            }
        }
        if approvals.is_empty() && !arguments.json {
            console.talk_line("no call waits for approval");
        }
        Ending::Done
    });
    service.end(listed).await
}

async fn all(client: &Client) -> Result<Vec<Approval>, Trouble> {
    let (mut approvals, mut cursor) = (Vec::new(), None);
    loop {
        let page = client.approvals(cursor.as_deref(), None).await?;
        approvals.extend(page.approvals);
        cursor = page.next;
        if cursor.is_none() {
            return Ok(approvals);
        }
    }
}

/// A call that waits, as people read it.
fn told(approval: &Approval) -> String {
    let Approval { call_id, run_id, agent, requester, since_ms, expires_ms, quorum, approvals, .. } = approval;
    let mut out = format!("{call_id}  {}\n", call_told(approval));
    let _ = writeln!(out, "      run: {run_id}, agent {}, asked for by {requester}", clean(agent));
    let _ = writeln!(out, "      since {}, until {}", time(*since_ms), time(*expires_ms));
    let _ = writeln!(out, "      approvals: {} of {quorum}", approvals.len());
    out
}

/// The call itself.
pub(crate) fn call_told(approval: &Approval) -> String {
    let arguments = approval.arguments.text.as_deref().unwrap_or("(erased)").replace('\n', " ");
    let mut shown: String = arguments.chars().take(ARGUMENTS_CHARACTERS_MAX).collect();
    if shown.len() < arguments.len() || approval.arguments.cut {
        shown.push('…');
    }
    clean(&format!("{} {shown}", approval.tool)).into_owned()
}

/// What a run waits for, and what lets it go on; empty when it does not wait.
pub(crate) async fn waits_told(app: &App, run: &Run) -> Result<String, Trouble> {
    let mut out = String::new();
    let Some(waits_for) = run.waits_for else { return Ok(out) };
    let (id, place) = (run.run_id, place(app));
    match waits_for {
        Wait::Approval => {
            for call in &run.approvals {
                let approval = app.client().approval(*call).await?;
                let until = time(approval.expires_ms);
                let _ = writeln!(out, "waits for approval, until {until}: {}", call_told(&approval));
                let _ = writeln!(out, "  topside approve {call}{place}");
                let _ = writeln!(out, "  topside reject {call}{place}");
            }
        }
        Wait::Resolution => {
            for call in &run.in_doubt {
                let _ = writeln!(out, "nobody knows whether {call} took effect: look, then say what became of it");
                let _ = writeln!(out, "  topside resolve {id} {call} --happened RESULT{place}");
                let _ = writeln!(out, "  topside resolve {id} {call} --did-not-happen{place}");
            }
        }
        Wait::Budget => {
            let _ = writeln!(out, "waits for a higher limit, or its end");
            let _ = writeln!(out, "  topside raise {id} --turns N --tool-calls N --tokens N{place}");
            let _ = writeln!(out, "  topside cancel {id}{place}");
        }
        Wait::Resume => {
            let _ = writeln!(out, "is paused");
            let _ = writeln!(out, "  topside resume {id}{place}");
        }
        Wait::Retry => {
            let at = run.waits_until_ms.map(time).unwrap_or_default();
            let _ = writeln!(out, "what failed is tried again at {at}, when a process is there to do it");
            let _ = writeln!(out, "  topside resume{place}");
        }
    }
    Ok(out)
}

/// The options that name this project and data directory again.
fn place(app: &App) -> String {
    let mut out = String::new();
    if app.project() != std::path::Path::new(".") {
        let _ = write!(out, " --project {}", quoted(app.project()));
    }
    if !app.has_own_data() {
        let _ = write!(out, " --data {}", quoted(app.data().path()));
    }
    out
}
