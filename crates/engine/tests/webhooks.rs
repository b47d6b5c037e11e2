//! Others are told of runs, over a real loopback connection: what is sent, when it is sent again, and when it is not.

#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

mod common;

use common::{Project, TENANT, ask};
use engine::{Callback, DeliveryStatus, DeliveryView, Engine, Submission, Tending};
use parking_lot::Mutex;
use ring::hmac;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Notify;

const LONG: Duration = Duration::from_secs(60);
const ANSWER: &str = "title: short\nsteps:\n- reply:\n  - text: \"Hello.\"\n";

/// A server that answers what it is told and keeps what it was sent.
#[derive(Clone, Default)]
struct Ear {
    heard: Arc<Mutex<Vec<Heard>>>,
    answers: Arc<Mutex<Vec<u16>>>,
    grown: Arc<Notify>,
}

#[derive(Clone, Debug)]
struct Heard {
    headers: HashMap<String, String>,
    body: String,
}

impl Ear {
    /// Listens; answers these statuses in order, then 204.
    async fn listen(answers: &[u16]) -> (Self, String) {
        let ear = Self { answers: Arc::new(Mutex::new(answers.iter().rev().copied().collect())), ..Self::default() };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook?key=secret", listener.local_addr().unwrap());
        let server = ear.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut bytes = Vec::new();
                let heard = loop {
                    let mut chunk = [0; 4_096];
                    let read = stream.read(&mut chunk).await.unwrap();
                    bytes.extend_from_slice(&chunk[..read]);
                    if let Some(heard) = whole(&bytes) {
                        break heard;
                    }
                    assert!(read > 0, "half a request");
                };
                server.heard.lock().push(heard);
                let status = server.answers.lock().pop().unwrap_or(204);
                let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                stream.write_all(answer.as_bytes()).await.unwrap();
                server.grown.notify_waiters();
            }
        });
        (ear, url)
    }

    /// What was sent, once it is so many.
    async fn heard(&self, count: usize) -> Vec<Heard> {
        loop {
            let grown = self.grown.notified();
            if self.heard.lock().len() >= count {
                return self.heard.lock().clone();
            }
            tokio::time::timeout(LONG, grown).await.expect("nothing is sent");
        }
    }
}

fn whole(bytes: &[u8]) -> Option<Heard> {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let lines = head.lines().skip(1).filter_map(|line| line.split_once(": "));
    let headers: HashMap<_, _> = lines.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
    let length: usize = headers.get("content-length")?.parse().ok()?;
    (body.len() == length).then(|| Heard { headers, body: body.to_owned() })
}

/// Whether a request is signed with a secret.
fn is_signed(heard: &Heard, secret: &str) -> bool {
    let (time, code) = heard.headers["topside-signature"].split_once(",v1=").unwrap();
    let seconds = time.strip_prefix("t=").unwrap();
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let code: Vec<u8> =
        (0..code.len()).step_by(2).map(|at| u8::from_str_radix(&code[at..at + 2], 16).unwrap()).collect();
    hmac::verify(&key, format!("{seconds}.{}", heard.body).as_bytes(), &code).is_ok()
}

struct House {
    project: Project,
    secret: Option<&'static str>,
    loopback: bool,
}

impl House {
    fn new(settings: &str) -> Self {
        let project = Project::new("", &[], ANSWER);
        project.write("topside.yaml", &format!("default_agent: maya\n{settings}"));
        Self { project, secret: Some("for callbacks"), loopback: true }
    }

    async fn open(&self) -> (Engine, Tending) {
        let engine = self.project.engine_in(common::World {
            secrets: self.secret.into_iter().map(|secret| ("CALLBACK_SECRET".to_owned(), secret.to_owned())).collect(),
            environment: [("HOOK_SECRET".to_owned(), "for hooks".to_owned())].into(),
            networks: if self.loopback { vec!["127.0.0.0/8".parse().unwrap()] } else { Vec::new() },
            ..common::World::default()
        });
        let spec = journal::WorkerSpec { name: "test".into(), lease_ms: 60_000 };
        let tending = engine.tend(spec).await.unwrap();
        (engine, tending)
    }
}

async fn end(engine: Engine, tending: Tending) {
    engine.drain(LONG).await;
    tending.end().await;
    engine.journal().close().await.unwrap();
}

/// The deliveries of a run, once one of them stands so.
async fn delivered(engine: &Engine, run: domain::Id<domain::id::Run>, status: DeliveryStatus) -> Vec<DeliveryView> {
    let mut made = engine.watch_deliveries();
    loop {
        made.mark_unchanged();
        let deliveries = engine.deliveries(TENANT, run).await.unwrap();
        if deliveries.iter().any(|delivery| delivery.status == status) {
            return deliveries;
        }
        let more = tokio::time::timeout(LONG, made.changed()).await;
        more.unwrap_or_else(|_| panic!("nobody is told: {deliveries:?}")).unwrap();
    }
}

