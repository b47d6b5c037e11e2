//! The handle: checks what comes in, puts large contents away first, asks the store, checks what comes out.

mod upkeep;
mod waiting;

use crate::append::Fence;
use crate::claims::{Backend, Claim, Claims, Lease, Local, Ready, Release, Worker, WorkerSpec};
use crate::contents::{self, Content, DataKey, DataKeys, Objects, Sealer, Wrap};
use crate::hints::{Hints, Registry};
use crate::leases::Leases;
use crate::postgres::{Postgres, PostgresSettings};
use crate::query::{
    Head, PAGE_ROWS_MAX, Page, RunFilter, SessionCursor, StoredRecord, Unfinished, UnfinishedCursor, Verified,
};
use crate::store::Store;
use crate::{Append, Appended, ArtifactRow, DueRow, Error, RunRow, SessionKey, SessionRow, link, memory, sqlite};
use domain::{ContentRef, Id, id};
use parking_lot::Mutex;
use std::path::Path;
use std::sync::Arc;
use stdx::{Clock, Random};
use zeroize::Zeroize;

/// Whether contents are sealed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ContentsMode {
    /// Sealed under data keys that a tenant's key wraps.
    #[default]
    Sealed,
    /// As they are, for those who want to read them with SQL (`contents: plain`).
    Plain,
}

/// Where the bytes of a database lie.
#[derive(Clone, Copy, Debug, Default)]
pub enum Disk {
    /// In files of the machine, in a directory that is locked and made durable.
    #[default]
    System,
    /// Behind an SQLite VFS that the caller brings. Every connection goes through it, the directory is nothing but the
    /// beginning of the database's name, and no lock is taken.
    Vfs(Vfs),
}

/// An SQLite VFS.
#[derive(Clone, Copy, Debug)]
pub struct Vfs {
    /// The name under which it is registered.
    pub name: &'static str,
    /// Writes the bytes of a file once more, where they are, and syncs them. A file that is not there is left alone.
    pub rewrite: fn(&Path) -> std::io::Result<()>,
}

/// Who does a database's work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Threads {
    /// A thread of its own writes, the runtime's blocking pool reads.
    #[default]
    Own,
    /// The task that asks, at once: on one thread, what happens is then a function of the order in which tasks are
    /// polled. Entries that are queued in one turn of the runtime share a commit all the same.
    Inline,
}

/// The limits of a journal.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Entries waiting for the writer.
    pub queue_entries_max: usize,
    /// Bytes waiting for the writer.
    pub queue_bytes_max: usize,
    /// Entries in one commit.
    pub group_entries_max: usize,
    /// Bytes after which a commit takes no further entry.
    pub group_bytes_max: usize,
    /// Heads that the writer remembers.
    pub heads_max: usize,
    /// Unwrapped data keys that are remembered.
    pub data_keys_max: usize,
    /// Reads at one time, each with a connection of its own.
    pub readers_max: usize,
    /// Hints that wait for a slow subscriber before it is told that it lags.
    pub hints_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            queue_entries_max: 4_096,
            queue_bytes_max: 64 << 20,
            group_entries_max: 256,
            group_bytes_max: 4 << 20,
            heads_max: 8_192,
            data_keys_max: 4_096,
            readers_max: 4,
            hints_max: 64,
        }
    }
}

/// How a journal is kept.
#[derive(Clone, Copy, Debug, Default)]
pub struct Config {
    /// Whether contents are sealed.
    pub contents: ContentsMode,
    /// Its limits.
    pub limits: Limits,
    /// Where the database lies; says nothing to a journal in memory.
    pub disk: Disk,
    /// Who writes and reads it; says nothing to a journal in memory.
    pub threads: Threads,
    /// Who may claim its sessions; says nothing to a journal that processes share.
    pub claimants: Claimants,
}

/// Who claims the sessions of a journal that one process owns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Claimants {
    /// This journal alone: its claims are never contested and its lease never ends.
    #[default]
    One,
    /// It and its fellows (see [`Journal::fellow`]): each is a worker with a lease, as processes that share a database are.
    Fellows,
}

