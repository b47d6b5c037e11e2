//! Writes the workspace as an archive to standard output, in a child of PID 1, while the programs inside stand still. The same
//! content gives the same bytes: order, owner, headers and holes follow from the content alone.

use crate::files::{Failure, Name, device, is_mount, names};
use crate::mirror::Others;
use crate::readable::Readable;
use crate::tar::{BLOCK_BYTES, DEPTH_MAX, END_BLOCKS, Entry, Kind, Modified, Owners, PATH_BYTES_MAX, padding};
use crate::{halt, holes};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use sandbox::{ArchiveLimits, RelPath, Rule, Totals};
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufWriter, StdoutLock, Write};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::FileExt as _;

/// What is written at once.
const WRITE_BYTES: usize = 64 << 10;

/// Exports the workspace without what is `left_out`; the totals go to standard error.
pub(crate) fn export(limits: ArchiveLimits, left_out: &[RelPath], owners: Owners) -> Result<(), Failure> {
    if !halt::await_halt(halt::Waiting::IsAHalt) {
        return Err(failed(b".", None, "the programs inside did not come to a halt"));
    }
    let out = BufWriter::with_capacity(WRITE_BYTES, std::io::stdout().lock());
    let left_out = left_out.iter().map(|path| path.as_str().as_bytes().to_vec()).collect();
    let mut run =
        Run { out, limits, totals: Totals::default(), linked: HashMap::new(), left_out, others: Others::None, owners };
    let root = rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let root = root.map_err(|errno| failed(b".", Some(errno), "the root"))?;
    let name = Name::new(crate::WORKSPACE.trim_start_matches('/')).unwrap_or_default();
    let stat = rustix::fs::statat(&root, name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW);
    let stat = stat.map_err(|errno| failed(b".", Some(errno), "the workspace"))?;
    run.directory(root.as_fd(), &name, &stat, &mut Vec::new())?;
    run.end()
}

/// Writes a directory as an archive while the programs go on; a file that changes while it is read is an error.
pub(crate) fn download(path: &RelPath, limits: ArchiveLimits, owners: Owners) -> Result<(), Failure> {
    let refused = |errno| crate::files::told("download", path)(errno);
    let out = BufWriter::with_capacity(WRITE_BYTES, std::io::stdout().lock());
    let (linked, left_out) = (HashMap::new(), HashSet::new());
    let mut run = Run { out, limits, totals: Totals::default(), linked, left_out, others: Others::Running, owners };
    let (parent, name) = match path.is_root() {
        true => {
            let root = rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
            (root.map_err(refused)?, Name::new(crate::WORKSPACE.trim_start_matches('/')).unwrap_or_default())
        }
        false => crate::tree::stands("download", path)?,
    };
    let stat = rustix::fs::statat(&parent, name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW).map_err(refused)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        return Err(Failure::new("download", path, "not a directory"));
    }
    run.directory(parent.as_fd(), &name, &stat, &mut Vec::new())?;
    run.end()
}

struct Run {
    out: BufWriter<StdoutLock<'static>>,
    limits: ArchiveLimits,
    totals: Totals,
    /// The first path of each file with several names.
    linked: HashMap<(u64, u64), Vec<u8>>,
    /// What stays out, with everything below: it is not even looked at, since a mount may make whoever looks wait.
    left_out: HashSet<Vec<u8>>,
    /// Whether programs go on: what they have made unreadable for themselves is then an error.
    others: Others,
    owners: Owners,
}

fn failed(path: &[u8], errno: Option<Errno>, detail: &str) -> Failure {
    let detail = errno.map_or_else(|| detail.to_owned(), |errno| format!("{detail}: {errno}"));
    Failure { operation: "export", path: shown(path), errno, detail, refused: None }
}

/// A path as it can be told: hostile bytes replaced.
pub(crate) fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

fn broken(path: &[u8], error: &std::io::Error) -> Failure {
    failed(path, Errno::from_io_error(error), &error.to_string())
}

fn told(path: &[u8]) -> impl Fn(Errno) -> Failure {
    let path = path.to_vec();
    move |errno| failed(&path, Some(errno), "can't be read")
}

/// The path of an entry below the workspace.
fn joined(path: &[Name]) -> Vec<u8> {
    if path.is_empty() {
        return b".".to_vec();
    }
    path.iter().map(|name| name.as_bytes()).collect::<Vec<_>>().join(&b'/')
}

const fn modified(stat: &Stat) -> Modified {
    #[expect(clippy::cast_possible_truncation, reason = "below a thousand million")]
    Modified { seconds: stat.st_mtime, nanoseconds: stat.st_mtime_nsec as u32 }
}

impl Run {
    /// Ends the archive; the totals go to standard error.
    fn end(mut self) -> Result<(), Failure> {
        self.write(b".", &[0; BLOCK_BYTES * END_BLOCKS])?;
        self.out.flush().map_err(|error| broken(b".", &error))?;
        let text = serde_json::to_vec(&self.totals).unwrap_or_default();
        std::io::stderr().write_all(&text).map_err(|error| broken(b".", &error))
    }

    fn open<'a>(&self, parent: BorrowedFd<'a>, name: &'a Name, stat: &Stat) -> Result<Readable<'a>, Errno> {
        match self.others {
            Others::None => Readable::open(parent, name, stat),
            Others::Running => Readable::open_as_it_is(parent, name, stat),
        }
    }

