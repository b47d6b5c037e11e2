//! Who may ask what: every endpoint of the table against every kind of caller, and what the door refuses.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

mod common;

use api::{Access, ENDPOINTS, Endpoint, Method, Operation, Refusal, Scope};
use common::{House, Served, key};
use server::Config;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Every scope but the one that has all others in it.
const SCOPES: [Scope; 4] = [Scope::RunsRead, Scope::RunsWrite, Scope::ApprovalsWrite, Scope::MetricsRead];

/// Keys: `all` and `other` may do everything, in tenants of their own; `only-…` has one scope.
fn keyed() -> Config {
    let mut keys =
        vec![key("all", "default", "all", &[Scope::Admin]), key("other", "elsewhere", "other", &[Scope::Admin])];
    for scope in SCOPES {
        keys.push(key(scope.name(), "default", &format!("only-{scope}"), &[scope]));
    }
    Config { keys, link_key: Some(server::LinkKey::new([9; 32])), ..Config::default() }
}

/// A request to an endpoint about things that are there.
struct Case<'a> {
    endpoint: &'static Endpoint,
    path: String,
    served: &'a Served,
}

impl Case<'_> {
    async fn ask(&self, key: &str) -> common::Answer {
        let authorization = format!("authorization: Bearer {key}");
        let mut headers = if key.is_empty() { vec![] } else { vec![authorization.as_str()] };
        let body = match self.endpoint.operation {
            Operation::PostRun | Operation::SteerRun => r#"{"message": "Hello"}"#,
            Operation::CancelRun => r#"{"when": "after_turn"}"#,
            Operation::RaiseRun => r#"{"turns": 60}"#,
            Operation::ResolveCall => {
                r#"{"call_id": "call_00000000000000000000000000000000", "outcome": "did_not_happen"}"#
            }
            Operation::PostApproval => r#"{"vote": "approve"}"#,
            Operation::ForkSession => r#"{"at": 3}"#,
            Operation::LinkPort => "{}",
            Operation::RestoreWorkspace => r#"{"checkpoint_id": "chk_00000000000000000000000000000000"}"#,
            Operation::PutWorkspace => "no archive",
            Operation::QuarantineSession => r#"{"reason": "To be looked at."}"#,
            _ => "",
        };
        assert_eq!(
            self.endpoint.request.body().is_some(),
            !body.is_empty(),
            "{}: no case for its body",
            self.endpoint.id
        );
        if !body.is_empty() {
            headers.push(match self.endpoint.operation {
                Operation::PutWorkspace => "content-type: application/x-tar",
                _ => "content-type: application/json",
            });
        }
        self.served.send(self.endpoint.method.name(), &self.path, &headers, body).await
    }

    /// Whether an answer is one of those that the table has for somebody who may ask: done, or not possible any more.
    fn is_fine(&self, answer: &common::Answer) -> bool {
        let Endpoint { answers, errors, .. } = self.endpoint;
        answers.iter().any(|known| known.status == answer.status)
            || errors.iter().any(|known| *known == (answer.status, answer.code().as_str()))
    }

    async fn check(&self) {
        let Endpoint { id, access, .. } = self.endpoint;
        let Access::Scope(needed) = access else {
            assert!(self.is_fine(&self.ask("").await), "{id}: open to everybody");
            assert!(self.is_fine(&self.ask("wrong").await), "{id}: a key changes nothing");
            return;
        };
        for (name, key) in [("no key", ""), ("an unknown key", "wrong"), ("a hash for a key", &"0".repeat(64))] {
            let answer = self.ask(key).await;
            assert_eq!((answer.status, answer.code().as_str()), (401, "not_authenticated"), "{id}: {name}");
            assert!(answer.header("www-authenticate").starts_with("Bearer"), "{id}: {name}");
        }
        for scope in SCOPES {
            let answer = self.ask(&format!("only-{scope}")).await;
            if scope == *needed {
                assert!(self.is_fine(&answer), "{id}: scope {scope} suffices: {answer:?}");
            } else {
                assert_eq!((answer.status, answer.code().as_str()), (403, "scope_missing"), "{id}: scope {scope}");
            }
        }
        // Another tenant first: what admin does may take it away.
        let other = self.ask("other").await;
        if self.endpoint.path_parameters().next().is_some() {
            assert_eq!(other.status, 404, "{id}: another tenant's things are not there");
            let code = match &self.path {
                path if path.contains("runs/") => "run_not_found",
                path if path.contains("approvals/") => "approval_not_found",
                path if path.contains("sandboxes/") => "sandbox_not_found",
                _ => "session_not_found",
            };
            assert_eq!(other.code(), code, "{id}");
        } else {
            assert!(self.is_fine(&other), "{id}: another tenant has its own: {other:?}");
            assert!(!other.body.contains("mine"), "{id}: another tenant sees nothing of this one: {}", other.body);
        }
        let admin = self.ask("all").await;
        assert!(self.is_fine(&admin), "{id}: admin may: {admin:?}");
    }
}

