//! The records of a session's log and their exact bytes. This form is for ever: kinds and fields are only added, an
//! old version is upgraded at the door, a newer one refused.
//!
//! A record holds no content: messages, prompts, arguments and results are content items that it points to.

mod course;
mod inputs;
mod started;

pub use course::{CallAdded, Checkpointed, Deferred, Parked, Purpose, Reserved, ScopeOpened, Snapshot, WorkspaceLost};
pub use inputs::{
    CancelRequested, Deed, Forked, Operated, PauseRequested, Raised, Resolution, Resolved, ResumeRequested, Steered,
    Vote, Voted, When,
};
pub use inputs::{RestoredFrom, WorkspaceRestored};
pub use started::{STAGES_MAX, StageTook, StartWay, Started};

use crate::content::ContentRef;
use crate::failure::Failure;
use crate::limits::Limits;
use crate::status::{CallStatus, RunStatus};
use crate::usage::{Cost, Usage};
use crate::verdict::{Judgement, Obligation};
use crate::{Digest, Id, id};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// The version of the record form that this program writes.
pub const VERSION: u32 = 1;

/// A record as it stands in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where it stands.
    pub head: Head,
    /// What happened.
    pub event: Event,
}

/// Where a record stands, when it was written and on whose authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The tenant.
    pub tenant: String,
    /// The session.
    pub session: Id<id::Session>,
    /// From 0, without gaps.
    pub position: u64,
    /// Hash of the record before; [`Digest::ZERO`] at position 0.
    pub previous: Digest,
    /// Milliseconds since the Unix epoch, by the clock of the process that wrote it.
    pub at_ms: u64,
    /// On whose authority.
    pub principal: Id<id::Principal>,
}

/// What a caller hands to the journal; the journal gives it its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// See [`Head::at_ms`].
    pub at_ms: u64,
    /// See [`Head::principal`].
    pub principal: Id<id::Principal>,
    /// What happened.
    pub event: Event,
}

/// Bytes that are no record of a form known here.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Written by a newer program.
    #[error("record version {found} is newer than {VERSION}; hint: start a newer topside")]
    Newer {
        /// The version found.
        found: u32,
    },
    /// A kind this program does not know.
    #[error("unknown record kind `{kind}`; hint: start a newer topside")]
    Kind {
        /// The kind found.
        kind: String,
    },
    /// Not the JSON of a record.
    #[error("not a record: {0}")]
    Form(#[from] serde_json::Error),
}

impl Error {
    /// Stable code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Newer { .. } => "record_newer",
            Self::Kind { .. } => "record_kind_unknown",
            Self::Form(_) => "record_malformed",
        }
    }
}

/// The hash that links records: SHA-256(0x00 ‖ bytes), the leaf hash of RFC 9162 §2.1.1, so that a tree can be built over the
/// same hashes.
pub fn hash(bytes: &[u8]) -> Digest {
    Digest::of_parts(&[&[0], bytes])
}

/// The exact bytes of a record: JSON with these fields in this order.
pub fn encode(head: &Head, event: &EncodedEvent) -> Vec<u8> {
    let mut out = Vec::with_capacity(event.0.len() + 320);
    let Head { tenant, session, position, previous, at_ms, principal } = head;
    // A tenant is a name of letters, digits, `-` and `_` (see `catalog`), so it needs no escaping; quote it all the same.
    let tenant = serde_json::Value::from(tenant.as_str());
    let text = format!(
        "{{\"v\":{VERSION},\"tenant\":{tenant},\"session\":\"{session}\",\"position\":{position},\"previous\":\"{previous}\",\"at_ms\":{at_ms},\"principal\":\"{principal}\","
    );
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(&event.0);
    out
}

/// Reads the bytes of a record.
pub fn decode(bytes: &[u8]) -> Result<Record, Error> {
    #[derive(Deserialize)]
    struct Version {
        v: u32,
    }
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Wire<'a> {
        #[serde(rename = "v")]
        _v: u32,
        tenant: String,
        session: Id<id::Session>,
        position: u64,
        previous: Digest,
        at_ms: u64,
        principal: Id<id::Principal>,
        #[serde(borrow)]
        kind: Cow<'a, str>,
        #[serde(borrow)]
        body: &'a serde_json::value::RawValue,
    }
    let Version { v } = serde_json::from_slice(bytes)?;
    if v > VERSION {
        return Err(Error::Newer { found: v });
    }
    let wire: Wire<'_> = serde_json::from_slice(bytes)?;
    let event = Event::from_kind(&wire.kind, wire.body.get())?;
    let Wire { tenant, session, position, previous, at_ms, principal, .. } = wire;
    Ok(Record { head: Head { tenant, session, position, previous, at_ms, principal }, event })
}

