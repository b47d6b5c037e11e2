//! What is said of a run in its middle: end, wait, hear this, use more; and tools that are really killed for it.

use crate::kit::{Project, has_sandbox, kind};
use crate::service::{Service, text, verified};
use crate::witness::Witness;
use serde_json::Value;

/// An agent `worker` with these tools and limits, which plays a transcript, under a policy that allows all.
fn project(transcript: &str, front: &str, tools: &[(&str, &str)]) -> Project {
    let names: Vec<&str> = tools.iter().map(|(name, _)| *name).collect();
    let agent = format!("---\nmodel: main\ntools: [{}]\n{front}---\nYou work.\n", names.join(", "));
    let named: Vec<(String, &str)> = tools.iter().map(|(name, text)| (format!("tools/{name}.yaml"), *text)).collect();
    let mut files = vec![
        ("topside.yaml", "default_agent: worker\n"),
        ("agents/worker.md", &*agent),
        ("models/main.yaml", "main: {provider: script, transcript: main.yaml}\n"),
        ("main.yaml", transcript),
        ("policies/open.cedar", "@id(\"open\")\npermit (principal, action, resource);\n"),
    ];
    files.extend(named.iter().map(|(name, text)| (name.as_str(), *text)));
    Project::of(&files)
}

/// How the calls of a session ended, in order.
fn statuses(records: &[Value]) -> Vec<String> {
    let returned = records.iter().filter(|record| kind(record) == "returned");
    returned.map(|record| text(&record["body"], "status")).collect()
}

const HELD: &str = r#"title: held
steps:
- expect: {user: 'Go'}
  reply:
  - text: "I hold it."
  - call: {id: hold, tool: hold, arguments: {text: it}}
- expect: {outputs: {hold: 'told'}}
  reply:
  - text: "Held to the end."
- expect: {user: 'Also (?<what>\w+)'}
  reply:
  - text: "Heard: ${what}."
"#;

/// A run in the middle of a call that the witness holds.
fn in_a_call(witness: &Witness) -> (Project, Service, String) {
    let project = project(HELD, "", &[("hold", &witness.tool("/hold", ""))]);
    let service = Service::start(&project);
    let run = service.begin("s", "Go.");
    witness.until(1);
    (project, service, run)
}

