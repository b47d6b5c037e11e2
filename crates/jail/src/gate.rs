//! Who may begin something in a sandbox: nobody while an export runs, and nobody but the import while the workspace is
//! unfinished. Where the programs stand still because nobody needs them, whoever begins something wakes them first. No traffic of its own.

use crate::live::Running;
use crate::snapshot::Hold;
use crate::workspaces::Unfinished;
use sandbox::{Error, Process as _};
use std::fmt;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

/// How long something new waits for an export to end.
const PASS_WAIT_MAX: Duration = Duration::from_secs(600);
/// How long an export that was given up may take to be gone.
const LEAVE_WAIT_MAX: Duration = Duration::from_secs(30);

/// Where the workspace stands.
#[derive(Debug)]
enum Phase {
    /// It is whole, or nobody's.
    Whole,
    /// It waits for its files.
    Unfinished(Unfinished),
    /// Its import runs or has failed.
    Lost,
}

/// Programs that stand still because nobody needs them. Nothing begins beside them.
struct Still {
    hold: Hold,
    _shut: OwnedRwLockWriteGuard<()>,
}

impl fmt::Debug for Still {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Still")
    }
}

/// The gate of one sandbox.
#[derive(Debug)]
pub(crate) struct Gate {
    lock: Arc<RwLock<()>>,
    phase: Mutex<Phase>,
    /// An export that was given up and whose end nobody has seen yet.
    leaving: Mutex<Option<Running>>,
    still: Mutex<Option<Still>>,
    /// Told whenever they come to stand still.
    rested: Notify,
}

fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code panics while it holds one of these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn too_long<E>(_: E) -> Error {
    Error::Limit { limit: format!("export_wait_seconds_max = {}", PASS_WAIT_MAX.as_secs()) }
}

impl Gate {
    pub(crate) fn new(unfinished: Option<Unfinished>) -> Self {
        let phase = unfinished.map_or(Phase::Whole, Phase::Unfinished);
        Self {
            lock: Arc::default(),
            phase: Mutex::new(phase),
            leaving: Mutex::default(),
            still: Mutex::default(),
            rested: Notify::new(),
        }
    }

    fn check(&self) -> Result<(), Error> {
        match &*hold(&self.phase) {
            Phase::Whole => Ok(()),
            Phase::Unfinished(_) | Phase::Lost => Err(Error::WorkspaceLost),
        }
    }

    /// Waits until no export runs. Hold what is returned until what is begun has begun.
    pub(crate) async fn pass(&self) -> Result<OwnedRwLockReadGuard<()>, Error> {
        self.check()?;
        let pass = self.entered(Arc::clone(&self.lock).read_owned()).await?;
        self.settle().await;
        Ok(pass)
    }

    /// Waits until nothing is about to begin, and lets nothing begin until what is returned is dropped.
    pub(crate) async fn shut(&self) -> Result<OwnedRwLockWriteGuard<()>, Error> {
        self.check()?;
        let shut = self.entered(Arc::clone(&self.lock).write_owned()).await?;
        self.settle().await;
        Ok(shut)
    }

    /// Waits for the lock, and wakes whoever rests with it, also who comes to rest meanwhile.
    async fn entered<T>(&self, lock: impl Future<Output = T>) -> Result<T, Error> {
        let mut lock = pin!(lock);
        let entered = async {
            loop {
                let mut rested = pin!(self.rested.notified());
                // From here on no rest is missed.
                rested.as_mut().enable();
                self.wake().await;
                tokio::select! {
                    biased;
                    entered = &mut lock => return entered,
                    () = rested => {}
                }
            }
        };
        tokio::time::timeout(PASS_WAIT_MAX, entered).await.map_err(too_long)
    }

    /// Keeps the programs still, and everything else out, until somebody wakes them.
    pub(crate) fn rest(&self, hold_on: Hold, shut: OwnedRwLockWriteGuard<()>) {
        *hold(&self.still) = Some(Still { hold: hold_on, _shut: shut });
        self.rested.notify_waiters();
    }

    /// Whether they stand still.
    pub(crate) fn is_still(&self) -> bool {
        hold(&self.still).is_some()
    }

    /// Lets them go on, and waits until they do.
    pub(crate) async fn wake(&self) {
        let still = hold(&self.still).take();
        if let Some(Still { hold, _shut }) = still {
            hold.let_go().await;
        }
    }

    /// Keeps an export that was told to end until its end is seen.
    pub(crate) fn leave(&self, running: Running) {
        *hold(&self.leaving) = Some(running);
    }

    async fn settle(&self) {
        let leaving = hold(&self.leaving).take();
        if let Some(mut running) = leaving {
            // Whatever it ends with, or if it never does: its programs went on when it was told to end.
            let _ = tokio::time::timeout(LEAVE_WAIT_MAX, running.kill()).await;
        }
    }

    /// Takes what makes the workspace whole; until [`Gate::finished`] it counts as lost.
    pub(crate) fn take_unfinished(&self) -> Option<Unfinished> {
        let mut phase = hold(&self.phase);
        match std::mem::replace(&mut *phase, Phase::Lost) {
            Phase::Unfinished(unfinished) => Some(unfinished),
            other => {
                *phase = other;
                None
            }
        }
    }

    /// The workspace is whole.
    pub(crate) fn finished(&self) {
        *hold(&self.phase) = Phase::Whole;
    }

    /// The sandbox closes: lets go of the workspace and of what is on its way out.
    pub(crate) fn end(&self) {
        drop(self.take_unfinished());
        // Not under its lock: it leaves its end here.
        let still = hold(&self.still).take();
        drop(still);
        drop(hold(&self.leaving).take());
    }
}
