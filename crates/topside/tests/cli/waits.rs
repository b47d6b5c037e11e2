//! Runs that wait, as people at a prompt meet them: approve, reject, pause, steer, raise, fork, replay, put aside, back up.

use crate::kit::{Project, Said};
use std::process::Command;

const TRANSCRIPT: &str = r#"
title: bills
steps:
- expect: {user: 'Pay (?<n>\d+)'}
  reply:
  - text: "I will pay."
  - call: {id: pay, tool: pay, arguments: {amount: 3}}
- expect: {outputs: {pay: '(?s)(?<what>no connection|Too dear)'}}
  reply:
  - text: "It said: ${what}"
- expect: {user: 'Hello'}
  reply:
  - text: "Hello."
"#;

/// A clerk whose payments want an approval, and then go nowhere: nobody listens on port 9.
fn clerk() -> Project {
    Project::of(&[
        ("topside.yaml", "default_agent: clerk\n"),
        ("agents/clerk.md", "---\nmodel: main\ntools: [pay]\n---\nYou pay bills.\n"),
        ("models/main.yaml", "main: {provider: script, transcript: bills.yaml}\n"),
        ("bills.yaml", TRANSCRIPT),
        (
            "tools/pay.yaml",
            "description: Pays a bill.\ninput_schema: {type: object, properties: {amount: {type: integer}}, required: [amount]}\neffect: external\nrun: {http: {method: POST, url: \"http://127.0.0.1:9/pay\", body: [amount]}}\n",
        ),
    ])
}

/// Runs the clerk up to where it waits; gives the run and the call.
fn held(project: &Project, session: &str) -> (String, String) {
    let run = project.topside(&["run", "clerk", "Pay 3", "--session", session, "--json"]).ended(8);
    let run = run.json().last().unwrap()["run"].clone();
    assert_eq!((&run["status"], &run["waits_for"]), (&"waiting".into(), &"approval".into()), "{run}");
    (run["run_id"].as_str().unwrap().to_owned(), run["approvals"][0].as_str().unwrap().to_owned())
}

fn records(project: &Project, session: &str) -> u64 {
    let log = project.topside(&["log", session, "--json", "--verify"]).ended(0);
    log.json().last().unwrap()["verified"]["records"].as_u64().unwrap()
}

#[test]
fn a_run_that_waits_says_how_it_goes_on() {
    let project = clerk();
    let run = project.topside(&["run", "clerk", "Pay 3", "--session", "s"]).ended(8);
    let command = run.talk.lines().find_map(|line| line.strip_prefix("  topside approve ")).unwrap();
    assert!(run.talk.contains("! held: somebody must approve"), "{}", run.talk);
    assert!(run.talk.contains("waits for approval, until "), "{}", run.talk);
    let listed = project.topside(&["approvals"]).ended(0);
    assert!(listed.data.starts_with(command) && listed.data.contains("pay {\"amount\":3}"), "{}", listed.data);
    // Exactly as it was printed.
    let approved = project.topside(&["approve", command, "--reason", "Fine."]).ended(0);
    assert!(approved.talk.contains("approved: pay"), "{}", approved.talk);
    assert!(approved.data.contains("no connection"), "{}", approved.data);
    assert!(project.topside(&["approvals"]).ended(0).data.is_empty());
    let again = project.topside(&["approve", command]).ended(1);
    assert!(again.talk.contains("code: approval_"), "{}", again.talk);
    let log = project.topside(&["log", "s", "--verify"]).ended(0);
    for part in ["vote: approve", "reason: Fine.", "waits for: approval"] {
        assert!(log.data.contains(part), "{part:?} is not in\n{}", log.data);
    }
}

#[test]
fn a_call_is_rejected_with_a_reason() {
    let project = clerk();
    let (_, call) = held(&project, "s");
    let rejected = project.topside(&["reject", &call, "--reason", "Too dear."]).ended(0);
    assert_eq!(rejected.data, "It said: Too dear\n");
}

