//! A root of layers: directories over each other, the topmost winning, read-only; over them what every sandbox needs, and for
//! a few places a small writable layer in memory. Mounted inside the sandbox's own namespaces, so that nothing in a layer, such
//! as an attribute meant for the kernel, has more power than the sandbox itself.

use crate::grant::Part;
use crate::ids::{self, Extent};
use crate::names::Names;
use crate::privileges;
use crate::raw::{self, Cloned};
use crate::root::{self, Failed, PLAIN, READ_ONLY, at, attach, directory, file, memory};
use ::image::Owners;
use guest::Accounts;
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags};
use sandbox::Limits;
use serde::{Deserialize, Serialize};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes of what is laid over the layers: directories to mount on, a few small files.
const SCAFFOLD_BYTES_MAX: u64 = 8 << 20;
const SCAFFOLD_INODES_MAX: u64 = 4_096;
/// What `/run` may hold.
const RUN_BYTES_MAX: u64 = 16 << 20;
/// Directories that every root has, to mount on.
const PLACES: [&str; 8] = ["dev", "etc", "proc", "run", "tmp", "var", "home", "root"];
/// Where programs expect to write, beside `/tmp`, `/run` and the workspace.
pub(crate) const WRITABLE: [&str; 3] = ["var", "home", "root"];
/// Inodes of what is written there.
const WRITTEN_INODES_MAX: u64 = 100_000;
/// Who owns layers on the host: one below the ids that sandboxes run as, nobody anywhere.
pub(crate) const OWNER_ID: u32 = 0x0fff_ffff;

/// Whose files of layers with several owners are on the host: so many ids from this one on, nobody's anywhere either.
pub(crate) const OWNERS_FIRST: u32 = OWNER_ID - ids::RANGE_IDS;

/// Who everything inside runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) user: u32,
    pub(crate) group: u32,
}

impl Default for Identity {
    fn default() -> Self {
        Self { user: guest::USER_ID, group: guest::USER_ID }
    }
}

/// A root as the harness asks for it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Wanted {
    pub(crate) base: Base,
    pub(crate) identity: Identity,
    /// Small files that stand over the layers: their paths inside and contents.
    pub(crate) files: Vec<(String, String)>,
    /// Who there is inside, where there is more than one user.
    #[serde(default)]
    pub(crate) accounts: Option<Accounts>,
    /// Whose the files of owned layers are.
    #[serde(default)]
    pub(crate) owners: Owners,
    /// The part of an ordinary user's ids that it has, where it has users.
    #[serde(default)]
    pub(crate) lent: Option<Part>,
    /// Descriptors that come first beside the message.
    pub(crate) descriptors: usize,
    /// The open directories of the layers, in their order; last, for a root that is being made, the one to write to.
    #[serde(skip)]
    pub(crate) opened: Arc<Vec<OwnedFd>>,
    /// The lock on that part, which comes after them.
    #[serde(skip)]
    pub(crate) lock: Option<Arc<OwnedFd>>,
}

/// What a root is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Base {
    /// The host's own tools: these directories of it.
    Host { directories: Vec<PathBuf> },
    /// Layers, the topmost first.
    Layers {
        paths: Vec<PathBuf>,
        /// Whether they belong to [`OWNER_ID`] and are shown as the guest's own.
        owned: bool,
        /// Where everything that is written is kept, when the root is being made: a directory with `tree` and `work`.
        upper: Option<PathBuf>,
    },
}

impl Default for Base {
    fn default() -> Self {
        Self::Host { directories: root::directories() }
    }
}

/// A root that a first process can build.
#[derive(Debug, Default)]
pub(crate) struct Stand {
    pub(crate) wanted: Wanted,
    /// As root, detached mounts of the layers (and of what is written to), which only the launcher can make.
    mounts: Vec<OwnedFd>,
    /// The open directories of cached layers, whose locks last as long as the first process.
    held: Vec<OwnedFd>,
}

/// A [`Stand`] without its descriptors.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    wanted: Wanted,
    mounts: usize,
    held: usize,
}

impl Wanted {
    /// Who commands run as that do not say it, and whose the workspace is.
    pub(crate) fn main(&self) -> Identity {
        let main = self.accounts.as_ref().map(|accounts| &accounts.main);
        main.map_or(self.identity, |main| Identity { user: main.user, group: main.group })
    }

