//! The harness's side of the door: numbers requests, one thread hands answers to who asked. No decision about sandboxes.

use crate::door::{self, Answer, Ask, Reply, Request, Took};
use crate::home::{self, Door};
use crate::keeper::Keeper;
use crate::{Error as LaunchError, Launcher, raw};
use rustix::io::Errno;
use rustix::net::{SendFlags, Shutdown};
use sandbox::{Error, Walls};
use std::collections::HashMap;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// Requests under way at once.
const WAITING_MAX: usize = 4_096;

/// What came of a request, as the asker gets it.
#[derive(Debug)]
pub(crate) enum Arrived {
    /// A sandbox that closes when its slot is dropped.
    Created { slot: Slot, walls: Walls, stream: OwnedFd, mounts: Vec<OwnedFd>, took: Took },
    /// As `Created`, but it lived already.
    Adopted { slot: Slot, walls: Walls, stream: OwnedFd, saves: bool, kills_told: u64 },
    /// What was mounted.
    Mounted { mount: OwnedFd },
    /// Anything else.
    Other(Reply),
}

#[derive(Debug)]
struct Shared {
    socket: OwnedFd,
    waiting: Mutex<Waiting>,
    next: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    askers: HashMap<u64, oneshot::Sender<Arrived>>,
    gone: bool,
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // No code panics while it holds this lock, and the map is whole at every moment.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, ask: &Ask, fds: &[OwnedFd], flags: SendFlags) -> Result<(), Errno> {
        let fds: Vec<BorrowedFd<'_>> = fds.iter().map(|fd| fd.as_fd()).collect();
        door::send(&self.socket, ask, &fds, flags)
    }
}

/// The harness's end of the door, which has been greeted, and of the doors of those launchers that follow the first. Clones
/// share it; the last one gone says farewell.
#[derive(Clone, Debug)]
pub(crate) struct Harbour(Arc<Quay>);

#[derive(Debug)]
struct Quay {
    current: Mutex<Arc<Shared>>,
    next: tokio::sync::Mutex<Option<Next>>,
}

/// Where the next launcher comes from.
#[derive(Debug)]
struct Next {
    keeper: Arc<Keeper>,
    home: Option<(PathBuf, u64)>,
}

impl Drop for Quay {
    fn drop(&mut self) {
        let shared = self.current.get_mut().unwrap_or_else(PoisonError::into_inner);
        // A launcher that is too busy to hear it sees the door close, and keeps its sandboxes for a grace.
        let farewell = Ask { number: 0, request: Request::Farewell };
        let _ = door::send(&shared.socket, &farewell, &[], SendFlags::DONTWAIT);
        let _ = rustix::net::shutdown(&shared.socket, Shutdown::Both);
    }
}

/// Begins to listen at the door of a launcher, which is the child `pid` of this process when it is one.
fn listen(socket: OwnedFd, pid: Option<i32>) -> Result<Arc<Shared>, LaunchError> {
    let shared = Arc::new(Shared { socket, waiting: Mutex::default(), next: AtomicU64::new(1) });
    let reader = Arc::clone(&shared);
    let spawned = std::thread::Builder::new().name("jail-door".to_owned()).spawn(move || {
        read(&reader);
        // It ends when its door does, after the last sandbox; nobody else waits for it.
        if let Some(pid) = pid {
            raw::reap(pid);
        }
    });
    spawned.map_err(|error| LaunchError::Fork { detail: error.to_string() })?;
    Ok(shared)
}

impl Next {
    async fn launch(&self) -> Result<Arc<Shared>, LaunchError> {
        let keeper = Arc::clone(&self.keeper);
        let fork = |detail: String| LaunchError::Fork { detail };
        let launched = tokio::task::spawn_blocking(move || keeper.launch()).await;
        let socket = launched.map_err(|error| fork(error.to_string()))?.map_err(|errno| fork(errno.to_string()))?;
        let launcher = Launcher { socket, pid: None, keeper: None };
        let door = match &self.home {
            Some((data, owner_grace_ms)) => home::enter(launcher, data, *owner_grace_ms).await?,
            None => Door::homeless(launcher)?,
        };
        listen(door.socket, door.pid)
    }
}

impl Harbour {
    /// Over the door of a launcher.
    pub(crate) fn new(door: Door) -> Result<Self, LaunchError> {
        let Door { socket, pid, keeper, home, .. } = door;
        let next = keeper.map(|keeper| Next { keeper: Arc::new(keeper), home });
        let current = Mutex::new(listen(socket, pid)?);
        Ok(Self(Arc::new(Quay { current, next: tokio::sync::Mutex::new(next) })))
    }

