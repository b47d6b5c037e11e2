//! `format`, `clippy` and `tests`: what cargo itself can say. Which crates are looked at, the scope says.

use std::collections::BTreeSet;

use anyhow::Result;

use crate::clock::Stopwatch;
use crate::context::{Context, Scope};
use crate::report::{Finding, Outcome};
use crate::{failures, process};

/// The one skip that continuous integration allows; `deny` tells it.
pub(crate) const SKIP_ALLOWED: &str = "SKIPPED advisories:";
const LOG_LINES_SHOWN: usize = 60;
/// Test programs whose time is told.
const SLOWEST_SHOWN: usize = 12;

pub(crate) fn format(context: &Context) -> Result<Outcome> {
    let captured = process::capture(&mut context.cargo(&["fmt", "--all", "--", "--check", "--files-with-diff"]))?;
    if captured.status.success() {
        return Ok(Outcome::default());
    }
    let files = captured.text.lines().filter_map(|line| line.strip_prefix(&format!("{}/", context.root.display())));
    let mut findings: Vec<Finding> =
        files.map(|file| Finding::new(file, "is not formatted; hint: `cargo fmt --all`")).collect();
    if findings.is_empty() {
        findings.push(Finding::new("cargo fmt", captured.tail(LOG_LINES_SHOWN)));
    }
    Ok(Outcome::of(findings))
}

/// What cargo is told to look at; none when nothing changed.
fn selection(context: &Context, with_dependents: bool) -> Option<Vec<String>> {
    let packages = match &context.scope {
        Scope::Whole => return Some(vec!["--workspace".to_owned()]),
        Scope::One(name) => BTreeSet::from([context.package_of(name)]),
        Scope::Changed(changed) if with_dependents => changed.packages_and_dependents.clone(),
        Scope::Changed(changed) => changed.packages.clone(),
    };
    (!packages.is_empty()).then(|| packages.into_iter().flat_map(|name| ["--package".to_owned(), name]).collect())
}

pub(crate) fn clippy(context: &Context) -> Result<Outcome> {
    let Some(packages) = selection(context, true) else {
        return Ok(Outcome::default().note("no crate has changed"));
    };
    let mut command = context.cargo(&["clippy"]);
    command.args(&packages).args(["--all-targets", "--keep-going", "--", "-D", "warnings"]);
    let captured = process::stream(&mut command, tell_progress)?;
    if captured.status.success() {
        return Ok(Outcome::default());
    }
    println!("{}", captured.text);
    Ok(Outcome::of(compiler_findings(&captured.text)))
}

fn tell_progress(line: &str) {
    if ["Compiling topside", "Checking topside", "Compiling xtask", "Checking xtask", "Running ", "Doc-tests "]
        .iter()
        .any(|start| line.trim_start().starts_with(start))
    {
        println!("   {}", line.trim());
    }
}

/// Each error of the compiler as one finding: what, and the file and line that follow it.
pub(crate) fn compiler_findings(text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut message: Option<&str> = None;
    for line in text.lines() {
        if line.starts_with("error: could not compile") || line.starts_with("error: aborting") {
            message = None;
        } else if line.starts_with("error") {
            message = Some(line);
        } else if let Some(place) = line.trim_start().strip_prefix("--> ")
            && let Some(message) = message.take()
        {
            findings.push(Finding::new(place, message.trim_start_matches("error: ")));
        }
    }
    if findings.is_empty() {
        findings.push(Finding::new("cargo", process::tail(text, LOG_LINES_SHOWN)));
    }
    findings.sort();
    findings.dedup();
    findings
}

