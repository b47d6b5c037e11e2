//! The service itself: how it does, and what it says of itself.

use super::{JSON, plain};
use crate::endpoint::{Access, Answer, Body, Endpoint, Operation, of};
use crate::{Health, Ready, Refusal, Scope};

pub(super) const HEALTH: Endpoint = Endpoint {
    access: Access::Open,
    description: "Says what is wired, as it is. Answers 200 also when the service is degraded; /readyz is for balancers.",
    answers: &[Answer {
        status: 200,
        description: "How it does.",
        bodies: &[Body { media: JSON, schema: Some(of::<Health>) }],
    }],
    example: "curl -s {base}/health",
    ..plain(Operation::Health, "getHealth", "/health", "How the service does")
};

pub(super) const LIVE: Endpoint = Endpoint {
    access: Access::Open,
    description: "Answers as long as the process lives, whatever its backends do.",
    answers: &[Answer {
        status: 200,
        description: "It lives.",
        bodies: &[Body { media: JSON, schema: Some(of::<Ready>) }],
    }],
    example: "curl -s {base}/healthz",
    ..plain(Operation::Live, "getHealthz", "/healthz", "Whether the process lives")
};

pub(super) const READY: Endpoint = Endpoint {
    access: Access::Open,
    answers: &[Answer {
        status: 200,
        description: "It takes runs.",
        bodies: &[Body { media: JSON, schema: Some(of::<Ready>) }],
    }],
    refusals: &[Refusal::NotReady],
    example: "curl -s {base}/readyz",
    ..plain(Operation::Ready, "getReadyz", "/readyz", "Whether the service takes runs; if not, why")
};

pub(super) const METRICS: Endpoint = Endpoint {
    access: Access::Scope(Scope::MetricsRead),
    description: "In the text form of Prometheus.",
    answers: &[Answer {
        status: 200,
        description: "The metrics.",
        bodies: &[Body { media: "text/plain; version=0.0.4", schema: None }],
    }],
    example: "curl -s {auth}{base}/metrics",
    ..plain(Operation::Metrics, "getMetrics", "/metrics", "Metrics")
};

pub(super) const OPEN_API: Endpoint = Endpoint {
    access: Access::Open,
    answers: &[Answer { status: 200, description: "The document.", bodies: &[Body { media: JSON, schema: None }] }],
    example: "curl -s {base}/openapi.json",
    ..plain(Operation::OpenApi, "getOpenapi", "/openapi.json", "This contract as OpenAPI 3.1")
};

pub(super) const DOCS: Endpoint = Endpoint {
    access: Access::Open,
    answers: &[Answer { status: 200, description: "The page.", bodies: &[Body { media: "text/html", schema: None }] }],
    example: "curl -s {base}/docs",
    ..plain(Operation::Docs, "getDocs", "/docs", "This contract for people; works offline")
};

pub(super) const ERROR_PAGE: Endpoint = Endpoint {
    access: Access::Open,
    answers: &[Answer { status: 200, description: "The page.", bodies: &[Body { media: "text/html", schema: None }] }],
    refusals: &[Refusal::PathUnknown],
    example: "curl -s {base}/docs/errors/not_authenticated",
    ..plain(Operation::ErrorPage, "getErrorPage", "/docs/errors/{code}", "What an error's code means, and what to do")
};
