//! Sandboxes in memory. Workspaces outlive the process, as directories do, and are marked with the generation that opened them
//! last. The only program inside is one that appends a line to a file, at once or after a while.

use crate::disk::Crash;
use crate::objects::point;
use crate::power::Power;
use crate::trace::Trace;
use async_trait::async_trait;
use bytes::Bytes;
use domain::{Id, id};
use futures::StreamExt;
use parking_lot::Mutex;
use sandbox::{
    Archive, ArchiveLimits, Change, Chunk, Command, Error, Exit, Export, FileKind, Probe, Process, Provider, RelPath,
    Sandbox, Spec, Start, Stat, Stream, Totals, Walls, Workspace,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use stdx::Random;

/// Bytes of a file at most.
const FILE_BYTES_MAX: usize = 1 << 20;
/// One workspace of so many is lost when the power goes.
const LOST_OF: u64 = 6;
/// How long making a sandbox takes at most, in milliseconds.
const CREATE_MS_MAX: u64 = 300;

/// The files of a session.
#[derive(Clone, Debug, Default)]
struct Layer {
    generation: u64,
    /// Whether an import into it has not ended.
    is_torn: bool,
    files: BTreeMap<RelPath, Vec<u8>>,
}

/// Makes sandboxes. Cloning is cheap; clones are the same provider over the same workspaces.
#[derive(Clone, Debug)]
pub(crate) struct Workspaces(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    power: Power,
    random: Random,
    trace: Trace,
    layers: Mutex<BTreeMap<Id<id::Session>, Layer>>,
    /// Lines that were put, by session, whatever became of the files.
    put: Mutex<BTreeMap<Id<id::Session>, usize>>,
}

/// What the files of a session have, and what was put into them ever.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Files {
    pub(crate) lines: usize,
    pub(crate) put: usize,
}

impl Workspaces {
    pub(crate) fn new(power: Power, random: Random, trace: Trace) -> Self {
        Self(Arc::new(Inner { power, random, trace, layers: Mutex::default(), put: Mutex::default() }))
    }

    /// What the files of a session have; `None`: it has no workspace.
    pub(crate) fn files(&self, session: Id<id::Session>) -> Option<Files> {
        let layers = self.0.layers.lock();
        let files = &layers.get(&session)?.files;
        let lines = files.values().map(|bytes| bytes.iter().filter(|byte| **byte == b'\n').count()).sum();
        let put = self.0.put.lock().get(&session).copied().unwrap_or(0);
        Some(Files { lines, put })
    }

    /// The machine starts again: what a workspace holds may be gone, when it was the power that went.
    pub(crate) fn restart(&self, crash: Crash) {
        let Inner { layers, random, .. } = &*self.0;
        if crash == Crash::Power {
            layers.lock().retain(|_, _| random.below(LOST_OF) != 0);
        }
    }

    fn slow(&self, ms_max: u64) -> Duration {
        Duration::from_millis(self.0.random.below(ms_max + 1))
    }
}

#[async_trait]
impl Provider for Workspaces {
    fn name(&self) -> &'static str {
        "local"
    }

    async fn probe(&self) -> Probe {
        Probe { ready: true, walls: Vec::new(), remarks: Vec::new() }
    }

    async fn create(&self, spec: Spec) -> Result<Arc<dyn Sandbox>, Error> {
        let Inner { power, layers, trace, .. } = &*self.0;
        point(power, "sandbox: create").await;
        tokio::time::sleep(self.slow(CREATE_MS_MAX)).await;
        let Workspace::Session { session, start, .. } = spec.workspace else {
            return Err(Error::Start { stage: "claim", detail: "scratch workspaces are not simulated".into() });
        };
        {
            let mut layers = layers.lock();
            let seen = layers.get(&session).map_or(0, |layer| layer.generation);
            if spec.epoch < seen {
                return Err(Error::StaleEpoch { epoch: spec.epoch, seen });
            }
            match start {
                Start::Fresh => layers.insert(session, Layer::default()),
                // Nothing is kept here beside the workspaces.
                Start::Forked { .. } => return Err(Error::WorkspaceLost),
                Start::Restored => layers.insert(session, Layer { is_torn: true, ..Layer::default() }),
                Start::Kept { generation } => match layers.get(&session) {
                    Some(layer) if layer.is_torn => return Err(Error::WorkspaceLost),
                    Some(_) if generation != 0 && generation != seen => {
                        return Err(Error::WorkspaceStale { expected: generation, found: seen });
                    }
                    Some(_) => None,
                    None => return Err(Error::WorkspaceLost),
                },
            };
            if let Some(layer) = layers.get_mut(&session) {
                layer.generation = spec.epoch;
            }
        }
        trace.say(format_args!("sandbox {} of {session} {start:?} under {}", spec.id, spec.epoch));
        point(power, "sandbox: was created").await;
        let (workspaces, epoch) = (self.clone(), spec.epoch);
        Ok(Arc::new(Cell { workspaces, session, id: spec.id, epoch, walls: Walls::default() }))
    }

    async fn workspace_exists(&self, workspace: &Workspace) -> Result<bool, Error> {
        let layers = self.0.layers.lock();
        Ok(match workspace {
            Workspace::Session { session, .. } => layers.get(session).is_some_and(|layer| !layer.is_torn),
            Workspace::Scratch => false,
        })
    }

    async fn workspace_remove(&self, workspace: &Workspace) -> Result<(), Error> {
        if let Workspace::Session { session, .. } = workspace {
            self.0.layers.lock().remove(session);
        }
        Ok(())
    }
}

