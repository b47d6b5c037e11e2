//! The system calls that no safe wrapper offers, each in the smallest form needed. No decision is made here.
#![expect(unsafe_code, reason = "forking, executing and signal descriptors have no safe wrapper")]

use rustix::io::Errno;
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags};
use rustix::process::Pid;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::marker::PhantomData;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::sync::OnceLock;

fn last() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

fn check(result: c_int) -> Result<c_int, Errno> {
    if result < 0 { Err(last()) } else { Ok(result) }
}

/// Where a fork came out.
#[derive(Debug)]
pub enum Forked {
    /// In the child.
    Child,
    /// In the parent, with the child's id.
    Parent(Pid),
}

/// Forks. The process must have one thread only: the child may then use the allocator and locks as usual.
pub fn fork() -> Result<Forked, Errno> {
    // SAFETY: the callers are single-threaded processes (PID 1, the launcher), so no lock is held by a thread that the
    // child does not have.
    let pid = check(unsafe { libc::fork() })?;
    Ok(Pid::from_raw(pid).map_or(Forked::Child, Forked::Parent))
}

/// As [`fork`], for a child that only executes another program: nothing is told to the C library, whose preparations (the
/// allocator's among them) take longer than the fork. The child must start no thread and wait for no lock of another process.
pub(crate) fn fork_to_execute() -> Result<Forked, Errno> {
    const NONE: libc::c_long = 0;
    // SAFETY: without CLONE_VM this is a fork; the caller has one thread, so the child's copy of the allocator and of all locks
    // is consistent, whether they were told of it or not.
    let pid = unsafe { libc::syscall(libc::SYS_clone, libc::c_long::from(libc::SIGCHLD), NONE, NONE, NONE, NONE) };
    let pid = check(c_int::try_from(pid).unwrap_or(-1))?;
    Ok(Pid::from_raw(pid).map_or(Forked::Child, Forked::Parent))
}

/// Bytes of the stack of a child that shares memory, most of which is never touched; and of the page below, which must not be.
const STACK_BYTES: usize = 256 << 10;
const GUARD_BYTES: usize = 4 << 10;

/// The stack of those children, of which there is one at a time: its lowest address.
fn stack() -> Result<*mut c_void, Errno> {
    static STACK: OnceLock<usize> = OnceLock::new();
    if let Some(stack) = STACK.get() {
        return Ok(std::ptr::with_exposed_provenance_mut(*stack));
    }
    let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE | MapFlags::STACK);
    // SAFETY: the memory is new, and nobody's until it is returned.
    let stack = unsafe {
        let stack = rustix::mm::mmap_anonymous(std::ptr::null_mut(), STACK_BYTES, protection, flags)?;
        rustix::mm::mprotect(stack, GUARD_BYTES, MprotectFlags::empty())?;
        stack
    };
    let stack = *STACK.get_or_init(|| stack.expose_provenance());
    Ok(std::ptr::with_exposed_provenance_mut(stack))
}

/// Whether PID 1 has no child, so that nothing runs in its process list which could stop or kill one: whatever does is a
/// child of its own, or became one when its parent ended.
pub(crate) fn is_alone() -> bool {
    let which = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT | libc::__WALL;
    // SAFETY: the kernel is told to fill in nothing, and takes nobody's end away.
    check(unsafe { libc::waitid(libc::P_ALL, 0, std::ptr::null_mut(), which) }) == Err(Errno::CHILD)
}

/// Has a child do `work`, which is to execute a program or to leave why it did not. Until then the child shares this process's
/// memory, of which nothing is copied, and this process stands still: nobody may be there who could stop the child. What it
/// allocates and leaves is this process's.
pub(crate) fn spawn(mut work: &mut dyn FnMut()) -> Result<Pid, Errno> {
    extern "C" fn enter(work: *mut c_void) -> c_int {
        // SAFETY: `spawn` gives a pointer to work of its own, and stands still as long as this runs.
        let work = unsafe { &mut *work.cast::<&mut dyn FnMut()>() };
        // A panic must not reach the end of this stack.
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        127
    }
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: the stack is big enough, it grows downwards, and its first page is a guard; this process, which has one thread,
    // stands still until the child has left it (CLONE_VFORK), so that neither sees the other in the middle of anything.
    let pid = unsafe { check(libc::clone(enter, stack()?.byte_add(STACK_BYTES), flags, (&raw mut work).cast()))? };
    Pid::from_raw(pid).ok_or(Errno::SRCH)
}

