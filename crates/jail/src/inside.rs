//! A sandbox's first process from its birth in new namespaces until it serves: raises every wall on itself, says which stand,
//! and becomes PID 1. It is forked, never executed, so no host file can stand in for it.

use crate::door::{self, Failure, Stage};
use crate::filter::Filters;
use crate::ids;
use crate::names::Names;
use crate::root::{self, View, Workspace};
use crate::stack::Stand;
use crate::{access, mounting, privileges, raw};
use guest::mirror::Others;
use rustix::io::Errno;
use sandbox::Limits;
use serde::{Deserialize, Serialize};
use std::os::fd::{AsFd as _, AsRawFd, BorrowedFd, OwnedFd};

/// Everything the first process needs.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) limits: Limits,
    pub(crate) walls_optional: Vec<String>,
    pub(crate) epoch: u64,
    /// What the root is made of.
    pub(crate) stand: Stand,
    pub(crate) views: Vec<View>,
    pub(crate) workspace: Workspace,
    /// The directory that a workspace in memory is kept in.
    pub(crate) layer: Option<OwnedFd>,
    /// Whether the launcher is root, whose groups must go.
    pub(crate) root: bool,
    /// The guest's end of its first stream.
    pub(crate) socket: OwnedFd,
    /// The guest's end of the launcher's hold on it.
    pub(crate) control: OwnedFd,
    /// Where the launcher says go, and hears what came of it.
    pub(crate) sync: OwnedFd,
    /// Where buckets are shown in the workspace.
    pub(crate) mounts: Vec<String>,
    pub(crate) names: Names,
}

/// What the first process tells the launcher.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Told {
    Ready { standing: Vec<String>, missing: Vec<String> },
    Failed(Failure),
}

/// The walls as they go up.
struct Walls<'a> {
    optional: &'a [String],
    standing: Vec<String>,
    missing: Vec<String>,
}

impl Walls<'_> {
    /// Notes a wall that stands, or that the spec does without; any other failure ends the start.
    fn raise(&mut self, wall: &str, raised: Result<(), String>) -> Result<(), Failure> {
        match raised {
            Ok(()) => self.standing.push(wall.to_owned()),
            Err(_) if self.optional.iter().any(|optional| optional == wall) => self.missing.push(wall.to_owned()),
            Err(detail) => return Err(Failure::wall(wall, detail)),
        }
        Ok(())
    }
}

fn said(errno: Errno) -> String {
    errno.to_string()
}

/// Runs the sandbox from its first instruction to its end; returns the exit code.
pub(crate) fn run(plan: Plan, filters: &Filters) -> i32 {
    let (told, devices, score) = match prepare(&plan, filters) {
        Ok((told, devices, score)) => (told, devices, score),
        Err(failure) => (Told::Failed(failure), Vec::new(), None),
    };
    let ready = matches!(told, Told::Ready { .. });
    // The mounts' devices go to the launcher, and are nobody's in here.
    let beside: Vec<BorrowedFd<'_>> = devices.iter().map(|device| device.as_fd()).collect();
    let heard = door::send(&plan.sync, &told, &beside, rustix::net::SendFlags::empty()).is_ok();
    drop(devices);
    if !ready || !heard {
        return 1;
    }
    drop(plan.sync);
    drop(plan.workspace);
    drop(plan.views);
    let accounts = plan.stand.wanted.accounts.clone();
    // The layers under the root stay as long as this process.
    let _held = plan.stand.stood();
    let budget = budget(&plan.limits);
    guest::run(guest::Config {
        stream: Some(plan.socket),
        control: plan.control,
        kept_bytes_max: kept_bytes_max(&plan.limits),
        environment: plan.environment,
        commands_max: plan.limits.commands_max,
        epoch: plan.epoch,
        layer: plan.layer.map(|directory| guest::Layer { directory, budget }),
        score,
        accounts,
    })
}

/// What PID 1 may keep of output that nobody has taken: a part of the sandbox's memory, which it counts in.
fn kept_bytes_max(limits: &Limits) -> usize {
    const KEPT_BYTES_MAX: u64 = 32 << 20;
    usize::try_from((limits.memory_bytes_max / 8).min(KEPT_BYTES_MAX)).unwrap_or(0)
}

fn budget(limits: &Limits) -> guest::mirror::Budget {
    guest::mirror::Budget { bytes_max: limits.workspace_bytes_max, entries_max: limits.workspace_inodes_max }
}

/// What came of it, the devices of mounts, and PID 1's hold on its score.
type Prepared = (Told, Vec<OwnedFd>, Option<guest::Score>);

