//! `POST /responses`: a prompt as its body, a whole response as a reply. Its events are `responses_stream`'s.

use super::{Dialect, raw, reply, schema, vendor};
use crate::endpoint::malformed;
use crate::failure::cut;
use crate::{Failure, Kind, Prompt, Reply};
use bytes::Bytes;
use domain::{Item, Part, Usage};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The wire's name in [`Item::Reasoning`].
pub(super) const WIRE: &str = "responses";

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    instructions: &'a str,
    input: Vec<Input<'a>>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    include: &'static [&'static str],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<Tool<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parallel_tool_calls: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning: Option<Reasoning<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_output_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_cache_key: Option<&'a str>,
    store: bool,
    stream: bool,
}

#[derive(Serialize)]
struct Reasoning<'a> {
    effort: &'a str,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Tool<'a> {
    Function { name: &'a str, description: &'a str, parameters: &'a RawValue, strict: bool },
    Custom { name: &'a str, description: &'a str, format: Format<'a> },
}

#[derive(Serialize)]
struct Format<'a> {
    r#type: &'static str,
    syntax: &'a str,
    definition: &'a str,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Input<'a> {
    /// As it came from this wire.
    Verbatim(&'a RawValue),
    Typed(Typed<'a>),
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Typed<'a> {
    Message {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a str>,
        role: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        status: Option<&'static str>,
        content: Vec<Content<'a>>,
    },
    FunctionCall {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a str>,
        call_id: &'a str,
        name: &'a str,
        arguments: &'a str,
    },
    CustomToolCall {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a str>,
        call_id: &'a str,
        name: &'a str,
        input: &'a str,
    },
    FunctionCallOutput {
        call_id: &'a str,
        output: Output<'a>,
    },
    CustomToolCallOutput {
        call_id: &'a str,
        output: Output<'a>,
    },
}

#[derive(Serialize)]
#[serde(untagged)]
enum Output<'a> {
    Text(&'a str),
    Parts(Vec<Content<'a>>),
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Content<'a> {
    InputText { text: &'a str },
    InputImage { image_url: String, detail: &'static str },
    OutputText { text: &'a str, annotations: [(); 0] },
}

/// The body of a request.
pub(super) fn body(dialect: &Dialect, prompt: &Prompt) -> Result<Bytes, Failure> {
    let body = Body {
        model: &dialect.model,
        instructions: &prompt.instructions,
        input: prompt.items.iter().filter_map(|item| input(item).transpose()).collect::<Result<_, _>>()?,
        // Nothing is stored at the vendor, so the reasoning must travel with the conversation.
        include: if dialect.reasons() { &["reasoning.encrypted_content"] } else { &[] },
        tools: tools(prompt)?,
        parallel_tool_calls: (!prompt.tools.is_empty()).then_some(true),
        reasoning: dialect.reasoning_effort.as_deref().map(|effort| Reasoning { effort }),
        temperature: dialect.temperature,
        max_output_tokens: dialect.output_tokens_max(prompt),
        prompt_cache_key: prompt.cache_key.as_deref().filter(|_| dialect.official),
        store: false,
        stream: dialect.stream,
    };
    let unwritten =
        |error: serde_json::Error| Failure::new(Kind::BadRequest, format!("the prompt has no JSON form: {error}"));
    serde_json::to_vec(&body).map(Bytes::from).map_err(unwritten)
}

fn tools(prompt: &Prompt) -> Result<Vec<Tool<'_>>, Failure> {
    prompt
        .tools
        .iter()
        .map(|tool| match &tool.grammar {
            Some(grammar) => Ok(Tool::Custom {
                name: &tool.name,
                description: &tool.description,
                format: Format { r#type: "grammar", syntax: &grammar.syntax, definition: &grammar.definition },
            }),
            None => Ok(Tool::Function {
                name: &tool.name,
                description: &tool.description,
                parameters: schema(tool)?,
                strict: false,
            }),
        })
        .collect()
}

fn input(item: &Item) -> Result<Option<Input<'_>>, Failure> {
    Ok(Some(Input::Typed(match item {
        Item::User { parts } => {
            Typed::Message { id: None, role: "user", status: None, content: parts.iter().map(content).collect() }
        }
        Item::Assistant { text, id } => Typed::Message {
            id: id.as_deref(),
            role: "assistant",
            status: id.is_some().then_some("completed"),
            content: vec![Content::OutputText { text, annotations: [] }],
        },
        Item::Reasoning { wire, opaque, .. } if wire == WIRE => {
            let unread = |error| Failure::new(Kind::BadRequest, format!("a reasoning item is no JSON: {error}"));
            return Ok(Some(Input::Verbatim(raw(opaque).map_err(unread)?)));
        }
        Item::Reasoning { .. } => return Ok(None),
        Item::Call { call_id, name, arguments, custom: false, id } => {
            Typed::FunctionCall { id: id.as_deref(), call_id, name, arguments }
        }
        Item::Call { call_id, name, arguments, custom: true, id } => {
            Typed::CustomToolCall { id: id.as_deref(), call_id, name, input: arguments }
        }
        Item::Output { call_id, parts, custom: false } => Typed::FunctionCallOutput { call_id, output: output(parts) },
        Item::Output { call_id, parts, custom: true } => Typed::CustomToolCallOutput { call_id, output: output(parts) },
    })))
}

fn output(parts: &[Part]) -> Output<'_> {
    match parts {
        [] => Output::Text(""),
        [Part::Text { text }] => Output::Text(text),
        parts => Output::Parts(parts.iter().map(content).collect()),
    }
}

fn content(part: &Part) -> Content<'_> {
    match part {
        Part::Text { text } => Content::InputText { text },
        Part::Image { media, base64 } => {
            Content::InputImage { image_url: format!("data:{media};base64,{base64}"), detail: "auto" }
        }
    }
}

/// A response, as far as it is read.
#[derive(Deserialize)]
pub(super) struct Response<'a> {
    #[serde(default)]
    status: Option<String>,
    #[serde(default)]
    model: Option<String>,
    #[serde(default, borrow)]
    output: Vec<&'a RawValue>,
    #[serde(default)]
    usage: Option<Tokens>,
    #[serde(default, borrow)]
    error: Option<&'a RawValue>,
    #[serde(default)]
    incomplete_details: Option<Incomplete>,
}

#[derive(Deserialize)]
struct Incomplete {
    #[serde(default)]
    reason: Option<String>,
}

#[derive(Default, Deserialize)]
struct Tokens {
    #[serde(default)]
    input_tokens: u64,
    #[serde(default)]
    input_tokens_details: Option<InputDetails>,
    #[serde(default)]
    output_tokens: u64,
    #[serde(default)]
    output_tokens_details: Option<OutputDetails>,
}

#[derive(Deserialize)]
struct InputDetails {
    #[serde(default)]
    cached_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct OutputDetails {
    #[serde(default)]
    reasoning_tokens: Option<u64>,
}

impl From<Tokens> for Usage {
    fn from(tokens: Tokens) -> Self {
        Self {
            model_calls: 0,
            input_tokens: tokens.input_tokens,
            cached_tokens: tokens.input_tokens_details.and_then(|details| details.cached_tokens).unwrap_or(0),
            output_tokens: tokens.output_tokens,
            reasoning_tokens: tokens.output_tokens_details.and_then(|details| details.reasoning_tokens).unwrap_or(0),
        }
    }
}

/// An item of the output, as far as it is read.
#[derive(Deserialize)]
pub(super) struct OutputItem {
    r#type: String,
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    call_id: Option<String>,
    #[serde(default)]
    pub(super) name: Option<String>,
    #[serde(default)]
    arguments: Option<String>,
    #[serde(default)]
    input: Option<String>,
    #[serde(default)]
    content: Option<Vec<OutputContent>>,
    #[serde(default)]
    summary: Option<Vec<OutputContent>>,
}

#[derive(Deserialize)]
struct OutputContent {
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    refusal: Option<String>,
}

/// A whole response.
pub(super) fn read(prompt: &Prompt, body: &[u8]) -> Result<Reply, Failure> {
    let unread = |error: serde_json::Error| malformed("the model's endpoint sent no response", &error, body);
    let response: Response<'_> = serde_json::from_slice(body).map_err(unread)?;
    assemble(prompt, response, &[])
}

/// The reply in a response. `streamed` are the items that came as events of their own, for endpoints that leave them out of the
/// last one.
pub(super) fn assemble(prompt: &Prompt, response: Response<'_>, streamed: &[Box<RawValue>]) -> Result<Reply, Failure> {
    let usage = response.usage.map(Usage::from).unwrap_or_default();
    let fail = |kind, message: String| Err(Failure::new(kind, message).using(usage));
    match response.status.as_deref() {
        None | Some("completed") => {}
        Some("incomplete") => {
            let reason = response.incomplete_details.and_then(|details| details.reason).unwrap_or_default();
            let message = format!("the model's reply is incomplete: {}", cut(&reason));
            return match reason.as_str() {
                "content_filter" => fail(Kind::ContentFiltered, message),
                "max_output_tokens" => {
                    Err(Failure::new(Kind::Cut, format!("{message}; hint: raise the model's `output_tokens_max`"))
                        .finally()
                        .using(usage))
                }
                _ => fail(Kind::Cut, message),
            };
        }
        Some("failed") => {
            return Err(match response.error {
                Some(error) => vendor::failure_in_reply(error).using(usage),
                None => Failure::new(Kind::ServerError { status: 0 }, "the model's endpoint failed and gave no reason")
                    .using(usage),
            });
        }
        Some(status) => return fail(Kind::Cut, format!("the model's reply has the status `{}`", cut(status))),
    }
    let came: Vec<&RawValue> =
        if response.output.is_empty() { streamed.iter().map(|item| &**item).collect() } else { response.output };
    let mut items = Vec::with_capacity(came.len());
    let mut refusal = None;
    for item in came {
        item_of(prompt, item, &mut items, &mut refusal).map_err(|failure| failure.using(usage))?;
    }
    if let Some(refusal) = refusal
        && !items.iter().any(|item| matches!(item, Item::Assistant { .. } | Item::Call { .. }))
    {
        return fail(Kind::Refused, format!("the model refused: {}", cut(&refusal)));
    }
    reply(items, usage, response.model.unwrap_or_default())
}

/// Reads one output item into `items`, or into `refusal` when it is one.
fn item_of(
    prompt: &Prompt,
    came: &RawValue,
    items: &mut Vec<Item>,
    refusal: &mut Option<String>,
) -> Result<(), Failure> {
    let unread =
        |error| malformed("the model's endpoint sent an item that can't be read", &error, came.get().as_bytes());
    let OutputItem { r#type, id, call_id, name, arguments, input, content, summary } =
        serde_json::from_str(came.get()).map_err(unread)?;
    let lacks =
        |field: &str| Failure::new(Kind::Malformed, format!("a `{}` item of the reply has no `{field}`", cut(&r#type)));
    match r#type.as_str() {
        "message" => {
            let content = content.unwrap_or_default();
            let text: String = content.iter().filter_map(|part| part.text.as_deref()).collect();
            let refused: String = content.iter().filter_map(|part| part.refusal.as_deref()).collect();
            if !text.is_empty() || refused.is_empty() {
                items.push(Item::Assistant { text, id });
            }
            if !refused.is_empty() {
                *refusal = Some(refused);
            }
        }
        "function_call" => {
            let (call_id, name) = (call_id.ok_or_else(|| lacks("call_id"))?, name.ok_or_else(|| lacks("name"))?);
            items.push(super::function_call(prompt, call_id, name, arguments.unwrap_or_default(), id));
        }
        "custom_tool_call" => items.push(Item::Call {
            call_id: call_id.ok_or_else(|| lacks("call_id"))?,
            name: name.ok_or_else(|| lacks("name"))?,
            arguments: input.unwrap_or_default(),
            custom: true,
            id,
        }),
        // Whatever wants an answer that nobody here can give.
        other if call_id.is_some() => {
            let message = format!("the model asks for a `{}`, which it was not offered", cut(other));
            return Err(Failure::new(Kind::Malformed, message));
        }
        // Reasoning, and whatever else the vendor did on its side: kept as it is and handed back.
        _ => {
            let summary: String =
                summary.unwrap_or_default().into_iter().filter_map(|part| part.text).collect::<Vec<_>>().join("\n");
            let summary = (!summary.is_empty()).then_some(summary);
            items.push(Item::Reasoning { wire: WIRE.into(), opaque: came.get().to_owned(), summary });
        }
    }
    Ok(())
}
