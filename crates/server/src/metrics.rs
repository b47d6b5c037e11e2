//! Metrics in the text form of Prometheus (0.0.4): what this room counts, and what engine and journal say of themselves.

use api::ENDPOINTS;
use engine::Engine;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

/// Upper bounds of the answer times, in milliseconds.
const BOUNDS_MS: [u64; 10] = [1, 5, 10, 50, 100, 500, 1_000, 5_000, 30_000, 120_000];
/// Bytes in a page of memory, on every Linux that this runs on.
const PAGE_BYTES: u64 = 4_096;

/// What was answered, by the endpoint's place in the table; what is in no table counts as one.
#[derive(Debug)]
pub(crate) struct Metrics {
    routes: Vec<Mutex<Answers>>,
}

#[derive(Debug, Default)]
struct Answers {
    statuses: BTreeMap<u16, u64>,
    buckets: [u64; BOUNDS_MS.len()],
    count: u64,
    micros: u64,
}

impl Default for Metrics {
    fn default() -> Self {
        Self { routes: (0..=ENDPOINTS.len()).map(|_| Mutex::default()).collect() }
    }
}

impl Metrics {
    /// Counts an answer.
    pub(crate) fn answered(&self, index: Option<usize>, status: u16, took: Duration) {
        let Some(answers) = self.routes.get(index.unwrap_or(ENDPOINTS.len())) else { return };
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let mut answers = answers.lock();
        *answers.statuses.entry(status).or_default() += 1;
        answers.count += 1;
        answers.micros = answers.micros.saturating_add(micros);
        if let Some(at) = BOUNDS_MS.iter().position(|bound| micros <= bound * 1_000) {
            answers.buckets[at] += 1;
        }
    }

    /// Everything, as text.
    pub(crate) fn text(&self, engine: &Engine) -> String {
        let mut out = String::with_capacity(8 << 10);
        own(&mut out, engine);
        self.http(&mut out);
        out
    }

    fn http(&self, out: &mut String) {
        head(out, "topside_http_requests_total", "counter", "Answers, by route and status.");
        for (at, answers) in self.routes.iter().enumerate() {
            let (method, path) = route(at);
            for (status, count) in &answers.lock().statuses {
                let labels = format!("method=\"{method}\",route=\"{path}\",status=\"{status}\"");
                line(out, "topside_http_requests_total", &labels, *count);
            }
        }
        let name = "topside_http_request_duration_seconds";
        head(out, name, "histogram", "Time until an answer's headers, by route.");
        for (at, answers) in self.routes.iter().enumerate() {
            let answers = answers.lock();
            if answers.count == 0 {
                continue;
            }
            let (method, path) = route(at);
            let labels = format!("method=\"{method}\",route=\"{path}\"");
            let mut below = 0;
            for (bound_ms, count) in BOUNDS_MS.iter().zip(answers.buckets) {
                below += count;
                line(out, &format!("{name}_bucket"), &format!("{labels},le=\"{}\"", seconds(bound_ms * 1_000)), below);
            }
            line(out, &format!("{name}_bucket"), &format!("{labels},le=\"+Inf\""), answers.count);
            let _ = writeln!(out, "{name}_sum{{{labels}}} {}", seconds(answers.micros));
            line(out, &format!("{name}_count"), &labels, answers.count);
        }
    }
}

fn own(out: &mut String, engine: &Engine) {
    let health = engine.health();
    let (journal, kept) = (engine.journal().health(), engine.kept());
    let gauges = [
        ("topside_ready", "Whether the service takes runs.", u64::from(health.ready.is_ok())),
        ("topside_sessions_active", "Sessions that are driven.", health.active as u64),
        ("topside_sessions_waiting", "Sessions that wait for a driver.", health.waiting as u64),
        ("topside_sessions_watched", "Sessions whose events somebody follows.", kept.watched as u64),
        (
            "topside_data_keys",
            "Sessions whose data key is in memory; one that rests for 20 seconds has none.",
            kept.journal.data_keys as u64,
        ),
        (
            "topside_journal_queued_entries",
            "Entries that wait for the journal's writer.",
            journal.queued_entries as u64,
        ),
        (
            "topside_no_progress_seconds_max",
            "The longest time for which a session that is driven here has made no progress.",
            health.no_progress_ms_max / 1_000,
        ),
        ("process_resident_memory_bytes", "Resident memory.", resident_bytes()),
    ];
    for (name, help, value) in gauges {
        head(out, name, "gauge", help);
        line(out, name, "", value);
    }
    let counts = engine.counts();
    runs(out, &counts);
    workspaces(out, &counts);
    for (name, help, value) in [
        (
            "topside_drivers_stopped_total",
            "Drivers that were stopped because they made no progress.",
            counts.drivers_stopped,
        ),
        ("topside_threads_lost_total", "Of those, the ones that held on to their thread.", counts.threads_lost),
        (
            "topside_breakers_opened_total",
            "Times that a part was left alone because it kept failing.",
            counts.breakers_opened,
        ),
    ] {
        head(out, name, "counter", help);
        line(out, name, "", value);
    }
    head(
        out,
        "topside_breaker_open",
        "gauge",
        "Parts that keep failing: 1 while one is left alone, 0 when the next attempt is let through.",
    );
    for breaker in engine.breakers() {
        // A part's name quotes an alias with backticks; neither holds a quotation mark.
        line(out, "topside_breaker_open", &format!("part=\"{}\"", breaker.part), u64::from(breaker.is_open));
    }
    head(out, "topside_journal_commits_total", "counter", "Commits of this data directory so far.");
    line(out, "topside_journal_commits_total", "", journal.commit_id);
    head(out, "topside_build_info", "gauge", "The program's version.");
    line(out, "topside_build_info", &format!("version=\"{}\"", domain::VERSION), 1);
}

