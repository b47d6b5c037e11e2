//! Unpacks an archive from standard input into the empty workspace, in a child of PID 1. Whoever wrote the archive is not
//! trusted: every entry is made new, in a directory that this archive made and that is still open, so that no name leads
//! anywhere else; what no export of ours holds is refused by name.

use crate::export::shown;
use crate::files::{Failure, Name, device, is_mount, names, open_directory};
use crate::tar::{self, Broken, DEPTH_MAX, Entry, Kind, Modified, Owners, PATH_BYTES_MAX, components, padding};
use crate::{Layer, holes, mirror};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Timespec, Timestamps};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};
use sandbox::{ArchiveLimits, RelPath, Rule, Totals};
use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs::File;
use std::io::{BufReader, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;

/// What is read at once.
const READ_BYTES: usize = 64 << 10;
/// Bytes of paths whose modes are set at the end, at most.
const CLOSED_BYTES_MAX: usize = 8 << 20;

/// Imports what comes; the files are durable when it returns, also in `layer`, when there is one.
pub(crate) fn import(limits: ArchiveLimits, layer: Option<&Layer>, owners: Owners) -> Result<Totals, Failure> {
    let source = Counted { source: std::io::stdin().lock(), bytes: 0, bytes_max: limits.bytes_max, over: false };
    let mut source = BufReader::with_capacity(READ_BYTES, source);
    let mut run = Run { owners, ..Run::begin(limits)? };
    run.unpack(&mut source)?;
    let closing = |what: &str, errno| failed(b".", Some(errno), what);
    rustix::fs::syncfs(&run.workspace).map_err(|errno| closing("keeping the files", errno))?;
    if let Some(layer) = layer {
        mirror::save(layer, mirror::Others::None).map_err(|errno| closing("saving the files", errno))?;
        rustix::fs::syncfs(&layer.directory).map_err(|errno| closing("keeping the files", errno))?;
    }
    Ok(Totals { bytes: source.get_ref().bytes, ..run.totals })
}

/// Unpacks what comes into a directory that is there, over what stands in it.
pub(crate) fn upload(path: &RelPath, limits: ArchiveLimits) -> Result<Totals, Failure> {
    let told = crate::files::told("upload", path);
    let source = Counted { source: std::io::stdin().lock(), bytes: 0, bytes_max: limits.bytes_max, over: false };
    let mut source = BufReader::with_capacity(READ_BYTES, source);
    let workspace = crate::files::open(path, OFlags::RDONLY | OFlags::DIRECTORY).map_err(told)?;
    let mut run = Run { merges: true, ..Run::over(limits, workspace) };
    run.unpack(&mut source)?;
    Ok(Totals { bytes: source.get_ref().bytes, ..run.totals })
}

/// Counts what is read, and ends where the limit is.
struct Counted<R> {
    source: R,
    bytes: u64,
    bytes_max: u64,
    over: bool,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = self.source.read(buffer)?;
        self.bytes += length as u64;
        if self.bytes > self.bytes_max {
            self.over = true;
            return Err(std::io::Error::other("beyond bytes_max"));
        }
        Ok(length)
    }
}

/// A directory that entries may still come for.
struct Open {
    name: CString,
    fd: OwnedFd,
    mode: u32,
    owner: (u32, u32),
    modified: Modified,
}

struct Run {
    limits: ArchiveLimits,
    workspace: OwnedFd,
    /// What the archive says of the workspace itself.
    root: Option<(u32, (u32, u32), Modified)>,
    /// The directories from the workspace down to where the last entry was.
    open: Vec<Open>,
    /// Directories that their owner may not enter, whose modes are set last: what stands in one before the one itself.
    closed: Vec<(Vec<u8>, u32)>,
    closed_bytes: usize,
    totals: Totals,
    /// Whether there may be something already: directories stay, anything else is replaced.
    merges: bool,
    /// Whose files are made; what is uploaded becomes the files of whoever asked.
    owners: Owners,
    /// Directories that are there already, because a bucket is shown below them.
    places: BTreeSet<Vec<u8>>,
}

/// Whether a workspace holds nothing but buckets that are shown in it, and the directories in which they stand; those go to
/// `places`.
fn lead_to_mounts(
    directory: BorrowedFd<'_>,
    path: &mut Vec<Name>,
    own: u64,
    places: &mut BTreeSet<Vec<u8>>,
) -> Result<bool, Errno> {
    let names = names(directory)?;
    if names.is_empty() {
        // The top may be empty; what stands in it may not.
        return Ok(path.is_empty());
    }
    for name in names {
        let stat = rustix::fs::statat(directory, name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW)?;
        if is_mount(&stat, own) {
            continue;
        }
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory || path.len() >= DEPTH_MAX {
            return Ok(false);
        }
        let below = open_directory(directory, &name)?;
        path.push(name);
        let leads = lead_to_mounts(below.as_fd(), path, own, places)?;
        places.insert(path.iter().map(|name| name.as_bytes()).collect::<Vec<_>>().join(&b'/'));
        path.pop();
        if !leads {
            return Ok(false);
        }
    }
    Ok(true)
}

