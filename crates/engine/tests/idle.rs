//! Sandboxes whose sessions have nothing to do: what is done with them, and in which order. On a real journal, with sandboxes that
//! are played.

#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

mod common;

use common::cells::Cells;
use common::{Project, TENANT, World, ask, kinds, principal, records};
use domain::record::{Deed, StartWay, Vote};
use domain::{Event, Id, RunStatus, id};
use engine::{Ballot, Engine, Operation, RunView, SessionName, Submission, Ticket};
use journal::WorkerSpec;
use parking_lot::Mutex;
use sandbox::{Start, Workspace};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);
const ONE_COMMAND: &str = r#"
title: one command that somebody approves of
steps:
- reply:
  - call: {id: c1, tool: exec_command, arguments: {cmd: "true"}}
- reply:
  - text: "Done."
"#;

/// What comes before it, to have two.
const FIRST_COMMAND: &str = "- reply:\n  - call: {id: c0, tool: exec_command, arguments: {cmd: \"true\"}}\n- reply:";

/// A project whose agent has a sandbox, and asks before it runs anything in it.
fn project(settings: &str) -> Project {
    let project = Project::new("", &[], ONE_COMMAND);
    project.write("topside.yaml", &format!("default_agent: maya\nsandbox: {settings}\n"));
    project.write("agents/maya.md", "---\nmodel: main\nsandbox: {provider: local, checkpoint: never}\n---\nMaya.\n");
    project
        .write("policies/a.cedar", "@id(\"ask.first\") @approval(\"always\") permit (principal, action, resource);\n");
    project
}

fn open(project: &Project, cells: &Cells) -> Engine {
    project.engine_among(World::default(), vec![Arc::new(cells.clone())])
}

/// Submits, and waits until its run waits. Somebody watches what the model says, so that it is heard before it is whole.
async fn parked(engine: &Engine, session: &str) -> Ticket {
    let _watch = engine.watch(TENANT, Id::from_name(TENANT, session));
    let submission = Submission { session: SessionName::Named(session.into()), ..ask("Go.") };
    let ticket = engine.submit(submission).await.unwrap();
    let view = engine.wait(TENANT, ticket.run, LONG).await.unwrap();
    assert_eq!(view.status, RunStatus::Waiting, "{:?}", view.failure);
    ticket
}

async fn vote(engine: &Engine, run: Id<id::Run>, vote: Vote) -> RunView {
    let page = engine.approvals(TENANT, None, 10).await.unwrap();
    let call = page.rows.iter().find(|row| row.run == run).unwrap().call;
    let ballot = Ballot { vote, reason: None, binding: None };
    engine.vote(TENANT, call, principal("boss"), ballot, None).await.unwrap();
    engine.wait(TENANT, run, LONG).await.unwrap()
}

/// Waits until nobody drives anything.
async fn at_rest(engine: &Engine) {
    let rests = async {
        while engine.health().active > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, rests).await.unwrap();
}

/// How each sandbox of a session was come by.
async fn ways(engine: &Engine, session: Id<id::Session>) -> Vec<Option<StartWay>> {
    let way = |record: domain::Record| match record.event {
        Event::SandboxOpened(body) => Some(body.start.and_then(|start| start.way)),
        _ => None,
    };
    records(engine, session).await.into_iter().filter_map(way).collect()
}

