//! Where workspaces are kept below the data directory: `workspaces/<tenant>/<session>/`, holding either an image (root) or a
//! directory of files (ordinary user), and its mark. Makes, locks, finds and removes them; what is in them nobody here looks at.

use crate::door::Keep;
use crate::ext4;
use crate::mark::Mark;
use rustix::fs::FlockOperation;
use sandbox::{Error, Limits, Start, Workspace};
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

const IMAGE: &str = "image.ext4";
const FILES: &str = "files";
/// How often a directory is entered again that somebody removed meanwhile.
const ENTER_ATTEMPTS_MAX: u32 = 100;
/// How long a start waits for an earlier sandbox of the same workspace to be gone.
const LOCK_ATTEMPTS_MAX: u32 = 8_000;
const LOCK_WAIT: Duration = Duration::from_millis(5);

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

/// The directory of a session's workspace; `None` for one that is kept nowhere.
pub(crate) fn directory(data: &Path, workspace: &Workspace) -> Result<Option<PathBuf>, Error> {
    let Workspace::Session { tenant, session, .. } = workspace else { return Ok(None) };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if tenant.is_empty() || tenant.len() > 128 || tenant.starts_with('.') || !tenant.bytes().all(plain) {
        return Err(failed("the tenant's name is no file name"));
    }
    Ok(Some(data.join("workspaces").join(tenant).join(session.to_string())))
}

fn failed(detail: impl Into<String>) -> Error {
    Error::Start { stage: "workspace", detail: detail.into() }
}

fn broken(path: &Path) -> impl Fn(io::Error) -> Error {
    move |error| failed(format!("{}: {error}", path.display()))
}

/// Makes or opens a workspace, locks it, and marks it as `epoch`'s.
pub(crate) async fn claim(data: &Path, workspace: &Workspace, epoch: u64, making: Making) -> Result<Claimed, Error> {
    let (Some(directory), Workspace::Session { start, .. }) = (directory(data, workspace)?, workspace) else {
        return Ok(Claimed { keep: Keep::Nowhere, descriptor: None, unfinished: None, marking: None });
    };
    let start = *start;
    let claim = enter(&directory, Some((start, epoch))).await?;
    let kept = await_release(&directory).await?;
    let path = directory.clone();
    let (keep, file, mark, is_marked) = blocking(move || {
        let found = Mark::read(&path).map_err(broken(&path))?;
        let mark = Mark::next(found, start, epoch)?;
        if matches!(start, Start::Kept { .. }) {
            let (keep, file) = kept.ok_or(Error::WorkspaceLost)?;
            return Ok((keep, file, mark, false));
        }
        // Over an older layer the mark goes first: whatever a crash leaves of it is then of no generation that is on record.
        let replaces = found.is_some() || kept.is_some();
        if replaces {
            mark.write(&path).map_err(broken(&path))?;
        }
        drop(kept);
        make(&path, making)?;
        let (keep, file) = open(&path)?;
        Ok((keep, file, mark, replaces))
    })
    .await?;
    lock(&file).await?;
    let copy = |file: &File| file.try_clone().map_err(broken(&directory));
    let unfinished = match mark.whole {
        false => Some(Unfinished { directory: directory.clone(), mark, _lock: copy(&file)?.into() }),
        true => None,
    };
    let marking = match is_marked {
        false => Some(Marking::begin(directory.clone(), mark, [claim, copy(&file)?])),
        true => None,
    };
    Ok(Claimed { keep, descriptor: Some(file.into()), unfinished, marking })
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
    fn begin(directory: PathBuf, mark: Mark, locks: [File; 2]) -> Self {
        Self(tokio::task::spawn_blocking(move || {
            let written = mark.write(&directory).map_err(broken(&directory));
            drop(locks);
            written
        }))
    }

    /// Waits until it is durable.
    pub(crate) async fn done(self) -> Result<(), Error> {
        self.0.await.unwrap_or_else(|error| Err(failed(error.to_string())))
    }
}

/// Enters a workspace's directory, alone until what is returned is dropped; makes it for a start that needs none.
/// `opens` says how and under which epoch it is to be opened: a driver that was replaced is told so at once, not after the
/// wait for its successor.
async fn enter(directory: &Path, opens: Option<(Start, u64)>) -> Result<File, Error> {
    let makes = matches!(opens, Some((Start::Fresh | Start::Restored, _)));
    for _ in 0..ENTER_ATTEMPTS_MAX {
        let path = directory.to_owned();
        let entered = blocking(move || {
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
        let here = rustix::fs::stat(directory).ok().map(|stat| (stat.st_dev, stat.st_ino));
        if here.is_some() && here == rustix::fs::fstat(&entered).ok().map(|stat| (stat.st_dev, stat.st_ino)) {
            return Ok(entered);
        }
    }
    Err(failed("the workspace is being removed over and over"))
}

/// Runs what waits for the disk on a thread that may wait.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(failed(error.to_string())))
}

fn open(directory: &Path) -> Result<(Keep, File), Error> {
    let (image, files) = (directory.join(IMAGE), directory.join(FILES));
    if image.exists() {
        Ok((Keep::Image, File::options().read(true).write(true).open(&image).map_err(broken(&image))?))
    } else if files.is_dir() {
        Ok((Keep::Layer, File::open(&files).map_err(broken(&files))?))
    } else {
        Err(Error::WorkspaceLost)
    }
}

fn make(directory: &Path, making: Making) -> Result<(), Error> {
    let (new, image, files) = (directory.join("image.new"), directory.join(IMAGE), directory.join(FILES));
    for old in [&new, &image] {
        absent(fs::remove_file(old)).map_err(broken(old))?;
    }
    absent(fs::remove_dir_all(&files)).map_err(broken(&files))?;
    if !making.root {
        return fs::DirBuilder::new().mode(0o700).create(&files).map_err(broken(&files));
    }
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)
        .map_err(broken(&new))?;
    let Limits { workspace_bytes_max, workspace_inodes_max, .. } = making.limits;
    ext4::format(&file, workspace_bytes_max, workspace_inodes_max, guest::USER_ID, making.seed)
        .map_err(broken(&new))?;
    fs::rename(&new, &image).map_err(broken(&image))
}

/// What is not there is removed already.
fn absent(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

async fn lock(file: &File) -> Result<(), Error> {
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
pub(crate) async fn exists(directory: PathBuf) -> Result<bool, Error> {
    blocking(move || {
        let there = directory.join(IMAGE).exists() || directory.join(FILES).is_dir();
        let mark = Mark::read(&directory).map_err(broken(&directory))?;
        Ok(there && mark.is_none_or(|mark| mark.whole))
    })
    .await
}

/// Waits until no sandbox has the workspace any more; gives it, locked, when there is one.
pub(crate) async fn await_release(directory: &Path) -> Result<Option<(Keep, File)>, Error> {
    let directory = directory.to_owned();
    match blocking(move || open(&directory)).await {
        Ok((keep, file)) => lock(&file).await.map(|()| Some((keep, file))),
        Err(Error::WorkspaceLost) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes a workspace.
pub(crate) async fn remove(directory: PathBuf) -> Result<(), Error> {
    let _claim = match enter(&directory, None).await {
        Err(Error::WorkspaceLost) => return Ok(()),
        entered => entered?,
    };
    await_release(&directory).await?;
    blocking(move || {
        absent(fs::remove_dir_all(&directory)).map_err(broken(&directory))?;
        // The tenant's directory goes with its last workspace.
        if let Some(above) = directory.parent() {
            let _ = fs::remove_dir(above);
        }
        Ok(())
    })
    .await
}
