//! The log in one SQLite file: one writer thread that owns the only connection which writes, groups entries of many
//! sessions into one commit (WAL, `synchronous=FULL`) and answers after it; a few connections that only read.
//!
//! Nothing here scans at the start: a journal of 100,000 sessions opens as fast as an empty one.

mod apply;
mod directory;
mod read;
mod readers;
mod schema;
mod writer;

use crate::contents::{DataKeys, Stored};
use crate::hints::Registry;
use crate::query::{Head, Page, RunFilter, SessionCursor, StoredRecord, Unfinished};
use crate::store::Store;
use crate::{Append, Appended, ArtifactRow, DueRow, Error, Health, Limits, RunRow, SessionKey, SessionRow};
use async_trait::async_trait;
use domain::{Id, id};
use parking_lot::Mutex;
use readers::Readers;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use stdx::Clock;
use tokio::sync::{Semaphore, mpsc, oneshot};
use writer::{Erased, Job, Shared, Writer};

/// The store.
#[derive(Debug)]
pub(crate) struct Sqlite {
    queue: mpsc::Sender<Job>,
    /// Bytes that may still be queued.
    room_bytes: Arc<Semaphore>,
    shared: Arc<Shared>,
    readers: Readers,
    thread: Mutex<Option<JoinHandle<()>>>,
    boot: u64,
}

impl Sqlite {
    pub(crate) fn open(
        directory: &Path,
        clock: Clock,
        limits: Limits,
        hints: Arc<Registry>,
        data_keys: Arc<DataKeys>,
    ) -> Result<Self, Error> {
        let lock = directory::lock(directory)?;
        let file = directory::database_file(directory)?;
        let mut connection = schema::connect(&file)?;
        let boot = schema::prepare(&mut connection)?;
        let commit_id = schema::last_commit(&connection)?;
        let shared = Arc::new(Shared::new(commit_id));
        let (queue, jobs) = mpsc::channel(limits.queue_entries_max.max(1));
        let writer = Writer::new(connection, jobs, commit_id, clock, limits, hints, data_keys, shared.clone(), lock);
        let thread =
            std::thread::Builder::new().name("journal".to_owned()).spawn(move || writer.run()).map_err(Error::io)?;
        Ok(Self {
            queue,
            room_bytes: Arc::new(Semaphore::new(limits.queue_bytes_max)),
            shared,
            readers: Readers::new(file, limits.readers_max),
            thread: Mutex::new(Some(thread)),
            boot,
        })
    }

    async fn erase(&self, key: &SessionKey, item: Option<Id<id::Content>>) -> Result<Erased, Error> {
        let (reply, answer) = oneshot::channel();
        let job = Job::Erase { key: key.clone(), item, reply };
        self.queue.send(job).await.map_err(|_| Error::Closed)?;
        answer.await.map_err(|_| Error::Closed)?
    }
}

#[async_trait]
impl Store for Sqlite {
    fn boot(&self) -> u64 {
        self.boot
    }

    fn health(&self) -> Health {
        let closed = self.queue.is_closed().then_some(Error::Closed);
        Health {
            error: closed.or_else(|| self.shared.error()),
            queued_entries: self.queue.max_capacity() - self.queue.capacity(),
            commit_id: self.shared.commit_id(),
        }
    }

    async fn close(&self) -> Result<(), Error> {
        self.readers.close();
        // A writer that is gone already needs no telling.
        let _ = self.queue.send(Job::Close).await;
        let thread = self.thread.lock().take();
        let Some(thread) = thread else {
            return Ok(());
        };
        let joined = tokio::task::spawn_blocking(move || thread.join()).await.map_err(Error::io)?;
        joined.map_err(|_| Error::io("the writer panicked"))
    }

    async fn append(&self, entry: Append) -> Result<Appended, Error> {
        // An entry is at most APPEND_BYTES_MAX, far below 4 GiB.
        let weight_bytes = u32::try_from(entry.weight_bytes()).unwrap_or(u32::MAX);
        let room = self.room_bytes.clone().acquire_many_owned(weight_bytes).await.map_err(|_| Error::Closed)?;
        let (reply, answer) = oneshot::channel();
        let job = Job::Append { entry: Box::new(entry), room, reply };
        self.queue.send(job).await.map_err(|_| Error::Closed)?;
        answer.await.map_err(|_| Error::Closed)?
    }

    async fn erase_item(&self, key: &SessionKey, item: Id<id::Content>) -> Result<Option<Stored>, Error> {
        Ok(self.erase(key, Some(item)).await?.item)
    }

    async fn erase_session(&self, key: &SessionKey) -> Result<Vec<Id<id::Content>>, Error> {
        Ok(self.erase(key, None).await?.objects)
    }

    async fn rebuild_index(&self) -> Result<u64, Error> {
        let (reply, answer) = oneshot::channel();
        self.queue.send(Job::RebuildIndex { reply }).await.map_err(|_| Error::Closed)?;
        answer.await.map_err(|_| Error::Closed)?
    }

    async fn head(&self, key: &SessionKey) -> Result<Head, Error> {
        let key = key.clone();
        self.readers.read(move |connection| read::head(connection, &key)).await
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

    async fn unfinished(&self, rows_max: usize) -> Result<Vec<Unfinished>, Error> {
        self.readers.read(move |connection| read::unfinished(connection, rows_max)).await
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
