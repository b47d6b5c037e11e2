//! The workspace of one session: a directory with its mark and, for an ordinary user, its files; and a directory with its
//! image and the images of its checkpoints, which may be the same one (see `pool`). Makes, locks, finds and removes them;
//! what is in them nobody here looks at.

use crate::blank::{Blank, Image, Opened, Settled};
use crate::door::Keep;
use crate::ext4;
use crate::mark::Mark;
use crate::owners::Owners;
use crate::pool::{Home, Place};
use crate::quota::Room;
use crate::snapshot;
use rustix::fs::FlockOperation;
use sandbox::{Error, Limits, RelPath, Start, Workspace};
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{RwLock, Semaphore};

/// The file of a workspace's image.
pub(crate) const IMAGE: &str = "image.ext4";
const NEW: &str = "image.new";
const FILES: &str = "files";
/// How often a directory is entered again that somebody removed meanwhile.
const ENTER_ATTEMPTS_MAX: u32 = 100;
/// How long a start waits for an earlier sandbox of the same workspace to be gone.
pub(crate) const LOCK_ATTEMPTS_MAX: u32 = 8_000;
pub(crate) const LOCK_WAIT: Duration = Duration::from_millis(5);

/// Held while a workspace's directory is made and opened, by the thread that does it: a start that was given up meanwhile goes on
/// there, and whoever removes the workspace waits for it.
static ENTERING: RwLock<()> = RwLock::const_new(());

/// A workspace that is ready to be shown, and locked.
#[derive(Debug)]
pub(crate) struct Claimed {
    pub(crate) keep: Keep,
    /// The image or directory; its open description carries the lock.
    pub(crate) descriptor: Option<OwnedFd>,
    /// What makes it whole, when it is not yet.
    pub(crate) unfinished: Option<Unfinished>,
    /// What must end before the workspace is used.
    pub(crate) marking: Option<Marking>,
    /// Its part of what all workspaces may take, while it is open.
    pub(crate) room: Option<Room>,
    /// What a fork's image holds and is no part of the checkpoint: to be removed inside before anything else happens there.
    pub(crate) left_out: Vec<RelPath>,
}

/// A layer that counts as lost until its files are there. Holds the layer's lock, so that nobody else has it meanwhile.
#[derive(Debug)]
pub(crate) struct Unfinished {
    directory: PathBuf,
    mark: Mark,
    _lock: OwnedFd,
}

impl Unfinished {
    /// Marks the layer as whole.
    pub(crate) async fn finish(self) -> Result<(), Error> {
        blocking(move || {
            let mark = Mark { whole: true, ..self.mark };
            mark.write(&self.directory).map_err(broken(&self.directory))
        })
        .await
    }
}

/// What a new layer is made with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Making {
    pub(crate) limits: Limits,
    /// Whether it is an image.
    pub(crate) root: bool,
    /// Of the image's identity.
    pub(crate) seed: [u8; 32],
}

pub(crate) fn failed(detail: impl Into<String>) -> Error {
    Error::Start { stage: "workspace", detail: detail.into() }
}

pub(crate) fn broken(path: &Path) -> impl Fn(io::Error) -> Error {
    move |error| failed(format!("{}: {error}", path.display()))
}

/// Where a claim stands with its mark.
enum Marked {
    Already,
    /// There is nothing that it would replace.
    First,
    /// It goes over an older one, whose files stay.
    Over,
}

/// How a mark is put down.
type WriteMark = fn(&Mark, &Path) -> io::Result<()>;

