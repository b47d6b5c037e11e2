//! The system calls of the launcher that no safe wrapper offers. No decision is made here.
#![expect(unsafe_code, reason = "clone3, mount_setattr and prctl have no complete safe wrapper")]

use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags};
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicI32, Ordering};

/// The error of the last call.
pub(crate) fn last() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// Of `linux/sched.h`; the constant in `libc` overflows.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Where a clone came out.
pub(crate) enum Cloned {
    Child,
    Parent(i32),
}

/// Forks into new namespaces. Only for single-threaded processes.
pub(crate) fn clone_child(flags: u64) -> Result<Cloned, Errno> {
    // SAFETY: all-zero is a valid `clone_args`.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = flags;
    arguments.exit_signal = u64::from(libc::SIGCHLD.unsigned_abs());
    clone3(&arguments)
}

/// A process's number that a parent and its child both see, whatever becomes of the child.
#[derive(Debug)]
pub(crate) struct Told(NonNull<AtomicI32>);

impl Told {
    const BYTES: usize = size_of::<AtomicI32>();

    pub(crate) fn new() -> Result<Self, Errno> {
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: the kernel chooses a place where nothing is.
        let page = unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), Self::BYTES, protection, flags)? };
        NonNull::new(page.cast()).map(Self).ok_or(Errno::NOMEM)
    }

    /// The number, once there is one.
    pub(crate) fn number(&self) -> Option<i32> {
        // SAFETY: the page is mapped as long as `self` lives, aligned, and zero is a valid number.
        Some(unsafe { self.0.as_ref() }.load(Ordering::Acquire)).filter(|number| *number > 0)
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        // SAFETY: nobody else in this process has the page.
        let _ = unsafe { rustix::mm::munmap(self.0.as_ptr().cast(), Self::BYTES) };
    }
}

/// As [`clone_child`], but the new process is the caller's sibling, and is born into a v2 group when one is given. The kernel
/// writes its number to `told` before it runs, even if the caller is killed in the middle; the new process does not have `told`.
pub(crate) fn clone_sibling(flags: u64, cgroup: Option<BorrowedFd<'_>>, told: &Told) -> Result<Cloned, Errno> {
    // SAFETY: the page is this process's own, and whoever has it goes on having it; only a fork is left without.
    unsafe { rustix::mm::madvise(told.0.as_ptr().cast(), Told::BYTES, Advice::LinuxDontFork)? };
    // SAFETY: all-zero is a valid `clone_args`.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = flags | u64::from((libc::CLONE_PARENT | libc::CLONE_PARENT_SETTID).unsigned_abs());
    arguments.parent_tid = told.0.as_ptr() as u64;
    if let Some(cgroup) = cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = u64::try_from(cgroup.as_raw_fd()).map_err(|_| Errno::BADF)?;
    }
    clone3(&arguments)
}

fn clone3(arguments: &libc::clone_args) -> Result<Cloned, Errno> {
    // SAFETY: without a stack and without CLONE_VM this is a fork; the caller has one thread, so the child's copy of the
    // allocator and of all locks is consistent.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, std::ptr::from_ref(arguments), size_of::<libc::clone_args>()) };
    match i32::try_from(pid) {
        Ok(0) => Ok(Cloned::Child),
        Ok(pid) if pid > 0 => Ok(Cloned::Parent(pid)),
        _ => Err(last()),
    }
}

/// `struct mount_attr` of `linux/mount.h`.
#[repr(C)]
#[derive(Default)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns: u64,
}

pub(crate) const MOUNT_READ_ONLY: u64 = 0x1;
pub(crate) const MOUNT_NO_SUID: u64 = 0x2;
pub(crate) const MOUNT_NO_DEV: u64 = 0x4;
pub(crate) const MOUNT_NO_EXEC: u64 = 0x8;
const MOUNT_IDMAP: u64 = 0x10_0000;

/// Adds attributes to a mount and all below it.
pub(crate) fn mount_add(mount: BorrowedFd<'_>, set: u64) -> Result<(), Errno> {
    set_attributes(mount, &MountAttr { set, ..MountAttr::default() }, true)
}

/// Makes one mount read-only, not what is mounted below it.
pub(crate) fn mount_read_only(mount: BorrowedFd<'_>) -> Result<(), Errno> {
    set_attributes(mount, &MountAttr { set: MOUNT_READ_ONLY, ..MountAttr::default() }, false)
}

/// Makes a detached mount translate ids by a user namespace.
pub(crate) fn mount_idmap(mount: BorrowedFd<'_>, userns: BorrowedFd<'_>) -> Result<(), Errno> {
    let userns = u64::try_from(userns.as_raw_fd()).map_err(|_| Errno::BADF)?;
    set_attributes(mount, &MountAttr { set: MOUNT_IDMAP, userns, ..MountAttr::default() }, false)
}

