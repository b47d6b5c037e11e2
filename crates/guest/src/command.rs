//! One command as PID 1 keeps it: its descriptors, its credit, and when it has ended. No polling and no frames' transport.

use crate::dial::Connection;
use crate::output::{Output, Reader};
use crate::sys;
use rustix::io::Errno;
use rustix::process::Pid;
use sandbox::wire::{self, Kind};
use sandbox::{Exit, KeptCommand};
use std::collections::VecDeque;
use std::os::fd::OwnedFd;

/// How long a process that outlives the command may hold its output open before the command counts as ended.
pub(crate) const GRACE_MS: u64 = 1_000;
/// How long an export may take to end after its output was closed.
const UNWIND_MS: u64 = 2_000;
const SIGKILL: i32 = 9;
/// What a terminal reads as end of input (Ctrl-D).
const END_OF_INPUT: u8 = 4;

/// Something that is read until it ends.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) fd: OwnedFd,
    pub(crate) kind: Kind,
    /// After the grace: what was waiting then and is still to be delivered.
    left: Option<usize>,
}

impl Source {
    pub(crate) fn new(fd: OwnedFd, kind: Kind) -> Self {
        Self { fd, kind, left: None }
    }
}

/// A running command.
#[derive(Debug)]
pub(crate) struct Command {
    /// Leader of its session and process group; `None`: PID 1 does it itself.
    pub(crate) pid: Option<Pid>,
    /// What it is then.
    pub(crate) connection: Option<Connection>,
    /// Where the child says that it could not execute; closed by the exec.
    pub(crate) start_errors: Option<OwnedFd>,
    /// At most two: a terminal, or the pipes.
    pub(crate) sources: Vec<Source>,
    pub(crate) input: Option<OwnedFd>,
    pub(crate) input_queue: VecDeque<u8>,
    pub(crate) input_ended: bool,
    /// Bytes of the queue that are ours, for which the other side gets no credit.
    pub(crate) input_own: usize,
    /// Whether it has a terminal, and that for resizing.
    pub(crate) terminal: Option<OwnedFd>,
    /// What it may still send, in bytes of cost.
    pub(crate) credit: usize,
    pub(crate) exit: Option<Exit>,
    pub(crate) ended_ms: Option<u64>,
    /// Whether it may have changed files.
    pub(crate) writes: bool,
    /// For an export, how it ends.
    pub(crate) export: Option<Ending>,
    /// Under which name it outlives its stream.
    pub(crate) name: Option<String>,
    /// What it gave, when it has a name.
    pub(crate) output: Output,
    /// Whether the present stream has it.
    pub(crate) is_attached: bool,
    /// Whether the present stream was told of its end.
    pub(crate) is_told: bool,
    /// Whether nobody will ask for it again.
    pub(crate) is_given_up: bool,
}

/// How an export ends that does not end by itself: it is not killed at once, so that it can put back what it has changed to
/// read a file, but sees its output closed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ending {
    /// When it must be over.
    pub(crate) deadline_ms: u64,
    /// Whether its output is closed already: after the deadline it is then killed.
    closed: bool,
}

impl Ending {
    pub(crate) const fn new(deadline_ms: u64) -> Self {
        Self { deadline_ms, closed: false }
    }
}

/// What one read of a source gave.
pub(crate) enum Took {
    /// So many bytes.
    Bytes(usize),
    /// Nothing now.
    Nothing,
    /// The end.
    End,
}

impl Command {
    /// Whether there is room for output: on the stream, or, for one with a name, among what is kept.
    pub(crate) fn may_give(&self, room: bool, spare: usize) -> bool {
        let has_room = match self.name {
            Some(_) if self.is_attached => self.output.has_room(Reader::AtHand, spare),
            Some(_) => self.output.has_room(Reader::Gone, spare),
            None => room && self.credit > wire::FRAME_COST_BYTES,
        };
        self.start_errors.is_none() && has_room
    }

    /// What the harness learns of it, when it has a name that can be asked for.
    pub(crate) fn kept(&self) -> Option<KeptCommand> {
        let name = self.name.clone().filter(|_| !self.is_given_up)?;
        let exit = self.exit.filter(|_| self.is_over());
        let (from, to) = (self.output.from(), self.output.to());
        Some(KeptCommand { name, terminal: self.terminal.is_some(), from, to, exit })
    }

    /// Takes what source `index` has; without a name, within the credit.
    pub(crate) fn take(&mut self, index: usize, buffer: &mut [u8]) -> Took {
        let Some(source) = self.sources.get_mut(index) else { return Took::Nothing };
        let room = match self.name {
            Some(_) => buffer.len(),
            None => self.credit.saturating_sub(wire::FRAME_COST_BYTES).min(buffer.len()),
        };
        let room = source.left.map_or(room, |left| room.min(left));
        let read = rustix::io::read(&source.fd, &mut buffer[..room]);
        match read {
            Ok(0) => Took::End,
            Ok(taken) => {
                if self.name.is_none() {
                    self.credit -= wire::cost(taken);
                }
                if let Some(left) = &mut source.left {
                    *left -= taken;
                }
                Took::Bytes(taken)
            }
            Err(Errno::AGAIN | Errno::INTR) if source.left.is_some() => Took::End,
            Err(Errno::AGAIN | Errno::INTR) => Took::Nothing,
            // A terminal says EIO when its other side is closed by all.
            Err(_) => {
                if let Some(connection) = &mut self.connection {
                    connection.is_reset = true;
                }
                Took::End
            }
        }
    }

