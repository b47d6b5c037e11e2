//! What is done to whole sessions: deleted, put aside, looked for when their time is over. The shapes, and what a store
//! does for it; what a session did is not looked at here.

use crate::contents::object_key;
use crate::query::Page;
use crate::{Error, SessionKey};
use async_trait::async_trait;
use domain::{Digest, Id, id};
use std::sync::Arc;

/// Bytes of a quarantine's reason that are kept.
pub const REASON_BYTES_MAX: usize = 1_024;

/// What is left of a session that was deleted: deletion can be told from loss.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tombstone {
    /// The session.
    pub key: SessionKey,
    /// The epoch under which it ended; a session of the same name that came later has a higher one.
    pub epoch: u64,
    /// When it was deleted, in milliseconds since the Unix epoch.
    pub purged_ms: u64,
    /// On whose authority.
    pub principal: Id<id::Principal>,
    /// How many records its log had.
    pub records: u64,
    /// Hash of the last.
    pub head_hash: Digest,
}

impl Tombstone {
    /// Where it stands in the list of tombstones.
    pub const fn cursor(&self) -> TombstoneCursor {
        TombstoneCursor { session: self.key.session, epoch: self.epoch }
    }
}

/// A tombstone's whereabouts in the list of its tenant's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TombstoneCursor {
    /// The session.
    pub session: Id<id::Session>,
    /// See [`Tombstone::epoch`].
    pub epoch: u64,
}

/// A session that was put aside: it can be read and exported, nothing is appended to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantine {
    /// The session.
    pub key: SessionKey,
    /// Since when, in milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// On whose authority.
    pub principal: Id<id::Principal>,
    /// Why.
    pub reason: String,
}

impl Quarantine {
    /// A quarantine whose reason is cut to [`REASON_BYTES_MAX`].
    pub(crate) fn new(key: &SessionKey, since_ms: u64, principal: Id<id::Principal>, reason: &str) -> Self {
        let reason = reason[..reason.floor_char_boundary(REASON_BYTES_MAX)].to_owned();
        Self { key: key.clone(), since_ms, principal, reason }
    }
}

/// The objects of content items.
pub(crate) fn content_objects(key: &SessionKey, items: impl IntoIterator<Item = Id<id::Content>>) -> Vec<String> {
    items.into_iter().map(|item| object_key(key, item)).collect()
}

/// The part of a store that keeps whole sessions in order.
#[async_trait]
pub(crate) trait Upkeep {
    /// Takes out everything of a session but its epoch, which grows by one, and writes a tombstone; remembers the objects
    /// that nothing points to any more until [`Upkeep::swept`]. `None`: there is no such session. A session with a run that
    /// has not ended is refused, unless it is quarantined. Its data key is destroyed.
    async fn purge(
        &self,
        key: &SessionKey,
        at_ms: u64,
        principal: Id<id::Principal>,
    ) -> Result<Option<Tombstone>, Error>;
    async fn tombstones(
        &self,
        tenant: &Arc<str>,
        after: Option<TombstoneCursor>,
        rows_max: usize,
    ) -> Result<Page<Tombstone, TombstoneCursor>, Error>;
    /// Sessions, by key, that are not quarantined and of whose runs each ended before `ended_before_ms`.
    async fn expired(
        &self,
        ended_before_ms: u64,
        after: Option<&SessionKey>,
        rows_max: usize,
    ) -> Result<Page<SessionKey, SessionKey>, Error>;
    /// Objects to be deleted.
    async fn garbage(&self, rows_max: usize) -> Result<Vec<String>, Error>;
    /// These were deleted.
    async fn swept(&self, objects: Vec<String>) -> Result<(), Error>;

    async fn quarantine(&self, quarantine: Quarantine) -> Result<(), Error>;
    /// Whether it was quarantined.
    async fn release_quarantine(&self, key: &SessionKey) -> Result<bool, Error>;
    async fn quarantined(&self, key: &SessionKey) -> Result<Option<Quarantine>, Error>;
    async fn quarantines(
        &self,
        after: Option<&SessionKey>,
        rows_max: usize,
    ) -> Result<Page<Quarantine, SessionKey>, Error>;

    /// A record that was read is not what was written.
    fn damaged(&self, key: &SessionKey, error: &Error);
}
