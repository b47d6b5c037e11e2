//! `exec_command`, `write_stdin`, `read_output`, `view_image`.

use crate::support::{World, output, steady, text};
use domain::{CallStatus, Part};
use serde_json::json;
use std::time::Duration;

async fn check(world: &World, arguments: serde_json::Value, expected: &str) {
    let outcome = world.call("exec_command", &arguments.to_string()).await;
    assert_eq!(steady(&outcome), expected, "{arguments}");
}

fn session(text: &str) -> u64 {
    let id = text.lines().find_map(|line| line.strip_prefix("Process running with session ID "));
    id.unwrap_or_else(|| panic!("{text}")).parse().unwrap()
}

const HEAD: &str = "Chunk ID: ######\nWall time: #.#### seconds\n";

#[tokio::test]
async fn results_have_the_form_that_models_know() {
    let world = World::new(&[]);
    world.put("sub/a.txt", "a\n");
    let exited = |code: i32, output: &str| format!("{HEAD}Process exited with code {code}\nOutput:\n{output}");
    check(&world, json!({"cmd": "echo hi"}), &exited(0, "hi\n")).await;
    check(&world, json!({"cmd": "printf out; printf err >&2; exit 3"}), &exited(3, "out\nerr")).await;
    check(&world, json!({"cmd": "echo err >&2"}), &exited(0, "err\n")).await;
    check(&world, json!({"cmd": "ls", "workdir": "sub"}), &exited(0, "a.txt\n")).await;
    check(&world, json!({"cmd": "ls", "workdir": "/workspace/sub"}), &exited(0, "a.txt\n")).await;
    check(&world, json!({"cmd": "kill -9 $$"}), &exited(137, "")).await;
    check(&world, json!({"cmd": "echo $0", "shell": "bash", "login": false}), &exited(0, "bash\n")).await;
    check(&world, json!({"cmd": "shopt -q login_shell && echo login", "shell": "bash"}), &exited(0, "login\n")).await;
    check(&world, json!({"cmd": "true", "workdir": null, "tty": null}), &exited(0, "")).await;
    check(&world, json!({"cmd": r"printf 'a\000b\377c \033[1mbold'"}), &exited(0, "ab\u{fffd}c \u{1b}[1mbold")).await;
    check(
        &world,
        json!({"cmd": "echo begun; sleep 600.01", "yield_time_ms": 0}),
        &format!("{HEAD}Process running with session ID #####\nOutput:\nbegun\n"),
    )
    .await;
}