/// Makes or opens a workspace, locks it, and marks it as `epoch`'s.
pub(crate) async fn claim(
    place: &Arc<Place>,
    workspace: &Workspace,
    epoch: u64,
    making: Making,
    stocked: Option<Stocked>,
    owners: &Owners,
) -> Result<Claimed, Error> {
    let (Some(home), Workspace::Session { start, .. }) = (place.home(workspace)?, workspace) else {
        return Ok(Claimed::nowhere());
    };
    let start = *start;
    let mut image = None;
    if let Some(stocked) = stocked {
        match quickly(place, &home, start, epoch, making, stocked).await? {
            Quick::Done(claimed) => return Ok(*claimed),
            Quick::Slow(keep, stocked) => image = Some((keep, stocked)),
        }
    }
    let claim = enter(&home.directory, Some((start, epoch))).await?;
    let kept = await_release(&home).await?;
    if !matches!(start, Start::Kept { .. })
        && let Some((Keep::Layer, files)) = &kept
    {
        empty(owners, &home, start, epoch, files).await?;
    }
    let source = source(place, workspace)?;
    let left_out = source.as_deref().map(snapshot::left_out).transpose()?.unwrap_or_default();
    let (inner, given) = (Arc::clone(place), home.clone());
    let (found, mark, marked, room, claim) = step(move || {
        // The lock goes along: whoever removes the workspace of a start that was given up waits for what is made here.
        let (place, home, claim) = (inner, given, claim);
        let found = Mark::read(&home.directory).map_err(broken(&home.directory))?;
        let mark = Mark::next(found, start, epoch)?;
        if matches!(start, Start::Kept { .. }) {
            let (keep, file) = kept.ok_or(Error::WorkspaceLost)?;
            let room = place.admit(size(keep, &file, making).map_err(broken(&home.images))?)?;
            return Ok((Found::Image(keep, file), mark, Marked::Over, room, claim));
        }
        let forked = source.as_deref().and_then(|source| fs::metadata(source).ok()).map_or(0, |image| image.len());
        let room = place.admit(making.bytes().max(forked))?;
        // Over an older layer the mark goes first: whatever a crash leaves of it is then of no generation that is on record.
        let replaces = found.is_some() || kept.is_some();
        if replaces {
            mark.write(&home.directory).map_err(broken(&home.directory))?;
        }
        drop(kept);
        let found = make(&home, making, source.as_deref(), image)?;
        Ok((found, mark, if replaces { Marked::Already } else { Marked::First }, room, claim))
    })
    .await?;
    let (keep, file) = match found {
        Found::Image(keep, file) => {
            lock(&file).await?;
            (keep, file)
        }
        Found::Stocked(keep, file) => (keep, file),
    };
    let directory = home.directory;
    let copy = |file: &File| file.try_clone().map_err(broken(&directory));
    let unfinished = match mark.whole {
        false => Some(Unfinished { directory: directory.clone(), mark, _lock: copy(&file)?.into() }),
        true => None,
    };
    let write: Option<WriteMark> = match marked {
        Marked::Already => None,
        Marked::First => Some(Mark::write_first),
        Marked::Over => Some(Mark::write),
    };
    let marking = match write {
        Some(write) => Some(Marking::begin(directory.clone(), mark, write, [claim, copy(&file)?])),
        None => None,
    };
    Ok(Claimed { keep, descriptor: Some(file.into()), unfinished, marking, room: Some(room), left_out })
}

/// Empties a layer that another is made in the place of, where only the launcher can. The mark goes first, as everywhere.
async fn empty(owners: &Owners, home: &Home, start: Start, epoch: u64, files: &File) -> Result<(), Error> {
    let directory = home.directory.clone();
    let files = OwnedFd::from(files.try_clone().map_err(broken(&directory))?);
    if Owners::is_own(&files)? {
        return Ok(());
    }
    blocking(move || {
        let mark = Mark::next(Mark::read(&directory).map_err(broken(&directory))?, start, epoch)?;
        mark.write(&directory).map_err(broken(&directory))
    })
    .await?;
    owners.clear(&files).await
}

impl Claimed {
    const fn nowhere() -> Self {
        let left_out = Vec::new();
        Self { keep: Keep::Nowhere, descriptor: None, unfinished: None, marking: None, room: None, left_out }
    }
}

/// A workspace from stock.
#[derive(Debug)]
pub(crate) enum Stocked {
    /// Mounted already.
    Mounted(Opened),
    Image(Blank),
}

impl Stocked {
    fn open(self) -> Result<(Keep, Opened), Error> {
        match self {
            Self::Mounted(opened) => Ok((Keep::Mounted, opened)),
            Self::Image(blank) => Ok((Keep::Image, blank.open()?)),
        }
    }
}

