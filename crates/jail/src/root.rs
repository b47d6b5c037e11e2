//! The private root: an in-memory tree of the host's own tools, read-only, a few synthesised files, and nothing else of the
//! host. Built inside the sandbox's own namespaces, with the privileges of its user namespace only.

use crate::down::{self, Wall};
use crate::names::Names;
use crate::raw;
use crate::stack::{Base, Stand, Wanted};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags};
use rustix::mount::{MountPropagationFlags, UnmountFlags};
use sandbox::Limits;
use std::io::Write as _;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Host directories shown read-only where they are directories, copied as links where they are links.
const SYSTEM: [&str; 7] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"];
/// Host files and directories of `/etc` that tools need to find their libraries and their chosen alternatives.
const SETTINGS: [&str; 2] = ["etc/alternatives", "etc/ld.so.cache"];
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
/// Of `/proc`: what tells of the host or reaches into its kernel.
const MASKED_FILES: [&str; 29] = [
    "kcore",
    "keys",
    "key-users",
    "timer_list",
    "timer_stats",
    "sched_debug",
    "sysrq-trigger",
    "cmdline",
    "kallsyms",
    "kmsg",
    "modules",
    "iomem",
    "ioports",
    "interrupts",
    "partitions",
    "diskstats",
    "swaps",
    "slabinfo",
    "vmallocinfo",
    "pagetypeinfo",
    "kpagecount",
    "kpageflags",
    "kpagecgroup",
    "latency_stats",
    "locks",
    "mtrr",
    "config.gz",
    "consoles",
    "devices",
];
const MASKED_DIRECTORIES: [&str; 8] = ["acpi", "asound", "bus", "driver", "fs", "irq", "scsi", "tty"];
/// What every file system in memory may hold in inodes, beside its bytes.
const TMP_INODES_MAX: u64 = 100_000;
const SHM_BYTES_MAX: u64 = 64 << 20;

/// What stands at `/workspace`.
#[derive(Debug)]
pub(crate) enum Workspace {
    /// A mount made outside.
    Mounted(OwnedFd),
    /// In memory.
    Memory {
        /// Bytes at most.
        bytes_max: u64,
    },
}

/// A read-only view of a host path: a mount made outside as root, or a path that is looked up with the caller's rights.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) source: Source,
    pub(crate) inside: String,
}

/// Where a view comes from.
#[derive(Debug)]
pub(crate) enum Source {
    Tree(OwnedFd),
    Path(std::path::PathBuf),
}

/// What failed, and where.
pub(crate) struct Failed {
    pub(crate) what: String,
    pub(crate) errno: Errno,
}

pub(crate) fn at(what: impl Into<String>) -> impl FnOnce(Errno) -> Failed {
    let what = what.into();
    move |errno| Failed { what, errno }
}

/// A detached copy of a host path with everything mounted below it.
pub(crate) fn tree(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    rustix::mount::open_tree(rustix::fs::CWD, path, flags)
}

/// A detached copy of the one mount that a directory is open on, from that directory on. Only as root.
pub(crate) fn opened_tree(directory: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    rustix::mount::open_tree(directory, "", flags)
}

/// The host's directories that are shown unless others are named.
pub(crate) fn directories() -> Vec<PathBuf> {
    let more: &[&str] = if down::is_down(Wall::PrivateRoot) { &["/opt"] } else { &[] };
    SYSTEM.iter().chain(more).map(PathBuf::from).collect()
}

/// A new file system in memory.
pub(crate) fn memory(
    bytes_max: u64,
    inodes_max: u64,
    mode: &str,
    attributes: MountAttrFlags,
) -> Result<OwnedFd, Errno> {
    let context = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in
        [("size", bytes_max.to_string()), ("nr_inodes", inodes_max.to_string()), ("mode", mode.to_owned())]
    {
        rustix::mount::fsconfig_set_string(context.as_fd(), key, value)?;
    }
    rustix::mount::fsconfig_create(context.as_fd())?;
    rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

pub(crate) const PLAIN: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID.union(MountAttrFlags::MOUNT_ATTR_NODEV);
pub(crate) const READ_ONLY: u64 = raw::MOUNT_READ_ONLY | raw::MOUNT_NO_SUID | raw::MOUNT_NO_DEV;

/// Puts a detached mount at a path relative to the root being built.
pub(crate) fn attach(mount: BorrowedFd<'_>, path: impl rustix::path::Arg) -> Result<(), Errno> {
    rustix::mount::move_mount(mount, "", rustix::fs::CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

pub(crate) fn directory(path: &str) -> Result<(), Errno> {
    match rustix::fs::mkdir(path, Mode::from_raw_mode(0o755)) {
        Err(Errno::EXIST) => Ok(()),
        done => done,
    }
}

pub(crate) fn file(path: &str, content: &str) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::from_raw_mode(0o644))?;
    std::fs::File::from(file)
        .write_all(content.as_bytes())
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

/// Hears of no mount of the host's any more, and tells of none.
pub(crate) fn private() -> Result<(), Failed> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).map_err(at("making mounts private"))
}