#[tokio::test]
async fn what_is_wrong_is_said() {
    let world = World::new(&[]);
    for (arguments, code, expected) in [
        (
            json!({"cmd": "ls", "workdir": "../.."}),
            "sandbox_path",
            "Invalid workdir. Use a path within the workspace or an explicitly granted path.",
        ),
        (
            json!({"cmd": "ls", "workdir": "/etc"}),
            "sandbox_path",
            "Invalid workdir. Use a path within the workspace or an explicitly granted path.",
        ),
        (
            json!({"cmd": "ls", "shell": "no-such-shell"}),
            "sandbox_command",
            "exec_command failed: the command did not start: No such file or directory (os error 2)",
        ),
    ] {
        let outcome = world.call("exec_command", &arguments.to_string()).await;
        assert_eq!(
            (outcome.status, outcome.code, text(&outcome)),
            (CallStatus::Error, Some(code), expected),
            "{arguments}"
        );
    }
    let outcome = world.call("exec_command", r#"{"yield_time_ms": "soon"}"#).await;
    assert_eq!(outcome.status, CallStatus::Invalid);
    assert_eq!(
        text(&outcome),
        "Invalid tool arguments for cmd, yield_time_ms. Check the tool schema and try again.\n\
         - cmd: required, but missing\n- yield_time_ms: expected integer, got \"soon\""
    );
}

#[tokio::test]
async fn a_long_command_goes_on_as_a_session() {
    let world = World::new(&[]);
    world.put("gate", "");
    let outcome = world
        .call(
            "exec_command",
            r#"{"cmd":"echo one; while [ -e gate ]; do sleep 0.02; done; echo two; exit 4","yield_time_ms":250}"#,
        )
        .await;
    let id = session(text(&outcome));
    assert_eq!(output(&outcome), "one\n");
    let outcome = world.call("write_stdin", &json!({"session_id": id, "chars": "x"}).to_string()).await;
    assert_eq!((outcome.status, outcome.code), (CallStatus::Error, Some("terminal_no_stdin")));
    assert!(output(&outcome).starts_with("stdin is not available for this process. Start the command with `tty=true`"));
    std::fs::remove_file(world.workspace.path.join("gate")).unwrap();
    let outcome = world.call("write_stdin", &json!({"session_id": id}).to_string()).await;
    assert_eq!(steady(&outcome), format!("{HEAD}Process exited with code 4\nOutput:\ntwo\n"));
    let outcome = world.call("write_stdin", &json!({"session_id": id}).to_string()).await;
    assert_eq!((outcome.status, outcome.code), (CallStatus::Error, Some("terminal_unknown")));
    let expected = format!("{HEAD}Process exited with code 1\nOutput:\nwrite_stdin failed: unknown session_id {id}");
    assert!(steady(&outcome).starts_with(&expected), "{outcome:?}");
}

#[tokio::test]
async fn a_terminal_takes_input() {
    let world = World::new(&[]);
    let arguments =
        json!({"cmd": "stty -echo; read name; echo \"hello $name\"; sleep 600.02", "tty": true, "yield_time_ms": 300});
    let id = session(text(&world.call("exec_command", &arguments.to_string()).await));
    let outcome = world
        .call("write_stdin", &json!({"session_id": id, "chars": "world\n", "yield_time_ms": 1_000}).to_string())
        .await;
    assert!(output(&outcome).contains("hello world"), "{outcome:?}");
    let outcome = world
        .call("write_stdin", &json!({"session_id": id, "chars": "\u{3}", "yield_time_ms": 10_000}).to_string())
        .await;
    assert!(text(&outcome).contains("Process exited with code 130"), "{outcome:?}");
    assert!(!World::runs("600.02"));
}

#[tokio::test]
async fn ctrl_c_stops_a_session_without_a_terminal() {
    let world = World::new(&[]);
    let outcome = world.call("exec_command", r#"{"cmd":"sleep 600.03","yield_time_ms":250}"#).await;
    let id = session(text(&outcome));
    let outcome = world.call("write_stdin", &json!({"session_id": id, "chars": "\u{3}"}).to_string()).await;
    assert!(text(&outcome).contains("Process exited with code 137"), "{outcome:?}");
    World::until_gone("600.03").await;
}

#[tokio::test]
async fn long_output_is_cut_kept_and_paged() {
    let world = World::new(&[]);
    let outcome = world.call("exec_command", r#"{"cmd":"seq 1 20000"}"#).await;
    let whole: String = (1..=20_000).map(|number| format!("{number}\n")).collect();
    assert_eq!(outcome.whole.as_deref(), Some(whole.as_bytes()));
    let shown = output(&outcome);
    assert!(shown.len() <= 32 * 1024 && shown.len() > 32 * 1024 - 200, "{}", shown.len());
    assert!(shown.starts_with("Total output lines: 20000\n\n1\n2\n") && shown.ends_with("\n19999\n20000\n"), "{shown}");
    assert!(text(&outcome).contains(&format!("\nOriginal token count: {}\n", whole.len().div_ceil(4))));
    let mut next = shown.split_once("read_output ").unwrap().1.split_once(']').unwrap().0.to_owned();
    let mut read: String = shown.split_once("\n\n").unwrap().1.split_once("\n…").unwrap().0.to_owned();
    loop {
        let page = world.call("read_output", &next).await;
        let (head, body) = text(&page).split_once("\n\n").unwrap();
        read += body;
        match head.split_once("read on with ") {
            Some((_, more)) => next = more.to_owned(),
            None => break,
        }
    }
    assert_eq!(read, whole);
    let outcome = world.call("exec_command", r#"{"cmd":"seq 1 20000","max_output_tokens":100}"#).await;
    assert!(output(&outcome).len() <= 400, "{outcome:?}");
}

#[tokio::test]
async fn pages_that_do_not_exist_are_named() {
    let world = World::new(&[]);
    let outcome = world.call("exec_command", r#"{"cmd":"seq 1 20000"}"#).await;
    let id = world.wholes.lock().keys().next().copied().unwrap();
    assert!(outcome.whole.is_some());
    for (arguments, code) in [
        (json!({"output": "nonsense"}), "output_unknown"),
        (json!({"output": "call_00000000000000000000000000000000"}), "output_unknown"),
        (json!({"output": id, "offset": 99_999_999}), "output_offset"),
    ] {
        let outcome = world.call("read_output", &arguments.to_string()).await;
        assert_eq!((outcome.status, outcome.code), (CallStatus::Error, Some(code)), "{arguments}");
    }
    let page = world.call("read_output", &json!({"output": id, "offset": 2, "bytes": 3}).to_string()).await;
    assert!(text(&page).ends_with("\n\n2\n3"), "{page:?}");
}

#[tokio::test]
async fn dropping_a_call_kills_its_command() {
    let world = World::new(&[]);
    let call =
        world.call_of("exec_command", r#"{"cmd":"echo begun; sleep 600.04 & sleep 600.05","yield_time_ms":30000}"#);
    let begun = async {
        while world.progress.lock().is_empty() || !World::runs("600.05") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        outcome = world.perform(&call) => panic!("{outcome:?}"),
        () = begun => {}
    }
    World::until_gone("600.04").await;
    World::until_gone("600.05").await;
    assert_eq!(world.terminals.count(), 0);
}

#[tokio::test]
async fn output_is_shown_while_it_comes() {
    let world = World::new(&[]);
    world.call("exec_command", r#"{"cmd":"echo out; echo err >&2"}"#).await;
    let mut shown: Vec<String> =
        world.progress.lock().iter().map(|piece| format!("{:?} {:?}", piece.stream, piece.bytes)).collect();
    shown.sort();
    assert_eq!(shown, [r#"Stderr b"err\n""#, r#"Stdout b"out\n""#]);
}

#[tokio::test]
async fn sessions_are_few_and_the_oldest_go_first() {
    let world = World::new(&[]);
    let start = |cmd: &str| json!({"cmd": cmd, "yield_time_ms": 0}).to_string();
    let first = session(text(&world.call("exec_command", &start("sleep 600.06")).await));
    // Ends as soon as it was handed over; nobody asks for it any more.
    let ended = session(text(&world.call("exec_command", &start("while [ ! -e go ]; do sleep 0.02; done")).await));
    let calls: Vec<String> = (2..tools::TERMINALS_MAX).map(|_| start("sleep 600.07")).collect();
    futures::future::join_all(calls.iter().map(|call| world.call("exec_command", call))).await;
    assert_eq!(world.terminals.count(), tools::TERMINALS_MAX);
    world.put("go", "");
    tokio::time::timeout(Duration::from_secs(20), async {
        while world.terminals.running() == tools::TERMINALS_MAX {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
    // The one that ended goes before the one that is idle longest.
    let warned = world.call("exec_command", &start("sleep 600.07")).await;
    assert!(output(&warned).contains("[64 of at most 64 sessions are open"), "{warned:?}");
    let poll = |id: u64| json!({"session_id": id, "chars": "x"}).to_string();
    assert_eq!(world.call("write_stdin", &poll(ended)).await.code, Some("terminal_unknown"));
    assert_eq!(world.call("write_stdin", &poll(first)).await.code, Some("terminal_no_stdin"));
    world.terminals.close().await;
    assert_eq!(world.terminals.count(), 0);
    World::until_gone("600.06").await;
    World::until_gone("600.07").await;
}

#[tokio::test]
async fn images_are_shown_and_others_refused() {
    let world = World::new(&[]);
    world.put("a.png", b"\x89PNG\r\n\x1a\nrest");
    world.put("b.txt", "text");
    world.put("sub/c.txt", "text");
    std::fs::File::create(world.workspace.path.join("big.png")).unwrap().set_len(11 << 20).unwrap();
    let outcome = world.call("view_image", r#"{"path":"/workspace/a.png"}"#).await;
    assert_eq!(outcome.parts, [Part::Image { media: "image/png".into(), base64: "iVBORw0KGgpyZXN0".into() }]);
    for (path, code) in [
        ("b.txt", "image_unknown"),
        ("none.png", "image_missing"),
        ("sub", "image_missing"),
        ("big.png", "image_too_large"),
        ("../a.png", "sandbox_path"),
        ("/etc/passwd", "sandbox_path"),
    ] {
        let outcome = world.call("view_image", &json!({"path": path}).to_string()).await;
        assert_eq!((outcome.status, outcome.code), (CallStatus::Error, Some(code)), "{path}: {outcome:?}");
    }
}