    /// Takes its descriptors from those that came with the message.
    pub(crate) fn take(&mut self, fds: &mut Vec<OwnedFd>) {
        let count = self.descriptors.min(fds.len());
        self.opened = Arc::new(fds.drain(..count).collect());
        if self.lent.is_some() && !fds.is_empty() {
            self.lock = Some(Arc::new(fds.remove(0)));
        }
    }
}

impl Stand {
    /// What the launcher prepares, for a sandbox whose files belong to host user `uid` and group `gid`.
    pub(crate) fn prepare(wanted: &Wanted, root: bool, (uid, gid): (u32, u32)) -> Result<Self, Failed> {
        let mut stand = Self { wanted: wanted.clone(), mounts: Vec::new(), held: Vec::new() };
        stand.wanted.opened = Arc::default();
        if let Some(lock) = stand.wanted.lock.take() {
            // It is held as long as the first process lives.
            stand.held.push(rustix::io::fcntl_dupfd_cloexec(&lock, 3).map_err(at("the lock on its ids"))?);
        }
        let Base::Layers { paths, owned, upper } = &wanted.base else { return Ok(stand) };
        let count = paths.len() + usize::from(upper.is_some());
        if wanted.opened.len() != count {
            return Err(at("the root's layers")(Errno::BADMSG));
        }
        if *owned {
            let copies = wanted.opened.iter().map(|opened| rustix::io::fcntl_dupfd_cloexec(opened, 3));
            stand.held.extend(copies.collect::<Result<Vec<_>, _>>().map_err(at("the root's layers"))?);
        }
        if !root {
            return Ok(stand);
        }
        let mapping = if *owned {
            let shift = |to| match wanted.owners {
                Owners::One => [Extent::one(OWNER_ID, to)],
                Owners::Several => [Extent { from: OWNERS_FIRST, to, count: ids::RANGE_IDS }],
            };
            let identity = [shift(uid), shift(gid)];
            Some(mapping(identity.each_ref().map(<[_; 1]>::as_slice)).map_err(at("the layers' owner"))?)
        } else {
            None
        };
        for (index, opened) in wanted.opened.iter().enumerate() {
            let mount = root::opened_tree(opened.as_fd()).map_err(at("a layer"))?;
            if let Some(mapping) = &mapping {
                raw::mount_idmap(mount.as_fd(), mapping.as_fd()).map_err(at("giving a layer to the guest's user"))?;
            }
            let plain = raw::MOUNT_NO_SUID | raw::MOUNT_NO_DEV;
            raw::mount_add(mount.as_fd(), if index < paths.len() { READ_ONLY } else { plain })
                .map_err(at("a layer"))?;
            stand.mounts.push(mount);
        }
        Ok(stand)
    }

    /// What goes over a socket, with its descriptors.
    pub(crate) fn order(&self) -> (Order, impl Iterator<Item = &OwnedFd>) {
        let order = Order { wanted: self.wanted.clone(), mounts: self.mounts.len(), held: self.held.len() };
        (order, self.mounts.iter().chain(&self.held))
    }

    /// The other end of [`Stand::order`].
    pub(crate) fn unpack(order: Order, fds: &mut impl Iterator<Item = OwnedFd>) -> Option<Self> {
        let mut next = |count: usize| -> Option<Vec<OwnedFd>> {
            let taken: Vec<OwnedFd> = fds.by_ref().take(count).collect();
            (taken.len() == count).then_some(taken)
        };
        Some(Self { wanted: order.wanted, mounts: next(order.mounts)?, held: next(order.held)? })
    }

    /// Lets go of what only building needs, and gives what must stay open while the root is used.
    pub(crate) fn stood(self) -> Vec<OwnedFd> {
        self.held
    }

