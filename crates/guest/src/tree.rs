//! Operations on whole trees below the workspace, each in a child of its own: moves, removals, downloads and uploads. Every path
//! is resolved by the kernel beneath the workspace, and every step below it is from one open directory to the next, never
//! through a link.

use crate::files::{DEPTH_MAX, Failure, Name, answer, device, is_mount, names, open, told};
use crate::tar::Owners;
use crate::{compare, export, import, watch};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use sandbox::RelPath;
use sandbox::files::{Replace, TreeWork};
use std::ffi::CString;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

pub(crate) fn perform(work: TreeWork, owners: Owners) -> Result<(), Failure> {
    match work {
        TreeWork::Move { from, to, replace } => rename(&from, &to, replace),
        TreeWork::Remove { path, entries_max } => remove(&path, entries_max).and_then(|count| answer(&count)),
        TreeWork::Watch { path, depth } => watch::watch(&path, depth),
        TreeWork::Download { path, limits } => export::download(&path, limits, owners),
        TreeWork::Upload { path, limits } => import::upload(&path, limits).and_then(|totals| answer(&totals)),
        TreeWork::Compare { before, after, differences_max } => {
            compare::compare(&before, &after, differences_max).and_then(|found| answer(&found))
        }
    }
}

/// The directory that something stands in, and its name there; the workspace itself stands in none.
pub(crate) fn stands(operation: &'static str, path: &RelPath) -> Result<(OwnedFd, CString), Failure> {
    let told = told(operation, path);
    let (Some(above), Some(name)) = (path.parent(), path.file_name()) else { return Err(told(Errno::BUSY)) };
    let above = open(&above, OFlags::RDONLY | OFlags::DIRECTORY).map_err(&told)?;
    Ok((above, CString::new(name).map_err(|_| told(Errno::INVAL))?))
}

fn rename(from: &RelPath, to: &RelPath, replace: Replace) -> Result<(), Failure> {
    let (source, name) = stands("move", from)?;
    let (target, new) = stands("move", to)?;
    let flags = match replace {
        Replace::Never => RenameFlags::NOREPLACE,
        Replace::Always => RenameFlags::empty(),
    };
    rustix::fs::renameat_with(&source, name.as_c_str(), &target, new.as_c_str(), flags).map_err(|errno| match errno {
        Errno::EXIST => Failure::new("move", to, "something stands there already"),
        errno => told("move", from)(errno),
    })
}

fn remove(path: &RelPath, entries_max: u64) -> Result<u64, Failure> {
    let (parent, name) = stands("remove", path)?;
    let mut run = Removal { count: 0, entries_max, device: device(&parent).map_err(told("remove", path))? };
    match run.entry(parent.as_fd(), &name, 0) {
        Ok(()) => Ok(run.count),
        Err(Errno::DQUOT) => {
            let detail = format!("stopped after {} files and directories; entries_max = {entries_max}", run.count);
            Err(Failure::new("remove", path, &detail))
        }
        Err(Errno::BUSY) => Err(Failure::new("remove", path, "a bucket is shown below it")),
        Err(errno) => Err(told("remove", path)(errno)),
    }
}

struct Removal {
    count: u64,
    entries_max: u64,
    device: u64,
}

impl Removal {
    fn entry(&mut self, parent: BorrowedFd<'_>, name: &Name, depth: usize) -> Result<(), Errno> {
        if self.count >= self.entries_max {
            return Err(Errno::DQUOT);
        }
        let stat = rustix::fs::statat(parent, name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            if is_mount(&stat, self.device) {
                return Err(Errno::BUSY);
            }
            if depth >= DEPTH_MAX {
                return Err(Errno::NAMETOOLONG);
            }
            let opened = self.enter(parent, name, stat.st_mode)?;
            for below in names(&opened)? {
                match self.entry(opened.as_fd(), &below, depth + 1) {
                    // Somebody else removed it.
                    Ok(()) | Err(Errno::NOENT) => {}
                    Err(errno) => return Err(errno),
                }
            }
            rustix::fs::unlinkat(parent, name.as_c_str(), AtFlags::REMOVEDIR)?;
        } else {
            rustix::fs::unlinkat(parent, name.as_c_str(), AtFlags::empty())?;
        }
        self.count += 1;
        Ok(())
    }

    /// Opens a directory whose entries are to go, whatever its mode; one that was put in its place meanwhile is only left as it is.
    fn enter(&self, parent: BorrowedFd<'_>, name: &Name, mode: u32) -> Result<OwnedFd, Errno> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        if mode & 0o700 != 0o700 {
            let wider = Mode::from_raw_mode(mode & 0o7777 | 0o700);
            rustix::fs::chmodat(parent, name.as_c_str(), wider, AtFlags::empty())?;
        }
        let opened = rustix::fs::openat(parent, name.as_c_str(), flags | OFlags::RDONLY, Mode::empty())?;
        if device(&opened)? == self.device { Ok(opened) } else { Err(Errno::BUSY) }
    }
}
