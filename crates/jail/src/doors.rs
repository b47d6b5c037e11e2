//! The launcher's doors: the one of the harness that has it, and those at home at which others knock. Decides who may come in;
//! knows nothing of sandboxes.

use crate::door::{self, Answer, Ask, Reply, Request};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::sockopt::Timeout;
use rustix::net::{SendFlags, Shutdown, SocketFlags};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::Duration;

/// The socket's name in the home's directory.
pub(crate) const SOCKET: &str = "socket";
/// Who has knocked and not been let in, at most; of more the oldest go.
const KNOCKING_MAX: usize = 8;
/// How long who knocks may take to say what it wants.
const HELLO_MS: u64 = 5_000;
/// How long a harness may leave an answer unread.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(5);

/// Where a launcher can be found again.
#[derive(Debug)]
pub(crate) struct Home {
    directory: OwnedFd,
    /// Held as long as the launcher lives.
    _lock: OwnedFd,
    listener: OwnedFd,
    owner_grace_ms: u64,
}

impl Home {
    /// Of a directory, the lock in it, and a socket that listens.
    pub(crate) fn new(fds: Vec<OwnedFd>, owner_grace_ms: u64) -> Option<Self> {
        let [directory, lock, listener] = <[OwnedFd; 3]>::try_from(fds).ok()?;
        rustix::io::ioctl_fionbio(&listener, true).ok()?;
        Some(Self { directory, _lock: lock, listener, owner_grace_ms })
    }
}

/// What came in.
pub(crate) enum Heard {
    /// The harness asks.
    Asked(Ask, Vec<OwnedFd>),
    /// A harness has come.
    Came,
    /// The harness is gone without farewell.
    Left,
    /// Everything is to end.
    Farewell,
}

/// The harness that has the launcher.
#[derive(Debug)]
struct Owner {
    socket: OwnedFd,
    /// Whether it has said which version it speaks.
    greeted: bool,
}

impl Owner {
    fn new(socket: OwnedFd, greeted: bool) -> Self {
        // One whose answers can't be bounded in time is let in all the same: it is the same user.
        let _ = rustix::net::sockopt::set_socket_timeout(&socket, Timeout::Send, Some(ANSWER_WAIT_MAX));
        Self { socket, greeted }
    }
}

/// Somebody who is not in yet.
#[derive(Debug)]
struct Knocking {
    socket: OwnedFd,
    since_ms: u64,
    /// Speaks another version: may only say farewell.
    foreign: bool,
}

#[derive(Debug)]
pub(crate) struct Doors {
    owner: Option<Owner>,
    home: Option<Home>,
    knocking: Vec<Knocking>,
}

/// Which door a polled descriptor is, in the order of [`Doors::sockets`].
#[derive(Clone, Copy)]
enum Which {
    Owner,
    Listener,
    Knocking(usize),
}

