//! How the program ends: its exit codes, each with one meaning, and the errors that lead to them.

use domain::{FailureClass, RunStatus};
use std::process::ExitCode;

macro_rules! endings {
    ($($name:ident = $code:literal, $meaning:literal;)*) => {
        /// How the program ends.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Ending {
            $(#[doc = $meaning] $name,)*
        }

        impl Ending {
            /// Every ending.
            pub(crate) const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The exit code.
            pub(crate) const fn code(self) -> u8 {
                match self { $(Self::$name => $code),* }
            }

            /// What it means.
            pub(crate) const fn meaning(self) -> &'static str {
                match self { $(Self::$name => $meaning),* }
            }
        }
    };
}

endings! {
    Done = 0, "the run completed, or the command did what it was asked";
    Failed = 1, "the run failed, or the command could not do what it was asked";
    Usage = 2, "the command line is wrong";
    Project = 3, "the project is wrong; every problem is printed with file, line and column";
    InUse = 4, "another process has the data directory";
    Sandbox = 5, "the sandbox was refused: a wall does not hold here; see `topside doctor`";
    Limit = 6, "the run ended at one of its limits: time, turns, calls, tokens or cost";
    InDoubt = 7, "the run waits: nobody knows whether a call took effect, and somebody must say";
    Cancelled = 130, "Ctrl-C; the first one cancels the run, the second ends the program at once";
    Terminated = 143, "SIGTERM during a run; `topside resume` goes on with it";
}

impl Ending {
    /// How a run's end ends the program.
    pub(crate) fn of(run: &api::Run) -> Self {
        match run.status {
            RunStatus::Completed => Self::Done,
            RunStatus::Cancelled => Self::Cancelled,
            RunStatus::TimedOut | RunStatus::BudgetExhausted => Self::Limit,
            RunStatus::NeedsResolution => Self::InDoubt,
            RunStatus::Failed | RunStatus::Queued | RunStatus::Running => match &run.error {
                Some(error) if error.class == FailureClass::Sandbox && REFUSED.contains(&error.code.as_str()) => {
                    Self::Sandbox
                }
                _ => Self::Failed,
            },
        }
    }

    /// The table of codes, for `--help`.
    pub(crate) fn table() -> String {
        let line = |ending: &Self| format!("  {:>3}  {}\n", ending.code(), ending.meaning());
        Self::ALL.iter().map(line).collect()
    }
}

/// Codes of a sandbox that never came to be.
const REFUSED: [&str; 2] = ["sandbox_wall", "sandbox_start"];

impl From<Ending> for ExitCode {
    fn from(ending: Ending) -> Self {
        Self::from(ending.code())
    }
}

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub(crate) struct Trouble {
    pub(crate) ending: Ending,
    pub(crate) code: String,
    pub(crate) message: String,
}

impl Trouble {
    pub(crate) fn new(ending: Ending, code: &str, message: impl Into<String>) -> Self {
        Self { ending, code: code.to_owned(), message: message.into() }
    }

    /// A file that could not be read or written.
    pub(crate) fn file(path: &std::path::Path, error: &std::io::Error) -> Self {
        Self::new(Ending::Failed, "file_unusable", format!("{}: {error}", path.display()))
    }

    /// For people: what happened, then the hint on a line of its own.
    pub(crate) fn told(&self) -> String {
        let (what, hint) = match self.message.split_once("; hint: ") {
            // Problems of a project each carry their own.
            Some((what, hint)) if !what.contains('\n') && !hint.contains('\n') => (what, Some(hint)),
            _ => (self.message.as_str(), None),
        };
        let hint = hint.map(|hint| format!("hint: {hint}\n")).unwrap_or_default();
        format!("error: {}\n{hint}code: {}\n", what.trim_end(), self.code)
    }
}

impl From<topside::Error> for Trouble {
    fn from(error: topside::Error) -> Self {
        let ending = match &error {
            topside::Error::Project(_) => Ending::Project,
            topside::Error::Journal(journal::Error::Locked { .. }) => Ending::InUse,
            _ if error.code().starts_with("agent_") => Ending::Project,
            _ => Ending::Failed,
        };
        Self::new(ending, error.code(), error.to_string())
    }
}

impl From<client::Error> for Trouble {
    fn from(error: client::Error) -> Self {
        topside::Error::from(error).into()
    }
}

impl From<journal::Error> for Trouble {
    fn from(error: journal::Error) -> Self {
        topside::Error::from(error).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ending_has_a_code_of_its_own() {
        let mut codes: Vec<u8> = Ending::ALL.iter().map(|ending| ending.code()).collect();
        codes.dedup();
        assert_eq!(codes.len(), Ending::ALL.len());
        assert!(codes.is_sorted());
    }

    #[test]
    fn a_hint_stands_on_its_own_line() {
        let trouble = Trouble::new(Ending::InUse, "journal_locked", "taken; hint: stop it");
        assert_eq!(trouble.told(), "error: taken\nhint: stop it\ncode: journal_locked\n");
        let many = Trouble::new(Ending::Project, "project_wrong", "a:1:1: x; hint: y\nb:1:1: z");
        assert_eq!(many.told(), "error: a:1:1: x; hint: y\nb:1:1: z\ncode: project_wrong\n");
    }
}
