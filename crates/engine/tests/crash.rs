//! Processes that die in the middle of a call, and what the next one makes of it. A process is played by a runtime: shutting it
//! down drops every task where it stands, and the journal keeps what was durable.

#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

mod common;

use common::{Project, TENANT, ask, kinds};
use domain::RunStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tools::{Context, Functions};

const LONG: Duration = Duration::from_secs(60);

const ONE_CALL: &str = r#"
title: one call
steps:
- reply:
  - call: {id: c1, tool: act, arguments: {n: 1}}
- expect: {outputs: {c1: '(?s).*'}}
  reply:
  - text: "Done."
"#;

/// How a call behaves: it counts its beginnings, keeps the key it saw, and hangs the first time.
fn act(count: &Arc<AtomicU32>, began: &Arc<Notify>, keys: &Arc<parking_lot::Mutex<Vec<Option<String>>>>) -> Functions {
    let (count, began, keys) = (count.clone(), began.clone(), keys.clone());
    let mut functions = Functions::new();
    functions.add("act", move |_: serde_json::Value, context: Context| {
        let first = count.fetch_add(1, Ordering::SeqCst) == 0;
        keys.lock().push(context.idempotency_key);
        began.notify_one();
        async move {
            if first {
                std::future::pending::<()>().await;
            }
            Ok::<_, String>("acted".to_owned())
        }
    });
    functions
}

struct After {
    status: RunStatus,
    kinds: String,
    begun: u32,
    keys: Vec<Option<String>>,
}

/// Kills a process in the middle of a call of a tool with this contract, and starts another.
fn crash(effect: &str, contract: &str) -> After {
    let project = Project::new("", &[("act", effect, contract)], ONE_CALL);
    project.write("policies/all.cedar", "permit (principal, action, resource);\n");
    let (count, began) = (Arc::new(AtomicU32::new(0)), Arc::new(Notify::new()));
    let keys = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let first = tokio::runtime::Runtime::new().unwrap();
    let (ticket, journal) = first.block_on(async {
        let engine = project.engine(act(&count, &began, &keys));
        let ticket = engine.submit(ask("Act.")).await.unwrap();
        began.notified().await;
        (ticket, engine.journal().clone())
    });
    first.shutdown_timeout(Duration::from_secs(10));
    let second = tokio::runtime::Runtime::new().unwrap();
    second.block_on(async {
        // Gives the lock of the data directory back, as the end of a process would.
        journal.close().await.unwrap();
        let engine = project.engine(act(&count, &began, &keys));
        assert_eq!(engine.recover().await.unwrap(), 1);
        let wait = if effect == "external" && contract.is_empty() { Duration::from_secs(2) } else { LONG };
        let view = engine.wait(TENANT, ticket.run, wait).await.unwrap();
        let kinds = kinds(&engine, ticket.session).await;
        let keys = keys.lock().clone();
        After { status: view.status, kinds, begun: count.load(Ordering::SeqCst), keys }
    })
}

#[test]
fn a_safe_call_is_repeated() {
    let after = crash("read", "");
    assert_eq!((after.status, after.begun), (RunStatus::Completed, 2));
    let expected = "submitted replied judged began resumed judged began returned replied finished";
    assert_eq!(after.kinds, expected);
}

#[test]
fn a_keyed_call_is_repeated_with_the_same_key() {
    let after = crash("external", "idempotency: {key: call}\n");
    assert_eq!((after.status, after.begun), (RunStatus::Completed, 2));
    assert!(after.keys[0].is_some());
    assert_eq!(after.keys[0], after.keys[1]);
}

#[test]
fn a_call_that_stays_inside_is_told_to_have_been_interrupted() {
    let after = crash("write", "");
    assert_eq!((after.status, after.begun), (RunStatus::Completed, 1));
    assert_eq!(after.kinds, "submitted replied judged began resumed returned replied finished");
}

#[test]
fn a_call_that_reaches_outside_without_a_key_is_in_doubt() {
    let after = crash("external", "");
    assert_eq!((after.status, after.begun), (RunStatus::NeedsResolution, 1));
    assert_eq!(after.kinds, "submitted replied judged began resumed in_doubt");
}
