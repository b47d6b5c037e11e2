//! Ends a run: keeps its files, closes its sandbox, says how it ended.

use crate::driver::{Done, Driver};
use crate::engine::Inner;
use crate::facts::Fact;
use crate::slot::{self, Slot};
use crate::{ArtifactView, Error, RunView, idle, prompt};
use bytes::Bytes;
use domain::content::media;
use domain::record::{ArtifactSaved, Changed, FileChange, Finished, SandboxClosed, Save, WorkspaceChanged};
use domain::{Event, Failure, Id, RunStatus, Usage, Wait, id};
use futures::future::BoxFuture;
use journal::SessionKey;
use machine::{Files, Run, Session, Stamp};
use sandbox::RelPath;
use std::sync::Arc;

/// Files that a record of a run's changes lists.
const CHANGES_MAX: usize = 1_000;

/// A file that was kept.
struct Kept {
    artifact: Id<id::Artifact>,
    name: String,
    media: &'static str,
    bytes: u64,
    object: String,
}

/// A run whose end was prepared.
pub(crate) struct Finishing {
    run: Id<id::Run>,
    status: RunStatus,
    failure: Option<Failure>,
    kept: Vec<Kept>,
    changes: Vec<FileChange>,
    /// Why the sandbox is this run's no more.
    let_go: &'static str,
}

/// The last word on a run.
pub(crate) fn finished(run: &Run, spent: Usage, status: RunStatus, failure: Option<Failure>) -> Finished {
    Finished {
        run: run.id,
        status,
        reply: run.root().reply.clone().filter(|_| status == RunStatus::Completed),
        failure,
        turns: run.root().turn,
        tool_calls: run.root().tool_calls,
        usage: run.root().usage.plus(spent),
        cost: run.root().cost,
        used_sandbox: run.used_sandbox,
    }
}

impl Driver {
    /// Whether ending this run takes work: files to keep, a sandbox to close.
    pub(crate) fn has_to_clear(&self, run: &Run) -> bool {
        run.used_sandbox || self.state.sandbox.is_some() || run.save == Save::Reply || self.slot.is_wanted()
    }

