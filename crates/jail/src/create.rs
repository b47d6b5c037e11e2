//! Makes one sandbox, seen from the launcher: groups, namespaces, user maps, the workspace's mount, and the wait until the
//! first process says that it stands.

use crate::cgroup::{Controller, Group, Groups};
use crate::door::{self, Create, Failure, Keep, Stage};
use crate::filter::Filters;
use crate::ids::{self, Map};
use crate::image;
use crate::inside::{Plan, Told};
use crate::mounting::{Helpers, MOUNTS_MAX};
use crate::names::Names;
use crate::rank::Rank;
use crate::raw::{self, Cloned};
use crate::root::{self, Source, View, Workspace};
use crate::stack::{self, Identity, Stand};
use crate::stem::{Stem, Stems};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use sandbox::Walls;
use std::fs;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

/// How long a sandbox may take to stand.
const READY_SECONDS_MAX: i64 = 20;
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
}

/// Makes a sandbox; on failure nothing of it is left.
pub(crate) fn create(
    stems: &mut Stems,
    ask: Create,
    descriptor: Option<OwnedFd>,
    groups: &Groups,
    filters: &Filters,
) -> Result<Made, Failure> {
    if ask.mounts.len() > MOUNTS_MAX {
        return Err(Failure::stage(Stage::Workspace, format!("mounts_max = {MOUNTS_MAX}")));
    }
    if ask.binds.len() > BINDS_MAX {
        return Err(Failure::stage(Stage::Root, format!("binds_max = {BINDS_MAX}")));
    }
    let stem = stems.take(groups, filters).map_err(|errno| Failure::stage(Stage::Claim, format!("stem: {errno}")))?;
    let made = raise(&stem, ask, descriptor, filters);
    let slot = stem.slot;
    let group = stem.end();
    match made {
        Ok(Raised { child, stream, control, walls, helpers, doors }) => match child.keep() {
            Ok((pid, pidfd)) => Ok(Made { slot, pid, pidfd, group, stream, control, walls, helpers, doors }),
            Err(errno) => {
                groups.discard(group);
                Err(Failure::stage(Stage::Ready, errno.to_string()))
            }
        },
        Err(failure) => {
            groups.discard(group);
            Err(failure)
        }
    }
}

/// A sandbox that stands, its groups apart.
struct Raised {
    child: Child,
    stream: OwnedFd,
    control: OwnedFd,
    walls: Walls,
    helpers: Helpers,
    doors: Vec<OwnedFd>,
}

fn raise(stem: &Stem, ask: Create, descriptor: Option<OwnedFd>, filters: &Filters) -> Result<Raised, Failure> {
    let rank = Rank::own();
    if rank == Rank::PowerlessRoot {
        return Err(Failure::wall(
            "user_namespace",
            "this is user 0 of the machine without its power to mount, and a guest must never be user 0",
        ));
    }
    let root = rank.is_root();
    let claim = |errno: Errno| Failure::stage(Stage::Claim, errno.to_string());
    let accounts = ask.root.accounts.as_ref();
    if accounts.is_some() && !root {
        return Err(Failure::wall("user_namespace", ids::ORDINARY));
    }
    let map = match root {
        true => Map::of_root(stem.slot, ask.root.identity, accounts),
        false => Map::of_ordinary(ask.root.identity),
    };
    let stand = Stand::prepare(&ask.root, root, map.of_files())
        .map_err(|failed| Failure::stage(Stage::Root, format!("{}: {}", failed.what, failed.errno)))?;
    let mut walls = limit(stem, &ask)?;
    let (workspace, layer) = workspace(&ask, descriptor)?;
    walls.standing.push("workspace_limit".to_owned());
    let (stream, socket) =
        socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).map_err(claim)?;
    let (sync, child_sync) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).map_err(claim)?;
    let (control, child_control) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).map_err(claim)?;
    let (flags, absent) = namespaces(&ask.walls_optional);
    for (wall, _) in NAMESPACES {
        let list = if absent.contains(&wall) { &mut walls.missing } else { &mut walls.standing };
        list.push(wall.to_owned());
    }
    let plan = Plan {
        views: views(&ask.binds, root)?,
        stand,
        environment: ask.environment,
        walls_optional: ask.walls_optional,
        limits: ask.limits,
        epoch: ask.epoch,
        workspace,
        layer,
        root,
        socket,
        sync: child_sync,
        control: child_control,
        mounts: ask.mounts.iter().map(|(path, _)| path.clone()).collect(),
        names: Names::of(&ask.label.id),
    };
    let mounts = plan.mounts.len();
    let child = Child { pid: stem.bear(flags, &plan).map_err(refused_namespace)?, armed: true };
    admit(child.pid, map, root, &plan)?;
    // From here on the first process alone holds its ends, so that its death is heard.
    drop(plan);
    go(sync.as_fd()).map_err(claim)?;
    match hear(sync.as_fd())? {
        (Told::Failed(failure), _) => Err(failure),
        (Told::Ready { .. }, devices) if devices.len() != mounts => {
            Err(Failure::stage(Stage::Workspace, "the first process did not hand over its mounts"))
        }
        (Told::Ready { standing, missing }, devices) => {
            if standing.iter().any(|wall| wall == "landlock") {
                walls.landlock_version = crate::access::version();
            }
            walls.standing.extend(standing);
            walls.missing.extend(missing);
            let (helpers, doors) = Helpers::start(devices, stem.slot, root, filters)?;
            Ok(Raised { child, stream, control, walls, helpers, doors })
        }
    }
}

