//! Makes one sandbox, seen from the launcher: groups, namespaces, user maps, the workspace's mount; and hears how far its
//! first process has come, until it says that it serves. Nothing here waits: many are on their way at once.

use crate::cgroup::{self, Controller, Group, Groups};
use crate::door::{self, Create, Failure, Keep, Stage, Took};
use crate::filter::Filters;
use crate::ids::Map;
use crate::image;
use crate::inside::{self, Claim, Site, Told};
use crate::launcher::now_us;
use crate::mounting::{Helpers, MOUNTS_MAX};
use crate::names::Names;
use crate::rank::Rank;
use crate::raw::{self, Cloned};
use crate::root::{self, Source, View, Workspace};
use crate::stack::{self, Identity, Stand, Wanted};
use crate::stem::{Stem, Stems, is_readable};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use sandbox::{Limits, Walls};
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// How long one stage of a start may take. A start that gets on has this for each.
const STAGE_MS_MAX: u64 = 20_000;
/// Views of host paths of one sandbox.
const BINDS_MAX: usize = 24;

/// The namespaces, each with its wall.
pub(crate) const NAMESPACES: [(&str, i32); 7] = [
    ("user_namespace", libc::CLONE_NEWUSER),
    ("mount_namespace", libc::CLONE_NEWNS),
    ("pid_namespace", libc::CLONE_NEWPID),
    ("network_namespace", libc::CLONE_NEWNET),
    ("ipc_namespace", libc::CLONE_NEWIPC),
    ("uts_namespace", libc::CLONE_NEWUTS),
    ("cgroup_namespace", libc::CLONE_NEWCGROUP),
];
/// Those without which there is no sandbox at all: nothing else could be built.
const NEVER_OPTIONAL: [&str; 3] = ["user_namespace", "mount_namespace", "pid_namespace"];

/// A sandbox that stands.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) slot: u64,
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
    pub(crate) group: Group,
    pub(crate) stream: OwnedFd,
    /// Over which the first process is given further streams.
    pub(crate) control: OwnedFd,
    pub(crate) walls: Walls,
    /// Who serves its mounts, and where each is told what to serve.
    pub(crate) helpers: Helpers,
    pub(crate) doors: Vec<OwnedFd>,
    pub(crate) took: Took,
}

/// A root that is being built, and the walls around it that stand already.
#[derive(Debug)]
pub(crate) struct Footing {
    walls: Walls,
    /// As root, the first process's user namespace, whose ids a workspace is shown with.
    ids: Option<OwnedFd>,
}

/// Has a stem build its root. What is asked for beyond that does not matter yet.
pub(crate) fn build(stem: &Stem, ask: &Create) -> Result<Footing, Failure> {
    let rank = Rank::own();
    if rank == Rank::PowerlessRoot {
        return Err(Failure::wall(
            "user_namespace",
            "this is user 0 of the machine without its power to mount, and a guest must never be user 0",
        ));
    }
    let root = rank.is_root();
    let map = map(stem.slot, &ask.root, root)?;
    let stand = Stand::prepare(&ask.root, root, map.of_files())
        .map_err(|failed| Failure::stage(Stage::Root, format!("{}: {}", failed.what, failed.errno)))?;
    let mut walls = limit(stem, &ask.limits, &ask.walls_optional)?;
    let (_, absent) = namespaces(&ask.walls_optional);
    for (wall, _) in NAMESPACES {
        let list = if absent.contains(&wall) { &mut walls.missing } else { &mut walls.standing };
        list.push(wall.to_owned());
    }
    let site = Site {
        limits: ask.limits,
        // A least version of a wall is none where the wall itself may be missing.
        walls_optional: ask
            .walls_optional
            .iter()
            .filter(|wall| ask.landlock_version_min == 0 || *wall != "landlock")
            .cloned()
            .collect(),
        stand,
        views: views(&ask.binds, root)?,
        root,
        mounts: ask.mounts.iter().map(|(path, _)| path.clone()).collect(),
        names: match ask.root.base {
            stack::Base::Host { .. } => None,
            stack::Base::Layers { .. } => Some(Names::of(&ask.label.id)),
        },
    };
    admit(stem, map, root)?;
    inside::send_site(&stem.door, &site)
        .map_err(|errno| Failure::stage(Stage::Claim, format!("the first process: {errno}")))?;
    // While it builds.
    let ids = if root { Some(own_ids(stem)?) } else { None };
    Ok(Footing { walls, ids })
}