#[tokio::test]
async fn every_endpoint_asks_who_it_is() {
    let house = House::new();
    let served = house.serve(keyed()).await;
    let run =
        served.post_run(&["x-api-key: all"], r#"{"session": "mine", "message": "Hello", "save_artifact": true}"#).await;
    assert_eq!((run.status, run.text("status").as_str()), (200, "completed"), "{run:?}");
    let held = served.post_run(&["x-api-key: all"], r#"{"session": "till", "message": "Pay"}"#).await;
    let call = held.json()["approvals"][0].as_str().unwrap().to_owned();
    let url = run.text("artifact_url");
    let token = url.rsplit('/').next().unwrap();
    let sandbox = house.shelf.put("default", "mine").to_string();
    let link = served.post(&format!("/sandboxes/{sandbox}/ports/8000/links"), &["x-api-key: all"], "{}").await;
    let link = link.text("url");
    let port_token = link.trim_end_matches('/').rsplit('/').next().unwrap();
    for endpoint in ENDPOINTS {
        let path = match endpoint.operation {
            Operation::Port => format!("/ports/{port_token}/"),
            Operation::GetArtifact => endpoint.path.replace("{token}", token),
            Operation::ErrorPage => endpoint.path.replace("{code}", "not_authenticated"),
            _ => endpoint
                .path
                .replace("{run_id}", &run.text("run_id"))
                .replace("{other_run_id}", &held.text("run_id"))
                .replace("{call_id}", &call)
                .replace("{sandbox_id}", &sandbox)
                .replace("{port}", "8000")
                .replace("{session}", "mine"),
        };
        assert!(!path.contains('{'), "{}: no case for its parameter", endpoint.id);
        for path in [path.clone(), format!("{}{path}", api::BASE)] {
            Case { endpoint, path, served: &served }.check().await;
        }
    }
    served.stop().await;
}

#[tokio::test]
async fn without_keys_the_machine_is_principal_local() {
    let house = House::new();
    let served = house.serve(Config::default()).await;
    assert_eq!(served.get("/metrics").await.status, 200);
    assert_eq!(served.send("GET", "/runs", &["x-api-key: whatever"], "").await.status, 200);
    served.stop().await;
}

#[tokio::test]
async fn strange_requests_are_refused_by_name() {
    let house = House::new();
    let mut config = Config::default();
    config.limits.request_bytes_max = 4_096;
    let served = house.serve(config).await;
    let json = "content-type: application/json";
    let long = format!(r#"{{"message": "{}"}}"#, "x".repeat(5_000));
    for (method, path, headers, body, status, code) in [
        ("GET", "/nothing", &[][..], "", 404, "path_unknown"),
        ("GET", "/docs/errors/nothing", &[], "", 404, "path_unknown"),
        ("DELETE", "/runs", &[], "", 405, "method_not_allowed"),
        ("PUT", "/sessions/a", &[], "", 405, "method_not_allowed"),
        ("POST", "/runs", &[], r#"{"message": "Hello"}"#, 415, "media_type_unsupported"),
        ("POST", "/runs", &["content-type: text/plain"], r#"{"message": "Hello"}"#, 415, "media_type_unsupported"),
        ("POST", "/runs", &[json], "", 400, "request_invalid"),
        ("POST", "/runs", &[json], "[]", 400, "request_invalid"),
        ("POST", "/runs", &[json], r#"{"message": "Hello", "sesion": "a"}"#, 400, "request_invalid"),
        ("POST", "/runs", &[json], r#"{"message": 1}"#, 400, "request_invalid"),
        ("POST", "/runs", &[json], r#"{"message": "Hello", "session": "two words"}"#, 400, "request_invalid"),
        ("POST", "/runs", &[json], r#"{"message": ""}"#, 400, "message_empty"),
        ("POST", "/runs", &[json], r#"{"message": "Hello", "agent": "mia"}"#, 422, "agent_unknown"),
        (
            "POST",
            "/runs",
            &[json],
            r#"{"message": "Hello", "session": "ses_00000000000000000000000000000000"}"#,
            404,
            "session_not_found",
        ),
        ("POST", "/runs", &[json], &long, 413, "body_too_large"),
        ("GET", "/runs?limit=1000", &[], "", 400, "request_invalid"),
        ("GET", "/runs?page=2", &[], "", 400, "request_invalid"),
        ("GET", "/runs?status=done", &[], "", 400, "request_invalid"),
        ("GET", "/sessions?cursor=x", &[], "", 400, "request_invalid"),
        ("GET", "/runs/run_1", &[], "", 404, "run_not_found"),
        ("GET", "/runs/run_00000000000000000000000000000000", &[], "", 404, "run_not_found"),
        ("GET", "/sessions/nobody", &[], "", 404, "session_not_found"),
        ("GET", "/sessions/nobody/events", &[], "", 404, "session_not_found"),
        ("GET", "/artifacts/AAAA", &[], "", 403, "link_forged"),
        ("GET", "/health", &["host: evil.example"], "", 421, "host_refused"),
        ("GET", "/nothing", &["host: evil.example"], "", 421, "host_refused"),
        ("GET", "/health", &["origin: http://evil.example"], "", 403, "origin_refused"),
        ("POST", "/runs", &[json, "origin: null"], r#"{"message": "Hello"}"#, 403, "origin_refused"),
    ] {
        let answer = served.send(method, path, headers, body).await;
        let name = format!("{method} {path} {headers:?} {}", &body[..body.len().min(80)]);
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{name}: {}", answer.body);
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{name}");
    }
    let field = served.post_run(&[], r#"{"message": "Hello", "sesion": "a"}"#).await;
    assert!(field.text("detail").contains("`sesion`"), "{field:?}");
    assert_eq!(served.send("DELETE", "/runs", &[], "").await.header("allow"), "GET, HEAD, POST");
    assert_eq!(served.send("HEAD", "/health", &[], "").await.body, "");
    served.stop().await;
}

#[tokio::test]
async fn what_the_table_says_of_errors_is_what_is_answered() {
    let house = House::new();
    let served = house.serve(Config::default()).await;
    let codes = ENDPOINTS.iter().flat_map(|endpoint| {
        let refusals = endpoint.common_refusals().iter().chain(endpoint.refusals);
        refusals.map(|refusal| refusal.code()).chain(endpoint.errors.iter().map(|(_, code)| *code))
    });
    let mut missing: Vec<&str> = Vec::new();
    for code in codes.chain(Refusal::ALL.map(Refusal::code)) {
        if served.get(&api::error_page(code)).await.status != 200 && !missing.contains(&code) {
            missing.push(code);
        }
    }
    assert!(missing.is_empty(), "no page under docs/errors: {missing:?}");
    assert!(ENDPOINTS.iter().any(|endpoint| endpoint.method == Method::Post));
    assert!(ENDPOINTS.iter().any(|endpoint| endpoint.method == Method::Delete));
    served.stop().await;
}

/// Sends raw bytes and reads the answer's head and body until the service closes.
async fn raw(connector: &server::MemoryConnector, request: &str) -> String {
    let mut stream = connector.connect().await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn a_request_that_dawdles_or_swells_is_refused() {
    let house = House::new();
    let mut config = Config::default();
    config.limits.body_ms_max = 50;
    config.limits.headers_ms_max = 50;
    config.limits.request_bytes_max = 16;
    let (connector, served) = house.serve_memory(config);
    let post = "POST /runs HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n";
    for (name, request, expected) in [
        ("half a body", format!("{post}content-length: 10\r\n\r\n{{\"me"), "HTTP/1.1 408"),
        (
            "a body in chunks",
            format!("{post}transfer-encoding: chunked\r\n\r\n10\r\n0123456789abcdef\r\n1\r\ng\r\n0\r\n\r\n"),
            "HTTP/1.1 413",
        ),
        ("a body that is announced", format!("{post}content-length: 17\r\n\r\n"), "HTTP/1.1 413"),
        ("half a head", "GET /health HTTP/1.1\r\nhost: lo".to_owned(), ""),
        ("no HTTP", "hello\r\n\r\n".to_owned(), "HTTP/1.1 400"),
    ] {
        let answer = raw(&connector, &request).await;
        assert!(answer.starts_with(expected), "{name}: {answer}");
    }
    served.stop().await;
}

#[tokio::test]
async fn a_public_address_without_keys_does_not_serve() {
    let house = House::new();
    let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await.unwrap();
    let listener = server::Listener::Tcp(listener);
    let served = server::serve(listener, Config::default(), house.engine.clone(), std::future::pending());
    assert_eq!(served.await.unwrap_err().code(), "public_without_keys");
}
