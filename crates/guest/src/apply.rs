//! All changes or none: each written file is staged beside its target, then all are renamed into place; when one fails, what
//! was renamed goes back. A crash in between leaves old or new files, never half of one.

use crate::account::{Account, Accounts};
use crate::files::{Failure, open, told};
use crate::sys;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::process::Gid;
use sandbox::RelPath;
use sandbox::wire::{CHANGES_BYTES_MAX, ChangeHead};
use std::fs::File;
use std::io::{Read, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};

/// A change of permission bits.
struct Modes {
    path: RelPath,
    new: Mode,
    /// What there was, once it is changed.
    old: Option<Mode>,
}

/// A change of the group that something belongs to.
struct Given {
    path: RelPath,
    new: u32,
    /// What there was, once it is changed.
    old: Option<u32>,
}

/// Giving files away.
const CHOWN: u64 = 1;

/// Becomes the user whose files are changed, who may also give them to a group.
pub(crate) fn become_giver(account: &Account) -> Result<(), Errno> {
    sys::become_user_keeping(account.user, account.group, &account.groups, CHOWN)
}

/// A change that is ready to be made with renames alone.
struct Staged {
    path: RelPath,
    parent: OwnedFd,
    target: String,
    /// The new content before the rename, the old content after it.
    beside: String,
    kind: Kind,
    done: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Swaps with what stands there.
    Replace,
    /// Puts a file where none stands.
    Create,
    /// Takes a file away.
    Remove,
}

#[derive(Default)]
struct Plan {
    staged: Vec<Staged>,
    /// Permission bits that change, after everything else.
    modes: Vec<Modes>,
    /// Groups that change, before the modes.
    given: Vec<Given>,
    /// Directories that were made, parents first: the directory they stand in and their name.
    made: Vec<(OwnedFd, String)>,
}

/// Reads the changes from standard input and makes them.
pub(crate) fn apply(accounts: Option<&Accounts>) -> Result<(), Failure> {
    let mut input = std::io::stdin().lock();
    let heads = heads(&mut input)?;
    let mut plan = Plan::default();
    let outcome = plan.stage(&heads, accounts, &mut input).and_then(|()| plan.commit());
    match outcome {
        Ok(()) => plan.forget_old(),
        Err(_) => plan.undo(),
    }
    outcome
}

fn heads(input: &mut impl Read) -> Result<Vec<ChangeHead>, Failure> {
    let broken = |detail: &str| Failure::new("apply", &RelPath::root(), detail);
    let mut length = [0; 4];
    input.read_exact(&mut length).map_err(|error| broken(&error.to_string()))?;
    let length = u32::from_le_bytes(length) as usize;
    if length > CHANGES_BYTES_MAX {
        return Err(broken(&format!("the list of changes is too long; changes_bytes_max = {CHANGES_BYTES_MAX}")));
    }
    let mut text = vec![0; length];
    input.read_exact(&mut text).map_err(|error| broken(&error.to_string()))?;
    serde_json::from_slice(&text).map_err(|error| broken(&error.to_string()))
}

impl Plan {
    fn stage(
        &mut self,
        heads: &[ChangeHead],
        accounts: Option<&Accounts>,
        input: &mut impl Read,
    ) -> Result<(), Failure> {
        for (number, head) in heads.iter().enumerate() {
            match head {
                ChangeHead::MakeDir { path } => drop(self.directory(path, "mkdir")?),
                ChangeHead::Write { path, bytes, mode } => self.stage_write(number, path, *bytes, *mode, input)?,
                ChangeHead::Remove { path } => self.stage_remove(number, path)?,
                ChangeHead::Group { path, group } => {
                    let known = accounts.and_then(|accounts| accounts.group(group));
                    let unknown =
                        || Failure::new("give", path, &format!("there is no group `{group}` in this sandbox"));
                    self.given.push(Given { path: path.clone(), new: known.ok_or_else(unknown)?, old: None });
                }
                ChangeHead::Mode { path, mode } => {
                    let new = Mode::from_raw_mode(mode & 0o777);
                    self.modes.push(Modes { path: path.clone(), new, old: None });
                }
            }
        }
        Ok(())
    }

