//! What is said of a run once it has ended.

use super::clean::clean;
use super::console::Paint;
use super::keep::Kept;
use super::view::View;
use api::Run;
use catalog::Catalog;
use domain::RunStatus;
use domain::agent::ModelProvider;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

/// The summary, for stderr.
pub(crate) fn summary(run: &Run, view: &View, catalog: &Catalog, kept: &[Kept], data: &Path, paint: Paint) -> String {
    let mut out = String::from("\n");
    let status = match run.status {
        RunStatus::Completed => paint.green(run.status.name()),
        RunStatus::Waiting | RunStatus::Paused | RunStatus::NeedsResolution => paint.yellow(run.status.name()),
        _ => paint.red(run.status.name()),
    };
    let api::Usage { input_tokens, output_tokens, .. } = run.usage;
    let turns = counted(run.turns.into(), "turn");
    let calls = counted(run.tool_calls.into(), "tool call");
    let _ =
        writeln!(out, "{status} · {turns} · {calls} · {input_tokens} tokens in, {output_tokens} out · {}", cost(run));
    if let Some(error) = &run.error {
        let _ = writeln!(out, "{}", paint.red(&format!("{}: {}", error.code, clean(&error.message))));
    }
    let _ = writeln!(out, "model: {}", models(view.models(), catalog));
    for line in changed(view.files()) {
        let _ = writeln!(out, "{line}");
    }
    for kept in kept {
        let _ = match kept {
            Kept::File(path) => writeln!(out, "file: {}", paint.bold(&path.display().to_string())),
            Kept::Link { name, url } => writeln!(out, "file: {name}: {url}"),
            Kept::Lost { name, reason } => writeln!(out, "{}", paint.red(&format!("file: {name}: {reason}"))),
        };
    }
    let _ = writeln!(out, "record: topside log {} --data {}", clean(&run.session), quoted(data));
    out
}

fn counted(count: u64, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

fn cost(run: &Run) -> String {
    match (run.cost.complete, run.cost.micro_usd) {
        (false, 0) => "no price listed".to_owned(),
        (false, _) => format!("${:.6} for those models with a price listed", run.cost.usd),
        (true, 0) => "no cost".to_owned(),
        (true, _) => format!("${:.6}", run.cost.usd),
    }
}

/// Which models answered, and whether they are ones.
fn models(names: &[String], catalog: &Catalog) -> String {
    if names.is_empty() {
        return "none answered".to_owned();
    }
    let told = |name: &String| {
        let is_transcript =
            catalog.agents().any(|agent| agent.model.provider == ModelProvider::Script && agent.model.name == *name);
        let name = clean(name);
        if is_transcript { format!("transcript \"{name}\" (no model was called)") } else { name.into_owned() }
    };
    names.iter().map(told).collect::<Vec<_>>().join(", ")
}

/// A path as a shell takes it.
pub(crate) fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_alphanumeric() || "/._-+:,@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}
/// Files that a summary lists; the record lists all.
const FILES_MAX: usize = 20;

/// The files that changed, a line each; what Git keeps for itself is one line.
fn changed(files: &BTreeMap<String, char>) -> Vec<String> {
    let mut lines = Vec::new();
    let mut kept_by_git: BTreeMap<&str, usize> = BTreeMap::new();
    for (path, sign) in files {
        match path
            .split_once("/.git/")
            .map(|(repository, _)| repository)
            .or_else(|| path.starts_with(".git/").then_some("."))
        {
            Some(repository) => *kept_by_git.entry(repository).or_default() += 1,
            None => lines.push(format!("{sign} {path}")),
        }
    }
    lines.extend(
        kept_by_git
            .iter()
            .map(|(repository, files)| format!("· {repository}/.git: {}", counted(*files as u64, "file"))),
    );
    let more = lines.len().saturating_sub(FILES_MAX);
    if more > 0 {
        lines.truncate(FILES_MAX);
        lines.push(format!("… and {more} more"));
    }
    lines
}
