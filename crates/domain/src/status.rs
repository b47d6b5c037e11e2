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
    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
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
        !matches!(self, Self::Queued | Self::Running | Self::NeedsResolution)
    }
}

impl fmt::Display for RunStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
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
}

impl CallStatus {
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
        }
    }
}
