//! Unpacks one layer into an empty directory. Whoever wrote the layer is not trusted: every entry is made new below that
//! directory, no name leads through a link, nobody but one user owns anything unless owners are asked for, and no bit survives
//! that gives rights. What a layer takes away from those under it becomes what overlayfs knows: a whiteout, or an opaque directory.

use crate::Error;
use crate::path::{self, shown};
use crate::tar::{self, Broken, Entry, Kind, fill, padding};
use crate::unpack::Owners;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use sandbox::Rule;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{Read, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

/// What is read at once.
const READ_BYTES: usize = 128 << 10;
/// Bytes of the paths of directories whose times are set at the end, at most.
const DIRECTORIES_BYTES_MAX: usize = 64 << 20;
/// Before a name that the layer takes away.
const WHITEOUT: &[u8] = b".wh.";
/// Before names that old union file systems kept for themselves.
const WHITEOUT_OWN: &[u8] = b".wh..wh.";
/// In a directory of which nothing under this layer is to be seen.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// How overlayfs is told so, where it is mounted by a user.
const OPAQUE_ATTRIBUTE: &CStr = c"user.overlay.opaque";

/// What a layer held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) entries: u64,
    /// Whether nothing under this layer is to be seen at all.
    pub(crate) opaque: bool,
}

/// Unpacks what `source` gives. It is read to the end of the archive, not beyond.
pub(crate) fn unpack(
    source: &mut impl Read,
    into: BorrowedFd<'_>,
    entries_max: u64,
    owners: Owners,
) -> Result<Totals, Error> {
    let root = open_directory(into, c".").map_err(at(b"."))?;
    let (directories, totals) = (Vec::new(), Totals::default());
    let mut run = Run { root, near: None, directories, directories_bytes: 0, owners, totals };
    let mut last = b".".to_vec();
    let broken = |path: &[u8], broken| match broken {
        Broken::Rule(rule) => refused(path, rule),
        Broken::Source(error) => Error::of_source(&error),
    };
    while let Some(entry) = tar::next(source).map_err(|error| broken(&last, error))? {
        last.clone_from(&entry.path);
        run.totals.entries += 1;
        if run.totals.entries > entries_max {
            return Err(refused(&last, Rule::TooManyEntries));
        }
        run.entry(source, &entry, broken)?;
    }
    run.finish()?;
    Ok(run.totals)
}

fn refused(path: &[u8], rule: Rule) -> Error {
    Error::Refused { rule, entry: shown(path) }
}

/// The kernel did not make an entry.
fn at(path: &[u8]) -> impl FnOnce(Errno) -> Error {
    let entry = shown(path);
    move |errno| Error::Unpack { detail: format!("`{entry}`: {errno}") }
}

const fn times(seconds: i64) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    Timestamps { last_access: time, last_modification: time }
}

struct Run {
    root: OwnedFd,
    /// The directory of the last entry: most entries come beside the one before.
    near: Option<(Vec<u8>, OwnedFd)>,
    /// Directories with their times, which what is made in them changes.
    directories: Vec<(Vec<u8>, i64)>,
    directories_bytes: usize,
    owners: Owners,
    totals: Totals,
}

impl Run {
    fn entry<R: Read>(
        &mut self,
        source: &mut R,
        entry: &Entry,
        broken: impl Fn(&[u8], Broken) -> Error,
    ) -> Result<(), Error> {
        let path = &entry.path;
        let components = path::components(path).map_err(|rule| refused(path, rule))?;
        let Some((name, above)) = components.split_last() else { return Self::root(entry) };
        if components.iter().any(|name| name.as_bytes().starts_with(WHITEOUT)) {
            self.whiteout(entry, name, above)?;
            return skip(source, entry.bytes + padding(entry.bytes)).map_err(|error| broken(path, error));
        }
        let parent = self.parent(path, above)?;
        match &entry.kind {
            Kind::Directory => self.directory(&parent, name, above, entry)?,
            Kind::File => {
                let file = new(&parent, name, path, || create(&parent, name))?;
                copy(source, &file, entry.bytes, path, &broken)?;
                skip(source, padding(entry.bytes)).map_err(|error| broken(path, error))?;
                if let Some((user, group)) = self.owner(entry) {
                    rustix::fs::fchown(&file, Some(user), Some(group)).map_err(at(path))?;
                }
                settle(&file, entry.mode & 0o777 | 0o600, entry.modified).map_err(at(path))?;
            }
            Kind::Link { to } => {
                // Where it leads is the matter of whoever follows it, inside.
                let to = path::link_target(to).map_err(|rule| refused(path, rule))?;
                new(&parent, name, path, || rustix::fs::symlinkat(&to, &parent, name.as_c_str()))?;
                let flags = AtFlags::SYMLINK_NOFOLLOW;
                if let Some((user, group)) = self.owner(entry) {
                    rustix::fs::chownat(&parent, name.as_c_str(), Some(user), Some(group), flags).map_err(at(path))?;
                }
                rustix::fs::utimensat(&parent, name.as_c_str(), &times(entry.modified), flags).map_err(at(path))?;
            }
            Kind::Hard { to } => self.hard(&parent, name, path, to)?,
        }
        self.near = Some((joined(above), parent));
        Ok(())
    }

