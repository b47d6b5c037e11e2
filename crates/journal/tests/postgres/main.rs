//! What only a journal on PostgreSQL can get wrong: other processes, lost answers, the way to the server, old and new
//! programs. What every store must hold is in `tests/contract.rs`.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test")]

mod claims;
mod database;
mod groups;
mod lost;
mod news;
#[path = "../support/pooler.rs"]
mod pooler;
#[path = "../support/proxy.rs"]
mod proxy;
#[path = "../support/mod.rs"]
mod support;
mod tls;

use journal::{Config, Error, Journal, MemoryObjects, PostgresSettings, Worker, WorkerSpec};
use stdx::Clock;
use support::parts;

/// Opens the journal of a database as a process of its own would, with a clock of its own.
async fn open(url: &str, clock: &Clock) -> Journal {
    try_open(&PostgresSettings { connections_max: 4, ..PostgresSettings::new(url) }, clock).await.unwrap()
}

async fn try_open(settings: &PostgresSettings, clock: &Clock) -> Result<Journal, Error> {
    Journal::open_postgres(settings, parts(clock, &MemoryObjects::default()), Config::default()).await
}

async fn join(journal: &Journal, name: &str) -> Worker {
    journal.join(WorkerSpec { name: name.to_owned(), lease_ms: 60_000 }).await.unwrap()
}

/// The port in a URL of the tests' server.
fn port(url: &str) -> u16 {
    let (_, rest) = url.rsplit_once(':').unwrap();
    rest.split('/').next().unwrap().parse().unwrap()
}
