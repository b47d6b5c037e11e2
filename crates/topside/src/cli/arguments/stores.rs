//! The arguments of what is done with data directories as a whole.

use clap::Args;
use std::path::PathBuf;

/// Which data directory.
#[derive(Debug, Args)]
pub(crate) struct At {
    /// The data directory.
    #[arg(long, value_name = "DIR", env = "TOPSIDE_DATA", hide_env_values = true, default_value = ".topside")]
    pub(crate) data: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Backup {
    /// Where the backup goes: a folder that is not there yet.
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
    /// Copies the tenants' keys as well, there. Journal and keys together open everything: keep them apart.
    #[arg(long, value_name = "DIR")]
    pub(crate) keys: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) at: At,
}

#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// The backup. A data directory that has a journal already is refused.
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
    /// Where the tenants' keys are, as `topside backup --keys` left them.
    #[arg(long, value_name = "DIR")]
    pub(crate) keys: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) at: At,
}

#[derive(Debug, Args)]
pub(crate) struct Repair {
    #[command(flatten)]
    pub(crate) at: At,
}
