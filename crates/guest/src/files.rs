//! File operations below the workspace, each in a child of its own so that PID 1 never waits for a disk. Paths are resolved
//! by the kernel beneath the workspace; only regular files are opened, and never in a way that could block on a FIFO.

use crate::account::Accounts;
use crate::tar::Owners;
use crate::{Layer, apply, export, hold, import, tree};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use sandbox::mount::Fault;
use sandbox::wire::{FileFailure, Listed, Work};
use sandbox::{FileKind, RelPath, Rule, Stat};
use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;

/// Entries of one directory that are looked at, at most.
const SCAN_ENTRIES_MAX: usize = 1_000_000;
/// How deep a walk goes.
pub(crate) const DEPTH_MAX: usize = 256;

/// A failure, before it is told.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) operation: &'static str,
    pub(crate) path: String,
    pub(crate) errno: Option<Errno>,
    pub(crate) detail: String,
    /// The rule that an archive broke.
    pub(crate) refused: Option<Rule>,
}

impl Failure {
    pub(crate) fn new(operation: &'static str, path: &RelPath, detail: &str) -> Self {
        Self { operation, path: path.to_string(), errno: None, detail: detail.to_owned(), refused: None }
    }
}

/// Says which operation on which path an error number came from.
pub(crate) fn told(operation: &'static str, path: &RelPath) -> impl Fn(Errno) -> Failure {
    let path = path.to_string();
    move |errno| Failure { operation, path: path.clone(), errno: Some(errno), detail: words(errno), refused: None }
}

/// Why a bucket that is shown did not answer, where it is one that did not.
fn fault(errno: Errno, path: &str) -> Option<Fault> {
    match errno {
        // Only who serves a bucket says so.
        Errno::TIMEDOUT => Some(Fault::Late),
        Errno::NOTCONN | Errno::CONNABORTED => Some(Fault::Ended),
        // What the kernel makes of an answer that a page of a file waited for.
        Errno::IO => {
            let mut above: Option<RelPath> = path.parse().ok();
            while let Some(path) = above {
                if let Ok(found) = open(&path, OFlags::PATH) {
                    let own = device(workspace().ok()?).ok()?;
                    return (device(found).ok()? != own).then_some(Fault::Unanswered);
                }
                above = path.parent();
            }
            None
        }
        _ => None,
    }
}

fn words(errno: Errno) -> String {
    match errno {
        Errno::NOENT => "no such file or directory".to_owned(),
        Errno::XDEV | Errno::LOOP => "leads out of the workspace, or through too many links".to_owned(),
        Errno::NOSPC => "the workspace is full".to_owned(),
        Errno::ISDIR => "is a directory".to_owned(),
        Errno::NOTDIR => "a component is not a directory".to_owned(),
        errno => errno.to_string(),
    }
}

/// As whom an operation on files is done, where there are several users: the whole workspace as who may read and give away all
/// of it, everything else as the user whose the workspace is.
fn settle(work: &Work, accounts: &Accounts) -> Result<(), Errno> {
    match work {
        Work::Export { .. } | Work::Import { .. } | Work::Sync | Work::Hold { .. } => Ok(()),
        Work::Apply => apply::become_giver(&accounts.main),
        _ => accounts.main.become_it(),
    }
}

/// Performs a file operation with input and output on the standard descriptors; returns the exit code. `layer` is where a
/// workspace in memory is kept, for an operation that must not end before its files are kept.
pub(crate) fn perform(work: Work, layer: Option<&Layer>, accounts: Option<&Accounts>) -> i32 {
    if accounts.is_some_and(|accounts| settle(&work, accounts).is_err()) {
        return 126;
    }
    let owners = accounts.map_or(Owners::One, |accounts| Owners::Many { own: (accounts.own.user, accounts.own.group) });
    let done = match work {
        Work::Program { .. } | Work::Commands | Work::Dial { .. } => return 125,
        Work::Read { path, offset, bytes_max } => read(&path, offset, bytes_max),
        Work::Stat { path } => stat(&path).and_then(|stat| answer(&stat)),
        Work::List { path, entries_max } => list(&path, entries_max).and_then(|entries| answer(&entries)),
        Work::Changed { entries_max } => changed(entries_max).and_then(|entries| answer(&entries)),
        Work::Export { limits, left_out } => export::export(limits, &left_out, owners),
        Work::Sync => hold::sync(),
        Work::Hold { .. } => hold::hold(),
        Work::Import { limits } => import::import(limits, layer, owners).and_then(|totals| answer(&totals)),
        Work::Apply => apply::apply(accounts),
        Work::Tree(work) => tree::perform(work, owners),
    };
    let Err(failure) = done else { return 0 };
    let fault = failure.errno.and_then(|errno| fault(errno, &failure.path));
    let failure = FileFailure {
        operation: failure.operation.to_owned(),
        path: failure.path,
        missing: failure.errno == Some(Errno::NOENT),
        detail: failure.detail,
        refused: failure.refused,
        fault,
    };
    let text = serde_json::to_vec(&failure).unwrap_or_default();
    let _ = std::io::stderr().write_all(&text);
    1
}

pub(crate) fn answer(value: &impl serde::Serialize) -> Result<(), Failure> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let written = serde_json::to_writer(&mut out, value).map_err(std::io::Error::from).and_then(|()| out.flush());
    written.map_err(|error| Failure {
        operation: "answer",
        path: ".".to_owned(),
        errno: Errno::from_io_error(&error),
        detail: error.to_string(),
        refused: None,
    })
}

