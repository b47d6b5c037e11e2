//! What is sent.

use crate::fake::{Fake, KEY, ask, completion, decl, open, options, prompt, response, user};
use domain::agent::{ModelProvider, Wire};
use domain::{Item, Part};
use model::Prompt;
use serde_json::{Value, json};
use std::sync::Arc;

/// A conversation with everything in it.
fn conversation() -> Prompt {
    let image = Part::Image { media: "image/png".into(), base64: "aGk=".into() };
    let call = |call_id: &str, name: &str, arguments: &str, custom: bool| {
        Arc::new(Item::Call {
            call_id: call_id.into(),
            name: name.into(),
            arguments: arguments.into(),
            custom,
            id: None,
        })
    };
    let output = |call_id: &str, parts: Vec<Part>, custom: bool| {
        Arc::new(Item::Output { call_id: call_id.into(), parts, custom })
    };
    prompt(vec![
        Arc::new(Item::User { parts: vec![Part::text("look"), image.clone()] }),
        Arc::new(Item::Reasoning { wire: "elsewhere".into(), opaque: "not JSON".into(), summary: None }),
        Arc::new(Item::Assistant { text: "I look.".into(), id: None }),
        call("c1", "lookup_account", "{\"account_id\":", false),
        call("c2", "apply_patch", "*** \"Begin\"\n", true),
        call("c3", "view_image", "{}", false),
        output("c1", vec![Part::text("bad arguments")], false),
        output("c2", vec![Part::text("done")], true),
        output("c3", vec![image], false),
        user("and now?"),
    ])
}

async fn sent(wire: Wire, stream: bool, change: impl FnOnce(&mut domain::ModelDecl, &mut Prompt)) -> Value {
    let message =
        json!({"type": "message", "id": "m", "role": "assistant", "content": [{"type": "output_text", "text": "hi"}]});
    let answer = match wire {
        Wire::Responses => response(stream, &json!([message])),
        Wire::Chat => completion(stream, &json!({"content": "hi"}), "stop"),
    };
    let (fake, url) = Fake::start([answer]).await;
    let (mut decl, mut prompt) = (decl(wire, stream, &url), conversation());
    change(&mut decl, &mut prompt);
    ask(&*open(&decl, options()), &prompt).await.0.unwrap();
    fake.last()
}

#[tokio::test]
async fn a_prompt_as_a_responses_body() {
    let image = json!({"type": "input_image", "image_url": "data:image/png;base64,aGk=", "detail": "auto"});
    let body = sent(Wire::Responses, true, |_, _| {}).await;
    assert_eq!(
        body,
        json!({
            "model": "bench-1",
            "instructions": "You are Maya.",
            "input": [
                {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "look"}, image]},
                {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I look.", "annotations": []}]},
                {"type": "function_call", "call_id": "c1", "name": "lookup_account", "arguments": "{\"account_id\":"},
                {"type": "custom_tool_call", "call_id": "c2", "name": "apply_patch", "input": "*** \"Begin\"\n"},
                {"type": "function_call", "call_id": "c3", "name": "view_image", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c1", "output": "bad arguments"},
                {"type": "custom_tool_call_output", "call_id": "c2", "output": "done"},
                {"type": "function_call_output", "call_id": "c3", "output": [image]},
                {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "and now?"}]},
            ],
            "tools": [
                {"type": "function", "name": "lookup_account", "description": "Looks up.", "strict": false,
                 "parameters": {"type": "object", "properties": {"account_id": {"type": "string"}}}},
                {"type": "custom", "name": "apply_patch", "description": "Patches.",
                 "format": {"type": "grammar", "syntax": "lark", "definition": "start: /.+/"}},
            ],
            "parallel_tool_calls": true,
            "store": false,
            "stream": true,
        })
    );
}

