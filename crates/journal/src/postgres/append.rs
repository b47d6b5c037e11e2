//! One append: link the entry to the head that is known, try, and find out why when it was not taken. An answer that got
//! lost is looked for in the log before anything is tried again, so that nothing is written twice and nothing that was
//! written is denied.

use crate::append::{Fence, Idempotency};
use crate::contents::DataKeys;
use crate::heads::Heads;
use crate::hints::{Hint, Registry};
use crate::postgres::attempt::{Attempt, Key};
use crate::postgres::fault::Fault;
use crate::postgres::group::Groups;
use crate::postgres::pool::{Pool, Sql};
use crate::postgres::wake::Waker;
use crate::postgres::{read, upkeep};
use crate::query::{Head, StoredRecord};
use crate::{Append, Appended, Error, Existing, SessionKey, Written, link};
use domain::Digest;
use parking_lot::Mutex;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use stdx::{Backoff, Clock, Random};
use tokio_postgres::types::Type;

/// How often an entry is tried while others append to the same log.
const MOVES_MAX: u32 = 256;
/// How long a database that went away is waited for before an entry is given up.
const OUTAGE: Backoff = Backoff { first_ms: 50, wait_ms_max: 2_000, attempts_max: 7 };
/// Appends to one log wait for each other in this process; logs that share a place wait for nothing, or needlessly.
const PLACES: usize = 1_024;

/// Where a log stands, with what an append must find unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) head: Head,
    pub(crate) erasures: i64,
    pub(crate) quarantined: bool,
    /// The session's data key, as a hash, when an append has found it there since the contents were last erased. While
    /// `erasures` stays the same, so does the key.
    pub(crate) data_key: Option<u64>,
}

impl Place {
    pub(crate) const EMPTY: Self = Self { head: Head::EMPTY, erasures: 0, quarantined: false, data_key: None };
}

/// What appends need.
#[derive(Debug)]
pub(crate) struct Appender {
    pool: Arc<Pool>,
    clock: Clock,
    random: Random,
    hints: Arc<Registry>,
    data_keys: Arc<DataKeys>,
    waker: Waker,
    groups: Arc<Groups>,
    heads: Mutex<Heads<Place>>,
    places: Vec<tokio::sync::Mutex<()>>,
    hasher: RandomState,
}

/// Entries that were sent and not answered.
#[derive(Debug, Default)]
struct Unanswered(Option<Arc<Attempt>>);

/// What came of one attempt.
enum Tried {
    Done(Appended),
    /// The log stands elsewhere, or a condition did not hold.
    Not,
    /// Nobody knows, or the database could not at the moment.
    Outage(Fault),
}

impl Appender {
    pub(crate) fn new(
        pool: Arc<Pool>,
        clock: Clock,
        random: Random,
        hints: Arc<Registry>,
        data_keys: Arc<DataKeys>,
        waker: Waker,
        heads_max: usize,
    ) -> Self {
        let groups = Arc::new(Groups::new(pool.clone()));
        let heads = Mutex::new(Heads::new(heads_max));
        let places = (0..PLACES).map(|_| tokio::sync::Mutex::default()).collect();
        Self { pool, clock, random, hints, data_keys, waker, groups, heads, places, hasher: RandomState::new() }
    }

    /// Forgets where a log stands.
    pub(crate) fn forget(&self, key: &SessionKey) {
        self.heads.lock().remove(key);
    }

