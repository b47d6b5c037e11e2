//! A model's endpoint that fails, over a real loopback connection: what is asked again, when it is left alone, how one attempt tells
//! that it is well, and what `/metrics` says meanwhile.

#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

mod common;

use common::{House, Served};
use domain::{Event, RunStatus, TENANT_DEFAULT};
use engine::SessionName;
use journal::{SessionKey, WorkerSpec};
use server::Config;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const LONG: Duration = Duration::from_secs(60);

/// What the endpoint does with a request.
#[derive(Clone, Copy, Debug)]
enum Does {
    /// Too many requests; come back at once.
    Limits,
    /// Out of service.
    Fails,
    /// Begins to stream a reply and breaks off.
    Cuts,
    /// Streams a whole reply.
    Replies,
}

const PIECE: &str = r#"data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":"Here I am."},"finish_reason":null}]}"#;
const LAST: &str = r#"data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;

/// Listens; does these things in order, then replies.
async fn endpoint(does: &'static [Does]) -> (Arc<AtomicUsize>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let at = counted.fetch_add(1, Ordering::SeqCst);
            answer(stream, does.get(at).copied().unwrap_or(Does::Replies)).await;
        }
    });
    (count, url)
}

async fn answer(mut stream: TcpStream, does: Does) {
    let mut bytes = Vec::new();
    while !is_whole(&bytes) {
        let mut chunk = [0; 4_096];
        let read = stream.read(&mut chunk).await.unwrap();
        assert!(read > 0, "half a request");
        bytes.extend_from_slice(&chunk[..read]);
    }
    let refusal = |status: &str, header: &str| {
        format!(
            "HTTP/1.1 {status}\r\n{header}content-type: application/json\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{{}}"
        )
    };
    let streamed = |events: &str, bytes: usize| {
        format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: {bytes}\r\nconnection: close\r\n\r\n{events}"
        )
    };
    let whole = format!("{PIECE}\n\n{LAST}\n\ndata: [DONE]\n\n");
    let answer = match does {
        Does::Limits => refusal("429 Too Many Requests", "retry-after: 0\r\n"),
        Does::Fails => refusal("503 Service Unavailable", ""),
        Does::Cuts => streamed(&format!("{PIECE}\n\n"), whole.len()),
        Does::Replies => streamed(&whole, whole.len()),
    };
    stream.write_all(answer.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
}

fn is_whole(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
    length == Some(body.len())
}

/// The lines of `/metrics` about breakers.
async fn breakers(served: &Served) -> Vec<String> {
    let metrics = served.get("/metrics").await.body;
    metrics.lines().filter(|line| line.starts_with("topside_breaker")).map(str::to_owned).collect()
}

fn submission(session: &str) -> engine::Submission {
    engine::Submission {
        tenant: TENANT_DEFAULT.to_owned(),
        principal: domain::Id::from_name(TENANT_DEFAULT, "local"),
        session: SessionName::Named(session.to_owned()),
        agent: None,
        message: "Are you there?".into(),
        save: domain::record::Save::Declared,
        limits: engine::LimitChange::default(),
        callback: None,
        idempotency: None,
    }
}

/// The codes of what was put off in a session, once there are so many.
async fn deferred(house: &House, session: domain::Id<domain::id::Session>, count: usize) -> Vec<String> {
    let key = SessionKey::new(TENANT_DEFAULT, session);
    let mut hints = house.engine.journal().subscribe(&key).unwrap();
    loop {
        let records = house.engine.journal().records(&key, 0, 1_000).await.unwrap();
        let events = records.iter().map(|record| record.decode().unwrap().event);
        let codes: Vec<_> = events
            .filter_map(|event| match event {
                Event::Deferred(body) => Some(body.failure.code),
                _ => None,
            })
            .collect();
        if codes.len() >= count {
            return codes;
        }
        tokio::time::timeout(LONG, hints.next()).await.unwrap_or_else(|_| panic!("no more than {codes:?}"));
    }
}

