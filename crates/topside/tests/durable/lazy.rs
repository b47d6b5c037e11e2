//! A sandbox is made when a call wants it, after the model was asked, and not for a run that never wants one.

use crate::kit::{Project, has_sandbox, kind};
use crate::service::{Service, verified};
use serde_json::Value;

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
