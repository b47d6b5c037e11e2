//! Measures durable appends: `cargo run --release -p topside-journal --example append STORE SECONDS WRITERS`.
//!
//! Each writer makes runs of three model calls and two tool calls, one after the other: 11 records and 7 contents in 6
//! appends. `STORE` is `sqlite` for the journal, or `bare-sqlite` for the same rows written by the shortest loop that
//! commits in groups with prepared statements: what the store costs without hashes, seals and fences. One line of JSON
//! says what came of it.

mod bare;
mod run;

use journal::{Config, Error, Journal, MemoryObjects, Parts, PlainWrap};
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;
use stdx::{Clock, Random};

const USAGE: &str = "usage: append sqlite|bare-sqlite SECONDS WRITERS";

/// What came of one measurement.
pub(crate) struct Measured {
    pub(crate) runs: u64,
    pub(crate) commits: u64,
    pub(crate) seconds: f64,
    /// Processor time of the thread that writes.
    pub(crate) writer_seconds: f64,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [store, seconds, writers] = arguments.as_slice() else { return Err(USAGE.into()) };
    let (time, writers) = (Duration::from_secs(seconds.parse()?), writers.parse::<u32>()?);
    let directory = tempfile::tempdir()?;
    let measured = match store.as_str() {
        "sqlite" => sqlite(directory.path(), time, writers).await?,
        "bare-sqlite" => bare::measure(directory.path(), time, writers).await?,
        _ => return Err(USAGE.into()),
    };
    let per_second = |count: u64| f64::from(u32::try_from(count).unwrap_or(u32::MAX)) / measured.seconds;
    let appends = u64::from(run::APPENDS);
    let records: usize = run::RECORDS.iter().sum();
    writeln!(
        std::io::stdout(),
        "{{\"store\":\"{store}\",\"writers\":{writers},\"records_per_second\":{:.0},\"appends_per_second\":{:.0},\"commits_per_second\":{:.0},\"writer_us_per_append\":{:.1}}}",
        per_second(measured.runs * records as u64),
        per_second(measured.runs * appends),
        per_second(measured.commits),
        measured.writer_seconds * 1e6 / per_second(measured.runs * appends) / measured.seconds,
    )?;
    Ok(())
}

/// The parts of a journal that keeps everything in its own files.
pub(crate) fn parts() -> Parts {
    Parts {
        clock: Clock::system(),
        random: Random::system(),
        wrap: Arc::new(PlainWrap),
        objects: Arc::new(MemoryObjects::default()),
    }
}

async fn sqlite(
    directory: &std::path::Path,
    time: Duration,
    writers: u32,
) -> Result<Measured, Box<dyn std::error::Error>> {
    let journal = Journal::open(directory, parts(), Config::default())?;
    let clock = Clock::system();
    let (runs, seconds) = drive(&journal, &clock, time, writers).await?;
    let commits = journal.health().commit_id;
    let writer_seconds = thread_seconds("journal").unwrap_or_default();
    journal.close().await?;
    Ok(Measured { runs, commits, seconds, writer_seconds })
}

/// Lets every writer make runs until the time is over; gives their number and the seconds it took.
async fn drive(
    journal: &Journal,
    clock: &Clock,
    time: Duration,
    writers: u32,
) -> Result<(u64, f64), Box<dyn std::error::Error>> {
    let writer = |journal: Journal, clock: Clock| async move {
        let random = Random::system();
        let mut runs = 0;
        while clock.monotonic() < time {
            run::one_run(&journal, &clock, &random).await?;
            runs += 1;
        }
        Ok::<u64, Error>(runs)
    };
    let tasks: Vec<_> = (0..writers).map(|_| tokio::spawn(writer(journal.clone(), clock.clone()))).collect();
    let mut runs = 0;
    for task in tasks {
        runs += task.await??;
    }
    Ok((runs, clock.monotonic().as_secs_f64()))
}

/// Processor time that the newest thread of this name has used, from the kernel's count in clock ticks.
pub(crate) fn thread_seconds(name: &str) -> Option<f64> {
    let mut newest = None;
    for task in std::fs::read_dir("/proc/self/task").ok()?.flatten() {
        let read = |file| std::fs::read_to_string(task.path().join(file)).unwrap_or_default();
        if read("comm").trim() != name {
            continue;
        }
        let stat = read("stat");
        let fields: Vec<&str> = stat.rsplit(") ").next()?.split(' ').collect();
        let ticks: f64 = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
        newest = Some(ticks / 100.0);
    }
    newest
}
