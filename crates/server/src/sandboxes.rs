//! Sandboxes: listed, explained, ended. What a caller sees are those with a workspace of its own tenant; any other is not there.

use crate::answer;
use crate::app::{App, Asked};
use crate::body::Body;
use crate::problem::No;
use crate::query::shown;
use api::{
    ExecExit, Sandbox, SandboxAbout, SandboxCommand, SandboxDetail, SandboxEnd, SandboxEnded, SandboxLimits,
    SandboxList, SandboxShown, SandboxStatus, SandboxUsage, SandboxWall,
};
use domain::record::{Deed, SandboxOpened};
use domain::{Event, Id, id};
use engine::Operation;
use http::Response;
use journal::SessionKey;
use sandbox::{About, Exit, Living, Provider, Wall};
use std::sync::Arc;

/// Sessions, the newest first, whose logs are asked for a sandbox that is no more; and how many of each one's last records.
const SESSIONS_ASKED_MAX: usize = 32;
const RECORDS_ASKED_MAX: usize = 1_000;
/// What a run is told whose sandbox an operator ended.
const ENDED_BY_HAND: &str = "ended by an operator";

/// A sandbox of the caller's tenant that lives.
pub(crate) struct Found {
    pub(crate) provider: Arc<dyn Provider>,
    pub(crate) living: Living,
    pub(crate) session: Id<id::Session>,
}

/// Every sandbox of a tenant that lives.
async fn living(app: &App, tenant: &str) -> Vec<Found> {
    let mut found = Vec::new();
    for provider in app.engine.providers() {
        let living = match provider.living().await {
            Ok(living) => living,
            Err(error) => {
                tracing::warn!(provider = provider.name(), code = error.code(), %error, "what lives is not known");
                continue;
            }
        };
        found.extend(living.into_iter().filter_map(|living| {
            let (owner, session) = living.workspace.clone()?;
            (owner == tenant).then(|| Found { provider: provider.clone(), living, session })
        }));
    }
    found.sort_by_key(|found| std::cmp::Reverse(found.living.age_ms));
    found
}

/// The sandbox that a path names, if it lives.
pub(crate) async fn named(app: &App, asked: &Asked) -> Result<Found, No> {
    let id = sandbox_id(asked)?;
    let found = living(app, &asked.caller.tenant).await.into_iter().find(|found| found.living.id == id);
    found.ok_or_else(|| No::no_sandbox(&id.to_string()))
}

fn sandbox_id(asked: &Asked) -> Result<Id<id::Sandbox>, No> {
    let text = asked.route.parameter();
    text.parse().map_err(|_| No::no_sandbox(&shown(text)))
}

/// Records what a caller is about to do to a sandbox.
pub(crate) async fn operated(
    app: &App,
    asked: &Asked,
    found: &Found,
    deed: Deed,
    detail: Option<&str>,
) -> Result<(), No> {
    let (tenant, principal) = (&*asked.caller.tenant, asked.caller.principal);
    let (session, sandbox) = (found.session, found.living.id);
    match app.engine.operated(Operation { tenant, session, principal, sandbox, deed, detail }).await {
        // It was deleted, and takes its sandbox along.
        Err(engine::Error::NoSuchSession { .. }) => return Err(No::no_sandbox(&sandbox.to_string())),
        recorded => recorded?,
    }
    tracing::info!(target: "operator", %principal, %sandbox, %session, deed = deed.name(), "an operator is at a sandbox");
    Ok(())
}

/// `GET /sandboxes`.
pub(crate) async fn list(app: &App, asked: &Asked) -> Result<Response<Body>, No> {
    let tenant = &*asked.caller.tenant;
    let mut sandboxes = Vec::new();
    for found in living(app, tenant).await {
        sandboxes.push(shown_sandbox(app, tenant, found).await);
    }
    answer::json(200, &SandboxList { sandboxes })
}

/// `GET /sandboxes/{sandbox_id}`.
pub(crate) async fn get(app: &App, asked: &Asked) -> Result<Response<Body>, No> {
    let (sandbox_id, tenant) = (sandbox_id(asked)?, &*asked.caller.tenant);
    let found = living(app, tenant).await.into_iter().find(|found| found.living.id == sandbox_id);
    let Some(found) = found else { return answer::json(200, &ended(app, tenant, sandbox_id).await?) };
    let about = found.living.about.clone().map(shown_about);
    let walls = walls(&found.living.walls.standing, &found.living.walls.missing);
    let living = shown_sandbox(app, tenant, found).await;
    let status = living.status;
    answer::json(200, &SandboxDetail { sandbox_id, status, living: Some(living), about, walls, ended: None })
}