/// An event's part of a record's bytes: `"kind":…,"body":…}`. Made once, outside the journal's writer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedEvent(Vec<u8>);

impl EncodedEvent {
    /// Its length in bytes.
    pub fn size_bytes(&self) -> usize {
        self.0.len()
    }
}

macro_rules! events {
    ($($(#[$doc:meta])* $name:ident = $kind:literal,)*) => {
        /// What happened.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Event {
            $($(#[$doc])* $name($name),)*
        }

        impl Event {
            /// Every kind, as written in records.
            pub const KINDS: &'static [&'static str] = &[$($kind),*];

            /// The kind, as written in the record.
            pub const fn kind(&self) -> &'static str {
                match self { $(Self::$name(_) => $kind),* }
            }

            /// The run it belongs to.
            pub const fn run(&self) -> Id<id::Run> {
                match self { $(Self::$name(body) => body.run),* }
            }

            /// Whether it comes from outside; everything else is written by the session's driver alone.
            pub const fn is_input(&self) -> bool {
                matches!(
                    self,
                    Self::Submitted(_)
                        | Self::Forked(_)
                        | Self::CancelRequested(_)
                        | Self::PauseRequested(_)
                        | Self::ResumeRequested(_)
                        | Self::Steered(_)
                        | Self::Voted(_)
                        | Self::Resolved(_)
                        | Self::Raised(_)
                        | Self::Operated(_)
                        | Self::WorkspaceRestored(_)
                )
            }

            /// The event's part of the record's bytes.
            pub fn encode(&self) -> EncodedEvent {
                let mut out = format!("\"kind\":\"{}\",\"body\":", self.kind()).into_bytes();
                let written = match self { $(Self::$name(body) => serde_json::to_writer(&mut out, body)),* };
                // Plain data with string keys, written to memory: there is nothing that could fail.
                debug_assert!(written.is_ok());
                out.push(b'}');
                EncodedEvent(out)
            }

            /// The body as JSON text.
            pub fn body_json(&self) -> String {
                match self { $(Self::$name(body) => serde_json::to_string(body)),* }.unwrap_or_default()
            }

            fn from_kind(kind: &str, body: &str) -> Result<Self, Error> {
                match kind {
                    $($kind => Ok(Self::$name(serde_json::from_str(body)?)),)*
                    other => Err(Error::Kind { kind: other.to_owned() }),
                }
            }
        }
    };
}

events! {
    /// Input: a run was asked for.
    Submitted = "submitted",
    /// Input: a session goes on from another.
    Forked = "forked",
    /// Input: somebody wants the run to end.
    CancelRequested = "cancel_requested",
    /// Input: somebody wants the run to begin nothing new.
    PauseRequested = "pause_requested",
    /// Input: a run that was paused is to go on.
    ResumeRequested = "resume_requested",
    /// Input: the model is to be told something in the middle of a run.
    Steered = "steered",
    /// Input: somebody approves of a call that is held, or rejects it.
    Voted = "voted",
    /// Input: somebody says what became of a call in doubt.
    Resolved = "resolved",
    /// Input: the run gets other limits.
    Raised = "raised",
    /// Input: an operator does something to the session's sandbox by hand.
    Operated = "operated",
    /// Input: somebody puts other files in the place of the session's.
    WorkspaceRestored = "workspace_restored",
    /// The run waits: nothing of it is kept in memory.
    Parked = "parked",
    /// A new process took the run up where the last one left it.
    Resumed = "resumed",
    /// A sandbox was made for the session.
    SandboxOpened = "sandbox_opened",
    /// It is gone.
    SandboxClosed = "sandbox_closed",
    /// The session's files are gone.
    WorkspaceLost = "workspace_lost",
    /// The model answered.
    Replied = "replied",
    /// Something failed and is tried again later.
    Deferred = "deferred",
    /// A call opened a nested agent.
    ScopeOpened = "scope_opened",
    /// A nested agent's share of the budget is set aside.
    Reserved = "reserved",
    /// The harness makes a call of its own, for another.
    CallAdded = "call_added",
    /// The policy judged a call.
    Judged = "judged",
    /// A call is about to be performed.
    Began = "began",
    /// A call ended, or was refused.
    Returned = "returned",
    /// Nobody knows whether a call took effect.
    InDoubt = "in_doubt",
    /// The workspace was kept as it stands.
    Checkpointed = "checkpointed",
    /// What a run changed in its workspace.
    WorkspaceChanged = "workspace_changed",
    /// A file was kept.
    ArtifactSaved = "artifact_saved",
    /// The run ended.
    Finished = "finished",
}

/// Body of [`Event::Submitted`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Submitted {
    /// The new run.
    pub run: Id<id::Run>,
    /// The agent's name.
    pub agent: String,
    /// Digest of the agent's closure.
    pub closure: Digest,
    /// What the user said; `None`: the run goes on with the conversation as it stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<ContentRef>,
    /// The name that the client gave the session; in a session's first record only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_name: Option<ContentRef>,
    /// Digest of the `Idempotency-Key` with tenant, principal and route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency: Option<Digest>,
    /// The run's limits.
    pub limits: Limits,
    /// What to keep when the run ends.
    #[serde(default)]
    pub save: Save,
    /// Where the client wants to be told of the run: JSON with its URL and the kinds of records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub callback: Option<ContentRef>,
}