#[tokio::test]
async fn a_webhook_is_told_signed_and_once_more_when_it_did_not_take_it() {
    let (ear, url) = Ear::listen(&[500]).await;
    let house = House::new(&format!(
        "webhooks:\n- url: '{url}'\n  secret: ${{env.HOOK_SECRET}}\n  events: [submitted, finished]\n"
    ));
    let (engine, tending) = house.open().await;
    let ticket = engine.submit(ask("Hello?")).await.unwrap();
    engine.wait(TENANT, ticket.run, LONG).await.unwrap();
    let heard = ear.heard(3).await;
    let ids: Vec<_> = heard.iter().map(|heard| heard.headers["topside-delivery"].clone()).collect();
    let distinct: std::collections::BTreeSet<_> = ids.iter().collect();
    assert_eq!(distinct.len(), 2, "what is sent again has the same id: {ids:?}");
    for heard in &heard {
        assert!(is_signed(heard, "for hooks") && !is_signed(heard, "for callbacks"));
        let body: serde_json::Value = serde_json::from_str(&heard.body).unwrap();
        assert_eq!(body["run_id"], ticket.run.to_string());
        assert_eq!(body["session_id"], ticket.session.to_string());
        assert_eq!(body["id"], heard.headers["topside-delivery"]);
        assert_eq!(body["type"], heard.headers["topside-event"]);
        assert!(!heard.body.contains("Hello"), "no content is told: {}", heard.body);
    }
    delivered(&engine, ticket.run, DeliveryStatus::Delivered).await;
    end(engine, tending).await;
    // The log of deliveries outlives the process.
    let (engine, tending) = house.open().await;
    let log = engine.deliveries(TENANT, ticket.run).await.unwrap();
    let events: Vec<_> = log.iter().map(|delivery| delivery.event.as_str()).collect();
    assert_eq!(events, ["submitted", "finished"]);
    assert_eq!(log.iter().map(|delivery| delivery.attempts).sum::<u32>(), 3);
    assert!(log.iter().all(|delivery| delivery.url.ends_with("/hook")), "a query may hold a secret: {log:?}");
    end(engine, tending).await;
}

#[tokio::test]
async fn a_callback_hears_of_its_own_run_only() {
    let (ear, url) = Ear::listen(&[]).await;
    let house = House::new("");
    let (engine, tending) = house.open().await;
    let other = engine.submit(ask("Hello?")).await.unwrap();
    engine.wait(TENANT, other.run, LONG).await.unwrap();
    let callback = Some(Callback { url, events: Vec::new() });
    let ticket = engine.submit(Submission { callback, ..ask("Hello?") }).await.unwrap();
    let heard = ear.heard(1).await;
    assert!(is_signed(&heard[0], "for callbacks"));
    assert_eq!(heard[0].headers["topside-event"], "finished");
    let log = delivered(&engine, ticket.run, DeliveryStatus::Delivered).await;
    assert_eq!((log.len(), log[0].answered, log[0].attempts), (1, Some(204), 1));
    assert_eq!(engine.deliveries(TENANT, other.run).await.unwrap(), []);
    assert_eq!(engine.deliveries("other", ticket.run).await.unwrap_err().code(), "run_not_found");
    end(engine, tending).await;
}

#[tokio::test]
async fn a_callback_reaches_no_private_address_and_gone_is_gone() {
    for (loopback, answers, code, heard) in
        [(false, &[][..], "net_address_refused", 0), (true, &[410][..], "http_status", 1)]
    {
        let (ear, url) = Ear::listen(answers).await;
        let house = House { loopback, ..House::new("") };
        let (engine, tending) = house.open().await;
        let callback = Some(Callback { url, events: vec!["finished".into()] });
        let ticket = engine.submit(Submission { callback, ..ask("Hello?") }).await.unwrap();
        let log = delivered(&engine, ticket.run, DeliveryStatus::Failed).await;
        assert_eq!((log[0].code.as_deref(), log[0].next_ms), (Some(code), None));
        assert_eq!(ear.heard.lock().len(), heard);
        end(engine, tending).await;
    }
}

#[tokio::test]
async fn a_callback_that_can_never_work_is_refused_at_the_door() {
    let house = House::new("");
    let unsigned = House { secret: None, ..House::new("") };
    let (engine, tending) = house.open().await;
    let (silent, other) = unsigned.open().await;
    let url = || "https://example.com/hook".to_owned();
    for (engine, callback) in [
        (&engine, Callback { url: "ftp://example.com/".into(), events: Vec::new() }),
        (&engine, Callback { url: "https://user@example.com/".into(), events: Vec::new() }),
        (&engine, Callback { url: "nowhere".into(), events: Vec::new() }),
        (&engine, Callback { url: url(), events: vec!["replied".into()] }),
        (&silent, Callback { url: url(), events: Vec::new() }),
    ] {
        let refused = engine.submit(Submission { callback: Some(callback.clone()), ..ask("Hello?") }).await;
        assert_eq!(refused.unwrap_err().code(), "callback_invalid", "{callback:?}");
    }
    end(engine, tending).await;
    end(silent, other).await;
}
