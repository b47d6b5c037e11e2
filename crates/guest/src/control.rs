//! The launcher's hold on PID 1: a socket over which it hands in a new stream to a harness, or says whose a sandbox is that was
//! made ahead of need. Its end is the end of the sandbox.

use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde::{Deserialize, Serialize};
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

/// Bytes of a message that a stream comes with: the epoch of the lease under which it was asked for.
pub const STREAM_BYTES: usize = 8;
/// Bytes of any message at most; what a launcher is asked for fits in as much.
const MESSAGE_BYTES_MAX: usize = 96 << 10;

/// What makes a sandbox somebody's that was made ahead of need.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The epoch of the lease under which it was asked for.
    pub epoch: u64,
    /// Variables of every program.
    pub environment: Vec<(String, String)>,
}

impl Claim {
    /// The message that says it; no stream comes beside it.
    #[must_use]
    pub fn message(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// What came over it.
#[derive(Debug)]
pub(crate) enum Told {
    /// A stream, for a lease of this epoch.
    Stream(OwnedFd, u64),
    /// Whose it is from now on.
    Claimed(Claim),
    /// Nothing that counts.
    Nothing,
    /// The launcher lets go of the sandbox, or is gone.
    Ended,
}

/// Takes one message, without waiting.
pub(crate) fn receive(control: impl AsFd) -> Told {
    let mut message = vec![0; MESSAGE_BYTES_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let got = match recvmsg(control, &mut [IoSliceMut::new(&mut message)], &mut beside, flags) {
        Ok(got) => got.bytes,
        Err(Errno::AGAIN | Errno::INTR) => return Told::Nothing,
        Err(_) => return Told::Ended,
    };
    let streams = beside.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    });
    let message = &message[..got];
    match (streams.flatten().next(), <[u8; STREAM_BYTES]>::try_from(message)) {
        _ if got == 0 => Told::Ended,
        (Some(stream), Ok(epoch)) => Told::Stream(stream, u64::from_le_bytes(epoch)),
        (Some(_), Err(_)) => Told::Nothing,
        (None, _) => serde_json::from_slice(message).map_or(Told::Nothing, Told::Claimed),
    }
}
