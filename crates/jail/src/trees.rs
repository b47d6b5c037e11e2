//! Operations on whole trees of a live sandbox, seen from the harness: asked of the guest, counted and bounded here.

use crate::live::{Live, Running};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use sandbox::files::{Comparison, Depth, Event, Replace, TreeWork, Watch};
use sandbox::wire::{FileFailure, Work};
use sandbox::{Archive, ArchiveLimits, Chunk, Error, Exit, Export, Process as _, RelPath, Rule, Stream, Totals};
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

/// Bytes of what a guest says apart from what was asked for.
const TOLD_BYTES_MAX: usize = 64 << 10;
/// Bytes of one event at most: a path, each byte written as six.
const EVENT_BYTES_MAX: usize = 64 << 10;
/// Bytes of the answer to an operation that gives a number.
const ANSWER_BYTES_MAX: usize = 1 << 10;

pub(crate) const fn name(work: &TreeWork) -> &'static str {
    match work {
        TreeWork::Move { .. } => "move",
        TreeWork::Remove { .. } => "remove",
        TreeWork::Watch { .. } => "watch",
        TreeWork::Download { .. } => "download",
        TreeWork::Upload { .. } => "upload",
        TreeWork::Compare { .. } => "compare",
    }
}

pub(crate) async fn rename(live: &Live, from: &RelPath, to: &RelPath, replace: Replace) -> Result<(), Error> {
    let _pass = live.gate.pass().await?;
    let work = TreeWork::Move { from: from.clone(), to: to.clone(), replace };
    live.operate(Work::Tree(work), Vec::new(), from, ANSWER_BYTES_MAX).await.map(drop)
}

pub(crate) async fn remove(live: &Live, path: &RelPath, entries_max: u64) -> Result<u64, Error> {
    let _pass = live.gate.pass().await?;
    live.ask(Work::Tree(TreeWork::Remove { path: path.clone(), entries_max }), path).await
}

pub(crate) async fn compare(
    live: &Live,
    before: &RelPath,
    after: &RelPath,
    differences_max: usize,
) -> Result<Comparison, Error> {
    let _pass = live.gate.pass().await?;
    let work = TreeWork::Compare { before: before.clone(), after: after.clone(), differences_max };
    live.ask(Work::Tree(work), before).await
}

async fn begin(live: &Live, work: TreeWork) -> Result<Running, Error> {
    live.run(live.epoch.load(Ordering::Acquire), Work::Tree(work)).await
}

/// What the guest said of a failure.
fn failure(operation: &'static str, path: &RelPath, told: &[u8], exit: Exit) -> Error {
    match serde_json::from_slice::<FileFailure>(told) {
        Ok(told) => told.into_error(operation),
        Err(_) => Error::File { operation, path: path.to_string(), missing: false, detail: format!("ended: {exit:?}") },
    }
}

fn keep(told: &mut Vec<u8>, bytes: &[u8]) {
    let room = TOLD_BYTES_MAX.saturating_sub(told.len());
    told.extend_from_slice(&bytes[..bytes.len().min(room)]);
}

/// A watch under way.
#[derive(Debug)]
struct Watching {
    path: RelPath,
    running: Option<Running>,
    text: BytesMut,
    told: Vec<u8>,
}

pub(crate) async fn watch(live: &Live, path: &RelPath, depth: Depth) -> Result<Box<dyn Watch>, Error> {
    let running = begin(live, TreeWork::Watch { path: path.clone(), depth }).await?;
    Ok(Box::new(Watching { path: path.clone(), running: Some(running), text: BytesMut::new(), told: Vec::new() }))
}

#[async_trait]
impl Watch for Watching {
    async fn next(&mut self) -> Result<Option<Event>, Error> {
        let broken = |detail: String| Error::Protocol { detail };
        loop {
            if let Some(end) = self.text.iter().position(|byte| *byte == b'\n') {
                let line = self.text.split_to(end + 1);
                return serde_json::from_slice(&line).map(Some).map_err(|error| broken(format!("no event: {error}")));
            }
            if self.text.len() > EVENT_BYTES_MAX {
                return Err(broken(format!("event_bytes_max = {EVENT_BYTES_MAX}")));
            }
            let Some(running) = &mut self.running else { return Ok(None) };
            match running.next().await? {
                Chunk::Output(Stream::Stdout, bytes) => self.text.extend_from_slice(&bytes),
                Chunk::Output(Stream::Stderr, bytes) => keep(&mut self.told, &bytes),
                Chunk::Exit(exit) => {
                    self.running = None;
                    return match exit {
                        Exit::Code(0) => Ok(None),
                        exit => Err(failure("watch", &self.path, &self.told, exit)),
                    };
                }
            }
        }
    }
}

