//! `kill -9` of all of it in the middle of a call, and a new process: the run ends, and an outside witness saw each completed call once.

use crate::kit::{Project, has_sandbox, kind};
use rusqlite::Connection;
use serde_json::Value;

const NOTE: &str = "description: Notes a step.\ninput_schema: {type: object, properties: {step: {type: string}}, required: [step]}\neffect: write\nrun: {sql: {database: witness.db, query: \"insert into seen (step) values (:step)\"}}\n";

const WORK: &str = r#"title: work
steps:
- reply:
  - call: {id: one, tool: note, arguments: {step: first}}
- expect: {outputs: {one: ""}}
  reply:
  - call: {id: slow, tool: exec_command, arguments: {cmd: "echo begun; sleep 60", yield_time_ms: 30000}}
- expect: {outputs: {slow: "harness was restarted"}}
  reply:
  - call: {id: two, tool: note, arguments: {step: second}}
- expect: {outputs: {two: ""}}
  reply:
  - text: Both steps are noted.
- expect: {user: Once more}
  reply:
  - text: All is noted already.
"#;

/// A project whose run was killed in the middle of its second call, with the sandbox in which that worked.
fn killed() -> Project {
    let project = Project::playing(WORK, &[("note", NOTE)]);
    let witness = Connection::open(project.path().join("witness.db")).unwrap();
    witness.execute_batch("create table seen (step text)").unwrap();
    let mut running = project.start(&["run", "worker", "Work.", "--json", "--session", "s"]);
    running.until(|record| kind(record) == "sandbox_opened");
    assert_eq!(seen(&project), ["first"]);
    running.kill_all();
    assert_eq!(running.wait().code, None);
    project
}

fn seen(project: &Project) -> Vec<String> {
    let witness = Connection::open(project.path().join("witness.db")).unwrap();
    let mut rows = witness.prepare("select step from seen order by rowid").unwrap();
    rows.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

/// The log is whole, the killed call was ended once, and each completed one was seen once.
fn check_log(project: &Project) {
    let log = project.topside(&["log", "s", "--json", "--verify"]).ended(0).json();
    let kinds: Vec<&str> = log.iter().map(|line| kind(&line["record"])).collect();
    assert_eq!(kinds.iter().filter(|kind| **kind == "resumed").count(), 1, "{kinds:?}");
    let statuses: Vec<&Value> = log
        .iter()
        .filter(|line| kind(&line["record"]) == "returned")
        .map(|line| &line["record"]["body"]["status"])
        .collect();
    assert_eq!(statuses, ["ok", "interrupted", "ok"]);
    assert!(kinds.ends_with(&["finished", ""]), "{kinds:?}");
    assert_eq!(seen(project), ["first", "second"]);
}

#[test]
fn resume_ends_a_killed_run() {
    if !has_sandbox("resume_ends_a_killed_run") {
        return;
    }
    let project = killed();
    let resumed = project.topside(&["resume"]).ended(0);
    assert_eq!(resumed.data, "Both steps are noted.\n", "{}", resumed.talk);
    assert!(resumed.talk.contains("taken up again"), "{}", resumed.talk);
    assert!(!resumed.talk.contains("step=\"first\""), "what was on record is shown again: {}", resumed.talk);
    check_log(&project);
}

#[test]
fn serve_ends_a_killed_run() {
    if !has_sandbox("serve_ends_a_killed_run") {
        return;
    }
    let project = killed();
    let mut serving = project.start(&["serve", "--listen", "127.0.0.1:0"]);
    serving.line();
    wait_for_end(&project);
    serving.signal("-TERM");
    serving.wait().ended(0);
    check_log(&project);
}

/// A second process asks the service for the session until its last record has come.
fn wait_for_end(project: &Project) {
    for _ in 0..600 {
        let log = project.topside(&["log", "s", "--json"]).ended(0).json();
        if log.iter().any(|line| kind(&line["record"]) == "finished") {
            return;
        }
    }
    panic!("the run did not end");
}

#[test]
fn a_new_run_of_the_session_waits_for_the_old_one() {
    if !has_sandbox("a_new_run_of_the_session_waits_for_the_old_one") {
        return;
    }
    let project = killed();
    let said = project.topside(&["run", "worker", "Once more.", "--session", "s"]).ended(0);
    assert!(said.talk.contains("1 unfinished session(s)"), "{}", said.talk);
    assert_eq!(said.data, "All is noted already.\n", "{}", said.talk);
    check_log(&project);
}
