//! Stems: first processes that stand ready for sandboxes that are still to be asked for, in groups and namespaces of their
//! own; of the kind that is asked for most, with their roots built, too. What makes a sandbox somebody's (its workspace, its
//! names, its environment) comes with the request, so one stem is as good as another, and none is used twice.

use crate::cgroup::{Controller, Group, Groups};
use crate::create::{self, Child};
use crate::door::{self, Create, Failure};
use crate::filter::Filters;
use crate::inside;
use crate::privileges;
use crate::raw::{self, Cloned, Told};
use guest::sys::Forked;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, socketpair};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

/// How many stand ready without a root: the next ones grow while one is used.
const STEMS: usize = 3;
/// How many may stand ready with a root.
const WARM_MAX: usize = 64;
/// Without a request for so long, no more of them than the least are kept.
const DEMAND_MS: u64 = 10_000;
/// They are grown again only when nothing was asked for so long: what is asked for now goes first.
const LULL_MS: u64 = 20;
/// Where none could be had, it is tried again after so long, or when one is asked for.
const RETRY_MS: u64 = 1_000;
/// How long a stem may take to be born.
const WAIT_SECONDS_MAX: i64 = 20;

/// A stem as the launcher holds it.
#[derive(Debug)]
pub(crate) struct Stem {
    /// The process that bears the first process, until that was heard of.
    bearer: Option<Bearer>,
    /// The sandbox's first process, which waits at the door.
    child: Option<Child>,
    /// Why there is none, and will be none.
    unborn: Option<Errno>,
    pub(crate) door: OwnedFd,
    pub(crate) slot: u64,
    pub(crate) group: Group,
    /// What can't be limited, and why.
    pub(crate) missing: Vec<(Controller, String)>,
    /// In which namespaces it was born.
    flags: u64,
    /// Whether its root is built, or about to be.
    pub(crate) built: Option<create::Footing>,
}

/// Who bears a first process.
#[derive(Debug)]
struct Bearer {
    process: Child,
    pidfd: OwnedFd,
    /// Whom it bore, should it end before it says so.
    told: Told,
}

/// How many stand ready with their roots, and of which kind.
#[derive(Debug)]
pub(crate) struct Warm {
    /// A request with nobody's workspace, names and environment.
    like: Create,
    /// What a request must have in common with it.
    kind: String,
    min: usize,
    max: usize,
    /// How many are wanted now.
    wanted: usize,
    asked_ms: u64,
}

/// Those that stand ready, the oldest first.
#[derive(Debug)]
pub(crate) struct Stems {
    plain: VecDeque<Stem>,
    built: VecDeque<Stem>,
    warm: Option<Warm>,
    /// When something was asked for last.
    busy_ms: u64,
    /// Before that none is grown ahead of need: the last one could not be had.
    retry_ms: u64,
    next_slot: u64,
}

/// What is heard of a birth.
#[derive(Debug, Serialize, Deserialize)]
struct Born {
    /// The first process, or the errno of what the kernel said.
    child: Result<i32, i32>,
    /// The group that could not be entered.
    refused: Option<(Controller, String)>,
}

impl Stems {
    /// Whose first slot is the one after this.
    pub(crate) fn after(slot: u64) -> Self {
        let (plain, built) = (VecDeque::new(), VecDeque::new());
        Self { plain, built, warm: None, busy_ms: 0, retry_ms: 0, next_slot: slot }
    }

    /// Keeps between `min` and `max` stems of the kind of `like` ready with their roots, as many as are asked for.
    pub(crate) fn keep_warm(&mut self, like: Create, min: usize, max: usize, groups: &Groups) {
        let max = max.min(WARM_MAX);
        let kind = like.kind().filter(|_| max > 0);
        if self.warm.as_ref().map(|warm| &warm.kind) != kind.as_ref() {
            self.built.drain(..).for_each(|stem| stem.fell(groups));
        }
        let min = min.min(max);
        self.warm = kind.map(|kind| Warm { like, kind, min, max, wanted: min, asked_ms: 0 });
    }

