//! A model behind the network: what it says follows from what it was asked alone. It speaks Chat Completions, whole or as a
//! stream.

use crate::project::{NESTED, PLANS, TOOLS};
use serde_json::{Value, json};
use stdx::Random;

/// Turns of a conversation before its end, at most.
const TURNS_MAX: u64 = 3;

/// An answer, in the pieces in which it comes.
pub(crate) struct Said {
    pub(crate) media: &'static str,
    pub(crate) pieces: Vec<String>,
}

/// What it answers to a request; `None` when the request is none.
pub(crate) fn reply(body: &[u8]) -> Option<Said> {
    let asked: Value = serde_json::from_slice(body).ok()?;
    let messages = asked["messages"].as_array()?;
    let role = |message: &Value, role: &str| message["role"] == role;
    let begin = messages.iter().rposition(|message| role(message, "user"))?;
    let text = messages[begin]["content"].to_string();
    let plan: u64 = text.split_once("plan-").and_then(|(_, rest)| rest[..1].parse().ok()).unwrap_or(PLANS);
    let turn = messages[begin..].iter().filter(|message| role(message, "assistant")).count() as u64;
    // A conversation that began with the same words goes the same way.
    let random = Random::seeded(0xca11 + plan * 64 + turn * 8 + asked["tools"].as_array().map_or(0, Vec::len) as u64);
    let calls: Vec<Value> = match turn < random.below(TURNS_MAX + 1) {
        true => (0..=random.below(2)).map(|index| call(&random, messages.len() as u64, index)).collect(),
        false => Vec::new(),
    };
    // Some endpoints answer whole although they were asked to stream.
    Some(if plan.is_multiple_of(2) { streamed(turn, calls) } else { whole(turn, &calls) })
}

/// The body of an error.
pub(crate) fn error(message: &str) -> String {
    json!({"error": {"message": message}}).to_string()
}

fn call(random: &Random, seen: u64, index: u64) -> Value {
    let (name, arguments) = match random.below(6) {
        0 => (NESTED, json!({"message": format!("plan-{} for you", random.below(PLANS))})),
        _ => {
            let place = usize::try_from(random.below(TOOLS.len() as u64)).unwrap_or(0);
            (TOOLS[place].name, json!({"n": random.below(4)}))
        }
    };
    let function = json!({"name": name, "arguments": arguments.to_string()});
    json!({"index": index, "id": format!("m{seen}c{index}"), "type": "function", "function": function})
}

fn end(calls: &[Value]) -> String {
    let (why, tokens) = (if calls.is_empty() { "stop" } else { "tool_calls" }, 40 + 10 * calls.len());
    format!(
        r#""finish_reason":"{why}"}}],"usage":{{"prompt_tokens":30,"completion_tokens":{},"total_tokens":{tokens}}}}}"#,
        tokens - 30
    )
}

fn whole(turn: u64, calls: &[Value]) -> Said {
    let mut message = json!({"role": "assistant", "content": format!("Turn {turn}.")});
    if !calls.is_empty() {
        message["tool_calls"] = json!(calls);
    }
    let text = format!(r#"{{"model":"remote","choices":[{{"index":0,"message":{message},{}"#, end(calls));
    Said { media: "application/json", pieces: vec![text] }
}

fn streamed(turn: u64, calls: Vec<Value>) -> Said {
    let last = end(&calls);
    let mut deltas = vec![json!({"role": "assistant", "content": format!("Turn {turn}.")})];
    deltas.extend(calls.into_iter().map(|call| json!({"tool_calls": [call]})));
    let chunk = |delta: &Value, rest: &str| {
        format!("data: {{\"model\":\"remote\",\"choices\":[{{\"index\":0,\"delta\":{delta}{rest}\n\n")
    };
    let mut pieces: Vec<String> = deltas.iter().map(|delta| chunk(delta, "}]}")).collect();
    pieces.push(chunk(&json!({}), &format!(",{last}")));
    pieces.push("data: [DONE]\n\n".to_owned());
    Said { media: "text/event-stream", pieces }
}
