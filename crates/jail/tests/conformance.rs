//! The provider's contract, kept by real sandboxes of whoever runs this.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a test with a main of its own is a test"
)]

mod support;

fn main() -> std::process::ExitCode {
    support::head::main(support::conformance::cases())
}
