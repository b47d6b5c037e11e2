//! The stream to the harness: bytes in, bytes out, both bounded. What frames mean is decided elsewhere.

use rustix::io::Errno;
use rustix::net::SendFlags;
use sandbox::wire::{self, Kind};
use std::os::fd::OwnedFd;

/// Output waiting for the socket above which no more is taken from commands.
const OUTGOING_BYTES_MAX: usize = 256 << 10;
/// What is read from the socket at once.
const INCOMING_BYTES: usize = 64 << 10;

/// The stream is over, or its other side broke a rule.
#[derive(Debug)]
pub(crate) struct Ended;

#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) socket: OwnedFd,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
    sent: usize,
}

impl Line {
    pub(crate) fn new(socket: OwnedFd) -> Result<Self, Errno> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(Self { socket, incoming: Vec::new(), outgoing: Vec::new(), sent: 0 })
    }

    pub(crate) fn put(&mut self, kind: Kind, command: u32, payload: &[u8]) {
        wire::put(&mut self.outgoing, kind, command, payload);
    }

    /// Whether more output may be put.
    pub(crate) const fn has_room(&self) -> bool {
        self.outgoing.len() - self.sent < OUTGOING_BYTES_MAX
    }

    /// Whether everything was written.
    pub(crate) const fn is_flushed(&self) -> bool {
        self.outgoing.is_empty()
    }

    /// Writes what the socket takes.
    pub(crate) fn flush(&mut self) -> Result<(), Ended> {
        while self.sent < self.outgoing.len() {
            match rustix::net::send(&self.socket, &self.outgoing[self.sent..], SendFlags::NOSIGNAL) {
                Ok(written) => self.sent += written,
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(_) => return Err(Ended),
            }
        }
        if self.sent == self.outgoing.len() {
            self.outgoing.clear();
            self.sent = 0;
        } else if self.sent > OUTGOING_BYTES_MAX {
            self.outgoing.drain(..self.sent);
            self.sent = 0;
        }
        Ok(())
    }

    /// Reads what is there; gives all that came and was not used yet.
    pub(crate) fn receive(&mut self) -> Result<Vec<u8>, Ended> {
        let start = self.incoming.len();
        self.incoming.resize(start + INCOMING_BYTES, 0);
        let read = rustix::io::read(&self.socket, &mut self.incoming[start..]);
        self.incoming.truncate(start + *read.as_ref().unwrap_or(&0));
        match read {
            Ok(0) => Err(Ended),
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => Ok(std::mem::take(&mut self.incoming)),
            Err(_) => Err(Ended),
        }
    }

    /// Keeps what is not yet a whole frame for the next time.
    pub(crate) fn keep(&mut self, rest: Vec<u8>) {
        self.incoming = rest;
    }
}
