//! Requests, answers, and every limit on them.

use crate::server::{self, Names, get, outcome};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::HeaderMap;
use axum::routing::{get as on_get, post};
use futures::{StreamExt, future, stream};
use net::{Client, Method, Origin, Request, Settings, Timeouts, Url};
use std::convert::Infallible;
use std::sync::atomic::Ordering;
use tokio::io::AsyncWriteExt;

fn pieces(then_silence: bool) -> Body {
    let first = stream::iter([Ok::<_, Infallible>(Bytes::from_static(b"first")), Ok(Bytes::from_static(b" second"))]);
    if then_silence { Body::from_stream(first.chain(stream::pending())) } else { Body::from_stream(first) }
}

fn app() -> Router {
    Router::new()
        .route(
            "/echo",
            post(|headers: HeaderMap, body: String| async move {
                format!("{} {body}", headers["x-name"].to_str().unwrap())
            }),
        )
        .route("/pieces", on_get(|| async { pieces(false) }))
        .route("/half", on_get(|| async { pieces(true) }))
        .route("/head-only", on_get(|| async { Body::from_stream(stream::pending::<Result<Bytes, Infallible>>()) }))
        .route("/never", on_get(future::pending::<()>))
        .route("/large", on_get(|| async { "x".repeat(100_000) }))
}

#[tokio::test]
async fn an_exchange_carries_headers_and_body_both_ways_and_its_connection_is_used_again() {
    let (address, taken) = server::serve(app()).await;
    let client = Client::new(Settings::default()).unwrap();
    for turn in 0..5 {
        let mut request =
            Request::new(Method::POST, Url::parse(&format!("http://{address}/echo")).unwrap(), Origin::Operator);
        request.headers.insert("x-name", "maya".parse().unwrap());
        request.body = Bytes::from(format!("hello {turn}"));
        assert_eq!(outcome(&client, request).await, format!("maya hello {turn}"));
    }
    assert_eq!(taken.load(Ordering::SeqCst), 1, "connections");
    // An answer whose end was not read, and one that was given back unread.
    let url = format!("http://{address}/pieces");
    let mut response = client.send(get(&url, Origin::Operator)).await.unwrap();
    assert!(response.chunk().await.unwrap().is_some());
    response.finish().await;
    assert_eq!(outcome(&client, get(&url, Origin::Operator)).await, "first second");
    assert_eq!(taken.load(Ordering::SeqCst), 1, "connections");
}

#[tokio::test]
async fn every_limit_ends_the_exchange_with_its_code() {
    let (address, _) = server::serve(app()).await;
    let client = Client::new(Settings::default()).unwrap();
    let long = 600_000;
    let limits = |first_byte_ms, idle_ms, total_ms| Timeouts { first_byte_ms, idle_ms, total_ms };
    for (path, timeouts, bytes_max, expected) in [
        ("never", limits(40, long, long), 1_000, "net_timeout_first_byte"),
        ("head-only", limits(40, long, long), 1_000, "net_timeout_first_byte"),
        ("half", limits(long, 40, long), 1_000, "net_timeout_idle"),
        ("half", limits(long, long, 40), 1_000, "net_timeout_total"),
        ("never", limits(long, long, 40), 1_000, "net_timeout_total"),
        ("large", limits(long, long, long), 99_999, "net_too_large"),
        ("pieces", limits(long, long, long), 12, "first second"),
        ("pieces", limits(long, long, long), 11, "net_too_large"),
    ] {
        let request = Request {
            timeouts,
            response_bytes_max: bytes_max,
            ..get(&format!("http://{address}/{path}"), Origin::Operator)
        };
        assert_eq!(outcome(&client, request).await, expected, "{path} {timeouts:?}");
    }
}

#[tokio::test]
async fn what_is_no_answer_is_named() {
    let closed = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let no_http =
        server::raw(|mut stream, _| async move { stream.write_all(b"220 mail.example ESMTP\r\n").await }).await;
    // Speaks before it is spoken to, and no TLS.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let no_tls = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await?;
        stream.write_all(b"220 mail.example ESMTP\r\n").await?;
        future::pending::<std::io::Result<()>>().await
    });
    let hangs_up = server::raw(|stream, _| async move {
        drop(stream);
        Ok(())
    })
    .await;
    let half = server::raw(|mut stream, _| async move {
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf").await
    })
    .await;
    let client = Client::with_lookup(Settings::default(), Names::of(&[("empty.test", &[])])).unwrap();
    for (url, expected) in [
        (format!("http://{closed}/"), "net_connect"),
        (format!("http://{no_http}/"), "net_broken"),
        (format!("http://{hangs_up}/"), "net_broken"),
        (format!("http://{half}/"), "net_broken"),
        (format!("https://{no_tls}/"), "net_tls"),
        ("http://nowhere.test/".into(), "net_resolve"),
        ("http://empty.test/".into(), "net_resolve"),
        ("ftp://127.0.0.1/".into(), "net_bad_url"),
        ("file:///etc/passwd".into(), "net_bad_url"),
    ] {
        assert_eq!(outcome(&client, get(&url, Origin::Operator)).await, expected, "{url}");
    }
}

#[tokio::test]
async fn a_message_names_the_host_and_no_secret() {
    let client = Client::with_lookup(Settings::default(), Names::of(&[])).unwrap();
    let request = get("http://me:secret1@host.test/secret2?key=secret3", Origin::Operator);
    let error = client.send(request).await.unwrap_err().to_string();
    assert!(error.contains("host.test") && !error.contains("secret"), "{error}");
}