    /// Whose an entry becomes; `None`: there is one owner. Who has a number that no sandbox has is nobody.
    fn owner(&self, entry: &Entry) -> Option<(Uid, Gid)> {
        const NOBODY: u32 = 65_534;
        let id = |id: u64| u16::try_from(id).map_or(NOBODY, u32::from);
        match self.owners {
            Owners::One => None,
            Owners::Several => Some((Uid::from_raw(id(entry.owner.0)), Gid::from_raw(id(entry.owner.1)))),
        }
    }

    /// The layer's own top. What it says of itself is not taken: the top of the whole root is the sandbox's.
    fn root(entry: &Entry) -> Result<(), Error> {
        if entry.kind == Kind::Directory { Ok(()) } else { Err(refused(&entry.path, Rule::NameMalformed)) }
    }

    /// The directory that an entry stands in, with those above it that did not come.
    fn parent(&mut self, path: &[u8], above: &[CString]) -> Result<OwnedFd, Error> {
        let wanted = joined(above);
        if let Some((near, fd)) = self.near.take()
            && near == wanted
        {
            return Ok(fd);
        }
        match beneath(&self.root, &wanted) {
            Ok(fd) => Ok(fd),
            Err(Errno::NOENT) => self.parents(path, above),
            Err(errno) => Err(through(path, errno)),
        }
    }

    fn parents(&mut self, path: &[u8], above: &[CString]) -> Result<OwnedFd, Error> {
        let mut here = open_directory(self.root.as_fd(), c".").map_err(at(path))?;
        for name in above {
            match rustix::fs::mkdirat(&here, name.as_c_str(), Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(at(path)(errno)),
            }
            here = beneath(&here, name.as_bytes()).map_err(|errno| through(path, errno))?;
        }
        Ok(here)
    }

    fn directory(&mut self, parent: &OwnedFd, name: &CString, above: &[CString], entry: &Entry) -> Result<(), Error> {
        let path = &entry.path;
        let make = || rustix::fs::mkdirat(parent, name.as_c_str(), Mode::from_raw_mode(0o700));
        let mut hides = false;
        match make() {
            Ok(()) => {}
            Err(Errno::EXIST) => match kind_of(parent, name) {
                // It came before, or what stands in it did.
                Some(FileType::Directory) => {}
                Some(FileType::CharacterDevice) => {
                    rustix::fs::unlinkat(parent, name.as_c_str(), AtFlags::empty()).map_err(at(path))?;
                    make().map_err(at(path))?;
                    hides = true;
                }
                _ => return Err(refused(path, Rule::Duplicate)),
            },
            Err(errno) => return Err(at(path)(errno)),
        }
        let made = open_directory(parent.as_fd(), name).map_err(at(path))?;
        if let Some((user, group)) = self.owner(entry) {
            rustix::fs::fchown(&made, Some(user), Some(group)).map_err(at(path))?;
        }
        rustix::fs::fchmod(&made, Mode::from_raw_mode(entry.mode & 0o1777 | 0o700)).map_err(at(path))?;
        if hides {
            hide(&made).map_err(at(path))?;
        }
        let mut whole = joined(above);
        whole.push(b'/');
        whole.extend_from_slice(name.as_bytes());
        self.directories_bytes += whole.len() + size_of::<(Vec<u8>, i64)>();
        if self.directories_bytes > DIRECTORIES_BYTES_MAX {
            return Err(refused(path, Rule::TooManyEntries));
        }
        self.directories.push((whole, entry.modified));
        Ok(())
    }

    fn hard(&self, parent: &OwnedFd, name: &CString, path: &[u8], to: &[u8]) -> Result<(), Error> {
        let target = path::components(to).map_err(|rule| match rule {
            Rule::Absolute | Rule::Climbs => refused(path, Rule::LinkEscapes),
            rule => refused(path, rule),
        })?;
        let Some((last, above)) = target.split_last() else { return Err(refused(path, Rule::LinkMissing)) };
        let from = beneath(&self.root, &joined(above)).map_err(|errno| match errno {
            Errno::LOOP | Errno::XDEV => refused(path, Rule::LinkEscapes),
            Errno::NOENT | Errno::NOTDIR => refused(path, Rule::LinkMissing),
            errno => at(path)(errno),
        })?;
        if kind_of(&from, last) != Some(FileType::RegularFile) && kind_of(&from, last) != Some(FileType::Symlink) {
            return Err(refused(path, Rule::LinkMissing));
        }
        new(parent, name, path, || {
            rustix::fs::linkat(&from, last.as_c_str(), parent, name.as_c_str(), AtFlags::empty())
        })
    }

