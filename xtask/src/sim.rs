//! `sim`: builds the simulation and runs its seeds. What a seed does and who judges it is in the room `sim`.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, anyhow, bail};

use crate::clock::Stopwatch;
use crate::context::{AS_TESTED, Context, Scope};
use crate::process;
use crate::report::{Finding, Outcome};
use crate::rust_steps::compiler_findings;

/// Seeds that `check` runs.
const SEEDS_OF_CHECK: u64 = 300;
/// Seeds after which a proof tells how far it is.
const PORTION_SEEDS: usize = 500;
/// Lines of a red world's log that are shown.
const LOG_LINES_SHOWN: usize = 120;

/// What `cargo xtask sim` is told.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// The seeds: the first, and the one behind the last
    #[arg(long, value_name = "FROM..TO", default_value = "0..300", value_parser = range)]
    seeds: Range<u64>,
}

fn range(text: &str) -> Result<Range<u64>> {
    let (from, to) = text.split_once("..").ok_or_else(|| anyhow!("expected FROM..TO, such as 0..300"))?;
    Ok(from.parse()?..to.parse()?)
}

pub(crate) fn run(arguments: &Arguments) -> Result<bool> {
    let context = Context::here(false, Scope::Whole, None)?;
    let outcome = seeds(&context, arguments.seeds.clone())?;
    outcome.notes.iter().for_each(|note| println!("{note}"));
    outcome.findings.iter().for_each(|finding| println!("{finding}"));
    Ok(outcome.is_green())
}

/// The step of `check`.
pub(crate) fn check(context: &Context) -> Result<Outcome> {
    seeds(context, 0..SEEDS_OF_CHECK)
}

/// Runs seeds in this tree.
pub(crate) fn seeds(context: &Context, seeds: Range<u64>) -> Result<Outcome> {
    let binary = build(&context.root, &context.target)?;
    lived(context, &binary, &seeds)
}

/// The same a portion at a time, telling how far it is; the first portion that is red is the last.
pub(crate) fn in_portions(context: &Context, seeds: Range<u64>) -> Result<Outcome> {
    let (binary, watch) = (build(&context.root, &context.target)?, Stopwatch::start());
    let mut all = Outcome::default();
    for from in seeds.clone().step_by(PORTION_SEEDS) {
        let portion = from..seeds.end.min(from + PORTION_SEEDS as u64);
        let outcome = lived(context, &binary, &portion)?;
        println!(
            "   sim: {} of {} seeds, {:.0} s",
            portion.end - seeds.start,
            seeds.end - seeds.start,
            watch.seconds()
        );
        all.findings.extend(outcome.findings);
        all.notes.extend(outcome.notes.into_iter().map(|note| format!("{}..{}: {note}", portion.start, portion.end)));
        if !all.findings.is_empty() {
            break;
        }
    }
    Ok(all)
}

fn lived(context: &Context, binary: &Path, seeds: &Range<u64>) -> Result<Outcome> {
    let said = live(binary, seeds)?;
    let log = context.scratch("sim")?.join("log");
    std::fs::write(&log, &said.text)?;
    let told = process::tail(&said.text, LOG_LINES_SHOWN);
    Ok(match said.status.success() {
        true => Outcome::of(Vec::new()).note(told.replace('\n', "; ")),
        false => {
            let place = format!("sim {}..{}", seeds.start, seeds.end);
            Outcome::of(vec![Finding::new(place, told)]).note(format!("the whole log: {}", log.display()))
        }
    })
}

/// Builds the simulation of a tree; gives the program.
pub(crate) fn build(tree: &Path, target: &Path) -> Result<PathBuf> {
    let mut command = Command::new("cargo");
    command.current_dir(tree).env("CARGO_TARGET_DIR", target).args(AS_TESTED).args(["--test", "seeds"]);
    let built = process::capture(&mut command)?;
    if !built.status.success() {
        let errors: Vec<String> = compiler_findings(&built.text).iter().map(ToString::to_string).collect();
        bail!("`topside-sim` does not build\n{}", errors.join("\n"));
    }
    Ok(target.join("debug").join("topside-sim"))
}

/// Runs seeds with a program that was built.
pub(crate) fn live(binary: &Path, seeds: &Range<u64>) -> Result<process::Captured> {
    process::capture(Command::new(binary).arg(format!("{}..{}", seeds.start, seeds.end)))
}
