//! Workspaces in stock: empty images, formatted and mounted ahead of need, since both wait for the kernel; and, where they are
//! asked for, whole sandboxes around such images, walls and all, that are nobody's (see `ahead`). One becomes a session's by its
//! new name; what it was before nobody can tell, and none is used twice.

use crate::ahead::{Ahead, Order};
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
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// How many are kept that stand in no sandbox.
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

/// What a session gets.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) image: Image,
    pub(crate) around: Around,
}

/// Where the workspace is.
#[derive(Debug)]
pub(crate) enum Around {
    /// In no sandbox yet: its mount.
    Nothing(OwnedFd),
    /// In this one.
    Sandbox(Ahead),
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

/// What is kept, and what is wanted.
#[derive(Debug, Default)]
struct Kept {
    plain: Vec<Item>,
    ahead: Vec<(Item, Ahead)>,
    limits: Option<Limits>,
    /// Which sandboxes are to stand around some of them, and how many.
    order: Option<Order>,
    /// When something was asked for last.
    asked: Option<Instant>,
}

/// What there is to do about the stock.
enum Step {
    /// These are of no use any more.
    Drop(Vec<Item>),
    Make(Limits),
    /// A sandbox around this one.
    MakeAhead(Item, Box<Order>),
    /// Nothing, until then or until something changes.
    Rest(Option<Instant>),
}

impl Kept {
    fn next(&mut self, now: Instant) -> Step {
        let Some(limits) = self.limits else { return Step::Rest(None) };
        if let Some(order) = &mut self.order {
            order.calm_down(now);
        }
        let mut gone = self.surplus();
        let short = self.order.as_ref().filter(|order| order.is_short(self.ahead.len(), now)).cloned();
        // What is asked for now, and what is wanted ahead, may be of two sizes.
        let sizes = [Some(size(&limits)), short.as_ref().map(|order| size(&order.limits()))];
        gone.extend(self.plain.extract_if(.., |item| !sizes.contains(&Some(item.size))));
        if !gone.is_empty() {
            return Step::Drop(gone);
        }
        if let Some(order) = short {
            let fits = self.plain.iter().position(|item| item.size == size(&order.limits()));
            let item = fits.map(|found| self.plain.swap_remove(found));
            return item.map_or(Step::Make(order.limits()), |item| Step::MakeAhead(item, Box::new(order)));
        }
        if self.plain.iter().filter(|item| item.size == size(&limits)).count() < STOCK {
            return Step::Make(limits);
        }
        Step::Rest(self.order.as_ref().and_then(|order| order.next_moment(self.ahead.len())))
    }

