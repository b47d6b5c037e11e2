//! A disk in memory that knows what is synced, and of a crash keeps what a real disk might keep: unsynced writes are lost or
//! kept sector by sector in any order, a new name is lost until its directory was synced, a sync that fails drops what it should
//! have written. What SQLite sees of it is in `vfs`, who holds which lock in `locks`.

mod locks;
mod survival;
mod vfs;

pub use vfs::{BEHIND, Mounted, VFS};

use crate::power::{Off, Power};
use crate::time::Time;
use locks::Locks;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use stdx::Random;
use survival::Pending;

/// How long the machine sleeps at most.
pub const SLEEP_MS_MAX: u64 = 60_000;
/// What a disk writes whole or not at all.
pub const SECTOR_BYTES: usize = 512;

/// Why an operation did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// The power is off.
    #[error("the power is off")]
    Off,
    /// An I/O error.
    #[error("input/output error")]
    Io,
    /// No space is left.
    #[error("no space left")]
    Full,
    /// There is no such file.
    #[error("no such file")]
    Missing,
}

impl From<Off> for Trouble {
    fn from(_: Off) -> Self {
        Self::Off
    }
}

/// What goes wrong on a disk that has power.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Reads of 100,000 that fail.
    pub reads_failed: u64,
    /// Writes of 100,000 that fail; a part of the bytes may have been written.
    pub writes_failed: u64,
    /// Syncs of 100,000 that fail; what was to be synced is then in no later sync.
    pub syncs_failed: u64,
    /// Syncs of 100,000 during which the machine sleeps for up to [`SLEEP_MS_MAX`].
    pub syncs_slept: u64,
    /// What all files together may hold.
    pub bytes_max: Option<u64>,
    /// Whether a sync is told to have happened and did not: no store survives this, which proves that the checks can fail.
    pub lies: bool,
}

impl Faults {
    /// Some faults of a disk that holds so much.
    pub(crate) fn drawn(random: &Random, used_bytes: u64) -> Self {
        Self {
            reads_failed: random.below(100),
            writes_failed: random.below(1_500),
            syncs_failed: random.below(1_500),
            syncs_slept: 0,
            bytes_max: (random.below(3) == 0).then(|| used_bytes + random.below(200_000)),
            lies: false,
        }
    }
}

/// What a crash takes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// The process: what it wrote stays in the system's cache, synced or not.
    Process,
    /// The power: what was not synced is lost, in whole or in part.
    Power,
}

/// Operations so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Operations {
    /// Reads.
    pub reads: u64,
    /// Writes and truncations.
    pub writes: u64,
    /// Syncs.
    pub syncs: u64,
    /// Faults that were injected.
    pub faults: u64,
}

/// The disk. Cloning is cheap; clones are the same disk.
#[derive(Clone)]
pub struct Disk(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    power: Power,
    random: Random,
    time: Time,
}

type FileId = u64;

#[derive(Default)]
struct State {
    names: BTreeMap<String, FileId>,
    names_durable: BTreeMap<String, FileId>,
    names_pending: Vec<Naming>,
    files: BTreeMap<FileId, File>,
    files_made: FileId,
    handles_made: u64,
    /// Counts restarts: what was opened before the last one is dead.
    life: u64,
    faults: Faults,
    operations: Operations,
}

/// A change of the directory that is not durable yet.
#[derive(Clone, Debug)]
enum Naming {
    Made(String, FileId),
    Removed(String),
}

#[derive(Default)]
struct File {
    /// As it is read.
    live: Vec<u8>,
    /// As the medium has it.
    durable: Vec<u8>,
    /// What leads from the one to the other, as far as a sync still would.
    pending: Vec<Pending>,
    locks: Locks,
    index: Option<Arc<vfs::Index>>,
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.0.state.lock();
        f.debug_struct("Disk").field("files", &state.names).field("life", &state.life).finish_non_exhaustive()
    }
}

impl Disk {
    /// An empty disk.
    pub fn new(power: Power, random: Random, time: Time) -> Self {
        Self(Arc::new(Shared { state: Mutex::default(), power, random, time }))
    }

    /// The switch that it hangs on.
    pub fn power(&self) -> &Power {
        &self.0.power
    }