fn prepare(plan: &Plan, filters: &Filters) -> Result<Prepared, Failure> {
    let claim = |what: &str, errno: Errno| Failure::stage(Stage::Claim, format!("{what}: {errno}"));
    keep_only_own(plan).map_err(|errno| claim("descriptors", errno))?;
    await_go(plan.sync.as_fd()).map_err(|errno| claim("the launcher", errno))?;
    // While this process still is who made it: later its own files are nobody's.
    let score = guest::Score::own().ok();
    let devices = mounting::devices(&plan.mounts)?;
    let accounts = plan.stand.wanted.accounts.as_ref();
    let inside = plan.stand.wanted.main();
    let became = match accounts {
        // Root of its own namespace, and nobody outside: it makes other users.
        Some(_) => raw::become_root(guest::SEEING_GROUP),
        None => raw::become_user(inside.user, inside.group, plan.root),
    };
    became.map_err(|errno| claim("the guest's user", errno))?;
    rustix::process::setsid().map_err(|errno| claim("session", errno))?;
    privileges::name_process(c"topside-init");
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let mut walls = Walls { optional: &plan.walls_optional, standing: Vec::new(), missing: Vec::new() };
    // Never optional: a guest with the host's files in sight would be no sandbox.
    root::build(&plan.limits, &plan.stand, &plan.views, &plan.workspace, &plan.names)
        .map_err(|failed| Failure::wall("private_root", format!("{}: {}", failed.what, failed.errno)))?;
    walls.raise("private_root", Ok(()))?;
    load(plan)?;
    if let Some(accounts) = accounts {
        ids::settle(accounts).map_err(|(path, errno)| Failure::stage(Stage::Root, format!("{path}: {errno}")))?;
    }
    mounting::attach(&plan.mounts, &devices, inside, accounts.is_some())?;
    // Without a namespace of its own for it there is a wall missing already, and the host keeps its name.
    let _ = plan.names.set();
    // Without it programs only miss their own loopback; nothing gets weaker.
    let _ = raw::loopback_up();
    root::close_process_settings()
        .map_err(|failed| Failure::wall("private_root", format!("{}: {}", failed.what, failed.errno)))?;
    privileges::limit(&plan.limits).map_err(|errno| claim("resource limits", errno))?;
    walls.raise("no_new_privileges", privileges::no_new_privileges().map_err(said))?;
    walls.raise("landlock", access::restrict(plan.layer.as_ref().map(|layer| layer.as_fd()), plan.stand.writable()))?;
    let dropped = match accounts {
        Some(_) => privileges::keep_capabilities(guest::ROOT_CAPABILITIES | guest::SETPCAP),
        None => privileges::drop_capabilities(),
    };
    walls.raise("capabilities", dropped.map_err(said))?;
    privileges::hide().map_err(|errno| claim("hiding PID 1", errno))?;
    privileges::die_with_parent().map_err(|errno| claim("dying with the launcher", errno))?;
    walls.raise("seccomp", filters.install())?;
    Ok((Told::Ready { standing: walls.standing, missing: walls.missing }, devices, score))
}

/// Closes all that was inherited but what the plan owns; 0, 1 and 2 become the null device.
fn keep_only_own(plan: &Plan) -> Result<(), Errno> {
    let null = rustix::fs::open("/dev/null", rustix::fs::OFlags::RDWR, rustix::fs::Mode::empty())?;
    for number in 0..3 {
        guest::sys::install(null.as_fd(), number)?;
    }
    let mut kept =
        vec![0, 1, 2, null.as_raw_fd(), plan.socket.as_raw_fd(), plan.sync.as_raw_fd(), plan.control.as_raw_fd()];
    kept.extend(plan.layer.as_ref().map(AsRawFd::as_raw_fd));
    kept.extend(plan.stand.descriptors());
    if let Workspace::Mounted(mount) = &plan.workspace {
        kept.push(mount.as_raw_fd());
    }
    kept.extend(plan.views.iter().filter_map(|view| match &view.source {
        root::Source::Tree(tree) => Some(tree.as_raw_fd()),
        root::Source::Path(_) => None,
    }));
    raw::close_inherited(&kept)
}

fn await_go(sync: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut go = [0; 1];
    match rustix::io::read(sync, &mut go)? {
        1 => Ok(()),
        _ => Err(Errno::PIPE),
    }
}

/// Fills a workspace in memory from the directory it is kept in.
fn load(plan: &Plan) -> Result<(), Failure> {
    let Some(layer) = &plan.layer else { return Ok(()) };
    let failed = |errno: Errno| Failure::stage(Stage::Workspace, format!("loading the kept files: {errno}"));
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
    let workspace = rustix::fs::open(guest::WORKSPACE, flags, rustix::fs::Mode::empty()).map_err(failed)?;
    guest::mirror::mirror(layer.as_fd(), workspace.as_fd(), budget(&plan.limits), Others::None).map_err(failed)
}
