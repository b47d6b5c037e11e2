//! The log in memory: the same rules as on disk, gone with the process. For tests and for trying things out.

mod upkeep;
mod waiting;

use crate::append::{Fence, Idempotency};
use crate::claims::Backend;
use crate::contents::{DataKeys, Stored};
use crate::error::ID_TAKEN;
use crate::hints::{Hint, Registry};
use crate::index::{self, Change, Finish};
use crate::query::{
    self, Head, PAGE_BYTES_MAX, Page, RunFilter, SessionCursor, StoredRecord, Unfinished, UnfinishedCursor,
};
use crate::store::Store;
use crate::upkeep::{Quarantine, Tombstone, TombstoneCursor};
use crate::waiting::{HeldRow, OutboxRow};
use crate::{Append, Appended, ArtifactRow, DueRow, Error, Existing, Health, RunRow, SessionKey, SessionRow, link};
use async_trait::async_trait;
use domain::{Cost, Digest, Id, Record, RunStatus, Usage, id};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use stdx::Clock;

type Due = (SessionKey, Id<id::Run>, String);
type OfTenant<K> = (Arc<str>, K);

/// The store.
#[derive(Debug)]
pub(crate) struct Memory {
    state: Mutex<State>,
    clock: Clock,
    hints: Arc<Registry>,
    data_keys: Arc<DataKeys>,
}

#[derive(Debug, Default)]
struct State {
    closed: bool,
    commit_id: u64,
    heads: HashMap<SessionKey, Head>,
    records: HashMap<SessionKey, Vec<StoredRecord>>,
    contents: HashMap<SessionKey, HashMap<Id<id::Content>, Stored>>,
    data_keys: HashMap<SessionKey, Vec<u8>>,
    idempotency: HashMap<OfTenant<Digest>, (Idempotency, Existing)>,
    runs: BTreeMap<OfTenant<Id<id::Run>>, RunRow>,
    sessions: BTreeMap<SessionKey, SessionRow>,
    artifacts: BTreeMap<OfTenant<Id<id::Artifact>>, ArtifactRow>,
    due: BTreeMap<Due, u64>,
    checkpoints: BTreeMap<(SessionKey, u64), String>,
    quarantine: BTreeMap<SessionKey, Quarantine>,
    tombstones: BTreeMap<OfTenant<TombstoneCursor>, Tombstone>,
    garbage: BTreeSet<String>,
    held: BTreeMap<OfTenant<Id<id::Call>>, HeldRow>,
    announced: BTreeSet<(SessionKey, Id<id::Run>)>,
    outbox: BTreeMap<(SessionKey, u64, String), OutboxRow>,
}

impl Memory {
    pub(crate) fn new(clock: Clock, hints: Arc<Registry>, data_keys: Arc<DataKeys>) -> Self {
        Self { state: Mutex::default(), clock, hints, data_keys }
    }

    fn read<T>(&self, read: impl FnOnce(&State) -> T) -> Result<T, Error> {
        let state = self.state.lock();
        if state.closed { Err(Error::Closed) } else { Ok(read(&state)) }
    }

    fn write<T>(&self, write: impl FnOnce(&mut State) -> T) -> Result<T, Error> {
        let mut state = self.state.lock();
        if state.closed { Err(Error::Closed) } else { Ok(write(&mut state)) }
    }
}

