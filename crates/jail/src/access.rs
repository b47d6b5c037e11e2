//! Landlock: a second, independent word on which files may be read, run and written, and no signals or abstract sockets to
//! the outside. It holds even where a mount was made wrongly.

use crate::door::Failure;
use crate::down::{self, Wall};
use crate::raw;
use landlock::{
    ABI, Access as _, AccessFs, BitFlags, CompatLevel, Compatible as _, PathBeneath, PathFd, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, RulesetStatus, Scope,
};
use std::os::fd::BorrowedFd;

/// Below this a rename across directories would be impossible; older kernels do without the wall or are refused.
const NEEDED: ABI = ABI::V2;
/// The newest that is made use of where the kernel has it.
const NEWEST: ABI = ABI::V6;

/// The version that is enforced where the wall stands: the kernel's, or the newest that is made use of. From 3 on files that
/// may only be read can't be truncated, from 5 on devices take no requests they should not, from 6 on neither abstract sockets
/// nor signals lead outside.
pub(crate) fn version() -> u32 {
    raw::landlock_version().min(6)
}

/// Refuses where this kernel's version is below what a policy asks for.
pub(crate) fn check_version(min: u32) -> Result<(), Failure> {
    let found = if min == 0 { 0 } else { version() };
    if found >= min {
        return Ok(());
    }
    Err(Failure::wall("landlock", format!("version {found} of Landlock is found, landlock_version_min = {min}")))
}

/// Restricts this process and all it starts. `layer` is a directory outside of the root that PID 1 alone holds open;
/// `writable` is what this root lets programs write to beside what every root does.
pub(crate) fn restrict(layer: Option<BorrowedFd<'_>>, writable: &[&'static str]) -> Result<(), String> {
    if down::is_down(Wall::Landlock) {
        return Ok(());
    }
    let written = writable.iter().map(|path| (*path, May::Own));
    restrict_to(&paths().into_iter().chain(written).collect::<Vec<_>>(), layer)
}

/// What may be done below a path.
#[derive(Clone, Copy, Debug)]
enum May {
    /// Read and run.
    Read,
    /// Use devices that are there.
    UseDevices,
    /// Write files that are there.
    WriteThere,
    /// All but make device nodes.
    Own,
}

impl May {
    fn access(self) -> BitFlags<AccessFs> {
        let read = AccessFs::from_read(NEWEST);
        match self {
            Self::Read => read,
            Self::UseDevices => read | AccessFs::WriteFile | AccessFs::IoctlDev | AccessFs::Truncate,
            Self::WriteThere => read | AccessFs::WriteFile | AccessFs::Truncate,
            Self::Own => AccessFs::from_all(NEWEST) & !(AccessFs::MakeChar | AccessFs::MakeBlock),
        }
    }
}

