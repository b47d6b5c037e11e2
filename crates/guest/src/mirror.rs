//! Makes one directory like another, copying only what differs: how a workspace in memory is saved to its layer and loaded
//! from it. Directories, regular files with their holes and hard links, and links, with modes, times and, where there are
//! several users, owners; nothing else is kept, nor the mode of the top. Bounded in bytes and entries, whatever stands in
//! the source.

use crate::Layer;
use crate::files::{DEPTH_MAX, Name, device, is_mount, names, open_directory};
use crate::readable::Readable;
use crate::tar::Owners;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, SeekFrom, Timespec, Timestamps, Uid};
use rustix::io::Errno;
use std::collections::HashMap;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

/// What a mirror may hold at most.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Bytes of all files, holes not counted.
    pub bytes_max: u64,
    /// Files and directories.
    pub entries_max: u64,
}

/// Who else may be at work in the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Others {
    /// Programs: what they have made unreadable for themselves is left as it was saved last.
    Running,
    /// Nobody.
    None,
}

/// Saves the workspace into its layer.
pub fn save(layer: &Layer, others: Others) -> Result<(), Errno> {
    mirror(open_workspace()?.as_fd(), layer.directory.as_fd(), layer, others)
}

/// Fills the workspace from its layer.
pub fn load(layer: &Layer) -> Result<(), Errno> {
    mirror(layer.directory.as_fd(), open_workspace()?.as_fd(), layer, Others::None)
}

fn open_workspace() -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(crate::WORKSPACE, flags, Mode::empty())
}

/// Removes whatever stands in a directory.
pub fn clear(directory: BorrowedFd<'_>) -> Result<(), Errno> {
    names(directory)?.iter().try_for_each(|name| remove(directory, name, 0))
}

/// Makes `target` like `source`, one of which is this layer. Whose files are is written down there as in an archive.
fn mirror(source: BorrowedFd<'_>, target: BorrowedFd<'_>, layer: &Layer, others: Others) -> Result<(), Errno> {
    let owners = layer.own.map_or(Owners::One, |own| Owners::Many { own });
    let (budget, linked) = (layer.budget, HashMap::new());
    let mut run = Mirror { root: target, budget, others, owners, linked, closed: Vec::new() };
    run.directory(source, target, &mut Vec::new())?;
    for (path, mode) in &run.closed {
        rustix::fs::chmodat(target, path.as_slice(), *mode, AtFlags::empty())?;
    }
    let stat = rustix::fs::fstat(source)?;
    if let Some((user, group)) = run.owner(&stat) {
        rustix::fs::fchown(target, Some(user), Some(group))?;
    }
    rustix::fs::futimens(target, &times(&stat))
}

fn times(stat: &rustix::fs::Stat) -> Timestamps {
    let modified = Timespec { tv_sec: stat.st_mtime, tv_nsec: i64::try_from(stat.st_mtime_nsec).unwrap_or(0) };
    Timestamps { last_access: modified, last_modification: modified }
}

const fn mode(stat: &rustix::fs::Stat) -> Mode {
    Mode::from_raw_mode(stat.st_mode & 0o7777)
}

struct Mirror<'a> {
    root: BorrowedFd<'a>,
    budget: Budget,
    others: Others,
    owners: Owners,
    /// The first path in the target of each file with several names.
    linked: HashMap<(u64, u64), Vec<u8>>,
    /// Directories of the target that their owner may not enter, whose modes are set last, since a hard link may lead through
    /// them: what stands in one before the one itself.
    closed: Vec<(Vec<u8>, Mode)>,
}

