//! Where images of workspaces stand, so that one can be copied in a moment, however large: a checkpoint, a fork. On a data
//! directory that shares blocks between files (XFS, btrfs) they stand in the session's own directory. Elsewhere root gets a
//! pool: one sparse file that holds a btrfs (see `btrfs`), mounted by the launcher, seen by nobody but launcher and harness.
//!
//! The mount is in no namespace: it lives as long as somebody holds its descriptor or a file in it, and goes with its loop
//! device when the last one ends, however that was. The lock on the pool's file is on the very open file that the loop device
//! holds, so no second file system is ever made of it: a harness beside another one mounts the same device once more.

use crate::btrfs;
use crate::door::{Reply, Request};
use crate::harbour::{Arrived, Harbour};
use crate::quota::{Quota, Room};
use crate::snapshot::checkpoints;
use crate::workspaces::{LOCK_ATTEMPTS_MAX, LOCK_WAIT, blocking, broken, failed};
use domain::{Id, id};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use sandbox::{Error, Workspace};
use std::fs::{self, File};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::OnceCell;

/// What all workspaces and checkpoints kept here may take together, unless the provider is told otherwise.
pub(crate) const WORKSPACES_BYTES_MAX: u64 = 256 << 30;
const FILE: &str = "workspaces.btrfs";
const NEW: &str = "workspaces.btrfs.new";
const STOCK: &str = ".stock";
/// The pool's own tables beside what it holds: one part of so many, at least.
const OWN_SHARE: u64 = 16;

/// What finds the place, once.
#[derive(Debug)]
pub(crate) struct Pool {
    data: PathBuf,
    root: bool,
    bytes_max: u64,
    place: OnceCell<Arc<Place>>,
}

/// Where workspaces are kept.
#[derive(Debug)]
pub(crate) struct Place {
    /// Directories of sessions, with marks, locks, files and the images of a place that is no pool.
    sessions: PathBuf,
    /// Directories of sessions with their images.
    images: PathBuf,
    /// Whether a copy of an image shares its blocks.
    pub(crate) clones: Clones,
    quota: Quota,
    /// Keeps the pool mounted.
    mount: Option<OwnedFd>,
}

/// How an image is copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clones {
    Share,
    /// Nothing here shares blocks.
    Never,
}

/// The directories of one session.
#[derive(Clone, Debug)]
pub(crate) struct Home {
    /// With the mark, the lock, an ordinary user's files.
    pub(crate) directory: PathBuf,
    /// With the image and the checkpoints.
    pub(crate) images: PathBuf,
}

impl Home {
    /// The directories of this name below these.
    pub(crate) fn below(&self, name: impl AsRef<Path>) -> Self {
        Self { directory: self.directory.join(&name), images: self.images.join(&name) }
    }

    /// Where a checkpoint is kept.
    pub(crate) fn checkpoint(&self, checkpoint: Id<id::Checkpoint>) -> PathBuf {
        self.images.join(format!("{checkpoint}.ext4"))
    }
}