    fn write(&mut self, path: &[u8], bytes: &[u8]) -> Result<(), Failure> {
        self.out.write_all(bytes).map_err(|error| broken(path, &error))?;
        self.totals.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Counts an entry, and writes its headers.
    fn begin(&mut self, path: &[u8], kind: Kind, stat: &Stat) -> Result<(), Failure> {
        let over = |rule| Failure { refused: Some(rule), ..failed(path, None, "beyond a limit of the archive") };
        self.totals.entries += 1;
        if self.totals.entries > self.limits.entries_max {
            return Err(over(Rule::TooManyEntries));
        }
        let stored = kind.stored();
        let owner = self.owners.turned((stat.st_uid, stat.st_gid));
        let entry = Entry { path: path.to_vec(), kind, mode: stat.st_mode & 0o7777, owner, modified: modified(stat) };
        let headers = entry.headers();
        let end = self.totals.bytes.saturating_add(headers.len() as u64).saturating_add(stored);
        if end.saturating_add((BLOCK_BYTES * (END_BLOCKS + 1)) as u64) > self.limits.bytes_max {
            return Err(over(Rule::TooLarge));
        }
        self.write(path, &headers)
    }

    fn directory(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &Name,
        stat: &Stat,
        path: &mut Vec<Name>,
    ) -> Result<(), Failure> {
        let at = joined(path);
        if path.len() > DEPTH_MAX || at.len() > PATH_BYTES_MAX {
            let detail = format!("nested too deep; depth_max = {DEPTH_MAX}, path_bytes_max = {PATH_BYTES_MAX}");
            return Err(failed(&at[..at.len().min(200)], None, &detail));
        }
        self.begin(&at, Kind::Directory, stat)?;
        let opened = self.open(parent, name, stat).map_err(told(&at))?;
        let done = self.entries(opened.fd.as_fd(), path);
        opened.put_back();
        done
    }

    fn entries(&mut self, directory: BorrowedFd<'_>, path: &mut Vec<Name>) -> Result<(), Failure> {
        let own = device(directory).map_err(told(&joined(path)))?;
        for name in names(directory).map_err(told(&joined(path)))? {
            path.push(name.clone());
            let stays_out = !self.left_out.is_empty() && self.left_out.contains(&joined(path));
            path.pop();
            if stays_out {
                continue;
            }
            let stat = rustix::fs::statat(directory, name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW);
            path.push(name.clone());
            let done = match stat {
                // What is mounted in the workspace is not the workspace's.
                Ok(stat) if is_mount(&stat, own) => {
                    self.totals.left_out += 1;
                    Ok(())
                }
                Ok(stat) => self.entry(directory, &name, &stat, path),
                Err(errno) => Err(told(&joined(path))(errno)),
            };
            path.pop();
            done?;
        }
        Ok(())
    }

    fn entry(&mut self, parent: BorrowedFd<'_>, name: &Name, stat: &Stat, path: &mut Vec<Name>) -> Result<(), Failure> {
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => self.directory(parent, name, stat, path),
            FileType::RegularFile => self.file(parent, name, stat, &joined(path)),
            FileType::Symlink => {
                let at = joined(path);
                let to = rustix::fs::readlinkat(parent, name.as_c_str(), Vec::new()).map_err(told(&at))?;
                self.begin(&at, Kind::Link { to: to.into_bytes() }, stat)
            }
            _ => {
                self.totals.left_out += 1;
                Ok(())
            }
        }
    }

    fn file(&mut self, parent: BorrowedFd<'_>, name: &Name, stat: &Stat, at: &[u8]) -> Result<(), Failure> {
        if stat.st_nlink > 1 {
            if let Some(first) = self.linked.get(&(stat.st_dev, stat.st_ino)) {
                let to = first.clone();
                return self.begin(at, Kind::Hard { to }, stat);
            }
            self.linked.insert((stat.st_dev, stat.st_ino), at.to_vec());
        }
        let opened = self.open(parent, name, stat).map_err(told(at))?;
        let opened = opened.put_back();
        let bytes = u64::try_from(stat.st_size).unwrap_or(0);
        let map = holes::map(opened.as_fd(), bytes).map_err(told(at))?;
        let file = File::from(opened);
        match map {
            None => {
                self.begin(at, Kind::File { bytes }, stat)?;
                self.data(&file, 0, bytes, at)?;
                self.write(at, &[0; BLOCK_BYTES][..padding(bytes)])?;
            }
            Some(segments) => {
                let text = holes::to_text(&segments, bytes);
                let stored = text.len() as u64 + segments.iter().map(|segment| segment.bytes).sum::<u64>();
                self.begin(at, Kind::Sparse { bytes, stored }, stat)?;
                self.write(at, &text)?;
                for segment in segments {
                    self.data(&file, segment.at, segment.bytes, at)?;
                }
                self.write(at, &[0; BLOCK_BYTES][..padding(stored)])?;
            }
        }
        let now = rustix::fs::fstat(&file).map_err(told(at))?;
        let same = |of: &Stat| (of.st_size, of.st_mtime, of.st_mtime_nsec);
        if same(&now) == same(stat) { Ok(()) } else { Err(failed(at, None, "changed while it was read")) }
    }

    fn data(&mut self, file: &File, mut at: u64, bytes: u64, path: &[u8]) -> Result<(), Failure> {
        let (end, mut buffer) = (at + bytes, [0; WRITE_BYTES]);
        while at < end {
            let room = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
            let length = file.read_at(&mut buffer[..room], at).map_err(|error| broken(path, &error))?;
            if length == 0 {
                return Err(failed(path, None, "changed while it was read"));
            }
            self.write(path, &buffer[..length])?;
            at += length as u64;
        }
        Ok(())
    }
}
