//! Runs seeds: `topside-sim FROM..TO`. The first that is red is printed with its world's log and the command that replays it.
//! `topside-sim SEED` runs one and prints its world's log, whatever comes of it.

use parking_lot::Mutex;
use std::io::{self, Write};
use std::ops::Range;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

/// Threads at most; each lives a world at a time.
const THREADS_MAX: usize = 16;
/// Within so many seeds everything that can be reached must have been.
const ALL_REACHED_SEEDS: u64 = 300;

fn main() -> ExitCode {
    let mut out = io::stdout().lock();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let is_green = match arguments.first().and_then(|text| asked(text)) {
        Some(Asked::One(seed)) => {
            let report = sim::run(seed);
            let is_green = report.wrong.is_empty();
            let told = if is_green {
                log(&report, &mut out).and(green(1, report.figures, &mut out))
            } else {
                red(&report, &mut out)
            };
            told.is_ok() && is_green
        }
        Some(Asked::Range(seeds)) => match live(&seeds) {
            Ok(sum) => {
                let count = seeds.end.saturating_sub(seeds.start);
                green(count, sum, &mut out).is_ok() && all_reached(count, &sum, &mut out)
            }
            Err(report) => {
                // A red seed stays red when nobody reads of it.
                let _ = red(&report, &mut out);
                false
            }
        },
        None => {
            // Nobody may be there to read it.
            let _ = writeln!(io::stderr(), "usage: topside-sim FROM..TO | SEED");
            return ExitCode::from(2);
        }
    };
    if is_green { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

enum Asked {
    One(u64),
    Range(Range<u64>),
}

fn asked(text: &str) -> Option<Asked> {
    Some(match text.split_once("..") {
        Some((from, to)) => Asked::Range(from.parse().ok()?..to.parse().ok()?),
        None => Asked::One(text.parse().ok()?),
    })
}

/// What all worlds came to, or the first that is red.
fn live(seeds: &Range<u64>) -> Result<sim::Figures, Box<sim::Report>> {
    let next = AtomicU64::new(seeds.start);
    let sum = Mutex::new(sim::Figures::default());
    let first: Mutex<Option<Box<sim::Report>>> = Mutex::new(None);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            // Seeds before a red one are lived to their end, so that the first is the same each time.
            if seed >= seeds.end || first.lock().as_ref().is_some_and(|first| first.seed < seed) {
                return;
            }
            let report = sim::run(seed);
            if report.wrong.is_empty() {
                let mut sum = sum.lock();
                *sum = sum.plus(report.figures);
            } else {
                let mut first = first.lock();
                if first.as_ref().is_none_or(|first| report.seed < first.seed) {
                    *first = Some(Box::new(report));
                }
            }
        }
    };
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    first.into_inner().map_or(Ok(sum.into_inner()), Err)
}

fn green(count: u64, sum: sim::Figures, out: &mut impl Write) -> io::Result<()> {
    let sim::Figures { crashes, runs, deeds, records, points, faults, reached } = sum;
    writeln!(
        out,
        "{count} seeds are green: {crashes} crashes, {faults} faults of the disk, {points} points to die at"
    )?;
    writeln!(out, "{runs} runs, {records} records, {deeds} deeds")?;
    let counts = sim::KINDS.iter().zip(reached).map(|((_, name), count)| format!("{name}: {count}"));
    writeln!(out, "{}", counts.collect::<Vec<_>>().join(", "))
}

/// Whether so many seeds came to all that a world can come to. What is never reached is not proven.
fn all_reached(count: u64, sum: &sim::Figures, out: &mut impl Write) -> bool {
    let unreached = if count < ALL_REACHED_SEEDS { Vec::new() } else { sum.unreached() };
    for name in &unreached {
        // Whoever does not read it sees the exit code.
        let _ = writeln!(out, "never reached in {count} seeds: {name}");
    }
    unreached.is_empty()
}

fn log(report: &sim::Report, out: &mut impl Write) -> io::Result<()> {
    report.trace.iter().try_for_each(|line| writeln!(out, "{line}"))
}

fn red(report: &sim::Report, out: &mut impl Write) -> io::Result<()> {
    log(report, out)?;
    for wrong in &report.wrong {
        writeln!(out, "seed {} is red: {wrong}", report.seed)?;
    }
    writeln!(out, "replay it: cargo run -q -p topside-sim -- {}", report.seed)
}
