//! The keeper: forks a launcher anew when the one that the harness had is gone, since a harness with threads can't. It was forked
//! beside the first launcher, does nothing else, and ends with the harness.

use crate::door;
use crate::{launcher, privileges, raw};
use guest::sys::Forked;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, Shutdown, SocketFlags, SocketType, socketpair};
use std::os::fd::{AsFd as _, OwnedFd};

/// The harness's hold on its keeper, which ends with it.
#[derive(Debug)]
pub(crate) struct Keeper {
    socket: OwnedFd,
    pid: i32,
}

impl Keeper {
    /// Forks it. Only for a process without threads.
    pub(crate) fn fork() -> Result<Self, Errno> {
        let (socket, theirs) = pair()?;
        match guest::sys::fork()? {
            Forked::Parent(pid) => Ok(Self { socket, pid: pid.as_raw_nonzero().get() }),
            Forked::Child => raw::in_child(|| serve(&theirs)),
        }
    }

    /// The door of a new launcher. Waits for the keeper.
    pub(crate) fn launch(&self) -> Result<OwnedFd, Errno> {
        door::send(&self.socket, &(), &[], SendFlags::empty())?;
        let (launched, mut fds) = door::receive::<bool>(&self.socket)?.ok_or(Errno::PIPE)?;
        fds.pop().filter(|_| launched).ok_or(Errno::AGAIN)
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // One that can't be told ends when the socket goes.
        if rustix::net::shutdown(&self.socket, Shutdown::Both).is_ok() {
            raw::reap(self.pid);
        }
    }
}

fn pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

/// The keeper's life.
fn serve(harness: &OwnedFd) -> i32 {
    if launcher::withdraw(harness).is_err() {
        return 1;
    }
    privileges::name_process(c"topside-keeper");
    let mut generation = 0;
    while let Ok(Some(((), _))) = door::receive::<()>(harness) {
        // Those before it are gone, or are the system's to take when this ends.
        while matches!(rustix::process::wait(rustix::process::WaitOptions::NOHANG), Ok(Some(_))) {}
        generation += 1;
        let door = launch(generation);
        let fds: Vec<_> = door.iter().map(|door| door.as_fd()).collect();
        if door::send(harness, &door.is_ok(), &fds, SendFlags::empty()).is_err() {
            return 1;
        }
    }
    0
}

fn launch(generation: u64) -> Result<OwnedFd, Errno> {
    let (door, theirs) = pair()?;
    match guest::sys::fork()? {
        Forked::Parent(_) => Ok(door),
        Forked::Child => raw::in_child(|| launcher::serve(theirs, generation)),
    }
}