/// What a quick claim came to.
enum Quick {
    Done(Box<Claimed>),
    /// Somebody is there, or was: it is to be done step by step, with this image.
    Slow(Keep, Image),
}

/// Gives a session that had no workspace one from stock, all of it on one thread: the mark is there when this returns.
async fn quickly(
    place: &Arc<Place>,
    home: &Home,
    start: Start,
    epoch: u64,
    making: Making,
    stocked: Stocked,
) -> Result<Quick, Error> {
    let (place, home) = (Arc::clone(place), home.clone());
    let entering = ENTERING.read().await;
    step(move || {
        let _entering = entering;
        let mark = Mark::next(None, start, epoch)?;
        let room = Some(place.admit(making.bytes())?);
        let (keep, opened) = stocked.open()?;
        let file = match opened.settle(&home, &mark)? {
            Settled::In(file) => file,
            Settled::Out(image) => return Ok(Quick::Slow(keep, image)),
        };
        let directory = home.directory;
        let unfinished = match mark.whole {
            false => {
                let lock = file.try_clone().map_err(broken(&directory))?.into();
                Some(Unfinished { directory, mark, _lock: lock })
            }
            true => None,
        };
        let descriptor = Some(file.into());
        Ok(Quick::Done(Box::new(Claimed { keep, descriptor, unfinished, room, ..Claimed::nowhere() })))
    })
    .await
}

/// Locks a directory, unless somebody else has it or removed it.
pub(crate) fn is_alone(entered: &File, directory: &Path) -> bool {
    rustix::fs::flock(entered, FlockOperation::NonBlockingLockExclusive).is_ok() && is_here(entered, directory)
}

/// Whether an open directory still stands where it was found.
fn is_here(entered: &File, directory: &Path) -> bool {
    let here = rustix::fs::stat(directory).ok().map(|stat| (stat.st_dev, stat.st_ino));
    here.is_some() && here == rustix::fs::fstat(entered).ok().map(|stat| (stat.st_dev, stat.st_ino))
}

/// A layer that is to be shown.
enum Found {
    Image(Keep, File),
    /// An image from stock, locked.
    Stocked(Keep, File),
}

/// The image that a fork is a copy of.
fn source(place: &Place, workspace: &Workspace) -> Result<Option<PathBuf>, Error> {
    let Workspace::Session { tenant, start: Start::Forked { session, checkpoint }, .. } = workspace else {
        return Ok(None);
    };
    let parent = Workspace::Session { tenant: tenant.clone(), session: *session, start: Start::Fresh };
    let parent = place.home(&parent)?.map(|home| home.checkpoint(*checkpoint));
    parent.filter(|image| image.exists()).map(Some).ok_or(Error::WorkspaceLost)
}

impl Making {
    /// What the layer may grow to.
    fn bytes(&self) -> u64 {
        let Limits { workspace_bytes_max, workspace_inodes_max, memory_bytes_max, .. } = self.limits;
        match self.root {
            true => ext4::bytes(workspace_bytes_max, workspace_inodes_max),
            // It lives in memory, half of which it may take.
            false => workspace_bytes_max.min(memory_bytes_max / 2),
        }
    }
}

/// What a kept layer may grow to.
fn size(keep: Keep, file: &File, making: Making) -> io::Result<u64> {
    match keep {
        Keep::Image | Keep::Mounted => Ok(file.metadata()?.len()),
        Keep::Layer | Keep::Nowhere => Ok(making.bytes()),
    }
}

/// A workspace that a sandbox has, entered by who wants to take that sandbox over.
#[derive(Debug)]
pub(crate) struct Entered {
    directory: PathBuf,
    mark: Mark,
    _lock: File,
}

/// Enters a session's workspace under `epoch` while a sandbox has it; nobody else does until what is returned is dropped.
pub(crate) async fn readmit(directory: PathBuf, start: Start, epoch: u64) -> Result<Entered, Error> {
    let lock = enter(&directory, Some((start, epoch))).await?;
    blocking(move || {
        let mark = Mark::next(Mark::read(&directory).map_err(broken(&directory))?, start, epoch)?;
        Ok(Entered { directory, mark, _lock: lock })
    })
    .await
}

