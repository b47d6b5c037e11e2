//! What a key may do.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// What a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Scope {
    /// Read runs, sessions, their events and artifacts.
    #[serde(rename = "runs:read")]
    RunsRead,
    /// Start runs and say how they go on: cancel, pause, resume, steer, resolve, fork.
    #[serde(rename = "runs:write")]
    RunsWrite,
    /// Approve of calls that are held, reject them, and raise the limits of runs.
    #[serde(rename = "approvals:write")]
    ApprovalsWrite,
    /// Read the service's metrics.
    #[serde(rename = "metrics:read")]
    MetricsRead,
    /// Everything, in the key's own tenant.
    #[serde(rename = "admin")]
    Admin,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 5] = [Self::RunsRead, Self::RunsWrite, Self::ApprovalsWrite, Self::MetricsRead, Self::Admin];

    /// The name in `keys.yaml` and in answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RunsRead => "runs:read",
            Self::RunsWrite => "runs:write",
            Self::ApprovalsWrite => "approvals:write",
            Self::MetricsRead => "metrics:read",
            Self::Admin => "admin",
        }
    }

    /// Whether somebody with this scope may do what needs `needed`.
    pub fn covers(self, needed: Self) -> bool {
        self == needed || self == Self::Admin
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A text that names no scope.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no scope; expected runs:read, runs:write, approvals:write, metrics:read or admin")]
pub struct BadScope(pub String);

impl FromStr for Scope {
    type Err = BadScope;

    fn from_str(text: &str) -> Result<Self, BadScope> {
        Self::ALL.into_iter().find(|scope| scope.name() == text).ok_or_else(|| BadScope(text.to_owned()))
    }
}
