//! Files inside a sandbox.

use crate::{ArchiveLimits, RelPath};
use async_trait::async_trait;
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
    /// Gives a file or a directory its permission bits.
    Mode {
        /// Where.
        path: RelPath,
        /// The bits.
        mode: u32,
    },
    /// Gives a file or a directory to a group of [`crate::Accounts`].
    Group {
        /// Where.
        path: RelPath,
        /// Its name.
        group: String,
    },
    /// Removes a file.
    Remove {
        /// Where.
        path: RelPath,
    },
}

/// What stands in the way of a move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Replace {
    /// Nothing may stand at the target.
    Never,
    /// A file, or an empty directory in the place of a directory, is replaced in one step.
    Always,
}

/// How far down is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Depth {
    /// The directory itself.
    Directory,
    /// Everything below it, too; what is mounted there is not.
    Below,
}

/// An operation on whole trees of files, done inside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TreeWork {
    /// Gives a file or directory another name.
    Move {
        /// What.
        from: RelPath,
        /// Where to.
        to: RelPath,
        /// What may stand there.
        replace: Replace,
    },
    /// Removes a file, or a directory with everything in it; gives how many.
    Remove {
        /// What.
        path: RelPath,
        /// Files and directories at most.
        entries_max: u64,
    },
    /// Tells what happens in a directory, as lines of JSON, each an [`Event`], until it is killed.
    Watch {
        /// Which directory.
        path: RelPath,
        /// How far down.
        depth: Depth,
    },
    /// A directory as an archive. The programs go on meanwhile.
    Download {
        /// Which.
        path: RelPath,
        /// Its bounds.
        limits: ArchiveLimits,
    },
    /// Unpacks the archive that comes as input into a directory, over what stands there.
    Upload {
        /// Which.
        path: RelPath,
        /// Its bounds.
        limits: ArchiveLimits,
    },
    /// Compares two directories; gives a [`Comparison`].
    Compare {
        /// One.
        before: RelPath,
        /// The other.
        after: RelPath,
        /// Paths at most that are told of.
        differences_max: usize,
    },
}

/// How two directories differ.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Comparison {
    /// By path, each directory before what is in it.
    pub differences: Vec<Difference>,
    /// How many more there are.
    pub unlisted: u64,
}

/// A path at which two directories differ: by kind, mode or content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// Below both directories. Bytes that are no text are replaced.
    pub path: String,
    /// What stands in the first; `None`: nothing.
    pub before: Option<Stat>,
    /// What stands in the other.
    pub after: Option<Stat>,
}

/// Something that happened to files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// What.
    pub kind: EventKind,
    /// Below the watched directory; empty for that directory itself. Bytes that are no text are replaced.
    pub path: String,
    /// Whether it is a directory.
    pub directory: bool,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// The watch stands: what happens from now on is told.
    Begun,
    /// It came to be.
    Created,
    /// Its content was written.
    Written,
    /// It was removed.
    Removed,
    /// It went away from this name.
    MovedFrom,
    /// It came to this name.
    MovedTo,
    /// Its permissions or times changed.
    Changed,
    /// More happened than was kept: look at the directory again.
    Overflow,
    /// There are more directories than can be watched; what happens in the others is not told.
    Unwatched,
}

/// A watch. Dropping it ends it.
#[async_trait]
pub trait Watch: Send + std::fmt::Debug {
    /// The next event; `None`: the directory is gone. Safe to cancel.
    ///
    /// # Errors
    /// [`crate::Error::File`], [`crate::Error::Gone`].
    async fn next(&mut self) -> Result<Option<Event>, crate::Error>;
}
