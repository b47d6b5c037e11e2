//! The system calls of attackers, in their rawest form. Whatever is called here is called in a process that is thrown away.
#![expect(unsafe_code, reason = "attackers use no wrappers")]

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// An argument that no call takes for anything: no descriptor, no address, no known flag.
pub(crate) const NOTHING: i64 = -1;

/// What came of a call: a value, or the kernel's error.
pub(crate) type Got = Result<i64, i32>;

fn got(value: i64) -> Got {
    // The kernel gives errors as the negated number, of at most 4095.
    if (-4_095..0).contains(&value) { Err(i32::try_from(-value).unwrap_or(libc::EIO)) } else { Ok(value) }
}

/// A call by its number through this architecture's own door.
pub(crate) fn call(number: i64, arguments: [i64; 6]) -> Got {
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: the attacks hand over pointers to memory that lives through the call, or none; what a call does to this process
    // is the attack's affair, for it ends with it.
    let value = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if value == -1 { Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)) } else { Ok(value) }
}

/// As [`call`] for fewer arguments.
pub(crate) fn call_with<const N: usize>(number: i64, arguments: [i64; N]) -> Got {
    let mut all = [0; 6];
    all[..N].copy_from_slice(&arguments);
    call(number, all)
}

/// The address of something, as an argument.
pub(crate) fn at<T: ?Sized>(thing: &T) -> i64 {
    std::ptr::from_ref(thing).cast::<u8>() as i64
}

/// A call through the door of 32-bit programs.
#[cfg(target_arch = "x86_64")]
pub(crate) fn call_i386(number: i64, argument: i64) -> Got {
    let value: i64;
    // SAFETY: `int 0x80` changes rax and, on some kernels, r8 to r11; rbx is saved by hand since the compiler keeps it.
    unsafe {
        std::arch::asm!(
            "push rbx",
            "mov rbx, {argument}",
            "int 0x80",
            "pop rbx",
            argument = in(reg) argument,
            inlateout("rax") number => value,
            inlateout("rcx") argument => _,
            inlateout("rdx") argument => _,
            inlateout("rsi") argument => _,
            inlateout("rdi") argument => _,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    // Its results are 32 bits wide.
    got(i64::from(i32::try_from(value & 0xffff_ffff).unwrap_or_else(|_| {
        let low = u32::try_from(value & 0xffff_ffff).unwrap_or(0);
        low.cast_signed()
    })))
}

/// How a child ended that made one try.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The call came back.
    Got(Got),
    /// The process ended by the call.
    Ended,
    /// A signal ended it.
    Signal(i32),
    /// It was still in the call when its time was over.
    Waits,
}

/// Makes one try in a child of its own, which has so much time for it.
pub(crate) fn apart(time: Duration, act: impl FnOnce() -> Got) -> End {
    const UNSET: i64 = i64::MIN;
    // SAFETY: a fresh shared mapping of one page, valid until this function unmaps it; both processes reach it through an
    // atomic. The child ends by `_exit` and uses nothing but the act and the cell.
    unsafe {
        let page = libc::mmap(
            std::ptr::null_mut(),
            4_096,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS,
            -1,
            0,
        );
        assert_ne!(page, libc::MAP_FAILED, "no memory to share");
        let cell = &*page.cast::<AtomicI64>();
        cell.store(UNSET, Ordering::SeqCst);
        let pid = libc::fork();
        assert!(pid >= 0, "no child to try in");
        if pid == 0 {
            let own = libc::getpid();
            let value = match act() {
                Ok(value) => value.max(0),
                Err(errno) => -i64::from(errno),
            };
            // A call that forks comes back twice.
            if libc::getpid() == own {
                cell.store(value, Ordering::SeqCst);
            }
            libc::_exit(0);
        }
        let end = end_of(pid, time);
        let value = cell.load(Ordering::SeqCst);
        libc::munmap(page, 4_096);
        match end {
            Some(status) if libc::WIFSIGNALED(status) => End::Signal(libc::WTERMSIG(status)),
            Some(_) if value == UNSET => End::Ended,
            Some(_) => End::Got(got(value)),
            None => End::Waits,
        }
    }
}

/// The status of a child that ended in time; one that did not is killed.
fn end_of(pid: i32, time: Duration) -> Option<i32> {
    let mut status = 0;
    // SAFETY: `pidfd_open`, `poll` and `waitpid` get a child of this process and structures that live through the calls.
    unsafe {
        let fd = i32::try_from(libc::syscall(libc::SYS_pidfd_open, pid, 0)).unwrap_or(-1);
        let mut polled = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        let ready = libc::poll(&raw mut polled, 1, i32::try_from(time.as_millis()).unwrap_or(i32::MAX));
        libc::close(fd);
        if ready == 0 {
            libc::kill(pid, libc::SIGKILL);
        }
        libc::waitpid(pid, &raw mut status, 0);
        (ready != 0).then_some(status)
    }
}

/// Becomes root of namespaces of its own, in which nothing can be hurt; root steps down to an ordinary user first. Where that
/// is refused, nothing changes: an attacker goes on with what it has.
pub(crate) fn gain() {
    const NOBODY: u32 = 12_346;
    // SAFETY: this process has one thread; changing its credentials and namespaces touches no memory.
    unsafe {
        if libc::geteuid() == 0 {
            let done = libc::setgroups(0, std::ptr::null())
                | libc::setresgid(NOBODY, NOBODY, NOBODY)
                | libc::setresuid(NOBODY, NOBODY, NOBODY);
            assert_eq!(done, 0, "stepping down");
            libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0);
        }
        let (uid, gid) = (libc::geteuid(), libc::getegid());
        let all = libc::CLONE_NEWUSER
            | libc::CLONE_NEWNS
            | libc::CLONE_NEWNET
            | libc::CLONE_NEWIPC
            | libc::CLONE_NEWUTS
            | libc::CLONE_NEWCGROUP;
        if libc::unshare(all) != 0 {
            return;
        }
        let wrote = std::fs::write("/proc/self/setgroups", "deny")
            .and_then(|()| std::fs::write("/proc/self/uid_map", format!("0 {uid} 1")))
            .and_then(|()| std::fs::write("/proc/self/gid_map", format!("0 {gid} 1")));
        assert!(wrote.is_ok(), "the maps of a user namespace: {wrote:?}");
        let flags = libc::MS_REC | libc::MS_PRIVATE;
        libc::mount(c"none".as_ptr(), c"/".as_ptr(), std::ptr::null(), flags, std::ptr::null());
    }
}

