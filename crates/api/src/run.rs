//! Runs on the wire.

use crate::schema;
use domain::{FailureClass, Id, RunStatus, Wait, id};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Body of `POST /runs`. Unknown fields are refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PostRun {
    /// The session to go on with: its id, or any name of your own of up to 128 printable characters without space, which
    /// is made when it is not there. Without it the run gets a new session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// The agent. Without it the session's last one, else the project's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// What the user says.
    pub message: String,
    /// Whether the reply is kept as an artifact, besides the files that the agent's declaration names.
    #[serde(default)]
    pub save_artifact: bool,
    /// Lower limits than the agent's own, for this run; a higher one is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<LimitChange>,
    /// Where the service calls back when something happens to the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub callback: Option<Callback>,
}

/// Some of a run's limits; what is left out stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LimitChange {
    /// Model replies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turns: Option<u32>,
    /// Tool calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_calls: Option<u32>,
    /// Tokens in and out, over all turns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// Seconds of running; time that a run waits does not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running_seconds: Option<u64>,
    /// Millionths of a US dollar.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_micro_usd: Option<u64>,
}

/// A run's limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Limits {
    /// Model replies.
    pub turns: u32,
    /// Tool calls.
    pub tool_calls: u32,
    /// Tokens in and out, over all turns.
    pub tokens: u64,
    /// Seconds of running; time that a run waits does not count.
    pub running_seconds: u64,
    /// Millionths of a US dollar; absent: no limit on cost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_micro_usd: Option<u64>,
}

impl From<domain::Limits> for Limits {
    fn from(limits: domain::Limits) -> Self {
        let domain::Limits { turns, tool_calls, tokens, running_seconds, cost_micro_usd, .. } = limits;
        Self { turns, tool_calls, tokens, running_seconds, cost_micro_usd }
    }
}

/// Where the service calls back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Callback {
    /// The address, `https://…`.
    pub url: String,
    /// The kinds of records it wants to hear of; without them `parked`, `in_doubt` and `finished`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<Vec<String>>,
}

/// A run as it stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Run {
    /// Its id.
    #[schemars(schema_with = "schema::run")]
    pub run_id: Id<id::Run>,
    /// Its session: the name that the client gave it, else its id.
    pub session: String,
    /// Its agent.
    pub agent: String,
    /// How it stands.
    #[schemars(schema_with = "schema::run_status")]
    pub status: RunStatus,
    /// What it waits for, when it waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::wait")]
    pub waits_for: Option<Wait>,
    /// When it goes on by itself, in milliseconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_until_ms: Option<u64>,
    /// The calls that wait for approval, also those of nested agents. Lists leave them out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::calls")]
    pub approvals: Vec<Id<id::Call>>,
    /// The calls of which somebody must say what became. Lists leave them out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::calls")]
    pub in_doubt: Vec<Id<id::Call>>,
    /// The reply, once there is one. Lists leave it out.
    pub reply: Option<String>,
    /// Why it did not complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<RunError>,
    /// Whether a sandbox was used.
    pub used_sandbox: bool,
    /// Link to the first artifact; good for an hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_url: Option<String>,
    /// The files that it left.
    pub artifacts: Vec<Artifact>,
    /// Turns taken.
    pub turns: u32,
    /// Tool calls made.
    pub tool_calls: u32,
    /// Tokens used.
    pub usage: Usage,
    /// What they cost.
    pub cost: Cost,
    /// How often it was tried: once, and once more for each time that something in it failed for a passing reason, or that it was
    /// taken up after a process that was lost. Lists leave it out of runs that ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// For how many seconds it has made no progress, when the process that answers is the one that drives it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_progress_seconds: Option<u64>,
    /// When it was asked for, in milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_ms: Option<u64>,
}

/// Why a run did not complete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RunError {
    /// Which part failed.
    #[schemars(schema_with = "schema::failure_class")]
    pub class: FailureClass,
    /// Stable code, with a page under `/docs/errors/`.
    pub code: String,
    /// For people.
    pub message: String,
}

impl From<domain::Failure> for RunError {
    fn from(failure: domain::Failure) -> Self {
        Self { class: failure.class, code: failure.code, message: failure.message }
    }
}

/// A file that a run left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Artifact {
    /// Its id.
    #[schemars(schema_with = "schema::artifact")]
    pub id: Id<id::Artifact>,
    /// Its file name; empty when it was erased.
    pub name: String,
    /// Its media type.
    pub media: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// Where it can be fetched without a key, for an hour.
    pub url: String,
}

/// Answer of `GET /runs/{run_id}/artifacts`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ArtifactList {
    /// The files, in the order they were kept.
    pub artifacts: Vec<Artifact>,
}

/// Tokens used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Usage {
    /// Model calls, retries included.
    pub model_calls: u64,
    /// Tokens in, cached ones included.
    pub input_tokens: u64,
    /// Of those, read from the vendor's cache.
    pub cached_tokens: u64,
    /// Tokens out, reasoning included.
    pub output_tokens: u64,
    /// Of those, reasoning.
    pub reasoning_tokens: u64,
}

impl From<domain::Usage> for Usage {
    fn from(usage: domain::Usage) -> Self {
        let domain::Usage { model_calls, input_tokens, cached_tokens, output_tokens, reasoning_tokens } = usage;
        Self { model_calls, input_tokens, cached_tokens, output_tokens, reasoning_tokens }
    }
}

/// What tokens cost.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Cost {
    /// Millionths of a US dollar.
    pub micro_usd: u64,
    /// The same in US dollars, for people.
    pub usd: f64,
    /// Whether every call is in it. `false`: at least one model has no price in `prices.yaml`.
    pub complete: bool,
}

impl From<domain::Cost> for Cost {
    #[expect(clippy::cast_precision_loss, reason = "for people; the exact amount stands beside it")]
    fn from(cost: domain::Cost) -> Self {
        let micro_usd = cost.micro_usd();
        let complete = match cost {
            domain::Cost::Priced { .. } => true,
            domain::Cost::Unlisted { .. } => false,
        };
        Self { micro_usd, usd: micro_usd as f64 / 1e6, complete }
    }
}