/// A sandbox.
#[derive(Debug)]
struct Cell {
    workspaces: Workspaces,
    session: Id<id::Session>,
    id: Id<id::Sandbox>,
    epoch: u64,
    walls: Walls,
}

impl Cell {
    /// Does something to the files, unless the power is off or a later sandbox has them.
    fn with<T>(&self, act: impl FnOnce(&mut Layer) -> Result<T, Error>) -> Result<T, Error> {
        let Inner { power, layers, .. } = &*self.workspaces.0;
        if power.is_off() {
            return Err(Error::Gone { detail: "closed".into() });
        }
        let mut layers = layers.lock();
        let layer = layers.get_mut(&self.session).ok_or(Error::WorkspaceLost)?;
        if layer.generation != self.epoch {
            return Err(Error::StaleEpoch { epoch: self.epoch, seen: layer.generation });
        }
        act(layer)
    }
}

fn missing(operation: &'static str, path: &RelPath) -> Error {
    Error::File { operation, path: path.to_string(), missing: true, detail: "there is nothing".into() }
}

fn stat_of(bytes: &[u8]) -> Stat {
    Stat { kind: FileKind::File, bytes: bytes.len() as u64, mode: 0o644, modified_ms: bytes.len() as u64 }
}

#[async_trait]
impl Sandbox for Cell {
    fn id(&self) -> Id<id::Sandbox> {
        self.id
    }

    fn walls(&self) -> &Walls {
        &self.walls
    }

    async fn start(&self, command: Command) -> Result<Box<dyn Process>, Error> {
        point(&self.workspaces.0.power, "sandbox: start").await;
        if command.epoch < self.epoch {
            return Err(Error::StaleEpoch { epoch: command.epoch, seen: self.epoch });
        }
        let text = command.argv.last().cloned().unwrap_or_default();
        let mut words = text.split_whitespace();
        let (Some("put"), Some(file), Some(Ok(ms))) = (words.next(), words.next(), words.next().map(str::parse)) else {
            return Ok(Box::new(Program { put: None, left: vec![Chunk::Exit(Exit::Code(127))] }));
        };
        let owner = Self {
            workspaces: self.workspaces.clone(),
            session: self.session,
            id: self.id,
            epoch: self.epoch,
            walls: Walls::default(),
        };
        let put = Put { owner, file: file.parse()?, wait: Duration::from_millis(ms) };
        let said = Chunk::Output(Stream::Stdout, Bytes::from_static(b"put\n"));
        Ok(Box::new(Program { put: Some(put), left: vec![Chunk::Exit(Exit::Code(0)), said] }))
    }

    async fn read(&self, path: &RelPath, offset: u64, bytes_max: u64) -> Result<Bytes, Error> {
        self.with(|layer| {
            let bytes = layer.files.get(path).ok_or_else(|| missing("read", path))?;
            let from = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
            let most = usize::try_from(bytes_max).unwrap_or(usize::MAX);
            Ok(Bytes::copy_from_slice(&bytes[from..][..most.min(bytes.len() - from)]))
        })
    }

    async fn stat(&self, path: &RelPath) -> Result<Stat, Error> {
        self.with(|layer| layer.files.get(path).map(|bytes| stat_of(bytes)).ok_or_else(|| missing("stat", path)))
    }

    async fn list(&self, _: &RelPath, entries_max: usize) -> Result<Vec<(String, Stat)>, Error> {
        let files = self.changed(entries_max).await?;
        Ok(files.into_iter().map(|(path, stat)| (path.to_string(), stat)).collect())
    }

