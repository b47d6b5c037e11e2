//! `cargo xtask check`: the table of steps and the loop over it. What a step does lives in the step's own module.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;

use crate::clock::Stopwatch;
use crate::context::{Context, Scope};
use crate::quick::Changed;
use crate::report::{Finding, Outcome, Tally, green, red};
use crate::{arrows, crash, deny, docs, examples, machine, rust_steps, self_test, setup, sim, tidy};

/// One step of the check.
#[derive(Debug)]
struct Step {
    name: &'static str,
    /// Whether it belongs to `--quick`, where it looks only at what changed.
    quick: bool,
    run: fn(&Context) -> Result<Outcome>,
}

/// Everything that continuous integration runs, in this order. A new comparison is one more row.
const STEPS: &[Step] = &[
    Step { name: "setup", quick: false, run: setup::run },
    Step { name: "format", quick: true, run: rust_steps::format },
    Step { name: "arrows", quick: true, run: arrows::run },
    Step { name: "tidy", quick: true, run: tidy::run },
    Step { name: "clippy", quick: true, run: rust_steps::clippy },
    Step { name: "deny", quick: false, run: deny::run },
    Step { name: "tests", quick: true, run: rust_steps::tests },
    Step { name: "machine", quick: false, run: machine::check },
    Step { name: "docs", quick: true, run: docs::run },
    Step { name: "examples", quick: false, run: examples::run },
    Step { name: "sim", quick: false, run: sim::check },
    Step { name: "crash", quick: false, run: crash::check },
];

/// What `cargo xtask check` is told.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Only what differs from the last commit, for every commit
    #[arg(long, conflicts_with_all = ["self_test", "only"])]
    quick: bool,
    /// With --quick: what to compare with
    #[arg(long, value_name = "REVISION", default_value = "HEAD", requires = "quick")]
    since: String,
    /// Break the house on purpose in a scratch worktree and expect each step to say so
    #[arg(long, conflicts_with = "only")]
    self_test: bool,
    /// Only these steps, each optionally for one thing: `arrows`, `clippy:machine`, `docs:README.md`, `examples:support`
    #[arg(long, value_name = "STEP[:WHAT]")]
    only: Vec<String>,
    /// With --self-test: only the cases whose name contains this
    #[arg(long, value_name = "NAME", requires = "self_test")]
    case: Option<String>,
    /// A built `topside` for documents and examples, instead of building one
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Nothing may be skipped; continuous integration sets it through the environment
    #[arg(long, env = "CI", num_args = 0..=1, default_value = "false", default_missing_value = "true",
          value_parser = clap::builder::FalseyValueParser::new())]
    ci: bool,
}

/// Runs the check as told and says whether it was green.
pub(crate) fn run(arguments: &Arguments) -> Result<bool> {
    if arguments.self_test {
        return self_test::run(arguments.case.as_deref(), arguments.binary.clone());
    }
    let context = |scope| Context::here(arguments.ci, scope, arguments.binary.clone());
    if !arguments.only.is_empty() {
        let mut tally = Tally::default();
        for wanted in &arguments.only {
            let (name, target) =
                wanted.split_once(':').map_or((wanted.as_str(), None), |(name, what)| (name, Some(what)));
            let scope = target.map_or(Scope::Whole, |what| Scope::One(what.to_owned()));
            run_step(step(name)?, &context(scope)?, &mut tally);
        }
        return Ok(conclude(tally));
    }
    let context = if arguments.quick {
        let mut context = context(Scope::Whole)?;
        context.scope = Scope::Changed(Changed::since(&context, &arguments.since)?);
        context
    } else {
        context(Scope::Whole)?
    };
    let mut tally = Tally::default();
    for step in STEPS.iter().filter(|step| step.quick || !arguments.quick) {
        run_step(step, &context, &mut tally);
    }
    Ok(conclude(tally))
}

/// Runs one step of the table on the whole tree.
pub(crate) fn only(name: &str) -> Result<bool> {
    let mut tally = Tally::default();
    run_step(step(name)?, &Context::here(false, Scope::Whole, None)?, &mut tally);
    Ok(conclude(tally))
}

fn step(name: &str) -> Result<&'static Step> {
    let Some(step) = STEPS.iter().find(|step| step.name == name) else {
        let names: Vec<&str> = STEPS.iter().map(|step| step.name).collect();
        bail!("there is no step `{name}`; hint: the steps are {}", names.join(", "));
    };
    Ok(step)
}

fn run_step(step: &Step, context: &Context, tally: &mut Tally) {
    println!("── {}", step.name);
    let stopwatch = Stopwatch::start();
    // A step that cannot do its work has failed: an error is a finding like any other.
    let outcome = (step.run)(context)
        .unwrap_or_else(|error| Outcome::of(vec![Finding::new(step.name, format!("cannot be run: {error:#}"))]));
    for note in &outcome.notes {
        println!("   {note}");
    }
    for finding in &outcome.findings {
        println!("{} {finding}", red("   ✗"));
    }
    let verdict = if outcome.is_green() { green("ok") } else { red("FAILED") };
    println!("   {} {verdict} in {:.1} s", step.name, stopwatch.seconds());
    tally.add(&outcome);
}

fn conclude(tally: Tally) -> bool {
    println!("{tally}");
    tally.failed == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_cannot_run_is_red() {
        let broken = Step { name: "broken", quick: false, run: |_| bail!("no such thing") };
        let context = Context::here(false, Scope::Whole, None).expect("the workspace can be read");
        let mut tally = Tally::default();
        run_step(&broken, &context, &mut tally);
        assert_eq!(tally, Tally { passed: 0, failed: 1 });
        assert!(!conclude(tally));
    }

    #[test]
    fn an_unknown_step_is_refused_with_the_names() {
        let error = step("arows").expect_err("there is no such step").to_string();
        assert!(error.contains("arrows"), "{error}");
    }
}
