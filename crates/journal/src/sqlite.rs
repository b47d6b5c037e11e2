//! The log in one SQLite file: one writer that owns the only connection which writes, groups entries of many
//! sessions into one commit (WAL, `synchronous=FULL`) and answers after it; a few connections that only read.
//!
//! Nothing here scans at the start: a journal of 100,000 sessions opens as fast as an empty one.

pub(crate) mod apply;
pub(crate) mod chains;
#[cfg(test)]
mod costs;
pub(crate) mod directory;
pub(crate) mod read;
mod readers;
pub(crate) mod salvage;
pub(crate) mod schema;
mod shared;
mod transaction;
pub(crate) mod upkeep;
mod waiting;
mod writer;

use crate::backup::{self, Manifest};
use crate::claims::Backend;
use crate::contents::{DataKeys, Stored};
use crate::hints::Registry;
use crate::query::{Head, Page, RunFilter, SessionCursor, StoredRecord, Unfinished, UnfinishedCursor};
use crate::store::Store;
use crate::{
    Append, Appended, ArtifactRow, Config, Disk, DueRow, Error, Health, RunRow, SessionKey, SessionRow, Threads,
};
use async_trait::async_trait;
use domain::{Id, id};
use parking_lot::Mutex;
use readers::Readers;
use schema::Database;
use shared::Shared;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use stdx::Clock;
use tokio::sync::{Semaphore, mpsc, oneshot};
use writer::{Erased, Job, World, Writer};

/// The store.
#[derive(Debug)]
pub(crate) struct Sqlite {
    queue: mpsc::Sender<Job>,
    /// Bytes that may still be queued.
    room_bytes: Arc<Semaphore>,
    shared: Arc<Shared>,
    readers: Readers,
    database: Database,
    hands: Hands,
    boot: u64,
    clock: Clock,
}

/// Whose hands the writer is in; nobody's any more once it is closed.
#[derive(Debug)]
enum Hands {
    Own(Mutex<Option<JoinHandle<()>>>),
    Inline(Mutex<Option<Box<Writer>>>),
}

impl Sqlite {
    pub(crate) fn open(
        directory: &Path,
        clock: Clock,
        config: &Config,
        hints: Arc<Registry>,
        data_keys: Arc<DataKeys>,
    ) -> Result<Self, Error> {
        let Config { limits, disk, threads, .. } = *config;
        let (lock, file) = match disk {
            Disk::System => (Some(directory::lock(directory)?), directory::database_file(directory)?),
            Disk::Vfs(_) => (None, directory.join(directory::DATABASE)),
        };
        let database = Database { file, disk };
        schema::rewrite_log(&database)?;
        let mut connection = schema::connect(&database)?;
        let boot = schema::prepare(&mut connection)?;
        let quarantined = upkeep::all_quarantined(&connection)?;
        let shared = Arc::new(Shared::new(schema::last_commit(&connection)?, quarantined));
        let (queue, jobs) = mpsc::channel(limits.queue_entries_max.max(1));
        let world = World { clock: clock.clone(), limits, hints, data_keys };
        let writer = Writer::new((connection, database.clone()), lock, jobs, shared.clone(), world);
        let hands = match threads {
            Threads::Own => {
                let thread = std::thread::Builder::new().name("journal".to_owned());
                Hands::Own(Mutex::new(Some(thread.spawn(move || writer.run()).map_err(Error::io)?)))
            }
            Threads::Inline => Hands::Inline(Mutex::new(Some(Box::new(writer)))),
        };
        Ok(Self {
            queue,
            room_bytes: Arc::new(Semaphore::new(limits.queue_bytes_max)),
            readers: Readers::new(database.clone(), shared.clone(), limits.readers_max, threads),
            shared,
            database,
            hands,
            boot,
            clock,
        })
    }

