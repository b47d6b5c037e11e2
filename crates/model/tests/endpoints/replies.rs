//! What replies are understood as.

use crate::fake::{Answer, Fake, ask, completion, decl, open, options, prompt, response, user};
use domain::agent::Wire;
use domain::{Item, Usage};
use model::{Delta, Finish};
use serde_json::{Value, json};

const BOTH: [bool; 2] = [false, true];

fn call(call_id: &str, name: &str, arguments: &str, custom: bool, id: Option<&str>) -> Item {
    Item::Call {
        call_id: call_id.into(),
        name: name.into(),
        arguments: arguments.into(),
        custom,
        id: id.map(str::to_owned),
    }
}

fn text(text: &str, id: Option<&str>) -> Item {
    Item::Assistant { text: text.into(), id: id.map(str::to_owned) }
}

async fn check(wire: Wire, stream: bool, answer: Answer, expected: &[Item]) {
    let (_, url) = Fake::start([answer]).await;
    let model = open(&decl(wire, stream, &url), options());
    let (reply, deltas) = ask(&*model, &prompt(vec![user("hello")])).await;
    let reply = reply.unwrap();
    assert_eq!(reply.items, expected, "{wire:?} stream={stream}");
    let usage = Usage { model_calls: 1, input_tokens: 100, cached_tokens: 60, output_tokens: 20, reasoning_tokens: 7 };
    assert_eq!((reply.usage, reply.attempts, &*reply.model), (usage, 1, "bench-1-2026"));
    let calls = expected.iter().any(|item| matches!(item, Item::Call { .. }));
    assert_eq!(reply.finish, if calls { Finish::ToolCalls } else { Finish::Stop });
    // Whoever watched saw the same text and the same calls.
    let seen: String =
        deltas.iter().filter_map(|delta| if let Delta::Text(text) = delta { Some(&**text) } else { None }).collect();
    let said: String = expected
        .iter()
        .filter_map(|item| if let Item::Assistant { text, .. } = item { Some(&**text) } else { None })
        .collect();
    assert_eq!(seen, said, "{wire:?} stream={stream}");
    let started = deltas.iter().filter(|delta| matches!(delta, Delta::CallStarted { .. })).count();
    assert_eq!(started, expected.iter().filter(|item| matches!(item, Item::Call { .. })).count());
}

#[tokio::test]
async fn responses_are_read_whole_and_streamed() {
    let message = json!({"type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
        "content": [{"type": "output_text", "text": "All is well.", "annotations": []}]});
    let lookup = |n: u32| {
        json!({"type": "function_call", "id": format!("fc_{n}"), "call_id": format!("call_{n}"),
        "name": "lookup_account", "arguments": format!("{{\"account_id\":\"a{n}\"}}"), "status": "completed"})
    };
    let patch = json!({"type": "custom_tool_call", "id": "ctc_1", "call_id": "call_9", "name": "apply_patch", "input": "*** Begin Patch\n"});
    let patch_as_function = json!({"type": "function_call", "id": "fc_1", "call_id": "call_9", "name": "apply_patch", "arguments": "{\"input\":\"*** Begin Patch\\n\"}"});
    let reasoning = json!({"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}], "encrypted_content": "xyz"});
    let unknown = json!({"type": "hosted_thing", "id": "ht_1", "detail": [1, 2]});
    let opaque = |value: &Value, summary: Option<&str>| Item::Reasoning {
        wire: "responses".into(),
        opaque: value.to_string(),
        summary: summary.map(str::to_owned),
    };
    let looked = |n: u32| {
        call(
            &format!("call_{n}"),
            "lookup_account",
            &format!("{{\"account_id\":\"a{n}\"}}"),
            false,
            Some(&format!("fc_{n}")),
        )
    };
    for stream in BOTH {
        for (output, expected) in [
            (json!([message]), vec![text("All is well.", Some("msg_1"))]),
            (json!([lookup(1)]), vec![looked(1)]),
            (
                json!([message, lookup(1), lookup(2), lookup(3)]),
                vec![text("All is well.", Some("msg_1")), looked(1), looked(2), looked(3)],
            ),
            (
                json!([reasoning, unknown, lookup(1)]),
                vec![opaque(&reasoning, Some("hm")), opaque(&unknown, None), looked(1)],
            ),
            (json!([patch]), vec![call("call_9", "apply_patch", "*** Begin Patch\n", true, Some("ctc_1"))]),
            (json!([patch_as_function]), vec![call("call_9", "apply_patch", "*** Begin Patch\n", true, None)]),
        ] {
            check(Wire::Responses, stream, response(stream, &output), &expected).await;
        }
    }
}

#[tokio::test]
async fn completions_are_read_whole_and_streamed() {
    let call_of = |id: &str, name: &str, arguments: &str| json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}});
    let lookup = |n: u32| call_of(&format!("call_{n}"), "lookup_account", &format!("{{\"account_id\":\"a{n}\"}}"));
    let looked =
        |n: u32| call(&format!("call_{n}"), "lookup_account", &format!("{{\"account_id\":\"a{n}\"}}"), false, None);
    let patch = call_of("call_9", "apply_patch", "{\"input\":\"*** Begin Patch\\n\"}");
    for stream in BOTH {
        for (message, finish, expected) in [
            (json!({"role": "assistant", "content": "All is well."}), "stop", vec![text("All is well.", None)]),
            (json!({"content": null, "tool_calls": [lookup(1)]}), "tool_calls", vec![looked(1)]),
            (
                json!({"content": "So.", "tool_calls": [lookup(1), lookup(2), lookup(3)]}),
                "tool_calls",
                vec![text("So.", None), looked(1), looked(2), looked(3)],
            ),
            // Some endpoints end a reply with calls as if it had none.
            (json!({"content": "", "tool_calls": [lookup(1)]}), "stop", vec![looked(1)]),
            (
                json!({"content": null, "tool_calls": [patch]}),
                "tool_calls",
                vec![call("call_9", "apply_patch", "*** Begin Patch\n", true, None)],
            ),
        ] {
            check(Wire::Chat, stream, completion(stream, &message, finish), &expected).await;
        }
    }
}

