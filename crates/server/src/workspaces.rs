//! The files of sessions: given out as archives, compared, put back.

use crate::answer;
use crate::app::{App, Asked};
use crate::body::{self, Body, Cut};
use crate::handlers::session_id;
use crate::problem::No;
use crate::query::{Query, shown};
use crate::request::required;
use api::{FileDiff, FileState, Problem, Refusal, RestoreWorkspace, RestoredWorkspace, WORKSPACE_MEDIA, WorkspaceDiff};
use domain::{Id, id};
use engine::{Patches, Restoration};
use futures::{StreamExt as _, TryStreamExt as _};
use http::{Response, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use sandbox::{FileKind, Stat};
use std::io;

const CHECKPOINT: &str = "the id of a checkpoint, such as `GET /sessions/{session}/checkpoints` lists";

/// `GET /sessions/{session}/workspace`.
pub(crate) async fn get(app: &App, asked: &Asked) -> Result<Response<Body>, No> {
    let query = Query::parse(asked.route.endpoint, asked.parts.uri.query())?;
    let checkpoint: Option<Id<id::Checkpoint>> = query.value("checkpoint", CHECKPOINT)?;
    let archive = app.engine.workspace(&asked.caller.tenant, named(asked)?, checkpoint).await;
    let archive = archive.map_err(|error| missing(asked, error))?;
    let pieces = archive.pieces.map(|piece| piece.map_err(|error| Cut(error.to_string()))).boxed();
    Ok(answer::stream(WORKSPACE_MEDIA, Body::Pieces { pieces, bytes: Some(archive.bytes) }))
}

/// `GET /sessions/{session}/workspace/diff`.
pub(crate) async fn diff(app: &App, asked: &Asked) -> Result<Response<Body>, No> {
    let query = Query::parse(asked.route.endpoint, asked.parts.uri.query())?;
    let ends = [query.value("from", CHECKPOINT)?, query.value("to", CHECKPOINT)?];
    let patches = match query.value("patch", "`true` or `false`")? {
        Some(true) => Patches::Wanted,
        Some(false) | None => Patches::Unwanted,
    };
    let diff = app.engine.workspace_diff(&asked.caller.tenant, named(asked)?, ends, patches).await;
    let diff = diff.map_err(|error| missing(asked, error))?;
    let file = |file: engine::FileDiff| FileDiff {
        path: file.path,
        before: file.before.map(state),
        after: file.after.map(state),
        patch: file.patch,
    };
    let files = diff.files.into_iter().map(file).collect();
    answer::json(200, &WorkspaceDiff { from: diff.from, to: diff.to, files, unlisted: diff.unlisted })
}

/// `POST /sessions/{session}/workspace/restore`.
pub(crate) async fn restore(app: &App, asked: &Asked, body: Incoming) -> Result<Response<Body>, No> {
    let session = named(asked)?;
    let bytes = body::read(body, &app.config.limits).await?;
    let RestoreWorkspace { checkpoint_id } = required(&asked.parts.headers, &bytes)?;
    put_back(app, asked, session, Restoration::Checkpoint(checkpoint_id)).await
}

/// `POST /sessions/{session}/workspace`.
pub(crate) async fn put(app: &App, asked: &Asked, body: Incoming) -> Result<Response<Body>, No> {
    let session = named(asked)?;
    let media = asked.parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !media.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(WORKSPACE_MEDIA) {
        let message = format!("the body's type is `{}`; expected {WORKSPACE_MEDIA}", shown(media));
        return Err(No::refused(Refusal::MediaTypeUnsupported, &message));
    }
    // What it may hold, and how long it may take, whoever unpacks it says.
    let archive = body.into_data_stream().map_err(io::Error::other).boxed();
    put_back(app, asked, session, Restoration::Archive(archive)).await
}

async fn put_back(
    app: &App,
    asked: &Asked,
    session: Id<id::Session>,
    restoration: Restoration,
) -> Result<Response<Body>, No> {
    let (tenant, principal) = (&asked.caller.tenant, asked.caller.principal);
    let restored = app.engine.workspace_restore(tenant, session, principal, restoration).await;
    let engine::RestoredView { checkpoint, bytes, entries, at } = restored.map_err(|error| missing(asked, error))?;
    answer::json(200, &RestoredWorkspace { checkpoint_id: checkpoint, bytes, entries, at })
}

fn named(asked: &Asked) -> Result<Id<id::Session>, No> {
    session_id(&asked.caller.tenant, asked.route.parameter())
}

/// A session that is not there is named as the client named it; an archive that is refused is the client's affair.
fn missing(asked: &Asked, error: engine::Error) -> No {
    match error {
        engine::Error::NoSuchSession { .. } => No::no_session(&shown(asked.route.parameter())),
        engine::Error::Workspace(error @ sandbox::Error::Archive { .. }) => {
            No::told(Problem::new(error.code(), 422, "The archive is refused", &error.to_string()))
        }
        engine::Error::Workspace(error) => error.into(),
        error => error.into(),
    }
}

fn state(stat: Stat) -> FileState {
    let kind = match stat.kind {
        FileKind::File => "file",
        FileKind::Directory => "directory",
        FileKind::Link => "link",
        FileKind::Other => "other",
    };
    FileState { kind: kind.to_owned(), bytes: stat.bytes, mode: format!("{:04o}", stat.mode) }
}
