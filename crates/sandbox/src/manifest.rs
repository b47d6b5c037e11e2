//! What a fresh workspace holds: declarative, portable, every path relative.

use crate::{Change, Error, RelPath};
use bytes::Bytes;
use domain::Digest;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

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

/// Bytes of all files of a manifest at most.
pub const MANIFEST_BYTES_MAX: u64 = 256 << 20;
/// Entries of a manifest, those of its directories included, at most.
pub const MANIFEST_ENTRIES_MAX: usize = 20_000;
/// How deep directories of a manifest may nest.
pub const MANIFEST_DEPTH_MAX: usize = 64;

impl Manifest {
    /// The changes that lay this manifest into an empty workspace, in order: parents come before what stands in them. Host
    /// files are read now, below `project`; links are refused as an entry's source and left out of a copied directory.
    ///
    /// # Errors
    /// [`Error::File`] for a source that is missing, no plain file or directory, or not readable; [`Error::Limit`] above
    /// [`MANIFEST_BYTES_MAX`], [`MANIFEST_ENTRIES_MAX`] or [`MANIFEST_DEPTH_MAX`].
    pub fn changes(&self, project: &Path) -> Result<Vec<Change>, Error> {
        let mut plan = Plan { changes: Vec::new(), bytes: 0, project };
        for (path, entry) in &self.entries {
            plan.entry(path.clone(), entry, 0)?;
        }
        Ok(plan.changes)
    }
}

struct Plan<'a> {
    changes: Vec<Change>,
    bytes: u64,
    project: &'a Path,
}

impl Plan<'_> {
    fn entry(&mut self, path: RelPath, entry: &Entry, depth: usize) -> Result<(), Error> {
        if depth > MANIFEST_DEPTH_MAX {
            return Err(Error::Limit { limit: format!("manifest_depth_max = {MANIFEST_DEPTH_MAX}") });
        }
        match entry {
            Entry::File { content, mode } => self.write(path, Bytes::from(content.clone()), *mode),
            Entry::Dir { children } => {
                self.push(Change::MakeDir { path: path.clone() })?;
                for (name, child) in children {
                    self.entry(path.join(name.as_str())?, child, depth + 1)?;
                }
                Ok(())
            }
            Entry::LocalFile { source } => {
                let host = self.host(source)?;
                self.copy_file(path, &host)
            }
            Entry::LocalDir { source } => {
                let host = self.host(source)?;
                self.copy_dir(path, &host, 0)
            }
        }
    }

    /// The host path of a source, none of whose components is a link.
    fn host(&self, source: &RelPath) -> Result<PathBuf, Error> {
        let mut host = self.project.to_owned();
        for component in source.components() {
            host.push(component);
            let link = fs::symlink_metadata(&host).map_err(|error| unreadable(&host, &error))?.is_symlink();
            if link {
                return Err(refused(&host, "links are not followed"));
            }
        }
        Ok(host)
    }

    fn copy_file(&mut self, path: RelPath, host: &Path) -> Result<(), Error> {
        let metadata = fs::symlink_metadata(host).map_err(|error| unreadable(host, &error))?;
        if !metadata.is_file() {
            return Err(refused(host, "not a regular file"));
        }
        self.room(metadata.len())?;
        let bytes = fs::read(host).map_err(|error| unreadable(host, &error))?;
        let mode = if metadata.permissions().mode() & 0o100 == 0 { 0o644 } else { 0o755 };
        self.write(path, Bytes::from(bytes), Some(mode))
    }

    fn copy_dir(&mut self, path: RelPath, host: &Path, depth: usize) -> Result<(), Error> {
        if depth > MANIFEST_DEPTH_MAX {
            return Err(Error::Limit { limit: format!("manifest_depth_max = {MANIFEST_DEPTH_MAX}") });
        }
        let entries = fs::read_dir(host).map_err(|error| unreadable(host, &error))?;
        self.push(Change::MakeDir { path: path.clone() })?;
        let mut found = entries.collect::<Result<Vec<_>, _>>().map_err(|error| unreadable(host, &error))?;
        found.sort_by_key(std::fs::DirEntry::file_name);
        for entry in found {
            let name = entry.file_name();
            let below = path.join(name.to_str().ok_or_else(|| refused(&entry.path(), "its name is not UTF-8"))?)?;
            let kind = entry.file_type().map_err(|error| unreadable(host, &error))?;
            if kind.is_dir() {
                self.copy_dir(below, &entry.path(), depth + 1)?;
            } else if kind.is_file() {
                self.copy_file(below, &entry.path())?;
            }
        }
        Ok(())
    }

    fn write(&mut self, path: RelPath, bytes: Bytes, mode: Option<u32>) -> Result<(), Error> {
        if path.is_root() {
            return Err(Error::Path { path: path.to_string(), reason: "empty" });
        }
        self.room(bytes.len() as u64)?;
        self.bytes += bytes.len() as u64;
        self.push(Change::Write { path, bytes, mode })
    }

    fn push(&mut self, change: Change) -> Result<(), Error> {
        if self.changes.len() >= MANIFEST_ENTRIES_MAX {
            return Err(Error::Limit { limit: format!("manifest_entries_max = {MANIFEST_ENTRIES_MAX}") });
        }
        self.changes.push(change);
        Ok(())
    }

    fn room(&self, bytes: u64) -> Result<(), Error> {
        if self.bytes.saturating_add(bytes) > MANIFEST_BYTES_MAX {
            return Err(Error::Limit { limit: format!("manifest_bytes_max = {MANIFEST_BYTES_MAX}") });
        }
        Ok(())
    }
}

