//! What runs cost that wait, are interrupted or are watched: memory of held runs, the end of one after its approval, the
//! resumption of many after a kill, one run streamed to many clients.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::figures::{Figure, Page};
use super::gate::Gate;
use super::{Arguments, Bench};
use crate::clock::Stopwatch;
use crate::keys::Keys;
use crate::server::{Server, send};

const CLIENTS: usize = 16;
const INTERRUPTED: usize = 1_000;
/// Drivers of a service, and so calls that can be under way at once.
const UNDER_WAY: usize = 256;
const WATCHERS: usize = 1_000;
const SETTLE: Duration = Duration::from_secs(60);
pub(super) const POLL: Duration = Duration::from_millis(5);
pub(super) const WAIT_SECONDS_MAX: f64 = 120.0;

pub(super) fn measure(bench: &Bench<'_>, page: &mut Page) -> Result<()> {
    held(bench, page).context("held runs")?;
    interrupted(bench, page).context("interrupted runs")?;
    watched(bench, page).context("a watched run")
}

/// A project of one agent with one `http` tool, its data directory and keys.
pub(super) struct Site {
    pub(super) folder: tempfile::TempDir,
    pub(super) binary: PathBuf,
    keys: Keys,
    /// The journal's database, when it is not a file.
    pub(super) database: Option<String>,
}

impl Site {
    pub(super) fn new(bench: &Bench<'_>, contract: &str, port: u16) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let project = folder.path().join("project");
        let tool = format!(
            "description: A deed outside.\ninput_schema: {{type: object}}\n{contract}timeout_seconds: 600\n\
             run: {{http: {{method: GET, url: \"http://127.0.0.1:{port}/deed\"}}}}\n"
        );
        for (name, text) in [
            ("topside.yaml", "default_agent: worker\n"),
            ("policies/all.cedar", "@id(\"bench.all\")\npermit (principal, action, resource);\n"),
            ("agents/worker.md", "---\nmodel: main\ntools: [deed]\n---\nYou do a deed.\n"),
            ("models/main.yaml", "main: {provider: script, transcript: main.yaml}\n"),
            ("tools/deed.yaml", &tool),
            (
                "main.yaml",
                "title: a deed\nsteps:\n- reply:\n  - call: {id: c1, tool: deed, arguments: {}}\n- expect: {outputs: {c1: '(?s).*'}}\n  reply:\n  - text: Done.\n",
            ),
        ] {
            let path = project.join(name);
            std::fs::create_dir_all(path.parent().context("a parent")?)?;
            std::fs::write(path, text)?;
        }
        let binary = bench.built.join("topside");
        let keys = Keys::make(&binary)?;
        keys.declare(&folder.path().join("data"))?;
        Ok(Self { folder, binary, keys, database: None })
    }

    fn serve(&self) -> Result<Server> {
        self.serve_as(&["serve"], "/health")
    }

    /// Asks for so many runs and does not wait for them; gives the id of the last one that each client asked for.
    pub(super) fn submit(&self, port: u16, runs: usize) -> Result<Vec<String>> {
        let left = AtomicUsize::new(runs);
        let take = || left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
        let client = || -> Result<Option<String>> {
            let mut last = None;
            while take() {
                let body = r#"{"message":"Go."}"#;
                let told = loop {
                    let answer = self.ask(port, "POST", "/runs", &[("Prefer", "respond-async")], body)?;
                    if answer.0 != 503 {
                        break answer;
                    }
                    // Too many wait for a driver: a client comes again.
                    pause(POLL);
                };
                ensure!(told.0 == 202 || told.0 == 200, "{told:?}");
                last = told.1["run_id"].as_str().map(str::to_owned);
            }
            Ok(last)
        };
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
            let lasts =
                clients.into_iter().map(|client| client.join().map_err(|_| anyhow::anyhow!("a client panicked"))?);
            lasts.filter_map(Result::transpose).collect()
        })
    }

    fn ask(&self, port: u16, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Result<(u16, Value)> {
        let key =
            format!("Bearer {}", if path.starts_with("/approvals/") { &self.keys.approver } else { &self.keys.asker });
        let headers: Vec<_> = headers.iter().copied().chain([("Authorization", key.as_str())]).collect();
        let answer = send(port, method, path, &headers, body).with_context(|| format!("no answer: {method} {path}"))?;
        Ok((answer.status, serde_json::from_str(&answer.body).unwrap_or(Value::Null)))
    }

    /// Runs that ended well in this process.
    fn ended(&self, port: u16) -> Result<usize> {
        let key = format!("Bearer {}", self.keys.asker);
        let answer = send(port, "GET", "/metrics", &[("Authorization", &key)], "").context("no metrics")?;
        let name = "topside_runs_ended_total{status=\"completed\"} ";
        let count = answer.body.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        Ok(count.unwrap_or(0))
    }

    fn until(&self, port: u16, run: &str, status: &str) -> Result<Value> {
        let watch = Stopwatch::start();
        loop {
            let (_, told) = self.ask(port, "GET", &format!("/runs/{run}"), &[], "")?;
            if told["status"] == status {
                return Ok(told);
            }
            ensure!(watch.seconds() < WAIT_SECONDS_MAX, "{run} did not become {status}: {told}");
            pause(POLL);
        }
    }
}

