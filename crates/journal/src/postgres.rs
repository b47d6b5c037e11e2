//! The log in a PostgreSQL database that processes share: one fenced statement for each append, wake-ups apart, claims.
//!
//! Every name is qualified, and no connection of the pool carries state from one statement to the next, so that a pooler may
//! stand in between; what can't go through one (migrations, listening) goes over the database's own URL.

mod append;
mod attempt;
mod claims;
mod fault;
mod group;
mod index;
mod pool;
mod read;
mod schema;
mod settings;
mod statement;
mod upkeep;
mod url;
mod waiting;
mod wake;

pub use settings::{PostgresSettings, Statements};

use crate::claims::{Backend, Claims};
use crate::contents::{DataKeys, Stored};
use crate::hints::Registry;
use crate::query::{Head, Page, RunFilter, SessionCursor, StoredRecord, Unfinished, UnfinishedCursor};
use crate::store::Store;
use crate::{Append, Appended, ArtifactRow, Config, DueRow, Error, Health, Parts, RunRow, SessionKey, SessionRow};
use append::Appender;
use async_trait::async_trait;
use domain::{Id, id};
use parking_lot::Mutex;
use pool::{Dial, Pool};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use stdx::Clock;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use wake::{Keeper, Waker};

/// Connections for the migrations.
const MIGRATION_CONNECTIONS: usize = 1;

/// The store.
#[derive(Debug)]
pub(crate) struct Postgres {
    pool: Arc<Pool>,
    appender: Arc<Appender>,
    /// Entries and bytes that may still be under way.
    room: Arc<Semaphore>,
    room_bytes: Arc<Semaphore>,
    entries_max: u32,
    closing: watch::Sender<bool>,
    tasks: Mutex<JoinSet<()>>,
    closed: AtomicBool,
    commit_id: AtomicU64,
    clock: Clock,
    boot: u64,
}

impl Postgres {
    pub(crate) async fn open(
        settings: &PostgresSettings,
        parts: &Parts,
        config: &Config,
        hints: Arc<Registry>,
        data_keys: Arc<DataKeys>,
    ) -> Result<Self, Error> {
        let Routes { pooled, direct, statements } = Routes::new(settings)?;
        let one = PostgresSettings { connections_max: MIGRATION_CONNECTIONS, ..settings.clone() };
        let migrations = Pool::new(direct.as_ref().unwrap_or(&pooled).clone(), Statements::Unnamed, &one);
        let migrated = schema::migrate(&migrations).await;
        migrations.close().await;
        migrated?;
        let pool = Arc::new(Pool::new(pooled, statements, settings));
        schema::check_safety(&pool).await?;
        let boot = schema::boot(&pool).await?;
        let (waker, random, clock) = (Waker::default(), parts.random.clone(), parts.clock.clone());
        let appender = Arc::new(Appender::new(
            pool.clone(),
            clock.clone(),
            random.clone(),
            hints.clone(),
            data_keys,
            waker.clone(),
            config.limits.heads_max,
        ));
        let origin = boot.to_string();
        let (closing, closed) = watch::channel(false);
        let mut tasks = JoinSet::new();
        tasks.spawn(wake::notify(waker, pool.clone(), origin.clone(), closed.clone()));
        let (appends, connect_ms) = (appender.clone(), settings.connect_ms);
        let own = clock.clone();
        let keeper = Keeper { pool: pool.clone(), direct, appender: appends, hints, origin, clock, random, connect_ms };
        tasks.spawn(keeper.run(closed));
        let entries_max = u32::try_from(config.limits.queue_entries_max.max(1)).unwrap_or(u32::MAX);
        Ok(Self {
            pool,
            appender,
            room: Arc::new(Semaphore::new(config.limits.queue_entries_max.max(1))),
            room_bytes: Arc::new(Semaphore::new(config.limits.queue_bytes_max)),
            entries_max,
            closing,
            tasks: Mutex::new(tasks),
            closed: AtomicBool::new(false),
            commit_id: AtomicU64::new(0),
            clock: own,
            boot,
        })
    }
}

/// The ways to the database.
struct Routes {
    pooled: Dial,
    /// `None`: only a pooler is known.
    direct: Option<Dial>,
    statements: Statements,
}

impl Routes {
    fn new(settings: &PostgresSettings) -> Result<Self, Error> {
        let target = url::parse(&settings.url)?;
        for warning in &target.warnings {
            tracing::warn!("DATABASE_URL: {warning}");
        }
        let pooled = Dial::new(&target, settings)?;
        let direct = match settings.direct_url.clone().or_else(|| url::direct_of(&settings.url)) {
            Some(direct) => {
                let target = url::parse(&direct)?;
                for warning in &target.warnings {
                    tracing::warn!("DATABASE_URL_DIRECT: {warning}");
                }
                Some(Dial::new(&target, settings)?)
            }
            None if target.pooled => {
                tracing::warn!("DATABASE_URL leads to a pooler: without DATABASE_URL_DIRECT, news come once a second");
                None
            }
            None => Some(pooled.clone()),
        };
        let statements = match settings.statements {
            Statements::Auto if target.pooled => Statements::Unnamed,
            Statements::Auto => Statements::Prepared,
            chosen => chosen,
        };
        Ok(Self { pooled, direct, statements })
    }
}

