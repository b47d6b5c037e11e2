//! What the harness asks for over its stream, and what PID 1 does for it. A frame that breaks the wire's rules ends the stream.

use crate::command::Command;
use crate::halt::Halt;
use crate::line::Ended;
use crate::serve::{Serve, export_ending, now_ms};
use crate::spawn;
use sandbox::Exit;
use sandbox::port::CONNECTIONS_MAX;
use sandbox::wire::{self, Attach, Head, Kind, Refusal, Start, Work};

impl Serve {
    /// Does what every whole frame asks; gives what is left over.
    pub(crate) fn handle_all(&mut self, mut incoming: Vec<u8>) -> Result<Vec<u8>, Ended> {
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
        Ok(incoming)
    }

    fn handle(&mut self, head: Head, payload: &[u8]) -> Result<(), Ended> {
        match head.kind {
            Kind::Start => return self.start(head.command, payload),
            Kind::Attach => return self.attach(head.command, payload),
            _ => {}
        }
        // Frames for a command that just ended are no fault.
        let Some(command) = self.commands.get_mut(&head.command).filter(|command| command.is_attached) else {
            return Ok(());
        };
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
            Kind::Kill => self.kill(head.command),
            Kind::Forget => {
                command.is_given_up = command.name.is_some();
                self.kill(head.command);
            }
            Kind::Credit => {
                let (credit, read) = wire::credit_from(payload).ok_or(Ended)?;
                command.credit = command.credit.saturating_add(credit as usize).min(wire::WINDOW_BYTES);
                command.output.read_to(read);
            }
            Kind::Taken => {
                let taken = wire::position(payload).ok_or(Ended)?;
                command.output.take_to(taken);
                if command.is_told && taken > command.output.to() {
                    self.commands.remove(&head.command);
                }
            }
            _ => return Err(Ended),
        }
        Ok(())
    }

    fn kill(&mut self, id: u32) {
        // Of one that is over the number may be another's by now.
        if let Some(command) = self.commands.get_mut(&id).filter(|command| !command.is_over()) {
            command.output.forget_unsent();
            command.end(now_ms());
            self.go_on_before(id);
        }
    }

    fn start(&mut self, id: u32, payload: &[u8]) -> Result<(), Ended> {
        let asked: Start = serde_json::from_slice(payload).map_err(|_| Ended)?;
        // Numbers are never used twice, so that nothing on the way is for another command of the same number.
        if self.commands.contains_key(&id) || asked.name.as_deref().is_some_and(|name| !wire::is_name(name)) {
            return Err(Ended);
        }
        self.highest = self.highest.max(id);
        if let Some(detail) = self.refusal(&asked) {
            self.refuse(id, detail, None);
            return Ok(());
        }
        self.epoch = asked.epoch;
        if asked.work == Work::Commands {
            self.tell_commands(id);
            return Ok(());
        }
        match self.spawn(id, asked) {
            Ok(command) => {
                if command.is_started() {
                    self.put(Kind::Started, id, &[]);
                }
                self.commands.insert(id, command);
            }
            Err(detail) => self.refuse(id, detail, None),
        }
        Ok(())
    }

    /// Why something is not started.
    fn refusal(&self, asked: &Start) -> Option<String> {
        if let Some(stale) = self.stale(asked.epoch) {
            return Some(stale);
        }
        let dials = matches!(asked.work, Work::Dial { .. });
        let alike = |command: &&Command| command.connection.is_some() == dials && !command.is_over();
        let alive = self.commands.values().filter(alike).count();
        if dials && alive >= CONNECTIONS_MAX {
            return Some(format!("too many connections at once: connections_max = {CONNECTIONS_MAX}"));
        }
        let limit = self.config.commands_max;
        if !dials && alive >= limit {
            return Some(format!("too many commands at once: commands_max = {limit}"));
        }
        let name = asked.name.as_ref()?;
        if !matches!(asked.work, Work::Program { .. }) {
            return Some("only programs have names".to_owned());
        }
        let known = self.commands.values().filter(|command| !command.is_given_up);
        let mut named = known.filter_map(|command| command.name.as_ref());
        if named.clone().count() >= wire::NAMED_MAX {
            return Some(format!("too many named commands at once: named_max = {}", wire::NAMED_MAX));
        }
        named.any(|other| other == name).then(|| format!("a command `{name}` is there already; hint: attach to it"))
    }

    fn stale(&self, epoch: u64) -> Option<String> {
        (epoch < self.epoch).then(|| format!("stale lease: epoch {epoch} came after epoch {}", self.epoch))
    }

    fn tell_commands(&mut self, id: u32) {
        let roll = serde_json::to_vec(&self.roll()).unwrap_or_default();
        self.put(Kind::Started, id, &[]);
        for part in roll.chunks(wire::DATA_BYTES_MAX) {
            self.put(Kind::Stdout, id, part);
        }
        self.put(Kind::Exit, id, &wire::exit_bytes(Exit::Code(0)));
    }

    /// Starts the work; for an export, everything that runs is halted first.
    fn spawn(&mut self, id: u32, asked: Start) -> Result<Command, String> {
        let Start { name, work, .. } = asked;
        let Some(duration_ms_max) = work.halts_ms() else {
            let started = spawn::start(&self.config, work)?;
            return Ok(Command { name, ..started });
        };
        if self.commands.values().any(|command| command.export.is_some()) {
            return Err("an export is under way".to_owned());
        }
        let ending = export_ending(duration_ms_max);
        self.halted = Some((id, Halt::begin()));
        let started = spawn::start(&self.config, work);
        if started.is_err() {
            self.go_on_after(id);
        }
        started.map(|command| Command { export: Some(ending), ..command })
    }

    /// Gives this stream a named command.
    fn attach(&mut self, id: u32, payload: &[u8]) -> Result<(), Ended> {
        let asked: Attach = serde_json::from_slice(payload).map_err(|_| Ended)?;
        if let Some(stale) = self.stale(asked.epoch) {
            self.refuse(id, stale, None);
            return Ok(());
        }
        let free = |command: &&mut Command| command.name.is_some() && !command.is_attached && !command.is_given_up;
        let Some(command) = self.commands.get_mut(&id).filter(free) else {
            self.refuse(id, "there is no such command, or somebody has it".to_owned(), None);
            return Ok(());
        };
        if !command.output.resume(asked.from) {
            let (from, to) = (command.output.from(), command.output.to());
            self.refuse(id, format!("output is kept from position {from} to {to}"), Some(from));
            return Ok(());
        }
        self.epoch = asked.epoch;
        command.is_attached = true;
        command.credit = wire::WINDOW_BYTES;
        // What the last stream wrote and the program has not read yet still takes its room.
        let room = wire::WINDOW_BYTES.saturating_sub(command.input_queue.len());
        if command.start_errors.is_none() {
            self.put(Kind::Started, id, &[]);
        }
        self.give_input_credit(id, room);
        Ok(())
    }

    pub(crate) fn refuse(&mut self, id: u32, detail: String, kept_from: Option<u64>) {
        let payload = serde_json::to_vec(&Refusal { detail, kept_from }).unwrap_or_default();
        self.put(Kind::Refused, id, &payload);
    }
}