fn unreadable(host: &Path, error: &std::io::Error) -> Error {
    Error::File {
        operation: "manifest",
        path: host.display().to_string(),
        missing: error.kind() == std::io::ErrorKind::NotFound,
        detail: error.to_string(),
    }
}

fn refused(host: &Path, detail: &str) -> Error {
    Error::File { operation: "manifest", path: host.display().to_string(), missing: false, detail: detail.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(changes: &[Change]) -> Vec<String> {
        let show = |change: &Change| match change {
            Change::Write { path, bytes, .. } => format!("{path} {}", String::from_utf8_lossy(bytes)),
            Change::MakeDir { path } => format!("{path}/"),
            Change::Remove { path } => format!("- {path}"),
        };
        changes.iter().map(show).collect()
    }

    #[test]
    fn entries_become_changes_and_links_stay_out() {
        let project = std::env::temp_dir().join(format!("topside-manifest-{}", std::process::id()));
        fs::create_dir_all(project.join("data/deep")).unwrap();
        fs::write(project.join("data/deep/a.csv"), "1").unwrap();
        fs::write(project.join("note"), "n").unwrap();
        let _ = std::os::unix::fs::symlink("/etc/hostname", project.join("data/link"));
        let text = r#"{"entries": {"out": {"type": "dir", "children": {"r.md": {"type": "file", "content": "x"}}},
            "in": {"type": "local_dir", "source": "data"}, "n": {"type": "local_file", "source": "note"}}}"#;
        let manifest: Manifest = serde_json::from_str(text).unwrap();
        let expected = ["in/", "in/deep/", "in/deep/a.csv 1", "n n", "out/", "out/r.md x"];
        assert_eq!(shown(&manifest.changes(&project).unwrap()), expected);
        let entry = |source: &str| Manifest {
            entries: [("x".parse().unwrap(), Entry::LocalFile { source: source.parse().unwrap() })].into(),
            ..Manifest::default()
        };
        for source in ["data/link", "data", "absent"] {
            assert_eq!(entry(source).changes(&project).unwrap_err().code(), "sandbox_file", "{source}");
        }
        fs::remove_dir_all(&project).unwrap();
    }

    #[test]
    fn a_manifest_never_escapes() {
        for path in ["../x", "/etc/x", "a/../../x", "C:\\x", ""] {
            let text = format!(r#"{{"entries": {{{path:?}: {{"type": "file", "content": "x"}}}}}}"#);
            assert!(serde_json::from_str::<Manifest>(&text).is_err(), "{path}");
        }
        assert!(serde_json::from_str::<Manifest>(r#"{"entries": {}, "secret": 1}"#).is_err());
    }
}
