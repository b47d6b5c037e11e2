//! Measures durable appends: `cargo run --release -p topside-journal --example append STORE SECONDS WRITERS [URL]`.
//!
//! Each writer makes runs of three model calls and two tool calls, one after the other, eight in a session: each is 11
//! records and 7 contents in 6 appends. `STORE` is `sqlite` or `postgres` for the journal, or one of them with `bare-` before it for the same rows
//! written in the shortest way: what the store costs without hashes and seals. `URL` is an empty PostgreSQL database. One
//! line of JSON says what came of it.

mod bare;
mod bare_postgres;
mod run;

use journal::claims::WorkerSpec;
use journal::{Config, Error, Journal, MemoryObjects, Parts, PlainWrap, PostgresSettings};
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;
use stdx::{Clock, Random};

const USAGE: &str = "usage: append sqlite|bare-sqlite|postgres|bare-postgres SECONDS WRITERS [URL]";
/// Longer than any measurement: nobody keeps the lease.
const LEASE_MS: u64 = 3_600_000;
/// As many as the bare statement has: how many commits share a flush of the server's log goes by it.
const CONNECTIONS_MAX: usize = 64;

/// What came of one measurement.
pub(crate) struct Measured {
    pub(crate) sessions: u64,
    pub(crate) commits: u64,
    pub(crate) seconds: f64,
    /// Processor time of the thread that writes.
    pub(crate) writer_seconds: f64,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (store, seconds, writers, url) = match arguments.as_slice() {
        [store, seconds, writers] => (store, seconds, writers, None),
        [store, seconds, writers, url] => (store, seconds, writers, Some(url)),
        _ => return Err(USAGE.into()),
    };
    let (time, writers) = (Duration::from_secs(seconds.parse()?), writers.parse::<u32>()?);
    let directory = tempfile::tempdir()?;
    let measured = match (store.as_str(), url) {
        ("sqlite", None) => sqlite(directory.path(), time, writers).await?,
        ("bare-sqlite", None) => bare::measure(directory.path(), time, writers).await?,
        ("postgres", Some(url)) => postgres(url, time, writers).await?,
        ("bare-postgres", Some(url)) => bare_postgres::measure(url, time, writers).await?,
        _ => return Err(USAGE.into()),
    };
    let per_second = |count: u64| f64::from(u32::try_from(count).unwrap_or(u32::MAX)) / measured.seconds;
    let appends = measured.sessions * (run::RUNS * run::APPENDS) as u64;
    let records = measured.sessions * (run::RUNS * run::RECORDS.iter().sum::<usize>()) as u64;
    writeln!(
        std::io::stdout(),
        "{{\"store\":\"{store}\",\"writers\":{writers},\"records_per_second\":{:.0},\"appends_per_second\":{:.0},\"commits_per_second\":{:.0},\"writer_us_per_append\":{:.1}}}",
        per_second(records),
        per_second(appends),
        per_second(measured.commits),
        measured.writer_seconds * 1e6 / per_second(appends) / measured.seconds,
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
    let (sessions, seconds) = drive(&journal, &clock, time, writers).await?;
    let commits = journal.health().commit_id;
    let writer_seconds = thread_seconds("journal").unwrap_or_default();
    journal.close().await?;
    Ok(Measured { sessions, commits, seconds, writer_seconds })
}

async fn postgres(url: &str, time: Duration, writers: u32) -> Result<Measured, Box<dyn std::error::Error>> {
    let journal = open_postgres(url).await?;
    let (sessions, seconds) = drive(&journal, &Clock::system(), time, writers).await?;
    journal.close().await?;
    // There, every append is a commit, and no thread of this process writes.
    let commits = sessions * (run::RUNS * run::APPENDS) as u64;
    Ok(Measured { sessions, commits, seconds, writer_seconds: 0.0 })
}

/// A journal that may claim.
pub(crate) async fn open_postgres(url: &str) -> Result<Journal, Error> {
    let settings = PostgresSettings { connections_max: CONNECTIONS_MAX, ..PostgresSettings::new(url) };
    let journal = Journal::open_postgres(&settings, parts(), Config::default()).await?;
    journal.join(WorkerSpec { name: "append".to_owned(), lease_ms: LEASE_MS }).await?;
    Ok(journal)
}

/// Lets every writer make sessions until the time is over; gives their number and the seconds it took.
async fn drive(
    journal: &Journal,
    clock: &Clock,
    time: Duration,
    writers: u32,
) -> Result<(u64, f64), Box<dyn std::error::Error>> {
    let writer = |journal: Journal, clock: Clock| async move {
        let random = Random::system();
        let mut sessions = 0;
        while clock.monotonic() < time {
            run::one_session(&journal, &clock, &random).await?;
            sessions += 1;
        }
        Ok::<u64, Error>(sessions)
    };
    let tasks: Vec<_> = (0..writers).map(|_| tokio::spawn(writer(journal.clone(), clock.clone()))).collect();
    let mut sessions = 0;
    for task in tasks {
        sessions += task.await??;
    }
    Ok((sessions, clock.monotonic().as_secs_f64()))
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
