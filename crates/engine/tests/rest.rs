//! Runs that wait, on a real journal: the process keeps nothing of them, a new one takes none of them up, and one that is let go on
//! ends as if it had never waited.

#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

mod common;

use common::{Project, TENANT, ask, principal};
use domain::record::Vote;
use domain::{RunStatus, Wait};
use engine::{Ballot, Engine, Kept};
use std::time::Duration;
use tools::{Context, Functions};

const HELD: usize = 300;
const PAGE: usize = 70;
const LONG: Duration = Duration::from_secs(60);

const TRANSCRIPT: &str = "title: held\nsteps:\n- reply:\n  - call: {id: c1, tool: send, arguments: {n: 7}}\n- expect: {outputs: {c1: sent}}\n  reply:\n  - text: \"Done.\"\n";

fn engine(project: &Project) -> Engine {
    let mut functions = Functions::new();
    functions.add("send", |_: serde_json::Value, _: Context| async { Ok::<_, String>("sent".to_owned()) });
    project.engine(functions)
}

/// A driver leaves its place right after its last record.
async fn at_rest(engine: &Engine) -> Kept {
    let rests = async {
        while engine.health().active > 0 || engine.kept().driven > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, rests).await.unwrap();
    // What was used since the last time stays once.
    engine.let_go();
    engine.let_go();
    engine.kept()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_runs_that_wait_nothing_is_kept() {
    let project = Project::new("", &[("send", "external", "")], TRANSCRIPT);
    project
        .write("policies/a.cedar", "@id(\"ask.first\") @approval(\"always\") permit (principal, action, resource);\n");
    let first = engine(&project);
    let mut tickets = Vec::new();
    for _ in 0..HELD {
        tickets.push(first.submit(ask("Send it.")).await.unwrap());
    }
    for ticket in &tickets {
        let view = first.wait(TENANT, ticket.run, LONG).await.unwrap();
        assert_eq!((view.status, view.waits_for), (RunStatus::Waiting, Some(Wait::Approval)), "{:?}", view.failure);
    }
    assert_eq!(at_rest(&first).await, Kept::default());
    first.drain(LONG).await;
    first.journal().close().await.unwrap();

    let second = engine(&project);
    assert_eq!(second.recover().await.unwrap(), 0, "runs that wait are left where they are");
    assert_eq!(at_rest(&second).await, Kept::default());
    let (mut calls, mut after) = (Vec::new(), None);
    loop {
        let page = second.approvals(TENANT, after, PAGE).await.unwrap();
        assert!(page.rows.len() <= PAGE);
        calls.extend(page.rows.into_iter().map(|row| (row.call, row.run)));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(calls.len(), HELD);
    let (call, run) = calls[HELD / 2];
    let ballot = Ballot { vote: Vote::Approve, reason: None, binding: None };
    second.vote(TENANT, call, principal("boss"), ballot, None).await.unwrap();
    let ended = second.wait(TENANT, run, LONG).await.unwrap();
    assert_eq!((ended.status, ended.reply.as_deref()), (RunStatus::Completed, Some("Done.")), "{:?}", ended.failure);
    assert_eq!(at_rest(&second).await, Kept::default());
    second.drain(LONG).await;
    second.journal().close().await.unwrap();
}
