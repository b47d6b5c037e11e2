//! Runs seeds: `topside-sim A..B`, or one seed. A seed that is red is printed with its world's log and the command that replays it.

use std::io::{self, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut out = io::stdout().lock();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some(seeds) = arguments.first().and_then(|text| seeds(text)) else {
        // Nobody may be there to read it.
        let _ = writeln!(io::stderr(), "usage: topside-sim FROM..TO | SEED");
        return ExitCode::from(2);
    };
    match judge(seeds, &mut out) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) | Err(_) => ExitCode::FAILURE,
    }
}

fn seeds(text: &str) -> Option<std::ops::Range<u64>> {
    match text.split_once("..") {
        Some((from, to)) => Some(from.parse().ok()?..to.parse().ok()?),
        None => text.parse().ok().map(|seed| seed..seed + 1),
    }
}

/// Runs the seeds up to the first red one.
fn judge(seeds: std::ops::Range<u64>, out: &mut impl Write) -> io::Result<bool> {
    let mut sum = sim::Figures::default();
    let count = seeds.end.saturating_sub(seeds.start);
    for seed in seeds {
        let report = sim::run(seed);
        if !report.wrong.is_empty() {
            for line in &report.trace {
                writeln!(out, "{line}")?;
            }
            for wrong in &report.wrong {
                writeln!(out, "seed {seed} is red: {wrong}")?;
            }
            writeln!(out, "replay it: cargo run -q -p topside-sim -- {seed}")?;
            return Ok(false);
        }
        sum = sum.plus(report.figures);
    }
    let sim::Figures { crashes, runs, deeds, records, points, faults } = sum;
    writeln!(
        out,
        "{count} seeds are green: {crashes} crashes, {faults} faults of the disk, {points} points to die at"
    )?;
    writeln!(out, "{runs} runs, {records} records, {deeds} deeds")?;
    Ok(true)
}
