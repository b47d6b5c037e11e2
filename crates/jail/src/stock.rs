//! Workspaces in stock: empty images, formatted and mounted ahead of need, since both wait for the kernel; more that are only
//! formatted, for when many sessions begin together; and, where they are asked for, whole sandboxes around mounted ones, walls
//! and all, that are nobody's (see `ahead`). One becomes a session's by its new name; what it was before nobody can tell, and
//! none is used twice.

use crate::ahead::{Ahead, Order};
use crate::blank::{Blank, Opened, Shelf};
use crate::door::{Reply, Request};
use crate::harbour::{Arrived, Harbour};
use crate::pool::Place;
use crate::workspaces::{Making, blocking, failed};
use sandbox::{Error, Limits};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use stdx::Random;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// How many are kept that are mounted and stand in no sandbox.
const STOCK: usize = 4;
/// More are made when nothing was taken for so long: what is asked for now goes first.
const LULL: Duration = Duration::from_millis(20);
/// Those that are only formatted are made when nothing was taken for so long.
const CALM: Duration = Duration::from_secs(1);

/// One that is mounted.
#[derive(Debug)]
struct Item {
    opened: Opened,
    mount: OwnedFd,
    size: Size,
}

/// Bytes and inodes of one.
type Size = (u64, u64);

/// What a session gets.
#[derive(Debug)]
pub(crate) enum Taken {
    /// One that is nowhere but on the disk.
    Image(Blank),
    /// One in no sandbox yet, with its mount.
    Mounted(Opened, OwnedFd),
    /// One with the sandbox that it is in.
    Sandbox(Opened, Ahead),
}

/// What is kept, and what is wanted.
#[derive(Debug, Default)]
struct Kept {
    plain: Vec<Item>,
    ahead: Vec<(Item, Ahead)>,
    /// Those that are only formatted, and how many are wanted.
    shelf: Vec<(Blank, Size)>,
    shelf_max: usize,
    /// As the last one that was asked for.
    limits: Option<Limits>,
    /// As the last that was asked for twice in a row.
    usual: Option<Limits>,
    /// Which sandboxes are to stand around some of them, and how many.
    order: Option<Order>,
    /// When something was asked for last.
    asked: Option<Instant>,
}