    /// Sets what goes wrong from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.0.state.lock().faults = faults;
    }

    /// Operations so far.
    pub fn operations(&self) -> Operations {
        self.0.state.lock().operations
    }

    /// What all files hold, in bytes.
    pub fn used_bytes(&self) -> u64 {
        self.0.state.lock().used_bytes()
    }

    /// What the medium would have of a file if the power went now and nothing unsynced survived.
    pub fn durable(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.0.state.lock();
        state.names_durable.get(name).and_then(|file| state.files.get(file)).map(|file| file.durable.clone())
    }

    /// A disk of its own with what the medium would have, power and no faults.
    #[must_use]
    pub fn image(&self) -> Self {
        let image = Self::new(Power::default(), Random::seeded(0), Time::default());
        let state = self.0.state.lock();
        for (name, file) in &state.names_durable {
            if let Some(file) = state.files.get(file) {
                image.place(name, file.durable.clone());
            }
        }
        image
    }

    /// Puts a file there, durable.
    pub fn place(&self, name: &str, bytes: Vec<u8>) {
        let mut state = self.0.state.lock();
        let file = state.add(File { live: bytes.clone(), durable: bytes, ..File::default() });
        state.names.insert(name.to_owned(), file);
        state.names_durable.insert(name.to_owned(), file);
    }

    /// Starts again after a crash: whatever was open is dead, locks and shared memory are gone, and of what was not durable a
    /// crash of the power leaves what chance leaves.
    pub fn restart(&self, crash: Crash) {
        let state = &mut *self.0.state.lock();
        state.life += 1;
        for file in state.files.values_mut() {
            file.locks = Locks::default();
            file.index = None;
            if crash == Crash::Power {
                survival::survive(&mut file.durable, &file.pending, &self.0.random);
                file.live = file.durable.clone();
                file.pending.clear();
            }
        }
        if crash == Crash::Power {
            // A directory is journaled: its changes become durable in order.
            let kept = self.0.random.below(state.names_pending.len() as u64 + 1);
            state.settle_names(usize::try_from(kept).unwrap_or(usize::MAX));
            state.names_pending.clear();
            state.names = state.names_durable.clone();
        }
        let State { names, names_durable, files, .. } = state;
        files.retain(|id, _| names.values().chain(names_durable.values()).any(|named| named == id));
    }

    fn chance(&self, of_100_000: u64) -> bool {
        of_100_000 > 0 && self.0.random.below(100_000) < of_100_000
    }

    fn open(&self, name: &str, create: Create) -> Result<(FileId, u64, u64), Trouble> {
        let state = &mut *self.0.state.lock();
        let file = match state.names.get(name).copied() {
            Some(_) if create == Create::New => return Err(Trouble::Io),
            Some(file) => file,
            None if create == Create::Never => return Err(Trouble::Missing),
            None => {
                self.0.power.point("disk: make a file")?;
                let file = state.add(File::default());
                state.names.insert(name.to_owned(), file);
                state.names_pending.push(Naming::Made(name.to_owned(), file));
                file
            }
        };
        state.handles_made += 1;
        Ok((file, state.handles_made, state.life))
    }

    fn remove(&self, name: &str, durably: bool) -> Result<(), Trouble> {
        self.0.power.point("disk: remove a file")?;
        let state = &mut *self.0.state.lock();
        if state.names.remove(name).is_none() {
            return Err(Trouble::Missing);
        }
        state.names_pending.push(Naming::Removed(name.to_owned()));
        if durably {
            state.settle_names(usize::MAX);
        }
        Ok(())
    }

    /// Whether a file is there and holds something.
    fn has(&self, name: &str) -> bool {
        let state = self.0.state.lock();
        state.names.get(name).and_then(|file| state.files.get(file)).is_some_and(|file| !file.live.is_empty())
    }

    /// Reads; gives how many bytes there were. What lies beyond the end reads as zeros.
    fn read(&self, handle: &vfs::Handle, offset: usize, into: &mut [u8]) -> Result<usize, Trouble> {
        let state = &mut *self.0.state.lock();
        state.operations.reads += 1;
        self.0.power.step()?;
        if self.chance(state.faults.reads_failed) {
            state.operations.faults += 1;
            return Err(Trouble::Io);
        }
        let file = state.file(handle)?;
        let there = file.live.get(offset..).unwrap_or_default();
        let length = there.len().min(into.len());
        into[..length].copy_from_slice(&there[..length]);
        into[length..].fill(0);
        Ok(length)
    }

    fn write(&self, handle: &vfs::Handle, offset: usize, bytes: &[u8]) -> Result<(), Trouble> {
        self.0.power.point("disk: write")?;
        let state = &mut *self.0.state.lock();
        state.operations.writes += 1;
        let used_bytes = state.used_bytes();
        let Faults { writes_failed, bytes_max, .. } = state.faults;
        let length = state.file(handle)?.live.len();
        let grows = (offset + bytes.len()).saturating_sub(length) as u64;
        if bytes_max.is_some_and(|most| grows > 0 && used_bytes + grows > most) {
            state.operations.faults += 1;
            return Err(Trouble::Full);
        }
        if self.chance(writes_failed) {
            state.operations.faults += 1;
            let written = usize::try_from(self.0.random.below(bytes.len() as u64 + 1)).unwrap_or(0);
            let part = bytes[..written].to_vec();
            state.file(handle)?.change(Pending::Write { offset, bytes: part });
            return Err(Trouble::Io);
        }
        state.file(handle)?.change(Pending::Write { offset, bytes: bytes.to_vec() });
        Ok(())
    }

    fn truncate(&self, handle: &vfs::Handle, length: usize) -> Result<(), Trouble> {
        self.0.power.point("disk: truncate")?;
        let state = &mut *self.0.state.lock();
        state.operations.writes += 1;
        if self.chance(state.faults.writes_failed) {
            state.operations.faults += 1;
            return Err(Trouble::Io);
        }
        state.file(handle)?.change(Pending::Truncate(length));
        Ok(())
    }

    fn sync(&self, handle: &vfs::Handle) -> Result<(), Trouble> {
        self.0.power.point("disk: sync")?;
        let state = &mut *self.0.state.lock();
        state.operations.syncs += 1;
        let faults = state.faults;
        state.file(handle)?;
        if faults.lies {
            return Ok(());
        }
        if self.chance(faults.syncs_slept) {
            self.0.time.sleep(self.0.random.below(SLEEP_MS_MAX));
        }
        if self.chance(faults.syncs_failed) {
            state.operations.faults += 1;
            let file = state.file(handle)?;
            // As Linux does: the pages count as clean from now on, whether they reached the medium or not.
            survival::survive(&mut file.durable, &file.pending, &self.0.random);
            file.pending.clear();
            return Err(Trouble::Io);
        }
        let file = state.file(handle)?;
        for pending in std::mem::take(&mut file.pending) {
            pending.apply(&mut file.durable);
        }
        // Whoever makes a file syncs its directory with it (SQLite does for its log, the journal for its database).
        let made = |naming: &Naming| matches!(naming, Naming::Made(_, file) if *file == handle.file);
        if let Some(at) = state.names_pending.iter().rposition(made) {
            state.settle_names(at + 1);
        }
        Ok(())
    }

    fn length(&self, handle: &vfs::Handle) -> Result<usize, Trouble> {
        Ok(self.0.state.lock().file(handle)?.live.len())
    }

    fn with_locks<T>(&self, handle: &vfs::Handle, ask: impl FnOnce(&mut Locks) -> T) -> Option<T> {
        // A lock may be given back when the power is off; whoever takes one finds out at the next operation.
        let _ = self.0.power.step();
        self.0.state.lock().file(handle).ok().map(|file| ask(&mut file.locks))
    }

    /// The shared memory of a file, made when there is none.
    fn index(&self, handle: &vfs::Handle) -> Result<Arc<vfs::Index>, Trouble> {
        let mut state = self.0.state.lock();
        Ok(state.file(handle)?.index.get_or_insert_default().clone())
    }

    /// Lets the shared memory of a file go when nobody else has it.
    fn drop_index(&self, handle: &vfs::Handle) {
        if let Ok(file) = self.0.state.lock().file(handle)
            && file.index.as_ref().is_some_and(|index| Arc::strong_count(index) == 1)
        {
            file.index = None;
        }
    }
}

/// Whether a file that is not there is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Create {
    Never,
    Missing,
    New,
}

impl State {
    fn add(&mut self, file: File) -> FileId {
        self.files_made += 1;
        self.files.insert(self.files_made, file);
        self.files_made
    }

    fn file(&mut self, handle: &vfs::Handle) -> Result<&mut File, Trouble> {
        if handle.life != self.life {
            return Err(Trouble::Off);
        }
        self.files.get_mut(&handle.file).ok_or(Trouble::Missing)
    }

    fn used_bytes(&self) -> u64 {
        self.files.values().map(|file| file.live.len() as u64).sum()
    }

    /// Makes the first changes of the directory durable.
    fn settle_names(&mut self, changes: usize) {
        let most = self.names_pending.len();
        for naming in self.names_pending.drain(..changes.min(most)) {
            match naming {
                Naming::Made(name, file) => self.names_durable.insert(name, file),
                Naming::Removed(name) => self.names_durable.remove(&name),
            };
        }
    }
}

impl File {
    fn change(&mut self, pending: Pending) {
        pending.apply(&mut self.live);
        self.pending.push(pending);
    }
}