    /// Where programs may write, beside what every sandbox has.
    pub(crate) fn writable(&self) -> &'static [&'static str] {
        match &self.wanted.base {
            Base::Host { .. } if self.wanted.accounts.is_some() => &["/home"],
            Base::Host { .. } => &[],
            Base::Layers { upper: None, .. } => &["/var", "/home", "/root", "/run"],
            Base::Layers { upper: Some(_), .. } => &["/"],
        }
    }

    /// Whether `/` itself is written to.
    pub(crate) fn is_being_made(&self) -> bool {
        matches!(&self.wanted.base, Base::Layers { upper: Some(_), .. })
    }

    /// Mounts the layers as the root to be, makes it the current directory, and prepares all places that are mounted on later.
    /// `views` are paths inside that something will be shown at, each with whether it is a directory.
    pub(crate) fn build(&self, limits: &Limits, views: &[(String, bool)], names: &Names) -> Result<(), Failed> {
        let Base::Layers { paths, upper, .. } = &self.wanted.base else { return Ok(()) };
        let layers = self.layers(paths, upper.as_deref())?;
        let scaffold = memory(SCAFFOLD_BYTES_MAX, SCAFFOLD_INODES_MAX, "755", PLAIN).map_err(at("the scaffold"))?;
        // Any directory serves as the place where the new root is built; the old root goes away as a whole.
        rustix::mount::move_mount(&scaffold, "", rustix::fs::CWD, "/usr", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .map_err(at("the scaffold"))?;
        rustix::process::fchdir(&scaffold).map_err(at("the scaffold"))?;
        for name in ["skeleton", "empty", "upper", "made", "root"] {
            directory(name).map_err(at("the scaffold"))?;
        }
        self.lay_skeleton(views, names)?;
        rustix::process::fchdir(&scaffold).map_err(at("the scaffold"))?;
        let mut lowers = vec!["skeleton".to_owned()];
        for (index, layer) in layers.iter().take(paths.len()).enumerate() {
            let place = format!("l{index}");
            directory(&place).map_err(at("a layer"))?;
            attach(layer.as_fd(), place.as_str()).map_err(at("a layer"))?;
            lowers.push(place);
        }
        // One directory alone is no overlay, and in an overlay a whiteout is never seen.
        lowers.push("empty".to_owned());
        match layers.get(paths.len()) {
            Some(made) => {
                attach(made.as_fd(), "made").map_err(at("what is written"))?;
                let whole =
                    overlay(&lowers, Some(("made/tree", "made/work")), PLAIN).map_err(at("the root's layers"))?;
                attach(whole.as_fd(), "root").map_err(at("the root's layers"))?;
            }
            None => place_layers(limits, &lowers)?,
        }
        rustix::process::chdir("root").map_err(at("the root's layers"))?;
        let run = memory(RUN_BYTES_MAX, 1_024, "755", PLAIN).map_err(at("/run"))?;
        attach(run.as_fd(), "run").map_err(at("/run"))
    }

    /// Finds the layers while this process still is who may.
    pub(crate) fn look_up(&mut self) -> Result<(), Failed> {
        if let Base::Layers { paths, upper, .. } = &self.wanted.base {
            self.mounts = self.layers(paths, upper.as_deref())?;
        }
        Ok(())
    }

    /// The layers as mounts, then what is written to, if anything is.
    fn layers(&self, paths: &[PathBuf], upper: Option<&Path>) -> Result<Vec<OwnedFd>, Failed> {
        let mut mounts = Vec::new();
        for (index, path) in paths.iter().map(PathBuf::as_path).chain(upper).enumerate() {
            let mount = match self.mounts.get(index) {
                Some(mount) => rustix::io::fcntl_dupfd_cloexec(mount, 3).map_err(at("a layer"))?,
                // As an ordinary user: looked up with that user's rights.
                None => {
                    let mount = root::tree(path).map_err(at(path.display().to_string()))?;
                    let plain = raw::MOUNT_NO_SUID | raw::MOUNT_NO_DEV;
                    let attributes = if index < paths.len() { READ_ONLY } else { plain };
                    raw::mount_add(mount.as_fd(), attributes).map_err(at("making a layer read-only"))?;
                    mount
                }
            };
            mounts.push(mount);
        }
        Ok(mounts)
    }

    /// What stands over all layers, whatever they have there: no link of a layer leads a mount astray.
    fn lay_skeleton(&self, views: &[(String, bool)], names: &Names) -> Result<(), Failed> {
        rustix::process::chdir("skeleton").map_err(at("the scaffold"))?;
        for name in PLACES.into_iter().chain(["workspace"]) {
            directory(name).map_err(at(name))?;
        }
        rustix::fs::symlink("../tmp", "var/tmp").map_err(at("/var/tmp"))?;
        if let Base::Layers { owned: false, .. } = &self.wanted.base {
            // What only the directory's own root may look into, overlayfs may not either: nothing of it is looked for.
            rustix::fs::setxattr("root", "user.overlay.opaque", b"y", rustix::fs::XattrFlags::empty())
                .map_err(at("/root"))?;
        }
        for (path, content) in &self.wanted.files {
            file(path, content).map_err(at(path.clone()))?;
        }
        names.place()?;
        for (inside, is_directory) in views {
            root::make_place(inside, *is_directory).map_err(at(inside.clone()))?;
        }
        Ok(())
    }
}

