//! The launcher: one small single-threaded process that is forked before the harness has threads or secrets and serves its
//! door. With a home it outlives a harness that dies, for a grace, with every sandbox; without one, and after a farewell, it
//! ends. It opens no file that a request names but read-only views, and keeps nothing on disk.

use crate::cgroup::Groups;
use crate::create::{self, Made, Starting};
use crate::door::{self, Answer, Ask, Failure, Keep, Reply, Request, Stage};
use crate::doors::{Doors, Heard, Home};
use crate::down::{self, Wall};
use crate::filter::Filters;
use crate::ids;
use crate::keeper::Keeper;
use crate::lives::{Live, Lives};
use crate::rank::Rank;
use crate::stem::Stems;
use crate::worker::Workers;
use crate::{Error, image, privileges, probe, raw};
use guest::sys::Forked;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// When the removal of a group is tried again that the kernel still counted something in.
const RETRY_MS: u64 = 10;
/// Sandboxes that one launcher makes at most, as a power of two.
const SLOT_BITS: u32 = 40;
/// How long a harness may keep sandboxes waiting for its return at most.
const OWNER_GRACE_MS_MAX: u64 = 24 * 3_600_000;

/// The harness's hold on a launcher that was just forked. The launcher ends, and everything in it, when this and all
/// providers made of it are dropped, or, unless a provider gave it a home, the process ends in whatever way.
#[derive(Debug)]
pub struct Launcher {
    pub(crate) socket: OwnedFd,
    /// Its process, when it is a child of this one.
    pub(crate) pid: Option<i32>,
    /// Who forks the next one, should this one die.
    pub(crate) keeper: Option<Keeper>,
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
        Forked::Parent(pid) => {
            let keeper = Some(Keeper::fork().map_err(fork)?);
            Ok(Launcher { socket, pid: Some(pid.as_raw_nonzero().get()), keeper })
        }
        Forked::Child => raw::in_child(|| serve(door, 0)),
    }
}

/// The life of the first launcher of a harness, or of a later one.
pub(crate) fn serve(door: OwnedFd, generation: u64) -> i32 {
    match prepare(door, generation) {
        Ok(mut state) => state.run(),
        Err(_) => 1,
    }
}

/// Withdraws from the harness this process was forked from: keeps one descriptor, no variable, no terminal.
pub(crate) fn withdraw(door: &OwnedFd) -> Result<(), Errno> {
    let null = rustix::fs::open("/dev/null", rustix::fs::OFlags::RDWR, rustix::fs::Mode::empty())?;
    // Whoever waits for the end of the harness's output waits for the harness, not for what outlives it.
    for number in [0, 1, 2] {
        guest::sys::install(null.as_fd(), number)?;
    }
    raw::close_inherited(&[0, 1, 2, null.as_raw_fd(), door.as_raw_fd()])?;
    if !down::is_down(Wall::Environment) {
        raw::scrub_environment();
    }
    guest::sys::ignore_group_signals();
    // A session of its own: Ctrl-C is for the harness, which then closes its sandboxes in order.
    rustix::process::setsid()?;
    rustix::process::chdir("/")
}

fn prepare(door: OwnedFd, generation: u64) -> Result<State, Errno> {
    withdraw(&door)?;
    privileges::name_process(c"topside-launch");
    Ok(State {
        doors: Doors::new(door),
        groups: Groups::discover(),
        filters: Filters::build(),
        lives: Lives::new()?,
        // A slot of one launcher means nothing to another.
        stems: Stems::after(generation << SLOT_BITS),
        pool: None,
        workers: Workers::default(),
        starting: Vec::new(),
        grace_ends_ms: None,
    })
}

struct State {
    doors: Doors,
    groups: Groups,
    filters: Result<Filters, String>,
    lives: Lives,
    stems: Stems,
    /// Where images of workspaces stand, once it was asked for.
    pool: Option<OwnedFd>,
    workers: Workers,
    /// Sandboxes on their way: the number of the request, what it wants, how far it is.
    starting: Vec<(u64, Box<door::Create>, Starting)>,
    /// When what no harness has is ended, and, without a harness, everything.
    grace_ends_ms: Option<u64>,
}

