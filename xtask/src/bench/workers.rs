//! Runs per second of several workers on one PostgreSQL, beside one worker.

use std::process::Command;

use anyhow::{Result, ensure};

use super::Bench;
use super::figures::{Figure, Page};
use super::gate::Gate;
use super::waiting::{POLL, Site, WAIT_SECONDS_MAX, pause};
use crate::clock::Stopwatch;
use crate::postgres::Cluster;
use crate::server::{Server, free_port};

const WORKERS: usize = 4;
const RUNS: usize = 2_000;

pub(super) fn measure(bench: &Bench<'_>, page: &mut Page) -> Result<()> {
    let name = format!("runs per second, {WORKERS} workers on one PostgreSQL, {RUNS} runs of one call");
    let Some(mut cluster) = Cluster::start()? else {
        page.skipped(&name, "there is no PostgreSQL server");
        return Ok(());
    };
    let (mut many, mut one) = (Figure::default(), Figure::default());
    for _ in 0..bench.arguments.pairs {
        many.add(rate(bench, &mut cluster, WORKERS)?);
        one.add(rate(bench, &mut cluster, 1)?);
    }
    page.beside(&name, &many, "one worker", &one);
    Ok(())
}

/// Runs per second from the first that is asked for to the last that has ended.
fn rate(bench: &Bench<'_>, cluster: &mut Cluster, workers: usize) -> Result<f64> {
    let gate = Gate::new()?;
    gate.open();
    let mut site = Site::new(bench, "effect: read\n", gate.port)?;
    let database = cluster.database()?;
    site.database = Some(database.clone());
    let service = site.serve_as(&["serve", "--api-only"], "/health")?;
    let working = (0..workers).map(|_| site.serve_as(&["worker"], "/healthz")).collect::<Result<Vec<_>>>()?;
    let watch = Stopwatch::start();
    site.submit(service.port, RUNS)?;
    let ended = "SELECT count(*) FROM public.run_index WHERE finished_ms IS NOT NULL AND status = 'completed'";
    while cluster.ask(&database, ended)?.trim() != RUNS.to_string() {
        ensure!(watch.seconds() < WAIT_SECONDS_MAX, "{} of {RUNS} runs ended", cluster.ask(&database, ended)?.trim());
        pause(POLL);
    }
    let rate = RUNS as f64 / watch.seconds();
    for server in working.into_iter().chain([service]) {
        server.stop()?;
    }
    Ok(rate)
}

impl Site {
    /// Starts one of the processes that go on until they are told to end.
    pub(super) fn serve_as(&self, arguments: &[&str], ready: &str) -> Result<Server> {
        let port = free_port()?;
        let mut command = Command::new(&self.binary);
        command.args(arguments).args(["--listen", &format!("127.0.0.1:{port}"), "--project"]);
        command.arg(self.folder.path().join("project")).arg("--data").arg(self.folder.path().join("data"));
        command.envs(self.database.iter().map(|url| ("DATABASE_URL", url)));
        Server::start(&mut command, port, ready)
    }
}
