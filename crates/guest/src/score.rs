//! Whom the kernel kills when a sandbox's memory is full: a command before PID 1. Much of what a command takes is counted to
//! no process (files in memory, full pipes), so by size alone PID 1 could seem the largest, and all would end with it.
//!
//! A process inherits its score and may always make it worse, so PID 1 takes the worst one for the moment in which it forks.
//! A command may take its own back to what PID 1 has; then it may be PID 1 that goes, and that sandbox with it: nobody else.

use crate::sys::Forked;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::os::fd::OwnedFd;

/// The kernel's file for the score of the process that opens it.
const FILE: &str = "/proc/self/oom_score_adj";
/// The worst score: whoever has it goes first.
const FIRST_TO_GO: &str = "1000";

/// PID 1's hold on its own score, which it could not open any more once it hides.
#[derive(Debug)]
pub struct Score {
    file: OwnedFd,
    own: String,
}

impl Score {
    /// The calling process's.
    ///
    /// # Errors
    /// What the kernel says when there is no such file, or not for this process.
    pub fn own() -> Result<Self, Errno> {
        let file = rustix::fs::open(FILE, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        let mut bytes = [0; 16];
        let length = rustix::io::pread(&file, &mut bytes, 0)?;
        let own = String::from_utf8_lossy(&bytes[..length]).trim().to_owned();
        Ok(Self { file, own })
    }

    /// Forks, as `fork` says, a child that goes before this process does. A score that can't be set is no reason not to fork.
    pub(crate) fn fork(score: Option<&Self>, fork: impl FnOnce() -> Result<Forked, Errno>) -> Result<Forked, Errno> {
        let set = |value: &str| score.map(|score| rustix::io::pwrite(&score.file, value.as_bytes(), 0));
        set(FIRST_TO_GO);
        let forked = fork();
        if !matches!(forked, Ok(Forked::Child)) {
            set(score.map_or("", |score| &score.own));
        }
        forked
    }
}