    fn stage_write(
        &mut self,
        number: usize,
        path: &RelPath,
        bytes: u64,
        mode: Option<u32>,
        input: &mut impl Read,
    ) -> Result<(), Failure> {
        let told = told("write", path);
        let (Some(above), Some(name)) = (path.parent(), path.file_name()) else { return Err(told(Errno::ISDIR)) };
        let parent = self.directory(&above, "write")?;
        let (kind, old_mode) = match rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => return Err(told(Errno::ISDIR)),
                FileType::RegularFile => (Kind::Replace, Some(stat.st_mode & 0o777)),
                _ => (Kind::Replace, None),
            },
            Err(Errno::NOENT) => (Kind::Create, None),
            Err(error) => return Err(told(error)),
        };
        let beside = beside(number);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&parent, &beside, flags, Mode::from_raw_mode(0o600)).map_err(&told)?;
        // From here on the staged file is the plan's to remove.
        self.staged.push(Staged { path: path.clone(), parent, target: name.to_owned(), beside, kind, done: false });
        let mut file = File::from(file);
        let copied = std::io::copy(&mut input.take(bytes), &mut file).and_then(|copied| file.flush().map(|()| copied));
        let copied = copied.map_err(|error| told(Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
        if copied != bytes {
            return Err(Failure::new("write", path, "its content was cut"));
        }
        let mode = mode.map(|mode| mode & 0o777).or(old_mode).unwrap_or(0o644);
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode)).map_err(&told)
    }

    fn stage_remove(&mut self, number: usize, path: &RelPath) -> Result<(), Failure> {
        let told = told("remove", path);
        let (Some(above), Some(name)) = (path.parent(), path.file_name()) else { return Err(told(Errno::ISDIR)) };
        let parent = open(&above, OFlags::RDONLY | OFlags::DIRECTORY).map_err(&told)?;
        let stat = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(&told)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return Err(told(Errno::ISDIR));
        }
        let (target, beside) = (name.to_owned(), beside(number));
        self.staged.push(Staged { path: path.clone(), parent, target, beside, kind: Kind::Remove, done: false });
        Ok(())
    }

    /// Opens a directory, making it and its parents where they are missing.
    fn directory(&mut self, path: &RelPath, operation: &'static str) -> Result<OwnedFd, Failure> {
        let told = told(operation, path);
        match open(path, OFlags::RDONLY | OFlags::DIRECTORY) {
            Err(Errno::NOENT) => {}
            opened => return opened.map_err(told),
        }
        let mut current = open(&RelPath::root(), OFlags::RDONLY | OFlags::DIRECTORY).map_err(&told)?;
        let mut walked = RelPath::root();
        for name in path.components() {
            walked = walked.join(name).map_err(|error| Failure::new(operation, path, &error.to_string()))?;
            match rustix::fs::mkdirat(&current, name, Mode::from_raw_mode(0o755)) {
                Ok(()) => self.made.push((copy(&current).map_err(&told)?, name.to_owned())),
                Err(Errno::EXIST) => {}
                Err(error) => return Err(told(error)),
            }
            // From the top again, so that links inside are followed as everywhere, and only inside.
            current = open(&walked, OFlags::RDONLY | OFlags::DIRECTORY).map_err(&told)?;
        }
        Ok(current)
    }

    fn commit(&mut self) -> Result<(), Failure> {
        for staged in &mut self.staged {
            staged.make().map_err(told("write", &staged.path))?;
            staged.done = true;
        }
        for change in &mut self.given {
            let old = give(&change.path, change.new).map_err(told("give", &change.path))?;
            change.old = Some(old);
        }
        for change in &mut self.modes {
            let told = told("write", &change.path);
            // Only what may be opened to be read: a FIFO is never waited for, and a link never followed out.
            let file = open(&change.path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY).map_err(&told)?;
            let old = rustix::fs::fstat(&file).map_err(&told)?.st_mode & 0o7777;
            rustix::fs::fchmod(&file, change.new).map_err(&told)?;
            change.old = Some(Mode::from_raw_mode(old));
        }
        Ok(())
    }

    /// Puts everything back, the last change first.
    fn undo(&mut self) {
        for (change, old) in self.modes.iter().rev().filter_map(|change| Some((change, change.old?))) {
            if let Ok(file) = open(&change.path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY) {
                let _ = rustix::fs::fchmod(file, old);
            }
        }
        for (change, old) in self.given.iter().rev().filter_map(|change| Some((change, change.old?))) {
            let _ = give(&change.path, old);
        }
        for staged in self.staged.iter().rev() {
            staged.take_back();
        }
        for (parent, name) in self.made.iter().rev() {
            let _ = rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR);
        }
    }

    /// After the commit: what was replaced or removed goes.
    fn forget_old(&self) {
        for staged in self.staged.iter().filter(|staged| staged.kind != Kind::Create) {
            let _ = rustix::fs::unlinkat(&staged.parent, &staged.beside, AtFlags::empty());
        }
    }
}

impl Staged {
    fn rename(&self, from: &str, to: &str, flags: RenameFlags) -> Result<(), Errno> {
        rustix::fs::renameat_with(&self.parent, from, &self.parent, to, flags)
    }

    fn make(&self) -> Result<(), Errno> {
        match self.kind {
            Kind::Replace => self.rename(&self.beside, &self.target, RenameFlags::EXCHANGE),
            Kind::Create => self.rename(&self.beside, &self.target, RenameFlags::NOREPLACE),
            Kind::Remove => self.rename(&self.target, &self.beside, RenameFlags::NOREPLACE),
        }
    }

    fn take_back(&self) {
        if self.done {
            let _ = match self.kind {
                Kind::Replace => self.rename(&self.beside, &self.target, RenameFlags::EXCHANGE),
                Kind::Create => self.rename(&self.target, &self.beside, RenameFlags::NOREPLACE),
                Kind::Remove => self.rename(&self.beside, &self.target, RenameFlags::NOREPLACE),
            };
        }
        if self.kind != Kind::Remove {
            let _ = rustix::fs::unlinkat(&self.parent, &self.beside, AtFlags::empty());
        }
    }
}

/// Gives a file or directory that is one's own to a group; gives whose it was. Somebody else's, which a link may lead to, stays
/// theirs.
fn give(path: &RelPath, group: u32) -> Result<u32, Errno> {
    let file = open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
    let stat = rustix::fs::fstat(&file)?;
    if stat.st_uid != rustix::process::geteuid().as_raw() {
        return Err(Errno::PERM);
    }
    let old = stat.st_gid;
    sys::set_capabilities(CHOWN, CHOWN)?;
    let given = rustix::fs::fchown(&file, None, Some(Gid::from_raw(group)));
    sys::set_capabilities(0, CHOWN)?;
    given.map(|()| old)
}

fn copy(fd: &OwnedFd) -> Result<OwnedFd, Errno> {
    rustix::fs::openat2(
        fd.as_fd(),
        ".",
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::BENEATH,
    )
}

/// A name beside the target that nobody uses by chance; staging refuses to reuse one that stands there.
fn beside(number: usize) -> String {
    let process = std::process::id();
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    format!(".topside-{process}-{}-{number}", now.tv_nsec)
}
