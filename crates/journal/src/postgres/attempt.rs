//! One attempt to write an entry: the entry linked to a place, as the parameters of the one statement. What is tried again
//! and why, `append` says; what goes together, `group`.

use crate::append::{Fence, Idempotency};
use crate::postgres::append::Place;
use crate::postgres::index::Folded;
use crate::postgres::pool::{Param, Pool};
use crate::postgres::statement::{self, Parts};
use crate::postgres::{fault::Fault, read};
use crate::query::{Head, StoredRecord};
use crate::{Append, Error};
use std::sync::Arc;

/// An entry that is linked to a place.
#[derive(Debug)]
pub(crate) struct Attempt {
    entry: Arc<Append>,
    place: Place,
    head: Head,
    records: Vec<StoredRecord>,
    parts: Parts,
    session: String,
    /// Index rows, JSON.
    index: Option<String>,
    now_ms: u64,
}

impl Attempt {
    /// The head is where the log stands after the records.
    pub(crate) fn new(
        entry: &Arc<Append>,
        place: Place,
        (head, records): (Head, Vec<StoredRecord>),
        key: Key,
        now_ms: u64,
    ) -> Result<Self, Error> {
        let mut folded = Folded::default();
        for (draft, record) in entry.drafts.iter().zip(&records) {
            for change in &draft.changes {
                folded.take(record.position, change)?;
            }
        }
        let mut parts = folded.parts();
        if place.head.position == 0 {
            parts = parts.with(Parts::FIRST);
        }
        match &entry.fence {
            Fence::Input(None) => parts = parts.with(Parts::INPUT),
            Fence::Input(Some(_)) => parts = parts.with(Parts::INPUT).with(Parts::KEYED),
            Fence::Effect { .. } => {}
        }
        if !entry.contents.is_empty() {
            parts = parts.with(Parts::CONTENTS);
        }
        match key {
            Key::Known => {}
            Key::Checked => parts = parts.with(Parts::KEY_CHECKED),
            Key::Brought => parts = parts.with(Parts::DATA_KEY).with(Parts::KEY_CHECKED),
        }
        let (session, index) = (entry.key.session.to_string(), folded.json());
        Ok(Self { entry: entry.clone(), place, head, records, parts, session, index, now_ms })
    }

    pub(crate) fn tenant(&self) -> &str {
        &self.entry.key.tenant
    }

    pub(crate) fn session(&self) -> &str {
        &self.session
    }

    pub(crate) const fn parts(&self) -> Parts {
        self.parts
    }

    pub(crate) const fn place(&self) -> Place {
        self.place
    }

    pub(crate) fn records(&self) -> &[StoredRecord] {
        &self.records
    }

    /// What it weighs, in bytes.
    pub(crate) fn weight_bytes(&self) -> usize {
        self.entry.weight_bytes()
    }

    fn epoch(&self) -> Option<i64> {
        match self.entry.fence {
            Fence::Input(_) => None,
            Fence::Effect { epoch, .. } => Some(whole(epoch)),
        }
    }

    fn wrapped(&self) -> Option<&[u8]> {
        self.entry.contents.first().map(|item| &*item.key.wrapped)
    }

    /// Sends it alone; the number of its commit, or nothing when the log stands elsewhere.
    pub(crate) async fn send(&self, pool: &Pool) -> Result<Option<u64>, Fault> {
        let mut rows = Rows::default();
        rows.take(self, 1);
        let given = (!self.entry.contents.is_empty()).then_some(());
        let (tenant, position, next) = (self.tenant(), whole(self.place.head.position), whole(self.head.position));
        let (previous, last): (&[u8], &[u8]) = (&self.place.head.hash.0, &self.head.hash.0);
        let (epoch, wrapped, keyed) = (self.epoch(), self.wrapped(), Keyed::new(&self.entry));
        let params: [Param<'_>; 21] = [
            &tenant,
            &self.session,
            &position,
            &previous,
            &self.place.erasures,
            &epoch,
            &next,
            &last,
            &rows.hashes,
            &rows.bytes,
            &given.map(|()| &rows.ids),
            &given.map(|()| &rows.forms),
            &given.map(|()| &rows.item_keys),
            &given.map(|()| &rows.bodies),
            &wrapped,
            &keyed.key,
            &keyed.body,
            &keyed.run,
            &keyed.expires_ms,
            &whole(self.now_ms),
            &self.index,
        ];
        let answer = pool.once(statement::append(self.parts), &params).await?;
        answer.first().map(|row| read::number(row, 0).map_err(Fault::Refused)).transpose()
    }
}