fn failed(path: &[u8], errno: Option<Errno>, detail: &str) -> Failure {
    let detail = match errno {
        Some(Errno::NOSPC | Errno::DQUOT) => format!("{detail}: the workspace is full"),
        Some(errno) => format!("{detail}: {errno}"),
        None => detail.to_owned(),
    };
    Failure { operation: "import", path: shown(path), errno, detail, refused: None }
}

fn refused(path: &[u8], rule: Rule) -> Failure {
    Failure { refused: Some(rule), ..failed(path, None, rule.name()) }
}

fn told(path: &[u8]) -> impl Fn(Errno) -> Failure {
    let path = path.to_vec();
    move |errno| failed(&path, Some(errno), "can't be made")
}

const fn times(modified: Modified) -> Timestamps {
    let time = Timespec { tv_sec: modified.seconds, tv_nsec: modified.nanoseconds as i64 };
    Timestamps { last_access: time, last_modification: time }
}

type Source<R> = BufReader<Counted<R>>;

impl Run {
    fn begin(limits: ArchiveLimits) -> Result<Self, Failure> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let workspace = rustix::fs::open(crate::WORKSPACE, flags, Mode::empty()).map_err(told(b"."))?;
        let mut places = BTreeSet::new();
        let own = device(&workspace).map_err(told(b"."))?;
        let is_free = lead_to_mounts(workspace.as_fd(), &mut Vec::new(), own, &mut places).map_err(told(b"."))?;
        if !is_free {
            return Err(refused(b".", Rule::NotEmpty));
        }
        Ok(Self { places, ..Self::over(limits, workspace) })
    }

    fn over(limits: ArchiveLimits, workspace: OwnedFd) -> Self {
        let (open, closed, totals) = (Vec::new(), Vec::new(), Totals::default());
        let (owners, places) = (Owners::One, BTreeSet::new());
        Self { limits, workspace, root: None, open, closed, closed_bytes: 0, totals, merges: false, owners, places }
    }

    /// Takes away what stands in the way of something that is no directory.
    fn make_room(&self, name: &CString, path: &[u8]) -> Result<(), Failure> {
        if !self.merges {
            return Ok(());
        }
        match rustix::fs::unlinkat(self.here(), name.as_c_str(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(told(path)(errno)),
        }
    }

    fn unpack<R: Read>(&mut self, source: &mut Source<R>) -> Result<(), Failure> {
        let mut last = b".".to_vec();
        while let Some(entry) = tar::next(source).map_err(|error| self.why(source, &last, error))? {
            last.clone_from(&entry.path);
            self.totals.entries += 1;
            if self.totals.entries > self.limits.entries_max {
                return Err(refused(&last, Rule::TooManyEntries));
            }
            self.entry(source, &entry)?;
        }
        let mut rest = [0; 4_096];
        loop {
            match source.read(&mut rest) {
                Ok(0) => break,
                Ok(length) if rest[..length].iter().all(|byte| *byte == 0) => {}
                Ok(_) => return Err(refused(&last, Rule::Malformed)),
                Err(error) => return Err(self.why(source, &last, Broken::Source(error))),
            }
        }
        self.finish()
    }

    #[expect(clippy::unused_self, reason = "reads beside the methods that call it")]
    fn why<R>(&self, source: &Source<R>, path: &[u8], error: Broken) -> Failure {
        match error {
            _ if source.get_ref().over => refused(path, Rule::TooLarge),
            Broken::Rule(rule) => refused(path, rule),
            Broken::Source(error) => failed(path, Errno::from_io_error(&error), "the archive can't be read"),
        }
    }

    fn entry<R: Read>(&mut self, source: &mut Source<R>, entry: &Entry) -> Result<(), Failure> {
        let path = &entry.path;
        let components = components(path).map_err(|rule| refused(path, rule))?;
        let Some((name, above)) = components.split_last() else { return self.root(entry) };
        if self.root.is_none() {
            return Err(refused(path, Rule::NoParent));
        }
        self.enter(path, above)?;
        match &entry.kind {
            Kind::Directory => self.directory(path, name, entry),
            Kind::File { bytes } => {
                let file = self.create(path, name)?;
                self.data(source, &file, 0, *bytes, path)?;
                self.skip(source, padding(*bytes), path)?;
                self.settle(&file, entry)
            }
            Kind::Sparse { bytes, stored } => {
                let segments =
                    holes::from_text(source, *bytes, *stored).map_err(|error| self.why(source, path, error))?;
                let file = self.create(path, name)?;
                rustix::fs::ftruncate(&file, *bytes).map_err(told(path))?;
                for segment in segments {
                    self.data(source, &file, segment.at, segment.bytes, path)?;
                }
                self.skip(source, padding(*stored), path)?;
                self.settle(&file, entry)
            }
            Kind::Link { to } => self.link(path, name, to, entry),
            Kind::Hard { to } => self.hard(path, name, to),
        }
    }

    /// The workspace itself comes first, once.
    fn root(&mut self, entry: &Entry) -> Result<(), Failure> {
        match (&entry.kind, self.root) {
            (Kind::Directory, None) => self.root = Some((entry.mode, entry.owner, entry.modified)),
            (Kind::Directory, Some(_)) => return Err(refused(&entry.path, Rule::Duplicate)),
            _ => return Err(refused(&entry.path, Rule::NameMalformed)),
        }
        Ok(())
    }

    /// Leaves the open directories until the last is the one that an entry stands in.
    fn enter(&mut self, path: &[u8], above: &[CString]) -> Result<(), Failure> {
        let same = self.open.iter().zip(above).take_while(|(open, name)| open.name == **name).count();
        while self.open.len() > same {
            self.leave()?;
        }
        let Some(missing) = above.get(same) else { return Ok(()) };
        let found = rustix::fs::statat(self.here(), missing.as_c_str(), AtFlags::SYMLINK_NOFOLLOW);
        let through = found.is_ok_and(|found| FileType::from_raw_mode(found.st_mode) == FileType::Symlink);
        Err(refused(path, if through { Rule::ThroughLink } else { Rule::NoParent }))
    }

    fn here(&self) -> &OwnedFd {
        self.open.last().map_or(&self.workspace, |open| &open.fd)
    }

    /// Gives the last open directory its time and mode, which nothing below it changes any more.
    fn leave(&mut self) -> Result<(), Failure> {
        let path = self.open.iter().map(|open| open.name.as_bytes()).collect::<Vec<_>>().join(&b'/');
        let Some(open) = self.open.pop() else { return Ok(()) };
        self.give(&open.fd, open.owner, &path)?;
        rustix::fs::futimens(&open.fd, &times(open.modified)).map_err(told(&path))?;
        if open.mode & 0o700 == 0o700 {
            return rustix::fs::fchmod(&open.fd, Mode::from_raw_mode(open.mode)).map_err(told(&path));
        }
        // A hard link may still lead through it.
        self.closed_bytes += path.len();
        if self.closed_bytes > CLOSED_BYTES_MAX {
            return Err(refused(&path, Rule::TooManyEntries));
        }
        self.closed.push((path, open.mode));
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Failure> {
        while !self.open.is_empty() {
            self.leave()?;
        }
        for (path, mode) in std::mem::take(&mut self.closed) {
            let found = beneath(&self.workspace, &path, OFlags::RDONLY | OFlags::DIRECTORY).map_err(told(&path))?;
            rustix::fs::fchmod(&found, Mode::from_raw_mode(mode)).map_err(told(&path))?;
        }
        let (mode, owner, modified) = self.root.ok_or_else(|| refused(b".", Rule::Malformed))?;
        if self.merges {
            return Ok(());
        }
        self.give(&self.workspace, owner, b".")?;
        rustix::fs::futimens(&self.workspace, &times(modified)).map_err(told(b"."))?;
        rustix::fs::fchmod(&self.workspace, Mode::from_raw_mode(mode)).map_err(told(b"."))
    }

    fn directory(&mut self, path: &[u8], name: &CString, entry: &Entry) -> Result<(), Failure> {
        let made = rustix::fs::mkdirat(self.here(), name.as_c_str(), Mode::from_raw_mode(0o700));
        match made {
            Err(Errno::EXIST) if self.merges || self.places.remove(path) => {}
            made => made.map_err(once(path))?,
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(self.here(), name.as_c_str(), flags, Mode::empty()).map_err(told(path))?;
        let Entry { mode, owner, modified, .. } = *entry;
        self.open.push(Open { name: name.clone(), fd, mode, owner, modified });
        Ok(())
    }

    fn create(&self, path: &[u8], name: &Name) -> Result<File, Failure> {
        self.make_room(name, path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(self.here(), name.as_c_str(), flags, Mode::from_raw_mode(0o600));
        file.map(File::from).map_err(once(path))
    }

    fn data<R: Read>(
        &self,
        source: &mut Source<R>,
        file: &File,
        mut at: u64,
        bytes: u64,
        path: &[u8],
    ) -> Result<(), Failure> {
        let (end, mut buffer) = (at + bytes, [0; READ_BYTES]);
        while at < end {
            let room = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
            tar::fill(source, &mut buffer[..room]).map_err(|error| self.why(source, path, error))?;
            let written = file.write_all_at(&buffer[..room], at);
            written.map_err(|error| failed(path, Errno::from_io_error(&error), "can't be written"))?;
            at += room as u64;
        }
        Ok(())
    }

    fn skip<R: Read>(&self, source: &mut Source<R>, length: usize, path: &[u8]) -> Result<(), Failure> {
        let mut filling = [0; tar::BLOCK_BYTES];
        tar::fill(source, &mut filling[..length]).map_err(|error| self.why(source, path, error))
    }

    fn link(&self, path: &[u8], name: &CString, to: &[u8], entry: &Entry) -> Result<(), Failure> {
        // Where it leads is the matter of whoever follows it, inside.
        let to = CString::new(to).map_err(|_| refused(path, Rule::NameMalformed))?;
        match to.as_bytes().len() {
            0 => return Err(refused(path, Rule::NameMalformed)),
            length if length > PATH_BYTES_MAX => return Err(refused(path, Rule::NameTooLong)),
            _ => {}
        }
        self.make_room(name, path)?;
        rustix::fs::symlinkat(to.as_c_str(), self.here(), name.as_c_str()).map_err(once(path))?;
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        if let Some((user, group)) = self.owner(entry.owner) {
            rustix::fs::chownat(self.here(), name.as_c_str(), Some(user), Some(group), flags).map_err(foreign(path))?;
        }
        rustix::fs::utimensat(self.here(), name.as_c_str(), &times(entry.modified), flags).map_err(told(path))
    }

    fn hard(&self, path: &[u8], name: &CString, to: &[u8]) -> Result<(), Failure> {
        let target = components(to).map_err(|rule| match rule {
            Rule::Absolute | Rule::Climbs => refused(path, Rule::LinkEscapes),
            rule => refused(path, rule),
        })?;
        let Some((last, above)) = target.split_last() else { return Err(refused(path, Rule::LinkMissing)) };
        let above = above.iter().map(|name| name.as_bytes()).collect::<Vec<_>>().join(&b'/');
        let parent =
            beneath(&self.workspace, &above, OFlags::PATH | OFlags::DIRECTORY).map_err(|errno| match errno {
                Errno::LOOP | Errno::XDEV => refused(path, Rule::LinkEscapes),
                Errno::NOENT | Errno::NOTDIR => refused(path, Rule::LinkMissing),
                errno => told(path)(errno),
            })?;
        let found = rustix::fs::statat(&parent, last.as_c_str(), AtFlags::SYMLINK_NOFOLLOW).ok();
        if found.is_none_or(|found| FileType::from_raw_mode(found.st_mode) != FileType::RegularFile) {
            return Err(refused(path, Rule::LinkMissing));
        }
        self.make_room(name, path)?;
        rustix::fs::linkat(&parent, last.as_c_str(), self.here(), name.as_c_str(), AtFlags::empty()).map_err(once(path))
    }
}

impl Run {
    /// Who owns inside what an archive says is this owner's; `None`: there is nobody else.
    fn owner(&self, archived: (u32, u32)) -> Option<(Uid, Gid)> {
        let Owners::Many { .. } = self.owners else { return None };
        let (user, group) = self.owners.turned(archived);
        Some((Uid::from_raw(user), Gid::from_raw(group)))
    }

    /// Gives a file or directory away to whom it belongs. Before its mode, of which this takes parts away.
    fn give(&self, file: impl AsFd, archived: (u32, u32), path: &[u8]) -> Result<(), Failure> {
        let Some((user, group)) = self.owner(archived) else { return Ok(()) };
        rustix::fs::fchown(file, Some(user), Some(group)).map_err(foreign(path))
    }

    /// Gives a file its owner, mode and time, after its content.
    fn settle(&self, file: &File, entry: &Entry) -> Result<(), Failure> {
        self.give(file, entry.owner, &entry.path)?;
        rustix::fs::fchmod(file, Mode::from_raw_mode(entry.mode)).map_err(told(&entry.path))?;
        rustix::fs::futimens(file, &times(entry.modified)).map_err(told(&entry.path))
    }
}

/// An owner that nobody in this sandbox can be is refused like one that nobody in any sandbox can be.
fn foreign(path: &[u8]) -> impl Fn(Errno) -> Failure {
    move |errno| match errno {
        Errno::INVAL => refused(path, Rule::Malformed),
        errno => told(path)(errno),
    }
}

/// Opens what stands at a path below the workspace, through no link.
fn beneath(workspace: &OwnedFd, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { b"." } else { path };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    rustix::fs::openat2(workspace, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
}

/// Everything is made new: what is there already came in this archive.
fn once(path: &[u8]) -> impl Fn(Errno) -> Failure {
    let path = path.to_vec();
    move |errno| if errno == Errno::EXIST { refused(&path, Rule::Duplicate) } else { told(&path)(errno) }
}
