//! Lists of directories: read whole, sorted, bounded each and all together, kept for as long as they are taken to hold.

use crate::names::is_shown;
use crate::nodes::File;
use blob::{Bucket, LIST_KEYS_MAX, Page};
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// An entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: Box<str>,
    /// `None` for a directory.
    pub(crate) file: Option<File>,
}

/// A directory's list.
#[derive(Debug)]
pub(crate) struct Listing {
    /// By name.
    pub(crate) entries: Vec<Entry>,
    taken: Instant,
    /// What it takes of the room for all.
    _room: Room,
}

/// A part of the room that all lists share; given back when it is dropped.
#[derive(Debug)]
struct Room {
    used: Arc<AtomicUsize>,
    entries: usize,
}

impl Room {
    fn grow(&mut self, by: usize, entries_max: usize) -> Result<(), Refused> {
        let before = self.used.fetch_add(by, Ordering::AcqRel);
        self.entries += by;
        if before + by > entries_max { Err(Refused::Full) } else { Ok(()) }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.used.fetch_sub(self.entries, Ordering::AcqRel);
    }
}

/// Why there is no list.
#[derive(Debug)]
pub(crate) enum Refused {
    /// The directory has too many entries.
    TooLarge,
    /// All lists together have.
    Full,
    Storage(blob::Error),
}

/// The lists that are kept.
#[derive(Debug)]
pub(crate) struct Listings {
    kept: Mutex<HashMap<Arc<str>, Arc<Listing>>>,
    used: Arc<AtomicUsize>,
    valid: Duration,
    entries_max: usize,
    directory_entries_max: usize,
}

impl Listings {
    pub(crate) fn new(valid: Duration, entries_max: usize, directory_entries_max: usize) -> Self {
        Self { kept: Mutex::default(), used: Arc::default(), valid, entries_max, directory_entries_max }
    }

    /// The list of a directory, if one is kept that still holds.
    pub(crate) fn kept(&self, prefix: &str) -> Option<Arc<Listing>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(prefix).filter(|listing| listing.taken.elapsed() < self.valid).cloned()
    }

    /// The list of a directory, asked for when none is kept. An empty one: there is no such directory, unless it is the top.
    pub(crate) async fn read(&self, bucket: &Bucket, prefix: &Arc<str>) -> Result<Arc<Listing>, Refused> {
        if let Some(listing) = self.kept(prefix) {
            return Ok(listing);
        }
        let (mut entries, mut next) = (Vec::new(), None);
        let mut room = Room { used: Arc::clone(&self.used), entries: 0 };
        let taken = Instant::now();
        loop {
            let page = bucket.list(prefix, next.as_deref(), LIST_KEYS_MAX).await.map_err(Refused::Storage)?;
            next.clone_from(&page.next);
            let found = shown(prefix, page);
            if room.grow(found.len(), self.entries_max).is_err() {
                // Those that are kept make room; those that are being read don't.
                self.kept.lock().unwrap_or_else(PoisonError::into_inner).clear();
                if self.used.load(Ordering::Acquire) > self.entries_max {
                    return Err(Refused::Full);
                }
            }
            entries.extend(found);
            if entries.len() > self.directory_entries_max {
                return Err(Refused::TooLarge);
            }
            if next.is_none() {
                break;
            }
        }
        let listing = Arc::new(Listing { entries: sorted(entries), taken, _room: room });
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|_, listing| listing.taken.elapsed() < self.valid);
        kept.insert(Arc::clone(prefix), Arc::clone(&listing));
        Ok(listing)
    }
}

impl Listing {
    pub(crate) fn find(&self, name: &str) -> Option<&Entry> {
        let at = self.entries.binary_search_by(|entry| (*entry.name).cmp(name)).ok()?;
        self.entries.get(at)
    }
}

/// What a page shows of the directory with this prefix.
fn shown(prefix: &str, page: Page) -> Vec<Entry> {
    let files = page.objects.into_iter().filter_map(|found| {
        let name = found.key.strip_prefix(prefix).filter(|name| is_shown(name))?.into();
        let version = found.version.map(Arc::from);
        Some(Entry { name, file: Some(File { bytes: found.bytes, modified_s: found.modified_s, version }) })
    });
    let directories = page.prefixes.into_iter().filter_map(|below| {
        let name = below.strip_prefix(prefix)?.strip_suffix('/').filter(|name| is_shown(name))?.into();
        Some(Entry { name, file: None })
    });
    files.chain(directories).collect()
}

/// By name, each once; of a file and a directory with one name, the directory.
fn sorted(mut entries: Vec<Entry>) -> Vec<Entry> {
    entries.sort_by(|a, b| a.name.cmp(&b.name).then(a.file.is_some().cmp(&b.file.is_some())));
    entries.dedup_by(|later, first| later.name == first.name);
    entries
}

#[cfg(test)]
mod tests {
    use super::*;
    use blob::Found;

    #[test]
    fn a_page_shows_what_can_be_shown() {
        let object = |key: &str| Found { key: key.to_owned(), bytes: 1, modified_s: 2, version: None };
        let keys = ["d/", "d/a", "d/both", "d//", "d/..", "other", "d/x\n", "d/a"];
        let page = Page {
            objects: keys.map(object).to_vec(),
            prefixes: ["d/both/", "d//", "d/../", "d/sub/", "e/", "d/no"].map(str::to_owned).to_vec(),
            ..Page::default()
        };
        let entries = sorted(shown("d/", page));
        let seen: Vec<(&str, bool)> = entries.iter().map(|entry| (&*entry.name, entry.file.is_none())).collect();
        assert_eq!(seen, [("a", false), ("both", true), ("sub", true)]);
        let used = Arc::new(AtomicUsize::new(0));
        let mut room = Room { used: Arc::clone(&used), entries: 0 };
        room.grow(3, 3).unwrap();
        assert!(matches!(room.grow(1, 3), Err(Refused::Full)));
        let listing = Listing { entries, taken: Instant::now(), _room: room };
        assert!(listing.find("sub").is_some() && listing.find("su").is_none());
        assert_eq!(used.load(Ordering::Acquire), 4);
        drop(listing);
        assert_eq!(used.load(Ordering::Acquire), 0);
    }
}
