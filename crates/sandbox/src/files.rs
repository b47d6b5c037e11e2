//! Files inside a sandbox.

use crate::RelPath;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// What stands at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stat {
    /// Its kind.
    pub kind: FileKind,
    /// Length in bytes.
    pub bytes: u64,
    /// Permission bits.
    pub mode: u32,
    /// Milliseconds since the Unix epoch of the last change of its content.
    pub modified_ms: u64,
}

/// The kind of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileKind {
    /// Regular.
    File,
    /// Directory.
    Directory,
    /// Symbolic link.
    Link,
    /// Anything else, and a whiteout of the workspace's layer.
    Other,
}

/// One change of an all-or-nothing set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Writes a whole file, making its parents.
    Write {
        /// Where.
        path: RelPath,
        /// What.
        bytes: Bytes,
        /// Permission bits; `None`: as the file had, else 0644.
        mode: Option<u32>,
    },
    /// Makes a directory and its parents.
    MakeDir {
        /// Where.
        path: RelPath,
    },
    /// Removes a file.
    Remove {
        /// Where.
        path: RelPath,
    },
}
