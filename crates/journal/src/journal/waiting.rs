//! What the handle does for what waits for somebody outside.

use super::Journal;
use crate::append::{Existing, Idempotency};
use crate::query::{PAGE_ROWS_MAX, Page};
use crate::waiting::{HeldCursor, HeldRow, OutboxRow};
use crate::{Error, Worker};
use domain::{Id, id};
use std::sync::Arc;

impl Journal {
    /// Calls of a tenant that wait for approval, oldest first, after `after`.
    pub async fn held(
        &self,
        tenant: &Arc<str>,
        after: Option<HeldCursor>,
        rows_max: usize,
    ) -> Result<Page<HeldRow, HeldCursor>, Error> {
        self.inner.store.held(tenant, after, rows_max.clamp(1, PAGE_ROWS_MAX)).await
    }

    /// Calls of a run that wait for approval, oldest first.
    pub async fn held_of(&self, tenant: &Arc<str>, run: Id<id::Run>) -> Result<Vec<HeldRow>, Error> {
        self.inner.store.held_of(tenant, run, PAGE_ROWS_MAX).await
    }

    /// A call that waits for approval, or did.
    pub async fn held_call(&self, tenant: &Arc<str>, call: Id<id::Call>) -> Result<Option<HeldRow>, Error> {
        self.inner.store.held_call(tenant, call).await
    }

    /// What an idempotency key was used for. [`Error::IdempotencyConflict`] when that was another request.
    pub async fn taken(&self, tenant: &Arc<str>, asked: &Idempotency) -> Result<Option<Existing>, Error> {
        self.inner.store.taken(tenant, asked).await
    }

    /// What is to be told to others at `until_ms`, of every tenant, earliest first.
    pub async fn outbox(&self, until_ms: u64, rows_max: usize) -> Result<Vec<OutboxRow>, Error> {
        self.inner.store.outbox(until_ms, rows_max.min(PAGE_ROWS_MAX)).await
    }

    /// Puts rows in the place of one that was read, unless somebody else has changed that one since; whether they were put.
    /// Their versions are counted on.
    pub async fn outbox_put(&self, read: &OutboxRow, rows: Vec<OutboxRow>) -> Result<bool, Error> {
        if rows.iter().any(|row| row.key != read.key || row.position != read.position) {
            return Err(Error::Invalid { reason: "rows of another record" });
        }
        self.inner.store.outbox_put(read, rows).await
    }

    /// What was, or is to be, told of a run, in order.
    pub async fn outbox_of(&self, tenant: &Arc<str>, run: Id<id::Run>) -> Result<Vec<OutboxRow>, Error> {
        self.inner.store.outbox_of(tenant, run, PAGE_ROWS_MAX).await
    }

    /// The worker that this process is, once it has joined.
    pub fn worker(&self) -> Option<Worker> {
        self.inner.worker.lock().clone()
    }
}