/// What a journal needs of the world.
#[derive(Clone, Debug)]
pub struct Parts {
    /// Tells when an idempotency key is over.
    pub clock: Clock,
    /// Makes keys and ids.
    pub random: Random,
    /// Keeps the tenants' keys.
    pub wrap: Arc<dyn Wrap>,
    /// Keeps large contents.
    pub objects: Arc<dyn Objects>,
}

/// What a journal has in memory for sessions, by their number. All of it is zero once nobody drives, reads or watches any and
/// the journal was twice told to let go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Unwrapped data keys.
    pub data_keys: usize,
    /// Sessions that this process holds or that are ready for it; on a journal that processes share the database knows.
    pub claimed: usize,
    /// Sessions that somebody listens to.
    pub listened_to: usize,
    /// Connections to a database in a file that stay open to read with.
    pub connections: usize,
}

/// How the journal does.
#[derive(Clone, Debug, Default)]
pub struct Health {
    /// What went wrong with the last commit; `None` when it went well.
    pub error: Option<Error>,
    /// Entries waiting for the writer.
    pub queued_entries: usize,
    /// Number of the last commit.
    pub commit_id: u64,
}

/// The log of every session. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Journal {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Arc<dyn Store>,
    hints: Arc<Registry>,
    data_keys: Arc<DataKeys>,
    local: Local,
    leases: Option<Arc<Leases>>,
    worker: Mutex<Option<Worker>>,
    contents: ContentsMode,
    parts: Parts,
}

impl Inner {
    /// Claims that others contest.
    fn claims(&self) -> Option<&dyn Claims> {
        self.store.claims().or_else(|| self.leases.as_deref().map(|leases| leases as &dyn Claims))
    }
}

impl Journal {
    /// Opens the journal of a data directory and takes its lock; makes both when they are not there. Blocks for some
    /// milliseconds; looks at no session.
    pub fn open(directory: &Path, parts: Parts, config: Config) -> Result<Self, Error> {
        let hints = Registry::new(config.limits.hints_max);
        let data_keys = Arc::new(DataKeys::new(config.limits.data_keys_max));
        let store = sqlite::Sqlite::open(directory, parts.clock.clone(), &config, hints.clone(), data_keys.clone())?;
        Ok(Self::over(Arc::new(store), hints, data_keys, parts, config))
    }

    /// Opens the journal of a PostgreSQL database, which other processes may have open as well: makes or migrates its
    /// tables, and refuses a server that would lose what it has acknowledged. Needs a runtime with time and IO.
    pub async fn open_postgres(settings: &PostgresSettings, parts: Parts, config: Config) -> Result<Self, Error> {
        let hints = Registry::new(config.limits.hints_max);
        let data_keys = Arc::new(DataKeys::new(config.limits.data_keys_max));
        let store = Postgres::open(settings, &parts, &config, hints.clone(), data_keys.clone()).await?;
        Ok(Self::over(Arc::new(store), hints, data_keys, parts, config))
    }

    /// A journal that is gone with the process.
    pub fn memory(parts: Parts, config: Config) -> Self {
        let hints = Registry::new(config.limits.hints_max);
        let data_keys = Arc::new(DataKeys::new(config.limits.data_keys_max));
        let store = memory::Memory::new(parts.clock.clone(), hints.clone(), data_keys.clone());
        Self::over(Arc::new(store), hints, data_keys, parts, config)
    }

    fn over(
        store: Arc<dyn Store>,
        hints: Arc<Registry>,
        data_keys: Arc<DataKeys>,
        parts: Parts,
        Config { contents, claimants, .. }: Config,
    ) -> Self {
        let local = Local::new(store.boot());
        let leases = match claimants {
            Claimants::Fellows => Some(Arc::new(Leases::new(store.clone(), parts.clock.clone()))),
            Claimants::One => None,
        };
        let worker = Mutex::default();
        Self { inner: Arc::new(Inner { store, hints, data_keys, local, leases, worker, contents, parts }) }
    }