impl Place {
    fn new(data: &Path, mount: Option<OwnedFd>, clones: Clones, bytes_max: u64) -> Self {
        let sessions = data.join("workspaces");
        let images = mount.as_ref().map(|mount| PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd())));
        let quota = match &images {
            // One that was made smaller holds no more than it was made for.
            Some(images) => Quota::of_file_system(images.clone(), data.to_owned(), bytes_max.min(holds(images))),
            None => Quota::of_files(sessions.clone(), data.to_owned(), bytes_max),
        };
        Self { images: images.unwrap_or_else(|| sessions.clone()), sessions, clones, quota, mount }
    }

    /// Where workspaces are kept that are nobody's yet: no tenant has such a name.
    pub(crate) fn stock(&self) -> Home {
        Home { directory: self.sessions.join(STOCK), images: self.images.join(STOCK) }
    }

    /// How workspaces are kept here, in words.
    pub(crate) fn told(&self, root: bool) -> &'static str {
        match (root, self.clones, &self.mount) {
            (false, ..) => "memory, saved to directories",
            (true, _, Some(_)) => "ext4 images in a btrfs pool",
            (true, Clones::Share, None) => "ext4 images that share blocks",
            (true, Clones::Never, None) => "ext4 images",
        }
    }

    /// The directories of a session's workspace; `None` for one that is kept nowhere.
    pub(crate) fn home(&self, workspace: &Workspace) -> Result<Option<Home>, Error> {
        let Workspace::Session { tenant, session, .. } = workspace else { return Ok(None) };
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if tenant.is_empty() || tenant.len() > 128 || tenant.starts_with('.') || !tenant.bytes().all(plain) {
            return Err(failed("the tenant's name is no file name"));
        }
        let of = |above: &Path| above.join(tenant).join(session.to_string());
        Ok(Some(Home { directory: of(&self.sessions), images: of(&self.images) }))
    }

    /// Takes `bytes` of what all may have, for as long as what is returned lives. Checkpoints kept here only save time, so
    /// they make way for what needs room. Waits for the disk.
    pub(crate) fn admit(&self, bytes: u64) -> Result<Room, Error> {
        match self.quota.admit(bytes) {
            Err(Error::Limit { .. }) if self.clones == Clones::Share => {
                self.sweep();
                self.quota.admit(bytes)
            }
            admitted => admitted,
        }
    }

    /// Whether an image of this size could be written anew, all that it shares with a copy. Waits for the disk where it is close.
    pub(crate) fn has_room_beside(&self, image_bytes: u64) -> Result<bool, Error> {
        if self.quota.admit(image_bytes).is_ok() {
            return Ok(true);
        }
        // What was written and is not yet on the disk does not count yet.
        self.write_out();
        match self.admit(0) {
            Ok(_) => Ok(true),
            Err(Error::Limit { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Removes all checkpoints of all sessions; one that is being read stays until it was.
    fn sweep(&self) {
        let below = |path: &Path| fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
        let sessions = below(&self.images).flat_map(|tenant| below(&tenant).collect::<Vec<_>>());
        let removed = sessions.flat_map(|session| checkpoints(&session).collect::<Vec<_>>());
        let removed = removed.filter(|checkpoint| fs::remove_file(checkpoint).is_ok()).count();
        if removed > 0 {
            tracing::info!(removed, "checkpoints kept beside their workspaces made way for others");
        }
        // The room of what was removed, now or before, is free when the file system has written that it is.
        self.write_out();
    }

    fn write_out(&self) {
        let synced = File::open(&self.images).and_then(|images| Ok(rustix::fs::syncfs(&images)?));
        if let Err(error) = synced {
            tracing::debug!(%error, "the place of workspaces could not be written out");
        }
    }
}

impl Pool {
    pub(crate) fn new(data: PathBuf, root: bool) -> Self {
        Self { data, root, bytes_max: WORKSPACES_BYTES_MAX, place: OnceCell::new() }
    }

    /// Before the first workspace: bounds what all may take.
    pub(crate) fn bound(&mut self, bytes_max: u64) {
        self.bytes_max = bytes_max;
    }

    /// Where workspaces are kept; finds or makes it at first. A pool that was made and can't be had is an error, since there
    /// are workspaces in it; without one, images stand beside the marks and are not cloned.
    pub(crate) async fn place(&self, harbour: &Harbour, seed: [u8; 32]) -> Result<Arc<Place>, Error> {
        let found = self.place.get_or_try_init(|| async { self.find(harbour, seed).await.map(Arc::new) });
        found.await.map(Arc::clone)
    }

    async fn find(&self, harbour: &Harbour, seed: [u8; 32]) -> Result<Place, Error> {
        let place = |mount, clones| Place::new(&self.data, mount, clones, self.bytes_max);
        if !self.root {
            return Ok(place(None, Clones::Never));
        }
        let (pool, new) = (self.data.join(FILE), self.data.join(NEW));
        // A pool that was made once goes on being used, whatever else became possible.
        let there = pool.exists();
        if !there {
            let data = self.data.clone();
            if blocking(move || Ok(fs::create_dir_all(&data).is_ok() && shares_blocks(&data))).await? {
                return Ok(place(None, Clones::Share));
            }
        }
        if let Ok(mount) = mounted(harbour, Request::Pool, Vec::new()).await {
            name(&pool, &new)?;
            return Ok(place(Some(mount), Clones::Share));
        }
        let file = open(if there { &pool } else { &new })?;
        if let Some(mount) = of_another(harbour, &file).await? {
            return Ok(place(Some(mount), Clones::Share));
        }
        if !there && pool.exists() {
            // Made, and left again, by another process while this one waited: not to be formatted once more.
            drop(file);
            return Box::pin(self.find(harbour, seed)).await;
        }
        if !there {
            let (file, bytes) = (file.try_clone().map_err(broken(&new))?, self.bytes_max);
            let formatted = blocking(move || {
                let bytes = (bytes + bytes / OWN_SHARE).max(btrfs::BYTES_MIN);
                file.set_len(0).and_then(|()| btrfs::format(&file, bytes, seed)).map_err(broken(&new))
            });
            formatted.await?;
        }
        match mounted(harbour, Request::Pool, vec![file.into()]).await {
            Ok(mount) => {
                name(&pool, &self.data.join(NEW))?;
                Ok(place(Some(mount), Clones::Share))
            }
            Err(detail) if there => Err(failed(format!("{}: {detail}", pool.display()))),
            Err(detail) => {
                tracing::debug!(
                    detail,
                    "no pool of workspaces here; checkpoints are copied out while programs stand still"
                );
                // What can't be removed is written over by the next attempt.
                let _ = fs::remove_file(self.data.join(NEW));
                Ok(place(None, Clones::Never))
            }
        }
    }
}

/// Gives a pool that was mounted its name, when it has none yet: one that can't be mounted never gets it.
fn name(pool: &Path, new: &Path) -> Result<(), Error> {
    if pool.exists() { Ok(()) } else { fs::rename(new, pool).map_err(broken(pool)) }
}

fn open(path: &Path) -> Result<File, Error> {
    use std::os::unix::fs::OpenOptionsExt as _;
    if let Some(above) = path.parent() {
        fs::create_dir_all(above).map_err(broken(above))?;
    }
    File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(path).map_err(broken(path))
}

/// Waits for the lock on the pool's file, or gives the mount of the launcher that has it: of a harness beside this one, as a
/// command of the program is beside the service. What each of them has promised to its sandboxes the other does not know.
async fn of_another(harbour: &Harbour, file: &File) -> Result<Option<OwnedFd>, Error> {
    let mut refused = None;
    for _ in 0..LOCK_ATTEMPTS_MAX {
        match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(None),
            Err(Errno::WOULDBLOCK | Errno::INTR) => {}
            Err(error) => return Err(failed(format!("locking the pool of workspaces: {error}"))),
        }
        // It has the lock before the mount, and the mount a little longer than the lock.
        let shared = file.try_clone().map_err(|error| failed(error.to_string()))?;
        match mounted(harbour, Request::PoolAgain, vec![shared.into()]).await {
            Ok(mount) => return Ok(Some(mount)),
            Err(detail) => refused = Some(detail),
        }
        tokio::time::sleep(LOCK_WAIT).await;
    }
    Err(failed(format!("another process has the pool of workspaces: {}", refused.unwrap_or_default())))
}

/// The mount of the pool, whose file goes along, but for one that the launcher has already.
async fn mounted(harbour: &Harbour, request: Request, file: Vec<OwnedFd>) -> Result<OwnedFd, String> {
    match harbour.ask(request, file).await {
        Ok(Arrived::Mounted { mount }) => Ok(mount),
        Ok(Arrived::Other(Reply::Failed(failure))) => Err(Error::from(failure).to_string()),
        Ok(_) => Err("the launcher answered something else".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// What a pool holds beside its own tables.
fn holds(images: &Path) -> u64 {
    let found = rustix::fs::statvfs(images).map_or(0, |found| found.f_blocks.saturating_mul(found.f_frsize));
    found / (OWN_SHARE + 1) * OWN_SHARE
}

/// Whether files of this directory can share blocks. Tried with two that have no name.
fn shares_blocks(directory: &Path) -> bool {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = || rustix::fs::open(directory, flags, Mode::from_raw_mode(0o600));
    let (Ok(from), Ok(to)) = (file(), file()) else { return false };
    rustix::io::write(&from, &[1; 4_096]).is_ok() && rustix::fs::ioctl_ficlone(&to, &from).is_ok()
}
