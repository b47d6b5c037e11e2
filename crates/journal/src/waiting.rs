//! What waits for somebody outside: calls for approval, and what is to be told to others. The shapes, and what a store does
//! for it. Who may approve is `machine`'s; whom something is told, and how, is the engine's.

use crate::append::{Existing, Idempotency};
use crate::query::Page;
use crate::{Error, SessionKey};
use async_trait::async_trait;
use domain::{Id, id};
use std::sync::Arc;

/// The kinds of records that can be told to others.
pub const TOLD_KINDS: &[&str] = &["submitted", "parked", "resumed", "in_doubt", "artifact_saved", "finished"];

/// A call that waits for approval, or did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldRow {
    /// Its session.
    pub key: SessionKey,
    /// The call.
    pub call: Id<id::Call>,
    /// Its run.
    pub run: Id<id::Run>,
    /// Since when, in milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// Until when it can be approved.
    pub expires_ms: u64,
    /// Whether it still waits.
    pub is_open: bool,
}

impl HeldRow {
    /// Where it stands in the list of its tenant's.
    pub const fn cursor(&self) -> HeldCursor {
        HeldCursor { since_ms: self.since_ms, call: self.call }
    }
}

/// A held call's whereabouts in the list of its tenant's, oldest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HeldCursor {
    /// See [`HeldRow::since_ms`].
    pub since_ms: u64,
    /// The call.
    pub call: Id<id::Call>,
}

/// Something that is to be told to others, or was. A row is written with the record that it tells of; for whom, is filled in
/// later: then it is replaced by one row for each target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxRow {
    /// The record's session.
    pub key: SessionKey,
    /// The record's position.
    pub position: u64,
    /// Whom; empty as long as that was not worked out.
    pub target: String,
    /// The record's run.
    pub run: Id<id::Run>,
    /// The record's kind.
    pub kind: String,
    /// When the record was written, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// How it stands, in a form that belongs to whoever tells.
    pub state: String,
    /// When there is something to do; `None`: no more.
    pub next_ms: Option<u64>,
    /// How often the row was changed.
    pub version: u64,
}

/// The part of a store that keeps what waits.
#[async_trait]
pub(crate) trait Waiting {
    /// Calls that wait for approval, oldest first.
    async fn held(
        &self,
        tenant: &Arc<str>,
        after: Option<HeldCursor>,
        rows_max: usize,
    ) -> Result<Page<HeldRow, HeldCursor>, Error>;
    /// Calls of a run that wait for approval, oldest first.
    async fn held_of(&self, tenant: &Arc<str>, run: Id<id::Run>, rows_max: usize) -> Result<Vec<HeldRow>, Error>;
    /// A call that waits, or did.
    async fn held_call(&self, tenant: &Arc<str>, call: Id<id::Call>) -> Result<Option<HeldRow>, Error>;

    /// What an idempotency key was used for; an error when that was another request.
    async fn taken(&self, tenant: &Arc<str>, asked: &Idempotency) -> Result<Option<Existing>, Error>;

    /// Rows with something to do at `until_ms`, earliest first.
    async fn outbox(&self, until_ms: u64, rows_max: usize) -> Result<Vec<OutboxRow>, Error>;
    /// Puts `rows` in the place of a row, unless that one was changed since it was read; whether they were put.
    async fn outbox_put(&self, read: &OutboxRow, rows: Vec<OutboxRow>) -> Result<bool, Error>;
    /// Rows of a run, in order.
    async fn outbox_of(&self, tenant: &Arc<str>, run: Id<id::Run>, rows_max: usize) -> Result<Vec<OutboxRow>, Error>;
}
