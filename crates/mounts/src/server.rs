//! Serves one mount: reads what the kernel asks, answers from the bucket within a deadline, gives up what is interrupted. What
//! does not change a thing for the kernel (forgetting, interrupting) is done at once; the rest runs beside each other.

use crate::blocks::{BLOCK_BYTES, Blocks, Name};
use crate::listings::{Listing, Listings, Refused};
use crate::nodes::{File, Node, Nodes};
use crate::wire::{self, Attributes, Cut, Operation, ROOT};
use crate::{Error, Limits, names};
use blob::Bucket;
use bytes::Bytes;
use rustix::io::Errno;
use std::collections::HashMap;
use std::io::IoSlice;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;

/// Blocks that wait to be fetched ahead.
const AHEAD_MAX: usize = 4;

/// A request is there, or the mount has gone, which the device tells as an error.
const WATCHED: Interest = Interest::READABLE.add(Interest::ERROR);

/// An answer: the pieces of its body, or an error number.
type Answer = Result<Vec<Bytes>, Errno>;

/// What is open.
#[derive(Clone, Debug)]
enum Open {
    /// A file as it was when it was opened.
    File {
        key: Arc<str>,
        file: File,
    },
    Directory {
        prefix: Arc<str>,
        listing: Arc<Listing>,
    },
}

#[derive(Debug, Default)]
struct Handles {
    open: HashMap<u64, Open>,
    next: u64,
}

#[derive(Debug)]
struct Server {
    device: AsyncFd<OwnedFd>,
    bucket: Bucket,
    limits: Limits,
    owner: (u32, u32),
    nodes: Mutex<Nodes>,
    handles: Mutex<Handles>,
    listings: Listings,
    blocks: Blocks,
    fetches: Semaphore,
    /// The requests under way, and how each is given up.
    waiting: Mutex<HashMap<u64, oneshot::Sender<()>>>,
    ahead: mpsc::Sender<(Name, u64)>,
}

/// Serves until the mount is gone. `device` was opened for it and is closed at the end, which aborts what still waits.
///
/// # Errors
/// [`Error::Prefix`] for a `prefix` that can't be shown as a directory, [`Error::Device`] when the kernel speaks otherwise.
pub async fn serve(
    device: OwnedFd,
    bucket: Bucket,
    prefix: &str,
    owner: (u32, u32),
    limits: Limits,
) -> Result<(), Error> {
    let failed = |what, error: std::io::Error| Error::Device { what, detail: error.to_string(), missing: false };
    let root = names::prefix(prefix).ok_or(Error::Prefix)?;
    rustix::io::ioctl_fionbio(&device, true).map_err(|errno| failed("the device", errno.into()))?;
    let device = watched(device).map_err(|error| failed("the device", error))?;
    let (ahead, mut wanted) = mpsc::channel(AHEAD_MAX);
    let valid = Duration::from_millis(limits.valid_ms);
    let server = Arc::new(Server {
        device,
        bucket,
        limits,
        owner,
        nodes: Mutex::new(Nodes::new(&root, limits.names_bytes_max)),
        handles: Mutex::default(),
        listings: Listings::new(valid, limits.listed_entries_max, limits.directory_entries_max),
        blocks: Blocks::new(limits.cache_bytes_max),
        fetches: Semaphore::new(limits.fetches_max),
        waiting: Mutex::default(),
        ahead,
    });
    let (mut tasks, mut buffer) = (JoinSet::new(), vec![0; wire::REQUEST_BYTES_MAX]);
    loop {
        tokio::select! {
            read = server.next(&mut buffer) => match read {
                Ok(length) => {
                    if !server.take(&buffer[..length], &mut tasks) {
                        return Ok(());
                    }
                }
                // It was unmounted, or aborted.
                Err(Errno::NODEV) => return Ok(()),
                Err(errno) => return Err(failed("the device", errno.into())),
            },
            Some((name, bytes)) = wanted.recv() => {
                let server = Arc::clone(&server);
                tasks.spawn(async move {
                    // What fails here fails again where it is asked for.
                    let _ = tokio::time::timeout(server.deadline(), server.block(&name, bytes)).await;
                });
            }
            Some(_) = tasks.join_next(), if !tasks.is_empty() => {}
        }
    }
}

#[expect(
    deprecated,
    reason = "its objection is to types whose descriptor may change; an owned descriptor is one and the same"
)]
fn watched(device: OwnedFd) -> std::io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(device, WATCHED)
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn body(bytes: Vec<u8>) -> Answer {
    Ok(vec![Bytes::from(bytes)])
}

