//! What fails, what it is called, and what is tried again.

use crate::fake::{Answer, End, Fake, KEY, ask, completion, decl, open, options, prompt, response, user};
use domain::agent::Wire;
use model::{Delta, Deltas, Kind, Options, Stage};
use serde_json::{Value, json};

const MODES: [(Wire, bool); 4] =
    [(Wire::Responses, false), (Wire::Responses, true), (Wire::Chat, false), (Wire::Chat, true)];

fn good(wire: Wire, stream: bool) -> Answer {
    let message = json!({"type": "message", "id": "m", "role": "assistant", "content": [{"type": "output_text", "text": "hi there"}]});
    match wire {
        Wire::Responses => response(stream, &json!([message])),
        Wire::Chat => completion(stream, &json!({"content": "hi there"}), "stop"),
    }
}

fn error(status: u16, code: &str) -> Answer {
    Answer::json(status, &json!({"error": {"message": "so it is", "type": "server_error", "code": code}}))
}

/// The failure's code or `ok`, attempts, and requests that arrived.
async fn check(wire: Wire, stream: bool, answers: Vec<Answer>, expected: (&str, u64, usize)) {
    let (fake, url) = Fake::start(answers).await;
    let model = open(&decl(wire, stream, &url), options());
    let (reply, _) = ask(&*model, &prompt(vec![user("x")])).await;
    let (code, calls) = match &reply {
        Ok(reply) => ("ok", reply.usage.model_calls),
        Err(failure) => (failure.code(), failure.usage.model_calls),
    };
    assert_eq!((code, calls, fake.count()), expected, "{wire:?} stream={stream}: {reply:?}");
}

#[tokio::test]
async fn passing_failures_are_tried_again_and_counted() {
    for (wire, stream) in MODES {
        let good = || good(wire, stream);
        let overloaded = || error(503, "overloaded");
        check(wire, stream, vec![error(429, "rate_limit_exceeded").header("retry-after", "0"), good()], ("ok", 2, 2))
            .await;
        check(wire, stream, vec![error(500, "x"), overloaded(), good()], ("ok", 3, 3)).await;
        check(wire, stream, vec![overloaded(), overloaded(), overloaded(), good()], ("model_overloaded", 3, 3)).await;
        check(wire, stream, vec![error(408, "x"), error(409, "x"), good()], ("ok", 3, 3)).await;
        // Coming back earlier than asked is no use, so a long wait is handed to the caller.
        check(wire, stream, vec![error(429, "x").header("retry-after", "60"), good()], ("model_rate_limited", 1, 1))
            .await;
        for (status, code, expected) in [
            (401, "invalid_api_key", "model_auth"),
            (400, "invalid_request_error", "model_bad_request"),
            (404, "model_not_found", "model_bad_request"),
            (400, "context_length_exceeded", "model_context_too_long"),
            (429, "insufficient_quota", "model_quota_exhausted"),
            (302, "", "model_bad_request"),
        ] {
            check(wire, stream, vec![error(status, code), good()], (expected, 1, 1)).await;
        }
        check(wire, stream, vec![good().ending(End::Broken), good()], if stream { ("ok", 1, 1) } else { ("ok", 2, 2) })
            .await;
    }
}

#[tokio::test]
async fn a_wait_asked_for_is_told_in_seconds_or_as_a_date() {
    // The model's clock stands at 1,000 s after the epoch.
    for (text, expected) in [("90", Some(90_000)), ("Thu, 01 Jan 1970 00:18:20 GMT", Some(100_000)), ("soon", None)] {
        let answers = [error(429, "x").header("retry-after", text), error(401, "invalid_api_key")];
        let (_, url) = Fake::start(answers).await;
        let (reply, _) = ask(&*open(&decl(Wire::Chat, false, &url), options()), &prompt(vec![user("x")])).await;
        let failure = reply.unwrap_err();
        match expected {
            Some(_) => assert_eq!((failure.code(), failure.retry_after_ms), ("model_rate_limited", expected), "{text}"),
            None => assert_eq!(failure.code(), "model_auth", "{text}"),
        }
    }
}

