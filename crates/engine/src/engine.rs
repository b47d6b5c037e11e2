//! The engine's face: what it is made of, how it starts, serves and drains.

use crate::counts::{Counts, Tally};
use crate::dispatch::{Dispatch, Ends, Job};
use crate::idle::Idle;
use crate::live::{Channels, Watch};
use crate::liveness::Pulses;
use crate::places::ModelPlaces;
use crate::ready::Crew;
use crate::retry::{BreakerView, Breakers};
use crate::totals::Known;
use crate::{Error, driver};
use blob::Blobs;
use catalog::Catalog;
use chunks::Chunks;
use domain::{Event, Id, id, template};
use journal::{Backend, Journal, SessionKey, StoredRecord, Worker};
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use stdx::{Clock, Random};
use tokio::sync::{Semaphore, watch};

/// The engine's limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Sessions driven at once.
    pub drivers_max: usize,
    /// Sessions that may wait for a driver; more are refused.
    pub waiting_max: usize,
    /// How long the result of a quick call that is safe to repeat may wait to be written together with what follows it.
    pub linger_ms_max: u64,
    /// Bytes of one artifact.
    pub artifact_bytes_max: u64,
    /// How long a stage of a sandbox's start may stand still before it is given up.
    pub start_lull_ms: u64,
    /// How long a whole start may take, however well it gets on.
    pub start_ms_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            drivers_max: 256,
            waiting_max: 10_000,
            linger_ms_max: 5,
            artifact_bytes_max: 16 << 20,
            start_lull_ms: 60_000,
            start_ms_max: 1_800_000,
        }
    }
}

/// Runs of one page that are taken up.
const RECOVER_ROWS: usize = 1_000;

/// Looks up a variable of the environment.
pub type Environment = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// What an engine is made of.
pub struct Parts {
    /// Reads time.
    pub clock: Clock,
    /// Makes ids.
    pub random: Random,
    /// The log.
    pub journal: Journal,
    /// Objects and artifacts.
    pub blobs: Blobs,
    /// Workspaces as they were kept.
    pub chunks: Chunks,
    /// Gives the declarations in force.
    pub catalog: Arc<dyn Fn() -> Arc<Catalog> + Send + Sync>,
    /// Makes sandboxes.
    pub providers: Vec<Arc<dyn sandbox::Provider>>,
    /// The way out.
    pub net: net::Client,
    /// Looks up `${env.NAME}`.
    pub environment: Environment,
    /// Looks up `${secret.NAME}`, and takes every leased value out of what is recorded.
    pub secrets: vault::Secrets,
    /// Rust functions that tools run.
    pub functions: tools::Functions,
    /// Its limits.
    pub limits: Limits,
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// Drives runs. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Engine(pub(crate) Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) parts: Parts,
    pub(crate) dispatch: Dispatch,
    pub(crate) ends: Ends,
    pub(crate) channels: Channels,
    pub(crate) crew: Crew,
    pub(crate) tally: Tally,
    pub(crate) breakers: Breakers,
    pub(crate) model_places: ModelPlaces,
    /// Turns at reading workspaces that are kept.
    pub(crate) readers: Semaphore,
    /// How often this process has told others of runs, or tried to.
    pub(crate) deliveries: watch::Sender<u64>,
    /// Sandboxes that stand still.
    pub(crate) idle: Idle,
    /// How the drivers here get on.
    pub(crate) pulses: Pulses,
    /// What runs that nobody drives here have come to.
    pub(crate) known: Known,
    /// The worker that this process is among those that share the journal.
    pub(crate) worker: OnceLock<Worker>,
}

/// How the engine does.
#[derive(Clone, Debug)]
pub struct Health {
    /// Whether it takes runs, or why not.
    pub ready: Result<(), String>,
    /// The model of the default agent, as its vendor names it; empty when no agent can run.
    pub model: String,
    /// Whether sandboxes can be made, so far as this process has found.
    pub sandbox: bool,
    /// Sessions that are driven.
    pub active: usize,
    /// Sessions that wait for a driver.
    pub waiting: usize,
    /// The longest time for which a session that is driven has made no progress, in milliseconds.
    pub no_progress_ms_max: u64,
}

impl Engine {
    /// An engine that drives nothing yet.
    pub fn new(parts: Parts) -> Self {
        let dispatch = Dispatch::new(parts.limits.drivers_max);
        dispatch.allow((parts.catalog)().settings.concurrency.per_tenant);
        let (ends, channels, crew) = (Ends::default(), Channels::default(), Crew::default());
        let (tally, breakers) = (Tally::default(), Breakers::default());
        let (model_places, worker) = (ModelPlaces::default(), OnceLock::new());
        let (pulses, known) = (Pulses::default(), Known::default());
        let deliveries = watch::Sender::new(0);
        Self(Arc::new(Inner {
            parts,
            dispatch,
            ends,
            channels,
            crew,
            tally,
            breakers,
            model_places,
            readers: Semaphore::new(crate::keep::READ_AT_ONCE_MAX),
            deliveries,
            idle: Idle::default(),
            pulses,
            known,
            worker,
        }))
    }

