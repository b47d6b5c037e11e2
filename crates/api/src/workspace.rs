//! The files of a session: compared between its checkpoints, put back.

use crate::schema;
use domain::{Id, id};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The media type of a workspace as an archive.
pub const WORKSPACE_MEDIA: &str = "application/x-tar";

/// Answer of `GET /sessions/{session}/workspace/diff`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WorkspaceDiff {
    /// The checkpoint that is compared with the other.
    #[schemars(schema_with = "schema::checkpoint")]
    pub from: Id<id::Checkpoint>,
    /// The other.
    #[schemars(schema_with = "schema::checkpoint")]
    pub to: Id<id::Checkpoint>,
    /// What differs, by path.
    pub files: Vec<FileDiff>,
    /// How many paths more differ.
    pub unlisted: u64,
}

/// A path at which two checkpoints differ. One that has only `after` was added, one that has only `before` was removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FileDiff {
    /// The path, below the workspace.
    pub path: String,
    /// What stood there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<FileState>,
    /// What stands there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<FileState>,
    /// How its lines differ, as a unified diff; absent: it is no text, too large, or nobody asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patch: Option<String>,
}

/// What stands at a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FileState {
    /// `file`, `directory`, `link` or `other`.
    pub kind: String,
    /// Length in bytes.
    pub bytes: u64,
    /// Permission bits, in octal, such as `0644`.
    pub mode: String,
}

/// Body of `POST /sessions/{session}/workspace/restore`. Unknown fields are refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RestoreWorkspace {
    /// The checkpoint.
    #[schemars(schema_with = "schema::checkpoint")]
    pub checkpoint_id: Id<id::Checkpoint>,
}

/// Files that took the place of a session's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RestoredWorkspace {
    /// The checkpoint that they are.
    #[schemars(schema_with = "schema::checkpoint")]
    pub checkpoint_id: Id<id::Checkpoint>,
    /// Length of the archive.
    pub bytes: u64,
    /// Files and directories in it.
    pub entries: u64,
    /// How many records the session has now: it can be forked from there.
    pub at: u64,
}