    /// A future that keeps a run's files and closes its sandbox.
    pub(crate) fn finish(
        &self,
        id: Id<id::Run>,
        status: RunStatus,
        failure: Option<Failure>,
    ) -> BoxFuture<'static, Done> {
        let (inner, key, slot) = (self.inner.clone(), self.key.clone(), self.slot.clone());
        let run = self.state.run.clone().filter(|run| run.id == id);
        let names = self.ready_of(None).map(|ready| ready.closure.agent.artifacts.clone()).unwrap_or_default();
        // A run that waited let its sandbox go; the files that it is to leave are still in the workspace.
        let reopens = status == RunStatus::Completed
            && run.as_ref().is_some_and(|run| run.used_sandbox)
            && !names.is_empty()
            && matches!(self.state.files, Files::Kept { .. } | Files::InSnapshot);
        let keeps = idle::kept(&inner, |settings| settings.keep_idle_ms).is_some();
        Box::pin(async move {
            let mut kept = Vec::new();
            let mut failure = failure;
            let mut status = status;
            if reopens && let Err(error) = slot.get().await {
                failure = Some(Failure::new(domain::FailureClass::Sandbox, error.code(), error.to_string()));
                status = RunStatus::Failed;
            }
            if let Some(run) = run {
                match keep(&inner, &key, &slot, &run, status, &names).await {
                    Ok(files) => kept = files,
                    Err(error) if status == RunStatus::Completed => {
                        // The run would be reported as done while what it was to leave behind is not there.
                        failure = Some(Failure::new(domain::FailureClass::Dependency, error.code(), error.to_string()));
                        status = RunStatus::Failed;
                    }
                    Err(error) => {
                        tracing::warn!(run_id = %run.id, code = error.code(), %error, "artifacts were not kept")
                    }
                }
            }
            let changes = changes(&slot).await;
            let stands = keeps && status == RunStatus::Completed && idle::rests(&inner, &slot).await;
            if !stands {
                slot.close().await;
            }
            let let_go = if stands { "idle" } else { "run_ended" };
            Done::Finished(Box::new(Finishing { run: id, status, failure, kept, changes, let_go }))
        })
    }

    /// Records the end of a run.
    pub(crate) fn finished(&mut self, finishing: Finishing) -> Result<(), Error> {
        let Finishing { run: id, status, failure, kept, mut changes, let_go } = finishing;
        let Some(run) = self.state.run.clone().filter(|run| run.id == id) else { return Ok(()) };
        let stamp = self.stamp();
        if !changes.is_empty() {
            let unlisted = changes.len().saturating_sub(CHANGES_MAX) as u64;
            changes.truncate(CHANGES_MAX);
            let json = serde_json::to_vec(&changes).map_err(domain::record::Error::Form)?;
            let (files, item) = self.sealer.seal(media::JSON, &json)?;
            let event = Event::WorkspaceChanged(WorkspaceChanged { run: id, files, unlisted });
            self.pending.push(Fact { stamp, event, contents: vec![item], may_linger: false });
        }
        for Kept { artifact, name, media, bytes, object } in kept {
            let (name, item) = self.sealer.seal(media::TEXT, name.as_bytes())?;
            let media = media.to_owned();
            let event = Event::ArtifactSaved(ArtifactSaved { run: id, artifact, name, media, bytes, object });
            self.pending.push(Fact { stamp, event, contents: vec![item], may_linger: false });
        }
        if let Some(sandbox) = self.state.sandbox {
            let event = Event::SandboxClosed(SandboxClosed { run: id, sandbox, reason: let_go.into() });
            self.pending.push(Fact::bare(stamp, event));
        }
        let event = Event::Finished(finished(&run, self.spent, status, failure));
        self.pending.push(Fact::bare(stamp, event));
        Ok(())
    }

    /// Tells those who wait for a run that it ended. `before` is the session as it stood until then.
    pub(crate) async fn tell_end(&mut self, before: &Session, stamp: Stamp, body: &Finished) {
        let inner = self.inner.clone();
        let (run, status) = (body.run, body.status);
        let (tokens, turns, calls) = (body.usage.total_tokens(), body.turns, body.tool_calls);
        let code = body.failure.as_ref().map(|failure| failure.code.as_str());
        tracing::info!(run_id = %run, session_id = %self.key.session, %status, code, turns, calls, tokens, "run ended");
        inner.tally.ended(body);
        if !inner.ends.awaited(run) {
            return;
        }
        match self.end_view(before, stamp, body).await {
            Ok(view) => inner.ends.tell(Arc::new(view)),
            // Those who wait ask again when their time is over.
            Err(error) => {
                tracing::error!(run_id = %run, code = error.code(), %error, "the end of a run can't be shown")
            }
        }
    }

    /// Tells those who wait for a run that it waits itself: nothing more comes before somebody does something.
    pub(crate) async fn tell_parked(&mut self, run: Id<id::Run>) {
        if !self.inner.ends.awaited(run) {
            return;
        }
        match self.inner.view(&self.key.tenant, run).await {
            Ok(view) => self.inner.ends.tell(Arc::new(view)),
            Err(error) => {
                tracing::error!(run_id = %run, code = error.code(), %error, "a run that waits can't be shown")
            }
        }
    }

    /// A run that has just ended, from what this driver still knows of it; read back only where it does not.
    async fn end_view(&mut self, before: &Session, stamp: Stamp, body: &Finished) -> Result<RunView, Error> {
        let known = before.run.as_ref().filter(|run| run.id == body.run);
        let plain = known.filter(|run| !run.used_sandbox && run.save == Save::Declared);
        let Some((run, attempts)) = plain.zip(self.attempts) else {
            return self.inner.view(&self.key.tenant, body.run).await;
        };
        let journal = &self.inner.parts.journal;
        let session_name = match &before.name {
            None => None,
            Some(name) => match &*self.memory.parts_of(journal, &self.key, name).await? {
                [domain::Part::Text { text }] => Some(text.clone()),
                _ => None,
            },
        };
        let reply = match &body.reply {
            None => None,
            Some(content) => Some(prompt::text_of(&self.memory.items_of(journal, &self.key, content).await?)),
        };
        Ok(RunView {
            run: run.id,
            session: self.key.session,
            session_name,
            agent: run.root().agent.clone(),
            principal: run.principal,
            status: body.status,
            waits_for: None,
            waits_until_ms: None,
            approvals: Vec::new(),
            in_doubt: Vec::new(),
            reply,
            failure: body.failure.clone(),
            used_sandbox: body.used_sandbox,
            turns: body.turns,
            tool_calls: body.tool_calls,
            usage: body.usage,
            cost: body.cost,
            attempts: Some(attempts.count()),
            no_progress_ms: None,
            artifacts: Vec::new(),
            created_ms: run.created_ms,
            finished_ms: Some(stamp.at_ms),
        })
    }
}

