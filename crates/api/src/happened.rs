//! What a record says, its contents resolved for viewers: one variant for each kind of the log.

use crate::{Cost, Limits, Outcome, RunError, SandboxStart, Usage, schema};
use domain::record::{Changed, Deed, Purpose, RestoredFrom, Vote, When};
use domain::{CallStatus, Digest, Hold, Id, RunStatus, Verdict, Wait, id};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A text of the record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Text {
    /// The text; what is left of it when it was cut; absent when it was erased.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Its full length in bytes, as the record has it.
    pub bytes: u64,
    /// Whether its end was cut off here.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cut: bool,
    /// Whether it was erased; the record stays and still verifies.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub erased: bool,
}

/// A call that a reply asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CallView {
    /// The call.
    #[schemars(schema_with = "schema::call")]
    pub call: Id<id::Call>,
    /// The tool's name, as the model wrote it.
    pub tool: String,
    /// The arguments, as the model wrote them.
    pub arguments: Text,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", content = "body", rename_all = "snake_case")]
pub enum Happened {
    /// A run was asked for.
    Submitted {
        /// The agent.
        agent: String,
        /// What the user said; absent: the run goes on with the conversation as it stands.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<Text>,
        /// The name that the client gave the session; in its first record only.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        session_name: Option<Text>,
    },
    /// The session goes on from another.
    Forked {
        /// The other session.
        #[schemars(schema_with = "schema::session")]
        session: Id<id::Session>,
        /// How many of its records this session goes on from.
        at: u64,
        /// Hash of the last of them.
        #[schemars(schema_with = "schema::digest")]
        head: Digest,
        /// The agent of the run that stood last.
        agent: String,
        /// The checkpoint that its files come from.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(schema_with = "schema::checkpoint")]
        checkpoint: Option<Id<id::Checkpoint>>,
        /// The name that the client gave this session.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        session_name: Option<Text>,
        /// The model that its runs ask instead of their agents' own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        model: Option<String>,
        /// The provider of sandboxes that its runs use instead of their agents' own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        provider: Option<String>,
    },
    /// Somebody wants the run to end.
    CancelRequested {
        /// When it is to end.
        #[serde(default, skip_serializing_if = "When::is_now")]
        #[schemars(schema_with = "schema::when")]
        when: When,
    },
    /// Somebody wants the run to begin nothing new.
    PauseRequested {},
    /// A run that was paused is to go on.
    ResumeRequested {},
    /// The model is to be told something in the middle of the run.
    Steered {
        /// What.
        message: Text,
        /// Whether what is under way is ended for it.
        #[schemars(schema_with = "schema::when")]
        when: When,
    },
    /// Somebody approves of a call that is held, or rejects it.
    Voted {
        /// The call.
        #[schemars(schema_with = "schema::call")]
        call: Id<id::Call>,
        /// What was said.
        #[schemars(schema_with = "schema::vote")]
        vote: Vote,
        /// Why.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<Text>,
        /// What the voter was shown.
        #[schemars(schema_with = "schema::digest")]
        binding: Digest,
    },
    /// Somebody says what became of a call in doubt.
    Resolved {
        /// The call.
        #[schemars(schema_with = "schema::call")]
        call: Id<id::Call>,
        /// What became of it.
        outcome: Outcome,
        /// What it gave, when it happened.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        output: Option<Text>,
    },
    /// The run gets other limits.
    Raised {
        /// Its limits from now on.
        limits: Limits,
    },
    /// An operator does something to the session's sandbox by hand.
    Operated {
        /// The sandbox.
        #[schemars(schema_with = "schema::sandbox")]
        sandbox: Id<id::Sandbox>,
        /// What is done.
        #[schemars(schema_with = "schema::deed")]
        deed: Deed,
        /// The particulars.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        detail: Option<Text>,
    },
    /// Somebody puts other files in the place of the session's. Without effect while a run is under way.
    WorkspaceRestored {
        /// The checkpoint that they are.
        #[schemars(schema_with = "schema::checkpoint")]
        checkpoint: Id<id::Checkpoint>,
        /// Where they come from.
        #[schemars(schema_with = "schema::restored_from")]
        from: RestoredFrom,
        /// Length of the archive.
        bytes: u64,
        /// Files and directories in it.
        entries: u64,
    },
    /// The run waits; nothing of it is in memory.
    Parked {
        /// What it waits for.
        #[schemars(schema_with = "schema::wait")]
        waits_for: Wait,
        /// When it goes on by itself, in milliseconds since the Unix epoch.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until_ms: Option<u64>,
    },
    /// A driver took the run up: after a wait, or after its process had died.
    Resumed {
        /// The epoch of its lease.
        epoch: u64,
        /// Calls whose programs still ran in their sandbox, and are waited for.
        #[schemars(schema_with = "schema::calls")]
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        attached: Vec<Id<id::Call>>,
    },
    /// A sandbox was made.
    SandboxOpened {
        /// The sandbox.
        #[schemars(schema_with = "schema::sandbox")]
        sandbox: Id<id::Sandbox>,
        /// The provider's name.
        provider: String,
        /// The walls it got.
        walls: Vec<String>,
        /// The walls it did not get and the policy did without.
        missing: Vec<String>,
        /// The checkpoint that its files come from.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(schema_with = "schema::checkpoint")]
        restored: Option<Id<id::Checkpoint>>,
        /// How its start went; absent where an earlier version recorded it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        start: Option<SandboxStart>,
    },
    /// It is gone.
    SandboxClosed {
        /// The sandbox.
        #[schemars(schema_with = "schema::sandbox")]
        sandbox: Id<id::Sandbox>,
        /// Stable code of the reason.
        reason: String,
    },
    /// The session's files are gone.
    WorkspaceLost {
        /// Stable code of what was found.
        reason: String,
    },
    /// The model answered.
    Replied {
        /// The turn, from 1.
        turn: u32,
        /// The model's name, as its vendor knows it.
        model: String,
        /// What it said.
        text: Text,
        /// The summary of its reasoning, where the vendor shows one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reasoning: Option<Text>,
        /// The calls it asked for, in order.
        calls: Vec<CallView>,
        /// Tokens used.
        usage: Usage,
        /// What they cost.
        cost: Cost,
        /// Wall time.
        duration_ms: u64,
        /// The nested agent that asked, by the call that opened it; absent: the run's own agent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(schema_with = "schema::call")]
        scope: Option<Id<id::Call>>,
    },
    /// Something failed and is tried again later.
    Deferred {
        /// The call that failed; absent: asking the model failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(schema_with = "schema::call")]
        call: Option<Id<id::Call>>,
        /// The nested agent whose model failed, by the call that opened it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(schema_with = "schema::call")]
        scope: Option<Id<id::Call>>,
        /// What went wrong.
        error: RunError,
        /// How often it was tried.
        attempt: u32,
        /// When it is tried again, in milliseconds since the Unix epoch.
        until_ms: u64,
    },
    /// A call opened a nested agent.
    ScopeOpened {
        /// The call, which names the nested agent from now on.
        #[schemars(schema_with = "schema::call")]
        call: Id<id::Call>,
        /// The nested agent's name.
        agent: String,
        /// What it is asked.
        message: Text,
        /// Its limits, within those around it.
        limits: Limits,
    },
    /// A nested agent's share of the budget is set aside.
    Reserved {
        /// The nested agent, by the call that opened it.
        #[schemars(schema_with = "schema::call")]
        scope: Id<id::Call>,
        /// The turn that it is about to take.
        turn: u32,
        /// Tokens that it may use.
        tokens: u64,
        /// Millionths of a US dollar that it may cost, when there is a limit.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cost_micro_usd: Option<u64>,
    },
    /// The harness makes a call of its own, for another.
    CallAdded {
        /// The new call.
        #[schemars(schema_with = "schema::call")]
        call: Id<id::Call>,
        /// The call that it serves.
        #[schemars(schema_with = "schema::call")]
        serves: Id<id::Call>,
        /// How.
        #[schemars(schema_with = "schema::purpose")]
        purpose: Purpose,
        /// The tool.
        tool: String,
        /// Its arguments.
        arguments: Text,
    },
    /// The policy judged a call.
    Judged {
        /// The call.
        #[schemars(schema_with = "schema::call")]
        call: Id<id::Call>,
        /// What was said.
        #[schemars(schema_with = "schema::verdict")]
        verdict: Verdict,
        /// Stable code of the reason.
        reason: String,
        /// The policies that decided.
        policies: Vec<String>,
        /// The pack that was asked.
        pack: String,
        /// What must be met before the call, when it is held.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        obligation: Option<Obligation>,
    },
    /// A call is about to be performed.
    Began {
        /// The call.
        #[schemars(schema_with = "schema::call")]
        call: Id<id::Call>,
        /// Which attempt, from 1.
        attempt: u32,
    },
    /// A call ended, or was refused.
    Returned {
        /// The call.
        #[schemars(schema_with = "schema::call")]
        call: Id<id::Call>,
        /// How it ended.
        #[schemars(schema_with = "schema::call_status")]
        status: CallStatus,
        /// What the model was told.
        output: Text,
        /// Stable code of what went wrong.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<String>,
        /// Wall time.
        duration_ms: u64,
    },
    /// Nobody knows whether a call took effect.
    InDoubt {
        /// The call.
        #[schemars(schema_with = "schema::call")]
        call: Id<id::Call>,
    },
    /// The workspace was kept as it stands.
    Checkpointed {
        /// The turn that it follows.
        turn: u32,
        /// The checkpoint; absent: it could not be kept.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(schema_with = "schema::checkpoint")]
        checkpoint: Option<Id<id::Checkpoint>>,
        /// Its length.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bytes: Option<u64>,
        /// Files and directories in it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        entries: Option<u64>,
        /// Stable code of why it could not be kept.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// What the run changed in its workspace.
    WorkspaceChanged {
        /// The files, by path; empty when `erased`.
        files: Vec<FileChange>,
        /// Files that were changed but are not listed.
        unlisted: u64,
        /// Whether the list was erased.
        erased: bool,
    },
    /// A file was kept.
    ArtifactSaved {
        /// The artifact.
        #[schemars(schema_with = "schema::artifact")]
        artifact: Id<id::Artifact>,
        /// Its file name.
        name: Text,
        /// Its media type.
        media: String,
        /// Its length.
        bytes: u64,
    },
    /// The run ended.
    Finished {
        /// How it ended.
        #[schemars(schema_with = "schema::run_status")]
        status: RunStatus,
        /// The reply.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reply: Option<Text>,
        /// Why it did not complete.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<RunError>,
        /// Turns taken.
        turns: u32,
        /// Calls made.
        tool_calls: u32,
        /// Tokens used.
        usage: Usage,
        /// What they cost.
        cost: Cost,
        /// Whether a sandbox was used.
        used_sandbox: bool,
    },
}

impl Happened {
    /// The kind: the SSE event name and `domain`'s name of the record.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Submitted { .. } => "submitted",
            Self::Forked { .. } => "forked",
            Self::CancelRequested { .. } => "cancel_requested",
            Self::PauseRequested { .. } => "pause_requested",
            Self::ResumeRequested { .. } => "resume_requested",
            Self::Steered { .. } => "steered",
            Self::Voted { .. } => "voted",
            Self::Resolved { .. } => "resolved",
            Self::Raised { .. } => "raised",
            Self::Operated { .. } => "operated",
            Self::WorkspaceRestored { .. } => "workspace_restored",
            Self::Parked { .. } => "parked",
            Self::Resumed { .. } => "resumed",
            Self::SandboxOpened { .. } => "sandbox_opened",
            Self::SandboxClosed { .. } => "sandbox_closed",
            Self::WorkspaceLost { .. } => "workspace_lost",
            Self::Replied { .. } => "replied",
            Self::Deferred { .. } => "deferred",
            Self::ScopeOpened { .. } => "scope_opened",
            Self::Reserved { .. } => "reserved",
            Self::CallAdded { .. } => "call_added",
            Self::Judged { .. } => "judged",
            Self::Began { .. } => "began",
            Self::Returned { .. } => "returned",
            Self::InDoubt { .. } => "in_doubt",
            Self::Checkpointed { .. } => "checkpointed",
            Self::WorkspaceChanged { .. } => "workspace_changed",
            Self::ArtifactSaved { .. } => "artifact_saved",
            Self::Finished { .. } => "finished",
        }
    }
}

