//! Contracts of tools, at the limit: calls whose end nobody saw, conditions that are not met, and nested agents that must ask.

use crate::kit::{Project, kind};
use crate::outside::PAY;
use crate::service::{Service, text, verified};
use crate::witness::Witness;
use serde_json::Value;

const OPEN: &str = "@id(\"open\")\npermit (principal, action, resource);\n";

fn project(files: &[(&str, &str)]) -> Project {
    let mut all = vec![
        ("topside.yaml", "default_agent: worker\n"),
        ("models/main.yaml", "main: {provider: script, transcript: main.yaml}\n"),
    ];
    all.extend(files);
    Project::of(&all)
}

/// A run whose process was killed while the witness held its call.
fn in_doubt(witness: &Witness, more: &str) -> (Project, Service, String) {
    let project = project(&[
        ("agents/worker.md", "---\nmodel: main\ntools: [pay, undo]\n---\nYou pay.\n"),
        ("main.yaml", PAY),
        ("tools/pay.yaml", &witness.tool("/hold", more)),
        ("tools/undo.yaml", &witness.tool("/undo", "")),
        ("policies/open.cedar", OPEN),
    ]);
    let service = Service::start(&project);
    let run = service.begin("s", "Pay ten.");
    witness.until(1);
    service.kill();
    let service = Service::start(&project);
    (project, service, run)
}

