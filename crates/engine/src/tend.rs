//! What an engine does besides driving: beats for its worker's lease, claims what is ready, hears of what others appended.

use crate::Error;
use crate::engine::{Engine, Inner};
use journal::hints::Told;
use journal::{SessionKey, WorkerSpec};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How often the journal is asked what is ready, when nothing told of it.
const CLAIM_MS: u64 = 1_000;
/// A worker beats so often within its lease.
const BEATS: u64 = 3;

/// The engine's tending. Dropping it ends it; [`Tending::end`] also waits and gives the worker's claims back.
#[derive(Debug)]
pub struct Tending {
    engine: Engine,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Engine {
    /// Joins those that share the journal, and begins to drive what is ready: timers that are due, and, on a journal that
    /// processes share, what nobody drives. A process that drives nothing joins nobody and only hears.
    pub async fn tend(&self, worker: WorkerSpec) -> Result<Tending, Error> {
        let inner = &self.0;
        let is_shared = inner.parts.journal.is_shared();
        let drives = inner.parts.limits.drivers_max > 0;
        let (stop, stopped) = watch::channel(false);
        let mut tasks = vec![tokio::spawn(crate::kept::let_go(inner.clone(), stopped.clone()))];
        if drives {
            let lease_ms = worker.lease_ms;
            let worker = inner.parts.journal.join(worker).await?;
            inner.parts.journal.beat(&worker).await?;
            // A second tending of one engine keeps the first one's worker.
            let _ = inner.worker.set(worker);
            if is_shared {
                tasks.push(tokio::spawn(beat(inner.clone(), lease_ms / BEATS, stopped.clone())));
            }
            tasks.push(tokio::spawn(claim(inner.clone(), stopped.clone())));
            tasks.push(tokio::spawn(crate::liveness::watch(inner.clone(), stopped.clone())));
            tasks.push(tokio::spawn(crate::idle::let_go(inner.clone(), stopped.clone())));
            tasks.push(tokio::spawn(crate::webhooks::tell(inner.clone(), stopped.clone())));
            tasks.push(tokio::spawn(crate::retention::keep(self.clone(), stopped.clone())));
        }
        if is_shared {
            tasks.push(tokio::spawn(hear(inner.clone(), stopped)));
        }
        Ok(Tending { engine: self.clone(), stop, tasks })
    }
}

impl Tending {
    /// Ends it, after the engine was drained: what this worker held is free for others.
    pub async fn end(mut self) {
        // Nobody listens when every task has ended already.
        let _ = self.stop.send(true);
        for task in self.tasks.drain(..) {
            // A task that panicked said so.
            let _ = task.await;
        }
        let inner = &self.engine.0;
        if let Some(worker) = inner.worker.get()
            && let Err(error) = inner.parts.journal.leave(worker).await
        {
            tracing::warn!(code = error.code(), %error, "the worker could not give back what it held; its lease ends by itself");
        }
    }
}

impl Drop for Tending {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Waits, unless the tending ends meanwhile.
pub(crate) async fn pause(ms: u64, stopped: &mut watch::Receiver<bool>) -> bool {
    tokio::select! {
        biased;
        _ = stopped.changed() => false,
        () = tokio::time::sleep(Duration::from_millis(ms)) => true,
    }
}

/// Keeps the worker's lease. A beat that fails is tried again at once and again: the lease says by itself when it is over.
async fn beat(inner: Arc<Inner>, every_ms: u64, mut stopped: watch::Receiver<bool>) {
    let Some(worker) = inner.worker.get() else { return };
    let mut wait_ms = every_ms;
    while pause(wait_ms, &mut stopped).await {
        wait_ms = match inner.parts.journal.beat(worker).await {
            Ok(()) => every_ms,
            Err(error) => {
                tracing::warn!(code = error.code(), %error, "the worker's lease was not renewed");
                (every_ms / BEATS).max(1)
            }
        };
    }
}

/// Starts drivers for what is ready, as far as there is room.
async fn claim(inner: Arc<Inner>, mut stopped: watch::Receiver<bool>) {
    loop {
        inner.dispatch.allow((inner.parts.catalog)().settings.concurrency.per_tenant);
        let (room, busy) = inner.dispatch.room();
        if room > 0 {
            match inner.parts.journal.claimable(room, &busy).await {
                Ok(ready) => {
                    for session in ready {
                        inner.clone().start(inner.dispatch.grown(&session.key, true, None));
                    }
                }
                Err(error) => tracing::warn!(code = error.code(), %error, "what is ready can't be read"),
            }
        }
        if !pause(CLAIM_MS, &mut stopped).await {
            return;
        }
    }
}

/// Hears what other processes appended: their inputs wake the drivers here.
async fn hear(inner: Arc<Inner>, mut stopped: watch::Receiver<bool>) {
    let Some(mut hints) = inner.parts.journal.subscribe_all() else { return };
    loop {
        let hint = tokio::select! {
            biased;
            _ = stopped.changed() => return,
            hint = hints.next() => hint,
        };
        match hint {
            Some(Told::Hint(hint)) => {
                if !inner.dispatch.tell(&hint.key) {
                    inner.look_for_ends(Some(&hint.key)).await;
                }
            }
            Some(Told::Lagged { .. }) => {
                inner.dispatch.tell_all();
                inner.look_for_ends(None).await;
            }
            None => return,
        }
    }
}

impl Inner {
    /// Runs that somebody here waits for may have ended in another process; `None`: any of them.
    async fn look_for_ends(&self, key: Option<&SessionKey>) {
        for (run, key) in self.ends.of(key) {
            match self.view(&key.tenant, run).await {
                Ok(view) if view.rests() => self.ends.tell(Arc::new(view)),
                Ok(_) => {}
                // Those who wait ask again when their time is over.
                Err(error) => tracing::warn!(run_id = %run, code = error.code(), %error, "a run can't be shown"),
            }
        }
    }
}
