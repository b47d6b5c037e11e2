//! Archives of a workspace on their way over the guest's stream: counted and bounded here, never looked into.

use crate::gate::Gate;
use crate::live::{Live, Running};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use sandbox::wire::{FileFailure, Work};
use sandbox::{Archive, ArchiveLimits, Chunk, Error, Exit, Export, Process as _, Rule, Stream, Totals};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::OwnedRwLockWriteGuard;
use tokio::time::Instant;

/// Bytes of what a guest says at the end.
const TOLD_BYTES_MAX: usize = 64 << 10;
/// Characters of an entry's name that are told on.
const ENTRY_CHARACTERS_MAX: usize = 300;

/// An export under way.
#[derive(Debug)]
pub(crate) struct Exporting {
    gate: Arc<Gate>,
    phase: Phase,
    limits: ArchiveLimits,
    deadline: Instant,
    totals: Totals,
    /// What it said apart from the archive.
    told: Vec<u8>,
}

#[derive(Debug)]
enum Phase {
    /// Nothing else begins in the sandbox meanwhile.
    Running(Box<Running>, OwnedRwLockWriteGuard<()>),
    Whole,
    Failed,
}

impl Exporting {
    pub(crate) async fn begin(live: &Live, limits: ArchiveLimits) -> Result<Self, Error> {
        let shut = live.gate.shut().await?;
        let deadline = deadline(limits);
        let running = live
            .run(live.epoch.load(Ordering::Acquire), Work::Export { limits, left_out: live.left_out.clone() })
            .await?;
        Ok(Self {
            gate: Arc::clone(&live.gate),
            phase: Phase::Running(Box::new(running), shut),
            limits,
            deadline,
            totals: Totals::default(),
            told: Vec::new(),
        })
    }

    /// Ends what still runs; the next operation waits for its end.
    fn give_up(&mut self) {
        if let Phase::Running(mut running, shut) = std::mem::replace(&mut self.phase, Phase::Failed) {
            running.begin_kill();
            self.gate.leave(*running);
            drop(shut);
        }
    }

    async fn step(&mut self) -> Result<Option<Bytes>, Error> {
        let Phase::Running(running, _) = &mut self.phase else { return Ok(None) };
        loop {
            let late = || Error::Limit { limit: limit("duration_ms_max", self.limits.duration_ms_max) };
            // A timeout alone would let pass whatever is there already, however late it is.
            if Instant::now() >= self.deadline {
                return Err(late());
            }
            match tokio::time::timeout_at(self.deadline, running.next()).await.map_err(|_| late())?? {
                Chunk::Output(Stream::Stdout, bytes) => {
                    self.totals.bytes += bytes.len() as u64;
                    if self.totals.bytes > self.limits.bytes_max {
                        return Err(Error::Limit { limit: limit("bytes_max", self.limits.bytes_max) });
                    }
                    return Ok(Some(bytes));
                }
                Chunk::Output(Stream::Stderr, bytes) => keep(&mut self.told, &bytes),
                Chunk::Exit(Exit::Code(0)) => {
                    let told: Totals = serde_json::from_slice(&self.told)
                        .map_err(|error| Error::Protocol { detail: error.to_string() })?;
                    self.totals = Totals { bytes: self.totals.bytes, ..told };
                    return Ok(None);
                }
                Chunk::Exit(exit) => return Err(self.failure(exit)),
            }
        }
    }

    fn failure(&self, exit: Exit) -> Error {
        match failure("export", exit, &self.told) {
            Error::Archive { rule: Rule::TooManyEntries, .. } => {
                Error::Limit { limit: limit("entries_max", self.limits.entries_max) }
            }
            Error::Archive { rule: Rule::TooLarge, .. } => {
                Error::Limit { limit: limit("bytes_max", self.limits.bytes_max) }
            }
            other => other,
        }
    }
}