/// Begins to make a sandbox; on failure nothing of it is left.
pub(crate) fn begin(
    stems: &mut Stems,
    ask: &Create,
    descriptor: Option<OwnedFd>,
    groups: &Groups,
    filters: &Filters,
) -> Result<Starting, Failure> {
    if ask.mounts.len() > MOUNTS_MAX {
        return Err(Failure::stage(Stage::Workspace, format!("mounts_max = {MOUNTS_MAX}")));
    }
    if ask.binds.len() > BINDS_MAX {
        return Err(Failure::stage(Stage::Root, format!("binds_max = {BINDS_MAX}")));
    }
    crate::access::check_version(ask.landlock_version_min)?;
    let began_us = now_us();
    let mut stem = stems.take(ask, groups, filters, began_us / 1_000)?;
    let stood_ready = stem.built.is_some();
    let begun = claim(&mut stem, ask, descriptor, groups);
    match begun {
        Ok(Claimed { stream, control, walls }) => {
            let mut starting = Starting::new(stem, ask, stream, control, walls, began_us)?;
            starting.took.stood_ready = stood_ready;
            Ok(starting)
        }
        Err(failure) => {
            stem.fell(groups);
            Err(failure)
        }
    }
}

/// A stem that was told everything.
struct Claimed {
    stream: OwnedFd,
    control: OwnedFd,
    walls: Walls,
}

fn claim(stem: &mut Stem, ask: &Create, descriptor: Option<OwnedFd>, groups: &Groups) -> Result<Claimed, Failure> {
    let failed = |errno: Errno| Failure::stage(Stage::Claim, errno.to_string());
    let Footing { mut walls, ids } = match stem.built.take() {
        Some(footing) => footing,
        None => build(stem, ask)?,
    };
    let (workspace, layer) = workspace(ask, descriptor)?;
    own_workspace(stem, &workspace, &ask.root, ids)?;
    walls.standing.push("workspace_limit".to_owned());
    cgroup::throttle(groups, stem, &workspace, ask, &mut walls)?;
    let (stream, socket) =
        socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).map_err(failed)?;
    let (control, child_control) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).map_err(failed)?;
    let (environment, epoch, ahead) = (ask.environment.clone(), ask.epoch, ask.ahead);
    let names = Names::of(&ask.label.id);
    let claim = Claim { environment, epoch, ahead, workspace, layer, socket, control: child_control, names };
    // From here on the first process alone holds its ends, so that its death is heard.
    match inside::send_claim(&stem.door, &claim) {
        Ok(()) => Ok(Claimed { stream, control, walls }),
        Err(errno) => Err(last_words(&stem.door).unwrap_or_else(|| failed(errno))),
    }
}

/// Why a first process ended that was still to be told something.
fn last_words(door: &OwnedFd) -> Option<Failure> {
    while is_readable(door) {
        match door::receive::<Told>(door).ok().flatten()?.0 {
            Told::Failed(failure) => return Some(failure),
            Told::Past(_) | Told::Ready { .. } => {}
        }
    }
    None
}

/// A sandbox on its way.
#[derive(Debug)]
pub(crate) struct Starting {
    child: Child,
    door: OwnedFd,
    group: Group,
    slot: u64,
    root: bool,
    stream: OwnedFd,
    control: OwnedFd,
    walls: Walls,
    /// Mounts whose devices are to come.
    mounts: usize,
    /// Whether its workspace is filled first.
    fills: bool,
    took: Took,
    /// Which stage it is at, since when, and until when it may be.
    stage: Stage,
    since_us: u64,
    deadline_ms: u64,
}

/// What was heard of a start.
pub(crate) enum Heard {
    /// It gets on.
    On(Starting),
    Made(Box<Made>),
    Failed(Failure),
}

