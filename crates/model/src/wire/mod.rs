//! The wires: vendor JSON in both directions. Retries and connections are `endpoint`'s.

mod chat;
mod chat_stream;
mod events;
mod responses;
mod responses_stream;
pub(crate) mod vendor;

pub(crate) use events::Events;

use crate::{Delta, Deltas, Failure, Finish, Prompt, Reply};
use bytes::Bytes;
use domain::agent::Wire;
use domain::{Item, ToolSpec, Usage};
use serde_json::value::RawValue;

/// How one declared model is spoken to.
#[derive(Debug)]
pub(crate) struct Dialect {
    pub(crate) wire: Wire,
    /// The name the vendor knows.
    pub(crate) model: String,
    /// OpenAI itself: it knows fields that a compatible endpoint may reject.
    pub(crate) official: bool,
    pub(crate) stream: bool,
    pub(crate) temperature: Option<f64>,
    pub(crate) output_tokens_max: Option<u64>,
    pub(crate) reasoning_effort: Option<String>,
}

impl Dialect {
    /// The request's body.
    pub(crate) fn body(&self, prompt: &Prompt) -> Result<Bytes, Failure> {
        match self.wire {
            Wire::Responses => responses::body(self, prompt),
            Wire::Chat => chat::body(self, prompt),
        }
    }

    /// A reply that came whole.
    pub(crate) fn read_whole(&self, prompt: &Prompt, body: &[u8]) -> Result<Reply, Failure> {
        match self.wire {
            Wire::Responses => responses::read(prompt, body),
            Wire::Chat => chat::read(prompt, body),
        }
    }

    /// A reply that comes event by event.
    pub(crate) async fn read_stream(&self, prompt: &Prompt, events: Events, deltas: &Deltas) -> Result<Reply, Failure> {
        match self.wire {
            Wire::Responses => responses_stream::read(prompt, events, deltas).await,
            Wire::Chat => chat_stream::read(prompt, events, deltas).await,
        }
    }

    /// Gives out a reply that was not streamed, so that a watcher sees the same kinds of pieces.
    pub(crate) fn emit_whole(&self, reply: &Reply, deltas: &Deltas) {
        for item in reply.items.iter().filter(|_| deltas.watched()) {
            match item {
                Item::Assistant { text, .. } => deltas.offer(Delta::Text(text.clone())),
                Item::Call { name, arguments, .. } => {
                    deltas.offer(Delta::CallStarted { name: name.clone() });
                    deltas.offer(Delta::CallArguments(arguments.clone()));
                }
                Item::Reasoning { summary: Some(summary), .. } => deltas.offer(Delta::Reasoning(summary.clone())),
                Item::Reasoning { summary: None, .. } | Item::User { .. } | Item::Output { .. } => {}
            }
        }
    }

    /// The lower of the model's and the prompt's limit.
    fn output_tokens_max(&self, prompt: &Prompt) -> Option<u64> {
        match (self.output_tokens_max, prompt.output_tokens_max) {
            (Some(model), Some(prompt)) => Some(model.min(prompt)),
            (model, prompt) => model.or(prompt),
        }
    }

    /// Whether the model reasons, as far as its name or its declaration tells.
    fn reasons(&self) -> bool {
        let name = self.model.rsplit('/').next().unwrap_or(&self.model);
        let known = ["gpt-5", "o1", "o3", "o4", "codex"].iter().any(|prefix| name.starts_with(prefix));
        self.reasoning_effort.is_some() || (known && !name.contains("-chat"))
    }
}

/// JSON text that goes on the wire as it is.
fn raw(text: &str) -> Result<&RawValue, serde_json::Error> {
    serde_json::from_str(text)
}

/// A tool's input schema as JSON.
fn schema(tool: &ToolSpec) -> Result<&RawValue, Failure> {
    raw(&tool.input_schema).map_err(|error| {
        Failure::new(crate::Kind::BadRequest, format!("the input schema of tool `{}` is no JSON: {error}", tool.name))
    })
}

/// Whether the model was offered this tool with free text as its input.
fn is_custom(prompt: &Prompt, name: &str) -> bool {
    prompt.tools.iter().any(|tool| tool.name == name && tool.grammar.is_some())
}

/// The free text inside the arguments of a custom tool that was called as a function. Whatever else the model wrote reaches
/// the tool as it is, so that the tool can tell the model what was wrong.
fn free_text(arguments: &str) -> String {
    let fields: Result<std::collections::BTreeMap<String, serde_json::Value>, _> = serde_json::from_str(arguments);
    let Ok(mut fields) = fields else { return arguments.to_owned() };
    let only = if fields.len() == 1 { fields.keys().next().cloned() } else { None };
    match fields.remove("input").or_else(|| fields.remove(&only?)) {
        Some(serde_json::Value::String(text)) => text,
        _ => arguments.to_owned(),
    }
}

/// A call to a function, which the model may have meant for a custom tool.
fn function_call(prompt: &Prompt, call_id: String, name: String, arguments: String, id: Option<String>) -> Item {
    if is_custom(prompt, &name) {
        // The vendor's id belongs to a function call; as that of a custom call it would not be known again.
        return Item::Call { arguments: free_text(&arguments), custom: true, call_id, name, id: None };
    }
    Item::Call { call_id, name, arguments, custom: false, id }
}

/// The reply made of these items.
fn reply(items: Vec<Item>, usage: Usage, model: String) -> Result<Reply, Failure> {
    if !items.iter().any(|item| matches!(item, Item::Assistant { .. } | Item::Call { .. })) {
        let message = "the model replied with neither text nor a call";
        return Err(Failure::new(crate::Kind::Malformed, message).using(usage));
    }
    Ok(Reply { finish: Finish::of(&items), items, usage, model, attempts: 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_text_is_found_in_what_models_write() {
        for (arguments, expected) in [
            (r#"{"input":"*** Begin Patch\n"}"#, "*** Begin Patch\n"),
            (r#"{"patch":"x"}"#, "x"),
            (r#"{"input":"a","note":"b"}"#, "a"),
            (r#"{"a":"x","b":"y"}"#, r#"{"a":"x","b":"y"}"#),
            (r#"{"operations":[]}"#, r#"{"operations":[]}"#),
            ("*** Begin Patch", "*** Begin Patch"),
            (r#"{"input":"cut"#, r#"{"input":"cut"#),
        ] {
            assert_eq!(free_text(arguments), expected);
        }
    }
}