impl State {
    fn append(&mut self, entry: &Append, now_ms: u64) -> Result<(Appended, Vec<StoredRecord>), Error> {
        let Append { key, fence, drafts, contents } = entry;
        if let Some(quarantine) = self.quarantine.get(key) {
            return Err(Error::Quarantined { reason: quarantine.reason.as_str().into() });
        }
        let mut head = self.heads.get(key).copied().unwrap_or(Head::EMPTY);
        if let Err(refused) = link::admit(fence, &head) {
            let stored = self.records.get(key).map_or(&[][..], Vec::as_slice);
            let repeated = link::stands(entry, &refused).and_then(|from| link::repeated(entry, stored.get(from..)?));
            return repeated.map(|written| (Appended::Written(written), Vec::new())).ok_or(refused);
        }
        if let Some(existing) = self.existing(key, fence, now_ms)? {
            return Ok((Appended::Existing(existing), Vec::new()));
        }
        if self.takes_twice(entry) {
            return Err(ID_TAKEN);
        }
        if let Some(first) = contents.first() {
            let there = self.data_keys.get(key);
            if first.key.is_destroyed() || there.is_some_and(|there| *there != first.key.wrapped) {
                return Err(Error::DataKeyChanged);
            }
            self.data_keys.entry(key.clone()).or_insert_with(|| first.key.wrapped.clone());
        }
        self.commit_id += 1;
        let (records, written) = link::link(key, fence, drafts, &mut head, self.commit_id);
        if let Fence::Input(Some(idempotency)) = fence {
            let existing = Existing { session: key.session, run: idempotency.run, position: written.first_position };
            let at = (key.tenant.clone(), idempotency.key);
            self.idempotency.insert(at, (idempotency.clone(), existing));
        }
        for item in contents {
            self.contents.entry(key.clone()).or_default().insert(item.id, item.stored.clone());
        }
        for (draft, record) in drafts.iter().zip(&records) {
            for change in &draft.changes {
                self.change(key, record.position, change);
            }
        }
        if let Some(session) = self.sessions.get_mut(key) {
            session.next_position = head.position;
        }
        self.heads.insert(key.clone(), head);
        self.records.entry(key.clone()).or_default().extend(records.iter().cloned());
        Ok((Appended::Written(written), records))
    }

    /// Whether an id of the entry is stored already, or comes twice in it.
    fn takes_twice(&self, Append { key, drafts, contents, .. }: &Append) -> bool {
        let there = self.contents.get(key);
        let mut items = HashSet::new();
        let mut runs = HashSet::new();
        let submitted = drafts.iter().flat_map(|draft| &draft.changes).filter_map(Change::submitted);
        contents.iter().any(|item| !items.insert(item.id) || there.is_some_and(|there| there.contains_key(&item.id)))
            || submitted.into_iter().any(|run| !runs.insert(run) || self.runs.contains_key(&(key.tenant.clone(), run)))
    }

    fn existing(&mut self, key: &SessionKey, fence: &Fence, now_ms: u64) -> Result<Option<Existing>, Error> {
        let Fence::Input(Some(asked)) = fence else {
            return Ok(None);
        };
        self.taken(&key.tenant, asked, now_ms)
    }

    /// What a key was used for.
    fn taken(&mut self, tenant: &Arc<str>, asked: &Idempotency, now_ms: u64) -> Result<Option<Existing>, Error> {
        self.idempotency.retain(|_, (idempotency, _)| idempotency.expires_at_ms > now_ms);
        match self.idempotency.get(&(tenant.clone(), asked.key)) {
            None => Ok(None),
            Some((there, existing)) if there.body == asked.body => Ok(Some(existing.clone())),
            Some((_, existing)) => Err(Error::IdempotencyConflict { run: existing.run }),
        }
    }

