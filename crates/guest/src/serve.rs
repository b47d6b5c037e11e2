//! PID 1's loop: one poll over the socket, the children's ends and their descriptors. Nothing here blocks, and every buffer
//! has a bound: output is read only while the socket keeps up and its command has credit.

use crate::command::{Command, Ending, Took};
use crate::halt::Halt;
use crate::mirror::Others;
use crate::sys::{self, Forked};
use crate::{Config, mirror, spawn};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, WaitStatus};
use rustix::time::ClockId;
use sandbox::Exit;
use sandbox::wire::{self, Head, Kind, Refusal, Start, Work};
use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, OwnedFd};

/// Output waiting for the socket above which no more is read from commands.
const OUTGOING_BYTES_MAX: usize = 256 << 10;
/// What is read from the socket at once.
const INCOMING_BYTES: usize = 64 << 10;

/// What an export gets beyond its own limit, so that the asker's clock runs out first and says why.
const EXPORT_SLACK_MS: u64 = 1_000;

/// What one poll slot stands for.
#[derive(Clone, Copy)]
enum Slot {
    Socket,
    Signals,
    StartErrors(u32),
    Source(u32, usize),
    Input(u32),
}

/// Why the loop ends.
struct Ended;

#[derive(Debug)]
pub(crate) struct Serve {
    config: Config,
    signals: OwnedFd,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
    sent: usize,
    commands: BTreeMap<u32, Command>,
    epoch: u64,
    saving: Option<Pid>,
    unsaved: bool,
    /// The export that runs, and what it has halted.
    halted: Option<(u32, Halt)>,
}

impl Serve {
    pub(crate) fn new(config: Config) -> Result<Self, Errno> {
        rustix::io::ioctl_fionbio(&config.socket, true)?;
        let signals = sys::child_signals()?;
        let mut outgoing = Vec::new();
        wire::put(&mut outgoing, Kind::Ready, 0, &wire::VERSION.to_le_bytes());
        let epoch = config.epoch;
        let (incoming, commands) = (Vec::new(), BTreeMap::new());
        Ok(Self {
            config,
            signals,
            incoming,
            outgoing,
            sent: 0,
            commands,
            epoch,
            saving: None,
            unsaved: false,
            halted: None,
        })
    }

    pub(crate) fn run(&mut self) -> i32 {
        while self.turn().is_ok() {}
        self.shut_down()
    }