impl Mirror<'_> {
    /// Whose something is in the target; `None`: there is nobody else.
    fn owner(&self, stat: &rustix::fs::Stat) -> Option<(Uid, Gid)> {
        let Owners::Many { .. } = self.owners else { return None };
        let (user, group) = self.owners.turned((stat.st_uid, stat.st_gid));
        Some((Uid::from_raw(user), Gid::from_raw(group)))
    }

    /// Gives what is open in the target to whose it is. Before its mode, of which this takes parts away.
    fn give(&self, copy: &OwnedFd, stat: &rustix::fs::Stat) -> Result<(), Errno> {
        let Some((user, group)) = self.owner(stat) else { return Ok(()) };
        rustix::fs::fchown(copy, Some(user), Some(group))
    }

    fn directory(&mut self, source: BorrowedFd<'_>, target: BorrowedFd<'_>, path: &mut Vec<Name>) -> Result<(), Errno> {
        if path.len() >= DEPTH_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        let own = device(source)?;
        let wanted = names(source)?;
        for name in names(target)? {
            if wanted.binary_search(&name).is_err() {
                remove(target, &name, 0)?;
            }
        }
        for name in wanted {
            // What went away meanwhile is simply not there.
            let Ok(stat) = rustix::fs::statat(source, name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW) else { continue };
            // What is mounted here is not the workspace's to keep.
            if is_mount(&stat, own) {
                continue;
            }
            self.budget.entries_max = self.budget.entries_max.checked_sub(1).ok_or(Errno::NOSPC)?;
            path.push(name);
            let done = self.entry(source, target, &stat, path);
            path.pop();
            match done {
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(Errno::ACCESS) if self.others == Others::Running => {}
                done => done?,
            }
        }
        Ok(())
    }

    fn entry(
        &mut self,
        source: BorrowedFd<'_>,
        target: BorrowedFd<'_>,
        stat: &rustix::fs::Stat,
        path: &mut Vec<Name>,
    ) -> Result<(), Errno> {
        let Some(name) = path.last().cloned() else { return Ok(()) };
        let there = rustix::fs::statat(target, name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW).ok();
        let kind = FileType::from_raw_mode(stat.st_mode);
        if there.is_some_and(|there| FileType::from_raw_mode(there.st_mode) != kind) {
            remove(target, &name, 0)?;
        }
        match kind {
            FileType::Directory => {
                match rustix::fs::mkdirat(target, name.as_c_str(), Mode::from_raw_mode(0o700)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(error),
                }
                let below = self.open(source, &name, stat)?;
                let done = enter(target, &name).and_then(|copy| {
                    self.directory(below.fd.as_fd(), copy.as_fd(), path)?;
                    self.give(&copy, stat)?;
                    rustix::fs::futimens(&copy, &times(stat))?;
                    self.close(&copy, stat, path)
                });
                below.put_back();
                done
            }
            FileType::RegularFile => self.file(source, target, stat, there.as_ref(), path),
            FileType::Symlink => {
                let to = rustix::fs::readlinkat(source, name.as_c_str(), Vec::new())?;
                let same = rustix::fs::readlinkat(target, name.as_c_str(), Vec::new()).is_ok_and(|there| there == to);
                if !same {
                    let _ = rustix::fs::unlinkat(target, name.as_c_str(), AtFlags::empty());
                    rustix::fs::symlinkat(to, target, name.as_c_str())?;
                }
                if let Some((user, group)) = self.owner(stat) {
                    let flags = AtFlags::SYMLINK_NOFOLLOW;
                    rustix::fs::chownat(target, name.as_c_str(), Some(user), Some(group), flags)?;
                }
                rustix::fs::utimensat(target, name.as_c_str(), &times(stat), AtFlags::SYMLINK_NOFOLLOW)
            }
            _ => Ok(()),
        }
    }

    fn file(
        &mut self,
        source: BorrowedFd<'_>,
        target: BorrowedFd<'_>,
        stat: &rustix::fs::Stat,
        there: Option<&rustix::fs::Stat>,
        path: &[Name],
    ) -> Result<(), Errno> {
        let Some(name) = path.last() else { return Ok(()) };
        if stat.st_nlink > 1 {
            if let Some(first) = self.linked.get(&(stat.st_dev, stat.st_ino)) {
                let _ = rustix::fs::unlinkat(target, name.as_c_str(), AtFlags::empty());
                return rustix::fs::linkat(self.root, first.as_slice(), target, name.as_c_str(), AtFlags::empty());
            }
            self.linked.insert((stat.st_dev, stat.st_ino), joined(path));
        }
        let blocks = u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
        self.budget.bytes_max = self.budget.bytes_max.checked_sub(blocks).ok_or(Errno::NOSPC)?;
        let same = there.is_some_and(|there| {
            let key =
                |stat: &rustix::fs::Stat| (stat.st_size, stat.st_mtime, stat.st_mtime_nsec, stat.st_mode & 0o7777);
            let owner = self.owner(stat).map(|(user, group)| (user.as_raw(), group.as_raw()));
            FileType::from_raw_mode(there.st_mode) == FileType::RegularFile
                && key(there) == key(stat)
                && owner.is_none_or(|owner| owner == (there.st_uid, there.st_gid))
        });
        if same {
            return Ok(());
        }
        let from = self.open(source, name, stat)?.put_back();
        self.copy(&from, target, name, stat)
    }

    /// Copies a regular file with its holes, replacing what stands there in one step.
    fn copy(&self, from: &OwnedFd, target: BorrowedFd<'_>, name: &Name, stat: &rustix::fs::Stat) -> Result<(), Errno> {
        let temporary = c".topside-mirror";
        let _ = rustix::fs::unlinkat(target, temporary, AtFlags::empty());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let to = rustix::fs::openat(target, temporary, flags, Mode::from_raw_mode(0o600))?;
        let copied = copy_data(from, &to, stat).and_then(|()| self.give(&to, stat)).and_then(|()| {
            rustix::fs::fchmod(&to, mode(stat))?;
            rustix::fs::futimens(&to, &times(stat))
        });
        let placed = copied.and_then(|()| rustix::fs::renameat(target, temporary, target, name.as_c_str()));
        if placed.is_err() {
            let _ = rustix::fs::unlinkat(target, temporary, AtFlags::empty());
        }
        placed
    }

    fn close(&mut self, copy: &OwnedFd, stat: &rustix::fs::Stat, path: &[Name]) -> Result<(), Errno> {
        let mode = mode(stat);
        if mode.contains(Mode::RWXU) {
            return rustix::fs::fchmod(copy, mode);
        }
        self.closed.push((joined(path), mode));
        Ok(())
    }

    fn open<'a>(&self, parent: BorrowedFd<'a>, name: &'a Name, stat: &rustix::fs::Stat) -> Result<Readable<'a>, Errno> {
        match self.others {
            Others::None => Readable::open(parent, name, stat),
            Others::Running => Readable::open_as_it_is(parent, name, stat),
        }
    }
}