#[tokio::test]
async fn a_stream_of_nothing_but_its_end_is_enough() {
    let item =
        json!({"type": "message", "id": "m", "role": "assistant", "content": [{"type": "output_text", "text": "hi"}]});
    let only_end =
        Answer::events(&[json!({"type": "response.completed", "response": {"status": "completed", "output": [item]}})]);
    let end_without_items = Answer::events(&[
        json!({"type": "response.output_item.done", "item": item}),
        json!({"type": "response.completed", "response": {"status": "completed", "output": []}}),
    ]);
    // An endpoint that does not stream although it was asked to.
    let whole = Answer::json(200, &json!({"status": "completed", "output": [item]}));
    for answer in [only_end, end_without_items, whole] {
        let (_, url) = Fake::start([answer]).await;
        let (reply, _) = ask(&*open(&decl(Wire::Responses, true, &url), options()), &prompt(vec![user("x")])).await;
        assert_eq!(reply.unwrap().items, [text("hi", Some("m"))]);
    }
    // Chunks that end with a finish reason and no `[DONE]`, without index, with arguments as an object.
    let chunks = Answer::events(&[
        json!({"choices": [{"delta": {"reasoning_content": "hm", "tool_calls": [{"id": "a", "function": {"name": "t", "arguments": {"x": 1}}}]}}]}),
        json!({"choices": [{"delta": {"tool_calls": [{"id": "b", "function": {"name": "t", "arguments": "{"}}]}}]}),
        json!({"choices": [{"delta": {"tool_calls": [{"function": {"arguments": "}"}}]}, "finish_reason": "tool_calls"}]}),
    ]);
    let (_, url) = Fake::start([chunks]).await;
    let (reply, deltas) = ask(&*open(&decl(Wire::Chat, true, &url), options()), &prompt(vec![user("x")])).await;
    assert_eq!(reply.unwrap().items, [call("a", "t", "{\"x\":1}", false, None), call("b", "t", "{}", false, None)]);
    assert_eq!(deltas[0], Delta::Reasoning("hm".into()));
}

#[tokio::test]
async fn what_came_goes_back_as_it_came() {
    let reasoning = json!({"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x\u{e9}/\"y", "later": {"b": 1, "a": [2.50]}});
    let lookup = json!({"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "lookup_account", "arguments": "{\"account_id\": \"a\"}"});
    let message =
        json!({"type": "message", "id": "m", "role": "assistant", "content": [{"type": "output_text", "text": "hi"}]});
    for stream in BOTH {
        let (fake, url) =
            Fake::start([response(stream, &json!([reasoning, lookup])), response(stream, &json!([message]))]).await;
        let model = open(&decl(Wire::Responses, stream, &url), options());
        let mut conversation = prompt(vec![user("hello")]);
        let (reply, _) = ask(&*model, &conversation).await;
        conversation.items.extend(reply.unwrap().items.into_iter().map(std::sync::Arc::new));
        let output = Item::Output { call_id: "call_1".into(), parts: vec![domain::Part::text("found")], custom: false };
        conversation.items.push(std::sync::Arc::new(output));
        ask(&*model, &conversation).await.0.unwrap();
        let input = fake.last()["input"].clone();
        assert_eq!(input[1], reasoning);
        assert_eq!(
            input[2],
            json!({"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "lookup_account", "arguments": "{\"account_id\": \"a\"}"})
        );
        assert_eq!(input[3], json!({"type": "function_call_output", "call_id": "call_1", "output": "found"}));
    }
}

#[tokio::test]
async fn calls_that_come_without_an_id_are_given_one_each() {
    for stream in BOTH {
        let call = json!({"id": "", "function": {"name": "lookup_account", "arguments": "{}"}});
        let (_, url) = Fake::start([completion(stream, &json!({"tool_calls": [call, call]}), "tool_calls")]).await;
        let (reply, _) = ask(&*open(&decl(Wire::Chat, stream, &url), options()), &prompt(vec![user("x")])).await;
        let ids: std::collections::BTreeSet<String> = reply
            .unwrap()
            .items
            .into_iter()
            .filter_map(|item| if let Item::Call { call_id, .. } = item { Some(call_id) } else { None })
            .collect();
        assert_eq!(ids.len(), 2);
        assert!(ids.iter().all(|id| id.starts_with("call_")), "{ids:?}");
    }
}
