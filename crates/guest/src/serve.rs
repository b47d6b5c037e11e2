//! PID 1's loop: one poll over the stream, the launcher's control, the children's ends and their descriptors. Nothing here
//! blocks, and every buffer has a bound: output is read only while there is room for it. What frames ask for stands in
//! `requests`.

use crate::command::{Command, Ending, Took};
use crate::control::{self, Told};
use crate::halt::Halt;
use crate::line::{Ended, Line};
use crate::mirror::Others;
use crate::sys::{self, Forked};
use crate::{Config, dial, mirror};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, WaitStatus};
use rustix::time::ClockId;
use sandbox::Exit;
use sandbox::wire::{self, Kind};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

/// What one poll slot stands for.
#[derive(Clone, Copy)]
enum Slot {
    Control,
    Stream,
    Signals,
    StartErrors(u32),
    Connecting(u32),
    Source(u32, usize),
    Input(u32),
}

#[derive(Debug)]
pub(crate) struct Serve {
    pub(crate) config: Config,
    signals: OwnedFd,
    /// The stream to the harness, when there is one.
    pub(crate) line: Option<Line>,
    /// Whether the greeting is still to be said on it.
    greets: bool,
    pub(crate) commands: BTreeMap<u32, Command>,
    /// The highest number that a command was given.
    pub(crate) highest: u32,
    /// Ended commands that were forgotten before anybody took them.
    forgotten: u64,
    pub(crate) epoch: u64,
    saving: Option<Pid>,
    unsaved: bool,
    /// The export that runs, and what it has halted.
    pub(crate) halted: Option<(u32, Halt)>,
    /// What was just read from a command.
    buffer: Vec<u8>,
}

impl Serve {
    pub(crate) fn new(mut config: Config) -> Result<Self, Errno> {
        let line = config.stream.take().map(Line::new).transpose()?;
        let signals = sys::child_signals()?;
        let epoch = config.epoch;
        Ok(Self {
            config,
            signals,
            line,
            greets: true,
            commands: BTreeMap::new(),
            highest: 0,
            forgotten: 0,
            epoch,
            saving: None,
            unsaved: false,
            halted: None,
            buffer: vec![0; wire::DATA_BYTES_MAX],
        })
    }

    pub(crate) fn run(&mut self) -> i32 {
        while self.turn().is_ok() {}
        self.shut_down()
    }

