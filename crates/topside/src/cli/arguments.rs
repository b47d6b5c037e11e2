//! The command line as it is written. What each command does, its own file knows.

mod acts;
mod sandbox;
mod stores;
mod workspace;

pub(crate) use acts::{
    Approvals, Cancel, Diff, Fork, OfCall, OfRun, OfSession, Raise, Resolve, Resume, SessionCommand, Sessions, Steer,
    Target,
};
pub(crate) use sandbox::{OfSandbox, SandboxBench, SandboxCommand, SandboxExec, SandboxLink, SandboxList, Sandboxes};
pub(crate) use stores::{Backup, Repair, Restore};
pub(crate) use workspace::{WorkspaceCommand, WorkspaceDiff, WorkspaceExport, WorkspaceRestore, Workspaces};

use super::ending::Ending;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use std::net::SocketAddr;
use std::path::PathBuf;

/// The harness you own for AI agents that do real work.
#[derive(Debug, Parser)]
#[command(name = "topside", version, propagate_version = false, max_term_width = 100)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Runs an agent and shows it live.
    ///
    /// The live view goes to stderr, the reply to stdout (where both are one terminal, the reply is not repeated). Unfinished
    /// runs of the data directory go on beside it. Ctrl-C cancels the run; a second one ends the program at once, and
    /// `topside resume` goes on.
    Run(Run),
    /// Serves the project over HTTP.
    ///
    /// Prints its URL to stdout once it takes requests. SIGTERM or Ctrl-C drains: no new runs, those under way may end; a
    /// second one ends the program at once. What has not ended goes on at the next start.
    Serve(Serve),
    /// Drives runs of a shared database, and takes no requests for them.
    ///
    /// Any number of workers and services share one PostgreSQL database (`DATABASE_URL`). A worker answers /healthz, /readyz and
    /// /metrics only. SIGTERM drains it: what has not ended goes on in another one.
    Worker(Worker),
    /// Goes on with a run that was paused; without RUN, with every unfinished run of a data directory, and shows them live.
    Resume(Resume),
    /// Lists the calls that wait for approval.
    Approvals(Approvals),
    /// Approves of a call that waits for it, and shows how its run goes on.
    ///
    /// In this process the vote is cast as principal `operator`, which is another than the one of `topside run`.
    Approve(OfCall),
    /// Rejects a call that waits for approval, and shows how its run goes on.
    Reject(OfCall),
    /// Lets a run begin nothing new.
    Pause(OfRun),
    /// Ends a run.
    Cancel(Cancel),
    /// Tells the model something in the middle of a run.
    Steer(Steer),
    /// Raises limits of a run.
    Raise(Raise),
    /// Says what became of a call in doubt, and shows how its run goes on.
    Resolve(Resolve),
    /// Lists the places from which a session can be forked.
    Checkpoints(OfSession),
    /// Goes on from a checkpoint in a new session, with its files.
    Fork(Fork),
    /// Replays a run on its record: no model is asked, no tool is called, nothing is sent.
    Replay(OfRun),
    /// Says how two runs differ.
    Diff(Diff),
    /// Deletes sessions, puts them aside, takes them back.
    Session(Sessions),
    /// Compares the files of sessions, writes them to archives, puts them back.
    Workspace(Workspaces),
    /// Looks at sandboxes themselves, beside any run.
    Sandbox(Sandboxes),
    /// Copies journal and objects of a data directory, also while a service uses it.
    Backup(Backup),
    /// Makes a data directory from a backup.
    Restore(Restore),
    /// Mends a damaged journal: saves what can be read, puts aside what can't be trusted.
    Repair(Repair),
    /// Prints the record of a session and verifies its chain.
    ///
    /// While another process serves the data directory, it is asked over HTTP; the chain is then not verified.
    Log(Log),
    /// Writes a small first project that runs without a key.
    New(New),
    /// Checks a project: every problem with file, line and column, and what is switched off.
    Check(Place),
    /// Tries every wall of the sandbox on this machine and says how to mend what does not hold.
    Doctor(Place),
    /// Prints the JSON Schema of a kind of project file.
    Schema(Schema),
    /// Runs an agent against its live model and writes what was said as a transcript.
    Record(Record),
    /// Makes API keys.
    Key(Key),
    /// Prints the version.
    Version,
}

/// Which project, and where its data lies.
#[derive(Clone, Debug, Args)]
pub(crate) struct Place {
    /// The project's folder.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(crate) project: PathBuf,
    /// Where journal, objects and keys are kept [default: .topside in the project].
    #[arg(long, value_name = "DIR", env = "TOPSIDE_DATA", hide_env_values = true)]
    pub(crate) data: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// The agent, by the name of its file.
    #[arg(value_name = "AGENT")]
    pub(crate) agent: String,
    /// What it is to do.
    #[arg(value_name = "TASK")]
    pub(crate) task: String,
    /// Goes on with this session, or begins one of this name.
    #[arg(long, value_name = "NAME")]
    pub(crate) session: Option<String>,
    /// Prints one JSON object per line to stdout: {"record": …} as they come, then {"run": …, "files": […]}.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) place: Place,
}

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// The address to listen on. A public one needs keys, see `topside key`.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8787")]
    pub(crate) listen: SocketAddr,
    /// How long runs under way may go on after SIGTERM; as long again to reach the end of a turn.
    #[arg(long, value_name = "SECONDS", default_value_t = 20)]
    pub(crate) drain_seconds: u64,
    /// A further name under which the service may be asked for; repeatable.
    #[arg(long, value_name = "NAME")]
    pub(crate) host: Vec<String>,
    /// An origin of web pages that may ask, such as https://console.example; repeatable.
    #[arg(long, value_name = "URL")]
    pub(crate) origin: Vec<String>,
    /// The service's URL as clients see it, for links.
    #[arg(long, value_name = "URL")]
    pub(crate) public_url: Option<String>,
    /// Takes requests and drives no run: workers of the same database do.
    #[arg(long)]
    pub(crate) api_only: bool,
    #[command(flatten)]
    pub(crate) place: Place,
}

