//! Ports in sandboxes over HTTP: links, what passes and what does not, and hostile answers byte by byte.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

mod common;

use common::shelf::{MIRROR, SOCKET};
use common::{Answer, House, Served};
use server::{Config, LinkKey};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

fn config() -> Config {
    Config { link_key: Some(LinkKey::new([9; 32])), ..Config::default() }
}

struct Linked {
    house: House,
    served: Served,
    sandbox: domain::Id<domain::id::Sandbox>,
}

impl Linked {
    async fn new() -> Self {
        let house = House::new();
        let served = house.serve(config()).await;
        let run = served.post_run(&[], r#"{"session": "demo", "message": "Hello"}"#).await;
        assert_eq!(run.status, 200, "{run:?}");
        let sandbox = house.shelf.put("default", "demo");
        Self { house, served, sandbox }
    }

    /// The path of a link to a port, with a slash at its end.
    async fn link(&self, port: u16, body: &str) -> String {
        let answer = self.served.post(&format!("/sandboxes/{}/ports/{port}/links", self.sandbox), &[], body).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.text("url").strip_prefix(&self.served.base).unwrap().to_owned()
    }

    async fn get(&self, path: &str, headers: &[&str]) -> Answer {
        self.served.send("GET", path, headers, "").await
    }
}

#[tokio::test]
async fn a_link_leads_to_its_port_and_nothing_of_the_address_goes_along() {
    let linked = Linked::new().await;
    let link = linked.link(MIRROR, r#"{"path": "/start?a=b"}"#).await;
    let headers = [
        "cookie: console=secret",
        "authorization: Bearer secret",
        "x-api-key: secret",
        "referer: http://x/",
        "x-own: 1",
    ];
    let answer = linked.get(&link, &headers).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.body.starts_with("GET /start?a=b HTTP/1.1\r\n"), "{}", answer.body);
    assert!(
        answer.body.contains(&format!("host: localhost:{MIRROR}")) && answer.body.contains("x-own: 1"),
        "{}",
        answer.body
    );
    for secret in ["secret", "cookie", "authorization", "referer", "127.0.0.1"] {
        assert!(!answer.body.contains(secret), "{secret} went in: {}", answer.body);
    }
    let policy = answer.header("content-security-policy");
    assert!(policy.starts_with("sandbox ") && !policy.contains("allow-same-origin"), "{policy}");
    for name in ["set-cookie", "service-worker-allowed", "clear-site-data"] {
        assert_eq!(answer.header(name), "", "{name} came out");
    }
    assert_eq!((answer.header("referrer-policy"), answer.header("x-content-type-options")), ("no-referrer", "nosniff"));
    // Any method, with its body, and the prefix of the version too.
    let root = link.split_once("/start").unwrap().0.to_owned();
    let posted = linked.served.send("PATCH", &format!("/api/v1{root}/x"), &[], "body of mine").await;
    assert!(posted.body.starts_with("PATCH /x HTTP/1.1") && posted.body.ends_with("body of mine"), "{}", posted.body);
    let bare = linked.get(&root, &[]).await;
    assert_eq!((bare.status, bare.header("location")), (308, format!("{root}/").as_str()));
    linked.served.stop().await;
}

#[tokio::test]
async fn a_page_from_inside_is_nobodys() {
    let linked = Linked::new().await;
    let link = linked.link(MIRROR, "{}").await;
    // Its own requests are let in and may be read by it alone.
    let own = linked.get(&link, &["origin: null"]).await;
    assert_eq!((own.status, own.header("access-control-allow-origin")), (200, "null"));
    assert!(own.body.contains(&format!("origin: http://localhost:{MIRROR}")), "{}", own.body);
    let asks = ["origin: null", "access-control-request-method: PUT", "access-control-request-headers: x-own"];
    let preflight = linked.served.send("OPTIONS", &link, &asks, "").await;
    assert_eq!((preflight.status, preflight.header("access-control-allow-methods")), (204, "PUT"));
    // The API is not: with its origin it is refused, and no answer without it may be read by it.
    for (method, path, headers) in [
        ("POST", "/runs", &["origin: null", "content-type: application/json"][..]),
        ("GET", "/sandboxes", &["origin: null"]),
        ("OPTIONS", "/runs", &["origin: null", "access-control-request-method: POST"]),
        ("GET", &link, &["origin: http://evil.example"]),
    ] {
        let refused = linked.served.send(method, path, headers, "").await;
        assert_eq!((refused.status, refused.header("access-control-allow-origin")), (403, ""), "{method} {path}");
    }
    assert_eq!(linked.get("/sandboxes", &[]).await.header("access-control-allow-origin"), "");
    // Nothing of it stays behind.
    let worker = linked.get(&link, &["service-worker: script"]).await;
    assert_eq!((worker.status, worker.code().as_str()), (403, "port_service_worker"));
    linked.served.stop().await;
}

#[tokio::test]
async fn a_link_is_signed_and_ends() {
    let linked = Linked::new().await;
    let link = linked.link(MIRROR, "{}").await;
    let (prefix, token) = link.trim_end_matches('/').rsplit_once('/').unwrap();
    // Not the last letter, of which not all bits count.
    let (head, tail) = token.split_at(token.len() - 8);
    let other = if tail.starts_with('A') { 'B' } else { 'A' };
    let forged = format!("{prefix}/{head}{other}{}/", &tail[1..]);
    for path in [forged.as_str(), "/ports/AAAA/", "/ports/x/y"] {
        let refused = linked.get(path, &[]).await;
        assert_eq!((refused.status, refused.code().as_str()), (403, "link_forged"), "{path}");
    }
    let short = linked.link(MIRROR, r#"{"expires_in_seconds": 1}"#).await;
    let mut ended = linked.get(&short, &[]).await;
    for _ in 0..100_000 {
        if ended.status != 200 {
            break;
        }
        ended = linked.get(&short, &[]).await;
    }
    assert_eq!((ended.status, ended.code().as_str()), (410, "link_expired"));
    for body in
        [r#"{"expires_in_seconds": 0}"#, r#"{"expires_in_seconds": 604801}"#, r#"{"path": "x"}"#, r#"{"path": "/a b"}"#]
    {
        let path = format!("/sandboxes/{}/ports/{MIRROR}/links", linked.sandbox);
        assert_eq!(linked.served.post(&path, &[], body).await.code(), "request_invalid", "{body}");
    }
    let nobody = linked.link(7_999, "{}").await;
    let refused = linked.get(&nobody, &[]).await;
    assert_eq!((refused.status, refused.code().as_str()), (502, "port_refused"));
    linked.served.send("DELETE", &format!("/sandboxes/{}", linked.sandbox), &[], "").await;
    let gone = linked.get(&link, &[]).await;
    assert_eq!((gone.status, gone.code().as_str()), (404, "sandbox_gone"));
    linked.served.stop().await;
    let unsigned = linked.house.serve(Config::default()).await;
    assert_eq!(unsigned.get(&link).await.code(), "links_unsigned");
    unsigned.stop().await;
}

#[tokio::test]
async fn a_hostile_answer_is_refused_or_read_in_one_way() {
    let linked = Linked::new().await;
    let port = 7_000;
    let link = linked.link(port, "{}").await;
    let many: String = (0..200).map(|number| format!("x-{number}: 1\r\n")).collect();
    let long = format!("x-long: {}\r\n", "y".repeat(200 << 10));
    let head = |headers: &str, body: &str| format!("HTTP/1.1 200 OK\r\n{headers}\r\n{body}");
    let refused = [
        ("nothing", String::new()),
        ("no HTTP", "SSH-2.0-OpenSSH_9.2\r\n".to_owned()),
        ("two lengths", head("content-length: 5\r\ncontent-length: 6\r\n", "hello!")),
        ("a list of lengths", head("content-length: 5, 6\r\n", "hello!")),
        ("a length that is none", head("content-length: five\r\n", "hello")),
        ("a negative length", head("content-length: -1\r\n", "hello")),
        ("too many headers", head(&many, "")),
        ("too long a header", head(&long, "")),
        ("a head without an end", "HTTP/1.1 200 OK\r\nx-a: 1\r\n".to_owned()),
        ("a line folded into a header", head("content-type: text/html\r\n x: y\r\n: z\r\n", "")),
        (
            "another protocol, unasked",
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n".to_owned(),
        ),
    ];
    for (name, raw) in refused {
        linked.house.shelf.answer(port, raw);
        let answer = linked.get(&link, &[]).await;
        assert_eq!((answer.status, answer.code().as_str()), (502, "port_answer"), "{name}: {}", answer.body);
    }
    let read = [
        ("two answers", head("content-length: 2\r\n", "hi") + &head("content-length: 4\r\n", "evil"), "hi"),
        (
            "chunks and a length",
            head("content-length: 99\r\ntransfer-encoding: chunked\r\n", "2\r\nhi\r\n0\r\n\r\nevil"),
            "hi",
        ),
        ("until the end", head("connection: close\r\n", "all of it"), "all of it"),
        (
            "an answer before the answer",
            format!(
                "HTTP/1.1 103 Early Hints\r\nlink: </runs>; rel=preload\r\n\r\n{}",
                head("content-length: 2\r\n", "hi")
            ),
            "hi",
        ),
    ];
    for (name, raw, expected) in read {
        linked.house.shelf.answer(port, raw);
        let answer = linked.get(&link, &[]).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, expected), "{name}");
        assert_eq!(answer.header("link"), "", "{name}");
    }
    // What breaks off is cut, not ended.
    for raw in [head("content-length: 9\r\n", "half"), head("transfer-encoding: chunked\r\n", "4\r\nhalf\r\n")] {
        linked.house.shelf.answer(port, raw);
        let seen =
            exchange(&linked.served, &format!("GET {link} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n"))
                .await;
        let whole = seen.contains("content-length: 4\r\n") || seen.ends_with("0\r\n\r\n");
        assert!(seen.starts_with("HTTP/1.1 200") && !whole, "{seen}");
    }
    linked.served.stop().await;
}

/// Sends bytes as they are, and reads until the other side ends.
async fn exchange(served: &Served, raw: &str) -> String {
    let mut stream = connect(served).await;
    stream.write_all(raw.as_bytes()).await.unwrap();
    let mut seen = Vec::new();
    // One that is cut may be reset.
    let _ = stream.read_to_end(&mut seen).await;
    String::from_utf8_lossy(&seen).into_owned()
}

#[expect(clippy::disallowed_methods, reason = "what no client would send is sent by hand")]
async fn connect(served: &Served) -> TcpStream {
    TcpStream::connect(served.base.strip_prefix("http://").unwrap()).await.unwrap()
}

#[tokio::test]
async fn a_request_is_one_request_inside() {
    let linked = Linked::new().await;
    let link = linked.link(MIRROR, "{}").await;
    let ask = |headers: &str, body: &str| {
        format!("POST {link} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n{headers}\r\n{body}")
    };
    for (name, raw) in [
        ("two lengths", ask("content-length: 5\r\ncontent-length: 6\r\n", "hello!")),
        ("a list of lengths", ask("content-length: 5, 6\r\n", "hello!")),
        ("a length that is none", ask("content-length: +5\r\n", "hello")),
        ("chunks that are none", ask("transfer-encoding: chunked, gzip\r\n", "0\r\n\r\n")),
        ("a space before the colon", ask("content-length : 5\r\n", "hello")),
    ] {
        let seen = exchange(&linked.served, &raw).await;
        assert!(seen.starts_with("HTTP/1.1 400"), "{name}: {seen}");
    }
    // With both, chunks count, and one of the two goes in; what follows is no part of it.
    let both = ask(
        "content-length: 40\r\ntransfer-encoding: chunked\r\n",
        "5\r\nhello\r\n0\r\n\r\nGET /evil HTTP/1.1\r\n\r\n",
    );
    let seen = exchange(&linked.served, &both).await;
    assert!(!seen.contains("/evil"), "{seen}");
    if seen.starts_with("HTTP/1.1 200") {
        let inside = seen.split_once("\r\n\r\n").unwrap().1.to_ascii_lowercase();
        assert!(inside.contains("transfer-encoding: chunked") ^ inside.contains("content-length: "), "{seen}");
    }
    linked.served.stop().await;
}

#[tokio::test]
async fn a_websocket_is_carried_through() {
    let linked = Linked::new().await;
    let link = linked.link(SOCKET, "{}").await;
    let mut stream = connect(&linked.served).await;
    let raw = format!(
        "GET {link} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: keep-alive, Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: a2V5\r\ncookie: console=secret\r\n\r\n"
    );
    stream.write_all(raw.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("HTTP/1.1 101") && head.contains("sec-websocket-accept: of a2V5"), "{head}");
    assert!(!head.contains("set-cookie"), "{head}");
    // What is said after it is not read here: any bytes pass.
    let frame = [0x82, 0x84, 1, 2, 3, 4, 9, 9, 9, 9];
    stream.write_all(&frame).await.unwrap();
    let mut back = [0; 10];
    stream.read_exact(&mut back).await.unwrap();
    assert_eq!(back, frame);
    // It ends with the service, which does not wait for it.
    linked.served.stop().await;
    assert_eq!(stream.read(&mut back).await.unwrap_or(0), 0);
}