/// What to keep of a run besides its record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Save {
    /// The files that the agent's declaration names.
    #[default]
    Declared,
    /// Those, and the reply.
    Reply,
}

/// Body of [`Event::Resumed`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resumed {
    /// The run.
    pub run: Id<id::Run>,
    /// The epoch of the lease under which it goes on.
    pub epoch: u64,
    /// Calls whose programs still run, in a sandbox that outlived the process that drove it: they are waited for, whatever
    /// their contracts say of a crash.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attached: Vec<Id<id::Call>>,
}

/// Body of [`Event::SandboxOpened`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SandboxOpened {
    /// The run it was made for.
    pub run: Id<id::Run>,
    /// The sandbox.
    pub sandbox: Id<id::Sandbox>,
    /// The provider's name.
    pub provider: String,
    /// The walls it got.
    pub walls: Vec<String>,
    /// The walls it did not get and the policy did without.
    #[serde(default)]
    pub missing: Vec<String>,
    /// The version of Landlock that holds in it; 0: none, or unknown.
    #[serde(default, skip_serializing_if = "is_none")]
    pub landlock_version: u32,
    /// Digest of the manifest that was laid down; `None` when the workspace was there already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<Digest>,
    /// The generation under which the provider keeps the workspace from now on: the epoch of the lease it was opened under.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub generation: u64,
    /// The checkpoint that the workspace was made from, when it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<Id<id::Checkpoint>>,
    /// How its start went; absent in records of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<Started>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the form that serde asks for")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the form that serde asks for")]
const fn is_none(number: &u32) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the form that serde asks for")]
const fn is_false(flag: &bool) -> bool {
    !*flag
}

/// Body of [`Event::SandboxClosed`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SandboxClosed {
    /// The run.
    pub run: Id<id::Run>,
    /// The sandbox.
    pub sandbox: Id<id::Sandbox>,
    /// Stable code: `run_ended`, `lost`, `out_of_memory`, `idle`.
    pub reason: String,
}

/// Body of [`Event::Replied`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Replied {
    /// The run.
    pub run: Id<id::Run>,
    /// The turn, from 1.
    pub turn: u32,
    /// The reply's items.
    pub items: ContentRef,
    /// The calls among them, in order, each wire id once.
    pub calls: Vec<CallHead>,
    /// The model's name, as the vendor knows it.
    pub model: String,
    /// What it used, retries included.
    pub usage: Usage,
    /// What that cost.
    pub cost: Cost,
    /// Wall time of the call.
    pub duration_ms: u64,
    /// The nested agent that asked, by the call that opened it; `None`: the run's own agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<Id<id::Call>>,
    /// How many of the messages that steer the run the model was shown for the first time.
    #[serde(default, skip_serializing_if = "is_none")]
    pub steers: u32,
}

/// A call in a reply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallHead {
    /// The call.
    pub call: Id<id::Call>,
    /// Where it stands among the reply's items.
    pub index: u32,
    /// The declared tool it names; `None` when there is no such tool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
}

/// Body of [`Event::Judged`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Judged {
    /// The run.
    pub run: Id<id::Run>,
    /// The call.
    pub call: Id<id::Call>,
    /// What was said.
    pub judgement: Judgement,
    /// What must be met before the call, when it is held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub obligation: Option<Obligation>,
    /// Whether the call was held until now.
    #[serde(default, skip_serializing_if = "is_false")]
    pub held: bool,
}

/// Body of [`Event::Began`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Began {
    /// The run.
    pub run: Id<id::Run>,
    /// The call.
    pub call: Id<id::Call>,
    /// Which attempt, from 1.
    pub attempt: u32,
    /// The epoch of the lease under which it is performed.
    pub epoch: u64,
    /// The idempotency key handed to the other side, when the contract has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// What its contract says of a crash in its middle, so that recovery needs nothing but the log.
    pub after_crash: AfterCrash,
}

