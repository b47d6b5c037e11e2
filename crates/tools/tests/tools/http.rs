//! Tools of kind `http` against a loopback server.

use crate::support::{World, text, tool};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::{any, get};
use domain::{CallStatus, Contract, Effect, Tool, ToolRun};
use serde_json::{Value, json};

const SCHEMA: &str = r#"{
  "type": "object",
  "properties": {"id": {"type": "string"}, "host": {"type": "string"}, "note": {"type": "string"}, "n": {"type": "integer"}}
}"#;

async fn echo(request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    axum::Json(json!({
        "method": parts.method.as_str(),
        "uri": parts.uri.to_string(),
        "body": String::from_utf8_lossy(&body),
        "key": header("idempotency-key"),
        "authorization": header("authorization"),
        "type": header("content-type"),
    }))
    .into_response()
}

async fn server() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (here, other) = (url.clone(), url.replace("127.0.0.1", "localhost"));
    let routes = Router::new()
        .route("/echo/{*rest}", any(echo))
        .route("/here", get(move || async move { Redirect::temporary(&format!("{here}/echo/there")) }))
        .route("/private", get(move || async move { Redirect::temporary(&format!("{other}/echo/there")) }))
        .route("/metadata", get(|| async { Redirect::temporary("http://169.254.169.254/latest/meta-data/") }))
        .route("/empty", any(|| async { StatusCode::NO_CONTENT }))
        .route("/image", any(|| async { ([(header::CONTENT_TYPE, "image/png")], vec![0_u8; 10]) }))
        .route("/long", any(|| async { "0123456789\n".repeat(10_000) }))
        .route(
            "/huge",
            any(|| async {
                Body::from_stream(futures::stream::iter(
                    (0..200).map(|_| Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; 1 << 20]))),
                ))
            }),
        )
        .route("/slow", any(|| async { std::future::pending::<String>().await }))
        .route(
            "/fail/{*rest}",
            any(|uri: Uri, headers: HeaderMap| async move {
                let token =
                    headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
                (StatusCode::NOT_FOUND, format!("no {} for {token}", uri.path()))
            }),
        );
    tokio::spawn(async move { axum::serve(listener, routes).await });
    url
}

fn request(method: &str, url: &str, body: &[&str]) -> Tool {
    let run = ToolRun::Http {
        method: method.into(),
        url: url.into(),
        headers: [("Authorization".to_owned(), "Bearer ${secret.TOKEN}".to_owned())].into(),
        body: body.iter().map(|name| (*name).to_owned()).collect(),
    };
    tool("fetch", Effect::External, SCHEMA, run)
}

fn world(tool: Tool) -> World {
    World::new(&[tool]).secret("TOKEN", "hunter2-hunter2")
}