#[test]
fn a_run_is_paused_steered_raised_and_cancelled() {
    let project = clerk();
    let (run, call) = held(&project, "s");
    let paused = project.topside(&["pause", &run]).ended(0);
    assert!(paused.talk.contains(&format!("  topside resume {run}")), "{}", paused.talk);
    project.topside(&["resume", &run]).ended(8);
    project.topside(&["steer", &run, "Hello"]).ended(8);
    project.topside(&["raise", &run, "--turns", "60"]).ended(8);
    let low = project.topside(&["raise", &run, "--turns", "1"]).ended(1);
    assert!(low.talk.contains("code: raise_too_low"), "{}", low.talk);
    project.topside(&["raise", &run]).ended(2);
    project.topside(&["resolve", &run, &call, "--happened", "x", "--did-not-happen"]).ended(2);
    let doubtless = project.topside(&["resolve", &run, &call, "--did-not-happen"]).ended(1);
    assert!(doubtless.talk.contains("code: call_not_in_doubt"), "{}", doubtless.talk);
    let cancelled = project.topside(&["cancel", &run]).ended(0);
    assert!(cancelled.talk.contains("cancelled · "), "{}", cancelled.talk);
    let over = project.topside(&["pause", &run]).ended(1);
    assert!(over.talk.contains("code: run_ended"), "{}", over.talk);
}

#[test]
fn a_session_is_forked_compared_and_replayed_without_a_network() {
    let project = clerk();
    let (run, call) = held(&project, "s");
    project.topside(&["approve", &call]).ended(0);
    let places = project.topside(&["checkpoints", "s"]).ended(0);
    let at = places.data.lines().last().unwrap().split_whitespace().next().unwrap().to_owned();
    assert_eq!(at.parse::<u64>().unwrap(), records(&project, "s"));
    let forked = project.topside(&["fork", "s", "--at", &at, "--name", "f", "--message", "Hello"]).ended(0);
    assert_eq!(forked.data, "f\nHello.\n");
    assert!(forked.talk.contains("done outside before, and stays done: pay at "), "{}", forked.talk);
    let wrong = project.topside(&["fork", "s", "--at", "3"]).ended(1);
    assert!(wrong.talk.contains("code: not_forkable"), "{}", wrong.talk);
    let log = project.topside(&["log", "f", "--json"]).ended(0);
    let other = log.json()[1]["record"]["run_id"].as_str().unwrap().to_owned();
    let differs = project.topside(&["diff", &run, &other]).ended(0);
    assert!(differs.data.contains("message") && differs.data.contains("+ Hello"), "{}", differs.data);
    assert!(project.topside(&["diff", &run, &run]).ended(0).data.is_empty());
    for run in [&run, &other] {
        let replayed = project.topside(&["replay", run]).ended(0);
        assert!(replayed.data.ends_with("records replay as they were written\n"), "{}", replayed.data);
    }
    let can = Command::new("unshare").args(["-n", "true"]).status().is_ok_and(|status| status.success());
    if !can {
        let name = "replay without a network";
        assert!(std::env::var_os("CI").is_none(), "{name}: `unshare -n` is not allowed here");
        eprintln!("SKIPPED {name}: `unshare -n` is not allowed here");
        return;
    }
    let mut command = Command::new("unshare");
    command.args(["-n", env!("CARGO_BIN_EXE_topside"), "replay", &run]).current_dir(project.path()).env_clear();
    Said::of(command.env("PATH", "/usr/bin:/bin").output().unwrap()).ended(0);
}

#[test]
fn a_session_is_put_aside_taken_back_and_deleted() {
    let project = clerk();
    project.topside(&["run", "clerk", "Hello", "--session", "s"]).ended(0);
    project.topside(&["session", "quarantine", "s", "--reason", "To be looked at."]).ended(0);
    let refused = project.topside(&["run", "clerk", "Hello", "--session", "s"]).ended(1);
    assert!(refused.talk.contains("code: session_quarantined"), "{}", refused.talk);
    let looked = project.topside(&["session", "repair", "s"]).ended(0);
    assert!(looked.data.contains("verifies") && looked.talk.contains("To be looked at."), "{looked:?}");
    project.topside(&["session", "release", "s"]).ended(0);
    project.topside(&["run", "clerk", "Hello", "--session", "s"]).ended(0);
    let purged = project.topside(&["session", "purge", "s"]).ended(0);
    assert!(purged.data.contains(" is deleted: 6 records"), "{}", purged.data);
    project.topside(&["log", "s"]).ended(1);
    project.topside(&["session", "repair", "s"]).ended(1);
}