    fn change(&mut self, key: &SessionKey, position: u64, change: &Change) {
        let tenant = &key.tenant;
        match change {
            Change::Submitted { run, agent, principal, at_ms } => {
                self.submitted(key, position, (*run, agent, *principal, *at_ms));
            }
            Change::Forked { run, agent, principal, at_ms } => {
                self.session_row(key, (*run, agent, *principal, *at_ms));
            }
            Change::Status { run, status, waits_for, waits_until_ms, at_ms } => {
                if let Some(row) = self.runs.get_mut(&(tenant.clone(), *run)) {
                    (row.status, row.waits_for, row.waits_until_ms) = (*status, *waits_for, *waits_until_ms);
                    row.updated_ms = *at_ms;
                }
            }
            Change::Finished(finish) => {
                let Finish { run, status, at_ms, turns, tool_calls, usage, cost, used_sandbox } = **finish;
                if let Some(row) = self.runs.get_mut(&(tenant.clone(), run)) {
                    row.finished_position = Some(position);
                    (row.status, row.updated_ms, row.finished_ms) = (status, at_ms, Some(at_ms));
                    (row.turns, row.tool_calls, row.usage, row.cost) = (turns, tool_calls, usage, cost);
                    row.used_sandbox = used_sandbox;
                    (row.waits_for, row.waits_until_ms) = (None, None);
                }
                self.close(|row| row.key == *key && row.run == run);
            }
            Change::Artifact(kept) => {
                let row = ArtifactRow {
                    artifact: kept.artifact,
                    run: kept.run,
                    session: key.session,
                    position,
                    name: kept.name.clone(),
                    media: kept.media.clone(),
                    bytes: kept.bytes,
                    object: kept.object.clone(),
                    created_ms: kept.at_ms,
                };
                self.artifacts.insert((tenant.clone(), kept.artifact), row);
            }
            Change::Checkpoint { object, .. } => {
                self.checkpoints.insert((key.clone(), position), object.clone());
            }
            Change::Due { run, kind, at_ms } => {
                self.due.insert((key.clone(), *run, kind.clone()), *at_ms);
            }
            Change::NotDue { run, kind } => {
                self.due.remove(&(key.clone(), *run, kind.clone()));
            }
            Change::Held { call, run, expires_ms, at_ms } => self.hold(key, (*call, *run), *at_ms, *expires_ms),
            Change::Unheld { call } => self.close(|row| row.key.tenant == *tenant && row.call == *call),
            Change::Announced { run, at_ms } => {
                self.announced.insert((key.clone(), *run));
                self.tell(key, position, *run, "submitted", *at_ms);
            }
            Change::Told { run, kind, at_ms } => self.tell(key, position, *run, kind, *at_ms),
        }
    }

    fn submitted(
        &mut self,
        key: &SessionKey,
        position: u64,
        (run, agent, principal, at_ms): (Id<id::Run>, &String, Id<id::Principal>, u64),
    ) {
        let row = RunRow {
            tenant: key.tenant.clone(),
            run,
            session: key.session,
            agent: agent.clone(),
            principal,
            status: RunStatus::Running,
            waits_for: None,
            waits_until_ms: None,
            created_ms: at_ms,
            updated_ms: at_ms,
            finished_ms: None,
            submitted_position: position,
            finished_position: None,
            turns: 0,
            tool_calls: 0,
            usage: Usage::default(),
            cost: Cost::default(),
            used_sandbox: false,
        };
        self.runs.insert((key.tenant.clone(), run), row);
        let session = self.session_row(key, (run, agent, principal, at_ms));
        session.updated_ms = at_ms;
        session.runs += 1;
        session.last_run = run;
        session.agent.clone_from(agent);
    }

    fn session_row(
        &mut self,
        key: &SessionKey,
        (run, agent, principal, at_ms): (Id<id::Run>, &String, Id<id::Principal>, u64),
    ) -> &mut SessionRow {
        self.sessions.entry(key.clone()).or_insert_with(|| SessionRow {
            tenant: key.tenant.clone(),
            session: key.session,
            created_ms: at_ms,
            updated_ms: at_ms,
            runs: 0,
            last_run: run,
            agent: agent.clone(),
            principal,
            next_position: 0,
        })
    }

    /// The row as it is read: a run behind an earlier one that has not ended is queued.
    fn shown(&self, row: &RunRow) -> RunRow {
        let behind = |other: &RunRow| {
            other.session == row.session
                && other.tenant == row.tenant
                && other.finished_ms.is_none()
                && other.submitted_position < row.submitted_position
        };
        let mut row = row.clone();
        if row.finished_ms.is_none() && self.runs.values().any(behind) {
            row.status = RunStatus::Queued;
        }
        row
    }
}