    async fn apply(&self, changes: Vec<Change>) -> Result<(), Error> {
        point(&self.workspaces.0.power, "sandbox: apply").await;
        self.with(|layer| {
            for change in changes {
                match change {
                    Change::Write { path, bytes, .. } => layer.files.insert(path, bytes.to_vec()),
                    Change::Remove { path } => layer.files.remove(&path),
                    Change::MakeDir { .. } | Change::Mode { .. } | Change::Group { .. } => None,
                };
            }
            Ok(())
        })
    }

    async fn changed(&self, entries_max: usize) -> Result<Vec<(RelPath, Stat)>, Error> {
        self.with(|layer| {
            Ok(layer.files.iter().take(entries_max).map(|(path, bytes)| (path.clone(), stat_of(bytes))).collect())
        })
    }

    async fn export(&self, _: ArchiveLimits) -> Result<Box<dyn Export>, Error> {
        point(&self.workspaces.0.power, "sandbox: export").await;
        self.with(|layer| {
            let files: BTreeMap<String, &Vec<u8>> =
                layer.files.iter().map(|(path, bytes)| (path.to_string(), bytes)).collect();
            let detail = |error: serde_json::Error| Error::Command { detail: error.to_string() };
            let bytes = Bytes::from(serde_json::to_vec(&files).map_err(detail)?);
            let totals = Totals { entries: files.len() as u64, bytes: bytes.len() as u64, left_out: 0 };
            Ok(Box::new(Archived { left: Some(bytes), totals }) as Box<dyn Export>)
        })
    }

    async fn import(&self, mut archive: Archive, _: ArchiveLimits) -> Result<Totals, Error> {
        point(&self.workspaces.0.power, "sandbox: import").await;
        let broken = |detail: String| Error::Start { stage: "workspace", detail };
        let mut bytes = Vec::new();
        while let Some(piece) = archive.next().await {
            bytes.extend_from_slice(&piece.map_err(|error| broken(error.to_string()))?);
        }
        let files: BTreeMap<String, Vec<u8>> =
            serde_json::from_slice(&bytes).map_err(|error| broken(error.to_string()))?;
        let totals = Totals { entries: files.len() as u64, bytes: bytes.len() as u64, left_out: 0 };
        self.with(|layer| {
            for (path, bytes) in files {
                layer.files.insert(path.parse()?, bytes);
            }
            layer.is_torn = false;
            Ok(totals)
        })
    }

    async fn close(&self) {
        point(&self.workspaces.0.power, "sandbox: close").await;
    }
}

/// A workspace on its way out.
#[derive(Debug)]
struct Archived {
    left: Option<Bytes>,
    totals: Totals,
}

#[async_trait]
impl Export for Archived {
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        Ok(self.left.take())
    }

    fn totals(&self) -> Totals {
        self.totals
    }
}

/// The program that runs inside: waits, appends a line, says so, ends.
#[derive(Debug)]
struct Program {
    put: Option<Put>,
    /// What it gives when it is done, last first.
    left: Vec<Chunk>,
}

#[derive(Debug)]
struct Put {
    owner: Cell,
    file: RelPath,
    wait: Duration,
}

#[async_trait]
impl Process for Program {
    async fn next(&mut self) -> Result<Chunk, Error> {
        if let Some(put) = &mut self.put {
            // Safe to cancel: whoever comes back waits for what is left only.
            while !put.wait.is_zero() {
                let step = put.wait.min(Duration::from_millis(50));
                tokio::time::sleep(step).await;
                put.wait -= step;
            }
            point(&put.owner.workspaces.0.power, "sandbox: put").await;
            let file = put.file.clone();
            put.owner.with(|layer| {
                let bytes = layer.files.entry(file).or_default();
                if bytes.len() < FILE_BYTES_MAX {
                    bytes.extend_from_slice(b"line\n");
                    *put.owner.workspaces.0.put.lock().entry(put.owner.session).or_default() += 1;
                }
                Ok(())
            })?;
            self.put = None;
        }
        self.left.pop().ok_or(Error::NoProcess)
    }

    async fn write(&mut self, _: Bytes) -> Result<(), Error> {
        Ok(())
    }

    async fn close_stdin(&mut self) -> Result<(), Error> {
        Ok(())
    }

    async fn resize(&mut self, _: u16, _: u16) -> Result<(), Error> {
        Ok(())
    }

    async fn kill(&mut self) -> Result<Exit, Error> {
        self.put = None;
        self.left = vec![Chunk::Exit(Exit::Signal(9))];
        Ok(Exit::Signal(9))
    }
}
