//! Buckets shown in a sandbox: the first process makes the mounts with the power of its own user namespace, the launcher gives
//! each a helper process that alone holds it and its credential, and the harness tells that helper what to serve. Here stand
//! the helper's walls and its end: without its helper a mount is aborted, and nobody waits for it any more.

use crate::door::{Failure, Stage};
use crate::filter::Filters;
use crate::stack::Identity;
use crate::{privileges, raw};
use ::mounts::Readers;
use guest::sys::Forked;
use landlock::{
    ABI, Access as _, AccessFs, AccessNet, CompatLevel, Compatible as _, NetPort, PathBeneath, PathFd, Ruleset,
    RulesetAttr as _, RulesetCreatedAttr as _, RulesetStatus, Scope,
};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::MoveMountFlags;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Resource, Rlimit};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

/// Mounts of one sandbox.
pub(crate) const MOUNTS_MAX: usize = sandbox::manifest::MOUNTS_MAX;
/// Host ids of helpers of a root launcher: none of a sandbox, and none of people.
const HELPER_ID_FIRST: u32 = 0x2000_0000;
const HELPER_IDS: u32 = 0x1000_0000;
/// Memory of one helper, what it keeps of files included.
const MEMORY_BYTES_MAX: u64 = 256 << 20;
const OPEN_FILES_MAX: u64 = 128;
/// Where names of hosts are looked up, and what the C library loads for that.
const NAMES: [&str; 9] = [
    "/etc/hosts",
    "/etc/host.conf",
    "/etc/resolv.conf",
    "/etc/nsswitch.conf",
    "/etc/gai.conf",
    "/etc/ld.so.cache",
    "/usr/lib",
    "/lib",
    "/lib64",
];
/// Where a resolver may be asked over TCP.
const NAMES_PORT: u16 = 53;

/// In the first process, before it becomes the guest's user: the devices, which only whoever owns them on the host may open.
pub(crate) fn devices(mounts: &[String]) -> Result<Vec<OwnedFd>, Failure> {
    let opened = mounts.iter().map(|_| ::mounts::device().map_err(|error| failed(&error.to_string())));
    opened.collect()
}

/// In the first process, once its workspace stands and while it still may mount: puts a mount at each path, for the user and
/// group that everything inside runs as; `shared` where there are others.
pub(crate) fn attach(mounts: &[String], devices: &[OwnedFd], owner: Identity, shared: bool) -> Result<(), Failure> {
    let readers = if shared { Readers::All } else { Readers::Owner };
    for (path, device) in mounts.iter().zip(devices) {
        let mount = ::mounts::mount(device.as_fd(), (owner.user, owner.group), readers);
        let mount = mount.map_err(|error| failed(&error.to_string()))?;
        let place = place(path).map_err(|errno| failed(&format!("its place `{path}`: {errno}")))?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        rustix::mount::move_mount(&mount, "", &place, "", flags)
            .map_err(|errno| failed(&format!("attaching at `{path}`: {errno}")))?;
    }
    Ok(())
}

fn failed(detail: &str) -> Failure {
    Failure::stage(Stage::Workspace, format!("a mount: {detail}"))
}

/// A directory of the workspace, made with its parents where it is missing; no link is followed on the way, whoever made it.
fn place(path: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut here = rustix::fs::open(guest::WORKSPACE, flags, Mode::empty())?;
    for name in path.split('/') {
        match rustix::fs::mkdirat(&here, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        here = rustix::fs::openat2(&here, name, flags, Mode::empty(), resolve)?;
    }
    Ok(here)
}

/// The helpers of one sandbox; they end when this is dropped.
#[derive(Debug, Default)]
pub(crate) struct Helpers(Vec<i32>);

impl Helpers {
    /// Starts a helper for each device; gives the sockets over which the harness tells them what to serve.
    pub(crate) fn start(
        devices: Vec<OwnedFd>,
        slot: u64,
        root: bool,
        filters: &Filters,
    ) -> Result<(Self, Vec<OwnedFd>), Failure> {
        let broken = |errno: Errno| failed(&format!("its helper: {errno}"));
        let (mut helpers, mut doors) = (Self::default(), Vec::new());
        for device in devices {
            let flags = SocketFlags::CLOEXEC;
            let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None).map_err(broken)?;
            match guest::sys::fork().map_err(broken)? {
                Forked::Child => raw::in_child(|| help(device, theirs, slot, root, filters)),
                Forked::Parent(pid) => {
                    helpers.0.push(pid.as_raw_nonzero().get());
                    doors.push(ours);
                }
            }
        }
        Ok((helpers, doors))
    }

    /// Kills them, so that nobody waits for a mount.
    pub(crate) fn end(&mut self) {
        for helper in std::mem::take(&mut self.0) {
            guest::sys::kill(helper);
            raw::reap(helper);
        }
    }
}

