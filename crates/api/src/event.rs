//! What an event stream carries: records of the log with their contents resolved for viewers, and what happens between them.

use crate::{Cost, RunError, Usage, schema};
use domain::record::Changed;
use domain::{CallStatus, Id, RunStatus, Verdict, id};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One event of a stream.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A record. Only these carry an SSE id, which is their position.
    Record(Box<Record>),
    /// Something between two records; not kept, and lost to those who look away.
    Delta(Delta),
    /// The reader was too slow and missed deltas; records go on without a gap.
    Resync(Resync),
}

impl Event {
    /// The SSE event name.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Record(record) => record.happened.kind(),
            Self::Delta(delta) => delta.name(),
            Self::Resync(_) => Resync::NAME,
        }
    }

    /// Reads an SSE event; `None` for a name that this version does not know.
    ///
    /// # Errors
    /// When the data is not what the name says.
    pub fn parse(name: &str, data: &str) -> Result<Option<Self>, serde_json::Error> {
        if name == Resync::NAME {
            return serde_json::from_str(data).map(|resync| Some(Self::Resync(resync)));
        }
        if Delta::NAMES.contains(&name) {
            return serde_json::from_str(data).map(|delta| Some(Self::Delta(delta)));
        }
        if domain::Event::KINDS.contains(&name) {
            return serde_json::from_str(data).map(|record| Some(Self::Record(record)));
        }
        Ok(None)
    }
}

/// A record of a session's log, its contents resolved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Record {
    /// Where it stands in the log, from 0.
    pub position: u64,
    /// When it was written, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The run it belongs to.
    #[schemars(schema_with = "schema::run")]
    pub run_id: Id<id::Run>,
    /// On whose authority it was written.
    #[schemars(schema_with = "schema::principal")]
    pub principal: Id<id::Principal>,
    /// What happened.
    #[serde(flatten)]
    pub happened: Happened,
}

/// A page of records.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RecordPage {
    /// The records, in order.
    pub records: Vec<Record>,
    /// The `after` of the next page; absent when there is no more for now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

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
        /// What the user said.
        message: Text,
        /// The name that the client gave the session; in its first record only.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        session_name: Option<Text>,
    },
    /// Somebody wants the run to end.
    CancelRequested {},
    /// A new process took the run up.
    Resumed {
        /// The epoch of its lease.
        epoch: u64,
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
    },
    /// It is gone.
    SandboxClosed {
        /// The sandbox.
        #[schemars(schema_with = "schema::sandbox")]
        sandbox: Id<id::Sandbox>,
        /// Stable code of the reason.
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
            Self::CancelRequested {} => "cancel_requested",
            Self::Resumed { .. } => "resumed",
            Self::SandboxOpened { .. } => "sandbox_opened",
            Self::SandboxClosed { .. } => "sandbox_closed",
            Self::Replied { .. } => "replied",
            Self::Judged { .. } => "judged",
            Self::Began { .. } => "began",
            Self::Returned { .. } => "returned",
            Self::InDoubt { .. } => "in_doubt",
            Self::WorkspaceChanged { .. } => "workspace_changed",
            Self::ArtifactSaved { .. } => "artifact_saved",
            Self::Finished { .. } => "finished",
        }
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

/// Something between two records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "delta", rename_all = "snake_case")]
pub enum Delta {
    /// The model is asked.
    Asking {
        /// The run.
        #[schemars(schema_with = "schema::run")]
        run_id: Id<id::Run>,
        /// The turn, from 1.
        turn: u32,
    },
    /// The model says something.
    Text {
        /// The run.
        #[schemars(schema_with = "schema::run")]
        run_id: Id<id::Run>,
        /// The next piece.
        text: String,
    },
    /// The model shows a summary of its reasoning.
    Reasoning {
        /// The run.
        #[schemars(schema_with = "schema::run")]
        run_id: Id<id::Run>,
        /// The next piece.
        text: String,
    },
    /// A call is performed.
    Performing {
        /// The run.
        #[schemars(schema_with = "schema::run")]
        run_id: Id<id::Run>,
        /// The call.
        #[schemars(schema_with = "schema::call")]
        call: Id<id::Call>,
        /// The tool.
        tool: String,
        /// Its arguments, as the model wrote them.
        arguments: Text,
    },
    /// A call's output so far.
    Output {
        /// The run.
        #[schemars(schema_with = "schema::run")]
        run_id: Id<id::Run>,
        /// The call.
        #[schemars(schema_with = "schema::call")]
        call: Id<id::Call>,
        /// The next piece; bytes that are no UTF-8 are replaced by U+FFFD.
        text: String,
    },
}

impl Delta {
    /// Every SSE event name of a delta.
    pub const NAMES: [&'static str; 5] =
        ["delta.asking", "delta.text", "delta.reasoning", "delta.performing", "delta.output"];

    /// The SSE event name.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Asking { .. } => "delta.asking",
            Self::Text { .. } => "delta.text",
            Self::Reasoning { .. } => "delta.reasoning",
            Self::Performing { .. } => "delta.performing",
            Self::Output { .. } => "delta.output",
        }
    }
}

/// The reader was too slow and missed deltas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Resync {
    /// The position of the next record in this stream.
    pub next_position: u64,
    /// How many deltas were dropped.
    pub dropped: u64,
}

impl Resync {
    /// The SSE event name.
    pub const NAME: &'static str = "resync";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_reads_back_by_its_name() {
        let run_id = Id::from_bytes([1; 16]);
        let record = Record {
            position: 3,
            at_ms: 5,
            run_id,
            principal: Id::from_bytes([2; 16]),
            happened: Happened::CancelRequested {},
        };
        let events = [
            Event::Record(Box::new(record.clone())),
            Event::Delta(Delta::Text { run_id, text: "a".into() }),
            Event::Resync(Resync { next_position: 4, dropped: 2 }),
        ];
        for event in events {
            let data = match &event {
                Event::Record(record) => serde_json::to_string(record),
                Event::Delta(delta) => serde_json::to_string(delta),
                Event::Resync(resync) => serde_json::to_string(resync),
            }
            .unwrap();
            assert_eq!(Event::parse(event.name(), &data).unwrap(), Some(event), "{data}");
        }
        assert_eq!(Event::parse("later", "{}").unwrap(), None);
        assert!(Event::parse("finished", "{}").is_err());
        let json = serde_json::to_string(&record).unwrap();
        assert!(json.starts_with(r#"{"position":3,"at_ms":5,"run_id":"run_"#), "{json}");
        assert!(json.ends_with(r#""kind":"cancel_requested","body":{}}"#), "{json}");
    }
}