/// `DELETE /sandboxes/{sandbox_id}`.
pub(crate) async fn end(app: &App, asked: &Asked) -> Result<Response<Body>, No> {
    let found = named(app, asked).await?;
    operated(app, asked, &found, Deed::End, None).await?;
    let sandbox_id = found.living.id;
    match found.provider.end(sandbox_id, ENDED_BY_HAND).await {
        // Somebody else was faster: it is gone all the same.
        Ok(()) | Err(sandbox::Error::Gone { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    answer::json(200, &SandboxEnded { sandbox_id, status: SandboxStatus::Gone })
}

async fn shown_sandbox(app: &App, tenant: &str, found: Found) -> Sandbox {
    let Found { living, session, .. } = found;
    let run_id = app.engine.session(tenant, session).await.ok().map(|session| session.last_run);
    let sandbox::Usage { memory_bytes, processes, memory_kills } = living.usage;
    Sandbox {
        sandbox_id: living.id,
        session_id: session,
        run_id,
        status: status(&living),
        age_ms: living.age_ms,
        epoch: living.epoch,
        walls: living.walls.standing,
        missing: living.walls.missing,
        usage: SandboxUsage { memory_bytes, processes, memory_kills },
        limits: living.limits.map(shown_limits),
        commands: living.commands.map(|commands| commands.into_iter().map(shown_command).collect()),
    }
}

const fn status(living: &Living) -> SandboxStatus {
    match (living.is_held, living.is_paused) {
        (true, true) => SandboxStatus::Idle,
        (true, false) => SandboxStatus::Held,
        (false, _) => SandboxStatus::Left,
    }
}

fn shown_limits(limits: sandbox::Limits) -> SandboxLimits {
    let sandbox::Limits {
        memory_bytes_max,
        processes_max,
        cpu_milli_max,
        workspace_bytes_max,
        workspace_inodes_max,
        tmp_bytes_max,
        open_files_max,
        commands_max,
        io_bytes_per_second_max,
        io_operations_per_second_max,
    } = limits;
    SandboxLimits {
        memory_bytes_max,
        processes_max,
        cpu_milli_max,
        workspace_bytes_max,
        workspace_inodes_max,
        tmp_bytes_max,
        open_files_max,
        commands_max: commands_max as u64,
        io_bytes_per_second_max,
        io_operations_per_second_max,
    }
}

fn shown_command(command: sandbox::KeptCommand) -> SandboxCommand {
    let exit = command.exit.map(shown_exit);
    SandboxCommand { name: command.name, terminal: command.terminal, output_bytes: command.to, exit }
}

pub(crate) const fn shown_exit(exit: Exit) -> ExecExit {
    match exit {
        Exit::Code(code) => ExecExit::Code(code),
        Exit::Signal(signal) => ExecExit::Signal(signal),
    }
}

fn shown_about(about: About) -> SandboxAbout {
    let About { root, store, environment, shown } = about;
    let shown = shown.into_iter().map(|shown| SandboxShown { inside: shown.inside, what: shown.what });
    SandboxAbout { root, store, environment, shown: shown.collect() }
}

/// Each wall, with what it is for; one that nobody here knows is told by its name. Also for a program that looks at sandboxes
/// that nobody serves.
pub fn walls(standing: &[String], missing: &[String]) -> Vec<SandboxWall> {
    let told = |name: &String, stands: bool| {
        let (holds, refuses, found) =
            Wall::named(name).map_or(("", "", ""), |wall| (wall.holds, wall.refuses, wall.found));
        let found = if stands { found } else { "it does not stand here, and the configuration does without it" };
        let [holds, refuses, found] = [holds, refuses, found].map(str::to_owned);
        SandboxWall { name: name.clone(), stands, holds, refuses, found }
    };
    let missing = missing.iter().map(|name| told(name, false));
    standing.iter().map(|name| told(name, true)).chain(missing).collect()
}

/// What the log tells of a sandbox that is no more.
async fn ended(app: &App, tenant: &str, sandbox_id: Id<id::Sandbox>) -> Result<SandboxDetail, No> {
    let sessions = app.engine.sessions(tenant, None, SESSIONS_ASKED_MAX).await?;
    for session in sessions.rows {
        let key = SessionKey::new(tenant.to_owned(), session.session);
        let from = session.next_position.saturating_sub(RECORDS_ASKED_MAX as u64);
        let records = app.engine.journal().records(&key, from, RECORDS_ASKED_MAX).await?;
        let mut opened: Option<(SandboxOpened, SandboxEnd)> = None;
        for record in records {
            let decoded = record.decode()?;
            let (position, at_ms) = (record.position, decoded.head.at_ms);
            let end = |run_id, reason| SandboxEnd { session_id: session.session, run_id, reason, position, at_ms };
            match (decoded.event, &mut opened) {
                (Event::SandboxOpened(body), _) if body.sandbox == sandbox_id => {
                    let run = body.run;
                    opened = Some((body, end(run, None)));
                }
                (Event::SandboxClosed(body), Some((_, known))) if body.sandbox == sandbox_id => {
                    *known = end(body.run, Some(body.reason));
                }
                (Event::Operated(body), Some((_, known))) if body.sandbox == sandbox_id && body.deed == Deed::End => {
                    *known = end(body.run, Some(ENDED_BY_HAND.to_owned()));
                }
                _ => {}
            }
        }
        if let Some((body, end)) = opened {
            let walls = walls(&body.walls, &body.missing);
            let (status, ended) = (SandboxStatus::Gone, Some(end));
            return Ok(SandboxDetail { sandbox_id, status, living: None, about: None, walls, ended });
        }
    }
    Err(No::no_sandbox(&sandbox_id.to_string()))
}