#[test]
fn cancelling_at_once_kills_the_tool_and_keeps_the_usage() {
    let witness = Witness::start();
    let (project, service, run) = in_a_call(&witness);
    service.post(&format!("/runs/{run}/cancel"), "").was(202);
    let ended = service.standing(&run, "cancelled");
    assert!(ended["usage"]["output_tokens"].as_u64().unwrap() > 0, "{ended}");
    assert_eq!(ended["tool_calls"], 1);
    // It was not left to itself: the witness saw it go.
    witness.until_abandoned();
    // A run that has ended stays as it is, and takes nothing else.
    service.post(&format!("/runs/{run}/cancel"), "").was(202);
    for (path, body) in
        [("pause", ""), ("resume", ""), ("steer", r#"{"message": "Go on."}"#), ("raise", r#"{"turns": 99}"#)]
    {
        let refused = service.post(&format!("/runs/{run}/{path}"), body);
        assert_eq!(refused.refusal(), "409 run_ended", "{path}");
    }
    service.stop();
    let records = verified(&project, "s");
    assert_eq!(records.iter().filter(|record| kind(record) == "replied").count(), 1, "the model was asked again");
}

/// Processes of this machine whose command line names this.
fn processes(mark: &str) -> usize {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = all.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines.filter(|line| String::from_utf8_lossy(line).contains(mark)).count()
}

#[test]
fn cancelling_at_once_kills_what_runs_in_a_sandbox() {
    if !has_sandbox("cancelling_at_once_kills_what_runs_in_a_sandbox") {
        return;
    }
    let mark = format!("86{}", std::process::id());
    let script = format!(
        "title: slow\nsteps:\n- reply:\n  - call: {{id: slow, tool: exec_command, arguments: {{cmd: \"echo begun; sleep {mark}\", yield_time_ms: 30000}}}}\n"
    );
    let project = project(&script, "sandbox: local\n", &[]);
    let service = Service::start(&project);
    let run = service.begin("s", "Go.");
    let mut stream = service.follow(&format!("/runs/{run}/events"), None);
    loop {
        let event = stream.next().unwrap();
        if event.name == "delta.output" && event.data["text"].as_str().unwrap().contains("begun") {
            break;
        }
        assert_ne!(event.name, "finished", "{:?}", event.data);
    }
    let sleeping = format!("sleep\0{mark}");
    assert!((0..100_000).any(|_| processes(&sleeping) > 0), "nothing sleeps");
    service.post(&format!("/runs/{run}/cancel"), "").was(202);
    let ended = service.standing(&run, "cancelled");
    assert!(ended["usage"]["output_tokens"].as_u64().unwrap() > 0, "{ended}");
    assert_eq!(processes(&sleeping), 0, "the run has ended and its process lives");
    service.stop();
    verified(&project, "s");
}

#[test]
fn cancelling_after_the_turn_lets_its_calls_end() {
    let witness = Witness::start();
    let (project, service, run) = in_a_call(&witness);
    service.post(&format!("/runs/{run}/cancel"), r#"{"when": "after_turn"}"#).was(202);
    assert_eq!(service.run(&run)["status"], "running");
    witness.release();
    let ended = service.standing(&run, "cancelled");
    assert_eq!((&ended["turns"], &ended["tool_calls"]), (&1.into(), &1.into()), "{ended}");
    service.stop();
    assert_eq!(statuses(&verified(&project, "s")), ["ok"]);
    assert_eq!(witness.requests().len(), 1);
}

#[test]
fn a_paused_run_waits_across_restarts() {
    let witness = Witness::start();
    let (project, service, run) = in_a_call(&witness);
    service.post(&format!("/runs/{run}/pause"), "").was(202);
    assert_eq!(service.run(&run)["status"], "running", "what has begun goes on");
    witness.release();
    assert_eq!(service.standing(&run, "paused")["waits_for"], "resume");
    service.stop();
    let service = Service::start(&project);
    assert_eq!(service.run(&run)["status"], "paused");
    service.kill();
    let service = Service::start(&project);
    assert_eq!(service.run(&run)["status"], "paused");
    service.post(&format!("/runs/{run}/resume"), "").was(202);
    assert_eq!(text(&service.standing(&run, "completed"), "reply"), "Held to the end.");
    service.stop();
    let records = verified(&project, "s");
    assert_eq!(statuses(&records), ["ok"]);
    let at = |wanted: &str| records.iter().position(|record| kind(record) == wanted).unwrap();
    let replies: Vec<usize> = (0..records.len()).filter(|at| kind(&records[*at]) == "replied").collect();
    assert!(replies.len() == 2 && replies[1] > at("resume_requested"), "the model was asked while the run was paused");
    assert_eq!(witness.requests().len(), 1);
}

#[test]
fn a_message_waits_for_the_end_of_the_turn_or_ends_it() {
    for (when, call, replies) in [("queue", "ok", "Heard: that."), ("interrupt", "cancelled", "Heard: that.")] {
        let witness = Witness::start();
        let (project, service, run) = in_a_call(&witness);
        let body = format!(r#"{{"message": "Also that.", "when": "{when}"}}"#);
        service.post(&format!("/runs/{run}/steer"), &body).was(202);
        if when == "interrupt" {
            witness.until_abandoned();
        } else {
            assert_eq!(service.run(&run)["status"], "running");
            witness.release();
        }
        assert_eq!(text(&service.standing(&run, "completed"), "reply"), replies, "{when}");
        service.stop();
        let records = verified(&project, "s");
        assert_eq!(statuses(&records), [call], "{when}");
        assert_eq!(witness.requests().len(), 1, "{when}");
    }
}

const THREE: &str = r#"title: three
steps:
- expect: {user: 'Go'}
  reply:
  - call: {id: one, tool: tell, arguments: {text: one}}
- expect: {outputs: {one: 'told'}}
  reply:
  - call: {id: two, tool: tell, arguments: {text: two}}
- expect: {outputs: {two: 'told'}}
  reply:
  - call: {id: three, tool: tell, arguments: {text: three}}
- expect: {outputs: {three: 'told'}}
  reply:
  - text: "Three are told."
"#;

#[test]
fn a_run_at_its_limit_asks_for_more_and_repeats_nothing() {
    for limit in ["turns: 2", "tool_calls: 2", "tokens: 15"] {
        let witness = Witness::start();
        let front = format!("limits: {{{limit}, reached: ask}}\n");
        let project = project(THREE, &front, &[("tell", &witness.tool("/tell", ""))]);
        let service = Service::start(&project);
        let run = service.begin("s", "Go.");
        let waiting = service.standing(&run, "waiting");
        assert_eq!(waiting["waits_for"], "budget", "{limit}: {waiting}");
        let told = witness.requests().len();
        assert!((1..3).contains(&told), "{limit}: {told}");
        service.kill();
        let service = Service::start(&project);
        assert_eq!(service.run(&run)["status"], "waiting", "{limit}");
        let low = limit.split_once(": ").map(|(name, value)| format!(r#"{{"{name}": {value}}}"#)).unwrap();
        let refused = service.post(&format!("/runs/{run}/raise"), &low);
        assert_eq!(refused.refusal(), "409 raise_too_low", "{limit}");
        let high = limit.split_once(": ").map(|(name, _)| format!(r#"{{"{name}": 100000}}"#)).unwrap();
        service.post(&format!("/runs/{run}/raise"), &high).was(202);
        assert_eq!(text(&service.standing(&run, "completed"), "reply"), "Three are told.", "{limit}");
        service.stop();
        assert_eq!(witness.requests(), ["one", "two", "three"].map(|text| format!(r#"/tell {{"text":"{text}"}}"#)));
        verified(&project, "s");
    }
}

#[test]
fn a_run_that_stops_at_its_limit_ends_there() {
    let witness = Witness::start();
    let project = project(THREE, "limits: {turns: 2}\n", &[("tell", &witness.tool("/tell", ""))]);
    let service = Service::start(&project);
    let run = service.begin("s", "Go.");
    service.standing(&run, "budget_exhausted");
    assert_eq!(service.post(&format!("/runs/{run}/raise"), r#"{"turns": 9}"#).refusal(), "409 run_ended");
}
