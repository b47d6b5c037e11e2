//! `proof`: the full figures behind "nothing lost, nothing twice": seeds of the simulation, walls taken out of it one by one, and
//! kills of the real binary; and behind "nothing left": hostile sandboxes by the thousand, and every wall of theirs taken down in
//! a guest machine. `check` runs the same with fewer.

use anyhow::Result;

use crate::clock::Stopwatch;
use crate::context::{Context, Scope};
use crate::report::{Finding, Outcome, Tally, green, red};
use crate::{crash, jail, machine, mutants, sim, upgrade};

const SEEDS: u64 = 5_000;
const KILLS: u64 = 1_000;
/// Where the random waits of the kills begin.
const CRASH_SEED: u64 = 1;

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
    let (mut tally, watch) = (Tally::default(), Stopwatch::start());
    let parts: [(&str, &dyn Fn() -> Result<Outcome>); 6] = [
        ("sim", &|| sim::in_portions(&context, 0..arguments.seeds)),
        ("walls", &|| mutants::prove(&context)),
        ("crash", &|| crash::kills(&context, arguments.kills, CRASH_SEED)),
        ("upgrade", &|| upgrade::prove(&context)),
        ("jail", &|| jail::prove(&context)),
        ("machine", &|| machine::prove(&context)),
    ];
    let mut lines = Vec::new();
    for (part, prove) in parts {
        println!("── {part}");
        let part_watch = Stopwatch::start();
        // A part that breaks down is red; the others are proven all the same.
        let outcome =
            prove().unwrap_or_else(|error| Outcome::of(vec![Finding::new(part, format!("broke down: {error:#}"))]));
        for finding in &outcome.findings {
            println!("{} {finding}", red("   ✗"));
        }
        tally.add(&outcome);
        lines.push(summary(part, &outcome, part_watch.seconds()));
    }
    println!("── proof of {} seeds and {} kills, {:.0} s", arguments.seeds, arguments.kills, watch.seconds());
    lines.iter().for_each(|line| println!("{line}"));
    println!("{tally}");
    Ok(tally.failed == 0)
}

/// What was run of a part, and what came of it.
fn summary(part: &str, outcome: &Outcome, seconds: f64) -> String {
    let verdict = if outcome.is_green() { green("ok") } else { red("FAILED") };
    let mut text = format!("   {part} {verdict} in {seconds:.0} s");
    outcome.notes.iter().for_each(|note| text.push_str(&format!("\n      {note}")));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_found_something_is_said_to_have_failed() {
        let good = summary("sim", &Outcome::default().note("300 seeds are green"), 2.0);
        assert!(good.contains("ok in 2 s\n      300 seeds are green"), "{good}");
        let bad = summary("walls", &Outcome::of(vec![Finding::new("a.rs", "stands")]), 1.0);
        assert!(bad.contains("FAILED"), "{bad}");
    }
}
