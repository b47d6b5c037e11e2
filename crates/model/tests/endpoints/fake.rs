//! An endpoint that answers what it is told and keeps what it was asked.

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{OriginalUri, State};
use axum::http::{HeaderMap, Response};
use axum::routing::post;
use domain::agent::{ModelProvider, Wire};
use domain::{Item, ModelDecl, Part, ToolSpec, item::Grammar};
use futures::{StreamExt, stream};
use model::{Delta, Deltas, Failure, Model, Options, Prompt, Reply};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use stdx::{Backoff, Clock, Random};
use tokio::sync::mpsc;

/// How an answer's body ends.
#[derive(Clone, Copy)]
pub(crate) enum End {
    Whole,
    /// The connection breaks.
    Broken,
    /// Nothing more comes.
    Silent,
}

/// One answer.
#[derive(Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) pieces: Vec<String>,
    pub(crate) end: End,
}

impl Answer {
    pub(crate) fn json(status: u16, body: &Value) -> Self {
        Self::text(status, "application/json", &body.to_string())
    }

    pub(crate) fn text(status: u16, media: &str, body: &str) -> Self {
        Self {
            status,
            headers: vec![("content-type", media.to_owned())],
            pieces: vec![body.to_owned()],
            end: End::Whole,
        }
    }

    pub(crate) fn events(events: &[Value]) -> Self {
        let pieces = events.iter().map(|event| format!("data: {event}\n\n")).collect();
        Self { status: 200, headers: vec![("content-type", "text/event-stream".into())], pieces, end: End::Whole }
    }

    pub(crate) fn ending(mut self, end: End) -> Self {
        self.end = end;
        self
    }

    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }
}

