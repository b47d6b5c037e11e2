//! A data directory: what lies where in it. Who writes what, the rooms themselves know.

use crate::Error;
use std::fs::{DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The data directory of a project that names no other.
pub const DATA_DIRECTORY: &str = ".topside";

/// A data directory. One process owns it at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Data(PathBuf);

impl Data {
    /// The directory at `path`, which need not be there yet.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Hashed API keys.
    pub fn api_keys(&self) -> PathBuf {
        self.0.join("keys.yaml")
    }

    /// Copies of the files that runs left, by their own names.
    pub fn outputs(&self) -> PathBuf {
        self.0.join("outputs")
    }

    /// Whether there is a journal.
    pub fn has_journal(&self) -> bool {
        self.0.join("journal.db").is_file()
    }

    /// The tenants' keys.
    pub fn keys(&self) -> PathBuf {
        self.0.join("keys")
    }

    /// Large contents, artifacts, checkpoints and pinned declarations, unless storage keeps them.
    pub fn objects(&self) -> PathBuf {
        self.0.join("objects")
    }

    pub(crate) fn secrets(&self) -> PathBuf {
        self.0.join("secrets.yaml")
    }

    fn service(&self) -> PathBuf {
        self.0.join("service")
    }

    /// Makes the directory (0700) when it is not there, and keeps it out of version control.
    pub(crate) fn make(&mut self) -> Result<(), Error> {
        let named = |error: std::io::Error| self.wrong(&self.0, &error);
        DirBuilder::new().recursive(true).mode(0o700).create(&self.0).map_err(named)?;
        self.0 = std::fs::canonicalize(&self.0).map_err(named)?;
        let ignore = self.0.join(".gitignore");
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&ignore) {
            Ok(mut file) => file.write_all(b"*\n").map_err(|error| self.wrong(&ignore, &error)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(self.wrong(&ignore, &error)),
        }
    }

    /// Writes down where the process that owns the directory answers, for commands that find it taken.
    pub fn announce(&self, url: &str) -> Result<(), Error> {
        let path = self.service();
        let written = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
        written.and_then(|mut file| writeln!(file, "{url}")).map_err(|error| self.wrong(&path, &error))
    }

    /// Takes that back. Nobody minds when it is not there.
    pub fn withdraw(&self) {
        let _ = std::fs::remove_file(self.service());
    }

    /// Where the process that owns the directory answers, if it serves.
    pub fn announced(&self) -> Option<String> {
        let text = std::fs::read_to_string(self.service()).ok()?;
        Some(text.trim().to_owned()).filter(|url| url.starts_with("http://") && url.len() < 300)
    }

    fn wrong(&self, path: &Path, error: &std::io::Error) -> Error {
        Error::File { path: path.to_owned(), reason: error.to_string() }
    }
}
