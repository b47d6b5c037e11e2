//! Runs per second and their latency beside the recipe that people deploy today, resident memory, and what the database says of
//! all those runs afterwards.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::figures::{Figure, Page};
use super::{Arguments, peers};
use crate::process;
use crate::server::{Server, post};

const CLIENTS: usize = 16;
const BODY: &str = r#"{"message":"I cannot log in to my account a1"}"#;
/// Runs after which resident memory is looked at.
const MEMORY_RUNS: usize = 1_000;

const SCRIPT: &str = r#"
wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
wrk.body = '{"message":"I cannot log in to my account a1"}'
done = function(summary, latency)
  local errors = summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.status + summary.errors.timeout
  io.write(string.format('RESULT {"requests":%d,"seconds":%f,"errors":%d,"p50_ms":%f,"p99_ms":%f}\n',
    summary.requests, summary.duration / 1e6, errors, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
"#;

/// One measurement under load.
struct Load {
    rate: f64,
    p50_ms: f64,
    p99_ms: f64,
}

pub(crate) fn measure(built: &Path, peers: &Path, arguments: &Arguments, page: &mut Page) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let script = folder.path().join("post.lua");
    std::fs::write(&script, SCRIPT)?;
    let model = peers::model(peers)?;
    let project = folder.path().join("project");
    peers::write_project(&project, model.port, "responses", false)?;
    wires(built, &model, folder.path(), page)?;
    memory(built, &project, &folder.path().join("memory"), page)?;
    let data = folder.path().join("data");
    let topside = Server::topside(built, &project, &data)?;
    let recipe = peers::recipe(peers, model.port, &folder.path().join("recipe.db"))?;
    let load = |server: &Server, clients| wrk(&script, server.port, clients, arguments.seconds);
    for server in [&topside, &recipe] {
        load(server, CLIENTS)?;
    }
    let (mut mine, mut mine_p99, mut mine_serial) = (Figure::default(), Figure::default(), Figure::default());
    let (mut theirs, mut theirs_p99, mut theirs_serial) = (Figure::default(), Figure::default(), Figure::default());
    for _ in 0..arguments.pairs {
        let (ours, peer) = (load(&topside, CLIENTS)?, load(&recipe, CLIENTS)?);
        let (our_serial, peer_serial) = (load(&topside, 1)?, load(&recipe, 1)?);
        mine.add(ours.rate);
        theirs.add(peer.rate);
        mine_p99.add(ours.p99_ms);
        theirs_p99.add(peer.p99_ms);
        mine_serial.add(our_serial.p50_ms);
        theirs_serial.add(peer_serial.p50_ms);
    }
    let peer = "FastAPI + Agents SDK + SQLite";
    page.beside(
        &format!("runs per second, {CLIENTS} clients, 3 model and 2 `sql` calls each, durable"),
        &mine,
        peer,
        &theirs,
    );
    page.beside(&format!("p99 of a run, {CLIENTS} clients, ms"), &mine_p99, peer, &theirs_p99);
    page.beside("p50 of a run, 1 client, ms", &mine_serial, peer, &theirs_serial);
    page.beside(
        &format!("p99 of ours at {CLIENTS} clients over p50 of the peer at 1, ms"),
        &mine_p99,
        peer,
        &theirs_serial,
    );
    let (mine_mib, theirs_mib) = (topside.resident_mib()?, recipe.resident_mib()?);
    page.fact("resident memory after the load, MiB", &format!("{mine_mib:.1} (peer: {theirs_mib:.1})"));
    page.note("The peer keeps its database with `synchronous=NORMAL`: what it acknowledged can be lost with the power. Topside writes with `FULL`.");
    topside.stop()?;
    verify(built, &data, page)
}

/// One run over each wire, streamed and not, to its end.
fn wires(built: &Path, model: &Server, folder: &Path, page: &mut Page) -> Result<()> {
    let mut served = Vec::new();
    for (wire, stream) in [("responses", false), ("responses", true), ("chat", false), ("chat", true)] {
        let name = format!("{wire}{}", if stream { ", streamed" } else { "" });
        let project = folder.join(format!("project-{wire}-{stream}"));
        peers::write_project(&project, model.port, wire, stream)?;
        let server = Server::topside(built, &project, &project.join("data"))?;
        let answer = post(server.port, "/runs", BODY).with_context(|| format!("{name}: no answer"))?;
        let done = answer.contains(r#""status":"completed""#) && answer.contains("Done after 2 tool calls.");
        ensure!(done, "{name}: {answer}");
        server.stop()?;
        served.push(name);
    }
    page.fact("wires that took a run of two calls to its end", &served.join("; "));
    Ok(())
}

/// What the database says of the runs: how many commits each took, and whether every chain verifies.
fn verify(built: &Path, data: &Path, page: &mut Page) -> Result<()> {
    let mut store = Command::new(built.join("examples/store"));
    let told = process::capture(store.arg("verify").arg(data))?;
    ensure!(told.status.success(), "store verify: {}", told.tail(5));
    let told: Value = serde_json::from_str(told.tail(1).trim())?;
    let count = |key: &str| told[key].as_u64().with_context(|| format!("no {key}: {told}"));
    let (runs, broken, most) = (count("runs")?, count("broken")?, count("commits_max")?);
    ensure!(broken == 0, "{broken} of {runs} chains are broken");
    ensure!(count("ended")? == runs, "{} of {runs} runs have not ended", runs - count("ended")?);
    page.fact("commits of one run at most, counted from the database", &most.to_string());
    page.fact("chains that verify afterwards", &format!("{} of {}", count("sessions")? - broken, count("sessions")?));
    Ok(())
}

fn memory(built: &Path, project: &Path, data: &Path, page: &mut Page) -> Result<()> {
    let server = Server::topside(built, project, data)?;
    let idle = server.resident_mib()?;
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                scope.spawn(|| {
                    (0..MEMORY_RUNS / CLIENTS + 1)
                        .filter(|_| {
                            post(server.port, "/runs", BODY)
                                .is_some_and(|answer| answer.contains(r#""status":"completed""#))
                        })
                        .count()
                })
            })
            .collect();
        let done: usize = clients.into_iter().map(|client| client.join().unwrap_or(0)).sum();
        ensure!(done >= MEMORY_RUNS, "only {done} of {MEMORY_RUNS} runs completed");
        Ok(())
    })?;
    let mut after = Figure::default();
    after.add(server.resident_mib()?);
    page.fact(
        &format!("resident memory after {MEMORY_RUNS} runs, MiB"),
        &format!("{:.1} (idle: {idle:.1})", after.median()),
    );
    server.stop()
}

fn wrk(script: &Path, port: u16, clients: usize, seconds: u64) -> Result<Load> {
    let mut command = Command::new("wrk");
    command.args([
        "--threads",
        "1",
        "--connections",
        &clients.to_string(),
        "--duration",
        &format!("{seconds}s"),
        "--script",
    ]);
    let ran = process::capture(command.arg(script).arg(format!("http://127.0.0.1:{port}/runs")))?;
    ensure!(ran.status.success(), "wrk: {}", ran.tail(5));
    let text = ran.tail(100);
    let line = text.lines().find_map(|line| line.strip_prefix("RESULT ")).context("wrk printed no result")?;
    let result: Value = serde_json::from_str(line)?;
    let field = |key: &str| result[key].as_f64().with_context(|| format!("no {key} in {line}"));
    ensure!(field("errors")? == 0.0, "requests failed: {line}");
    Ok(Load { rate: field("requests")? / field("seconds")?, p50_ms: field("p50_ms")?, p99_ms: field("p99_ms")? })
}
