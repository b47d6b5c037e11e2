//! Keeps the workspace as it stands at the end of a turn, and brings it back where it is gone.
//!
//! Where the sandbox can, the workspace is copied in a moment and the copy is read while the programs inside go on; else it is
//! exported, and they stand still for that. Either way it counts only once its chunks are durable: until then the checkpoint
//! before it is the last one.

use crate::counts::Way;
use crate::driver::{Done, Driver};
use crate::engine::Inner;
use crate::facts::Fact;
use crate::liveness::Pulse;
use crate::stages::Stages;
use domain::agent::Checkpoint;
use domain::record::{Checkpointed, Snapshot};
use domain::{Event, Failure, FailureClass, Id, id};
use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt};
use journal::SessionKey;
use parking_lot::Mutex;
use sandbox::archive::{self, Archive, ArchiveLimits};
use sandbox::{Checkpoint as Taken, Error, Export, Sandbox};
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
/// How long keeping one workspace may take, with all attempts and the wait for its turn: the end of a run waits no longer.
const KEEP_MS_MAX: u64 = 900_000;
/// Workspaces that one process reads at once: each is read in a sandbox of its own, or holds its programs still.
pub(crate) const READ_AT_ONCE_MAX: usize = 4;

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
                Ok(sandbox) => {
                    let stored = store(&inner, &key, &pulse, sandbox.as_ref(), before.as_ref());
                    let too_slow = Unkept::Objects(chunks::Error::TooSlow { duration_ms_max: KEEP_MS_MAX });
                    tokio::time::timeout(Duration::from_millis(KEEP_MS_MAX), stored).await.unwrap_or(Err(too_slow))
                }
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

/// Takes the workspace as it stands now, where the sandbox can: what is read of it later is of this moment.
async fn take(
    inner: &Inner,
    sandbox: &dyn Sandbox,
    checkpoint: Id<id::Checkpoint>,
) -> Result<Option<Arc<dyn Taken>>, Unkept> {
    match sandbox.checkpoint(checkpoint).await {
        Ok(Some(taken)) => {
            inner.tally.kept(Way::Copied, taken.paused());
            Ok(Some(taken))
        }
        Ok(None) => Ok(None),
        Err(error @ Error::Start { .. }) => {
            tracing::warn!(code = error.code(), %error, "the workspace can't be copied; it is exported");
            Ok(None)
        }
        Err(error) => Err(Unkept::of(error)),
    }
}

