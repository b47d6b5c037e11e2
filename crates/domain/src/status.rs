//! How runs and calls stand and end.

use serde::{Deserialize, Serialize};
use std::fmt;

/// How a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// Waits behind an earlier run of its session.
    Queued,
    /// Is being driven, or will be as soon as a process is alive.
    Running,
    /// Waits for something, see [`Wait`]; nothing of it is in memory.
    Waiting,
    /// Begins nothing new until somebody says so.
    Paused,
    /// Has a call in doubt that somebody must resolve.
    NeedsResolution,
    /// Ended with a reply.
    Completed,
    /// Ended by a failure.
    Failed,
    /// Ended because somebody said so.
    Cancelled,
    /// Ended at its limit of running time.
    TimedOut,
    /// Ended at its limit of turns, calls, tokens or cost.
    BudgetExhausted,
}

impl RunStatus {
    /// Every status.
    pub const ALL: &'static [Self] = &[
        Self::Queued,
        Self::Running,
        Self::Waiting,
        Self::Paused,
        Self::NeedsResolution,
        Self::Completed,
        Self::Failed,
        Self::Cancelled,
        Self::TimedOut,
        Self::BudgetExhausted,
    ];

    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Paused => "paused",
            Self::NeedsResolution => "needs_resolution",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::TimedOut => "timed_out",
            Self::BudgetExhausted => "budget_exhausted",
        }
    }

    /// Whether nothing more will happen.
    pub const fn is_end(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled | Self::TimedOut | Self::BudgetExhausted)
    }
}

impl fmt::Display for RunStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a parked run waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wait {
    /// Somebody's approval of a call.
    Approval,
    /// The time at which something is tried again.
    Retry,
    /// A higher limit.
    Budget,
    /// Somebody's word on what became of a call.
    Resolution,
    /// Somebody's word that it may go on.
    Resume,
}

impl Wait {
    /// Every wait.
    pub const ALL: &'static [Self] = &[Self::Approval, Self::Retry, Self::Budget, Self::Resolution, Self::Resume];

    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Approval => "approval",
            Self::Retry => "retry",
            Self::Budget => "budget",
            Self::Resolution => "resolution",
            Self::Resume => "resume",
        }
    }

    /// How a run that waits for it stands.
    pub const fn status(self) -> RunStatus {
        match self {
            Self::Approval | Self::Retry | Self::Budget => RunStatus::Waiting,
            Self::Resolution => RunStatus::NeedsResolution,
            Self::Resume => RunStatus::Paused,
        }
    }
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallStatus {
    /// It did what it was asked; a command's non-zero exit is still this.
    Ok,
    /// It could not; the output tells the model why.
    Error,
    /// It was never begun: its arguments or its name were wrong.
    Invalid,
    /// It was never begun: the policy said no.
    Denied,
    /// It was killed at its timeout.
    TimedOut,
    /// It was killed because the run was cancelled.
    Cancelled,
    /// A process died in its middle, and it could not leave its sandbox.
    Interrupted,
    /// It was never begun: somebody rejected it, or nobody approved of it in time.
    Rejected,
    /// It took effect and was undone.
    Compensated,
}

impl CallStatus {
    /// Whether a call that ended so was never begun.
    pub const fn is_refusal(self) -> bool {
        matches!(self, Self::Invalid | Self::Denied | Self::Cancelled | Self::Rejected)
    }

    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Error => "error",
            Self::Invalid => "invalid",
            Self::Denied => "denied",
            Self::TimedOut => "timed_out",
            Self::Cancelled => "cancelled",
            Self::Interrupted => "interrupted",
            Self::Rejected => "rejected",
            Self::Compensated => "compensated",
        }
    }
}
