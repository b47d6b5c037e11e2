//! Sandboxes: looked at, entered, ended, and their ports.

use super::{ADMIN, BODY_REFUSALS, JSON, WRITE, body, plain};
use crate::endpoint::{Access, Answer, Body, Endpoint, Method, Operation, Request, of};
use crate::{LinkPort, PortLink, Refusal, SandboxDetail, SandboxEnded, SandboxList};

const NO_SANDBOX: (u16, &str) = (404, "sandbox_not_found");

pub(super) const LIST_SANDBOXES: Endpoint = Endpoint {
    description: "Those that live, also what an earlier service left and nobody has taken over; the oldest first.",
    answers: &[Answer { status: 200, description: "The sandboxes.", bodies: &[body(of::<SandboxList>)] }],
    example: r#"sandbox=$(curl -s {auth}{base}/sandboxes | sed -n 's/.*"sandbox_id":"\([^"]*\)".*/\1/p')
curl -s {auth}{base}/sandboxes"#,
    ..plain(Operation::ListSandboxes, "listSandboxes", "/sandboxes", "List the sandboxes that live")
};

pub(super) const GET_SANDBOX: Endpoint = Endpoint {
    description: "Each wall with what it holds, limits, mounts, and names of variables; of one that is no more, why, as far as the \
                  newest sessions' logs tell.",
    answers: &[Answer { status: 200, description: "The sandbox.", bodies: &[body(of::<SandboxDetail>)] }],
    errors: &[NO_SANDBOX],
    example: "curl -s {auth}{base}/sandboxes/$sandbox",
    ..plain(Operation::GetSandbox, "getSandbox", "/sandboxes/{sandbox_id}", "What a sandbox may do and what it may not")
};

pub(super) const EXEC_SANDBOX: Endpoint = Endpoint {
    access: ADMIN,
    description: "A WebSocket. The client's first message is text: what to start. Then binary messages are its input, and text says \
                  that input ended, a terminal's size, or kill. The service sends output as binary messages (first byte 1: stdout, \
                  2: stderr), and as text that it started and how it ended. Closing the connection kills it. On record: who, what, \
                  when.",
    answers: &[Answer { status: 101, description: "A WebSocket follows.", bodies: &[] }],
    refusals: &[Refusal::RequestInvalid, Refusal::NotReady],
    errors: &[NO_SANDBOX, (409, "sandbox_left"), (426, "upgrade_required")],
    example: r"curl -s -i -m 1 {auth}{base}/sandboxes/$sandbox/exec -H 'connection: upgrade' -H 'upgrade: websocket' \
  -H 'sec-websocket-version: 13' -H 'sec-websocket-key: dG9wc2lkZSBleGVjIHdlYg==' || true",
    ..plain(Operation::ExecSandbox, "execSandbox", "/sandboxes/{sandbox_id}/exec", "Run a command in a sandbox")
};

pub(super) const LINK_PORT: Endpoint = Endpoint {
    method: Method::Post,
    access: WRITE,
    description: "Everybody who has the link reaches the port until it expires, or the sandbox ends.",
    request: Request::Optional(body(of::<LinkPort>)),
    answers: &[Answer { status: 201, description: "The link.", bodies: &[body(of::<PortLink>)] }],
    refusals: BODY_REFUSALS,
    errors: &[NO_SANDBOX, (409, "sandbox_left"), (503, "links_unsigned")],
    example: r#"link=$(curl -s {auth}{base}/sandboxes/$sandbox/ports/8000/links -X POST | sed -n 's/.*"url":"\([^"]*\)".*/\1/p')
curl -s {auth}{base}/sandboxes/$sandbox/ports/8000/links -H 'content-type: application/json' \
  -d '{"expires_in_seconds": 60, "path": "/"}'"#,
    ..plain(
        Operation::LinkPort,
        "linkPort",
        "/sandboxes/{sandbox_id}/ports/{port}/links",
        "A link to a port in a sandbox",
    )
};

pub(super) const PORT: Endpoint = Endpoint {
    method: Method::Any,
    access: Access::Link,
    description: "Any method, and WebSocket. What comes from inside is shown as a page of nobody's: it has no access to anything of \
                  this address. Cookies and keys go neither in nor out.",
    answers: &[
        Answer {
            status: 200,
            description: "What the program inside answers, with its own status.",
            bodies: &[Body { media: "*/*", schema: None }],
        },
        Answer { status: 308, description: "The same link with a slash at its end.", bodies: &[] },
    ],
    refusals: &[Refusal::RequestInvalid],
    errors: &[
        (403, "link_forged"),
        (403, "port_service_worker"),
        (404, "sandbox_gone"),
        (410, "link_expired"),
        (502, "port_refused"),
        (502, "port_answer"),
        (503, "sandbox_limit"),
        (503, "links_unsigned"),
        (504, "port_timeout"),
    ],
    example: r#"curl -s "$link""#,
    ..plain(Operation::Port, "port", "/ports/{token}/{*path}", "A port in a sandbox, by its link")
};

pub(super) const END_SANDBOX: Endpoint = Endpoint {
    method: Method::Delete,
    access: ADMIN,
    description: "Everything in it is killed; its workspace stays. A call of the run that has it ends with `sandbox_gone`, and the \
                  next one gets a new sandbox. On record.",
    answers: &[Answer {
        status: 200,
        description: "It is gone.",
        bodies: &[Body { media: JSON, schema: Some(of::<SandboxEnded>) }],
    }],
    errors: &[NO_SANDBOX],
    example: "curl -s {auth}-X DELETE {base}/sandboxes/$sandbox",
    ..plain(Operation::EndSandbox, "endSandbox", "/sandboxes/{sandbox_id}", "End a sandbox")
};
