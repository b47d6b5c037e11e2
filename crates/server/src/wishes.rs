//! What is said of a run that is under way: cancel, pause, resume, steer, raise, resolve.

use crate::answer;
use crate::app::{App, Asked, Told};
use crate::body;
use crate::handlers::{accepted, run_id};
use crate::problem::No;
use crate::request::{idempotency, optional, required};
use crate::runs::shown_run;
use api::{CancelRun, LimitChange, Operation, Outcome, ResolveCall, Steer, SteerRun};
use domain::record::When;
use engine::Settlement;
use hyper::body::Incoming;

/// Says it, and answers with the run as it stands.
pub(crate) async fn wish(app: &App, asked: &Asked, body: Incoming) -> Result<Told, No> {
    let run = run_id(asked.route.parameter())?;
    let bytes = body::read(body, &app.config.limits).await?;
    let (engine, tenant, principal) = (&app.engine, &*asked.caller.tenant, asked.caller.principal);
    let headers = &asked.parts.headers;
    let view = match asked.route.endpoint.operation {
        Operation::CancelRun => {
            let request: CancelRun = optional(headers, &bytes)?;
            engine.cancel(tenant, run, principal, request.when, idempotency(asked, &request)?).await
        }
        Operation::PauseRun => engine.pause(tenant, run, principal, idempotency(asked, &())?).await,
        Operation::ResumeRun => engine.resume(tenant, run, principal, idempotency(asked, &())?).await,
        Operation::SteerRun => {
            let request: SteerRun = required(headers, &bytes)?;
            let once = idempotency(asked, &request)?;
            let when = match request.when {
                Steer::Queue => When::AfterTurn,
                Steer::Interrupt => When::Now,
            };
            engine.steer(tenant, run, principal, request.message, when, once).await
        }
        Operation::RaiseRun => {
            let request: LimitChange = required(headers, &bytes)?;
            engine.raise(tenant, run, principal, limits(&request), idempotency(asked, &request)?).await
        }
        _ => {
            let request: ResolveCall = required(headers, &bytes)?;
            let once = idempotency(asked, &request)?;
            let call = request.call_id;
            engine.resolve(tenant, run, call, principal, settlement(request)?, once).await
        }
    };
    let view = view.map_err(|error| No::from(error).about(run))?;
    let response = answer::json(202, &shown_run(app, asked, view).await?)?;
    Ok(Told::about(accepted(response, run, false)?, run))
}

/// Limits as the engine takes them.
pub(crate) const fn limits(request: &LimitChange) -> engine::LimitChange {
    let LimitChange { turns, tool_calls, tokens, running_seconds, cost_micro_usd } = *request;
    engine::LimitChange { turns, tool_calls, tokens, running_seconds, cost_micro_usd }
}

fn settlement(request: ResolveCall) -> Result<Settlement, No> {
    match (request.outcome, request.output) {
        (Outcome::Happened, Some(output)) => Ok(Settlement::Happened { output }),
        (Outcome::DidNotHappen, None) => Ok(Settlement::DidNotHappen),
        (Outcome::Compensate, None) => Ok(Settlement::Compensate),
        (Outcome::Happened, None) => Err(No::invalid("the body: `output` is missing: what the call gave")),
        (Outcome::DidNotHappen | Outcome::Compensate, Some(_)) => {
            Err(No::invalid("the body: `output` goes only with the outcome `happened`"))
        }
    }
}
