//! `bench`: measures Topside beside its peers on this machine, in turns, and writes what came out to
//! `docs/reference/benchmarks.md` with the command that made it. Nothing here decides whether a figure is good.

mod boot;
mod figures;
mod load;
mod peers;
mod sandbox;
mod server;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::process;
use figures::Page;

/// What to measure, and beside whom.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The folder of the peers: `recipe/` (FastAPI + Agents SDK + SQLite, with a `.venv`), `fakemodel/`, `floor.c`
    #[arg(long)]
    peers: Option<PathBuf>,
    /// Pairs of measurements, in turns
    #[arg(long, default_value_t = 5)]
    pairs: usize,
    /// Seconds of load for each measurement
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Sessions stored when the start is measured
    #[arg(long, default_value_t = 100_000)]
    sessions: u64,
    /// Print only; leave the page as it is
    #[arg(long)]
    dry: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<bool> {
    let root = root()?;
    build(&root)?;
    let built = root.join("target/release");
    let mut page = Page::new(arguments.pairs, arguments.seconds);
    let measured = measure(&built, arguments, &mut page);
    print!("{}", page.text());
    measured?;
    if !arguments.dry {
        std::fs::write(root.join("docs/reference/benchmarks.md"), page.text())?;
    }
    Ok(true)
}

fn measure(built: &Path, arguments: &Arguments, page: &mut Page) -> Result<()> {
    boot::measure(built, arguments, page).context("boot")?;
    match &arguments.peers {
        Some(peers) => load::measure(built, peers, arguments, page).context("load")?,
        None => page.skipped("runs per second", "no --peers folder was given, so there is no model to answer"),
    }
    sandbox::measure(built, arguments, page).context("sandbox")
}

fn root() -> Result<PathBuf> {
    Ok(cargo_metadata::MetadataCommand::new().no_deps().exec()?.workspace_root.into_std_path_buf())
}

fn build(root: &Path) -> Result<()> {
    for what in [
        &["--package", "topside"][..],
        &["--package", "topside-journal", "--example", "store"],
        &["--package", "topside-jail", "--example", "start_bench"],
    ] {
        let mut cargo = Command::new("cargo");
        cargo.args(["build", "--release", "--quiet"]).args(what).current_dir(root);
        let built = process::capture(&mut cargo)?;
        ensure!(built.status.success(), "cargo build --release {}: {}", what.join(" "), built.tail(20));
    }
    Ok(())
}