#[async_trait]
impl Store for Postgres {
    fn boot(&self) -> u64 {
        self.boot
    }

    fn backend(&self) -> Backend {
        Backend::Postgres
    }

    fn claims(&self) -> Option<&dyn Claims> {
        Some(self)
    }

    fn health(&self) -> Health {
        let closed = self.closed.load(Ordering::Acquire).then_some(Error::Closed);
        let free = u32::try_from(self.room.available_permits()).unwrap_or(u32::MAX);
        Health {
            error: closed.or_else(|| self.pool.error()),
            queued_entries: self.entries_max.saturating_sub(free) as usize,
            commit_id: self.commit_id.load(Ordering::Relaxed),
        }
    }

    async fn close(&self) -> Result<(), Error> {
        if self.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        // What is under way is still written; each entry takes a bounded time.
        let room = self.room.clone().acquire_many_owned(self.entries_max).await;
        self.room.close();
        drop(room);
        // Nobody may be listening any more.
        let _ = self.closing.send(true);
        let mut tasks = std::mem::take(&mut *self.tasks.lock());
        while tasks.join_next().await.is_some() {}
        self.pool.close().await;
        Ok(())
    }

    async fn append(&self, entry: Append) -> Result<Appended, Error> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::Closed);
        }
        let room = self.room.clone().acquire_owned().await.map_err(|_| Error::Closed)?;
        // An entry is at most APPEND_BYTES_MAX, far below 4 GiB.
        let weight_bytes = u32::try_from(entry.weight_bytes()).unwrap_or(u32::MAX);
        let room_bytes = self.room_bytes.clone().acquire_many_owned(weight_bytes).await.map_err(|_| Error::Closed)?;
        let (appender, entry) = (self.appender.clone(), Arc::new(entry));
        // A task of its own: whoever asked may go away in the middle, and the others are told all the same. `close` waits
        // for it by the room that it holds.
        let task = tokio::spawn(async move {
            let appended = appender.append(&entry).await;
            drop((room, room_bytes));
            appended
        });
        let appended = task.await.map_err(|_| Error::io("the append was torn down"))?;
        if let Ok(Appended::Written(written)) = &appended {
            self.commit_id.fetch_max(written.commit_id, Ordering::Relaxed);
        }
        appended
    }

    async fn erase_item(&self, key: &SessionKey, item: Id<id::Content>) -> Result<Option<Stored>, Error> {
        upkeep::erase_item(&self.pool, key, item).await
    }

    async fn erase_session(&self, key: &SessionKey) -> Result<Vec<Id<id::Content>>, Error> {
        self.erase(key).await
    }

    async fn rebuild_index(&self) -> Result<u64, Error> {
        self.rebuild().await
    }

    async fn head(&self, key: &SessionKey) -> Result<Head, Error> {
        Ok(read::place(&self.pool, key).await?.head)
    }

    async fn records(&self, key: &SessionKey, from: u64, rows_max: usize) -> Result<Vec<StoredRecord>, Error> {
        read::records(&self.pool, key, from, rows_max).await
    }

    async fn content(&self, key: &SessionKey, item: Id<id::Content>) -> Result<Option<Stored>, Error> {
        read::content(&self.pool, key, item).await
    }

    async fn data_key(&self, key: &SessionKey) -> Result<Option<Vec<u8>>, Error> {
        read::data_key(&self.pool, key).await
    }

    async fn run(&self, tenant: &Arc<str>, run: Id<id::Run>) -> Result<Option<RunRow>, Error> {
        read::run(&self.pool, tenant, run).await
    }

    async fn runs(
        &self,
        tenant: &Arc<str>,
        filter: RunFilter,
        before: Option<Id<id::Run>>,
        rows_max: usize,
    ) -> Result<Page<RunRow, Id<id::Run>>, Error> {
        read::runs(&self.pool, tenant, &filter, before, rows_max).await
    }

    async fn session(&self, key: &SessionKey) -> Result<Option<SessionRow>, Error> {
        read::session(&self.pool, key).await
    }

    async fn sessions(
        &self,
        tenant: &Arc<str>,
        before: Option<SessionCursor>,
        rows_max: usize,
    ) -> Result<Page<SessionRow, SessionCursor>, Error> {
        read::sessions(&self.pool, tenant, before, rows_max).await
    }

    async fn unfinished(
        &self,
        after: Option<&UnfinishedCursor>,
        rows_max: usize,
    ) -> Result<Page<Unfinished, UnfinishedCursor>, Error> {
        read::unfinished(&self.pool, after, rows_max).await
    }

    async fn artifacts(&self, tenant: &Arc<str>, run: Id<id::Run>, rows_max: usize) -> Result<Vec<ArtifactRow>, Error> {
        read::artifacts(&self.pool, tenant, run, rows_max).await
    }

    async fn artifact(&self, tenant: &Arc<str>, artifact: Id<id::Artifact>) -> Result<Option<ArtifactRow>, Error> {
        read::artifact(&self.pool, tenant, artifact).await
    }

    async fn due(&self, until_ms: u64, rows_max: usize) -> Result<Vec<DueRow>, Error> {
        read::due(&self.pool, until_ms, rows_max).await
    }
}