fn deadline(limits: ArchiveLimits) -> Instant {
    // A limit beyond what a clock can hold is none that anybody waits for.
    const MS_MAX: u64 = 24 * 3_600_000;
    Instant::now() + Duration::from_millis(limits.duration_ms_max.min(MS_MAX))
}

fn limit(name: &str, value: u64) -> String {
    format!("archive_{name} = {value}")
}

fn keep(told: &mut Vec<u8>, bytes: &[u8]) {
    let room = TOLD_BYTES_MAX.saturating_sub(told.len());
    told.extend_from_slice(&bytes[..bytes.len().min(room)]);
}

/// What a guest said when it failed.
fn failure(operation: &'static str, exit: Exit, told: &[u8]) -> Error {
    let failed = |detail| Error::File { operation, path: ".".to_owned(), missing: false, detail };
    let cut = |text: String| text.chars().take(ENTRY_CHARACTERS_MAX).flat_map(char::escape_debug).collect::<String>();
    if let Exit::Signal(signal) = exit {
        return failed(format!("killed inside by signal {signal}"));
    }
    match serde_json::from_slice::<FileFailure>(told) {
        Ok(told) => told.into_error(operation),
        Err(_) => failed(format!("failed: {}", cut(String::from_utf8_lossy(told).into_owned()))),
    }
}

#[async_trait]
impl Export for Exporting {
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        match &self.phase {
            Phase::Running(..) => {}
            Phase::Whole => return Ok(None),
            Phase::Failed => return Err(Error::NoProcess),
        }
        let stepped = self.step().await;
        match &stepped {
            Ok(Some(_)) => {}
            Ok(None) => self.phase = Phase::Whole,
            Err(_) => self.give_up(),
        }
        stepped
    }

    fn totals(&self) -> Totals {
        self.totals
    }
}

impl Drop for Exporting {
    fn drop(&mut self) {
        self.give_up();
    }
}

/// Unpacks an archive inside, and marks the workspace as whole.
pub(crate) async fn import(live: &Live, archive: Archive, limits: ArchiveLimits) -> Result<Totals, Error> {
    let entry = || ".".to_owned();
    let unfinished = live.gate.take_unfinished().ok_or(Error::Archive { rule: Rule::NotEmpty, entry: entry() })?;
    let late = |_| Error::Limit { limit: limit("duration_ms_max", limits.duration_ms_max) };
    let unpacked = tokio::time::timeout_at(deadline(limits), unpack(live, archive, limits)).await.map_err(late)??;
    unfinished.finish().await?;
    live.gate.finished();
    Ok(unpacked)
}

async fn unpack(live: &Live, mut archive: Archive, limits: ArchiveLimits) -> Result<Totals, Error> {
    let mut running = live.run(live.epoch.load(Ordering::Acquire), Work::Import { limits }).await?;
    let mut sent = 0;
    while let Some(piece) = archive.next().await {
        let piece = piece.map_err(|error| Error::File {
            operation: "import",
            path: ".".to_owned(),
            missing: false,
            detail: format!("the archive broke off: {error}"),
        })?;
        sent += piece.len() as u64;
        if sent > limits.bytes_max {
            return Err(Error::Archive { rule: Rule::TooLarge, entry: ".".to_owned() });
        }
        // One that has failed already takes no more; its failure is read below.
        if running.write(piece).await.is_err() {
            break;
        }
    }
    // For one that has ended there is nothing to close.
    let _ = running.close_stdin().await;
    let (mut answer, mut told) = (Vec::new(), Vec::new());
    loop {
        match running.next().await? {
            Chunk::Output(Stream::Stdout, bytes) => keep(&mut answer, &bytes),
            Chunk::Output(Stream::Stderr, bytes) => keep(&mut told, &bytes),
            Chunk::Exit(Exit::Code(0)) => {
                let totals: Totals =
                    serde_json::from_slice(&answer).map_err(|error| Error::Protocol { detail: error.to_string() })?;
                return Ok(Totals { bytes: sent, ..totals });
            }
            Chunk::Exit(exit) => return Err(failure("import", exit, &told)),
        }
    }
}