/// What must be met before a call that is held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Obligation {
    /// How many distinct principals must approve; never the one on whose behalf the call is made.
    pub quorum: u8,
    /// Until when, in milliseconds since the Unix epoch.
    pub expires_ms: u64,
    /// What an approval is bound to: a digest of tool, arguments, agent and checkpoint.
    #[schemars(schema_with = "schema::digest")]
    pub binding: Digest,
    /// What waits with it.
    #[schemars(schema_with = "schema::hold")]
    pub hold: Hold,
}

impl From<domain::Obligation> for Obligation {
    fn from(obligation: domain::Obligation) -> Self {
        let domain::Obligation { quorum, expires_ms, binding, hold } = obligation;
        Self { quorum, expires_ms, binding, hold }
    }
}

/// One file that a run changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FileChange {
    /// Its path below the workspace.
    pub path: String,
    /// What became of it.
    #[schemars(schema_with = "schema::changed")]
    pub change: Changed,
    /// Its length now; 0 when it is gone.
    pub bytes: u64,
}

#[cfg(test)]
mod tests {
    /// Every kind that `domain` writes has its variant here, by the same name.
    #[test]
    fn every_kind_of_the_log_can_be_shown() {
        let mut settings = schemars::generate::SchemaSettings::draft2020_12();
        settings.inline_subschemas = true;
        let schema = settings.into_generator().into_root_schema_for::<super::Happened>();
        let shown: Vec<_> = schema.as_value()["oneOf"]
            .as_array()
            .unwrap()
            .iter()
            .map(|variant| variant["properties"]["kind"]["const"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(shown, domain::Event::KINDS);
    }
}
