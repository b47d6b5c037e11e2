//! Roots of every kind, under real sandboxes: as root where this runs as root, and then again as an ordinary user.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a test with a main of its own is a test"
)]

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
    if let Some(code) = support::head::part() {
        return code;
    }
    if let Some(data) = support::head::argument(MODE) {
        support::user::become_user(USER);
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