    /// Where births are to be heard of; [`Stems::grow`] hears.
    pub(crate) fn births(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let awaited = self.plain.iter().filter(|stem| stem.is_awaited());
        awaited.flat_map(|stem| {
            let bearer = stem.bearer.as_ref().map(|bearer| bearer.pidfd.as_fd());
            std::iter::once(stem.door.as_fd()).chain(bearer)
        })
    }

    /// How many stand ready with their roots: those that have said so, which is heard when they are taken.
    pub(crate) fn warm(&self) -> usize {
        self.built.iter().filter(|stem| is_readable(&stem.door)).count()
    }

    /// Grows what is missing, unless it could not be had a moment ago; `starting` are on their way.
    pub(crate) fn grow(&mut self, groups: &Groups, filters: &Filters, starting: usize, now_ms: u64) {
        for stem in self.plain.iter_mut().filter(|stem| stem.is_awaited() && stem.has_news()) {
            // Whoever takes one that is not born is told why.
            let _ = stem.hear_birth();
        }
        if now_ms >= self.retry_ms && self.try_to_grow(groups, filters, starting, now_ms).is_err() {
            // Whoever asks for one is told why.
            self.retry_ms = now_ms + RETRY_MS;
        }
    }

    /// Until nothing was asked for some time only what others need that come as close as those on their way; with roots only
    /// one at a time.
    fn try_to_grow(&mut self, groups: &Groups, filters: &Filters, starting: usize, now_ms: u64) -> Result<(), Errno> {
        let is_calm = now_ms >= self.busy_ms + LULL_MS;
        while self.plain.len() < if is_calm { STEMS } else { starting.min(STEMS) } {
            let stem = self.sprout(create::namespaces(&[]).0, groups, filters)?;
            self.plain.push_back(stem);
        }
        let Some(warm) = &mut self.warm else { return Ok(()) };
        if now_ms >= warm.asked_ms + DEMAND_MS {
            warm.wanted = warm.min;
            let surplus = self.built.len().saturating_sub(warm.wanted);
            self.built.drain(..surplus).for_each(|stem| stem.fell(groups));
        }
        if self.built.len() < warm.wanted && is_calm {
            let like = warm.like.clone();
            let mut stem = self.take_plain(create::namespaces(&like.walls_optional).0, groups, filters)?;
            match create::build(&stem, &like) {
                Ok(footing) => {
                    stem.built = Some(footing);
                    self.built.push_back(stem);
                }
                Err(failure) => {
                    // Whoever asks for such a sandbox is told; until then it is not tried again.
                    tracing::debug!(?failure, "no sandbox can be made ready");
                    stem.fell(groups);
                    self.warm = None;
                }
            }
        }
        Ok(())
    }

    /// Ends those that stand ready with a range of ids that a sandbox has, and grows none such: `taken` says of a slot whether
    /// its range is.
    pub(crate) fn pass_over(&mut self, taken: impl Fn(u64) -> bool, groups: &Groups) {
        for ready in [&mut self.plain, &mut self.built] {
            while let Some(index) = ready.iter().position(|stem| taken(stem.slot)) {
                if let Some(stem) = ready.remove(index) {
                    stem.fell(groups);
                }
            }
        }
        while taken(self.next_slot + 1) {
            self.next_slot += 1;
        }
    }

    /// When [`Stems::grow`] has something to do next.
    pub(crate) fn next_moment_ms(&self) -> Option<u64> {
        let is_short =
            self.plain.len() < STEMS || self.warm.as_ref().is_some_and(|warm| self.built.len() < warm.wanted);
        let short = is_short.then_some((self.busy_ms + LULL_MS).max(self.retry_ms));
        let many = self.warm.as_ref().filter(|warm| self.built.len() > warm.min);
        short.into_iter().chain(many.map(|warm| warm.asked_ms + DEMAND_MS)).min()
    }

