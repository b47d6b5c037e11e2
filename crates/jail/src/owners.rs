//! Trees on disk whose files have the ids of an ordinary user's sandboxes: given to those of another one, taken back, or removed.
//! The user itself may do nothing of this; a process of the launcher does, in a user namespace in which that user is root and
//! all ids that it may give away are there. It opens directories only, below the one that it is given, and follows no link.

use crate::door::{Reply, Request};
use crate::grant::{Grant, PART_IDS, Part};
use crate::harbour::{Arrived, Harbour};
use crate::privileges;
use crate::raw::{self, Cloned};
use crate::workspaces::{blocking, failed};
use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use sandbox::Error;
use serde::{Deserialize, Serialize};
use std::ffi::CString;
use std::io::Read as _;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Wall time of one task; its process is then killed.
const TASK_SECONDS_MAX: u32 = 120;
/// How deep a tree is; the guest makes none that is deeper.
const DEPTH_MAX: usize = 260;
/// Entries of one tree.
const ENTRIES_MAX: u64 = 10_000_000;
/// Bytes of what a worker says.
const RESULT_BYTES_MAX: u64 = 4 << 10;

/// What is to be done with a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Task {
    /// Every file gets the same id of this part; what is the user's own becomes the sandbox's own user's.
    Give(Part),
    /// Everything becomes the user's own.
    TakeBack,
    /// Everything below it is removed.
    Clear,
}

/// Has trees changed by the launcher.
#[derive(Clone, Debug)]
pub(crate) struct Owners(Harbour);

impl Owners {
    pub(crate) fn new(harbour: Harbour) -> Self {
        Self(harbour)
    }

    /// Makes a kept workspace, whose lock is held, one that a sandbox with this part can have; without one, the user's own.
    pub(crate) async fn settle(&self, tree: &OwnedFd, part: Option<Part>) -> Result<(), Error> {
        match part {
            Some(part) => self.perform(tree, Task::Give(part)).await,
            None if Self::is_own(tree)? => Ok(()),
            None => self.perform(tree, Task::TakeBack).await,
        }
    }

    /// Empties a workspace, whose lock is held, where the user can't do it.
    pub(crate) async fn clear(&self, tree: &OwnedFd) -> Result<(), Error> {
        if Self::is_own(tree)? { Ok(()) } else { self.perform(tree, Task::Clear).await }
    }

    /// Whether a tree is the user's own: what is somebody else's has a top that is.
    pub(crate) fn is_own(tree: &OwnedFd) -> Result<bool, Error> {
        let stat = rustix::fs::fstat(tree).map_err(|errno| failed(errno.to_string()))?;
        Ok(stat.st_uid == rustix::process::geteuid().as_raw())
    }

    async fn perform(&self, tree: &OwnedFd, task: Task) -> Result<(), Error> {
        let told = |detail: String| failed(format!("whose its files are: {detail}"));
        let said = |errno: Errno| told(errno.to_string());
        let _place = AT_ONCE.acquire().await.map_err(|error| told(error.to_string()))?;
        let (end, result) = UnixStream::pair().map_err(|error| told(error.to_string()))?;
        let fds = vec![rustix::io::fcntl_dupfd_cloexec(tree, 3).map_err(said)?, result.into()];
        let worker = match self.0.ask(Request::Own { task }, fds).await? {
            Arrived::Other(Reply::Working { worker }) => worker,
            Arrived::Other(Reply::Failed(failure)) => return Err(failure.into()),
            _ => return Err(told("the launcher answered something else".to_owned())),
        };
        let heard = blocking(move || {
            let seconds = u64::from(TASK_SECONDS_MAX) + 5;
            let mut text = String::new();
            let read = end.set_read_timeout(Some(Duration::from_secs(seconds)));
            let read = read.and_then(|()| end.take(RESULT_BYTES_MAX).read_to_string(&mut text));
            read.map(|_| text).map_err(|error| failed(error.to_string()))
        })
        .await;
        // Whatever it said, it is over.
        let _ = self.0.ask(Request::Worked { worker }, Vec::new()).await;
        match heard?.as_str() {
            "done" => Ok(()),
            "" => Err(told("its process ended early".to_owned())),
            detail => Err(told(detail.to_owned())),
        }
    }
}

/// How many trees change owners at once: the launcher has places for as many processes beside those that unpack.
static AT_ONCE: Semaphore = Semaphore::const_new(2);

/// The life of who does it: makes the namespace, and waits for what is done in it.
pub(crate) fn work(task: Task, tree: &OwnedFd, result: &OwnedFd) -> i32 {
    let done = prepare(tree, result).and_then(|()| within(task, tree, result));
    let Err(detail) = done else { return 0 };
    say(result, &detail)
}

fn say(result: &OwnedFd, text: &str) -> i32 {
    i32::from(rustix::io::write(result, text.as_bytes()) != Ok(text.len()))
}

fn prepare(tree: &OwnedFd, result: &OwnedFd) -> Result<(), String> {
    let said = |errno: Errno| errno.to_string();
    raw::close_inherited(&[0, 1, 2, tree.as_raw_fd(), result.as_raw_fd()]).map_err(said)?;
    privileges::name_process(c"topside-owners");
    privileges::die_with_parent().map_err(said)?;
    guest::sys::reset_signals();
    raw::alarm(TASK_SECONDS_MAX);
    Ok(())
}

