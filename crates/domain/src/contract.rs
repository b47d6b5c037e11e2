//! What a tool declares about itself so that a harness can keep promises about it.

use serde::{Deserialize, Serialize};

/// How far a call's effects reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Changes nothing.
    Read,
    /// Changes its own sandbox or its declared store.
    Write,
    /// Reaches the outside world.
    External,
    /// Reaches the outside world and can't be taken back.
    Destructive,
}

impl Effect {
    /// The name used in declarations and policies.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::External => "external",
            Self::Destructive => "destructive",
        }
    }
}

/// Where the key comes from under which the other side knows a repeated call for the same one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Idempotency {
    /// The other side knows no keys.
    #[default]
    None,
    /// A key per call.
    Call,
    /// The digest of the arguments.
    Arguments,
    /// The key that the caller of the run gave.
    Caller,
}

/// What a crash in the middle of a call allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Repeat {
    /// The call may be made again.
    Safe,
    /// The call must not be made twice.
    Once,
}

/// How an effect is taken back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rollback {
    /// It is not.
    #[default]
    None,
    /// The workspace goes back to its checkpoint.
    Checkpoint,
    /// Another tool compensates.
    Compensate {
        /// That tool's name.
        with: String,
    },
}

/// Who must agree before the call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Approval {
    /// Nobody beyond what the policy says.
    #[default]
    Policy,
    /// Nobody; a policy may still deny.
    Never,
    /// One person.
    Always,
    /// So many distinct people.
    Quorum(u8),
}

/// A tool's contract.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contract {
    /// How far its effects reach.
    pub effect: Effect,
    /// Its idempotency key.
    #[serde(default)]
    pub idempotency: Idempotency,
    /// What a crash allows.
    pub repeat: Repeat,
    /// How it is taken back.
    #[serde(default)]
    pub rollback: Rollback,
    /// Who must agree.
    #[serde(default)]
    pub approval: Approval,
    /// Wall time after which the call is killed.
    pub timeout_ms: u64,
    /// What the model is shown of the output at most; the rest is kept and readable page by page.
    pub output_bytes_max: u64,
}

impl Contract {
    /// The defaults for an effect: reads repeat, everything else happens once; 60 s; 32 KiB shown.
    pub const fn of(effect: Effect) -> Self {
        Self {
            effect,
            idempotency: Idempotency::None,
            repeat: match effect {
                Effect::Read => Repeat::Safe,
                Effect::Write | Effect::External | Effect::Destructive => Repeat::Once,
            },
            rollback: Rollback::None,
            approval: Approval::Policy,
            timeout_ms: 60_000,
            output_bytes_max: 32 * 1024,
        }
    }

    /// Whether nobody can know, after a crash in its middle, if the call took effect, and repeating could do harm.
    pub fn in_doubt_after_crash(&self) -> bool {
        matches!(self.effect, Effect::External | Effect::Destructive)
            && self.repeat == Repeat::Once
            && self.idempotency == Idempotency::None
    }
}
