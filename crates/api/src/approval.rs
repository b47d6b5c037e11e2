//! Calls that wait for approval, and votes on them.

use crate::{Text, schema};
use domain::record::Vote;
use domain::{Digest, Hold, Id, id};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A call that waits for approval, or did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Approval {
    /// The call.
    #[schemars(schema_with = "schema::call")]
    pub call_id: Id<id::Call>,
    /// Whether it still waits.
    pub status: ApprovalStatus,
    /// Its run.
    #[schemars(schema_with = "schema::run")]
    pub run_id: Id<id::Run>,
    /// Its session.
    #[schemars(schema_with = "schema::session")]
    pub session_id: Id<id::Session>,
    /// The agent that wants to make it; a nested one where `scope` is not empty.
    pub agent: String,
    /// The tool.
    pub tool: String,
    /// Its arguments, as the model wrote them.
    pub arguments: Text,
    /// On whose behalf the call is made; that one can't approve of it.
    #[schemars(schema_with = "schema::principal")]
    pub requester: Id<id::Principal>,
    /// Since when it waits, in milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// Until when it can be approved.
    pub expires_ms: u64,
    /// How many distinct principals must approve.
    pub quorum: u8,
    /// Who has approved so far.
    #[schemars(schema_with = "schema::principals")]
    pub approvals: Vec<Id<id::Principal>>,
    /// What an approval is bound to: a digest of tool, arguments, agent and checkpoint. Sent back with a vote, it makes sure
    /// that the vote is on what was shown.
    #[schemars(schema_with = "schema::digest")]
    pub binding: Digest,
    /// What waits with it.
    #[schemars(schema_with = "schema::hold")]
    pub hold: Hold,
    /// Stable code of why it is held.
    pub reason: String,
    /// The policies that want it held.
    pub policies: Vec<String>,
    /// The pack that was asked.
    pub pack: String,
    /// The calls that opened the nested agents around it, outermost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::calls")]
    pub scope: Vec<Id<id::Call>>,
}

/// How a call stands that somebody must approve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ApprovalStatus {
    /// It waits for votes.
    Waiting,
    /// Enough have approved; it is judged once more, and made.
    Approved,
    /// Somebody rejected it.
    Rejected,
    /// The time for approving is over.
    Expired,
}

/// A page of calls that wait for approval.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ApprovalList {
    /// The calls, oldest first.
    pub approvals: Vec<Approval>,
    /// The `cursor` of the next page; absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Body of `POST /approvals/{call_id}`. Unknown fields are refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PostApproval {
    /// What is said of the call.
    #[schemars(schema_with = "schema::vote")]
    pub vote: Vote,
    /// Why; a model whose call is rejected is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The `binding` that the voter was shown; a vote on what has changed since is refused. Without it the vote is on the call
    /// as it stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::digest")]
    pub binding: Option<Digest>,
}
