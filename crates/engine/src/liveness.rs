//! Liveness is progress, not the heartbeat of a stuck loop: what each driver last got on with, for how long nothing has moved, and
//! how a driver that hangs is given up. What a session does once it is given back is the next driver's (`driver`).

use crate::engine::Inner;
use crate::tend::pause;
use crate::totals::Totals;
use journal::SessionKey;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::JoinError;

/// How often the drivers are looked at.
const LOOK_MS: u64 = 500;
/// What may pass between two looks and counts. A process that was stopped, or slept with its machine, made no progress either, and
/// no driver of it hangs for that.
const LOOK_MS_COUNTED: u64 = 2 * LOOK_MS;
/// How long a driver that was stopped may take to let go.
const LET_GO_MS: u64 = 2_000;
/// The limit of what may rightly wait for as long as it takes: for a place at its model, for a timer, for a journal that is full.
const UNBOUNDED: u64 = u64::MAX;

/// What tells that a driver gets on: a record was written, a piece of a reply came, a tool's output, bytes of a workspace.
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    signs: Arc<AtomicU64>,
    silence: Mutex<Silence>,
    /// The time limits of what is under way, in milliseconds.
    limits_ms: Mutex<Vec<u64>>,
    stop: Notify,
    is_stopped: AtomicBool,
    totals: Mutex<Option<Totals>>,
}

#[derive(Debug, Default)]
struct Silence {
    signs: u64,
    ms: u64,
}

impl Pulse {
    /// Something moved.
    pub(crate) fn sign(&self) {
        self.signs.fetch_add(1, Ordering::Relaxed);
    }

    /// What counts the signs, for rooms that know nothing of drivers.
    pub(crate) fn signs(&self) -> Arc<AtomicU64> {
        self.signs.clone()
    }

    /// Something begins that has its own time limit. While it is under way, less than twice that long is no silence.
    pub(crate) fn within(self: &Arc<Self>, limit_ms: u64) -> Within {
        self.limits_ms.lock().push(limit_ms);
        Within { pulse: self.clone(), limit_ms }
    }

    /// The driver waits for something that may rightly take any time: that is neither progress nor silence.
    pub(crate) fn excused(self: &Arc<Self>) -> Within {
        self.within(UNBOUNDED)
    }

    /// What the driver's run has come to.
    pub(crate) fn wrote(&self, totals: Option<Totals>) {
        *self.totals.lock() = totals;
        self.sign();
    }

    /// What the run that is driven has come to, as far as it is on record.
    pub(crate) fn totals(&self) -> Option<Totals> {
        self.totals.lock().clone()
    }

    /// For how long nothing has moved, as of the last look.
    pub(crate) fn silent_ms(&self) -> u64 {
        let silence = self.silence.lock();
        if silence.signs == self.signs.load(Ordering::Relaxed) { silence.ms } else { 0 }
    }

    /// Looks again after `passed_ms`; gives for how long nothing has moved.
    fn look(&self, passed_ms: u64) -> u64 {
        let signs = self.signs.load(Ordering::Relaxed);
        let passed_ms = if self.limits_ms.lock().contains(&UNBOUNDED) { 0 } else { passed_ms };
        let mut silence = self.silence.lock();
        silence.ms = if silence.signs == signs { silence.ms.saturating_add(passed_ms.min(LOOK_MS_COUNTED)) } else { 0 };
        silence.signs = signs;
        silence.ms
    }

    /// For how long nothing may move: as long as the project says, and twice the longest time limit under way at least.
    fn silence_ms_max(&self, declared_ms: u64) -> u64 {
        let longest = self.limits_ms.lock().iter().copied().max().unwrap_or(0);
        declared_ms.max(longest.saturating_mul(2))
    }
}

/// Something with a time limit is under way, until this is dropped.
#[derive(Debug)]
pub(crate) struct Within {
    pulse: Arc<Pulse>,
    limit_ms: u64,
}

impl Drop for Within {
    fn drop(&mut self) {
        let mut limits = self.pulse.limits_ms.lock();
        if let Some(at) = limits.iter().position(|limit| *limit == self.limit_ms) {
            limits.swap_remove(at);
        }
        drop(limits);
        // What ended is progress; a wait that is over, again and again, is none.
        if self.limit_ms != UNBOUNDED {
            self.pulse.sign();
        }
    }
}

/// The pulses of the sessions that are driven here; in order, so that all are looked at in one order.
#[derive(Debug, Default)]
pub(crate) struct Pulses(Mutex<BTreeMap<SessionKey, Arc<Pulse>>>);

impl Pulses {
    /// A driver begins.
    pub(crate) fn begin(&self, key: &SessionKey) -> Arc<Pulse> {
        let pulse = Arc::new(Pulse::default());
        self.0.lock().insert(key.clone(), pulse.clone());
        pulse
    }

    /// A driver ended; the next one of its session has a pulse of its own.
    pub(crate) fn end(&self, key: &SessionKey, pulse: &Arc<Pulse>) {
        let mut pulses = self.0.lock();
        if pulses.get(key).is_some_and(|there| Arc::ptr_eq(there, pulse)) {
            pulses.remove(key);
        }
    }

    /// The pulse of a session's driver, when it is driven here.
    pub(crate) fn of(&self, key: &SessionKey) -> Option<Arc<Pulse>> {
        self.0.lock().get(key).cloned()
    }