    /// `Err`: the sandbox ends.
    fn turn(&mut self) -> Result<(), Ended> {
        self.settle();
        self.speak();
        let ready = self.wait().map_err(|_| Ended)?;
        for (slot, events) in ready {
            match slot {
                Slot::Control => self.control()?,
                Slot::Stream if events.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) => self.listen()?,
                Slot::Stream => {}
                Slot::Signals => self.reap(),
                Slot::StartErrors(id) => self.learn_start(id),
                Slot::Connecting(id) => self.learn_connection(id),
                Slot::Source(id, index) => self.pump(id, index),
                Slot::Input(id) => self.feed(id),
            }
        }
        Ok(())
    }

    /// Polls for what can be done; a command without room for its output leaves its sources out.
    fn wait(&self) -> Result<Vec<(Slot, PollFlags)>, Errno> {
        let mut slots = vec![Slot::Control, Slot::Signals];
        let mut polled =
            vec![PollFd::new(&self.config.control, PollFlags::IN), PollFd::new(&self.signals, PollFlags::IN)];
        if let Some(line) = &self.line {
            slots.push(Slot::Stream);
            let writes = if line.is_flushed() { PollFlags::empty() } else { PollFlags::OUT };
            polled.push(PollFd::new(&line.socket, PollFlags::IN | writes));
        }
        let (room, spare) = (self.line.as_ref().is_some_and(Line::has_room), self.spare());
        for (id, command) in &self.commands {
            if let Some(errors) = &command.start_errors {
                slots.push(Slot::StartErrors(*id));
                polled.push(PollFd::new(errors, PollFlags::IN));
            }
            if let Some(connection) = command.connection.as_ref().filter(|connection| connection.pending.is_some()) {
                slots.push(Slot::Connecting(*id));
                polled.push(PollFd::new(&connection.socket, PollFlags::OUT));
            }
            if command.may_give(room, spare) {
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
        let timeout = self.next_moment_ms().map(|ends| timespec(ends.saturating_sub(now_ms())));
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
        let connects = self.commands.values().filter_map(Command::connect_deadline_ms);
        self.commands.values().filter_map(Command::grace_ends_ms).chain(deadlines).chain(connects).min()
    }

    /// What all commands together may still keep.
    fn spare(&self) -> usize {
        let unread: usize = self.commands.values().map(|command| command.output.unread()).sum();
        self.config.kept_bytes_max.saturating_sub(unread)
    }

    pub(crate) fn put(&mut self, kind: Kind, command: u32, payload: &[u8]) {
        if let Some(line) = &mut self.line {
            line.put(kind, command, payload);
        }
    }

    /// Gives the stream what it takes of what commands gave.
    fn speak(&mut self) {
        loop {
            let gave = self.deliver();
            let Some(line) = &mut self.line else { return };
            if line.flush().is_err() {
                return self.detach();
            }
            if !gave || !line.is_flushed() {
                return;
            }
        }
    }

    /// Puts what attached commands have, within their credit and the room; whether there was something.
    fn deliver(&mut self) -> bool {
        let Some(line) = &mut self.line else { return false };
        let mut gave = false;
        for (id, command) in self.commands.iter_mut().filter(|(_, command)| command.is_attached) {
            while line.has_room() {
                let room = command.credit.saturating_sub(wire::FRAME_COST_BYTES).min(wire::DATA_BYTES_MAX);
                let Some((kind, bytes)) = command.output.next(room) else { break };
                line.put(kind, *id, bytes);
                let length = bytes.len();
                command.output.sent(length);
                command.credit -= wire::cost(length);
                gave = true;
            }
            if let Some(exit) =
                command.exit.filter(|_| command.is_over() && command.output.is_sent() && !command.is_told)
            {
                line.put(Kind::Exit, *id, &wire::exit_bytes(exit));
                command.is_told = true;
                gave = true;
            }
        }
        gave
    }

    /// Reads what the harness asks, and does it.
    fn listen(&mut self) -> Result<(), Ended> {
        if self.config.ahead {
            // Whose it is was said before anything that whoever has it asks.
            self.control()?;
        }
        let Some(line) = &mut self.line else { return Ok(()) };
        let heard = line.receive().and_then(|incoming| self.handle_all(incoming));
        match heard {
            Ok(rest) => {
                if let Some(line) = &mut self.line {
                    line.keep(rest);
                }
            }
            // Over, or nobody who keeps the rules.
            Err(Ended) => self.detach(),
        }
        Ok(())
    }

    /// Takes a new stream from the launcher, or hears whose it is; `Err` when the launcher lets go.
    fn control(&mut self) -> Result<(), Ended> {
        match control::receive(&self.config.control) {
            Told::Nothing => Ok(()),
            Told::Ended => Err(Ended),
            Told::Claimed(claim) => {
                self.epoch = self.epoch.max(claim.epoch);
                self.config.environment = claim.environment;
                self.config.ahead = false;
                Ok(())
            }
            Told::Stream(stream, epoch) => {
                self.detach();
                self.epoch = self.epoch.max(epoch);
                // A socket that can't be set up is one that is lost.
                self.line = Line::new(stream).ok();
                self.greets = true;
                Ok(())
            }
        }
    }

    /// The stream is gone: named commands go on, all others end.
    fn detach(&mut self) {
        self.line = None;
        let mut ended = Vec::new();
        for (id, command) in &mut self.commands {
            if command.name.is_some() {
                command.is_attached = false;
                command.is_told = false;
                command.output.detach();
            } else if !command.is_given_up {
                command.is_given_up = true;
                command.end(now_ms());
                ended.push(*id);
            }
        }
        ended.into_iter().for_each(|id| self.go_on_before(id));
    }

    /// Greets on a new stream, once nothing of what ended with the last one runs any more.
    fn greet(&mut self) {
        if self.greets && !self.commands.values().any(|command| command.is_given_up) {
            self.greets = false;
            let roll = wire::ready_bytes(&self.roll());
            self.put(Kind::Ready, 0, &roll);
        }
    }

    /// What is known of named commands.
    pub(crate) fn roll(&self) -> wire::Roll {
        let kept = self.commands.iter().filter_map(|(id, command)| Some((*id, command.kept()?)));
        wire::Roll { next_command: self.highest.saturating_add(1), commands: kept.collect(), forgotten: self.forgotten }
    }

    /// Lets everything go on that this export has halted, though it may not be gone yet. Until it sees that it was given up
    /// it may halt something once more, so its end lets go on again.
    pub(crate) fn go_on_before(&self, id: u32) {
        if let Some((_, halt)) = self.halted.as_ref().filter(|(export, _)| *export == id) {
            halt.end();
        }
    }

    /// Lets everything go on: the export is gone.
    pub(crate) fn go_on_after(&mut self, id: u32) {
        if let Some((_, halt)) = self.halted.take_if(|(export, _)| *export == id) {
            halt.end();
        }
    }

    /// The pipe of start errors ended: the program runs, or its failure is read.
    fn learn_start(&mut self, id: u32) {
        let Some(command) = self.commands.get_mut(&id) else { return };
        let Some(errors) = &command.start_errors else { return };
        let is_attached = command.is_attached;
        let mut failure = [0; 4_096];
        match rustix::io::read(errors, &mut failure) {
            Ok(0) => {
                command.start_errors = None;
                if is_attached {
                    self.put(Kind::Started, id, &[]);
                }
            }
            Ok(length) => {
                command.kill();
                self.commands.remove(&id);
                if is_attached {
                    self.refuse(id, String::from_utf8_lossy(&failure[..length]).into_owned(), None);
                }
            }
            Err(_) => {}
        }
    }

    /// Something took a pending connection, or refused it.
    fn learn_connection(&mut self, id: u32) {
        let pending = self.commands.remove(&id).and_then(|command| command.connection);
        match pending.map(dial::learn) {
            Some(Ok(command)) => {
                if command.is_started() {
                    self.put(Kind::Started, id, &[]);
                }
                self.commands.insert(id, command);
            }
            Some(Err(detail)) => self.refuse(id, detail, None),
            None => {}
        }
    }

    fn pump(&mut self, id: u32, index: usize) {
        let Some(command) = self.commands.get_mut(&id) else { return };
        let took = command.take(index, &mut self.buffer);
        if let (Took::Bytes(length), Some(source)) = (&took, command.sources.get(index)) {
            let (kind, bytes) = (source.kind, &self.buffer[..*length]);
            if command.name.is_some() {
                command.output.push(kind, bytes);
            } else if let Some(line) = &mut self.line {
                line.put(kind, id, bytes);
            }
        }
        if (matches!(took, Took::End) || command.is_drained(index)) && index < command.sources.len() {
            command.sources.remove(index);
            command.end_connection(now_ms());
        }
        self.make_room();
    }

    /// Drops what was read longest ago while all outputs together are above their bound.
    fn make_room(&mut self) {
        let mut cost: usize = self.commands.values().map(|command| command.output.cost()).sum();
        while cost > self.config.kept_bytes_max {
            let freed = self.commands.values_mut().map(|command| command.output.drop_read()).sum();
            if freed == 0 {
                return;
            }
            cost = cost.saturating_sub(freed);
        }
    }

    fn feed(&mut self, id: u32) {
        let Some(command) = self.commands.get_mut(&id) else { return };
        let written = command.write_input();
        if command.is_attached {
            self.give_input_credit(id, written);
        }
    }

    pub(crate) fn give_input_credit(&mut self, id: u32, credit: usize) {
        if credit > 0 {
            let credit = u32::try_from(credit).unwrap_or(u32::MAX);
            self.put(Kind::InputCredit, id, &credit.to_le_bytes());
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
            let ended =
                self.commands.iter_mut().find(|(_, command)| command.pid == Some(pid) && command.exit.is_none());
            if let Some((id, command)) = ended {
                command.exit = Some(exit);
                command.ended_ms = Some(now_ms());
                self.unsaved |= command.writes;
                let id = *id;
                self.go_on_after(id);
            }
        }
    }

    /// Sees to commands that are over, and saves what they may have changed.
    fn settle(&mut self) {
        let now = now_ms();
        let mut late = Vec::new();
        let overdue = |command: &Command| command.connect_deadline_ms().is_some_and(|deadline| now >= deadline);
        let overdue: Vec<u32> =
            self.commands.iter().filter(|(_, command)| overdue(command)).map(|(id, _)| *id).collect();
        for id in overdue {
            self.commands.remove(&id);
            self.refuse(id, dial::late(), None);
        }
        for (id, command) in &mut self.commands {
            command.end_grace(now);
            if command.is_over() {
                // Nobody reads it any more; what was kept of the output stays.
                command.input = None;
                command.input_queue.clear();
            }
            if command.exit.is_none() && command.export.is_some_and(|ending| now >= ending.deadline_ms) {
                command.end(now);
                late.push(*id);
            }
        }
        late.into_iter().for_each(|id| self.go_on_before(id));
        let over = self.commands.iter().filter(|(_, command)| command.name.is_none() && command.is_over());
        let over: Vec<u32> = over.map(|(id, _)| *id).collect();
        for id in over {
            let ended = self.commands.remove(&id).filter(|command| !command.is_given_up);
            if let Some(exit) = ended.and_then(|command| command.exit) {
                self.put(Kind::Exit, id, &wire::exit_bytes(exit));
            }
        }
        self.forget_oldest();
        self.greet();
        if self.unsaved && self.saving.is_none() {
            self.unsaved = false;
            self.save();
        }
    }

    /// Drops named commands that nobody will ask for, and the first of too many that ended.
    fn forget_oldest(&mut self) {
        let is_done = |command: &Command| command.is_over() && (command.is_told || !command.is_attached);
        self.commands.retain(|_, command| !(command.is_given_up && command.name.is_some() && is_done(command)));
        loop {
            let ended = self.commands.iter().filter(|(_, command)| command.name.is_some() && command.is_over());
            let ended: Vec<_> = ended.map(|(id, command)| (command.ended_ms, *id, command)).collect();
            if ended.len() <= wire::ENDED_MAX {
                return;
            }
            // Who has it at hand is still to be told of its end.
            let idle = ended.iter().filter(|(_, _, command)| command.is_told || !command.is_attached);
            let Some((_, oldest)) = idle.map(|(ended, id, _)| (*ended, *id)).min() else { return };
            self.commands.remove(&oldest);
            self.forgotten += 1;
        }
    }

    /// Starts a child that saves the layer; the programs go on meanwhile.
    fn save(&mut self) {
        let Some(layer) = &self.config.layer else { return };
        match sys::fork() {
            Ok(Forked::Child) => {
                let saved = mirror::save(layer, Others::Running);
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
            Some(layer) => i32::from(mirror::save(layer, Others::None).is_err()),
            None => 0,
        }
    }
}

/// How an export ends that is begun now and may take so long.
pub(crate) fn export_ending(duration_ms_max: u64) -> Ending {
    /// What an export gets beyond its own limit, so that the asker's clock runs out first and says why.
    const EXPORT_SLACK_MS: u64 = 1_000;
    Ending::new(now_ms().saturating_add(duration_ms_max).saturating_add(EXPORT_SLACK_MS))
}

fn exit_of(status: WaitStatus) -> Option<Exit> {
    status.exit_status().map(Exit::Code).or_else(|| status.terminating_signal().map(Exit::Signal))
}

fn timespec(wait_ms: u64) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(wait_ms / 1_000).unwrap_or(1),
        tv_nsec: 1_000_000 * i64::try_from(wait_ms % 1_000).unwrap_or(0),
    }
}

pub(crate) fn now_ms() -> u64 {
    let now = rustix::time::clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000_000
}
