//! Compares two directories below the workspace, content and all: what stands in one of them alone, and what differs. Times
//! do not count. Both are walked from open directory to open directory, never through a link. For directories that nobody else
//! changes meanwhile: what its mode hides is made readable for a moment.

use crate::files::{DEPTH_MAX, Failure, Name, device, is_mount, kind_of, names, open, stat_of, told};
use crate::readable::Readable;
use rustix::fs::{AtFlags, OFlags, Stat};
use rustix::io::Errno;
use sandbox::files::{Comparison, Difference};
use sandbox::{FileKind, RelPath};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd as _, OwnedFd};

/// Bytes of either file that are looked at together.
const PIECE_BYTES: usize = 128 << 10;

pub(crate) fn compare(before: &RelPath, after: &RelPath, differences_max: usize) -> Result<Comparison, Failure> {
    let top = |path: &RelPath| open(path, OFlags::RDONLY | OFlags::DIRECTORY).map_err(told("compare", path));
    let (one, other) = (top(before)?, top(after)?);
    let mut run = Run { found: Comparison::default(), differences_max };
    run.directories([Some(&one), Some(&other)], "", 0).map_err(told("compare", before))?;
    Ok(run.found)
}

struct Run {
    found: Comparison,
    differences_max: usize,
}

/// What stands under one name on both sides.
type Sides = [Option<Stat>; 2];

impl Run {
    fn add(&mut self, path: String, sides: Sides) {
        let [before, after] = sides.map(|side| side.as_ref().map(stat_of));
        match self.found.differences.len() < self.differences_max {
            true => self.found.differences.push(Difference { path, before, after }),
            false => self.found.unlisted += 1,
        }
    }

    /// Compares two directories, or tells of all that is in one that has no counterpart.
    fn directories(&mut self, tops: [Option<&OwnedFd>; 2], above: &str, depth: usize) -> Result<(), Errno> {
        if depth >= DEPTH_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        let mut all = BTreeSet::new();
        for top in tops.into_iter().flatten() {
            all.extend(names(top)?);
        }
        for name in all {
            let [one, other] = tops.map(|top| top.map_or(Ok(None), |top| seen(top, &name)));
            let sides = [one?, other?];
            let path = format!("{above}{}", name.to_string_lossy());
            if !same(tops, &name, sides)? {
                self.add(path.clone(), sides);
            }
            self.below(tops, &name, sides, &path, depth)?;
        }
        Ok(())
    }

    fn below(
        &mut self,
        tops: [Option<&OwnedFd>; 2],
        name: &Name,
        sides: Sides,
        path: &str,
        depth: usize,
    ) -> Result<(), Errno> {
        let mut opened = [None, None];
        for ((opened, top), side) in opened.iter_mut().zip(tops).zip(&sides) {
            let directory = side.as_ref().filter(|side| kind_of(side.st_mode) == FileKind::Directory);
            if let Some((top, stat)) = top.zip(directory) {
                *opened = Some(Readable::open(top.as_fd(), name, stat)?);
            }
        }
        if opened.iter().all(Option::is_none) {
            return Ok(());
        }
        let [one, other] = opened.each_ref().map(|opened| opened.as_ref().map(|opened| &opened.fd));
        let walked = self.directories([one, other], &format!("{path}/"), depth + 1);
        opened.into_iter().flatten().for_each(|opened| drop(opened.put_back()));
        walked
    }
}

/// Whether what stands under a name is the same on both sides; of directories only what they are themselves.
fn same(tops: [Option<&OwnedFd>; 2], name: &Name, sides: Sides) -> Result<bool, Errno> {
    let ([Some(one), Some(other)], [Some(before), Some(after)]) = (tops, sides) else {
        return Ok(sides.iter().all(Option::is_none));
    };
    if before.st_mode != after.st_mode {
        return Ok(false);
    }
    match kind_of(before.st_mode) {
        FileKind::Directory | FileKind::Other => Ok(true),
        FileKind::Link => {
            let target = |top: &OwnedFd| rustix::fs::readlinkat(top, name.as_c_str(), Vec::new());
            Ok(target(one)? == target(other)?)
        }
        FileKind::File if before.st_size != after.st_size => Ok(false),
        FileKind::File => {
            let left = Readable::open(one.as_fd(), name, &before)?;
            let right = Readable::open(other.as_fd(), name, &after)?;
            contents(left.put_back(), right.put_back())
        }
    }
}

/// What stands under a name; nothing for a bucket that is shown there.
fn seen(top: &OwnedFd, name: &Name) -> Result<Option<Stat>, Errno> {
    match rustix::fs::statat(top, name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(found) if is_mount(&found, device(top)?) => Ok(None),
        Ok(found) => Ok(Some(found)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn contents(one: OwnedFd, other: OwnedFd) -> Result<bool, Errno> {
    let (mut one, mut other) = (File::from(one), File::from(other));
    let (mut left, mut right) = (vec![0; PIECE_BYTES], vec![0; PIECE_BYTES]);
    loop {
        let (length, against) = (fill(&mut one, &mut left)?, fill(&mut other, &mut right)?);
        if left.get(..length) != right.get(..against) {
            return Ok(false);
        }
        if length < PIECE_BYTES {
            return Ok(true);
        }
    }
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &mut File, buffer: &mut [u8]) -> Result<usize, Errno> {
    let mut length = 0;
    while let Some(room) = buffer.get_mut(length..).filter(|room| !room.is_empty()) {
        match file.read(room) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
        }
    }
    Ok(length)
}
