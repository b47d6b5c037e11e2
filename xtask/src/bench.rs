//! `bench`: measures Topside beside its peers on this machine, in turns, and writes what came out to
//! `docs/reference/benchmarks.md` with the command that made it. Nothing here decides whether a figure is good.

mod boot;
mod figures;
mod gate;
mod journal;
mod load;
mod peers;
mod restate;
mod sandbox;
mod waiting;
mod workers;

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
    /// The program `restate-server`; without it npm brings it
    #[arg(long)]
    restate: Option<PathBuf>,
    /// Runs that are held when their memory is looked at
    #[arg(long, default_value_t = 100_000)]
    held: usize,
    /// Only these parts; of the page, the others stay as they are
    #[arg(long, value_name = "PART", value_parser = PART_NAMES)]
    only: Vec<String>,
    /// Print only; leave the page as it is
    #[arg(long)]
    dry: bool,
}

/// What a part is given.
struct Bench<'a> {
    root: &'a Path,
    /// Where the release build lies.
    built: &'a Path,
    arguments: &'a Arguments,
}

/// One part of the page: what it needs built, and how it is measured.
struct Part {
    name: &'static str,
    builds: &'static [&'static [&'static str]],
    measure: fn(&Bench<'_>, &mut Page) -> Result<()>,
}

const TOPSIDE: &[&str] = &["--package", "topside"];
const STORE: &[&str] = &["--package", "topside-journal", "--example", "store"];
const APPEND: &[&str] = &["--package", "topside-journal", "--example", "append"];
const STEPS: &[&str] = &["--package", "topside", "--example", "steps"];

const PART_NAMES: [&str; 7] = ["boot", "load", "sandbox", "journal", "restate", "waiting", "workers"];

const PARTS: [Part; PART_NAMES.len()] = [
    Part {
        name: PART_NAMES[0],
        builds: &[TOPSIDE, STORE],
        measure: |b, page| boot::measure(b.built, b.arguments, page),
    },
    Part { name: PART_NAMES[1], builds: &[TOPSIDE, STORE], measure: load },
    Part { name: PART_NAMES[2], builds: &[TOPSIDE], measure: |b, page| sandbox::measure(b.built, b.arguments, page) },
    Part { name: PART_NAMES[3], builds: &[APPEND], measure: |b, page| journal::measure(b.built, b.arguments, page) },
    Part {
        name: PART_NAMES[4],
        builds: &[STEPS],
        measure: |b, page| restate::measure(b.root, b.built, b.arguments, page),
    },
    Part { name: PART_NAMES[5], builds: &[TOPSIDE], measure: waiting::measure },
    Part { name: PART_NAMES[6], builds: &[TOPSIDE], measure: workers::measure },
];

pub(crate) fn run(arguments: &Arguments) -> Result<bool> {
    let root = root()?;
    let is_wanted = |part: &&Part| arguments.only.is_empty() || arguments.only.iter().any(|name| name == part.name);
    let parts: Vec<&Part> = PARTS.iter().filter(is_wanted).collect();
    build(&root, &parts)?;
    let bench = Bench { root: &root, built: &root.join("target/release"), arguments };
    let mut sections = Vec::new();
    for part in parts {
        let mut page = Page::new(part.name, arguments.pairs, arguments.seconds);
        let measured = (part.measure)(&bench, &mut page).context(part.name);
        println!("{}", page.text());
        measured?;
        sections.push((part.name, page.text()));
    }
    if !arguments.dry {
        let path = root.join("docs/reference/benchmarks.md");
        let old = std::fs::read_to_string(&path).unwrap_or_default();
        std::fs::write(path, figures::renewed(&old, &PART_NAMES, &sections))?;
    }
    Ok(true)
}

fn load(bench: &Bench<'_>, page: &mut Page) -> Result<()> {
    let Some(peers) = &bench.arguments.peers else {
        page.skipped("runs per second", "no --peers folder was given, so there is no model to answer");
        return Ok(());
    };
    load::measure(bench.built, peers, bench.arguments, page)
}

fn root() -> Result<PathBuf> {
    Ok(cargo_metadata::MetadataCommand::new().no_deps().exec()?.workspace_root.into_std_path_buf())
}

fn build(root: &Path, parts: &[&Part]) -> Result<()> {
    let mut builds: Vec<_> = parts.iter().flat_map(|part| part.builds).collect();
    builds.sort_unstable();
    builds.dedup();
    for what in builds {
        let mut cargo = Command::new("cargo");
        cargo.args(["build", "--release", "--quiet"]).args(*what).current_dir(root);
        let built = process::capture(&mut cargo)?;
        ensure!(built.status.success(), "cargo build --release {}: {}", what.join(" "), built.tail(20));
    }
    Ok(())
}
