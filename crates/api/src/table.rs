//! The one table of endpoints, in the order of the `/docs` page: its examples are run from top to bottom in one shell.

mod approvals;
mod runs;
mod sandboxes;
mod service;
mod sessions;
mod wishes;
mod workspaces;

use crate::endpoint::{Access, Answer, Body, Endpoint, Method, Operation, Parameter, Request, SchemaOf, of};
use crate::{PROBLEM_MEDIA, Problem, RecordPage, Refusal, Run, Scope};

const JSON: &str = "application/json";
const READ: Access = Access::Scope(Scope::RunsRead);
const WRITE: Access = Access::Scope(Scope::RunsWrite);
const APPROVE: Access = Access::Scope(Scope::ApprovalsWrite);
const ADMIN: Access = Access::Scope(Scope::Admin);
const NO_RUN: (u16, &str) = (404, "run_not_found");
const NO_SESSION: (u16, &str) = (404, "session_not_found");
const NO_APPROVAL: (u16, &str) = (404, "approval_not_found");
const KEY_CONFLICT: (u16, &str) = (422, "idempotency_conflict");
/// What can be wrong with a body.
const BODY_REFUSALS: &[Refusal] =
    &[Refusal::RequestInvalid, Refusal::RequestTimeout, Refusal::BodyTooLarge, Refusal::MediaTypeUnsupported];

const AFTER: Parameter = Parameter { name: "after", description: "Only records after this position.", kind: "integer" };
const LIMIT: Parameter =
    Parameter { name: "limit", description: "Rows at most, 1 to 200; 50 if not said.", kind: "integer" };
const CURSOR: Parameter = Parameter { name: "cursor", description: "The `next` of the page before.", kind: "string" };
const ACCEPT: Parameter = Parameter {
    name: "Accept",
    description: "`text/event-stream` for a live stream; else one page of records as JSON.",
    kind: "string",
};
const IDEMPOTENCY_KEY: Parameter = Parameter {
    name: "Idempotency-Key",
    description: "Up to 255 characters; remembered for 24 hours at least. The same body with the same key is the same request, \
                  also while it is under way; another body is refused.",
    kind: "string",
};
const LAST_EVENT_ID: Parameter = Parameter {
    name: "Last-Event-ID",
    description: "As `after`, for a stream that was cut; goes before it.",
    kind: "integer",
};

const RUN: Body = body(of::<Run>);
const RUN_TAKEN: Answer = Answer {
    status: 202,
    description: "The run as it stands; what was said is on record and will be heeded.",
    bodies: &[RUN],
};
const RECORDS: Answer = Answer {
    status: 200,
    description: "Records, or a stream of them.",
    bodies: &[Body { media: JSON, schema: Some(of::<RecordPage>) }, Body { media: "text/event-stream", schema: None }],
};

const fn body(schema: SchemaOf) -> Body {
    Body { media: JSON, schema: Some(schema) }
}

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
        request: Request::Empty,
        answers: &[],
        refusals: &[],
        errors: &[],
        example: "",
    }
}

/// Every endpoint. Each stands a second time under [`crate::BASE`].
pub const ENDPOINTS: &[Endpoint] = &[
    service::HEALTH,
    service::LIVE,
    service::READY,
    runs::POST_RUN,
    runs::LIST_RUNS,
    runs::GET_RUN,
    runs::RUN_EVENTS,
    runs::RUN_ARTIFACTS,
    runs::GET_ARTIFACT,
    runs::RUN_DELIVERIES,
    runs::REPLAY_RUN,
    wishes::CANCEL_RUN,
    wishes::PAUSE_RUN,
    wishes::RESUME_RUN,
    wishes::STEER_RUN,
    wishes::RAISE_RUN,
    wishes::RESOLVE_CALL,
    approvals::LIST_APPROVALS,
    approvals::GET_APPROVAL,
    approvals::POST_APPROVAL,
    sessions::LIST_SESSIONS,
    sessions::GET_SESSION,
    sessions::SESSION_EVENTS,
    sessions::LIST_CHECKPOINTS,
    sessions::FORK_SESSION,
    sessions::DIFF_RUNS,
    workspaces::GET_WORKSPACE,
    workspaces::DIFF_WORKSPACE,
    workspaces::RESTORE_WORKSPACE,
    workspaces::PUT_WORKSPACE,
    sessions::QUARANTINE_SESSION,
    sessions::RELEASE_SESSION,
    sessions::PURGE_SESSION,
    sandboxes::LIST_SANDBOXES,
    sandboxes::GET_SANDBOX,
    sandboxes::EXEC_SANDBOX,
    sandboxes::LINK_PORT,
    sandboxes::PORT,
    sandboxes::END_SANDBOX,
    service::METRICS,
    service::OPEN_API,
    service::DOCS,
    service::ERROR_PAGE,
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
