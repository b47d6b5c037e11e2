//! Hard stops of a run, checked before each model call.

use serde::{Deserialize, Serialize};

/// A run's limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Model replies.
    pub turns: u32,
    /// Tool calls.
    pub tool_calls: u32,
    /// Tokens in and out, over all turns.
    pub tokens: u64,
    /// Seconds of running; time parked or with no process alive does not count.
    pub running_seconds: u64,
    /// Millionths of a US dollar; `None`: no limit on cost.
    pub cost_micro_usd: Option<u64>,
    /// What happens when a limit of turns, calls, tokens or cost is reached.
    #[serde(skip_serializing_if = "Reached::is_stop")]
    pub reached: Reached,
}

/// What happens when a limit is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reached {
    /// The run ends as `budget_exhausted`.
    #[default]
    Stop,
    /// The run waits until somebody raises the limit, or ends it.
    Ask,
}

impl Reached {
    /// Whether the run ends.
    pub const fn is_stop(&self) -> bool {
        matches!(self, Self::Stop)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            turns: 30,
            tool_calls: 100,
            tokens: 2_000_000,
            running_seconds: 1_800,
            cost_micro_usd: None,
            reached: Reached::Stop,
        }
    }
}
