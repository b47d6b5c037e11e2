//! What a process gives up for good before it serves a guest: capabilities, the way back to them, resource bounds.

use crate::down::{self, Wall};
use crate::raw;
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit};
use sandbox::Limits;

const PR_SET_PDEATHSIG: i32 = 1;
const PR_SET_DUMPABLE: i32 = 4;
const PR_CAPBSET_DROP: i32 = 24;
const PR_SET_SECUREBITS: i32 = 28;
const PR_SET_NO_NEW_PRIVS: i32 = 38;
const PR_CAP_AMBIENT: i32 = 47;
const PR_CAP_AMBIENT_CLEAR_ALL: u64 = 4;
/// No capabilities for user 0, none kept over a change of user, no ambient ones, and all of that locked.
const SECUREBITS: u64 = 0b1110_1111;
/// More capabilities than any kernel knows; the first unknown one ends the loop.
const CAPABILITIES_MAX: u64 = 64;

/// What one process may lock in memory.
const MEMLOCK_BYTES_MAX: u64 = 64 << 10;

/// Gives up the way to get any capability but `kept` by an exec; what this process has it keeps until it gives it up.
pub(crate) fn bound_capabilities(kept: u64) -> Result<(), Errno> {
    if kept == 0 && down::is_down(Wall::Capabilities) {
        return Ok(());
    }
    for capability in (0..CAPABILITIES_MAX).filter(|capability| kept & (1 << capability) == 0) {
        match raw::prctl(PR_CAPBSET_DROP, capability, 0) {
            Ok(_) => {}
            Err(Errno::INVAL) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Gives up every capability and, after [`bound_capabilities`], the other ways to get one.
pub(crate) fn drop_capabilities() -> Result<(), Errno> {
    if down::is_down(Wall::Capabilities) {
        return Ok(());
    }
    raw::prctl(PR_SET_SECUREBITS, SECUREBITS, 0)?;
    raw::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0)?;
    raw::drop_capabilities()
}

/// No ambient capabilities, locked; user 0 has by an exec what is left to it.
const SECUREBITS_ROOT: u64 = 0b1100_0000;

/// Gives up every capability but `kept`, of which what is executed as user 0 gets what its starter leaves to it. After
/// [`bound_capabilities`].
pub(crate) fn keep_capabilities(kept: u64) -> Result<(), Errno> {
    raw::prctl(PR_SET_SECUREBITS, SECUREBITS_ROOT, 0)?;
    raw::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0)?;
    guest::sys::set_capabilities(kept, kept)
}

/// No program that is executed from here gains privileges.
pub(crate) fn no_new_privileges() -> Result<(), Errno> {
    raw::prctl(PR_SET_NO_NEW_PRIVS, 1, 0).map(drop)
}

/// Hides this process's memory and descriptors from others of its user.
pub(crate) fn hide() -> Result<(), Errno> {
    // Whoever changed its user is not dumpable already.
    let dumpable = u64::from(down::is_down(Wall::Dumpable));
    raw::prctl(PR_SET_DUMPABLE, dumpable, 0).map(drop)
}

/// Dies when its parent does.
pub(crate) fn die_with_parent() -> Result<(), Errno> {
    raw::prctl(PR_SET_PDEATHSIG, 9, 0).map(drop)
}

/// Names this process in listings.
pub(crate) fn name_process(name: &std::ffi::CStr) {
    let _ = rustix::thread::set_name(name);
}

/// Bounds what one process may take.
pub(crate) fn limit(limits: &Limits) -> Result<(), Errno> {
    let file = limits.workspace_bytes_max.max(limits.tmp_bytes_max).saturating_mul(2);
    let bounds = [
        // One byte, not none: only this value also keeps the kernel from starting the host's handler of piped core dumps.
        (Resource::Core, 1),
        (Resource::Nofile, limits.open_files_max),
        // Above what the file systems hold, so that a full one says so; it bounds only how large a hole may be.
        (Resource::Fsize, file),
        (Resource::Memlock, MEMLOCK_BYTES_MAX),
        (Resource::Msgqueue, 0),
    ];
    for (resource, bound) in bounds {
        // What the host allows even less of stays so.
        let allowed = rustix::process::getrlimit(resource).maximum.unwrap_or(u64::MAX);
        let bound = Some(bound.min(allowed));
        rustix::process::setrlimit(resource, Rlimit { current: bound, maximum: bound })?;
    }
    Ok(())
}
