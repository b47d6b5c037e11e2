//! Keeps the workspace as it stands at the end of a turn, and brings it back where it is gone.

use crate::driver::{Done, Driver};
use crate::engine::Inner;
use crate::facts::Fact;
use crate::liveness::Pulse;
use domain::agent::Checkpoint;
use domain::record::{Checkpointed, Snapshot};
use domain::{Event, Failure, FailureClass, Id, id};
use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt};
use journal::SessionKey;
use parking_lot::Mutex;
use sandbox::archive::{self, Archive, ArchiveLimits};
use sandbox::{Error, Sandbox};
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// The form in which workspaces are kept: a manifest of chunks, which checkpoints of a tenant share.
const FORM: &str = "chunks/1";
/// The form of earlier checkpoints: the archive as one object.
const FORM_WHOLE: &str = "tar";
/// Attempts to store one checkpoint.
const STORE_ATTEMPTS_MAX: u32 = 5;
/// The wait between two of them, times the number of the attempt.
const STORE_RETRY_MS: u64 = 1_000;

/// What keeping a workspace came to.
pub(crate) struct Kept {
    turn: u32,
    outcome: Result<Snapshot, Unkept>,
}

enum Unkept {
    /// The agent's declaration says that it is not to be.
    Undeclared,
    /// It is beyond what is kept: the run goes on without.
    TooLarge,
    Sandbox(Error),
    Objects(chunks::Error),
}

impl Driver {
    /// A future that keeps the workspace.
    pub(crate) fn keep(&self, turn: u32) -> BoxFuture<'static, Done> {
        let (inner, key, slot) = (self.inner.clone(), self.key.clone(), self.slot.clone());
        let (pulse, before) = (self.pulse.clone(), self.base.snapshot.clone());
        let declared = self
            .ready_of(None)
            .and_then(|ready| ready.closure.agent.sandbox.as_ref().map(|sandbox| sandbox.checkpoint));
        if declared == Some(Checkpoint::Never) {
            let kept = Kept { turn, outcome: Err(Unkept::Undeclared) };
            return Box::pin(std::future::ready(Done::Kept(kept)));
        }
        Box::pin(async move {
            let outcome = match slot.get().await {
                Ok(sandbox) => store(&inner, &key, &pulse, sandbox.as_ref(), before.as_ref()).await,
                Err(error) => Err(Unkept::Sandbox(error)),
            };
            stdx::points::reach("checkpoint.put");
            Done::Kept(Kept { turn, outcome })
        })
    }

    /// Takes a checkpoint, or fails the run: what can't be recorded is not done.
    pub(crate) fn kept(&mut self, kept: Kept) {
        let Some(run) = self.base.run.as_ref().map(|run| run.id) else { return };
        let (snapshot, reason) = match kept.outcome {
            Ok(snapshot) => (Some(snapshot), None),
            Err(Unkept::Undeclared) => (None, Some("undeclared".to_owned())),
            Err(Unkept::TooLarge) => {
                tracing::warn!(run_id = %run, "the workspace is too large to be kept");
                (None, Some("too_large".to_owned()))
            }
            Err(Unkept::Sandbox(error)) => return self.fail_sandbox(&error),
            Err(Unkept::Objects(error)) => {
                let message = format!("the workspace could not be kept: {error}");
                return self.fail(Failure::new(FailureClass::Dependency, error.code(), message));
            }
        };
        let event = Event::Checkpointed(Checkpointed { run, turn: kept.turn, snapshot, reason });
        self.pending.push(Fact::bare(self.stamp(), event));
    }
}

