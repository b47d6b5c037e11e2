//! Starts of sandboxes that stand still: given up, with the stage and how long each took in the run's record. On a real journal,
//! with a provider whose sandboxes take no files.

#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

mod common;

use async_trait::async_trait;
use bytes::Bytes;
use common::{Project, TENANT, World, ask, records};
use domain::{Event, Id, RunStatus, id};
use engine::Limits;
use sandbox::{
    Archive, ArchiveLimits, Change, Command, Error, Export, Probe, Process, Provider, RelPath, Sandbox, Spec, Stat,
    Totals, Walls, Workspace,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Sandboxes in which the first so many portions of files are taken, and no other ever is.
#[derive(Debug)]
struct Stuck {
    takes: usize,
    taken: Arc<AtomicUsize>,
    closed: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct Cell {
    id: Id<id::Sandbox>,
    walls: Walls,
    takes: usize,
    taken: Arc<AtomicUsize>,
    closed: Arc<AtomicUsize>,
}

fn none<T>() -> Result<T, Error> {
    Err(Error::NoProcess)
}

#[async_trait]
impl Provider for Stuck {
    fn name(&self) -> &'static str {
        "local"
    }

    async fn probe(&self) -> Probe {
        Probe { ready: true, walls: Vec::new(), remarks: Vec::new() }
    }

    async fn create(&self, spec: Spec) -> Result<Arc<dyn Sandbox>, Error> {
        let (taken, closed) = (self.taken.clone(), self.closed.clone());
        Ok(Arc::new(Cell { id: spec.id, walls: Walls::default(), takes: self.takes, taken, closed }))
    }

    async fn workspace_exists(&self, _: &Workspace) -> Result<bool, Error> {
        Ok(false)
    }

    async fn workspace_remove(&self, _: &Workspace) -> Result<(), Error> {
        Ok(())
    }
}

#[async_trait]
impl Sandbox for Cell {
    fn id(&self) -> Id<id::Sandbox> {
        self.id
    }

    fn walls(&self) -> &Walls {
        &self.walls
    }

    async fn start(&self, _: Command) -> Result<Box<dyn Process>, Error> {
        none()
    }

    async fn read(&self, _: &RelPath, _: u64, _: u64) -> Result<Bytes, Error> {
        none()
    }

    async fn stat(&self, _: &RelPath) -> Result<Stat, Error> {
        none()
    }

    async fn list(&self, _: &RelPath, _: usize) -> Result<Vec<(String, Stat)>, Error> {
        none()
    }

    async fn apply(&self, _: Vec<Change>) -> Result<(), Error> {
        if self.taken.fetch_add(1, Ordering::SeqCst) >= self.takes {
            std::future::pending::<()>().await;
        }
        Ok(())
    }

    async fn changed(&self, _: usize) -> Result<Vec<(RelPath, Stat)>, Error> {
        Ok(Vec::new())
    }

    async fn export(&self, _: ArchiveLimits) -> Result<Box<dyn Export>, Error> {
        none()
    }

    async fn import(&self, _: Archive, _: ArchiveLimits) -> Result<Totals, Error> {
        none()
    }

    async fn close(&self) {
        self.closed.fetch_add(1, Ordering::SeqCst);
    }
}

const TRANSCRIPT: &str = r#"
title: one command
steps:
- reply:
  - call: {id: c1, tool: exec_command, arguments: {cmd: "true"}}
- reply:
  - text: "Done."
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_stands_still_is_given_up_and_on_record_with_its_stages() {
    let project = Project::new("", &[], TRANSCRIPT);
    project.write("topside.yaml", "default_agent: maya\nretries: {sandbox: {attempts: 2, backoff_seconds: 0.01}}\n");
    project
        .write("agents/maya.md", "---\nmodel: main\nsandbox: {provider: local, manifest: files}\n---\nYou are Maya.\n");
    project.write("manifests/files.yaml", "entries:\n  a.txt: {type: file, content: a}\n");
    let (taken, closed) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let stuck = Stuck { takes: 0, taken: taken.clone(), closed: closed.clone() };
    let limits = Limits { start_lull_ms: 40, ..Limits::default() };
    let engine = project.engine_among(World { limits, ..World::default() }, vec![Arc::new(stuck)]);
    let ticket = engine.submit(ask("Go.")).await.unwrap();
    let view = engine.wait(TENANT, ticket.run, Duration::from_secs(60)).await.unwrap();
    assert_eq!(view.status, RunStatus::Failed, "{view:?}");
    let records = records(&engine, ticket.session).await;
    let failure = records.iter().find_map(|record| match &record.event {
        Event::Finished(body) => body.failure.clone(),
        _ => None,
    });
    let failure = failure.expect("it says why");
    assert_eq!(failure.code, "sandbox_start");
    let told = "the sandbox did not start: manifest: nothing has moved for start_lull_ms = 40; took ";
    assert!(failure.message.starts_with(told) && failure.message.contains(" manifest "), "{}", failure.message);
    assert_eq!((taken.load(Ordering::SeqCst), closed.load(Ordering::SeqCst)), (2, 2), "each attempt was closed");
    engine.drain(Duration::from_secs(60)).await;
    engine.journal().close().await.unwrap();
}