/// Sets the limits; says which stand.
fn limit(stem: &Stem, ask: &Create) -> Result<Walls, Failure> {
    let mut missing = stem.missing.clone();
    if let Err((controller, error)) = stem.group.limit(&ask.limits) {
        missing.push((controller, error.to_string()));
    }
    let mut walls = Walls::default();
    for controller in Controller::ALL {
        let wall = controller.wall().to_owned();
        match missing.iter().find(|(refused, _)| *refused == controller) {
            None => walls.standing.push(wall),
            Some(_) if ask.walls_optional.contains(&wall) => walls.missing.push(wall),
            Some((_, detail)) => return Err(Failure::wall(&wall, detail.clone())),
        }
    }
    Ok(walls)
}

/// Kills and reaps the child of a start that failed.
struct Child {
    pid: i32,
    armed: bool,
}

impl Child {
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
fn namespaces(optional: &[String]) -> (u64, Vec<&'static str>) {
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
fn refused_namespace(errno: Errno) -> Failure {
    for (wall, flag) in NAMESPACES {
        if let Err(errno) = try_namespace(flag) {
            return Failure::wall(wall, errno.to_string());
        }
    }
    Failure::stage(Stage::Claim, format!("clone: {errno}"))
}

/// Gives the child its user map and its workspace's owner, before it takes its first step.
fn admit(pid: i32, map: Map, root: bool, plan: &Plan) -> Result<(), Failure> {
    let user = |what: &str, error: std::io::Error| Failure::wall("user_namespace", format!("{what}: {error}"));
    if !root {
        fs::write(format!("/proc/{pid}/setgroups"), "deny").map_err(|error| user("setgroups", error))?;
    }
    spare_nobody(pid);
    map.write(pid).map_err(|error| user("its ids", error))?;
    if let (Workspace::Mounted(mount), true) = (&plan.workspace, root) {
        // Kept workspaces belong to the same user whoever uses them.
        let own = if plan.stand.wanted.identity == Identity::default() {
            fs::File::open(format!("/proc/{pid}/ns/user")).map(OwnedFd::from)
        } else {
            let [users, groups] = map.of_workspace();
            stack::mapping([&users, &groups]).map_err(std::io::Error::from)
        };
        let own = own.map_err(|error| user("its namespace", error))?;
        raw::mount_idmap(mount.as_fd(), own.as_fd()).map_err(|errno| {
            Failure::stage(Stage::Workspace, format!("giving the image to the guest's user: {errno}"))
        })?;
    }
    Ok(())
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

fn go(sync: BorrowedFd<'_>) -> Result<(), Errno> {
    rustix::net::send(sync, b"g", rustix::net::SendFlags::NOSIGNAL).map(drop)
}

fn hear(sync: BorrowedFd<'_>) -> Result<(Told, Vec<OwnedFd>), Failure> {
    let mut polled = [PollFd::new(&sync, PollFlags::IN)];
    let timeout = Timespec { tv_sec: READY_SECONDS_MAX, tv_nsec: 0 };
    let ready = rustix::event::poll(&mut polled, Some(&timeout)).unwrap_or(0);
    if ready == 0 {
        return Err(Failure::stage(Stage::Ready, format!("nothing heard for {READY_SECONDS_MAX} s")));
    }
    let ended = || Failure::stage(Stage::Ready, "the first process ended early");
    door::receive(sync).ok().flatten().ok_or_else(ended)
}
