//! Event streams: nothing is lost, nothing comes twice, whoever cuts the stream and wherever; a slow reader is told.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

mod common;

use api::{Event, Happened, Record};
use client::{Client, Follow};
use common::House;
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use server::Config;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const LOOK: &str = r#"{"session": "s", "message": "Look twice"}"#;

async fn all(client: &Client, follow: Follow, after: Option<u64>) -> Vec<Event> {
    let mut events = client.events(follow, after);
    let mut seen = Vec::new();
    while let Some(event) = events.next().await {
        seen.push(event.unwrap());
    }
    seen
}

fn records(events: &[Event]) -> Vec<&Record> {
    let record = |event: &'_ Event| matches!(event, Event::Record(_));
    events
        .iter()
        .filter(|event| record(event))
        .map(|event| match event {
            Event::Record(record) => &**record,
            Event::Delta(_) | Event::Resync(_) => unreachable!("filtered"),
        })
        .collect()
}

fn names(events: &[Event]) -> Vec<&'static str> {
    events.iter().map(Event::name).collect()
}

#[tokio::test]
async fn a_stream_resumed_at_any_position_gives_exactly_the_rest() {
    let house = House::new();
    let served = house.serve(Config::default()).await;
    let client = served.client(None);
    let run = served.post_run(&[], LOOK).await.text("run_id");
    let other = served.post_run(&[], LOOK).await.text("run_id");
    for run in [&run, &other] {
        let follow = Follow::Run(run.parse().unwrap());
        let whole = all(&client, follow.clone(), None).await;
        let expected = [
            "submitted",
            "replied",
            "judged",
            "judged",
            "began",
            "began",
            "returned",
            "returned",
            "replied",
            "finished",
        ];
        assert_eq!(names(&whole), expected);
        for at in 0..whole.len() {
            let after = records(&whole)[at].position;
            assert_eq!(all(&client, follow.clone(), Some(after)).await, whole[at + 1..], "after {after}");
            // The header and the parameter say the same, and the header goes first.
            let sse = |path: String, headers: Vec<String>| {
                let served = &served;
                async move {
                    let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
                    served.send("GET", &path, &[&["accept: text/event-stream"], &headers[..]].concat(), "").await.body
                }
            };
            let path = format!("/runs/{run}/events");
            let by_header = sse(format!("{path}?after=0"), vec![format!("last-event-id: {after}")]).await;
            assert_eq!(by_header, sse(format!("{path}?after={after}"), vec![]).await);
            assert_eq!(by_header.matches("\nid: ").count(), whole.len() - at - 1);
        }
    }
    served.stop().await;
}

