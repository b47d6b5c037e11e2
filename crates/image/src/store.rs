//! Unpacked layers, kept and shared: `layers/<key>/` holds `tree` and `meta.json`. A layer comes in by one rename, so what a
//! crash leaves is in `staging` and goes at the next start. Whoever uses a layer holds a shared lock on its open `tree`; the
//! descriptor may be handed on, and as long as any copy of it is open the layer stays. What was not used for longest goes first.

use crate::Error;
use domain::Digest;
use rustix::fs::{AtFlags, FlockOperation, Gid, Mode, OFlags, Timestamps, Uid};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

const LAYERS: &str = "layers";
const STAGING: &str = "staging";
const TRASH: &str = "trash";
const TREE: &str = "tree";
const META: &str = "meta.json";
/// Where overlayfs prepares what it writes.
const WORK: &str = "work";
/// What an entry takes beside its bytes, about.
const ENTRY_BYTES: u64 = 1 << 10;
/// Layers that are kept at most.
const LAYERS_MAX: usize = 10_000;
/// How often a layer is opened again that went meanwhile.
const HOLD_ATTEMPTS_MAX: usize = 16;

/// The name of what is kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

impl Key {
    /// Of a layer of an image.
    pub fn layer(diff_id: Digest) -> Self {
        Self(format!("sha256-{diff_id}"))
    }

    /// Of a layer of an image whose files have the owners that it names.
    pub fn owned(diff_id: Digest) -> Self {
        Self(format!("owned-{diff_id}"))
    }

    /// Of what was made by the steps of a template.
    pub fn template(digest: Digest) -> Self {
        Self(format!("template-{digest}"))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is known of a kept layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// Bytes of its files, about.
    pub bytes: u64,
    /// Files, directories and links.
    pub entries: u64,
    /// Whether nothing under it is to be seen at all.
    pub opaque: bool,
}

/// A layer that stays while this, or any copy of its descriptor, is open.
#[derive(Debug)]
pub struct Held {
    /// What is known of it.
    pub meta: Meta,
    tree: OwnedFd,
}

impl Held {
    /// Its open top directory, which carries the lock.
    pub fn into_tree(self) -> OwnedFd {
        self.tree
    }
}

impl AsFd for Held {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tree.as_fd()
    }
}

/// A directory in which a layer is being made. Dropped, it and all in it goes.
#[derive(Debug)]
pub struct Stage {
    directory: PathBuf,
    trash: PathBuf,
    tree: Option<OwnedFd>,
}

impl Stage {
    /// The empty directory that the layer is made in.
    ///
    /// # Errors
    /// [`Error::Cache`] without descriptors.
    pub fn tree(&self) -> Result<OwnedFd, Error> {
        let tree = self.tree.as_ref().ok_or_else(|| cache(&self.directory, "it was kept already"))?;
        rustix::io::fcntl_dupfd_cloexec(tree, 3).map_err(|errno| cache(&self.directory, errno))
    }

    /// Gives the empty directory to another owner than the cache's.
    ///
    /// # Errors
    /// [`Error::Cache`] when it can't be given away.
    pub fn give(&self, owner: (u32, u32)) -> Result<(), Error> {
        let tree = self.directory.join(TREE);
        own(&tree, owner).map_err(|errno| cache(&tree, errno))
    }

    /// For a layer that a sandbox writes through an overlay: the directory that holds `tree` and `work`, all of the layers'
    /// owner, with its path.
    ///
    /// # Errors
    /// [`Error::Cache`] when it can't be made.
    pub fn upper(&self) -> Result<(PathBuf, OwnedFd), Error> {
        let owner = fs::metadata(self.directory.join(TREE)).map_err(|error| cache(&self.directory, error))?;
        let work = self.directory.join(WORK);
        make(&work, 0o755).map_err(|error| cache(&work, error))?;
        for path in [&work, &self.directory] {
            own(path, (owner.uid(), owner.gid())).map_err(|errno| cache(path, errno))?;
        }
        let opened = open(&self.directory).map_err(|errno| cache(&self.directory, errno))?;
        Ok((self.directory.clone(), opened))
    }

    /// Ends what [`Stage::upper`] began, once nobody writes any more; gives what was written.
    ///
    /// # Errors
    /// [`Error::Cache`] when it can't be taken back.
    pub fn sealed(&self) -> Result<(PathBuf, OwnedFd), Error> {
        let ours = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        own(&self.directory, ours).map_err(|errno| cache(&self.directory, errno))?;
        clear(&self.directory.join(WORK));
        Ok((self.directory.join(TREE), self.tree()?))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if self.tree.take().is_some() {
            discard(&self.directory, &self.trash);
        }
    }
}

/// The cache.
#[derive(Debug)]
pub struct Store {
    directory: PathBuf,
    bytes_max: u64,
    owner: Option<(u32, u32)>,
    next: AtomicU64,
}

