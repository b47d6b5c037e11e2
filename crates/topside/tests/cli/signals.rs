//! Ctrl-C and SIGTERM during a run.

use crate::kit::{Project, has_sandbox, kind};

const SLOW: &str = "title: slow\nsteps:\n- reply:\n  - call: {id: slow, tool: exec_command, arguments: {cmd: \"echo begun; sleep 60\", yield_time_ms: 30000}}\n- expect: {outputs: {slow: \"harness was restarted\"}}\n  reply:\n  - text: It was interrupted.\n";

#[test]
fn ctrl_c_cancels_the_run() {
    if !has_sandbox("ctrl_c_cancels_the_run") {
        return;
    }
    let project = Project::playing(SLOW, &[]);
    let mut running = project.start(&["run", "worker", "Begin.", "--json", "--session", "s"]);
    running.until(|record| kind(record) == "sandbox_opened");
    running.signal("-INT");
    let said = running.wait().ended(130);
    let last = said.json().pop().unwrap();
    assert_eq!(last["run"]["status"], "cancelled", "{}", said.talk);
    let log = project.topside(&["log", "s", "--json", "--verify"]).ended(0).json();
    let [.., finished, verified] = log.as_slice() else { panic!("a short log: {log:?}") };
    assert_eq!((kind(&finished["record"]), &finished["record"]["body"]["status"]), ("finished", &"cancelled".into()));
    assert!(verified["verified"]["records"].is_u64());
    let unfinished = project.topside(&["resume"]).ended(0);
    assert!(unfinished.talk.contains("no unfinished run"), "{}", unfinished.talk);
}

#[test]
fn sigterm_leaves_the_run_for_resume() {
    if !has_sandbox("sigterm_leaves_the_run_for_resume") {
        return;
    }
    let project = Project::playing(SLOW, &[]);
    let mut running = project.start(&["run", "worker", "Begin.", "--json", "--session", "s"]);
    running.until(|record| kind(record) == "sandbox_opened");
    running.signal("-TERM");
    running.wait().ended(143);
    let resumed = project.topside(&["resume"]).ended(0);
    assert_eq!(resumed.data, "It was interrupted.\n", "{}", resumed.talk);
    project.topside(&["log", "s", "--verify"]).ended(0);
}
