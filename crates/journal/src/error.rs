//! What can go wrong with the log. Every error can be answered to each member of a commit group, so it clones.

use domain::{Id, id, record};
use std::sync::Arc;

/// Why the journal did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// A later driver has taken the session: the caller's epoch is over and it must stop.
    #[error("fenced: the session is driven under epoch {epoch}")]
    Fenced {
        /// The epoch that holds the session.
        epoch: u64,
    },
    /// The log has grown since the caller folded it.
    #[error("moved: the log has grown to position {position}; hint: fold the news and step again")]
    Moved {
        /// The next position.
        position: u64,
    },
    /// The idempotency key was used before with another body.
    #[error("the idempotency key was used for another request, which started {run}; hint: use a new key")]
    IdempotencyConflict {
        /// The run of the first request.
        run: Id<id::Run>,
    },
    /// The session's data key was made elsewhere or destroyed since the contents were sealed.
    #[error("the session's data key has changed; hint: take a new sealer and seal the contents again")]
    DataKeyChanged,
    /// More than the journal takes at once.
    #[error("{what} of {size} is above the limit of {max}")]
    TooLarge {
        /// What is too large, with its unit.
        what: &'static str,
        /// Its size.
        size: u64,
        /// The limit.
        max: u64,
    },
    /// An append that can't be meant: no records, contents of another session, an id that is stored already.
    #[error("not an append: {reason}")]
    Invalid {
        /// What is wrong.
        reason: &'static str,
    },
    /// The session is in quarantine.
    #[error("the session is in quarantine: {reason}; hint: look at its log, then release or purge it")]
    Quarantined {
        /// Why.
        reason: Arc<str>,
    },
    /// A session that has a run which has not ended can't be deleted.
    #[error("the session has a run that has not ended; hint: cancel the run, or quarantine the session")]
    Unended,
    /// The disk is full; the entry was not acknowledged.
    #[error("the disk is full; hint: make room in the data directory, the journal goes on by itself")]
    Full,
    /// The disk or the database failed; the entry may or may not come back after a restart, it was not acknowledged.
    #[error("the journal cannot be written or read: {reason}")]
    Io {
        /// What the database said.
        reason: Arc<str>,
    },
    /// Stored bytes are not what was stored.
    #[error("the journal is damaged: {what}; hint: stop, keep a copy of the data directory, restore a backup")]
    Corrupt {
        /// What does not fit.
        what: Arc<str>,
    },
    /// Another process has the data directory.
    #[error("the data directory {directory} is in use by process {pid}; hint: stop that process or use another --data")]
    Locked {
        /// The directory.
        directory: Arc<str>,
        /// The process; 0 when it did not say.
        pid: u32,
    },
    /// A repair of the data directory was begun and not finished.
    #[error("the journal in {directory} is being repaired; hint: run `topside repair` again")]
    Unrepaired {
        /// The directory.
        directory: Arc<str>,
    },
    /// A backup can't be made, or is not one.
    #[error("the backup: {reason}")]
    Backup {
        /// Why.
        reason: Arc<str>,
    },
    /// The database was written by a newer program.
    #[error("the journal has schema {found}, this program knows {known}; hint: start a newer topside")]
    Newer {
        /// The schema found.
        found: u32,
        /// The newest one known.
        known: u32,
    },
    /// A stored record can't be read by this program.
    #[error("record {position}: {error}")]
    Record {
        /// Its position.
        position: u64,
        /// Why.
        error: Arc<record::Error>,
    },
    /// A tenant's key could not be had, or does not open the session's data key.
    #[error("the tenant's key: {reason}")]
    Key {
        /// Why.
        reason: Arc<str>,
    },
    /// A large content item could not be kept or fetched.
    #[error("the object store: {reason}")]
    Objects {
        /// Why.
        reason: Arc<str>,
    },
    /// Another worker has claimed the session and is alive.
    #[error("the session is held by worker `{by}`")]
    Held {
        /// The worker's name.
        by: Arc<str>,
        /// Until when its lease runs, by the database's clock, in milliseconds since the Unix epoch.
        until_ms: u64,
    },
    /// The worker is no more: its lease ran out and others may have taken what it held.
    #[error("the worker's lease has run out; hint: stop its drivers and join again")]
    WorkerLost,
    /// The database can't be reached, or does not let us in.
    #[error("the database cannot be reached: {reason}")]
    Unreachable {
        /// Why; without the password.
        reason: Arc<str>,
    },
    /// The database's URL can't be used.
    #[error("the database url: {reason}")]
    Url {
        /// What is wrong with it; without the password.
        reason: Arc<str>,
    },
    /// The database would lose what it has acknowledged.
    #[error("the database has `{setting} = {found}`; hint: set it to `{wanted}`")]
    Unsafe {
        /// The database's setting.
        setting: &'static str,
        /// Its value.
        found: Arc<str>,
        /// What it must be.
        wanted: &'static str,
    },
    /// The journal is closed.
    #[error("the journal is closed")]
    Closed,
}

/// A content, a run or an artifact whose id is stored already: ids are random, so it was appended twice.
pub(crate) const ID_TAKEN: Error = Error::Invalid { reason: "an id that is stored already" };

impl Error {
    /// Stable code, with a page under `docs/errors/`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Fenced { .. } => "journal_fenced",
            Self::Moved { .. } => "journal_moved",
            Self::IdempotencyConflict { .. } => "idempotency_conflict",
            Self::DataKeyChanged => "journal_data_key_changed",
            Self::TooLarge { .. } => "journal_too_large",
            Self::Invalid { .. } => "journal_invalid",
            Self::Quarantined { .. } => "session_quarantined",
            Self::Unended => "session_unended",
            Self::Full => "journal_full",
            Self::Io { .. } => "journal_io",
            Self::Corrupt { .. } => "journal_corrupt",
            Self::Locked { .. } => "journal_locked",
            Self::Unrepaired { .. } => "journal_unrepaired",
            Self::Backup { .. } => "journal_backup",
            Self::Newer { .. } => "journal_newer",
            Self::Record { error, .. } => error.code(),
            Self::Key { .. } => "journal_key",
            Self::Objects { .. } => "journal_objects",
            Self::Held { .. } => "session_held",
            Self::WorkerLost => "worker_lost",
            Self::Unreachable { .. } => "database_unreachable",
            Self::Url { .. } => "database_url",
            Self::Unsafe { .. } => "database_unsafe",
            Self::Closed => "journal_closed",
        }
    }

    /// An I/O error.
    pub(crate) fn io(reason: impl std::fmt::Display) -> Self {
        Self::Io { reason: reason.to_string().into() }
    }

    /// Damage.
    pub(crate) fn corrupt(what: impl std::fmt::Display) -> Self {
        Self::Corrupt { what: what.to_string().into() }
    }
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode as Code;
        match error.sqlite_error_code() {
            Some(Code::DiskFull) => Self::Full,
            Some(Code::ConstraintViolation) => ID_TAKEN,
            Some(Code::DatabaseCorrupt | Code::NotADatabase) => Self::corrupt(error),
            _ => Self::io(error),
        }
    }
}