/// What happens to a call whose process died in its middle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AfterCrash {
    /// It is made again, with the same key if it has one.
    Repeat,
    /// The model is told that it was interrupted; the workspace is kept as it stands.
    Interrupted,
    /// The workspace goes back to its checkpoint, and the model is told that it was interrupted.
    RollBack,
    /// Somebody must say what became of it.
    Resolve,
}

/// Body of [`Event::Returned`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Returned {
    /// The run.
    pub run: Id<id::Run>,
    /// The call.
    pub call: Id<id::Call>,
    /// How it ended.
    pub status: CallStatus,
    /// What the model is told: a JSON array of parts.
    pub output: ContentRef,
    /// The whole output, when the model was told less.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whole: Option<ContentRef>,
    /// Stable code of what went wrong, when something did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Wall time of the call; 0 for one that never began.
    pub duration_ms: u64,
    /// Whether it may have changed the workspace.
    #[serde(default, skip_serializing_if = "is_false")]
    pub changed_workspace: bool,
    /// Whether the call was held until now.
    #[serde(default, skip_serializing_if = "is_false")]
    pub held: bool,
}

/// Body of [`Event::InDoubt`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InDoubt {
    /// The run.
    pub run: Id<id::Run>,
    /// The call.
    pub call: Id<id::Call>,
}

/// Body of [`Event::WorkspaceChanged`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkspaceChanged {
    /// The run.
    pub run: Id<id::Run>,
    /// Which files: a JSON array of [`FileChange`], by path.
    pub files: ContentRef,
    /// Files that were changed but are not in the list, because it is full.
    #[serde(default)]
    pub unlisted: u64,
}

/// One file that a run changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileChange {
    /// Its path below the workspace; hostile text.
    pub path: String,
    /// What became of it.
    pub change: Changed,
    /// Its length now; 0 when it is gone.
    pub bytes: u64,
}

/// What became of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Changed {
    /// It was not there before.
    Added,
    /// It is another than before.
    Modified,
    /// It is gone.
    Removed,
}

/// Body of [`Event::ArtifactSaved`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArtifactSaved {
    /// The run.
    pub run: Id<id::Run>,
    /// The artifact.
    pub artifact: Id<id::Artifact>,
    /// Its file name.
    pub name: ContentRef,
    /// Its media type.
    pub media: String,
    /// Its length.
    pub bytes: u64,
    /// Its place among the objects.
    pub object: String,
}

/// Body of [`Event::Finished`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finished {
    /// The run.
    pub run: Id<id::Run>,
    /// How it ended.
    pub status: RunStatus,
    /// The reply, when there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply: Option<ContentRef>,
    /// Why it did not complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// Turns taken.
    pub turns: u32,
    /// Calls made.
    pub tool_calls: u32,
    /// Tokens used.
    pub usage: Usage,
    /// What they cost.
    pub cost: Cost,
    /// Whether a sandbox was used.
    pub used_sandbox: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            head: Head {
                tenant: "default".into(),
                session: Id::from_bytes([1; 16]),
                position: 3,
                previous: Digest([2; 32]),
                at_ms: 1_700_000_000_000,
                principal: Id::from_bytes([3; 16]),
            },
            event: Event::CancelRequested(CancelRequested { run: Id::from_bytes([4; 16]), when: When::Now }),
        }
    }

    /// These bytes are hashed into logs that exist: they never change.
    #[test]
    fn the_bytes_of_a_record_are_fixed() {
        let record = record();
        let bytes = encode(&record.head, &record.event.encode());
        let expected = concat!(
            r#"{"v":1,"tenant":"default","session":"ses_01010101010101010101010101010101","position":3,"#,
            r#""previous":"0202020202020202020202020202020202020202020202020202020202020202","at_ms":1700000000000,"#,
            r#""principal":"prn_03030303030303030303030303030303","kind":"cancel_requested","#,
            r#""body":{"run":"run_04040404040404040404040404040404"}}"#
        );
        assert_eq!(String::from_utf8(bytes.clone()).unwrap(), expected);
        assert_eq!(decode(&bytes).unwrap(), record);
        assert_eq!(hash(b"").to_string(), "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d");
    }

    #[test]
    fn what_is_not_known_is_refused() {
        let record = record();
        let text = String::from_utf8(encode(&record.head, &record.event.encode())).unwrap();
        for (from, to, code) in [
            ("\"v\":1", "\"v\":2", "record_newer"),
            ("cancel_requested", "cancel_wished", "record_kind_unknown"),
            ("\"body\":{", "\"body\":{\"x\":1,", "record_malformed"),
            ("\"kind\"", "\"x\":1,\"kind\"", "record_malformed"),
        ] {
            let error = decode(text.replacen(from, to, 1).as_bytes()).unwrap_err();
            assert_eq!(error.code(), code, "{from} -> {to}");
        }
    }
}
