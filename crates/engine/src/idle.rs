//! Sandboxes whose sessions have nothing to do: they stand still, with their programs and terminals, until the session goes on,
//! their time is over, or their place is needed. What they hold is kept already: a process that dies loses nothing with them.

use crate::driver::Driver;
use crate::engine::Inner;
use crate::slot::Slot;
use catalog::SandboxSettings;
use journal::SessionKey;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinSet;

/// How long PID 1 holds programs still at most: longer than any sandbox is kept.
const HOLD_MS_MAX: u64 = 2 * 86_400_000;
/// How long the programs of a sandbox may take to come to a halt.
const HALT_MS_MAX: u64 = 5_000;

/// Sandboxes that are closed at once beside the drivers.
const CLOSED_AT_ONCE_MAX: usize = 8;

/// The sandboxes that stand still here, by session.
#[derive(Debug)]
pub(crate) struct Idle {
    rows: Mutex<BTreeMap<SessionKey, Row>>,
    changed: Notify,
    /// Those that are being closed: no more than made way and whose time was over.
    closing: Mutex<JoinSet<()>>,
    /// Turns at it.
    turns: Arc<Semaphore>,
}

impl Default for Idle {
    fn default() -> Self {
        let (rows, changed, closing) = (Mutex::default(), Notify::new(), Mutex::default());
        Self { rows, changed, closing, turns: Arc::new(Semaphore::new(CLOSED_AT_ONCE_MAX)) }
    }
}

#[derive(Debug)]
struct Row {
    slot: Arc<Slot>,
    /// Of the lease under which it was laid by.
    epoch: u64,
    since: Duration,
    until: Duration,
}

impl Idle {
    /// Keeps one; gives those that make way for it. A driver that comes late has its own back where a later one's is here.
    fn put(&self, key: &SessionKey, row: Row, most: usize) -> Vec<Arc<Slot>> {
        let mut rows = self.rows.lock();
        if rows.get(key).is_some_and(|there| there.epoch > row.epoch) {
            return vec![row.slot];
        }
        let mut gone: Vec<_> = rows.insert(key.clone(), row).into_iter().map(|row| row.slot).collect();
        while rows.len() > most {
            gone.extend(first(&mut rows));
        }
        drop(rows);
        self.changed.notify_one();
        gone
    }

    /// The one of a session, which is the taker's from now on; never one of a later lease than the taker's.
    pub(crate) fn take(&self, key: &SessionKey, epoch: u64) -> Option<Arc<Slot>> {
        let mut rows = self.rows.lock();
        rows.get(key).filter(|row| row.epoch <= epoch)?;
        rows.remove(key).map(|row| row.slot)
    }

    /// The ones that have stood longest, which make way; at most so many.
    pub(crate) fn make_way(&self, most: usize) -> Vec<Arc<Slot>> {
        let mut rows = self.rows.lock();
        std::iter::from_fn(|| first(&mut rows)).take(most).collect()
    }

    /// Has these closed; who drives a session does not wait for another's end.
    fn close(&self, gone: Vec<Arc<Slot>>) {
        let mut closing = self.closing.lock();
        while closing.try_join_next().is_some() {}
        for slot in gone {
            let turns = self.turns.clone();
            closing.spawn(async move {
                // Turns do not end.
                let _turn = turns.acquire_owned().await;
                slot.close().await;
            });
        }
    }

    /// Waits until those that are being closed are gone.
    async fn closed(&self) {
        let mut closing = std::mem::take(&mut *self.closing.lock());
        while closing.join_next().await.is_some() {}
    }

    /// Closes the one of a session, when there is one.
    pub(crate) async fn end(&self, key: &SessionKey) {
        if let Some(slot) = self.take(key, u64::MAX) {
            slot.close().await;
        }
    }

    /// Those whose time is over.
    fn due(&self, now: Duration) -> Vec<Arc<Slot>> {
        let mut rows = self.rows.lock();
        let due: Vec<SessionKey> =
            rows.iter().filter(|(_, row)| row.until <= now).map(|(key, _)| key.clone()).collect();
        due.iter().filter_map(|key| rows.remove(key)).map(|row| row.slot).collect()
    }

    fn next(&self) -> Option<Duration> {
        self.rows.lock().values().map(|row| row.until).min()
    }
}

fn first(rows: &mut BTreeMap<SessionKey, Row>) -> Option<Arc<Slot>> {
    let key = rows.iter().min_by_key(|(_, row)| row.since).map(|(key, _)| key.clone())?;
    rows.remove(&key).map(|row| row.slot)
}

