//! A live sandbox as the harness holds it: commands and file operations over the guest's stream.

use crate::dial;
use crate::door::{Reply, Request};
use crate::export::{self, Exporting};
use crate::gate::Gate;
use crate::harbour::{Arrived, Harbour, Slot};
use crate::snapshot::{self, Stored};
use crate::trees;
use crate::wire::{Account, CLOSED, ENDED, Event, Frame, Line, Wire};
use crate::workspaces;
use async_trait::async_trait;
use bytes::{BufMut as _, Bytes, BytesMut};
use domain::{Id, id};
use sandbox::wire::{self, Attach, ChangeHead, FileFailure, Kind, Listed, Refusal, Roll, Start, Work};
use sandbox::{
    About, Archive, ArchiveLimits, Change, Checkpoint, Chunk, Command, Depth, Duplex, Error, Exit, Export, KeptCommand,
    Port, Process, RelPath, Replace, Report, Sandbox, Stat, Stream, Totals, Walls,
};
use serde::de::DeserializeOwned;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Bytes of one listing or of one read that are taken in at most.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Bytes of a file operation's failure.
const FAILURE_BYTES_MAX: usize = 64 << 10;
/// Output is credited back in portions of this size.
const CREDIT_BYTES: usize = wire::WINDOW_BYTES / 4;
/// How long the guest may take to say that a command runs.
const START_WAIT_MAX: Duration = Duration::from_secs(30);
const SIGKILL: i32 = 9;

/// A live sandbox.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) id: Id<id::Sandbox>,
    pub(crate) walls: Walls,
    pub(crate) report: Report,
    /// The newest lease that asked; file operations are asked under it.
    pub(crate) epoch: AtomicU64,
    pub(crate) memory_bytes_max: u64,
    /// What stays out of exports.
    pub(crate) left_out: Vec<RelPath>,
    pub(crate) harbour: Harbour,
    pub(crate) wire: Arc<Wire>,
    pub(crate) watch: Arc<Watch>,
    pub(crate) slot: Mutex<Option<Slot>>,
    /// Where its workspace is kept.
    pub(crate) stored: Option<Stored>,
    pub(crate) gate: Arc<Gate>,
    /// What it was made of, but for how its workspace is kept.
    pub(crate) about: About,
}

/// Asks what the memory limit did.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) harbour: Harbour,
    pub(crate) slot: u64,
    pub(crate) seen: AtomicU64,
}

impl Watch {
    async fn kills(&self) -> u64 {
        match self.harbour.ask(Request::Pressure { slot: self.slot }, Vec::new()).await {
            Ok(Arrived::Other(Reply::Pressure { kills })) => kills,
            Ok(_) | Err(_) => 0,
        }
    }

    /// Whether the memory limit killed something since the last time somebody asked.
    async fn killed(&self) -> bool {
        let kills = self.kills().await;
        self.seen.fetch_max(kills, Ordering::AcqRel) < kills
    }

    /// Why the stream ended: closed here, or what took the first process.
    async fn explain(&self, wire: &Wire) -> Error {
        match wire.gone() {
            Error::Gone { detail } if detail == ENDED && self.kills().await > 0 => {
                Error::Gone { detail: "out_of_memory".to_owned() }
            }
            why => why,
        }
    }
}

impl Live {
    pub(crate) async fn run(&self, epoch: u64, work: Work) -> Result<Running, Error> {
        self.run_named(epoch, None, work).await
    }

    async fn run_named(&self, epoch: u64, name: Option<String>, work: Work) -> Result<Running, Error> {
        let keeps = name.is_some();
        let running = self.running(self.wire.open().await?, keeps, 0);
        running.start(Start { epoch, name, work }).await
    }

    /// Kills everything inside and waits until nothing of it is left but the workspace; who uses it is told why.
    pub(crate) async fn end(&self, why: &str) {
        self.gate.end();
        let slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.wire.end(why);
        if let Some(slot) = slot {
            let _ = self.harbour.ask(slot.close(), Vec::new()).await;
        }
        if let Some(stored) = &self.stored {
            let _ = workspaces::await_release(&stored.home).await;
            stored.let_go();
        }
    }

    fn running(&self, line: Line, keeps: bool, position: u64) -> Running {
        let (wire, watch) = (Arc::clone(&self.wire), Arc::clone(&self.watch));
        let mut running = Running::new(wire, watch, self.memory_bytes_max, line);
        (running.keeps, running.position) = (keeps, position);
        running
    }