impl Starting {
    fn new(
        stem: Stem,
        ask: &Create,
        stream: OwnedFd,
        control: OwnedFd,
        walls: Walls,
        began_us: u64,
    ) -> Result<Self, Failure> {
        let (slot, now) = (stem.slot, now_us());
        let (child, door, group) = stem.into_child().ok_or_else(ended)?;
        let took = Took { claim_us: now.saturating_sub(began_us), ..Took::default() };
        let (root, mounts, stage) = (Rank::own().is_root(), ask.mounts.len(), Stage::Root);
        let (deadline_ms, fills) = (now / 1_000 + STAGE_MS_MAX, ask.workspace == Keep::Layer);
        Ok(Self {
            child,
            door,
            group,
            slot,
            root,
            stream,
            control,
            walls,
            mounts,
            fills,
            took,
            stage,
            since_us: now,
            deadline_ms,
        })
    }

    /// Where it is heard.
    pub(crate) fn door(&self) -> BorrowedFd<'_> {
        self.door.as_fd()
    }

    pub(crate) const fn slot(&self) -> u64 {
        self.slot
    }

    /// When its present stage has taken too long.
    pub(crate) const fn deadline_ms(&self) -> u64 {
        self.deadline_ms
    }

    /// Takes what its first process has said.
    pub(crate) fn hear(mut self, groups: &Groups, filters: &Filters) -> Heard {
        let heard = door::receive::<Told>(&self.door).ok().flatten();
        let now = now_us();
        let took_us = now.saturating_sub(self.since_us);
        match heard {
            Some((Told::Past(stage), _)) => {
                let fills = stage == Stage::Root && self.fills;
                self.stage = if fills { Stage::Workspace } else { Stage::Ready };
                match stage {
                    Stage::Root => self.took.root_us = took_us,
                    Stage::Claim | Stage::Workspace | Stage::Ready => self.took.workspace_us = took_us,
                }
                self.since_us = now;
                self.deadline_ms = now / 1_000 + STAGE_MS_MAX;
                Heard::On(self)
            }
            Some((Told::Failed(failure), _)) => Heard::Failed(self.end(failure, groups)),
            Some((Told::Ready { .. }, devices)) if devices.len() != self.mounts => {
                let failure = Failure::stage(Stage::Workspace, "the first process did not hand over its mounts");
                Heard::Failed(self.end(failure, groups))
            }
            Some((Told::Ready { standing, missing }, devices)) => {
                self.took.ready_us = took_us;
                self.made(standing, missing, devices, groups, filters)
            }
            None => {
                let failure = Failure::stage(self.stage, "the first process ended early");
                Heard::Failed(self.end(failure, groups))
            }
        }
    }

    fn made(
        mut self,
        standing: Vec<String>,
        missing: Vec<String>,
        devices: Vec<OwnedFd>,
        groups: &Groups,
        filters: &Filters,
    ) -> Heard {
        if standing.iter().any(|wall| wall == "landlock") {
            self.walls.landlock_version = crate::access::version();
        }
        self.walls.standing.extend(standing);
        self.walls.missing.extend(missing);
        let (helpers, doors) = match Helpers::start(devices, self.slot, self.root, filters) {
            Ok(started) => started,
            Err(failure) => return Heard::Failed(self.end(failure, groups)),
        };
        let Self { child, group, slot, stream, control, walls, took, .. } = self;
        match child.keep() {
            Ok((pid, pidfd)) => {
                Heard::Made(Box::new(Made { slot, pid, pidfd, group, stream, control, walls, helpers, doors, took }))
            }
            Err(errno) => {
                groups.discard(group);
                Heard::Failed(Failure::stage(Stage::Ready, errno.to_string()))
            }
        }
    }

    /// Ends it because its stage took too long.
    pub(crate) fn late(self, groups: &Groups) -> Failure {
        let failure = Failure::stage(self.stage, format!("nothing heard for {STAGE_MS_MAX} ms"));
        self.end(failure, groups)
    }

    /// Ends it; nothing of it is left.
    pub(crate) fn end(self, why: Failure, groups: &Groups) -> Failure {
        let why = why.after(self.took, (self.stage, now_us().saturating_sub(self.since_us)));
        drop(self.child);
        groups.discard(self.group);
        why
    }
}

fn ended() -> Failure {
    Failure::stage(Stage::Ready, "the first process ended early")
}

