//! The only place where a call happens: takes the permit, holds the time limit, runs the kind.

use crate::kinds::{self, Job, Kind};
use crate::reason::Reason;
use crate::{Bench, Outcome, Toolbox};
use domain::{CallStatus, FailureClass};
use policy::Permit;
use std::time::Duration;

/// Performs the call that `permit` allows. An expired permit, an unknown tool or arguments that do not fit are refused
/// before anything happens. At the contract's time limit what runs is killed; dropping the future kills it too.
pub async fn execute(permit: Permit, toolbox: &Toolbox, bench: &dyn Bench) -> Outcome {
    if !permit.is_good_at(bench.clock().monotonic()) {
        return Outcome::error(
            Reason::PermitExpired.code(),
            "The permission for this call expired before it began; nothing was done.",
        )
        .of_class(FailureClass::Harness);
    }
    let call = permit.call();
    let read = toolbox.entry(&call.tool).ok_or_else(|| toolbox.unknown(&call.tool));
    let (entry, arguments) = match read.and_then(|entry| Ok((entry, entry.read(call)?))) {
        Ok(read) => read,
        Err(rejection) => {
            return Outcome::error(rejection.code, rejection.text).failed(CallStatus::Invalid, rejection.code);
        }
    };
    if let Kind::Agent(agent) = &entry.kind {
        let text = format!("`{}` is the agent `{agent}`, which is asked by the harness; nothing was done.", call.tool);
        return Outcome::error(Reason::ToolNested.code(), text).of_class(FailureClass::Harness);
    }
    let job = Job { call, contract: &entry.contract, epoch: permit.epoch(), arguments, bench };
    let begun = bench.clock().monotonic();
    let limit = Duration::from_millis(entry.contract.timeout_ms);
    match tokio::time::timeout(limit, run(&entry.kind, &job)).await {
        Ok(outcome) => outcome,
        Err(_) => {
            let seconds = bench.clock().monotonic().saturating_sub(begun).max(limit).as_secs_f64();
            kinds::timed_out(&entry.kind, &job, seconds)
        }
    }
}

async fn run(kind: &Kind, job: &Job<'_>) -> Outcome {
    match kind {
        Kind::ExecCommand => Box::pin(kinds::exec::exec(job)).await,
        Kind::WriteStdin => Box::pin(kinds::exec::write(job)).await,
        Kind::ApplyPatch => Box::pin(kinds::apply_patch::run(job)).await,
        Kind::ViewImage => Box::pin(kinds::view_image::run(job)).await,
        Kind::ReadOutput => kinds::read_output::run(job).await,
        Kind::Sql(statement) => kinds::sql::run(statement, job).await,
        Kind::Command(program) => Box::pin(kinds::command::run(program, job)).await,
        Kind::Http(service) => Box::pin(kinds::http::run(service, job)).await,
        Kind::Function(function) => Box::pin(kinds::function::run(function, job)).await,
        // Refused before anything is run.
        Kind::Agent(_) => Outcome::error(Reason::ToolNested.code(), "An agent is not run as a tool."),
    }
}