/// Stores the workspace; what the checkpoint before it holds is shared, not stored again.
async fn store(
    inner: &Inner,
    key: &SessionKey,
    pulse: &Arc<Pulse>,
    sandbox: &dyn Sandbox,
    before: Option<&Snapshot>,
) -> Result<Snapshot, Unkept> {
    let checkpoint: Id<id::Checkpoint> = inner.id();
    let mut taken = take(inner, sandbox, checkpoint).await?;
    pulse.sign();
    let _turn = {
        let _waits = pulse.excused();
        inner.readers.acquire().await
    };
    let bases = bases_of(before);
    let limits = ArchiveLimits::default();
    for attempt in 1.. {
        // Each attempt has a name of its own: a sweep may have seen the manifest of the one before.
        let name = if attempt == 1 { checkpoint } else { inner.id() };
        let began = inner.parts.clock.monotonic();
        let export = match &taken {
            Some(taken) => taken.export(limits).await,
            None => sandbox.export(limits).await,
        };
        let export = match export {
            Ok(export) => export,
            // It made way for what needed its room; nothing was called since that could have changed the files.
            Err(Error::WorkspaceLost) if taken.is_some() && attempt < STORE_ATTEMPTS_MAX => {
                taken = None;
                continue;
            }
            Err(error) => return Err(Unkept::of(error)),
        };
        match write(inner, key, name, &bases, export, || pulse.sign()).await {
            Ok(snapshot) => {
                if taken.is_none() {
                    inner.tally.kept(Way::Exported, inner.parts.clock.monotonic().saturating_sub(began));
                }
                return Ok(Snapshot { checkpoint, ..snapshot });
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

/// Stores the files of a sandbox once, as a checkpoint of a session.
pub(crate) async fn put(
    inner: &Inner,
    key: &SessionKey,
    sandbox: &dyn Sandbox,
    base: Option<&Snapshot>,
) -> Result<Snapshot, crate::Error> {
    let export = sandbox.export(ArchiveLimits::default()).await?;
    let stored = write(inner, key, inner.id(), &bases_of(base), export, || ()).await;
    stored.map_err(|error| crate::Error::Objects { code: error.code(), detail: error.to_string() })
}

/// The manifests whose chunks may be shared.
fn bases_of(before: Option<&Snapshot>) -> Vec<blob::Key> {
    before.filter(|before| before.form == FORM).and_then(|before| before.object.parse().ok()).into_iter().collect()
}

/// Writes an export under a checkpoint's name; `sign` hears of every piece.
async fn write(
    inner: &Inner,
    key: &SessionKey,
    checkpoint: Id<id::Checkpoint>,
    bases: &[blob::Key],
    mut export: Box<dyn Export>,
    sign: impl Fn() + Send + Sync,
) -> Result<Snapshot, chunks::Error> {
    let object = object_of(key, checkpoint, FORM);
    let place = object.parse()?;
    let pieces = archive::pieces(export.as_mut()).inspect(|_| sign());
    let stored = inner.parts.chunks.put(&key.tenant, &place, bases, pieces, ArchiveLimits::default().bytes_max).await?;
    let entries = export.totals().entries;
    Ok(Snapshot { checkpoint, form: FORM.into(), object, digest: stored.digest, bytes: stored.bytes, entries })
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
    stages: Arc<Stages>,
) -> Result<(), Error> {
    let lost = |detail: String| Error::Start { stage: "workspace", detail };
    let archive = archive(inner, key, snapshot).await.map_err(|error| lost(format!("{}: {error}", error.code())))?;
    // What the store says of an object that is damaged; the sandbox knows only that its archive did not end.
    let broken: Arc<Mutex<Option<String>>> = Arc::default();
    let told = broken.clone();
    let sign = move |piece: &io::Result<_>| {
        stages.moved();
        if let Err(error) = piece {
            *told.lock() = Some(error.to_string());
        }
    };
    let archive = archive.inspect(sign).boxed();
    let imported = sandbox.import(archive, ArchiveLimits::default()).await;
    let broken = broken.lock().take();
    imported.map(|_| ()).map_err(|error| broken.map_or(error, lost))
}

/// What was kept, as it comes out of the objects.
pub(crate) async fn archive(inner: &Inner, key: &SessionKey, snapshot: &Snapshot) -> Result<Archive, crate::Error> {
    let objects = |code: &'static str, detail: String| crate::Error::Objects { code, detail };
    match snapshot.form.as_str() {
        FORM => chunked(inner, key, snapshot).await.map_err(|error| objects(error.code(), error.to_string())),
        FORM_WHOLE => whole(inner, snapshot).await,
        form => {
            let detail = format!("the checkpoint has the form `{form}`, which is not known here");
            Err(objects("chunks_newer", detail))
        }
    }
}

async fn chunked(inner: &Inner, key: &SessionKey, snapshot: &Snapshot) -> Result<Archive, chunks::Error> {
    let (place, bytes_max) = (snapshot.object.parse()?, ArchiveLimits::default().bytes_max);
    let archive = inner.parts.chunks.get(&key.tenant, &place, snapshot.digest, bytes_max).await?;
    Ok(archive.pieces.map_err(io::Error::other).boxed())
}

/// An archive that is one object. It is read once for its digest before a byte of it is given out.
async fn whole(inner: &Inner, snapshot: &Snapshot) -> Result<Archive, crate::Error> {
    let told = crate::ready::objects;
    let place = snapshot.object.parse().map_err(told)?;
    if inner.parts.blobs.digest(&place).await.map_err(told)? != snapshot.digest {
        return Err(crate::Error::CheckpointDamaged);
    }
    let (_, pieces) = inner.parts.blobs.get_stream(&place).await.map_err(told)?;
    Ok(pieces.map_err(io::Error::other).boxed())
}
