//! Another user: a test program that root starts becomes somebody ordinary, for good.
#![expect(unsafe_code, reason = "stepping down to another user has no safe wrapper")]

/// Steps down to another user. This process has one thread.
pub(crate) fn become_user(user: u32) {
    // SAFETY: this process has one thread, and changing its credentials touches no memory.
    let done = unsafe {
        libc::setgroups(0, std::ptr::null()) | libc::setresgid(user, user, user) | libc::setresuid(user, user, user)
    };
    assert_eq!(done, 0, "stepping down");
    // Who starts as this user is dumpable; who steps down to it must say so.
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::Dumpable).unwrap();
}