/// What was asked.
pub(crate) struct Asked {
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

/// The endpoint.
#[derive(Clone, Default)]
pub(crate) struct Fake {
    answers: Arc<Mutex<VecDeque<Answer>>>,
    pub(crate) asked: Arc<Mutex<Vec<Asked>>>,
}

impl Fake {
    /// Starts an endpoint with these answers; gives its base URL. Asked for more, it fails.
    pub(crate) async fn start(answers: impl IntoIterator<Item = Answer>) -> (Self, String) {
        let fake = Self { answers: Arc::new(Mutex::new(answers.into_iter().collect())), ..Self::default() };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let app = Router::new().fallback(post(answer)).with_state(fake.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        (fake, url)
    }

    pub(crate) fn count(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    /// The body of the last request.
    pub(crate) fn last(&self) -> Value {
        self.asked.lock().unwrap().last().unwrap().body.clone()
    }
}

async fn answer(State(fake): State<Fake>, uri: OriginalUri, headers: HeaderMap, body: Bytes) -> Response<Body> {
    let body = serde_json::from_slice(&body).unwrap();
    fake.asked.lock().unwrap().push(Asked { target: uri.0.to_string(), headers, body });
    let answer =
        fake.answers.lock().unwrap().pop_front().unwrap_or_else(|| Answer::text(500, "text/plain", "no more answers"));
    let mut response = Response::builder().status(answer.status);
    for (name, value) in answer.headers {
        response = response.header(name, value);
    }
    let pieces = stream::iter(answer.pieces.into_iter().map(|piece| Ok(Bytes::from(piece))));
    let end = match answer.end {
        End::Whole => stream::empty().boxed(),
        End::Silent => stream::pending().boxed(),
        End::Broken => stream::iter([Err(std::io::Error::other("broken"))]).boxed(),
    };
    // A pause lets what was said so far leave before the end comes.
    let end = stream::once(tokio::task::yield_now()).flat_map(move |()| stream::empty()).chain(end);
    response.body(Body::from_stream(pieces.chain(end))).unwrap()
}

pub(crate) fn decl(wire: Wire, stream: bool, url: &str) -> ModelDecl {
    ModelDecl {
        alias: "fast".into(),
        provider: ModelProvider::OpenaiCompatible,
        name: "bench-1".into(),
        wire,
        stream,
        url: Some(url.to_owned()),
        key: Some("${env.KEY}".into()),
        headers: std::collections::BTreeMap::default(),
        query: std::collections::BTreeMap::default(),
        transcript: None,
        temperature_milli: None,
        output_tokens_max: None,
        reasoning_effort: None,
        fallback: None,
    }
}

pub(crate) const KEY: &str = "sk-very-secret";

pub(crate) fn expand(text: &str) -> Result<String, domain::template::Error> {
    domain::template::expand(text, |_, name| match name {
        "KEY" => Some(KEY.to_owned()),
        "EMPTY" => Some(String::new()),
        _ => None,
    })
}

pub(crate) fn options() -> Options {
    Options { backoff: Backoff { first_ms: 1, wait_ms_max: 5_000, attempts_max: 3 }, ..Options::default() }
}

pub(crate) fn open(decl: &ModelDecl, options: Options) -> Arc<dyn Model> {
    let net = net::Client::new(net::Settings::default()).unwrap();
    model::open_with(decl, &expand, net, Random::seeded(1), Clock::manual(1_000_000), options).unwrap()
}

pub(crate) fn user(text: &str) -> Arc<Item> {
    Arc::new(Item::User { parts: vec![Part::text(text)] })
}

pub(crate) fn prompt(items: Vec<Arc<Item>>) -> Prompt {
    let schema = r#"{"type":"object","properties":{"account_id":{"type":"string"}}}"#;
    let lookup = ToolSpec {
        name: "lookup_account".into(),
        description: "Looks up.".into(),
        input_schema: schema.into(),
        grammar: None,
    };
    let patch = ToolSpec {
        name: "apply_patch".into(),
        description: "Patches.".into(),
        input_schema: "{}".into(),
        grammar: Some(Grammar { syntax: "lark".into(), definition: "start: /.+/".into() }),
    };
    Prompt {
        instructions: "You are Maya.".into(),
        items,
        tools: Arc::from([lookup, patch]),
        cache_key: Some("ses_1".into()),
        output_tokens_max: None,
    }
}

/// The reply and the deltas of one call.
pub(crate) async fn ask(model: &dyn Model, prompt: &Prompt) -> (Result<Reply, Failure>, Vec<Delta>) {
    let (sender, mut receiver) = mpsc::channel(1_000);
    let reply = model.reply(prompt, &Deltas::to(sender)).await;
    let mut deltas = Vec::new();
    while let Some(delta) = receiver.recv().await {
        deltas.push(delta);
    }
    (reply, deltas)
}

/// A response, whole or as the events that endpoints send.
pub(crate) fn response(stream: bool, output: &Value) -> Answer {
    let whole = json!({"id": "resp_1", "object": "response", "status": "completed", "error": null, "incomplete_details": null,
        "model": "bench-1-2026", "output": output, "unknown": {"field": 1},
        "usage": {"input_tokens": 100, "input_tokens_details": {"cached_tokens": 60}, "output_tokens": 20,
                  "output_tokens_details": {"reasoning_tokens": 7}, "total_tokens": 120}});
    if !stream {
        return Answer::json(200, &whole);
    }
    let mut events = vec![json!({"type": "response.created", "response": {"status": "in_progress", "output": []}})];
    for (index, item) in output.as_array().unwrap().iter().enumerate() {
        events.push(json!({"type": "response.output_item.added", "output_index": index, "item": item}));
        for word in item["content"][0]["text"].as_str().unwrap_or_default().split_inclusive(' ') {
            events.push(json!({"type": "response.output_text.delta", "delta": word, "logprobs": []}));
        }
        if let Some(arguments) = item["arguments"].as_str() {
            events.push(json!({"type": "response.function_call_arguments.delta", "delta": arguments}));
        }
        if let Some(input) = item["input"].as_str() {
            events.push(json!({"type": "response.custom_tool_call_input.delta", "delta": input}));
        }
        events.push(json!({"type": "response.output_item.done", "output_index": index, "item": item}));
    }
    events.push(json!({"type": "response.future_event", "delta": {"not": "text"}}));
    events.push(json!({"type": "response.completed", "response": whole}));
    Answer::events(&events)
}

/// A completion, whole or as chunks: text word by word, each call's arguments in two pieces, calls interleaved.
pub(crate) fn completion(stream: bool, message: &Value, finish: &str) -> Answer {
    let usage = json!({"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120,
        "prompt_tokens_details": {"cached_tokens": 60}, "completion_tokens_details": {"reasoning_tokens": 7}});
    let head = json!({"id": "chatcmpl_1", "model": "bench-1-2026", "system_fingerprint": null});
    let with = |fields: Value| {
        let mut chunk = head.clone();
        chunk.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        chunk
    };
    if !stream {
        return Answer::json(
            200,
            &with(json!({"choices": [{"index": 0, "message": message, "finish_reason": finish}], "usage": usage})),
        );
    }
    let chunk =
        |delta: Value, finish: Value| with(json!({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}));
    let mut events = vec![chunk(json!({"role": "assistant", "content": ""}), Value::Null)];
    for word in message["content"].as_str().unwrap_or_default().split_inclusive(' ') {
        events.push(chunk(json!({"content": word}), Value::Null));
    }
    if let Some(refusal) = message["refusal"].as_str() {
        events.push(chunk(json!({"refusal": refusal}), Value::Null));
    }
    let calls = message["tool_calls"].as_array().cloned().unwrap_or_default();
    for (index, call) in calls.iter().enumerate() {
        let function = json!({"name": call["function"]["name"], "arguments": ""});
        events.push(chunk(
            json!({"tool_calls": [{"index": index, "id": call["id"], "type": "function", "function": function}]}),
            Value::Null,
        ));
    }
    for half in 0..2 {
        for (index, call) in calls.iter().enumerate() {
            let arguments = call["function"]["arguments"].as_str().unwrap();
            let (first, second) = arguments.split_at(arguments.len() / 2);
            let piece = if half == 0 { first } else { second };
            events
                .push(chunk(json!({"tool_calls": [{"index": index, "function": {"arguments": piece}}]}), Value::Null));
        }
    }
    events.push(chunk(json!({}), json!(finish)));
    events.push(with(json!({"choices": [], "usage": usage})));
    let mut answer = Answer::events(&events);
    answer.pieces.push("data: [DONE]\n\n".into());
    answer
}
