//! What a state wants done.

use domain::{ContentRef, Failure, Id, RunStatus, Wait, id};

/// A nested agent, by the call that opened it; `None`: the run's own agent.
pub type ScopeId = Option<Id<id::Call>>;

/// One thing to do. What comes of it is a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Take up a run that was parked; gives `Resumed`.
    Resume {
        /// The run.
        run: Id<id::Run>,
    },
    /// Set aside what a nested agent may use in its next turn; gives `Reserved`.
    Reserve {
        /// The nested agent.
        scope: Id<id::Call>,
        /// The turn, from 1.
        turn: u32,
        /// Tokens.
        tokens: u64,
        /// Millionths of a US dollar, when a limit around it is on cost.
        cost_micro_usd: Option<u64>,
    },
    /// Ask the model; gives `Replied`, `Deferred`, or a failure that finishes the run.
    Ask {
        /// Whose turn.
        scope: ScopeId,
        /// The turn it begins, from 1.
        turn: u32,
        /// How often somebody interrupted the run: another number is another question.
        interrupts: u32,
        /// Tokens that it may use.
        tokens: u64,
        /// Millionths of a US dollar that it may cost, when there is a limit.
        cost_micro_usd: Option<u64>,
    },
    /// Check a call's arguments and judge it; gives `Judged`, or `Returned` for a call that can't be made as it stands.
    Judge {
        /// The call.
        call: Id<id::Call>,
    },
    /// Record that an allowed call is about to be performed; gives `Began`, `CallAdded` for a precondition that is to be met first,
    /// or `ScopeOpened`.
    Begin {
        /// The call.
        call: Id<id::Call>,
        /// Which attempt, from 1.
        attempt: u32,
        /// The key of an earlier attempt, to be used again.
        key: Option<String>,
    },
    /// Perform a call that began; gives `Returned` or `Deferred`.
    Perform {
        /// The call.
        call: Id<id::Call>,
    },
    /// Kill a call that began; gives `Returned`.
    Abort {
        /// The call.
        call: Id<id::Call>,
        /// Why.
        why: Abort,
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
    /// Undo a call by the tool that its contract names; gives `CallAdded`.
    Compensate {
        /// The call.
        call: Id<id::Call>,
    },
    /// Keep the workspace as it stands; gives `Checkpointed`.
    Checkpoint {
        /// The turn that it follows.
        turn: u32,
    },
    /// Say that the run waits; gives `Parked`.
    Park {
        /// The run.
        run: Id<id::Run>,
        /// What for.
        waits_for: Wait,
        /// When it goes on by itself.
        until_ms: Option<u64>,
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

/// Why a call is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abort {
    /// The run is to end.
    RunEnds,
    /// Somebody interrupted the run to say something else.
    Steered,
}

/// Why a call is not performed, or what is known of it otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// There is no such tool.
    UnknownTool,
    /// The policy said no.
    Denied,
    /// Somebody rejected it.
    Rejected {
        /// Why.
        reason: Option<ContentRef>,
    },
    /// Nobody approved of it in time.
    Expired,
    /// A precondition is not met.
    Unmet {
        /// The call that was to tell, and what it gave.
        by: Id<id::Call>,
        /// What that gave.
        output: Option<ContentRef>,
    },
    /// A process died in its middle.
    Interrupted {
        /// Whether the workspace went back to its checkpoint.
        rolled_back: bool,
    },
    /// Somebody says that it took effect.
    Happened {
        /// What it gave.
        output: ContentRef,
    },
    /// Somebody says that it did not take effect.
    DidNotHappen,
    /// It was undone.
    Compensated {
        /// By this call.
        by: Id<id::Call>,
    },
    /// Somebody interrupted the run before it began.
    Steered,
    /// The nested agent that it opened has answered.
    Nested {
        /// Its reply: items.
        reply: Option<ContentRef>,
    },
    /// The nested agent that it opened reached a limit.
    NestedLimit {
        /// Which.
        failure: Failure,
    },
}