/// Builds the root and moves into it. Afterwards nothing of the old root can be reached by a path. There is no workspace in
/// it yet, and it can still be written to, until [`finish`].
pub(crate) fn build(limits: &Limits, stand: &Stand, views: &[View], names: Option<&Names>) -> Result<(), Failed> {
    private()?;
    let devices = DEVICES.map(|name| tree(Path::new("/dev").join(name).as_path()));
    let views = resolved(views)?;
    match &stand.wanted.base {
        Base::Host { directories } => build_of_host(directories, &stand.wanted, limits)?,
        Base::Layers { .. } => {
            let places: Vec<_> = views.iter().map(|(tree, inside)| (inside.clone(), is_directory(tree))).collect();
            stand.build(limits, &places, names.ok_or_else(|| at("its names")(Errno::INVAL))?)?;
        }
    }
    place_devices(devices)?;
    place_process_list(stand.wanted.accounts.is_some())?;
    place_writable(limits)?;
    for (tree, inside) in &views {
        place_view(tree, inside).map_err(at(inside.clone()))?;
    }
    enter().map_err(at("entering the root"))
}

/// Puts the workspace in its place and makes the root read-only. After [`build`], by the same process.
pub(crate) fn finish(limits: &Limits, stand: &Stand, workspace: &Workspace) -> Result<(), Failed> {
    let made;
    let mount = match workspace {
        Workspace::Mounted(mount) => mount,
        Workspace::Memory { bytes_max } => {
            made = memory(*bytes_max, limits.workspace_inodes_max, "755", PLAIN).map_err(at("/workspace"))?;
            &made
        }
    };
    attach(mount.as_fd(), guest::WORKSPACE).map_err(at("/workspace"))?;
    if down::is_down(Wall::ReadOnly) {
        return Ok(());
    }
    for path in ["/", "/dev"].into_iter().skip(usize::from(stand.is_being_made())) {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let place = rustix::fs::open(path, flags, Mode::empty()).map_err(at(path))?;
        raw::mount_read_only(place.as_fd()).map_err(at(path))?;
    }
    Ok(())
}

