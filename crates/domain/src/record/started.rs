//! How the start of a sandbox went, as the log keeps it.

use serde::{Deserialize, Serialize};

/// Stages that a start has at most.
pub const STAGES_MAX: usize = 16;

/// How a sandbox was come by, stage by stage, so that a slow start names where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Started {
    /// What stood before it was asked for; `None`: its provider does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub way: Option<StartWay>,
    /// The stages in their order, those that took nothing left out; at most [`STAGES_MAX`].
    pub stages: Vec<StageTook>,
}

/// What stood before a sandbox was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StartWay {
    /// Nothing: it was made from the ground.
    Cold,
    /// One that was nobody's stood ready with its root.
    Warm,
    /// It lived: an earlier process had left it.
    TakenOver,
    /// It lived: it stood still while its session had nothing to do.
    Woken,
}

impl StartWay {
    /// As in records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::Warm => "warm",
            Self::TakenOver => "taken_over",
            Self::Woken => "woken",
        }
    }
}

/// One stage of a start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageTook {
    /// `claim`, `root`, `workspace`, `ready`, `restore`, `manifest`.
    pub stage: String,
    /// How long it took, in microseconds.
    pub duration_us: u64,
}
