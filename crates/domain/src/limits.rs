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
}

impl Default for Limits {
    fn default() -> Self {
        Self { turns: 30, tool_calls: 100, tokens: 2_000_000, running_seconds: 1_800, cost_micro_usd: None }
    }
}