pub(crate) fn tests(context: &Context) -> Result<Outcome> {
    let Some(packages) = selection(context, false) else {
        return Ok(Outcome::default().note("no crate has changed"));
    };
    let mut command = context.cargo(&["test"]);
    // `--show-output`: what a passing test said is shown too, else a test could skip itself without anyone seeing it.
    command.args(&packages).args(["--no-fail-fast", "--", "--show-output"]);
    if context.strict {
        command.env("CI", "true");
    }
    let (mut program, mut times) = (String::new(), Times::default());
    let captured = process::stream(&mut command, |line| {
        tell_progress(line);
        if let Some(name) = program_of(line) {
            program.clear();
            times.begin(name);
        }
        program.push_str(line);
        program.push('\n');
        // A test that hangs is named by libtest after a minute; without that line nobody would know which one it is.
        if line.starts_with("test ") && (line.ends_with("FAILED") || line.ends_with("seconds")) {
            println!("   {line}");
        }
        // At once where it is known at once: what stops the check half-way must not take the cause with it.
        let failed = line.ends_with("... FAILED").then(|| failures::find(&program).pop()).flatten();
        if let Some(failed) = failed.filter(|failed| !failed.words.is_empty()) {
            println!("     {}", failed.why().replace('\n', "\n     "));
        }
    })?;
    let log = context.scratch("check")?.join("tests.log");
    std::fs::write(&log, &captured.text)?;
    let outcome = judge_tests(&captured.text, captured.status.success(), context.strict);
    if !outcome.is_green() {
        println!("{}", failures::shown(&captured.text));
    }
    Ok(outcome.note(times.told()).note(format!("all that the tests said: {}", log.display())))
}

/// The test program that cargo says it runs now, or the crate whose doc tests.
fn program_of(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let doc = line.strip_prefix("Doc-tests ");
    doc.or_else(|| line.strip_prefix("Running ")?.split_once("/deps/")?.1.rsplit_once('-').map(|(name, _)| name))
}

/// How long each test program took, the doc tests among them.
#[derive(Debug, Default)]
struct Times {
    done: Vec<(f64, String)>,
    now: Option<(Stopwatch, String)>,
}

impl Times {
    fn begin(&mut self, name: &str) {
        self.end();
        self.now = Some((Stopwatch::start(), name.to_owned()));
    }

    fn end(&mut self) {
        self.done.extend(self.now.take().map(|(watch, name)| (watch.seconds(), name)));
    }

    /// The slowest first.
    fn told(mut self) -> String {
        self.end();
        self.done.sort_by(|one, other| other.0.total_cmp(&one.0));
        let slowest = self.done.iter().take(SLOWEST_SHOWN).map(|(seconds, name)| format!("{name} {seconds:.0} s"));
        format!("the slowest: {}", slowest.collect::<Vec<_>>().join(", "))
    }
}

/// Counts what libtest reports, and finds what failed or was skipped.
pub(crate) fn judge_tests(text: &str, success: bool, strict: bool) -> Outcome {
    let mut outcome = Outcome::default();
    let mut ignored = 0;
    for line in text.lines() {
        if let Some(result) = line.strip_prefix("test result: ") {
            outcome.passed += count(result, "passed");
            outcome.failed += count(result, "failed");
            ignored += count(result, "ignored");
        } else if let Some(skip) = skip(line) {
            if strict {
                outcome.findings.push(Finding::new("tests", format!("{skip}; nothing may be skipped here")));
            } else {
                outcome.notes.push(skip.to_owned());
            }
        }
    }
    let failed = failures::find(text);
    outcome
        .findings
        .extend(failed.iter().map(|failed| Finding::new(&*failed.name, format!("the test failed: {}", failed.why()))));
    if ignored > 0 {
        outcome
            .findings
            .push(Finding::new("tests", format!("{ignored} tests are ignored; a test that never runs proves nothing")));
    }
    if text.contains("error: could not compile") {
        outcome.findings.extend(compiler_findings(text));
    } else if outcome.passed + outcome.failed == 0 {
        let message = format!("no test was run\n{}", process::tail(text, LOG_LINES_SHOWN));
        outcome.findings.push(Finding::new("tests", message));
    } else if !success && outcome.is_green() {
        outcome.findings.push(Finding::new("cargo test", process::tail(text, LOG_LINES_SHOWN)));
    }
    outcome
}

