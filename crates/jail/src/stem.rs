//! Stems: processes that stand ready in the groups of a sandbox that is still to be asked for. Moving a process into a v1
//! group waits for every processor of the machine (4 to 12 ms); a process that is born in one is there at once. So a stem
//! moves ahead of need, and its one act is to clone the sandbox's first process, as a child of the launcher, and to end.

use crate::cgroup::{Controller, Group, Groups};
use crate::door;
use crate::filter::Filters;
use crate::inside::{self, Plan};
use crate::names::Names;
use crate::privileges;
use crate::raw::{self, Cloned};
use crate::root::{Source, View, Workspace};
use crate::stack::{self, Stand};
use guest::sys::Forked;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, socketpair};
use sandbox::Limits;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;

/// How many stand ready.
const STEMS: usize = 2;
/// How long a stem may take for its one act, or for getting ready.
const WAIT_SECONDS_MAX: i64 = 20;

/// A stem as the launcher holds it.
#[derive(Debug)]
pub(crate) struct Stem {
    pid: i32,
    door: OwnedFd,
    pub(crate) slot: u64,
    pub(crate) group: Group,
    /// What can't be limited, and why.
    pub(crate) missing: Vec<(Controller, String)>,
}

/// Those that stand ready, the oldest first.
#[derive(Debug)]
pub(crate) struct Stems {
    ready: VecDeque<Stem>,
    next_slot: u64,
}

/// A first process to make: the plan without its descriptors, which come beside the message in the order of the fields.
#[derive(Debug, Serialize, Deserialize)]
struct Order {
    /// What the root is made of; its descriptors come last.
    stand: stack::Order,
    flags: u64,
    environment: Vec<(String, String)>,
    limits: Limits,
    walls_optional: Vec<String>,
    epoch: u64,
    root: bool,
    birthplace: bool,
    layer: bool,
    /// Bytes of a workspace in memory; `None` when a mount comes.
    memory_bytes_max: Option<u64>,
    /// Where each view is shown, and the host path when no mount comes.
    views: Vec<(String, Option<PathBuf>)>,
    mounts: Vec<String>,
    names: Names,
}

/// What a stem says when it is ready: the group that it could not enter.
#[derive(Debug, Serialize, Deserialize)]
struct Ready {
    refused: Option<(Controller, String)>,
}

/// What a stem says at its end.
#[derive(Debug, Serialize, Deserialize)]
enum Born {
    Child(i32),
    Refused(i32),
}

impl Stems {
    /// Whose first slot is the one after this.
    pub(crate) fn after(slot: u64) -> Self {
        Self { ready: VecDeque::new(), next_slot: slot }
    }

    /// Grows stems until enough stand ready.
    pub(crate) fn grow(&mut self, groups: &Groups, filters: &Filters) -> Result<(), Errno> {
        while self.ready.len() < STEMS {
            self.next_slot += 1;
            let stem = Stem::grow(self.next_slot, groups, filters)?;
            self.ready.push_back(stem);
        }
        Ok(())
    }

    /// Ends those that stand ready at the front with a range of ids that a sandbox which lives has, and grows none such: `taken`
    /// says of a slot whether its range is.
    pub(crate) fn pass_over(&mut self, taken: impl Fn(u64) -> bool, groups: &Groups) {
        while let Some(stem) = self.ready.pop_front_if(|stem| taken(stem.slot)) {
            groups.discard(stem.end());
        }
        while taken(self.next_slot + 1) {
            self.next_slot += 1;
        }
    }

    /// Takes the oldest, waiting until it is ready.
    pub(crate) fn take(&mut self, groups: &Groups, filters: &Filters) -> Result<Stem, Errno> {
        self.grow(groups, filters)?;
        let mut stem = self.ready.pop_front().ok_or(Errno::CHILD)?;
        match hear::<Ready>(&stem.door) {
            Ok(ready) => {
                stem.missing.extend(ready.refused);
                Ok(stem)
            }
            Err(errno) => {
                groups.discard(stem.end());
                Err(errno)
            }
        }
    }

    /// Ends all of them.
    pub(crate) fn fell(&mut self, groups: &Groups) {
        for stem in self.ready.drain(..) {
            let group = stem.end();
            groups.discard(group);
        }
    }
}

impl Stem {
    fn grow(slot: u64, groups: &Groups, filters: &Filters) -> Result<Self, Errno> {
        let (group, missing) = groups.make(slot);
        let (door, inner) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        match guest::sys::fork()? {
            Forked::Child => raw::in_child(|| stand(inner, &group, filters)),
            Forked::Parent(pid) => Ok(Self { pid: pid.as_raw_nonzero().get(), door, slot, group, missing }),
        }
    }