fn within(task: Task, tree: &OwnedFd, result: &OwnedFd) -> Result<(), String> {
    let grant = Grant::find()?;
    let job = Job::of(task, &grant)?;
    let said = |errno: Errno| errno.to_string();
    let (waits, go) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(said)?;
    let flags = u64::from(libc::CLONE_NEWUSER.unsigned_abs());
    let pid = match raw::clone_child(flags).map_err(said)? {
        Cloned::Child => raw::in_child(|| {
            drop(go);
            let text = match perform(job, tree, &waits) {
                Ok(()) => "done".to_owned(),
                Err(detail) => detail,
            };
            say(result, &text)
        }),
        Cloned::Parent(pid) => pid,
    };
    drop(waits);
    let mapped = grant.write_all(pid).and_then(|()| rustix::io::write(&go, b".").map(drop).map_err(said));
    if mapped.is_err() {
        guest::sys::kill(pid);
    }
    raw::reap(pid);
    mapped
}

/// What is done, in the ids of the namespace.
#[derive(Clone, Copy, Debug)]
enum Job {
    Give { first: u32 },
    TakeBack,
    Clear,
}

impl Job {
    fn of(task: Task, grant: &Grant) -> Result<Self, String> {
        match task {
            Task::Give(part) => {
                let first = grant.inside(part).ok_or("these ids are no longer given to this user")?;
                Ok(Self::Give { first })
            }
            Task::TakeBack => Ok(Self::TakeBack),
            Task::Clear => Ok(Self::Clear),
        }
    }

    /// Whose something becomes.
    fn owner(self, id: u32) -> u32 {
        match self {
            Self::Give { first } => first + id.checked_sub(1).map_or(guest::USER_ID, |id| id % PART_IDS),
            Self::TakeBack | Self::Clear => 0,
        }
    }
}

/// In the namespace.
fn perform(job: Job, tree: &OwnedFd, waits: &OwnedFd) -> Result<(), String> {
    let said = |errno: Errno| errno.to_string();
    if rustix::io::read(waits, &mut [0; 1][..]) != Ok(1) {
        return Err("nobody gave it its ids".to_owned());
    }
    raw::become_user(0, 0, true).map_err(said)?;
    privileges::die_with_parent().map_err(said)?;
    privileges::no_new_privileges().map_err(said)?;
    raw::alarm(TASK_SECONDS_MAX);
    match job {
        Job::Clear => guest::mirror::clear(tree.as_fd()).map_err(said),
        // The top is somebody else's as long as anything below it may be.
        Job::Give { .. } => top(job, tree, 0o755).and_then(|()| below(job, tree.as_fd())).map_err(said),
        Job::TakeBack => below(job, tree.as_fd()).and_then(|()| top(job, tree, 0o700)).map_err(said),
    }
}

/// The top itself: who has its lock opens it by its name, which nobody else reaches.
fn top(job: Job, tree: &OwnedFd, mode: u32) -> Result<(), Errno> {
    let stat = rustix::fs::fstat(tree)?;
    let (user, group) = (job.owner(stat.st_uid), job.owner(stat.st_gid));
    let own = || rustix::fs::fchown(tree, Some(Uid::from_raw(user)), Some(Gid::from_raw(group)));
    let open = || rustix::fs::fchmod(tree, Mode::from_raw_mode(mode));
    // Whenever this ends in the middle, its user can open it: the directory above is that user's alone.
    match job {
        Job::Give { .. } => open().and_then(|()| own()),
        Job::Clear | Job::TakeBack => own().and_then(|()| open()),
    }
}

fn below(job: Job, tree: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut left = ENTRIES_MAX;
    walk(job, tree, 0, &mut left)
}

fn walk(job: Job, directory: BorrowedFd<'_>, depth: usize, left: &mut u64) -> Result<(), Errno> {
    if depth >= DEPTH_MAX {
        return Err(Errno::NAMETOOLONG);
    }
    let mut names: Vec<CString> = Vec::new();
    for entry in Dir::read_from(directory)? {
        let name = entry?.file_name().to_owned();
        if !matches!(name.to_bytes(), b"." | b"..") {
            *left = left.checked_sub(1).ok_or(Errno::NOSPC)?;
            names.push(name);
        }
    }
    for name in names {
        let stat = rustix::fs::statat(directory, &name, AtFlags::SYMLINK_NOFOLLOW)?;
        let (user, group) = (job.owner(stat.st_uid), job.owner(stat.st_gid));
        if (user, group) != (stat.st_uid, stat.st_gid) {
            let (user, group) = (Some(Uid::from_raw(user)), Some(Gid::from_raw(group)));
            rustix::fs::chownat(directory, &name, user, group, AtFlags::SYMLINK_NOFOLLOW)?;
            // A change of owner takes these away.
            if stat.st_mode & 0o6000 != 0 && FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
                let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
                rustix::fs::chmodat(directory, &name, mode, AtFlags::empty())?;
            }
        }
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let inner = rustix::fs::openat(directory, &name, flags, Mode::empty())?;
            walk(job, inner.as_fd(), depth + 1, left)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_owner_keeps_its_number() {
        let job = Job::Give { first: 1 + 2 * PART_IDS };
        // The user's own, root of the first part, user 33 of the third, somebody of the fourth.
        for (id, expected) in [(0, 1_000), (1, 0), (1 + 2 * PART_IDS + 33, 33), (1 + 3 * PART_IDS + 2_000, 2_000)] {
            assert_eq!(job.owner(id) - 1 - 2 * PART_IDS, expected);
            assert_eq!(Job::TakeBack.owner(id), 0);
        }
    }
}
