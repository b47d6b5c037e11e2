//! A launcher that outlives its harness: this program is the one who kills, and runs itself again as the harness that is
//! killed. As root the harness is root, and once more somebody ordinary.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a test with a main of its own is a test"
)]

mod outlive {
    pub(crate) mod cases;
    pub(crate) mod harness;
    pub(crate) mod stranger;
    pub(crate) mod traces;
}
#[path = "support/user.rs"]
mod user;

use outlive::{cases, harness, stranger};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

/// Nobody on any machine this runs on.
pub(crate) const USER: u32 = 12_345;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some(harness::MODE) => return harness::serve(&arguments[1..]),
        Some(stranger::MODE) => return stranger::knock(&arguments[1..]),
        _ => {}
    }
    if arguments.iter().any(|argument| argument == "--list") {
        cases::all().iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let is_root = rustix::process::geteuid().is_root();
    let wanted: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let (mut passed, mut failed, mut filtered) = (0, 0, 0);
    for user in [None, Some(USER)].into_iter().take(if is_root { 2 } else { 1 }) {
        for (name, case) in cases::all() {
            if !wanted.is_empty() && !wanted.iter().any(|wanted| name.contains(wanted.as_str())) {
                filtered += 1;
                continue;
            }
            let done = catch_unwind(AssertUnwindSafe(|| case(user)));
            let word = if done.is_ok() { "ok" } else { "FAILED" };
            println!("test {name} ({}) ... {word}", if user.is_some() { "ordinary" } else { "own user" });
            if done.is_ok() { passed += 1 } else { failed += 1 }
        }
    }
    let result = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {result}. {passed} passed; {failed} failed; 0 ignored; 0 measured; {filtered} filtered out\n"
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