    /// Takes away what a name under this layer shows.
    fn whiteout(&mut self, entry: &Entry, name: &CString, above: &[CString]) -> Result<(), Error> {
        let path = &entry.path;
        let own = |name: &CString| name.as_bytes().starts_with(WHITEOUT_OWN);
        if name.as_bytes() == OPAQUE && !above.iter().any(own) {
            if above.is_empty() {
                self.totals.opaque = true;
                return Ok(());
            }
            let parent = self.parent(path, above)?;
            return hide(&parent).map_err(at(path));
        }
        if own(name) || above.iter().any(own) {
            return Ok(());
        }
        if above.iter().any(|name| name.as_bytes().starts_with(WHITEOUT)) || entry.kind != Kind::File {
            return Err(refused(path, Rule::UnknownKind));
        }
        let gone = match &name.as_bytes()[WHITEOUT.len()..] {
            b"" | b"." | b".." => return Err(refused(path, Rule::NameMalformed)),
            gone => CString::new(gone).map_err(|_| refused(path, Rule::NameMalformed))?,
        };
        let parent = self.parent(path, above)?;
        let made = rustix::fs::mknodat(&parent, gone.as_c_str(), FileType::CharacterDevice, Mode::empty(), 0);
        match made {
            Ok(()) => Ok(()),
            // What this layer itself brings stays, whichever comes first.
            Err(Errno::EXIST) if kind_of(&parent, &gone) == Some(FileType::Directory) => {
                let there = open_directory(parent.as_fd(), &gone).map_err(at(path))?;
                hide(&there).map_err(at(path))
            }
            Err(Errno::EXIST) => Ok(()),
            Err(errno) => Err(at(path)(errno)),
        }
    }

    fn finish(&mut self) -> Result<(), Error> {
        self.near = None;
        for (path, seconds) in std::mem::take(&mut self.directories).into_iter().rev() {
            let there = beneath(&self.root, path.strip_prefix(b"/").unwrap_or(&path)).map_err(at(&path))?;
            rustix::fs::futimens(&there, &times(seconds)).map_err(at(&path))?;
        }
        rustix::fs::syncfs(&self.root).map_err(at(b"."))
    }
}

fn joined(above: &[CString]) -> Vec<u8> {
    above.iter().map(|name| name.as_bytes()).collect::<Vec<_>>().join(&b'/')
}

fn open_directory(parent: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

/// Opens a directory below another, through no link.
fn beneath(root: &OwnedFd, path: &[u8]) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { b"." } else { path };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat2(root, path, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)
}

/// Why there is no way to where an entry is to stand.
fn through(path: &[u8], errno: Errno) -> Error {
    match errno {
        Errno::LOOP | Errno::XDEV => refused(path, Rule::ThroughLink),
        Errno::NOTDIR => refused(path, Rule::NoParent),
        errno => at(path)(errno),
    }
}

fn kind_of(parent: &OwnedFd, name: &CStr) -> Option<FileType> {
    let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    Some(FileType::from_raw_mode(stat.st_mode))
}

/// Makes what must not be there yet; a whiteout of this layer gives way, as its entries come first.
fn new<T>(parent: &OwnedFd, name: &CString, path: &[u8], make: impl Fn() -> Result<T, Errno>) -> Result<T, Error> {
    match make() {
        Ok(made) => Ok(made),
        Err(Errno::EXIST) if kind_of(parent, name) == Some(FileType::CharacterDevice) => {
            rustix::fs::unlinkat(parent, name.as_c_str(), AtFlags::empty()).map_err(at(path))?;
            make().map_err(at(path))
        }
        Err(Errno::EXIST) => Err(refused(path, Rule::Duplicate)),
        Err(errno) => Err(at(path)(errno)),
    }
}

fn create(parent: &OwnedFd, name: &CString) -> Result<File, Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name.as_c_str(), flags, Mode::from_raw_mode(0o600)).map(File::from)
}

fn copy<R: Read>(
    source: &mut R,
    mut file: &File,
    bytes: u64,
    path: &[u8],
    broken: &impl Fn(&[u8], Broken) -> Error,
) -> Result<(), Error> {
    let mut buffer = vec![0; READ_BYTES.min(usize::try_from(bytes).unwrap_or(READ_BYTES))];
    let mut left = bytes;
    while left > 0 {
        let room = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        fill(source, &mut buffer[..room]).map_err(|error| broken(path, error))?;
        file.write_all(&buffer[..room])
            .map_err(|error| Error::Unpack { detail: format!("`{}`: {error}", shown(path)) })?;
        left -= room as u64;
    }
    Ok(())
}

fn skip(source: &mut impl Read, bytes: u64) -> Result<(), Broken> {
    let skipped = std::io::copy(&mut source.take(bytes), &mut std::io::sink()).map_err(Broken::Source)?;
    if skipped == bytes { Ok(()) } else { Err(Rule::Truncated.into()) }
}

/// Gives a file its mode and time, after its content.
fn settle(file: &File, mode: u32, seconds: i64) -> Result<(), Errno> {
    rustix::fs::fchmod(file, Mode::from_raw_mode(mode))?;
    rustix::fs::futimens(file, &times(seconds))
}

/// Makes nothing under this layer seen in a directory.
fn hide(directory: &OwnedFd) -> Result<(), Errno> {
    rustix::fs::fsetxattr(directory, OPAQUE_ATTRIBUTE, b"y", XattrFlags::empty())
}

#[cfg(test)]
#[path = "layer_tests.rs"]
mod tests;
