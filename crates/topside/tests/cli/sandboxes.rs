//! `topside sandbox`: a real service with a real sandbox is looked at, entered, linked to and ended.

use crate::kit::{Project, Running, Said, has_sandbox};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Stdio;

/// An agent that serves its workspace to itself, until somebody ends it.
const SERVES: &str = r#"title: serves
steps:
- reply:
  - call: {id: serves, tool: exec_command, arguments: {cmd: "echo greeting > hello.txt; exec python3 -m http.server 8000 --bind 127.0.0.1", yield_time_ms: 30000}}
- expect: {outputs: {serves: '(?s).*'}}
  reply:
  - text: "It is over."
"#;

/// Gives back every frame of a WebSocket, unmasked, behind the greeting that it begins with.
const SOCKET: &str = r#"
import base64, hashlib, socket
s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(('127.0.0.1', 8001)); s.listen(8); print('listens', flush=True)
c, _ = s.accept(); f = c.makefile('rwb', 0); key = b''
while True:
    line = f.readline().strip()
    if not line: break
    if line.lower().startswith(b'sec-websocket-key:'): key = line.split(b':', 1)[1].strip()
accept = base64.b64encode(hashlib.sha1(key + b'258EAFA5-E914-47DA-95CA-C5AB0DC85B11').digest())
f.write(b'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: ' + accept + b'\r\n\r\n')
while True:
    head = c.recv(6, socket.MSG_WAITALL)
    if len(head) < 6: break
    length, mask = head[1] & 127, head[2:6]
    text = bytes(b ^ mask[i % 4] for i, b in enumerate(c.recv(length, socket.MSG_WAITALL)))
    f.write(bytes([head[0], length]) + text)
"#;

/// A service in the middle of a call in its sandbox, and that sandbox.
struct Busy {
    project: Project,
    serving: Running,
    url: String,
    sandbox: String,
}

impl Busy {
    fn new() -> Self {
        let project = Project::playing(SERVES, &[]);
        let mut serving = project.start(&["serve", "--listen", "127.0.0.1:0"]);
        let url = serving.line();
        let body = r#"{"message": "Serve.", "session": "s"}"#;
        let head =
            format!("Prefer: respond-async\r\nContent-Type: application/json\r\nContent-Length: {}\r\n", body.len());
        let (status, answer) = ask(&url, "POST", "/runs", &head, body);
        assert_eq!(status, 202, "{answer}");
        let listed = |project: &Project| {
            let list = project.topside(&["sandbox", "list", "--json"]).ended(0).json();
            list.first().map(|line| line["sandbox"]["sandbox_id"].as_str().unwrap().to_owned())
        };
        let sandbox = (0..600).find_map(|_| listed(&project)).expect("a sandbox lives");
        Self { project, serving, url, sandbox }
    }

    /// `topside sandbox` on this one.
    fn sandbox(&self, command: &str, rest: &[&str]) -> Said {
        self.project.topside(&[&["sandbox", command, &self.sandbox], rest].concat())
    }

    /// A command inside.
    fn sh(&self, script: &str) -> Said {
        self.sandbox("exec", &["--", "sh", "-c", script])
    }

    fn link(&self, port: &str) -> String {
        self.sandbox("link", &[port, "--for", "5m"]).ended(0).data.trim().strip_prefix(&self.url).unwrap().to_owned()
    }

    /// The session's log.
    fn log(&self) -> Vec<Value> {
        self.project.topside(&["log", "s", "--json"]).ended(0).json()
    }
}

#[expect(clippy::disallowed_methods, reason = "the service is asked as a stranger would")]
fn connect(url: &str) -> TcpStream {
    TcpStream::connect(url.strip_prefix("http://").unwrap()).unwrap()
}

/// Sends a request; gives status and body.
fn ask(url: &str, method: &str, path: &str, header: &str, body: &str) -> (u16, String) {
    let mut stream = connect(url);
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n{header}\r\n{body}").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), body.to_owned())
}

fn code(body: &str) -> String {
    let problem: Value = serde_json::from_str(body).unwrap();
    problem["code"].as_str().unwrap().to_owned()
}

