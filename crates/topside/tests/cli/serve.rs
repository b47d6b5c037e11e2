//! `topside serve`: keys, health, and a hurry.

use crate::kit::{Project, has_sandbox};
use std::io::{Read, Write};
use std::net::TcpStream;

fn get(url: &str, path: &str, header: &str) -> (u16, String) {
    ask(url, "GET", path, header, "")
}

/// Sends a request; gives status and body.
#[expect(clippy::disallowed_methods, reason = "the service is asked as a stranger would")]
fn ask(url: &str, method: &str, path: &str, header: &str, body: &str) -> (u16, String) {
    let address = url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{header}\r\n{body}").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), body.to_owned())
}

fn slow() -> Project {
    Project::playing(
        "title: slow\nsteps:\n- reply:\n  - call: {id: slow, tool: exec_command, arguments: {cmd: \"sleep 60\", yield_time_ms: 30000}}\n",
        &[],
    )
}

#[test]
fn keys_open_what_they_are_for() {
    let project = slow();
    std::fs::create_dir(project.data()).unwrap();
    let mut keys = Vec::new();
    let mut file = String::new();
    for scope in ["runs:read", "metrics:read"] {
        let made = project.topside(&["key", "new", "alice", "--scope", scope]).ended(0);
        keys.push(made.talk.split_whitespace().last().unwrap().to_owned());
        file += &made.data;
    }
    std::fs::write(project.data().join("keys.yaml"), file).unwrap();
    // With keys, a public address may be served.
    let mut serving = project.start(&["serve", "--listen", "0.0.0.0:0"]);
    let url = serving.line().replace("0.0.0.0", "127.0.0.1");
    for (key, path, status) in [
        ("nobody", "/runs", 401),
        (&keys[0], "/runs", 200),
        (&keys[1], "/runs", 403),
        (&keys[1], "/metrics", 200),
        ("", "/healthz", 200),
    ] {
        let (got, body) = get(&url, path, &format!("Authorization: Bearer {key}\r\n"));
        assert_eq!(got, status, "{path}: {body}");
    }
    serving.signal("-TERM");
    serving.wait().ended(0);
}

#[test]
fn health_tells_the_truth() {
    let project = slow();
    let mut serving = project.start(&["serve", "--listen", "127.0.0.1:0"]);
    let url = serving.line();
    let (status, body) = get(&url, "/health", "");
    let health: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (status, health["status"].as_str(), health["model"].as_str()),
        (200, Some("ok"), Some("slow")),
        "{body}"
    );
    let can = project.topside(&["doctor"]).code == Some(0);
    assert_eq!(health["backends"], serde_json::json!({"postgres": false, "sandbox": can, "r2": false}));
    serving.signal("-TERM");
    serving.wait().ended(0);
}

#[test]
fn the_second_signal_ends_at_once_and_loses_nothing() {
    if !has_sandbox("the_second_signal_ends_at_once_and_loses_nothing") {
        return;
    }
    let project = slow();
    let mut serving = project.start(&["serve", "--listen", "127.0.0.1:0", "--drain-seconds", "600"]);
    let url = serving.line();
    let body = r#"{"message": "Begin.", "session": "s"}"#;
    let head = format!("Prefer: respond-async\r\nContent-Type: application/json\r\nContent-Length: {}\r\n", body.len());
    let (status, answer) = ask(&url, "POST", "/runs", &head, body);
    assert_eq!(status, 202, "{answer}");
    let opened = || project.topside(&["log", "s", "--json"]).ended(0).data.contains("sandbox_opened");
    assert!((0..600).any(|_| opened()), "the call did not begin");
    serving.signal("-TERM");
    serving.signal("-INT");
    serving.wait().ended(130);
    let resumed = project.topside(&["log", "s", "--json", "--verify"]).ended(0);
    assert!(!resumed.data.contains("\"finished\""), "the run ended although nobody ended it: {}", resumed.data);
}