#[tokio::test]
async fn a_page_of_records_holds_what_the_stream_does() {
    let house = House::new();
    let served = house.serve(Config::default()).await;
    let client = served.client(None);
    let run = served.post_run(&[], LOOK).await.text("run_id");
    served.post_run(&[], r#"{"session": "s", "message": "Hello"}"#).await;
    let whole = all(&client, Follow::Run(run.parse().unwrap()), None).await;
    let (mut paged, mut after) = (Vec::new(), String::new());
    loop {
        let answer = served.get(&format!("/runs/{run}/events?limit=3{after}")).await;
        let page: api::RecordPage = serde_json::from_str(&answer.body).unwrap();
        paged.extend(page.records);
        let Some(next) = page.next else { break };
        after = format!("&after={next}");
    }
    assert_eq!(paged.iter().collect::<Vec<_>>(), records(&whole));
    let session: api::RecordPage = serde_json::from_str(&served.get("/sessions/s/events").await.body).unwrap();
    assert_eq!(session.records[..whole.len()], paged[..]);
    assert_eq!(session.records.len(), whole.len() + 3, "the session goes on with its next run");
    served.stop().await;
}

#[tokio::test]
async fn contents_are_shown_where_viewers_need_them_and_named_when_they_are_erased() {
    let house = House::new();
    let served = house.serve(Config::default()).await;
    let client = served.client(None);
    let run = served.post_run(&[], LOOK).await.text("run_id");
    let follow = Follow::Run(run.parse().unwrap());
    let shown = |events: &[Event]| {
        let text = |text: &api::Text| match (&text.text, text.erased) {
            (Some(text), false) => text.clone(),
            (None, true) => "erased".to_owned(),
            other => panic!("{other:?}"),
        };
        let mut said = Vec::new();
        for record in records(events) {
            match &record.happened {
                Happened::Submitted { message, session_name, .. } => {
                    said.push(text(message.as_ref().unwrap()));
                    said.push(text(session_name.as_ref().unwrap()));
                }
                Happened::Replied { text: reply, calls, .. } => {
                    said.push(text(reply));
                    said.extend(calls.iter().map(|call| format!("{} {}", call.tool, text(&call.arguments))));
                }
                Happened::Returned { output, .. } => said.push(text(output)),
                Happened::Finished { reply, .. } => said.push(text(reply.as_ref().unwrap())),
                _ => {}
            }
        }
        said
    };
    let said = shown(&all(&client, follow.clone(), None).await);
    assert_eq!(said[..2], ["Look twice", "s"]);
    assert_eq!(said[3..5], [r#"look {"n":1}"#, r#"look {"n":2}"#]);
    let mut outputs = said[5..7].to_vec();
    outputs.sort();
    assert_eq!(outputs, ["seen 1", "seen 2"]);
    assert_eq!(said[7], said[8], "the last reply is the run's");
    let session = domain::Id::from_name("default", "s");
    house.engine.journal().erase_session(&journal::SessionKey::new("default", session)).await.unwrap();
    let said = shown(&all(&client, follow, None).await);
    let erased = said.iter().map(|text| text.trim_start_matches("look ")).collect::<Vec<_>>();
    assert_eq!(erased, vec!["erased"; 9]);
    served.stop().await;
}

#[tokio::test]
async fn what_is_seen_live_stands_between_the_right_records() {
    let house = House::new();
    let served = house.serve(Config::default()).await;
    let client = served.client(None);
    served.post_run(&[], r#"{"session": "s", "message": "Hello"}"#).await;
    let mut events = client.events(Follow::Session("s".into()), None);
    for _ in 0..3 {
        events.next().await.unwrap().unwrap();
    }
    served.post_run(&[], LOOK).await;
    let mut seen = Vec::new();
    while seen.last() != Some(&"finished") {
        seen.push(events.next().await.unwrap().unwrap().name());
    }
    let text = seen.iter().filter(|name| **name == "delta.text").count();
    assert!(text >= 2, "{seen:?}");
    seen.dedup();
    let at = |name: &str, from: usize| seen[from..].iter().position(|seen| *seen == name).map(|at| at + from);
    let asking = at("delta.asking", 0).unwrap();
    let said = at("delta.text", asking).unwrap();
    let replied = at("replied", said).unwrap();
    assert_eq!(seen[..=replied], ["submitted", "delta.asking", "delta.text", "replied"], "{seen:?}");
    let performing = at("delta.performing", replied).unwrap();
    assert!(at("began", replied).unwrap() < performing && performing < at("returned", replied).unwrap(), "{seen:?}");
    let again = at("replied", replied + 1).unwrap();
    assert_eq!(seen[again - 1], "delta.text", "{seen:?}");
    assert_eq!(seen[again + 1..], ["finished"], "{seen:?}");
    served.stop().await;
}

#[tokio::test]
async fn a_stream_that_begins_before_the_run_ends_with_it() {
    let house = House::new();
    let served = house.serve(Config::default()).await;
    let client = served.client(None);
    let run = served.post_run(&["prefer: respond-async"], r#"{"message": "Hold"}"#).await.text("run_id");
    let follow = Follow::Run(run.parse().unwrap());
    house.held.notified().await;
    let mut events = client.events(follow.clone(), None);
    let mut seen = Vec::new();
    while seen.last() != Some(&"began") {
        seen.push(events.next().await.unwrap().unwrap().name());
    }
    house.release.add_permits(1);
    let mut rest = Vec::new();
    while let Some(event) = events.next().await {
        rest.push(event.unwrap());
    }
    let kinds: Vec<_> = records(&rest).iter().map(|record| record.happened.kind()).collect();
    assert_eq!(kinds, ["returned", "replied", "finished"]);
    served.stop().await;
}

#[tokio::test]
async fn a_client_whose_connections_are_cut_anywhere_misses_nothing() {
    let house = House::new();
    let (connector, served) = house.serve_memory(Config::default());
    let plain = House::memory_client(&connector);
    let run =
        plain.post_run(&api::PostRun { message: "Look twice".into(), ..Default::default() }, &Default::default()).await;
    let follow = Follow::Run(run.unwrap().run_id);
    let whole = all(&plain, follow.clone(), None).await;
    for step in [700, 1_500, 2_600] {
        let opened = Arc::new(AtomicUsize::new(0));
        let (connector, count) = (connector.clone(), opened.clone());
        let cut = Client::memory(move || {
            let (connector, count) = (connector.clone(), count.clone());
            // Each connection lasts a little longer than the one before, so that the stream is cut at many places.
            async move { cut_after(connector.connect().await?, step * (1 + count.fetch_add(1, Ordering::SeqCst) % 4)) }
        });
        assert_eq!(all(&cut, follow.clone(), None).await, whole, "cut after each {step} bytes");
        assert!(opened.load(Ordering::SeqCst) > 1, "it was cut");
    }
    served.stop().await;
}

/// A connection whose answers are cut after so many bytes.
fn cut_after(far: tokio::io::DuplexStream, bytes: usize) -> io::Result<tokio::io::DuplexStream> {
    let (near, between) = tokio::io::duplex(64 << 10);
    let (mut far_read, mut far_write) = tokio::io::split(far);
    let (mut near_read, mut near_write) = tokio::io::split(between);
    tokio::spawn(async move {
        let asked = tokio::io::copy(&mut near_read, &mut far_write);
        let answered = async {
            let mut answer = (&mut far_read).take(bytes as u64);
            tokio::io::copy(&mut answer, &mut near_write).await
        };
        tokio::select! {
            _ = asked => {}
            _ = answered => {}
        }
        near_write.shutdown().await
    });
    Ok(near)
}

#[tokio::test]
async fn a_slow_reader_is_told_and_its_records_have_no_gap() {
    let house = House::new();
    let (connector, served) = house.serve_memory(Config::default());
    let client = House::memory_client(&connector);
    let ask = api::PostRun { session: Some("s".into()), message: "Look twice".into(), ..Default::default() };
    client.post_run(&ask, &Default::default()).await.unwrap();
    // A stream that is opened and not read: the connection's window fills, then the service stops looking.
    let stream = connector.connect().await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http1::Builder::new().max_buf_size(8 << 10).handshake(TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = http::Request::get("/sessions/s/events").header("accept", "text/event-stream");
    let request = request.body(http_body_util::Empty::<bytes::Bytes>::new()).unwrap();
    let mut body = sender.send_request(request).await.unwrap().into_body();
    const RUNS: usize = 60;
    for _ in 1..RUNS {
        client.post_run(&ask, &Default::default()).await.unwrap();
    }
    let head = house.engine.session("default", domain::Id::from_name("default", "s")).await.unwrap().next_position;
    let (mut text, mut ids) = (String::new(), Vec::new());
    while ids.last() != Some(&(head - 1)) {
        let frame = tokio::time::timeout(Duration::from_secs(60), body.frame()).await.expect("it goes on");
        text.push_str(std::str::from_utf8(&frame.unwrap().unwrap().into_data().unwrap()).unwrap());
        ids = text.lines().filter_map(|line| line.strip_prefix("id: ")).map(|id| id.parse::<u64>().unwrap()).collect();
    }
    assert_eq!(ids, (0..head).collect::<Vec<_>>(), "every record once, in order");
    assert!(text.contains("event: resync\n"), "it was told of {} bytes", text.len());
    connection.abort();
    served.stop().await;
}

#[tokio::test]
async fn a_thousand_who_follow_one_run_see_the_same() {
    let house = House::new();
    let (connector, served) = house.serve_memory(Config::default());
    let client = House::memory_client(&connector);
    let ask = api::PostRun { session: Some("s".into()), message: "Hold".into(), ..Default::default() };
    let options = client::PostOptions { wait: client::Wait::No, ..Default::default() };
    let run = client.post_run(&ask, &options).await.unwrap().run_id;
    house.held.notified().await;
    const READERS: usize = 1_000;
    let mut readers = tokio::task::JoinSet::new();
    let following = Arc::new(tokio::sync::Semaphore::new(0));
    for _ in 0..READERS {
        let (client, following) = (client.clone(), following.clone());
        readers.spawn(async move {
            let mut events = client.events(Follow::Run(run), None);
            let mut seen = Vec::new();
            while let Some(event) = events.next().await {
                if seen.is_empty() {
                    following.add_permits(1);
                }
                seen.push(event.unwrap());
            }
            seen
        });
    }
    // Everybody follows before the run goes on.
    drop(following.acquire_many(u32::try_from(READERS).unwrap()).await.unwrap());
    house.release.add_permits(1);
    let whole = all(&client, Follow::Run(run), None).await;
    while let Some(seen) = readers.join_next().await {
        assert_eq!(records(&seen.unwrap()), records(&whole));
    }
    served.stop().await;
}

#[tokio::test]
async fn a_run_that_waits_keeps_its_stream() {
    let house = House::new();
    let mut config = Config::default();
    config.limits.heartbeat_ms = 20;
    let (connector, served) = house.serve_memory(config);
    let client = House::memory_client(&connector);
    let ask = api::PostRun { message: "Pay".into(), ..Default::default() };
    let run = client.post_run(&ask, &Default::default()).await.unwrap();
    assert_eq!(run.waits_for, Some(domain::Wait::Approval));
    let mut events = client.events(Follow::Run(run.run_id), None);
    let mut before = Vec::new();
    while before.last().is_none_or(|event: &Event| event.name() != "parked") {
        before.push(events.next().await.unwrap().unwrap());
    }
    assert_eq!(house.engine.health().active, 0, "nothing of the run is kept but its record");
    let waiting = tokio::time::timeout(Duration::from_millis(200), events.next()).await;
    assert!(waiting.is_err(), "it stays open and says nothing: {waiting:?}");
    let approve = api::PostApproval { vote: domain::record::Vote::Approve, reason: None, binding: None };
    client.vote(run.approvals[0], &approve, client::Once::default()).await.unwrap();
    let mut after = Vec::new();
    while let Some(event) = events.next().await {
        after.push(event.unwrap());
    }
    let told: Vec<_> = records(&before).into_iter().chain(records(&after)).cloned().collect();
    let whole = all(&client, Follow::Run(run.run_id), None).await;
    assert_eq!(told.iter().collect::<Vec<_>>(), records(&whole), "the same as the log, without a gap");
    for record in &told {
        let rest = all(&client, Follow::Run(run.run_id), Some(record.position)).await;
        let expected: Vec<_> = told.iter().filter(|other| other.position > record.position).collect();
        assert_eq!(records(&rest), expected, "after {}", record.position);
    }
    served.stop().await;
}

#[tokio::test]
async fn a_silent_stream_says_that_it_lives() {
    let house = House::new();
    let mut config = Config::default();
    config.limits.heartbeat_ms = 20;
    config.limits.streams_at_once_max = 1;
    let served = house.serve(config).await;
    served.post_run(&[], r#"{"session": "s", "message": "Hello"}"#).await;
    let url = net::Url::parse(&format!("{}/sessions/s/events?after=1000", served.base)).unwrap();
    let mut request = net::Request::new(net::Method::GET, url, net::Origin::Operator);
    request.headers.insert("accept", net::HeaderValue::from_static("text/event-stream"));
    let mut response = served.net.send(request).await.unwrap();
    assert_eq!(response.header("content-type"), Some("text/event-stream"));
    let mut seen = String::new();
    while seen.matches(": alive\n\n").count() < 3 {
        seen.push_str(std::str::from_utf8(&response.chunk().await.unwrap().unwrap()).unwrap());
    }
    assert!(!seen.contains("data:"), "{seen}");
    let second = served.send("GET", "/sessions/s/events", &["accept: text/event-stream"], "").await;
    assert_eq!((second.status, second.code().as_str()), (503, "too_many_requests"));
    drop(response);
    served.stop().await;
}
