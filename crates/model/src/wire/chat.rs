//! `POST /chat/completions`: a prompt as its body, a whole completion as a reply. Its chunks are `chat_stream`'s. The wire knows
//! no free-text tools: they are offered as functions of one string, and calls to them are turned back.

use super::{Dialect, function_call, reply, schema, vendor};
use crate::endpoint::malformed;
use crate::failure::cut;
use crate::{Failure, Kind, Prompt, Reply};
use bytes::Bytes;
use domain::{Item, Part, ToolSpec, Usage};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::sync::Arc;

/// The schema under which a free-text tool is offered.
const FREE_TEXT_SCHEMA: &str =
    r#"{"type":"object","properties":{"input":{"type":"string"}},"required":["input"],"additionalProperties":false}"#;

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    messages: Vec<Message<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<Tool<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_effort: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_completion_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_cache_key: Option<&'a str>,
    stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_options: Option<StreamOptions>,
}

#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
}

#[derive(Serialize)]
struct Tool<'a> {
    r#type: &'static str,
    function: Function<'a>,
}

#[derive(Serialize)]
struct Function<'a> {
    name: &'a str,
    description: Cow<'a, str>,
    parameters: &'a RawValue,
}

#[derive(Serialize)]
#[serde(tag = "role", rename_all = "snake_case")]
enum Message<'a> {
    System {
        content: &'a str,
    },
    User {
        content: Content<'a>,
    },
    Assistant {
        content: Option<Cow<'a, str>>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        tool_calls: Vec<ToolCall<'a>>,
    },
    Tool {
        tool_call_id: &'a str,
        content: Cow<'a, str>,
    },
}

#[derive(Serialize)]
#[serde(untagged)]
enum Content<'a> {
    Text(&'a str),
    Parts(Vec<ContentPart<'a>>),
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum ContentPart<'a> {
    Text { text: Cow<'a, str> },
    ImageUrl { image_url: ImageUrl },
}

#[derive(Serialize)]
struct ImageUrl {
    url: String,
}

#[derive(Serialize)]
struct ToolCall<'a> {
    id: &'a str,
    r#type: &'static str,
    function: CalledFunction<'a>,
}

#[derive(Serialize)]
struct CalledFunction<'a> {
    name: &'a str,
    arguments: Cow<'a, str>,
}

#[derive(Serialize)]
struct FreeText<'a> {
    input: &'a str,
}

/// The body of a request.
pub(super) fn body(dialect: &Dialect, prompt: &Prompt) -> Result<Bytes, Failure> {
    let limit = dialect.output_tokens_max(prompt);
    let body = Body {
        model: &dialect.model,
        messages: messages(prompt),
        tools: prompt.tools.iter().map(tool).collect::<Result<_, _>>()?,
        reasoning_effort: dialect.reasoning_effort.as_deref(),
        temperature: dialect.temperature,
        // OpenAI's own models know only the newer name, most other endpoints only the older.
        max_tokens: limit.filter(|_| !dialect.official),
        max_completion_tokens: limit.filter(|_| dialect.official),
        prompt_cache_key: prompt.cache_key.as_deref().filter(|_| dialect.official),
        stream: dialect.stream,
        stream_options: dialect.stream.then_some(StreamOptions { include_usage: true }),
    };
    let unwritten =
        |error: serde_json::Error| Failure::new(Kind::BadRequest, format!("the prompt has no JSON form: {error}"));
    serde_json::to_vec(&body).map(Bytes::from).map_err(unwritten)
}

fn tool(tool: &ToolSpec) -> Result<Tool<'_>, Failure> {
    let (description, parameters) = match &tool.grammar {
        None => (Cow::Borrowed(&*tool.description), schema(tool)?),
        Some(grammar) => {
            let description = format!(
                "{}\n`input` is free text that follows this {} grammar:\n{}",
                tool.description, grammar.syntax, grammar.definition
            );
            let free = super::raw(FREE_TEXT_SCHEMA)
                .map_err(|error| Failure::new(Kind::BadRequest, format!("a built-in schema is no JSON: {error}")))?;
            (Cow::Owned(description), free)
        }
    };
    Ok(Tool { r#type: "function", function: Function { name: &tool.name, description, parameters } })
}

fn messages(prompt: &Prompt) -> Vec<Message<'_>> {
    let mut messages = Vec::with_capacity(prompt.items.len() + 1);
    if !prompt.instructions.is_empty() {
        messages.push(Message::System { content: &prompt.instructions });
    }
    // Images of tool outputs: the wire takes them from a user only, and only after all outputs of the turn.
    let mut images: Vec<ContentPart<'_>> = Vec::new();
    for item in &prompt.items {
        if !matches!(**item, Item::Output { .. }) && !images.is_empty() {
            messages.push(Message::User { content: Content::Parts(std::mem::take(&mut images)) });
        }
        push(item, &mut messages, &mut images);
    }
    if !images.is_empty() {
        messages.push(Message::User { content: Content::Parts(images) });
    }
    messages
}

