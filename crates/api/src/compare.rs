//! What a run comes to when it is replayed on its record, and how two runs differ.

use crate::schema;
use domain::{Id, id};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Answer of `GET /runs/{run_id}/replay`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Replay {
    /// The run.
    #[schemars(schema_with = "schema::run")]
    pub run_id: Id<id::Run>,
    /// Whether the record is what the harness would do again.
    pub same: bool,
    /// Records that were replayed.
    pub records: u64,
    /// The first difference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub difference: Option<ReplayDifference>,
}

/// Where a replay parts from the record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReplayDifference {
    /// The record's position.
    pub position: u64,
    /// What would follow.
    pub expected: String,
    /// What stands there.
    pub found: String,
}

/// Answer of `GET /runs/{run_id}/diff/{other_run_id}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Diff {
    /// The first run.
    #[schemars(schema_with = "schema::run")]
    pub run_id: Id<id::Run>,
    /// The other.
    #[schemars(schema_with = "schema::run")]
    pub other_run_id: Id<id::Run>,
    /// How they differ, in order; empty when they do not.
    pub differences: Vec<Difference>,
}

/// One difference between two runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Difference {
    /// The turn, from 1; 0 for what is of the whole run.
    pub turn: u32,
    /// What differs, such as `message`, `reply`, `call`, `outcome`, `files`.
    pub what: String,
    /// The first run's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub a: Option<String>,
    /// The other's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub b: Option<String>,
}
