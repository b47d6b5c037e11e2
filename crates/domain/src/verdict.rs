//! What a policy says of a call, and on whose authority.

use crate::Digest;
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
    /// The policies that decided, as `file:line id`: those that permit or forbid, and for a held call those that ask for the
    /// approval. Empty when nothing matched (`default_deny`), and for a call held by its tool's contract alone.
    pub policies: Vec<String>,
    /// Stable code of the reason: `allowed`, `approved` (enough have approved), `approval_needed`, `forbidden`, `default_deny`,
    /// `policy_error`, `request_invalid`.
    pub reason: String,
    /// Name and digest of the pack that was asked.
    pub pack: String,
}

/// What must be met before a call that is held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Obligation {
    /// How many distinct people must approve; never the one on whose behalf the call is made.
    pub quorum: u8,
    /// Until when, in milliseconds since the Unix epoch.
    pub expires_ms: u64,
    /// Digest of tool, arguments, agent closure and checkpoint: what an approval is bound to.
    pub binding: Digest,
    /// What waits with it.
    #[serde(default)]
    pub hold: Hold,
}

/// What waits while a call is held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hold {
    /// The call alone.
    #[default]
    Call,
    /// Every call of its turn that has not begun.
    Batch,
}
