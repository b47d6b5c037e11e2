//! What is done to whole sessions, and what the service has told others of a run.

use crate::schema;
use domain::{Digest, Id, id};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Answer of `DELETE /sessions/{session}`: what is left of the session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Purged {
    /// The session.
    #[schemars(schema_with = "schema::session")]
    pub session_id: Id<id::Session>,
    /// How many records its log had.
    pub records: u64,
    /// Hash of the last, so that deletion can be told from loss.
    #[schemars(schema_with = "schema::digest")]
    pub head: Digest,
    /// When it was deleted, in milliseconds since the Unix epoch.
    pub purged_ms: u64,
}

/// A session's quarantine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Quarantine {
    /// Whether it is in one.
    pub quarantined: bool,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Since when, in milliseconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<u64>,
}

/// Answer of `GET /runs/{run_id}/deliveries`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeliveryList {
    /// The deliveries, in order.
    pub deliveries: Vec<Delivery>,
}

/// Something that was, or is to be, told to another service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Delivery {
    /// Its id: the same for every attempt, so that the other side can tell them.
    pub delivery_id: String,
    /// The address, without its query.
    pub url: String,
    /// The kind of the record that it tells of.
    pub event: String,
    /// The record's position.
    pub position: u64,
    /// How it stands.
    pub status: DeliveryStatus,
    /// How often it was tried.
    pub attempts: u32,
    /// The HTTP status of the last answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered: Option<u16>,
    /// Stable code of what went wrong the last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// When it is tried next, in milliseconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_ms: Option<u64>,
}

/// How a delivery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryStatus {
    /// It is tried, or tried again.
    Pending,
    /// The other side has it.
    Delivered,
    /// It was tried for as long as it may be.
    Failed,
}
