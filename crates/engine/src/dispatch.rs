//! Which sessions are driven, by at most so many drivers at once, fairly between tenants. The seam between who wants a session
//! driven (an input, a timer, a claim of a shared database) and the driver. Which sessions are claimable is the journal's to say.

use crate::RunView;
use domain::{Id, id};
use indexmap::IndexMap;
use journal::SessionKey;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
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

/// How many sessions are driven at once.
#[derive(Clone, Copy, Debug)]
struct Places {
    /// In all; 0: this process drives nothing.
    drivers_max: usize,
    /// Of one tenant.
    per_tenant_max: usize,
}

#[derive(Debug, Default)]
struct State {
    /// Sessions that are driven or wait for it; in order, so that all are told in one order.
    known: BTreeMap<SessionKey, Wake>,
    /// Those that wait, by tenant, in the order in which tenants have their turn.
    waiting: IndexMap<Arc<str>, VecDeque<Job>>,
    waiting_count: usize,
    active: usize,
    active_of: HashMap<Arc<str>, usize>,
    draining: bool,
    held: bool,
}

impl State {
    fn has_place(&self, tenant: &Arc<str>, places: Places) -> bool {
        self.active < places.drivers_max && self.active_of.get(tenant).copied().unwrap_or(0) < places.per_tenant_max
    }

    fn take_place(&mut self, tenant: &Arc<str>) {
        self.active += 1;
        *self.active_of.entry(tenant.clone()).or_default() += 1;
    }

    fn leave_place(&mut self, tenant: &Arc<str>) {
        self.active -= 1;
        if let Some(count) = self.active_of.get_mut(tenant) {
            *count -= 1;
            if *count == 0 {
                self.active_of.remove(tenant);
            }
        }
    }

    /// The next job whose tenant has a place. Each tenant has its turn, whatever the others pile up.
    fn next(&mut self, places: Places) -> Option<Job> {
        let tenant = self.waiting.keys().find(|tenant| self.has_place(tenant, places)).cloned()?;
        let mut jobs = self.waiting.shift_remove(&tenant)?;
        let job = jobs.pop_front();
        if !jobs.is_empty() {
            // To the end of the row.
            self.waiting.insert(tenant.clone(), jobs);
        }
        self.waiting_count -= 1;
        self.take_place(&tenant);
        job
    }
}

/// Hands sessions to drivers.
#[derive(Debug)]
pub(crate) struct Dispatch {
    state: Mutex<State>,
    drivers_max: usize,
    per_tenant_max: AtomicUsize,
    /// Told when the last driver ends while draining.
    idle: Notify,
    /// Told when a place has become free.
    pub(crate) freed: Notify,
}

impl Dispatch {
    /// At most so many drivers at once; with 0 this process drives nothing.
    pub(crate) fn new(drivers_max: usize) -> Self {
        let per_tenant_max = AtomicUsize::new(usize::MAX);
        Self { state: Mutex::default(), drivers_max, per_tenant_max, idle: Notify::new(), freed: Notify::new() }
    }

