//! A project that is read again when its files change. A wrong version is told and left alone; the last good one serves on.

use crate::{Catalog, Problems, load};
use parking_lot::RwLock;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::future::Future;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Wait between two looks at the files.
const LOOK_MS: u64 = 500;
/// Files of one project whose changes are noticed, at most.
const WATCHED_MAX: usize = 20_000;
/// Folders whose files are all watched.
const FOLDERS: [&str; 5] = ["agents", "manifests", "models", "policies", "tools"];

/// Gives the variables of the environment.
pub type Variables = dyn Fn(&str) -> Option<String> + Send + Sync;

/// A project that is read again when it changes.
pub struct Live {
    root: PathBuf,
    variables: Arc<Variables>,
    current: RwLock<Arc<Catalog>>,
    wrong: RwLock<Option<Arc<Problems>>>,
    seen: parking_lot::Mutex<Seen>,
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live").field("root", &self.root).finish_non_exhaustive()
    }
}

/// What one look gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Nothing changed since the last reading.
    Same,
    /// Something is changing; it is read when a further look finds it at rest.
    Changing,
    /// Read, and in force.
    Renewed,
    /// Read, and refused.
    Refused,
}

#[derive(Debug)]
struct Seen {
    /// The files as they were when they were read.
    read: Stamp,
    /// The files as they were at the last look.
    last: Stamp,
    touched: BTreeSet<String>,
}

impl Seen {
    /// What counts as read: each file as it was before the reading, so that what changed meanwhile is read again, and
    /// what only the reading showed, as it is now.
    fn after(root: &Path, before: Stamp, touched: BTreeSet<String>) -> Self {
        let mut read = stamp(root, &touched);
        read.retain(|path, _| {
            path.strip_prefix(root).ok().and_then(Path::to_str).is_some_and(|name| touched.contains(name))
        });
        read.extend(before);
        Self { last: read.clone(), read, touched }
    }
}

/// What tells that a file is another than before.
type Stamp = BTreeMap<PathBuf, Option<(u64, u64, i64, i64)>>;

impl Live {
    /// Reads the project in `root`. Refused when it is wrong from the start.
    pub fn open(root: &Path, variables: Arc<Variables>) -> Result<Self, Problems> {
        let root = fs::canonicalize(root).unwrap_or_else(|_| root.to_owned());
        let before = stamp(&root, &BTreeSet::new());
        let loaded = load::load(&root, &*variables);
        let catalog = loaded.result?;
        let seen = Seen::after(&root, before, loaded.touched);
        Ok(Self {
            root,
            variables,
            current: RwLock::new(Arc::new(catalog)),
            wrong: RwLock::new(None),
            seen: parking_lot::Mutex::new(seen),
        })
    }

    /// The last good version.
    pub fn current(&self) -> Arc<Catalog> {
        self.current.read().clone()
    }

    /// What is wrong with the files as they stand, when they are not what serves.
    pub fn last_problems(&self) -> Option<Arc<Problems>> {
        self.wrong.read().clone()
    }

    /// Looks at the files once, and reads them when they changed and have come to rest, so that nothing half written is
    /// read. Blocks on the disk.
    pub fn look(&self) -> Look {
        let mut seen = self.seen.lock();
        let now = stamp(&self.root, &seen.touched);
        let (changed, rests) = (now != seen.read, now == seen.last);
        seen.last = now;
        match (changed, rests) {
            (false, _) => return Look::Same,
            (true, false) => return Look::Changing,
            (true, true) => {}
        }
        let before = stamp(&self.root, &BTreeSet::new());
        let loaded = load::load(&self.root, &*self.variables);
        *seen = Seen::after(&self.root, before, loaded.touched);
        match loaded.result {
            Ok(catalog) if catalog.digest == self.current().digest && self.last_problems().is_none() => Look::Same,
            Ok(catalog) => {
                let (digest, agents) = (catalog.digest, catalog.agents.len());
                *self.current.write() = Arc::new(catalog);
                *self.wrong.write() = None;
                tracing::info!(%digest, agents, "the project changed and is in force");
                Look::Renewed
            }
            Err(problems) => {
                let count = problems.count();
                tracing::error!(code = problems.code(), count, %problems, "the project changed and is refused; the last good one serves on");
                *self.wrong.write() = Some(Arc::new(problems));
                Look::Refused
            }
        }
    }

    /// Looks at the files twice a second until `stop` is done. Whoever spawns it awaits it.
    pub async fn watch(self: Arc<Self>, stop: impl Future<Output = ()> + Send) {
        tokio::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => return,
                () = tokio::time::sleep(Duration::from_millis(LOOK_MS)) => {}
            }
            let live = self.clone();
            if let Err(error) = tokio::task::spawn_blocking(move || live.look()).await {
                tracing::error!(%error, "looking at the project's files failed");
            }
        }
    }
}

/// The state of every file that a load would look at: what stands in the project's own folders, and what declarations
/// name besides.
fn stamp(root: &Path, touched: &BTreeSet<String>) -> Stamp {
    let mut paths: BTreeSet<PathBuf> = touched.iter().map(|name| root.join(name)).collect();
    paths.insert(root.join("topside.yaml"));
    paths.insert(root.join("prices.yaml"));
    for folder in FOLDERS {
        let folder = root.join(folder);
        if let Ok(entries) = fs::read_dir(&folder) {
            paths.extend(entries.take(WATCHED_MAX).filter_map(|entry| Some(entry.ok()?.path())));
        }
        paths.insert(folder);
    }
    paths.into_iter().take(WATCHED_MAX).map(|path| (stamp_of(&path), path)).map(|(stamp, path)| (path, stamp)).collect()
}

fn stamp_of(path: &Path) -> Option<(u64, u64, i64, i64)> {
    let about = fs::metadata(path).ok()?;
    // A folder's own times change with every file in it that an editor makes for a moment.
    if about.is_dir() {
        return Some((about.ino(), 0, 0, 0));
    }
    Some((about.ino(), about.len(), about.mtime(), about.mtime_nsec()))
}