/// Stores the workspace; what the checkpoint before it holds is shared, not stored again.
async fn store(
    inner: &Inner,
    key: &SessionKey,
    pulse: &Pulse,
    sandbox: &dyn Sandbox,
    before: Option<&Snapshot>,
) -> Result<Snapshot, Unkept> {
    let before: Vec<_> = before.filter(|before| before.form == FORM).into_iter().collect();
    let bases: Vec<blob::Key> = before.iter().filter_map(|before| before.object.parse().ok()).collect();
    let limits = ArchiveLimits::default();
    for attempt in 1.. {
        // Each attempt has a name of its own: a sweep may have seen the manifest of the one before.
        let checkpoint: Id<id::Checkpoint> = inner.id();
        let object = object_of(key, checkpoint, FORM);
        let place = object.parse().map_err(|error: blob::Error| Unkept::Objects(error.into()))?;
        let mut export = match sandbox.export(limits).await {
            Ok(export) => export,
            Err(error) => return Err(Unkept::of(error)),
        };
        let pieces = archive::pieces(export.as_mut()).inspect(|_| pulse.sign());
        let stored = inner.parts.chunks.put(&key.tenant, &place, &bases, pieces, limits.bytes_max).await;
        match stored {
            Ok(stored) => {
                let entries = export.totals().entries;
                let (bytes, digest) = (stored.bytes, stored.digest);
                return Ok(Snapshot { checkpoint, form: FORM.into(), object, digest, bytes, entries });
            }
            Err(chunks::Error::TooLarge { .. } | chunks::Error::TooManyChunks { .. }) => return Err(Unkept::TooLarge),
            Err(chunks::Error::Source(error)) => {
                let inner = error.get_ref().and_then(|error| error.downcast_ref::<Error>()).cloned();
                return Err(Unkept::of(inner.unwrap_or_else(|| Error::Gone { detail: error.to_string() })));
            }
            Err(error) if attempt < STORE_ATTEMPTS_MAX => {
                tracing::warn!(code = error.code(), %error, attempt, "the workspace could not be stored; trying again");
                tokio::time::sleep(Duration::from_millis(STORE_RETRY_MS * u64::from(attempt))).await;
            }
            Err(error) => return Err(Unkept::Objects(error)),
        }
    }
    Err(Unkept::TooLarge)
}

impl Unkept {
    fn of(error: Error) -> Self {
        match error {
            Error::Limit { .. } => Self::TooLarge,
            error => Self::Sandbox(error),
        }
    }
}

/// Where a checkpoint of this form is kept among the objects; its packs lie elsewhere.
pub(crate) fn object_of(key: &SessionKey, checkpoint: Id<id::Checkpoint>, form: &str) -> String {
    let suffix = if is_chunks(form) { chunks::MANIFEST_SUFFIX } else { "" };
    format!("checkpoints/{}/{}/{checkpoint}{suffix}", key.tenant, key.session)
}

/// Whether a checkpoint's object is a manifest of chunks.
pub(crate) fn is_chunks(form: &str) -> bool {
    form == FORM
}

/// Fills an empty workspace with what was kept. Of chunks the manifest is checked whole, and every chunk before it leaves the
/// store; an archive in one object is read once for its digest first. Nothing unverified is unpacked.
pub(crate) async fn restore(
    inner: &Inner,
    key: &SessionKey,
    sandbox: &dyn Sandbox,
    snapshot: &Snapshot,
) -> Result<(), Error> {
    let pulse = inner.pulses.of(key);
    let lost = |detail: String| Error::Start { stage: "workspace", detail };
    let archive = match snapshot.form.as_str() {
        FORM => chunked(inner, key, snapshot).await.map_err(|error| lost(error.to_string()))?,
        FORM_WHOLE => whole(inner, snapshot).await.map_err(lost)?,
        form => return Err(lost(format!("the checkpoint has the form `{form}`, which is not known here"))),
    };
    // What the store says of an object that is damaged; the sandbox knows only that its archive did not end.
    let broken: Arc<Mutex<Option<String>>> = Arc::default();
    let told = broken.clone();
    let sign = move |piece: &io::Result<_>| {
        if let Some(pulse) = &pulse {
            pulse.sign();
        }
        if let Err(error) = piece {
            *told.lock() = Some(error.to_string());
        }
    };
    let archive = archive.inspect(sign).boxed();
    let imported = sandbox.import(archive, ArchiveLimits::default()).await;
    let broken = broken.lock().take();
    imported.map(|_| ()).map_err(|error| broken.map_or(error, lost))
}

async fn chunked(inner: &Inner, key: &SessionKey, snapshot: &Snapshot) -> Result<Archive, chunks::Error> {
    let (place, bytes_max) = (snapshot.object.parse()?, ArchiveLimits::default().bytes_max);
    let archive = inner.parts.chunks.get(&key.tenant, &place, snapshot.digest, bytes_max).await?;
    Ok(archive.pieces.map_err(io::Error::other).boxed())
}

/// An archive that is one object. It is read once for its digest before a byte of it is given out.
async fn whole(inner: &Inner, snapshot: &Snapshot) -> Result<Archive, String> {
    let told = |error: blob::Error| error.to_string();
    let place = snapshot.object.parse().map_err(told)?;
    if inner.parts.blobs.digest(&place).await.map_err(told)? != snapshot.digest {
        return Err("the checkpoint's bytes were changed".to_owned());
    }
    let (_, pieces) = inner.parts.blobs.get_stream(&place).await.map_err(told)?;
    Ok(pieces.map_err(io::Error::other).boxed())
}