#[test]
fn a_directory_is_backed_up_while_it_serves_and_restored() {
    let project = clerk();
    project.topside(&["run", "clerk", "Hello", "--session", "s"]).ended(0);
    held(&project, "open");
    let mut serving = project.start(&["serve", "--listen", "127.0.0.1:0"]);
    serving.line();
    project.topside(&["backup", "copy", "--keys", "keys"]).ended(0);
    project.topside(&["backup", "copy"]).ended(1);
    serving.signal("-TERM");
    serving.wait().ended(0);
    let restored = project.topside(&["restore", "copy", "--keys", "keys", "--data", "new"]).ended(0);
    assert!(restored.talk.contains("1 sessions had a run under way and are in quarantine"), "{}", restored.talk);
    let log = project.topside(&["log", "s", "--data", "new", "--verify"]).ended(0);
    assert!(log.data.contains("message: Hello"), "{}", log.data);
    project.topside(&["restore", "copy", "--data", "new"]).ended(1);
    let repaired = project.topside(&["repair", "--data", "new"]).ended(0);
    assert!(repaired.data.starts_with("saved: 2 sessions"), "{repaired:?}");
    project.topside(&["repair", "--data", "nowhere"]).ended(1);
}

#[test]
fn a_service_is_asked_where_it_is() {
    let project = clerk();
    std::fs::create_dir(project.data()).unwrap();
    let mut file = String::new();
    let mut key = |name: &str, scopes: &[&str]| {
        let scopes = scopes.iter().flat_map(|scope| ["--scope", scope]);
        let made = project.topside(&["key", "new", name].into_iter().chain(scopes).collect::<Vec<_>>()).ended(0);
        file += &made.data;
        made.talk.split_whitespace().last().unwrap().to_owned()
    };
    let asker = key("asker", &["runs:read", "runs:write"]);
    let boss = key("boss", &["runs:read", "approvals:write"]);
    let admin = key("root", &["admin"]);
    std::fs::write(project.data().join("keys.yaml"), file).unwrap();
    let (run, call) = held(&project, "s");
    let mut serving = project.start(&["serve", "--listen", "127.0.0.1:0"]);
    let url = serving.line();
    let taken = project.topside(&["approve", &call]).ended(4);
    assert!(taken.talk.contains(&format!("--url {url}")), "{}", taken.talk);
    let ask = |key: &str, arguments: &[&str]| {
        let mut command = project.command(arguments);
        Said::of(command.env("TOPSIDE_URL", &url).env("TOPSIDE_KEY", key).output().unwrap())
    };
    assert!(ask(&boss, &["approvals"]).ended(0).data.contains(&call));
    assert!(ask(&asker, &["approve", &call]).ended(1).talk.contains("code: scope_missing"));
    assert!(ask("wrong", &["approvals"]).ended(1).talk.contains("code: not_authenticated"));
    assert!(ask(&asker, &["pause", &run]).ended(0).data.starts_with(&run));
    ask(&asker, &["resume", &run]).ended(0);
    ask(&asker, &["resume"]).ended(2);
    assert!(ask(&boss, &["approve", &call]).ended(0).data.starts_with(&run));
    assert!(ask(&asker, &["session", "purge", "s"]).ended(1).talk.contains("code: scope_missing"));
    ask(&admin, &["session", "repair", "s"]).ended(1);
    serving.signal("-TERM");
    serving.wait().ended(0);
}

#[test]
fn what_needs_others_is_refused_without_a_database() {
    let project = clerk();
    for arguments in [&["worker", "--listen", "127.0.0.1:0"][..], &["serve", "--api-only", "--listen", "127.0.0.1:0"]] {
        let refused = project.topside(arguments).ended(2);
        assert!(refused.talk.contains("code: database_missing"), "{}", refused.talk);
    }
}