fn cache(path: &Path, error: impl fmt::Display) -> Error {
    Error::Cache { detail: format!("{}: {error}", path.display()) }
}

fn make(path: &Path, mode: u32) -> io::Result<()> {
    match fs::DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

fn own(path: &Path, owner: (u32, u32)) -> Result<(), Errno> {
    let (user, group) = (Uid::from_raw(owner.0), Gid::from_raw(owner.1));
    rustix::fs::chownat(rustix::fs::CWD, path, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)
}

fn open(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
}

impl Store {
    /// The cache in `directory`, which is made when it is missing, for its owner alone. At most `bytes_max` are kept, beyond
    /// what is in use. Layers are given to `owner`, a user and group, when one is named; only root can do so. What a crash left
    /// half made goes now.
    ///
    /// # Errors
    /// [`Error::Cache`] when the directory can't be made or others may enter it.
    pub fn open(directory: PathBuf, bytes_max: u64, owner: Option<(u32, u32)>) -> Result<Self, Error> {
        make(&directory, 0o700).map_err(|error| cache(&directory, error))?;
        // Files of images may be anything: nobody else on the host may ever reach them.
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o700)).map_err(|error| cache(&directory, error))?;
        for name in [LAYERS, STAGING, TRASH] {
            let path = directory.join(name);
            make(&path, 0o700).map_err(|error| cache(&path, error))?;
        }
        let store = Self { directory, bytes_max, owner, next: AtomicU64::new(0) };
        store.sweep();
        Ok(store)
    }

    /// Removes what nobody makes any more.
    fn sweep(&self) {
        let trash = self.directory.join(TRASH);
        for left in listed(&self.directory.join(STAGING)) {
            // Who makes a layer holds it locked.
            let free =
                open(&left.join(TREE)).map(|tree| rustix::fs::flock(&tree, FlockOperation::NonBlockingLockExclusive));
            if !matches!(free, Ok(Err(Errno::WOULDBLOCK))) {
                discard(&left, &trash);
            }
        }
        listed(&trash).iter().for_each(|left| clear(left));
    }

    /// Where the files of a layer are, while it is held.
    pub fn tree(&self, key: &Key) -> PathBuf {
        self.place(key).join(TREE)
    }

    fn place(&self, key: &Key) -> PathBuf {
        self.directory.join(LAYERS).join(&key.0)
    }

    /// A layer that is kept, to be used; `None` when it is not there.
    ///
    /// # Errors
    /// [`Error::Cache`] when it is there and can't be opened.
    pub fn hold(&self, key: &Key) -> Result<Option<Held>, Error> {
        let place = self.place(key);
        for _ in 0..HOLD_ATTEMPTS_MAX {
            let tree = match open(&place.join(TREE)) {
                Ok(tree) => tree,
                Err(Errno::NOENT) => return Ok(None),
                Err(errno) => return Err(cache(&place, errno)),
            };
            match rustix::fs::flock(&tree, FlockOperation::NonBlockingLockShared) {
                Ok(()) => {}
                // It is on its way out.
                Err(Errno::WOULDBLOCK) => continue,
                Err(errno) => return Err(cache(&place, errno)),
            }
            // It may have gone between the two.
            if !is_still(&tree, &place.join(TREE)) {
                continue;
            }
            let Ok(text) = fs::read(place.join(META)) else { continue };
            let meta = serde_json::from_slice(&text).map_err(|error| cache(&place.join(META), error))?;
            let now = rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
            let now = Timestamps { last_access: now, last_modification: now };
            // Only the order of going depends on it.
            let _ = rustix::fs::utimensat(rustix::fs::CWD, place.join(META), &now, AtFlags::empty());
            return Ok(Some(Held { meta, tree }));
        }
        Ok(None)
    }

    /// A place to make a layer in.
    ///
    /// # Errors
    /// [`Error::Cache`] when none can be made.
    pub fn stage(&self) -> Result<Stage, Error> {
        let directory = loop {
            let name = format!("{}-{}", std::process::id(), self.next.fetch_add(1, Ordering::Relaxed));
            let path = self.directory.join(STAGING).join(name);
            match fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => break path,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(cache(&path, error)),
            }
        };
        let mut stage = Stage { directory, trash: self.directory.join(TRASH), tree: None };
        let path = stage.directory.join(TREE);
        let made = make(&path, 0o755).map_err(|error| cache(&path, error)).and_then(|()| {
            if let Some(owner) = self.owner {
                own(&path, owner).map_err(|errno| cache(&path, errno))?;
            }
            let tree = open(&path).map_err(|errno| cache(&path, errno))?;
            rustix::fs::fchmod(&tree, Mode::from_raw_mode(0o755)).map_err(|errno| cache(&path, errno))?;
            rustix::fs::flock(&tree, FlockOperation::NonBlockingLockExclusive).map_err(|errno| cache(&path, errno))?;
            Ok(tree)
        });
        match made {
            Ok(tree) => {
                stage.tree = Some(tree);
                Ok(stage)
            }
            Err(error) => {
                clear(&stage.directory);
                Err(error)
            }
        }
    }

    /// Keeps what was made, whole or not at all; when another was quicker with the same key, that one. Then what was not used
    /// for longest goes, as far as there is too much.
    ///
    /// # Errors
    /// [`Error::Cache`] when it can't be kept.
    pub fn keep(&self, mut stage: Stage, key: &Key, meta: Meta) -> Result<Held, Error> {
        let place = self.place(key);
        let staged = stage.directory.join(META);
        let text = serde_json::to_vec(&meta).map_err(|error| cache(&staged, error))?;
        let written = fs::File::create(&staged).and_then(|mut file| {
            io::Write::write_all(&mut file, &text)?;
            file.sync_all()
        });
        written.map_err(|error| cache(&staged, error))?;
        let sync = |path: &Path| fs::File::open(path).and_then(|directory| directory.sync_all());
        sync(&stage.directory).map_err(|error| cache(&stage.directory, error))?;
        let Some(tree) = stage.tree.take() else { return Err(cache(&stage.directory, "it was kept already")) };
        match fs::rename(&stage.directory, &place) {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists) => {
                stage.tree = Some(tree);
                drop(stage);
                return self.hold(key)?.ok_or_else(|| cache(&place, "it comes and goes"));
            }
            Err(error) => {
                stage.tree = Some(tree);
                return Err(cache(&place, error));
            }
        }
        rustix::fs::flock(&tree, FlockOperation::NonBlockingLockShared).map_err(|errno| cache(&place, errno))?;
        sync(&self.directory.join(LAYERS)).map_err(|error| cache(&place, error))?;
        self.trim();
        Ok(Held { meta, tree })
    }

    /// Bytes of all that is kept, about.
    pub fn bytes(&self) -> u64 {
        self.kept().iter().map(|kept| kept.bytes).sum()
    }

    fn kept(&self) -> Vec<Kept> {
        let read = |place: PathBuf| {
            let file = place.join(META);
            let used = fs::metadata(&file).and_then(|metadata| metadata.modified()).ok()?;
            let meta: Meta = serde_json::from_slice(&fs::read(&file).ok()?).ok()?;
            Some(Kept { used, bytes: meta.bytes.saturating_add(meta.entries.saturating_mul(ENTRY_BYTES)), place })
        };
        let mut kept: Vec<Kept> = listed(&self.directory.join(LAYERS)).into_iter().filter_map(read).collect();
        kept.sort_by_key(|kept| kept.used);
        kept
    }

    /// Lets go of what was not used for longest until there is room; never of what is in use.
    fn trim(&self) {
        let kept = self.kept();
        let mut bytes: u64 = kept.iter().map(|kept| kept.bytes).sum();
        let mut count = kept.len();
        for kept in kept {
            if bytes <= self.bytes_max && count <= LAYERS_MAX {
                return;
            }
            let Ok(tree) = open(&kept.place.join(TREE)) else { continue };
            if rustix::fs::flock(&tree, FlockOperation::NonBlockingLockExclusive).is_ok() {
                discard(&kept.place, &self.directory.join(TRASH));
                bytes = bytes.saturating_sub(kept.bytes);
                count -= 1;
            }
        }
    }
}