/// Sends several of one tenant, each of another session, ordered by their sessions; the number of the commit of each, or
/// nothing when its log stands elsewhere.
pub(crate) async fn send_together(pool: &Pool, group: &[&Attempt]) -> Result<Vec<Option<u64>>, Fault> {
    let tenant = group.first().map_or("", |attempt| attempt.tenant());
    let mut parts = Parts::default();
    let mut rows = Rows::default();
    for (attempt, n) in group.iter().zip(1..) {
        parts = parts.with(attempt.parts);
        rows.take(attempt, n);
    }
    let heads = |hash: fn(&Attempt) -> &[u8]| group.iter().map(|attempt| hash(attempt)).collect::<Vec<_>>();
    let numbers = |number: fn(&Attempt) -> i64| group.iter().map(|attempt| number(attempt)).collect::<Vec<_>>();
    let epochs: Vec<_> = group.iter().map(|attempt| attempt.epoch()).collect();
    let checked = |attempt: &Attempt| attempt.parts.has(Parts::KEY_CHECKED);
    let wrapped: Vec<_> = group.iter().map(|attempt| attempt.wrapped().filter(|_| checked(attempt))).collect();
    let brings_key: Vec<_> = group.iter().map(|attempt| attempt.parts.has(Parts::DATA_KEY)).collect();
    let params: [Param<'_>; 20] = [
        &tenant,
        &group.iter().map(|attempt| attempt.session()).collect::<Vec<_>>(),
        &numbers(|attempt| whole(attempt.place.head.position)),
        &heads(|attempt| &attempt.place.head.hash.0),
        &numbers(|attempt| attempt.place.erasures),
        &epochs,
        &numbers(|attempt| whole(attempt.head.position)),
        &heads(|attempt| &attempt.head.hash.0),
        &wrapped,
        &brings_key,
        &group.iter().map(|attempt| attempt.index.as_deref()).collect::<Vec<_>>(),
        &rows.record_entries,
        &rows.positions,
        &rows.hashes,
        &rows.bytes,
        &rows.content_entries,
        &rows.ids,
        &rows.forms,
        &rows.item_keys,
        &rows.bodies,
    ];
    let answer = pool.once(statement::group(parts), &params).await?;
    let mut commits = vec![None; group.len()];
    for row in &answer {
        let number = |column| read::number(row, column).map_err(Fault::Refused);
        let (n, commit_id) = (number(0)?, number(1)?);
        let place = usize::try_from(n).ok().and_then(|n| commits.get_mut(n.checked_sub(1)?));
        *place.ok_or_else(|| Fault::Lost("an answer of another entry".to_owned()))? = Some(commit_id);
    }
    Ok(commits)
}

/// How the session's data key stands there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    /// As the entry needs it, or the entry needs none.
    Known,
    /// As the entry needs it, perhaps.
    Checked,
    /// Perhaps not yet.
    Brought,
}

/// Records and contents, column by column.
#[derive(Debug, Default)]
struct Rows<'a> {
    record_entries: Vec<i64>,
    positions: Vec<i64>,
    hashes: Vec<&'a [u8]>,
    bytes: Vec<&'a [u8]>,
    content_entries: Vec<i64>,
    ids: Vec<String>,
    forms: Vec<i16>,
    item_keys: Vec<Option<&'a [u8]>>,
    bodies: Vec<&'a [u8]>,
}

impl<'a> Rows<'a> {
    fn take(&mut self, attempt: &'a Attempt, n: i64) {
        for record in &attempt.records {
            self.record_entries.push(n);
            self.positions.push(whole(record.position));
            self.hashes.push(&record.hash.0);
            self.bytes.push(&record.bytes);
        }
        for item in &attempt.entry.contents {
            self.content_entries.push(n);
            self.ids.push(item.id.to_string());
            // Four forms.
            self.forms.push(small(item.stored.form.number()));
            self.item_keys.push(item.stored.item_key.as_deref());
            self.bodies.push(&item.stored.body);
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