    /// Appends an entry.
    pub(crate) async fn append(&self, entry: &Arc<Append>) -> Result<Appended, Error> {
        // At most PLACES, so nothing is cut.
        let place = usize::try_from(self.hasher.hash_one(&entry.key) % PLACES as u64).unwrap_or(0);
        let _turn = self.places[place].lock().await;
        if entry.contents.first().is_some_and(|item| item.key.is_destroyed()) {
            return Err(Error::DataKeyChanged);
        }
        let mut unanswered = Unanswered::default();
        let mut known = self.heads.lock().get(&entry.key);
        let mut outages = 0;
        for _ in 0..MOVES_MAX {
            let outage = match known.take() {
                Some(place) if link::admit(&entry.fence, &place.head).is_ok() => {
                    match self.attempt(entry, place, &mut unanswered).await? {
                        Tried::Done(appended) => return Ok(appended),
                        Tried::Not => None,
                        Tried::Outage(fault) => Some(fault),
                    }
                }
                // What is remembered may be old; only the database refuses.
                _ => None,
            };
            if let Some(fault) = outage {
                outages += 1;
                let Some(wait) = OUTAGE.after(outages, None, &self.random) else {
                    return Err(fault.into());
                };
                tokio::time::sleep(wait).await;
            }
            match self.look(entry, &unanswered).await {
                Ok(Looked::Settled(appended)) => return Ok(appended),
                Ok(Looked::At(place)) => known = Some(place),
                Err(error @ Error::Unreachable { .. }) => {
                    outages += 1;
                    let Some(wait) = OUTAGE.after(outages, None, &self.random) else {
                        return Err(error);
                    };
                    tokio::time::sleep(wait).await;
                }
                Err(error) => return Err(error),
            }
        }
        Err(Error::io("too many others append to the session"))
    }

    /// Tries to append at a place.
    async fn attempt(&self, entry: &Arc<Append>, place: Place, unanswered: &mut Unanswered) -> Result<Tried, Error> {
        let mut head = place.head;
        let (records, mut written) = link::link(&entry.key, &entry.fence, &entry.drafts, &mut head, 0);
        let key = self.key(entry, place);
        let attempt = Arc::new(Attempt::new(entry, place, (head, records), key, self.clock.wall_ms())?);
        let commit_id = match self.groups.send(&attempt).await {
            Ok(Some(commit_id)) => commit_id,
            Ok(None) | Err(Fault::Condition) => return Ok(Tried::Not),
            Err(Fault::Refused(error)) => return Err(error),
            Err(fault @ (Fault::Unsent(_) | Fault::Again(_))) => return Ok(Tried::Outage(fault)),
            Err(fault @ Fault::Lost(_)) => {
                unanswered.0 = Some(attempt);
                return Ok(Tried::Outage(fault));
            }
        };
        written.commit_id = commit_id;
        let data_key = entry.contents.first().map(|item| self.hasher.hash_one(&item.key.wrapped)).or(place.data_key);
        self.keep(entry, Place { head, data_key, ..place }, attempt.records(), commit_id);
        Ok(Tried::Done(Appended::Written(written)))
    }

    /// What is known of the session's data key.
    fn key(&self, entry: &Append, place: Place) -> Key {
        match entry.contents.first() {
            None => Key::Known,
            Some(item) if !item.key.is_stored() => Key::Brought,
            Some(item) if place.data_key != Some(self.hasher.hash_one(&item.key.wrapped)) => Key::Checked,
            Some(_) => Key::Known,
        }
    }

    /// What is to be done once an entry is durable.
    fn keep(&self, entry: &Append, place: Place, records: &[StoredRecord], commit_id: u64) {
        if let Some(item) = entry.contents.first() {
            item.key.set_stored();
        }
        self.heads.lock().put(&entry.key, place);
        let next_position = place.head.position;
        self.waker.tell(&entry.key, next_position);
        if self.hints.wanted() {
            let records = records.iter().map(|record| StoredRecord { commit_id, ..record.clone() }).collect();
            self.hints.tell(Hint { key: entry.key.clone(), next_position, records });
        }
    }

    /// Looks at the log: whether the entry is there already, why it can't be, or where it goes.
    async fn look(&self, entry: &Append, unanswered: &Unanswered) -> Result<Looked, Error> {
        let key = &entry.key;
        let place = read::place(&self.pool, key).await?;
        self.heads.lock().put(key, place);
        if let Some(written) = self.found(entry, place, unanswered).await? {
            return Ok(Looked::Settled(written));
        }
        if place.quarantined {
            let found = upkeep::quarantined(&self.pool, key).await?;
            let reason = found.map_or_else(String::new, |found| found.reason).into();
            return Err(Error::Quarantined { reason });
        }
        if let Err(refused) = link::admit(&entry.fence, &place.head) {
            // A driver that was not told whether its entry was written hands it in again.
            if link::stands(entry, &refused).is_some()
                && let Fence::Effect { expect, .. } = entry.fence
            {
                let stored = read::records(&self.pool, key, expect.saturating_sub(1), entry.drafts.len() + 1).await?;
                if let Some(written) = link::repeated(entry, &stored) {
                    return Ok(Looked::Settled(Appended::Written(written)));
                }
            }
            return Err(refused);
        }
        if let Some(existing) = self.existing(entry).await? {
            return Ok(Looked::Settled(Appended::Existing(existing)));
        }
        if let Some(item) = entry.contents.first() {
            let stored = read::data_key(&self.pool, key).await?;
            let fits = stored.map_or(!item.key.is_stored(), |stored| stored == item.key.wrapped);
            if !fits {
                return Err(Error::DataKeyChanged);
            }
        }
        Ok(Looked::At(place))
    }

