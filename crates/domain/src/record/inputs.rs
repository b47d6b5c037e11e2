//! Bodies of the records that come from outside: wishes and answers of people and programs. What they come to is decided by the
//! fold; an input that comes too late stands in the log without effect.

use crate::content::ContentRef;
use crate::limits::Limits;
use crate::{Digest, Id, id};
use serde::{Deserialize, Serialize};

/// Body of [`crate::Event::CancelRequested`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CancelRequested {
    /// The run.
    pub run: Id<id::Run>,
    /// When it is to end.
    #[serde(default, skip_serializing_if = "When::is_now")]
    pub when: When,
}

/// When a wish takes effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// At once: what is under way is killed.
    #[default]
    Now,
    /// When the turn that is under way has ended.
    AfterTurn,
}

impl When {
    /// Whether it is at once.
    pub const fn is_now(&self) -> bool {
        matches!(self, Self::Now)
    }
}

/// Body of [`crate::Event::PauseRequested`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PauseRequested {
    /// The run.
    pub run: Id<id::Run>,
}

/// Body of [`crate::Event::ResumeRequested`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResumeRequested {
    /// The run.
    pub run: Id<id::Run>,
}

/// Body of [`crate::Event::Steered`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Steered {
    /// The run.
    pub run: Id<id::Run>,
    /// What the model is told: text.
    pub message: ContentRef,
    /// Whether what is under way is ended for it.
    pub when: When,
}

/// Body of [`crate::Event::Voted`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Voted {
    /// The run.
    pub run: Id<id::Run>,
    /// The call that is held.
    pub call: Id<id::Call>,
    /// What was said.
    pub vote: Vote,
    /// Why; text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<ContentRef>,
    /// What the voter was shown, see [`crate::verdict::Obligation::binding`].
    pub binding: Digest,
}

/// What somebody says of a call that is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Vote {
    /// It may be made.
    Approve,
    /// It must not be made; one is enough.
    Reject,
}

/// Body of [`crate::Event::Resolved`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resolved {
    /// The run.
    pub run: Id<id::Run>,
    /// The call that is in doubt.
    pub call: Id<id::Call>,
    /// What became of it.
    pub resolution: Resolution,
}

/// What became of a call that was in doubt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resolution {
    /// It took effect; the content is what the model is told it gave: a JSON array of parts.
    Happened {
        /// The parts.
        output: ContentRef,
    },
    /// It took no effect; the model is told so and may ask for it again.
    DidNotHappen,
    /// It is to be undone by the tool that its contract names.
    Compensate,
}

/// Body of [`crate::Event::Raised`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Raised {
    /// The run.
    pub run: Id<id::Run>,
    /// Its limits from now on.
    pub limits: Limits,
}

/// Body of [`crate::Event::Operated`]. Written before the deed; whether the deed then came about, it does not say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Operated {
    /// The run that has the sandbox, or had it last.
    pub run: Id<id::Run>,
    /// The sandbox.
    pub sandbox: Id<id::Sandbox>,
    /// What is done.
    pub deed: Deed,
    /// The particulars: of a command its program and arguments as a JSON array, of a link its port and how long it is good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<ContentRef>,
}

/// What an operator does to a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Deed {
    /// Runs a command in it.
    Exec,
    /// Ends it.
    End,
    /// Makes a link to one of its ports.
    Link,
}

impl Deed {
    /// As in records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exec => "exec",
            Self::End => "end",
            Self::Link => "link",
        }
    }
}

/// Body of [`crate::Event::WorkspaceRestored`]. While a run is under way it stands in the log without effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkspaceRestored {
    /// The run that stood last.
    pub run: Id<id::Run>,
    /// What the session's files are from now on.
    pub snapshot: super::Snapshot,
    /// Where they come from.
    pub from: RestoredFrom,
}

/// Where files that were restored come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RestoredFrom {
    /// A checkpoint of the session.
    Checkpoint,
    /// An archive that somebody brought.
    Archive,
}

impl RestoredFrom {
    /// As in records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Checkpoint => "checkpoint",
            Self::Archive => "archive",
        }
    }
}

/// Body of [`crate::Event::Forked`]: the first record of a session that goes on from another's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Forked {
    /// The other session's run that stood last at that position.
    pub run: Id<id::Run>,
    /// The other session.
    pub session: Id<id::Session>,
    /// How many of its records this session goes on from.
    pub position: u64,
    /// Hash of the last of them.
    pub head: Digest,
    /// The conversation until then: a JSON array of items, sealed anew for this session.
    pub history: ContentRef,
    /// The agent of the run that stood last.
    pub agent: String,
    /// Its workspace, when it had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<super::Snapshot>,
    /// The name that the client gave this session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_name: Option<ContentRef>,
    /// The alias of the model that its runs ask instead of their agents' own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The provider of sandboxes that its runs use instead of their agents' own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
}
