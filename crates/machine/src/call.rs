//! One call: how it stands, what it wants, what a crash leaves of it.

use crate::effect::{Abort, Answer, Effect, ScopeId};
use crate::vote::Held;
use domain::record::{AfterCrash, Purpose, Resolution};
use domain::{CallStatus, ContentRef, Hold, Id, id};

/// A call of a turn that is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The declared tool it names; `None` when there is no such tool.
    pub tool: Option<String>,
    /// Whose turn it belongs to.
    pub scope: ScopeId,
    /// The attempt that is under way or comes next, from 1.
    pub attempt: u32,
    /// The idempotency key of an earlier attempt.
    pub key: Option<String>,
    /// The call that it serves, when the harness makes it itself.
    pub serves: Option<Service>,
    /// How many of its preconditions were found to be met.
    pub met: u32,
    /// When its first attempt began, in milliseconds since the Unix epoch.
    pub first_began_ms: Option<u64>,
    /// How many approved of it, when it was held and then allowed.
    pub approvals: u32,
    /// How it stands.
    pub state: CallState,
}

/// What a call does for another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// The other call.
    pub call: Id<id::Call>,
    /// How.
    pub purpose: Purpose,
    /// Its own arguments.
    pub arguments: ContentRef,
}

/// How a call stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallState {
    /// To be judged.
    Asked,
    /// Waits for approval.
    Held(Held),
    /// Somebody rejected it, the model not told yet.
    Rejected { reason: Option<ContentRef> },
    /// Allowed, not begun.
    Allowed,
    /// Denied, the model not told yet.
    Denied,
    /// Waits for the call that tells whether a precondition is met.
    Checking,
    /// A precondition is not met, the model not told yet.
    Unmet { by: Id<id::Call>, output: Option<ContentRef> },
    /// About to be, or being performed, since then.
    Began { after_crash: AfterCrash, at_ms: u64 },
    /// Failed, and is made again later.
    Deferred { until_ms: u64 },
    /// A nested agent works on it.
    Nested,
    /// Its process died, the model not told yet.
    Interrupted { rolled_back: bool },
    /// Its process died and nobody knows; not recorded yet.
    Doubtful { began_ms: u64 },
    /// Recorded as in doubt: somebody must say what became of it.
    InDoubt { began_ms: u64 },
    /// Somebody said what became of it.
    Resolved(Resolution),
    /// Waits for the call that undoes it.
    Compensating { began_ms: u64 },
    /// Undone, the model not told yet.
    Compensated { by: Id<id::Call> },
    /// It ended.
    Returned { status: CallStatus, output: ContentRef },
}

impl Call {
    /// Whether it is being performed.
    pub const fn is_begun(&self) -> bool {
        matches!(self.state, CallState::Began { .. })
    }

    /// Whether it ended.
    pub const fn is_returned(&self) -> bool {
        matches!(self.state, CallState::Returned { .. })
    }

    /// Whether it holds back its turn's other calls.
    pub(crate) const fn holds_batch(&self) -> bool {
        matches!(&self.state, CallState::Held(held) if matches!(held.obligation.hold, Hold::Batch))
    }

    /// What is wanted of it at `now_ms`.
    pub(crate) fn wanted(&self, call: Id<id::Call>, now_ms: u64) -> Option<Effect> {
        let answer = |answer| Some(Effect::Answer { call, answer });
        match &self.state {
            CallState::Asked if self.tool.is_none() => answer(Answer::UnknownTool),
            CallState::Asked => Some(Effect::Judge { call }),
            CallState::Held(held) if held.is_approved() => Some(Effect::Judge { call }),
            CallState::Held(held) if held.is_expired(now_ms) => answer(Answer::Expired),
            CallState::Rejected { reason } => answer(Answer::Rejected { reason: reason.clone() }),
            CallState::Allowed => Some(Effect::Begin { call, attempt: self.attempt, key: self.key.clone() }),
            CallState::Denied => answer(Answer::Denied),
            CallState::Unmet { by, output } => answer(Answer::Unmet { by: *by, output: output.clone() }),
            CallState::Began { .. } => Some(Effect::Perform { call }),
            CallState::Deferred { until_ms } if *until_ms <= now_ms => Some(Effect::Judge { call }),
            CallState::Interrupted { rolled_back } => answer(Answer::Interrupted { rolled_back: *rolled_back }),
            CallState::Doubtful { .. } => Some(Effect::Doubt { call }),
            CallState::Resolved(Resolution::Happened { output }) => answer(Answer::Happened { output: output.clone() }),
            CallState::Resolved(Resolution::DidNotHappen) => answer(Answer::DidNotHappen),
            CallState::Resolved(Resolution::Compensate) => Some(Effect::Compensate { call }),
            CallState::Compensated { by } => answer(Answer::Compensated { by: *by }),
            CallState::Held(_)
            | CallState::Checking
            | CallState::Deferred { .. }
            | CallState::Nested
            | CallState::InDoubt { .. }
            | CallState::Compensating { .. }
            | CallState::Returned { .. } => None,
        }
    }

    /// What is wanted of it when somebody interrupts the run: nothing of it begins any more, and what runs is killed. What may have
    /// taken effect keeps its course.
    pub(crate) fn superseded(&self, call: Id<id::Call>) -> Option<Effect> {
        match &self.state {
            CallState::Began { .. } => Some(Effect::Abort { call, why: Abort::Steered }),
            CallState::Asked
            | CallState::Held(_)
            | CallState::Rejected { .. }
            | CallState::Allowed
            | CallState::Denied
            | CallState::Unmet { .. }
            | CallState::Deferred { .. }
            | CallState::Nested => Some(Effect::Answer { call, answer: Answer::Steered }),
            // The call that tells is answered first.
            CallState::Checking => None,
            CallState::Interrupted { .. }
            | CallState::Doubtful { .. }
            | CallState::InDoubt { .. }
            | CallState::Resolved(_)
            | CallState::Compensating { .. }
            | CallState::Compensated { .. }
            | CallState::Returned { .. } => self.wanted(call, 0),
        }
    }

    /// What becomes of it when the process that drove it is gone. Gives whether the workspace must go back to its checkpoint.
    pub(crate) fn after_crash(&mut self) -> bool {
        let mut rolls_back = false;
        match self.state {
            // Its permit died with the process: it is judged again, and its preconditions are looked at again.
            CallState::Allowed => {
                self.met = 0;
                self.state = CallState::Asked;
            }
            CallState::Began { after_crash, at_ms } => {
                self.state = match after_crash {
                    AfterCrash::Repeat => {
                        self.attempt += 1;
                        self.met = 0;
                        CallState::Asked
                    }
                    AfterCrash::Interrupted => CallState::Interrupted { rolled_back: false },
                    AfterCrash::RollBack => {
                        rolls_back = true;
                        CallState::Interrupted { rolled_back: true }
                    }
                    AfterCrash::Resolve => CallState::Doubtful { began_ms: at_ms },
                };
            }
            _ => {}
        }
        rolls_back
    }
}
