//! What a policy says of a call, and on whose authority.

use serde::{Deserialize, Serialize};

/// What a policy says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Go on.
    Allow,
    /// Never.
    Deny,
    /// Not before somebody approves.
    Hold,
}

/// A verdict with its reasons.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Judgement {
    /// What was said.
    pub verdict: Verdict,
    /// The policies that decided, as `file:line id`; empty when nothing matched (`default_deny`).
    pub policies: Vec<String>,
    /// Stable code of the reason: `allowed`, `forbidden`, `default_deny`, `policy_error`.
    pub reason: String,
    /// Name and digest of the pack that was asked.
    pub pack: String,
}
