//! Opens what its owner may not read by its mode: it is made readable for as long as it takes, and then is as it was. Only for
//! those who know that nobody else changes it meanwhile.

use crate::files::Name;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::os::fd::{BorrowedFd, OwnedFd};

/// Something that is open to be read.
pub(crate) struct Readable<'a> {
    pub(crate) fd: OwnedFd,
    changed: Option<(BorrowedFd<'a>, &'a Name, Mode)>,
}

impl<'a> Readable<'a> {
    /// As [`Readable::open`], but only what can be read as it is.
    pub(crate) fn open_as_it_is(parent: BorrowedFd<'a>, name: &'a Name, stat: &Stat) -> Result<Self, Errno> {
        Self::with(parent, name, stat, None)
    }

    /// Opens a regular file or a directory that stands in `parent` and has this `stat`, never through a link. A directory's
    /// entries can be reached until it is put back.
    pub(crate) fn open(parent: BorrowedFd<'a>, name: &'a Name, stat: &Stat) -> Result<Self, Errno> {
        let needed = if FileType::from_raw_mode(stat.st_mode) == FileType::Directory { 0o500 } else { 0o400 };
        if stat.st_mode & needed == needed {
            return Self::with(parent, name, stat, None);
        }
        let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
        rustix::fs::chmodat(parent, name.as_c_str(), mode | Mode::from_raw_mode(needed), AtFlags::empty())?;
        Self::with(parent, name, stat, Some((parent, name, mode)))
    }

    fn with(
        parent: BorrowedFd<'a>,
        name: &'a Name,
        stat: &Stat,
        changed: Option<(BorrowedFd<'a>, &'a Name, Mode)>,
    ) -> Result<Self, Errno> {
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let flags = if is_directory { OFlags::DIRECTORY } else { OFlags::NONBLOCK };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | flags;
        match rustix::fs::openat(parent, name.as_c_str(), flags, Mode::empty()) {
            Ok(fd) => Ok(Self { fd, changed }),
            Err(errno) => {
                put_back(changed);
                Err(errno)
            }
        }
    }

    /// Gives it its mode again.
    pub(crate) fn put_back(self) -> OwnedFd {
        put_back(self.changed);
        self.fd
    }
}

fn put_back(changed: Option<(BorrowedFd<'_>, &Name, Mode)>) {
    if let Some((parent, name, mode)) = changed {
        // The same caller changed it a moment ago.
        let _ = rustix::fs::chmodat(parent, name.as_c_str(), mode, AtFlags::empty());
    }
}
