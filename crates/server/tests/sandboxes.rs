//! Sandboxes over HTTP: listed, explained, entered, ended. What is done to one is on record first.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

mod common;

use api::{ExecExit, ExecSize, ExecStart, Scope};
use client::{Client, Given};
use common::{House, key};
use domain::{Id, id};
use server::Config;

/// A house in which session `demo` has had a run, and has a sandbox.
async fn with_sandbox() -> (House, Id<id::Sandbox>) {
    let house = House::new();
    let served = house.serve(Config::default()).await;
    let run = served.post_run(&[], r#"{"session": "demo", "message": "Hello"}"#).await;
    assert_eq!(run.status, 200, "{run:?}");
    served.stop().await;
    let sandbox = house.shelf.put("default", "demo");
    (house, sandbox)
}

/// The deeds of operators that stand in the session's log, with their particulars.
async fn deeds(client: &Client) -> Vec<String> {
    let page = client.records(&client::Follow::Session("demo".into()), None).await.unwrap();
    let told = |record: api::Record| match record.happened {
        api::Happened::Operated { deed, detail, .. } => {
            Some(format!("{} {}", deed.name(), detail.and_then(|detail| detail.text).unwrap_or_default()))
        }
        _ => None,
    };
    page.records.into_iter().filter_map(told).collect()
}

#[tokio::test]
async fn sandboxes_are_told_of_and_end() {
    let (house, sandbox) = with_sandbox().await;
    let keys = vec![
        key("alice", "default", "alice", &[Scope::Admin]),
        key("eve", "elsewhere", "eve", &[Scope::Admin]),
        key("bob", "default", "bob", &[Scope::RunsRead, Scope::RunsWrite]),
    ];
    let served = house.serve(Config { keys, ..Config::default() }).await;
    let (alice, eve, bob) = (served.client(Some("alice")), served.client(Some("eve")), served.client(Some("bob")));
    let listed = bob.sandboxes().await.unwrap().sandboxes;
    assert_eq!((listed.len(), listed[0].sandbox_id, listed[0].usage.processes), (1, sandbox, Some(2)));
    assert!(eve.sandboxes().await.unwrap().sandboxes.is_empty(), "another tenant's are not there");
    let detail = bob.sandbox(sandbox).await.unwrap();
    let walls: Vec<_> = detail.walls.iter().map(|wall| (wall.name.as_str(), wall.stands)).collect();
    assert_eq!(walls, [("seccomp", true), ("landlock", false)]);
    assert!(detail.walls.iter().all(|wall| !wall.holds.is_empty() && !wall.found.is_empty()), "{detail:?}");
    for (client, code) in [(&eve, "sandbox_not_found"), (&bob, "scope_missing")] {
        let start = ExecStart { argv: vec!["id".into()], terminal: None, workdir: String::new() };
        assert_eq!(client.end_sandbox(sandbox).await.unwrap_err().code(), code);
        assert_eq!(client.exec(sandbox, &start).await.unwrap_err().code(), code);
    }
    assert_eq!(house.shelf.lives(), 1, "whoever may not end it has not");
    assert_eq!(deeds(&alice).await, Vec::<String>::new());
    alice.end_sandbox(sandbox).await.unwrap();
    assert_eq!((house.shelf.lives(), deeds(&alice).await), (0, vec!["end ".to_owned()]));
    assert_eq!(alice.end_sandbox(sandbox).await.unwrap_err().code(), "sandbox_not_found");
    served.stop().await;
}

/// Runs a command to its end with this input: what it gave on both streams, and how it ended.
async fn ran(client: &Client, sandbox: Id<id::Sandbox>, argv: &[&str], input: &[u8]) -> (String, usize, ExecExit) {
    let argv = argv.iter().map(|argument| (*argument).to_owned()).collect();
    let exec = client.exec(sandbox, &ExecStart { argv, terminal: None, workdir: String::new() }).await.unwrap();
    let (mut into, mut out) = (exec.input, exec.output);
    let input = bytes::Bytes::copy_from_slice(input);
    let writing = tokio::spawn(async move {
        let reads = !input.is_empty();
        if reads {
            into.write(input).await.unwrap();
        }
        // Only one that reads nothing may have ended by now, and its connection with it.
        let ended = into.end().await;
        assert!(ended.is_ok() || !reads, "{ended:?}");
        into
    });
    let (mut errors, mut bytes) = (String::new(), 0);
    let exit = loop {
        match out.next().await.unwrap() {
            Given::Stdout(given) => bytes += given.len(),
            Given::Stderr(given) => errors.push_str(&String::from_utf8_lossy(&given)),
            Given::Exit(exit) => break exit,
        }
    };
    drop(writing.await.unwrap());
    (errors, bytes, exit)
}

#[tokio::test]
async fn a_command_runs_over_a_websocket_and_is_on_record() {
    let (house, sandbox) = with_sandbox().await;
    let served = house.serve(Config::default()).await;
    let (connector, within) = house.serve_memory(Config::default());
    for client in [served.client(None), House::memory_client(&connector)] {
        let large = vec![b'x'; 3 << 20];
        assert_eq!(ran(&client, sandbox, &["cat"], &large).await, ("cat".into(), large.len(), ExecExit::Code(0)));
        assert_eq!(ran(&client, sandbox, &["exit", "7"], b"").await.2, ExecExit::Code(7));
        assert_eq!(ran(&client, sandbox, &["signal", "11"], b"").await.2, ExecExit::Signal(11));
        let start = |argv: &str, terminal| ExecStart { argv: vec![argv.into()], terminal, workdir: String::new() };
        let missing = client.exec(sandbox, &start("missing", None)).await.unwrap_err();
        assert_eq!((missing.code(), missing.to_string().contains("no such program")), ("sandbox_command", true));
        let mut exec = client.exec(sandbox, &start("sh", Some(ExecSize { rows: 5, columns: 9 }))).await.unwrap();
        assert_eq!(exec.output.next().await.unwrap(), Given::Stderr("sh 5x9".into()));
        exec.input.kill().await.unwrap();
        assert_eq!(exec.output.next().await.unwrap(), Given::Exit(ExecExit::Signal(9)));
    }
    let expected =
        [r#"exec ["cat"]"#, r#"exec ["exit","7"]"#, r#"exec ["signal","11"]"#, r#"exec ["missing"]"#, r#"exec ["sh"]"#];
    assert_eq!(deeds(&served.client(None)).await, [expected, expected].concat());
    let plain = served.get(&format!("/sandboxes/{sandbox}/exec")).await;
    assert_eq!((plain.status, plain.code().as_str()), (426, "upgrade_required"));
    let escaping = ExecStart { argv: vec!["id".into()], terminal: None, workdir: "../..".into() };
    assert_eq!(served.client(None).exec(sandbox, &escaping).await.unwrap_err().code(), "sandbox_path");
    served.stop().await;
    within.stop().await;
}

#[tokio::test]
async fn a_command_does_not_hold_up_the_end_of_the_service() {
    let (house, sandbox) = with_sandbox().await;
    let served = house.serve(Config::default()).await;
    let start = ExecStart { argv: vec!["cat".into()], terminal: None, workdir: String::new() };
    let mut exec = served.client(None).exec(sandbox, &start).await.unwrap();
    assert_eq!(exec.output.next().await.unwrap(), Given::Stderr("cat".into()));
    served.stop().await;
    assert!(exec.output.next().await.is_err(), "its connection ended with the service");
}