async fn keep(
    inner: &Inner,
    key: &SessionKey,
    slot: &Slot,
    run: &Run,
    status: RunStatus,
    names: &[String],
) -> Result<Vec<Kept>, Error> {
    let mut kept = Vec::new();
    if run.save == Save::Reply
        && status == RunStatus::Completed
        && let Some(content) = &run.root().reply
        && let Some(text) = inner.reply_of(key, content).await?
    {
        kept.push(put(inner, key, run, "reply.md", text.into()).await?);
    }
    let Some(sandbox) = slot.ready() else { return Ok(kept) };
    for name in names {
        let Ok(path) = name.parse::<RelPath>() else { continue };
        let bytes_max = inner.parts.limits.artifact_bytes_max;
        match sandbox.read(&path, 0, bytes_max + 1).await {
            Ok(bytes) if bytes.len() as u64 > bytes_max => {
                tracing::warn!(run_id = %run.id, bytes_max, "an artifact is too large and was not kept");
            }
            Ok(bytes) => kept.push(put(inner, key, run, name, bytes).await?),
            Err(sandbox::Error::File { missing: true, .. }) => {}
            Err(error) => tracing::warn!(run_id = %run.id, code = error.code(), %error, "an artifact was not kept"),
        }
    }
    Ok(kept)
}

/// What the run changed in its workspace, by path.
async fn changes(slot: &Slot) -> Vec<FileChange> {
    let Some(sandbox) = slot.ready() else { return Vec::new() };
    let (mut before, after) = (slot.before(), slot::listing(sandbox.as_ref()).await);
    let mut changes = Vec::new();
    for (path, stat) in after {
        let change = match before.remove(&path) {
            Some(old) if old == stat => continue,
            Some(_) => Changed::Modified,
            None => Changed::Added,
        };
        changes.push(FileChange { path: path.to_string(), change, bytes: stat.bytes });
    }
    let gone = |path: sandbox::RelPath| FileChange { path: path.to_string(), change: Changed::Removed, bytes: 0 };
    changes.extend(before.into_keys().map(gone));
    changes
}

async fn put(inner: &Inner, key: &SessionKey, run: &Run, name: &str, bytes: Bytes) -> Result<Kept, Error> {
    let artifact: Id<id::Artifact> = inner.id();
    let object = format!("outputs/{}/{}/{artifact}", key.tenant, run.id);
    let length = bytes.len() as u64;
    inner
        .parts
        .blobs
        .put(&object.parse().map_err(crate::ready::objects)?, bytes)
        .await
        .map_err(crate::ready::objects)?;
    Ok(Kept { artifact, name: name.to_owned(), media: media_of(name), bytes: length, object })
}

/// The media type of a file by its name. What it says is never trusted by a browser: artifacts are served as downloads.
fn media_of(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, extension)| extension) {
        Some("md") => "text/markdown; charset=utf-8",
        Some("txt" | "log" | "diff" | "patch") => "text/plain; charset=utf-8",
        Some("csv") => "text/csv; charset=utf-8",
        Some("html") => "text/html; charset=utf-8",
        Some("json") => "application/json",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("jpg" | "jpeg") => "image/jpeg",
        Some("pdf") => "application/pdf",
        _ => "application/octet-stream",
    }
}

impl ArtifactView {
    /// A kept file, as it is shown.
    pub(crate) fn of(row: &journal::ArtifactRow, name: String) -> Self {
        let (media, bytes, object) = (row.media.clone(), row.bytes, row.object.clone());
        Self { artifact: row.artifact, name, media, bytes, object }
    }
}

impl RunView {
    /// Whether nothing more will happen.
    pub const fn is_end(&self) -> bool {
        self.status.is_end()
    }

    /// Whether nothing more will happen before somebody does something.
    pub const fn rests(&self) -> bool {
        match self.waits_for {
            Some(Wait::Retry) => false,
            Some(_) => true,
            None => self.status.is_end(),
        }
    }
}
