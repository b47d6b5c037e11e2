//! The one table of endpoints, in the order of the `/docs` page: its examples are run from top to bottom in one shell.

use crate::endpoint::{Access, Answer, Body, Endpoint, Method, Operation, Parameter, of};
use crate::{
    ArtifactList, Health, PROBLEM_MEDIA, PostRun, Problem, Ready, RecordPage, Refusal, Run, RunList, Scope, Session,
    SessionList,
};

const JSON: &str = "application/json";
const READ: Access = Access::Scope(Scope::RunsRead);
const WRITE: Access = Access::Scope(Scope::RunsWrite);
const NO_RUN: (u16, &str) = (404, "run_not_found");
const NO_SESSION: (u16, &str) = (404, "session_not_found");

const AFTER: Parameter = Parameter { name: "after", description: "Only records after this position.", kind: "integer" };
const LIMIT: Parameter =
    Parameter { name: "limit", description: "Rows at most, 1 to 200; 50 if not said.", kind: "integer" };
const CURSOR: Parameter = Parameter { name: "cursor", description: "The `next` of the page before.", kind: "string" };
const ACCEPT: Parameter = Parameter {
    name: "Accept",
    description: "`text/event-stream` for a live stream; else one page of records as JSON.",
    kind: "string",
};
const LAST_EVENT_ID: Parameter = Parameter {
    name: "Last-Event-ID",
    description: "As `after`, for a stream that was cut; goes before it.",
    kind: "integer",
};

const RUN: Body = Body { media: JSON, schema: Some(of::<Run>) };
const RECORDS: Answer = Answer {
    status: 200,
    description: "Records, or a stream of them.",
    bodies: &[Body { media: JSON, schema: Some(of::<RecordPage>) }, Body { media: "text/event-stream", schema: None }],
};

const fn plain(operation: Operation, id: &'static str, path: &'static str, summary: &'static str) -> Endpoint {
    Endpoint {
        operation,
        id,
        method: Method::Get,
        path,
        access: READ,
        summary,
        description: "",
        query: &[],
        headers: &[],
        request: None,
        answers: &[],
        refusals: &[],
        errors: &[],
        example: "",
    }
}

