//! A sandbox is made when the model names a tool that needs it, or a call wants it, and not for a run that never wants one.

use crate::kit::{Project, has_sandbox, kind};
use crate::outside::{self, request};
use crate::service::{Service, verified};
use serde_json::{Value, json};
use std::io::{BufReader, Write as _};
use std::sync::{Arc, Mutex, mpsc};

const TRANSCRIPT: &str = r#"title: one who works only when asked to
steps:
- expect: {user: 'Say'}
  reply:
  - text: "Said."
- expect: {user: 'Do'}
  reply:
  - call: {id: do, tool: exec_command, arguments: {cmd: "echo done"}}
- expect: {outputs: {do: 'done'}}
  reply:
  - text: "Done."
"#;

fn kinds(records: &[Value]) -> Vec<String> {
    records.iter().map(|record| kind(record).to_owned()).collect()
}

#[test]
fn the_model_is_asked_before_a_sandbox_is_made() {
    if !has_sandbox("the_model_is_asked_before_a_sandbox_is_made") {
        return;
    }
    let project = Project::of(&[
        ("topside.yaml", "default_agent: worker\n"),
        ("agents/worker.md", "---\nmodel: main\nsandbox: {provider: local}\n---\nYou work.\n"),
        ("models/main.yaml", "main: {provider: script, transcript: script.yaml}\n"),
        ("script.yaml", TRANSCRIPT),
    ]);
    let service = Service::start(&project);
    let said = service.begin("day", "Say something.");
    service.standing(&said, "completed");
    let records = kinds(&service.records(&said));
    assert!(!records.iter().any(|kind| kind == "sandbox_opened"), "nobody wanted one: {records:?}");
    assert!(!project.data().join("workspaces/default").exists(), "no workspace either");
    let done = service.begin("day", "Do something.");
    service.standing(&done, "completed");
    let records = kinds(&service.records(&done));
    let first = |wanted: &str| records.iter().position(|kind| kind == wanted).unwrap_or_else(|| panic!("{records:?}"));
    assert!(first("replied") < first("sandbox_opened"), "{records:?}");
    service.stop();
    verified(&project, "day");
}

/// A model that names a tool, says the rest when it is told to, and then a word.
fn slow_model(let_on: mpsc::Receiver<()>) -> String {
    let let_on = Arc::new(Mutex::new(let_on));
    outside::listen(move |mut stream| {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let Some(asked) = request(&mut reader) else { return };
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";
        let _ = stream.write_all(head.as_bytes());
        let mut say = |delta: Value, finish: Option<&str>| {
            let choice = json!({"index": 0, "delta": delta, "finish_reason": finish});
            let chunk = json!({"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "slow", "choices": [choice]});
            let _ = write!(stream, "data: {chunk}\n\n").and_then(|()| stream.flush());
        };
        say(json!({"role": "assistant"}), None);
        if asked.body.contains("\"role\":\"tool\"") {
            say(json!({"content": "Done."}), Some("stop"));
        } else {
            let call = |id: Option<&str>, name: Option<&str>, arguments: &str| json!({"tool_calls": [{"index": 0, "id": id, "type": "function", "function": {"name": name, "arguments": arguments}}]});
            say(call(Some("c1"), Some("exec_command"), ""), None);
            // An error means that the test is over.
            let _ = let_on.lock().unwrap().recv();
            say(call(None, None, "{\"cmd\": \"echo done\"}"), None);
            say(json!({}), Some("tool_calls"));
        }
        let _ = write!(stream, "data: [DONE]\n\n");
    })
}

#[test]
fn a_sandbox_is_made_while_the_model_says_what_it_is_for() {
    if !has_sandbox("a_sandbox_is_made_while_the_model_says_what_it_is_for") {
        return;
    }
    let (let_on, gate) = mpsc::sync_channel(1);
    let url = slow_model(gate);
    let model =
        format!("main: {{provider: openai-compatible, wire: chat, name: slow, url: '{url}/v1', stream: true}}\n");
    let project = Project::of(&[
        ("topside.yaml", "default_agent: worker\n"),
        ("agents/worker.md", "---\nmodel: main\nsandbox: {provider: local}\n---\nYou work.\n"),
        ("models/main.yaml", &model),
    ]);
    let service = Service::start(&project);
    let run = service.begin("day", "Do something.");
    // The model has named a tool, and goes on when the sandbox is on record: were it not made before, nothing would come.
    service.record(&run, |record| kind(record) == "sandbox_opened");
    assert!(!kinds(&service.records(&run)).iter().any(|kind| kind == "replied"), "it was to wait");
    let_on.send(()).unwrap();
    let ended = service.standing(&run, "completed");
    assert_eq!(ended["reply"], "Done.", "{ended}");
    assert_eq!(kinds(&service.records(&run)).iter().filter(|kind| *kind == "sandbox_opened").count(), 1);
    service.stop();
    verified(&project, "day");
}

const FILES: usize = 3_000;

#[test]
fn the_record_of_a_start_names_its_stages() {
    if !has_sandbox("the_record_of_a_start_names_its_stages") {
        return;
    }
    let project = Project::of(&[
        ("topside.yaml", "default_agent: worker\n"),
        ("agents/worker.md", "---\nmodel: main\nsandbox: {provider: local, manifest: many}\n---\nYou work.\n"),
        ("models/main.yaml", "main: {provider: script, transcript: script.yaml}\n"),
        ("script.yaml", TRANSCRIPT),
        ("manifests/many.yaml", "entries:\n  many: {type: local_dir, source: many}\n"),
    ]);
    std::fs::create_dir(project.path().join("many")).unwrap();
    for n in 0..FILES {
        std::fs::write(project.path().join(format!("many/{n}")), format!("{n}\n")).unwrap();
    }
    let service = Service::start(&project);
    service.standing(&service.begin("day", "Say something."), "completed");
    let done = service.begin("day", "Do something.");
    service.standing(&done, "completed");
    let opened = service.record(&done, |record| kind(record) == "sandbox_opened");
    let stages = opened["body"]["start"]["stages"].as_array().unwrap();
    let names: Vec<&str> = stages.iter().map(|stage| stage["stage"].as_str().unwrap()).collect();
    assert_eq!((names.first(), names.last()), (Some(&"claim"), Some(&"manifest")), "{opened}");
    let slowest = stages.iter().max_by_key(|stage| stage["duration_us"].as_u64()).unwrap();
    assert_eq!(slowest["stage"], "manifest", "{opened}");
    let way = opened["body"]["start"]["way"].as_str();
    assert!(matches!(way, Some("cold" | "warm")), "{opened}");
    let log = project.topside(&["log", "day"]).ended(0).data;
    assert!(log.contains(", manifest "), "{log}");
    service.stop();
}
