//! The arguments of what is done with sandboxes themselves.

use super::Target;
use crate::cli::sandbox::bench::NAMES;
use clap::{Args, Subcommand};
use domain::{Id, id};

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
    /// Lists the sandboxes that live, also those that a service left and nobody has taken over.
    ///
    /// The service of the data directory is asked, or the one that --url names. When none answers, the launcher that keeps
    /// sandboxes for the next one is.
    List(SandboxList),
    /// Runs a command in a sandbox, and ends as it does.
    ///
    /// It is on record: who, what, when. Ctrl-C kills it; with -t it goes to the command. A signal that ended it is told, and the exit
    /// code is then 128 and its number.
    Exec(SandboxExec),
    /// Ends a sandbox, with everything in it. Its workspace stays.
    ///
    /// A call of the run that has it ends with `sandbox_gone`; the next one gets a new sandbox.
    Kill(OfSandbox),
    /// Says what a sandbox may do and what it may not, and by which wall; of one that is no more, why.
    Explain(OfSandbox),
    /// Makes a link to a port in a sandbox: whoever has it reaches the port, by HTTP and WebSocket.
    Link(SandboxLink),
}

#[derive(Debug, Args)]
pub(crate) struct SandboxList {
    /// Prints one JSON object per line.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, Args)]
pub(crate) struct OfSandbox {
    /// The sandbox, as `topside sandbox list` lists it.
    #[arg(value_name = "SANDBOX")]
    pub(crate) sandbox: Id<id::Sandbox>,
    /// Prints one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, Args)]
pub(crate) struct SandboxExec {
    /// The sandbox, as `topside sandbox list` lists it.
    #[arg(value_name = "SANDBOX")]
    pub(crate) sandbox: Id<id::Sandbox>,
    /// Gives it a terminal.
    #[arg(short, long)]
    pub(crate) terminal: bool,
    /// Where it starts, below the workspace.
    #[arg(long, value_name = "PATH")]
    pub(crate) workdir: Option<String>,
    /// Prints one JSON object per line: {"stdout": …} and {"stderr": …} as they come, then {"exit": …}.
    #[arg(long, conflicts_with = "terminal")]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) target: Target,
    /// Program and arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) argv: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct SandboxLink {
    /// The sandbox, as `topside sandbox list` lists it.
    #[arg(value_name = "SANDBOX")]
    pub(crate) sandbox: Id<id::Sandbox>,
    /// The port that a program in it listens on, on its own loopback.
    #[arg(value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: u16,
    /// For how long: a number with s, m, h or d; a week at most.
    #[arg(long = "for", value_name = "TIME", default_value = "1h", value_parser = seconds)]
    pub(crate) seconds: u64,
    /// The path and query to begin with.
    #[arg(long, value_name = "PATH")]
    pub(crate) path: Option<String>,
    /// Prints one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) target: Target,
}

/// A time as people write it.
fn seconds(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is no time; expected a number with s, m, h or d, such as 90s or 2h");
    let unit = text.chars().next_back().ok_or_else(wrong)?;
    let each = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let count: u64 = text[..text.len() - unit.len_utf8()].parse().map_err(|_| wrong())?;
    let seconds = count.checked_mul(each).filter(|seconds| (1..=api::PORT_LINK_SECONDS_MAX).contains(seconds));
    seconds.ok_or_else(|| format!("`{text}` is none or more than a week"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_number_with_its_unit() {
        for (text, expected) in [("90s", Some(90)), ("2m", Some(120)), ("1h", Some(3_600)), ("7d", Some(604_800))] {
            assert_eq!(seconds(text).ok(), expected, "{text}");
        }
        for text in ["", "1", "h", "0s", "8d", "-1h", "1.5h", "1ü", "99999999999999999999d"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}