impl Drop for Helpers {
    fn drop(&mut self) {
        self.end();
    }
}

/// A helper's life.
fn help(device: OwnedFd, door: OwnedFd, slot: u64, root: bool, filters: &Filters) -> i32 {
    match restrict(&device, &door, slot, root) {
        Ok(()) => ::mounts::help(device, door, |order| {
            let ports = order.ports().map_err(|error| error.to_string())?;
            confine(&ports).map_err(|error| format!("landlock: {error}"))?;
            filters.install().map_err(|error| format!("seccomp: {error}"))
        }),
        Err(_) => 1,
    }
}

/// Gives up all that a helper never needs.
fn restrict(device: &OwnedFd, door: &OwnedFd, slot: u64, root: bool) -> Result<(), Errno> {
    let null = rustix::fs::open("/dev/null", OFlags::RDWR, Mode::empty())?;
    for number in 0..3 {
        guest::sys::install(null.as_fd(), number)?;
    }
    raw::close_inherited(&[0, 1, 2, null.as_raw_fd(), device.as_raw_fd(), door.as_raw_fd()])?;
    privileges::name_process(c"topside-mount");
    if root {
        let id = HELPER_ID_FIRST + u32::try_from(slot % u64::from(HELPER_IDS)).unwrap_or(0);
        raw::become_user(id, id, true)?;
    }
    privileges::die_with_parent()?;
    rustix::process::setsid()?;
    guest::sys::reset_signals();
    for (resource, bound) in [
        (Resource::Data, MEMORY_BYTES_MAX),
        (Resource::Nofile, OPEN_FILES_MAX),
        (Resource::Core, 1),
        (Resource::Fsize, 0),
    ] {
        let allowed = rustix::process::getrlimit(resource).maximum.unwrap_or(u64::MAX);
        let bound = Some(bound.min(allowed));
        rustix::process::setrlimit(resource, Rlimit { current: bound, maximum: bound })?;
    }
    privileges::no_new_privileges()?;
    raw::drop_capabilities()?;
    privileges::hide()
}

/// Landlock: no file but what names are looked up with, no connection but to these ports, no signal or abstract socket out.
fn confine(ports: &[u16]) -> Result<(), Box<dyn std::error::Error>> {
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V2))?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ABI::V6))?
        .handle_access(AccessNet::BindTcp | AccessNet::ConnectTcp)?
        .scope(Scope::AbstractUnixSocket | Scope::Signal)?
        .create()?;
    for path in NAMES {
        // What a machine does not have is not looked at either.
        let Ok(opened) = PathFd::new(path) else { continue };
        let is_directory = std::path::Path::new(path).is_dir();
        let read = if is_directory { AccessFs::ReadFile | AccessFs::ReadDir } else { AccessFs::ReadFile.into() };
        rules = rules.add_rule(PathBeneath::new(opened, read))?;
    }
    for port in ports.iter().chain([&NAMES_PORT]) {
        rules = rules.add_rule(NetPort::new(*port, AccessNet::ConnectTcp))?;
    }
    match rules.restrict_self()?.ruleset {
        RulesetStatus::NotEnforced => Err("the kernel enforced nothing".into()),
        RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced => Ok(()),
    }
}