/// What an error of the storage is to a program.
fn errno(error: &blob::Error) -> Errno {
    match error {
        blob::Error::Missing { .. } => Errno::NOENT,
        blob::Error::Changed { .. } => Errno::STALE,
        blob::Error::KeyMalformed { .. } => Errno::NOENT,
        error if error.is_denied() => Errno::ACCESS,
        _ => Errno::IO,
    }
}

fn refused(refused: &Refused) -> Errno {
    match refused {
        Refused::TooLarge => Errno::OVERFLOW,
        Refused::Full => Errno::NOMEM,
        Refused::Storage(error) => errno(error),
    }
}

impl Server {
    /// The next request.
    async fn next(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        loop {
            let mut ready = self.device.ready(WATCHED).await.map_err(|_| Errno::NODEV)?;
            let read = ready.try_io(|device| Ok(rustix::io::read(device.get_ref(), &mut *buffer)?));
            match read {
                Ok(Ok(length)) => return Ok(length),
                Ok(Err(error)) => match Errno::from_io_error(&error).unwrap_or(Errno::IO) {
                    // The request was given up while it was read.
                    Errno::NOENT | Errno::INTR => {}
                    errno => return Err(errno),
                },
                Err(_would_block) => {}
            }
        }
    }

    fn answer(&self, unique: u64, answer: Answer) {
        let (error, pieces) = match answer {
            Ok(pieces) => (0, pieces),
            Err(errno) => (-errno.raw_os_error(), Vec::new()),
        };
        let head = wire::head(unique, error, pieces.iter().map(Bytes::len).sum());
        let mut slices = vec![IoSlice::new(&head)];
        slices.extend(pieces.iter().map(|piece| IoSlice::new(piece)));
        // A request that is gone takes no answer, and a mount that is gone is seen by the next read.
        let _ = rustix::io::writev(self.device.get_ref(), &slices);
    }

    fn deadline(&self) -> Duration {
        Duration::from_millis(self.limits.operation_ms_max)
    }

    fn valid(&self) -> Duration {
        Duration::from_millis(self.limits.valid_ms)
    }

    /// Takes one request; `false`: the mount ends.
    fn take(self: &Arc<Self>, bytes: &[u8], tasks: &mut JoinSet<()>) -> bool {
        let request = match wire::request(bytes) {
            Ok(request) => request,
            Err(Cut(None)) => return false,
            Err(Cut(Some(unique))) => {
                self.answer(unique, Err(Errno::INVAL));
                return true;
            }
        };
        let (unique, node) = (request.unique, request.node);
        match request.operation {
            Operation::Begin { major, readahead, flags } => {
                let told = if major == wire::MAJOR { body(wire::begun(readahead, flags)) } else { Err(Errno::PROTO) };
                self.answer(unique, told);
                return major == wire::MAJOR;
            }
            Operation::End => return false,
            Operation::Forget { lookups } => held(&self.nodes).forget(node, lookups),
            Operation::ForgetMany(forgotten) => {
                let mut nodes = held(&self.nodes);
                forgotten.into_iter().for_each(|(node, lookups)| nodes.forget(node, lookups));
            }
            Operation::Interrupt { unique } => {
                if let Some(given_up) = held(&self.waiting).remove(&unique) {
                    // One that has just ended needs no word.
                    let _ = given_up.send(());
                }
            }
            Operation::Release { handle } | Operation::ReleaseDirectory { handle } => {
                held(&self.handles).open.remove(&handle);
                self.answer(unique, Ok(Vec::new()));
            }
            Operation::Statistics => self.answer(unique, body(wire::statistics())),
            Operation::Change => self.answer(unique, Err(Errno::ROFS)),
            Operation::Unknown => self.answer(unique, Err(Errno::NOSYS)),
            Operation::ReadDirectory { handle, offset, bytes, plus } => {
                self.answer(unique, self.read_directory(handle, offset, bytes, plus));
            }
            Operation::Lookup { name } => {
                let (server, name) = (Arc::clone(self), name.to_vec());
                self.begin(unique, tasks, async move { server.lookup(node, &name).await });
            }
            Operation::Attributes => {
                let server = Arc::clone(self);
                self.begin(unique, tasks, async move { server.attributes(node).await });
            }
            Operation::Open => {
                let server = Arc::clone(self);
                self.begin(unique, tasks, async move { server.open(node).await });
            }
            Operation::OpenDirectory => {
                let server = Arc::clone(self);
                self.begin(unique, tasks, async move { server.open_directory(node).await });
            }
            Operation::Read { handle, offset, bytes } => {
                let server = Arc::clone(self);
                self.begin(unique, tasks, async move { server.read(handle, offset, bytes).await });
            }
        }
        true
    }