    /// Takes one for this request: with its root when one of that kind stands ready.
    pub(crate) fn take(
        &mut self,
        ask: &Create,
        groups: &Groups,
        filters: &Filters,
        now_ms: u64,
    ) -> Result<Stem, Failure> {
        let flags = create::namespaces(&ask.walls_optional).0;
        if ask.ahead {
            // Nobody waits for it, and what stands ready is for whom does.
            return self.take_plain(flags, groups, filters).map_err(create::refused_namespace);
        }
        self.busy_ms = now_ms;
        if let Some(warm) = self.warm.as_mut().filter(|warm| ask.kind().as_ref() == Some(&warm.kind)) {
            warm.asked_ms = now_ms;
            while let Some(stem) = self.built.pop_front() {
                if !stem.is_gone() {
                    return Ok(stem);
                }
                stem.fell(groups);
            }
            warm.wanted = (warm.wanted + 1).min(warm.max);
        }
        self.take_plain(flags, groups, filters).map_err(create::refused_namespace)
    }

    fn take_plain(&mut self, flags: u64, groups: &Groups, filters: &Filters) -> Result<Stem, Errno> {
        while let Some(index) = self.plain.iter().position(|stem| stem.flags == flags)
            && let Some(stem) = self.plain.remove(index)
        {
            if stem.is_gone() {
                stem.fell(groups);
                continue;
            }
            match stem.born(groups) {
                // Somebody killed it, or who was to bear it: that says nothing of the next.
                Err(Errno::CHILD) => {}
                born => return born,
            }
        }
        self.sprout(flags, groups, filters)?.born(groups)
    }

    fn sprout(&mut self, flags: u64, groups: &Groups, filters: &Filters) -> Result<Stem, Errno> {
        self.next_slot += 1;
        Stem::sprout(self.next_slot, flags, groups, filters)
    }

    /// Ends all of them.
    pub(crate) fn fell(&mut self, groups: &Groups) {
        self.plain.drain(..).chain(self.built.drain(..)).for_each(|stem| stem.fell(groups));
    }
}

impl Stem {
    fn sprout(slot: u64, flags: u64, groups: &Groups, filters: &Filters) -> Result<Self, Errno> {
        let (door, inner) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let (group, missing) = groups.make(slot);
        match Bearer::fork(inner, flags, &group, filters) {
            Ok(bearer) => {
                let bearer = Some(bearer);
                Ok(Self { bearer, child: None, unborn: None, door, slot, group, missing, flags, built: None })
            }
            Err(errno) => {
                groups.discard(group);
                Err(errno)
            }
        }
    }

    /// Waits until it is born.
    fn born(mut self, groups: &Groups) -> Result<Self, Errno> {
        let born = self.hear_birth();
        match born {
            Ok(()) => Ok(self),
            Err(errno) => {
                self.fell(groups);
                Err(errno)
            }
        }
    }

    /// Whether it is still to be heard whether it is born.
    fn is_awaited(&self) -> bool {
        self.child.is_none() && self.unborn.is_none()
    }

    fn hear_birth(&mut self) -> Result<(), Errno> {
        if self.child.is_some() {
            return Ok(());
        }
        let heard = self.unborn.map_or_else(|| self.await_birth(), Err);
        self.unborn = heard.err();
        let borne = self.bearer.take().and_then(Bearer::end);
        if heard.is_err() {
            // Nobody else knows of it.
            drop(borne.map(Child::new));
        }
        heard
    }

