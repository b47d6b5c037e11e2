//! The arguments of what is done with sandboxes themselves.

use crate::cli::sandbox::bench::NAMES;
use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub(crate) struct Sandboxes {
    #[command(subcommand)]
    pub(crate) command: SandboxCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SandboxCommand {
    /// Measures what sandboxes cost on this machine.
    ///
    /// Makes real ones, through a launcher and in a data directory of its own, and leaves nothing behind. Prints the median, what
    /// 95 of 100 samples were no worse than, and the number of samples. What can't be had here is told with its reason.
    Bench(SandboxBench),
}

#[derive(Debug, Args)]
pub(crate) struct SandboxBench {
    /// Prints one JSON object, with units in its keys.
    #[arg(long)]
    pub(crate) json: bool,
    /// How often each figure is measured; what takes long, less often.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub(crate) samples: u16,
    /// Measures only this; repeatable.
    #[arg(long, value_name = "NAME", value_parser = NAMES)]
    pub(crate) only: Vec<String>,
}
