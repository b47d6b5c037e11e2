//! Bodies of the records about a run's course besides its calls: parking, retries, checkpoints, nested agents.

use crate::content::ContentRef;
use crate::failure::Failure;
use crate::limits::Limits;
use crate::status::Wait;
use crate::usage::Usage;
use crate::{Digest, Id, id};
use serde::{Deserialize, Serialize};

/// Body of [`crate::Event::Parked`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parked {
    /// The run.
    pub run: Id<id::Run>,
    /// What it waits for.
    pub waits_for: Wait,
    /// When it goes on by itself, in milliseconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<u64>,
}

/// Body of [`crate::Event::Deferred`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deferred {
    /// The run.
    pub run: Id<id::Run>,
    /// The nested agent whose model failed, by the call that opened it; `None`: the run's own agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<Id<id::Call>>,
    /// The call that failed; `None`: asking the model failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<Id<id::Call>>,
    /// What went wrong.
    pub failure: Failure,
    /// How often it was tried.
    pub attempt: u32,
    /// When it is tried again, in milliseconds since the Unix epoch.
    pub until_ms: u64,
    /// What the failed attempt used, as far as it is known.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub usage: Usage,
}

fn is_nothing(usage: &Usage) -> bool {
    *usage == Usage::default()
}

/// Body of [`crate::Event::Checkpointed`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpointed {
    /// The run.
    pub run: Id<id::Run>,
    /// The turn that it follows.
    pub turn: u32,
    /// The workspace; `None`: it was not kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<Snapshot>,
    /// Why it was not kept: `too_large`, `undeclared`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A workspace that was kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    /// Its id.
    pub checkpoint: Id<id::Checkpoint>,
    /// Its form: `chunks/1`, a manifest of chunks; `tar`, the archive itself.
    pub form: String,
    /// The place of that among the objects.
    pub object: String,
    /// SHA-256 of the archive.
    pub digest: Digest,
    /// Length of the archive.
    pub bytes: u64,
    /// Files and directories in it.
    pub entries: u64,
}

/// Body of [`crate::Event::WorkspaceLost`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkspaceLost {
    /// The run that wanted it.
    pub run: Id<id::Run>,
    /// Stable code of what was found.
    pub reason: String,
}

/// Body of [`crate::Event::CallAdded`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallAdded {
    /// The run.
    pub run: Id<id::Run>,
    /// The new call.
    pub call: Id<id::Call>,
    /// The call that it serves.
    pub serves: Id<id::Call>,
    /// How.
    pub purpose: Purpose,
    /// The declared tool.
    pub tool: String,
    /// Its arguments: JSON text.
    pub arguments: ContentRef,
}

/// Why the harness makes a call of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// It tells whether another call may begin.
    Precondition,
    /// It undoes another call.
    Compensation,
}

/// Body of [`crate::Event::ScopeOpened`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScopeOpened {
    /// The run.
    pub run: Id<id::Run>,
    /// The call that opened it; names the scope.
    pub call: Id<id::Call>,
    /// The nested agent's name.
    pub agent: String,
    /// Digest of its closure.
    pub closure: Digest,
    /// What it is asked: text.
    pub message: ContentRef,
    /// Its limits, within those of the scopes around it.
    pub limits: Limits,
}

/// Body of [`crate::Event::Reserved`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reserved {
    /// The run.
    pub run: Id<id::Run>,
    /// The nested agent that is about to ask its model, by the call that opened it.
    pub scope: Id<id::Call>,
    /// The turn that is asked for.
    pub turn: u32,
    /// Tokens that it may use; nobody else may until the reply is recorded.
    pub tokens: u64,
    /// Millionths of a US dollar that it may cost; `None`: no limit around it is on cost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_micro_usd: Option<u64>,
}