/// Closes those whose time is over, again and again, and all of them at the end.
pub(crate) async fn let_go(inner: Arc<Inner>, mut stopped: watch::Receiver<bool>) {
    loop {
        let now = inner.parts.clock.monotonic();
        inner.idle.close(inner.idle.due(now));
        let next = inner.idle.next();
        let due = async {
            match next {
                Some(next) => tokio::time::sleep(next.saturating_sub(now)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            _ = stopped.changed() => break,
            () = inner.idle.changed.notified() => {}
            () = due => {}
        }
    }
    inner.idle.close(inner.idle.due(Duration::MAX));
    inner.idle.closed().await;
}

impl Driver {
    /// Lays the sandbox by, if it is to be kept while the session has nothing to do.
    pub(crate) async fn lay_by(&mut self) {
        let kept = match &self.base.run {
            Some(_) => kept(&self.inner, |settings| settings.keep_parked_ms),
            None => kept(&self.inner, |settings| settings.keep_idle_ms),
        };
        let Some(Keep { keep, most }) = kept else { return };
        // A run that ended without one to keep has closed it.
        if !rests(&self.inner, &self.slot).await {
            return;
        }
        let now = self.inner.parts.clock.monotonic();
        // A driver that found nothing to do in it gives it no more time.
        let since = self.slot.still_since().unwrap_or(now);
        let until = since.saturating_add(keep);
        if until > now {
            let row = Row { slot: self.hold(Arc::default()), epoch: self.epoch, since, until };
            self.inner.idle.close(self.inner.idle.put(&self.key, row, most));
        }
    }

    /// Goes on with what was laid by: there is something to do again.
    pub(crate) fn take_back(&mut self) {
        if let Some(slot) = self.inner.idle.take(&self.key, self.epoch) {
            self.hold(slot);
        }
    }

    /// Has this slot from now on; gives the one that it had.
    fn hold(&mut self, slot: Arc<Slot>) -> Arc<Slot> {
        *self.held.lock() = slot.clone();
        std::mem::replace(&mut self.slot, slot)
    }
}

/// How sandboxes are kept whose sessions have nothing to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keep {
    /// For how long.
    keep: Duration,
    /// How many.
    most: usize,
}

/// How a sandbox is kept for as many milliseconds as `keep_ms` finds in the settings; `None`: not at all. Who ends a run and who
/// lays its sandbox by ask here, so that the log never says of one that is closed that it stands still.
pub(crate) fn kept(inner: &Inner, keep_ms: impl Fn(&SandboxSettings) -> u64) -> Option<Keep> {
    let catalog = (inner.parts.catalog)();
    let settings = &catalog.settings.sandbox;
    let keep = Keep { keep: Duration::from_millis(keep_ms(settings)), most: settings.idle_max };
    (!keep.keep.is_zero() && keep.most > 0 && !inner.dispatch.is_draining()).then_some(keep)
}

/// Whether a sandbox stands still now; one that does not come to a halt is not kept.
pub(crate) async fn rests(inner: &Inner, slot: &Slot) -> bool {
    let Some(sandbox) = slot.unhalted() else { return slot.is_resting() };
    let paused = tokio::time::timeout(Duration::from_millis(HALT_MS_MAX), sandbox.pause(HOLD_MS_MAX)).await;
    match paused {
        Ok(Ok(true)) => slot.rest(inner.parts.clock.monotonic()),
        Ok(Ok(false)) | Err(_) => false,
        Ok(Err(error)) => {
            tracing::debug!(sandbox = %sandbox.id(), code = error.code(), %error, "a sandbox can't stand still");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::Id;

    fn key(name: &str) -> SessionKey {
        SessionKey::new("default", Id::from_name("default", name))
    }

    fn row(slot: &Arc<Slot>, epoch: u64, [now, keep]: [u64; 2]) -> Row {
        let since = Duration::from_secs(now);
        Row { slot: slot.clone(), epoch, since, until: since + Duration::from_secs(keep) }
    }

    #[test]
    fn the_first_makes_way_and_each_goes_when_its_time_is_over() {
        let idle = Idle::default();
        let slots: Vec<Arc<Slot>> = (0..4).map(|_| Arc::default()).collect();
        let put =
            |name: &str, nth: usize, [now, keep]: [u64; 2]| idle.put(&key(name), row(&slots[nth], 1, [now, keep]), 2);
        let is = |gone: Vec<Arc<Slot>>, nth: usize| gone.len() == 1 && Arc::ptr_eq(&gone[0], &slots[nth]);
        assert!(put("a", 0, [1, 100]).is_empty());
        assert!(put("b", 1, [2, 10]).is_empty());
        assert!(is(put("c", 2, [3, 100]), 0), "the one that has stood longest");
        assert!(idle.take(&key("a"), 1).is_none());
        assert!(is(put("c", 3, [4, 50]), 2), "one of each session");
        assert_eq!(idle.next(), Some(Duration::from_secs(12)));
        assert!(idle.due(Duration::from_secs(11)).is_empty());
        assert!(is(idle.due(Duration::from_secs(12)), 1));
        assert!(is(idle.make_way(2), 3));
        assert_eq!((idle.next(), idle.make_way(2).len()), (None, 0));
    }

    #[test]
    fn a_driver_that_comes_late_leaves_what_a_later_one_laid_by() {
        let idle = Idle::default();
        let slots: Vec<Arc<Slot>> = (0..3).map(|_| Arc::default()).collect();
        let put = |nth: usize, epoch: u64| idle.put(&key("a"), row(&slots[nth], epoch, [1, 100]), 2);
        let is = |gone: &[Arc<Slot>], nth: usize| gone.len() == 1 && Arc::ptr_eq(&gone[0], &slots[nth]);
        assert!(put(0, 5).is_empty());
        assert!(is(&put(1, 6), 0), "what the later one laid by stays");
        assert!(is(&put(2, 5), 2), "the late one's own is closed");
        assert!(idle.take(&key("a"), 5).is_none(), "nor is it the late one's to take");
        assert!(idle.take(&key("a"), 7).is_some_and(|taken| Arc::ptr_eq(&taken, &slots[1])), "but the next one's");
    }
}
