//! Pages of lists, newest first.

use crate::{Run, Session};
use domain::RunStatus;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A page of runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunList {
    /// The runs; may be fewer than asked for even when there are more.
    pub runs: Vec<Run>,
    /// The `cursor` of the next page; absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A page of sessions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SessionList {
    /// The sessions.
    pub sessions: Vec<Session>,
    /// The `cursor` of the next page; absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Which runs to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunQuery {
    /// Only of this session, by its id or the client's name for it.
    pub session: Option<String>,
    /// Only those that stand so.
    pub status: Option<RunStatus>,
    /// Only of this agent.
    pub agent: Option<String>,
    /// Where the page begins: the `next` of the page before.
    pub cursor: Option<String>,
    /// Rows at most.
    pub limit: Option<usize>,
}