    /// Whether what was sent and not answered stands in the log. Once the log has grown beyond the place that it was linked
    /// to, it stands there or never will.
    async fn found(
        &self,
        entry: &Append,
        place: Place,
        Unanswered(unanswered): &Unanswered,
    ) -> Result<Option<Appended>, Error> {
        let Some(tried) = unanswered else {
            return Ok(None);
        };
        let (Some(first), Some(last)) = (tried.records().first(), tried.records().last()) else {
            return Ok(None);
        };
        if place.head.position <= tried.place().head.position {
            return Ok(None);
        }
        let stored = read::records(&self.pool, &entry.key, last.position, 1).await?;
        let Some(there) = stored.first().filter(|there| there.hash == last.hash && there.position == last.position)
        else {
            return Ok(None);
        };
        let commit_id = there.commit_id;
        let (first_position, last_position, head_hash) = (first.position, last.position, last.hash);
        self.keep(entry, place, tried.records(), commit_id);
        Ok(Some(Appended::Written(Written { first_position, last_position, head_hash, commit_id })))
    }

    async fn existing(&self, entry: &Append) -> Result<Option<Existing>, Error> {
        match &entry.fence {
            Fence::Input(Some(asked)) => self.taken(&entry.key.tenant, asked).await,
            Fence::Input(None) | Fence::Effect { .. } => Ok(None),
        }
    }

    /// What an idempotency key was used for.
    pub(crate) async fn taken(&self, tenant: &str, asked: &Idempotency) -> Result<Option<Existing>, Error> {
        let now = whole(self.clock.wall_ms());
        let rows = self.pool.ask(TAKEN, &[&tenant, &&asked.key.0[..], &now]).await?;
        let Some(row) = rows.first() else {
            return Ok(None);
        };
        let body: Digest = read::digest(row, 0)?;
        let existing = Existing { session: read::id(row, 1)?, run: read::id(row, 2)?, position: read::number(row, 3)? };
        if body == asked.body { Ok(Some(existing)) } else { Err(Error::IdempotencyConflict { run: existing.run }) }
    }

    /// Marks a session's data key in this process: nothing is stored under it any more.
    pub(crate) fn destroy_key(&self, key: &SessionKey) {
        self.data_keys.destroy(key);
        self.forget(key);
    }
}

/// What a look at the log said.
enum Looked {
    Settled(Appended),
    At(Place),
}

const TAKEN: Sql = Sql {
    text: "SELECT body, session, run, position FROM public.idempotency
           WHERE tenant = $1 AND key = $2 AND expires_ms > $3",
    types: &[Type::TEXT, Type::BYTEA, Type::INT8],
};

const PRUNE: Sql = Sql {
    text: "DELETE FROM public.idempotency WHERE (tenant, key) IN (
               SELECT tenant, key FROM public.idempotency WHERE expires_ms <= $1
               ORDER BY expires_ms LIMIT $2 FOR UPDATE SKIP LOCKED)",
    types: &[Type::INT8, Type::INT8],
};

/// Takes out idempotency keys that are over.
pub(crate) async fn prune(pool: &Pool, clock: &Clock, rows_max: i64) -> Result<(), Error> {
    pool.once(PRUNE, &[&whole(clock.wall_ms()), &rows_max]).await?;
    Ok(())
}

fn whole(number: u64) -> i64 {
    read::milliseconds(number)
}
