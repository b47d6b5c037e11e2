//! What the engine says no with.

use domain::{Id, id};

/// Why something asked of the engine does not happen.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such run, or it belongs to another tenant.
    #[error("there is no run {run}")]
    NoSuchRun {
        /// The id asked for.
        run: Id<id::Run>,
    },
    /// No such session, or it belongs to another tenant.
    #[error("there is no session {session}")]
    NoSuchSession {
        /// The id asked for.
        session: Id<id::Session>,
    },
    /// The agent can't be had.
    #[error(transparent)]
    Agent(#[from] catalog::NoAgent),
    /// The agent's closure can't be opened.
    #[error("agent `{agent}` can't be opened: {detail}")]
    Closure {
        /// Its name.
        agent: String,
        /// Why not.
        detail: String,
    },
    /// The message is too long.
    #[error("the message has {bytes} bytes; at most {bytes_max} are taken; hint: put large inputs into a manifest")]
    MessageTooLarge {
        /// Its length.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// The message is empty.
    #[error("the message is empty")]
    MessageEmpty,
    /// The same idempotency key came with another body.
    #[error("this idempotency key was used for another request; hint: use a new key for a new request")]
    IdempotencyConflict,
    /// Too many runs are waiting.
    #[error("too many runs are waiting ({waiting}); hint: try again in {retry_after_ms} ms")]
    Busy {
        /// How many.
        waiting: usize,
        /// When it is worth trying again.
        retry_after_ms: u64,
    },
    /// The engine is draining.
    #[error("this process is shutting down; hint: try again, another one may serve")]
    Draining,
    /// The worker's lease ended before a deed: another worker may have the session.
    #[error("the worker's lease ended; the session goes to another one")]
    LeaseLost,
    /// The journal does not take or give records.
    #[error(transparent)]
    Journal(#[from] journal::Error),
    /// The objects do not take or give bytes.
    #[error("objects: {detail}")]
    Objects {
        /// Stable code of what happened.
        code: &'static str,
        /// What happened.
        detail: String,
    },
    /// A log does not fold.
    #[error(transparent)]
    History(#[from] machine::Refused),
    /// A stored record can't be read.
    #[error(transparent)]
    Record(#[from] domain::record::Error),
}

impl Error {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoSuchRun { .. } => "run_not_found",
            Self::NoSuchSession { .. } => "session_not_found",
            Self::Agent(error) => error.code(),
            Self::Closure { .. } => "closure_unusable",
            Self::MessageTooLarge { .. } => "message_too_large",
            Self::MessageEmpty => "message_empty",
            Self::IdempotencyConflict => "idempotency_conflict",
            Self::Busy { .. } => "busy",
            Self::Draining => "draining",
            Self::LeaseLost => "lease_lost",
            Self::Journal(error) => error.code(),
            Self::Objects { code, .. } => code,
            Self::History(error) => error.code(),
            Self::Record(error) => error.code(),
        }
    }
}
