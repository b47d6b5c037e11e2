//! What a fresh workspace holds: declarative, portable, every path relative.

use crate::RelPath;
use domain::Digest;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A manifest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// What stands where.
    #[serde(default)]
    pub entries: BTreeMap<RelPath, Entry>,
    /// Environment of every command. `${secret.…}` is refused: no secret enters a sandbox.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Entry {
    /// A file with this text.
    File {
        /// The text.
        content: String,
        /// Permission bits, such as 0o644.
        #[serde(default)]
        mode: Option<u32>,
    },
    /// A directory with these entries.
    Dir {
        /// What stands in it.
        #[serde(default)]
        children: BTreeMap<RelPath, Entry>,
    },
    /// A copy of a file of the project. Only operators may name host files.
    LocalFile {
        /// Relative to the project.
        source: RelPath,
    },
    /// A copy of a directory of the project; links in it are never followed.
    LocalDir {
        /// Relative to the project.
        source: RelPath,
    },
}

impl Manifest {
    /// Digest of the declaration; what host files held is not in it.
    pub fn digest(&self) -> Digest {
        // Maps are ordered, so equal manifests have equal JSON.
        Digest::of(&serde_json::to_vec(self).unwrap_or_default())
    }
}