    fn current(&self) -> Arc<Shared> {
        // No code panics while it holds this lock.
        Arc::clone(&self.0.current.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The door of a launcher that lives, as far as is known: a new one where the last is gone.
    async fn door(&self) -> Arc<Shared> {
        let shared = self.current();
        if !shared.waiting().gone {
            return shared;
        }
        let next = self.0.next.lock().await;
        let shared = self.current();
        let Some(next) = next.as_ref().filter(|_| shared.waiting().gone) else { return shared };
        match next.launch().await {
            Ok(launched) => {
                tracing::warn!("the launcher died, and every sandbox in it; a new one serves");
                self.0.current.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&launched);
                launched
            }
            Err(error) => {
                tracing::error!(code = error.code(), %error, "the launcher died, and no other can be had");
                shared
            }
        }
    }

    /// Nothing is to live on, and no launcher is to follow.
    pub(crate) async fn farewell(&self) {
        drop(self.0.next.lock().await.take());
        // One that is gone has nothing that lives.
        let _ = self.ask(Request::Farewell, Vec::new()).await;
    }

    /// Asks, and waits for the answer. A request of kind `Create` that is given up closes what it made.
    pub(crate) async fn ask(&self, request: Request, fds: Vec<OwnedFd>) -> Result<Arrived, Error> {
        let gone = || Error::Gone { detail: "the launcher has ended; hint: restart".to_owned() };
        let door = self.door().await;
        let number = door.next.fetch_add(1, Ordering::Relaxed);
        let (asker, answer) = oneshot::channel();
        {
            let mut waiting = door.waiting();
            if waiting.gone {
                return Err(gone());
            }
            if waiting.askers.len() >= WAITING_MAX {
                return Err(Error::Limit { limit: format!("launcher_requests_max = {WAITING_MAX}") });
            }
            waiting.askers.insert(number, asker);
        }
        let ask = Ask { number, request };
        let sent = match door.send(&ask, &fds, SendFlags::DONTWAIT) {
            // It waits for room while the launcher is busy, which is no work for an async thread.
            Err(Errno::AGAIN) => {
                let shared = Arc::clone(&door);
                let sent = tokio::task::spawn_blocking(move || shared.send(&ask, &fds, SendFlags::empty()));
                sent.await.unwrap_or(Err(Errno::IO))
            }
            sent => {
                drop(fds);
                sent
            }
        };
        match sent {
            Ok(()) => {}
            Err(Errno::MSGSIZE) => {
                door.waiting().askers.remove(&number);
                return Err(Error::Limit { limit: format!("request_bytes_max = {}", door::MESSAGE_BYTES_MAX) });
            }
            Err(_) => return Err(gone()),
        }
        answer.await.map_err(|_| gone())
    }
}

/// Hands every answer to who asked, until the launcher is gone.
fn read(shared: &Arc<Shared>) {
    loop {
        let (answer, mut fds) = match door::receive::<Answer>(&shared.socket) {
            Ok(Some(received)) => received,
            Err(Errno::BADMSG) => continue,
            Ok(None) | Err(_) => break,
        };
        let arrived = match (answer.reply, fds.pop()) {
            (Reply::Created { slot, walls, took }, Some(stream)) => {
                let slot = Slot { shared: Arc::clone(shared), number: slot, grace_ms: 0, open: true };
                Arrived::Created { slot, walls, stream, mounts: fds, took }
            }
            (Reply::Adopted { slot, walls, saves, kills_told }, Some(stream)) => {
                let slot = Slot { shared: Arc::clone(shared), number: slot, grace_ms: 0, open: true };
                Arrived::Adopted { slot, walls, stream, saves, kills_told }
            }
            (Reply::Mounted, Some(mount)) => Arrived::Mounted { mount },
            (reply, _) => Arrived::Other(reply),
        };
        if let Some(asker) = shared.waiting().askers.remove(&answer.number) {
            // An asker that gave up drops the slot, which closes the sandbox.
            let _ = asker.send(arrived);
        }
    }
    let mut waiting = shared.waiting();
    waiting.gone = true;
    waiting.askers.clear();
}

/// A sandbox's place in the launcher; dropped, the sandbox is closed.
#[derive(Debug)]
pub(crate) struct Slot {
    shared: Arc<Shared>,
    pub(crate) number: u64,
    /// What PID 1 gets to save its files.
    pub(crate) grace_ms: u64,
    open: bool,
}

impl Slot {
    /// The request that closes it; afterwards dropping it does nothing.
    pub(crate) fn close(mut self) -> Request {
        self.open = false;
        Request::Close { slot: self.number, grace_ms: self.grace_ms }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if self.open {
            // Nobody waits for the answer to number 0.
            let request = Request::Close { slot: self.number, grace_ms: self.grace_ms };
            let _ = self.shared.send(&Ask { number: 0, request }, &[], SendFlags::empty());
        }
    }
}
