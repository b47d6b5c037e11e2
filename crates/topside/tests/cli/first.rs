//! The way of a newcomer: `new`, `check`, `run`, `log`.

use crate::kit::{Project, has_sandbox, kind};

#[test]
fn a_first_project_runs_as_it_was_written() {
    let home = Project::of(&[]);
    let made = home.topside(&["new", "first"]).ended(0);
    assert!(made.talk.contains("now: topside run clerk"), "{}", made.talk);
    let checked = home.topside(&["check", "--project", "first"]).ended(0);
    assert!(checked.data.contains("agent clerk (default)"), "{}", checked.data);
    assert!(checked.data.contains("a transcript, no model"), "{}", checked.data);
    home.topside(&["new", "first"]).ended(1);
    if !has_sandbox("a_first_project_runs_as_it_was_written") {
        return;
    }
    let run = home.topside(&["run", "clerk", "Add up the bills.", "--project", "first", "--session", "jan"]).ended(0);
    assert_eq!(run.data, "The bills come to 114.35; the total is in total.txt.\n");
    for part in [
        "$ cat bills.csv\n",
        "  2026-01-04,bakery,12.40\n",
        "completed · 3 turns · 2 tool calls",
        "no cost",
        "A total.txt",
        "model: transcript \"the clerk's first day\" (no model was called)",
        "record: topside log jan --data ",
    ] {
        assert!(run.talk.contains(part), "{part:?} is not in\n{}", run.talk);
    }
    let file = run.talk.lines().find_map(|line| line.strip_prefix("file: ")).unwrap();
    assert_eq!(std::fs::read_to_string(file).unwrap(), "114.35\n");
    let log = home.topside(&["log", "jan", "--data", "first/.topside", "--verify"]).ended(0);
    assert!(log.data.contains("message: Add up the bills."), "{}", log.data);
    let last = log.data.lines().last().unwrap();
    assert!(last.starts_with("chain of 17 records verifies, head "), "{last}");
}

#[test]
fn json_is_one_object_per_line() {
    if !has_sandbox("json_is_one_object_per_line") {
        return;
    }
    let home = Project::of(&[]);
    home.topside(&["new", "first"]).ended(0);
    let run = home.topside(&["run", "clerk", "Add.", "--project", "first", "--json", "--session", "s"]).ended(0);
    let lines = run.json();
    let (last, records) = lines.split_last().unwrap();
    assert_eq!(last["run"]["status"], "completed");
    assert!(last["files"][0].as_str().unwrap().ends_with("/total.txt"));
    let positions: Vec<u64> = records.iter().map(|line| line["record"]["position"].as_u64().unwrap()).collect();
    assert_eq!(positions, (0..17).collect::<Vec<_>>());
    let log = home.topside(&["log", "s", "--data", "first/.topside", "--json"]).ended(0);
    let logged = log.json();
    let (verified, logged) = logged.split_last().unwrap();
    assert_eq!(verified["verified"]["records"], 17);
    assert_eq!(logged, records, "the log and the live view say different things");
    assert_eq!(kind(&logged[16]["record"]), "finished");
}

#[test]
fn schemas_are_json() {
    let home = Project::of(&[]);
    for kind in ["project", "agent", "model", "tool", "manifest", "prices"] {
        let said = home.topside(&["schema", kind]).ended(0);
        let schema: serde_json::Value = serde_json::from_str(&said.data).unwrap();
        assert!(schema["$schema"].as_str().is_some_and(|uri| uri.contains("2020-12")), "{kind}");
    }
    home.topside(&["schema", "agents"]).ended(2);
}
