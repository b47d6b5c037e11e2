//! Sessions: looked at, followed, forked, put aside, deleted.

use super::{
    ACCEPT, ADMIN, AFTER, BODY_REFUSALS, CURSOR, IDEMPOTENCY_KEY, JSON, KEY_CONFLICT, LAST_EVENT_ID, LIMIT, NO_RUN,
    NO_SESSION, RECORDS, WRITE, body, plain,
};
use crate::endpoint::{Answer, Body, Endpoint, Method, Operation, Request, of};
use crate::{
    CheckpointList, Diff, Fork, ForkSession, Purged, Quarantine, QuarantineSession, Refusal, Session, SessionList,
};

pub(super) const LIST_SESSIONS: Endpoint = Endpoint {
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
};

pub(super) const GET_SESSION: Endpoint = Endpoint {
    description: "By its id or your name for it.",
    answers: &[Answer {
        status: 200,
        description: "The session.",
        bodies: &[Body { media: JSON, schema: Some(of::<Session>) }],
    }],
    errors: &[NO_SESSION],
    example: "curl -s {auth}{base}/sessions/demo",
    ..plain(Operation::GetSession, "getSession", "/sessions/{session}", "A session")
};

pub(super) const SESSION_EVENTS: Endpoint = Endpoint {
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
};

pub(super) const LIST_CHECKPOINTS: Endpoint = Endpoint {
    answers: &[Answer { status: 200, description: "The places, in order.", bodies: &[body(of::<CheckpointList>)] }],
    errors: &[NO_SESSION],
    example: r#"at=$(curl -s {auth}{base}/sessions/demo/checkpoints | sed -n 's/.*"at":\([0-9]*\).*/\1/p')
curl -s {auth}{base}/sessions/demo/checkpoints"#,
    ..plain(
        Operation::ListCheckpoints,
        "listCheckpoints",
        "/sessions/{session}/checkpoints",
        "The places from which a session can be forked",
    )
};

pub(super) const FORK_SESSION: Endpoint = Endpoint {
    method: Method::Post,
    access: WRITE,
    description: "The new session has the conversation and the files as they were there, and if you like another agent, model or provider. \
                  Approvals are not inherited. What was done outside stays done: `outside_effects` lists it.",
    headers: &[IDEMPOTENCY_KEY],
    request: Request::Required(body(of::<ForkSession>)),
    answers: &[Answer { status: 201, description: "The new session.", bodies: &[body(of::<Fork>)] }],
    refusals: BODY_REFUSALS,
    errors: &[
        NO_SESSION,
        KEY_CONFLICT,
        (409, "not_forkable"),
        (409, "session_exists"),
        (422, "agent_unknown"),
        (422, "model_unknown"),
        (409, "checkpoint_damaged"),
    ],
    example: r#"curl -s {auth}{base}/sessions/demo/fork -H 'content-type: application/json' \
  -d '{"at": '$at', "session": "demo-2"}'"#,
    ..plain(
        Operation::ForkSession,
        "forkSession",
        "/sessions/{session}/fork",
        "Go on from a checkpoint in a new session",
    )
};

pub(super) const DIFF_RUNS: Endpoint = Endpoint {
    description: "Turn by turn: messages, replies, calls, outcomes, usage, files.",
    answers: &[Answer { status: 200, description: "The differences.", bodies: &[body(of::<Diff>)] }],
    errors: &[NO_RUN],
    example: r#"curl -s {auth}{base}/runs/$run/diff/$held"#,
    ..plain(Operation::DiffRuns, "diffRuns", "/runs/{run_id}/diff/{other_run_id}", "How two runs differ")
};

pub(super) const QUARANTINE_SESSION: Endpoint = Endpoint {
    method: Method::Post,
    access: ADMIN,
    description: "It can be read and purged; nothing is appended to it and nothing driven in it until it is released.",
    request: Request::Required(body(of::<QuarantineSession>)),
    answers: &[Answer { status: 200, description: "Its quarantine.", bodies: &[body(of::<Quarantine>)] }],
    refusals: BODY_REFUSALS,
    errors: &[NO_SESSION],
    example: r#"curl -s {auth}{base}/sessions/demo-2/quarantine -H 'content-type: application/json' \
  -d '{"reason": "To be looked at."}'"#,
    ..plain(Operation::QuarantineSession, "quarantineSession", "/sessions/{session}/quarantine", "Put a session aside")
};

pub(super) const RELEASE_SESSION: Endpoint = Endpoint {
    method: Method::Post,
    access: ADMIN,
    description: "Its runs go on where they stood.",
    answers: &[Answer { status: 200, description: "That it is in none.", bodies: &[body(of::<Quarantine>)] }],
    errors: &[NO_SESSION],
    example: r#"curl -s {auth}-X POST {base}/sessions/demo-2/release"#,
    ..plain(
        Operation::ReleaseSession,
        "releaseSession",
        "/sessions/{session}/release",
        "Take a session out of quarantine",
    )
};

pub(super) const PURGE_SESSION: Endpoint = Endpoint {
    method: Method::Delete,
    access: ADMIN,
    description: "Records, contents, keys, artifacts, checkpoints and files. What is left is a tombstone: how many records there were and \
                  the hash of the last. Refused while a run has not ended.",
    answers: &[Answer { status: 200, description: "What is left.", bodies: &[body(of::<Purged>)] }],
    errors: &[NO_SESSION, (409, "session_unended")],
    example: r#"curl -s {auth}-X DELETE {base}/sessions/demo-2"#,
    ..plain(Operation::PurgeSession, "purgeSession", "/sessions/{session}", "Delete a session wholly")
};
