//! The mark beside a session's layer: under which epoch it was opened last, and whether it is whole. It is written before
//! anything runs in the layer and replaced in one step; over an older one it is durable when the call returns. Nothing inside
//! can reach it.

use sandbox::{Error, Start};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

const FILE: &str = "mark.json";
const NEW: &str = "mark.new";
/// Bytes of a mark that is prepared: its place on the disk is then known before it is.
const PREPARED_BYTES: usize = 256;
/// Bytes of a mark at most.
const BYTES_MAX: u64 = 4 << 10;

/// What is known of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    /// The epoch under which it was opened last: its generation, and the lowest epoch that may have it.
    pub(crate) epoch: u64,
    /// The generation that the last opening went on from. When that opening never came to be on record, nothing ran under
    /// it, and the log still names this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) before: Option<u64>,
    /// Whether everything that belongs into it is there.
    pub(crate) whole: bool,
}

impl Mark {
    /// Reads the mark of a layer; `None`: it has none, as those from before there were marks. One that can't be understood
    /// vouches for nothing.
    pub(crate) fn read(directory: &Path) -> io::Result<Option<Self>> {
        let path = directory.join(FILE);
        let length = match fs::metadata(&path) {
            Ok(found) => found.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let broken = Self { epoch: 0, before: None, whole: false };
        if length > BYTES_MAX {
            return Ok(Some(broken));
        }
        Ok(Some(serde_json::from_slice(&fs::read(path)?).unwrap_or(broken)))
    }

    /// Puts the mark in the place of the older one; durable when this returns.
    pub(crate) fn write(&self, directory: &Path) -> io::Result<()> {
        self.lay(directory)?.sync_all()?;
        fs::rename(directory.join(NEW), directory.join(FILE))?;
        File::open(directory)?.sync_all()
    }

    /// Puts a mark where there is none, and no layer either, without waiting for the disk. A crash of this process loses
    /// nothing of it; one of the machine may lose it or leave it empty, as it may what programs wrote. Then the layer is of no
    /// generation that is on record, or not whole, and its session goes on from what was kept.
    pub(crate) fn write_first(&self, directory: &Path) -> io::Result<()> {
        self.lay(directory)?;
        fs::rename(directory.join(NEW), directory.join(FILE))
    }

    /// Makes the file of a mark that is not known yet, in a directory that is nobody's.
    pub(crate) fn prepare(directory: &Path) -> io::Result<()> {
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(directory.join(FILE))?;
        file.write_all(&[b' '; PREPARED_BYTES])
    }

    /// Opens a file that was prepared.
    pub(crate) fn open(directory: &Path) -> io::Result<File> {
        File::options().write(true).open(directory.join(FILE))
    }

    /// Puts the mark into a file that was prepared for it, before its directory is anybody's; as [`Mark::write_first`].
    pub(crate) fn fill(&self, mut prepared: &File) -> io::Result<()> {
        prepared.write_all(&serde_json::to_vec(self)?)
    }

    fn lay(&self, directory: &Path) -> io::Result<File> {
        let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(directory.join(NEW))?;
        self.fill(&file)?;
        Ok(file)
    }

    /// The mark of a layer that `epoch` opens with `start`, `found` being its mark so far.
    pub(crate) fn next(found: Option<Self>, start: Start, epoch: u64) -> Result<Self, Error> {
        if let Some(seen) = found.map(|found| found.epoch).filter(|seen| epoch < *seen) {
            return Err(Error::StaleEpoch { epoch, seen });
        }
        let generation = match start {
            Start::Fresh | Start::Forked { .. } => return Ok(Self { epoch, before: None, whole: true }),
            Start::Restored => return Ok(Self { epoch, before: None, whole: false }),
            Start::Kept { generation } => generation,
        };
        let kept = Self { epoch, before: Some(generation), whole: true };
        match found {
            Some(found) if !found.whole => Err(Error::WorkspaceLost),
            Some(found) if generation == 0 || generation == found.epoch || found.before == Some(generation) => Ok(kept),
            None if generation == 0 => Ok(kept),
            found => {
                let found = found.map_or(0, |found| found.epoch);
                Err(Error::WorkspaceStale { expected: generation, found })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(found: Option<(u64, Option<u64>, bool)>, start: Start, epoch: u64, expected: &str) {
        let found = found.map(|(epoch, before, whole)| Mark { epoch, before, whole });
        let got = match Mark::next(found, start, epoch) {
            Ok(mark) => {
                assert_eq!(mark.epoch, epoch, "the newest has it");
                format!("before {:?} whole {}", mark.before, mark.whole)
            }
            Err(error) => error.code().to_owned(),
        };
        assert_eq!(got, expected, "{found:?} {start:?} {epoch}");
    }

    #[test]
    fn only_the_last_generation_is_kept() {
        let kept = |generation| Start::Kept { generation };
        let goes_on = "before Some(5) whole true";
        check(Some((5, None, true)), kept(5), 6, goes_on);
        check(Some((5, Some(4), true)), kept(5), 5, goes_on);
        // The opening under 6 never came to be on record.
        check(Some((6, Some(5), true)), kept(5), 7, goes_on);
        check(Some((6, Some(5), true)), kept(4), 7, "workspace_stale");
        check(Some((5, None, true)), kept(6), 7, "workspace_stale");
        check(Some((5, None, true)), kept(4), 7, "workspace_stale");
        // From before there were marks, or generations on record.
        check(None, kept(0), 1, "before Some(0) whole true");
        check(None, kept(3), 4, "workspace_stale");
        check(Some((5, None, true)), kept(0), 6, "before Some(0) whole true");
    }

    #[test]
    fn what_is_not_whole_is_lost() {
        check(Some((5, None, false)), Start::Kept { generation: 5 }, 6, "workspace_lost");
        check(Some((5, None, false)), Start::Kept { generation: 0 }, 6, "workspace_lost");
        check(Some((5, None, false)), Start::Restored, 6, "before None whole false");
        check(Some((5, None, false)), Start::Fresh, 6, "before None whole true");
    }

    #[test]
    fn a_lower_epoch_is_refused_whatever_it_wants() {
        for start in [Start::Fresh, Start::Restored, Start::Kept { generation: 5 }, Start::Kept { generation: 4 }] {
            for whole in [true, false] {
                check(Some((5, Some(4), whole)), start, 4, "sandbox_stale_epoch");
            }
        }
    }

    #[test]
    fn a_mark_is_read_as_written_and_a_broken_one_vouches_for_nothing() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(Mark::read(directory.path()).unwrap(), None);
        for mark in [Mark { epoch: 7, before: Some(3), whole: true }, Mark { epoch: 8, before: None, whole: false }] {
            let fill = |mark: &Mark, directory: &Path| {
                Mark::prepare(directory)?;
                mark.fill(&Mark::open(directory)?)
            };
            for write in [Mark::write, Mark::write_first, fill] {
                write(&mark, directory.path()).unwrap();
                assert_eq!(Mark::read(directory.path()).unwrap(), Some(mark));
                fs::remove_file(directory.path().join(FILE)).unwrap();
            }
        }
        Mark::prepare(directory.path()).unwrap();
        for broken in ["", "{\"epoch\":9", &"x".repeat(5_000)] {
            fs::write(directory.path().join(FILE), broken).unwrap();
            assert_eq!(Mark::read(directory.path()).unwrap(), Some(Mark { epoch: 0, before: None, whole: false }));
        }
    }
}
