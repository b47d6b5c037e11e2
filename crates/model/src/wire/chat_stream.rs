//! The chunks of a streamed completion, put together by the index of each call.

use super::chat::{Draft, DraftCall, Said, SaidCall, Tokens, arguments};
use super::{Events, vendor};
use crate::endpoint::malformed;
use crate::{Delta, Deltas, Failure, Kind, Prompt, Reply};
use domain::Usage;
use serde::Deserialize;
use serde_json::value::RawValue;

/// Calls of one reply at most.
const CALLS_MAX: usize = 1_000;

#[derive(Deserialize)]
struct Chunk<'a> {
    #[serde(default)]
    model: Option<String>,
    #[serde(default, borrow)]
    choices: Vec<Choice<'a>>,
    #[serde(default)]
    usage: Option<Tokens>,
    #[serde(default, borrow)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(default)]
    index: u32,
    #[serde(default, borrow)]
    delta: Option<Said<'a>>,
    #[serde(default)]
    finish_reason: Option<String>,
}

/// Reads chunks up to the end of the stream.
pub(super) async fn read(prompt: &Prompt, mut events: Events, deltas: &Deltas) -> Result<Reply, Failure> {
    let mut draft = Draft::default();
    while let Some(data) = events.next().await? {
        deltas.count();
        if data.trim() == "[DONE]" {
            events.finish().await;
            return draft.reply(prompt);
        }
        let unread = |error: serde_json::Error| {
            malformed("the model's endpoint sent a chunk that can't be read", &error, data.as_bytes())
        };
        let chunk: Chunk<'_> = serde_json::from_str(&data).map_err(unread)?;
        if let Some(error) = chunk.error.filter(|error| error.get() != "null") {
            return Err(vendor::failure_in_reply(error).using(draft.usage));
        }
        if let Some(usage) = chunk.usage {
            draft.usage = Usage::from(usage);
        }
        if let Some(model) = chunk.model.filter(|model| !model.is_empty()) {
            draft.model = model;
        }
        for choice in chunk.choices.into_iter().filter(|choice| choice.index == 0) {
            if let Some(delta) = choice.delta {
                take(delta, &mut draft, deltas)?;
            }
            draft.finish = choice.finish_reason.or(draft.finish);
        }
    }
    // Some endpoints close the stream instead of saying that they are done; a finish reason says as much.
    if draft.finish.is_some() {
        return draft.reply(prompt);
    }
    Err(Failure::new(Kind::Cut, "the model's stream ended before the reply was complete").using(draft.usage))
}

fn take(said: Said<'_>, draft: &mut Draft, deltas: &Deltas) -> Result<(), Failure> {
    if let Some(text) = said.content.filter(|text| !text.is_empty()) {
        draft.text.push_str(&text);
        deltas.offer(Delta::Text(text));
    }
    if let Some(text) = said.refusal.filter(|text| !text.is_empty()) {
        draft.refusal.push_str(&text);
        deltas.offer(Delta::Text(text));
    }
    if let Some(text) = said.reasoning_content.filter(|text| !text.is_empty()) {
        deltas.offer(Delta::Reasoning(text));
    }
    for call in said.tool_calls.unwrap_or_default() {
        take_call(call, draft, deltas)?;
    }
    Ok(())
}

fn take_call(said: SaidCall<'_>, draft: &mut Draft, deltas: &Deltas) -> Result<(), Failure> {
    let id = said.id.unwrap_or_default();
    // By index where there is one. Without one a new id begins a new call, and no id goes on with the last.
    let known = match said.index {
        Some(index) => draft.calls.iter().position(|call| call.index == Some(index)),
        None if id.is_empty() => draft.calls.len().checked_sub(1),
        None => draft.calls.iter().position(|call| call.id == id),
    };
    let at = known.unwrap_or(draft.calls.len());
    if known.is_none() {
        if draft.calls.len() >= CALLS_MAX {
            return Err(Failure::new(Kind::Malformed, format!("the reply holds more than {CALLS_MAX} calls")));
        }
        draft.calls.push(DraftCall { index: said.index, ..DraftCall::default() });
    }
    let call = &mut draft.calls[at];
    if call.id.is_empty() {
        call.id = id;
    }
    let Some(function) = said.function else { return Ok(()) };
    if let Some(name) = function.name.filter(|name| !name.is_empty() && call.name.is_empty()) {
        call.name.clone_from(&name);
        deltas.offer(Delta::CallStarted { name });
    }
    let piece = arguments(function.arguments);
    if !piece.is_empty() {
        call.arguments.push_str(&piece);
        deltas.offer(Delta::CallArguments(piece));
    }
    Ok(())
}