/// Maps so many steps of memory and touches the first page of each.
pub(crate) fn touch_sparsely(pages: usize, step: usize) -> Got {
    // SAFETY: a fresh private mapping of exactly that length; only bytes within it are written.
    unsafe {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let map = libc::mmap(std::ptr::null_mut(), pages * step, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0);
        if map == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(0));
        }
        // Whole huge pages would need no table.
        libc::madvise(map, pages * step, libc::MADV_NOHUGEPAGE);
        for page in 0..pages {
            map.cast::<u8>().add(page * step).write_volatile(1);
        }
    }
    Ok(0)
}

/// Forks; in the child runs `act` and ends with its code. Gives the child's id.
pub(crate) fn child(act: impl FnOnce() -> i32) -> i32 {
    // SAFETY: the attacks have one thread, so the child may use everything; it ends by `_exit`.
    unsafe {
        let pid = libc::fork();
        if pid == 0 {
            libc::_exit(act());
        }
        pid
    }
}

/// Mounts a bounded file system in memory at `path`, for this process and its children alone. Needs root.
pub(crate) fn bound_directory(path: &std::ffi::CStr, options: &std::ffi::CStr) {
    // SAFETY: this process has one thread, and every string lives through the calls.
    unsafe {
        let private = libc::MS_REC | libc::MS_PRIVATE;
        let done = libc::unshare(libc::CLONE_NEWNS) == 0
            && libc::mount(c"none".as_ptr(), c"/".as_ptr(), std::ptr::null(), private, std::ptr::null()) == 0
            && libc::mount(c"data".as_ptr(), path.as_ptr(), c"tmpfs".as_ptr(), 0, options.as_ptr().cast()) == 0;
        assert!(done, "a bounded file system: {}", std::io::Error::last_os_error());
    }
}

/// The device number of the file system that a loop device's file is on.
pub(crate) fn backing_device(name: &str) -> Option<u64> {
    const LOOP_GET_STATUS64: u64 = 0x4c05;
    const STATUS_WORDS: usize = 29;
    let device = std::fs::File::open(format!("/dev/{name}")).ok()?;
    let mut status = [0_u64; STATUS_WORDS];
    let fd = std::os::fd::AsRawFd::as_raw_fd(&device);
    // SAFETY: the request writes one `struct loop_info64` of 232 bytes, which is what `status` holds.
    let done = unsafe { libc::ioctl(fd, LOOP_GET_STATUS64 as _, status.as_mut_ptr()) };
    (done == 0).then_some(status[0])
}

/// Ends at once.
pub(crate) fn leave() -> ! {
    // SAFETY: `_exit` takes any code and does not return.
    unsafe { libc::_exit(0) }
}

/// Stays until a signal ends it.
pub(crate) fn stay() -> ! {
    loop {
        // SAFETY: `pause` only waits.
        unsafe { libc::pause() };
    }
}

/// Waits for a child and gives its raw status.
pub(crate) fn wait(pid: i32) -> i32 {
    let mut status = 0;
    // SAFETY: the status lives through the call.
    unsafe { libc::waitpid(pid, &raw mut status, 0) };
    status
}
