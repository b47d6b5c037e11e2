//! Where workspaces are kept below the data directory: `workspaces/<tenant>/<session>/`, holding either an image (root) or a
//! directory of files (ordinary user). Makes, locks, finds and removes them; what is in them nobody here looks at.

use crate::door::Keep;
use crate::ext4;
use rustix::fs::FlockOperation;
use sandbox::{Error, Limits, Workspace};
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

const IMAGE: &str = "image.ext4";
const FILES: &str = "files";
/// How long a start waits for an earlier sandbox of the same workspace to be gone.
const LOCK_ATTEMPTS_MAX: u32 = 8_000;
const LOCK_WAIT: Duration = Duration::from_millis(5);

/// A workspace that is ready to be shown, and locked.
#[derive(Debug)]
pub(crate) struct Claimed {
    pub(crate) keep: Keep,
    /// The image or directory; its open description carries the lock.
    pub(crate) descriptor: Option<OwnedFd>,
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

/// Makes or opens a workspace and locks it.
pub(crate) async fn claim(
    data: &Path,
    workspace: &Workspace,
    limits: Limits,
    root: bool,
    seed: [u8; 32],
) -> Result<Claimed, Error> {
    let Some(directory) = directory(data, workspace)? else {
        return Ok(Claimed { keep: Keep::Nowhere, descriptor: None });
    };
    let fresh = matches!(workspace, Workspace::Session { fresh: true, .. });
    if fresh {
        await_release(&directory).await?;
    }
    let (keep, file) = blocking(move || {
        if fresh {
            make(&directory, &limits, root, seed)?;
        }
        open(&directory)
    })
    .await?;
    lock(&file).await?;
    Ok(Claimed { keep, descriptor: Some(file.into()) })
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

fn make(directory: &Path, limits: &Limits, root: bool, seed: [u8; 32]) -> Result<(), Error> {
    clear(directory)?;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(broken(directory))?;
    if !root {
        let files = directory.join(FILES);
        return fs::DirBuilder::new().mode(0o700).create(&files).map_err(broken(&files));
    }
    let (new, image) = (directory.join("image.new"), directory.join(IMAGE));
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)
        .map_err(broken(&new))?;
    ext4::format(&file, limits.workspace_bytes_max, limits.workspace_inodes_max, guest::USER_ID, seed)
        .map_err(broken(&new))?;
    fs::rename(&new, &image).map_err(broken(&image))
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

/// Whether a workspace is there.
pub(crate) async fn exists(directory: PathBuf) -> Result<bool, Error> {
    blocking(move || Ok(directory.join(IMAGE).exists() || directory.join(FILES).is_dir())).await
}

/// Waits until no sandbox has the workspace any more, when there is one.
pub(crate) async fn await_release(directory: &Path) -> Result<(), Error> {
    let directory = directory.to_owned();
    match blocking(move || open(&directory)).await {
        Ok((_, file)) => lock(&file).await,
        Err(Error::WorkspaceLost) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Removes a workspace.
pub(crate) async fn remove(directory: PathBuf) -> Result<(), Error> {
    await_release(&directory).await?;
    blocking(move || clear(&directory)).await
}

fn clear(directory: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        done => done.map_err(broken(directory))?,
    }
    // The tenant's directory goes with its last workspace.
    if let Some(above) = directory.parent() {
        let _ = fs::remove_dir(above);
    }
    Ok(())
}
