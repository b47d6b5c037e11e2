//! Runs on the wire.

use crate::schema;
use domain::{FailureClass, Id, RunStatus, id};
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
