//! The writer thread: drains the queue into groups, commits each group once, answers after the commit.

use crate::append::{Append, Appended};
use crate::contents::{DataKeys, Stored};
use crate::heads::Heads;
use crate::hints::{Hint, Registry};
use crate::sqlite::apply::{self, Outcome};
use crate::sqlite::directory::Lock;
use crate::{Error, Limits, SessionKey};
use domain::{Id, id};
use parking_lot::Mutex;
use rusqlite::{Connection, params};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use stdx::Clock;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

/// Expired idempotency keys that one commit takes out at most.
const PRUNE_ROWS_MAX: u64 = 256;
/// How often expired keys are looked for.
const PRUNE_MS: u64 = 10_000;

/// What the writer is asked.
#[derive(Debug)]
pub(crate) enum Job {
    Append {
        entry: Box<Append>,
        room: OwnedSemaphorePermit,
        reply: oneshot::Sender<Result<Appended, Error>>,
    },
    /// One item, or all of a session with its data key.
    Erase {
        key: SessionKey,
        item: Option<Id<id::Content>>,
        reply: oneshot::Sender<Result<Erased, Error>>,
    },
    RebuildIndex {
        reply: oneshot::Sender<Result<u64, Error>>,
    },
    Close,
}

/// What was erased.
#[derive(Debug, Default)]
pub(crate) struct Erased {
    /// The one item, when one was asked for and was there.
    pub(crate) item: Option<Stored>,
    /// Items of the session that had an object.
    pub(crate) objects: Vec<Id<id::Content>>,
}

/// What others see of the writer.
#[derive(Debug)]
pub(crate) struct Shared {
    error: Mutex<Option<Error>>,
    commit_id: AtomicU64,
}

impl Shared {
    pub(crate) fn new(commit_id: u64) -> Self {
        Self { error: Mutex::default(), commit_id: commit_id.into() }
    }

    pub(crate) fn error(&self) -> Option<Error> {
        self.error.lock().clone()
    }

    pub(crate) fn commit_id(&self) -> u64 {
        self.commit_id.load(Ordering::Relaxed)
    }
}

/// An append that waits for its commit.
struct Pending {
    entry: Box<Append>,
    reply: oneshot::Sender<Result<Appended, Error>>,
    // Gives its bytes back to the queue when the answer is out.
    _room: OwnedSemaphorePermit,
}

/// The thread's state.
#[derive(Debug)]
pub(crate) struct Writer {
    connection: Connection,
    jobs: mpsc::Receiver<Job>,
    heads: Heads,
    commit_id: u64,
    pruned_ms: u64,
    clock: Clock,
    limits: Limits,
    hints: Arc<Registry>,
    data_keys: Arc<DataKeys>,
    shared: Arc<Shared>,
    // Given back last, when the connection is closed. None behind a VFS, which no other process can reach.
    _lock: Option<Lock>,
}

impl Writer {
    #[expect(clippy::too_many_arguments, reason = "the thread's whole state, handed over once")]
    pub(crate) fn new(
        connection: Connection,
        jobs: mpsc::Receiver<Job>,
        commit_id: u64,
        clock: Clock,
        limits: Limits,
        hints: Arc<Registry>,
        data_keys: Arc<DataKeys>,
        shared: Arc<Shared>,
        lock: Option<Lock>,
    ) -> Self {
        let heads = Heads::new(limits.heads_max);
        let pruned_ms = clock.monotonic_ms();
        Self { connection, jobs, heads, commit_id, pruned_ms, clock, limits, hints, data_keys, shared, _lock: lock }
    }

    /// Runs until the queue is closed and empty.
    pub(crate) fn run(mut self) {
        let mut next = None;
        while let Some(job) = next.take().or_else(|| self.jobs.blocking_recv()) {
            next = self.take(job);
        }
        self.checkpoint();
    }

    /// Does what is queued now, on the thread of the caller.
    pub(crate) fn drain(&mut self) {
        let mut next = None;
        while let Some(job) = next.take().or_else(|| self.jobs.try_recv().ok()) {
            next = self.take(job);
        }
    }

    /// Does a job, and gives the one that its group left over.
    fn take(&mut self, job: Job) -> Option<Job> {
        match job {
            Job::Append { entry, room, reply } => {
                let (group, after) = self.gather(Pending { entry, reply, _room: room });
                self.commit(group);
                return after;
            }
            Job::Erase { key, item, reply } => {
                let erased = self.erase(&key, item);
                // Whoever asked may have gone; it is erased all the same.
                let _ = reply.send(erased);
            }
            Job::RebuildIndex { reply } => {
                let read = self.transaction(|writer| apply::rebuild_index(&writer.connection));
                // Whoever asked may have gone; the index is there all the same.
                let _ = reply.send(read);
            }
            // Nothing new is taken; what was taken is still written.
            Job::Close => self.jobs.close(),
        }
        None
    }

    /// Takes what waits, up to the limits of a group. A job of another kind ends the group and comes next.
    fn gather(&mut self, first: Pending) -> (Vec<Pending>, Option<Job>) {
        let mut bytes = first.entry.weight_bytes();
        let mut group = vec![first];
        while group.len() < self.limits.group_entries_max && bytes < self.limits.group_bytes_max {
            match self.jobs.try_recv() {
                Ok(Job::Append { entry, room, reply }) => {
                    bytes += entry.weight_bytes();
                    group.push(Pending { entry, reply, _room: room });
                }
                Ok(other) => return (group, Some(other)),
                Err(_) => break,
            }
        }
        (group, None)
    }