fn set_attributes(mount: BorrowedFd<'_>, attributes: &MountAttr, recursive: bool) -> Result<(), Errno> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is an empty string with its end, the structure has the kernel's layout and lives through the call.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attributes),
            size_of::<MountAttr>(),
        )
    };
    if done < 0 { Err(last()) } else { Ok(()) }
}

/// The version of Landlock that the kernel speaks; 0 when none.
pub(crate) fn landlock_version() -> u32 {
    const VERSION: u32 = 1;
    // SAFETY: with this flag the call takes no structure and returns a number.
    let version = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0_usize, VERSION) };
    u32::try_from(version).unwrap_or(0)
}

/// `prctl` with plain numbers.
pub(crate) fn prctl(option: i32, first: u64, second: u64) -> Result<i32, Errno> {
    // SAFETY: the options used here take numbers only.
    let done = unsafe { libc::prctl(option, first, second, 0_u64, 0_u64) };
    if done < 0 { Err(last()) } else { Ok(done) }
}

/// Becomes one user and group with no further groups.
pub(crate) fn become_user(uid: u32, gid: u32, clear_groups: bool) -> Result<(), Errno> {
    // SAFETY: changing credentials of the only thread has no memory effect.
    unsafe {
        if clear_groups && libc::setgroups(0, std::ptr::null()) < 0 {
            return Err(last());
        }
        if libc::setresgid(gid, gid, gid) < 0 || libc::setresuid(uid, uid, uid) < 0 {
            return Err(last());
        }
    }
    Ok(())
}

/// Becomes user and group 0 of a user namespace that has them, with one further group.
pub(crate) fn become_root(group: u32) -> Result<(), Errno> {
    // SAFETY: the list is one number long; changing credentials of the only thread has no memory effect.
    unsafe {
        if libc::setgroups(1, &raw const group) < 0 || libc::setresgid(0, 0, 0) < 0 || libc::setresuid(0, 0, 0) < 0 {
            return Err(last());
        }
    }
    Ok(())
}

/// Gives up every capability, in all three sets.
pub(crate) fn drop_capabilities() -> Result<(), Errno> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    let header = Header { version: 0x2008_0522, pid: 0 };
    let none = [0_u32; 6];
    // SAFETY: version 3 reads two triples of 32-bit sets, which `none` holds.
    let done = unsafe { libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr()) };
    if done < 0 { Err(last()) } else { Ok(()) }
}

/// `IFF_UP | IFF_RUNNING`, in the type of the field.
const IFF_UP_AND_RUNNING: libc::c_short = 0x41;

/// Brings the loopback interface of this network namespace up.
pub(crate) fn loopback_up() -> Result<(), Errno> {
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)?;
    // SAFETY: all-zero is a valid `ifreq`; the name is a short string with its end; the structure lives through the call.
    unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[..2].copy_from_slice(&[b'l' as libc::c_char, b'o' as libc::c_char]);
        request.ifr_ifru.ifru_flags = IFF_UP_AND_RUNNING;
        if libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) < 0 {
            return Err(last());
        }
    }
    Ok(())
}

/// Overwrites this process's copy of its environment, so that no child carries a secret of the harness in its memory.
pub(crate) fn scrub_environment() {
    // SAFETY: one thread, and nothing holds a reference to an environment string; each string is overwritten up to its end
    // and the list is emptied.
    unsafe {
        unsafe extern "C" {
            static mut environ: *mut *mut libc::c_char;
        }
        let mut entry = environ;
        while !entry.is_null() && !(*entry).is_null() {
            libc::memset((*entry).cast(), 0, libc::strlen(*entry));
            entry = entry.add(1);
        }
        libc::clearenv();
    }
}

/// Writes what is in memory of a file to its file system's disk and waits for it, without making it durable.
pub(crate) fn flush(file: BorrowedFd<'_>) -> Result<(), Errno> {
    let flags = libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    // SAFETY: the call takes numbers only.
    let done = unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, flags) };
    if done < 0 { Err(last()) } else { Ok(()) }
}

/// In a freshly cloned child: closes every descriptor but `kept`.
pub(crate) fn close_inherited(kept: &[i32]) -> Result<(), Errno> {
    // SAFETY: the child owns copies of the launcher's objects, whose destructors never run in it: it ends by `_exit`.
    unsafe { guest::sys::close_all_but(kept) }
}

/// Runs a forked child to its end; a panic in it never reaches the stack that it shares with its parent.
pub(crate) fn in_child(work: impl FnOnce() -> i32) -> ! {
    let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).unwrap_or(101);
    guest::sys::exit_now(code)
}

/// Has this process killed after so many seconds, unless it has ended before.
pub(crate) fn alarm(seconds: u32) {
    // SAFETY: setting a timer has no memory effect; its signal is left at its default.
    unsafe { libc::alarm(seconds) };
}

/// Waits for the end of a child.
pub(crate) fn reap(pid: i32) {
    let Some(pid) = rustix::process::Pid::from_raw(pid) else { return };
    while matches!(rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty()), Err(Errno::INTR)) {}
}