/// The most memory that a process has had, in KiB.
fn peak_kib(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn an_operator_looks_enters_and_ends() {
    if !has_sandbox("an_operator_looks_enters_and_ends") {
        return;
    }
    let busy = Busy::new();
    let list = busy.project.topside(&["sandbox", "list"]).ended(0);
    assert!(list.data.contains("held") && list.data.contains(" walls stand"), "{}", list.data);
    let detail = busy.sandbox("explain", &["--json"]).ended(0).json().remove(0);
    let detail = &detail["sandbox"];
    assert_eq!((detail["status"].as_str(), detail["living"]["status"].as_str()), (Some("held"), Some("held")));
    assert!(detail["walls"].as_array().unwrap().len() >= 10 && detail["about"]["root"].is_string(), "{detail}");
    let told = busy.sandbox("explain", &[]).ended(0).data;
    assert!(told.contains("refuses: ") && told.contains("limits: ") && told.contains("workspace: "), "{told}");
    // Input, both outputs and the code of a command; a signal is told.
    let mut child =
        busy.project.command(&["sandbox", "exec", &busy.sandbox, "--", "sh", "-c", "cat; echo oops >&2; exit 7"]);
    let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // What comes back must be read meanwhile: a reader that waits holds up the command, and so its input.
    let mut input = child.stdin.take().unwrap();
    let writing = std::thread::spawn(move || input.write_all(&vec![b'x'; 1 << 20]));
    let said = Said::of(child.wait_with_output().unwrap()).ended(7);
    writing.join().unwrap().unwrap();
    assert_eq!((said.data.len(), said.talk.as_str()), (1 << 20, "oops\n"));
    let killed = busy.sh("kill -SEGV $$").ended(128 + 11);
    assert!(killed.talk.contains("ended by signal 11"), "{}", killed.talk);
    assert_eq!(busy.sandbox("exec", &["-t", "--", "stty", "size"]).ended(0).data, "24 80\r\n");
    let json = busy.sandbox("exec", &["--json", "--", "cat", "hello.txt"]).ended(0).json();
    assert_eq!(json, [serde_json::json!({"stdout": "greeting\n"}), serde_json::json!({"exit": {"code": 0}})]);
    let missing = busy.sandbox("exec", &["--", "no-such-program"]).ended(1);
    assert!(
        missing.talk.contains("no such program") && missing.talk.contains("code: sandbox_command"),
        "{}",
        missing.talk
    );
    // All of it is on record, before it was done and by whom.
    let operated = |record: &Value| record["record"]["kind"] == "operated";
    let deeds: Vec<Value> = busy.log().into_iter().filter(operated).collect();
    assert_eq!(deeds.len(), 5, "{deeds:?}");
    assert!(deeds[1].to_string().contains("kill -SEGV") && deeds[1]["record"]["principal"].is_string(), "{}", deeds[1]);
    // Its end is told to the call that was in it, and the run goes on.
    let ended = busy.sandbox("kill", &["--json"]).ended(0).json().remove(0);
    assert_eq!(ended["ended"]["status"], "gone");
    let finished = |log: &[Value]| log.iter().any(|line| line["record"]["kind"] == "finished");
    let log = (0..600).map(|_| busy.log()).find(|log| finished(log)).expect("the run ends");
    let returned = log.iter().find(|line| line["record"]["kind"] == "returned").unwrap().to_string();
    assert!(returned.contains("sandbox_gone") && returned.contains("ended by an operator"), "{returned}");
    let gone = busy.sandbox("explain", &[]).ended(0).data;
    assert!(gone.contains("gone") && gone.contains("walls it had:"), "{gone}");
    busy.sandbox("kill", &[]).ended(1);
    busy.serving.signal("-TERM");
    busy.serving.wait().ended(0);
}

#[test]
fn a_port_is_reached_by_http_and_websocket() {
    let test = "a_port_is_reached_by_http_and_websocket";
    if !has_sandbox(test) {
        return;
    }
    let busy = Busy::new();
    if busy.sh("command -v python3").code != Some(0) {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{test} needs python3");
        return;
    }
    let link = busy.link("8000");
    // The server inside has just been started; nobody else says when it listens.
    let answer = || ask(&busy.url, "GET", &format!("{link}hello.txt"), "", "");
    let (status, body) = (0..600).map(|_| answer()).find(|(status, _)| *status != 502).unwrap();
    assert_eq!((status, body.as_str()), (200, "greeting\n"));
    // A large file passes through without staying.
    busy.sh("head -c 104857600 /dev/zero > large").ended(0);
    let before = peak_kib(busy.serving.process());
    let mut stream = connect(&busy.url);
    write!(stream, "GET {link}large HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n").unwrap();
    let (mut bytes, mut buffer) = (0, vec![0; 64 << 10]);
    loop {
        match stream.read(&mut buffer).unwrap() {
            0 => break,
            length => bytes += length,
        }
    }
    assert!(bytes > 100 << 20, "{bytes}");
    let grown = peak_kib(busy.serving.process()).saturating_sub(before);
    assert!(grown < 32 << 10, "the service grew by {grown} KiB");
    // A WebSocket, frame by frame.
    let mut socket = busy.project.start(&["sandbox", "exec", &busy.sandbox, "--", "python3", "-c", SOCKET]);
    assert_eq!(socket.line(), "listens");
    let mut stream = connect(&busy.url);
    let path = busy.link("8001");
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    .unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0; 1];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("HTTP/1.1 101") && head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
    stream.write_all(&[0x81, 0x82, 1, 2, 3, 4, b'h' ^ 1, b'i' ^ 2]).unwrap();
    let mut back = [0; 4];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"\x81\x02hi");
    // The end of the sandbox is the end of what goes on in it.
    busy.sandbox("kill", &[]).ended(0);
    assert_eq!(stream.read(&mut back).unwrap_or(0), 0);
    let (status, body) = ask(&busy.url, "GET", &link, "", "");
    assert_eq!((status, code(&body).as_str()), (404, "sandbox_gone"));
    drop(socket);
    busy.serving.signal("-TERM");
    busy.serving.wait().ended(0);
}

