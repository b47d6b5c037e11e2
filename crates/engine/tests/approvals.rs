//! Calls that wait for approval, on a real journal: who may vote, which votes count, what comes of them.

#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

mod common;

use common::{Project, TENANT, ask, kinds, principal, until};
use domain::record::Vote;
use domain::{Event, RunStatus, Wait};
use engine::{ApprovalStatus, ApprovalView, Ballot, Engine, Ticket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tools::{Context, Functions};

const LONG: Duration = Duration::from_secs(60);

fn transcript(output: &str) -> String {
    format!(
        "title: held\nsteps:\n- reply:\n  - call: {{id: c1, tool: send, arguments: {{n: 7}}}}\n- expect: {{outputs: {{c1: '{output}'}}}}\n  reply:\n  - text: \"Done.\"\n"
    )
}

struct House {
    project: Project,
    sent: Arc<AtomicU32>,
}

impl House {
    fn new(policy: &str, output: &str) -> Self {
        let project = Project::new("", &[("send", "external", "")], &transcript(output));
        project.write("policies/a.cedar", policy);
        Self { project, sent: Arc::default() }
    }

    fn engine(&self) -> Engine {
        let (sent, mut functions) = (self.sent.clone(), Functions::new());
        functions.add("send", move |_: serde_json::Value, _: Context| {
            sent.fetch_add(1, Ordering::SeqCst);
            async { Ok::<_, String>("sent".to_owned()) }
        });
        self.project.engine(functions)
    }

    /// A run that waits, and its call as it is listed.
    async fn held(&self) -> (Engine, Ticket, ApprovalView) {
        let engine = self.engine();
        let ticket = engine.submit(ask("Send it.")).await.unwrap();
        let view = engine.wait(TENANT, ticket.run, LONG).await.unwrap();
        assert_eq!((view.status, view.waits_for), (RunStatus::Waiting, Some(Wait::Approval)), "{:?}", view.failure);
        let mut page = engine.approvals(TENANT, None, 10).await.unwrap();
        assert_eq!((page.rows.len(), page.next), (1, None));
        let approval = page.rows.remove(0);
        assert_eq!(view.approvals, [approval.call]);
        (engine, ticket, approval)
    }

    fn sent(&self) -> u32 {
        self.sent.load(Ordering::SeqCst)
    }
}

const ALWAYS: &str = "@id(\"ask.first\") @approval(\"always\") permit (principal, action, resource);\n";
const QUORUM: &str = "@approval(\"quorum 2\") permit (principal, action, resource);\n";

const fn approve() -> Ballot {
    Ballot { vote: Vote::Approve, reason: None, binding: None }
}

fn code<T: std::fmt::Debug>(result: Result<T, engine::Error>) -> &'static str {
    result.unwrap_err().code()
}

#[tokio::test]
async fn a_held_call_is_shown_and_made_once_somebody_approves() {
    let house = House::new(ALWAYS, "sent");
    let (engine, ticket, held) = house.held().await;
    assert_eq!(
        (held.status, held.tool.as_str(), held.arguments.as_deref()),
        (ApprovalStatus::Waiting, "send", Some("{\"n\":7}"))
    );
    assert_eq!((held.run, held.session, held.agent.as_str()), (ticket.run, ticket.session, "maya"));
    assert_eq!((held.quorum, held.reason.as_str(), held.requester), (1, "approval_needed", principal("local")));
    assert!(held.policies[0].ends_with("ask.first"), "{:?}", held.policies);
    assert!(held.expires_ms > held.since_ms && held.scope.is_empty() && held.approvals.is_empty());
    assert_eq!(house.sent(), 0);
    assert_eq!(engine.health().active, 0, "a run that waits has no driver");
    let voted = engine.vote(TENANT, held.call, principal("boss"), approve(), None).await.unwrap();
    assert_eq!((voted.status, voted.approvals), (ApprovalStatus::Approved, vec![principal("boss")]));
    let view = engine.wait(TENANT, ticket.run, LONG).await.unwrap();
    assert_eq!((view.status, view.failure, house.sent()), (RunStatus::Completed, None, 1));
    let expected = "submitted replied judged parked voted resumed judged began returned replied finished";
    assert_eq!(kinds(&engine, ticket.session).await, expected);
    assert!(engine.approvals(TENANT, None, 10).await.unwrap().rows.is_empty());
    let after = engine.approval(TENANT, held.call).await.unwrap();
    assert_eq!((after.status, after.approvals.len()), (ApprovalStatus::Approved, 1));
    assert_eq!(code(engine.vote(TENANT, held.call, principal("late"), approve(), None).await), "approval_decided");
}

#[tokio::test]
async fn a_rejected_call_is_told_to_the_model_with_the_reason() {
    let house = House::new(QUORUM, "(?s)rejected.*not on a Friday");
    let (engine, ticket, held) = house.held().await;
    // One is enough, and the requester may.
    let ballot = Ballot { vote: Vote::Reject, reason: Some("not on a Friday".into()), binding: Some(held.binding) };
    let voted = engine.vote(TENANT, held.call, principal("local"), ballot, None).await.unwrap();
    assert_eq!(voted.status, ApprovalStatus::Rejected);
    let view = engine.wait(TENANT, ticket.run, LONG).await.unwrap();
    assert_eq!((view.status, view.failure, house.sent()), (RunStatus::Completed, None, 0));
    assert_eq!(engine.approval(TENANT, held.call).await.unwrap().status, ApprovalStatus::Rejected);
    assert_eq!(code(engine.vote(TENANT, held.call, principal("boss"), approve(), None).await), "approval_not_held");
}

