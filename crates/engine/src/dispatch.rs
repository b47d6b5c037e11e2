//! Which sessions are driven, by at most so many drivers at once. The seam behind which claims of a shared database and other
//! schedulers come later.

use crate::RunView;
use domain::{Id, id};
use journal::SessionKey;
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{Notify, watch};

/// A driver's ear: told that its log has grown.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wake(Arc<Ear>);

#[derive(Debug, Default)]
struct Ear {
    notify: Notify,
    told: AtomicU64,
}

impl Wake {
    /// Tells the driver to look again.
    pub(crate) fn tell(&self) {
        self.0.told.fetch_add(1, Ordering::Release);
        self.0.notify.notify_one();
    }

    /// How often it was told so far.
    pub(crate) fn count(&self) -> u64 {
        self.0.told.load(Ordering::Acquire)
    }

    /// Waits until it is told.
    pub(crate) async fn told(&self) {
        self.0.notify.notified().await;
    }
}

/// A session to drive.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) key: SessionKey,
    pub(crate) wake: Wake,
    /// Whether an earlier process may have left a run in its middle.
    pub(crate) recovering: bool,
    /// The first record of a new session, so that its log need not be read back.
    pub(crate) seed: Option<Box<Seed>>,
}

/// What was just written as the first record of a session.
#[derive(Debug)]
pub(crate) struct Seed {
    pub(crate) stamp: machine::Stamp,
    pub(crate) event: domain::Event,
    pub(crate) message: (domain::ContentRef, String),
}

#[derive(Debug, Default)]
struct State {
    /// Sessions that are driven or wait for it.
    known: HashMap<SessionKey, Wake>,
    waiting: VecDeque<Job>,
    active: usize,
    draining: bool,
    held: bool,
}

/// Hands sessions to drivers.
#[derive(Debug)]
pub(crate) struct Dispatch {
    state: Mutex<State>,
    drivers_max: usize,
    /// Told when the last driver ends while draining.
    idle: Notify,
}

impl Dispatch {
    pub(crate) fn new(drivers_max: usize) -> Self {
        Self { state: Mutex::default(), drivers_max, idle: Notify::new() }
    }

    /// The session's log has grown: tells its driver, or gives a job to start now. `None`: it is being seen to.
    pub(crate) fn grown(&self, key: &SessionKey, recovering: bool, seed: Option<Box<Seed>>) -> Option<Job> {
        let mut state = self.state.lock();
        if let Some(wake) = state.known.get(key) {
            wake.tell();
            return None;
        }
        if state.draining {
            return None;
        }
        let wake = Wake::default();
        state.known.insert(key.clone(), wake.clone());
        let job = Job { key: key.clone(), wake, recovering, seed };
        if state.active < self.drivers_max {
            state.active += 1;
            return Some(job);
        }
        state.waiting.push_back(job);
        None
    }

    /// A driver that has listened to `heard` wakes has nothing to do and wants to end. False when it was told again meanwhile: it
    /// goes on. Asked under the lock, so no wake is lost.
    pub(crate) fn retire(&self, key: &SessionKey, heard: u64) -> bool {
        let mut state = self.state.lock();
        if state.known.get(key).is_some_and(|wake| wake.count() != heard) {
            return false;
        }
        state.known.remove(key);
        true
    }

    /// A driver has ended; gives the next job to start in its place.
    pub(crate) fn ended(&self) -> Option<Job> {
        let mut state = self.state.lock();
        if !state.draining
            && let Some(job) = state.waiting.pop_front()
        {
            return Some(job);
        }
        state.active -= 1;
        if state.active == 0 {
            self.idle.notify_waiters();
        }
        None
    }

    /// Forgets a session whose driver failed, so that the next input starts another.
    pub(crate) fn forget(&self, key: &SessionKey) {
        self.state.lock().known.remove(key);
    }

    /// Active drivers and sessions that wait for one.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.active, state.waiting.len())
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.state.lock().draining
    }

    /// No new driver starts from now on; those that run are told.
    pub(crate) fn drain(&self) {
        let mut state = self.state.lock();
        state.draining = true;
        state.waiting.clear();
        state.known.values().for_each(Wake::tell);
    }

    /// Drivers begin no further turn from now on.
    pub(crate) fn hold(&self) {
        let mut state = self.state.lock();
        state.held = true;
        state.known.values().for_each(Wake::tell);
    }

    pub(crate) fn is_held(&self) -> bool {
        self.state.lock().held
    }

    /// Waits until no driver is active.
    pub(crate) async fn idle(&self) {
        loop {
            let idle = self.idle.notified();
            tokio::pin!(idle);
            idle.as_mut().enable();
            if self.state.lock().active == 0 {
                return;
            }
            idle.await;
        }
    }
}

/// Runs that somebody waits for.
#[derive(Debug, Default)]
pub(crate) struct Ends(Mutex<HashMap<Id<id::Run>, watch::Sender<End>>>);

/// A run's end, once it is there.
type End = Option<Arc<RunView>>;

impl Ends {
    /// Waits for a run's end; subscribe before looking at how it stands.
    pub(crate) fn subscribe(&self, run: Id<id::Run>) -> watch::Receiver<End> {
        let mut ends = self.0.lock();
        ends.retain(|_, sender| sender.receiver_count() > 0);
        ends.entry(run).or_insert_with(|| watch::channel(None).0).subscribe()
    }

    /// Whether anybody waits for it.
    pub(crate) fn awaited(&self, run: Id<id::Run>) -> bool {
        self.0.lock().contains_key(&run)
    }

    /// Tells those who wait.
    pub(crate) fn tell(&self, view: Arc<RunView>) {
        if let Some(sender) = self.0.lock().remove(&view.run) {
            // An error means that nobody waits any more.
            let _ = sender.send(Some(view));
        }
    }
}