/// What a line says was skipped. A child's words can land behind those of the test runner, on the same line.
fn skip(line: &str) -> Option<&str> {
    let at = line.find("SKIPPED ").filter(|at| *at == 0 || line[..*at].ends_with(' '))?;
    let skip = &line[at..];
    (skip.contains(": ") && !skip.starts_with(SKIP_ALLOWED)).then_some(skip)
}

fn count(result: &str, what: &str) -> usize {
    let parts = result.split([';', '.']).map(str::trim);
    parts.filter_map(|part| part.strip_suffix(what)).find_map(|number| number.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GREEN: &str = "running 2 tests\ntest a ... ok\ntest b ... ok\n\ntest result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s\n";

    fn check(text: &str, success: bool, strict: bool, passed: usize, failed: usize, expected: &[&str]) {
        let outcome = judge_tests(text, success, strict);
        let told: Vec<String> = outcome.findings.iter().map(ToString::to_string).collect();
        assert_eq!((outcome.passed, outcome.failed), (passed, failed), "{text}");
        assert_eq!(told.len(), expected.len(), "{told:?}");
        for (finding, part) in told.iter().zip(expected) {
            assert!(finding.contains(part), "{finding}");
        }
    }

    #[test]
    fn tests_are_counted_over_all_crates() {
        check(&GREEN.repeat(2), true, true, 4, 0, &[]);
    }

    #[test]
    fn failures_are_named() {
        let red = "test a::b ... FAILED\ntest result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0s\n";
        check(red, false, false, 1, 1, &["a::b: the test failed"]);
    }

    #[test]
    fn a_skip_is_told_and_refused_where_nothing_may_be_skipped() {
        let skipped = format!("{GREEN}SKIPPED walls: no user namespaces\nSKIPPED advisories: no database\n");
        check(&skipped, true, true, 2, 0, &["SKIPPED walls: no user namespaces"]);
        check(&skipped, true, false, 2, 0, &[]);
        check(&format!("test a ... SKIPPED b: c\n{GREEN}"), true, true, 2, 0, &["SKIPPED b: c"]);
        assert_eq!(judge_tests(&skipped, true, false).notes, ["SKIPPED walls: no user namespaces"]);
    }

    #[test]
    fn nothing_run_ignored_or_not_compiled_is_red() {
        check("", true, true, 0, 0, &["no test was run"]);
        check("error: no such package\n", false, true, 0, 0, &["no test was run\nerror: no such package"]);
        check(&GREEN.replace("0 ignored", "3 ignored"), true, true, 2, 0, &["3 tests are ignored"]);
        let broken =
            "error[E0308]: mismatched\n --> crates/net/src/a.rs:1:1\nerror: could not compile `topside-net` (lib)\n";
        let expected = ["crates/net/src/a.rs:1:1: error[E0308]: mismatched"];
        check(&format!("{GREEN}{broken}"), false, true, 2, 0, &expected);
        check(GREEN, false, true, 2, 0, &["cargo test"]);
    }

    #[test]
    fn test_programs_are_named() {
        let rows = [
            ("     Running tests/hostile.rs (target/debug/deps/hostile-90eadee3de41315c)", Some("hostile")),
            ("     Running unittests src/lib.rs (/a/target/debug/deps/topside_sim-54)", Some("topside_sim")),
            ("   Doc-tests api", Some("api")),
            ("Running late", None),
            ("test a ... ok", None),
        ];
        for (line, expected) in rows {
            assert_eq!(program_of(line), expected);
        }
        let mut times = Times::default();
        times.begin("one");
        assert_eq!(times.told(), "the slowest: one 0 s");
    }

    #[test]
    fn the_compilers_errors_become_findings_with_their_place() {
        let text = "error: used `unwrap()`\n  --> crates/net/src/lib.rs:7:9\n   |\nerror[E0308]: mismatched\n --> crates/net/src/a.rs:1:1\n\
                    error: could not compile `topside-net`\n";
        let findings = compiler_findings(text);
        let told: Vec<String> = findings.iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            ["crates/net/src/a.rs:1:1: error[E0308]: mismatched", "crates/net/src/lib.rs:7:9: used `unwrap()`"]
        );
    }
}