/// Every endpoint. Each stands a second time under [`crate::BASE`].
pub const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        access: Access::Open,
        description: "Says what is wired, as it is. Answers 200 also when the service is degraded; /readyz is for balancers.",
        answers: &[Answer {
            status: 200,
            description: "How it does.",
            bodies: &[Body { media: JSON, schema: Some(of::<Health>) }],
        }],
        example: "curl -s {base}/health",
        ..plain(Operation::Health, "getHealth", "/health", "How the service does")
    },
    Endpoint {
        access: Access::Open,
        description: "Answers as long as the process lives, whatever its backends do.",
        answers: &[Answer {
            status: 200,
            description: "It lives.",
            bodies: &[Body { media: JSON, schema: Some(of::<Ready>) }],
        }],
        example: "curl -s {base}/healthz",
        ..plain(Operation::Live, "getHealthz", "/healthz", "Whether the process lives")
    },
    Endpoint {
        access: Access::Open,
        answers: &[Answer {
            status: 200,
            description: "It takes runs.",
            bodies: &[Body { media: JSON, schema: Some(of::<Ready>) }],
        }],
        refusals: &[Refusal::NotReady],
        example: "curl -s {base}/readyz",
        ..plain(Operation::Ready, "getReadyz", "/readyz", "Whether the service takes runs; if not, why")
    },
    Endpoint {
        method: Method::Post,
        access: WRITE,
        description: "Waits for the run's end, 120 seconds at most, and answers 200 with the run. When it takes longer, or \
                      with `Prefer: respond-async`, answers 202 with its Location: poll it, or follow its events. A run \
                      that failed is answered with 200 too; `status` and `error` say so.",
        headers: &[
            Parameter {
                name: "Prefer",
                description: "`wait=SECONDS` to wait shorter, `respond-async` not to wait at all.",
                kind: "string",
            },
            Parameter {
                name: "Idempotency-Key",
                description: "Up to 255 characters; remembered for 24 hours at least. The same body with the same key is \
                              the same run, also while it is under way; another body is refused.",
                kind: "string",
            },
        ],
        request: Some(Body { media: JSON, schema: Some(of::<PostRun>) }),
        answers: &[
            Answer { status: 200, description: "The run, ended.", bodies: &[RUN] },
            Answer { status: 202, description: "The run, under way; Location says where to look.", bodies: &[RUN] },
        ],
        refusals: &[
            Refusal::RequestInvalid,
            Refusal::RequestTimeout,
            Refusal::BodyTooLarge,
            Refusal::MediaTypeUnsupported,
        ],
        errors: &[
            (400, "message_empty"),
            (404, "session_not_found"),
            (413, "message_too_large"),
            (422, "agent_no_default"),
            (422, "agent_unknown"),
            (422, "idempotency_conflict"),
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
    },
    Endpoint {
        query: &[
            Parameter {
                name: "session",
                description: "Only of this session: its id or your name for it.",
                kind: "string",
            },
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
    },
    Endpoint {
        answers: &[Answer { status: 200, description: "The run.", bodies: &[RUN] }],
        errors: &[NO_RUN],
        example: "curl -s {auth}{base}/runs/$run",
        ..plain(Operation::GetRun, "getRun", "/runs/{run_id}", "A run as it stands")
    },
    Endpoint {
        description: "As a stream: one event per record, named by its kind, its position as the SSE id; between them what \
                      happens live, as `delta.*` events without an id. A reader that is too slow gets `resync`, has lost \
                      deltas and no record. The stream ends after `finished`.",
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
    },
    Endpoint {
        answers: &[Answer {
            status: 200,
            description: "The files, with links that are good for an hour.",
            bodies: &[Body { media: JSON, schema: Some(of::<ArtifactList>) }],
        }],
        errors: &[NO_RUN],
        example: "curl -s {auth}{base}/runs/$run/artifacts",
        ..plain(Operation::RunArtifacts, "listRunArtifacts", "/runs/{run_id}/artifacts", "The files that a run left")
    },
    Endpoint {
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
    },
    Endpoint {
        method: Method::Post,
        access: WRITE,
        description: "The run ends as `cancelled` as soon as what it is doing is stopped; one that has ended stays as it is.",
        answers: &[Answer {
            status: 202,
            description: "The run as it stands; it may be some moments from its end.",
            bodies: &[RUN],
        }],
        errors: &[NO_RUN],
        example: "curl -s {auth}-X POST {base}/runs/$run/cancel",
        ..plain(Operation::CancelRun, "cancelRun", "/runs/{run_id}/cancel", "Cancel a run")
    },
    Endpoint {
        query: &[CURSOR, LIMIT],
        description: "Newest first.",
        answers: &[Answer {
            status: 200,
            description: "A page of sessions.",
            bodies: &[Body { media: JSON, schema: Some(of::<SessionList>) }],
        }],
        refusals: &[Refusal::RequestInvalid],
        example: "curl -s {auth}'{base}/sessions?limit=10'",
        ..plain(Operation::ListSessions, "listSessions", "/sessions", "List sessions")
    },
    Endpoint {
        description: "By its id or your name for it.",
        answers: &[Answer {
            status: 200,
            description: "The session.",
            bodies: &[Body { media: JSON, schema: Some(of::<Session>) }],
        }],
        errors: &[NO_SESSION],
        example: "curl -s {auth}{base}/sessions/demo",
        ..plain(Operation::GetSession, "getSession", "/sessions/{session}", "A session")
    },
    Endpoint {
        description: "As for a run, over all runs of the session; the stream goes on with the next run.",
        query: &[AFTER, LIMIT],
        headers: &[ACCEPT, LAST_EVENT_ID],
        answers: &[RECORDS],
        refusals: &[Refusal::RequestInvalid],
        errors: &[NO_SESSION],
        example: "curl -s {auth}{base}/sessions/demo/events",
        ..plain(
            Operation::SessionEvents,
            "getSessionEvents",
            "/sessions/{session}/events",
            "A session's records, as a page or a live stream",
        )
    },
    Endpoint {
        access: Access::Scope(Scope::MetricsRead),
        description: "In the text form of Prometheus.",
        answers: &[Answer {
            status: 200,
            description: "The metrics.",
            bodies: &[Body { media: "text/plain; version=0.0.4", schema: None }],
        }],
        example: "curl -s {auth}{base}/metrics",
        ..plain(Operation::Metrics, "getMetrics", "/metrics", "Metrics")
    },
    Endpoint {
        access: Access::Open,
        answers: &[Answer { status: 200, description: "The document.", bodies: &[Body { media: JSON, schema: None }] }],
        example: "curl -s {base}/openapi.json",
        ..plain(Operation::OpenApi, "getOpenapi", "/openapi.json", "This contract as OpenAPI 3.1")
    },
    Endpoint {
        access: Access::Open,
        answers: &[Answer {
            status: 200,
            description: "The page.",
            bodies: &[Body { media: "text/html", schema: None }],
        }],
        example: "curl -s {base}/docs",
        ..plain(Operation::Docs, "getDocs", "/docs", "This contract for people; works offline")
    },
    Endpoint {
        access: Access::Open,
        answers: &[Answer {
            status: 200,
            description: "The page.",
            bodies: &[Body { media: "text/html", schema: None }],
        }],
        refusals: &[Refusal::PathUnknown],
        example: "curl -s {base}/docs/errors/not_authenticated",
        ..plain(
            Operation::ErrorPage,
            "getErrorPage",
            "/docs/errors/{code}",
            "What an error's code means, and what to do",
        )
    },
];

/// The body of every problem.
pub(crate) const PROBLEM: Body = Body { media: PROBLEM_MEDIA, schema: Some(of::<Problem>) };

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_endpoint_is_told_once_and_in_full() {
        for (at, endpoint) in ENDPOINTS.iter().enumerate() {
            let name = endpoint.path;
            assert!(!endpoint.answers.is_empty() && !endpoint.summary.is_empty(), "{name}");
            assert!(endpoint.example.contains("curl "), "{name}");
            let keyed = matches!(endpoint.access, Access::Scope(_));
            assert_eq!(endpoint.example.contains("{auth}"), keyed, "{name}");
            for other in &ENDPOINTS[..at] {
                assert!(other.id != endpoint.id && other.operation != endpoint.operation, "{name}");
                assert!((other.path, other.method) != (endpoint.path, endpoint.method), "{name}");
            }
        }
    }
}
