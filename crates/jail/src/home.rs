//! The launcher's home as a harness sees it: finds the launcher that an earlier harness left there, or settles a fresh one. The
//! lock on the home is held by the launcher that lives there, for as long as it lives.

use crate::door::{self, Answer, Ask, Reply, Request};
use crate::doors::SOCKET;
use crate::keeper::Keeper;
use crate::{Error, Launcher, raw};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::sockopt::Timeout;
use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use std::fs;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

const LOCK: &str = "lock";
/// How often a home is looked at again whose launcher is starting or ending.
const LOOKS_MAX: u32 = 4_500;
const PAUSE: Duration = Duration::from_millis(10);
/// How long a launcher may take to say who has it.
const WELCOME_WAIT_MAX: Duration = Duration::from_secs(5);
/// Who may knock at once before the launcher opens.
const BACKLOG: i32 = 16;

/// The door of a launcher, greeted, and its process when it is a child of this one.
pub(crate) struct Door {
    pub(crate) socket: OwnedFd,
    pub(crate) pid: Option<i32>,
    /// Whether an earlier harness may have left sandboxes in it.
    pub(crate) lived: bool,
    /// Who forks the next one.
    pub(crate) keeper: Option<Keeper>,
    /// The data directory in which the next one is at home, and for how long it waits there for an owner, in milliseconds.
    pub(crate) home: Option<(PathBuf, u64)>,
}

impl Door {
    /// Of a launcher that has no home: it ends with the harness.
    pub(crate) fn homeless(launcher: Launcher) -> Result<Self, Error> {
        let fork = |errno: Errno| Error::Fork { detail: errno.to_string() };
        // Of the same program, it speaks the same version; its welcome comes to nobody.
        say(&launcher.socket, Request::Hello { version: door::VERSION }, &[]).map_err(fork)?;
        let Launcher { socket, pid, keeper } = launcher;
        Ok(Self { socket, pid, lived: false, keeper, home: None })
    }
}

/// What was found at a home.
pub(crate) enum Found {
    /// A launcher that lives and that nobody has.
    Living(OwnedFd),
    /// A launcher that another harness has.
    Owned,
    /// Nobody; the lock is ours.
    Free(OwnedFd),
    /// Somebody who is starting or ending.
    Unclear,
}

/// Takes over the launcher that lives in `data`, and lets the fresh one end; settles the fresh one when there is none. When
/// another harness that lives has it, the fresh one stays without a home.
pub(crate) async fn enter(mut launcher: Launcher, data: &Path, owner_grace_ms: u64) -> Result<Door, Error> {
    let keeper = launcher.keeper.take();
    let door = find(launcher, data, owner_grace_ms).await?;
    Ok(Door { keeper, home: Some((data.to_owned(), owner_grace_ms)), ..door })
}

async fn find(launcher: Launcher, data: &Path, owner_grace_ms: u64) -> Result<Door, Error> {
    let path = data.join("launcher");
    let opened = path.clone();
    let directory = blocking(&path, move || open(&opened)).await?;
    for _ in 0..LOOKS_MAX {
        let copy = directory.try_clone().map_err(|error| broken(&path, &error))?;
        match blocking(&path, move || look(&copy)).await? {
            Found::Living(socket) => {
                end(launcher);
                return Ok(Door { socket, pid: None, lived: true, keeper: None, home: None });
            }
            Found::Free(lock) => {
                return blocking(&path, move || settle(launcher, &directory, &lock, owner_grace_ms)).await;
            }
            Found::Owned => {
                tracing::warn!(home = %path.display(), "another process has the launcher of this data directory; sandboxes made here end with this one");
                return Door::homeless(launcher);
            }
            Found::Unclear => tokio::time::sleep(PAUSE).await,
        }
    }
    tracing::warn!(home = %path.display(), "the launcher of this data directory neither answers nor ends; sandboxes made here end with this process");
    Door::homeless(launcher)
}

fn broken(path: &Path, error: &dyn std::fmt::Display) -> Error {
    Error::Home { directory: path.display().to_string(), detail: error.to_string() }
}