    /// Queues a job and waits for its answer.
    async fn ask<T>(&self, job: Job, answer: oneshot::Receiver<Result<T, Error>>) -> Result<T, Error> {
        if self.queue.capacity() == 0 {
            self.drain();
        }
        self.queue.send(job).await.map_err(|_| Error::Closed)?;
        if matches!(self.hands, Hands::Inline(_)) {
            // Whoever is ready in this turn of the runtime queues as well, and the first one to come back commits for all.
            tokio::task::yield_now().await;
            self.drain();
        }
        answer.await.map_err(|_| Error::Closed)?
    }

    /// Does what is queued, when nobody else does it: callers that went away may have left something behind.
    fn drain(&self) {
        if let Hands::Inline(writer) = &self.hands
            && let Some(writer) = writer.lock().as_mut()
        {
            writer.drain();
        }
    }

    async fn erase(&self, key: &SessionKey, item: Option<Id<id::Content>>) -> Result<Erased, Error> {
        let (reply, answer) = oneshot::channel();
        self.ask(Job::Erase { key: key.clone(), item, reply }, answer).await
    }
}

#[async_trait]
impl Store for Sqlite {
    fn boot(&self) -> u64 {
        self.boot
    }

    fn backend(&self) -> Backend {
        Backend::Sqlite
    }

    fn health(&self) -> Health {
        let closed = self.queue.is_closed().then_some(Error::Closed);
        // Nobody may be left who appends while the service is not ready: who asks how it does has it look again.
        if closed.is_none() && self.shared.begin_probe() {
            if self.queue.try_send(Job::Probe).is_err() {
                self.shared.end_probe();
            }
            self.drain();
        }
        Health {
            error: closed.or_else(|| self.shared.error()),
            queued_entries: self.queue.max_capacity() - self.queue.capacity(),
            commit_id: self.shared.commit_id(),
        }
    }

    fn idle_connections(&self) -> usize {
        self.readers.idle_count()
    }

    fn let_go(&self) {
        self.readers.let_go();
        // One that finds no room in the queue is not at rest.
        let _ = self.queue.try_send(Job::LetGo);
        self.drain();
    }

    async fn close(&self) -> Result<(), Error> {
        self.readers.close();
        match &self.hands {
            Hands::Own(thread) => {
                // A writer that is gone already needs no telling.
                let _ = self.queue.send(Job::Close).await;
                let thread = thread.lock().take();
                let Some(thread) = thread else {
                    return Ok(());
                };
                let joined = tokio::task::spawn_blocking(move || thread.join()).await.map_err(Error::io)?;
                joined.map_err(|_| Error::io("the writer panicked"))
            }
            Hands::Inline(writer) => {
                if let Some(mut writer) = writer.lock().take() {
                    writer.drain();
                    writer.checkpoint();
                }
                Ok(())
            }
        }
    }

    async fn append(&self, entry: Append) -> Result<Appended, Error> {
        // An entry is at most APPEND_BYTES_MAX, far below 4 GiB.
        let weight_bytes = u32::try_from(entry.weight_bytes()).unwrap_or(u32::MAX);
        if self.room_bytes.available_permits() < entry.weight_bytes() {
            self.drain();
        }
        let room = self.room_bytes.clone().acquire_many_owned(weight_bytes).await.map_err(|_| Error::Closed)?;
        let (reply, answer) = oneshot::channel();
        self.ask(Job::Append { entry: Box::new(entry), room, reply }, answer).await
    }