    /// Runs what may have to wait: until it ends, its deadline, or somebody gives it up.
    fn begin(
        self: &Arc<Self>,
        unique: u64,
        tasks: &mut JoinSet<()>,
        work: impl Future<Output = Answer> + Send + 'static,
    ) {
        let (give_up, given_up) = oneshot::channel();
        {
            let mut waiting = held(&self.waiting);
            if waiting.len() >= self.limits.operations_max {
                drop(waiting);
                return self.answer(unique, Err(Errno::BUSY));
            }
            waiting.insert(unique, give_up);
        }
        let server = Arc::clone(self);
        tasks.spawn(async move {
            let answer = tokio::select! {
                // Said as what it is, so that whoever asked can tell a bucket that is slow from one that is broken.
                done = tokio::time::timeout(server.deadline(), work) => done.unwrap_or(Err(Errno::TIMEDOUT)),
                Ok(()) = given_up => Err(Errno::INTR),
            };
            held(&server.waiting).remove(&unique);
            server.answer(unique, answer);
        });
    }

    fn node(&self, number: u64) -> Result<Node, Errno> {
        held(&self.nodes).get(number).ok_or(Errno::STALE)
    }

    fn told(&self, number: u64, file: Option<&File>) -> Attributes {
        Attributes {
            node: number,
            directory: file.is_none(),
            bytes: file.map_or(0, |file| file.bytes),
            modified_s: file.map_or(0, |file| file.modified_s),
            owner: self.owner,
        }
    }

    async fn lookup(&self, parent: u64, name: &[u8]) -> Answer {
        let parent = self.node(parent)?;
        if parent.file.is_some() {
            return Err(Errno::NOTDIR);
        }
        let nothing = || body(wire::entry(None, self.valid()));
        let Some(key) = names::key(&parent.key, name) else { return nothing() };
        let Some(file) = self.find(&parent.key, &key).await? else { return nothing() };
        let key = if file.is_some() { key } else { format!("{key}/") };
        let node = Node { key: key.into(), file: file.clone() };
        let number = held(&self.nodes).hold(node).ok_or(Errno::NFILE)?;
        body(wire::entry(Some(&self.told(number, file.as_ref())), self.valid()))
    }

    /// What stands at a key: a file, a directory (`Some(None)`), or nothing.
    async fn find(&self, parent: &str, key: &str) -> Result<Option<Option<File>>, Errno> {
        if let Some(listing) = self.listings.kept(parent) {
            let found = key.strip_prefix(parent).and_then(|name| listing.find(name));
            return Ok(found.map(|entry| entry.file.clone()));
        }
        let _turn = self.fetches.acquire().await.map_err(|_| Errno::IO)?;
        let below = format!("{key}/");
        let asked = tokio::join!(self.bucket.list(key, None, 1), self.bucket.list(&below, None, 1));
        let (own, below_it) = (asked.0.map_err(|error| errno(&error))?, asked.1.map_err(|error| errno(&error))?);
        let is_below = |key: &String| key.starts_with(&below);
        let directory = below_it.objects.iter().map(|found| &found.key).chain(&below_it.prefixes).any(is_below);
        if directory {
            return Ok(Some(None));
        }
        // A key is the first of those that begin with it.
        let own = own.objects.into_iter().find(|found| found.key == key);
        Ok(own.map(|found| {
            let version = found.version.map(Arc::from);
            Some(File { bytes: found.bytes, modified_s: found.modified_s, version })
        }))
    }

    async fn attributes(&self, number: u64) -> Answer {
        let node = self.node(number)?;
        let Some(known) = node.file else {
            return body(wire::attributes(&self.told(number, None), self.valid()));
        };
        let parent = node.key.rsplit_once('/').map_or("", |(parent, _)| &node.key[..=parent.len()]);
        match self.find(parent, &node.key).await? {
            Some(Some(file)) => {
                if file != known {
                    held(&self.nodes).update(number, &file);
                }
                body(wire::attributes(&self.told(number, Some(&file)), self.valid()))
            }
            Some(None) => Err(Errno::STALE),
            None => Err(Errno::NOENT),
        }
    }

    fn handle(&self, open: Open) -> Answer {
        let mut handles = held(&self.handles);
        if handles.open.len() >= self.limits.handles_max {
            return Err(Errno::NFILE);
        }
        handles.next += 1;
        let number = handles.next;
        handles.open.insert(number, open);
        body(wire::opened(number))
    }

    async fn open(&self, number: u64) -> Answer {
        let node = self.node(number)?;
        let file = node.file.ok_or(Errno::ISDIR)?;
        self.handle(Open::File { key: node.key, file })
    }