impl Entered {
    /// Marks the workspace as the new epoch's.
    pub(crate) async fn mark(self) -> Result<(), Error> {
        blocking(move || self.mark.write(&self.directory).map_err(broken(&self.directory))).await
    }
}

/// A mark on its way to the disk, beside the making of the sandbox: nothing runs in it before the mark is there.
#[derive(Debug)]
pub(crate) struct Marking(tokio::task::JoinHandle<Result<(), Error>>);

impl Marking {
    /// Whoever gives up meanwhile leaves the `locks` to the writing, so that no mark of another is overwritten.
    fn begin(directory: PathBuf, mark: Mark, write: WriteMark, locks: [File; 2]) -> Self {
        Self(tokio::task::spawn_blocking(move || {
            let written = write(&mark, &directory).map_err(broken(&directory));
            drop(locks);
            written
        }))
    }

    /// Waits until it is there.
    pub(crate) async fn done(self) -> Result<(), Error> {
        self.0.await.unwrap_or_else(|error| Err(failed(error.to_string())))
    }
}

/// Enters a workspace's directory, alone until what is returned is dropped; makes it for a start that needs none.
/// `opens` says how and under which epoch it is to be opened: a driver that was replaced is told so at once, not after the
/// wait for its successor.
async fn enter(directory: &Path, opens: Option<(Start, u64)>) -> Result<File, Error> {
    let makes = matches!(opens, Some((Start::Fresh | Start::Forked { .. } | Start::Restored, _)));
    for _ in 0..ENTER_ATTEMPTS_MAX {
        let path = directory.to_owned();
        let entering = ENTERING.read().await;
        let entered = step(move || {
            let _entering = entering;
            let lost = |error: io::Error| match error.kind() {
                io::ErrorKind::NotFound => Error::WorkspaceLost,
                _ => broken(&path)(error),
            };
            if makes {
                fs::DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(lost)?;
            }
            let entered = File::open(&path).map_err(lost)?;
            if let Some((start, epoch)) = opens {
                Mark::next(Mark::read(&path).map_err(broken(&path))?, start, epoch)?;
            }
            Ok(entered)
        });
        let entered = match entered.await {
            // It was removed between making and opening.
            Err(Error::WorkspaceLost) if makes => continue,
            entered => entered?,
        };
        lock(&entered).await?;
        // Somebody who had it before may have removed it.
        if is_here(&entered, directory) {
            return Ok(entered);
        }
    }
    Err(failed("the workspace is being removed over and over"))
}

/// Steps of claims under way at once: when a hundred come together, more threads only stand in each other's way.
const STEPS_MAX: usize = 8;
static STEPS: Semaphore = Semaphore::const_new(STEPS_MAX);

/// Runs a step of a claim, which is short and waits for nobody.
async fn step<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    let place = STEPS.acquire().await.map_err(|error| failed(error.to_string()))?;
    // The place goes with the work: whoever gives up does not end it.
    blocking(move || {
        let _place = place;
        work()
    })
    .await
}

/// Runs what waits for the disk on a thread that may wait.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(failed(error.to_string())))
}

/// The image of a workspace that has one: those from before there was a pool stand beside the mark.
pub(crate) fn image(home: &Home) -> Option<PathBuf> {
    [&home.images, &home.directory].map(|directory| directory.join(IMAGE)).into_iter().find(|image| image.exists())
}

/// Whose a kept layer is on the host, when it is not the user's own.
pub(crate) fn owner(home: &Home) -> Option<u32> {
    use std::os::unix::fs::MetadataExt as _;
    let top = fs::symlink_metadata(home.directory.join(FILES)).ok()?.uid();
    (top != rustix::process::geteuid().as_raw()).then_some(top)
}

fn open(home: &Home) -> Result<(Keep, File), Error> {
    let image = image(home);
    let files = home.directory.join(FILES);
    if let Some(image) = image {
        Ok((Keep::Image, File::options().read(true).write(true).open(&image).map_err(broken(&image))?))
    } else if files.is_dir() {
        Ok((Keep::Layer, File::open(&files).map_err(broken(&files))?))
    } else {
        Err(Error::WorkspaceLost)
    }
}

