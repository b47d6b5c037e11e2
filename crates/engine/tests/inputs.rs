//! Wishes about runs that are under way, on a real journal: what they do, and when they are refused.

#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

mod common;

use common::{Project, TENANT, ask, kinds, principal, until};
use domain::record::When;
use domain::{Digest, Event, RunStatus, Wait};
use engine::{Engine, IdempotencyKey, LimitChange, Settlement, Submission, Ticket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tools::{Context, Functions};

const LONG: Duration = Duration::from_secs(60);

const TWO_TURNS: &str = r#"
title: two turns
steps:
- reply:
  - call: {id: c1, tool: act, arguments: {n: 1}}
- reply:
  - text: "Done."
"#;

const STEERED: &str = r#"
title: steered
steps:
- reply:
  - call: {id: c1, tool: act, arguments: {n: 1}}
- expect: {user: 'and be quick'}
  reply:
  - text: "Quickly, then."
"#;

/// A tool whose calls say that they began and end when they are let.
#[derive(Clone, Default)]
struct Gate {
    began: Arc<Notify>,
    open: Arc<Notify>,
    begun: Arc<AtomicU32>,
    killed: Arc<AtomicU32>,
}

struct Killed(Option<Arc<AtomicU32>>);

impl Drop for Killed {
    fn drop(&mut self) {
        if let Some(killed) = self.0.take() {
            killed.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl Gate {
    fn functions(&self) -> Functions {
        let (gate, mut functions) = (self.clone(), Functions::new());
        functions.add("act", move |_: serde_json::Value, _: Context| {
            let gate = gate.clone();
            gate.begun.fetch_add(1, Ordering::SeqCst);
            async move {
                let mut guard = Killed(Some(gate.killed.clone()));
                gate.began.notify_one();
                gate.open.notified().await;
                drop(guard.0.take());
                Ok::<_, String>("acted".to_owned())
            }
        });
        functions.add("undo", |_: serde_json::Value, _: Context| async { Ok::<_, String>("undone".to_owned()) });
        functions
    }
}

async fn begun(project: &Project, gate: &Gate) -> (Engine, Ticket) {
    let engine = project.engine(gate.functions());
    let ticket = engine.submit(ask("Act.")).await.unwrap();
    gate.began.notified().await;
    (engine, ticket)
}

#[tokio::test]
async fn a_paused_run_keeps_what_it_began_and_goes_on_when_it_is_resumed() {
    let project = Project::new("", &[("act", "write", "")], TWO_TURNS);
    let gate = Gate::default();
    let (engine, ticket) = begun(&project, &gate).await;
    engine.pause(TENANT, ticket.run, principal("ops"), None).await.unwrap();
    engine.pause(TENANT, ticket.run, principal("ops"), None).await.unwrap();
    gate.open.notify_one();
    let view = engine.wait(TENANT, ticket.run, LONG).await.unwrap();
    assert_eq!((view.status, view.waits_for), (RunStatus::Paused, Some(Wait::Resume)));
    let until_then = "submitted replied judged began pause_requested returned parked";
    assert_eq!(kinds(&engine, ticket.session).await, until_then);
    assert_eq!(engine.health().active, 0, "a run that waits has no driver");
    engine.resume(TENANT, ticket.run, principal("ops"), None).await.unwrap();
    let view = engine.wait(TENANT, ticket.run, LONG).await.unwrap();
    assert_eq!((view.status, view.waits_for, gate.begun.load(Ordering::SeqCst)), (RunStatus::Completed, None, 1));
    assert_eq!(kinds(&engine, ticket.session).await, format!("{until_then} resume_requested resumed replied finished"));
}

#[tokio::test]
async fn a_run_cancelled_after_its_turn_keeps_the_turn() {
    let project = Project::new("", &[("act", "write", "")], TWO_TURNS);
    let gate = Gate::default();
    let (engine, ticket) = begun(&project, &gate).await;
    engine.cancel(TENANT, ticket.run, principal("ops"), When::AfterTurn, None).await.unwrap();
    gate.open.notify_one();
    let view = engine.wait(TENANT, ticket.run, LONG).await.unwrap();
    assert_eq!((view.status, gate.killed.load(Ordering::SeqCst)), (RunStatus::Cancelled, 0));
    assert!(view.usage.total_tokens() > 0, "what was used is kept");
    let expected = "submitted replied judged began cancel_requested returned finished";
    assert_eq!(kinds(&engine, ticket.session).await, expected);
    // Wishing it again changes nothing.
    let again = engine.cancel(TENANT, ticket.run, principal("ops"), When::Now, None).await.unwrap();
    assert_eq!(again.status, RunStatus::Cancelled);
}

#[tokio::test]
async fn a_message_is_told_after_the_turn_or_at_once() {
    for (when, killed, status) in [(When::AfterTurn, 0, "ok"), (When::Now, 1, "cancelled")] {
        let project = Project::new("", &[("act", "write", "")], STEERED);
        let gate = Gate::default();
        let (engine, ticket) = begun(&project, &gate).await;
        let message = "and be quick".to_owned();
        engine.steer(TENANT, ticket.run, principal("ops"), message, when, None).await.unwrap();
        gate.open.notify_one();
        let view = engine.wait(TENANT, ticket.run, LONG).await.unwrap();
        assert_eq!((view.status, view.reply.as_deref()), (RunStatus::Completed, Some("Quickly, then.")), "{when:?}");
        assert_eq!(gate.killed.load(Ordering::SeqCst), killed, "{when:?}");
        let records = common::records(&engine, ticket.session).await;
        let returned = records.iter().find_map(|record| match &record.event {
            Event::Returned(body) => Some(body.status.name()),
            _ => None,
        });
        assert_eq!(returned, Some(status));
    }
}

#[tokio::test]
async fn a_run_that_reached_a_limit_goes_on_with_a_higher_one() {
    let project = Project::new("turns: 1, reached: ask", &[("act", "write", "")], TWO_TURNS);
    let gate = Gate::default();
    let (engine, ticket) = begun(&project, &gate).await;
    gate.open.notify_one();
    let view = engine.wait(TENANT, ticket.run, LONG).await.unwrap();
    assert_eq!((view.status, view.waits_for), (RunStatus::Waiting, Some(Wait::Budget)));
    let raise = async |raise| {
        let raised = engine.raise(TENANT, ticket.run, principal("ops"), raise, None).await;
        raised.map(|view| view.status).map_err(|error| error.code())
    };
    let change = LimitChange::default();
    for (lower, what) in [
        (LimitChange { turns: Some(0), ..change }, "lower"),
        (LimitChange { turns: Some(1), ..change }, "as it is"),
        (LimitChange { tokens: Some(3_000_000), ..change }, "another"),
        (LimitChange { cost_micro_usd: Some(1), ..change }, "where there was none"),
    ] {
        assert_eq!(raise(lower).await, Err("raise_too_low"), "{what}");
    }
    raise(LimitChange { turns: Some(2), ..change }).await.unwrap();
    let view = engine.wait(TENANT, ticket.run, LONG).await.unwrap();
    assert_eq!(view.status, RunStatus::Completed);
    let expected = "submitted replied judged began returned parked raised resumed replied finished";
    assert_eq!(kinds(&engine, ticket.session).await, expected);
}

#[tokio::test]
async fn a_run_may_be_asked_for_with_lower_limits_only() {
    let project = Project::new("turns: 4", &[("act", "write", "")], TWO_TURNS);
    let gate = Gate::default();
    let engine = project.engine(gate.functions());
    let with =
        |turns| Submission { limits: LimitChange { turns: Some(turns), ..LimitChange::default() }, ..ask("Act.") };
    assert_eq!(engine.submit(with(5)).await.unwrap_err().code(), "limits_higher");
    let ticket = engine.submit(with(1)).await.unwrap();
    gate.open.notify_one();
    let view = engine.wait(TENANT, ticket.run, LONG).await.unwrap();
    assert_eq!(view.failure.unwrap().code, "limit_turns");
}

#[tokio::test]
async fn wishes_that_make_no_sense_are_refused_by_name() {
    let project = Project::new("", &[("act", "write", "")], TWO_TURNS);
    let gate = Gate::default();
    let (engine, ticket) = begun(&project, &gate).await;
    let (ops, run) = (principal("ops"), ticket.run);
    let records = common::records(&engine, ticket.session).await;
    let call = records.iter().find_map(|record| match &record.event {
        Event::Began(body) => Some(body.call),
        _ => None,
    });
    let (call, other) = (call.unwrap(), domain::Id::from_bytes([9; 16]));
    let happened = || Settlement::Happened { output: "yes".into() };
    assert_eq!(engine.resume(TENANT, run, ops, None).await.unwrap_err().code(), "run_not_paused");
    assert_eq!(engine.resolve(TENANT, run, call, ops, happened(), None).await.unwrap_err().code(), "call_not_in_doubt");
    assert_eq!(engine.resolve(TENANT, run, other, ops, happened(), None).await.unwrap_err().code(), "call_not_found");
    let steer = |message: &str| engine.steer(TENANT, run, ops, message.to_owned(), When::AfterTurn, None);
    assert_eq!(steer(" ").await.unwrap_err().code(), "message_empty");
    assert_eq!(engine.pause("other", run, ops, None).await.unwrap_err().code(), "run_not_found");
    assert_eq!(engine.approval(TENANT, call).await.unwrap_err().code(), "approval_not_found");
    for _ in 0..64 {
        steer("and this").await.unwrap();
    }
    assert_eq!(steer("and that").await.unwrap_err().code(), "steers_waiting");
    engine.cancel(TENANT, run, ops, When::Now, None).await.unwrap();
    engine.wait(TENANT, run, LONG).await.unwrap();
    let before = kinds(&engine, ticket.session).await;
    assert_eq!(engine.pause(TENANT, run, ops, None).await.unwrap_err().code(), "run_ended");
    assert_eq!(steer("too late").await.unwrap_err().code(), "run_ended");
    let raise = engine.raise(TENANT, run, ops, LimitChange::default(), None).await;
    assert_eq!(raise.unwrap_err().code(), "run_ended");
    assert_eq!(kinds(&engine, ticket.session).await, before, "what is refused leaves no record");
}

#[tokio::test]
async fn a_wish_with_a_key_is_recorded_once() {
    let project = Project::new("", &[("act", "write", "")], STEERED);
    let gate = Gate::default();
    let (engine, ticket) = begun(&project, &gate).await;
    let key = |body: u8| Some(IdempotencyKey { key: Digest([1; 32]), body: Digest([body; 32]) });
    let steer =
        |body| engine.steer(TENANT, ticket.run, principal("ops"), "and be quick".into(), When::AfterTurn, key(body));
    let (one, other) = tokio::join!(steer(1), steer(1));
    assert_eq!((one.unwrap().run, other.unwrap().run), (ticket.run, ticket.run));
    assert_eq!(steer(2).await.unwrap_err().code(), "idempotency_conflict");
    gate.open.notify_one();
    engine.wait(TENANT, ticket.run, LONG).await.unwrap();
    // Also when the wish would make no sense any more.
    assert_eq!(steer(1).await.unwrap().status, RunStatus::Completed);
    let kinds = kinds(&engine, ticket.session).await;
    assert_eq!(kinds.matches("steered").count(), 1, "{kinds}");
}

/// A process that died in the middle of a call that may have reached outside.
fn in_doubt(contract: &str, tools: &[common::ToolLines<'_>], transcript: &str) -> (Project, Gate, Ticket) {
    let mut all = vec![("act", "external", contract)];
    all.extend_from_slice(tools);
    let project = Project::new("", &all, transcript);
    project.write("policies/all.cedar", "permit (principal, action, resource);\n");
    let gate = Gate::default();
    let first = tokio::runtime::Runtime::new().unwrap();
    let (engine, ticket) = first.block_on(begun(&project, &gate));
    let journal = engine.journal().clone();
    drop(engine);
    first.shutdown_timeout(Duration::from_secs(10));
    tokio::runtime::Runtime::new().unwrap().block_on(journal.close()).unwrap();
    (project, gate, ticket)
}

#[test]
fn a_call_in_doubt_is_settled_by_somebody() {
    let told = |output: &str| {
        format!(
            "title: doubt\nsteps:\n- reply:\n  - call: {{id: c1, tool: act, arguments: {{n: 1}}}}\n- expect: {{outputs: {{c1: '{output}'}}}}\n  reply:\n  - text: \"Done.\"\n"
        )
    };
    let undo: &[common::ToolLines<'_>] = &[("undo", "external", "")];
    for (settlement, contract, tools, output, after) in [
        (
            Settlement::Happened { output: "it was sent".into() },
            "",
            &[][..],
            "it was sent",
            "resolved resumed returned",
        ),
        (Settlement::DidNotHappen, "", &[][..], "took no effect", "resolved resumed returned"),
        (
            Settlement::Compensate,
            "rollback: {compensate: undo}\n",
            undo,
            "effect was undone",
            "resolved resumed call_added judged began returned returned",
        ),
    ] {
        let (project, gate, ticket) = in_doubt(contract, tools, &told(output));
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            let engine = project.engine(gate.functions());
            engine.recover().await.unwrap();
            let until_then = until(&engine, ticket.session, |kinds| kinds.contains("in_doubt")).await;
            let view = engine.wait(TENANT, ticket.run, LONG).await.unwrap();
            assert_eq!((view.status, view.waits_for), (RunStatus::NeedsResolution, Some(Wait::Resolution)));
            let [call] = view.in_doubt[..] else { panic!("{:?}", view.in_doubt) };
            let ops = principal("ops");
            if settlement != Settlement::Compensate {
                let compensate = engine.resolve(TENANT, ticket.run, call, ops, Settlement::Compensate, None).await;
                assert_eq!(compensate.unwrap_err().code(), "no_compensation");
            }
            engine.resolve(TENANT, ticket.run, call, ops, settlement.clone(), None).await.unwrap();
            let twice = engine.resolve(TENANT, ticket.run, call, ops, Settlement::DidNotHappen, None).await;
            assert!(["call_not_in_doubt", "call_not_found", "run_ended"].contains(&twice.unwrap_err().code()));
            let view = engine.wait(TENANT, ticket.run, LONG).await.unwrap();
            assert_eq!((view.status, view.failure), (RunStatus::Completed, None), "{settlement:?}");
            assert_eq!(gate.begun.load(Ordering::SeqCst), 1, "the deed is not done twice");
            let kinds = kinds(&engine, ticket.session).await;
            assert_eq!(kinds, format!("{until_then} {after} replied finished"), "{settlement:?}");
        });
    }
}
