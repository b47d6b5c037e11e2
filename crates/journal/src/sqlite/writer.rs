//! The writer: drains the queue into groups, commits each group once, answers after the commit.

use crate::append::{Append, Appended};
use crate::contents::{DataKeys, Stored};
use crate::heads::Heads;
use crate::hints::{Hint, Registry};
use crate::sqlite::apply::{self, Outcome};
use crate::sqlite::directory::Lock;
use crate::sqlite::schema::Database;
use crate::sqlite::shared::Shared;
use crate::sqlite::transaction::Failed;
use crate::sqlite::upkeep;
use crate::upkeep::{Quarantine, Tombstone};
use crate::waiting::OutboxRow;
use crate::{Error, Limits, SessionKey};
use domain::{Id, id};
use rusqlite::{Connection, params};
use std::sync::Arc;
use stdx::Clock;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

/// Expired idempotency keys that one commit takes out at most.
const PRUNE_ROWS_MAX: u64 = 256;
/// How often the writer looks for its next job before it sleeps: about 200 µs on a processor that nobody else wants.
const LOOKS_MAX: u32 = 500;
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
    /// Raises a session's epoch.
    Fence {
        key: SessionKey,
        epoch: u64,
        reply: oneshot::Sender<Result<(), Error>>,
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
    Purge {
        key: SessionKey,
        at_ms: u64,
        principal: Id<id::Principal>,
        reply: oneshot::Sender<Result<Option<Tombstone>, Error>>,
    },
    Swept {
        objects: Vec<String>,
        reply: oneshot::Sender<Result<(), Error>>,
    },
    Quarantine {
        quarantine: Box<Quarantine>,
        reply: oneshot::Sender<Result<(), Error>>,
    },
    Release {
        key: SessionKey,
        reply: oneshot::Sender<Result<bool, Error>>,
    },
    OutboxPut {
        read: Box<OutboxRow>,
        rows: Vec<OutboxRow>,
        reply: oneshot::Sender<Result<bool, Error>>,
    },
    /// Look whether it can write again.
    Probe,
    /// Keep nothing in memory, if nothing was written since it was last told so.
    LetGo,
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

/// An append that waits for its commit.
pub(crate) struct Pending {
    pub(crate) entry: Box<Append>,
    reply: oneshot::Sender<Result<Appended, Error>>,
    // Gives its bytes back to the queue when the answer is out.
    _room: OwnedSemaphorePermit,
}

/// The writer's state.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) connection: Connection,
    pub(crate) database: Database,
    pub(crate) heads: Heads,
    /// Whether a commit failed of which it is not known whether it can come back.
    pub(crate) unsettled: bool,
    pub(crate) shared: Arc<Shared>,
    pub(crate) data_keys: Arc<DataKeys>,
    jobs: mpsc::Receiver<Job>,
    commit_id: u64,
    /// The last commit when it was last told to let go.
    rested_commit_id: u64,
    pruned_ms: u64,
    clock: Clock,
    limits: Limits,
    hints: Arc<Registry>,
    // Given back last, when the connection is closed. None behind a VFS, which no other process can reach.
    _lock: Option<Lock>,
}

/// What a writer needs of the world.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) clock: Clock,
    pub(crate) limits: Limits,
    pub(crate) hints: Arc<Registry>,
    pub(crate) data_keys: Arc<DataKeys>,
}

impl Writer {
    pub(crate) fn new(
        (connection, database): (Connection, Database),
        lock: Option<Lock>,
        jobs: mpsc::Receiver<Job>,
        shared: Arc<Shared>,
        world: World,
    ) -> Self {
        let World { clock, limits, hints, data_keys } = world;
        let heads = Heads::new(limits.heads_max);
        let pruned_ms = clock.monotonic_ms();
        let commit_id = shared.commit_id();
        Self {
            connection,
            database,
            heads,
            unsettled: false,
            shared,
            data_keys,
            jobs,
            commit_id,
            rested_commit_id: commit_id,
            pruned_ms,
            clock,
            limits,
            hints,
            _lock: lock,
        }
    }

    /// Runs until the queue is closed and empty.
    pub(crate) fn run(mut self) {
        let mut next = None;
        while let Some(job) = next.take().or_else(|| self.await_job()) {
            next = self.take(job);
        }
        self.checkpoint();
    }