/// Makes a layer, in the place of an older one: empty, and then from stock when there is one, or a copy of the image `source`.
fn make(home: &Home, making: Making, source: Option<&Path>, stocked: Option<(Keep, Image)>) -> Result<Found, Error> {
    let (new, image) = (home.images.join(NEW), home.images.join(IMAGE));
    for directory in [&home.images, &home.directory] {
        for old in [NEW, IMAGE] {
            absent(fs::remove_file(directory.join(old))).map_err(broken(directory))?;
        }
    }
    let files = home.directory.join(FILES);
    absent(fs::remove_dir_all(&files)).map_err(broken(&files))?;
    if !making.root {
        fs::DirBuilder::new().mode(0o700).create(&files).map_err(broken(&files))?;
        let (keep, file) = open(home)?;
        return Ok(Found::Image(keep, file));
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&home.images).map_err(broken(&home.images))?;
    if let Some((keep, stocked)) = stocked {
        return Ok(Found::Stocked(keep, stocked.name(&image)?));
    }
    match source {
        Some(source) => fork(source, &new, making.seed).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Error::WorkspaceLost,
            _ => broken(&new)(error),
        })?,
        None => {
            let Limits { workspace_bytes_max, workspace_inodes_max, .. } = making.limits;
            let file = create(&new).map_err(broken(&new))?;
            ext4::format(&file, workspace_bytes_max, workspace_inodes_max, guest::USER_ID, making.seed)
                .map_err(broken(&new))?;
        }
    }
    fs::rename(&new, &image).map_err(broken(&image))?;
    let (keep, file) = open(home)?;
    Ok(Found::Image(keep, file))
}

pub(crate) fn create(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).create(true).truncate(true).mode(0o600).open(path)
}

/// Copies an image that nobody writes, sharing its blocks, under an identity of its own.
fn fork(source: &Path, to: &Path, seed: [u8; 32]) -> io::Result<()> {
    let source = File::open(source)?;
    let file = create(to)?;
    rustix::fs::ioctl_ficlone(&file, &source)?;
    ext4::rename(&file, seed)
}

/// What is not there is removed already.
pub(crate) fn absent(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

pub(crate) async fn lock(file: &File) -> Result<(), Error> {
    for _ in 0..LOCK_ATTEMPTS_MAX {
        match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => tokio::time::sleep(LOCK_WAIT).await,
            Err(error) => return Err(failed(format!("locking: {error}"))),
        }
    }
    Err(failed("another sandbox still has this workspace"))
}

/// Whether a workspace is there, and whole.
pub(crate) async fn exists(home: Home) -> Result<bool, Error> {
    blocking(move || {
        let is_there = image(&home).is_some() || home.directory.join(FILES).is_dir();
        let mark = Mark::read(&home.directory).map_err(broken(&home.directory))?;
        Ok(is_there && mark.is_none_or(|mark| mark.whole))
    })
    .await
}

/// Waits until no sandbox has the workspace any more; gives it, locked, when there is one.
pub(crate) async fn await_release(home: &Home) -> Result<Option<(Keep, File)>, Error> {
    let home = home.clone();
    match step(move || open(&home)).await {
        Ok((keep, file)) => lock(&file).await.map(|()| Some((keep, file))),
        Err(Error::WorkspaceLost) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes a workspace with its checkpoints.
pub(crate) async fn remove(home: Home, owners: &Owners) -> Result<(), Error> {
    drop(ENTERING.write().await);
    let _claim = match enter(&home.directory, None).await {
        Err(Error::WorkspaceLost) => return Ok(()),
        entered => entered?,
    };
    if let Some((Keep::Layer, files)) = await_release(&home).await? {
        owners.clear(&files.into()).await?;
    }
    blocking(move || {
        // The image first: what a crash leaves is then found again by its directory.
        for directory in [&home.images, &home.directory] {
            absent(fs::remove_dir_all(directory)).map_err(broken(directory))?;
            // The tenant's directory goes with its last workspace.
            if let Some(above) = directory.parent() {
                let _ = fs::remove_dir(above);
            }
        }
        Ok(())
    })
    .await
}
