//! A workspace that is nobody's yet, with both its directories as a session has them: it becomes a session's by their new names,
//! and whoever finds them there finds them whole, marked and locked.

use crate::ext4;
use crate::mark::Mark;
use crate::pool::{Home, Place};
use crate::workspaces::{IMAGE, Making, absent, broken, create, failed, is_alone};
use rustix::fs::{CWD, FlockOperation, RenameFlags};
use rustix::io::Errno;
use sandbox::{Error, Limits};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// How often the tenant's directory is made again, which goes with its last workspace.
const SETTLE_ATTEMPTS_MAX: u32 = 3;

/// Where this process keeps blank workspaces. What is below goes with the process: the next one that makes some removes it.
#[derive(Debug)]
pub(crate) struct Shelf {
    home: Home,
    /// Locks it.
    _entered: File,
}

/// One of them, formatted and on the disk.
#[derive(Debug)]
pub(crate) struct Blank {
    stand: Stand,
}

/// Where one stands. What is there goes with this, unless it is somebody's.
#[derive(Debug)]
struct Stand {
    home: Home,
    is_nobodys: bool,
}

impl Drop for Stand {
    fn drop(&mut self) {
        if self.is_nobodys {
            // What can't be removed goes with the shelf.
            let _ = remove(&self.home);
        }
    }
}

/// One that is about to be used.
#[derive(Debug)]
pub(crate) struct Opened {
    image: Image,
    /// The session's directory, locked as by whoever works on it.
    entered: File,
    /// The file of the mark, prepared: a mark that can't be understood vouches for nothing.
    mark: File,
}

/// The image of one, without all else that makes a workspace.
#[derive(Debug)]
pub(crate) struct Image {
    /// Its open description carries the lock; a mount's device has the same one.
    file: File,
    path: PathBuf,
    stand: Stand,
}

/// What became of one.
pub(crate) enum Settled {
    /// It is the session's: its image, locked.
    In(File),
    /// The session has, or had, a workspace already, or its place can't be had at once.
    Out(Image),
}

fn directory(path: &Path) -> Result<(), Error> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(broken(path))
}

impl Shelf {
    /// Makes one, and removes those of processes that are gone. `name` is like no other's.
    pub(crate) fn make(place: &Place, name: &str) -> Result<Self, Error> {
        let stock = place.stock();
        directory(&stock.directory)?;
        directory(&stock.images)?;
        sweep(&stock);
        let home = stock.below(name);
        directory(&home.directory)?;
        let entered = File::open(&home.directory).map_err(broken(&home.directory))?;
        if !is_alone(&entered, &home.directory) {
            return Err(failed("another process removed the stock of workspaces that was being made"));
        }
        directory(&home.images)?;
        Ok(Self { home, _entered: entered })
    }

    /// Removes it with all that is left on it.
    pub(crate) fn remove(&self) -> Result<(), Error> {
        remove(&self.home)
    }
}

impl Blank {
    /// Makes one. `name` is like no other's.
    pub(crate) fn make(shelf: &Shelf, name: &str, making: Making) -> Result<Self, Error> {
        let stand = Stand { home: shelf.home.below(name), is_nobodys: true };
        let home = &stand.home;
        directory(&home.directory)?;
        Mark::prepare(&home.directory).map_err(broken(&home.directory))?;
        directory(&home.images)?;
        let path = home.images.join(IMAGE);
        let file = create(&path).map_err(broken(&path))?;
        let Limits { workspace_bytes_max, workspace_inodes_max, .. } = making.limits;
        let formatted = ext4::format(&file, workspace_bytes_max, workspace_inodes_max, guest::USER_ID, making.seed);
        // A loop device waits for what is not yet on the disk when it is given the image; better now than then.
        formatted.and_then(|()| file.sync_all()).map_err(broken(&path))?;
        Ok(Self { stand })
    }

    /// Opens and locks it.
    pub(crate) fn open(self) -> Result<Opened, Error> {
        let Self { stand } = self;
        let Home { directory, images } = &stand.home;
        let entered = File::open(directory).map_err(broken(directory))?;
        let mark = Mark::open(directory).map_err(broken(directory))?;
        let path = images.join(IMAGE);
        let file = File::options().read(true).write(true).open(&path).map_err(broken(&path))?;
        for locked in [&entered, &file] {
            rustix::fs::flock(locked, FlockOperation::NonBlockingLockExclusive)
                .map_err(|errno| broken(&path)(errno.into()))?;
        }
        Ok(Opened { image: Image { file, path, stand }, entered, mark })
    }
}

impl Opened {
    /// The image's open file.
    pub(crate) const fn file(&self) -> &File {
        &self.image.file
    }

    /// Makes it the workspace of the session whose directories are to be `home`, under this mark.
    pub(crate) fn settle(self, home: &Home, mark: &Mark) -> Result<Settled, Error> {
        let Self { image, entered, mark: file } = self;
        let from = &image.stand.home;
        mark.fill(&file).map_err(broken(&from.directory))?;
        // The directory with the mark first: what a crash leaves is found by it.
        let is_in = shift(&from.directory, &home.directory)?
            && (from.images == from.directory || shift(&from.images, &home.images)?);
        drop(entered);
        Ok(if is_in { Settled::In(image.left()) } else { Settled::Out(image) })
    }
}

impl Image {
    /// The image, where nothing of it is left on the shelf.
    fn left(mut self) -> File {
        self.stand.is_nobodys = false;
        self.file
    }

    /// Makes it the image `to`; gives it, locked.
    pub(crate) fn name(self, to: &Path) -> Result<File, Error> {
        fs::rename(&self.path, to).map_err(broken(to))?;
        Ok(self.file)
    }
}

