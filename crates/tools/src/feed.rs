//! Writing to a process while it writes too. Input is given in pieces that arrive whole or not at all, and output is taken
//! in between: a process that stops reading until somebody reads what it wrote is not stuck.

use bytes::Bytes;
use futures::FutureExt;
use sandbox::{Chunk, Error, Process};
use std::time::Duration;
use tokio::time::timeout;

/// Bytes written at once. A write of so many is whole or, when it is given up, did not happen (`PIPE_BUF`).
pub(crate) const PIECE_BYTES_MAX: usize = 4_096;
/// A write is tried for so long before output is looked for.
const TRY_MS: u64 = 20;
/// A process that neither reads nor writes for so long is stuck.
const STUCK_MS_MAX: u64 = 2_000;
/// Pieces of output taken between two writes at most.
const TAKEN_MAX: usize = 64;

/// What became of a piece.
#[derive(Debug)]
pub(crate) enum Fed {
    Written,
    /// The process ended; its end was handed to `take`.
    Ended,
    /// It did not read, and the piece was not written.
    Stuck,
}

/// Writes one piece of at most [`PIECE_BYTES_MAX`]; what the process writes meanwhile goes to `take`.
pub(crate) async fn feed(
    process: &mut dyn Process,
    piece: Bytes,
    take: &mut (dyn FnMut(Chunk) + Send),
) -> Result<Fed, Error> {
    let mut tries_left = STUCK_MS_MAX / TRY_MS;
    loop {
        for _ in 0..TAKEN_MAX {
            let Some(chunk) = process.next().now_or_never() else { break };
            tries_left = STUCK_MS_MAX / TRY_MS;
            let chunk = chunk?;
            let ended = matches!(chunk, Chunk::Exit(_));
            take(chunk);
            if ended {
                return Ok(Fed::Ended);
            }
        }
        match timeout(Duration::from_millis(TRY_MS), process.write(piece.clone())).await {
            Ok(written) => return written.map(|()| Fed::Written),
            Err(_) if tries_left == 0 => return Ok(Fed::Stuck),
            Err(_) => tries_left -= 1,
        }
    }
}