#[tokio::test]
async fn nothing_is_tried_again_once_a_piece_was_seen() {
    for wire in [Wire::Responses, Wire::Chat] {
        let mut cut = good(wire, true);
        cut.pieces.truncate(3);
        for end in [End::Whole, End::Broken] {
            let (fake, url) = Fake::start([cut.clone().ending(end), good(wire, true)]).await;
            let model = open(&decl(wire, true, &url), options());
            let (reply, deltas) = ask(&*model, &prompt(vec![user("x")])).await;
            let failure = reply.unwrap_err();
            assert!(failure.emitted && failure.retryable, "{failure:?}");
            assert!(matches!(failure.kind, Kind::Cut | Kind::Connect), "{failure:?}");
            assert!(deltas.iter().any(|delta| matches!(delta, Delta::Text(_))));
            assert_eq!(fake.count(), 1);
        }
        // Nobody watched: nothing has to be taken back.
        let (fake, url) = Fake::start([cut, good(wire, true)]).await;
        let model = open(&decl(wire, true, &url), options());
        assert_eq!(model.reply(&prompt(vec![user("x")]), &Deltas::none()).await.unwrap().attempts, 2);
        assert_eq!(fake.count(), 2);
    }
}

#[tokio::test]
async fn silence_ends_at_its_limit() {
    let short = |first_token_ms, idle_ms, unstreamed_ms, total_ms| Options {
        first_token_ms,
        idle_ms,
        unstreamed_ms,
        total_ms,
        backoff: stdx::Backoff { first_ms: 1, wait_ms_max: 1, attempts_max: 1 },
        ..options()
    };
    let long = 600_000;
    for wire in [Wire::Responses, Wire::Chat] {
        let mut some = good(wire, true).ending(End::Silent);
        some.pieces.truncate(3);
        let none = Answer { pieces: Vec::new(), ..some.clone() };
        let comment = Answer { pieces: vec![": ping\n\n".into()], ..some.clone() };
        for (answer, stream, options, stage) in [
            (none.clone(), true, short(40, long, long, long), Stage::FirstToken),
            (comment, true, short(40, long, long, long), Stage::FirstToken),
            (some.clone(), true, short(long, 40, long, long), Stage::Idle),
            (some.clone(), true, short(long, long, long, 40), Stage::Total),
            (none, false, short(long, long, 40, long), Stage::FirstToken),
        ] {
            let (_, url) = Fake::start([answer]).await;
            let (reply, _) = ask(&*open(&decl(wire, stream, &url), options), &prompt(vec![user("x")])).await;
            assert_eq!(reply.unwrap_err().kind, Kind::Timeout { stage }, "{wire:?} {options:?}");
        }
    }
}