/// A user namespace that only translates: users and groups, each from what stands on disk to who it is shown as.
pub(crate) fn mapping([users, groups]: [&[Extent]; 2]) -> Result<OwnedFd, Errno> {
    let waits = || {
        if privileges::die_with_parent().is_err() {
            return 1;
        }
        loop {
            rustix::event::pause();
        }
    };
    let pid = match raw::clone_child(u64::from(libc::CLONE_NEWUSER.unsigned_abs()))? {
        Cloned::Child => raw::in_child(waits),
        Cloned::Parent(pid) => pid,
    };
    let opened = || -> std::io::Result<OwnedFd> {
        std::fs::write(format!("/proc/{pid}/uid_map"), ids::lines(users))?;
        std::fs::write(format!("/proc/{pid}/gid_map"), ids::lines(groups))?;
        Ok(std::fs::File::open(format!("/proc/{pid}/ns/user"))?.into())
    };
    let opened = opened().map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO));
    guest::sys::kill(pid);
    raw::reap(pid);
    opened
}

/// The layers read-only at `root`, and over them the places where programs may write.
fn place_layers(limits: &Limits, lowers: &[String]) -> Result<(), Failed> {
    let layers = at("the root's layers");
    let whole = overlay(lowers, None, PLAIN | MountAttrFlags::MOUNT_ATTR_RDONLY).map_err(layers)?;
    attach(whole.as_fd(), "root").map_err(at("the root's layers"))?;
    let written = memory(limits.tmp_bytes_max, WRITTEN_INODES_MAX, "755", PLAIN).map_err(at("what is written"))?;
    attach(written.as_fd(), "upper").map_err(at("what is written"))?;
    for name in ["upper/tree", "upper/work", "upper/shown"] {
        directory(name).map_err(at("what is written"))?;
    }
    let shown = overlay(lowers, Some(("upper/tree", "upper/work")), PLAIN).map_err(at("what is written"))?;
    attach(shown.as_fd(), "upper/shown").map_err(at("what is written"))?;
    for name in WRITABLE {
        let part = root::tree(Path::new("upper/shown").join(name).as_path()).map_err(at(name))?;
        attach(part.as_fd(), format!("root/{name}")).map_err(at(name))?;
    }
    Ok(())
}

/// An overlay of directories that are found from the current one, the topmost first.
fn overlay(lowers: &[String], upper: Option<(&str, &str)>, attributes: MountAttrFlags) -> Result<OwnedFd, Errno> {
    let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    // What a layer tells the kernel stands in attributes that anybody may set, and is believed no further than that.
    rustix::mount::fsconfig_set_flag(context.as_fd(), "userxattr")?;
    let one_by_one =
        lowers.iter().try_for_each(|lower| rustix::mount::fsconfig_set_string(context.as_fd(), "lowerdir+", lower));
    match one_by_one {
        // Kernels before 6.8 take them all at once.
        Err(Errno::INVAL) => rustix::mount::fsconfig_set_string(context.as_fd(), "lowerdir", lowers.join(":"))?,
        laid => laid?,
    }
    if let Some((upper, work)) = upper {
        rustix::mount::fsconfig_set_string(context.as_fd(), "upperdir", upper)?;
        rustix::mount::fsconfig_set_string(context.as_fd(), "workdir", work)?;
    }
    rustix::mount::fsconfig_create(context.as_fd())?;
    rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}
