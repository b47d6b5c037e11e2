//! What may be said of a run that is under way.

use super::{APPROVE, BODY_REFUSALS, IDEMPOTENCY_KEY, KEY_CONFLICT, NO_RUN, RUN_TAKEN, WRITE, body, plain};
use crate::endpoint::{Endpoint, Method, Operation, Request, of};
use crate::{CancelRun, LimitChange, ResolveCall, SteerRun};

pub(super) const CANCEL_RUN: Endpoint = Endpoint {
    method: Method::Post,
    access: WRITE,
    description: "The run ends as `cancelled` as soon as what it is doing is stopped, or, with `after_turn`, when the turn that is under way \
                  has ended; one that has ended stays as it is. What it used is kept.",
    headers: &[IDEMPOTENCY_KEY],
    request: Request::Optional(body(of::<CancelRun>)),
    answers: &[RUN_TAKEN],
    refusals: BODY_REFUSALS,
    errors: &[NO_RUN, KEY_CONFLICT],
    example: r#"curl -s {auth}-X POST {base}/runs/$run/cancel"#,
    ..plain(Operation::CancelRun, "cancelRun", "/runs/{run_id}/cancel", "Cancel a run")
};

pub(super) const PAUSE_RUN: Endpoint = Endpoint {
    method: Method::Post,
    access: WRITE,
    description: "Nothing new begins; what has begun ends. The run waits as `paused`, as long as it takes, and keeps nothing in memory.",
    headers: &[IDEMPOTENCY_KEY],
    answers: &[RUN_TAKEN],
    errors: &[NO_RUN, KEY_CONFLICT, (409, "run_ended"), (409, "run_ending")],
    example: r#"held=$(curl -s {base}/runs {auth}-H 'content-type: application/json' \
  -d '{"session": "till", "message": "Pay"}' | sed -n 's/.*"run_id":"\([^"]*\)".*/\1/p')
curl -s {auth}-X POST {base}/runs/$held/pause"#,
    ..plain(Operation::PauseRun, "pauseRun", "/runs/{run_id}/pause", "Pause a run")
};

pub(super) const RESUME_RUN: Endpoint = Endpoint {
    method: Method::Post,
    access: WRITE,
    headers: &[IDEMPOTENCY_KEY],
    answers: &[RUN_TAKEN],
    errors: &[NO_RUN, KEY_CONFLICT, (409, "run_ended"), (409, "run_ending"), (409, "run_not_paused")],
    example: r#"curl -s {auth}-X POST {base}/runs/$held/resume"#,
    ..plain(Operation::ResumeRun, "resumeRun", "/runs/{run_id}/resume", "Go on with a run that was paused")
};

pub(super) const STEER_RUN: Endpoint = Endpoint {
    method: Method::Post,
    access: WRITE,
    description: "`queue` tells the model when the turn that is under way has ended; `interrupt` ends the turn for it: calls that have begun \
                  are killed, and those that have not are not made.",
    headers: &[IDEMPOTENCY_KEY],
    request: Request::Required(body(of::<SteerRun>)),
    answers: &[RUN_TAKEN],
    refusals: BODY_REFUSALS,
    errors: &[
        NO_RUN,
        KEY_CONFLICT,
        (400, "message_empty"),
        (409, "run_ended"),
        (409, "run_ending"),
        (409, "steers_waiting"),
        (413, "message_too_large"),
    ],
    example: r#"curl -s {auth}{base}/runs/$held/steer -H 'content-type: application/json' \
  -d '{"message": "Keep it short.", "when": "queue"}'"#,
    ..plain(Operation::SteerRun, "steerRun", "/runs/{run_id}/steer", "Tell a run something in its middle")
};

pub(super) const RAISE_RUN: Endpoint = Endpoint {
    method: Method::Post,
    access: APPROVE,
    description: "The limits that are named are the run's from now on; one that waits for its budget goes on. It is a kind of approval, and \
                  needs its scope.",
    headers: &[IDEMPOTENCY_KEY],
    request: Request::Required(body(of::<LimitChange>)),
    answers: &[RUN_TAKEN],
    refusals: BODY_REFUSALS,
    errors: &[NO_RUN, KEY_CONFLICT, (409, "run_ended"), (409, "run_ending"), (409, "raise_too_low")],
    example: r#"curl -s {auth}{base}/runs/$held/raise -H 'content-type: application/json' -d '{"turns": 60}'"#,
    ..plain(Operation::RaiseRun, "raiseRun", "/runs/{run_id}/raise", "Raise a run's limits")
};

pub(super) const RESOLVE_CALL: Endpoint = Endpoint {
    method: Method::Post,
    access: WRITE,
    description: "For a run that stands as `needs_resolution`: a process died in the middle of a call, and nobody knows whether it took \
                  effect. Look there, then say so. The run's `in_doubt` names the calls.",
    headers: &[IDEMPOTENCY_KEY],
    request: Request::Required(body(of::<ResolveCall>)),
    answers: &[RUN_TAKEN],
    refusals: BODY_REFUSALS,
    errors: &[
        NO_RUN,
        (409, "run_ended"),
        (409, "run_ending"),
        (404, "call_not_found"),
        (409, "call_not_in_doubt"),
        (409, "resolve_too_early"),
        (409, "no_compensation"),
    ],
    example: r#"doubt=$(curl -s {auth}'{base}/runs?status=needs_resolution' | sed -n 's/.*"run_id":"\([^"]*\)".*/\1/p')
call=$(curl -s {auth}{base}/runs/$doubt | sed -n 's/.*"in_doubt":\["\([^"]*\)".*/\1/p')
curl -s {auth}{base}/runs/$doubt/resolve -H 'content-type: application/json' \
  -d '{"call_id": "'$call'", "outcome": "happened", "output": "The payment went through."}'"#,
    ..plain(Operation::ResolveCall, "resolveCall", "/runs/{run_id}/resolve", "Say what became of a call in doubt")
};
