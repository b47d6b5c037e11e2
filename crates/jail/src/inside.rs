//! A sandbox's first process from its birth in new namespaces until it serves: raises every wall on itself, says which stand,
//! and becomes PID 1. It is forked, never executed, so no host file can stand in for it.

use crate::door::{self, Failure, Stage};
use crate::down::{self, Wall};
use crate::filter::Filters;
use crate::ids;
use crate::names::Names;
use crate::root::{self, Source, View, Workspace};
use crate::stack::{self, Stand};
use crate::{access, mounting, privileges, raw};
use rustix::io::Errno;
use rustix::net::SendFlags;
use sandbox::Limits;
use serde::{Deserialize, Serialize};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;

/// What its root is built of.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) limits: Limits,
    pub(crate) walls_optional: Vec<String>,
    /// What the root is made of.
    pub(crate) stand: Stand,
    pub(crate) views: Vec<View>,
    /// Whether the launcher is root, whose groups must go.
    pub(crate) root: bool,
    /// Where buckets are shown in the workspace.
    pub(crate) mounts: Vec<String>,
    /// What it is called, where that must stand before the root is read-only.
    pub(crate) names: Option<Names>,
}

impl Site {
    /// What the first process needs to make other users of itself.
    fn kept_capabilities(&self) -> u64 {
        self.stand.wanted.accounts.as_ref().map_or(0, |_| guest::ROOT_CAPABILITIES | guest::SETPCAP)
    }
}

/// A [`Site`] without its descriptors, which come beside the message: those of views, then the root's.
#[derive(Debug, Serialize, Deserialize)]
struct Build {
    limits: Limits,
    walls_optional: Vec<String>,
    stand: stack::Order,
    /// Where each view is shown, and the host path when no mount comes.
    views: Vec<(String, Option<PathBuf>)>,
    root: bool,
    mounts: Vec<String>,
    names: Option<Names>,
}

/// What makes it somebody's.
#[derive(Debug)]
pub(crate) struct Claim {
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) epoch: u64,
    /// Whether whose it is comes later.
    pub(crate) ahead: bool,
    pub(crate) workspace: Workspace,
    /// The directory that a workspace in memory is kept in.
    pub(crate) layer: Option<OwnedFd>,
    /// The guest's end of its first stream.
    pub(crate) socket: OwnedFd,
    /// The guest's end of the launcher's hold on it.
    pub(crate) control: OwnedFd,
    /// What it is called.
    pub(crate) names: Names,
}

/// A [`Claim`] without its descriptors, which come beside the message in the order of its fields.
#[derive(Debug, Serialize, Deserialize)]
struct Serve {
    environment: Vec<(String, String)>,
    epoch: u64,
    ahead: bool,
    /// Bytes of a workspace in memory; `None` when a mount comes.
    memory_bytes_max: Option<u64>,
    layer: bool,
    names: Names,
}

/// What the first process tells the launcher.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Told {
    /// It is past this stage.
    Past(Stage),
    /// It serves.
    Ready {
        standing: Vec<String>,
        missing: Vec<String>,
    },
    Failed(Failure),
}

/// Tells a first process what to build its root of.
pub(crate) fn send_site(door: &OwnedFd, site: &Site) -> Result<(), Errno> {
    let (mut fds, mut views) = (Vec::new(), Vec::new());
    for view in &site.views {
        let path = match &view.source {
            Source::Tree(tree) => {
                fds.push(tree.as_fd());
                None
            }
            Source::Path(path) => Some(path.clone()),
        };
        views.push((view.inside.clone(), path));
    }
    let (stand, descriptors) = site.stand.order();
    fds.extend(descriptors.map(|fd| fd.as_fd()));
    let Site { limits, walls_optional, root, mounts, names, .. } = site;
    let (walls_optional, mounts, names) = (walls_optional.clone(), mounts.clone(), names.clone());
    let order = Build { limits: *limits, walls_optional, stand, views, root: *root, mounts, names };
    door::send(door, &order, &fds, SendFlags::empty())
}

/// Tells a first process whose it is.
pub(crate) fn send_claim(door: &OwnedFd, claim: &Claim) -> Result<(), Errno> {
    let mut fds = Vec::new();
    let memory_bytes_max = match &claim.workspace {
        Workspace::Mounted(mount) => {
            fds.push(mount.as_fd());
            None
        }
        Workspace::Memory { bytes_max } => Some(*bytes_max),
    };
    fds.extend(claim.layer.as_ref().map(|layer| layer.as_fd()));
    fds.extend([claim.socket.as_fd(), claim.control.as_fd()]);
    let (environment, names, layer) = (claim.environment.clone(), claim.names.clone(), claim.layer.is_some());
    let order = Serve { environment, epoch: claim.epoch, ahead: claim.ahead, memory_bytes_max, layer, names };
    door::send(door, &order, &fds, SendFlags::empty())
}