    /// What the guest knows of named commands.
    async fn roll(&self) -> Result<Roll, Error> {
        let answer = self.operate(Work::Commands, Vec::new(), &RelPath::root(), wire::PAYLOAD_BYTES_MAX).await?;
        wire::roll_from(&answer).map_err(|detail| Error::Protocol { detail: detail.to_owned() })
    }

    /// Performs a file operation and returns its output, at most `bytes_max` of it.
    pub(crate) async fn operate(
        &self,
        work: Work,
        input: Vec<Bytes>,
        path: &RelPath,
        bytes_max: usize,
    ) -> Result<Bytes, Error> {
        let operation = operation(&work);
        let failed = |detail: String| Error::File { operation, path: path.to_string(), missing: false, detail };
        let mut running = self.run(self.epoch.load(Ordering::Acquire), work).await?;
        for bytes in input {
            // An operation that has failed already takes no more; its failure is read below.
            if running.write(bytes).await.is_err() {
                break;
            }
        }
        let (mut answer, mut failure) = (BytesMut::new(), Vec::new());
        let exit = loop {
            match running.next().await? {
                Chunk::Output(Stream::Stdout, bytes) => {
                    if answer.len() + bytes.len() > bytes_max {
                        return Err(Error::Limit { limit: format!("answer_bytes_max = {bytes_max}") });
                    }
                    answer.put(bytes);
                }
                Chunk::Output(Stream::Stderr, bytes) => {
                    let room = FAILURE_BYTES_MAX.saturating_sub(failure.len());
                    failure.extend_from_slice(&bytes[..bytes.len().min(room)]);
                }
                Chunk::Exit(exit) => break exit,
            }
        };
        match exit {
            Exit::Code(0) => Ok(answer.freeze()),
            Exit::Code(_) => match serde_json::from_slice::<FileFailure>(&failure) {
                Ok(told) => Err(told.into_error(operation)),
                Err(_) => Err(failed(format!("failed: {}", String::from_utf8_lossy(&failure)))),
            },
            Exit::Signal(signal) => Err(failed(format!("killed inside by signal {signal}"))),
        }
    }

    pub(crate) async fn ask<T: DeserializeOwned>(&self, work: Work, path: &RelPath) -> Result<T, Error> {
        let answer = self.operate(work, Vec::new(), path, ANSWER_BYTES_MAX).await?;
        serde_json::from_slice(&answer).map_err(|error| Error::Protocol { detail: error.to_string() })
    }
}

const fn operation(work: &Work) -> &'static str {
    match work {
        Work::Program { .. } => "run",
        Work::Commands => "commands",
        Work::Read { .. } => "read",
        Work::Stat { .. } => "stat",
        Work::List { .. } => "list",
        Work::Changed { .. } => "changed",
        Work::Export { .. } => "export",
        Work::Sync => "sync",
        Work::Hold { .. } => "hold",
        Work::Import { .. } => "import",
        Work::Apply => "write",
        Work::Tree(work) => trees::name(work),
        Work::Dial { .. } => "dial",
    }
}

#[async_trait]
impl Sandbox for Live {
    fn id(&self) -> Id<id::Sandbox> {
        self.id
    }

    fn walls(&self) -> &Walls {
        &self.walls
    }

    fn started(&self) -> Report {
        self.report
    }

    async fn start(&self, command: Command) -> Result<Box<dyn Process>, Error> {
        let Command { argv, workdir, environment, terminal, stdin, epoch, name, user } = command;
        if name.as_deref().is_some_and(|name| !wire::is_name(name)) {
            let detail = format!("its name is empty, longer than {} bytes, or no plain text", wire::NAME_BYTES_MAX);
            return Err(Error::Command { detail });
        }
        let work = Work::Program { argv, workdir, environment, terminal, stdin, user };
        let _pass = self.gate.pass().await?;
        let running = self.run_named(epoch, name, work).await?;
        self.epoch.fetch_max(epoch, Ordering::AcqRel);
        Ok(Box::new(running))
    }

    async fn commands(&self) -> Result<Vec<KeptCommand>, Error> {
        Ok(self.roll().await?.commands.into_iter().map(|(_, command)| command).collect())
    }

