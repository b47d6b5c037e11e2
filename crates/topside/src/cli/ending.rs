//! How the program ends: its exit codes, each with one meaning, and the errors that lead to them.

use super::clean::clean;
use domain::{FailureClass, Id, RunStatus, id};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

macro_rules! endings {
    ($($name:ident = $code:literal, $meaning:literal;)*) => {
        /// How the program ends.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Ending {
            $(#[doc = $meaning] $name,)*
            /// As a command in a sandbox ended, which has codes of its own.
            Inside(u8),
        }

        impl Ending {
            /// Every ending.
            pub(crate) const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The exit code.
            pub(crate) const fn code(self) -> u8 {
                match self { $(Self::$name => $code,)* Self::Inside(code) => code }
            }

            /// What it means.
            pub(crate) const fn meaning(self) -> &'static str {
                match self { $(Self::$name => $meaning,)* Self::Inside(_) => "as the command in the sandbox ended" }
            }
        }
    };
}

endings! {
    Done = 0, "the run completed, or the command did what it was asked";
    Failed = 1, "the run failed, or the command could not do what it was asked";
    Usage = 2, "the command line is wrong, or a variable of the environment";
    Project = 3, "the project is wrong; every problem is printed with file, line and column";
    InUse = 4, "another process has the data directory";
    Sandbox = 5, "the sandbox was refused: a wall does not hold here; see `topside doctor`";
    Limit = 6, "the run ended at one of its limits: time, turns, calls, tokens or cost";
    InDoubt = 7, "the run waits: nobody knows whether a call took effect, and somebody must say";
    Waits = 8, "the run waits for somebody: an approval, a higher limit, or to be resumed";
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
            RunStatus::Waiting | RunStatus::Paused => Self::Waits,
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
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    /// The service could not be had, or refused.
    #[error(transparent)]
    Service(#[from] topside::Error),
    /// The data directory belongs to a service that runs.
    #[error(
        "the data directory {directory} is in use by process {pid}, which serves {url}; hint: ask it there (most commands take --url {url}), stop it, or use another --data"
    )]
    Served { directory: String, pid: u32, url: String },
    /// The tools of an agent can't serve.
    #[error("agent `{agent}`: {error}")]
    Tools { agent: String, error: tools::Error },
    /// No session of that name.
    #[error("there is no session `{session}` in {data}", data = .data.display())]
    SessionMissing { session: String, data: PathBuf },
    /// The chain was to be verified and could not be.
    #[error(
        "the chain was not verified: another process has the data directory; hint: stop that process, or verify a copy of the directory"
    )]
    NotVerified,
    /// Nothing to record.
    #[error(
        "agent `{agent}` plays the transcript \"{title}\"; hint: set what its live model `{model}` needs, see `topside check`"
    )]
    NoModel { agent: String, title: String, model: String },
    /// The record has a hole where the transcript needs words.
    #[error("content {content} was erased; hint: record another run")]
    Erased { content: Id<id::Content> },
    /// The recorder refused.
    #[error(transparent)]
    Model(#[from] model::Failure),
    /// A run was needed and not named.
    #[error("no run was named; hint: name the run, as `topside resume RUN`")]
    Unnamed,
    /// A process that leaves driving to others, or does nothing else, without others.
    #[error("{what} shares its runs with other processes, and a data directory has one; hint: set DATABASE_URL")]
    NotShared { what: &'static str },
    /// The lists of a database are made anew by its own means.
    #[error("{what} is for journals in a data directory; hint: a database has its own tools for it")]
    NotAFile { what: &'static str },
    /// A first project would be written over something.
    #[error("{directory} is not empty; hint: name a folder that is not there yet", directory = .directory.display())]
    NotEmpty { directory: PathBuf },
    /// A file could not be written.
    #[error("{path}: {error}", path = .path.display())]
    File { path: PathBuf, error: io::Error },
    /// The system gives no signals.
    #[error("no signal can be heard: {error}")]
    Signals { error: io::Error },
    /// Nobody answers who could do it.
    #[error(
        "no service answers{}; hint: start `topside serve`, or name a service with --url",
        if *.left { ", and what one left can only be listed, explained and ended" } else { "" }
    )]
    NoService { left: bool },
    /// No such sandbox.
    #[error("no sandbox {sandbox} lives; hint: `topside sandbox list` lists those that do")]
    SandboxMissing { sandbox: Id<id::Sandbox> },
    /// The launcher can't be looked into.
    #[error(transparent)]
    Launcher(#[from] jail::Error),
    /// The terminal can't be made raw.
    #[error("the terminal: {error}")]
    Terminal { error: io::Error },
    /// The address can't be had.
    #[error("can't listen on {address}: {error}; hint: another program may, choose a port with --listen")]
    Listen { address: SocketAddr, error: io::Error },
}

impl Trouble {
    /// Stable code, with a page under `docs/errors/`.
    pub(crate) fn code(&self) -> &str {
        match self {
            Self::Service(error) => error.code(),
            Self::Served { .. } => "journal_locked",
            Self::Tools { error, .. } => error.code(),
            Self::SessionMissing { .. } => "session_not_found",
            Self::NotVerified => "log_not_verified",
            Self::NoModel { .. } => "record_no_model",
            Self::Erased { .. } => "content_erased",
            Self::Model(failure) => failure.code(),
            Self::Unnamed => "run_not_named",
            Self::NotShared { .. } => "database_missing",
            Self::NotAFile { .. } => "journal_not_a_file",
            Self::NotEmpty { .. } => "new_not_empty",
            Self::File { .. } => "file_unusable",
            Self::Signals { .. } => "signals_unavailable",
            Self::Listen { .. } => "listen_failed",
            Self::NoService { .. } => "service_missing",
            Self::SandboxMissing { .. } => "sandbox_not_found",
            Self::Launcher(error) => error.code(),
            Self::Terminal { .. } => "terminal_unusable",
        }
    }

    /// How it ends the program.
    pub(crate) fn ending(&self) -> Ending {
        match self {
            Self::Service(topside::Error::Project(_)) | Self::Tools { .. } => Ending::Project,
            Self::Service(topside::Error::Journal(journal::Error::Locked { .. }))
            | Self::Served { .. }
            | Self::NotVerified => Ending::InUse,
            Self::Service(topside::Error::Variable { .. }) | Self::NotShared { .. } | Self::Unnamed => Ending::Usage,
            Self::Service(error) if matches!(error.code(), "agent_unknown" | "agent_no_default") => Ending::Usage,
            Self::Service(error) if error.code() == "agent_switched_off" => Ending::Project,
            Self::Service(_)
            | Self::SessionMissing { .. }
            | Self::NoModel { .. }
            | Self::Erased { .. }
            | Self::Model(_)
            | Self::NotEmpty { .. }
            | Self::NotAFile { .. }
            | Self::File { .. }
            | Self::Signals { .. }
            | Self::NoService { .. }
            | Self::SandboxMissing { .. }
            | Self::Launcher(_)
            | Self::Terminal { .. }
            | Self::Listen { .. } => Ending::Failed,
        }
    }

    /// For people: what happened, then the hint on a line of its own. Names in it may come from anywhere.
    pub(crate) fn told(&self) -> String {
        let message = self.to_string();
        let message = clean(&message);
        let (what, hint) = match message.split_once("; hint: ") {
            // Problems of a project each carry their own.
            Some((what, hint)) if !what.contains('\n') && !hint.contains('\n') => (what, Some(hint)),
            _ => (&*message, None),
        };
        let hint = hint.map(|hint| format!("hint: {hint}\n")).unwrap_or_default();
        format!("error: {}\n{hint}code: {}\n", what.trim_end(), self.code())
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

impl From<engine::Error> for Trouble {
    fn from(error: engine::Error) -> Self {
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
        let erased = Trouble::Erased { content: Id::from_bytes([1; 16]) };
        let told = erased.told();
        let lines: Vec<&str> = told.lines().collect();
        let [what, "hint: record another run", "code: content_erased"] = lines[..] else { panic!("{told}") };
        assert!(what.starts_with("error: content con_") && what.ends_with(" was erased"), "{what}");
    }
}
