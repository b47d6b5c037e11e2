//! Parts of a test that play in a child process: this test binary again, with one test, and its role in the environment.

#![allow(clippy::print_stderr, reason = "a test that is skipped says so")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const DIRECTORY: &str = "TOPSIDE_TEST_JOURNAL_DIRECTORY";

/// The directory that the parent gave, when this process is a child.
#[expect(clippy::disallowed_methods, reason = "the parent names the directory through the environment")]
pub(crate) fn role() -> Option<PathBuf> {
    std::env::var(DIRECTORY).ok().map(PathBuf::from)
}

pub(crate) fn child(test: &str, directory: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(DIRECTORY, directory);
    command
}

/// Plays the test's part in a child that is started through other programs; its end must be good.
pub(crate) fn play(through: &[&str], test: &str, directory: &Path) {
    let inner = child(test, directory);
    let mut command = Command::new(through[0]);
    command.args(&through[1..]).arg(inner.get_program()).args(inner.get_args()).env(DIRECTORY, directory);
    let done = command.output().unwrap();
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{said}\n{}", String::from_utf8_lossy(&done.stderr));
}

/// Whether a program does what it is asked.
pub(crate) fn works(program: &str, arguments: &[&str]) -> bool {
    let done = Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    done.is_ok_and(|status| status.success())
}

#[expect(clippy::disallowed_methods, reason = "CI forbids skipping, and says so in the environment")]
pub(crate) fn skipped(name: &str, why: &str) {
    assert!(!std::env::var("CI").is_ok_and(|ci| ci == "true"), "{name} can't be skipped in CI: {why}");
    eprintln!("SKIPPED {name}: {why}");
}