#[async_trait]
impl Store for Memory {
    fn boot(&self) -> u64 {
        1
    }

    fn backend(&self) -> Backend {
        Backend::Memory
    }

    fn health(&self) -> Health {
        let state = self.state.lock();
        let error = state.closed.then_some(Error::Closed);
        Health { error, queued_entries: 0, commit_id: state.commit_id }
    }

    async fn close(&self) -> Result<(), Error> {
        self.state.lock().closed = true;
        Ok(())
    }

    async fn append(&self, entry: Append) -> Result<Appended, Error> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Error::Closed);
        }
        let (appended, records) = state.append(&entry, self.clock.wall_ms())?;
        if let Appended::Written(written) = &appended {
            if let Some(item) = entry.contents.first() {
                item.key.set_stored();
            }
            // Told under the lock, so that hints come in the order of commits.
            let next_position = written.next_position();
            self.hints.tell(Hint { key: entry.key, next_position, records: records.into() });
        }
        Ok(appended)
    }

    async fn fence(&self, key: &SessionKey, epoch: u64) -> Result<(), Error> {
        self.write(|state| {
            let head = state.heads.entry(key.clone()).or_insert(Head::EMPTY);
            head.epoch = head.epoch.max(epoch);
        })
    }

    async fn erase_item(&self, key: &SessionKey, item: Id<id::Content>) -> Result<Option<Stored>, Error> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Error::Closed);
        }
        Ok(state.contents.get_mut(key).and_then(|items| items.remove(&item)))
    }

    async fn erase_session(&self, key: &SessionKey) -> Result<Vec<Id<id::Content>>, Error> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Error::Closed);
        }
        let items = state.contents.remove(key).unwrap_or_default();
        state.data_keys.remove(key);
        self.data_keys.destroy(key);
        Ok(items.into_iter().filter(|(_, stored)| stored.form.has_object()).map(|(item, _)| item).collect())
    }

    async fn rebuild_index(&self) -> Result<u64, Error> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Error::Closed);
        }
        state.sessions.clear();
        state.runs.clear();
        state.artifacts.clear();
        state.checkpoints.clear();
        state.due.clear();
        let logs: Vec<_> = state.records.iter().map(|(key, records)| (key.clone(), records.clone())).collect();
        let mut read = 0;
        for (key, records) in logs {
            for stored in &records {
                let Record { head, event } = stored.decode()?;
                for change in index::of(head.at_ms, head.principal, &event) {
                    state.change(&key, stored.position, &change);
                }
                read += 1;
            }
            if let Some(session) = state.sessions.get_mut(&key) {
                session.next_position = records.len() as u64;
            }
        }
        Ok(read)
    }

    async fn head(&self, key: &SessionKey) -> Result<Head, Error> {
        self.read(|state| state.heads.get(key).copied().unwrap_or(Head::EMPTY))
    }

    async fn records(&self, key: &SessionKey, from: u64, rows_max: usize) -> Result<Vec<StoredRecord>, Error> {
        self.read(|state| {
            let records = state.records.get(key).map_or(&[][..], Vec::as_slice);
            let from = usize::try_from(from).unwrap_or(usize::MAX);
            let mut bytes = 0;
            let fits = |record: &&StoredRecord| {
                let first = bytes == 0;
                bytes += record.bytes.len();
                first || bytes <= PAGE_BYTES_MAX
            };
            records.iter().skip(from).take(rows_max).take_while(fits).cloned().collect()
        })
    }

    async fn content(&self, key: &SessionKey, item: Id<id::Content>) -> Result<Option<Stored>, Error> {
        self.read(|state| state.contents.get(key).and_then(|items| items.get(&item)).cloned())
    }

    async fn data_key(&self, key: &SessionKey) -> Result<Option<Vec<u8>>, Error> {
        self.read(|state| state.data_keys.get(key).cloned())
    }

    async fn run(&self, tenant: &Arc<str>, run: Id<id::Run>) -> Result<Option<RunRow>, Error> {
        self.read(|state| state.runs.get(&(tenant.clone(), run)).map(|row| state.shown(row)))
    }

    async fn runs(
        &self,
        tenant: &Arc<str>,
        filter: RunFilter,
        before: Option<Id<id::Run>>,
        rows_max: usize,
    ) -> Result<Page<RunRow, Id<id::Run>>, Error> {
        let before = before.unwrap_or(Id::from_bytes([0xff; 16]));
        self.read(|state| {
            let older = state.runs.range((tenant.clone(), Id::from_bytes([0; 16]))..(tenant.clone(), before)).rev();
            filter.page(older.map(|(_, row)| Ok(state.shown(row))), rows_max)
        })?
    }

    async fn session(&self, key: &SessionKey) -> Result<Option<SessionRow>, Error> {
        self.read(|state| state.sessions.get(key).cloned())
    }

    async fn sessions(
        &self,
        tenant: &Arc<str>,
        before: Option<SessionCursor>,
        rows_max: usize,
    ) -> Result<Page<SessionRow, SessionCursor>, Error> {
        self.read(|state| {
            let mut rows: Vec<_> = state.sessions.values().filter(|row| row.tenant == *tenant).cloned().collect();
            rows.sort_by_key(|row| std::cmp::Reverse(row.cursor()));
            rows.retain(|row| before.is_none_or(|before| row.cursor() < before));
            let more = rows.len() > rows_max;
            rows.truncate(rows_max);
            let next = rows.last().filter(|_| more).map(SessionRow::cursor);
            Page { rows, next }
        })
    }

    async fn unfinished(
        &self,
        after: Option<&UnfinishedCursor>,
        rows_max: usize,
    ) -> Result<Page<Unfinished, UnfinishedCursor>, Error> {
        self.read(|state| {
            let open = state.runs.values().filter(|row| row.finished_ms.is_none()).map(|row| Unfinished {
                key: SessionKey::new(row.tenant.clone(), row.session),
                run: row.run,
                submitted_position: row.submitted_position,
            });
            let open = open.filter(|row| !state.quarantine.contains_key(&row.key));
            let mut rows: Vec<_> = open.filter(|row| after.is_none_or(|after| row.cursor() > *after)).collect();
            rows.sort_by_key(Unfinished::cursor);
            query::page(rows, rows_max, Unfinished::cursor)
        })
    }

    async fn artifacts(&self, tenant: &Arc<str>, run: Id<id::Run>, rows_max: usize) -> Result<Vec<ArtifactRow>, Error> {
        self.read(|state| {
            let of_run = |((of, _), row): &(&OfTenant<_>, &ArtifactRow)| of == tenant && row.run == run;
            let mut rows: Vec<_> = state.artifacts.iter().filter(of_run).map(|(_, row)| row.clone()).collect();
            rows.sort_by_key(|row| row.position);
            rows.truncate(rows_max);
            rows
        })
    }

    async fn artifact(&self, tenant: &Arc<str>, artifact: Id<id::Artifact>) -> Result<Option<ArtifactRow>, Error> {
        self.read(|state| state.artifacts.get(&(tenant.clone(), artifact)).cloned())
    }

    async fn due(&self, until_ms: u64, rows_max: usize) -> Result<Vec<DueRow>, Error> {
        self.read(|state| {
            let mut rows: Vec<_> = state
                .due
                .iter()
                .filter(|((key, ..), at_ms)| **at_ms <= until_ms && !state.quarantine.contains_key(key))
                .map(|((key, run, kind), at_ms)| DueRow {
                    key: key.clone(),
                    run: *run,
                    kind: kind.clone(),
                    at_ms: *at_ms,
                })
                .collect();
            rows.sort_by_key(|row| row.at_ms);
            rows.truncate(rows_max);
            rows
        })
    }
}
