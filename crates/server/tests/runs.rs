//! Runs over HTTP: waiting, not waiting, asking twice, cancelling, listing, fetching what they left, shutting down.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

mod common;

use api::Scope;
use common::{House, key};
use server::Config;
use std::time::Duration;

#[tokio::test]
async fn a_run_is_answered_with_its_reply() {
    let house = House::new();
    let served = house.serve(Config::default()).await;
    let answer = served.post_run(&[], r#"{"session": "alice", "message": "Look twice"}"#).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let run = answer.json();
    assert_eq!(
        (&run["session"], &run["status"], &run["agent"]),
        (&"alice".into(), &"completed".into(), &"maya".into())
    );
    assert!(run["reply"].as_str().unwrap().starts_with("Both were seen"), "{run}");
    assert_eq!((&run["used_sandbox"], &run["turns"], &run["tool_calls"]), (&false.into(), &2.into(), &2.into()));
    assert!(run["usage"]["model_calls"].is_u64() && run["cost"]["micro_usd"].is_u64(), "{run}");
    assert!(run.get("artifact_url").is_none() && run.get("error").is_none(), "{run}");
    // The same run, looked up; by name, by id, under both prefixes.
    let id = answer.text("run_id");
    assert_eq!(served.get(&format!("/runs/{id}")).await.json(), run);
    assert_eq!(served.get(&format!("/api/v1/runs/{id}")).await.json(), run);
    let session = served.get("/sessions/alice").await.json();
    assert_eq!(
        (&session["session"], &session["runs"], &session["last_run_id"]),
        (&"alice".into(), &1.into(), &run["run_id"])
    );
    assert_eq!(served.get(&format!("/sessions/{}", session["session_id"].as_str().unwrap())).await.json(), session);
    // Without a name the session is known by its id.
    let unnamed = served.post_run(&[], r#"{"message": "Hello"}"#).await.text("session");
    let again = served.post_run(&[], &format!(r#"{{"session": "{unnamed}", "message": "Hello"}}"#)).await;
    assert_eq!((again.status, again.text("session")), (200, unnamed), "{again:?}");
    served.stop().await;
}

#[tokio::test]
async fn a_run_that_fails_says_so() {
    let house = House::new();
    let served = house.serve(Config::default()).await;
    let answer = served.post_run(&[], r#"{"message": "Fail"}"#).await;
    let run = answer.json();
    assert_eq!((answer.status, &run["status"], &run["reply"]), (200, &"failed".into(), &serde_json::Value::Null));
    assert_eq!((&run["error"]["class"], &run["error"]["code"]), (&"model".into(), &"script_unmatched".into()), "{run}");
    served.stop().await;
}

#[tokio::test]
async fn who_does_not_wait_gets_a_location() {
    let house = House::new();
    let served = house.serve(Config::default()).await;
    for (prefer, applied) in [("prefer: respond-async", "respond-async"), ("prefer: wait=0", "")] {
        let answer = served.post_run(&[prefer], r#"{"message": "Hold"}"#).await;
        let run = answer.text("run_id");
        assert_eq!((answer.status, answer.header("location")), (202, format!("/runs/{run}").as_str()), "{answer:?}");
        assert_eq!(answer.header("preference-applied"), applied);
        assert_eq!(answer.json()["reply"], serde_json::Value::Null);
        house.held.notified().await;
        let looked = served.get(answer.header("location")).await;
        assert_eq!((looked.status, looked.text("status").as_str()), (200, "running"));
        house.release.add_permits(1);
        let client = served.client(None);
        let mut events = client.events(client::Follow::Run(run.parse().unwrap()), None);
        while events.next().await.transpose().unwrap().is_some() {}
        assert_eq!(served.get(answer.header("location")).await.text("reply"), "Released.");
    }
    served.stop().await;
}

#[tokio::test]
async fn the_service_waits_no_longer_than_it_may() {
    let house = House::new();
    let mut config = Config::default();
    config.limits.wait_seconds_max = 1;
    let served = house.serve(config).await;
    let answer = served.post_run(&["prefer: wait=100"], r#"{"message": "Hold"}"#).await;
    assert_eq!((answer.status, answer.text("status").as_str()), (202, "running"), "{answer:?}");
    served.stop().await;
}

#[tokio::test]
async fn asking_twice_with_one_key_is_asking_once() {
    let house = House::new();
    let keys = ["one", "two"].map(|name| key(name, "default", name, &[Scope::RunsRead, Scope::RunsWrite]));
    let served = house.serve(Config { keys: keys.to_vec(), ..Config::default() }).await;
    let ask = |who: &'static str, body: &'static str| {
        let served = &served;
        async move { served.post_run(&[who, "idempotency-key: k1"], body).await }
    };
    // In flight: the second waits for the first one's end.
    let held = r#"{"message": "Hold"}"#;
    let release = async {
        house.held.notified().await;
        house.release.add_permits(1);
    };
    let (first, second, ()) = tokio::join!(ask("x-api-key: one", held), ask("x-api-key: one", held), release);
    assert_eq!((first.status, second.status), (200, 200), "{first:?} {second:?}");
    assert_eq!(first.text("reply"), "Released.");
    assert_eq!(first.json(), second.json());
    // Afterwards, and however the same is written.
    let written = ask("x-api-key: one", "{\n \"save_artifact\": false, \"message\": \"\\u0048old\" }").await;
    assert_eq!((written.status, written.text("run_id")), (200, first.text("run_id")));
    // Another request under the key is refused.
    let other = ask("x-api-key: one", r#"{"message": "Hello"}"#).await;
    assert_eq!((other.status, other.code().as_str()), (422, "idempotency_conflict"));
    // Another principal's key is another key.
    let own = ask("x-api-key: two", r#"{"message": "Hello"}"#).await;
    assert_eq!(own.status, 200);
    assert_ne!(own.text("run_id"), first.text("run_id"));
    let long = format!("idempotency-key: {}", "k".repeat(256));
    for header in [long.as_str(), "idempotency-key: "] {
        let answer = served.post_run(&["x-api-key: one", header], held).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "request_invalid"), "{header}");
    }
    served.stop().await;
}

#[tokio::test]
async fn a_run_is_cancelled() {
    let house = House::new();
    let served = house.serve(Config::default()).await;
    let run = served.post_run(&["prefer: respond-async"], r#"{"message": "Hold"}"#).await.text("run_id");
    house.held.notified().await;
    let answer = served.send("POST", &format!("/runs/{run}/cancel"), &[], "").await;
    assert_eq!((answer.status, answer.header("location")), (202, format!("/runs/{run}").as_str()));
    let client = served.client(None);
    let run = run.parse().unwrap();
    let mut events = client.events(client::Follow::Run(run), None);
    while events.next().await.transpose().unwrap().is_some() {}
    assert_eq!(client.run(run).await.unwrap().status, domain::RunStatus::Cancelled);
    // Cancelling what has ended changes nothing.
    assert_eq!(client.cancel(run, domain::record::When::Now).await.unwrap().status, domain::RunStatus::Cancelled);
    served.stop().await;
}

#[tokio::test]
async fn lists_are_paged_and_filtered() {
    let house = House::new();
    let served = house.serve(Config::default()).await;
    for at in 0..5 {
        let message = if at == 0 { "Fail" } else { "Hello" };
        let body = format!(r#"{{"session": "s{}", "message": "{message}"}}"#, at % 2);
        assert_eq!(served.post_run(&[], &body).await.status, 200);
    }
    for (query, expected) in [
        ("", 5),
        ("session=s0", 3),
        ("session=s1", 2),
        ("status=failed", 1),
        ("status=completed&session=s0", 2),
        ("agent=maya", 5),
        ("agent=nobody", 0),
        ("session=nobody", 0),
    ] {
        let mut seen = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = served.get(&format!("/runs?limit=2&{query}{cursor}")).await.json();
            let runs = page["runs"].as_array().unwrap();
            assert!(runs.len() <= 2, "{query}");
            seen.extend(runs.iter().map(|run| run["run_id"].as_str().unwrap().to_owned()));
            let Some(next) = page["next"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        assert_eq!(seen.len(), expected, "{query}: {seen:?}");
        assert!(seen.is_sorted_by(|a, b| a > b), "newest first: {seen:?}");
    }
    let first = served.get("/sessions?limit=1").await.json();
    let second = served.get(&format!("/sessions?limit=1&cursor={}", first["next"].as_str().unwrap())).await.json();
    assert_ne!(first["sessions"][0]["session_id"], second["sessions"][0]["session_id"]);
    served.stop().await;
}

#[tokio::test]
async fn what_a_run_left_is_fetched_by_a_link_that_needs_no_key() {
    let house = House::new();
    let keys = vec![key("one", "default", "one", &[Scope::Admin])];
    let served = house.serve(Config { keys, ..Config::default() }).await;
    let run = served.post_run(&["x-api-key: one"], r#"{"message": "Hello", "save_artifact": true}"#).await;
    let url = run.text("artifact_url");
    let path = url.strip_prefix(&served.base).expect("the link leads to this service");
    let file = served.get(path).await;
    assert_eq!((file.status, file.body.as_str()), (200, "Hello, how can I help?"));
    assert!(file.header("content-disposition").starts_with("attachment; filename=\""), "{file:?}");
    assert_eq!(file.header("x-content-type-options"), "nosniff");
    let list = served.send("GET", &format!("/runs/{}/artifacts", run.text("run_id")), &["x-api-key: one"], "").await;
    assert_eq!(list.json()["artifacts"].as_array().unwrap().len(), 1, "{list:?}");
    assert_eq!(served.get(&path[..path.len() - 2]).await.code(), "link_forged");
    served.stop().await;
}

#[tokio::test]
async fn shutting_down_leaves_nobody_waiting() {
    let house = House::new();
    let served = house.serve(Config::default()).await;
    let client = served.client(None);
    let waiting = served.post_run(&[], r#"{"session": "s", "message": "Hold"}"#);
    let stopping = async {
        house.held.notified().await;
        let mut events = client.events(client::Follow::Session("s".into()), None);
        assert!(events.next().await.unwrap().is_ok());
        served.tell_to_stop();
        events
    };
    let (answer, events) = tokio::join!(waiting, stopping);
    assert_eq!((answer.status, answer.text("status").as_str()), (202, "running"));
    drop(events);
    tokio::time::timeout(Duration::from_secs(30), served.stop()).await.expect("it ends");
}

#[tokio::test]
async fn too_much_at_once_is_refused_with_a_time_to_come_again() {
    let house = House::new();
    let mut config = Config::default();
    config.limits.requests_at_once_max = 1;
    config.limits.requests_per_second_max = Some(2);
    let served = house.serve(config).await;
    let crowded = async {
        house.held.notified().await;
        let answer = served.get("/health").await;
        assert_eq!(
            (answer.status, answer.code().as_str(), answer.header("retry-after")),
            (503, "too_many_requests", "1")
        );
        house.release.add_permits(1);
    };
    let (held, ()) = tokio::join!(served.post_run(&[], r#"{"message": "Hold"}"#), crowded);
    assert_eq!(held.status, 200);
    let mut refused = served.get("/runs").await;
    // Two in a second may; whoever asks without a pause is soon refused, however slow this machine is.
    for _ in 0..1_000 {
        if refused.status == 429 {
            break;
        }
        refused = served.get("/runs").await;
    }
    assert_eq!((refused.code().as_str(), refused.header("retry-after")), ("rate_limited", "1"));
    served.stop().await;
}