/// How an image is mounted.
type Mount = fn(BorrowedFd<'_>, image::Kind) -> Result<OwnedFd, String>;

/// What the loop woke up for.
#[derive(Default)]
struct Woken {
    ended: Vec<u64>,
    doors: Vec<usize>,
    /// Which of those on their way have said something.
    starting: Vec<usize>,
}

impl State {
    fn run(&mut self) -> i32 {
        self.grow_stems();
        while self.turn() {}
        self.farewell()
    }

    /// `false`: it is time to end.
    fn turn(&mut self) -> bool {
        let woken = self.wait();
        for slot in woken.ended {
            if let Some(number) = self.lives.ended(slot, &self.groups) {
                self.answer(number, Reply::Closed, &[]);
            }
        }
        self.follow(&woken.starting);
        for heard in self.doors.hear(&woken.doors, now_ms()) {
            match heard {
                Heard::Asked(ask, fds) => self.handle(ask, fds),
                Heard::Came => self.begin_grace(),
                Heard::Left => {
                    self.give_up_starting();
                    self.lives.leave(&self.groups);
                    self.begin_grace();
                }
                Heard::Farewell => return false,
            }
        }
        self.lives.kill_overdue(now_ms());
        if !self.doors.is_owned() && (!self.doors.is_settled() || self.lives.is_empty()) {
            return false;
        }
        if self.grace_ends_ms.is_some_and(|ends| now_ms() >= ends) {
            if !self.doors.is_owned() {
                return false;
            }
            self.grace_ends_ms = None;
            self.lives.close_unheld(now_ms());
        }
        self.grow_stems();
        true
    }

    /// Keeps stems ready for the next requests; where none can be had, the next request says why.
    fn grow_stems(&mut self) {
        if let Ok(filters) = &self.filters {
            self.stems.grow(&self.groups, filters, self.starting.len(), now_ms());
        }
    }

    /// Takes what those on their way have said, and ends those that say nothing for too long.
    fn follow(&mut self, ready: &[usize]) {
        let now = now_ms();
        for (index, (number, ask, starting)) in std::mem::take(&mut self.starting).into_iter().enumerate() {
            let heard = match &self.filters {
                Ok(filters) if ready.contains(&index) => starting.hear(&self.groups, filters),
                _ if now >= starting.deadline_ms() => create::Heard::Failed(starting.late(&self.groups)),
                _ => create::Heard::On(starting),
            };
            match heard {
                create::Heard::On(starting) => self.starting.push((number, ask, starting)),
                create::Heard::Made(made) => self.introduce(number, *ask, *made),
                create::Heard::Failed(failure) => self.answer(number, Reply::Failed(failure), &[]),
            }
        }
    }

    /// Nobody waits for those on their way any more.
    fn give_up_starting(&mut self) {
        for (_, _, starting) in std::mem::take(&mut self.starting) {
            starting.end(Failure::stage(Stage::Claim, "nobody waits for it"), &self.groups);
        }
    }

    fn begin_grace(&mut self) {
        self.grace_ends_ms = self.doors.owner_grace_ms().map(|grace| now_ms() + grace);
    }

    fn wait(&self) -> Woken {
        let doors = self.doors.sockets();
        let mut polled: Vec<PollFd<'_>> = doors.iter().map(|door| PollFd::new(door, PollFlags::IN)).collect();
        polled.push(PollFd::new(self.lives.ends(), PollFlags::IN));
        let before = polled.len();
        polled.extend(
            self.starting.iter().map(|(_, _, starting)| PollFd::from_borrowed_fd(starting.door(), PollFlags::IN)),
        );
        let all = polled.len();
        polled.extend(self.stems.births().map(|door| PollFd::from_borrowed_fd(door, PollFlags::IN)));
        let late = self.starting.iter().map(|(_, _, starting)| starting.deadline_ms()).min();
        // Where none can be had, it is tried again, but not all the time.
        let stems = self.stems.next_moment_ms().map(|moment| moment.max(now_ms() + RETRY_MS));
        let moments = [self.lives.next_kill_ms(), self.grace_ends_ms, self.doors.next_moment_ms(), late, stems];
        let next = moments.into_iter().flatten().map(|moment| moment.saturating_sub(now_ms()));
        let next = next.chain(self.groups.retry().then_some(RETRY_MS)).min();
        let timeout = next.map(timespec);
        if rustix::event::poll(&mut polled, timeout.as_ref()).is_err() {
            return Woken::default();
        }
        let (others, starting) = polled[..all].split_at(before);
        let (doors, ends) = others.split_at(doors.len());
        let starting = starting.iter().enumerate().filter(|(_, fd)| !fd.revents().is_empty()).map(|(index, _)| index);
        let has_ends = ends.iter().any(|fd| !fd.revents().is_empty());
        let ended = if has_ends { self.lives.who_ended() } else { Vec::new() };
        let doors = doors.iter().enumerate().filter(|(_, fd)| !fd.revents().is_empty()).map(|(index, _)| index);
        Woken { ended, doors: doors.collect(), starting: starting.collect() }
    }

    fn handle(&mut self, ask: Ask, mut fds: Vec<OwnedFd>) {
        let number = ask.number;
        let reply = match ask.request {
            Request::Create(mut create) => {
                create.root.take(&mut fds);
                return match self.begin(&create, fds.pop()) {
                    Ok(starting) => {
                        // Its descriptors were handed on.
                        create.root.opened = Arc::default();
                        create.root.lock = None;
                        self.starting.push((number, create, starting));
                    }
                    Err(failure) => self.answer(number, Reply::Failed(failure), &[]),
                };
            }
            Request::Warm { like, min, max } => {
                self.stems.keep_warm(*like, min, max, &self.groups);
                Reply::Warm { ready: self.stems.warm() }
            }
            Request::Mount => {
                let mounted = fds.pop().ok_or_else(|| "no image came".to_owned());
                let mounted = mounted.and_then(|file| image::mount(file.as_fd(), image::Kind::Workspace));
                return self.give_mount(number, mounted);
            }
            Request::Adopt(adopt) => {
                return match self.lives.adopt(&adopt) {
                    Ok((reply, stream)) => self.answer(number, reply, &[stream.as_fd()]),
                    Err(failure) => self.answer(number, Reply::Failed(failure), &[]),
                };
            }
            Request::Take { slot, by } => match self.take(slot, *by) {
                Ok(()) => Reply::Taken,
                Err(failure) => Reply::Failed(failure),
            },
            Request::Close { slot, grace_ms } => {
                match self.lives.close(slot, number, now_ms().saturating_add(grace_ms), &self.groups) {
                    Some(number) => self.answer(number, Reply::Closed, &[]),
                    None => self.lives.kill_overdue(now_ms()),
                }
                return;
            }
            Request::Pressure { slot } => Reply::Pressure { kills: self.lives.kills(slot) },
            Request::Probe => Reply::Probed { findings: probe::probe(&mut self.stems, &self.groups, &self.filters) },
            Request::Work { task } => match self.workers.start(&task, fds, Rank::own().is_root()) {
                Ok(worker) => Reply::Working { worker },
                Err(detail) => Reply::Failed(Failure::stage(Stage::Root, detail)),
            },
            Request::Own { task } => match self.workers.own(task, fds) {
                Ok(worker) => Reply::Working { worker },
                Err(detail) => Reply::Failed(Failure::stage(Stage::Workspace, detail)),
            },
            Request::Worked { worker } => {
                self.workers.end(worker);
                Reply::Closed
            }
            Request::Pool => return self.give_pool(number, fds.pop(), image::mount),
            Request::PoolAgain => return self.give_pool(number, fds.pop(), image::mount_again),
            Request::List { after } => Reply::Listed { sandboxes: self.lives.page(after, now_ms()) },
            Request::Settle { owner_grace_ms } => match Home::new(fds, owner_grace_ms.min(OWNER_GRACE_MS_MAX)) {
                Some(home) => {
                    self.doors.settle(home);
                    Reply::Settled
                }
                None => Reply::Failed(Failure::stage(Stage::Claim, "a home is a directory, its lock and a socket")),
            },
            // The doors see to these.
            Request::Hello { .. } | Request::Farewell => return,
        };
        self.answer(number, reply, &[]);
    }

    fn begin(&mut self, ask: &door::Create, descriptor: Option<OwnedFd>) -> Result<Starting, Failure> {
        self.lives.check_room(self.starting.len())?;
        let (lives, starting) = (&self.lives, &self.starting);
        let mut taken = lives.slots().chain(starting.iter().map(|(_, _, starting)| starting.slot()));
        let taken: Vec<u32> = taken.by_ref().map(ids::range).collect();
        self.stems.pass_over(|slot| taken.contains(&ids::range(slot)), &self.groups);
        ask.label.check()?;
        let filters = self.filters.as_ref().map_err(|detail| Failure::wall("seccomp", detail.clone()))?;
        if ask.ahead && ask.kind().is_none() {
            return Err(Failure::stage(Stage::Claim, "such a sandbox can't be made ahead"));
        }
        create::begin(&mut self.stems, ask, descriptor, &self.groups, filters)
    }

    fn take(&mut self, slot: u64, by: door::Create) -> Result<(), Failure> {
        by.label.check()?;
        self.lives.take(slot, by, now_ms())
    }

    fn give_mount(&self, number: u64, mounted: Result<OwnedFd, String>) {
        match mounted {
            Ok(mount) => self.answer(number, Reply::Mounted, &[mount.as_fd()]),
            Err(detail) => self.answer(number, Reply::Failed(Failure::stage(Stage::Workspace, detail)), &[]),
        }
    }

    fn give_pool(&mut self, number: u64, file: Option<OwnedFd>, mount: Mount) {
        let mounted = self.pool(file, mount);
        self.give_mount(number, mounted);
    }

    /// The pool's mount, kept as long as the launcher lives, so that a harness that comes anew gets the same one.
    fn pool(&mut self, file: Option<OwnedFd>, mount: Mount) -> Result<OwnedFd, String> {
        if self.pool.is_none() {
            let file = file.ok_or("no pool is mounted")?;
            self.pool = Some(mount(file.as_fd(), image::Kind::Pool)?);
        }
        let mount = self.pool.as_ref().ok_or("no pool is mounted")?;
        rustix::io::fcntl_dupfd_cloexec(mount, 3).map_err(|errno| errno.to_string())
    }

    fn introduce(&mut self, number: u64, ask: door::Create, made: Made) {
        let Made { slot, pid, pidfd, group, stream, control, walls, helpers, doors, took } = made;
        let ahead = if ask.ahead { ask.kind() } else { None };
        let live = Live {
            pid,
            pidfd,
            group,
            control: Some(control),
            walls: walls.clone(),
            saves: ask.workspace == Keep::Layer,
            label: ask.label,
            shape: ask.shape,
            epoch: ask.epoch,
            since_ms: now_ms(),
            limits: ask.limits,
            held: true,
            kills_told: 0,
            ended: false,
            closing: None,
            helpers,
            ahead,
        };
        if let Err(failure) = self.lives.insert(slot, live, &self.groups) {
            return self.answer(number, Reply::Failed(failure), &[]);
        }
        let mut beside: Vec<BorrowedFd<'_>> = doors.iter().map(|door| door.as_fd()).collect();
        beside.push(stream.as_fd());
        self.answer(number, Reply::Created { slot, walls, took }, &beside);
    }

    fn answer(&self, number: u64, reply: Reply, fds: &[BorrowedFd<'_>]) {
        self.doors.answer(&Answer { number, reply }, fds);
    }

    /// PID 1s that save files may finish, all others end now, and nothing is left.
    fn farewell(&mut self) -> i32 {
        self.doors.leave_home();
        self.workers.end_all();
        self.give_up_starting();
        self.lives.end_all(&self.groups);
        self.stems.fell(&self.groups);
        self.groups.remove();
        0
    }
}

pub(crate) fn timespec(ms: u64) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(ms / 1_000).unwrap_or(i64::MAX),
        tv_nsec: i64::try_from(ms % 1_000 * 1_000_000).unwrap_or(0),
    }
}

pub(crate) fn now_ms() -> u64 {
    now_us() / 1_000
}

pub(crate) fn now_us() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000
}