fn push<'a>(item: &'a Arc<Item>, messages: &mut Vec<Message<'a>>, images: &mut Vec<ContentPart<'a>>) {
    match &**item {
        Item::User { parts } => messages.push(Message::User {
            content: match &**parts {
                [Part::Text { text }] => Content::Text(text),
                parts => Content::Parts(parts.iter().map(part).collect()),
            },
        }),
        // Text and calls of one turn are one message.
        Item::Assistant { text, .. } => match messages.last_mut() {
            Some(Message::Assistant { content, .. }) => match content {
                Some(before) => before.to_mut().push_str(&format!("\n{text}")),
                None => *content = Some(Cow::Borrowed(text)),
            },
            _ => messages.push(Message::Assistant { content: Some(Cow::Borrowed(text)), tool_calls: Vec::new() }),
        },
        Item::Call { call_id, name, arguments, custom, .. } => {
            let arguments = if *custom { wrapped(arguments) } else { Cow::Borrowed(&**arguments) };
            let call = ToolCall { id: call_id, r#type: "function", function: CalledFunction { name, arguments } };
            match messages.last_mut() {
                Some(Message::Assistant { tool_calls, .. }) => tool_calls.push(call),
                _ => messages.push(Message::Assistant { content: None, tool_calls: vec![call] }),
            }
        }
        Item::Output { call_id, parts, .. } => {
            let mut text = Cow::Borrowed("");
            for part_ in parts {
                match part_ {
                    Part::Text { text: more } if text.is_empty() => text = Cow::Borrowed(more),
                    Part::Text { text: more } => text.to_mut().push_str(&format!("\n{more}")),
                    Part::Image { .. } => {
                        let label = format!("Image from the output of call {call_id}:");
                        images.push(ContentPart::Text { text: Cow::Owned(label) });
                        images.push(part(part_));
                    }
                }
            }
            if text.is_empty() && !parts.is_empty() {
                text = Cow::Borrowed("The image follows in the next message.");
            }
            messages.push(Message::Tool { tool_call_id: call_id, content: text });
        }
        // Understood by the wire it came from only.
        Item::Reasoning { .. } => {}
    }
}

fn wrapped(input: &str) -> Cow<'_, str> {
    // A struct of one string always has a JSON form.
    serde_json::to_string(&FreeText { input }).map_or(Cow::Borrowed(input), Cow::Owned)
}

fn part(part: &Part) -> ContentPart<'_> {
    match part {
        Part::Text { text } => ContentPart::Text { text: Cow::Borrowed(text) },
        Part::Image { media, base64 } => {
            ContentPart::ImageUrl { image_url: ImageUrl { url: format!("data:{media};base64,{base64}") } }
        }
    }
}

#[derive(Deserialize)]
struct Completion<'a> {
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
    #[serde(default, borrow)]
    message: Option<Said<'a>>,
    #[serde(default)]
    finish_reason: Option<String>,
}

/// A message, or a piece of one.
#[derive(Default, Deserialize)]
pub(super) struct Said<'a> {
    #[serde(default)]
    pub(super) content: Option<String>,
    #[serde(default)]
    pub(super) refusal: Option<String>,
    #[serde(default)]
    pub(super) reasoning_content: Option<String>,
    #[serde(default, borrow)]
    pub(super) tool_calls: Option<Vec<SaidCall<'a>>>,
}

#[derive(Deserialize)]
pub(super) struct SaidCall<'a> {
    #[serde(default)]
    pub(super) index: Option<u32>,
    #[serde(default)]
    pub(super) id: Option<String>,
    #[serde(default, borrow)]
    pub(super) function: Option<SaidFunction<'a>>,
}

#[derive(Deserialize)]
pub(super) struct SaidFunction<'a> {
    #[serde(default)]
    pub(super) name: Option<String>,
    /// A string, but some endpoints send the object itself.
    #[serde(default, borrow)]
    pub(super) arguments: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