    /// Whether source `index` has delivered all that it may.
    pub(crate) fn is_drained(&self, index: usize) -> bool {
        self.sources.get(index).is_some_and(|source| source.left == Some(0))
    }

    /// When the grace is over: from now on only what already waits is delivered.
    pub(crate) fn end_grace(&mut self, now_ms: u64) {
        let over = self.ended_ms.is_some_and(|ended| now_ms >= ended + GRACE_MS);
        if !over {
            return;
        }
        for source in &mut self.sources {
            if source.left.is_none() {
                let waiting = rustix::io::ioctl_fionread(&source.fd).unwrap_or(0);
                source.left = Some(usize::try_from(waiting).unwrap_or(0));
            }
        }
        self.sources.retain(|source| source.left != Some(0));
    }

    /// The moment at which the grace ends, when one runs.
    pub(crate) fn grace_ends_ms(&self) -> Option<u64> {
        let runs = self.sources.iter().any(|source| source.left.is_none());
        self.ended_ms.filter(|_| runs).map(|ended| ended + GRACE_MS)
    }

    /// Until when something must have taken a connection that nothing has taken yet.
    pub(crate) fn connect_deadline_ms(&self) -> Option<u64> {
        let pending = self.connection.as_ref()?.pending.as_ref()?;
        self.exit.is_none().then_some(pending.deadline_ms)
    }

    /// Whether it is known to run.
    pub(crate) fn is_started(&self) -> bool {
        self.start_errors.is_none() && self.connection.as_ref().is_none_or(|connection| connection.pending.is_none())
    }

    /// The other side of a connection has ended, and with it the connection.
    pub(crate) fn end_connection(&mut self, now_ms: u64) {
        if let Some(connection) = self.connection.as_ref().filter(|_| self.sources.is_empty() && self.exit.is_none()) {
            self.exit = Some(Exit::Code(i32::from(connection.is_reset)));
            self.ended_ms = Some(now_ms);
        }
    }

    /// Whether it ended and everything was delivered.
    pub(crate) fn is_over(&self) -> bool {
        self.exit.is_some() && self.sources.is_empty() && self.start_errors.is_none()
    }

    /// Queues bytes for its stdin; `Err` when the other side sent more than its credit.
    pub(crate) fn queue_input(&mut self, bytes: &[u8]) -> Result<(), ()> {
        if self.input_queue.len() + bytes.len() > wire::WINDOW_BYTES {
            return Err(());
        }
        if self.input.is_some() && !self.input_ended {
            self.input_queue.extend(bytes);
        }
        Ok(())
    }

    /// No more input comes.
    pub(crate) fn end_input(&mut self) {
        if self.terminal.is_some() {
            if self.input_queue.len() < wire::WINDOW_BYTES {
                self.input_queue.push_back(END_OF_INPUT);
                self.input_own += 1;
            }
        } else {
            self.input_ended = true;
        }
    }

    /// Writes what its stdin takes; returns the credit to give back.
    pub(crate) fn write_input(&mut self) -> usize {
        let Some(input) = &self.input else { return 0 };
        let (first, _) = self.input_queue.as_slices();
        let gone = match rustix::io::write(input, first) {
            Ok(written) => self.input_queue.drain(..written).len(),
            Err(Errno::AGAIN | Errno::INTR) => 0,
            // It closed its stdin: what was meant for it is dropped, as with a pipe's reader that is gone.
            Err(_) => {
                self.input = None;
                self.input_queue.drain(..).len()
            }
        };
        self.close_ended_input();
        let own = gone.min(self.input_own);
        self.input_own -= own;
        gone - own
    }

    /// Closes stdin once all of it was written.
    pub(crate) fn close_ended_input(&mut self) {
        if self.input_ended && self.input_queue.is_empty() && self.input.take().is_some() {
            self.connection.iter().for_each(Connection::end_writing);
        }
    }

    /// Kills it as [`Command::kill`] does; an export is given some time to end.
    pub(crate) fn end(&mut self, now_ms: u64) {
        match &mut self.export {
            Some(ending) if !ending.closed => {
                *ending = Ending { deadline_ms: now_ms + UNWIND_MS, closed: true };
                self.sources.clear();
                self.input = None;
            }
            _ => self.kill(),
        }
    }

    /// Kills it and all of its session, and forgets what it wrote.
    pub(crate) fn kill(&mut self) {
        match self.pid.map(|pid| pid.as_raw_nonzero().get()) {
            Some(leader) => {
                // After the leader was reaped its number may name another; the session's members still carry it, though.
                if self.exit.is_none() {
                    sys::kill(-leader);
                    sys::kill(leader);
                }
                kill_session(leader);
            }
            None => drop(self.exit.get_or_insert(Exit::Signal(SIGKILL))),
        }
        self.sources.clear();
        self.input = None;
        self.input_queue.clear();
    }
}

/// Kills all processes of a session, in a bounded number of passes: what forks faster dies with the sandbox.
fn kill_session(session: i32) {
    const PASSES_MAX: usize = 16;
    for _ in 0..PASSES_MAX {
        let members = session_members(session);
        if members.is_empty() {
            return;
        }
        for member in members {
            sys::kill(member);
        }
    }
}

fn session_members(session: i32) -> Vec<i32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let numbers = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    numbers.filter(|pid| *pid > 1 && session_of(*pid) == Some(session)).collect()
}

/// The session of a process that is not yet dead.
fn session_of(pid: i32) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, so count from its end: state, parent, group, session.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    let session = fields.nth(2)?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some(session)
}