/// Makes a root of the host's own tools the current directory.
fn build_of_host(directories: &[PathBuf], wanted: &Wanted, limits: &Limits) -> Result<(), Failed> {
    let system = system(directories)?;
    let settings: Vec<_> =
        SETTINGS.iter().filter_map(|path| Some((*path, tree(Path::new("/").join(path).as_path()).ok()?))).collect();
    let root = memory(8 << 20, 4_096, "755", PLAIN).map_err(at("the root's file system"))?;
    // Any directory serves as the place where the new root is built; the old root goes away as a whole.
    rustix::mount::move_mount(&root, "", rustix::fs::CWD, "/usr", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .map_err(at("the root's place"))?;
    rustix::process::fchdir(&root).map_err(at("the root's place"))?;
    for name in ["dev", "etc", "proc", "run", "tmp", "var", "workspace"] {
        directory(name).map_err(at(name))?;
    }
    rustix::fs::symlink("../tmp", "var/tmp").map_err(at("/var/tmp"))?;
    place_system(system)?;
    place_settings(&settings)?;
    for (path, content) in &wanted.files {
        file(path, content).map_err(at(path.clone()))?;
    }
    if wanted.accounts.is_some() {
        directory("home").map_err(at("/home"))?;
        let homes = memory(limits.tmp_bytes_max, TMP_INODES_MAX, "755", PLAIN).map_err(at("/home"))?;
        attach(homes.as_fd(), "home").map_err(at("/home"))?;
    }
    Ok(())
}

fn is_directory(tree: &OwnedFd) -> bool {
    rustix::fs::fstat(tree).is_ok_and(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir())
}

enum System {
    Tree(String, OwnedFd),
    Link(String, String),
}

fn system(directories: &[PathBuf]) -> Result<Vec<System>, Failed> {
    let mut found = Vec::new();
    for path in directories {
        let name = path.to_string_lossy().trim_start_matches('/').to_owned();
        match rustix::fs::readlink(path, Vec::new()) {
            Ok(target) => found.push(System::Link(name, target.to_string_lossy().into_owned())),
            Err(Errno::INVAL) => found.push(System::Tree(name, tree(path).map_err(at(path.display().to_string()))?)),
            // Which of the usual ones there are depends on the distribution; what the operator named must be there.
            Err(Errno::NOENT) if SYSTEM.iter().any(|usual| path == Path::new(usual)) => {}
            Err(error) => return Err(at(path.display().to_string())(error)),
        }
    }
    Ok(found)
}

fn place_system(system: Vec<System>) -> Result<(), Failed> {
    for entry in system {
        match entry {
            System::Link(name, target) => {
                if let Some((above, _)) = name.rsplit_once('/') {
                    make_place(above, true).map_err(at(above))?;
                }
                rustix::fs::symlink(target, name.as_str()).map_err(at(name))?;
            }
            System::Tree(name, tree) => {
                make_place(&name, true).map_err(at(name.clone()))?;
                raw::mount_add(tree.as_fd(), READ_ONLY).map_err(at(format!("making {name} read-only")))?;
                attach(tree.as_fd(), name.as_str()).map_err(at(name))?;
            }
        }
    }
    Ok(())
}

fn place_settings(settings: &[(&str, OwnedFd)]) -> Result<(), Failed> {
    let (id, name) = (guest::USER_ID, guest::USER_NAME);
    let passwd =
        format!("{name}:x:{id}:{id}::/workspace:/bin/sh\nnobody:x:65534:65534::/nonexistent:/usr/sbin/nologin\n");
    let group = format!("{name}:x:{id}:\nnogroup:x:65534:\n");
    let files = [
        ("etc/passwd", passwd.as_str()),
        ("etc/group", group.as_str()),
        ("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n"),
    ];
    for (path, content) in files {
        file(path, content).map_err(at(path))?;
    }
    for (path, tree) in settings {
        if is_directory(tree) { directory(path) } else { file(path, "") }.map_err(at(*path))?;
        raw::mount_add(tree.as_fd(), READ_ONLY).map_err(at(*path))?;
        attach(tree.as_fd(), *path).map_err(at(*path))?;
    }
    Ok(())
}

fn place_devices(devices: [Result<OwnedFd, Errno>; 6]) -> Result<(), Failed> {
    let dev = memory(64 << 10, 64, "755", MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC)
        .map_err(at("/dev"))?;
    attach(dev.as_fd(), "dev").map_err(at("/dev"))?;
    for (name, device) in DEVICES.iter().zip(devices) {
        let path = format!("dev/{name}");
        let device = device.map_err(at(path.clone()))?;
        file(&path, "").map_err(at(path.clone()))?;
        raw::mount_add(device.as_fd(), raw::MOUNT_NO_SUID | raw::MOUNT_NO_EXEC).map_err(at(path.clone()))?;
        attach(device.as_fd(), path.as_str()).map_err(at(path))?;
    }
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ] {
        rustix::fs::symlink(target, format!("dev/{name}")).map_err(at(name))?;
    }
    for name in ["dev/pts", "dev/shm"] {
        directory(name).map_err(at(name))?;
    }
    let terminals = || -> Result<(), Errno> {
        let context = rustix::mount::fsopen("devpts", FsOpenFlags::FSOPEN_CLOEXEC)?;
        for (key, value) in [("ptmxmode", "0666"), ("mode", "0620"), ("max", "256")] {
            rustix::mount::fsconfig_set_string(context.as_fd(), key, value)?;
        }
        rustix::mount::fsconfig_set_flag(context.as_fd(), "newinstance")?;
        rustix::mount::fsconfig_create(context.as_fd())?;
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let mount = rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
        attach(mount.as_fd(), "dev/pts")
    };
    terminals().map_err(at("/dev/pts"))
}

