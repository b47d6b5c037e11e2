//! Claims with leases for several journals of one process over one store: for simulations, and for tests of what workers do to each
//! other, without a server. They are gone with the process, as their workers are; `postgres::claims` keeps those of many processes.

use crate::claims::{CLAIM_BITS, Claims, Ready, Release, WorkerSpec, in_turns};
use crate::query::PAGE_ROWS_MAX;
use crate::store::Store;
use crate::{Error, SessionKey};
use async_trait::async_trait;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use stdx::Clock;

/// The claims. Their clock is what a database's would be: no worker's own.
#[derive(Debug)]
pub(crate) struct Leases {
    store: Arc<dyn Store>,
    clock: Clock,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The last that was given.
    epoch: u64,
    workers_made: u64,
    workers: BTreeMap<u64, Joined>,
    sessions: BTreeMap<SessionKey, Known>,
}

#[derive(Debug)]
struct Joined {
    name: Arc<str>,
    until_ms: u64,
}

/// Worker and epoch.
type Holder = (u64, u64);

#[derive(Debug, Default)]
struct Known {
    holder: Option<Holder>,
    /// Since when there is something to do, and up to which position inputs came.
    ready: Option<(u64, u64)>,
}

impl Leases {
    pub(crate) fn new(store: Arc<dyn Store>, clock: Clock) -> Self {
        let state = State {
            epoch: store.boot() << CLAIM_BITS,
            workers_made: 0,
            workers: BTreeMap::new(),
            sessions: BTreeMap::new(),
        };
        Self { store, clock, state: Mutex::new(state) }
    }

    /// An input was appended up to `position`.
    pub(crate) fn wanted(&self, key: &SessionKey, position: u64) {
        let now_ms = self.clock.wall_ms();
        let mut state = self.state.lock();
        let ready = &mut state.sessions.entry(key.clone()).or_default().ready;
        let at_ms = ready.map_or(now_ms, |(at_ms, _)| at_ms.min(now_ms));
        *ready = Some((at_ms, position));
    }

    /// Whether the driver of this epoch holds the session and its lease runs.
    pub(crate) fn holds(&self, key: &SessionKey, epoch: u64) -> bool {
        let now_ms = self.now_ms();
        let state = self.state.lock();
        let holder = state.sessions.get(key).and_then(|known| known.holder).filter(|(_, held)| *held == epoch);
        holder.and_then(|(worker, _)| state.workers.get(&worker)).is_some_and(|worker| worker.until_ms > now_ms)
    }

    /// An epoch for the worker and the holder before, unless that is another who lives.
    fn look(&self, worker: u64, key: &SessionKey) -> Result<(u64, Option<Holder>), Error> {
        let (now_ms, wall_ms) = (self.now_ms(), self.clock.wall_ms());
        let state = &mut *self.state.lock();
        if !state.workers.contains_key(&worker) {
            return Err(Error::WorkerLost);
        }
        let seen = state.sessions.get(key).and_then(|known| known.holder);
        if let Some((other, _)) = seen.filter(|(holder, _)| *holder != worker) {
            state.bury(now_ms);
            if let Some(Joined { name, until_ms }) = state.workers.get(&other) {
                let until_ms = wall_ms + until_ms.saturating_sub(now_ms);
                return Err(Error::Held { by: name.clone(), until_ms });
            }
        }
        state.epoch += 1;
        Ok((state.epoch, seen))
    }

    /// Makes the worker the holder; `false`: another one was quicker than it.
    fn take(&self, holder: Holder, key: &SessionKey, seen: Option<Holder>) -> bool {
        let wall_ms = self.clock.wall_ms();
        let mut state = self.state.lock();
        let known = state.sessions.entry(key.clone()).or_default();
        if known.holder != seen {
            return false;
        }
        known.holder = Some(holder);
        // Ready until it is released, so that it is found again when its driver dies.
        let (at_ms, position) = known.ready.unwrap_or((wall_ms, 0));
        known.ready = Some((at_ms.min(wall_ms), position));
        true
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.clock.boottime().as_millis()).unwrap_or(u64::MAX)
    }
}

impl State {
    /// Takes out workers whose leases are over.
    fn bury(&mut self, now_ms: u64) {
        self.workers.retain(|_, worker| worker.until_ms > now_ms);
    }
}

#[async_trait]
impl Claims for Leases {
    async fn join(&self, spec: &WorkerSpec) -> Result<u64, Error> {
        let until_ms = self.now_ms() + spec.lease_ms;
        let mut state = self.state.lock();
        state.workers_made += 1;
        let id = state.workers_made;
        state.workers.insert(id, Joined { name: spec.name.as_str().into(), until_ms });
        Ok(id)
    }

    async fn beat(&self, worker: u64, lease_ms: u64) -> Result<(), Error> {
        let until_ms = self.now_ms() + lease_ms;
        let mut state = self.state.lock();
        // One whose lease is over and whom nobody has buried has lost nothing yet.
        state.workers.get_mut(&worker).ok_or(Error::WorkerLost)?.until_ms = until_ms;
        Ok(())
    }

    async fn leave(&self, worker: u64) -> Result<(), Error> {
        self.state.lock().workers.remove(&worker);
        Ok(())
    }

    async fn claim(&self, worker: u64, key: &SessionKey) -> Result<u64, Error> {
        loop {
            let (epoch, seen) = self.look(worker, key)?;
            if seen.is_some() {
                // Fenced before it is held: a claim that fails leaves everything as it was.
                self.store.fence(key, epoch).await?;
            }
            if self.take((worker, epoch), key, seen) {
                return Ok(epoch);
            }
        }
    }

    async fn release(&self, worker: u64, key: &SessionKey, release: Release) -> Result<(), Error> {
        let mut state = self.state.lock();
        let held = Some((worker, release.epoch));
        let Some(known) = state.sessions.get_mut(key).filter(|known| known.holder == held) else {
            return Ok(());
        };
        known.holder = None;
        if known.ready.is_none_or(|(_, position)| position <= release.folded) {
            known.ready = release.next_ms.map(|at_ms| (at_ms, release.folded));
        }
        if known.ready.is_none() {
            state.sessions.remove(key);
        }
        Ok(())
    }

    async fn claimable(&self, rows_max: usize, busy: &[Arc<str>]) -> Result<Vec<Ready>, Error> {
        let wall_ms = self.clock.wall_ms();
        let due = self.store.due(wall_ms, PAGE_ROWS_MAX).await?;
        let now_ms = self.now_ms();
        let state = &mut *self.state.lock();
        state.bury(now_ms);
        let mut found: BTreeMap<SessionKey, u64> = BTreeMap::new();
        let wanted = state.sessions.iter().filter_map(|(key, known)| Some((key.clone(), known.ready?.0)));
        for (key, at_ms) in wanted.chain(due.into_iter().map(|row| (row.key, row.at_ms))) {
            let holder = state.sessions.get(&key).and_then(|known| known.holder);
            let is_held = holder.is_some_and(|(worker, _)| state.workers.contains_key(&worker));
            if at_ms <= wall_ms && !is_held && !busy.contains(&key.tenant) {
                let there = found.entry(key).or_insert(at_ms);
                *there = at_ms.min(*there);
            }
        }
        Ok(in_turns(found.into_iter().map(|(key, at_ms)| Ready { key, at_ms }).collect(), rows_max))
    }
}
