//! Which attempts go to the database at once. While few statements are under way an attempt goes alone and at once; beyond
//! that it waits for one of them to end, and what waits then goes together, in one statement. No task stands in between:
//! whoever is done passes the turn to the first that waits, which takes the others with it.

use crate::postgres::attempt::{self, Attempt};
use crate::postgres::fault::Fault;
use crate::postgres::pool::Pool;
use crate::postgres::statement::Parts;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Statements under way at once. More of them share a flush of the server's log, fewer share more of everything else.
const STATEMENTS_MAX: usize = 4;
/// Entries of one statement.
const ENTRIES_MAX: usize = 64;
/// What they may weigh together; a heavier entry goes alone, and keeps nobody waiting.
const BYTES_MAX: usize = 512 << 10;

/// The attempts of one process.
#[derive(Debug)]
pub(crate) struct Groups {
    pool: Arc<Pool>,
    statements_max: usize,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    under_way: usize,
    /// As many as there may be entries under way in the store, at most.
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    attempt: Arc<Attempt>,
    turn: oneshot::Sender<Turn>,
}

/// What an attempt that waits is told.
#[derive(Debug)]
enum Turn {
    /// To go, and to take along who else waits.
    Lead(Slot),
    /// That it went along, and what came of it.
    Went(Result<Option<u64>, Fault>),
    /// That the group it went along with was refused, so that nothing of it is written, and who is to blame is not known.
    GoAlone,
}

impl Groups {
    pub(crate) fn new(pool: Arc<Pool>) -> Self {
        // Reads and claims need connections too.
        let statements_max = (pool.connections_max() / 2).clamp(1, STATEMENTS_MAX);
        Self { pool, statements_max, queue: Mutex::default() }
    }

    /// Sends an attempt; the number of its commit, or nothing when its log stands elsewhere. Whoever calls sends no other
    /// attempt of the session until this one is answered.
    pub(crate) async fn send(self: &Arc<Self>, attempt: &Arc<Attempt>) -> Result<Option<u64>, Fault> {
        // Keys are shared by sessions: two groups that take them in different orders would wait for each other.
        if attempt.parts().has(Parts::KEYED) || attempt.weight_bytes() > BYTES_MAX / 2 {
            return attempt.send(&self.pool).await;
        }
        let (_slot, others) = match self.enter(attempt) {
            Entered::Goes(slot) => (slot, Vec::new()),
            Entered::Waits(turn) => match turn.await {
                Ok(Turn::Lead(slot)) => (slot, self.others(attempt)),
                Ok(Turn::Went(answer)) => return answer,
                Ok(Turn::GoAlone) => return attempt.send(&self.pool).await,
                Err(_) => return Err(Fault::Lost("whoever sent it went away".to_owned())),
            },
        };
        if others.is_empty() {
            return attempt.send(&self.pool).await;
        }
        match self.send_with(attempt, others).await {
            Some(answer) => answer,
            None => attempt.send(&self.pool).await,
        }
    }

    fn enter(self: &Arc<Self>, attempt: &Arc<Attempt>) -> Entered {
        let mut queue = self.queue.lock();
        if queue.under_way < self.statements_max {
            queue.under_way += 1;
            return Entered::Goes(Slot { groups: Some(self.clone()) });
        }
        let (turn, told) = oneshot::channel();
        queue.waiting.push_back(Waiting { attempt: attempt.clone(), turn });
        Entered::Waits(told)
    }

    /// Who waits and may go along: the first of the same tenant, since tenants lead every index.
    fn others(&self, leader: &Attempt) -> Vec<Waiting> {
        let mut queue = self.queue.lock();
        let mut weight_bytes = leader.weight_bytes();
        let (mut others, mut left) = (Vec::new(), VecDeque::new());
        while let Some(next) = queue.waiting.pop_front() {
            let with = weight_bytes + next.attempt.weight_bytes();
            if others.len() + 1 < ENTRIES_MAX && with <= BYTES_MAX && next.attempt.tenant() == leader.tenant() {
                weight_bytes = with;
                others.push(next);
            } else {
                left.push_back(next);
            }
        }
        queue.waiting = left;
        others
    }

    /// Sends a group and tells everybody in it; `None`: whoever leads it is to go alone too.
    async fn send_with(&self, leader: &Arc<Attempt>, others: Vec<Waiting>) -> Option<Result<Option<u64>, Fault>> {
        let mut group = vec![(leader.clone(), None)];
        group.extend(others.into_iter().map(|Waiting { attempt, turn }| (attempt, Some(turn))));
        // Every group takes its rows in the same order, so that two of them never wait for each other.
        group.sort_by(|(one, _), (other, _)| one.session().cmp(other.session()));
        let attempts: Vec<&Attempt> = group.iter().map(|(attempt, _)| &**attempt).collect();
        let sent = attempt::send_together(&self.pool, &attempts).await;
        let mut own = None;
        for (at, (_, turn)) in group.into_iter().enumerate() {
            let told = match &sent {
                Ok(commits) => Some(Ok(commits.get(at).copied().flatten())),
                Err(fault @ (Fault::Unsent(_) | Fault::Lost(_))) => Some(Err(fault.clone())),
                Err(Fault::Again(_) | Fault::Condition | Fault::Refused(_)) => None,
            };
            match turn {
                // Who is not there any more needs no answer.
                Some(turn) => drop(turn.send(told.map_or(Turn::GoAlone, Turn::Went))),
                None => own = told,
            }
        }
        own
    }
}

enum Entered {
    Goes(Slot),
    Waits(oneshot::Receiver<Turn>),
}

/// One of the statements that may be under way; passed on to who waits when it is dropped.
struct Slot {
    /// `None`: it was passed on.
    groups: Option<Arc<Groups>>,
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slot").finish_non_exhaustive()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let Some(groups) = self.groups.take() else {
            return;
        };
        loop {
            let next = {
                let mut queue = groups.queue.lock();
                let next = queue.waiting.pop_front();
                if next.is_none() {
                    queue.under_way -= 1;
                }
                next
            };
            let Some(Waiting { turn, .. }) = next else {
                return;
            };
            match turn.send(Turn::Lead(Self { groups: Some(groups.clone()) })) {
                Err(Turn::Lead(mut slot)) => slot.groups = None,
                Ok(()) | Err(Turn::Went(_) | Turn::GoAlone) => return,
            }
        }
    }
}