    /// Takes up the runs that an earlier process left; gives the number of their sessions. They go on in the background. Runs
    /// that wait for somebody are left where they are.
    pub async fn recover(&self) -> Result<usize, Error> {
        let journal = &self.0.parts.journal;
        if journal.backend() == Backend::Postgres {
            // What a worker left is ready when its lease is over; [`Engine::tend`] claims it.
            return Ok(0);
        }
        let (mut sessions, mut from, mut last) = (0, None, None);
        loop {
            let page = journal.unfinished(from.as_ref(), RECOVER_ROWS).await?;
            let mut keys: Vec<SessionKey> = page.rows.into_iter().map(|run| run.key).collect();
            // Runs of one session follow one another here, also over the end of a page.
            keys.dedup();
            keys.retain(|key| last.as_ref() != Some(key));
            last = keys.last().cloned().or(last);
            // One read for all of them: most may be waiting.
            let records = journal.last_records(keys.clone()).await?;
            for (key, record) in keys.iter().zip(&records) {
                if !is_parked(record.as_ref())? {
                    self.room().await;
                    sessions += 1;
                    self.0.clone().start(self.0.dispatch.grown(key, true, None));
                }
            }
            from = page.next;
            if from.is_none() {
                return Ok(sessions);
            }
        }
    }

    /// Waits until the row of those that wait for a driver is not too long.
    async fn room(&self) {
        while self.0.dispatch.counts().1 >= self.0.parts.limits.waiting_max && !self.0.dispatch.is_draining() {
            self.0.dispatch.freed.notified().await;
        }
    }

    /// Watches what happens in a session between its records.
    pub fn watch(&self, tenant: &str, session: Id<id::Session>) -> Watch {
        self.0.channels.watch(tenant, session)
    }

    /// How often this process has told others of runs, or tried to; changes whenever the outcome of an attempt was kept.
    pub fn watch_deliveries(&self) -> watch::Receiver<u64> {
        self.0.deliveries.subscribe()
    }

    /// The log.
    pub fn journal(&self) -> &Journal {
        &self.0.parts.journal
    }

    /// Objects and artifacts.
    pub fn blobs(&self) -> &Blobs {
        &self.0.parts.blobs
    }

    /// The declarations in force.
    pub fn catalog(&self) -> Arc<Catalog> {
        (self.0.parts.catalog)()
    }

    /// Those who make sandboxes.
    pub fn providers(&self) -> &[Arc<dyn sandbox::Provider>] {
        &self.0.parts.providers
    }

    /// The clock.
    pub fn clock(&self) -> &Clock {
        &self.0.parts.clock
    }

    /// How it does.
    pub fn health(&self) -> Health {
        let inner = &self.0;
        let (active, waiting) = inner.dispatch.counts();
        let journal = inner.parts.journal.health();
        let ready = match journal.error {
            _ if inner.dispatch.is_draining() => Err(Error::Draining.to_string()),
            Some(error) => Err(error.to_string()),
            None => Ok(()),
        };
        let model = self.catalog().agent(None).map(|closure| inner.expanded(&closure.model.name)).unwrap_or_default();
        let sandbox = inner.parts.providers.iter().any(|provider| provider.is_ready());
        let no_progress_ms_max = inner.pulses.silent_ms_max();
        Health { ready, model, sandbox, active, waiting, no_progress_ms_max }
    }

    /// What this process has done so far.
    pub fn counts(&self) -> Counts {
        Counts { breakers_opened: self.0.breakers.opened(), ..self.0.tally.counts() }
    }

    /// The parts that this process has left alone because they keep failing, by name.
    pub fn breakers(&self) -> Vec<BreakerView> {
        let settings = (self.0.parts.catalog)().settings.breaker;
        self.0.breakers.views(self.0.parts.clock.wall_ms(), settings)
    }

    /// Takes no new runs; waits up to `grace` for those that run, then holds them at the end of their turns for as long
    /// again. What has not ended by then goes on when a process starts again.
    pub async fn drain(&self, grace: Duration) {
        self.0.dispatch.drain();
        if tokio::time::timeout(grace, self.0.dispatch.idle()).await.is_err() {
            self.0.dispatch.hold();
            tracing::info!("runs under way begin no further turn");
            // Whatever the outcome, the log says where each run stands.
            let _ = tokio::time::timeout(grace, self.0.dispatch.idle()).await;
        }
    }
}

impl Inner {
    /// Starts a driver, and after it those that wait for its place.
    pub(crate) fn start(self: Arc<Self>, job: Option<Job>) {
        let Some(mut job) = job else { return };
        tokio::spawn(async move {
            loop {
                let tenant = job.key.tenant.clone();
                driver::drive(self.clone(), job).await;
                match self.dispatch.ended(&tenant) {
                    Some(next) => job = next,
                    None => return,
                }
            }
        });
    }

    /// Whether this process may act on what it has claimed. To be asked right before a deed.
    pub(crate) fn may_act(&self) -> bool {
        self.worker.get().is_none_or(|worker| worker.lease().is_good())
    }

    /// A configuration value with its references replaced.
    pub(crate) fn expand(&self, text: &str) -> Result<String, template::Error> {
        template::expand(text, |source, name| match source {
            template::Source::Env => (self.parts.environment)(name),
            template::Source::Secret => self.parts.secrets.lease(name).map(|secret| secret.expose().to_owned()),
        })
    }

    /// The same for showing; the text as it stands when it can't be expanded.
    pub(crate) fn expanded(&self, text: &str) -> String {
        self.expand(text).unwrap_or_else(|_| text.to_owned())
    }

    /// A new id.
    pub(crate) fn id<K: domain::id::Kind>(&self) -> Id<K> {
        Id::new(self.parts.clock.wall_ms(), self.parts.random.bytes())
    }
}

/// Whether the last that happened in a session is that its run was parked: no input came since.
fn is_parked(last: Option<&StoredRecord>) -> Result<bool, Error> {
    let event = last.map(StoredRecord::decode).transpose()?.map(|record| record.event);
    Ok(matches!(event, Some(Event::Parked(_) | Event::InDoubt(_))))
}