#[tokio::test]
async fn a_request_is_what_was_declared() {
    let server = server().await;
    let mut world_one = world(request("get", &format!("{server}/echo/u/{{id}}?note={{note}}&n={{n}}"), &[]));
    world_one.key = Some("key-1".into());
    let outcome = world_one.call("fetch", r#"{"id":"a/b c","n":5}"#).await;
    let got: Value = serde_json::from_str(text(&outcome)).unwrap();
    let expected = json!({"method": "GET", "uri": "/echo/u/a%2Fb%20c?n=5", "body": "", "key": "key-1", "authorization": "Bearer [secret TOKEN]", "type": null});
    assert_eq!(got, expected);
    let world_two = world(request("POST", &format!("{server}/echo/u/{{id}}"), &["note", "n"]));
    let outcome = world_two.call("fetch", r#"{"id":"7","note":"hi"}"#).await;
    let got: Value = serde_json::from_str(text(&outcome)).unwrap();
    let expected = json!({"method": "POST", "uri": "/echo/u/7", "body": "{\"note\":\"hi\"}", "key": null, "authorization": "Bearer [secret TOKEN]", "type": "application/json"});
    assert_eq!(got, expected);
}

async fn check(path: &str, arguments: &str, status: CallStatus, code: Option<&str>, expected: &str) {
    let server = server().await;
    let world = world(request("GET", &format!("{server}{path}"), &[]));
    let outcome = world.call("fetch", arguments).await;
    let got = text(&outcome).replace(&server, "SERVER");
    assert_eq!((outcome.status, outcome.code), (status, code), "{path}: {got}");
    assert!(got.starts_with(expected), "{path}\n got {got}\nwant {expected}");
    assert!(!format!("{outcome:?}").contains("hunter2"), "{path}: {got}");
}

#[tokio::test]
async fn answers_become_text_or_errors() {
    use CallStatus::{Error, Invalid, Ok};
    check("/empty", "{}", Ok, None, "HTTP 204 No Content").await;
    check("/image", "{}", Ok, None, "HTTP 200 OK: 10 bytes of image/png, which is no text and not shown").await;
    check(
        "/fail/x",
        "{}",
        Error,
        Some("http_status"),
        "`fetch` failed: HTTP 404 Not Found\n\nno /fail/x for Bearer [secret TOKEN]",
    )
    .await;
    check("/long", "{}", Ok, None, "Total output lines: 10000\n\n0123456789\n").await;
    check("/huge", "{}", Ok, None, "Total output lines: ").await;
    check("/echo/{id}", r#"{"id":".."}"#, Invalid, Some("arguments_invalid"), "Invalid tool arguments for id. ").await;
    check("/echo/{id}", "{}", Invalid, Some("arguments_invalid"), "Invalid tool arguments for id. ").await;
}

#[tokio::test]
async fn redirects_lead_only_where_they_may() {
    use CallStatus::{Error, Ok};
    check("/here", "{}", Ok, None, "{\"method\":\"GET\"").await;
    check("/private", "{}", Error, Some("net_address_refused"), "`fetch` failed: localhost leads to").await;
    check("/metadata", "{}", Error, Some("net_address_refused"), "`fetch` failed: 169.254.169.254 leads to").await;
}

#[tokio::test]
async fn a_host_from_an_argument_is_not_trusted() {
    let server = server().await;
    let port = server.rsplit(':').next().unwrap();
    let world = world(request("GET", &format!("http://{{host}}:{port}/echo/x"), &[]));
    for host in
        ["127.0.0.1", "localhost", "0x7f.1", "2130706433", "[::1]", "[::ffff:127.0.0.1]", "169.254.169.254", "10.0.0.1"]
    {
        let outcome = world.call("fetch", &json!({"host": host}).to_string()).await;
        assert_eq!(
            (outcome.status, outcome.code),
            (CallStatus::Error, Some("net_address_refused")),
            "{host}: {outcome:?}"
        );
    }
    let outcome = world.call("fetch", r#"{"host":"user@127.0.0.1"}"#).await;
    assert_eq!((outcome.status, outcome.code), (CallStatus::Invalid, Some("arguments_invalid")));
}

#[tokio::test]
async fn silence_and_absence_are_named() {
    let server = server().await;
    let declared = request("GET", &format!("{server}/slow"), &[]);
    let contract = Contract { timeout_ms: 200, ..declared.contract.clone() };
    let outcome = world(Tool { contract, ..declared }).call("fetch", "{}").await;
    assert_eq!((outcome.status, outcome.code), (CallStatus::TimedOut, Some("tool_timeout")));
    // Nobody listens on a port that was just given back.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    let outcome = world(request("GET", &url, &[])).call("fetch", "{}").await;
    assert_eq!((outcome.status, outcome.code), (CallStatus::Error, Some("net_connect")));
    let outcome = World::new(&[request("GET", &url, &[])]).call("fetch", "{}").await;
    assert_eq!(
        (outcome.code, text(&outcome)),
        (Some("tool_not_configured"), "`fetch` is not configured: secret.TOKEN is not set")
    );
}