    /// The next job; `None` when the queue is closed and empty. Whoever was just answered often comes back at once, and to
    /// wake a thread that sleeps takes a good part of a commit's time: so it looks for a moment before it sleeps, and gives
    /// its processor to anybody who wants it.
    fn await_job(&mut self) -> Option<Job> {
        for _ in 0..LOOKS_MAX {
            match self.jobs.try_recv() {
                Ok(job) => return Some(job),
                Err(mpsc::error::TryRecvError::Empty) => std::thread::yield_now(),
                Err(mpsc::error::TryRecvError::Disconnected) => return None,
            }
        }
        self.jobs.blocking_recv()
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
            // Whoever asks may have gone: it is done all the same.
            Job::Fence { key, epoch, reply } => drop(reply.send(self.fence(&key, epoch))),
            Job::Erase { key, item, reply } => drop(reply.send(self.erase(&key, item))),
            Job::RebuildIndex { reply } => {
                let read = self.transaction(|writer| apply::rebuild_index(&writer.connection, |_, _| true));
                drop(reply.send(read.map_err(Failed::into_error)));
            }
            Job::Purge { key, at_ms, principal, reply } => drop(reply.send(self.purge(&key, at_ms, principal))),
            Job::Swept { objects, reply } => drop(reply.send(self.swept(&objects))),
            Job::Quarantine { quarantine, reply } => drop(reply.send(self.quarantine(&quarantine))),
            Job::Release { key, reply } => drop(reply.send(self.release(&key))),
            Job::OutboxPut { read, rows, reply } => drop(reply.send(self.outbox_put(&read, &rows))),
            Job::Probe => self.probe(),
            Job::LetGo => self.let_go(),
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
            Err(Failed::Before(error)) if group.len() > 1 && !matches!(error, Error::Full) => {
                for pending in group {
                    self.commit(vec![pending]);
                }
            }
            Err(Failed::Before(error)) => self.refuse(group, &error),
            Err(Failed::InCommit(error)) => match self.settle() {
                Ok(()) => self.tell(group, &error),
                Err(unsettled) => {
                    // The one that is in doubt is an error of its own; what keeps the writer from knowing is the other.
                    let told = if matches!(error, Error::Full) { error } else { unsettled };
                    self.refuse(group, &told);
                }
            },
        }
    }

    /// Answers after a commit that failed and is settled: what was written is there, what is not never comes.
    fn tell(&mut self, group: Vec<Pending>, error: &Error) {
        for pending in group {
            let now_ms = self.clock.wall_ms();
            let found = apply::stands(&self.connection, &pending.entry, now_ms);
            match found {
                Ok(Some(appended)) => drop(pending.reply.send(Ok(appended))),
                Ok(None) => self.refuse(vec![pending], error),
                Err(unread) => self.refuse(vec![pending], &unread),
            }
        }
    }

    fn refuse(&mut self, group: Vec<Pending>, error: &Error) {
        tracing::error!(code = error.code(), %error, entries = group.len(), "commit failed");
        // An entry that can't be meant says nothing of the disk.
        if !matches!(error, Error::Invalid { .. }) {
            self.shared.set_error(Some(error.clone()));
        }
        for pending in group {
            // The caller may have gone.
            let _ = pending.reply.send(Err(error.clone()));
        }
    }

    /// One transaction. On an error of the first kind nothing of it is in the database.
    fn attempt(&mut self, group: &[Pending]) -> Result<Vec<Outcome>, Failed> {
        self.transaction(|writer| {
            let now_ms = writer.clock.wall_ms();
            let commit_id = writer.commit_id + 1;
            let mut outcomes = Vec::with_capacity(group.len());
            for Pending { entry, .. } in group {
                let Writer { connection, heads, shared, .. } = &mut *writer;
                outcomes.push(if shared.is_quarantined(&entry.key) {
                    upkeep::refused(connection, &entry.key)?
                } else {
                    apply::apply(connection, heads, entry, commit_id, now_ms)?
                });
            }
            writer.prune(now_ms)?;
            Ok(outcomes)
        })
    }

    fn answer(&mut self, group: Vec<Pending>, outcomes: Vec<Outcome>) {
        self.shared.set_error(None);
        if outcomes.iter().any(|outcome| matches!(outcome, Outcome::Written(..))) {
            self.commit_id += 1;
            self.shared.set_commit_id(self.commit_id);
        }
        let wanted = self.hints.wanted();
        for (Pending { entry, reply, _room }, outcome) in group.into_iter().zip(outcomes) {
            let answer = match outcome {
                Outcome::Written(appended, records) => {
                    if let Some(item) = entry.contents.first() {
                        item.key.set_stored();
                    }
                    if wanted && let Appended::Written(written) = &appended {
                        let (key, next_position) = (entry.key.clone(), written.next_position());
                        self.hints.tell(Hint { key, next_position, records: records.into() });
                    }
                    Ok(appended)
                }
                Outcome::Existing(appended) => Ok(appended),
                Outcome::Refused(error) => Err(error),
            };
            // Whoever has the answer finds nothing of the entry here, not even a hand on the session's key.
            drop(entry);
            // The caller may have gone; the entry is durable all the same.
            let _ = reply.send(answer);
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

    /// Raises the session's epoch, between two groups: what an older driver wrote before is durable and seen by whoever comes
    /// next, and what it hands in from now on is refused.
    fn fence(&mut self, key: &SessionKey, epoch: u64) -> Result<(), Error> {
        let head =
            self.transaction(|writer| apply::fence(&writer.connection, key, epoch)).map_err(Failed::into_error)?;
        self.heads.put(key, head);
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
        });
        let erased = erased.map_err(Failed::into_error)?;
        if item.is_none() {
            // Before the next entry is looked at: it may hold contents sealed under this key.
            self.data_keys.destroy(key);
        }
        self.checkpoint();
        Ok(erased)
    }

    /// Forgets heads and pages when nothing was written since it was last told so: they are read again with the next entry.
    fn let_go(&mut self) {
        if self.rested_commit_id == self.commit_id {
            self.heads.clear();
            if let Err(error) = self.connection.execute_batch("PRAGMA shrink_memory") {
                tracing::warn!(%error, "the writer keeps its pages");
            }
        }
        self.rested_commit_id = self.commit_id;
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
