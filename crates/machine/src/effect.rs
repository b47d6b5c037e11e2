//! What a state wants done.

use domain::{Failure, Id, RunStatus, id};

/// One thing to do. What comes of it is a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Ask the model; gives `Replied`, or a failure that finishes the run.
    Ask {
        /// The turn it begins, from 1.
        turn: u32,
    },
    /// Check a call's arguments and judge it; gives `Judged`, or `Returned` for a call that can't be made as it stands.
    Judge {
        /// The call.
        call: Id<id::Call>,
    },
    /// Record that an allowed call is about to be performed; gives `Began`.
    Begin {
        /// The call.
        call: Id<id::Call>,
        /// Which attempt, from 1.
        attempt: u32,
        /// The key of an earlier attempt, to be used again.
        key: Option<String>,
    },
    /// Perform a call that began; gives `Returned`.
    Perform {
        /// The call.
        call: Id<id::Call>,
    },
    /// Kill a call that began, because the run is to end; gives `Returned`.
    Abort {
        /// The call.
        call: Id<id::Call>,
    },
    /// Tell the model about a call that is not performed; gives `Returned`.
    Answer {
        /// The call.
        call: Id<id::Call>,
        /// Why not.
        answer: Answer,
    },
    /// Record that nobody knows whether a call took effect; gives `InDoubt`.
    Doubt {
        /// The call.
        call: Id<id::Call>,
    },
    /// End a run: keep its artifacts, close its sandbox; gives `Finished`.
    Finish {
        /// The run.
        run: Id<id::Run>,
        /// How it ends.
        status: RunStatus,
        /// Why, unless it completed.
        failure: Option<Failure>,
    },
}

/// Why a call is not performed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// There is no such tool.
    UnknownTool,
    /// The policy said no.
    Denied,
    /// A process died in its middle.
    Interrupted,
}