struct Kept {
    used: std::time::SystemTime,
    bytes: u64,
    place: PathBuf,
}

fn is_still(tree: &OwnedFd, path: &Path) -> bool {
    let (Ok(held), Ok(there)) = (rustix::fs::fstat(tree), fs::metadata(path)) else { return false };
    (held.st_dev, held.st_ino) == (there.dev(), there.ino())
}

fn listed(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// Takes a directory out of sight in one step, then removes it. What can't be removed now goes at the next start.
fn discard(directory: &Path, trash: &Path) {
    let Some(name) = directory.file_name() else { return };
    let gone = trash.join(name);
    // Something of the same name may not have gone yet.
    clear(&gone);
    if fs::rename(directory, &gone).is_ok() {
        clear(&gone);
    }
}

/// Removes a directory with all below it, also where its owner may not look.
fn clear(directory: &Path) {
    if fs::remove_dir_all(directory).is_ok() {
        return;
    }
    open_up(directory);
    let _ = fs::remove_dir_all(directory);
}

fn open_up(directory: &Path) {
    let is_directory = fs::symlink_metadata(directory).is_ok_and(|metadata| metadata.is_dir());
    if !is_directory || fs::set_permissions(directory, fs::Permissions::from_mode(0o700)).is_err() {
        return;
    }
    listed(directory).iter().for_each(|below| open_up(below));
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
