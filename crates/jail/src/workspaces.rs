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
        return Ok(Claimed { keep: Keep::Nowhere, descriptor: None, unfinished: None });
    };
    let start = *start;
    let _claim = enter(&directory, start).await?;
    // A driver that was replaced is told so at once, not after the wait for its successor's sandbox.
    next_mark(&directory, start, epoch).await?;
    let kept = await_release(&directory).await?;
    let (keep, file, mark) = blocking(move || {
        let mark = Mark::next(Mark::read(&directory).map_err(broken(&directory))?, start, epoch)?;
        if matches!(start, Start::Kept { .. }) {
            let (keep, file) = kept.ok_or(Error::WorkspaceLost)?;
            mark.write(&directory).map_err(broken(&directory))?;
            return Ok((keep, file, mark));
        }
        // The mark goes first: whatever a crash leaves of the older layer is then of no generation that is on record.
        mark.write(&directory).map_err(broken(&directory))?;
        drop(kept);
        make(&directory, making)?;
        let (keep, file) = open(&directory)?;
        Ok((keep, file, mark))
    })
    .await?;
    lock(&file).await?;
    let unfinished = match (mark.whole, crate::workspaces::directory(data, workspace)?) {
        (false, Some(directory)) => {
            let lock = file.try_clone().map_err(broken(&directory))?.into();
            Some(Unfinished { directory, mark, _lock: lock })
        }
        _ => None,
    };
    Ok(Claimed { keep, descriptor: Some(file.into()), unfinished })
}

async fn next_mark(directory: &Path, start: Start, epoch: u64) -> Result<Mark, Error> {
    let directory = directory.to_owned();
    blocking(move || Mark::next(Mark::read(&directory).map_err(broken(&directory))?, start, epoch)).await
}

/// Enters a workspace's directory, alone until what is returned is dropped; makes it for a start that needs none.
async fn enter(directory: &Path, start: Start) -> Result<File, Error> {
    let makes = !matches!(start, Start::Kept { .. });
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
            File::open(&path).map_err(lost)
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
    let _claim = match enter(&directory, Start::Kept { generation: 0 }).await {
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
