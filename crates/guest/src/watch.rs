//! Watches a directory with inotify and tells what happens as lines of JSON. The kernel's queue is the only one: what is not
//! read in time overflows there, and that is told, too. Between two looks nothing here holds a directory open or stands in
//! one: the kernel tells that a directory is gone only when nobody has it any more.

use crate::files::{Failure, device, is_mount, names, open, open_directory, told};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::fs::{AtFlags, FileType, OFlags};
use rustix::io::Errno;
use sandbox::RelPath;
use sandbox::files::{Depth, Event, EventKind};
use std::collections::HashMap;
use std::io::Write as _;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};

/// Directories that one watch stands on at most; the kernel counts all watches of a user, too.
const WATCHES_MAX: usize = 4_096;
const READ_BYTES: usize = 16 << 10;

struct Watching {
    queue: OwnedFd,
    /// The watched directory by its path, and which one it was when the watch began.
    path: RelPath,
    inode: (u64, u64),
    depth: Depth,
    /// The directory of each watch, below the watched one.
    paths: HashMap<i32, String>,
    full: bool,
}

/// Watches until the directory is gone, or whoever reads has.
pub(crate) fn watch(path: &RelPath, depth: Depth) -> Result<(), Failure> {
    let told = told("watch", path);
    let root = open(path, OFlags::RDONLY | OFlags::DIRECTORY).map_err(&told)?;
    let inode = identity(&root).map_err(&told)?;
    let queue = inotify::init(CreateFlags::CLOEXEC).map_err(&told)?;
    let mut watching = Watching { queue, path: path.clone(), inode, depth, paths: HashMap::new(), full: false };
    watching.enter(root, "", 0).map_err(&told)?;
    watching.tell(EventKind::Begun, "", true).map_err(&told)?;
    let mut buffer = [MaybeUninit::uninit(); READ_BYTES];
    let queue = rustix::io::fcntl_dupfd_cloexec(&watching.queue, 3).map_err(&told)?;
    let mut reader = Reader::new(queue, &mut buffer);
    loop {
        let event = match reader.next() {
            Ok(event) => event,
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(told(errno)),
        };
        let name = event.file_name().map(|name| name.to_string_lossy().into_owned());
        let (flags, watch) = (event.events(), event.wd());
        if !watching.take(watch, flags, name).map_err(&told)? {
            return Ok(());
        }
    }
}