fn copy_data(from: &OwnedFd, to: &OwnedFd, stat: &rustix::fs::Stat) -> Result<(), Errno> {
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    rustix::fs::ftruncate(to, size)?;
    let (mut at, mut buffer) = (0, vec![0; 128 << 10]);
    // A file that grows meanwhile is copied up to the size seen first, so a growing one ends too.
    while at < size {
        let data = match rustix::fs::seek(from, SeekFrom::Data(at)) {
            Ok(data) => data.min(size),
            Err(Errno::NXIO) => break,
            Err(error) => return Err(error),
        };
        let hole = rustix::fs::seek(from, SeekFrom::Hole(data))?.min(size);
        at = data;
        while at < hole {
            let room = usize::try_from(hole - at).unwrap_or(usize::MAX).min(buffer.len());
            // A file removed meanwhile would keep its room as long as it is held open here.
            if rustix::fs::fstat(from)?.st_nlink == 0 {
                return Err(Errno::NOENT);
            }
            let length = rustix::io::pread(from, &mut buffer[..room], at)?;
            if length == 0 {
                break;
            }
            let mut written = 0;
            while written < length {
                written += rustix::io::pwrite(to, &buffer[written..length], at + written as u64)?;
            }
            at += length as u64;
        }
        if at < hole {
            break;
        }
    }
    Ok(())
}

fn joined(path: &[Name]) -> Vec<u8> {
    path.iter().map(|name| name.as_bytes()).collect::<Vec<_>>().join(&b'/')
}

/// Opens a directory of the target, which is nobody else's, whatever its mode.
fn enter(parent: BorrowedFd<'_>, name: &Name) -> Result<OwnedFd, Errno> {
    let stat = rustix::fs::statat(parent, name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW)?;
    let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    if is_directory && stat.st_mode & 0o700 != 0o700 {
        let mode = Mode::from_raw_mode(stat.st_mode & 0o7777 | 0o700);
        rustix::fs::chmodat(parent, name.as_c_str(), mode, AtFlags::empty())?;
    }
    open_directory(parent, name)
}

/// Removes whatever stands at a name, with all below it.
fn remove(parent: BorrowedFd<'_>, name: &Name, depth: usize) -> Result<(), Errno> {
    match rustix::fs::unlinkat(parent, name.as_c_str(), AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) if depth < DEPTH_MAX => {}
        Err(error) => return Err(error),
    }
    let directory = enter(parent, name)?;
    for below in names(&directory)? {
        remove(directory.as_fd(), &below, depth + 1)?;
    }
    rustix::fs::unlinkat(parent, name.as_c_str(), AtFlags::REMOVEDIR)
}
