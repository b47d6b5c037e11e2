//! Calls that wait for approval: across restarts, clocks that jump, another agent and another policy; and whose votes count.

use crate::kit::{Project, kind};
use crate::service::{Service, key, skipped, text, verified};
use crate::witness::Witness;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

const WORKER: &str = "---\nmodel: main\ntools: [publish]\n---\nYou publish what you are given.\n";
const MODEL: &str = "main: {provider: script, transcript: main.yaml}\n";
const SCRIPT: &str = r#"title: press
steps:
- expect: {user: 'Publish'}
  reply:
  - call: {id: c1, tool: publish, arguments: {text: news}}
- expect: {outputs: {c1: '(?<answer>[^\n]*)'}}
  reply:
  - text: "The answer: ${answer}"
- expect: {user: 'Note'}
  reply:
  - text: "Noted."
"#;
const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

fn policy(approval: &str) -> String {
    format!("@id(\"press\") {approval}\npermit (principal, action == Action::\"external\", resource);\n")
}

/// A project whose only tool publishes at `path` of the witness, when somebody approved.
fn press(witness: &Witness, approval: &str) -> Project {
    Project::of(&[
        ("topside.yaml", "default_agent: worker\n"),
        ("agents/worker.md", WORKER),
        ("models/main.yaml", MODEL),
        ("main.yaml", SCRIPT),
        ("tools/publish.yaml", &witness.tool("/old", "")),
        ("policies/press.cedar", &policy(approval)),
    ])
}

/// Puts another file there in one step, as a deployment does.
fn replace(project: &Project, name: &str, text: &str) {
    let beside = project.path().join("next");
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(beside, project.path().join(name)).unwrap();
}

/// Begins a run and waits until its call is held; gives the run and the call.
fn held(service: &Service, session: &str) -> (String, String) {
    let run = service.begin(session, "Publish it.");
    let standing = service.standing(&run, "waiting");
    assert_eq!(standing["waits_for"], "approval", "{standing}");
    let call = standing["approvals"][0].as_str().unwrap().to_owned();
    (run, call)
}

fn vote(service: &Service, key: &str, call: &str, body: &Value) -> crate::service::Answer {
    service.post_as(key, &format!("/approvals/{call}"), &body.to_string())
}

const APPROVE: &str = r#"{"vote": "approve"}"#;

/// The run and its call still wait, and nothing reached the witness.
#[track_caller]
fn waits(service: &Service, witness: &Witness, run: &str, call: &str) {
    assert_eq!(service.run(run)["status"], "waiting");
    let listed = service.get("/approvals").was(200);
    let calls: Vec<&Value> = listed["approvals"].as_array().unwrap().iter().map(|one| &one["call_id"]).collect();
    assert_eq!(calls, [call]);
    assert_eq!(witness.requests(), [""; 0]);
}

