//! Tools that are Rust functions of the program that embeds Topside.

use super::Job;
use crate::functions::{Context, Function};
use crate::reason::Reason;
use crate::{Outcome, output};
use domain::Part;
use futures::FutureExt;
use serde_json::Value;
use std::panic::AssertUnwindSafe;

pub(crate) async fn run(function: &Function, job: &Job<'_>) -> Outcome {
    let context = Context {
        call: job.call.id,
        run: job.call.run,
        session: job.call.session,
        tenant: job.call.tenant.clone(),
        idempotency_key: job.bench.idempotency_key().map(str::to_owned),
    };
    let arguments = Value::Object(job.arguments.clone());
    // A function that panics fails its call, not the runs of others. What it shared may be left half done: its own concern.
    let answer = AssertUnwindSafe(async { (function.0)(arguments, context).await }).catch_unwind().await;
    match answer {
        Ok(Ok(reply)) => shown(reply.0, job),
        Ok(Err(error)) => Outcome::error(Reason::FunctionFailed.code(), output::brief(&error, 4_096)),
        Err(_) => Outcome::error(
            Reason::FunctionPanicked.code(),
            format!("The tool `{}` broke down and gave no answer.", job.call.tool),
        ),
    }
}

/// Text is cut like any other output; what else there is goes as it is.
fn shown(parts: Vec<Part>, job: &Job<'_>) -> Outcome {
    match <[Part; 1]>::try_from(parts) {
        Ok([Part::Text { text }]) => Outcome::bytes(text.into_bytes(), job.contract.output_bytes_max, job.call.id),
        Ok(one) => Outcome { parts: one.into(), ..Outcome::text("") },
        Err(many) => Outcome { parts: many, ..Outcome::text("") },
    }
}