    async fn open_directory(&self, number: u64) -> Answer {
        let node = self.node(number)?;
        if node.file.is_some() {
            return Err(Errno::NOTDIR);
        }
        let turn = self.fetches.acquire().await.map_err(|_| Errno::IO)?;
        let listing = self.listings.read(&self.bucket, &node.key).await.map_err(|error| refused(&error))?;
        drop(turn);
        if listing.entries.is_empty() && number != ROOT {
            return Err(Errno::NOENT);
        }
        self.handle(Open::Directory { prefix: node.key, listing })
    }

    fn opened(&self, handle: u64) -> Result<Open, Errno> {
        held(&self.handles).open.get(&handle).cloned().ok_or(Errno::BADF)
    }

    fn read_directory(&self, handle: u64, offset: u64, bytes: u32, plus: bool) -> Answer {
        let Open::Directory { prefix, listing } = self.opened(handle)? else { return Err(Errno::NOTDIR) };
        let mut out = wire::Directory::new(bytes, plus);
        let mut at = offset;
        for name in [".", ".."].into_iter().skip(usize::try_from(at).unwrap_or(2)) {
            at += 1;
            out.put(name, true, ROOT, at, None, Duration::ZERO);
        }
        let first = usize::try_from(at.saturating_sub(2)).unwrap_or(usize::MAX);
        for entry in listing.entries.iter().skip(first) {
            if !out.has_room(&entry.name) {
                break;
            }
            at += 1;
            let directory = entry.file.is_none();
            let known = if plus { self.hold(&prefix, &entry.name, entry.file.as_ref()) } else { None };
            // Any number serves for a name alone; 0 would be taken for no entry.
            let number = known.as_ref().map_or(u64::MAX, |known| known.node);
            out.put(&entry.name, directory, number, at, known.as_ref(), self.valid());
        }
        body(out.end())
    }

    /// Counts an entry of a directory as looked up, when there is room.
    fn hold(&self, prefix: &str, name: &str, file: Option<&File>) -> Option<Attributes> {
        let mut key = names::key(prefix, name.as_bytes())?;
        if file.is_none() {
            key.push('/');
        }
        let number = held(&self.nodes).hold(Node { key: key.into(), file: file.cloned() })?;
        Some(self.told(number, file))
    }

    async fn read(&self, handle: u64, offset: u64, bytes: u32) -> Answer {
        let Open::File { key, file } = self.opened(handle)? else { return Err(Errno::ISDIR) };
        let room = u64::from(bytes).min(wire::READ_BYTES_MAX as u64);
        let end = offset.saturating_add(room).min(file.bytes);
        let (mut at, mut pieces) = (offset, Vec::new());
        while at < end {
            let number = at / BLOCK_BYTES;
            let version = file.version.clone().ok_or(handle);
            let name = Name { key: Arc::clone(&key), version, number };
            let block = self.block(&name, file.bytes).await?;
            self.fetch_ahead(&name, file.bytes);
            let from = at - number * BLOCK_BYTES;
            let until = (end - number * BLOCK_BYTES).min(BLOCK_BYTES);
            let (from, until) = (usize::try_from(from).unwrap_or(0), usize::try_from(until).unwrap_or(0));
            // The storage gave less than it says the object has.
            let piece = block.get(from..until).ok_or(Errno::IO)?;
            at += piece.len() as u64;
            pieces.push(block.slice_ref(piece));
        }
        Ok(pieces)
    }

    /// One block of an object with so many bytes.
    async fn block(&self, name: &Name, bytes: u64) -> Result<Bytes, Errno> {
        let from = name.number * BLOCK_BYTES;
        let range = from..(from + BLOCK_BYTES).min(bytes);
        let fetch = async {
            let _turn = self.fetches.acquire().await.map_err(|_| Errno::IO)?;
            let read = self.bucket.read(&name.key, range, name.version.as_deref().ok()).await;
            read.map_err(|error| errno(&error))
        };
        self.blocks.get(name, fetch).await
    }

    /// Has the next block fetched when a file seems to be read from one end to the other, and not too many wait already.
    fn fetch_ahead(&self, name: &Name, bytes: u64) {
        let beside = |number| Name { number, ..name.clone() };
        let Some(before) = name.number.checked_sub(1).map(beside) else { return };
        let next = beside(name.number + 1);
        if next.number * BLOCK_BYTES < bytes && self.blocks.has(&before) && !self.blocks.has(&next) {
            let _ = self.ahead.try_send((next, bytes));
        }
    }
}