impl Doors {
    /// The door to the harness that forked the launcher.
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Self { owner: Some(Owner::new(socket, false)), home: None, knocking: Vec::new() }
    }

    pub(crate) const fn is_owned(&self) -> bool {
        self.owner.is_some()
    }

    pub(crate) const fn is_settled(&self) -> bool {
        self.home.is_some()
    }

    pub(crate) fn owner_grace_ms(&self) -> Option<u64> {
        self.home.as_ref().map(|home| home.owner_grace_ms)
    }

    /// Keeps a home, in the place of an older one.
    pub(crate) fn settle(&mut self, home: Home) {
        self.home = Some(home);
    }

    fn which(&self) -> Vec<(Which, BorrowedFd<'_>)> {
        let owner = self.owner.iter().map(|owner| (Which::Owner, owner.socket.as_fd()));
        let listener = self.home.iter().map(|home| (Which::Listener, home.listener.as_fd()));
        let knocking = self.knocking.iter().enumerate();
        owner.chain(listener).chain(knocking.map(|(index, one)| (Which::Knocking(index), one.socket.as_fd()))).collect()
    }

    /// What to wait for.
    pub(crate) fn sockets(&self) -> Vec<BorrowedFd<'_>> {
        self.which().into_iter().map(|(_, socket)| socket).collect()
    }

    /// When the first of those who knock has taken too long.
    pub(crate) fn next_moment_ms(&self) -> Option<u64> {
        self.knocking.iter().map(|one| one.since_ms + HELLO_MS).min()
    }

    /// Takes what came to those of [`Doors::sockets`] that are ready: the harness first, then who knocks, the last one first
    /// so that no other moves.
    pub(crate) fn hear(&mut self, ready: &[usize], now_ms: u64) -> Vec<Heard> {
        let which: Vec<Which> = self.which().into_iter().map(|(which, _)| which).collect();
        let ready: Vec<Which> = ready.iter().filter_map(|index| which.get(*index).copied()).collect();
        let mut heard = Vec::new();
        if ready.iter().any(|which| matches!(which, Which::Owner)) {
            heard.extend(self.hear_owner());
        }
        for which in ready.iter().rev() {
            if let Which::Knocking(index) = which {
                heard.extend(self.hear_knocking(*index));
            }
        }
        self.knocking.retain(|one| now_ms < one.since_ms + HELLO_MS);
        if ready.iter().any(|which| matches!(which, Which::Listener)) {
            self.let_knock(now_ms);
        }
        heard
    }

    fn hear_owner(&mut self) -> Option<Heard> {
        let owner = self.owner.as_mut()?;
        match door::receive::<Ask>(&owner.socket) {
            Ok(Some((Ask { request: Request::Farewell, .. }, _))) => Some(Heard::Farewell),
            Ok(Some((Ask { number, request: Request::Hello { version } }, _))) => {
                owner.greeted = version == door::VERSION;
                self.answer(&Answer { number, reply: Reply::Welcome { version: door::VERSION } }, &[]);
                None
            }
            Ok(Some((ask, fds))) if owner.greeted => Some(Heard::Asked(ask, fds)),
            Ok(_) | Err(_) => {
                self.owner = None;
                Some(Heard::Left)
            }
        }
    }

    /// Accepts whoever is the same user.
    fn let_knock(&mut self, now_ms: u64) {
        let Some(home) = &self.home else { return };
        let Ok(socket) = rustix::net::accept_with(&home.listener, SocketFlags::CLOEXEC) else { return };
        let user = rustix::net::sockopt::socket_peercred(&socket).map(|peer| peer.uid);
        if user != Ok(rustix::process::geteuid()) {
            return;
        }
        if self.knocking.len() >= KNOCKING_MAX {
            self.knocking.remove(0);
        }
        self.knocking.push(Knocking { socket, since_ms: now_ms, foreign: false });
    }

    fn hear_knocking(&mut self, index: usize) -> Vec<Heard> {
        let Some(one) = self.knocking.get_mut(index) else { return Vec::new() };
        let Ok(Some((Ask { number, request }, _))) = door::receive::<Ask>(&one.socket) else {
            self.knocking.remove(index);
            return Vec::new();
        };
        let foreign = one.foreign;
        match request {
            Request::Farewell if foreign && self.owner.is_none() => vec![Heard::Farewell],
            Request::Hello { version } if !foreign => self.greet(index, number, version),
            _ => {
                self.knocking.remove(index);
                Vec::new()
            }
        }
    }

    /// Lets in who speaks this version, unless a harness that lives has the launcher.
    fn greet(&mut self, index: usize, number: u64, version: u32) -> Vec<Heard> {
        let mut heard = Vec::new();
        if self.owner.as_ref().is_some_and(|owner| is_gone(&owner.socket)) {
            self.owner = None;
            heard.push(Heard::Left);
        }
        let reply = if self.owner.is_some() { Reply::Owned } else { Reply::Welcome { version: door::VERSION } };
        let one = self.knocking.remove(index);
        let answer = Answer { number, reply };
        if door::send(&one.socket, &answer, &[], SendFlags::DONTWAIT).is_err() || self.owner.is_some() {
            return heard;
        }
        if version == door::VERSION {
            self.owner = Some(Owner::new(one.socket, true));
            heard.push(Heard::Came);
        } else {
            self.knocking.push(Knocking { foreign: true, ..one });
        }
        heard
    }

    /// Answers the harness. One that does not read its answers is gone.
    pub(crate) fn answer(&self, answer: &Answer, fds: &[BorrowedFd<'_>]) {
        let Some(owner) = &self.owner else { return };
        if door::send(&owner.socket, answer, fds, SendFlags::empty()) == Err(Errno::AGAIN) {
            let _ = rustix::net::shutdown(&owner.socket, Shutdown::Both);
        }
    }

    /// Nobody finds the launcher any more; its lock stays until it has ended.
    pub(crate) fn leave_home(&mut self) {
        self.knocking.clear();
        if let Some(home) = &self.home {
            let _ = rustix::fs::unlinkat(&home.directory, SOCKET, rustix::fs::AtFlags::empty());
            let _ = rustix::net::shutdown(&home.listener, Shutdown::Both);
        }
    }
}

/// Whether the other side of a door is gone, whatever it left unread.
fn is_gone(socket: &OwnedFd) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut polled = [PollFd::new(socket, PollFlags::empty())];
    rustix::event::poll(&mut polled, Some(&now)).is_ok() && polled[0].revents().contains(PollFlags::HUP)
}