    fn commit(&mut self, group: Vec<Pending>) {
        match self.attempt(&group) {
            Ok(outcomes) => self.answer(group, outcomes),
            // One entry that the database can't take must not take the others with it.
            Err(error) if group.len() > 1 && !matches!(error, Error::Full) => {
                for pending in group {
                    self.commit(vec![pending]);
                }
            }
            Err(error) => {
                tracing::error!(code = error.code(), %error, entries = group.len(), "commit failed");
                // An entry that can't be meant says nothing of the disk.
                if !matches!(error, Error::Invalid { .. }) {
                    *self.shared.error.lock() = Some(error.clone());
                }
                for pending in group {
                    // The caller may have gone.
                    let _ = pending.reply.send(Err(error.clone()));
                }
            }
        }
    }

    /// One transaction. On an error nothing of it is in the database, and the cached heads are forgotten.
    fn attempt(&mut self, group: &[Pending]) -> Result<Vec<Outcome>, Error> {
        let done = self.transaction(|writer| {
            let now_ms = writer.clock.wall_ms();
            let commit_id = writer.commit_id + 1;
            let mut outcomes = Vec::with_capacity(group.len());
            for pending in group {
                let Writer { connection, heads, .. } = &mut *writer;
                outcomes.push(apply::apply(connection, heads, &pending.entry, commit_id, now_ms)?);
            }
            writer.prune(now_ms)?;
            Ok(outcomes)
        });
        if done.is_err() {
            self.heads.clear();
        }
        done
    }

    fn transaction<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        self.connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        let done = work(self).and_then(|done| {
            self.connection.prepare_cached("COMMIT")?.execute([])?;
            Ok(done)
        });
        if done.is_err() && !self.connection.is_autocommit() {
            // A failed rollback leaves the transaction open, and the next BEGIN says so.
            let _ = self.connection.execute_batch("ROLLBACK");
        }
        done
    }

    fn answer(&mut self, group: Vec<Pending>, outcomes: Vec<Outcome>) {
        *self.shared.error.lock() = None;
        if outcomes.iter().any(|outcome| matches!(outcome, Outcome::Written(..))) {
            self.commit_id += 1;
            self.shared.commit_id.store(self.commit_id, Ordering::Relaxed);
        }
        let wanted = self.hints.wanted();
        for (pending, outcome) in group.into_iter().zip(outcomes) {
            let answer = match outcome {
                Outcome::Written(appended, records) => {
                    if let Some(item) = pending.entry.contents.first() {
                        item.key.set_stored();
                    }
                    if wanted && let Appended::Written(written) = &appended {
                        let next_position = written.next_position();
                        self.hints.tell(Hint { key: pending.entry.key, next_position, records: records.into() });
                    }
                    Ok(appended)
                }
                Outcome::Existing(appended) => Ok(appended),
                Outcome::Refused(error) => Err(error),
            };
            // The caller may have gone; the entry is durable all the same.
            let _ = pending.reply.send(answer);
        }
    }

    /// Takes out idempotency keys that are over, a few at a time.
    fn prune(&mut self, now_ms: u64) -> Result<(), Error> {
        let monotonic_ms = self.clock.monotonic_ms();
        if monotonic_ms < self.pruned_ms + PRUNE_MS {
            return Ok(());
        }
        let mut delete = self.connection.prepare_cached(
            "DELETE FROM idempotency WHERE (tenant, key) IN
             (SELECT tenant, key FROM idempotency WHERE expires_ms <= ?1 ORDER BY expires_ms LIMIT ?2)",
        )?;
        let rows = delete.execute(params![now_ms, PRUNE_ROWS_MAX])? as u64;
        // A full sweep means that there is more: go on with the next commit.
        if rows < PRUNE_ROWS_MAX {
            self.pruned_ms = monotonic_ms;
        }
        Ok(())
    }

    /// Erases in a transaction of its own (`secure_delete` overwrites what is freed) and empties the write-ahead log, so
    /// that the bytes are gone from the files when this returns.
    fn erase(&mut self, key: &SessionKey, item: Option<Id<id::Content>>) -> Result<Erased, Error> {
        let erased = self.transaction(|writer| match item {
            Some(item) => {
                let item = apply::erase_item(&writer.connection, key, item)?;
                Ok(Erased { item, objects: Vec::new() })
            }
            None => Ok(Erased { item: None, objects: apply::erase_session(&writer.connection, key)? }),
        })?;
        if item.is_none() {
            // Before the next entry is looked at: it may hold contents sealed under this key.
            self.data_keys.destroy(key);
        }
        self.checkpoint();
        Ok(erased)
    }

    /// Moves the write-ahead log into the database. A reader in the middle of a statement may hold a part of it back
    /// until the next one, so a failure is no fault.
    pub(crate) fn checkpoint(&self) {
        let done = self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        if let Err(error) = done {
            tracing::warn!(%error, "checkpoint failed");
        }
    }
}
