//! The launcher's hold on PID 1: a socket over which it hands in a new stream to a harness. Its end is the end of the sandbox.

use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

/// Bytes of a message: the epoch of the lease under which the stream was asked for.
pub const MESSAGE_BYTES: usize = 8;

/// What came over it.
#[derive(Debug)]
pub(crate) enum Told {
    /// A stream, for a lease of this epoch.
    Stream(OwnedFd, u64),
    /// Nothing that counts.
    Nothing,
    /// The launcher lets go of the sandbox, or is gone.
    Ended,
}

/// Takes one message, without waiting.
pub(crate) fn receive(control: impl AsFd) -> Told {
    let mut message = [0; MESSAGE_BYTES];
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
    match streams.flatten().next() {
        _ if got == 0 => Told::Ended,
        Some(stream) if got == MESSAGE_BYTES => Told::Stream(stream, u64::from_le_bytes(message)),
        _ => Told::Nothing,
    }
}