#[tokio::test]
async fn what_is_no_reply_is_named() {
    let responses = |event: Value| Answer::events(&[event]);
    let whole = |body: Value| Answer::json(200, &body);
    let failed = json!({"status": "failed", "error": {"code": "server_error", "message": "oops"}});
    let limited = json!({"status": "failed", "error": {"code": "rate_limit_exceeded", "message": "slow"}});
    let long = json!({"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}});
    let filtered = json!({"status": "incomplete", "incomplete_details": {"reason": "content_filter"}});
    let refusal = json!({"status": "completed", "output": [{"type": "message", "content": [{"type": "refusal", "refusal": "no"}]}]});
    let computer = json!({"status": "completed", "output": [{"type": "computer_call", "call_id": "c"}]});
    let empty = json!({"status": "completed", "output": []});
    for (response, code) in [
        (failed, "model_server_error"),
        (limited, "model_rate_limited"),
        (long, "model_cut"),
        (filtered, "model_content_filtered"),
        (refusal, "model_refused"),
        (computer, "model_malformed"),
        (empty, "model_malformed"),
        (json!({"status": "queued"}), "model_cut"),
    ] {
        let once = Options { backoff: stdx::Backoff { attempts_max: 1, ..options().backoff }, ..options() };
        let kind = match response["status"].as_str().unwrap() {
            "queued" => "completed",
            status => status,
        };
        let event = json!({"type": format!("response.{kind}"), "response": response});
        for (stream, answer) in [(false, whole(response.clone())), (true, responses(event))] {
            let (_, url) = Fake::start([answer]).await;
            let (reply, _) = ask(&*open(&decl(Wire::Responses, stream, &url), once), &prompt(vec![user("x")])).await;
            assert_eq!(reply.as_ref().map(|_| ()).map_err(model::Failure::code), Err(code), "{response} {reply:?}");
        }
    }
    let once = || Options { backoff: stdx::Backoff { attempts_max: 1, ..options().backoff }, ..options() };
    let call = |function: Value| json!({"tool_calls": [{"id": "a", "function": function}]});
    for (wire, stream, answer, code) in [
        (
            Wire::Responses,
            true,
            responses(json!({"type": "error", "code": "server_error", "message": "oops"})),
            "model_server_error",
        ),
        (
            Wire::Responses,
            true,
            responses(json!({"type": "error", "error": {"code": "context_length_exceeded", "message": "m"}})),
            "model_context_too_long",
        ),
        (Wire::Responses, true, responses(json!({"type": "response.completed"})), "model_malformed"),
        (Wire::Responses, true, Answer::text(200, "text/event-stream", "data: {\"type\":\n\n"), "model_malformed"),
        (Wire::Responses, true, Answer::text(200, "text/event-stream", ""), "model_cut"),
        (Wire::Responses, false, Answer::text(200, "text/html", "<html>hello</html>"), "model_malformed"),
        (Wire::Chat, false, Answer::text(200, "application/json", "{\"choices\":["), "model_malformed"),
        (Wire::Chat, false, whole(json!({"choices": []})), "model_malformed"),
        (Wire::Chat, false, whole(json!({"error": {"message": "m", "code": 502}})), "model_server_error"),
        (Wire::Chat, false, completion(false, &json!({"refusal": "no"}), "stop"), "model_refused"),
        (Wire::Chat, true, completion(true, &json!({"refusal": "no"}), "stop"), "model_refused"),
        (Wire::Chat, false, completion(false, &json!({"content": "ha"}), "length"), "model_cut"),
        (Wire::Chat, true, completion(true, &json!({"content": "ha"}), "length"), "model_cut"),
        (Wire::Chat, true, completion(true, &json!({"content": "ha"}), "content_filter"), "model_content_filtered"),
        (
            Wire::Chat,
            true,
            Answer::events(&[json!({"error": {"message": "m", "code": "overloaded"}})]),
            "model_overloaded",
        ),
        (Wire::Chat, false, completion(false, &call(json!({"arguments": "{}"})), "tool_calls"), "model_malformed"),
    ] {
        let (_, url) = Fake::start([answer]).await;
        let (reply, _) = ask(&*open(&decl(wire, stream, &url), once()), &prompt(vec![user("x")])).await;
        assert_eq!(reply.as_ref().map(|_| ()).map_err(model::Failure::code), Err(code), "{wire:?} {reply:?}");
    }
}

#[tokio::test]
async fn a_reply_without_end_is_cut_off() {
    for stream in [false, true] {
        let small = Options { reply_bytes_max: 100_000, ..options() };
        let media = if stream { "text/event-stream" } else { "application/json" };
        let (fake, url) = Fake::start([Answer::text(200, media, &"x".repeat(200_000)).ending(End::Silent)]).await;
        let (reply, _) = ask(&*open(&decl(Wire::Chat, stream, &url), small), &prompt(vec![user("x")])).await;
        let failure = reply.unwrap_err();
        assert_eq!((failure.code(), fake.count()), ("model_malformed", 1), "{failure}");
    }
}

#[tokio::test]
async fn no_connection_is_tried_again_and_said_plainly() {
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let model = open(&decl(Wire::Chat, true, &format!("http://{closed}/v1")), options());
    let (reply, _) = ask(&*model, &prompt(vec![user("x")])).await;
    let failure = reply.unwrap_err();
    assert_eq!((failure.code(), failure.usage.model_calls, failure.emitted), ("model_connect", 3, false));
}

#[tokio::test]
async fn a_key_that_the_endpoint_echoes_is_taken_out() {
    let echo = Answer::json(
        401,
        &json!({"error": {"message": format!("incorrect API key provided: {KEY}"), "code": "invalid_api_key"}}),
    );
    let (_, url) = Fake::start([echo.clone(), echo]).await;
    let mut by_query = decl(Wire::Chat, true, &url);
    by_query.key = None;
    by_query.query.insert("key".into(), "${env.KEY}".into());
    let model = open(&by_query, options());
    let (reply, _) = ask(&*model, &prompt(vec![user("x")])).await;
    assert!(!format!("{reply:?} {model:?}").contains(KEY), "{reply:?}");
    let model = open(&decl(Wire::Chat, true, &url), options());
    let (reply, _) = ask(&*model, &prompt(vec![user("x")])).await;
    let failure = reply.unwrap_err();
    assert!(failure.message.contains("[redacted]") && !format!("{failure:?} {model:?}").contains(KEY), "{failure}");
    assert_eq!(failure.to_domain().code, "model_auth");
}