/// Ends the process at once: no destructors, no buffers flushed, as a forked child must.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` takes any code and does not return.
    unsafe { libc::_exit(code) }
}

/// One instruction of a filter of system calls, as the kernel takes it (`struct sock_filter`).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Instruction {
    /// What is done.
    pub code: u16,
    /// How many instructions are skipped when a condition holds.
    pub jt: u8,
    /// The same when it does not.
    pub jf: u8,
    /// The operand.
    pub k: u32,
}

/// A filter of system calls, at most a few hundred instructions long.
#[derive(Clone, Debug)]
pub struct Filter(Vec<Instruction>);

impl Filter {
    /// Of these instructions.
    pub fn new(instructions: Vec<Instruction>) -> Self {
        Self(instructions)
    }

    /// Restricts this process and all it starts, for good. It must have given up new privileges.
    pub(crate) fn install(&self) -> Result<(), Errno> {
        const PR_SET_SECCOMP: c_int = 22;
        const MODE_FILTER: u64 = 2;
        #[repr(C)]
        struct Program {
            length: u16,
            instructions: *const Instruction,
        }
        let length = u16::try_from(self.0.len()).map_err(|_| Errno::INVAL)?;
        let program = Program { length, instructions: self.0.as_ptr() };
        // SAFETY: the program has the kernel's layout (`struct sock_fprog`), and it and its instructions live through the call.
        check(unsafe { libc::prctl(PR_SET_SECCOMP, MODE_FILTER, &raw const program, 0_u64, 0_u64) }).map(drop)
    }
}

/// Strings as a program is given them.
pub(crate) struct Pointers<'a>(Vec<*const c_char>, PhantomData<&'a CString>);

impl<'a> Pointers<'a> {
    pub(crate) fn to(strings: &'a [CString]) -> Self {
        Self(strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect(), PhantomData)
    }
}

/// Replaces the program; returns only on failure.
pub(crate) fn execute(program: &CStr, argv: &Pointers<'_>, environment: &Pointers<'_>) -> Errno {
    // SAFETY: both lists end with a null pointer and point to strings that outlive the call.
    unsafe { libc::execve(program.as_ptr(), argv.0.as_ptr(), environment.0.as_ptr()) };
    last()
}

/// Blocks `SIGCHLD` and gives a descriptor that is readable when one waits; ignores `SIGPIPE`.
pub fn child_signals() -> Result<OwnedFd, Errno> {
    // SAFETY: the set is initialised by `sigemptyset` before it is used; the returned descriptor is owned by nobody else.
    unsafe {
        let mut set = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        check(libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()))?;
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
        let fd = check(libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// What a terminal or a service manager sends to a whole group, and what a write to nobody raises.
const GROUP_SIGNALS: [c_int; 6] =
    [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT, libc::SIGPIPE, libc::SIGTSTP];

/// Gives the signals that are ignored here their default disposition and blocks none, as a program expects at its start. Those
/// that are caught become default by the exec; no others are ignored after [`ignore_group_signals`].
pub fn reset_signals() {
    // SAFETY: setting default dispositions and an empty mask has no precondition.
    unsafe {
        for signal in GROUP_SIGNALS {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut set = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut());
    }
}

/// Ignores the signals that a terminal or a service manager sends to a whole group, and no others, whatever was ignored before.
pub fn ignore_group_signals() {
    // SAFETY: setting a disposition has no precondition; refusals for KILL and STOP are passed over.
    unsafe {
        for signal in 1..=64 {
            let is_sent = GROUP_SIGNALS.contains(&signal);
            libc::signal(signal, if is_sent { libc::SIG_IGN } else { libc::SIG_DFL });
        }
    }
}

/// Makes `fd` the descriptor `number`, kept over an exec.
pub fn install(fd: BorrowedFd<'_>, number: c_int) -> Result<(), Errno> {
    if fd.as_raw_fd() == number {
        // SAFETY: `number` is the borrowed, open descriptor; this clears its close-on-exec flag.
        return check(unsafe { libc::fcntl(number, libc::F_SETFD, 0) }).map(drop);
    }
    // SAFETY: `dup2` onto a number of 0, 1 or 2 replaces what stands there, which no owner in this process relies on.
    check(unsafe { libc::dup2(fd.as_raw_fd(), number) }).map(drop)
}

/// Marks every descriptor from `first` on to be closed by an exec.
pub fn close_on_exec_from(first: u32) -> Result<(), Errno> {
    // SAFETY: only flags change; no descriptor is closed under its owner.
    check(unsafe { libc::close_range(first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC as c_int) }).map(drop)
}

/// Closes every descriptor but the given ones.
///
/// # Safety
/// No owner of a closed descriptor may use or drop it afterwards.
pub unsafe fn close_all_but(kept: &[c_int]) -> Result<(), Errno> {
    let mut kept: Vec<u32> = kept.iter().filter_map(|fd| u32::try_from(*fd).ok()).collect();
    kept.sort_unstable();
    let mut first = 0;
    for fd in kept {
        if fd > first {
            // SAFETY: the caller vouches that nobody uses these descriptors again.
            check(unsafe { libc::close_range(first, fd - 1, 0) })?;
        }
        first = fd + 1;
    }
    // SAFETY: as above.
    check(unsafe { libc::close_range(first, u32::MAX, 0) }).map(drop)
}

/// Makes the terminal on `fd` the controlling terminal of this session.
pub fn take_terminal(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: TIOCSCTTY takes an integer argument; 0 never steals a terminal.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCSCTTY, 0) }).map(drop)
}