/// Runs that this process took and ended, and what they used.
fn runs(out: &mut String, counts: &engine::Counts) {
    head(out, "topside_runs_submitted_total", "counter", "Runs taken by this process.");
    line(out, "topside_runs_submitted_total", "", counts.submitted);
    head(out, "topside_runs_ended_total", "counter", "Runs ended by this process, by how they ended.");
    for (status, count) in [
        ("completed", counts.completed),
        ("failed", counts.failed),
        ("cancelled", counts.cancelled),
        ("timed_out", counts.timed_out),
        ("budget_exhausted", counts.budget_exhausted),
    ] {
        line(out, "topside_runs_ended_total", &format!("status=\"{status}\""), count);
    }
    head(
        out,
        "topside_tokens_total",
        "counter",
        "Tokens of ended runs; cached ones are among the input, reasoning among the output.",
    );
    for (kind, count) in [
        ("input", counts.usage.input_tokens),
        ("cached", counts.usage.cached_tokens),
        ("output", counts.usage.output_tokens),
        ("reasoning", counts.usage.reasoning_tokens),
    ] {
        line(out, "topside_tokens_total", &format!("kind=\"{kind}\""), count);
    }
    for (name, help, value) in [
        ("topside_model_calls_total", "Model calls of ended runs, retries included.", counts.usage.model_calls),
        ("topside_tool_calls_total", "Tool calls of ended runs.", counts.tool_calls),
        ("topside_turns_total", "Turns of ended runs.", counts.turns),
        ("topside_cost_micro_usd_total", "Known cost of ended runs, in millionths of a US dollar.", counts.micro_usd),
    ] {
        head(out, name, "counter", help);
        line(out, name, "", value);
    }
}

/// How workspaces were kept and made, and what that cost the programs in them.
fn workspaces(out: &mut String, counts: &engine::Counts) {
    let kept = [("copy", counts.workspaces_copied), ("export", counts.workspaces_exported)];
    head(
        out,
        "topside_workspaces_kept_total",
        "counter",
        "Workspaces that were kept: copied in a moment, or exported while their programs stood still.",
    );
    for (way, halts) in kept {
        line(out, "topside_workspaces_kept_total", &format!("way=\"{way}\""), halts.count);
    }
    let name = "topside_workspace_pause_seconds_total";
    head(out, name, "counter", "For how long programs stood still for that.");
    for (way, halts) in kept {
        let _ = writeln!(out, "{name}{{way=\"{way}\"}} {}", seconds(halts.paused_micros));
    }
    head(
        out,
        "topside_workspaces_made_total",
        "counter",
        "Workspaces that were made of a checkpoint: as a copy of one that was still there, or of its chunks.",
    );
    for (way, count) in [("copy", counts.workspaces_forked), ("chunks", counts.workspaces_restored)] {
        line(out, "topside_workspaces_made_total", &format!("way=\"{way}\""), count);
    }
}

fn route(at: usize) -> (&'static str, &'static str) {
    ENDPOINTS.get(at).map_or(("any", "unknown"), |endpoint| (endpoint.method.name(), endpoint.path))
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn line(out: &mut String, name: &str, labels: &str, value: u64) {
    let _ =
        if labels.is_empty() { writeln!(out, "{name} {value}") } else { writeln!(out, "{name}{{{labels}}} {value}") };
}

fn seconds(micros: u64) -> String {
    format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000)
}

/// The second number of `/proc/self/statm` is the resident set in pages; 0 where there is none.
fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or_default() * PAGE_BYTES
}