    /// From now on at most so many of one tenant; `None`: as many as there are drivers.
    pub(crate) fn allow(&self, per_tenant_max: Option<u32>) {
        let most = per_tenant_max.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX));
        self.per_tenant_max.store(most, Ordering::Relaxed);
    }

    fn places(&self) -> Places {
        Places { drivers_max: self.drivers_max, per_tenant_max: self.per_tenant_max.load(Ordering::Relaxed) }
    }

    /// The session's log has grown: tells its driver, or gives a job to start now. `None`: it is being seen to, or this process
    /// drives nothing.
    pub(crate) fn grown(&self, key: &SessionKey, recovering: bool, seed: Option<Box<Seed>>) -> Option<Job> {
        let mut state = self.state.lock();
        if let Some(wake) = state.known.get(key) {
            wake.tell();
            return None;
        }
        if state.draining || self.drivers_max == 0 {
            return None;
        }
        let wake = Wake::default();
        state.known.insert(key.clone(), wake.clone());
        let job = Job { key: key.clone(), wake, recovering, seed };
        if state.has_place(&key.tenant, self.places()) {
            state.take_place(&key.tenant);
            return Some(job);
        }
        state.waiting.entry(key.tenant.clone()).or_default().push_back(job);
        state.waiting_count += 1;
        None
    }

    /// Tells the session's driver to look again, if it has one here.
    pub(crate) fn tell(&self, key: &SessionKey) -> bool {
        let state = self.state.lock();
        let wake = state.known.get(key);
        wake.inspect(|wake| wake.tell()).is_some()
    }

    /// Tells every driver to look again.
    pub(crate) fn tell_all(&self) {
        self.state.lock().known.values().for_each(Wake::tell);
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

    /// A driver of `tenant` has ended; gives the next job to start in its place.
    pub(crate) fn ended(&self, tenant: &Arc<str>) -> Option<Job> {
        let mut state = self.state.lock();
        state.leave_place(tenant);
        if !state.draining
            && let Some(job) = state.next(self.places())
        {
            return Some(job);
        }
        if state.active == 0 {
            self.idle.notify_waiters();
        }
        drop(state);
        self.freed.notify_one();
        None
    }

    /// Forgets a session whose driver failed, so that the next input starts another.
    pub(crate) fn forget(&self, key: &SessionKey) {
        self.state.lock().known.remove(key);
    }

    /// Active drivers and sessions that wait for one.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.active, state.waiting_count)
    }

    /// Sessions that are driven or wait for it.
    pub(crate) fn known_count(&self) -> usize {
        self.state.lock().known.len()
    }

    /// How many more sessions can be driven now, and the tenants that have as many as they may.
    pub(crate) fn room(&self) -> (usize, Vec<Arc<str>>) {
        let state = self.state.lock();
        if state.draining {
            return (0, Vec::new());
        }
        let most = self.places().per_tenant_max;
        let full = |(tenant, count): (&Arc<str>, &usize)| (*count >= most).then(|| tenant.clone());
        let busy = state.active_of.iter().filter_map(full).collect();
        (self.drivers_max.saturating_sub(state.active + state.waiting_count), busy)
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.state.lock().draining
    }

    /// No new driver starts from now on; those that run are told.
    pub(crate) fn drain(&self) {
        let mut state = self.state.lock();
        state.draining = true;
        state.waiting.clear();
        state.waiting_count = 0;
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
pub(crate) struct Ends(Mutex<HashMap<Id<id::Run>, Awaited>>);

#[derive(Debug)]
struct Awaited {
    sender: watch::Sender<End>,
    /// Where the run is, once that is known.
    key: Option<SessionKey>,
}

/// A run's end, or the point at which it waits for somebody, once it is there.
type End = Option<Arc<RunView>>;

impl Ends {
    /// Waits for a run's end; subscribe before looking at how it stands.
    pub(crate) fn subscribe(&self, run: Id<id::Run>) -> watch::Receiver<End> {
        let mut ends = self.0.lock();
        ends.retain(|_, awaited| awaited.sender.receiver_count() > 0);
        let awaited = ends.entry(run).or_insert_with(|| Awaited { sender: watch::channel(None).0, key: None });
        awaited.sender.subscribe()
    }

    /// Says in which session an awaited run is, so that it is found when another process drives it.
    pub(crate) fn found(&self, run: Id<id::Run>, key: &SessionKey) {
        if let Some(awaited) = self.0.lock().get_mut(&run) {
            awaited.key = Some(key.clone());
        }
    }

    /// The awaited runs of a session, or of all.
    pub(crate) fn of(&self, key: Option<&SessionKey>) -> Vec<(Id<id::Run>, SessionKey)> {
        let ends = self.0.lock();
        let placed = ends.iter().filter_map(|(run, awaited)| Some((*run, awaited.key.clone()?)));
        placed.filter(|(_, at)| key.is_none_or(|key| key == at)).collect()
    }

    /// Whether anybody waits for it.
    pub(crate) fn awaited(&self, run: Id<id::Run>) -> bool {
        self.0.lock().contains_key(&run)
    }

    /// How many runs somebody waits for.
    pub(crate) fn count(&self) -> usize {
        self.0.lock().values().filter(|awaited| awaited.sender.receiver_count() > 0).count()
    }

    /// Tells those who wait.
    pub(crate) fn tell(&self, view: Arc<RunView>) {
        if let Some(awaited) = self.0.lock().remove(&view.run) {
            // An error means that nobody waits any more.
            let _ = awaited.sender.send(Some(view));
        }
    }
}