/// Makes a sandbox and waits until it stands.
pub(crate) fn create(stems: &mut Stems, ask: &Create, groups: &Groups, filters: &Filters) -> Result<Made, Failure> {
    let mut starting = begin(stems, ask, None, groups, filters)?;
    loop {
        let wait_ms = starting.deadline_ms().saturating_sub(now_us() / 1_000);
        let timeout = crate::launcher::timespec(wait_ms);
        let door = starting.door();
        if rustix::event::poll(&mut [PollFd::new(&door, PollFlags::IN)], Some(&timeout)).unwrap_or(0) == 0 {
            return Err(starting.late(groups));
        }
        match starting.hear(groups, filters) {
            Heard::On(further) => starting = further,
            Heard::Made(made) => return Ok(*made),
            Heard::Failed(failure) => return Err(failure),
        }
    }
}

/// What the ids inside are on the host.
fn map(slot: u64, wanted: &Wanted, root: bool) -> Result<Map, Failure> {
    match (root, &wanted.accounts) {
        (true, accounts) => Ok(Map::of_root(slot, wanted.identity, accounts.as_ref())),
        (false, None) => Ok(Map::of_ordinary(wanted.identity)),
        (false, Some(_)) => {
            wanted.lent.map(Map::Part).ok_or_else(|| Failure::wall("user_namespace", "no ids were given for its users"))
        }
    }
}

/// Sets the limits; says which stand.
fn limit(stem: &Stem, limits: &Limits, optional: &[String]) -> Result<Walls, Failure> {
    let mut missing = stem.missing.clone();
    if let Err((controller, error)) = stem.group.limit(limits) {
        missing.push((controller, error.to_string()));
    }
    let mut walls = Walls::default();
    for controller in Controller::ALWAYS {
        let wall = controller.wall().to_owned();
        match missing.iter().find(|(refused, _)| *refused == controller) {
            None => walls.standing.push(wall),
            Some(_) if optional.contains(&wall) => walls.missing.push(wall),
            Some((_, detail)) => return Err(Failure::wall(&wall, detail.clone())),
        }
    }
    Ok(walls)
}

/// A child that is killed and reaped unless it is kept.
#[derive(Debug)]
pub(crate) struct Child {
    pid: i32,
    armed: bool,
}

impl Child {
    pub(crate) const fn new(pid: i32) -> Self {
        Self { pid, armed: true }
    }

    pub(crate) const fn pid(&self) -> i32 {
        self.pid
    }

    fn keep(mut self) -> Result<(i32, OwnedFd), Errno> {
        let pid = rustix::process::Pid::from_raw(self.pid).ok_or(Errno::SRCH)?;
        let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?;
        self.armed = false;
        Ok((self.pid, pidfd))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.armed {
            guest::sys::kill(self.pid);
            raw::reap(self.pid);
        }
    }
}

fn workspace(ask: &Create, descriptor: Option<OwnedFd>) -> Result<(Workspace, Option<OwnedFd>), Failure> {
    let missing = || Failure::stage(Stage::Workspace, "no descriptor came with the request");
    // What is in memory counts as memory: half of it at most, so that a full workspace never kills programs.
    let bytes_max = ask.limits.workspace_bytes_max.min(ask.limits.memory_bytes_max / 2);
    match ask.workspace {
        Keep::Mounted => Ok((Workspace::Mounted(descriptor.ok_or_else(missing)?), None)),
        Keep::Image => {
            let mounted = image::mount(descriptor.ok_or_else(missing)?.as_fd(), image::Kind::Workspace);
            Ok((Workspace::Mounted(mounted.map_err(|detail| Failure::wall("workspace_limit", detail))?), None))
        }
        Keep::Layer => Ok((Workspace::Memory { bytes_max }, Some(descriptor.ok_or_else(missing)?))),
        Keep::Nowhere => Ok((Workspace::Memory { bytes_max }, None)),
    }
}

fn views(binds: &[(std::path::PathBuf, String)], root: bool) -> Result<Vec<View>, Failure> {
    let view = |(host, inside): &(std::path::PathBuf, String)| {
        // The guest's user could not walk through private directories of root; its launcher can.
        let source = if root {
            let tree = root::tree(host);
            Source::Tree(tree.map_err(|errno| Failure::stage(Stage::Root, format!("{}: {errno}", host.display())))?)
        } else {
            Source::Path(host.clone())
        };
        Ok(View { source, inside: inside.clone() })
    };
    binds.iter().map(view).collect()
}

