//! Questions to the journal and the shapes of its answers. Every answer is a bounded page.

use crate::{Error, RunRow, SessionKey, SessionRow};
use domain::{Digest, Id, Record, RunStatus, id, record};
use std::sync::Arc;

/// Rows in one page at most.
pub const PAGE_ROWS_MAX: usize = 1_000;
/// Bytes of records in one page at most; one record is always given.
pub const PAGE_BYTES_MAX: usize = 4 << 20;
/// Rows that a filtered list looks at for one page; the page may then be short, with a `next`.
pub const SCAN_ROWS_MAX: usize = 5_000;

/// Where a session's log stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The next position; 0 for a log that is empty.
    pub position: u64,
    /// Hash of the last record; [`Digest::ZERO`] for a log that is empty.
    pub hash: Digest,
    /// The highest epoch that has appended.
    pub epoch: u64,
}

impl Head {
    /// The head of a log that is empty.
    pub const EMPTY: Self = Self { position: 0, hash: Digest::ZERO, epoch: 0 };
}

/// A record as it is stored. Its hash was checked when it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRecord {
    /// Its position.
    pub position: u64,
    /// Its hash.
    pub hash: Digest,
    /// The exact bytes that are hashed.
    pub bytes: Arc<[u8]>,
    /// Number of the commit that made it durable.
    pub commit_id: u64,
}

impl StoredRecord {
    /// Reads the bytes.
    pub fn decode(&self) -> Result<Record, Error> {
        record::decode(&self.bytes).map_err(|error| Error::Record { position: self.position, error: Arc::new(error) })
    }
}

/// Cuts rows, of which one more than wanted was asked for, down to a page.
pub(crate) fn page<T, C>(mut rows: Vec<T>, rows_max: usize, cursor: impl FnOnce(&T) -> C) -> Page<T, C> {
    let more = rows.len() > rows_max;
    rows.truncate(rows_max);
    let next = rows.last().filter(|_| more).map(cursor);
    Page { rows, next }
}

/// A bounded part of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T, C> {
    /// The rows; may be fewer than asked for even when there are more.
    pub rows: Vec<T>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<C>,
}

/// Which runs to list, newest first.
#[derive(Clone, Debug, Default)]
pub struct RunFilter {
    /// Only of this session.
    pub session: Option<Id<id::Session>>,
    /// Only those that stand so.
    pub status: Option<RunStatus>,
    /// Only of this agent.
    pub agent: Option<String>,
}

impl RunFilter {
    /// Takes rows, newest first, until the page is full or enough were looked at.
    pub(crate) fn page(
        &self,
        rows: impl Iterator<Item = Result<RunRow, Error>>,
        rows_max: usize,
    ) -> Result<Page<RunRow, Id<id::Run>>, Error> {
        let mut page = Page { rows: Vec::new(), next: None };
        let mut last = None;
        for (looked_at, row) in rows.enumerate() {
            if page.rows.len() == rows_max || looked_at == SCAN_ROWS_MAX {
                page.next = last;
                break;
            }
            let row = row?;
            last = Some(row.run);
            if self.fits(&row) {
                page.rows.push(row);
            }
        }
        Ok(page)
    }

    fn fits(&self, row: &RunRow) -> bool {
        self.session.is_none_or(|session| session == row.session)
            && self.status.is_none_or(|status| status == row.status)
            && self.agent.as_ref().is_none_or(|agent| *agent == row.agent)
    }
}

/// The result of checking a session's chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verified {
    /// Every link fits, and the last record is the head.
    Intact {
        /// Records in the log.
        records: u64,
        /// Hash of the last.
        head_hash: Digest,
    },
    /// The first position where something does not fit.
    Broken {
        /// The position.
        position: u64,
        /// What does not fit.
        reason: String,
    },
}

/// A session's whereabouts in the list of sessions, newest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SessionCursor {
    /// When it was created.
    pub created_ms: u64,
    /// The session.
    pub session: Id<id::Session>,
}

impl SessionRow {
    /// Where it stands in the list of sessions.
    pub const fn cursor(&self) -> SessionCursor {
        SessionCursor { created_ms: self.created_ms, session: self.session }
    }
}

/// A session whose run has not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfinished {
    /// The session.
    pub key: SessionKey,
    /// The run.
    pub run: Id<id::Run>,
    /// Position of its `submitted`.
    pub submitted_position: u64,
}

impl Unfinished {
    /// Where it stands in the list of unfinished runs.
    pub fn cursor(&self) -> UnfinishedCursor {
        UnfinishedCursor { key: self.key.clone(), submitted_position: self.submitted_position }
    }
}

/// A run's whereabouts in the list of unfinished runs: by session, and within one in the order they were asked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnfinishedCursor {
    /// The session.
    pub key: SessionKey,
    /// Position of the run's `submitted`.
    pub submitted_position: u64,
}
