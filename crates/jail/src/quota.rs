//! What all workspaces may take together. Each that is open has its whole size promised, so that none is ever stopped in the
//! middle by what others wrote; what is closed counts by what it takes. Beyond the bound nothing new is opened, nor while the disk
//! itself is nearly full, whoever filled it; that is said by the limit's name.

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;
use sandbox::Error;
use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Directories within each other that are counted: marks and images stand in the third, an ordinary user's files below.
const DEPTH_MAX: usize = 300;
/// What must be free on the disk: one part of so many, and no more than that many bytes. What is open goes on with it.
const DISK_FREE_SHARE: u64 = 50;
const DISK_FREE_BYTES: u64 = 1 << 30;
/// Blocks as `stat` counts them.
const BLOCK_BYTES: u64 = 512;

/// Who counts what is kept.
#[derive(Debug)]
enum Measure {
    /// The file system that holds nothing else.
    FileSystem(PathBuf),
    /// A walk through the files, remembered.
    Files(PathBuf),
}

/// The bound over all workspaces of one place.
#[derive(Debug)]
pub(crate) struct Quota {
    measure: Measure,
    /// A directory on the disk that all of it is on.
    disk: PathBuf,
    bytes_max: u64,
    ledger: Arc<Mutex<Ledger>>,
}

#[derive(Debug, Default)]
struct Ledger {
    next: u64,
    promised: BTreeMap<u64, u64>,
    /// What the last walk found, and what was promised to those that ended since.
    kept: Option<u64>,
}

/// A promise; dropped when the workspace is closed.
#[derive(Debug)]
pub(crate) struct Room {
    ledger: Arc<Mutex<Ledger>>,
    number: u64,
}

fn hold(ledger: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    // No code panics while it holds this lock.
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut ledger = hold(&self.ledger);
        let bytes = ledger.promised.remove(&self.number).unwrap_or(0);
        ledger.kept = ledger.kept.map(|kept| kept.saturating_add(bytes));
    }
}

impl Quota {
    /// For a file system that holds nothing but workspaces, in a file on the disk of `disk`.
    pub(crate) fn of_file_system(path: PathBuf, disk: PathBuf, bytes_max: u64) -> Self {
        Self { measure: Measure::FileSystem(path), disk, bytes_max, ledger: Arc::default() }
    }

    /// For workspaces below a directory, on the disk of `disk`.
    pub(crate) fn of_files(path: PathBuf, disk: PathBuf, bytes_max: u64) -> Self {
        Self { measure: Measure::Files(path), disk, bytes_max, ledger: Arc::default() }
    }

    /// Whether something new can be written on the disk without taking the last of it from what is open.
    fn check_disk(&self) -> Result<(), Error> {
        let found = match rustix::fs::statvfs(&self.disk) {
            // Whoever writes there makes it first.
            Err(Errno::NOENT) => return Ok(()),
            found => found.map_err(uncounted)?,
        };
        let [all, free] = [found.f_blocks, found.f_bavail].map(|blocks| blocks.saturating_mul(found.f_frsize));
        let least = (all / DISK_FREE_SHARE).min(DISK_FREE_BYTES);
        if free >= least {
            return Ok(());
        }
        let limit = format!(
            "disk_free_bytes_min = {least}; {free} bytes are free on the disk of the data directory; hint: free some of it"
        );
        Err(Error::Limit { limit })
    }

    /// Promises `bytes`.
    pub(crate) fn admit(&self, bytes: u64) -> Result<Room, Error> {
        self.check_disk()?;
        let mut ledger = hold(&self.ledger);
        let promised: u64 = ledger.promised.values().sum();
        let fits = |kept: u64| kept.saturating_add(promised).saturating_add(bytes) <= self.bytes_max;
        let remembered = ledger.kept.is_some_and(fits);
        if !remembered {
            let kept = self.kept().map_err(uncounted)?;
            if matches!(self.measure, Measure::Files(_)) {
                ledger.kept = Some(kept);
            }
            if !fits(kept) {
                let limit = format!(
                    "workspaces_bytes_max = {}; {kept} bytes are kept and {promised} promised to open workspaces; \
                     hint: remove sessions, close sandboxes, or lower workspace_bytes_max",
                    self.bytes_max
                );
                return Err(Error::Limit { limit });
            }
        }
        ledger.next += 1;
        let number = ledger.next;
        ledger.promised.insert(number, bytes);
        Ok(Room { ledger: Arc::clone(&self.ledger), number })
    }

    fn kept(&self) -> Result<u64, Errno> {
        match &self.measure {
            Measure::FileSystem(path) => {
                let found = rustix::fs::statvfs(path)?;
                Ok(found.f_blocks.saturating_sub(found.f_bfree).saturating_mul(found.f_frsize))
            }
            Measure::Files(path) => match open(rustix::fs::CWD, path.as_path()) {
                Ok(directory) => Ok(below(&directory, 0)),
                Err(Errno::NOENT) => Ok(0),
                Err(errno) => Err(errno),
            },
        }
    }
}

fn uncounted(errno: Errno) -> Error {
    Error::Start { stage: "workspace", detail: format!("counting what workspaces take: {errno}") }
}

fn open(at: BorrowedFd<'_>, path: impl rustix::path::Arg) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(at, path, flags, Mode::empty())
}

/// What stands below a directory, links not followed. What went away meanwhile, or can't be read, counts as nothing.
fn below(directory: &OwnedFd, depth: usize) -> u64 {
    let (mut bytes, Ok(entries)) = (0_u64, Dir::read_from(directory)) else { return 0 };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let Ok(stat) = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        bytes = bytes.saturating_add(u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(BLOCK_BYTES));
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if is_directory && depth < DEPTH_MAX {
            bytes =
                bytes.saturating_add(open(directory.as_fd(), name).map_or(0, |below_it| below(&below_it, depth + 1)));
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn what_is_open_has_its_room_and_what_is_closed_counts_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let quota = Quota::of_files(directory.path().to_owned(), directory.path().to_owned(), 10 * MIB);
        let code = |bytes: u64| quota.admit(bytes).err().map(|error| error.code());
        let first = quota.admit(6 * MIB).unwrap();
        assert_eq!(code(5 * MIB), Some("sandbox_limit"));
        drop(first);
        // Nothing was written meanwhile, so counting anew finds room.
        assert_eq!(code(9 * MIB), None);
        std::fs::create_dir_all(directory.path().join("default/one")).unwrap();
        std::fs::write(directory.path().join("default/one/image"), vec![1; 3 << 20]).unwrap();
        drop(quota.admit(10 * MIB));
        assert_eq!(code(8 * MIB), Some("sandbox_limit"));
        assert_eq!(code(6 * MIB), None);
        std::fs::remove_dir_all(directory.path().join("default")).unwrap();
        assert_eq!(code(9 * MIB), None);
    }
}
