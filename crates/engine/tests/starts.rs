//! Starts of sandboxes that stand still: given up, with the stage and how long each took in the run's record. On a real journal,
//! with a provider whose sandboxes take no files.

#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

mod common;

use common::cells::Cells;
use common::{Project, TENANT, World, ask, records};
use domain::{Event, RunStatus};
use engine::Limits;
use std::sync::Arc;
use std::time::Duration;

const TRANSCRIPT: &str = r#"
title: one command
steps:
- reply:
  - call: {id: c1, tool: exec_command, arguments: {cmd: "true"}}
- reply:
  - text: "Done."
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_stands_still_is_given_up_and_on_record_with_its_stages() {
    let project = Project::new("", &[], TRANSCRIPT);
    project.write("topside.yaml", "default_agent: maya\nretries: {sandbox: {attempts: 2, backoff_seconds: 0.01}}\n");
    project
        .write("agents/maya.md", "---\nmodel: main\nsandbox: {provider: local, manifest: files}\n---\nYou are Maya.\n");
    project.write("manifests/files.yaml", "entries:\n  a.txt: {type: file, content: a}\n");
    let cells = Cells::new();
    cells.hold("lay");
    let limits = Limits { start_lull_ms: 40, ..Limits::default() };
    let engine = project.engine_among(World { limits, ..World::default() }, vec![Arc::new(cells.clone())]);
    let ticket = engine.submit(ask("Go.")).await.unwrap();
    let view = engine.wait(TENANT, ticket.run, Duration::from_secs(60)).await.unwrap();
    assert_eq!(view.status, RunStatus::Failed, "{view:?}");
    let records = records(&engine, ticket.session).await;
    let failure = records.iter().find_map(|record| match &record.event {
        Event::Finished(body) => body.failure.clone(),
        _ => None,
    });
    let failure = failure.expect("it says why");
    assert_eq!(failure.code, "sandbox_start");
    let told = "the sandbox did not start: manifest: nothing has moved for start_lull_ms = 40; took ";
    assert!(failure.message.starts_with(told) && failure.message.contains(" manifest "), "{}", failure.message);
    assert_eq!(cells.deeds(), "make 1, lay 1, close 1, make 2, lay 2, close 2", "each attempt was closed");
    engine.drain(Duration::from_secs(60)).await;
    engine.journal().close().await.unwrap();
}