/// Runs that wait for approval: what they keep in memory, and how quickly one ends that is approved of.
fn held(bench: &Bench<'_>, page: &mut Page) -> Result<()> {
    let Arguments { held, pairs, .. } = bench.arguments;
    let gate = Gate::new()?;
    gate.open();
    let site = Site::new(bench, "effect: external\nidempotency: call\napproval: always\n", gate.port)?;
    let server = site.serve()?;
    let idle = server.resident_mib()?;
    let watch = Stopwatch::start();
    let lasts = site.submit(server.port, *held)?;
    for run in &lasts {
        site.until(server.port, run, "waiting")?;
    }
    let created = watch.seconds();
    pause(SETTLE);
    let resident = server.resident_mib()?;
    page.fact(
        &format!("resident memory 60 s after {held} runs were held, MiB"),
        &format!(
            "{resident:.1} (idle: {idle:.1}, so {:.1} more; {:.0} runs a second were created and held)",
            resident - idle,
            *held as f64 / created
        ),
    );
    let mut ended = Figure::default();
    for run in lasts.iter().take(*pairs) {
        let told = site.until(server.port, run, "waiting")?;
        let call = told["approvals"][0].as_str().with_context(|| format!("no call is held: {told}"))?;
        let watch = Stopwatch::start();
        let (status, told) =
            site.ask(server.port, "POST", &format!("/approvals/{call}"), &[], r#"{"vote":"approve"}"#)?;
        ensure!(status == 200, "{status} {told}");
        site.until(server.port, run, "completed")?;
        ended.add(watch.seconds() * 1e3);
    }
    page.alone(&format!("from the approval to the end, {held} runs held, ms"), &ended);
    server.stop()?;
    let server = site.serve()?;
    page.fact(
        &format!("start to `/health`, {held} runs held, ms"),
        &format!("{:.1}; {:.1} MiB resident", server.ready_ms, server.resident_mib()?),
    );
    server.stop()
}

/// From the start of the process to the end of every run that the one before left.
fn interrupted(bench: &Bench<'_>, page: &mut Page) -> Result<()> {
    let mut figure = Figure::default();
    for _ in 0..bench.arguments.pairs {
        let gate = Gate::new()?;
        let site = Site::new(bench, "effect: read\n", gate.port)?;
        let server = site.serve()?;
        site.submit(server.port, INTERRUPTED)?;
        gate.wait_for(UNDER_WAY);
        // Dropped, it is killed.
        drop(server);
        gate.open();
        let watch = Stopwatch::start();
        let server = site.serve()?;
        while site.ended(server.port)? < INTERRUPTED {
            ensure!(watch.seconds() < WAIT_SECONDS_MAX, "only {} runs ended", site.ended(server.port)?);
            pause(POLL);
        }
        figure.add(watch.seconds());
        server.stop()?;
    }
    let name =
        format!("{INTERRUPTED} interrupted runs, {UNDER_WAY} of them in a call: from the start to the last end, s");
    page.alone(&name, &figure);
    Ok(())
}

/// One run and many that watch it to its end.
fn watched(bench: &Bench<'_>, page: &mut Page) -> Result<()> {
    let gate = Gate::new()?;
    let site = Site::new(bench, "effect: read\n", gate.port)?;
    let server = site.serve()?;
    let run = site.submit(server.port, 1)?.pop().context("no run")?;
    gate.wait_for(1);
    let before = server.resident_mib()?;
    let mut streams = Vec::new();
    for _ in 0..WATCHERS {
        streams.push(watch(server.port, &run, &site.keys.asker)?);
    }
    // The last one's first record says that all are there.
    let mut line = String::new();
    streams.last_mut().context("nobody watches")?.read_line(&mut line)?;
    let during = server.resident_mib()?;
    gate.open();
    let mut whole = 0;
    for stream in streams {
        let saw_the_end = stream.lines().map_while(Result::ok).any(|line| line == "event: finished");
        whole += usize::from(saw_the_end);
    }
    ensure!(whole == WATCHERS, "only {whole} of {WATCHERS} saw the end");
    let kib = (server.resident_mib()?.max(during) - before) * 1024.0 / WATCHERS as f64;
    page.fact(
        &format!("one run streamed to {WATCHERS} clients, all of which saw its end"),
        &format!("{kib:.1} KiB of resident memory for each"),
    );
    server.stop()
}

#[expect(clippy::disallowed_methods, reason = "it watches the service that this command has started on loopback")]
fn watch(port: u16, run: &str, key: &str) -> Result<BufReader<TcpStream>> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    let head = format!(
        "GET /runs/{run}/events HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\naccept: text/event-stream\r\nauthorization: Bearer {key}\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    stream.set_read_timeout(Some(SETTLE))?;
    Ok(BufReader::new(stream))
}

#[expect(clippy::disallowed_methods, reason = "another process can only be asked again")]
pub(super) fn pause(time: Duration) {
    std::thread::sleep(time);
}