    /// The longest time for which a driver has made no progress.
    pub(crate) fn silent_ms_max(&self) -> u64 {
        self.0.lock().values().map(|pulse| pulse.silent_ms()).max().unwrap_or(0)
    }

    /// Looks at every driver; gives those that have been silent for too long and were not stopped yet, with how long.
    fn look(&self, passed_ms: u64, declared_ms: u64) -> Vec<(SessionKey, Arc<Pulse>, u64)> {
        let pulses = self.0.lock();
        let stuck = |(key, pulse): (&SessionKey, &Arc<Pulse>)| {
            let silent_ms = pulse.look(passed_ms);
            let is_stuck = silent_ms > pulse.silence_ms_max(declared_ms);
            let is_news = is_stuck && !pulse.is_stopped.swap(true, Ordering::Relaxed);
            is_news.then(|| (key.clone(), pulse.clone(), silent_ms))
        };
        pulses.iter().filter_map(stuck).collect()
    }
}

/// Stops the drivers that hang.
pub(crate) async fn watch(inner: Arc<Inner>, mut stopped: watch::Receiver<bool>) {
    let mut before = inner.parts.clock.monotonic();
    while pause(LOOK_MS, &mut stopped).await {
        let now = inner.parts.clock.monotonic();
        let passed_ms = u64::try_from(now.saturating_sub(before).as_millis()).unwrap_or(u64::MAX);
        before = now;
        let declared_ms = u64::from((inner.parts.catalog)().settings.worker.no_progress_seconds_max) * 1_000;
        for (key, pulse, silent_ms) in inner.pulses.look(passed_ms, declared_ms) {
            inner.tally.stopped();
            tracing::error!(session_id = %key.session, code = "driver_stuck", silent_ms, "the driver makes no progress; it is stopped and its session given back");
            pulse.stop.notify_one();
        }
    }
}

/// How a driver ended.
#[derive(Debug)]
pub(crate) enum Attended<T> {
    /// By itself.
    Ended(Result<T, JoinError>),
    /// It was stopped, because nothing of it moved any more.
    Stopped {
        /// Whether it let go. What holds on to its thread can't be ended from outside; it finds itself fenced when it goes on.
        let_go: bool,
    },
}

/// Runs a driver in a task of its own, so that it can be given up, until it ends or is stopped.
pub(crate) async fn attend<T: Send + 'static>(
    pulse: &Pulse,
    work: impl Future<Output = T> + Send + 'static,
) -> Attended<T> {
    let mut task = tokio::spawn(work);
    tokio::select! {
        biased;
        ended = &mut task => Attended::Ended(ended),
        () = pulse.stop.notified() => {
            task.abort();
            let let_go = tokio::time::timeout(Duration::from_millis(LET_GO_MS), &mut task).await.is_ok();
            Attended::Stopped { let_go }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looked(pulse: &Pulse, looks: u64) -> u64 {
        (0..looks).map(|_| pulse.look(LOOK_MS)).last().unwrap_or(0)
    }

    #[test]
    fn only_what_moves_ends_a_silence() {
        let pulse = Arc::new(Pulse::default());
        assert_eq!(looked(&pulse, 4), 4 * LOOK_MS);
        assert_eq!(pulse.silent_ms(), 4 * LOOK_MS);
        pulse.sign();
        assert_eq!(pulse.silent_ms(), 0);
        assert_eq!((looked(&pulse, 1), looked(&pulse, 2)), (0, 2 * LOOK_MS));
        assert_eq!(
            pulse.look(86_400_000),
            2 * LOOK_MS + LOOK_MS_COUNTED,
            "a machine that slept is no driver that hangs"
        );
    }

    #[test]
    fn the_longest_limit_under_way_counts_twice() {
        let pulse = Arc::new(Pulse::default());
        assert_eq!(pulse.silence_ms_max(1_000), 1_000);
        let long = pulse.within(60_000);
        let short = pulse.within(100);
        assert_eq!(pulse.silence_ms_max(1_000), 120_000);
        let before = pulse.look(LOOK_MS);
        let waits = pulse.excused();
        assert_eq!((looked(&pulse, 9), pulse.silence_ms_max(1_000)), (before, u64::MAX));
        drop(waits);
        assert_eq!(pulse.look(LOOK_MS), before + LOOK_MS, "a wait that is over is no progress");
        drop(long);
        assert_eq!(pulse.look(LOOK_MS), 0, "what ended is");
        assert_eq!(pulse.silence_ms_max(1_000), 1_000);
        drop(short);
        assert_eq!(pulse.limits_ms.lock().len(), 0);
    }

    #[test]
    fn a_driver_is_told_to_stop_once() {
        let pulses = Pulses::default();
        let key = SessionKey::new("default", domain::Id::from_name("default", "a"));
        let pulse = pulses.begin(&key);
        let stopped = (0..10).filter(|_| !pulses.look(LOOK_MS, 1_000).is_empty()).count();
        assert_eq!((stopped, pulses.silent_ms_max()), (1, 10 * LOOK_MS));
        pulses.end(&key, &Arc::new(Pulse::default()));
        assert!(pulses.of(&key).is_some(), "another driver's end is not its own");
        pulses.end(&key, &pulse);
        assert!(pulses.of(&key).is_none());
    }
}
