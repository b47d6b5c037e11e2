//! The client against the service, over a socket with a key and within the process: both see the same.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

mod common;

use api::{PostRun, RunQuery, Scope};
use client::{Client, Error, Follow, PostOptions, Wait};
use common::{House, key};
use domain::record::When;
use domain::{Id, RunStatus};
use server::Config;

fn ask(session: &str, message: &str) -> PostRun {
    PostRun { session: Some(session.into()), message: message.into(), save_artifact: true, ..PostRun::default() }
}

async fn check(client: &Client, house: &House, session: &str) {
    assert_eq!(client.health().await.unwrap().status, "ok");
    let run = client.post_run(&ask(session, "Hello"), &PostOptions::default()).await.unwrap();
    assert_eq!((run.status, run.reply.as_deref()), (RunStatus::Completed, Some("Hello, how can I help?")));
    assert_eq!(client.run(run.run_id).await.unwrap().reply, run.reply);
    let artifacts = client.artifacts(run.run_id).await.unwrap();
    assert_eq!(client.artifact_bytes(&artifacts[0]).await.unwrap(), "Hello, how can I help?");

    let options = PostOptions { wait: Wait::No, idempotency_key: Some(format!("{session}-1")) };
    let held = client.post_run(&ask(session, "Hold"), &options).await.unwrap();
    assert!(!held.status.is_end());
    let again = client.post_run(&ask(session, "Hold"), &options).await.unwrap();
    assert_eq!(again.run_id, held.run_id);
    house.held.notified().await;
    let seconds = PostOptions { wait: Wait::Seconds(0), ..options };
    assert_eq!(client.post_run(&ask(session, "Hold"), &seconds).await.unwrap().status, RunStatus::Running);
    client.cancel(held.run_id, When::Now).await.unwrap();
    let mut events = client.events(Follow::Run(held.run_id), None);
    let mut last = None;
    while let Some(event) = events.next().await {
        last = Some(event.unwrap().name());
    }
    assert_eq!(last, Some("finished"));

    let query = RunQuery { session: Some(session.into()), limit: Some(1), ..RunQuery::default() };
    let first = client.runs(&query).await.unwrap();
    assert_eq!((first.runs.len(), first.runs[0].run_id), (1, held.run_id));
    let second = client.runs(&RunQuery { cursor: first.next, ..query.clone() }).await.unwrap();
    assert_eq!(second.runs[0].run_id, run.run_id);
    let cancelled = RunQuery { status: Some(RunStatus::Cancelled), agent: Some("maya".into()), ..query };
    assert_eq!(client.runs(&cancelled).await.unwrap().runs[0].run_id, held.run_id);
    let view = client.session(session).await.unwrap();
    assert_eq!((view.session.as_str(), view.runs, view.last_run_id), (session, 2, held.run_id));
    assert!(client.sessions(None, Some(10)).await.unwrap().sessions.iter().any(|s| s.session_id == view.session_id));
    let page = client.records(&Follow::Session(session.into()), Some(view.records - 2)).await.unwrap();
    assert_eq!(page.records.len(), 1);

    let missing = client.run(Id::from_bytes([0; 16])).await.unwrap_err();
    assert_eq!((missing.code(), missing.is_passing()), ("run_not_found", false));
    let mut events = client.events(Follow::Session("nobody".into()), None);
    assert_eq!(events.next().await.unwrap().unwrap_err().code(), "session_not_found");
    assert!(events.next().await.is_none(), "an error ends the stream");
}

#[tokio::test]
async fn over_a_socket_with_a_key() {
    let house = House::new();
    let keys = vec![key("one", "default", "one", &[Scope::Admin])];
    let served = house.serve(Config { keys, ..Config::default() }).await;
    check(&served.client(Some("one")), &house, "a/name?with#signs%&+").await;
    let refused = served.client(None).runs(&RunQuery::default()).await.unwrap_err();
    assert!(matches!(&refused, Error::Problem(problem) if problem.status == 401), "{refused}");
    assert!(refused.to_string().contains("hint: "), "{refused}");
    served.stop().await;
}

#[tokio::test]
async fn within_the_process_without_one() {
    let house = House::new();
    let keys = vec![key("one", "default", "one", &[Scope::Admin])];
    let (connector, served) = house.serve_memory(Config { keys, ..Config::default() });
    let client = House::memory_client(&connector);
    check(&client, &house, "s").await;
    served.stop().await;
    let gone = client.health().await.unwrap_err();
    assert_eq!((gone.code(), gone.is_passing()), ("client_memory", true));
}

#[test]
fn settings_that_cannot_be_are_refused() {
    let net = || net::Client::new(net::Settings::default()).unwrap();
    for (base, key) in [("no url", None), ("http://127.0.0.1:1", Some("two\nlines"))] {
        let error = Client::http(base, key, net()).unwrap_err();
        assert_eq!(error.code(), "client_settings", "{base}");
        assert!(!error.to_string().contains("lines"), "the key stays out of it: {error}");
    }
}