/// Opens the other end of a pseudo-terminal through its master, whatever is mounted where.
pub fn terminal_peer(master: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes open flags and returns a new descriptor that nobody else owns.
    unsafe { Ok(OwnedFd::from_raw_fd(check(libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags))?)) }
}

/// Kills every process of this PID namespace but the caller, which must be its PID 1.
pub fn kill_all() {
    // SAFETY: as PID 1 of a namespace, -1 reaches only processes of that namespace.
    unsafe { libc::kill(-1, libc::SIGKILL) };
}

/// Kills one process, or a process group when `pid` is negative.
pub fn kill(pid: i32) {
    // SAFETY: sending a signal has no memory effect; a process that is gone is not an error here.
    unsafe { libc::kill(pid, libc::SIGKILL) };
}

/// Makes a process stand still, or all that the caller may reach, without itself, when it is -1.
pub fn stop(pid: i32) {
    // SAFETY: sending a signal has no memory effect; a process that is gone is not an error here.
    unsafe { libc::kill(pid, libc::SIGSTOP) };
}

/// Lets a process go on that stands still, or all of them when it is -1.
pub fn go_on(pid: i32) {
    // SAFETY: as for `stop`.
    unsafe { libc::kill(pid, libc::SIGCONT) };
}

/// In a forked child: keeps only `ends` as 0, 1, 2 and `kept` as 3, performs `work`, which may own no other descriptor, and
/// ends with its code.
pub fn run_alone(ends: [OwnedFd; 3], kept: Option<OwnedFd>, work: impl FnOnce(Option<OwnedFd>) -> i32) -> ! {
    for (fd, number) in ends.iter().zip(0..) {
        if install(fd.as_fd(), number).is_err() {
            exit_now(125);
        }
    }
    std::mem::forget(ends);
    // What stood at 3 belongs to this process's parent alone, or is `kept` itself.
    let kept = kept.map(|kept| if install(kept.as_fd(), 3).is_ok() { std::mem::forget(kept) } else { exit_now(125) });
    let numbers: &[c_int] = if kept.is_some() { &[0, 1, 2, 3] } else { &[0, 1, 2] };
    // SAFETY: this child never returns to the owners of what is closed here: it ends by `_exit`, without destructors.
    if unsafe { close_all_but(numbers) }.is_err() {
        exit_now(125);
    }
    // SAFETY: 3 was just installed, and whoever owned it before is never run again in this process.
    exit_now(work(kept.map(|()| unsafe { OwnedFd::from_raw_fd(3) })))
}

/// Gives an open file to another user, with the group it has.
pub(crate) fn give(file: BorrowedFd<'_>, user: u32) -> Result<(), Errno> {
    // SAFETY: the call takes numbers only, and the descriptor is borrowed for it.
    check(unsafe { libc::fchown(file.as_raw_fd(), user, u32::MAX) }).map(drop)
}