async fn house(does: &'static [Does], settings: &str) -> (House, Served, engine::Tending, Arc<AtomicUsize>) {
    let (count, url) = endpoint(does).await;
    let house = House::with(&[
        ("topside.yaml", &format!("default_agent: maya\n{settings}")),
        ("models/main.yaml", &format!("main: {{provider: openai-compatible, wire: chat, name: m, url: '{url}'}}\n")),
    ]);
    let tending = house.engine.tend(WorkerSpec { name: "test".into(), lease_ms: 60_000 }).await.unwrap();
    let served = house.serve(Config::default()).await;
    (house, served, tending, count)
}

#[tokio::test]
async fn a_breaker_opens_lets_one_attempt_through_and_closes() {
    use Does::{Cuts, Fails, Limits};
    // Each attempt of a run asks up to three times.
    let does = &[Limits, Fails, Fails, Cuts, Cuts, Cuts, Fails, Fails, Fails];
    let settings = "breaker: {failures: 2, open_seconds: 3}\nretries: {model: {attempts: 9, backoff_seconds: 0.1, backoff_seconds_max: 0.2}}\n";
    let (house, served, tending, count) = house(does, settings).await;
    assert_eq!(breakers(&served).await, ["topside_breakers_opened_total 0"]);
    let ticket = house.engine.submit(submission("one")).await.unwrap();
    let codes = deferred(&house, ticket.session, 2).await;
    assert_eq!((codes.len(), codes[0].as_str()), (2, "model_overloaded"), "{codes:?}");
    let open = ["topside_breakers_opened_total 1", "topside_breaker_open{part=\"model `main`\"} 1"];
    assert_eq!(breakers(&served).await, open);
    assert_eq!(count.load(Ordering::SeqCst), 6);
    // Another run is kept from asking by what the first one found.
    let other = house.engine.submit(submission("two")).await.unwrap();
    assert_eq!(deferred(&house, other.session, 1).await[0], "breaker_open");
    assert_eq!(count.load(Ordering::SeqCst), 6, "nobody is asked meanwhile");
    for ticket in [ticket, other] {
        let view = house.engine.wait(TENANT_DEFAULT, ticket.run, LONG).await.unwrap();
        assert_eq!((view.status, view.reply.as_deref()), (RunStatus::Completed, Some("Here I am.")), "{view:?}");
        assert!(view.attempts > Some(1), "{view:?}");
    }
    // One attempt was let through, failed, and it was left alone again; the next one found it well.
    let codes = [deferred(&house, ticket.session, 0).await, deferred(&house, other.session, 0).await].concat();
    assert_eq!(codes.iter().filter(|code| *code == "model_overloaded").count(), 2, "{codes:?}");
    assert_eq!(count.load(Ordering::SeqCst), 11, "nine that failed, and a reply for each run");
    assert_eq!(breakers(&served).await, ["topside_breakers_opened_total 1"]);
    house.engine.drain(LONG).await;
    tending.end().await;
    served.stop().await;
}

#[tokio::test]
async fn what_goes_on_failing_ends_the_run_by_the_retries_of_its_class() {
    use Does::Fails;
    let does = &[Fails; 64];
    for (settings, asked, attempts) in [
        ("retries: {model: {attempts: 2, backoff_seconds: 0.1, backoff_seconds_max: 0.1}}\n", 6, 2),
        ("retries: {model: {attempts: 1}}\n", 3, 1),
    ] {
        let (house, served, tending, count) = house(does, settings).await;
        let ticket = house.engine.submit(submission("one")).await.unwrap();
        let view = house.engine.wait(TENANT_DEFAULT, ticket.run, LONG).await.unwrap();
        let failure = view.failure.unwrap();
        assert_eq!((view.status, failure.code.as_str()), (RunStatus::Failed, "model_overloaded"), "{failure:?}");
        assert_eq!((count.load(Ordering::SeqCst), view.attempts), (asked, Some(attempts)), "{settings}");
        house.engine.drain(LONG).await;
        tending.end().await;
        served.stop().await;
    }
}