fn place_process_list(several: bool) -> Result<(), Failed> {
    let context = rustix::mount::fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC).map_err(at("/proc"))?;
    if several {
        // PID 1 must see the processes of all users to end them.
        let group = guest::SEEING_GROUP.to_string();
        rustix::mount::fsconfig_set_string(context.as_fd(), "gid", group).map_err(at("/proc"))?;
    }
    // Kernels before 5.8 know no such option for one mount alone; PID 1 is hidden by not being dumpable in any case.
    let _ = rustix::mount::fsconfig_set_string(context.as_fd(), "hidepid", "invisible");
    rustix::mount::fsconfig_create(context.as_fd()).map_err(at("/proc"))?;
    let attributes = PLAIN | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let proc =
        rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(at("/proc"))?;
    attach(proc.as_fd(), "proc").map_err(at("/proc"))?;
    if down::is_down(Wall::Masks) {
        return Ok(());
    }
    for name in MASKED_FILES {
        let path = format!("proc/{name}");
        let null = tree(Path::new("dev/null")).map_err(at("dev/null"))?;
        mask(null.as_fd(), &path).map_err(at(path))?;
    }
    let empty = memory(0, 2, "555", PLAIN | MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NOEXEC)
        .map_err(at("masks"))?;
    directory("run/empty").map_err(at("masks"))?;
    attach(empty.as_fd(), "run/empty").map_err(at("masks"))?;
    for name in MASKED_DIRECTORIES {
        let path = format!("proc/{name}");
        let copy = tree(Path::new("run/empty")).map_err(at("masks"))?;
        mask(copy.as_fd(), &path).map_err(at(path))?;
    }
    Ok(())
}

/// Covers what is there; which of them there are depends on the kernel.
fn mask(with: BorrowedFd<'_>, path: &str) -> Result<(), Errno> {
    match attach(with, path) {
        Err(Errno::NOENT) => Ok(()),
        covered => covered,
    }
}

/// Forbids more user namespaces inside, then makes `/proc/sys` read-only. After [`build`].
pub(crate) fn close_process_settings() -> Result<(), Failed> {
    let set = |file: &str| std::fs::write(file, "0").map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO));
    if down::is_down(Wall::UserNamespaceLimit) {
        return Ok(());
    }
    set("/proc/sys/user/max_user_namespaces").map_err(at("user.max_user_namespaces"))?;
    let settings = tree(Path::new("/proc/sys")).map_err(at("/proc/sys"))?;
    raw::mount_add(settings.as_fd(), READ_ONLY | raw::MOUNT_NO_EXEC).map_err(at("/proc/sys"))?;
    rustix::mount::move_mount(&settings, "", rustix::fs::CWD, "/proc/sys", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .map_err(at("/proc/sys"))
}

fn place_writable(limits: &Limits) -> Result<(), Failed> {
    let tmp = memory(limits.tmp_bytes_max, TMP_INODES_MAX, "1777", PLAIN).map_err(at("/tmp"))?;
    attach(tmp.as_fd(), "tmp").map_err(at("/tmp"))?;
    let shm = memory(limits.tmp_bytes_max.min(SHM_BYTES_MAX), 1_024, "1777", PLAIN | MountAttrFlags::MOUNT_ATTR_NOEXEC)
        .map_err(at("/dev/shm"))?;
    attach(shm.as_fd(), "dev/shm").map_err(at("/dev/shm"))
}

fn resolved(views: &[View]) -> Result<Vec<(OwnedFd, String)>, Failed> {
    let mut trees = Vec::new();
    for view in views {
        let tree = match &view.source {
            Source::Tree(tree) => rustix::io::fcntl_dupfd_cloexec(tree, 3),
            Source::Path(path) => tree(path),
        };
        trees.push((tree.map_err(at(view.inside.clone()))?, view.inside.clone()));
    }
    Ok(trees)
}

/// Makes what is mounted on at `inside`, found from the current directory, with the directories above it.
pub(crate) fn make_place(inside: &str, is_directory: bool) -> Result<(), Errno> {
    let relative = inside.trim_start_matches('/');
    let (above, _) = relative.rsplit_once('/').unwrap_or(("", relative));
    let mut walked = String::new();
    for component in above.split('/').filter(|component| !component.is_empty()) {
        walked.push_str(component);
        directory(&walked)?;
        walked.push('/');
    }
    if is_directory { directory(relative) } else { file(relative, "") }
}

fn place_view(tree: &OwnedFd, inside: &str) -> Result<(), Errno> {
    match make_place(inside, is_directory(tree)) {
        // In a root of layers the place was made before it became read-only.
        Ok(()) | Err(Errno::ROFS) => {}
        Err(error) => return Err(error),
    }
    raw::mount_add(tree.as_fd(), READ_ONLY)?;
    attach(tree.as_fd(), inside.trim_start_matches('/'))
}

/// Makes the tree under the current directory the root, and lets go of the old one.
fn enter() -> Result<(), Errno> {
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")
}
