//! What waits for somebody outside, in memory.

use super::{Memory, State};
use crate::append::{Existing, Idempotency};
use crate::query::{self, Page};
use crate::waiting::{HeldCursor, HeldRow, OutboxRow, Waiting};
use crate::{Error, SessionKey};
use async_trait::async_trait;
use domain::{Id, id};
use std::sync::Arc;

impl State {
    pub(super) fn hold(&mut self, key: &SessionKey, (call, run): (Id<id::Call>, Id<id::Run>), since: u64, until: u64) {
        let row = HeldRow { key: key.clone(), call, run, since_ms: since, expires_ms: until, is_open: true };
        let there = self.held.entry((key.tenant.clone(), call)).or_insert(row);
        (there.expires_ms, there.is_open) = (until, true);
    }

    /// Ends the waiting of those calls.
    pub(super) fn close(&mut self, of: impl Fn(&HeldRow) -> bool) {
        self.held.values_mut().filter(|row| of(row)).for_each(|row| row.is_open = false);
    }

    pub(super) fn tell(&mut self, key: &SessionKey, position: u64, run: Id<id::Run>, kind: &'static str, at_ms: u64) {
        if !self.announced.contains(&(key.clone(), run)) {
            return;
        }
        let row = OutboxRow {
            key: key.clone(),
            position,
            target: String::new(),
            run,
            kind: kind.to_owned(),
            at_ms,
            state: String::new(),
            next_ms: Some(at_ms),
            version: 0,
        };
        self.outbox.insert((key.clone(), position, String::new()), row);
    }

    /// Takes out what waits of a session.
    pub(super) fn forget(&mut self, key: &SessionKey) {
        self.held.retain(|_, row| row.key != *key);
        self.announced.retain(|(of, _)| of != key);
        self.outbox.retain(|(of, ..), _| of != key);
    }
}

#[async_trait]
impl Waiting for Memory {
    async fn held(
        &self,
        tenant: &Arc<str>,
        after: Option<HeldCursor>,
        rows_max: usize,
    ) -> Result<Page<HeldRow, HeldCursor>, Error> {
        self.read(|state| {
            let wanted = |row: &&HeldRow| {
                row.is_open && row.key.tenant == *tenant && after.is_none_or(|after| row.cursor() > after)
            };
            let mut rows: Vec<_> = state.held.values().filter(wanted).cloned().collect();
            rows.sort_by_key(HeldRow::cursor);
            query::page(rows, rows_max, HeldRow::cursor)
        })
    }

    async fn held_of(&self, tenant: &Arc<str>, run: Id<id::Run>, rows_max: usize) -> Result<Vec<HeldRow>, Error> {
        self.read(|state| {
            let wanted = |row: &&HeldRow| row.is_open && row.key.tenant == *tenant && row.run == run;
            let mut rows: Vec<_> = state.held.values().filter(wanted).cloned().collect();
            rows.sort_by_key(HeldRow::cursor);
            rows.truncate(rows_max);
            rows
        })
    }

    async fn held_call(&self, tenant: &Arc<str>, call: Id<id::Call>) -> Result<Option<HeldRow>, Error> {
        self.read(|state| state.held.get(&(tenant.clone(), call)).cloned())
    }

    async fn taken(&self, tenant: &Arc<str>, asked: &Idempotency) -> Result<Option<Existing>, Error> {
        let now_ms = self.clock.wall_ms();
        self.write(|state| state.taken(tenant, asked, now_ms))?
    }

    async fn outbox(&self, until_ms: u64, rows_max: usize) -> Result<Vec<OutboxRow>, Error> {
        self.read(|state| {
            let due = |row: &&OutboxRow| row.next_ms.is_some_and(|next_ms| next_ms <= until_ms);
            let mut rows: Vec<_> = state.outbox.values().filter(due).cloned().collect();
            rows.sort_by_key(|row| row.next_ms);
            rows.truncate(rows_max);
            rows
        })
    }

    async fn outbox_put(&self, read: &OutboxRow, rows: Vec<OutboxRow>) -> Result<bool, Error> {
        self.write(|state| {
            let place = (read.key.clone(), read.position, read.target.clone());
            if state.outbox.get(&place).is_none_or(|there| there.version != read.version) {
                return false;
            }
            state.outbox.remove(&place);
            for row in rows {
                let place = (row.key.clone(), row.position, row.target.clone());
                state.outbox.insert(place, OutboxRow { version: row.version + 1, ..row });
            }
            true
        })
    }

    async fn outbox_of(&self, tenant: &Arc<str>, run: Id<id::Run>, rows_max: usize) -> Result<Vec<OutboxRow>, Error> {
        self.read(|state| {
            let of_run = |row: &&OutboxRow| row.key.tenant == *tenant && row.run == run;
            state.outbox.values().filter(of_run).take(rows_max).cloned().collect()
        })
    }
}