pub(super) struct Tokens {
    #[serde(default)]
    prompt_tokens: u64,
    #[serde(default)]
    completion_tokens: u64,
    #[serde(default)]
    prompt_tokens_details: Option<PromptDetails>,
    #[serde(default)]
    completion_tokens_details: Option<CompletionDetails>,
}

#[derive(Deserialize)]
struct PromptDetails {
    #[serde(default)]
    cached_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct CompletionDetails {
    #[serde(default)]
    reasoning_tokens: Option<u64>,
}

impl From<Tokens> for Usage {
    fn from(tokens: Tokens) -> Self {
        Self {
            model_calls: 0,
            input_tokens: tokens.prompt_tokens,
            cached_tokens: tokens.prompt_tokens_details.and_then(|details| details.cached_tokens).unwrap_or(0),
            output_tokens: tokens.completion_tokens,
            reasoning_tokens: tokens
                .completion_tokens_details
                .and_then(|details| details.reasoning_tokens)
                .unwrap_or(0),
        }
    }
}

/// A reply in the making: what both a whole completion and the chunks of a streamed one come to.
#[derive(Default)]
pub(super) struct Draft {
    pub(super) text: String,
    pub(super) refusal: String,
    pub(super) calls: Vec<DraftCall>,
    pub(super) finish: Option<String>,
    pub(super) model: String,
    pub(super) usage: Usage,
}

#[derive(Default)]
pub(super) struct DraftCall {
    pub(super) index: Option<u32>,
    pub(super) id: String,
    pub(super) name: String,
    pub(super) arguments: String,
}

impl Draft {
    /// The reply, once everything has come.
    pub(super) fn reply(self, prompt: &Prompt) -> Result<Reply, Failure> {
        let Self { text, refusal, calls, finish, model, usage } = self;
        let fail = |kind, message: String| Err(Failure::new(kind, message).using(usage));
        match finish.as_deref() {
            Some("length") => {
                let message =
                    "the model's reply was cut at its token limit; hint: raise the model's `output_tokens_max`";
                return Err(Failure::new(Kind::Cut, message).finally().using(usage));
            }
            Some("content_filter") => {
                return fail(Kind::ContentFiltered, "the vendor's content filter stopped the reply".into());
            }
            _ => {}
        }
        if text.is_empty() && calls.is_empty() && !refusal.is_empty() {
            return fail(Kind::Refused, format!("the model refused: {}", cut(&refusal)));
        }
        let mut items = Vec::with_capacity(calls.len() + 1);
        if !text.is_empty() || (calls.is_empty() && finish.is_some()) {
            items.push(Item::Assistant { text, id: None });
        }
        for call in calls {
            if call.name.is_empty() {
                return fail(Kind::Malformed, "a call of the reply names no tool".into());
            }
            items.push(function_call(prompt, call.id, call.name, call.arguments, None));
        }
        reply(items, usage, model)
    }
}

/// Arguments as text, whichever way they came.
pub(super) fn arguments(came: Option<&RawValue>) -> String {
    match came {
        Some(came) if came.get() == "null" => String::new(),
        Some(came) => vendor::plain(came),
        None => String::new(),
    }
}

/// A whole completion.
pub(super) fn read(prompt: &Prompt, body: &[u8]) -> Result<Reply, Failure> {
    let unread = |error: serde_json::Error| malformed("the model's endpoint sent no completion", &error, body);
    let completion: Completion<'_> = serde_json::from_slice(body).map_err(unread)?;
    if let Some(error) = completion.error.filter(|error| error.get() != "null") {
        return Err(vendor::failure_in_reply(error));
    }
    let usage = completion.usage.map(Usage::from).unwrap_or_default();
    let Some(choice) = completion.choices.into_iter().next() else {
        return Err(Failure::new(Kind::Malformed, "the completion has no choice").using(usage));
    };
    let said = choice.message.unwrap_or_default();
    let call = |call: SaidCall<'_>| DraftCall {
        index: call.index,
        id: call.id.unwrap_or_default(),
        arguments: arguments(call.function.as_ref().and_then(|function| function.arguments)),
        name: call.function.and_then(|function| function.name).unwrap_or_default(),
    };
    Draft {
        text: said.content.unwrap_or_default(),
        refusal: said.refusal.unwrap_or_default(),
        calls: said.tool_calls.unwrap_or_default().into_iter().map(call).collect(),
        finish: choice.finish_reason,
        model: completion.model.unwrap_or_default(),
        usage,
    }
    .reply(prompt)
}
