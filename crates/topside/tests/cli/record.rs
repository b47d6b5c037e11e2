//! `topside record` against an endpoint on the loopback interface; then the transcript plays what was said.

use crate::kit::{Project, has_sandbox};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;

/// An endpoint that answers with these outputs, one per request, and then gives the requests it got.
fn endpoint(outputs: Vec<Value>) -> (String, JoinHandle<Vec<Value>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let serving = std::thread::spawn(move || {
        let mut asked = Vec::new();
        for output in outputs {
            let (mut stream, _) = listener.accept().unwrap();
            asked.push(request(&stream));
            let usage = json!({"input_tokens": 10, "output_tokens": 5, "total_tokens": 15});
            let body = json!({
                "id": "resp_1", "object": "response", "status": "completed", "model": "loop-1", "output": [output], "usage": usage
            });
            let body = body.to_string();
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                body.len()
            );
            stream.write_all((head + &body).as_bytes()).unwrap();
        }
        asked
    });
    (url, serving)
}

fn request(stream: &TcpStream) -> Value {
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let line = line.trim_end().to_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    serde_json::from_slice(&body).unwrap()
}

#[test]
fn what_a_live_model_said_is_played_again() {
    if !has_sandbox("what_a_live_model_said_is_played_again") {
        return;
    }
    let arguments = json!({"cmd": "echo one; echo two"}).to_string();
    let (url, serving) = endpoint(vec![
        json!({"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "exec_command", "arguments": arguments}),
        json!({"type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
               "content": [{"type": "output_text", "text": "Two lines.", "annotations": []}]}),
    ]);
    let live = format!("live: {{provider: openai-compatible, url: \"{url}\", name: loop-1, stream: false}}\n");
    let project = Project::of(&[
        ("topside.yaml", "default_agent: worker\n"),
        ("agents/worker.md", "---\nmodel: live\nsandbox: local\n---\nYou count lines.\n"),
        ("models/main.yaml", &live),
    ]);
    let recorded =
        project.topside(&["record", "worker", "Count.", "--out", "said.yaml", "--title", "counting"]).ended(0);
    assert_eq!(recorded.data, "Two lines.\n");
    assert!(recorded.talk.contains("model: loop-1\n"), "{}", recorded.talk);
    assert!(recorded.talk.contains("no price listed"), "{}", recorded.talk);
    let asked = serving.join().unwrap();
    let seen = asked[1]["input"].to_string();
    assert!(seen.contains("one\\\\ntwo") || seen.contains("one\\ntwo"), "the output did not reach the model: {seen}");

    std::fs::write(project.path().join("models/main.yaml"), "live: {provider: script, transcript: said.yaml}\n")
        .unwrap();
    let played = project.topside(&["run", "worker", "Count."]).ended(0);
    assert_eq!(played.data, "Two lines.\n");
    assert!(played.talk.contains("model: transcript \"counting\" (no model was called)"), "{}", played.talk);
    let other = project.topside(&["run", "worker", "Count again."]).ended(1);
    assert!(other.talk.contains("script_unmatched"), "{}", other.talk);
}
