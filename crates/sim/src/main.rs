//! Runs seeds: `topside-sim FROM..TO`, or one seed. The first that is red is printed with its world's log and the command that
//! replays it.

use parking_lot::Mutex;
use std::io::{self, Write};
use std::ops::Range;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

/// Threads at most; each lives a world at a time.
const THREADS_MAX: usize = 16;

fn main() -> ExitCode {
    let mut out = io::stdout().lock();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some(seeds) = arguments.first().and_then(|text| seeds(text)) else {
        // Nobody may be there to read it.
        let _ = writeln!(io::stderr(), "usage: topside-sim FROM..TO | SEED");
        return ExitCode::from(2);
    };
    let count = seeds.end.saturating_sub(seeds.start);
    let told = match live(&seeds) {
        Ok(sum) => green(count, sum, &mut out),
        Err(report) => red(&report, &mut out).and(Err(io::ErrorKind::Other.into())),
    };
    if told.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn seeds(text: &str) -> Option<Range<u64>> {
    match text.split_once("..") {
        Some((from, to)) => Some(from.parse().ok()?..to.parse().ok()?),
        None => text.parse().ok().map(|seed| seed..seed + 1),
    }
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
    let sim::Figures { crashes, runs, deeds, records, points, faults } = sum;
    writeln!(
        out,
        "{count} seeds are green: {crashes} crashes, {faults} faults of the disk, {points} points to die at"
    )?;
    writeln!(out, "{runs} runs, {records} records, {deeds} deeds")
}

fn red(report: &sim::Report, out: &mut impl Write) -> io::Result<()> {
    for line in &report.trace {
        writeln!(out, "{line}")?;
    }
    for wrong in &report.wrong {
        writeln!(out, "seed {} is red: {wrong}", report.seed)?;
    }
    writeln!(out, "replay it: cargo run -q -p topside-sim -- {}", report.seed)
}
