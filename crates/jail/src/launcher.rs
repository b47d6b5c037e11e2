//! The launcher: one small single-threaded process that is forked before the harness has threads or secrets, serves the door,
//! and ends with the harness. It opens no file that a request names but read-only views, and keeps nothing on disk.

use crate::cgroup::{Group, Groups};
use crate::create::{self, Made};
use crate::door::{self, Answer, Ask, Failure, Keep, Reply, Request, Stage};
use crate::filter::Filters;
use crate::stem::Stems;
use crate::{Error, privileges, probe, raw};
use guest::sys::Forked;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, socketpair};
use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

/// Sandboxes alive at once.
const SANDBOXES_MAX: usize = 4_096;
/// When the removal of a group is tried again that the kernel still counted something in.
const RETRY_MS: u64 = 10;
/// How long sandboxes may save their files after the harness has gone.
const FAREWELL_MS: u64 = 30_000;

/// The harness's hold on its launcher. The launcher ends, and everything in it, when this and all providers made of it are
/// dropped, or the process ends in whatever way.
#[derive(Debug)]
pub struct Launcher {
    pub(crate) socket: OwnedFd,
    pub(crate) pid: i32,
}

/// Forks the launcher. Call it first in `main`: before any thread, runtime or secret exists.
///
/// # Errors
/// [`Error::Threads`] when this process has threads already; [`Error::Fork`] when the kernel gives no process.
pub fn launch() -> Result<Launcher, Error> {
    let threads = std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
    if threads > 1 {
        return Err(Error::Threads { threads });
    }
    let fork = |errno: Errno| Error::Fork { detail: errno.to_string() };
    let (socket, door) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).map_err(fork)?;
    match guest::sys::fork().map_err(fork)? {
        Forked::Parent(pid) => Ok(Launcher { socket, pid: pid.as_raw_nonzero().get() }),
        Forked::Child => raw::in_child(|| serve(door)),
    }
}

/// The launcher's life.
fn serve(door: OwnedFd) -> i32 {
    match prepare(door) {
        Ok(mut state) => state.run(),
        Err(_) => 1,
    }
}

fn prepare(door: OwnedFd) -> Result<State, Errno> {
    let null = rustix::fs::open("/dev/null", rustix::fs::OFlags::RDWR, rustix::fs::Mode::empty())?;
    for number in [0, 1] {
        guest::sys::install(null.as_fd(), number)?;
    }
    raw::close_inherited(&[0, 1, 2, null.as_raw_fd(), door.as_raw_fd()])?;
    raw::scrub_environment();
    guest::sys::ignore_group_signals();
    // A session of its own: Ctrl-C is for the harness, which then closes its sandboxes in order.
    rustix::process::setsid()?;
    rustix::process::chdir("/")?;
    privileges::name_process(c"topside-launch");
    Ok(State {
        door,
        groups: Groups::discover(),
        filters: Filters::build(),
        live: BTreeMap::new(),
        stems: Stems::default(),
    })
}

struct State {
    door: OwnedFd,
    groups: Groups,
    filters: Result<Filters, String>,
    live: BTreeMap<u64, Live>,
    stems: Stems,
}

/// A sandbox that was made and not yet closed.
struct Live {
    pid: i32,
    pidfd: OwnedFd,
    group: Group,
    /// Whether PID 1 saves files when its stream ends.
    saves: bool,
    ended: bool,
    /// The request to answer and the time to kill.
    closing: Option<(u64, u64)>,
}

/// What the loop woke up for.
enum Woken {
    Door,
    Ended(u64),
}

impl State {
    fn run(&mut self) -> i32 {
        self.grow_stems();
        loop {
            for woken in self.wait() {
                match woken {
                    Woken::Ended(slot) => self.ended(slot),
                    Woken::Door => match door::receive::<Ask>(&self.door) {
                        Ok(Some((ask, fds))) => self.handle(ask, fds),
                        Err(Errno::BADMSG) => {}
                        Ok(None) | Err(_) => return self.farewell(),
                    },
                }
            }
            self.kill_overdue();
            self.grow_stems();
        }
    }

    /// Keeps stems ready for the next requests; where none can be had, the next request says why.
    fn grow_stems(&mut self) {
        if let Ok(filters) = &self.filters {
            let _ = self.stems.grow(&self.groups, filters);
        }
    }

    fn wait(&self) -> Vec<Woken> {
        let mut polled = vec![PollFd::new(&self.door, PollFlags::IN)];
        let mut slots = Vec::new();
        for (slot, live) in self.live.iter().filter(|(_, live)| !live.ended) {
            slots.push(*slot);
            polled.push(PollFd::new(&live.pidfd, PollFlags::IN));
        }
        let overdue = self.live.values().filter(|live| !live.ended).filter_map(|live| live.closing);
        let next = overdue.map(|(_, kill_ms)| kill_ms.saturating_sub(now_ms()));
        let next = next.chain(self.groups.retry().then_some(RETRY_MS)).min();
        let timeout = next.map(timespec);
        if rustix::event::poll(&mut polled, timeout.as_ref()).is_err() {
            return Vec::new();
        }
        let ended = slots.into_iter().zip(polled.iter().skip(1)).filter(|(_, fd)| !fd.revents().is_empty());
        let mut woken: Vec<Woken> = ended.map(|(slot, _)| Woken::Ended(slot)).collect();
        if polled.first().is_some_and(|door| !door.revents().is_empty()) {
            woken.push(Woken::Door);
        }
        woken
    }