async fn end(engine: Engine) {
    engine.drain(LONG).await;
    engine.journal().close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_made_ahead_of_need_is_kept_for_the_run_that_came_to_wait_meanwhile() {
    let (project, cells) = (project("{keep_parked_ms: 600000}"), Cells::new());
    let engine = open(&project, &cells);
    cells.hold("make");
    let ticket = parked(&engine, "s").await;
    cells.until("make 1").await;
    cells.let_go("make");
    at_rest(&engine).await;
    assert_eq!(cells.deeds(), "make 1, halt 1");
    assert!(!kinds(&engine, ticket.session).await.contains("sandbox"), "no run has it");
    let view = vote(&engine, ticket.run, Vote::Approve).await;
    assert_eq!((view.status, view.reply.as_deref()), (RunStatus::Completed, Some("Done.")), "{:?}", view.failure);
    assert_eq!(cells.deeds(), "make 1, halt 1, wake 1, run 1, close 1");
    assert_eq!(ways(&engine, ticket.session).await, [Some(StartWay::Woken)]);
    end(engine).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_woken_ahead_of_need_is_halted_again_when_its_run_came_to_wait_meanwhile() {
    let (project, cells) = (project("{keep_parked_ms: 600000}"), Cells::new());
    let twice = FIRST_COMMAND.replacen("c0", "c00", 1);
    let three = ONE_COMMAND.replacen("- reply:", FIRST_COMMAND, 1).replacen("- reply:", &twice, 1);
    project.write("script.yaml", &three);
    let engine = open(&project, &cells);
    let ticket = parked(&engine, "s").await;
    at_rest(&engine).await;
    vote(&engine, ticket.run, Vote::Approve).await;
    at_rest(&engine).await;
    cells.hold("wake");
    // The model has something else to do, that waits again before the programs go on.
    let view = vote(&engine, ticket.run, Vote::Reject).await;
    assert_eq!(view.status, RunStatus::Waiting, "{:?}", view.failure);
    cells.let_go("wake");
    at_rest(&engine).await;
    assert_eq!(cells.deeds(), "make 1, halt 1, wake 1, run 1, halt 1, wake 1, halt 1");
    let view = vote(&engine, ticket.run, Vote::Approve).await;
    assert_eq!(view.status, RunStatus::Completed, "{:?}", view.failure);
    assert_eq!(cells.deeds(), "make 1, halt 1, wake 1, run 1, halt 1, wake 1, halt 1, wake 1, run 1, close 1");
    assert_eq!(ways(&engine, ticket.session).await.len(), 2, "what nobody had is on no record");
    end(engine).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_would_be_made_the_same_way_now_is_woken() {
    let (settings, woken) = ("{keep_parked_ms: 600000}", "wake 1, run 1, halt 1, wake 1, run 1, close 1");
    let anew = "wake 1, run 1, halt 1, close 1, make 2, run 2, close 2";
    for (later, variable, expected) in [
        (settings, "one", woken),
        ("{keep_parked_ms: 500000, idle_max: 3}", "one", woken),
        ("{keep_parked_ms: 600000, limits: {memory_bytes_max: 123456789}}", "one", anew),
        ("{keep_parked_ms: 600000, host_directories: [/usr]}", "one", anew),
        (settings, "other", anew),
    ] {
        let (project, cells, world) = (project(settings), Cells::new(), World::default());
        project.write("script.yaml", &ONE_COMMAND.replacen("- reply:", FIRST_COMMAND, 1));
        project.write("manifests/vars.yaml", "environment: {VAR: \"${env.VAR:-none}\"}\n");
        project.write(
            "agents/maya.md",
            "---\nmodel: main\nsandbox: {provider: local, checkpoint: never, manifest: vars}\n---\nMaya.\n",
        );
        let variables = world.variables.clone();
        let set = |value: &str| _ = variables.lock().insert("VAR".into(), value.into());
        set("one");
        let catalog = Arc::new(Mutex::new(project.catalog()));
        let now = catalog.clone();
        let engine = common::open_in(
            &project.data(),
            Arc::new(move || now.lock().clone()),
            world,
            vec![Arc::new(cells.clone())],
        );
        let ticket = parked(&engine, "s").await;
        at_rest(&engine).await;
        let view = vote(&engine, ticket.run, Vote::Approve).await;
        assert_eq!(view.status, RunStatus::Waiting, "{:?}", view.failure);
        at_rest(&engine).await;
        project.write("topside.yaml", &format!("default_agent: maya\nsandbox: {later}\n"));
        *catalog.lock() = project.catalog();
        set(variable);
        let view = vote(&engine, ticket.run, Vote::Approve).await;
        assert_eq!(view.status, RunStatus::Completed, "{:?}", view.failure);
        assert_eq!(cells.deeds(), format!("make 1, halt 1, {expected}"), "{later}, {variable}");
        let spec = cells.spec();
        assert_eq!(spec.environment, [("VAR".to_owned(), variable.to_owned())]);
        if expected == anew {
            let is_kept = matches!(spec.workspace, Workspace::Session { start: Start::Kept { .. }, .. });
            assert!(is_kept, "its files are as they were: {:?}", spec.workspace);
        }
        end(engine).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_driver_that_finds_nothing_to_do_gives_a_sandbox_no_more_time() {
    let (project, cells, world) = (project("{keep_parked_ms: 1000000}"), Cells::new(), World::default());
    let ahead_ms = world.ahead_ms.clone();
    let engine = project.engine_among(world, vec![Arc::new(cells.clone())]);
    let tending = engine.tend(WorkerSpec { name: "test".into(), lease_ms: 6_000_000 }).await.unwrap();
    let first = parked(&engine, "first").await;
    cells.until("halt 1").await;
    at_rest(&engine).await;
    ahead_ms.store(600_000, Ordering::SeqCst);
    let linked = Operation {
        tenant: TENANT,
        session: first.session,
        principal: principal("boss"),
        sandbox: Id::from_bytes([1; 16]),
        deed: Deed::Link,
        detail: None,
    };
    engine.operated(linked).await.unwrap();
    at_rest(&engine).await;
    assert_eq!(cells.deeds(), "make 1, halt 1", "it was left alone");
    ahead_ms.store(1_100_000, Ordering::SeqCst);
    // What is laid by has the times looked at again.
    parked(&engine, "second").await;
    cells.until("close 1").await;
    engine.drain(LONG).await;
    tending.end().await;
    assert!(cells.deeds().ends_with("close 2"), "what is left is closed at the end: {}", cells.deeds());
    engine.journal().close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_session_waits_for_another_ones_sandbox_to_make_way() {
    let (project, cells) = (project("{keep_parked_ms: 600000, idle_max: 1}"), Cells::new());
    let engine = open(&project, &cells);
    cells.hold("close 1");
    for session in ["first", "second"] {
        parked(&engine, session).await;
        at_rest(&engine).await;
    }
    cells.until("close 1").await;
    assert_eq!(cells.deeds(), "make 1, halt 1, make 2, halt 2, close 1", "one is being closed");
    cells.let_go("close 1");
    end(engine).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_many_as_it_takes_make_way_for_a_start_and_beside_each_other() {
    let (project, cells) = (project("{keep_parked_ms: 600000}"), Cells::new());
    let engine = open(&project, &cells);
    for session in ["first", "second", "third", "fourth", "fifth"] {
        parked(&engine, session).await;
        at_rest(&engine).await;
    }
    let before = cells.deeds();
    cells.fill(3);
    let closings = ["close 1", "close 2", "close 3", "close 4"];
    closings.iter().for_each(|closing| cells.hold(closing));
    parked(&engine, "sixth").await;
    for together in [&closings[..1], &closings[1..2], &closings[2..]] {
        for closing in together {
            cells.until(closing).await;
        }
        together.iter().for_each(|closing| cells.let_go(closing));
    }
    at_rest(&engine).await;
    let expected = "make 6, close 1, make 7, close 2, make 8, close 3, close 4, make 9, halt 9";
    assert_eq!(cells.deeds(), format!("{before}, {expected}"));
    end(engine).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_made_ahead_of_need_and_never_needed_is_closed_with_its_run() {
    for (settings, expected) in
        [("{keep_parked_ms: 600000}", "make 1, halt 1, close 1"), ("{keep_parked_ms: 0}", "make 1, close 1")]
    {
        let (project, cells) = (project(settings), Cells::new());
        let engine = open(&project, &cells);
        cells.hold("make");
        let ticket = parked(&engine, "s").await;
        cells.until("make 1").await;
        cells.let_go("make");
        at_rest(&engine).await;
        let view = vote(&engine, ticket.run, Vote::Reject).await;
        assert_eq!(view.status, RunStatus::Completed, "{:?}", view.failure);
        at_rest(&engine).await;
        assert_eq!(cells.deeds(), expected, "{settings}");
        assert!(!kinds(&engine, ticket.session).await.contains("sandbox"), "{settings}: no run had it");
        end(engine).await;
    }
}
