//! The jail's part of `proof`: hostile sandboxes made and ended a thousand times, and a hundred thousand operations on files
//! while what they name changes places. `cargo test` runs the same with fewer.

use anyhow::Result;

use crate::context::Context;
use crate::report::Outcome;
use crate::{process, rust_steps};

const CYCLES: &str = "1000";
const RACES: &str = "100000";
/// What a case may take; without it a case that hangs would hang for ever.
const CASE_SECONDS_MAX: &str = "3600";
/// How the lines begin that tell figures.
const FIGURES: [&str; 2] = ["cycles: ", "races: "];

/// Runs both cases at their full length.
pub(crate) fn prove(context: &Context) -> Result<Outcome> {
    let mut command = context.cargo(&["test", "--package", "topside-jail", "--test", "hostile", "--"]);
    command.args(["hostile_cycles_leave_nothing", "races_against_every_operation_lead_nowhere"]);
    command.env("TOPSIDE_HOSTILE_CYCLES", CYCLES).env("TOPSIDE_HOSTILE_RACES", RACES);
    command.env("TOPSIDE_CASE_SECONDS_MAX", CASE_SECONDS_MAX);
    let captured = process::stream(&mut command, |line| {
        if is_figure(line) {
            println!("   {line}");
        }
    })?;
    let mut outcome = rust_steps::judge_tests(&captured.text, captured.status.success(), context.strict);
    outcome.notes.extend(captured.text.lines().filter(|line| is_figure(line)).map(str::to_owned));
    Ok(outcome)
}

fn is_figure(line: &str) -> bool {
    FIGURES.iter().any(|start| line.starts_with(start))
}