/// The flags to clone with, leaving out what the kernel refuses and the spec does without.
pub(crate) fn namespaces(optional: &[String]) -> (u64, Vec<&'static str>) {
    let (mut flags, mut absent) = (0, Vec::new());
    for (wall, flag) in NAMESPACES {
        if crate::down::is_namespace_down(flag) {
            continue;
        }
        let dispensable = optional.iter().any(|optional| optional == wall) && !NEVER_OPTIONAL.contains(&wall);
        if dispensable && let Err(_refused) = try_namespace(flag) {
            absent.push(wall);
        } else {
            flags |= u64::from(flag.unsigned_abs());
        }
    }
    (flags, absent)
}

/// Whether a namespace can be made, together with a user namespace, in a child that ends at once.
pub(crate) fn try_namespace(flag: i32) -> Result<(), Errno> {
    let flags = u64::from(flag.unsigned_abs()) | u64::from(libc::CLONE_NEWUSER.unsigned_abs());
    match raw::clone_child(flags)? {
        Cloned::Child => guest::sys::exit_now(0),
        Cloned::Parent(pid) => {
            raw::reap(pid);
            Ok(())
        }
    }
}

/// Which namespace it was that the kernel refused.
pub(crate) fn refused_namespace(errno: Errno) -> Failure {
    for (wall, flag) in NAMESPACES {
        if let Err(errno) = try_namespace(flag) {
            return Failure::wall(wall, errno.to_string());
        }
    }
    Failure::stage(Stage::Claim, format!("clone: {errno}"))
}

fn user_namespace(what: &str) -> impl Fn(std::io::Error) -> Failure + '_ {
    move |error| Failure::wall("user_namespace", format!("{what}: {error}"))
}

/// Gives a first process its ids, before it takes its first step.
fn admit(stem: &Stem, map: Map, root: bool) -> Result<(), Failure> {
    let pid = stem.pid().ok_or_else(ended)?;
    // Who has one group of its own has no others to become.
    if let (false, Map::One { .. }) = (root, map) {
        fs::write(format!("/proc/{pid}/setgroups"), "deny").map_err(user_namespace("setgroups"))?;
    }
    spare_nobody(pid);
    map.write(pid).map_err(user_namespace("its ids"))
}

/// The user namespace of a first process that has its ids.
fn own_ids(stem: &Stem) -> Result<OwnedFd, Failure> {
    let pid = stem.pid().ok_or_else(ended)?;
    fs::File::open(format!("/proc/{pid}/ns/user")).map(OwnedFd::from).map_err(user_namespace("its namespace"))
}

/// Gives a workspace that was mounted outside to the guest's user, whose `ids` are there when the launcher is root.
fn own_workspace(stem: &Stem, workspace: &Workspace, wanted: &Wanted, ids: Option<OwnedFd>) -> Result<(), Failure> {
    let (Workspace::Mounted(mount), Some(ids)) = (workspace, ids) else { return Ok(()) };
    // Kept workspaces belong to the same user whoever uses them.
    let own = if wanted.identity == Identity::default() {
        ids
    } else {
        let [users, groups] = map(stem.slot, wanted, true)?.of_workspace();
        stack::mapping([&users, &groups]).map_err(|errno| user_namespace("its namespace")(errno.into()))?
    };
    raw::mount_idmap(mount.as_fd(), own.as_fd())
        .map_err(|errno| Failure::stage(Stage::Workspace, format!("giving the image to the guest's user: {errno}")))
}

/// A harness that the kernel is told to spare when memory is short spares no sandbox: what runs inside could take that score
/// back whenever it likes.
fn spare_nobody(pid: i32) {
    let file = format!("/proc/{pid}/oom_score_adj");
    let is_spared = fs::read_to_string(&file).is_ok_and(|score| score.trim_start().starts_with('-'));
    if is_spared {
        // Only who may lower a score sets the bound of it; for anybody else this raises the score alone.
        let _ = fs::write(file, "0");
    }
}
