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
    /// The session has no such checkpoint, or none at all.
    #[error("the session {session} has no {}; hint: `topside checkpoints` lists those that it has", told(*.checkpoint))]
    NoSuchCheckpoint {
        /// The session.
        session: Id<id::Session>,
        /// The id asked for; `None`: any.
        checkpoint: Option<Id<id::Checkpoint>>,
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
    /// The run has ended.
    #[error("the run {run} has ended; hint: start another one in its session")]
    RunEnded {
        /// The run.
        run: Id<id::Run>,
    },
    /// Somebody has asked for the end of the run.
    #[error("the run {run} is about to end, because somebody cancelled it")]
    RunEnding {
        /// The run.
        run: Id<id::Run>,
    },
    /// A run works on the session's files, or waits to go on with them.
    #[error("run {run} of the session is under way; hint: wait for its end, or cancel it")]
    RunUnderWay {
        /// The run.
        run: Id<id::Run>,
    },
    /// The run is not paused.
    #[error("the run {run} is not paused")]
    RunNotPaused {
        /// The run.
        run: Id<id::Run>,
    },
    /// Too many messages wait to be told to the run.
    #[error("{waiting} messages wait to be told to the run; hint: wait until its turn has ended")]
    SteersMax {
        /// How many.
        waiting: usize,
    },
    /// A limit can't be raised to that.
    #[error("{detail}; hint: limits are raised, never lowered, and above what is used")]
    RaiseTooLow {
        /// Why not.
        detail: String,
    },
    /// A run may have lower limits than its agent, not higher ones.
    #[error(
        "the limit {what} of {asked} is above the agent's, which is {most}; hint: raise it in the agent's declaration"
    )]
    LimitsHigher {
        /// Which limit.
        what: &'static str,
        /// What was asked for.
        asked: u64,
        /// The agent's.
        most: u64,
    },
    /// No such call is under way.
    #[error("the run has no call {call} under way")]
    NoSuchCall {
        /// The id asked for.
        call: Id<id::Call>,
    },
    /// The call is not in doubt.
    #[error("the call {call} is not in doubt")]
    NotInDoubt {
        /// The call.
        call: Id<id::Call>,
    },
    /// Whoever performed the call may still be at it.
    #[error("the call {call} may still be under way; hint: try again in {retry_after_ms} ms")]
    ResolveTooEarly {
        /// The call.
        call: Id<id::Call>,
        /// When it can be settled.
        retry_after_ms: u64,
    },
    /// Nothing can undo the call.
    #[error("the contract of `{tool}` names no tool that could undo the call; hint: say whether it happened instead")]
    NoCompensation {
        /// The call's tool.
        tool: String,
    },
    /// No such call waits for approval, or ever did.
    #[error("there is no call {call} that somebody has to approve")]
    NoSuchApproval {
        /// The id asked for.
        call: Id<id::Call>,
    },
    /// A vote does not count.
    #[error(transparent)]
    Unheard(#[from] machine::Unheard),
    /// A session can't be gone on from there.
    #[error("no other session can go on from position {at}{}{}", because(*.files), nearest(*.before, *.after))]
    NotForkable {
        /// The position.
        at: u64,
        /// What its files have to do with it.
        files: FilesThere,
        /// The nearest one before it that can be gone on from.
        before: Option<u64>,
        /// The nearest one after it.
        after: Option<u64>,
    },
    /// The session that is to be made is there already.
    #[error("there is a session {session} of that name already; hint: choose another name")]
    SessionExists {
        /// Its id.
        session: Id<id::Session>,
    },
    /// There is no such model.
    #[error("there is no model `{asked}` that could be asked; hint: name one that models/ declares")]
    ModelUnknown {
        /// The alias asked for.
        asked: String,
    },
    /// The checkpoint that is to be gone on from is not what was kept.
    #[error("the checkpoint's bytes are not those that were kept")]
    CheckpointDamaged,
    /// A client can't be called back there.
    #[error("the callback: {detail}")]
    Callback {
        /// Why not.
        detail: String,
    },
    /// A workspace can't be removed.
    #[error(transparent)]
    Workspace(#[from] sandbox::Error),
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
    /// The driver before wrote after this one had begun.
    #[error("another driver wrote record {position} after this one had taken the session up; it is taken up anew")]
    Overtaken {
        /// Where its first record stands.
        position: u64,
    },
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
            Self::NoSuchCheckpoint { .. } => "checkpoint_not_found",
            Self::Agent(error) => error.code(),
            Self::Closure { .. } => "closure_unusable",
            Self::MessageTooLarge { .. } => "message_too_large",
            Self::MessageEmpty => "message_empty",
            Self::RunEnded { .. } => "run_ended",
            Self::RunEnding { .. } => "run_ending",
            Self::RunUnderWay { .. } => "run_under_way",
            Self::RunNotPaused { .. } => "run_not_paused",
            Self::SteersMax { .. } => "steers_waiting",
            Self::RaiseTooLow { .. } => "raise_too_low",
            Self::LimitsHigher { .. } => "limits_higher",
            Self::NoSuchCall { .. } => "call_not_found",
            Self::NotInDoubt { .. } => "call_not_in_doubt",
            Self::ResolveTooEarly { .. } => "resolve_too_early",
            Self::NoCompensation { .. } => "no_compensation",
            Self::NoSuchApproval { .. } => "approval_not_found",
            Self::Unheard(unheard) => unheard.code(),
            Self::NotForkable { .. } => "not_forkable",
            Self::SessionExists { .. } => "session_exists",
            Self::ModelUnknown { .. } => "model_unknown",
            Self::CheckpointDamaged => "checkpoint_damaged",
            Self::Callback { .. } => "callback_invalid",
            Self::Workspace(error) => error.code(),
            Self::IdempotencyConflict => "idempotency_conflict",
            Self::Busy { .. } => "busy",
            Self::Draining => "draining",
            Self::LeaseLost => "lease_lost",
            Self::Overtaken { .. } => "driver_overtaken",
            Self::Journal(error) => error.code(),
            Self::Objects { code, .. } => code,
            Self::History(error) => error.code(),
            Self::Record(error) => error.code(),
        }
    }
}

/// The checkpoint that is not there.
fn told(checkpoint: Option<Id<id::Checkpoint>>) -> String {
    checkpoint.map_or_else(|| "files that were kept".to_owned(), |checkpoint| format!("checkpoint {checkpoint}"))
}

/// Where a fork is possible instead.
/// How the files of a session stand where it can't be gone on from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilesThere {
    /// As they do in the middle of a turn.
    InTurn,
    /// Somebody ran a command in its sandbox by hand while no run had it, and they were not kept since.
    ChangedByHand,
}

const fn because(files: FilesThere) -> &'static str {
    match files {
        FilesThere::InTurn => "",
        FilesThere::ChangedByHand => {
            ": its files may have been changed by hand since they were kept; its next run that uses its sandbox keeps them"
        }
    }
}

fn nearest(before: Option<u64>, after: Option<u64>) -> String {
    match (before, after) {
        (None, None) => "; hint: wait for the end of a turn".to_owned(),
        (Some(at), None) | (None, Some(at)) => format!("; hint: the nearest position is {at}"),
        (Some(before), Some(after)) => format!("; hint: the nearest positions are {before} and {after}"),
    }
}
