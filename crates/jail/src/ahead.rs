//! Sandboxes that were made ahead: whole, walls and all, around an empty workspace in stock, and nobody's. Whose one is from then
//! on is said with one word to the launcher, which tells its first process. How many stand follows the demand; where they stand
//! is the stock's business.

use crate::door::{Create, Keep, Label, Reply, Request};
use crate::harbour::{Arrived, Harbour, Slot};
use crate::live::{Running, Watch};
use crate::provider::unexpected;
use crate::wire::Wire;
use rustix::io::fcntl_dupfd_cloexec;
use sandbox::wire::{Start, Work};
use sandbox::{Chunk, Error, Limits, Process as _, RelPath, Walls};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use stdx::Random;
use tokio::time::Instant;

/// Without a request for so long, no more of them than the least are kept.
const DEMAND: Duration = Duration::from_secs(10);
/// Where one could not be had, it is tried again after so long.
const RETRY: Duration = Duration::from_secs(1);

/// What is run in each before it is anybody's. Whether there is such a program does not matter.
const NOTHING: &str = "/bin/true";
const REHEARSAL_MAX: Duration = Duration::from_secs(10);

/// A sandbox that is nobody's yet.
#[derive(Debug)]
pub(crate) struct Ahead {
    /// Which requests it can stand in for.
    pub(crate) kind: String,
    slot: Slot,
    walls: Walls,
    wire: Arc<Wire>,
}

/// Which are wanted, and how many.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    like: Create,
    pub(crate) kind: String,
    min: usize,
    max: usize,
    /// How many are wanted now.
    pub(crate) wanted: usize,
    /// When one was asked for last.
    asked: Option<Instant>,
    /// Before that none is tried to be made.
    retry: Option<Instant>,
}

impl Order {
    /// Between `min` and `max` of the kind of `like`; `None`: none can be made ahead, or none is wanted.
    pub(crate) fn new(like: &Create, min: usize, max: usize) -> Option<Self> {
        let kind = like.kind().filter(|_| max > 0)?;
        let like = Create { workspace: Keep::Mounted, ahead: true, epoch: 0, shape: String::new(), ..like.clone() };
        let wanted = min.min(max);
        Some(Self { like, kind, min: wanted, max, wanted, asked: None, retry: None })
    }

    /// What each is made with.
    pub(crate) const fn limits(&self) -> Limits {
        self.like.limits
    }

    /// The same, with what was learnt of the demand under an earlier one like it.
    pub(crate) fn after(self, had: Option<Self>) -> Self {
        had.filter(|had| (&had.kind, had.min, had.max) == (&self.kind, self.min, self.max)).unwrap_or(self)
    }

    /// One was asked for, and did or did not stand.
    pub(crate) fn ask(&mut self, now: Instant, stood: bool) {
        self.asked = Some(now);
        if !stood {
            self.wanted = (self.wanted + 1).min(self.max);
        }
    }

    /// Wants no more than the least when none was asked for in a while.
    pub(crate) fn calm_down(&mut self, now: Instant) {
        if self.asked.is_none_or(|asked| now >= asked + DEMAND) {
            self.wanted = self.min;
        }
    }

    /// Whether one more is to be made now, where so many stand.
    pub(crate) fn is_short(&self, stand: usize, now: Instant) -> bool {
        stand < self.wanted && self.retry.is_none_or(|retry| now >= retry)
    }

    /// When there is something to do again, where so many stand.
    pub(crate) fn next_moment(&self, stand: usize) -> Option<Instant> {
        let retry = self.retry.filter(|_| stand < self.wanted);
        let calm = self.asked.map(|asked| asked + DEMAND).filter(|_| self.wanted > self.min);
        retry.into_iter().chain(calm).min()
    }

    /// One could not be had just now.
    pub(crate) fn put_off(&mut self, now: Instant) {
        self.retry = Some(now + RETRY);
    }

    /// Makes one around this workspace.
    pub(crate) async fn make(&self, harbour: &Harbour, random: &Random, mount: &OwnedFd) -> Result<Ahead, Error> {
        let mount = fcntl_dupfd_cloexec(mount, 3).map_err(crate::roots::failed)?;
        // Its names follow from this, and are to be its own for good.
        let id = random.bytes::<16>().iter().map(|byte| format!("{byte:02x}")).collect();
        let create = Box::new(Create { label: Label { id, workspace: None }, ..self.like.clone() });
        let (slot, walls, stream) = match harbour.ask(Request::Create(create), vec![mount]).await? {
            Arrived::Created { slot, walls, stream, .. } => (slot, walls, stream),
            Arrived::Other(Reply::Failed(failure)) => return Err(failure.into()),
            _ => return Err(unexpected()),
        };
        let wire = Arc::new(Wire::new(stream, self.like.limits.commands_max)?);
        let watch = Watch { harbour: harbour.clone(), slot: slot.number, seen: AtomicU64::new(0) };
        let rehearsal = rehearse(&wire, watch, self.like.limits.memory_bytes_max);
        let rehearsed = tokio::time::timeout(REHEARSAL_MAX, rehearsal).await;
        let _ = rehearsed.map_err(|_| Error::Start { stage: "ready", detail: "it runs nothing".to_owned() })?;
        // What ended with its first program would end with anybody's.
        wire.check()?;
        Ok(Ahead { kind: self.kind.clone(), slot, walls, wire })
    }
}

/// Has a sandbox's first process do once what it would otherwise do for the first time when somebody waits: most of its pages
/// are its own, and found, only then.
async fn rehearse(wire: &Arc<Wire>, watch: Watch, memory_bytes_max: u64) -> Result<(), Error> {
    let (argv, workdir, environment) = (vec![NOTHING.to_owned()], RelPath::root(), Vec::new());
    let work = Work::Program { argv, workdir, environment, terminal: false, stdin: false, user: None };
    let running = Running::new(Arc::clone(wire), Arc::new(watch), memory_bytes_max, wire.open().await?);
    let mut running = running.start(Start { epoch: 0, name: None, work }).await?;
    while !matches!(running.next().await?, Chunk::Exit(_)) {}
    Ok(())
}

impl Ahead {
    /// Whether its first process was there a moment ago.
    pub(crate) fn is_alive(&self) -> bool {
        self.wire.check().is_ok()
    }

    /// Makes it whose the request `by` is; gives it, or why it can't stand in.
    pub(crate) async fn give(self, harbour: &Harbour, by: Create) -> Result<(Slot, Walls, Arc<Wire>), Error> {
        let Self { slot, walls, wire, .. } = self;
        match harbour.ask(Request::Take { slot: slot.number, by: Box::new(by) }, Vec::new()).await? {
            Arrived::Other(Reply::Taken) => Ok((slot, walls, wire)),
            Arrived::Other(Reply::Failed(failure)) => Err(failure.into()),
            _ => Err(unexpected()),
        }
    }
}