const PR_CAPBSET_DROP: c_int = 24;
const PR_SET_SECUREBITS: c_int = 28;
/// No capabilities for user 0 by an exec, none kept or lost over a change of user, no ambient ones, and all of that locked.
const SECUREBITS_NONE: u64 = 0b1110_1111;
/// More capabilities than any kernel knows; the first unknown one ends the loop.
const CAPABILITIES_MAX: u64 = 64;

/// Becomes another user with these groups, and keeps of its capabilities only `kept`, also for what it executes. Needs SETUID,
/// SETGID and SETPCAP.
pub(crate) fn become_user(user: u32, group: u32, groups: &[u32], kept: u64) -> Result<(), Errno> {
    for capability in (0..CAPABILITIES_MAX).filter(|capability| kept & (1 << capability) == 0) {
        match prctl(PR_CAPBSET_DROP, capability) {
            Ok(()) => {}
            Err(Errno::INVAL) => break,
            Err(error) => return Err(error),
        }
    }
    if kept == 0 {
        prctl(PR_SET_SECUREBITS, SECUREBITS_NONE)?;
    }
    // SAFETY: the list and its length are of one slice; changing credentials of the only thread has no memory effect.
    unsafe {
        check(libc::setgroups(groups.len(), groups.as_ptr()))?;
        check(libc::setresgid(group, group, group))?;
        check(libc::setresuid(user, user, user))?;
    }
    set_capabilities(kept, kept)
}

/// Becomes another user but may still do what `kept` says, once it is raised. Needs SETUID and SETGID.
pub(crate) fn become_user_keeping(user: u32, group: u32, groups: &[u32], kept: u64) -> Result<(), Errno> {
    const PR_SET_KEEPCAPS: c_int = 8;
    prctl(PR_SET_KEEPCAPS, 1)?;
    // SAFETY: as for `become_user`.
    unsafe {
        check(libc::setgroups(groups.len(), groups.as_ptr()))?;
        check(libc::setresgid(group, group, group))?;
        check(libc::setresuid(user, user, user))?;
    }
    set_capabilities(0, kept)
}

/// Sets this process's effective and permitted capabilities, and no inheritable one.
pub fn set_capabilities(effective: u64, permitted: u64) -> Result<(), Errno> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: c_int,
    }
    let header = Header { version: 0x2008_0522, pid: 0 };
    let half = |set: u64| u32::try_from(set & u64::from(u32::MAX)).unwrap_or(0);
    let halves = |set: u64| [half(set), half(set >> 32)];
    let (effective, permitted) = (halves(effective), halves(permitted));
    let sets = [effective[0], permitted[0], 0, effective[1], permitted[1], 0];
    // SAFETY: version 3 reads two triples of 32-bit sets, which `sets` holds.
    let done = unsafe { libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr()) };
    if done < 0 { Err(last()) } else { Ok(()) }
}

fn prctl(option: c_int, value: u64) -> Result<(), Errno> {
    // SAFETY: the options used here take numbers only.
    check(unsafe { libc::prctl(option, value, 0_u64, 0_u64, 0_u64) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{Signal, WaitOptions, kill_process, waitpid};

    /// How the child of `work` ends, and whether `work` came to its end. In a process of its own, which has one thread.
    fn check(work: fn(), expected: u8) {
        let Forked::Parent(pid) = fork().unwrap() else {
            let mut came = false;
            let spawned = spawn(&mut || {
                work();
                came = true;
            });
            let ended = spawned.map(|pid| waitpid(Some(pid), WaitOptions::empty()));
            let Ok(Ok(Some((_, status)))) = ended else { exit_now(99) };
            let code = status.terminating_signal().or(status.exit_status()).unwrap_or(98);
            exit_now(code + i32::from(came) * 100)
        };
        let (_, status) = waitpid(Some(pid), WaitOptions::empty()).unwrap().unwrap();
        assert_eq!(status.exit_status(), Some(i32::from(expected)));
    }

    #[test]
    fn who_spawns_goes_on_whatever_becomes_of_the_child() {
        // It did not execute, and what it wrote is seen.
        check(|| {}, 127 + 100);
        check(|| exit_now(7), 7);
        check(
            || {
                execute(c"/bin/true", &Pointers::to(&[c"true".into()]), &Pointers::to(&[]));
            },
            0,
        );
        check(|| kill_process(rustix::process::getpid(), Signal::KILL).unwrap_or_default(), 9);
        check(|| panic!("in the child"), 127);
    }
}
