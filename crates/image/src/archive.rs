//! The container around an image: a tar file or a directory, in which parts are found by name. Nothing is unpacked: a part is
//! read where it lies.

use crate::Error;
use crate::path;
use crate::tar::{self, BLOCK_BYTES, Broken, Kind, padding};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

/// Members of a tar at most: three for each layer, and what tells of them.
const MEMBERS_MAX: usize = 4_096;
/// Bytes of a part that is text.
const TEXT_BYTES_MAX: u64 = 4 << 20;
/// Links from one name to another that are followed.
const LINKS_MAX: usize = 2;

/// The container.
#[derive(Debug)]
pub(crate) enum Archive {
    Tar { file: Arc<File>, members: BTreeMap<Vec<u8>, Member> },
    Directory(OwnedFd),
}

/// Where a part lies.
#[derive(Clone, Debug)]
pub(crate) enum Member {
    Data {
        at: u64,
        bytes: u64,
    },
    /// Another name for it; `docker save` wrote those for layers that come twice.
    Link(Vec<u8>),
}

/// A part as it is read.
#[derive(Debug)]
pub(crate) struct Blob {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Blob {
    /// Bytes that are left.
    pub(crate) const fn left(&self) -> u64 {
        self.end - self.at
    }
}

impl Read for Blob {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = usize::try_from(self.left()).unwrap_or(usize::MAX).min(buffer.len());
        if room == 0 {
            return Ok(0);
        }
        match self.file.read_at(&mut buffer[..room], self.at)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            length => {
                self.at += length as u64;
                Ok(length)
            }
        }
    }
}

fn unreadable(error: impl std::fmt::Display) -> Error {
    Error::Read { detail: error.to_string() }
}

impl Archive {
    /// Finds the parts of what is open at `source`.
    pub(crate) fn open(source: OwnedFd) -> Result<Self, Error> {
        let stat = rustix::fs::fstat(&source).map_err(unreadable)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Ok(Self::Directory(source)),
            FileType::RegularFile => {
                Self::index(Arc::new(File::from(source)), u64::try_from(stat.st_size).unwrap_or(0))
            }
            _ => Err(Error::form("expected a file or a directory")),
        }
    }

    fn index(file: Arc<File>, end: u64) -> Result<Self, Error> {
        let mut reader = Blob { file: Arc::clone(&file), at: 0, end };
        let mut start = [0; 4];
        if file.read_at(&mut start, 0).map_err(unreadable)? == 4
            && (start.starts_with(&[0x1f, 0x8b]) || start == [0x28, 0xb5, 0x2f, 0xfd])
        {
            return Err(Error::form("the file is compressed as a whole; expected a tar; hint: decompress it first"));
        }
        let mut members = BTreeMap::new();
        loop {
            let entry = match tar::next(&mut reader) {
                Ok(Some(entry)) => entry,
                // `docker save` ends with empty blocks; some writers end with the file.
                Ok(None) => break,
                Err(Broken::Rule(sandbox::Rule::Truncated))
                    if reader.left() < BLOCK_BYTES as u64 && !members.is_empty() =>
                {
                    break;
                }
                Err(Broken::Rule(rule)) => {
                    return Err(Error::Refused { rule, entry: "the image's own tar".to_owned() });
                }
                Err(Broken::Source(error)) => return Err(unreadable(error)),
            };
            let name = path::components(&entry.path)
                .map_err(|rule| Error::Refused { rule, entry: path::shown(&entry.path) })?;
            let name = name.iter().map(|component| component.as_bytes()).collect::<Vec<_>>().join(&b'/');
            let member = match entry.kind {
                Kind::File => Member::Data { at: reader.at, bytes: entry.bytes },
                Kind::Link { to } => Member::Link(beside(&name, &to)?),
                Kind::Hard { to } => Member::Link(to),
                Kind::Directory => continue,
            };
            if members.len() >= MEMBERS_MAX {
                return Err(Error::Limit { limit: format!("image_members_max = {MEMBERS_MAX}") });
            }
            if members.insert(name, member).is_some() {
                return Err(Error::Refused { rule: sandbox::Rule::Duplicate, entry: path::shown(&entry.path) });
            }
            let after = entry.bytes.saturating_add(padding(entry.bytes));
            if after > reader.left() {
                return Err(Error::Refused { rule: sandbox::Rule::Truncated, entry: path::shown(&entry.path) });
            }
            reader.at += after;
        }
        Ok(Self::Tar { file, members })
    }

    /// Whether there is such a part.
    pub(crate) fn has(&self, name: &str) -> bool {
        match self {
            Self::Tar { members, .. } => members.contains_key(name.as_bytes()),
            Self::Directory(_) => self.blob(name).is_ok(),
        }
    }

    /// A part by its name.
    pub(crate) fn blob(&self, name: &str) -> Result<Blob, Error> {
        let missing = || Error::form(format!("it names `{}`, which is not in it", path::shown(name.as_bytes())));
        match self {
            Self::Tar { file, members } => {
                let mut wanted = name.as_bytes();
                for _ in 0..=LINKS_MAX {
                    match members.get(wanted).ok_or_else(missing)? {
                        Member::Data { at, bytes } => {
                            return Ok(Blob { file: Arc::clone(file), at: *at, end: at + bytes });
                        }
                        Member::Link(to) => wanted = to,
                    }
                }
                Err(missing())
            }
            Self::Directory(directory) => {
                let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
                // A FIFO would block; it is seen to be none after.
                let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let file =
                    rustix::fs::openat2(directory, name, flags, Mode::empty(), resolve).map_err(
                        |errno| match errno {
                            rustix::io::Errno::NOENT => missing(),
                            errno => unreadable(format!("`{}`: {errno}", path::shown(name.as_bytes()))),
                        },
                    )?;
                let stat = rustix::fs::fstat(&file).map_err(unreadable)?;
                if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                    return Err(missing());
                }
                let end = u64::try_from(stat.st_size).unwrap_or(0);
                Ok(Blob { file: Arc::new(File::from(file)), at: 0, end })
            }
        }
    }

    /// A part that is text, whole.
    pub(crate) fn text(&self, name: &str) -> Result<Vec<u8>, Error> {
        let mut blob = self.blob(name)?;
        if blob.left() > TEXT_BYTES_MAX {
            return Err(Error::Limit { limit: format!("image_text_bytes_max = {TEXT_BYTES_MAX}") });
        }
        let mut text = Vec::new();
        blob.read_to_end(&mut text).map_err(unreadable)?;
        Ok(text)
    }
}

/// Where a link that stands at `name` leads, by the names alone; never above the top.
fn beside(name: &[u8], to: &[u8]) -> Result<Vec<u8>, Error> {
    let mut path: Vec<&[u8]> = name.split(|byte| *byte == b'/').collect();
    path.pop();
    for component in to.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => {
                if path.pop().is_none() {
                    return Err(Error::Refused { rule: sandbox::Rule::LinkEscapes, entry: path::shown(name) });
                }
            }
            component => path.push(component),
        }
    }
    Ok(path.join(&b'/'))
}
