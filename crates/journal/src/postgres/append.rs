//! One append: link the entry to the head that is known, try, and find out why when it was not taken. An answer that got
//! lost is looked for in the log before anything is tried again, so that nothing is written twice and nothing that was
//! written is denied.

use crate::append::{Fence, Idempotency};
use crate::contents::DataKeys;
use crate::heads::Heads;
use crate::hints::{Hint, Registry};
use crate::postgres::fault::Fault;
use crate::postgres::index::Folded;
use crate::postgres::pool::{Param, Pool, Sql};
use crate::postgres::statement::{self, Parts};
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
    heads: Mutex<Heads<Place>>,
    places: Vec<tokio::sync::Mutex<()>>,
    hasher: RandomState,
}

/// Entries that were sent and not answered.
#[derive(Debug, Default)]
struct Unanswered(Option<(Place, Vec<StoredRecord>)>);

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
        let heads = Mutex::new(Heads::new(heads_max));
        let places = (0..PLACES).map(|_| tokio::sync::Mutex::default()).collect();
        Self { pool, clock, random, hints, data_keys, waker, heads, places, hasher: RandomState::new() }
    }

    /// Forgets where a log stands.
    pub(crate) fn forget(&self, key: &SessionKey) {
        self.heads.lock().remove(key);
    }

    /// Appends an entry.
    pub(crate) async fn append(&self, entry: &Append) -> Result<Appended, Error> {
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
    async fn attempt(&self, entry: &Append, place: Place, unanswered: &mut Unanswered) -> Result<Tried, Error> {
        let mut head = place.head;
        let (mut records, mut written) = link::link(&entry.key, &entry.fence, &entry.drafts, &mut head, 0);
        let sent = self.send(entry, place, head, &records).await;
        let rows = match sent {
            Ok(rows) => rows,
            Err(Fault::Condition) => return Ok(Tried::Not),
            Err(Fault::Refused(error)) => return Err(error),
            Err(fault @ (Fault::Unsent(_) | Fault::Again(_))) => return Ok(Tried::Outage(fault)),
            Err(fault @ Fault::Lost(_)) => {
                unanswered.0 = Some((place, records));
                return Ok(Tried::Outage(fault));
            }
        };
        let Some(row) = rows.first() else {
            return Ok(Tried::Not);
        };
        let commit_id = read::number(row, 0)?;
        written.commit_id = commit_id;
        for record in &mut records {
            record.commit_id = commit_id;
        }
        let data_key = entry.contents.first().map(|item| self.hasher.hash_one(&item.key.wrapped)).or(place.data_key);
        self.keep(entry, Place { head, data_key, ..place }, records);
        Ok(Tried::Done(Appended::Written(written)))
    }

    /// What is to be done once an entry is durable.
    fn keep(&self, entry: &Append, place: Place, records: Vec<StoredRecord>) {
        if let Some(item) = entry.contents.first() {
            item.key.set_stored();
        }
        self.heads.lock().put(&entry.key, place);
        let next_position = place.head.position;
        self.waker.tell(&entry.key, next_position);
        if self.hints.wanted() {
            self.hints.tell(Hint { key: entry.key.clone(), next_position, records: records.into() });
        }
    }

    async fn send(
        &self,
        entry: &Append,
        place: Place,
        head: Head,
        records: &[StoredRecord],
    ) -> Result<Vec<tokio_postgres::Row>, Fault> {
        let mut folded = Folded::default();
        for (draft, record) in entry.drafts.iter().zip(records) {
            for change in &draft.changes {
                folded.take(record.position, change).map_err(Fault::Refused)?;
            }
        }
        let rows = Rows::new(entry, records);
        let parts = self.parts(entry, place, &folded);
        let (tenant, session) = (&*entry.key.tenant, entry.key.session.to_string());
        let (position, next) = (whole(place.head.position), whole(head.position));
        let (previous, last): (&[u8], &[u8]) = (&place.head.hash.0, &head.hash.0);
        let epoch = match entry.fence {
            Fence::Input(_) => None,
            Fence::Effect { epoch, .. } => Some(whole(epoch)),
        };
        let wrapped = entry.contents.first().map(|item| &*item.key.wrapped);
        let keyed = Keyed::new(entry);
        let (now, index) = (whole(self.clock.wall_ms()), folded.json());
        let params: [Param<'_>; 21] = [
            &tenant,
            &session,
            &position,
            &previous,
            &place.erasures,
            &epoch,
            &next,
            &last,
            &rows.hashes,
            &rows.bytes,
            &rows.ids,
            &rows.forms,
            &rows.item_keys,
            &rows.bodies,
            &wrapped,
            &keyed.key,
            &keyed.body,
            &keyed.run,
            &keyed.expires_ms,
            &now,
            &index,
        ];
        self.pool.once(statement::append(parts), &params).await
    }

    fn parts(&self, entry: &Append, place: Place, folded: &Folded) -> Parts {
        let mut parts = folded.parts();
        if place.head.position == 0 {
            parts = parts.with(Parts::FIRST);
        }
        match &entry.fence {
            Fence::Input(None) => parts = parts.with(Parts::INPUT),
            Fence::Input(Some(_)) => parts = parts.with(Parts::INPUT).with(Parts::KEYED),
            Fence::Effect { .. } => {}
        }
        if let Some(item) = entry.contents.first() {
            parts = parts.with(Parts::CONTENTS);
            if !item.key.is_stored() {
                parts = parts.with(Parts::DATA_KEY).with(Parts::KEY_CHECKED);
            } else if place.data_key != Some(self.hasher.hash_one(&item.key.wrapped)) {
                parts = parts.with(Parts::KEY_CHECKED);
            }
        }
        parts
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
        let Some((tried, records)) = unanswered else {
            return Ok(None);
        };
        let (Some(first), Some(last)) = (records.first(), records.last()) else {
            return Ok(None);
        };
        if place.head.position <= tried.head.position {
            return Ok(None);
        }
        let stored = read::records(&self.pool, &entry.key, last.position, 1).await?;
        let Some(there) = stored.first().filter(|there| there.hash == last.hash && there.position == last.position)
        else {
            return Ok(None);
        };
        let commit_id = there.commit_id;
        let records = records.iter().map(|record| StoredRecord { commit_id, ..record.clone() }).collect();
        let (first_position, last_position, head_hash) = (first.position, last.position, last.hash);
        self.keep(entry, place, records);
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

/// Records and contents, column by column.
struct Rows<'a> {
    hashes: Vec<&'a [u8]>,
    bytes: Vec<&'a [u8]>,
    ids: Option<Vec<String>>,
    forms: Option<Vec<i16>>,
    item_keys: Option<Vec<Option<&'a [u8]>>>,
    bodies: Option<Vec<&'a [u8]>>,
}

impl<'a> Rows<'a> {
    fn new(entry: &'a Append, records: &'a [StoredRecord]) -> Self {
        let contents = (!entry.contents.is_empty()).then_some(&entry.contents);
        Self {
            hashes: records.iter().map(|record| &record.hash.0[..]).collect(),
            bytes: records.iter().map(|record| &*record.bytes).collect(),
            ids: contents.map(|items| items.iter().map(|item| item.id.to_string()).collect()),
            // Four forms.
            forms: contents.map(|items| items.iter().map(|item| small(item.stored.form.number())).collect()),
            item_keys: contents.map(|items| items.iter().map(|item| item.stored.item_key.as_deref()).collect()),
            bodies: contents.map(|items| items.iter().map(|item| &*item.stored.body).collect()),
        }
    }
}

/// An idempotency key as parameters.
#[derive(Default)]
struct Keyed<'a> {
    key: Option<&'a [u8]>,
    body: Option<&'a [u8]>,
    run: Option<String>,
    expires_ms: Option<i64>,
}

impl<'a> Keyed<'a> {
    fn new(entry: &'a Append) -> Self {
        let Fence::Input(Some(Idempotency { key, body, run, expires_at_ms })) = &entry.fence else {
            return Self::default();
        };
        Self {
            key: Some(&key.0),
            body: Some(&body.0),
            run: Some(run.to_string()),
            expires_ms: Some(whole(*expires_at_ms)),
        }
    }
}

fn whole(number: u64) -> i64 {
    read::milliseconds(number)
}

fn small(number: i64) -> i16 {
    i16::try_from(number).unwrap_or(i16::MAX)
}
