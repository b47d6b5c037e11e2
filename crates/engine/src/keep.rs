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
use sandbox::archive::{self, ArchiveLimits};
use sandbox::{Error, Sandbox};
use std::time::Duration;

/// The form in which workspaces are kept.
const FORM: &str = "tar";
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
    Objects(blob::Error),
}

impl Driver {
    /// A future that keeps the workspace.
    pub(crate) fn keep(&self, turn: u32) -> BoxFuture<'static, Done> {
        let (inner, key, slot) = (self.inner.clone(), self.key.clone(), self.slot.clone());
        let pulse = self.pulse.clone();
        let declared = self
            .ready_of(None)
            .and_then(|ready| ready.closure.agent.sandbox.as_ref().map(|sandbox| sandbox.checkpoint));
        if declared == Some(Checkpoint::Never) {
            let kept = Kept { turn, outcome: Err(Unkept::Undeclared) };
            return Box::pin(std::future::ready(Done::Kept(kept)));
        }
        Box::pin(async move {
            let outcome = match slot.get().await {
                Ok(sandbox) => store(&inner, &key, &pulse, sandbox.as_ref()).await,
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

async fn store(inner: &Inner, key: &SessionKey, pulse: &Pulse, sandbox: &dyn Sandbox) -> Result<Snapshot, Unkept> {
    let checkpoint: Id<id::Checkpoint> = inner.id();
    let object = object_of(key, checkpoint);
    let place = object.parse().map_err(Unkept::Objects)?;
    let limits = ArchiveLimits::default();
    for attempt in 1.. {
        let mut export = match sandbox.export(limits).await {
            Ok(export) => export,
            Err(error) => return Err(Unkept::of(error)),
        };
        let pieces = archive::pieces(export.as_mut()).inspect(|_| pulse.sign());
        let stored = inner.parts.blobs.put_stream(&place, pieces, limits.bytes_max).await;
        match stored {
            Ok(stored) => {
                let entries = export.totals().entries;
                let (bytes, digest) = (stored.bytes, stored.digest);
                return Ok(Snapshot { checkpoint, form: FORM.into(), object, digest, bytes, entries });
            }
            Err(blob::Error::TooLarge { .. }) => return Err(Unkept::TooLarge),
            Err(blob::Error::Source(error)) => {
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

/// Where a checkpoint is kept among the objects.
pub(crate) fn object_of(key: &SessionKey, checkpoint: Id<id::Checkpoint>) -> String {
    format!("checkpoints/{}/{}/{checkpoint}", key.tenant, key.session)
}

/// Fills an empty workspace with what was kept, after its digest was checked.
pub(crate) async fn restore(
    inner: &Inner,
    key: &SessionKey,
    sandbox: &dyn Sandbox,
    snapshot: &Snapshot,
) -> Result<(), Error> {
    let pulse = inner.pulses.of(key);
    let lost = |detail: String| Error::Start { stage: "workspace", detail };
    if snapshot.form != FORM {
        return Err(lost(format!("the checkpoint has the form `{}`, which is not known here", snapshot.form)));
    }
    let place = snapshot.object.parse().map_err(|error: blob::Error| lost(error.to_string()))?;
    // Read once for its digest before a byte of it is unpacked: an import can't be taken back half way.
    let digest = inner.parts.blobs.digest(&place).await.map_err(|error| lost(error.to_string()))?;
    if digest != snapshot.digest {
        return Err(lost("the checkpoint's bytes were changed".into()));
    }
    let (_, pieces) = inner.parts.blobs.get_stream(&place).await.map_err(|error| lost(error.to_string()))?;
    let sign = move |_: &_| {
        if let Some(pulse) = &pulse {
            pulse.sign();
        }
    };
    let archive = pieces.map_err(std::io::Error::other).inspect(sign).boxed();
    sandbox.import(archive, ArchiveLimits::default()).await.map(|_| ())
}