    fn turn(&mut self) -> Result<(), Ended> {
        self.flush()?;
        let ready = self.wait().map_err(|_| Ended)?;
        for (slot, events) in ready {
            match slot {
                Slot::Socket if events.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) => self.receive()?,
                Slot::Socket => {}
                Slot::Signals => self.reap(),
                Slot::StartErrors(id) => self.learn_start(id),
                Slot::Source(id, index) => self.pump(id, index),
                Slot::Input(id) => self.feed(id),
            }
        }
        self.settle();
        Ok(())
    }

    /// Polls for what can be done; a command without credit or a full socket leaves its sources out.
    fn wait(&self) -> Result<Vec<(Slot, PollFlags)>, Errno> {
        let mut slots = vec![Slot::Socket, Slot::Signals];
        let socket = if self.outgoing.is_empty() { PollFlags::IN } else { PollFlags::IN | PollFlags::OUT };
        let mut polled = vec![PollFd::new(&self.config.socket, socket), PollFd::new(&self.signals, PollFlags::IN)];
        let room = self.outgoing.len() - self.sent < OUTGOING_BYTES_MAX;
        for (id, command) in &self.commands {
            if let Some(errors) = &command.start_errors {
                slots.push(Slot::StartErrors(*id));
                polled.push(PollFd::new(errors, PollFlags::IN));
            }
            if room && command.may_send() {
                for (index, source) in command.sources.iter().enumerate() {
                    slots.push(Slot::Source(*id, index));
                    polled.push(PollFd::new(&source.fd, PollFlags::IN));
                }
            }
            if let Some(input) = command.input.as_ref().filter(|_| !command.input_queue.is_empty()) {
                slots.push(Slot::Input(*id));
                polled.push(PollFd::new(input, PollFlags::OUT));
            }
        }
        let timeout = self.next_moment_ms().map(|ends| {
            let wait = ends.saturating_sub(now_ms());
            Timespec {
                tv_sec: i64::try_from(wait / 1_000).unwrap_or(1),
                tv_nsec: 1_000_000 * i64::try_from(wait % 1_000).unwrap_or(0),
            }
        });
        match rustix::event::poll(&mut polled, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
        let ready = slots.into_iter().zip(&polled).filter(|(_, fd)| !fd.revents().is_empty());
        // From the last source to the first, so that removing one does not move those still to come.
        let mut ready: Vec<_> = ready.map(|(slot, fd)| (slot, fd.revents())).collect();
        ready.reverse();
        Ok(ready)
    }

    fn next_moment_ms(&self) -> Option<u64> {
        let running = self.commands.values().filter(|command| command.exit.is_none());
        let deadlines = running.filter_map(|command| command.export.map(|ending| ending.deadline_ms));
        self.commands.values().filter_map(Command::grace_ends_ms).chain(deadlines).min()
    }

    /// Writes what the socket takes.
    fn flush(&mut self) -> Result<(), Ended> {
        while self.sent < self.outgoing.len() {
            match rustix::net::send(&self.config.socket, &self.outgoing[self.sent..], rustix::net::SendFlags::NOSIGNAL)
            {
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

    fn receive(&mut self) -> Result<(), Ended> {
        let start = self.incoming.len();
        self.incoming.resize(start + INCOMING_BYTES, 0);
        let read = rustix::io::read(&self.config.socket, &mut self.incoming[start..]);
        self.incoming.truncate(start + *read.as_ref().unwrap_or(&0));
        match read {
            Ok(0) => return Err(Ended),
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => return Err(Ended),
        }
        let mut incoming = std::mem::take(&mut self.incoming);
        let mut used = 0;
        while let Some(bytes) = incoming.get(used..used + wire::HEAD_BYTES) {
            let head = bytes.try_into().map_err(|_| Ended)?;
            let head = Head::from_bytes(head).map_err(|_| Ended)?;
            let from = used + wire::HEAD_BYTES;
            let Some(payload) = incoming.get(from..from + head.length) else { break };
            self.handle(head, payload)?;
            used = from + head.length;
        }
        incoming.drain(..used);
        self.incoming = incoming;
        Ok(())
    }

    fn handle(&mut self, head: Head, payload: &[u8]) -> Result<(), Ended> {
        if head.kind == Kind::Start {
            return self.start(head.command, payload);
        }
        // Frames for a command that just ended are no fault.
        let Some(command) = self.commands.get_mut(&head.command) else { return Ok(()) };
        match head.kind {
            Kind::Input => {
                let taken_before = command.input_queue.len();
                command.queue_input(payload).map_err(|()| Ended)?;
                let dropped = payload.len() - (command.input_queue.len() - taken_before);
                self.give_input_credit(head.command, wire::FRAME_COST_BYTES + dropped);
            }
            Kind::InputEnd => {
                command.end_input();
                command.close_ended_input();
            }
            Kind::Resize => {
                let [a, b, c, d] = payload.try_into().map_err(|_| Ended)?;
                let (rows, columns) = (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]));
                let size = rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
                if let Some(terminal) = &command.terminal {
                    let _ = rustix::termios::tcsetwinsize(terminal, size);
                }
            }
            Kind::Kill => {
                command.end(now_ms());
                self.go_on_before(head.command);
            }
            Kind::Credit => {
                let credit = wire::number(payload).ok_or(Ended)? as usize;
                command.credit = (command.credit + credit).min(wire::WINDOW_BYTES);
            }
            _ => return Err(Ended),
        }
        Ok(())
    }

    fn start(&mut self, id: u32, payload: &[u8]) -> Result<(), Ended> {
        let asked: Start = serde_json::from_slice(payload).map_err(|_| Ended)?;
        let refusal = if asked.epoch < self.epoch {
            Some(format!("stale lease: epoch {} came after epoch {}", asked.epoch, self.epoch))
        } else if self.commands.contains_key(&id) {
            return Err(Ended);
        } else if self.commands.len() >= self.config.commands_max {
            Some(format!("too many commands at once: commands_max = {}", self.config.commands_max))
        } else {
            self.epoch = asked.epoch;
            match self.spawn(id, asked.work) {
                Ok(command) => {
                    if command.start_errors.is_none() {
                        wire::put(&mut self.outgoing, Kind::Started, id, &[]);
                    }
                    self.commands.insert(id, command);
                    None
                }
                Err(detail) => Some(detail),
            }
        };
        if let Some(detail) = refusal {
            self.refuse(id, detail);
        }
        Ok(())
    }

    /// Starts the work; for an export, everything that runs is halted first.
    fn spawn(&mut self, id: u32, work: Work) -> Result<Command, String> {
        let Work::Export { limits } = &work else { return spawn::start(&self.config, work) };
        if self.commands.values().any(|command| command.export.is_some()) {
            return Err("an export is under way".to_owned());
        }
        let deadline_ms = now_ms().saturating_add(limits.duration_ms_max).saturating_add(EXPORT_SLACK_MS);
        self.halted = Some((id, Halt::begin()));
        let started = spawn::start(&self.config, work);
        if started.is_err() {
            self.go_on_after(id);
        }
        started.map(|command| Command { export: Some(Ending::new(deadline_ms)), ..command })
    }

    /// Lets everything go on that this export has halted, though it may not be gone yet. Until it sees that it was given up
    /// it may halt something once more, so its end lets go on again.
    fn go_on_before(&self, id: u32) {
        if let Some((_, halt)) = self.halted.as_ref().filter(|(export, _)| *export == id) {
            halt.end();
        }
    }

    /// Lets everything go on: the export is gone.
    fn go_on_after(&mut self, id: u32) {
        if let Some((_, halt)) = self.halted.take_if(|(export, _)| *export == id) {
            halt.end();
        }
    }

    fn refuse(&mut self, id: u32, detail: String) {
        let payload = serde_json::to_vec(&Refusal { detail }).unwrap_or_default();
        wire::put(&mut self.outgoing, Kind::Refused, id, &payload);
    }

    /// The pipe of start errors ended: the program runs, or its failure is read.
    fn learn_start(&mut self, id: u32) {
        let Some(command) = self.commands.get_mut(&id) else { return };
        let Some(errors) = &command.start_errors else { return };
        let mut failure = [0; 4_096];
        match rustix::io::read(errors, &mut failure) {
            Ok(0) => {
                command.start_errors = None;
                wire::put(&mut self.outgoing, Kind::Started, id, &[]);
            }
            Ok(length) => {
                command.kill();
                self.commands.remove(&id);
                self.refuse(id, String::from_utf8_lossy(&failure[..length]).into_owned());
            }
            Err(_) => {}
        }
    }

    fn pump(&mut self, id: u32, index: usize) {
        let Some(command) = self.commands.get_mut(&id) else { return };
        let mut buffer = [0; wire::DATA_BYTES_MAX];
        let took = command.take(index, &mut buffer);
        if let (Took::Bytes(length), Some(source)) = (&took, command.sources.get(index)) {
            wire::put(&mut self.outgoing, source.kind, id, &buffer[..*length]);
        }
        if (matches!(took, Took::End) || command.is_drained(index)) && index < command.sources.len() {
            command.sources.remove(index);
        }
    }

    fn feed(&mut self, id: u32) {
        let Some(command) = self.commands.get_mut(&id) else { return };
        let written = command.write_input();
        self.give_input_credit(id, written);
    }

    fn give_input_credit(&mut self, id: u32, credit: usize) {
        if credit > 0 {
            let credit = u32::try_from(credit).unwrap_or(u32::MAX);
            wire::put(&mut self.outgoing, Kind::InputCredit, id, &credit.to_le_bytes());
        }
    }

    /// Takes every child that ended; those that are no command's were orphans.
    fn reap(&mut self) {
        let mut signal = [0; 128];
        while rustix::io::read(&self.signals, &mut signal).is_ok_and(|length| length > 0) {}
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            let Some(exit) = exit_of(status) else { continue };
            if self.saving == Some(pid) {
                self.saving = None;
            }
            let ended = self.commands.iter_mut().find(|(_, command)| command.pid == pid);
            if let Some((id, command)) = ended {
                command.exit = Some(exit);
                command.ended_ms = Some(now_ms());
                self.unsaved |= command.writes;
                let id = *id;
                self.go_on_after(id);
            }
        }
    }

    /// Announces commands that are over, and saves what they may have changed.
    fn settle(&mut self) {
        let now = now_ms();
        let mut late = Vec::new();
        for (id, command) in &mut self.commands {
            command.end_grace(now);
            if command.exit.is_none() && command.export.is_some_and(|ending| now >= ending.deadline_ms) {
                command.end(now);
                late.push(*id);
            }
        }
        late.into_iter().for_each(|id| self.go_on_before(id));
        let over: Vec<u32> = self.commands.iter().filter(|(_, command)| command.is_over()).map(|(id, _)| *id).collect();
        for id in over {
            if let Some(exit) = self.commands.remove(&id).and_then(|command| command.exit) {
                wire::put(&mut self.outgoing, Kind::Exit, id, &wire::exit_bytes(exit));
            }
        }
        if self.unsaved && self.saving.is_none() {
            self.unsaved = false;
            self.save();
        }
    }

    /// Starts a child that saves the layer; the programs go on meanwhile.
    fn save(&mut self) {
        let Some(layer) = &self.config.layer else { return };
        match sys::fork() {
            Ok(Forked::Child) => {
                let saved = mirror::save(layer.directory.as_fd(), layer.budget, Others::Running);
                sys::exit_now(i32::from(saved.is_err()))
            }
            Ok(Forked::Parent(pid)) => self.saving = Some(pid),
            // The process limit is reached; the end of another command brings the next attempt.
            Err(_) => self.unsaved = true,
        }
    }

    /// Kills everything else inside, then saves the layer with nobody writing.
    fn shut_down(&mut self) -> i32 {
        sys::kill_all();
        while rustix::process::wait(WaitOptions::empty()).is_ok() {}
        match &self.config.layer {
            Some(layer) => i32::from(mirror::save(layer.directory.as_fd(), layer.budget, Others::None).is_err()),
            None => 0,
        }
    }
}

fn exit_of(status: WaitStatus) -> Option<Exit> {
    status.exit_status().map(Exit::Code).or_else(|| status.terminating_signal().map(Exit::Signal))
}

fn now_ms() -> u64 {
    let now = rustix::time::clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000_000
}
