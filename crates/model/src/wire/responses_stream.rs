//! The events of a streamed response. Only the last one is needed; the others make the reply visible while it comes.

use super::responses::{self, OutputItem};
use super::{Events, vendor};
use crate::endpoint::malformed;
use crate::{Delta, Deltas, Failure, Kind, Prompt, Reply};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// Items kept of the events, for endpoints whose last event leaves them out.
const ITEMS_MAX: usize = 1_000;

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow)]
    r#type: Cow<'a, str>,
    #[serde(default, borrow)]
    delta: Option<&'a RawValue>,
    #[serde(default, borrow)]
    item: Option<&'a RawValue>,
    #[serde(default, borrow)]
    response: Option<&'a RawValue>,
    #[serde(default, borrow)]
    error: Option<&'a RawValue>,
}

/// Reads events up to the one that ends the response.
pub(super) async fn read(prompt: &Prompt, mut events: Events, deltas: &Deltas) -> Result<Reply, Failure> {
    let mut streamed: Vec<Box<RawValue>> = Vec::new();
    while let Some(data) = events.next().await? {
        deltas.count();
        if data == "[DONE]" {
            continue;
        }
        let unread = |error: serde_json::Error| {
            malformed("the model's endpoint sent an event that can't be read", &error, data.as_bytes())
        };
        let event: Event<'_> = serde_json::from_str(&data).map_err(unread)?;
        match &*event.r#type {
            "response.completed" | "response.incomplete" | "response.failed" => {
                let Some(response) = event.response else {
                    let message = format!("the `{}` event holds no response", event.r#type);
                    return Err(Failure::new(Kind::Malformed, message));
                };
                let response = serde_json::from_str(response.get()).map_err(unread)?;
                let reply = responses::assemble(prompt, response, &streamed);
                events.finish().await;
                return reply;
            }
            "error" | "response.error" => {
                // The error's fields stand in the event itself, or one level down.
                let whole = super::raw(&data).map_err(unread)?;
                return Err(vendor::failure_in_reply(event.error.unwrap_or(whole)));
            }
            "response.output_item.done" => {
                if let Some(item) = event.item
                    && streamed.len() < ITEMS_MAX
                {
                    streamed.push(item.to_owned());
                }
            }
            kind if deltas.watched() || (deltas.are_heard() && kind == ITEM_ADDED) => offer(kind, &event, deltas),
            _ => {}
        }
    }
    Err(Failure::new(Kind::Cut, "the model's stream ended before the reply was complete"))
}

/// The event that names a call before its arguments come.
const ITEM_ADDED: &str = "response.output_item.added";

fn offer(kind: &str, event: &Event<'_>, deltas: &Deltas) {
    let piece = || event.delta.map(vendor::plain);
    let delta = match kind {
        "response.output_text.delta" | "response.refusal.delta" => piece().map(Delta::Text),
        "response.reasoning_summary_text.delta" | "response.reasoning_text.delta" => piece().map(Delta::Reasoning),
        "response.function_call_arguments.delta" | "response.custom_tool_call_input.delta" => {
            piece().map(Delta::CallArguments)
        }
        ITEM_ADDED => event
            .item
            .and_then(|item| serde_json::from_str::<OutputItem>(item.get()).ok())
            .and_then(|item| item.name)
            .map(|name| Delta::CallStarted { name }),
        _ => None,
    };
    if let Some(delta) = delta {
        deltas.offer(delta);
    }
}
