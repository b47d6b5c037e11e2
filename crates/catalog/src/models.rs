//! `models/*.yaml`: from checked values to models. What a provider needs and what it has no use for is decided here.

use crate::folder::{Folder, TRANSCRIPT_BYTES_MAX};
use crate::problem::{Problem, Rule};
use crate::project::{number, text, text_map, word};
use crate::shape::{Check, milli};
use crate::urls;
use crate::yaml::{self, Node, Place, Value};
use domain::ModelDecl;
use domain::agent::{ModelProvider, Wire};

/// A model with the place of what it names.
#[derive(Clone, Debug)]
pub(crate) struct Drafted {
    pub(crate) decl: ModelDecl,
    pub(crate) fallback_at: Place,
}

/// Keys that only an endpoint has a use for.
const ENDPOINT_KEYS: [&str; 9] =
    ["wire", "stream", "url", "key", "headers", "query", "temperature", "output_tokens_max", "reasoning_effort"];

pub(crate) fn model(alias: &str, node: &Node, check: &mut Check<'_>, folder: &mut Folder) -> Option<Drafted> {
    let provider: ModelProvider = word(node, "provider")?;
    let mut transcript = None;
    let mut title = None;
    match provider {
        ModelProvider::Script => {
            refuse(node, check, &ENDPOINT_KEYS, "a script");
            if let Some(source) = need(node, "transcript", "a script", check) {
                (transcript, title) = played(source, check, folder);
            }
        }
        ModelProvider::Openai | ModelProvider::OpenaiCompatible => {
            refuse(node, check, &["transcript"], "an endpoint");
            need(node, "name", "an endpoint", check);
            if provider == ModelProvider::Openai {
                need(node, "key", "openai", check);
            } else {
                need(node, "url", "openai-compatible", check);
            }
        }
    }
    if let Some(url) = node.get("url") {
        urls::check_base(url, check);
    }
    let url = match provider {
        ModelProvider::Openai => Some(text(node, "url").unwrap_or_else(|| "https://api.openai.com/v1".to_owned())),
        ModelProvider::OpenaiCompatible | ModelProvider::Script => text(node, "url"),
    };
    let decl = ModelDecl {
        alias: alias.to_owned(),
        provider,
        name: text(node, "name").or(title).unwrap_or_else(|| alias.to_owned()),
        wire: word(node, "wire").unwrap_or(Wire::Responses),
        stream: !matches!(node.get("stream").map(|node| &node.value), Some(Value::Boolean(false))),
        url,
        key: text(node, "key"),
        headers: text_map(node, "headers"),
        query: text_map(node, "query"),
        transcript,
        temperature_milli: node.get("temperature").and_then(milli).and_then(|value| u32::try_from(value).ok()),
        output_tokens_max: node.get("output_tokens_max").map(|_| number(node, "output_tokens_max", 0)),
        reasoning_effort: text(node, "reasoning_effort"),
        fallback: text(node, "fallback"),
    };
    Some(Drafted { decl, fallback_at: node.get("fallback").map_or(Place::START, |node| node.at) })
}

fn need<'a>(node: &'a Node, key: &str, who: &str, check: &mut Check<'_>) -> Option<&'a Node> {
    let found = node.get(key);
    if found.is_none() {
        check.wrong(Rule::MissingKey, node.at, format!("`{key}` is missing; {who} needs it"), None);
    }
    found
}

fn refuse(node: &Node, check: &mut Check<'_>, keys: &[&str], who: &str) {
    for entry in node.entries().iter().filter(|entry| keys.contains(&entry.key.as_str())) {
        let message = format!("`{}` has no meaning for {who}; expected it to be left out", entry.key);
        check.wrong(Rule::BadValue, entry.at, message, None);
    }
}

/// The text of a transcript and its title.
fn played(source: &Node, check: &mut Check<'_>, folder: &mut Folder) -> (Option<String>, Option<String>) {
    let Some(name) = source.text() else { return (None, None) };
    let read = match folder.read(name, TRANSCRIPT_BYTES_MAX) {
        Ok(read) => read,
        Err(problem) => {
            let Problem { message, .. } = problem;
            let message = format!("the transcript `{name}` can't be used: {message}");
            check.wrong(Rule::Dangling, source.at, message, folder.similar(name));
            return (None, None);
        }
    };
    let title = title(name, &read, check);
    (Some(read), title)
}

/// The title of a transcript, after it was held to its form. What is wrong is told at the step it is in.
fn title(name: &str, text: &str, check: &mut Check<'_>) -> Option<String> {
    let node = match yaml::parse(name, text) {
        Ok((node, problems)) => {
            check.problems.extend(problems);
            node
        }
        Err(problem) => {
            check.problems.push(problem);
            return None;
        }
    };
    let (at, message) = match model::script::Script::parse(text) {
        Ok(script) => return Some(model::Model::name(&script).to_owned()),
        Err(model::script::Error::Step { step, reason }) => {
            let place = node.get("steps").and_then(|steps| steps.items().get(step - 1)).map(|node| node.at);
            (place.unwrap_or(Place::START), format!("step {step}: {reason}"))
        }
        Err(error @ model::script::Error::Form { .. }) => (Place::START, error.to_string()),
    };
    let (file, Place { line, column }) = (name.to_owned(), at);
    check.problems.push(Problem { rule: Rule::BadValue, file, line, column, message, hint: None });
    None
}
