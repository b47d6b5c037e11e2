//! The arguments of what is said about runs, calls and sessions.

use super::Place;
use clap::{Args, Subcommand};
use domain::{Id, id};

/// Where runs are: at a service, or in a data directory.
#[derive(Clone, Debug, Args)]
pub(crate) struct Target {
    /// Asks the service there; its key comes from TOPSIDE_KEY. Otherwise the data directory is served in this process.
    #[arg(long, value_name = "URL", env = "TOPSIDE_URL", hide_env_values = true)]
    pub(crate) url: Option<String>,
    #[command(flatten)]
    pub(crate) place: Place,
}

#[derive(Debug, Args)]
pub(crate) struct Resume {
    /// The run that was paused.
    #[arg(value_name = "RUN")]
    pub(crate) run: Option<Id<id::Run>>,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, Args)]
pub(crate) struct Approvals {
    /// Prints one JSON object per line.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, Args)]
pub(crate) struct OfCall {
    /// The call, as `topside approvals` lists it.
    #[arg(value_name = "CALL")]
    pub(crate) call: Id<id::Call>,
    /// Why; stands in the record, and the model is told when its call is rejected.
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, Args)]
pub(crate) struct OfRun {
    /// The run.
    #[arg(value_name = "RUN")]
    pub(crate) run: Id<id::Run>,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, Args)]
pub(crate) struct OfSession {
    /// The session: its id, or the name that its client gave it.
    #[arg(value_name = "SESSION")]
    pub(crate) session: String,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, Args)]
pub(crate) struct Cancel {
    /// The run.
    #[arg(value_name = "RUN")]
    pub(crate) run: Id<id::Run>,
    /// Lets the turn end that is under way.
    #[arg(long)]
    pub(crate) after_turn: bool,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, Args)]
pub(crate) struct Steer {
    /// The run.
    #[arg(value_name = "RUN")]
    pub(crate) run: Id<id::Run>,
    /// What the model is told.
    #[arg(value_name = "MESSAGE")]
    pub(crate) message: String,
    /// Ends the turn that is under way for it, instead of waiting for its end.
    #[arg(long)]
    pub(crate) interrupt: bool,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, Args)]
pub(crate) struct Raise {
    /// The run.
    #[arg(value_name = "RUN")]
    pub(crate) run: Id<id::Run>,
    #[command(flatten)]
    pub(crate) limits: RaiseLimits,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = true)]
pub(crate) struct RaiseLimits {
    /// Model replies from now on, those that were given included.
    #[arg(long, value_name = "N")]
    pub(crate) turns: Option<u32>,
    /// Tool calls.
    #[arg(long, value_name = "N")]
    pub(crate) tool_calls: Option<u32>,
    /// Tokens in and out.
    #[arg(long, value_name = "N")]
    pub(crate) tokens: Option<u64>,
    /// Seconds of running.
    #[arg(long, value_name = "N")]
    pub(crate) running_seconds: Option<u64>,
    /// Millionths of a US dollar.
    #[arg(long, value_name = "N")]
    pub(crate) cost_micro_usd: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct Resolve {
    /// The run.
    #[arg(value_name = "RUN")]
    pub(crate) run: Id<id::Run>,
    /// The call.
    #[arg(value_name = "CALL")]
    pub(crate) call: Id<id::Call>,
    #[command(flatten)]
    pub(crate) outcome: ResolveOutcome,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct ResolveOutcome {
    /// It took effect, and this is what it gave.
    #[arg(long, value_name = "TEXT")]
    pub(crate) happened: Option<String>,
    /// It took no effect.
    #[arg(long)]
    pub(crate) did_not_happen: bool,
    /// It is to be undone by the tool that its contract names.
    #[arg(long)]
    pub(crate) compensate: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Fork {
    /// The session: its id, or the name that its client gave it.
    #[arg(value_name = "SESSION")]
    pub(crate) session: String,
    /// How many of its records the new session goes on from, as `topside checkpoints` lists them.
    #[arg(long, value_name = "N")]
    pub(crate) at: u64,
    /// The name of the new session.
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// The agent that goes on.
    #[arg(long, value_name = "AGENT")]
    pub(crate) agent: Option<String>,
    /// The declared model that goes on.
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: Option<String>,
    /// The provider that makes its sandbox.
    #[arg(long, value_name = "NAME")]
    pub(crate) provider: Option<String>,
    /// What it is to do.
    #[arg(long, value_name = "TASK")]
    pub(crate) message: Option<String>,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, Args)]
pub(crate) struct Diff {
    /// The first run.
    #[arg(value_name = "RUN")]
    pub(crate) run: Id<id::Run>,
    /// The other.
    #[arg(value_name = "OTHER")]
    pub(crate) other: Id<id::Run>,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, Args)]
pub(crate) struct Sessions {
    #[command(subcommand)]
    pub(crate) command: SessionCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SessionCommand {
    /// Deletes a session wholly: records, contents, keys, artifacts, checkpoints, files. What is left is a tombstone.
    Purge(OfSession),
    /// Puts a session aside: it can be read and purged, and nothing is done in it.
    Quarantine {
        /// Why.
        #[arg(long, value_name = "TEXT")]
        reason: String,
        #[command(flatten)]
        of: OfSession,
    },
    /// Takes a session out of quarantine.
    Release(OfSession),
    /// Verifies the chain of a session of a data directory; puts it aside when it is broken, and makes the lists anew when it is
    /// whole.
    Repair(OfSession),
}