    async fn attach(&self, name: &str, position: u64) -> Result<Box<dyn Process>, Error> {
        let roll = self.roll().await?;
        let found = roll.commands.into_iter().find(|(_, command)| command.name == name);
        let (number, _) = found.ok_or(Error::NoProcess)?;
        let running = self.running(self.wire.reopen(number).await?, true, position);
        let asked = Attach { epoch: self.epoch.load(Ordering::Acquire), from: position };
        let payload = serde_json::to_vec(&asked).map_err(|error| Error::Command { detail: error.to_string() })?;
        let attached = running.begin(Kind::Attach, payload).await?;
        match attached {
            Ok(running) => Ok(Box::new(running)),
            Err(Refusal { kept_from: Some(kept_from), .. }) => Err(Error::OutputGone { kept_from }),
            Err(Refusal { detail, .. }) => Err(Error::Command { detail }),
        }
    }

    async fn read(&self, path: &RelPath, offset: u64, bytes_max: u64) -> Result<Bytes, Error> {
        let room = usize::try_from(bytes_max).unwrap_or(usize::MAX).min(ANSWER_BYTES_MAX);
        let work = Work::Read { path: path.clone(), offset, bytes_max: room as u64 };
        self.operate(work, Vec::new(), path, room).await
    }

    async fn stat(&self, path: &RelPath) -> Result<Stat, Error> {
        self.ask(Work::Stat { path: path.clone() }, path).await
    }

    async fn list(&self, path: &RelPath, entries_max: usize) -> Result<Vec<(String, Stat)>, Error> {
        self.ask(Work::List { path: path.clone(), entries_max }, path).await
    }

    async fn apply(&self, changes: Vec<Change>) -> Result<(), Error> {
        let heads: Vec<ChangeHead> = changes.iter().map(head_of).collect();
        let text = serde_json::to_vec(&heads).map_err(|error| Error::Protocol { detail: error.to_string() })?;
        if text.len() > wire::CHANGES_BYTES_MAX {
            return Err(Error::Limit { limit: format!("changes_bytes_max = {}", wire::CHANGES_BYTES_MAX) });
        }
        let _pass = self.gate.pass().await?;
        let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
        let mut input = vec![Bytes::copy_from_slice(&length.to_le_bytes()), Bytes::from(text)];
        input.extend(changes.into_iter().filter_map(|change| match change {
            Change::Write { bytes, .. } => Some(bytes),
            Change::MakeDir { .. } | Change::Mode { .. } | Change::Group { .. } | Change::Remove { .. } => None,
        }));
        self.operate(Work::Apply, input, &RelPath::root(), ANSWER_BYTES_MAX).await.map(drop)
    }

    async fn rename(&self, from: &RelPath, to: &RelPath, replace: Replace) -> Result<(), Error> {
        trees::rename(self, from, to, replace).await
    }

    async fn remove(&self, path: &RelPath, entries_max: u64) -> Result<u64, Error> {
        trees::remove(self, path, entries_max).await
    }

    async fn watch(&self, path: &RelPath, depth: Depth) -> Result<Box<dyn sandbox::Watch>, Error> {
        trees::watch(self, path, depth).await
    }

    async fn download(&self, path: &RelPath, limits: ArchiveLimits) -> Result<Box<dyn Export>, Error> {
        trees::download(self, path, limits).await
    }

    async fn upload(&self, path: &RelPath, archive: Archive, limits: ArchiveLimits) -> Result<Totals, Error> {
        trees::upload(self, path, archive, limits).await
    }

    async fn compare(
        &self,
        before: &RelPath,
        after: &RelPath,
        differences_max: usize,
    ) -> Result<sandbox::files::Comparison, Error> {
        trees::compare(self, before, after, differences_max).await
    }

    async fn changed(&self, entries_max: usize) -> Result<Vec<(RelPath, Stat)>, Error> {
        let listed: Vec<Listed> = self.ask(Work::Changed { entries_max }, &RelPath::root()).await?;
        // A name that is no path of ours is hostile or broken; it can't be asked for either.
        Ok(listed.into_iter().filter_map(|(path, stat)| Some((path.parse().ok()?, stat))).collect())
    }

    async fn export(&self, limits: ArchiveLimits) -> Result<Box<dyn Export>, Error> {
        Ok(Box::new(Exporting::begin(self, limits).await?))
    }

    async fn checkpoint(&self, id: Id<id::Checkpoint>) -> Result<Option<Arc<dyn Checkpoint>>, Error> {
        match &self.stored {
            Some(stored) => snapshot::take(self, stored, id).await,
            None => Ok(None),
        }
    }

    async fn pause(&self, duration_ms_max: u64) -> Result<bool, Error> {
        snapshot::pause(self, duration_ms_max).await
    }

