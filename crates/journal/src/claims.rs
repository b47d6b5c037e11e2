//! Who drives a session: workers, their leases, claims, and what is ready to be driven.
//!
//! Here are the types, and the claims of a journal that one process owns. Claims that processes share are kept by the
//! shared store (`postgres::claims`). Which of the ready sessions is driven, and by how many drivers, is the engine's.

use crate::store::Store;
use crate::{DueRow, Error, SessionKey};
use async_trait::async_trait;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use stdx::Clock;

/// Bits of an epoch that count claims within one life of the process; the bits above are the boot number.
pub(crate) const CLAIM_BITS: u32 = 36;
/// A worker trusts its lease for this part of it less than the database does, so that two clocks which run differently
/// fast never both say that they hold it.
const LEASE_MARGIN: u64 = 10;

/// Which store keeps the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// Gone with the process.
    Memory,
    /// One file of one process.
    Sqlite,
    /// A database that processes share.
    Postgres,
}

/// A worker that wants to join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerSpec {
    /// How it is called where people look; need not be unique.
    pub name: String,
    /// How long what it holds is kept for it after its last beat, in milliseconds.
    pub lease_ms: u64,
}

/// A worker that has joined. Clones are the same worker.
#[derive(Clone, Debug)]
pub struct Worker {
    id: u64,
    name: Arc<str>,
    lease_ms: u64,
    lease: Lease,
}

impl Worker {
    pub(crate) fn new(id: u64, spec: WorkerSpec, lease: Lease) -> Self {
        Self { id, name: spec.name.into(), lease_ms: spec.lease_ms, lease }
    }

    /// Its number; never given twice.
    pub const fn id(&self) -> u64 {
        self.id
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How long its lease lasts after a beat, in milliseconds. It should beat three times as often.
    pub const fn lease_ms(&self) -> u64 {
        self.lease_ms
    }

    /// Its lease: that of every session it has claimed.
    pub const fn lease(&self) -> &Lease {
        &self.lease
    }
}

/// Until when a worker may act. Measured by the clock that goes on while a machine or a process sleeps, from before the
/// last beat was sent, so that it always ends here before it ends in the database.
#[derive(Clone)]
pub struct Lease {
    clock: Clock,
    good_until_ms: Arc<AtomicU64>,
}

impl Lease {
    /// A lease that begins to run with its first beat.
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, good_until_ms: Arc::default() }
    }

    /// A lease that never ends: nobody else could claim anything.
    pub(crate) fn endless(clock: Clock) -> Self {
        Self { clock, good_until_ms: Arc::new(AtomicU64::new(u64::MAX)) }
    }

    /// Whether the worker may act now. To be asked right before a deed.
    pub fn is_good(&self) -> bool {
        self.now_ms() < self.good_until_ms()
    }

    /// Until when it is good, in milliseconds since the machine's start.
    pub fn good_until_ms(&self) -> u64 {
        self.good_until_ms.load(Ordering::Acquire)
    }

    pub(crate) fn now_ms(&self) -> u64 {
        u64::try_from(self.clock.boottime().as_millis()).unwrap_or(u64::MAX)
    }

    /// A beat that was sent at `sent_ms` was answered.
    pub(crate) fn extend(&self, sent_ms: u64, lease_ms: u64) {
        self.good_until_ms.fetch_max(sent_ms + lease_ms - lease_ms / LEASE_MARGIN, Ordering::AcqRel);
    }

    /// The database says that the worker is no more.
    pub(crate) fn lose(&self) {
        self.good_until_ms.store(0, Ordering::Release);
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("good_until_ms", &self.good_until_ms()).finish_non_exhaustive()
    }
}

/// A session that the worker holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Above every epoch that was given for the session before.
    pub epoch: u64,
}

/// A session in which there is something to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    /// The session.
    pub key: SessionKey,
    /// Since when, in milliseconds since the Unix epoch.
    pub at_ms: u64,
}

/// How a driver leaves a session that it has driven as far as it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Release {
    /// The epoch of its claim.
    pub epoch: u64,
    /// The next position, as the driver has folded the log: an input that stands there or later keeps the session ready. A
    /// driver that failed and must not be followed at once says `u64::MAX` and when.
    pub folded: u64,
    /// When there is something to do again, in milliseconds since the Unix epoch by the clock of this process, besides the
    /// session's timers.
    pub next_ms: Option<u64>,
}

/// Claims of a store that processes share.
#[async_trait]
pub(crate) trait Claims: Send + Sync {
    /// The new worker's number.
    async fn join(&self, spec: &WorkerSpec) -> Result<u64, Error>;
    async fn beat(&self, worker: u64, lease_ms: u64) -> Result<(), Error>;
    async fn leave(&self, worker: u64) -> Result<(), Error>;
    /// The new epoch.
    async fn claim(&self, worker: u64, key: &SessionKey) -> Result<u64, Error>;
    async fn release(&self, worker: u64, key: &SessionKey, release: Release) -> Result<(), Error>;
    async fn claimable(&self, rows_max: usize, busy: &[Arc<str>]) -> Result<Vec<Ready>, Error>;
}

