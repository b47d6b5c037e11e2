//! Drivers that hang: what is told of them, how they are given up, and what becomes of their runs, on a real journal.

#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

mod common;

use common::{Project, TENANT, World, ask, kinds, principal, records, until};
use domain::{CallStatus, Event, RunStatus};
use engine::{Engine, Settlement, Tending};
use parking_lot::Mutex;
use std::sync::mpsc;
use std::sync::{Arc, atomic::AtomicU64, atomic::Ordering};
use std::time::Duration;
use tools::{Context, Functions};

const LONG: Duration = Duration::from_secs(60);
const ONE_CALL: &str = r#"
title: one call
steps:
- reply:
  - call: {id: c1, tool: work, arguments: {n: 1}}
- reply:
  - text: "Done."
"#;

/// A tool that holds on to its thread until the test lets it go; no time limit ends it. From its second call on it is quick.
struct Hanging {
    functions: Functions,
    calls: Arc<AtomicU64>,
    let_go: mpsc::SyncSender<()>,
}

fn hanging() -> Hanging {
    let (let_go, gate) = mpsc::sync_channel::<()>(1);
    let (gate, calls) = (Arc::new(Mutex::new(gate)), Arc::new(AtomicU64::new(0)));
    let mut functions = Functions::new();
    let counted = calls.clone();
    functions.add("work", move |_: serde_json::Value, _: Context| {
        let (gate, call) = (gate.clone(), counted.fetch_add(1, Ordering::SeqCst));
        async move {
            if call == 0 {
                // An error means that the test is over, which lets it go as well.
                let _ = gate.lock().recv();
            }
            Ok::<_, String>("worked".to_owned())
        }
    });
    Hanging { functions, calls, let_go }
}

async fn open(tool: (&str, &str), functions: Functions) -> (Project, Engine, Tending) {
    let (effect, more) = tool;
    let project = Project::new("", &[("work", effect, more)], ONE_CALL);
    project.write("topside.yaml", "default_agent: maya\nworker: {no_progress_seconds_max: 1}\n");
    project.write("policies/all.cedar", "permit (principal, action, resource);\n");
    let engine = project.engine_in(World { functions, ..World::default() });
    let spec = journal::WorkerSpec { name: "test".into(), lease_ms: 60_000 };
    let tending = engine.tend(spec).await.unwrap();
    (project, engine, tending)
}

async fn end(engine: Engine, tending: Tending) {
    engine.drain(LONG).await;
    tending.end().await;
    engine.journal().close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_tool_that_ignores_its_time_limit_is_given_up_and_repeated_when_that_is_safe() {
    let Hanging { functions, calls, let_go } = hanging();
    let (_project, engine, tending) = open(("read", "timeout_seconds: 1\n"), functions).await;
    let ticket = engine.submit(ask("Work.")).await.unwrap();
    let view = engine.wait(TENANT, ticket.run, LONG).await.unwrap();
    assert_eq!((view.status, view.reply.as_deref()), (RunStatus::Completed, Some("Done.")), "{:?}", view.failure);
    assert_eq!((calls.load(Ordering::SeqCst), view.attempts), (2, Some(2)));
    let counts = engine.counts();
    assert_eq!((counts.drivers_stopped, counts.threads_lost, counts.completed), (1, 1, 1));
    let kinds = kinds(&engine, ticket.session).await;
    assert_eq!(kinds, "submitted replied judged began resumed judged began returned replied finished");
    // What hung goes on late: it finds its driver gone, and nothing of it is recorded.
    let_go.send(()).unwrap();
    end(engine, tending).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_deed_outside_that_hangs_is_in_doubt() {
    let Hanging { functions, calls, let_go } = hanging();
    let (_project, engine, tending) = open(("external", "timeout_seconds: 1\n"), functions).await;
    let ticket = engine.submit(ask("Work.")).await.unwrap();
    let view = engine.wait(TENANT, ticket.run, LONG).await.unwrap();
    assert_eq!(view.status, RunStatus::NeedsResolution, "{:?}", view.failure);
    assert_eq!((view.turns, view.tool_calls), (1, 1), "what it has come to is told before its end");
    let happened = Settlement::Happened { output: "worked".into() };
    engine.resolve(TENANT, ticket.run, view.in_doubt[0], principal("ops"), happened, None).await.unwrap();
    assert_eq!(engine.wait(TENANT, ticket.run, LONG).await.unwrap().status, RunStatus::Completed);
    assert_eq!(calls.load(Ordering::SeqCst), 1, "it is not made again");
    let_go.send(()).unwrap();
    end(engine, tending).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_keeps_within_its_own_limit_is_left_alone_and_its_silence_is_told() {
    let mut functions = Functions::new();
    functions.add("work", |_: serde_json::Value, _: Context| async {
        std::future::pending::<()>().await;
        Ok::<_, String>(String::new())
    });
    let (_project, engine, tending) = open(("read", "timeout_seconds: 3\n"), functions).await;
    let ticket = engine.submit(ask("Work.")).await.unwrap();
    until(&engine, ticket.session, |kinds| kinds.ends_with("began")).await;
    let driven = engine.run(TENANT, ticket.run).await.unwrap();
    assert_eq!((driven.status, driven.turns, driven.tool_calls), (RunStatus::Running, 1, 1));
    assert_eq!((driven.attempts, driven.no_progress_ms.is_some()), (Some(1), true));
    let listed = engine.runs(TENANT, journal::RunFilter::default(), None, 10).await.unwrap().rows;
    assert_eq!((listed[0].turns, listed[0].usage), (1, driven.usage));
    assert!(engine.session(TENANT, ticket.session).await.unwrap().no_progress_ms.is_some());
    let view = engine.wait(TENANT, ticket.run, LONG).await.unwrap();
    assert_eq!((view.status, view.no_progress_ms), (RunStatus::Completed, None));
    assert_eq!(engine.session(TENANT, ticket.session).await.unwrap().no_progress_ms, None, "nobody drives it");
    let returned = records(&engine, ticket.session).await.into_iter().find_map(|record| match record.event {
        Event::Returned(body) => Some(body.status),
        _ => None,
    });
    assert_eq!((returned, engine.counts().drivers_stopped), (Some(CallStatus::TimedOut), 0));
    end(engine, tending).await;
}