    async fn resume(&self) -> Result<(), Error> {
        self.gate.wake().await;
        self.wire.check()
    }

    async fn import(&self, archive: Archive, limits: ArchiveLimits) -> Result<Totals, Error> {
        export::import(self, archive, limits).await
    }

    async fn dial(&self, port: Port) -> Result<Box<dyn Duplex>, Error> {
        dial::dial(self, port).await
    }

    async fn close(&self) {
        self.end(CLOSED).await;
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.gate.end();
        self.wire.end(CLOSED);
    }
}

fn head_of(change: &Change) -> ChangeHead {
    match change {
        Change::Write { path, bytes, mode } => {
            ChangeHead::Write { path: path.clone(), bytes: bytes.len() as u64, mode: *mode }
        }
        Change::MakeDir { path } => ChangeHead::MakeDir { path: path.clone() },
        Change::Mode { path, mode } => ChangeHead::Mode { path: path.clone(), mode: *mode },
        Change::Group { path, group } => ChangeHead::Group { path: path.clone(), group: group.clone() },
        Change::Remove { path } => ChangeHead::Remove { path: path.clone() },
    }
}

/// A command under way.
#[derive(Debug)]
pub(crate) struct Running {
    wire: Arc<Wire>,
    watch: Arc<Watch>,
    memory_bytes_max: u64,
    line: Line,
    /// Whether the guest keeps what nobody has taken.
    keeps: bool,
    /// How much of its output was given on.
    position: u64,
    sent: bool,
    /// Cost of output that was taken and not yet credited back.
    owed: usize,
    /// Its end, while it is found out whether the memory limit was the reason.
    ending: Option<Exit>,
    exit: Option<Exit>,
}

impl Running {
    /// Who is to run over `line`.
    pub(crate) const fn new(wire: Arc<Wire>, watch: Arc<Watch>, memory_bytes_max: u64, line: Line) -> Self {
        let (keeps, position, sent, owed, ending, exit) = (false, 0, false, 0, None, None);
        Self { wire, watch, memory_bytes_max, line, keeps, position, sent, owed, ending, exit }
    }

    /// Has the guest start it.
    pub(crate) async fn start(self, start: Start) -> Result<Self, Error> {
        let payload = serde_json::to_vec(&start).map_err(|error| Error::Command { detail: error.to_string() })?;
        if payload.len() > wire::PAYLOAD_BYTES_MAX {
            return Err(Error::Limit { limit: format!("command_bytes_max = {}", wire::PAYLOAD_BYTES_MAX) });
        }
        let begun = self.begin(Kind::Start, payload).await?;
        begun.map_err(|refusal| Error::Command { detail: refusal.detail })
    }

    /// Asks the guest to start or attach it, and waits for its word.
    async fn begin(mut self, kind: Kind, payload: Vec<u8>) -> Result<Result<Self, Refusal>, Error> {
        let place = self.wire.place().await?;
        place.send(Frame { kind, command: self.line.id, payload: payload.into() });
        self.sent = true;
        match tokio::time::timeout(START_WAIT_MAX, self.line.events.recv()).await {
            Ok(Some(Event::Started)) => Ok(Ok(self)),
            Ok(Some(Event::Refused(refusal))) => {
                self.exit = Some(Exit::Code(127));
                Ok(Err(refusal))
            }
            Ok(Some(_)) => Err(Error::Protocol { detail: "a command that spoke before it started".to_owned() }),
            Ok(None) => Err(self.watch.explain(&self.wire).await),
            Err(_) => {
                Err(Error::Command { detail: format!("no word of its start for {} s", START_WAIT_MAX.as_secs()) })
            }
        }
    }

    /// Tells the guest that output was taken.
    async fn settle(&mut self) -> Result<(), Error> {
        if self.owed < CREDIT_BYTES {
            return Ok(());
        }
        let place = self.wire.place().await?;
        let credit = u32::try_from(self.owed).unwrap_or(u32::MAX);
        self.line.account.received.fetch_sub(self.owed, Ordering::AcqRel);
        self.owed = 0;
        let payload = Bytes::copy_from_slice(&wire::credit_bytes(credit, self.position));
        place.send(Frame { kind: Kind::Credit, command: self.line.id, payload });
        Ok(())
    }

    /// What its input goes through, for who reads and writes at once.
    pub(crate) fn channel(&self) -> (Arc<Wire>, Arc<Account>, u32) {
        (Arc::clone(&self.wire), Arc::clone(&self.line.account), self.line.id)
    }