/// Claims of a store that one process owns. The boot number, which is durable before anything else, and a counter within this
/// life order every claim; nobody who claimed in an earlier life still writes. So only a claim of what is held is written: it
/// fences a driver that may come back.
#[derive(Debug)]
pub(crate) struct Local {
    epochs: AtomicU64,
    workers: AtomicU64,
    sessions: Mutex<HashMap<SessionKey, Known>>,
}

/// A session that is held, ready, or both; another one is not in the map.
#[derive(Debug, Default)]
struct Known {
    held: Option<u64>,
    ready: Option<Wanted>,
}

#[derive(Clone, Copy, Debug)]
struct Wanted {
    at_ms: u64,
    position: u64,
}

impl Local {
    pub(crate) fn new(boot: u64) -> Self {
        Self { epochs: AtomicU64::new(boot << CLAIM_BITS), workers: AtomicU64::new(0), sessions: Mutex::default() }
    }

    pub(crate) fn join(&self) -> u64 {
        self.workers.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Gives everything back; what was being driven is ready again.
    pub(crate) fn leave(&self, now_ms: u64) {
        for known in self.sessions.lock().values_mut() {
            if known.held.take().is_some() {
                known.ready.get_or_insert(Wanted { at_ms: now_ms, position: 0 });
            }
        }
    }

    /// An input was appended up to `position`.
    pub(crate) fn wanted(&self, key: &SessionKey, position: u64, now_ms: u64) {
        let mut sessions = self.sessions.lock();
        let ready = &mut sessions.entry(key.clone()).or_default().ready;
        let at_ms = ready.map_or(now_ms, |there| there.at_ms.min(now_ms));
        *ready = Some(Wanted { at_ms, position });
    }

    pub(crate) async fn claim(&self, store: &dyn Store, key: &SessionKey) -> Result<u64, Error> {
        let epoch = self.epochs.fetch_add(1, Ordering::Relaxed) + 1;
        {
            let mut sessions = self.sessions.lock();
            let known = sessions.entry(key.clone()).or_default();
            if known.held.is_none() {
                known.held = Some(epoch);
                return Ok(epoch);
            }
        }
        store.fence(key, epoch).await?;
        // Of two that claim it from a third the later one holds; the other is fenced.
        let mut sessions = self.sessions.lock();
        let known = sessions.entry(key.clone()).or_default();
        known.held = known.held.max(Some(epoch));
        Ok(epoch)
    }

    pub(crate) fn release(&self, key: &SessionKey, release: Release) {
        let mut sessions = self.sessions.lock();
        let Some(known) = sessions.get_mut(key).filter(|known| known.held == Some(release.epoch)) else {
            return;
        };
        known.held = None;
        if known.ready.is_none_or(|ready| ready.position <= release.folded) {
            known.ready = release.next_ms.map(|at_ms| Wanted { at_ms, position: release.folded });
        }
        if known.ready.is_none() {
            sessions.remove(key);
        }
    }

    /// Gives the room back that sessions took up which are over.
    pub(crate) fn let_go(&self) {
        let mut sessions = self.sessions.lock();
        let known = sessions.len();
        sessions.shrink_to(known * 2);
    }

    /// How many sessions are held or ready.
    pub(crate) fn count(&self) -> usize {
        self.sessions.lock().len()
    }

    /// What is ready and held by nobody, together with the timers that are due; one of each tenant, then the next.
    pub(crate) fn claimable(&self, due: Vec<DueRow>, now_ms: u64, rows_max: usize, busy: &[Arc<str>]) -> Vec<Ready> {
        let sessions = self.sessions.lock();
        let mut found: HashMap<SessionKey, u64> = HashMap::new();
        let wanted = sessions.iter().filter_map(|(key, known)| Some((key.clone(), known.ready?.at_ms)));
        for (key, at_ms) in wanted.chain(due.into_iter().map(|row| (row.key, row.at_ms))) {
            let held = sessions.get(&key).is_some_and(|known| known.held.is_some());
            if at_ms <= now_ms && !held && !busy.contains(&key.tenant) {
                let there = found.entry(key).or_insert(at_ms);
                *there = at_ms.min(*there);
            }
        }
        in_turns(found.into_iter().map(|(key, at_ms)| Ready { key, at_ms }).collect(), rows_max)
    }
}

/// One of each tenant, then the next of each; who has waited longest comes first.
pub(crate) fn in_turns(mut rows: Vec<Ready>, rows_max: usize) -> Vec<Ready> {
    rows.sort_by(|a, b| (a.at_ms, &a.key).cmp(&(b.at_ms, &b.key)));
    let mut turns: HashMap<Arc<str>, usize> = HashMap::new();
    let mut rows: Vec<_> = rows
        .into_iter()
        .map(|row| {
            let turn = turns.entry(row.key.tenant.clone()).or_default();
            *turn += 1;
            (*turn, row)
        })
        .collect();
    // Stable: within a turn the order stays.
    rows.sort_by_key(|(turn, _)| *turn);
    rows.into_iter().map(|(_, row)| row).take(rows_max).collect()
}