    fn handle(&mut self, ask: Ask, mut fds: Vec<OwnedFd>) {
        let number = ask.number;
        if ask.version != door::VERSION {
            let detail = format!("door version {} asked, {} spoken", ask.version, door::VERSION);
            return self.answer(number, Reply::Failed(Failure::stage(Stage::Claim, detail)), &[]);
        }
        match ask.request {
            Request::Create(create) => {
                let saves = create.workspace == Keep::Layer;
                match self.create(*create, fds.pop()) {
                    Ok(made) => self.introduce(number, made, saves),
                    Err(failure) => self.answer(number, Reply::Failed(failure), &[]),
                }
            }
            Request::Close { slot, grace_ms } => self.close(number, slot, grace_ms),
            Request::Pressure { slot } => {
                let kills = self.live.get(&slot).map_or(0, |live| live.group.kills());
                self.answer(number, Reply::Pressure { kills }, &[]);
            }
            Request::Probe => {
                let findings = probe::probe(&mut self.stems, &self.groups, &self.filters);
                self.answer(number, Reply::Probed { findings }, &[]);
            }
        }
    }

    fn create(&mut self, ask: door::Create, descriptor: Option<OwnedFd>) -> Result<Made, Failure> {
        if self.live.len() >= SANDBOXES_MAX {
            return Err(Failure::stage(Stage::Claim, format!("sandboxes_max = {SANDBOXES_MAX}")));
        }
        let filters = self.filters.as_ref().map_err(|detail| Failure::wall("seccomp", detail.clone()))?;
        create::create(&mut self.stems, ask, descriptor, &self.groups, filters)
    }

    fn introduce(&mut self, number: u64, made: Made, saves: bool) {
        let Made { slot, pid, pidfd, group, stream, walls } = made;
        self.live.insert(slot, Live { pid, pidfd, group, saves, ended: false, closing: None });
        self.answer(number, Reply::Created { slot, walls }, &[stream.as_fd()]);
    }

    fn answer(&self, number: u64, reply: Reply, fds: &[BorrowedFd<'_>]) {
        // A harness that is gone is seen at the door.
        let _ = door::send(&self.door, &Answer { number, reply }, fds, SendFlags::empty());
    }

    fn close(&mut self, number: u64, slot: u64, grace_ms: u64) {
        match self.live.get_mut(&slot) {
            None => self.answer(number, Reply::Closed, &[]),
            Some(live) => {
                live.closing = Some((number, now_ms() + grace_ms));
                if live.ended { self.clear(slot) } else { self.kill_overdue() }
            }
        }
    }

    fn kill_overdue(&self) {
        let now = now_ms();
        for live in self.live.values().filter(|live| !live.ended) {
            if live.closing.is_some_and(|(_, kill_ms)| now >= kill_ms) {
                guest::sys::kill(live.pid);
            }
        }
    }

    /// PID 1 ended, and with it everything in its namespace.
    fn ended(&mut self, slot: u64) {
        let Some(live) = self.live.get_mut(&slot) else { return };
        raw::reap(live.pid);
        live.ended = true;
        if live.closing.is_some() {
            self.clear(slot);
        }
    }

    /// Removes the last traces of a sandbox that ended, and says so.
    fn clear(&mut self, slot: u64) {
        let Some(live) = self.live.remove(&slot) else { return };
        self.groups.discard(live.group);
        if let Some((number, _)) = live.closing {
            self.answer(number, Reply::Closed, &[]);
        }
    }

    /// The harness is gone: PID 1s that save files may finish, all others end now, and nothing is left.
    fn farewell(&mut self) -> i32 {
        let last_ms = now_ms() + FAREWELL_MS;
        for live in self.live.values_mut() {
            live.closing = Some((0, if live.saves { last_ms } else { 0 }));
        }
        self.kill_overdue();
        let slots: Vec<u64> = self.live.keys().copied().collect();
        for slot in slots {
            let Some(live) = self.live.get(&slot) else { continue };
            if !live.ended {
                let timeout = timespec(last_ms.saturating_sub(now_ms()));
                let _ = rustix::event::poll(&mut [PollFd::new(&live.pidfd, PollFlags::IN)], Some(&timeout));
                guest::sys::kill(live.pid);
                raw::reap(live.pid);
            }
            self.clear(slot);
        }
        self.stems.fell(&self.groups);
        self.groups.remove();
        0
    }
}

fn timespec(ms: u64) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(ms / 1_000).unwrap_or(i64::MAX),
        tv_nsec: i64::try_from(ms % 1_000 * 1_000_000).unwrap_or(0),
    }
}

fn now_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000_000
}
