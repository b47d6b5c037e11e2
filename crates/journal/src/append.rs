//! What is handed to the journal's one write, and what comes back.

use crate::Error;
use crate::contents::SealedItem;
use crate::index::{self, Change};
use domain::record::{Draft, EncodedEvent};
use domain::{Digest, Id, id};
use std::sync::Arc;

/// Records that one append may carry.
pub const APPEND_RECORDS_MAX: usize = 256;
/// Contents that one append may carry.
pub const APPEND_CONTENTS_MAX: usize = 1_024;
/// Bytes of records and inline contents that one append may carry.
pub const APPEND_BYTES_MAX: usize = 8 << 20;

/// A session of a tenant: the name of one log.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionKey {
    /// The tenant.
    pub tenant: Arc<str>,
    /// The session.
    pub session: Id<id::Session>,
}

impl SessionKey {
    /// A session of a tenant.
    pub fn new(tenant: impl Into<Arc<str>>, session: Id<id::Session>) -> Self {
        Self { tenant: tenant.into(), session }
    }
}

/// Under what condition an entry is appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fence {
    /// From outside: wherever the log stands. A request with a key is taken once.
    Input(Option<Idempotency>),
    /// By the driver of the session.
    Effect {
        /// Its epoch; a lower one than the session has seen is refused, a higher one is taken and stored.
        epoch: u64,
        /// The next position, as the driver has folded the log.
        expect: u64,
    },
}

/// An idempotency key of an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idempotency {
    /// Digest of the client's key with tenant, principal and route.
    pub key: Digest,
    /// Digest of the request's body.
    pub body: Digest,
    /// The run that this input starts or belongs to.
    pub run: Id<id::Run>,
    /// Until when the key is remembered, in milliseconds since the Unix epoch; at least 24 h ahead.
    pub expires_at_ms: u64,
}

/// A draft whose bytes were made outside the journal's writer.
#[derive(Clone, Debug)]
pub struct PreparedDraft {
    pub(crate) at_ms: u64,
    pub(crate) principal: Id<id::Principal>,
    pub(crate) event: EncodedEvent,
    pub(crate) changes: Vec<Change>,
}

impl PreparedDraft {
    /// Encodes a draft and derives its index rows.
    pub fn new(draft: &Draft) -> Self {
        Self {
            at_ms: draft.at_ms,
            principal: draft.principal,
            event: draft.event.encode(),
            changes: index::of(draft.at_ms, draft.principal, &draft.event),
        }
    }

    /// Adds a change to the index that the record alone does not yield. It is gone when the index is made anew.
    #[must_use]
    pub fn with(mut self, change: Change) -> Self {
        self.changes.push(change);
        self
    }
}

/// One entry: records and contents of one session that are written together or not at all.
#[derive(Clone, Debug)]
pub struct Append {
    /// The session.
    pub key: SessionKey,
    /// The condition.
    pub fence: Fence,
    /// The records, in order; at least one.
    pub drafts: Vec<PreparedDraft>,
    /// The contents that they point to.
    pub contents: Vec<SealedItem>,
}

impl Append {
    /// An entry with nothing in it yet.
    pub const fn new(key: SessionKey, fence: Fence) -> Self {
        Self { key, fence, drafts: Vec::new(), contents: Vec::new() }
    }

    /// Adds a record.
    #[must_use]
    pub fn draft(mut self, draft: &Draft) -> Self {
        self.drafts.push(PreparedDraft::new(draft));
        self
    }

    /// Adds a content item.
    #[must_use]
    pub fn content(mut self, item: SealedItem) -> Self {
        self.contents.push(item);
        self
    }

    /// What it weighs in the queue, in bytes.
    pub(crate) fn weight_bytes(&self) -> usize {
        // 320 is what the journal adds to a record, see `domain::record::encode`.
        let records: usize = self.drafts.iter().map(|draft| draft.event.size_bytes() + 320).sum();
        records + self.contents.iter().map(SealedItem::row_bytes).sum::<usize>()
    }

    /// Refuses what can't be meant or is too much.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.drafts.is_empty() {
            return Err(Error::Invalid { reason: "no records" });
        }
        if let Fence::Effect { epoch, .. } = self.fence
            && i64::try_from(epoch).is_err()
        {
            return Err(Error::Invalid { reason: "an epoch of more than 63 bits" });
        }
        if self.contents.iter().any(|item| item.key.session() != &self.key) {
            return Err(Error::Invalid { reason: "contents sealed for another session" });
        }
        if let Some(first) = self.contents.first()
            && self.contents.iter().any(|item| !Arc::ptr_eq(&item.key, &first.key))
        {
            return Err(Error::DataKeyChanged);
        }
        for (what, size, max) in [
            ("records in one append", self.drafts.len(), APPEND_RECORDS_MAX),
            ("contents in one append", self.contents.len(), APPEND_CONTENTS_MAX),
            ("bytes in one append", self.weight_bytes(), APPEND_BYTES_MAX),
        ] {
            if size > max {
                return Err(Error::TooLarge { what, size: size as u64, max: max as u64 });
            }
        }
        Ok(())
    }
}

/// The answer to an append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Appended {
    /// The records are durable.
    Written(Written),
    /// The same request was taken before; nothing was written.
    Existing(Existing),
}

impl Appended {
    /// What was written, if something was.
    pub const fn written(&self) -> Option<&Written> {
        match self {
            Self::Written(written) => Some(written),
            Self::Existing(_) => None,
        }
    }
}

/// Records that are durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Position of the first record of the entry.
    pub first_position: u64,
    /// Position of the last.
    pub last_position: u64,
    /// Hash of the last.
    pub head_hash: Digest,
    /// Number of the commit that made them durable.
    pub commit_id: u64,
}

impl Written {
    /// The position that the next record will take: what the next effect expects.
    pub const fn next_position(&self) -> u64 {
        self.last_position + 1
    }
}

/// A request that was taken before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Existing {
    /// The session it went to.
    pub session: Id<id::Session>,
    /// Its run.
    pub run: Id<id::Run>,
    /// Position of its first record.
    pub position: u64,
}
