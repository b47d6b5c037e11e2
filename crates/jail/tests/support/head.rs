//! How a test program begins: as itself, or as the part that it started itself again for.

use super::{Case, hostile, run, victim};
use std::process::ExitCode;

/// What follows `prefix` in the argument that begins with it.
pub(crate) fn argument(prefix: &str) -> Option<String> {
    std::env::args().find_map(|argument| Some(argument.strip_prefix(prefix)?.to_owned()))
}

/// Is what a sandbox or a case started it for: an attacker inside, or a harness that is killed. `None`: it is itself.
pub(crate) fn part() -> Option<ExitCode> {
    hostile::attempts::attacker().or_else(victim)
}

/// The whole of a program whose cases share one launcher and one directory.
pub(crate) fn main(cases: Vec<Case>) -> ExitCode {
    part().unwrap_or_else(|| {
        let launcher = jail::launch().unwrap();
        let data = tempfile::tempdir().unwrap();
        run(launcher, data.path(), cases)
    })
}

/// Starts itself again once for each of these arguments, whatever comes of one; success when all were.
pub(crate) fn each(arguments: impl IntoIterator<Item = String>) -> ExitCode {
    let codes: Vec<ExitCode> = arguments.into_iter().map(|argument| super::again(&[&argument], &[])).collect();
    all(codes)
}

/// Success when all were; else the first that was not.
pub(crate) fn all(codes: impl IntoIterator<Item = ExitCode>) -> ExitCode {
    codes.into_iter().find(|code| *code != ExitCode::SUCCESS).unwrap_or(ExitCode::SUCCESS)
}
