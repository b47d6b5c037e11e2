//! What people and programs may say of a run that is under way: the bodies of its `POST`s. Unknown fields are refused.

use crate::schema;
use domain::record::When;
use domain::{Id, id};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Body of `POST /runs/{run_id}/cancel`; without one the run ends at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CancelRun {
    /// `now` kills what is under way, `after_turn` lets the turn end.
    #[serde(default)]
    #[schemars(schema_with = "schema::when")]
    pub when: When,
}

/// Body of `POST /runs/{run_id}/steer`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SteerRun {
    /// What the model is told.
    pub message: String,
    /// When it is told.
    #[serde(default)]
    pub when: Steer,
}

/// When a message that steers a run is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Steer {
    /// When the turn that is under way has ended.
    #[default]
    Queue,
    /// At once: calls that have begun are killed, those that have not are not made.
    Interrupt,
}

/// Body of `POST /runs/{run_id}/resolve`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ResolveCall {
    /// The call that is in doubt.
    #[schemars(schema_with = "schema::call")]
    pub call_id: Id<id::Call>,
    /// What became of it.
    pub outcome: Outcome,
    /// What it gave, as the model is to be told; with `happened`, and only then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
}

/// What became of a call that was in doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It took effect.
    Happened,
    /// It took no effect; the model is told so and may ask for it again.
    DidNotHappen,
    /// It is to be undone by the tool that its contract names.
    Compensate,
}

/// Body of `POST /sessions/{session}/quarantine`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct QuarantineSession {
    /// Why; for those who find it.
    pub reason: String,
}