#[test]
fn what_a_dead_service_left_is_listed_and_ended() {
    if !has_sandbox("what_a_dead_service_left_is_listed_and_ended") {
        return;
    }
    let busy = Busy::new();
    busy.serving.signal("-KILL");
    let Busy { project, serving, sandbox, .. } = busy;
    assert_eq!(serving.wait().code, None);
    let list = project.topside(&["sandbox", "list", "--json"]).ended(0).json();
    assert_eq!((list.len(), list[0]["sandbox"]["status"].as_str()), (1, Some("left")), "{list:?}");
    assert_eq!(list[0]["sandbox"]["sandbox_id"], sandbox.as_str());
    let explained = project.topside(&["sandbox", "explain", &sandbox, "--json"]).ended(0).json().remove(0);
    let explained = &explained["sandbox"];
    assert_eq!((explained["status"].as_str(), explained["about"].is_null()), (Some("left"), true), "{explained}");
    assert!(explained["walls"].as_array().unwrap().iter().all(|wall| wall["refuses"].is_string()), "{explained}");
    let told = project.topside(&["sandbox", "explain", &sandbox]).ended(0);
    assert!(told.data.contains("refuses: ") && told.talk.contains("no service answers"), "{}", told.data);
    let entered = project.topside(&["sandbox", "exec", &sandbox, "--", "id"]).ended(1);
    assert!(entered.talk.contains("code: service_missing"), "{}", entered.talk);
    let killed = project.topside(&["sandbox", "kill", &sandbox]).ended(0);
    assert!(killed.data.contains("is gone"), "{}", killed.data);
    assert_eq!(project.topside(&["sandbox", "list", "--json"]).ended(0).data, "");
    let gone = project.topside(&["sandbox", "explain", &sandbox]).ended(1);
    let codes = ["sandbox_not_found", "service_missing"].map(|code| format!("code: {code}"));
    assert!(codes.iter().any(|code| gone.talk.contains(code)), "{}", gone.talk);
    let again = project.topside(&["sandbox", "kill", &sandbox]).ended(1);
    assert!(again.talk.contains("code: sandbox_not_found"), "{}", again.talk);
}