#[tokio::test]
async fn a_prompt_as_a_chat_body() {
    let image = json!({"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}});
    let call = |id: &str, name: &str, arguments: &str| json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}});
    let mut body = sent(Wire::Chat, true, |_, _| {}).await;
    let offered = body["tools"][1]["function"].take();
    assert_eq!(offered["name"], "apply_patch");
    assert_eq!(offered["parameters"]["required"], json!(["input"]));
    assert!(offered["description"].as_str().unwrap().contains("start: /.+/"));
    assert_eq!(
        body,
        json!({
            "model": "bench-1",
            "messages": [
                {"role": "system", "content": "You are Maya."},
                {"role": "user", "content": [{"type": "text", "text": "look"}, image]},
                {"role": "assistant", "content": "I look.", "tool_calls": [
                    call("c1", "lookup_account", "{\"account_id\":"),
                    call("c2", "apply_patch", "{\"input\":\"*** \\\"Begin\\\"\\n\"}"),
                    call("c3", "view_image", "{}"),
                ]},
                {"role": "tool", "tool_call_id": "c1", "content": "bad arguments"},
                {"role": "tool", "tool_call_id": "c2", "content": "done"},
                {"role": "tool", "tool_call_id": "c3", "content": "The image follows in the next message."},
                {"role": "user", "content": [{"type": "text", "text": "Image from the output of call c3:"}, image]},
                {"role": "user", "content": "and now?"},
            ],
            "tools": [
                {"type": "function", "function": {"name": "lookup_account", "description": "Looks up.",
                 "parameters": {"type": "object", "properties": {"account_id": {"type": "string"}}}}},
                {"type": "function", "function": null},
            ],
            "stream": true,
            "stream_options": {"include_usage": true},
        })
    );
}

#[tokio::test]
async fn settings_reach_the_wire_that_knows_them() {
    let set = |decl: &mut domain::ModelDecl, prompt: &mut Prompt| {
        decl.temperature_milli = Some(250);
        decl.output_tokens_max = Some(900);
        decl.reasoning_effort = Some("low".into());
        prompt.output_tokens_max = Some(500);
        prompt.instructions = "".into();
        prompt.tools = Arc::from([]);
    };
    let official = |decl: &mut domain::ModelDecl, prompt: &mut Prompt| {
        set(decl, prompt);
        decl.provider = ModelProvider::Openai;
        decl.output_tokens_max = Some(300);
    };
    for (wire, body, expected) in [
        (
            Wire::Responses,
            sent(Wire::Responses, false, set).await,
            json!({"temperature": 0.25, "max_output_tokens": 500, "reasoning": {"effort": "low"}, "include": ["reasoning.encrypted_content"]}),
        ),
        (
            Wire::Responses,
            sent(Wire::Responses, false, official).await,
            json!({"temperature": 0.25, "max_output_tokens": 300, "reasoning": {"effort": "low"}, "include": ["reasoning.encrypted_content"], "prompt_cache_key": "ses_1"}),
        ),
        (
            Wire::Chat,
            sent(Wire::Chat, false, set).await,
            json!({"temperature": 0.25, "max_tokens": 500, "reasoning_effort": "low"}),
        ),
        (
            Wire::Chat,
            sent(Wire::Chat, false, official).await,
            json!({"temperature": 0.25, "max_completion_tokens": 300, "reasoning_effort": "low", "prompt_cache_key": "ses_1"}),
        ),
    ] {
        let mut body = body.as_object().unwrap().clone();
        for plain in ["model", "input", "messages", "stream", "store"] {
            body.remove(plain);
        }
        assert_eq!(Value::Object(body), expected, "{wire:?}");
    }
    for (name, expected) in
        [("gpt-5.4-mini", true), ("openai/o3", true), ("gpt-4.1", false), ("gpt-5-chat-latest", false)]
    {
        let body = sent(Wire::Responses, false, |decl, _| decl.name = name.into()).await;
        assert_eq!(body.get("include").is_some(), expected, "{name}");
    }
}

#[tokio::test]
async fn url_key_headers_and_query_are_used() {
    for (wire, path) in [(Wire::Responses, "/v1/responses"), (Wire::Chat, "/v1/chat/completions")] {
        let message =
            json!({"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "hi"}]});
        let answer = match wire {
            Wire::Responses => response(false, &json!([message])),
            Wire::Chat => completion(false, &json!({"content": "hi"}), "stop"),
        };
        let (fake, url) = Fake::start([answer.clone(), answer]).await;
        let mut decl = decl(wire, false, &format!("{url}/"));
        ask(&*open(&decl, options()), &prompt(vec![user("x")])).await.0.unwrap();
        decl.key = Some("${env.EMPTY}".into());
        decl.headers.insert("api-key".into(), "${env.KEY}".into());
        decl.query.insert("api-version".into(), "2026 a".into());
        ask(&*open(&decl, options()), &prompt(vec![user("x")])).await.0.unwrap();
        let asked = fake.asked.lock().unwrap();
        assert_eq!(asked[0].target, path);
        assert_eq!(asked[0].headers["authorization"], format!("Bearer {KEY}"));
        assert_eq!(asked[1].target, format!("{path}?api-version=2026+a"));
        assert!(!asked[1].headers.contains_key("authorization"));
        assert_eq!(asked[1].headers["api-key"], KEY);
    }
}