    async fn fence(&self, key: &SessionKey, epoch: u64) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        self.ask(Job::Fence { key: key.clone(), epoch, reply }, answer).await
    }

    async fn erase_item(&self, key: &SessionKey, item: Id<id::Content>) -> Result<Option<Stored>, Error> {
        Ok(self.erase(key, Some(item)).await?.item)
    }

    async fn erase_session(&self, key: &SessionKey) -> Result<Vec<Id<id::Content>>, Error> {
        Ok(self.erase(key, None).await?.objects)
    }

    async fn rebuild_index(&self) -> Result<u64, Error> {
        let (reply, answer) = oneshot::channel();
        self.ask(Job::RebuildIndex { reply }, answer).await
    }

    async fn backup(&self, to: &Path, made_ms: u64) -> Result<Manifest, Error> {
        let (database, to) = (self.database.clone(), to.to_owned());
        let made = match self.hands {
            Hands::Own(_) => {
                let make = tokio::task::spawn_blocking(move || backup::make(&database, &to, made_ms));
                make.await.map_err(Error::io)?
            }
            Hands::Inline(_) => backup::make(&database, &to, made_ms),
        };
        made.inspect_err(|error| self.shared.note(None, error))
    }

    async fn head(&self, key: &SessionKey) -> Result<Head, Error> {
        let key = key.clone();
        self.readers.read(move |connection| read::head(connection, &key)).await
    }

    async fn last_records(&self, keys: Vec<SessionKey>) -> Result<Vec<Option<StoredRecord>>, Error> {
        self.readers.read(move |connection| keys.iter().map(|key| read::last_record(connection, key)).collect()).await
    }

    async fn records(&self, key: &SessionKey, from: u64, rows_max: usize) -> Result<Vec<StoredRecord>, Error> {
        let key = key.clone();
        self.readers.read(move |connection| read::records(connection, &key, from, rows_max)).await
    }

    async fn content(&self, key: &SessionKey, item: Id<id::Content>) -> Result<Option<Stored>, Error> {
        let key = key.clone();
        self.readers.read(move |connection| read::content(connection, &key, item)).await
    }

    async fn data_key(&self, key: &SessionKey) -> Result<Option<Vec<u8>>, Error> {
        let key = key.clone();
        self.readers.read(move |connection| read::data_key(connection, &key)).await
    }

    async fn run(&self, tenant: &Arc<str>, run: Id<id::Run>) -> Result<Option<RunRow>, Error> {
        let tenant = tenant.clone();
        self.readers.read(move |connection| read::run(connection, &tenant, run)).await
    }

    async fn runs(
        &self,
        tenant: &Arc<str>,
        filter: RunFilter,
        before: Option<Id<id::Run>>,
        rows_max: usize,
    ) -> Result<Page<RunRow, Id<id::Run>>, Error> {
        let tenant = tenant.clone();
        self.readers.read(move |connection| read::runs(connection, &tenant, &filter, before, rows_max)).await
    }

    async fn session(&self, key: &SessionKey) -> Result<Option<SessionRow>, Error> {
        let key = key.clone();
        self.readers.read(move |connection| read::session(connection, &key)).await
    }

    async fn sessions(
        &self,
        tenant: &Arc<str>,
        before: Option<SessionCursor>,
        rows_max: usize,
    ) -> Result<Page<SessionRow, SessionCursor>, Error> {
        let tenant = tenant.clone();
        self.readers.read(move |connection| read::sessions(connection, &tenant, before, rows_max)).await
    }

    async fn unfinished(
        &self,
        after: Option<&UnfinishedCursor>,
        rows_max: usize,
    ) -> Result<Page<Unfinished, UnfinishedCursor>, Error> {
        let after = after.cloned();
        self.readers.read(move |connection| read::unfinished(connection, after.as_ref(), rows_max)).await
    }

    async fn artifacts(&self, tenant: &Arc<str>, run: Id<id::Run>, rows_max: usize) -> Result<Vec<ArtifactRow>, Error> {
        let tenant = tenant.clone();
        self.readers.read(move |connection| read::artifacts(connection, &tenant, run, rows_max)).await
    }

    async fn artifact(&self, tenant: &Arc<str>, artifact: Id<id::Artifact>) -> Result<Option<ArtifactRow>, Error> {
        let tenant = tenant.clone();
        self.readers.read(move |connection| read::artifact(connection, &tenant, artifact)).await
    }

    async fn due(&self, until_ms: u64, rows_max: usize) -> Result<Vec<DueRow>, Error> {
        self.readers.read(move |connection| read::due(connection, until_ms, rows_max)).await
    }
}
