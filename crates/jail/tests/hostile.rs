//! Attacks from inside, as root where this runs as root. The whole run stands in a group of its own with generous bounds, so
//! that a wall that fails takes down the test, not the machine.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a test with a main of its own is a test"
)]

mod support;

fn main() -> std::process::ExitCode {
    if let Some(code) = support::head::part() {
        return code;
    }
    // A variable of the harness that no sandbox may see; set by running this program again, as a user would set it.
    if std::env::var_os(support::CANARY.0).is_none() {
        return support::again(&[], &[support::CANARY]);
    }
    let outer = support::Outer::enter("hostile", None);
    let data = support::hostile::data();
    let launcher = jail::launch().unwrap();
    let code = support::run(launcher, data.path(), support::hostile::cases());
    drop(data);
    drop(outer);
    code
}
