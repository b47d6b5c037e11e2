//! The harness's side of the door: numbers requests, one thread hands answers to who asked. No decision about sandboxes.

use crate::door::{self, Answer, Ask, Reply, Request};
use crate::{Error as LaunchError, raw};
use rustix::io::Errno;
use rustix::net::{SendFlags, Shutdown};
use sandbox::{Error, Walls};
use std::collections::HashMap;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// Requests under way at once.
const WAITING_MAX: usize = 4_096;

/// What came of a request, as the asker gets it.
#[derive(Debug)]
pub(crate) enum Arrived {
    /// A sandbox that closes when its slot is dropped.
    Created { slot: Slot, walls: Walls, stream: OwnedFd, mounts: Vec<OwnedFd> },
    /// As `Created`, but it lived already.
    Adopted { slot: Slot, walls: Walls, stream: OwnedFd, saves: bool, kills_told: u64 },
    /// The mounted pool of workspaces.
    Pool { mount: OwnedFd },
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

    fn send(&self, number: u64, request: Request, fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
        door::send(&self.socket, &Ask { number, request }, fds, SendFlags::empty())
    }
}

/// The harness's end of the door, which has been greeted. Clones share it; the last one gone says farewell.
#[derive(Clone, Debug)]
pub(crate) struct Harbour {
    shared: Arc<Shared>,
    _end: Arc<End>,
}

/// Ends the thread, and with it the launcher.
#[derive(Debug)]
struct End(Arc<Shared>);

impl Drop for End {
    fn drop(&mut self) {
        // A launcher that is too busy to hear it sees the door close, and keeps its sandboxes for a grace.
        let farewell = Ask { number: 0, request: Request::Farewell };
        let _ = door::send(&self.0.socket, &farewell, &[], SendFlags::DONTWAIT);
        let _ = rustix::net::shutdown(&self.0.socket, Shutdown::Both);
    }
}

impl Harbour {
    /// Over the door of a launcher, which is the child `pid` of this process when it is one.
    pub(crate) fn new(socket: OwnedFd, pid: Option<i32>) -> Result<Self, LaunchError> {
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
        Ok(Self { _end: Arc::new(End(Arc::clone(&shared))), shared })
    }

    /// Asks, and waits for the answer. A request of kind `Create` that is given up closes what it made.
    pub(crate) async fn ask(&self, request: Request, fds: Vec<OwnedFd>) -> Result<Arrived, Error> {
        let gone = || Error::Gone { detail: "the launcher has ended; hint: restart".to_owned() };
        let number = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let (asker, answer) = oneshot::channel();
        {
            let mut waiting = self.shared.waiting();
            if waiting.gone {
                return Err(gone());
            }
            if waiting.askers.len() >= WAITING_MAX {
                return Err(Error::Limit { limit: format!("launcher_requests_max = {WAITING_MAX}") });
            }
            waiting.askers.insert(number, asker);
        }
        // The message may wait for room while the launcher is busy, so this is no work for an async thread.
        let shared = Arc::clone(&self.shared);
        let sent = tokio::task::spawn_blocking(move || {
            let fds: Vec<BorrowedFd<'_>> = fds.iter().map(|fd| fd.as_fd()).collect();
            shared.send(number, request, &fds)
        });
        match sent.await {
            Ok(Ok(())) => {}
            Ok(Err(Errno::MSGSIZE)) => {
                self.shared.waiting().askers.remove(&number);
                return Err(Error::Limit { limit: format!("request_bytes_max = {}", door::MESSAGE_BYTES_MAX) });
            }
            Ok(Err(_)) | Err(_) => return Err(gone()),
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
            (Reply::Created { slot, walls }, Some(stream)) => {
                let slot = Slot { shared: Arc::clone(shared), number: slot, grace_ms: 0, open: true };
                Arrived::Created { slot, walls, stream, mounts: fds }
            }
            (Reply::Adopted { slot, walls, saves, kills_told }, Some(stream)) => {
                let slot = Slot { shared: Arc::clone(shared), number: slot, grace_ms: 0, open: true };
                Arrived::Adopted { slot, walls, stream, saves, kills_told }
            }
            (Reply::Pool, Some(mount)) => Arrived::Pool { mount },
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
            let _ = self.shared.send(0, request, &[]);
        }
    }
}
