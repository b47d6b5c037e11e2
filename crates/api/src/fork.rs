//! Checkpoints of a session, and sessions that go on from one.

use crate::schema;
use domain::{CallStatus, Effect, Id, id};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A place in a session's log from which another session can go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Checkpoint {
    /// How many records stand before it: the `at` of a fork.
    pub at: u64,
    /// The run that stood last there.
    #[schemars(schema_with = "schema::run")]
    pub run_id: Id<id::Run>,
    /// The turn of that run that it follows.
    pub turn: u32,
    /// The files as they were kept; absent: the session had none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::checkpoint")]
    pub checkpoint_id: Option<Id<id::Checkpoint>>,
    /// When that was, in milliseconds since the Unix epoch.
    pub at_ms: u64,
}

/// Answer of `GET /sessions/{session}/checkpoints`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CheckpointList {
    /// The places, in order.
    pub checkpoints: Vec<Checkpoint>,
}

/// Body of `POST /sessions/{session}/fork`. Unknown fields are refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ForkSession {
    /// How many records of the session the new one goes on from: one of its checkpoints.
    pub at: u64,
    /// The name of the new session; it must not be there yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// The agent that goes on, as it is declared now; without it the agent that stood last, as it was then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// The declared model that goes on: every run of the new session asks it instead of its agent's own. Agents inside others keep
    /// theirs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The provider that makes the sandboxes of the new session's runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// What the user says. Without it a session that is forked in the middle of a run goes on with what that run had to do, and
    /// one that is forked at a run's end waits for a message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// Answer of `POST /sessions/{session}/fork`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Fork {
    /// The new session.
    #[schemars(schema_with = "schema::session")]
    pub session_id: Id<id::Session>,
    /// The name that the client gave it, else its id.
    pub session: String,
    /// Its run, when one goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::run")]
    pub run_id: Option<Id<id::Run>>,
    /// How many records it goes on from.
    pub at: u64,
    /// The checkpoint that its files come from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::checkpoint")]
    pub checkpoint_id: Option<Id<id::Checkpoint>>,
    /// The model that its runs ask instead of their agents' own, when one was chosen for it or for the session it goes on from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The same of the provider that makes their sandboxes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// What was done outside before the fork: it stays done, and the new session believes that it is.
    pub outside_effects: Vec<OutsideEffect>,
}

/// A call that reached outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OutsideEffect {
    /// Its run.
    #[schemars(schema_with = "schema::run")]
    pub run_id: Id<id::Run>,
    /// The call.
    #[schemars(schema_with = "schema::call")]
    pub call_id: Id<id::Call>,
    /// The tool.
    pub tool: String,
    /// What its contract says of it.
    #[schemars(schema_with = "schema::effect")]
    pub effect: Effect,
    /// Where it began.
    pub position: u64,
    /// How it ended; absent: nobody has said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::call_status")]
    pub status: Option<CallStatus>,
}