#[test]
fn a_call_that_nobody_saw_end_waits_for_somebodys_word() {
    let undo = "rollback: {compensate: undo}\n";
    let rows = [
        (r#""outcome": "happened", "output": "Receipt 7.""#, "Receipt 7.", None),
        (r#""outcome": "did_not_happen""#, "took no effect", None),
        (r#""outcome": "compensate""#, "ndone", Some(r#"/undo {"text":"ten"}"#)),
    ];
    for (outcome, told, undone) in rows {
        let witness = Witness::start();
        let (project, service, run) = in_doubt(&witness, undo);
        let waiting = service.standing(&run, "needs_resolution");
        let call = waiting["in_doubt"][0].as_str().unwrap_or_else(|| panic!("{waiting}")).to_owned();
        // It waits for that, also across another death.
        service.kill();
        let service = Service::start(&project);
        assert_eq!(service.run(&run)["status"], "needs_resolution");
        let resolve = |call: &str, outcome: &str| {
            service.post(&format!("/runs/{run}/resolve"), &format!(r#"{{"call_id": "{call}", {outcome}}}"#))
        };
        let other = call.replace(|one: char| one.is_ascii_digit(), "0");
        assert_eq!(resolve(&other, outcome).refusal(), "404 call_not_found", "{outcome}");
        resolve(&call, outcome).was(202);
        let ended = service.standing(&run, "completed");
        assert!(text(&ended, "reply").contains(told), "{outcome}: {ended}");
        assert_eq!(resolve(&call, outcome).refusal(), "409 run_ended", "{outcome}");
        service.stop();
        let mut expected = vec![r#"/hold {"text":"ten"}"#];
        expected.extend(undone);
        assert_eq!(witness.requests(), expected, "{outcome}");
        let records = verified(&project, "s");
        assert_eq!(records.iter().filter(|record| kind(record) == "in_doubt").count(), 1, "{outcome}");
    }
}

#[test]
fn nothing_is_undone_for_which_no_tool_is_named() {
    let witness = Witness::start();
    let (_project, service, run) = in_doubt(&witness, "");
    let waiting = service.standing(&run, "needs_resolution");
    let call = waiting["in_doubt"][0].as_str().unwrap();
    let body = format!(r#"{{"call_id": "{call}", "outcome": "compensate"}}"#);
    assert_eq!(service.post(&format!("/runs/{run}/resolve"), &body).refusal(), "409 no_compensation");
    assert_eq!(service.run(&run)["status"], "needs_resolution");
    assert_eq!(witness.requests().len(), 1);
}

#[test]
fn a_call_that_the_other_side_knows_again_is_made_again() {
    let witness = Witness::start();
    let (project, service, run) = in_doubt(&witness, "idempotency: call\n");
    witness.until(2);
    witness.release();
    assert_eq!(text(&service.standing(&run, "completed"), "reply"), "told");
    service.stop();
    assert_eq!(witness.requests().len(), 2);
    let keys = witness.keys();
    assert!(keys.iter().all(|key| key.is_some() && *key == keys[0]), "it was not told by the same key: {keys:?}");
    verified(&project, "s");
}

const GATE: &str = "description: Whether the gate is open.\ninput_schema: {type: object, properties: {text: {type: string}}}\neffect: read\nrun: {sql: {database: gate.db, query: \"select open from gate where :text is not null\"}}\n";

#[test]
fn a_call_whose_condition_is_not_met_is_not_made_and_the_model_is_told() {
    let witness = Witness::start();
    let conditions = "preconditions:\n- arguments: {properties: {text: {pattern: '^[a-z]+$'}}}\n  message: Only plain words are paid.\n- tool: {name: gate, arguments: {text: \"${arguments.text}\"}, expect: {contains: {properties: {open: {const: 1}}}, minItems: 1}}\n  message: The gate is closed.\n";
    let script = PAY.replace("text: ten", "text: \"${word}\"").replace("'Pay'", "'Pay (?<word>\\w+)'");
    let project = project(&[
        ("agents/worker.md", "---\nmodel: main\ntools: [pay, gate]\n---\nYou pay.\n"),
        ("main.yaml", &script),
        ("tools/pay.yaml", &witness.tool("/pay", conditions)),
        ("tools/gate.yaml", GATE),
        ("policies/open.cedar", OPEN),
    ]);
    let gate = rusqlite::Connection::open(project.path().join("gate.db")).unwrap();
    gate.execute_batch("create table gate (open integer); insert into gate values (0)").unwrap();
    let service = Service::start(&project);
    let told = |message: &str| text(&service.standing(&service.begin("s", message), "completed"), "reply");
    for (message, answer) in [("Pay 10", "Only plain words are paid."), ("Pay ten", "The gate is closed.")] {
        assert!(told(message).contains(answer), "{message}: {}", told(message));
        assert_eq!(witness.requests(), [""; 0], "{message}");
    }
    gate.execute_batch("update gate set open = 1").unwrap();
    assert_eq!(told("Pay ten"), "told");
    assert_eq!(witness.requests(), [r#"/pay {"text":"ten"}"#]);
    service.stop();
    let records = verified(&project, "s");
    assert!(records.iter().any(|record| kind(record) == "call_added"), "what was looked up is not on record");
}

const OUTER: &str = r#"title: outer
steps:
- expect: {user: 'Go'}
  reply:
  - call: {id: ask, tool: clerk, arguments: {message: "Pay ten."}}
- expect: {outputs: {ask: '(?s)(?<answer>.*)'}}
  reply:
  - text: "The clerk says: ${answer}"
"#;

/// A project whose agent asks another one, which has the tool `pay`.
fn nested(pay: &str) -> Project {
    project(&[
        ("agents/worker.md", "---\nmodel: main\ntools: [clerk]\n---\nYou ask the clerk.\n"),
        ("agents/clerk.md", "---\nmodel: pay\ntools: [pay]\n---\nYou pay.\n"),
        ("models/pay.yaml", "pay: {provider: script, transcript: pay.yaml}\n"),
        ("main.yaml", OUTER),
        ("pay.yaml", PAY),
        ("tools/clerk.yaml", "description: Asks the clerk.\nrun: {agent: clerk}\n"),
        ("tools/pay.yaml", pay),
        ("policies/open.cedar", OPEN),
    ])
}

#[test]
fn a_nested_agent_that_must_ask_is_heard_at_the_top() {
    let witness = Witness::start();
    let project = nested(&witness.tool("/pay", "approval: always\n"));
    let service = Service::start(&project);
    let run = service.begin("s", "Go.");
    let waiting = service.standing(&run, "waiting");
    let call = waiting["approvals"][0].as_str().unwrap_or_else(|| panic!("{waiting}")).to_owned();
    service.kill();
    let service = Service::start(&project);
    let listed = service.get("/approvals").was(200);
    let [approval] = listed["approvals"].as_array().unwrap().as_slice() else { panic!("{listed}") };
    assert_eq!((text(approval, "agent"), text(approval, "call_id")), ("clerk".to_owned(), call.clone()));
    assert_eq!(approval["scope"].as_array().map(Vec::len), Some(1), "{approval}");
    service.post(&format!("/approvals/{call}"), r#"{"vote": "approve"}"#).was(200);
    assert_eq!(text(&service.standing(&run, "completed"), "reply"), "The clerk says: told");
    assert_eq!(witness.requests(), [r#"/pay {"text":"ten"}"#]);
    // The agent that was nested is pinned like any other when it is asked itself.
    let body = r#"{"session": "direct", "agent": "clerk", "message": "Pay ten."}"#;
    let direct = text(&service.ask("POST", "/runs", &["Prefer: respond-async"], body).was(202), "run_id");
    service.standing(&direct, "waiting");
    service.kill();
    let service = Service::start(&project);
    let call = service.run(&direct)["approvals"][0].as_str().unwrap().to_owned();
    service.post(&format!("/approvals/{call}"), r#"{"vote": "approve"}"#).was(200);
    assert_eq!(text(&service.standing(&direct, "completed"), "reply"), "told");
    service.stop();
    let records = verified(&project, "s");
    let opened: Vec<&Value> = records.iter().filter(|record| kind(record) == "scope_opened").collect();
    assert_eq!(opened.len(), 1, "the nested agent began anew");
}

#[test]
fn a_nested_agents_call_in_doubt_is_resolved_at_the_top() {
    let witness = Witness::start();
    let project = nested(&witness.tool("/hold", ""));
    let service = Service::start(&project);
    let run = service.begin("s", "Go.");
    witness.until(1);
    service.kill();
    let service = Service::start(&project);
    let waiting = service.standing(&run, "needs_resolution");
    let call = waiting["in_doubt"][0].as_str().unwrap_or_else(|| panic!("{waiting}"));
    let body = format!(r#"{{"call_id": "{call}", "outcome": "happened", "output": "Receipt 7."}}"#);
    service.post(&format!("/runs/{run}/resolve"), &body).was(202);
    assert_eq!(text(&service.standing(&run, "completed"), "reply"), "The clerk says: Receipt 7.");
    assert_eq!(witness.requests().len(), 1);
    service.stop();
    verified(&project, "s");
}