fn hear_site(door: &OwnedFd) -> Option<Site> {
    let (order, fds) = door::receive::<Build>(door).ok().flatten()?;
    let (mut fds, mut views) = (fds.into_iter(), Vec::new());
    for (inside, path) in order.views {
        let source = match path {
            Some(path) => Source::Path(path),
            None => Source::Tree(fds.next()?),
        };
        views.push(View { source, inside });
    }
    let stand = Stand::unpack(order.stand, &mut fds)?;
    let Build { limits, walls_optional, root, mounts, names, .. } = order;
    Some(Site { limits, walls_optional, stand, views, root, mounts, names })
}

fn hear_claim(door: &OwnedFd) -> Option<Claim> {
    let (order, fds) = door::receive::<Serve>(door).ok().flatten()?;
    let mut fds = fds.into_iter();
    let workspace = match order.memory_bytes_max {
        Some(bytes_max) => Workspace::Memory { bytes_max },
        None => Workspace::Mounted(fds.next()?),
    };
    let layer = if order.layer { Some(fds.next()?) } else { None };
    let (socket, control) = (fds.next()?, fds.next()?);
    let Serve { environment, epoch, ahead, names, .. } = order;
    Some(Claim { environment, epoch, ahead, workspace, layer, socket, control, names })
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

/// Runs the sandbox from its first instruction to its end; returns the exit code. The launcher is heard and told over `door`.
pub(crate) fn run(door: OwnedFd, filters: &Filters) -> i32 {
    // What its bearer had open is nobody's in here.
    if raw::close_inherited(&[0, 1, 2, door.as_raw_fd()]).is_err() {
        return 1;
    }
    let Some(mut site) = hear_site(&door) else { return 0 };
    // While this process still is who made it: later its own files are nobody's.
    let score = (!down::is_down(Wall::Score)).then(guest::Score::own).and_then(Result::ok);
    let opened = open_views(&mut site);
    let mut walls = Walls { optional: &site.walls_optional, standing: Vec::new(), missing: Vec::new() };
    let tell = |told: &Told, beside: &[BorrowedFd<'_>]| door::send(&door, told, beside, SendFlags::empty()).is_ok();
    let Built { devices, bounded, filtered } = match opened.and_then(|()| build(&site, &mut walls, filters)) {
        Ok(built) => built,
        Err(failure) => {
            tell(&Told::Failed(failure), &[]);
            return 1;
        }
    };
    if !tell(&Told::Past(Stage::Root), &[]) {
        return 1;
    }
    let Some(claim) = hear_claim(&door) else { return 0 };
    let (claim, layer) = claim.with_layer(&site);
    let loaded = move_in(&site, &claim, layer.as_ref(), &devices);
    // Only what was filled took time.
    if layer.is_some() && loaded.is_ok() && !tell(&Told::Past(Stage::Workspace), &[]) {
        return 1;
    }
    let filter = || filtered.and_then(|()| filters.install_late());
    let ready = loaded.and_then(|()| wall_in(&site, &claim, layer.as_ref(), &mut walls, bounded, filter));
    if let Err(failure) = ready {
        tell(&Told::Failed(failure), &[]);
        return 1;
    }
    // The mounts' devices go to the launcher, and are nobody's in here.
    let beside: Vec<BorrowedFd<'_>> = devices.iter().map(|device| device.as_fd()).collect();
    let Walls { standing, missing, .. } = walls;
    let is_filtered = standing.iter().any(|wall| wall == "seccomp");
    let filter = is_filtered.then(|| filters.of_programs()).flatten();
    if !tell(&Told::Ready { standing, missing }, &beside) {
        return 1;
    }
    drop(devices);
    drop(door);
    serve(site, claim, layer, score, filter)
}

/// Serves the guest, with nothing open but what that needs.
fn serve(
    site: Site,
    claim: Claim,
    layer: Option<guest::Layer>,
    score: Option<guest::Score>,
    filter: Option<guest::Filter>,
) -> i32 {
    drop(claim.workspace);
    drop(site.views);
    let accounts = site.stand.wanted.accounts.clone();
    // The layers under the root stay as long as this process.
    let _held = site.stand.stood();
    guest::run(guest::Config {
        stream: Some(claim.socket),
        control: claim.control,
        kept_bytes_max: kept_bytes_max(&site.limits),
        mounts: !site.mounts.is_empty(),
        environment: claim.environment,
        commands_max: site.limits.commands_max,
        epoch: claim.epoch,
        ahead: claim.ahead,
        layer,
        score,
        accounts,
        filter,
    })
}

/// What PID 1 may keep of output that nobody has taken: a part of the sandbox's memory, which it counts in.
fn kept_bytes_max(limits: &Limits) -> usize {
    const KEPT_BYTES_MAX: u64 = 32 << 20;
    usize::try_from((limits.memory_bytes_max / 8).min(KEPT_BYTES_MAX)).unwrap_or(0)
}

impl Claim {
    /// Takes the directory that a workspace in memory is kept in, and says what may be kept there.
    fn with_layer(mut self, site: &Site) -> (Self, Option<guest::Layer>) {
        let Limits { workspace_bytes_max, workspace_inodes_max, .. } = site.limits;
        let budget = guest::mirror::Budget { bytes_max: workspace_bytes_max, entries_max: workspace_inodes_max };
        let own = site.stand.wanted.accounts.as_ref().map(|accounts| (accounts.own.user, accounts.own.group));
        let layer = self.layer.take().map(|directory| guest::Layer { directory, budget, own });
        (self, layer)
    }
}

fn stage(stage: Stage, what: &str) -> impl Fn(Errno) -> Failure + '_ {
    move |errno| Failure::stage(stage, format!("{what}: {errno}"))
}

fn private_root(failed: root::Failed) -> Failure {
    Failure::wall("private_root", format!("{}: {}", failed.what, failed.errno))
}

/// Finds what is shown of the host while this process still is an ordinary user's: whom it becomes has no way there.
fn open_views(site: &mut Site) -> Result<(), Failure> {
    if site.root || site.stand.wanted.accounts.is_none() {
        return Ok(());
    }
    root::private().map_err(private_root)?;
    for view in &mut site.views {
        if let Source::Path(path) = &view.source {
            let tree = root::tree(path);
            let what = path.display().to_string();
            view.source = Source::Tree(tree.map_err(|errno| private_root(root::Failed { what, errno }))?);
        }
    }
    site.stand.look_up().map_err(private_root)
}

/// A root that was built, and the walls around it that were begun.
struct Built {
    /// Of its mounts.
    devices: Vec<OwnedFd>,
    /// Whether no exec gives a capability.
    bounded: Result<(), String>,
    /// Whether the first filter stands.
    filtered: Result<(), String>,
}

/// Becomes the guest's user and builds the root, with nothing in it that is anybody's; says what stands then.
fn build(site: &Site, walls: &mut Walls<'_>, filters: &Filters) -> Result<Built, Failure> {
    let devices = mounting::devices(&site.mounts)?;
    let inside = site.stand.wanted.main();
    let became = match &site.stand.wanted.accounts {
        // Root of its own namespace, and nobody outside: it makes other users.
        Some(_) => raw::become_root(guest::SEEING_GROUP),
        None => raw::become_user(inside.user, inside.group, site.root),
    };
    became.map_err(stage(Stage::Claim, "the guest's user"))?;
    rustix::process::setsid().map_err(stage(Stage::Claim, "session"))?;
    privileges::name_process(c"topside-init");
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    // Whoever changed its user would outlive the launcher otherwise.
    privileges::die_with_parent().map_err(stage(Stage::Claim, "dying with the launcher"))?;
    // Never optional: a guest with the host's files in sight would be no sandbox.
    root::build(&site.limits, &site.stand, &site.views, site.names.as_ref()).map_err(private_root)?;
    walls.raise("private_root", Ok(()))?;
    privileges::limit(&site.limits).map_err(stage(Stage::Claim, "resource limits"))?;
    let bounded = privileges::bound_capabilities(site.kept_capabilities()).map_err(said);
    // Without it programs only miss their own loopback; nothing gets weaker.
    let _ = raw::loopback_up();
    walls.raise("no_new_privileges", privileges::no_new_privileges().map_err(said))?;
    Ok(Built { devices, bounded, filtered: filters.install_early() })
}

/// Puts names and workspace into the root, which is read-only from then on.
fn move_in(site: &Site, claim: &Claim, layer: Option<&guest::Layer>, devices: &[OwnedFd]) -> Result<(), Failure> {
    if site.names.is_none() {
        claim.names.place().map_err(private_root)?;
    }
    claim.names.place_boot().map_err(private_root)?;
    root::finish(&site.limits, &site.stand, &claim.workspace).map_err(private_root)?;
    if let Some(layer) = layer {
        guest::mirror::load(layer).map_err(stage(Stage::Workspace, "loading the kept files"))?;
    }
    let accounts = site.stand.wanted.accounts.as_ref();
    if let Some(accounts) = accounts {
        ids::settle(accounts).map_err(|(path, errno)| Failure::stage(Stage::Root, format!("{path}: {errno}")))?;
    }
    mounting::attach(&site.mounts, devices, site.stand.wanted.main(), accounts.is_some())
}

/// Raises the last walls: what is left afterwards is the guest.
fn wall_in(
    site: &Site,
    claim: &Claim,
    layer: Option<&guest::Layer>,
    walls: &mut Walls<'_>,
    bounded: Result<(), String>,
    filter: impl FnOnce() -> Result<(), String>,
) -> Result<(), Failure> {
    // Without a namespace of its own for it there is a wall missing already, and the host keeps its name.
    let _ = claim.names.set();
    root::close_process_settings().map_err(private_root)?;
    let layer = layer.map(|layer| layer.directory.as_fd());
    walls.raise("landlock", access::restrict(layer, site.stand.writable()))?;
    let dropped = match &site.stand.wanted.accounts {
        Some(_) => privileges::keep_capabilities(site.kept_capabilities()),
        None => privileges::drop_capabilities(),
    };
    walls.raise("capabilities", bounded.and(dropped.map_err(said)))?;
    privileges::hide().map_err(stage(Stage::Claim, "hiding PID 1"))?;
    privileges::die_with_parent().map_err(stage(Stage::Claim, "dying with the launcher"))?;
    walls.raise("seccomp", filter())
}