#[test]
fn a_held_run_survives_restarts() {
    let witness = Witness::start();
    let project = press(&witness, "@approval(\"always\")");
    let service = Service::start(&project);
    let (run, call) = held(&service, "s");
    service.stop();
    let service = Service::start(&project);
    waits(&service, &witness, &run, &call);
    service.kill();
    let service = Service::start(&project);
    waits(&service, &witness, &run, &call);
    service.post(&format!("/approvals/{call}"), APPROVE).was(200);
    let run = service.standing(&run, "completed");
    assert_eq!(text(&run, "reply"), "The answer: told");
    service.stop();
    assert_eq!(witness.requests(), [r#"/old {"text":"news"}"#]);
    let kinds = verified(&project, "s");
    let kinds: Vec<&str> = kinds.iter().map(kind).collect();
    // Neither restart left a trace: a run that waits is in no process.
    assert_eq!(kinds.iter().filter(|kind| **kind == "resumed").count(), 1, "{kinds:?}");
    assert_eq!(kinds.iter().filter(|kind| **kind == "began").count(), 1, "{kinds:?}");
}

/// The library that fakes the clock, where this machine has it.
fn faketime(test: &str) -> Option<&'static Path> {
    let places = ["/usr/lib/x86_64-linux-gnu/faketime", "/usr/lib/aarch64-linux-gnu/faketime", "/usr/lib/faketime"];
    let found = places.iter().map(|place| Path::new(place).join("libfaketimeMT.so.1")).find(|path| path.exists());
    if found.is_none() {
        skipped(test, "no libfaketime; hint: install faketime");
    }
    found.map(|path| &*Box::leak(path.into_boxed_path()))
}

/// Has the wall clock of a process follow the offset in a file of the project.
fn faked(project: &Project, library: &Path, offset: &str) -> Service {
    set_clock(project, offset);
    let mut command: Command = project.command(&["serve", "--listen", "127.0.0.1:0"]);
    command.env("LD_PRELOAD", library).env("FAKETIME_TIMESTAMP_FILE", project.path().join("offset"));
    command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("DONT_FAKE_MONOTONIC", "1");
    Service::of(command)
}

fn set_clock(project: &Project, offset: &str) {
    replace(project, "offset", &format!("{offset}\n"));
}

/// When the service says that it is.
fn now_ms(service: &Service, session: &str) -> i64 {
    let run = service.begin(session, "Note this.");
    service.standing(&run, "completed")["created_ms"].as_i64().unwrap()
}

#[test]
fn a_held_run_survives_clocks_that_jump() {
    let Some(library) = faketime("a_held_run_survives_clocks_that_jump") else { return };
    let witness = Witness::start();
    let project = press(&witness, "@approval(\"always\")");
    let service = faked(&project, library, "+0");
    let (run, call) = held(&service, "s");
    let since = service.get(&format!("/approvals/{call}")).was(200)["since_ms"].as_i64().unwrap();
    // While the process runs, and the faked clock is seen to jump.
    for (offset, days) in [("+1d", 1), ("-1d", -1), ("+0", 0)] {
        set_clock(&project, offset);
        let off = now_ms(&service, "notes") - since - days * DAY_MS;
        assert!(off.abs() < DAY_MS / 2, "the clock did not jump by {offset}: {off} ms off");
        waits(&service, &witness, &run, &call);
    }
    service.kill();
    // While no process runs.
    let service = faked(&project, library, "+1d");
    assert!(now_ms(&service, "notes") > since + DAY_MS / 2);
    waits(&service, &witness, &run, &call);
    service.stop();
    let service = faked(&project, library, "-1d");
    waits(&service, &witness, &run, &call);
    service.post(&format!("/approvals/{call}"), APPROVE).was(200);
    assert_eq!(text(&service.standing(&run, "completed"), "reply"), "The answer: told");
    assert_eq!(witness.requests(), [r#"/old {"text":"news"}"#]);
    service.stop();
    let records = verified(&project, "s");
    let voted = records.iter().find(|record| kind(record) == "voted").unwrap();
    assert!(voted["at_ms"].as_i64().unwrap() < since - DAY_MS / 2, "the vote was not cast a day before: {voted}");
}

#[test]
fn an_approval_that_comes_too_late_is_none() {
    let Some(library) = faketime("an_approval_that_comes_too_late_is_none") else { return };
    let witness = Witness::start();
    let project = press(&witness, "@approval(\"always\") @expires(\"2h\")");
    let service = faked(&project, library, "+0");
    let (run, call) = held(&service, "s");
    set_clock(&project, "+1d");
    let late = service.post(&format!("/approvals/{call}"), APPROVE);
    assert_eq!(late.refusal(), "409 approval_expired");
    let run = service.standing(&run, "completed");
    assert!(text(&run, "reply").contains("time"), "the model was told something else: {run}");
    let late = service.post(&format!("/approvals/{call}"), APPROVE);
    assert_eq!(late.refusal(), "409 approval_expired");
    assert_eq!(witness.requests(), [""; 0]);
    service.stop();
    verified(&project, "s");
}

#[test]
fn a_held_run_keeps_its_agent_when_another_is_deployed() {
    let witness = Witness::start();
    let project = press(&witness, "@approval(\"always\")");
    let service = Service::start(&project);
    let (old, old_call) = held(&service, "old");
    replace(&project, "tools/publish.yaml", &witness.tool("/new", ""));
    replace(&project, "agents/worker.md", &WORKER.replace("publish what", "print what"));
    replace(&project, "main.yaml", &SCRIPT.replace("The answer", "The new answer"));
    service.until_in_force(1);
    let (new, new_call) = held(&service, "new");
    service.stop();
    let service = Service::start(&project);
    let bindings =
        [&old_call, &new_call].map(|call| text(&service.get(&format!("/approvals/{call}")).was(200), "binding"));
    assert_ne!(bindings[0], bindings[1], "the same call of another agent is bound to the same");
    // An approval of the one is none of the other.
    let crossed = json!({"vote": "approve", "binding": bindings[0]}).to_string();
    assert_eq!(service.post(&format!("/approvals/{new_call}"), &crossed).refusal(), "409 approval_stale");
    for (run, call, reply) in [(&old, &old_call, "The answer: told"), (&new, &new_call, "The new answer: told")] {
        service.post(&format!("/approvals/{call}"), APPROVE).was(200);
        assert_eq!(text(&service.standing(run, "completed"), "reply"), reply);
    }
    assert_eq!(witness.requests(), [r#"/old {"text":"news"}"#, r#"/new {"text":"news"}"#]);
    service.stop();
    for session in ["old", "new"] {
        verified(&project, session);
    }
}

#[test]
fn only_votes_of_distinct_others_on_what_is_asked_for_now_count() {
    let witness = Witness::start();
    let project = press(&witness, "@approval(\"always\")");
    let alice = key(&project, "alice", &["runs:read", "runs:write", "approvals:write"]);
    let [bob, carol, dave] =
        ["bob", "carol", "dave"].map(|name| key(&project, name, &["runs:read", "approvals:write"]));
    let reader = key(&project, "erin", &["runs:read", "runs:write"]);
    let service = Service::start(&project).with_key(&alice);
    let (run, call) = held(&service, "s");
    let shown = |service: &Service| service.get(&format!("/approvals/{call}")).was(200);
    let asked_for_one = shown(&service);
    let old = json!({"vote": "approve", "binding": asked_for_one["binding"]});
    assert_eq!(vote(&service, &reader, &call, &old).refusal(), "403 scope_missing");
    assert_eq!(vote(&service, &alice, &call, &old).refusal(), "409 approval_requester");
    // More is asked for than Bob was shown: his vote is taken, the call is judged again, and waits for two.
    replace(&project, "policies/press.cedar", &policy("@approval(\"quorum 2\")"));
    service.until_in_force(1);
    vote(&service, &bob, &call, &old).was(200);
    service.record(&run, |record| kind(record) == "judged" && record["body"]["obligation"]["quorum"] == 2);
    let asked_for_two = shown(&service);
    assert_eq!((&asked_for_two["quorum"], &asked_for_two["approvals"]), (&json!(2), &json!([])), "{asked_for_two}");
    assert_ne!(asked_for_one["binding"], asked_for_two["binding"], "what Bob was shown is bound to the same");
    let new = json!({"vote": "approve", "binding": asked_for_two["binding"]});
    let rows = [
        ("a vote on what was asked for before", &carol, &old, "409 approval_stale"),
        ("the same by the one who cast it before", &bob, &old, "409 approval_stale"),
        ("the requester's", &alice, &new, "409 approval_requester"),
        ("the first", &bob, &new, "200"),
        ("a second of the same principal", &bob, &new, "409 approval_twice"),
        ("the last that is needed", &carol, &new, "200"),
        ("one after the decision", &dave, &new, "409 approval_decided"),
        ("a rejection after the decision", &dave, &json!({"vote": "reject"}), "409 approval_decided"),
    ];
    for (what, who, body, expected) in rows {
        let answer = vote(&service, who, &call, body);
        let said = if answer.status == 200 { "200".to_owned() } else { answer.refusal() };
        assert_eq!(said, expected, "{what}: {}", answer.body);
        if expected == "409 approval_twice" {
            assert_eq!(witness.requests(), [""; 0], "the call was made before enough had approved");
        }
    }
    service.standing(&run, "completed");
    assert_eq!(witness.requests(), [r#"/old {"text":"news"}"#]);
    service.stop();
    verified(&project, "s");
}

#[test]
fn a_rejection_is_enough_and_the_model_is_told_why() {
    let witness = Witness::start();
    let project = press(&witness, "@approval(\"quorum 3\")");
    let service = Service::start(&project);
    let (run, call) = held(&service, "s");
    service.post(&format!("/approvals/{call}"), r#"{"vote": "reject", "reason": "Not today."}"#).was(200);
    let run = service.standing(&run, "completed");
    assert!(text(&run, "reply").contains("Not today."), "{run}");
    assert_eq!(service.post(&format!("/approvals/{call}"), APPROVE).refusal(), "409 approval_not_held");
    assert_eq!(witness.requests(), [""; 0]);
}