/// Gives a directory a new name, which is nobody's; `false`: it is somebody's, or can't be given.
fn shift(from: &Path, to: &Path) -> Result<bool, Error> {
    for _ in 0..SETTLE_ATTEMPTS_MAX {
        match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            Ok(()) => return Ok(true),
            Err(Errno::NOENT) => directory(to.parent().unwrap_or(to))?,
            Err(_) => return Ok(false),
        }
    }
    Ok(false)
}

/// Removes what processes left that are gone: nobody holds the locks of it.
fn sweep(stock: &Home) {
    let names = |directory: &Path| -> BTreeSet<OsString> {
        fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.file_name()).collect()
    };
    for name in &names(&stock.directory) | &names(&stock.images) {
        let home = stock.below(&name);
        // An older version kept images here without directories.
        let older = Some(&home.images).filter(|images| **images != home.directory);
        let locks: Result<Vec<_>, _> =
            [Some(&home.directory), older].into_iter().flatten().map(|path| lock(path)).collect();
        if locks.is_ok() {
            // What can't be removed is tried again by the next process.
            let _ = remove(&home);
        }
    }
}

/// Locks what nobody else has; nothing, where there is nothing.
fn lock(path: &Path) -> io::Result<Option<File>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    Ok(Some(file))
}

fn remove(home: &Home) -> Result<(), Error> {
    for path in [&home.images, &home.directory] {
        let removed = match fs::remove_dir_all(path) {
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => fs::remove_file(path),
            removed => removed,
        };
        absent(removed).map_err(broken(path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARK: Mark = Mark { epoch: 7, before: None, whole: true };

    fn making() -> Making {
        let limits = Limits { workspace_bytes_max: 16 << 20, workspace_inodes_max: 1_024, ..Limits::default() };
        Making { limits, root: true, seed: [7; 32] }
    }

    /// With images beside the marks, and elsewhere.
    fn check(of: impl Fn(&Shelf, &Home)) {
        for images in ["sessions", "pool"] {
            let data = tempfile::tempdir().unwrap();
            let [directory, images] = ["sessions", images].map(|name| data.path().join(name));
            let shelf = Home { directory, images }.below(".stock");
            for path in [&shelf.directory, &shelf.images] {
                super::directory(path).unwrap();
            }
            let entered = File::open(&shelf.directory).unwrap();
            let session = Home { directory: data.path().join("sessions/a/b"), images: shelf.images.join("../a/b") };
            of(&Shelf { home: shelf, _entered: entered }, &session);
        }
    }

    fn names(shelf: &Shelf) -> usize {
        [&shelf.home.directory, &shelf.home.images].map(|path| fs::read_dir(path).unwrap().count()).iter().sum()
    }

    #[test]
    fn one_becomes_a_sessions_whole() {
        check(|shelf, session| {
            let opened = Blank::make(shelf, "one", making()).unwrap().open().unwrap();
            assert_eq!(Mark::read(&shelf.home.directory.join("one")).unwrap().map(|mark| mark.whole), Some(false));
            let Settled::In(file) = opened.settle(session, &MARK).unwrap() else { panic!("nobody is there") };
            assert_eq!(Mark::read(&session.directory).unwrap(), Some(MARK));
            assert!(lock(&session.images.join(IMAGE)).is_err(), "it is locked");
            drop(file);
            assert!(lock(&session.images.join(IMAGE)).unwrap().is_some());
            assert_eq!(names(shelf), 0);
        });
    }

    #[test]
    fn one_that_finds_somebody_there_is_an_image_only() {
        for occupied in [|session: &Home| session.directory.clone(), |session: &Home| session.images.clone()] {
            check(|shelf, session| {
                fs::create_dir_all(occupied(session)).unwrap();
                fs::write(occupied(session).join("theirs"), "").unwrap();
                let opened = Blank::make(shelf, "one", making()).unwrap().open().unwrap();
                let Settled::Out(image) = opened.settle(session, &MARK).unwrap() else { panic!("somebody is there") };
                assert!(occupied(session).join("theirs").exists());
                let entered = File::open(&session.directory).unwrap();
                assert!(is_alone(&entered, &session.directory), "whoever does the rest can lock it");
                fs::create_dir_all(&session.images).unwrap();
                image.name(&session.images.join(IMAGE)).unwrap();
                assert!(session.images.join(IMAGE).exists());
                assert_eq!(names(shelf), 0);
            });
        }
    }

    #[test]
    fn one_that_is_given_up_leaves_nothing() {
        check(|shelf, _| {
            let blank = Blank::make(shelf, "one", making()).unwrap();
            assert_ne!(names(shelf), 0);
            drop(blank);
            assert_eq!(names(shelf), 0);
            drop(Blank::make(shelf, "two", making()).unwrap().open().unwrap());
            assert_eq!(names(shelf), 0);
        });
    }

    #[test]
    fn what_nobody_holds_is_swept() {
        check(|shelf, _| {
            // As an older version kept them; and of two processes, one of which is gone.
            let stock = &shelf.home;
            fs::write(stock.images.join("older"), "").unwrap();
            for name in ["gone", "alive"] {
                super::directory(&stock.below(name).directory.join("blank")).unwrap();
                super::directory(&stock.below(name).images.join("blank")).unwrap();
            }
            let _alive = lock(&stock.below("alive").directory).unwrap();
            sweep(stock);
            for directory in [&stock.directory, &stock.images] {
                let left: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
                assert_eq!(left, ["alive"]);
            }
        });
    }
}
