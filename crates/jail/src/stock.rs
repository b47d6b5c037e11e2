//! Workspaces in stock: empty images, formatted and mounted ahead of need, since both wait for the kernel. One becomes a
//! session's by its new name; what it was before nobody can tell, and none is used twice.

use crate::door::{Reply, Request};
use crate::ext4;
use crate::harbour::{Arrived, Harbour};
use crate::pool::Place;
use crate::workspaces::{absent, blocking, broken, create, failed};
use rustix::fs::FlockOperation;
use sandbox::{Error, Limits};
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use stdx::Random;
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// How many are kept.
const STOCK: usize = 4;
/// More are made when nothing was taken for so long: what is asked for now goes first.
const LULL: Duration = Duration::from_millis(20);

/// One of them.
#[derive(Debug)]
struct Item {
    image: Image,
    mount: OwnedFd,
    size: (u64, u64),
}

/// An image that is nobody's yet.
#[derive(Debug)]
pub(crate) struct Image {
    /// Its open description carries the lock, and the mount's device has the same one.
    file: File,
    path: PathBuf,
}

impl Image {
    /// Makes it the image `to`; gives it, locked.
    pub(crate) fn name(self, to: &Path) -> Result<File, Error> {
        fs::rename(&self.path, to).map_err(broken(to))?;
        Ok(self.file)
    }
}

/// Those that are kept, and who makes more.
#[derive(Debug, Default)]
pub(crate) struct Stock {
    items: Arc<Mutex<Vec<Item>>>,
    /// When something was asked for last.
    asked: Arc<Mutex<Option<Instant>>>,
    filling: Mutex<Option<AbortHandle>>,
}

impl Drop for Stock {
    fn drop(&mut self) {
        if let Some(filling) = hold(&self.filling).take() {
            filling.abort();
        }
        for item in hold(&self.items).drain(..) {
            let _ = fs::remove_file(&item.image.path);
        }
    }
}

fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code panics while it holds one of these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn size(limits: &Limits) -> (u64, u64) {
    (limits.workspace_bytes_max, limits.workspace_inodes_max)
}

impl Stock {
    /// Takes one that fits, with its mount.
    pub(crate) fn take(&self, limits: &Limits) -> Option<(Image, OwnedFd)> {
        *hold(&self.asked) = Some(Instant::now());
        let mut items = hold(&self.items);
        let found = items.iter().position(|item| item.size == size(limits))?;
        let Item { image, mount, .. } = items.swap_remove(found);
        Some((image, mount))
    }

    /// Makes more of this size in the background, in the place of those of another.
    pub(crate) fn fill(&self, place: &Arc<Place>, harbour: &Harbour, random: &Random, limits: Limits) {
        let mut filling = hold(&self.filling);
        if filling.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        let maker = Maker { place: Arc::clone(place), harbour: harbour.clone(), random: random.clone(), limits };
        let (items, asked) = (Arc::clone(&self.items), Arc::clone(&self.asked));
        let task = tokio::spawn(async move {
            loop {
                calm(&asked).await;
                let gone: Vec<Item> = hold(&items).extract_if(.., |item| item.size != size(&limits)).collect();
                let count = hold(&items).len();
                maker.remove(gone).await;
                if count >= STOCK {
                    return;
                }
                match maker.make().await {
                    Ok(item) => hold(&items).push(item),
                    Err(error) => return tracing::debug!(%error, "no workspace can be kept in stock"),
                }
            }
        });
        *filling = Some(task.abort_handle());
    }
}

/// Waits until nothing was asked for some time.
async fn calm(asked: &Mutex<Option<Instant>>) {
    loop {
        let last = *hold(asked);
        tokio::time::sleep_until(last.map_or_else(Instant::now, |last| last + LULL)).await;
        if *hold(asked) == last {
            return;
        }
    }
}

/// Makes items.
struct Maker {
    place: Arc<Place>,
    harbour: Harbour,
    random: Random,
    limits: Limits,
}

impl Maker {
    async fn make(&self) -> Result<Item, Error> {
        let (directory, limits) = (self.place.stock(), self.limits);
        let (name, seed) = (hex(self.random.bytes::<8>()), self.random.bytes::<32>());
        let (file, path) = blocking(move || {
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory);
            made.map_err(broken(&directory))?;
            sweep(&directory);
            let path = directory.join(name);
            let file = create(&path).map_err(broken(&path))?;
            rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)
                .map_err(|errno| broken(&path)(errno.into()))?;
            let (bytes, inodes) = size(&limits);
            ext4::format(&file, bytes, inodes, guest::USER_ID, seed).map_err(broken(&path))?;
            Ok((file, path))
        })
        .await?;
        let copy = file.try_clone().map_err(broken(&path))?;
        match self.harbour.ask(Request::Mount, vec![copy.into()]).await? {
            Arrived::Mounted { mount } => Ok(Item { image: Image { file, path }, mount, size: size(&limits) }),
            Arrived::Other(Reply::Failed(failure)) => Err(failure.into()),
            _ => Err(failed("the launcher answered something else")),
        }
    }

    async fn remove(&self, items: Vec<Item>) {
        if items.is_empty() {
            return;
        }
        // Unmounting waits for the disk.
        let removed = blocking(move || {
            items
                .iter()
                .map(|item| &item.image.path)
                .try_for_each(|path| absent(fs::remove_file(path)).map_err(broken(path)))
        });
        if let Err(error) = removed.await {
            tracing::debug!(%error, "a workspace in stock is left behind");
        }
    }
}

/// Removes what an earlier process left: what nobody holds the lock of.
fn sweep(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let Ok(file) = File::open(entry.path()) else { continue };
        if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn hex(bytes: [u8; 8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
