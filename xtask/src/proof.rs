//! `proof`: the full figures behind "nothing lost, nothing twice": seeds of the simulation, walls taken out of it one by one, and
//! kills of the real binary. `check` runs the same with fewer.

use anyhow::Result;

use crate::clock::Stopwatch;
use crate::context::{Context, Scope};
use crate::report::{Outcome, Tally, green, red};
use crate::{crash, mutants, sim};

const SEEDS: u64 = 5_000;
const KILLS: u64 = 1_000;

/// What `cargo xtask proof` is told.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// Seeds of the simulation
    #[arg(long, default_value_t = SEEDS)]
    seeds: u64,
    /// Kills of the real binary
    #[arg(long, default_value_t = KILLS)]
    kills: u64,
}

pub(crate) fn run(arguments: &Arguments) -> Result<bool> {
    let context = Context::here(true, Scope::Whole, None)?;
    let mut tally = Tally::default();
    tell("sim", &mut tally, || sim::seeds(&context, 0..arguments.seeds))?;
    tell("walls", &mut tally, || mutants::prove(&context))?;
    tell("crash", &mut tally, || crash::kills(&context, arguments.kills, 1))?;
    println!("{tally}");
    Ok(tally.failed == 0)
}

fn tell(part: &str, tally: &mut Tally, run: impl FnOnce() -> Result<Outcome>) -> Result<()> {
    println!("── {part}");
    let watch = Stopwatch::start();
    let outcome = run()?;
    for note in &outcome.notes {
        println!("   {note}");
    }
    for finding in &outcome.findings {
        println!("{} {finding}", red("   ✗"));
    }
    let verdict = if outcome.is_green() { green("ok") } else { red("FAILED") };
    println!("   {part} {verdict} in {:.1} s", watch.seconds());
    tally.add(&outcome);
    Ok(())
}