/// Runs what may wait on a thread that may.
async fn blocking<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> Result<T, Errno> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|errno| broken(path, &errno)),
        Err(error) => Err(broken(path, &error)),
    }
}

/// Opens the home's directory, which must be nobody else's.
pub(crate) fn open(path: &PathBuf) -> Result<OwnedFd, Errno> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = rustix::fs::open(path, flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&directory)?;
    let is_ours = stat.st_uid == rustix::process::geteuid().as_raw() && stat.st_mode & 0o077 == 0;
    if is_ours { Ok(directory) } else { Err(Errno::PERM) }
}

pub(crate) fn look(directory: &OwnedFd) -> Result<Found, Errno> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let lock = rustix::fs::openat(directory, LOCK, flags, Mode::RUSR | Mode::WUSR)?;
    match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => return Ok(Found::Free(lock)),
        Err(Errno::WOULDBLOCK | Errno::INTR) => {}
        Err(errno) => return Err(errno),
    }
    let socket = socket()?;
    if rustix::net::connect(&socket, &address(directory)?).is_err() {
        return Ok(Found::Unclear);
    }
    rustix::net::sockopt::set_socket_timeout(&socket, Timeout::Recv, Some(WELCOME_WAIT_MAX))?;
    if say(&socket, Request::Hello { version: door::VERSION }, &[]).is_err() {
        return Ok(Found::Unclear);
    }
    let reply = door::receive::<Answer>(&socket).ok().flatten().map(|(answer, _)| answer.reply);
    match reply {
        Some(Reply::Welcome { version: door::VERSION }) => {
            rustix::net::sockopt::set_socket_timeout(&socket, Timeout::Recv, None)?;
            Ok(Found::Living(socket))
        }
        Some(Reply::Owned) => Ok(Found::Owned),
        // Of another version: what it holds can't be taken over.
        Some(Reply::Welcome { .. }) => {
            let _ = say(&socket, Request::Farewell, &[]);
            Ok(Found::Unclear)
        }
        _ => Ok(Found::Unclear),
    }
}

/// Gives a fresh launcher its home.
fn settle(launcher: Launcher, directory: &OwnedFd, lock: &OwnedFd, owner_grace_ms: u64) -> Result<Door, Errno> {
    match rustix::fs::unlinkat(directory, SOCKET, rustix::fs::AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(errno),
    }
    let listener = socket()?;
    rustix::net::bind(&listener, &address(directory)?)?;
    rustix::fs::chmodat(directory, SOCKET, Mode::RUSR | Mode::WUSR, rustix::fs::AtFlags::empty())?;
    rustix::net::listen(&listener, BACKLOG)?;
    say(&launcher.socket, Request::Hello { version: door::VERSION }, &[])?;
    say(&launcher.socket, Request::Settle { owner_grace_ms }, &[directory, lock, &listener])?;
    let Launcher { socket, pid, keeper } = launcher;
    Ok(Door { socket, pid, lived: false, keeper, home: None })
}

fn socket() -> Result<OwnedFd, Errno> {
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

/// Through the open directory, so that its path may be longer than a socket's address, and is looked up once.
fn address(directory: &OwnedFd) -> Result<SocketAddrUnix, Errno> {
    SocketAddrUnix::new(format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd()))
}

/// Says something whose answer nobody waits for.
fn say(socket: &OwnedFd, request: Request, fds: &[&OwnedFd]) -> Result<(), Errno> {
    let fds: Vec<_> = fds.iter().map(|fd| fd.as_fd()).collect();
    door::send(socket, &Ask { number: 0, request }, &fds, SendFlags::empty())
}

/// Lets a launcher that is not needed end, and takes its end.
fn end(launcher: Launcher) {
    let Launcher { socket, pid, .. } = launcher;
    drop(socket);
    let Some(pid) = pid else { return };
    let reaper = std::thread::Builder::new().name("jail-spare".to_owned()).spawn(move || raw::reap(pid));
    if let Err(error) = reaper {
        tracing::debug!(%error, "the end of a launcher that was not needed is left to the system");
    }
}