    /// Lets go of sandboxes that ended, of those of another kind than is wanted, and of more than are; gives what they stood
    /// around, which is not used again: the kernel gives a workspace's mount to one sandbox only.
    fn surplus(&mut self) -> Vec<Item> {
        let wanted = self.order.as_ref().map_or(0, |order| order.wanted);
        let is_wanted = |ahead: &Ahead| self.order.as_ref().is_some_and(|order| order.kind == ahead.kind);
        let is_gone = |ahead: &Ahead| !ahead.is_alive() || !is_wanted(ahead);
        let mut gone: Vec<(Item, Ahead)> = self.ahead.extract_if(.., |(_, ahead)| is_gone(ahead)).collect();
        gone.extend(self.ahead.drain(..self.ahead.len().saturating_sub(wanted)));
        gone.into_iter().map(|(item, _)| item).collect()
    }
}

/// Those that are kept, and who makes more.
#[derive(Debug, Default)]
pub(crate) struct Stock {
    shared: Arc<Shared>,
    filling: Mutex<Option<AbortHandle>>,
}

#[derive(Debug, Default)]
struct Shared {
    kept: Mutex<Kept>,
    /// Told when there may be something to do.
    changed: Notify,
}

impl Drop for Stock {
    fn drop(&mut self) {
        if let Some(filling) = hold(&self.filling).take() {
            filling.abort();
        }
        let Kept { plain, ahead, .. } = std::mem::take(&mut *hold(&self.shared.kept));
        for item in plain.into_iter().chain(ahead.into_iter().map(|(item, _)| item)) {
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
    /// Takes one that fits, with its mount; in a sandbox of this kind when one stands.
    pub(crate) fn take(&self, limits: &Limits, kind: Option<&str>) -> Option<Taken> {
        let mut kept = hold(&self.shared.kept);
        let now = Instant::now();
        kept.asked = Some(now);
        let fits = |ahead: &Ahead| Some(ahead.kind.as_str()) == kind && ahead.is_alive();
        let found = kept.ahead.iter().position(|(_, ahead)| fits(ahead));
        if let Some(order) = kept.order.as_mut().filter(|order| Some(order.kind.as_str()) == kind) {
            order.ask(now, found.is_some());
        }
        if let Some(found) = found {
            let (Item { image, .. }, ahead) = kept.ahead.swap_remove(found);
            return Some(Taken { image, around: Around::Sandbox(ahead) });
        }
        let found = kept.plain.iter().position(|item| item.size == size(limits))?;
        let Item { image, mount, .. } = kept.plain.swap_remove(found);
        Some(Taken { image, around: Around::Nothing(mount) })
    }

    /// Which sandboxes are to stand around some of the images from now on; `None`: none.
    pub(crate) fn order(&self, order: Option<Order>) {
        let mut kept = hold(&self.shared.kept);
        let had = kept.order.take();
        kept.order = order.map(|order| order.after(had));
        drop(kept);
        self.shared.changed.notify_one();
    }

    /// How many sandboxes stand.
    pub(crate) fn ahead(&self) -> usize {
        hold(&self.shared.kept).ahead.iter().filter(|(_, ahead)| ahead.is_alive()).count()
    }

    /// Makes more of this size in the background, in the place of those of another.
    pub(crate) fn fill(&self, place: &Arc<Place>, harbour: &Harbour, random: &Random, limits: Limits) {
        hold(&self.shared.kept).limits = Some(limits);
        self.shared.changed.notify_one();
        let mut filling = hold(&self.filling);
        if filling.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        let maker = Maker { place: Arc::clone(place), harbour: harbour.clone(), random: random.clone() };
        let shared = Arc::clone(&self.shared);
        *filling = Some(tokio::spawn(async move { maker.keep(&shared).await }).abort_handle());
    }
}

impl Shared {
    /// Waits until nothing was asked for some time.
    async fn calm(&self) {
        loop {
            let last = hold(&self.kept).asked;
            tokio::time::sleep_until(last.map_or_else(Instant::now, |last| last + LULL)).await;
            if hold(&self.kept).asked == last {
                return;
            }
        }
    }

    /// Waits until something changes, or until then.
    async fn rest(&self, until: Option<Instant>) {
        let changed = self.changed.notified();
        match until {
            Some(until) => drop(tokio::time::timeout_at(until, changed).await),
            None => changed.await,
        }
    }
}

/// Makes items.
struct Maker {
    place: Arc<Place>,
    harbour: Harbour,
    random: Random,
}

impl Maker {
    /// Keeps the stock as it is wanted, as long as it is polled.
    async fn keep(&self, shared: &Shared) {
        loop {
            shared.calm().await;
            let step = hold(&shared.kept).next(Instant::now());
            match step {
                Step::Drop(items) => self.remove(items).await,
                Step::Make(limits) => match self.make(limits).await {
                    Ok(item) => hold(&shared.kept).plain.push(item),
                    Err(error) => {
                        tracing::debug!(%error, "no workspace can be kept in stock");
                        shared.rest(None).await;
                    }
                },
                Step::MakeAhead(item, order) => self.make_ahead(shared, item, &order).await,
                Step::Rest(until) => shared.rest(until).await,
            }
        }
    }

    async fn make_ahead(&self, shared: &Shared, item: Item, order: &Order) {
        match order.make(&self.harbour, &self.random, &item.mount).await {
            Ok(ahead) => hold(&shared.kept).ahead.push((item, ahead)),
            Err(error) => {
                tracing::debug!(%error, "no sandbox can be made ahead");
                if let Some(order) = &mut hold(&shared.kept).order {
                    order.put_off(Instant::now());
                }
                // Its mount may be a sandbox's already, and the kernel gives it to one only.
                self.remove(vec![item]).await;
            }
        }
    }

    async fn make(&self, limits: Limits) -> Result<Item, Error> {
        let directory = self.place.stock();
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