    /// Lets it clone the first process of `plan`; the new process waits at `plan.sync`.
    pub(crate) fn bear(&self, flags: u64, plan: &Plan) -> Result<i32, Errno> {
        let birthplace = self.group.birthplace()?;
        let mut fds: Vec<BorrowedFd<'_>> = vec![plan.socket.as_fd(), plan.sync.as_fd(), plan.control.as_fd()];
        fds.extend(birthplace.as_ref().map(|group| group.as_fd()));
        fds.extend(plan.layer.as_ref().map(|layer| layer.as_fd()));
        let memory_bytes_max = match &plan.workspace {
            Workspace::Mounted(mount) => {
                fds.push(mount.as_fd());
                None
            }
            Workspace::Memory { bytes_max } => Some(*bytes_max),
        };
        let mut views = Vec::new();
        for view in &plan.views {
            let path = match &view.source {
                Source::Tree(tree) => {
                    fds.push(tree.as_fd());
                    None
                }
                Source::Path(path) => Some(path.clone()),
            };
            views.push((view.inside.clone(), path));
        }
        let (stand, descriptors) = plan.stand.order();
        fds.extend(descriptors.map(|fd| fd.as_fd()));
        let order = Order {
            stand,
            flags,
            environment: plan.environment.clone(),
            limits: plan.limits,
            walls_optional: plan.walls_optional.clone(),
            epoch: plan.epoch,
            root: plan.root,
            birthplace: birthplace.is_some(),
            layer: plan.layer.is_some(),
            memory_bytes_max,
            views,
            mounts: plan.mounts.clone(),
            names: plan.names.clone(),
        };
        door::send(&self.door, &order, &fds, SendFlags::empty())?;
        match hear(&self.door)? {
            Born::Child(pid) => Ok(pid),
            Born::Refused(errno) => Err(Errno::from_raw_os_error(errno)),
        }
    }

    /// Ends it, whether it has done its act or not, and gives back its groups.
    pub(crate) fn end(self) -> Group {
        guest::sys::kill(self.pid);
        raw::reap(self.pid);
        self.group
    }
}

fn hear<T: for<'de> Deserialize<'de>>(door: &OwnedFd) -> Result<T, Errno> {
    let timeout = Timespec { tv_sec: WAIT_SECONDS_MAX, tv_nsec: 0 };
    if rustix::event::poll(&mut [PollFd::new(door, PollFlags::IN)], Some(&timeout))? == 0 {
        return Err(Errno::TIMEDOUT);
    }
    door::receive(door)?.map(|(told, _)| told).ok_or(Errno::CHILD)
}

/// A stem's life.
fn stand(door: OwnedFd, group: &Group, filters: &Filters) -> i32 {
    let prepared = raw::close_inherited(&[0, 1, 2, door.as_raw_fd()]).and_then(|()| privileges::die_with_parent());
    if prepared.is_err() {
        return 1;
    }
    privileges::name_process(c"topside-stem");
    let refused = group.enter().err().map(|(controller, error)| (controller, error.to_string()));
    if door::send(&door, &Ready { refused }, &[], SendFlags::empty()).is_err() {
        return 1;
    }
    let Ok(Some((order, fds))) = door::receive::<Order>(&door) else { return 0 };
    let (flags, born) = (order.flags, unpack(order, fds));
    let Some((plan, birthplace)) = born else { return 1 };
    let born = match raw::clone_sibling(flags, birthplace.as_ref().map(|group| group.as_fd())) {
        Ok(Cloned::Child) => raw::in_child(|| inside::run(plan, filters)),
        Ok(Cloned::Parent(pid)) => Born::Child(pid),
        Err(errno) => Born::Refused(errno.raw_os_error()),
    };
    i32::from(door::send(&door, &born, &[], SendFlags::empty()).is_err())
}

/// The plan of an order, and the group to be born into.
fn unpack(order: Order, fds: Vec<OwnedFd>) -> Option<(Plan, Option<OwnedFd>)> {
    let mut fds = fds.into_iter();
    let (socket, sync, control) = (fds.next()?, fds.next()?, fds.next()?);
    let birthplace = if order.birthplace { Some(fds.next()?) } else { None };
    let layer = if order.layer { Some(fds.next()?) } else { None };
    let workspace = match order.memory_bytes_max {
        Some(bytes_max) => Workspace::Memory { bytes_max },
        None => Workspace::Mounted(fds.next()?),
    };
    let mut views = Vec::new();
    for (inside, path) in order.views {
        let source = match path {
            Some(path) => Source::Path(path),
            None => Source::Tree(fds.next()?),
        };
        views.push(View { source, inside });
    }
    let stand = Stand::unpack(order.stand, &mut fds)?;
    let Order { environment, limits, walls_optional, epoch, root, mounts, names, .. } = order;
    let plan = Plan {
        environment,
        limits,
        walls_optional,
        epoch,
        stand,
        views,
        workspace,
        layer,
        root,
        socket,
        sync,
        control,
        mounts,
        names,
    };
    Some((plan, birthplace))
}