#[tokio::test]
async fn a_quorum_is_of_distinct_principals_and_never_of_the_requester() {
    let house = House::new(QUORUM, "sent");
    let (engine, ticket, held) = house.held().await;
    let vote = |name: &str, ballot: Ballot| engine.vote(TENANT, held.call, principal(name), ballot, None);
    assert_eq!(code(vote("local", approve()).await), "approval_requester");
    let stale = Ballot { binding: Some(domain::Digest([9; 32])), ..approve() };
    assert_eq!(code(vote("one", stale).await), "approval_stale");
    assert_eq!(vote("one", approve()).await.unwrap().status, ApprovalStatus::Waiting);
    assert_eq!(code(vote("one", approve()).await), "approval_twice");
    assert_eq!(house.sent(), 0);
    assert_eq!(vote("two", approve()).await.unwrap().status, ApprovalStatus::Approved);
    let view = engine.wait(TENANT, ticket.run, LONG).await.unwrap();
    assert_eq!((view.status, house.sent()), (RunStatus::Completed, 1));
    let records = common::records(&engine, ticket.session).await;
    let votes = records.iter().filter(|record| matches!(record.event, Event::Voted(_))).count();
    assert_eq!(votes, 2, "a vote that is refused at the door leaves no record");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_votes_that_race_exactly_as_many_count_as_are_needed() {
    for (policy, names, winners) in [
        (ALWAYS, ["one", "one", "one", "one"], 1),
        (ALWAYS, ["one", "two", "three", "four"], 1),
        (QUORUM, ["one", "one", "two", "two"], 2),
        (QUORUM, ["one", "two", "three", "four"], 2),
    ] {
        let house = House::new(policy, "sent");
        let (engine, ticket, held) = house.held().await;
        let vote = |name: &'static str| {
            let (engine, call) = (engine.clone(), held.call);
            tokio::spawn(async move { engine.vote(TENANT, call, principal(name), approve(), None).await })
        };
        let mut won = 0;
        for voted in names.map(vote) {
            match voted.await.unwrap() {
                Ok(_) => won += 1,
                Err(error) => {
                    let lost = ["approval_decided", "approval_twice", "approval_expired", "approval_not_held"];
                    assert!(lost.contains(&error.code()), "{}", error.code());
                }
            }
        }
        let view = engine.wait(TENANT, ticket.run, LONG).await.unwrap();
        assert_eq!((won, view.status, house.sent()), (winners, RunStatus::Completed, 1), "{names:?}");
    }
}

#[tokio::test]
async fn a_call_that_nobody_approves_of_in_time_is_not_made() {
    let policy = "@approval(\"always\") @expires(\"1s\") permit (principal, action, resource);\n";
    let house = House::new(policy, "nobody approved of it in time");
    let (engine, ticket, held) = house.held().await;
    let spec = journal::WorkerSpec { name: "test".into(), lease_ms: 60_000 };
    let tending = engine.tend(spec).await.unwrap();
    until(&engine, ticket.session, |kinds| kinds.ends_with("finished")).await;
    let view = engine.run(TENANT, ticket.run).await.unwrap();
    assert_eq!((view.status, view.failure, house.sent()), (RunStatus::Completed, None, 0));
    assert_eq!(engine.approval(TENANT, held.call).await.unwrap().status, ApprovalStatus::Expired);
    assert_eq!(code(engine.vote(TENANT, held.call, principal("boss"), approve(), None).await), "approval_expired");
    engine.drain(LONG).await;
    tending.end().await;
}

#[tokio::test]
async fn a_held_run_survives_a_restart_and_a_repair_of_the_index() {
    let house = House::new(ALWAYS, "sent");
    let (engine, ticket, held) = house.held().await;
    engine.journal().close().await.unwrap();
    drop(engine);
    let engine = house.engine();
    engine.recover().await.unwrap();
    engine.journal().rebuild_index().await.unwrap();
    let listed = engine.approvals(TENANT, None, 10).await.unwrap().rows;
    assert_eq!(listed, std::slice::from_ref(&held));
    let run = engine.run(TENANT, ticket.run).await.unwrap();
    assert_eq!((run.waits_for, run.waits_until_ms), (Some(Wait::Approval), Some(held.expires_ms)));
    engine.vote(TENANT, held.call, principal("boss"), approve(), None).await.unwrap();
    let view = engine.wait(TENANT, ticket.run, LONG).await.unwrap();
    assert_eq!((view.status, house.sent()), (RunStatus::Completed, 1));
}

#[tokio::test]
async fn the_list_goes_page_by_page_and_forgets_runs_that_end() {
    let house = House::new(ALWAYS, "sent");
    let (engine, first, _) = house.held().await;
    for _ in 0..2 {
        let ticket = engine.submit(ask("Send it.")).await.unwrap();
        engine.wait(TENANT, ticket.run, LONG).await.unwrap();
    }
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = engine.approvals(TENANT, after, 2).await.unwrap();
        found.extend(page.rows.into_iter().map(|row| row.since_ms));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert!(found.len() == 3 && found.is_sorted(), "{found:?}");
    assert!(engine.approvals("other", None, 10).await.unwrap().rows.is_empty());
    engine.cancel(TENANT, first.run, principal("ops"), domain::record::When::Now, None).await.unwrap();
    engine.wait(TENANT, first.run, LONG).await.unwrap();
    assert_eq!(engine.approvals(TENANT, None, 10).await.unwrap().rows.len(), 2);
}