fn paths() -> [(&'static str, May); 7] {
    [
        ("/", May::Read),
        ("/dev", May::UseDevices),
        ("/dev/pts", May::UseDevices),
        ("/dev/shm", May::Own),
        ("/proc", May::WriteThere),
        ("/tmp", May::Own),
        (guest::WORKSPACE, May::Own),
    ]
}

fn restrict_to(paths: &[(&str, May)], layer: Option<BorrowedFd<'_>>) -> Result<(), String> {
    let restricted = || -> Result<RulesetStatus, Box<dyn std::error::Error>> {
        let mut rules = Ruleset::default()
            .set_compatibility(CompatLevel::HardRequirement)
            .handle_access(AccessFs::from_all(NEEDED))?
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(NEWEST))?
            .scope(Scope::AbstractUnixSocket | Scope::Signal)?
            .create()?;
        for (path, may) in paths {
            rules = rules.add_rule(PathBeneath::new(PathFd::new(path)?, may.access()))?;
        }
        if let Some(layer) = layer {
            rules = rules.add_rule(PathBeneath::new(layer, May::Own.access()))?;
        }
        Ok(rules.restrict_self()?.ruleset)
    };
    match restricted() {
        Ok(RulesetStatus::NotEnforced) => Err("the kernel enforced nothing".to_owned()),
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;
    use std::io::Write as _;
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

    /// What a thread that restricted itself may still do; no mount, namespace or user stands in its way.
    #[derive(Debug, PartialEq, Eq)]
    struct Seen {
        read: bool,
        write: Option<i32>,
        make: Option<i32>,
        truncate: Option<i32>,
        own: bool,
        run: bool,
        abstract_socket: Option<i32>,
        signal: Option<i32>,
        device: Option<i32>,
    }

    fn errno<T>(result: std::io::Result<T>) -> Option<i32> {
        result.err().map(|error| error.raw_os_error().unwrap_or(-1))
    }

    fn look(elsewhere: &std::path::Path, own: &std::path::Path, abstract_name: &str, other: i32) -> Seen {
        let file = elsewhere.join("file");
        let address = SocketAddr::from_abstract_name(abstract_name).unwrap();
        let other = rustix::process::Pid::from_raw(other).unwrap();
        let node = |at: &std::path::Path| {
            let mode = rustix::fs::Mode::from_raw_mode(0o600);
            let device = rustix::fs::makedev(1, 3);
            rustix::fs::mknodat(rustix::fs::CWD, at, rustix::fs::FileType::CharacterDevice, mode, device)
        };
        Seen {
            read: std::fs::read(&file).is_ok(),
            write: errno(
                std::fs::OpenOptions::new().append(true).open(&file).and_then(|mut file| file.write_all(b"x")),
            ),
            make: errno(std::fs::write(elsewhere.join("new"), "")),
            truncate: rustix::fs::open(&file, rustix::fs::OFlags::TRUNC, rustix::fs::Mode::empty())
                .err()
                .map(Errno::raw_os_error),
            own: std::fs::write(own.join("new"), "").is_ok() && std::fs::remove_file(own.join("new")).is_ok(),
            run: std::process::Command::new("/bin/true").status().is_ok_and(|status| status.success()),
            abstract_socket: errno(UnixStream::connect_addr(&address)),
            signal: rustix::process::test_kill_process(other).err().map(Errno::raw_os_error),
            device: node(&own.join("device")).err().map(Errno::raw_os_error),
        }
    }

    #[test]
    fn it_holds_by_itself() {
        let (elsewhere, own) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(elsewhere.path().join("file"), "text").unwrap();
        let name = format!("topside-access-{}", std::process::id());
        let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let mut other = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = i32::try_from(other.id()).unwrap();
        let look = || look(elsewhere.path(), own.path(), &name, pid);
        let before = look();
        let root = rustix::process::geteuid().is_root();
        let free = Seen {
            read: true,
            write: None,
            make: None,
            truncate: None,
            own: true,
            run: true,
            abstract_socket: None,
            signal: None,
            device: (!root).then_some(libc::EPERM),
        };
        assert_eq!(before, free, "each of these works where the wall is not");
        let _ = std::fs::remove_file(own.path().join("device"));
        let rules = [("/", May::Read), (own.path().to_str().unwrap(), May::Own)];
        let held = std::thread::scope(|scope| {
            let restricted = scope.spawn(|| {
                crate::privileges::no_new_privileges().unwrap();
                restrict_to(&rules, None).map(|()| look())
            });
            restricted.join().unwrap()
        });
        let _ = other.kill();
        let _ = other.wait();
        drop(listener);
        let version = version();
        if version < 2 {
            assert!(held.is_err(), "below version 2 the wall is said to be missing");
            return eprintln!("SKIPPED it_holds_by_itself: this kernel speaks version {version} of Landlock");
        }
        let from = |needed: u32, errno: i32| (version >= needed).then_some(errno);
        let expected = Seen {
            read: true,
            write: Some(libc::EACCES),
            make: Some(libc::EACCES),
            truncate: from(3, libc::EACCES),
            own: true,
            run: true,
            abstract_socket: from(6, libc::EPERM),
            signal: from(6, libc::EPERM),
            device: Some(libc::EACCES),
        };
        assert_eq!(held, Ok(expected), "version {version}");
    }
}