    /// Another journal over the same store, whose worker is its own. With [`Claimants::Fellows`] they contest each other's
    /// claims as processes do that share a database.
    #[must_use]
    pub fn fellow(&self) -> Self {
        let Inner { store, hints, data_keys, leases, contents, parts, .. } = &*self.inner;
        let inner = Inner {
            store: store.clone(),
            hints: hints.clone(),
            data_keys: data_keys.clone(),
            local: Local::new(store.boot()),
            leases: leases.clone(),
            worker: Mutex::default(),
            contents: *contents,
            parts: parts.clone(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Whether others may claim its sessions, so that what this process holds it holds by a lease.
    pub fn is_shared(&self) -> bool {
        self.inner.claims().is_some()
    }

    /// Whether the driver of this epoch holds the session now and its lease runs, as whoever keeps the leases of fellows sees it; a
    /// journal without fellows has none to ask.
    pub fn holds(&self, key: &SessionKey, epoch: u64) -> Option<bool> {
        self.inner.leases.as_ref().map(|leases| leases.holds(key, epoch))
    }

    /// Ends the journal: what is queued is written, subscriptions end, the lock is given back.
    pub async fn close(&self) -> Result<(), Error> {
        let closed = self.inner.store.close().await;
        self.inner.hints.close();
        closed
    }

    /// How it does; for readiness.
    pub fn health(&self) -> Health {
        self.inner.store.health()
    }

    /// Lets go of what nobody has used since it was last told so: data keys, pages of the database, connections that read. To
    /// be called every so often, so that what waits costs no memory.
    pub fn let_go(&self) {
        let Inner { store, data_keys, local, .. } = &*self.inner;
        data_keys.let_go();
        local.let_go();
        store.let_go();
    }

    /// What is in memory for sessions now.
    pub fn kept(&self) -> Kept {
        let Inner { store, data_keys, local, hints, .. } = &*self.inner;
        Kept {
            data_keys: data_keys.count(),
            claimed: local.count(),
            listened_to: hints.count(),
            connections: store.idle_connections(),
        }
    }

    /// The last record of each of some sessions, in their order; `None` for one that has none. At most
    /// [`PAGE_ROWS_MAX`](crate::query::PAGE_ROWS_MAX) sessions at a time.
    pub async fn last_records(&self, keys: Vec<SessionKey>) -> Result<Vec<Option<StoredRecord>>, Error> {
        if keys.len() > PAGE_ROWS_MAX {
            return Err(Error::Invalid { reason: "the last records of more sessions than a page has rows" });
        }
        self.inner.store.last_records(keys).await
    }

    /// How often this journal was opened, this time included.
    pub fn boot(&self) -> u64 {
        self.inner.store.boot()
    }

    /// Which store keeps it.
    pub fn backend(&self) -> Backend {
        self.inner.store.backend()
    }

    /// Makes this process a worker; from then on its claims are that worker's, and its lease runs. The worker before, if
    /// there was one, is left to its end. On a journal that one process owns the lease never ends.
    pub async fn join(&self, spec: WorkerSpec) -> Result<Worker, Error> {
        let Inner { local, parts, .. } = &*self.inner;
        let worker = match self.inner.claims() {
            None => Worker::new(local.join(), spec, Lease::endless(parts.clock.clone())),
            Some(claims) => {
                let lease = Lease::new(parts.clock.clone());
                let sent_ms = lease.now_ms();
                let id = claims.join(&spec).await?;
                lease.extend(sent_ms, spec.lease_ms);
                Worker::new(id, spec, lease)
            }
        };
        *self.inner.worker.lock() = Some(worker.clone());
        Ok(worker)
    }

    /// Keeps a worker's lease, and with it every session it holds. To be called three times within a lease.
    /// [`Error::WorkerLost`]: others may have taken what it held.
    pub async fn beat(&self, worker: &Worker) -> Result<(), Error> {
        let Some(claims) = self.inner.claims() else {
            return Ok(());
        };
        let sent_ms = worker.lease().now_ms();
        let beaten = claims.beat(worker.id(), worker.lease_ms()).await;
        match &beaten {
            Ok(()) => worker.lease().extend(sent_ms, worker.lease_ms()),
            Err(Error::WorkerLost) => worker.lease().lose(),
            Err(_) => {}
        }
        beaten
    }

    /// Gives everything back that a worker holds; others may claim it at once. To be called when its drivers have stopped.
    pub async fn leave(&self, worker: &Worker) -> Result<(), Error> {
        let Inner { local, parts, .. } = &*self.inner;
        match self.inner.claims() {
            None => local.leave(parts.clock.wall_ms()),
            Some(claims) => {
                worker.lease().lose();
                claims.leave(worker.id()).await?;
            }
        }
        self.inner.worker.lock().take_if(|there| there.id() == worker.id());
        Ok(())
    }

    /// Claims a session for a driver of this process: an epoch above all that were ever given for it. When this returns, no
    /// driver before it writes any more, and what they wrote is there to be read. [`Error::Held`]: another worker has it and is
    /// alive.
    ///
    /// On a journal that one process owns only a claim of what is held is written: the boot number and a counter within this
    /// life order every claim, and else the epoch becomes the session's with the driver's first append.
    pub async fn claim(&self, key: &SessionKey) -> Result<Claim, Error> {
        let Inner { store, local, worker, .. } = &*self.inner;
        let Some(claims) = self.inner.claims() else {
            return Ok(Claim { epoch: local.claim(&**store, key).await? });
        };
        let worker = worker.lock().as_ref().map(Worker::id);
        let worker = worker.ok_or(Error::Invalid { reason: "a claim by no worker; hint: join first" })?;
        Ok(Claim { epoch: claims.claim(worker, key).await? })
    }

    /// Gives a session back that was driven as far as it goes. It is ready again at once when an input has come that the
    /// driver has not folded, else when its next timer is due or at `next_ms`. Of a claim that is over, nothing changes.
    pub async fn release(&self, key: &SessionKey, release: Release) -> Result<(), Error> {
        let Inner { local, worker, .. } = &*self.inner;
        let Some(claims) = self.inner.claims() else {
            local.release(key, release);
            return Ok(());
        };
        let worker = worker.lock().as_ref().map(Worker::id);
        match worker {
            Some(worker) => claims.release(worker, key, release).await,
            None => Ok(()),
        }
    }

    /// Sessions in which there is something to do and that no live worker holds: one of each tenant, then the next of
    /// each, longest waiting first. Tenants in `busy` are left out. A claim may still find that another worker was
    /// quicker.
    ///
    /// On a journal that one process owns, what had inputs before this process began is not among them: that is what
    /// [`Journal::unfinished`] lists.
    pub async fn claimable(&self, rows_max: usize, busy: &[Arc<str>]) -> Result<Vec<Ready>, Error> {
        let Inner { store, local, parts, .. } = &*self.inner;
        let rows_max = rows_max.min(PAGE_ROWS_MAX);
        match self.inner.claims() {
            Some(claims) => claims.claimable(rows_max, busy).await,
            None => {
                let now_ms = parts.clock.wall_ms();
                let due = store.due(now_ms, PAGE_ROWS_MAX).await?;
                let mut ready = local.claimable(due, now_ms, rows_max, busy);
                if !ready.is_empty() && !store.quarantines(None, 1).await?.rows.is_empty() {
                    let mut free = Vec::new();
                    for row in ready {
                        if store.quarantined(&row.key).await?.is_none() {
                            free.push(row);
                        }
                    }
                    ready = free;
                }
                Ok(ready)
            }
        }
    }

    /// The one write. Large contents are durable among the objects before the entry is looked at; an entry that is then
    /// refused leaves objects behind that no record points to.
    pub async fn append(&self, mut entry: Append) -> Result<Appended, Error> {
        entry.check()?;
        for item in &mut entry.contents {
            if let Some(object) = item.object.take() {
                let key = contents::object_key(&entry.key, item.id);
                self.inner.parts.objects.put(&key, object).await.map_err(objects)?;
            }
        }
        let data_key = entry.contents.first().map(|item| item.key.clone());
        let input = matches!(entry.fence, Fence::Input(_)).then(|| entry.key.clone());
        let appended = self.inner.store.append(entry).await;
        if let (Ok(Appended::Written(written)), Some(key)) = (&appended, input)
            && self.inner.store.claims().is_none()
        {
            let position = written.next_position();
            match &self.inner.leases {
                Some(leases) => leases.wanted(&key, position),
                None => self.inner.local.wanted(&key, position, self.inner.parts.clock.wall_ms()),
            }
        }
        if let (Err(Error::DataKeyChanged), Some(key)) = (&appended, data_key) {
            self.inner.data_keys.forget(&key);
        }
        appended
    }

    /// What seals the contents of a session. The session's data key is made with its first append.
    pub async fn sealer(&self, key: &SessionKey) -> Result<Sealer, Error> {
        let Inner { contents, parts, .. } = &*self.inner;
        let key = self.data_key(key).await?;
        Ok(Sealer { key, mode: *contents, random: parts.random.clone() })
    }

    /// Opens an item; checks it against its record.
    pub async fn content(&self, key: &SessionKey, content: &ContentRef) -> Result<Content, Error> {
        let Some(data_key) = self.opening_key(key).await? else {
            return Ok(Content::Erased);
        };
        let opened = self.open_with(&data_key, key, content).await;
        if !matches!(opened, Err(Error::Corrupt { .. })) {
            return opened;
        }
        // Another process may have erased the session since, and begun with a new key.
        let stored = self.inner.store.data_key(key).await?;
        if stored.is_none_or(|stored| stored == data_key.wrapped) {
            return opened;
        }
        self.inner.data_keys.forget(&data_key);
        match self.opening_key(key).await? {
            Some(data_key) => self.open_with(&data_key, key, content).await,
            None => Ok(Content::Erased),
        }
    }

    async fn open_with(&self, data_key: &DataKey, key: &SessionKey, content: &ContentRef) -> Result<Content, Error> {
        let inner = &*self.inner;
        let Some(stored) = inner.store.content(key, content.id).await? else {
            return Ok(Content::Erased);
        };
        if !stored.form.has_object() {
            return contents::open(data_key, content, stored);
        }
        let object = inner.parts.objects.get(&contents::object_key(key, content.id)).await.map_err(objects)?;
        match object {
            Some(object) => contents::open_object(data_key, content, stored, object),
            // An erasure that came between the row and the object, or damage.
            None if inner.store.content(key, content.id).await?.is_none() => Ok(Content::Erased),
            None => Err(Error::corrupt(format_args!("the object of content {} is missing", content.id))),
        }
    }

    /// Destroys an item: its row and with it its key, then its object. The records stay and still verify.
    pub async fn erase_item(&self, key: &SessionKey, item: Id<id::Content>) -> Result<(), Error> {
        let inner = &*self.inner;
        if inner.store.erase_item(key, item).await?.is_some_and(|stored| stored.form.has_object()) {
            inner.parts.objects.delete(&contents::object_key(key, item)).await.map_err(objects)?;
        }
        Ok(())
    }

    /// Destroys every content of a session and its data key. The records stay and still verify.
    pub async fn erase_session(&self, key: &SessionKey) -> Result<(), Error> {
        let inner = &*self.inner;
        for item in inner.store.erase_session(key).await? {
            inner.parts.objects.delete(&contents::object_key(key, item)).await.map_err(objects)?;
        }
        Ok(())
    }

    /// Makes the lists of sessions, runs, artifacts and timers anew from the records; gives the number of records read. Appends
    /// wait meanwhile. For a list that was damaged, or whose form a newer program changed.
    pub async fn rebuild_index(&self) -> Result<u64, Error> {
        self.inner.store.rebuild_index().await
    }

    /// Where a log stands.
    pub async fn head(&self, key: &SessionKey) -> Result<Head, Error> {
        self.inner.store.head(key).await
    }

    /// Records of a session from a position on, in order; at most `rows_max` and [`PAGE_BYTES_MAX`](crate::query::PAGE_BYTES_MAX). Empty at the end.
    pub async fn records(&self, key: &SessionKey, from: u64, rows_max: usize) -> Result<Vec<StoredRecord>, Error> {
        let rows = self.inner.store.records(key, from, rows_max.min(PAGE_ROWS_MAX)).await?;
        link::check(key, from, &rows).inspect_err(|error| self.inner.store.damaged(key, error))?;
        Ok(rows)
    }

    /// Records of a run from a position on. Other inputs of its session that came meanwhile are left out; `next` is the
    /// position to go on from, `None` once the run's end was read.
    pub async fn run_records(
        &self,
        run: &RunRow,
        from: u64,
        rows_max: usize,
    ) -> Result<Page<StoredRecord, u64>, Error> {
        let key = SessionKey::new(run.tenant.clone(), run.session);
        let from = from.max(run.submitted_position);
        let mut rows = self.records(&key, from, rows_max).await?;
        let mut next = rows.last().map_or(from, |last| last.position + 1);
        let mut ended = false;
        if let Some(finished) = run.finished_position {
            ended = next > finished;
            next = next.min(finished + 1);
            rows.retain(|row| row.position <= finished);
        }
        let mut foreign = Vec::new();
        for (at, row) in rows.iter().enumerate() {
            if row.decode()?.event.run() != run.run {
                foreign.push(at);
            }
        }
        for at in foreign.into_iter().rev() {
            rows.remove(at);
        }
        Ok(Page { rows, next: (!ended).then_some(next) })
    }

    /// A run.
    pub async fn run(&self, tenant: &Arc<str>, run: Id<id::Run>) -> Result<Option<RunRow>, Error> {
        self.inner.store.run(tenant, run).await
    }

    /// Runs, newest first, older than `before`.
    pub async fn runs(
        &self,
        tenant: &Arc<str>,
        filter: RunFilter,
        before: Option<Id<id::Run>>,
        rows_max: usize,
    ) -> Result<Page<RunRow, Id<id::Run>>, Error> {
        self.inner.store.runs(tenant, filter, before, rows_max.clamp(1, PAGE_ROWS_MAX)).await
    }

    /// A session.
    pub async fn session(&self, key: &SessionKey) -> Result<Option<SessionRow>, Error> {
        self.inner.store.session(key).await
    }

    /// Sessions, newest first, older than `before`.
    pub async fn sessions(
        &self,
        tenant: &Arc<str>,
        before: Option<SessionCursor>,
        rows_max: usize,
    ) -> Result<Page<SessionRow, SessionCursor>, Error> {
        self.inner.store.sessions(tenant, before, rows_max.clamp(1, PAGE_ROWS_MAX)).await
    }

    /// Runs that have not ended, of every tenant, after `after`: what to take up at the start. By session, and within one
    /// in the order in which they were asked for. Sessions in quarantine are left out.
    pub async fn unfinished(
        &self,
        after: Option<&UnfinishedCursor>,
        rows_max: usize,
    ) -> Result<Page<Unfinished, UnfinishedCursor>, Error> {
        self.inner.store.unfinished(after, rows_max.clamp(1, PAGE_ROWS_MAX)).await
    }

    /// Files that a run left, in the order they were kept.
    pub async fn artifacts(&self, tenant: &Arc<str>, run: Id<id::Run>) -> Result<Vec<ArtifactRow>, Error> {
        self.inner.store.artifacts(tenant, run, PAGE_ROWS_MAX).await
    }

    /// A file that a run left.
    pub async fn artifact(&self, tenant: &Arc<str>, artifact: Id<id::Artifact>) -> Result<Option<ArtifactRow>, Error> {
        self.inner.store.artifact(tenant, artifact).await
    }

    /// Timers that are due at `until_ms`, earliest first, of every tenant; those of sessions in quarantine are left out.
    pub async fn due(&self, until_ms: u64, rows_max: usize) -> Result<Vec<DueRow>, Error> {
        self.inner.store.due(until_ms, rows_max.min(PAGE_ROWS_MAX)).await
    }

    /// Recomputes a session's chain from the stored bytes and compares its end with the head.
    pub async fn verify(&self, key: &SessionKey) -> Result<Verified, Error> {
        // The head first: records that are appended meanwhile are then beyond it, not missing.
        let head = self.head(key).await?;
        let mut walk = link::Walk::new(key.clone());
        while walk.position() < head.position {
            let from = walk.position();
            let page = self.inner.store.records(key, from, PAGE_ROWS_MAX).await?;
            if page.is_empty() {
                break;
            }
            for record in page.iter().take_while(|record| record.position < head.position) {
                if let Err(broken) = walk.step(record) {
                    return Ok(broken);
                }
            }
            if walk.position() == from {
                break;
            }
        }
        Ok(walk.end(&head))
    }

    /// Hints of one session; `None` once closed. Subscribe first, then read up to the head: nothing is missed.
    pub fn subscribe(&self, key: &SessionKey) -> Option<Hints> {
        self.inner.hints.subscribe(key)
    }

    /// Hints of every session; `None` once closed.
    pub fn subscribe_all(&self) -> Option<Hints> {
        self.inner.hints.subscribe_all()
    }

    async fn data_key(&self, session: &SessionKey) -> Result<Arc<DataKey>, Error> {
        let Inner { data_keys, parts, .. } = &*self.inner;
        loop {
            let generation = match data_keys.get(session) {
                Ok(key) => return Ok(key),
                Err(generation) => generation,
            };
            if let Some(key) = self.stored_data_key(session).await? {
                if let Some(key) = data_keys.settle(key, generation) {
                    return Ok(key);
                }
                continue;
            }
            let mut plain: [u8; 32] = parts.random.bytes();
            let wrapped = parts.wrap.wrap(&session.tenant, session.session.as_bytes(), &plain);
            let key = wrapped.map(|wrapped| DataKey::new(session.clone(), &plain, wrapped, false));
            plain.zeroize();
            let key = key.map_err(key_error)?.ok_or_else(|| key_error("the cipher refused it"))?;
            if let Some(key) = data_keys.settle(key, generation) {
                return Ok(key);
            }
        }
    }

    /// The key that a session's items open with; `None` when it was destroyed.
    async fn opening_key(&self, session: &SessionKey) -> Result<Option<Arc<DataKey>>, Error> {
        loop {
            let generation = match self.inner.data_keys.get(session) {
                Ok(key) => return Ok(Some(key)),
                Err(generation) => generation,
            };
            let Some(key) = self.stored_data_key(session).await? else {
                return Ok(None);
            };
            if let Some(key) = self.inner.data_keys.settle(key, generation) {
                return Ok(Some(key));
            }
        }
    }

    /// The data key that the database has, if any.
    async fn stored_data_key(&self, session: &SessionKey) -> Result<Option<DataKey>, Error> {
        let Inner { store, parts, .. } = &*self.inner;
        let Some(wrapped) = store.data_key(session).await? else {
            return Ok(None);
        };
        let mut plain = parts.wrap.unwrap(&session.tenant, session.session.as_bytes(), &wrapped).map_err(key_error)?;
        let key = DataKey::new(session.clone(), &plain, wrapped, true);
        plain.zeroize();
        Ok(Some(key.ok_or_else(|| key_error("the cipher refused it"))?))
    }
}

fn key_error(reason: impl Into<Arc<str>>) -> Error {
    Error::Key { reason: reason.into() }
}

fn objects(reason: String) -> Error {
    Error::Objects { reason: reason.into() }
}