/// The workspace itself.
pub(crate) fn workspace() -> Result<OwnedFd, Errno> {
    rustix::fs::open(crate::WORKSPACE, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// Opens `path` beneath the workspace. Links are followed only as far as they stay inside.
pub(crate) fn open(path: &RelPath, flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(workspace()?, path.as_str(), flags | OFlags::CLOEXEC, Mode::empty(), resolve)
}

fn read(path: &RelPath, offset: u64, bytes_max: u64) -> Result<(), Failure> {
    let told = told("read", path);
    let file = open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY).map_err(&told)?;
    let kind = kind_of(rustix::fs::fstat(&file).map_err(&told)?.st_mode);
    match kind {
        FileKind::File => {}
        FileKind::Directory => return Err(told(Errno::ISDIR)),
        _ => return Err(Failure::new("read", path, "not a regular file")),
    }
    let (file, mut out) = (File::from(file), std::io::stdout().lock());
    let (mut at, mut left, mut buffer) = (offset, bytes_max, vec![0; 128 << 10]);
    let broken = |error: std::io::Error| match Errno::from_io_error(&error) {
        Some(errno) => told(errno),
        None => Failure::new("read", path, &error.to_string()),
    };
    while left > 0 {
        let room = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let length = file.read_at(&mut buffer[..room], at).map_err(broken)?;
        if length == 0 {
            break;
        }
        out.write_all(&buffer[..length]).map_err(broken)?;
        at += length as u64;
        left -= length as u64;
    }
    out.flush().map_err(broken)
}

fn stat(path: &RelPath) -> Result<Stat, Failure> {
    let told = told("stat", path);
    let found = match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => {
            let parent = open(&parent, OFlags::PATH | OFlags::DIRECTORY).map_err(&told)?;
            rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
        }
        _ => rustix::fs::fstat(workspace().map_err(&told)?),
    };
    Ok(stat_of(&found.map_err(&told)?))
}

fn list(path: &RelPath, entries_max: usize) -> Result<Vec<Listed>, Failure> {
    let told = told("list", path);
    let directory = open(path, OFlags::RDONLY | OFlags::DIRECTORY).map_err(&told)?;
    let mut names = names(&directory).map_err(&told)?;
    names.truncate(entries_max);
    let stat = |name: &Name| rustix::fs::statat(&directory, name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW);
    // An entry that went away meanwhile is no entry.
    let entries =
        names.iter().filter_map(|name| Some((name.to_string_lossy().into_owned(), stat_of(&stat(name).ok()?))));
    Ok(entries.collect())
}

fn changed(entries_max: usize) -> Result<Vec<Listed>, Failure> {
    let root = RelPath::root();
    let told = told("changed", &root);
    let directory = open(&root, OFlags::RDONLY | OFlags::DIRECTORY).map_err(&told)?;
    let mut entries = Vec::new();
    walk(&directory, "", 0, entries_max, &mut entries).map_err(&told)?;
    Ok(entries)
}

/// Whether a directory is the top of another file system than the one it stands in: something mounted.
pub(crate) fn is_mount(found: &rustix::fs::Stat, own: u64) -> bool {
    found.st_dev != own && FileType::from_raw_mode(found.st_mode) == FileType::Directory
}

/// The file system that something stands on.
pub(crate) fn device(of: impl AsFd) -> Result<u64, Errno> {
    Ok(rustix::fs::fstat(of)?.st_dev)
}

fn walk(
    directory: &OwnedFd,
    above: &str,
    depth: usize,
    entries_max: usize,
    entries: &mut Vec<Listed>,
) -> Result<(), Errno> {
    let own = device(directory)?;
    for name in names(directory)? {
        if entries.len() >= entries_max || depth >= DEPTH_MAX {
            return Ok(());
        }
        let Ok(found) = rustix::fs::statat(directory, name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW) else { continue };
        if is_mount(&found, own) {
            // A bucket that is shown here is nothing that the workspace holds.
            continue;
        }
        let path = format!("{above}{}", name.to_string_lossy());
        let stat = stat_of(&found);
        entries.push((path.clone(), stat));
        if stat.kind == FileKind::Directory
            && let Ok(below) = open_directory(directory.as_fd(), &name)
        {
            walk(&below, &format!("{path}/"), depth + 1, entries_max, entries)?;
        }
    }
    Ok(())
}

/// A file's name as the kernel has it.
pub(crate) type Name = std::ffi::CString;

/// Opens a directory that stands in `parent`, never through a link.
pub(crate) fn open_directory(parent: BorrowedFd<'_>, name: &Name) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name.as_c_str(), flags, Mode::empty())
}

/// The names in a directory, sorted.
pub(crate) fn names(directory: impl AsFd) -> Result<Vec<Name>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            names.push(name.to_owned());
        }
        if names.len() >= SCAN_ENTRIES_MAX {
            break;
        }
    }
    names.sort_unstable();
    Ok(names)
}

pub(crate) fn kind_of(mode: u32) -> FileKind {
    match FileType::from_raw_mode(mode) {
        FileType::RegularFile => FileKind::File,
        FileType::Directory => FileKind::Directory,
        FileType::Symlink => FileKind::Link,
        _ => FileKind::Other,
    }
}

pub(crate) fn stat_of(found: &rustix::fs::Stat) -> Stat {
    let seconds = u64::try_from(found.st_mtime).unwrap_or(0);
    Stat {
        kind: kind_of(found.st_mode),
        bytes: u64::try_from(found.st_size).unwrap_or(0),
        mode: found.st_mode & 0o7777,
        modified_ms: seconds.saturating_mul(1_000).saturating_add(found.st_mtime_nsec / 1_000_000),
    }
}