impl Watching {
    /// Watches a directory that came to be below the watched one. One that went away meanwhile is no error; when the watched
    /// one has another path by now, what is new in it is said to be unwatched.
    fn add(&mut self, below: &str) -> Result<(), Errno> {
        let root = open(&self.path, OFlags::RDONLY | OFlags::DIRECTORY);
        let Some(root) = root.ok().filter(|root| identity(root) == Ok(self.inode)) else {
            return self.too_many(below);
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = rustix::fs::ResolveFlags::BENEATH | rustix::fs::ResolveFlags::NO_SYMLINKS;
        match rustix::fs::openat2(&root, below, flags, rustix::fs::Mode::empty(), resolve) {
            Ok(directory) => self.enter(directory, below, below.split('/').count()),
            Err(_) => Ok(()),
        }
    }

    /// Watches an open directory and, when all below is wanted, those in it; stands in none of them afterwards.
    fn enter(&mut self, directory: OwnedFd, below: &str, level: usize) -> Result<(), Errno> {
        let watched = self.watch(directory, below, level);
        rustix::process::chdir("/")?;
        watched
    }

    fn watch(&mut self, directory: OwnedFd, below: &str, level: usize) -> Result<(), Errno> {
        if self.paths.len() >= WATCHES_MAX || level > crate::files::DEPTH_MAX {
            return self.too_many(below);
        }
        // This process is nobody's but this watch's, so it may stand where it watches.
        rustix::process::fchdir(&directory)?;
        let wanted = WatchFlags::CREATE
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::DELETE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::ATTRIB
            | WatchFlags::ONLYDIR;
        match inotify::add_watch(&self.queue, ".", wanted) {
            Ok(watch) => drop(self.paths.insert(watch, below.to_owned())),
            Err(Errno::NOSPC) => return self.too_many(below),
            Err(errno) => return Err(errno),
        }
        if self.depth == Depth::Directory {
            return Ok(());
        }
        let own = device(&directory)?;
        for name in names(&directory)? {
            let Ok(stat) = rustix::fs::statat(&directory, name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW) else { continue };
            let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            if !is_directory || is_mount(&stat, own) {
                continue;
            }
            // One that went away meanwhile, or that may not be looked into, is not watched.
            if let Ok(opened) = open_directory(directory.as_fd(), &name) {
                self.watch(opened, &joined(below, &name.to_string_lossy()), level + 1)?;
            }
        }
        Ok(())
    }

    /// Says once that not everything is watched.
    fn too_many(&mut self, below: &str) -> Result<(), Errno> {
        if std::mem::replace(&mut self.full, true) { Ok(()) } else { self.tell(EventKind::Unwatched, below, true) }
    }

    /// Tells one event; `false`: there is nothing left to watch.
    fn take(&mut self, watch: i32, flags: ReadFlags, name: Option<String>) -> Result<bool, Errno> {
        if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
            self.tell(EventKind::Overflow, "", true)?;
            return Ok(true);
        }
        let Some(above) = self.paths.get(&watch).cloned() else { return Ok(true) };
        if flags.contains(ReadFlags::IGNORED) {
            self.paths.remove(&watch);
            return Ok(!above.is_empty());
        }
        if flags.contains(ReadFlags::MOVE_SELF) {
            // Of one below, the directory that it stood in tells. Where the watched one went to, nobody asked to watch.
            return Ok(!above.is_empty());
        }
        let directory = flags.contains(ReadFlags::ISDIR);
        let Some(name) = name else { return Ok(true) };
        let path = joined(&above, &name);
        let kinds = [
            (ReadFlags::CREATE, EventKind::Created),
            (ReadFlags::CLOSE_WRITE, EventKind::Written),
            (ReadFlags::DELETE, EventKind::Removed),
            (ReadFlags::MOVED_FROM, EventKind::MovedFrom),
            (ReadFlags::MOVED_TO, EventKind::MovedTo),
            (ReadFlags::ATTRIB, EventKind::Changed),
        ];
        for (flag, kind) in kinds {
            if flags.contains(flag) {
                self.tell(kind, &path, directory)?;
            }
        }
        if directory && flags.intersects(ReadFlags::MOVED_FROM | ReadFlags::MOVED_TO) {
            // Those below carry their old names.
            let prefix = format!("{path}/");
            let moved: Vec<i32> = self
                .paths
                .iter()
                .filter(|(_, at)| **at == path || at.starts_with(&prefix))
                .map(|(watch, _)| *watch)
                .collect();
            for watch in moved {
                self.paths.remove(&watch);
                let _ = inotify::remove_watch(&self.queue, watch);
            }
        }
        if directory && self.depth == Depth::Below && flags.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO) {
            self.add(&path)?;
        }
        Ok(true)
    }

    fn tell(&self, kind: EventKind, path: &str, directory: bool) -> Result<(), Errno> {
        let event = Event { kind, path: path.to_owned(), directory };
        let mut line = serde_json::to_vec(&event).unwrap_or_default();
        line.push(b'\n');
        let written = std::io::stdout().write_all(&line).and_then(|()| std::io::stdout().flush());
        written.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::PIPE))
    }
}

/// Which directory this is, whatever its path.
fn identity(directory: &OwnedFd) -> Result<(u64, u64), Errno> {
    let stat = rustix::fs::fstat(directory)?;
    Ok((stat.st_dev, stat.st_ino))
}

fn joined(above: &str, name: &str) -> String {
    if above.is_empty() { name.to_owned() } else { format!("{above}/{name}") }
}
