//! The documentation that the service brings along: every `curl` of `/docs` is run as it stands, from top to bottom.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test; what is skipped is said")]

mod common;

use api::{ENDPOINTS, Scope};
use common::{House, Served, key};
use server::Config;
use std::process::Stdio;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// The examples of the page, in order.
fn examples(page: &str) -> Vec<String> {
    let blocks = page.split("<pre class=\"example\">").skip(1);
    let plain = |block: &str| {
        let text = block.split("</pre>").next().unwrap();
        text.replace("&lt;", "<")
            .replace("&gt;", ">")
            .replace("&quot;", "\"")
            .replace("&#39;", "'")
            .replace("&amp;", "&")
    };
    blocks.map(plain).collect()
}

/// Runs the examples in one shell; each must succeed, with a status below 400, and say something.
async fn run(served: &Served, environment: &[(&str, &str)]) {
    let page = served.get("/docs").await;
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    let examples = examples(&page.body);
    assert_eq!(examples.len(), ENDPOINTS.len(), "one for each endpoint");
    let mut script = String::from("set -eu\ncurl() { command curl --fail-with-body \"$@\"; }\n");
    for (endpoint, example) in ENDPOINTS.iter().zip(&examples) {
        script.push_str(&format!("printf '\\n@@ {}\\n'\n{example}\n", endpoint.id));
    }
    let mut shell = Command::new("sh")
        .envs(environment.iter().copied())
        .env("no_proxy", "*")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut stdin = shell.stdin.take().unwrap();
    stdin.write_all(script.as_bytes()).await.unwrap();
    drop(stdin);
    let output = shell.wait_with_output().await.unwrap();
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}\n{complained}");
    for (endpoint, told) in ENDPOINTS.iter().zip(said.split("\n@@ ").skip(1)) {
        let (id, told) = told.split_once('\n').unwrap();
        assert_eq!(id, endpoint.id);
        assert!(!told.trim().is_empty(), "{id} says nothing");
    }
    assert!(said.contains("event: finished"), "the stream was read to its end: {said}");
}

fn link_key() -> Option<server::LinkKey> {
    Some(server::LinkKey::new([9; 32]))
}

fn has_curl() -> bool {
    let found =
        std::process::Command::new("curl").arg("--version").output().is_ok_and(|output| output.status.success());
    if !found {
        let name = "docs: the examples of /docs";
        assert!(std::env::var_os("CI").is_none(), "{name}: there is no curl");
        eprintln!("SKIPPED {name}: there is no curl");
    }
    found
}

#[tokio::test]
async fn every_example_runs() {
    if !has_curl() {
        return;
    }
    let house = House::in_doubt().await;
    house.shelf.put("default", "demo");
    let served = house.serve(Config { link_key: link_key(), ..Config::default() }).await;
    run(&served, &[]).await;
    served.stop().await;
}

#[tokio::test]
async fn every_example_runs_with_a_key() {
    if !has_curl() {
        return;
    }
    let house = House::in_doubt().await;
    let keys = vec![key("one", "default", "one", &[Scope::Admin])];
    house.shelf.put("default", "demo");
    let served = house.serve(Config { keys, link_key: link_key(), ..Config::default() }).await;
    run(&served, &[("TOPSIDE_KEY", "one")]).await;
    served.stop().await;
}

#[tokio::test]
async fn the_pages_load_nothing_and_say_everything() {
    let house = House::new();
    let served = house.serve(Config::default()).await;
    let page = served.get("/docs").await;
    for endpoint in ENDPOINTS {
        assert!(page.body.contains(&format!("id=\"{}\"", endpoint.id)), "{}", endpoint.id);
    }
    for loading in ["<script", "<link", "<img", "src=", "@import", "url("] {
        assert!(!page.body.contains(loading), "the page has {loading}");
    }
    assert!(page.header("content-security-policy").contains("default-src 'none'"));
    let openapi = served.get("/openapi.json").await;
    assert_eq!(openapi.json(), api::openapi());
    let error = served.get("/docs/errors/not_authenticated").await;
    assert!(error.body.contains("<h1>not_authenticated</h1>"), "{}", error.body);
    served.stop().await;
}

#[tokio::test]
async fn health_and_metrics_tell_what_is() {
    let house = House::new();
    let served = house.serve(Config::default()).await;
    let health = served.get("/health").await.json();
    assert_eq!(health["status"], "ok");
    assert_eq!(health["model"], "script-1");
    assert_eq!(health["backends"], serde_json::json!({"postgres": false, "sandbox": false, "r2": false}));
    assert_eq!((served.get("/healthz").await.status, served.get("/readyz").await.status), (200, 200));
    served.post_run(&[], r#"{"message": "Hello"}"#).await;
    served.get("/nothing").await;
    let metrics = served.get("/metrics").await.body;
    let mut declared = Vec::new();
    for line in metrics.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            declared.push(rest.split(' ').next().unwrap());
        } else if !line.starts_with('#') {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let name = series.split('{').next().unwrap();
            assert!(declared.iter().any(|declared| name.starts_with(declared)), "{line}");
            assert!(value.parse::<f64>().is_ok(), "{line}");
        }
    }
    for line in [
        "topside_http_requests_total{method=\"POST\",route=\"/runs\",status=\"200\"} 1",
        "topside_http_requests_total{method=\"any\",route=\"unknown\",status=\"404\"} 1",
        "topside_http_request_duration_seconds_count{method=\"POST\",route=\"/runs\"} 1",
        "topside_runs_submitted_total 1",
        "topside_runs_ended_total{status=\"completed\"} 1",
        "topside_runs_ended_total{status=\"failed\"} 0",
        "topside_turns_total 1",
        "topside_ready 1",
        "topside_sessions_active 0",
        "topside_sessions_watched 0",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in {metrics}");
    }
    house.engine.drain(std::time::Duration::ZERO).await;
    let ready = served.get("/readyz").await;
    assert_eq!((ready.status, ready.code().as_str()), (503, "not_ready"));
    assert_eq!(served.get("/health").await.text("status"), "degraded");
    let refused = served.post_run(&[], r#"{"message": "Hello"}"#).await;
    assert_eq!((refused.status, refused.code().as_str()), (503, "draining"));
    served.stop().await;
}