/// What there is to do about the stock.
enum Step {
    /// These are of no use any more.
    Drop(Vec<Item>, Vec<Blank>),
    Format(Limits),
    Mount(Blank, Size),
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
        // What is asked for now, what usually is, and what is wanted ahead, may be of several sizes.
        let wanted = [Some(limits), self.usual, short.as_ref().map(Order::limits)];
        let is_wanted = |found: Size| wanted.iter().flatten().any(|limits| size(limits) == found);
        gone.extend(self.plain.extract_if(.., |item| !is_wanted(item.size)));
        let blanks: Vec<_> = self.shelf.extract_if(.., |(_, size)| !is_wanted(*size)).map(|(blank, _)| blank).collect();
        if !gone.is_empty() || !blanks.is_empty() {
            return Step::Drop(gone, blanks);
        }
        if let Some(order) = short {
            let fits = self.plain.iter().position(|item| item.size == size(&order.limits()));
            let item = fits.map(|found| self.plain.swap_remove(found));
            return item
                .map_or_else(|| self.mount(order.limits()), |item| Step::MakeAhead(item, Box::new(order.clone())));
        }
        if self.plain.iter().filter(|item| item.size == size(&limits)).count() < STOCK {
            return self.mount(limits);
        }
        let until = self.order.as_ref().and_then(|order| order.next_moment(self.ahead.len()));
        let Some(usual) = self.usual.filter(|_| self.shelf.len() < self.shelf_max) else { return Step::Rest(until) };
        match self.asked.map(|asked| asked + CALM).filter(|calm| now < *calm) {
            Some(calm) => Step::Rest(until.into_iter().chain([calm]).min()),
            None => Step::Format(usual),
        }
    }

    /// What makes a mounted one.
    fn mount(&mut self, limits: Limits) -> Step {
        let size = size(&limits);
        let fits = self.shelf.iter().position(|(_, found)| *found == size);
        fits.map_or(Step::Format(limits), |found| Step::Mount(self.shelf.swap_remove(found).0, size))
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
#[derive(Debug)]
pub(crate) struct Stock {
    shared: Arc<Shared>,
    filling: Mutex<Option<AbortHandle>>,
}

#[derive(Debug, Default)]
struct Shared {
    kept: Mutex<Kept>,
    shelf: OnceLock<Shelf>,
    /// Told when there may be something to do.
    changed: Notify,
}

impl Drop for Stock {
    fn drop(&mut self) {
        if let Some(filling) = hold(&self.filling).take() {
            filling.abort();
        }
        // What holds mounts ends first.
        drop(std::mem::take(&mut *hold(&self.shared.kept)));
        if let Some(shelf) = self.shared.shelf.get() {
            let _ = shelf.remove();
        }
    }
}

fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code panics while it holds one of these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const fn size(limits: &Limits) -> Size {
    (limits.workspace_bytes_max, limits.workspace_inodes_max)
}

impl Stock {
    /// With so many on the disk, beside those that are mounted.
    pub(crate) fn new(shelf_max: usize) -> Self {
        let kept = Mutex::new(Kept { shelf_max, ..Kept::default() });
        Self { shared: Arc::new(Shared { kept, ..Shared::default() }), filling: Mutex::default() }
    }

    /// Takes one that fits; in a sandbox of this kind when one stands.
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
            let (Item { opened, .. }, ahead) = kept.ahead.swap_remove(found);
            return Some(Taken::Sandbox(opened, ahead));
        }
        let size = size(limits);
        if let Some(found) = kept.plain.iter().position(|item| item.size == size) {
            let Item { opened, mount, .. } = kept.plain.swap_remove(found);
            return Some(Taken::Mounted(opened, mount));
        }
        let found = kept.shelf.iter().position(|(_, found)| *found == size)?;
        Some(Taken::Image(kept.shelf.swap_remove(found).0))
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

    /// How many there are that stand in no sandbox.
    pub(crate) fn plain(&self) -> usize {
        let kept = hold(&self.shared.kept);
        kept.plain.len() + kept.shelf.len()
    }

    /// Makes more of this size in the background, in the place of those of another.
    pub(crate) fn fill(&self, place: &Arc<Place>, harbour: &Harbour, random: &Random, limits: Limits) {
        let mut kept = hold(&self.shared.kept);
        let before = kept.limits.replace(limits);
        if before.is_none_or(|before| size(&before) == size(&limits)) {
            kept.usual = Some(limits);
        }
        drop(kept);
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
    async fn keep(&self, shared: &Arc<Shared>) {
        loop {
            shared.calm().await;
            let step = hold(&shared.kept).next(Instant::now());
            match step {
                Step::Drop(items, blanks) => self.remove(items, blanks).await,
                Step::Format(limits) => match self.format(shared, limits).await {
                    Ok(blank) => hold(&shared.kept).shelf.push((blank, size(&limits))),
                    Err(error) => {
                        tracing::debug!(%error, "no workspace can be kept in stock");
                        shared.rest(None).await;
                    }
                },
                Step::Mount(blank, size) => match self.mount(blank).await {
                    Ok((opened, mount)) => hold(&shared.kept).plain.push(Item { opened, mount, size }),
                    Err(error) => {
                        tracing::debug!(%error, "no workspace in stock can be mounted");
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
                self.remove(vec![item], Vec::new()).await;
            }
        }
    }

    async fn format(&self, shared: &Arc<Shared>, limits: Limits) -> Result<Blank, Error> {
        let (place, shared) = (Arc::clone(&self.place), Arc::clone(shared));
        let [shelf, name] = [self.random.bytes::<8>(), self.random.bytes()].map(hex);
        let making = Making { limits, root: true, seed: self.random.bytes() };
        blocking(move || {
            let shelf = match shared.shelf.get() {
                Some(shelf) => shelf,
                None => {
                    let made = Shelf::make(&place, &shelf)?;
                    shared.shelf.get_or_init(|| made)
                }
            };
            Blank::make(shelf, &name, making)
        })
        .await
    }

    async fn mount(&self, blank: Blank) -> Result<(Opened, OwnedFd), Error> {
        let opened = blocking(move || blank.open()).await?;
        let copy = opened.file().try_clone().map_err(|error| failed(error.to_string()))?;
        match self.harbour.ask(Request::Mount, vec![copy.into()]).await? {
            Arrived::Mounted { mount } => Ok((opened, mount)),
            Arrived::Other(Reply::Failed(failure)) => Err(failure.into()),
            _ => Err(failed("the launcher answered something else")),
        }
    }

    async fn remove(&self, items: Vec<Item>, blanks: Vec<Blank>) {
        if items.is_empty() && blanks.is_empty() {
            return;
        }
        // Removing and unmounting wait for the disk.
        let removed = blocking(move || {
            drop((items, blanks));
            Ok(())
        });
        if let Err(error) = removed.await {
            tracing::debug!(%error, "what is of no use in stock was not removed");
        }
    }
}

fn hex(bytes: [u8; 8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
