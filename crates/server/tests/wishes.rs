//! What is said of runs that are under way, over HTTP: approvals, pauses, steering, limits, calls in doubt.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

mod common;

use api::Scope;
use common::{Answer, House, Served, key};
use server::Config;

/// Two who ask, one of whom may also approve, and two who approve.
fn people() -> Config {
    let (reads, asks, approves) = (Scope::RunsRead, Scope::RunsWrite, Scope::ApprovalsWrite);
    let keys = vec![
        key("asker", "default", "asker", &[reads, asks]),
        key("both", "default", "both", &[reads, asks, approves]),
        key("boss", "default", "boss", &[reads, approves]),
        key("other", "default", "other", &[reads, approves]),
        key("stranger", "elsewhere", "stranger", &[Scope::Admin]),
    ];
    Config { keys, ..Config::default() }
}

fn by(who: &str) -> String {
    format!("x-api-key: {who}")
}

/// The call that a run waits for approval of.
fn held(run: &Answer) -> String {
    assert_eq!((run.status, run.text("status").as_str()), (202, "waiting"), "{run:?}");
    assert_eq!(run.text("waits_for"), "approval");
    assert!(run.json()["waits_until_ms"].as_u64().unwrap() > 0);
    let calls = run.json()["approvals"].as_array().unwrap().clone();
    assert_eq!(calls.len(), 1, "{run:?}");
    calls[0].as_str().unwrap().to_owned()
}

/// Waits for the end of a run.
async fn ended(served: &Served, who: Option<&str>, run: &str) -> api::Run {
    let client = served.client(who);
    let run = run.parse().unwrap();
    let mut events = client.events(client::Follow::Run(run), None);
    while events.next().await.transpose().unwrap().is_some() {}
    client.run(run).await.unwrap()
}

fn refused(answer: &Answer, status: u16, code: &str) {
    assert_eq!((answer.status, answer.code().as_str()), (status, code), "{answer:?}");
}

