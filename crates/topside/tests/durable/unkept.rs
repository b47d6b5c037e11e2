//! Workspaces that are not kept, because the agent says so or because they are too large: what is on record, that the run goes on all
//! the same, that nothing can be forked from there, and what is said when such a workspace is lost.

use crate::kit::{Project, has_sandbox, kind};
use crate::service::{Service, text};
use serde_json::json;

/// As many links as no checkpoint holds: 50 times 5,000, with the folders.
const MANY: &str = "mkdir 0; cd 0; seq 5000 | xargs touch; cd ..; for copy in $(seq 50); do cp -al 0 copy$copy; done";

fn transcript(work: &str) -> String {
    format!(
        r#"title: one who works
steps:
- expect: {{user: 'Work'}}
  reply:
  - call: {{id: work, tool: exec_command, arguments: {{cmd: "{work}; echo kept > a.txt; cat a.txt", yield_time_ms: 300000}}}}
- expect: {{outputs: {{work: '(?s)exited with code 0.*Output:\nkept'}}}}
  reply:
  - text: "Worked."
- expect: {{user: 'Look'}}
  reply:
  - call: {{id: look, tool: exec_command, arguments: {{cmd: "cat a.txt", yield_time_ms: 30000}}}}
- expect: {{outputs: {{look: '(?s)exited with code 0.*Output:\nkept'}}}}
  reply:
  - text: "There it is."
"#
    )
}

/// Plays it: work, look, lose the workspace, look again. `reason`: why it was not kept.
fn check(checkpoint: &str, work: &str, reason: &str) {
    let agent = format!("---\nmodel: main\nsandbox: {{provider: local, checkpoint: {checkpoint}}}\n---\nYou work.\n");
    let project = Project::of(&[
        ("topside.yaml", "default_agent: worker\nsandbox: {limits: {workspace_inodes_max: 500000}}\n"),
        ("agents/worker.md", &agent),
        ("models/main.yaml", "main: {provider: script, transcript: script.yaml}\n"),
        ("script.yaml", &transcript(work)),
    ]);
    let service = Service::start(&project);
    for message in ["Work.", "Look."] {
        let run = service.begin("day", message);
        let ended = service.standing(&run, "completed");
        let told: Vec<_> = service.records(&run).into_iter().filter(|record| kind(record) == "checkpointed").collect();
        assert!(!told.is_empty() || message != "Work.", "nothing says that the workspace was not kept: {ended}");
        for record in told {
            assert_eq!(record["body"]["checkpoint"], serde_json::Value::Null, "{record}");
            assert_eq!(record["body"]["reason"], reason, "{record}");
        }
    }
    let places = service.get("/sessions/day/checkpoints").was(200);
    let at: Vec<u64> =
        places["checkpoints"].as_array().unwrap().iter().map(|place| place["at"].as_u64().unwrap()).collect();
    assert_eq!(at, [1], "only where there were no files yet");
    let records = service.get("/sessions/day").was(200)["records"].as_u64().unwrap();
    let refused = service.post("/sessions/day/fork", &json!({"at": records}).to_string());
    assert_eq!(refused.refusal(), "409 not_forkable");
    let session = text(&service.get("/sessions/day").was(200), "session_id");
    service.stop();
    std::fs::remove_dir_all(project.data().join("workspaces/default").join(session)).unwrap();
    let service = Service::start(&project);
    let run = service.begin("day", "Look.");
    let ended = service.standing(&run, "failed");
    assert_eq!(text(&ended["error"], "code"), "workspace_lost", "{ended}");
    assert!(service.records(&run).iter().any(|record| kind(record) == "workspace_lost"), "it is on record");
    service.stop();
    project.topside(&["log", "day", "--verify"]).ended(0);
}

#[test]
fn a_workspace_that_is_never_kept_serves_until_it_is_lost_and_is_said_to_be() {
    if has_sandbox("a_workspace_that_is_never_kept_serves_until_it_is_lost_and_is_said_to_be") {
        check("never", "true", "undeclared");
    }
}

#[test]
fn a_workspace_that_is_too_large_is_told_and_the_run_goes_on() {
    if has_sandbox("a_workspace_that_is_too_large_is_told_and_the_run_goes_on") {
        check("turn", MANY, "too_large");
    }
}

/// A run in a project that bounds all workspaces together to 256 MiB, and one of them to this.
fn bounded(workspace_bytes_max: u64, status: &str) -> serde_json::Value {
    let settings = format!(
        "default_agent: worker\nsandbox: {{workspaces_bytes_max: 268435456, limits: {{workspace_bytes_max: {workspace_bytes_max}}}}}\n"
    );
    let project = Project::of(&[
        ("topside.yaml", &settings),
        ("agents/worker.md", "---\nmodel: main\nsandbox: local\n---\nYou work.\n"),
        ("models/main.yaml", "main: {provider: script, transcript: script.yaml}\n"),
        ("script.yaml", &transcript("true")),
    ]);
    let service = Service::start(&project);
    let run = service.begin("day", "Work.");
    let ended = service.standing(&run, status);
    service.stop();
    ended
}

#[test]
fn a_workspace_beyond_the_bound_over_all_is_not_opened_and_the_run_says_why() {
    if has_sandbox("a_workspace_beyond_the_bound_over_all_is_not_opened_and_the_run_says_why") {
        bounded(64 << 20, "completed");
        let ended = bounded(1 << 30, "failed");
        assert_eq!(text(&ended["error"], "code"), "sandbox_limit", "{ended}");
        assert!(text(&ended["error"], "message").contains("workspaces_bytes_max = 268435456"), "{ended}");
    }
}
