//! Whole files out of a sandbox, bounded.

use bytes::{Bytes, BytesMut};
use sandbox::{FileKind, RelPath, Sandbox, Stat};

/// Why a file could not be read whole.
#[derive(Debug)]
pub(crate) enum Unread {
    Missing,
    /// What stands there is no regular file.
    Kind(&'static str),
    TooLarge(u64),
    Sandbox(sandbox::Error),
}

/// Reads a regular file of at most `bytes_max`.
pub(crate) async fn read(sandbox: &dyn Sandbox, path: &RelPath, bytes_max: u64) -> Result<(Bytes, Stat), Unread> {
    let failed = |error| match error {
        sandbox::Error::File { missing: true, .. } => Unread::Missing,
        error => Unread::Sandbox(error),
    };
    let stat = sandbox.stat(path).await.map_err(failed)?;
    match stat.kind {
        FileKind::File => {}
        FileKind::Directory => return Err(Unread::Kind("a directory")),
        FileKind::Link => return Err(Unread::Kind("a symbolic link")),
        FileKind::Other => return Err(Unread::Kind("no regular file")),
    }
    if stat.bytes > bytes_max {
        return Err(Unread::TooLarge(stat.bytes));
    }
    let mut whole = BytesMut::new();
    loop {
        let offset = u64::try_from(whole.len()).unwrap_or(u64::MAX);
        // One more than allowed, so that a file that grows meanwhile is noticed.
        let left = bytes_max.saturating_add(1).saturating_sub(offset);
        let piece = sandbox.read(path, offset, left).await.map_err(failed)?;
        if piece.is_empty() {
            return Ok((whole.freeze(), stat));
        }
        whole.extend_from_slice(&piece);
        let length = u64::try_from(whole.len()).unwrap_or(u64::MAX);
        if length > bytes_max {
            return Err(Unread::TooLarge(length));
        }
        // Files in /workspace are regular, so at the length it had the end is reached.
        if length == stat.bytes {
            return Ok((whole.freeze(), stat));
        }
    }
}
