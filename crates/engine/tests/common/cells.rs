//! A provider whose sandboxes are played: nothing is in them, every command ends well at once, and a test sees what is done with
//! them, in order, and can have any deed stand still.

use async_trait::async_trait;
use bytes::Bytes;
use domain::{Id, id};
use sandbox::{
    Archive, ArchiveLimits, Change, Chunk, Command, Error, Exit, Export, Probe, Process, Provider, RelPath, Sandbox,
    Spec, Stat, Totals, Walls, Workspace,
};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::watch;

/// How long a test waits for what it knows to come.
const LONG: Duration = Duration::from_secs(60);

/// The provider; clones are the same one.
#[derive(Clone, Debug)]
pub struct Cells(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// What was done, as `make 1`, `lay 1`, `run 1`, `halt 1`, `wake 1`, `close 1`: the first sandbox and its deeds.
    deeds: watch::Sender<Vec<String>>,
    /// What was asked of each sandbox, in the order in which they were made.
    specs: watch::Sender<Vec<Spec>>,
    /// The deeds that stand still.
    held: watch::Sender<BTreeSet<String>>,
    /// How many must be closed before there is room for another.
    wanting: AtomicUsize,
}

impl Cells {
    pub fn new() -> Self {
        let (deeds, specs, held) = (watch::Sender::default(), watch::Sender::default(), watch::Sender::default());
        Self(Arc::new(Shared { deeds, specs, held, wanting: AtomicUsize::new(0) }))
    }

    /// Deeds of this name, such as `make`, or this one, such as `make 1`, stand still once they have begun.
    pub fn hold(&self, deed: &str) {
        self.0.held.send_modify(|held| _ = held.insert(deed.to_owned()));
    }

    pub fn let_go(&self, deed: &str) {
        self.0.held.send_modify(|held| _ = held.remove(deed));
    }

    /// There is no room for another before so many are closed.
    pub fn fill(&self, wanting: usize) {
        self.0.wanting.store(wanting, Ordering::SeqCst);
    }

    /// What was done so far.
    pub fn deeds(&self) -> String {
        self.0.deeds.borrow().join(", ")
    }

    /// Waits until a deed has begun.
    pub async fn until(&self, deed: &str) {
        let mut deeds = self.0.deeds.subscribe();
        let begun = tokio::time::timeout(LONG, deeds.wait_for(|deeds| deeds.iter().any(|done| done == deed))).await;
        assert!(begun.is_ok(), "no `{deed}` comes after: {}", self.deeds());
    }

    /// What was asked of the last sandbox.
    pub fn spec(&self) -> Spec {
        self.0.specs.borrow().last().cloned().expect("one was made")
    }

    async fn does(&self, name: &str, nth: usize) {
        let deed = format!("{name} {nth}");
        self.0.deeds.send_modify(|deeds| deeds.push(deed.clone()));
        let mut held = self.0.held.subscribe();
        let free = held.wait_for(|held| !held.contains(name) && !held.contains(&deed)).await;
        drop(free.expect("this one sends"));
    }
}

/// A sandbox.
#[derive(Debug)]
struct Cell {
    cells: Cells,
    nth: usize,
    id: Id<id::Sandbox>,
    walls: Walls,
}

fn none<T>() -> Result<T, Error> {
    Err(Error::NoProcess)
}

#[async_trait]
impl Provider for Cells {
    fn name(&self) -> &'static str {
        "local"
    }

    async fn probe(&self) -> Probe {
        Probe { ready: true, walls: Vec::new(), remarks: Vec::new() }
    }

    async fn create(&self, spec: Spec) -> Result<Arc<dyn Sandbox>, Error> {
        let id = spec.id;
        self.0.specs.send_modify(|specs| specs.push(spec));
        let nth = self.0.specs.borrow().len();
        self.does("make", nth).await;
        if self.0.wanting.load(Ordering::SeqCst) > 0 {
            return Err(Error::Limit { limit: "workspaces_bytes_max = 1".into() });
        }
        Ok(Arc::new(Cell { cells: self.clone(), nth, id, walls: Walls::default() }))
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
        self.cells.does("run", self.nth).await;
        Ok(Box::new(Ended))
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
        self.cells.does("lay", self.nth).await;
        Ok(())
    }

    async fn changed(&self, _: usize) -> Result<Vec<(RelPath, Stat)>, Error> {
        Ok(Vec::new())
    }

    async fn export(&self, _: ArchiveLimits) -> Result<Box<dyn Export>, Error> {
        none()
    }

    async fn pause(&self, _: u64) -> Result<bool, Error> {
        self.cells.does("halt", self.nth).await;
        Ok(true)
    }

    async fn resume(&self) -> Result<(), Error> {
        self.cells.does("wake", self.nth).await;
        Ok(())
    }

    async fn import(&self, _: Archive, _: ArchiveLimits) -> Result<Totals, Error> {
        none()
    }

    async fn close(&self) {
        self.cells.does("close", self.nth).await;
        let one_less = |wanting: usize| wanting.checked_sub(1);
        // No more are wanting than are.
        let _ = self.cells.0.wanting.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less);
    }
}

/// A command that has ended well.
#[derive(Debug)]
struct Ended;

#[async_trait]
impl Process for Ended {
    async fn next(&mut self) -> Result<Chunk, Error> {
        Ok(Chunk::Exit(Exit::Code(0)))
    }

    async fn write(&mut self, _: Bytes) -> Result<(), Error> {
        none()
    }

    async fn close_stdin(&mut self) -> Result<(), Error> {
        none()
    }

    async fn resize(&mut self, _: u16, _: u16) -> Result<(), Error> {
        none()
    }

    async fn kill(&mut self) -> Result<Exit, Error> {
        Ok(Exit::Code(0))
    }
}