    fn await_birth(&mut self) -> Result<(), Errno> {
        let timeout = Timespec { tv_sec: WAIT_SECONDS_MAX, tv_nsec: 0 };
        let bearer = self.bearer.as_ref().ok_or(Errno::CHILD)?;
        let mut polled = [PollFd::new(&self.door, PollFlags::IN), PollFd::new(&bearer.pidfd, PollFlags::IN)];
        match rustix::event::poll(&mut polled, Some(&timeout))? {
            0 => return Err(Errno::TIMEDOUT),
            // It ended without a word.
            _ if polled[0].revents().is_empty() => return Err(Errno::CHILD),
            _ => {}
        }
        let (born, _) = door::receive::<Born>(&self.door)?.ok_or(Errno::CHILD)?;
        self.missing.extend(born.refused);
        self.child = Some(Child::new(born.child.map_err(Errno::from_raw_os_error)?));
        Ok(())
    }

    /// The first process, which is the taker's from now on.
    pub(crate) fn into_child(self) -> Option<(Child, OwnedFd, Group)> {
        Some((self.child?, self.door, self.group))
    }

    /// The first process's number, once it is born.
    pub(crate) fn pid(&self) -> Option<i32> {
        self.child.as_ref().map(Child::pid)
    }

    /// Whether it is to be heard whether it is born.
    fn has_news(&self) -> bool {
        is_readable(&self.door) || self.bearer.as_ref().is_some_and(|bearer| is_readable(&bearer.pidfd))
    }

    /// Whether somebody killed it while it stood ready.
    fn is_gone(&self) -> bool {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut polled = [PollFd::new(&self.door, PollFlags::empty())];
        self.child.is_some() && rustix::event::poll(&mut polled, Some(&now)) == Ok(1)
    }

    /// Ends it, whatever it has come to, and gives back its groups.
    pub(crate) fn fell(mut self, groups: &Groups) {
        // What is about to be born is born first, so that it can be ended.
        let _ = self.hear_birth();
        drop(self.child);
        groups.discard(self.group);
    }
}

impl Bearer {
    fn fork(door: OwnedFd, flags: u64, group: &Group, filters: &Filters) -> Result<Self, Errno> {
        let told = Told::new()?;
        match guest::sys::fork()? {
            Forked::Child => raw::in_child(|| bear(door, flags, group, filters, &told)),
            Forked::Parent(pid) => {
                let process = Child::new(pid.as_raw_nonzero().get());
                let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty());
                match pidfd {
                    Ok(pidfd) => Ok(Self { process, pidfd, told }),
                    Err(errno) => {
                        drop(process);
                        drop(told.number().map(Child::new));
                        Err(errno)
                    }
                }
            }
        }
    }

    /// Ends it; gives whom it bore.
    fn end(self) -> Option<i32> {
        let Self { process, told, .. } = self;
        // Only then there is nothing more to be borne.
        drop(process);
        told.number()
    }
}

/// Whether something is to be heard, or nothing ever will be.
pub(crate) fn is_readable(door: &OwnedFd) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut [PollFd::new(door, PollFlags::IN)], Some(&now)) == Ok(1)
}

/// The life of who bears a first process: a sibling, so that the launcher is its parent.
fn bear(door: OwnedFd, flags: u64, group: &Group, filters: &Filters, told: &Told) -> i32 {
    let prepared = raw::close_inherited(&[0, 1, 2, door.as_raw_fd()]).and_then(|()| privileges::die_with_parent());
    if prepared.is_err() {
        return 1;
    }
    privileges::name_process(c"topside-stem");
    let refused = group.enter().err().map(|(controller, error)| (controller, error.to_string()));
    let born = group
        .birthplace()
        .and_then(|birthplace| raw::clone_sibling(flags, birthplace.as_ref().map(|group| group.as_fd()), told));
    let child = match born {
        Ok(Cloned::Child) => raw::in_child(|| inside::run(door, filters)),
        Ok(Cloned::Parent(pid)) => Ok(pid),
        Err(errno) => Err(errno.raw_os_error()),
    };
    i32::from(door::send(&door, &Born { child, refused }, &[], SendFlags::empty()).is_err())
}
