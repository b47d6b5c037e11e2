//! Roots of every kind, under real sandboxes: as root where this runs as root, and then again as an ordinary user.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a test with a main of its own is a test"
)]
#![expect(unsafe_code, reason = "stepping down to another user has no safe wrapper")]

#[path = "roots/cases.rs"]
mod cases;
#[path = "roots/make.rs"]
mod make;
mod support;

use std::process::ExitCode;

/// Nobody on any machine this runs on.
const USER: u32 = 12_346;
const MODE: &str = "--as-ordinary=";

fn main() -> ExitCode {
    if let Some(code) = support::hostile::attempts::attacker() {
        return code;
    }
    if let Some(data) = std::env::args().find_map(|argument| Some(argument.strip_prefix(MODE)?.to_owned())) {
        // SAFETY: this process has one thread, and changing its credentials touches no memory.
        let done = unsafe {
            libc::setgroups(0, std::ptr::null()) | libc::setresgid(USER, USER, USER) | libc::setresuid(USER, USER, USER)
        };
        assert_eq!(done, 0, "stepping down");
        // Who starts as this user is dumpable; who steps down to it must say so.
        rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::Dumpable).unwrap();
        println!("as user {USER}:");
        return support::run(jail::launch().unwrap(), data.as_ref(), cases::cases());
    }
    let data = tempfile::tempdir().unwrap();
    let outer = support::Outer::enter("roots", None);
    let mut code = support::run(jail::launch().unwrap(), data.path(), cases::cases());
    drop(outer);
    if rustix::process::geteuid().is_root() {
        let data = tempfile::tempdir().unwrap();
        std::os::unix::fs::chown(data.path(), Some(USER), Some(USER)).unwrap();
        let outer = support::Outer::enter("roots-ordinary", Some(USER));
        let again = support::again(&[&format!("{MODE}{}", data.path().display())], &[]);
        drop(outer);
        if again != ExitCode::SUCCESS {
            code = again;
        }
    }
    code
}
