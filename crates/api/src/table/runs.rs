//! Runs: asked for, looked at, followed.

use super::{
    ACCEPT, AFTER, BODY_REFUSALS, CURSOR, IDEMPOTENCY_KEY, JSON, KEY_CONFLICT, LAST_EVENT_ID, LIMIT, NO_RUN, RECORDS,
    RUN, WRITE, body, plain,
};
use crate::endpoint::{Access, Answer, Body, Endpoint, Method, Operation, Parameter, Request, of};
use crate::{ArtifactList, DeliveryList, PostRun, Refusal, Replay, RunList};

pub(super) const POST_RUN: Endpoint = Endpoint {
    method: Method::Post,
    access: WRITE,
    description: "Waits for the run's end, 120 seconds at most, and answers 200 with the run. When it takes longer, when \
                  it waits for somebody, or with `Prefer: respond-async`, answers 202 with its Location: poll it, or \
                  follow its events. A run that failed is answered with 200 too; `status` and `error` say so.",
    headers: &[
        Parameter {
            name: "Prefer",
            description: "`wait=SECONDS` to wait shorter, `respond-async` not to wait at all.",
            kind: "string",
        },
        IDEMPOTENCY_KEY,
    ],
    request: Request::Required(body(of::<PostRun>)),
    answers: &[
        Answer { status: 200, description: "The run, ended.", bodies: &[RUN] },
        Answer { status: 202, description: "The run, under way; Location says where to look.", bodies: &[RUN] },
    ],
    refusals: BODY_REFUSALS,
    errors: &[
        (400, "message_empty"),
        (404, "session_not_found"),
        (413, "message_too_large"),
        (422, "agent_no_default"),
        (422, "agent_unknown"),
        (422, "model_unknown"),
        KEY_CONFLICT,
        (422, "limits_higher"),
        (422, "callback_invalid"),
        (503, "agent_switched_off"),
        (503, "busy"),
        (503, "draining"),
    ],
    example: r#"answer=$(curl -s {base}/runs {auth}-H 'content-type: application/json' \
  -H 'idempotency-key: demo-1' \
  -d '{"session": "demo", "message": "Hello", "save_artifact": true}')
printf '%s\n' "$answer"
run=$(printf '%s' "$answer" | sed -n 's/.*"run_id":"\([^"]*\)".*/\1/p')
artifact=$(printf '%s' "$answer" | sed -n 's/.*"artifact_url":"\([^"]*\)".*/\1/p')"#,
    ..plain(Operation::PostRun, "postRun", "/runs", "Start a run")
};

pub(super) const LIST_RUNS: Endpoint = Endpoint {
    query: &[
        Parameter { name: "session", description: "Only of this session: its id or your name for it.", kind: "string" },
        Parameter { name: "status", description: "Only those that stand so.", kind: "string" },
        Parameter { name: "agent", description: "Only of this agent.", kind: "string" },
        CURSOR,
        LIMIT,
    ],
    description: "Newest first, without the replies.",
    answers: &[Answer {
        status: 200,
        description: "A page of runs.",
        bodies: &[Body { media: JSON, schema: Some(of::<RunList>) }],
    }],
    refusals: &[Refusal::RequestInvalid],
    example: "curl -s {auth}'{base}/runs?session=demo&status=completed&limit=10'",
    ..plain(Operation::ListRuns, "listRuns", "/runs", "List runs")
};

pub(super) const GET_RUN: Endpoint = Endpoint {
    answers: &[Answer { status: 200, description: "The run.", bodies: &[RUN] }],
    errors: &[NO_RUN],
    example: "curl -s {auth}{base}/runs/$run",
    ..plain(Operation::GetRun, "getRun", "/runs/{run_id}", "A run as it stands")
};

pub(super) const RUN_EVENTS: Endpoint = Endpoint {
    description: "As a stream: one event per record, named by its kind, its position as the SSE id; between them what \
                  happens live, as `delta.*` events without an id. A reader that is too slow gets `resync`, has lost \
                  deltas and no record. The stream of a run that waits stays open; it ends after `finished`.",
    query: &[AFTER, LIMIT],
    headers: &[ACCEPT, LAST_EVENT_ID],
    answers: &[
        RECORDS,
        Answer { status: 204, description: "A stream of which all was told: the run has ended.", bodies: &[] },
    ],
    refusals: &[Refusal::RequestInvalid],
    errors: &[NO_RUN],
    example: "curl -s {auth}-H 'accept: text/event-stream' {base}/runs/$run/events",
    ..plain(
        Operation::RunEvents,
        "getRunEvents",
        "/runs/{run_id}/events",
        "A run's records, as a page or a live stream",
    )
};

pub(super) const RUN_ARTIFACTS: Endpoint = Endpoint {
    answers: &[Answer {
        status: 200,
        description: "The files, with links that are good for an hour.",
        bodies: &[Body { media: JSON, schema: Some(of::<ArtifactList>) }],
    }],
    errors: &[NO_RUN],
    example: "curl -s {auth}{base}/runs/$run/artifacts",
    ..plain(Operation::RunArtifacts, "listRunArtifacts", "/runs/{run_id}/artifacts", "The files that a run left")
};

pub(super) const GET_ARTIFACT: Endpoint = Endpoint {
    access: Access::Link,
    description: "The link comes from a run's `artifacts`; it is signed, ends after an hour and needs no key.",
    answers: &[Answer {
        status: 200,
        description: "The file's bytes.",
        bodies: &[Body { media: "application/octet-stream", schema: None }],
    }],
    errors: &[(403, "link_forged"), (410, "link_expired"), (410, "blob_missing")],
    example: "curl -s \"$artifact\"",
    ..plain(Operation::GetArtifact, "getArtifact", "/artifacts/{token}", "Fetch a file by its link")
};

pub(super) const RUN_DELIVERIES: Endpoint = Endpoint {
    description: "Webhooks: each delivery with its attempts and how it stands.",
    answers: &[Answer { status: 200, description: "The deliveries.", bodies: &[body(of::<DeliveryList>)] }],
    errors: &[NO_RUN],
    example: r#"curl -s {auth}{base}/runs/$run/deliveries"#,
    ..plain(
        Operation::RunDeliveries,
        "listRunDeliveries",
        "/runs/{run_id}/deliveries",
        "What others were told of a run",
    )
};

pub(super) const REPLAY_RUN: Endpoint = Endpoint {
    description: "Folds the record from the session's beginning and compares what the harness would do with what stands there. No model is \
                  asked and no tool called.",
    answers: &[Answer { status: 200, description: "What came of it.", bodies: &[body(of::<Replay>)] }],
    errors: &[NO_RUN],
    example: r#"curl -s {auth}{base}/runs/$run/replay"#,
    ..plain(Operation::ReplayRun, "replayRun", "/runs/{run_id}/replay", "Replay a run on its record")
};