/// A download under way.
#[derive(Debug)]
struct Downloading {
    path: RelPath,
    running: Option<Running>,
    limits: ArchiveLimits,
    deadline: Instant,
    totals: Totals,
    told: Vec<u8>,
}

fn deadline(limits: ArchiveLimits) -> Instant {
    Instant::now() + Duration::from_millis(limits.duration_ms_max)
}

fn late(limits: ArchiveLimits) -> Error {
    Error::Limit { limit: format!("duration_ms_max = {}", limits.duration_ms_max) }
}

fn large(limits: ArchiveLimits) -> Error {
    Error::Limit { limit: format!("bytes_max = {}", limits.bytes_max) }
}

pub(crate) async fn download(live: &Live, path: &RelPath, limits: ArchiveLimits) -> Result<Box<dyn Export>, Error> {
    let running = begin(live, TreeWork::Download { path: path.clone(), limits }).await?;
    let (path, deadline) = (path.clone(), deadline(limits));
    let (totals, told) = (Totals::default(), Vec::new());
    Ok(Box::new(Downloading { path, running: Some(running), limits, deadline, totals, told }))
}

#[async_trait]
impl Export for Downloading {
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            let Some(running) = &mut self.running else { return Ok(None) };
            let chunk = tokio::time::timeout_at(self.deadline, running.next()).await;
            match chunk.map_err(|_| late(self.limits))?? {
                Chunk::Output(Stream::Stdout, bytes) => {
                    self.totals.bytes += bytes.len() as u64;
                    if self.totals.bytes > self.limits.bytes_max {
                        self.running = None;
                        return Err(large(self.limits));
                    }
                    return Ok(Some(bytes));
                }
                Chunk::Output(Stream::Stderr, bytes) => keep(&mut self.told, &bytes),
                Chunk::Exit(exit) => {
                    self.running = None;
                    if exit != Exit::Code(0) {
                        return Err(failure("download", &self.path, &self.told, exit));
                    }
                    let told: Totals = serde_json::from_slice(&self.told)
                        .map_err(|error| Error::Protocol { detail: format!("no totals: {error}") })?;
                    self.totals = Totals { bytes: self.totals.bytes, ..told };
                    return Ok(None);
                }
            }
        }
    }

    fn totals(&self) -> Totals {
        self.totals
    }
}

pub(crate) async fn upload(
    live: &Live,
    path: &RelPath,
    archive: Archive,
    limits: ArchiveLimits,
) -> Result<Totals, Error> {
    let _pass = live.gate.pass().await?;
    let running = begin(live, TreeWork::Upload { path: path.clone(), limits }).await?;
    let fed = tokio::time::timeout_at(deadline(limits), feed(running, path, archive, limits)).await;
    fed.unwrap_or_else(|_| Err(late(limits)))
}

async fn feed(
    mut running: Running,
    path: &RelPath,
    mut archive: Archive,
    limits: ArchiveLimits,
) -> Result<Totals, Error> {
    let mut sent = 0;
    while let Some(piece) = archive.next().await {
        let piece = piece.map_err(|error| Error::File {
            operation: "upload",
            path: path.to_string(),
            missing: false,
            detail: format!("the archive can't be read: {error}"),
        })?;
        sent += piece.len() as u64;
        if sent > limits.bytes_max {
            return Err(Error::Archive { rule: Rule::TooLarge, entry: String::new() });
        }
        // One that was refused already takes no more; why is read below.
        if running.write(piece).await.is_err() {
            break;
        }
    }
    // The same.
    let _ = running.close_stdin().await;
    let (mut answer, mut told) = (Vec::new(), Vec::new());
    loop {
        match running.next().await? {
            Chunk::Output(Stream::Stdout, bytes) => keep(&mut answer, &bytes),
            Chunk::Output(Stream::Stderr, bytes) => keep(&mut told, &bytes),
            Chunk::Exit(Exit::Code(0)) => {
                let counted: Totals = serde_json::from_slice(&answer)
                    .map_err(|error| Error::Protocol { detail: format!("no totals: {error}") })?;
                return Ok(Totals { bytes: sent, ..counted });
            }
            Chunk::Exit(exit) => return Err(failure("upload", path, &told, exit)),
        }
    }
}
