//! A workspace as one stream of bytes: a tar (POSIX pax) that one guest writes and another reads. Here stand its bounds, its
//! totals and the rules by which it is refused; what reads and writes it runs inside a sandbox, never in the harness.

use crate::Error;
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::{BoxStream, try_unfold};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io;

/// Bytes of one piece of an export at most.
pub const PIECE_BYTES_MAX: usize = crate::wire::DATA_BYTES_MAX;

/// An archive on its way in: pieces of any size. An error ends the import, and nothing of it counts.
pub type Archive = BoxStream<'static, io::Result<Bytes>>;

/// Bounds of one export or import.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveLimits {
    /// Bytes of the archive.
    pub bytes_max: u64,
    /// Files, directories and links in it.
    pub entries_max: u64,
    /// Wall time of the whole; for an export also how long the programs inside stand still.
    pub duration_ms_max: u64,
}

impl Default for ArchiveLimits {
    fn default() -> Self {
        Self { bytes_max: 2 << 30, entries_max: 250_000, duration_ms_max: 120_000 }
    }
}

/// What an archive holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Files, directories and links. As the guest counted them: to be shown, not to be relied on.
    pub entries: u64,
    /// Bytes of the archive, as the harness counted them.
    pub bytes: u64,
    /// Sockets, FIFOs and devices that were left out. As the guest counted them.
    pub left_out: u64,
}

/// An export under way. While it runs the programs inside stand still; they go on when it ends, fails or is dropped.
#[async_trait]
pub trait Export: Send + fmt::Debug {
    /// The next piece of the archive, at most [`PIECE_BYTES_MAX`]; `None`: the archive is whole. A reader that does not read
    /// blocks the writer inside. Safe to cancel: what was not returned is not lost.
    ///
    /// # Errors
    /// [`Error::Limit`] beyond a limit of the export, [`Error::File`] for a file that can't be read or programs that can't be
    /// halted, [`Error::Gone`]. What came before an error is no archive.
    async fn next(&mut self) -> Result<Option<Bytes>, Error>;

    /// What came so far; whole once [`Export::next`] has given `None`.
    fn totals(&self) -> Totals;
}

/// An export's pieces as a stream, for storing them; read the totals from the export afterwards. An [`Error`] comes as the
/// inner error of an [`io::Error`].
pub fn pieces(export: &mut dyn Export) -> BoxStream<'_, io::Result<Bytes>> {
    try_unfold(export, |export| async move {
        let piece = export.next().await.map_err(io::Error::other)?;
        Ok(piece.map(|piece| (piece, export)))
    })
    .boxed()
}

/// Why an archive is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// A path that begins at the root.
    Absolute,
    /// A path with `..`.
    Climbs,
    /// A path or the name of a component is too long, or there are too many components.
    NameTooLong,
    /// A path that is none: empty, or with a zero byte.
    NameMalformed,
    /// A path that leads through a symbolic link.
    ThroughLink,
    /// A path whose directory does not come before it.
    NoParent,
    /// A path that comes twice.
    Duplicate,
    /// A hard link to something outside of the workspace.
    LinkEscapes,
    /// A hard link to what is no file of this archive.
    LinkMissing,
    /// A device, a FIFO or a socket.
    Device,
    /// A kind of entry that no export of ours has.
    UnknownKind,
    /// A header that is none, has a wrong sum, or says what no export of ours says.
    Malformed,
    /// It ends before its end.
    Truncated,
    /// More entries than allowed.
    TooManyEntries,
    /// More bytes than allowed.
    TooLarge,
    /// The workspace is not empty.
    NotEmpty,
}

impl Rule {
    /// Its stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Absolute => "absolute",
            Self::Climbs => "climbs",
            Self::NameTooLong => "name_too_long",
            Self::NameMalformed => "name_malformed",
            Self::ThroughLink => "through_link",
            Self::NoParent => "no_parent",
            Self::Duplicate => "duplicate",
            Self::LinkEscapes => "link_escapes",
            Self::LinkMissing => "link_missing",
            Self::Device => "device",
            Self::UnknownKind => "unknown_kind",
            Self::Malformed => "malformed",
            Self::Truncated => "truncated",
            Self::TooManyEntries => "too_many_entries",
            Self::TooLarge => "too_large",
            Self::NotEmpty => "not_empty",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
