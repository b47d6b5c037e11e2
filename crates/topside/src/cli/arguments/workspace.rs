//! The arguments of what is done with the files of sessions.

use super::Target;
use clap::{Args, Subcommand};
use domain::{Id, id};
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(crate) struct Workspaces {
    #[command(subcommand)]
    pub(crate) command: WorkspaceCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum WorkspaceCommand {
    /// Says how the files of a session differ between two of its checkpoints.
    ///
    /// One line for each path: `+` added, `-` removed, `~` changed, then mode, length and path. Times do not count.
    Diff(WorkspaceDiff),
    /// Writes the files of a session to a tar, as they were kept last or at another checkpoint.
    Export(WorkspaceExport),
    /// Puts a checkpoint, or an archive, in the place of a session's files.
    ///
    /// The next run begins with them. Refused while a run is under way. An archive is unpacked in a sandbox first, and refused by the
    /// name of the rule that it breaks.
    Restore(WorkspaceRestore),
}

#[derive(Debug, Args)]
pub(crate) struct WorkspaceDiff {
    /// The session: its id, or the name that its client gave it.
    #[arg(value_name = "SESSION")]
    pub(crate) session: String,
    /// The earlier checkpoint, as `topside checkpoints` lists it [default: the first].
    #[arg(long, value_name = "CHECKPOINT")]
    pub(crate) from: Option<Id<id::Checkpoint>>,
    /// The later one [default: the last].
    #[arg(long, value_name = "CHECKPOINT")]
    pub(crate) to: Option<Id<id::Checkpoint>>,
    /// Shows how the lines of texts differ.
    #[arg(long)]
    pub(crate) patch: bool,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, Args)]
pub(crate) struct WorkspaceExport {
    /// The session: its id, or the name that its client gave it.
    #[arg(value_name = "SESSION")]
    pub(crate) session: String,
    /// The checkpoint [default: the last].
    #[arg(long, value_name = "CHECKPOINT")]
    pub(crate) checkpoint: Option<Id<id::Checkpoint>>,
    /// Where the archive is written; `-` for stdout.
    #[arg(long, value_name = "FILE.tar")]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, Args)]
#[group(id = "source", required = true, multiple = false, args = ["checkpoint", "archive"])]
pub(crate) struct WorkspaceRestore {
    /// The session: its id, or the name that its client gave it.
    #[arg(value_name = "SESSION")]
    pub(crate) session: String,
    /// A checkpoint of the session.
    #[arg(long, value_name = "CHECKPOINT")]
    pub(crate) checkpoint: Option<Id<id::Checkpoint>>,
    /// A tar in the form of an export.
    #[arg(long, value_name = "FILE.tar")]
    pub(crate) archive: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) target: Target,
}