#[tokio::test]
async fn a_call_is_made_once_somebody_else_approves() {
    let house = House::new();
    let served = house.serve(people()).await;
    let run = served.post_run(&[&by("both")], r#"{"session": "till", "message": "Pay"}"#).await;
    let call = held(&run);
    let path = format!("/approvals/{call}");
    let vote = |who: &'static str, body: &'static str| {
        let (served, path) = (&served, &path);
        async move { served.post(path, &[&by(who)], body).await }
    };
    let list = served.send("GET", "/approvals", &[&by("boss")], "").await.json();
    let listed = &list["approvals"][0];
    assert_eq!((listed["call_id"].as_str(), listed["tool"].as_str()), (Some(call.as_str()), Some("pay")), "{list}");
    assert_eq!(listed["arguments"]["text"], r#"{"n":3}"#, "{list}");
    assert_eq!((&listed["quorum"], &listed["run_id"]), (&1.into(), &run.json()["run_id"]));
    assert_eq!(listed["policies"][0].as_str().map(|policy| policy.contains("house.pay")), Some(true), "{list}");
    assert_eq!(served.send("GET", &path, &[&by("boss")], "").await.json(), *listed);

    refused(&vote("asker", r#"{"vote": "approve"}"#).await, 403, "scope_missing");
    refused(&vote("stranger", r#"{"vote": "approve"}"#).await, 404, "approval_not_found");
    refused(&vote("both", r#"{"vote": "approve"}"#).await, 409, "approval_requester");
    let stale = format!(r#"{{"vote": "approve", "binding": "{}"}}"#, "0".repeat(64));
    refused(&served.post(&path, &[&by("boss")], &stale).await, 409, "approval_stale");
    for body in [r#"{"vote": "maybe"}"#, r#"{"vote": "approve", "binding": "x"}"#, "{}", ""] {
        refused(&served.post(&path, &[&by("boss")], body).await, 400, "request_invalid");
    }

    let once = "idempotency-key: v1";
    let fresh = format!(r#"{{"vote": "approve", "reason": "Fine.", "binding": {}}}"#, listed["binding"]);
    let approved = served.post(&path, &[&by("boss"), once], &fresh).await;
    assert_eq!((approved.status, approved.text("status").as_str()), (200, "approved"), "{approved:?}");
    let again = served.post(&path, &[&by("boss"), once], &fresh).await;
    assert_eq!((again.status, again.text("status").as_str()), (200, "approved"), "{again:?}");
    let conflict = served.post(&path, &[&by("boss"), once], r#"{"vote": "reject"}"#).await;
    refused(&conflict, 422, "idempotency_conflict");

    let run = run.text("run_id");
    let end = ended(&served, Some("both"), &run).await;
    assert_eq!(end.reply.as_deref(), Some("Told: paid 3."));
    assert!(end.approvals.is_empty() && end.waits_for.is_none(), "{end:?}");
    assert_eq!(vote("other", r#"{"vote": "approve"}"#).await.status, 409);
    let list = served.send("GET", "/approvals", &[&by("boss")], "").await.json();
    assert_eq!(list["approvals"], serde_json::json!([]));
    assert_eq!(served.send("GET", &path, &[&by("boss")], "").await.text("status"), "approved");
    served.stop().await;
}

#[tokio::test]
async fn a_call_that_is_rejected_is_not_made_and_the_model_is_told_why() {
    let house = House::new();
    let served = house.serve(people()).await;
    let run = served.post_run(&[&by("both")], r#"{"message": "Pay"}"#).await;
    let path = format!("/approvals/{}", held(&run));
    // Whoever asked may reject, and one rejection is enough.
    let rejected = served.post(&path, &[&by("both")], r#"{"vote": "reject", "reason": "Not today."}"#).await;
    assert_eq!((rejected.status, rejected.text("status").as_str()), (200, "rejected"), "{rejected:?}");
    let end = ended(&served, Some("both"), &run.text("run_id")).await;
    assert_eq!(end.reply.as_deref(), Some("Told: Not today."));
    refused(&served.post(&path, &[&by("boss")], r#"{"vote": "approve"}"#).await, 409, "approval_not_held");
    for path in ["/approvals/call_1", "/approvals/call_00000000000000000000000000000000"] {
        let answer = served.send("GET", path, &[&by("boss")], "").await;
        refused(&answer, 404, "approval_not_found");
    }
    served.stop().await;
}

#[tokio::test]
async fn without_keys_somebody_on_the_machine_approves() {
    let house = House::new();
    let served = house.serve(Config::default()).await;
    let run = served.post_run(&[], r#"{"message": "Pay"}"#).await;
    let answer = served.post(&format!("/approvals/{}", held(&run)), &[], r#"{"vote": "approve"}"#).await;
    assert_eq!((answer.status, answer.text("status").as_str()), (200, "approved"), "{answer:?}");
    assert_eq!(ended(&served, None, &run.text("run_id")).await.reply.as_deref(), Some("Told: paid 3."));
    served.stop().await;
}

#[tokio::test]
async fn approvals_are_listed_in_pages() {
    let house = House::new();
    let served = house.serve(Config::default()).await;
    let mut calls = Vec::new();
    for _ in 0..3 {
        calls.push(held(&served.post_run(&[], r#"{"message": "Pay"}"#).await));
    }
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = served.get(&format!("/approvals?limit=2{cursor}")).await.json();
        let approvals = page["approvals"].as_array().unwrap();
        assert!(approvals.len() <= 2);
        seen.extend(approvals.iter().map(|approval| approval["call_id"].as_str().unwrap().to_owned()));
        let Some(next) = page["next"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(seen, calls, "oldest first");
    refused(&served.get("/approvals?cursor=x").await, 400, "request_invalid");
    served.stop().await;
}

#[tokio::test]
async fn a_run_is_paused_and_goes_on() {
    let house = House::new();
    let served = house.serve(Config::default()).await;
    let run = served.post_run(&["prefer: respond-async"], r#"{"message": "Hold"}"#).await.text("run_id");
    house.held.notified().await;
    let say = |what: &'static str, headers: &'static [&'static str]| {
        let (served, run) = (&served, &run);
        async move { served.send("POST", &format!("/runs/{run}/{what}"), headers, "").await }
    };
    refused(&say("resume", &[]).await, 409, "run_not_paused");
    let paused = say("pause", &["idempotency-key: p1"]).await;
    assert_eq!((paused.status, paused.header("location")), (202, format!("/runs/{run}").as_str()), "{paused:?}");
    assert_eq!(say("pause", &["idempotency-key: p1"]).await.status, 202);
    // What has begun ends; then nothing new begins.
    house.release.add_permits(1);
    let client = served.client(None);
    let mut events = client.events(client::Follow::Run(run.parse().unwrap()), None);
    while events.next().await.unwrap().unwrap().name() != "parked" {}
    let waiting = served.get(&format!("/runs/{run}")).await;
    assert_eq!((waiting.text("status").as_str(), waiting.text("waits_for").as_str()), ("paused", "resume"));
    assert_eq!(served.get("/runs?status=paused").await.json()["runs"].as_array().unwrap().len(), 1);
    assert_eq!(say("resume", &["idempotency-key: r1"]).await.status, 202);
    // The stream that was open all the time goes on.
    let mut names = Vec::new();
    while let Some(event) = events.next().await {
        names.push(event.unwrap().name());
    }
    assert_eq!(names.iter().filter(|name| !name.starts_with("delta.")).count(), 4, "{names:?}");
    assert_eq!(names.last(), Some(&"finished"));
    assert_eq!(ended(&served, None, &run).await.reply.as_deref(), Some("Released."));
    for what in ["pause", "resume"] {
        refused(&say(what, &[]).await, 409, "run_ended");
    }
    assert_eq!(say("resume", &["idempotency-key: r1"]).await.status, 202, "this very request was taken before");
    served.stop().await;
}

#[tokio::test]
async fn a_run_is_steered_in_its_middle() {
    for (when, call) in [("queue", "ok"), ("interrupt", "cancelled")] {
        let house = House::new();
        let served = house.serve(Config::default()).await;
        let run = served.post_run(&["prefer: respond-async"], r#"{"message": "Hold"}"#).await.text("run_id");
        house.held.notified().await;
        let path = format!("/runs/{run}/steer");
        for body in [r#"{"when": "queue"}"#, r#"{"message": "x", "when": "soon"}"#] {
            refused(&served.post(&path, &[], body).await, 400, "request_invalid");
        }
        refused(&served.post(&path, &[], r#"{"message": " "}"#).await, 400, "message_empty");
        let body = format!(r#"{{"message": "Briefly", "when": "{when}"}}"#);
        let once = "idempotency-key: s1";
        assert_eq!(served.post(&path, &[once], &body).await.status, 202);
        assert_eq!(served.post(&path, &[once], &body).await.status, 202);
        house.release.add_permits(1);
        let end = ended(&served, None, &run).await;
        assert_eq!(end.reply.as_deref(), Some("Yes."), "{when}");
        let log = served.get(&format!("/runs/{run}/events")).await;
        let page: api::RecordPage = serde_json::from_str(&log.body).unwrap();
        let steered: Vec<_> = page.records.iter().filter(|record| record.happened.kind() == "steered").collect();
        assert_eq!(steered.len(), 1, "{when}: said once");
        assert!(
            log.body.contains(r#""text":"Briefly""#) && log.body.contains(&format!(r#""status":"{call}""#)),
            "{log:?}"
        );
        refused(&served.post(&path, &[], &body).await, 409, "run_ended");
        served.stop().await;
    }
}

#[tokio::test]
async fn a_cancel_can_wait_for_the_turn() {
    let house = House::new();
    let served = house.serve(Config::default()).await;
    let run = served.post_run(&["prefer: respond-async"], r#"{"message": "Hold"}"#).await.text("run_id");
    house.held.notified().await;
    let path = format!("/runs/{run}/cancel");
    refused(&served.post(&path, &[], r#"{"when": "later"}"#).await, 400, "request_invalid");
    assert_eq!(served.post(&path, &[], r#"{"when": "after_turn"}"#).await.status, 202);
    house.release.add_permits(1);
    let end = ended(&served, None, &run).await;
    assert_eq!(
        (end.status.name(), end.tool_calls, end.turns),
        ("cancelled", 1, 1),
        "the call ended, no turn came after it"
    );
    served.stop().await;
}

#[tokio::test]
async fn limits_are_lowered_at_the_start_and_raised_later() {
    let house = House::new();
    let served = house.serve(people()).await;
    let asker = by("asker");
    let too_high = served.post_run(&[&asker], r#"{"message": "Hello", "limits": {"turns": 1000}}"#).await;
    refused(&too_high, 422, "limits_higher");
    let low = served.post_run(&[&asker], r#"{"message": "Look", "limits": {"turns": 1}}"#).await;
    assert_eq!((low.text("status").as_str(), low.text("turns").as_str()), ("budget_exhausted", "1"), "{low:?}");
    let run = served.post_run(&[&asker], r#"{"message": "Pay", "limits": {"turns": 5}}"#).await;
    held(&run);
    let path = format!("/runs/{}/raise", run.text("run_id"));
    refused(&served.post(&path, &[&asker], r#"{"turns": 6}"#).await, 403, "scope_missing");
    refused(&served.post(&path, &[&by("boss")], r#"{"turns": 4}"#).await, 409, "raise_too_low");
    refused(&served.post(&path, &[&by("boss")], r#"{"turn": 9}"#).await, 400, "request_invalid");
    assert_eq!(served.post(&path, &[&by("boss")], r#"{"turns": 6}"#).await.status, 202);
    let log = served.send("GET", &format!("/runs/{}/events", run.text("run_id")), &[&asker], "").await;
    assert!(log.body.contains(r#""kind":"raised","body":{"limits":{"turns":6,"#), "{}", log.body);
    served.stop().await;
}

#[tokio::test]
async fn somebody_says_what_became_of_a_call_in_doubt() {
    let house = House::in_doubt().await;
    let served = house.serve(Config::default()).await;
    let runs = served.get("/runs?status=needs_resolution").await.json();
    let run = runs["runs"][0]["run_id"].as_str().unwrap().to_owned();
    let shown = served.get(&format!("/runs/{run}")).await.json();
    let call = shown["in_doubt"][0].as_str().unwrap();
    assert_eq!((&shown["status"], &shown["waits_for"]), (&"needs_resolution".into(), &"resolution".into()), "{shown}");
    let path = format!("/runs/{run}/resolve");
    let said = |call: &str, rest: &str| format!(r#"{{"call_id": "{call}", {rest}}}"#);
    for rest in [r#""outcome": "happened""#, r#""outcome": "did_not_happen", "output": "x""#, r#""outcome": "perhaps""#]
    {
        refused(&served.post(&path, &[], &said(call, rest)).await, 400, "request_invalid");
    }
    let nobody = "call_00000000000000000000000000000000";
    refused(&served.post(&path, &[], &said(nobody, r#""outcome": "did_not_happen""#)).await, 404, "call_not_found");
    refused(&served.post(&path, &[], &said(call, r#""outcome": "compensate""#)).await, 409, "no_compensation");
    let happened = said(call, r#""outcome": "happened", "output": "It went through.""#);
    let once = "idempotency-key: d1";
    let resolved = served.post(&path, &[once], &happened).await;
    assert_eq!(resolved.status, 202, "{resolved:?}");
    let end = ended(&served, None, &run).await;
    assert_eq!((end.reply.as_deref(), end.in_doubt.len()), (Some("Launched."), 0));
    assert_eq!(served.post(&path, &[once], &happened).await.status, 202, "this very request was taken before");
    refused(&served.post(&path, &[], &happened).await, 409, "run_ended");
    served.stop().await;
}