    /// Tells the guest to end it, without waiting for the end.
    pub(crate) fn begin_kill(&mut self) {
        self.end_by(Kind::Kill);
    }

    fn end_by(&mut self, kind: Kind) {
        if let Some(kill) = self.line.kill.take() {
            kill.send(Frame { kind, command: self.line.id, payload: Bytes::new() });
        }
    }

    async fn end(&mut self, exit: Exit) -> Chunk {
        self.ending = Some(exit);
        let suspicious = matches!(exit, Exit::Signal(SIGKILL)) || exit.shell_code() == 128 + SIGKILL;
        if suspicious && self.watch.killed().await {
            // The end itself comes with the next call.
            let limit = self.memory_bytes_max;
            let note = format!("killed: out of memory; memory_bytes_max = {limit}\n");
            self.ending = None;
            self.exit = Some(exit);
            return Chunk::Output(Stream::Stderr, Bytes::from(note));
        }
        self.finished(exit)
    }

    fn finished(&mut self, exit: Exit) -> Chunk {
        self.ending = None;
        self.exit = Some(exit);
        self.sent = false;
        // There is nothing left to kill, and others need the place.
        self.line.kill = None;
        Chunk::Exit(exit)
    }

    async fn send(&self, kind: Kind, payload: Bytes) -> Result<(), Error> {
        if self.exit.is_some() {
            return Err(Error::NoProcess);
        }
        self.wire.place().await?.send(Frame { kind, command: self.line.id, payload });
        Ok(())
    }
}

#[async_trait]
impl Process for Running {
    async fn next(&mut self) -> Result<Chunk, Error> {
        if let Some(exit) = self.ending {
            return Ok(self.end(exit).await);
        }
        if let Some(exit) = self.exit {
            // Told once; `sent` says whether it still has to be.
            return if self.sent { Ok(self.finished(exit)) } else { Err(Error::NoProcess) };
        }
        self.settle().await?;
        match self.line.events.recv().await {
            Some(Event::Output(stream, bytes)) => {
                self.owed += wire::cost(bytes.len());
                self.position += bytes.len() as u64;
                Ok(Chunk::Output(stream, bytes))
            }
            Some(Event::Exit(exit)) => Ok(self.end(exit).await),
            Some(Event::Started | Event::Refused(_)) => {
                Err(Error::Protocol { detail: "a command that started twice".to_owned() })
            }
            None => Err(self.watch.explain(&self.wire).await),
        }
    }

    fn position(&self) -> u64 {
        self.position + u64::from(self.exit.is_some() && !self.sent)
    }

    async fn taken(&mut self, position: u64) -> Result<(), Error> {
        if self.keeps {
            let payload = Bytes::copy_from_slice(&position.min(self.position()).to_le_bytes());
            self.wire.place().await?.send(Frame { kind: Kind::Taken, command: self.line.id, payload });
        }
        Ok(())
    }

    async fn write(&mut self, bytes: Bytes) -> Result<(), Error> {
        dial::send(&self.wire, &self.line.account, self.line.id, bytes).await
    }

    fn input(&mut self) -> Option<Box<dyn sandbox::Input>> {
        let (wire, account, id) = self.channel();
        Some(Box::new(dial::Input { wire, account, id }))
    }

    async fn close_stdin(&mut self) -> Result<(), Error> {
        self.send(Kind::InputEnd, Bytes::new()).await
    }

    async fn resize(&mut self, rows: u16, columns: u16) -> Result<(), Error> {
        let mut payload = BytesMut::new();
        payload.put_u16_le(rows);
        payload.put_u16_le(columns);
        self.send(Kind::Resize, payload.freeze()).await
    }

    async fn kill(&mut self) -> Result<Exit, Error> {
        if let Some(exit) = self.exit.or(self.ending) {
            self.finished(exit);
            return Ok(exit);
        }
        self.begin_kill();
        loop {
            match self.line.events.recv().await {
                Some(Event::Exit(exit)) => {
                    self.finished(exit);
                    return Ok(exit);
                }
                Some(Event::Output(_, bytes)) => self.position += bytes.len() as u64,
                Some(_) => {}
                None => return Err(self.watch.explain(&self.wire).await),
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.sent && self.exit.is_none() {
            self.wire.forget(self.line.id);
        } else if self.exit.or(self.ending).is_none() {
            self.end_by(Kind::Forget);
        }
    }
}
