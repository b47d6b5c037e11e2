//! Sessions on the wire.

use crate::schema;
use domain::{Id, id};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Session {
    /// Its id.
    #[schemars(schema_with = "schema::session")]
    pub session_id: Id<id::Session>,
    /// The name that the client gave it, else its id: what `POST /runs` takes.
    pub session: String,
    /// Its last run's agent.
    pub agent: String,
    /// How many runs it has had.
    pub runs: u64,
    /// Its last run.
    #[schemars(schema_with = "schema::run")]
    pub last_run_id: Id<id::Run>,
    /// When it began, in milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// When its last run was asked for.
    pub updated_ms: u64,
    /// How many records its log has.
    pub records: u64,
    /// For how many seconds its run has made no progress, when the process that answers is the one that drives it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_progress_seconds: Option<u64>,
}
