//! Whole sessions over HTTP: forked, compared, replayed, put aside, deleted.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

mod common;

use api::Scope;
use common::{Answer, House, key};
use server::Config;

fn refused(answer: &Answer, status: u16, code: &str) {
    assert_eq!((answer.status, answer.code().as_str()), (status, code), "{answer:?}");
}

#[tokio::test]
async fn a_session_is_forked_where_it_can_be() {
    let house = House::new();
    let served = house.serve(Config::default()).await;
    let run = served.post_run(&[], r#"{"session": "s", "message": "Look twice"}"#).await.text("run_id");
    let list = served.get("/sessions/s/checkpoints").await.json();
    let places: Vec<u64> = list["checkpoints"].as_array().unwrap().iter().map(|c| c["at"].as_u64().unwrap()).collect();
    assert!(places.is_sorted() && places.last() == Some(&10), "{list}");

    let idle = served.post("/sessions/s/fork", &[], r#"{"at": 10, "session": "idle"}"#).await;
    assert_eq!((idle.status, idle.text("session").as_str(), idle.text("at").as_str()), (201, "idle", "10"), "{idle:?}");
    assert!(idle.json().get("run_id").is_none(), "{idle:?}");
    assert_eq!(idle.json()["outside_effects"], serde_json::json!([]));
    let events = served.get("/sessions/idle/events").await;
    assert!(events.body.contains(r#""kind":"forked""#), "{events:?}");
    // It goes on with what was said before.
    let next = served.post_run(&[], r#"{"session": "idle", "message": "Hello"}"#).await;
    assert_eq!(next.text("reply"), "Hello, how can I help?", "{next:?}");

    let once = "idempotency-key: f1";
    let body = r#"{"at": 10, "session": "told", "message": "Hello"}"#;
    let told = served.post("/sessions/s/fork", &[once], body).await;
    assert_eq!(told.status, 201, "{told:?}");
    let forked = told.text("run_id");
    assert_eq!(served.post("/sessions/s/fork", &[once], body).await.text("run_id"), forked);
    let client = served.client(None);
    let mut events = client.events(client::Follow::Run(forked.parse().unwrap()), None);
    while events.next().await.transpose().unwrap().is_some() {}
    assert_eq!(served.get(&format!("/runs/{forked}")).await.text("reply"), "Hello, how can I help?");

    let impossible = served.post("/sessions/s/fork", &[], r#"{"at": 6}"#).await;
    refused(&impossible, 409, "not_forkable");
    assert!(impossible.text("hint").contains("nearest"), "{impossible:?}");
    // The same once more is the same session; something else of that name is refused.
    assert_eq!(served.post("/sessions/s/fork", &[], body).await.text("run_id"), forked);
    let other = format!(r#"{{"at": {}, "session": "told", "message": "Hello"}}"#, places[0]);
    refused(&served.post("/sessions/s/fork", &[], &other).await, 409, "session_exists");
    refused(&served.post("/sessions/nobody/fork", &[], body).await, 404, "session_not_found");
    refused(&served.post("/sessions/s/fork", &[], r#"{"at": 10, "session": "a b"}"#).await, 400, "request_invalid");
    let agent = r#"{"at": 10, "agent": "mia", "message": "Hello"}"#;
    refused(&served.post("/sessions/s/fork", &[], agent).await, 422, "agent_unknown");
    let model = r#"{"at": 10, "model": "other", "message": "Hello"}"#;
    refused(&served.post("/sessions/s/fork", &[], model).await, 422, "model_unknown");

    let same = served.get(&format!("/runs/{run}/diff/{run}")).await.json();
    assert_eq!(same["differences"], serde_json::json!([]));
    let differs = served.get(&format!("/runs/{run}/diff/{forked}")).await.json();
    assert!(!differs["differences"].as_array().unwrap().is_empty(), "{differs}");
    refused(&served.get(&format!("/runs/{run}/diff/run_1")).await, 404, "run_not_found");
    served.stop().await;
}

#[tokio::test]
async fn a_run_replays_as_it_was_written() {
    let house = House::new();
    let served = house.serve(Config::default()).await;
    let run = served.post_run(&[], r#"{"session": "s", "message": "Look twice"}"#).await.text("run_id");
    let replay = served.get(&format!("/runs/{run}/replay")).await.json();
    assert_eq!((&replay["same"], &replay["run_id"]), (&true.into(), &run.as_str().into()), "{replay}");
    assert!(replay["records"].as_u64().unwrap() >= 10 && replay.get("difference").is_none(), "{replay}");
    refused(&served.get("/runs/run_00000000000000000000000000000000/replay").await, 404, "run_not_found");
    served.stop().await;
}

#[tokio::test]
async fn a_session_is_put_aside_and_taken_back() {
    let house = House::new();
    let served = house.serve(Config::default()).await;
    let ask = r#"{"session": "s", "message": "Hello"}"#;
    assert_eq!(served.post_run(&[], ask).await.status, 200);
    let aside = served.post("/sessions/s/quarantine", &[], r#"{"reason": "To be looked at."}"#).await;
    assert_eq!(aside.status, 200, "{aside:?}");
    assert_eq!((&aside.json()["quarantined"], &aside.json()["reason"]), (&true.into(), &"To be looked at.".into()));
    refused(&served.post_run(&[], ask).await, 409, "session_quarantined");
    assert_eq!(served.get("/sessions/s/events").await.status, 200, "it can be read");
    let back = served.send("POST", "/sessions/s/release", &[], "").await;
    assert_eq!((back.status, &back.json()["quarantined"]), (200, &false.into()));
    assert_eq!(served.post_run(&[], ask).await.status, 200);
    refused(&served.post("/sessions/nobody/quarantine", &[], r#"{"reason": "x"}"#).await, 404, "session_not_found");
    refused(&served.send("POST", "/sessions/nobody/release", &[], "").await, 404, "session_not_found");
    served.stop().await;
}

#[tokio::test]
async fn a_session_is_deleted_wholly_and_leaves_a_tombstone() {
    let house = House::new();
    let keys = vec![
        key("all", "default", "all", &[Scope::Admin]),
        key("writer", "default", "writer", &[Scope::RunsRead, Scope::RunsWrite]),
    ];
    let served = house.serve(Config { keys, ..Config::default() }).await;
    let (all, writer) = ("x-api-key: all", "x-api-key: writer");
    let run = served.post_run(&[writer], r#"{"session": "s", "message": "Hello", "save_artifact": true}"#).await;
    let file = run.text("artifact_url").strip_prefix(&served.base).unwrap().to_owned();
    assert_eq!(served.get(&file).await.status, 200);
    refused(&served.send("DELETE", "/sessions/s", &[writer], "").await, 403, "scope_missing");
    let held = served.post_run(&[writer, "prefer: respond-async"], r#"{"session": "s", "message": "Hold"}"#).await;
    house.held.notified().await;
    refused(&served.send("DELETE", "/sessions/s", &[all], "").await, 409, "session_unended");
    house.release.add_permits(1);
    let client = served.client(Some("all"));
    let mut events = client.events(client::Follow::Run(held.text("run_id").parse().unwrap()), None);
    while events.next().await.transpose().unwrap().is_some() {}
    let records = client.session("s").await.unwrap().records;
    let purged = served.send("DELETE", "/sessions/s", &[all], "").await;
    assert_eq!((purged.status, purged.json()["records"].as_u64()), (200, Some(records)), "{purged:?}");
    assert_eq!(purged.text("head").len(), 64);
    for path in ["/sessions/s", "/sessions/s/events", "/sessions/s/checkpoints"] {
        refused(&served.send("GET", path, &[all], "").await, 404, "session_not_found");
    }
    refused(&served.send("GET", &format!("/runs/{}", run.text("run_id")), &[all], "").await, 404, "run_not_found");
    refused(&served.get(&file).await, 410, "blob_missing");
    // Asked again, the tombstone says the same.
    assert_eq!(served.send("DELETE", "/sessions/s", &[all], "").await.json(), purged.json());
    refused(&served.send("DELETE", "/sessions/nobody", &[all], "").await, 404, "session_not_found");
    // The name is free again.
    let again = served.post_run(&[writer], r#"{"session": "s", "message": "Hello"}"#).await;
    assert_eq!((again.status, client.session("s").await.unwrap().runs), (200, 1));
    served.stop().await;
}

#[tokio::test]
async fn what_others_are_told_is_listed() {
    let house = House::new();
    let served = house.serve(Config::default()).await;
    let run = served.post_run(&[], r#"{"message": "Hello"}"#).await.text("run_id");
    let list = served.get(&format!("/runs/{run}/deliveries")).await.json();
    assert_eq!(list, serde_json::json!({ "deliveries": [] }));
    let nowhere = r#"{"message": "Hello", "callback": {"url": "ftp://example.com"}}"#;
    refused(&served.post_run(&[], nowhere).await, 422, "callback_invalid");
    served.stop().await;
}

#[tokio::test]
async fn a_worker_says_how_it_does_and_nothing_else() {
    let house = House::new();
    let served = house.serve(Config { surface: server::Surface::Upkeep, ..Config::default() }).await;
    for (path, status) in [("/healthz", 200), ("/readyz", 200), ("/metrics", 200), ("/health", 404), ("/runs", 404)] {
        assert_eq!(served.get(path).await.status, status, "{path}");
    }
    refused(&served.post_run(&[], r#"{"message": "Hello"}"#).await, 404, "path_unknown");
    served.stop().await;
}