#[derive(Debug, Args)]
pub(crate) struct Worker {
    /// The address on which it says how it does.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8788")]
    pub(crate) listen: SocketAddr,
    /// How long runs under way may go on after SIGTERM; as long again to reach the end of a turn.
    #[arg(long, value_name = "SECONDS", default_value_t = 20)]
    pub(crate) drain_seconds: u64,
    #[command(flatten)]
    pub(crate) place: Place,
}

#[derive(Debug, Args)]
pub(crate) struct Log {
    /// The session: its id, or the name that its client gave it.
    #[arg(value_name = "SESSION")]
    pub(crate) session: String,
    /// The data directory [default: .topside].
    #[arg(long, value_name = "DIR", env = "TOPSIDE_DATA", hide_env_values = true, default_value = ".topside")]
    pub(crate) data: PathBuf,
    /// Prints one JSON object per line: {"record": …}, then {"verified": …}.
    #[arg(long)]
    pub(crate) json: bool,
    /// Fails unless the chain was verified.
    #[arg(long)]
    pub(crate) verify: bool,
}

#[derive(Debug, Args)]
pub(crate) struct New {
    /// The folder to make.
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Schema {
    /// The kind: project, agent, model, tool, manifest or prices; all of them when none is named.
    #[arg(value_name = "KIND", value_parser = kinds())]
    pub(crate) kind: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Record {
    /// The agent, by the name of its file.
    #[arg(value_name = "AGENT")]
    pub(crate) agent: String,
    /// What it is to do.
    #[arg(value_name = "TASK")]
    pub(crate) task: String,
    /// The transcript to write.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// The transcript's title [default: the agent's name].
    #[arg(long, value_name = "TEXT")]
    pub(crate) title: Option<String>,
    #[command(flatten)]
    pub(crate) place: Place,
}

#[derive(Debug, Args)]
pub(crate) struct Key {
    #[command(subcommand)]
    pub(crate) command: KeyCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Makes a key: prints it once to stderr, and to stdout the lines for keys.yaml of the data directory.
    New {
        /// Whose it is.
        #[arg(value_name = "NAME")]
        name: String,
        /// What it may do; repeatable [default: runs:read and runs:write].
        #[arg(long, value_name = "SCOPE")]
        scope: Vec<api::Scope>,
    },
}

fn kinds() -> clap::builder::PossibleValuesParser {
    catalog::Kind::ALL.map(catalog::Kind::name).into()
}

/// The command with what the derive can't say.
pub(crate) fn command() -> clap::Command {
    let variables = "\
Environment:
  DATABASE_URL         a PostgreSQL database for the journal, instead of a file of the data
                       directory; DATABASE_URL_DIRECT when that leads to a pooler
  TOPSIDE_DATA         the data directory
  TOPSIDE_LOG          what is logged, such as `info` or `warn,engine=debug`
  TOPSIDE_KEY          the API key with which a service that runs is asked
  TOPSIDE_URL          the service that is asked, as with --url
  TOPSIDE_SECRET_NAME  the secret NAME, for ${secret.NAME}; secrets can also stand in
                       secrets.yaml of the data directory
  TOPSIDE_S3_*         S3-compatible storage instead of the local directory: ENDPOINT,
                       BUCKET, ACCESS_KEY_ID, SECRET_ACCESS_KEY; also REGION, ROOT,
                       SESSION_TOKEN, ADDRESSING
  http_proxy, https_proxy, no_proxy, SSL_CERT_FILE, NO_COLOR
                       as everywhere
";
    Arguments::command().after_help(format!("Exit codes:\n{}\n{variables}", Ending::table()))
}

/// Reads the command line of this process; says what is wrong with it and how it is written.
pub(crate) fn read() -> Result<Arguments, clap::Error> {
    let matches = command().try_get_matches()?;
    Arguments::from_arg_matches(&matches)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write;

    #[test]
    fn the_command_line_is_well_formed() {
        command().debug_assert();
    }

    /// `docs/reference/cli.md` is what `--help` says; `UPDATE=1` writes it.
    #[test]
    fn the_reference_is_what_help_says() {
        let mut text = String::from(
            "# Command line\n\nWritten by the program itself: `UPDATE=1 cargo test -p topside the_reference` renews it.\n",
        );
        let mut root = command().term_width(100);
        let mut section = |title: &str, help: &str| {
            let lines: Vec<&str> = help.lines().map(str::trim_end).collect();
            let _ = write!(text, "\n## {title}\n\n```text\n{}\n```\n", lines.join("\n").trim_end());
        };
        section("topside", &root.render_long_help().to_string());
        let names: Vec<String> = root.get_subcommands().map(|command| command.get_name().to_owned()).collect();
        for name in names.iter().filter(|name| *name != "help") {
            let command = root.find_subcommand_mut(name).unwrap().clone();
            let mut command = command.bin_name(format!("topside {name}")).term_width(100);
            section(&format!("topside {name}"), &command.render_long_help().to_string());
            for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
                let title = format!("topside {name} {}", inner.get_name());
                let mut inner = inner.clone().bin_name(title.clone()).term_width(100);
                section(&title, &inner.render_long_help().to_string());
            }
        }
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/cli.md");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(written == text, "docs/reference/cli.md is not what --help says; hint: UPDATE=1 writes it\n{text}");
    }
}
