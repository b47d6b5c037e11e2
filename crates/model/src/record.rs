//! Writes a transcript from the replies of a live model, so that `script` can play it. What differs from run to run in the
//! outputs of the built-in tools (times, chunk ids, session ids) becomes a pattern; everything else is expected as it was.

use crate::{Deltas, Failure, Model, Prompt, Reply};
use async_trait::async_trait;
use domain::{Item, Part};
use parking_lot::Mutex;
use regex::Regex;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::{Arc, LazyLock};

/// Replies kept.
const STEPS_MAX: usize = 1_000;
/// An output longer than this is expected by its beginning and its end, each of at most half of it.
const PATTERN_BYTES_MAX: usize = 4_000;

/// A model whose replies are written down.
#[derive(Debug)]
pub struct Recorder {
    inner: Arc<dyn Model>,
    title: String,
    heard: Mutex<Heard>,
}

#[derive(Debug, Default)]
struct Heard {
    steps: Vec<Step>,
    dropped: usize,
}

/// One reply and what was said right before it.
#[derive(Debug)]
struct Step {
    before: Vec<Arc<Item>>,
    reply: Vec<Item>,
}

impl Recorder {
    /// Records what `inner` replies, under a title of the caller's choice.
    pub fn new(inner: Arc<dyn Model>, title: impl Into<String>) -> Self {
        Self { inner, title: title.into(), heard: Mutex::default() }
    }

    /// The transcript of all replies so far.
    pub fn transcript(&self) -> String {
        let heard = self.heard.lock();
        let mut writer = Writer { out: String::new(), sessions: BTreeSet::new() };
        writer.line(0, &format!("title: {}", quoted(&self.title)));
        writer.line(0, "steps:");
        for step in &heard.steps {
            writer.step(step);
        }
        if heard.dropped > 0 {
            writer.line(0, &format!("# cut: {} further replies were not kept", heard.dropped));
        }
        writer.out
    }
}

#[async_trait]
impl Model for Recorder {
    fn name(&self) -> &str {
        self.inner.name()
    }

    async fn reply(&self, prompt: &Prompt, deltas: &Deltas) -> Result<Reply, Failure> {
        let reply = self.inner.reply(prompt, deltas).await?;
        let spoken = |item: &&Arc<Item>| !matches!(***item, Item::User { .. } | Item::Output { .. });
        let from = prompt.items.iter().rposition(|item| spoken(&item)).map_or(0, |at| at + 1);
        let mut heard = self.heard.lock();
        if heard.steps.len() < STEPS_MAX {
            heard.steps.push(Step { before: prompt.items[from..].to_vec(), reply: reply.items.clone() });
        } else {
            heard.dropped += 1;
        }
        Ok(reply)
    }
}

struct Writer {
    out: String,
    /// Session ids captured since the user's last message.
    sessions: BTreeSet<u64>,
}

impl Writer {
    fn line(&mut self, indent: usize, text: &str) {
        let _infallible = writeln!(self.out, "{:indent$}{text}", "");
    }

    fn step(&mut self, step: &Step) {
        let user = step.before.iter().rev().find_map(|item| match &**item {
            Item::User { parts } => Some(text_of(parts)),
            _ => None,
        });
        let mut head = "- ";
        if let Some(user) = user {
            self.sessions.clear();
            self.line(0, "- expect:");
            self.field(4, "user", &format!(r"\A{}\z", regex::escape(&user)));
            head = "  ";
        } else {
            let outputs: Vec<(&str, String)> = step.before.iter().filter_map(|item| output_of(item)).collect();
            if !outputs.is_empty() {
                self.line(0, "- expect:");
                self.line(4, "outputs:");
                for (call_id, output) in outputs {
                    let pattern = self.pattern(&output);
                    self.field(6, &scalar_key(call_id), &pattern);
                }
                head = "  ";
            }
        }
        self.line(0, &format!("{head}reply:"));
        for item in &step.reply {
            match item {
                Item::Assistant { text, .. } => self.field(2, "- text", &escaped(text)),
                Item::Call { call_id, name, arguments, custom, .. } => self.call(call_id, name, arguments, *custom),
                Item::Reasoning { .. } | Item::User { .. } | Item::Output { .. } => {}
            }
        }
    }

    fn call(&mut self, call_id: &str, name: &str, arguments: &str, custom: bool) {
        self.line(2, "- call:");
        self.field(6, "id", call_id);
        self.field(6, "tool", name);
        let fields = match serde_json::from_str(arguments) {
            Ok(Value::Object(fields)) if !custom => fields,
            _ => return self.field(6, "input", &escaped(arguments)),
        };
        if fields.is_empty() {
            return self.line(6, "arguments: {}");
        }
        self.line(6, "arguments:");
        for (key, value) in fields {
            match (&*key, &value) {
                ("session_id", Value::Number(id)) if id.as_u64().is_some_and(|id| self.sessions.contains(&id)) => {
                    self.line(8, &format!("session_id: \"${{session_{id}:number}}\""));
                }
                (key, Value::String(text)) => self.field(8, &scalar_key(key), &escaped(text)),
                // JSON is YAML.
                (key, value) => self.line(8, &format!("{}: {}", scalar_key(key), escaped(&value.to_string()))),
            }
        }
    }

    /// `key: text`, as a block where that is easier to read.
    fn field(&mut self, indent: usize, key: &str, text: &str) {
        let Some(chomp) = block(text) else { return self.line(indent, &format!("{key}: {}", quoted(text))) };
        self.line(indent, &format!("{key}: |{chomp}"));
        let inner = indent + if key.starts_with("- ") { 4 } else { 2 };
        for line in text.lines() {
            // An empty line of a block needs no indent.
            if line.is_empty() { self.out.push('\n') } else { self.line(inner, line) }
        }
    }

    /// The pattern of an output.
    fn pattern(&mut self, output: &str) -> String {
        let lines: Vec<String> = output.split('\n').map(|line| self.loosened(line)).collect();
        let whole = lines.join("\n");
        if whole.len() <= PATTERN_BYTES_MAX {
            return format!(r"\A{whole}\z");
        }
        let within = |lines: &mut dyn Iterator<Item = &String>| {
            let mut bytes = 0;
            lines
                .take_while(|line| {
                    bytes += line.len() + 1;
                    bytes <= PATTERN_BYTES_MAX / 2
                })
                .count()
        };
        let head = within(&mut lines.iter());
        let tail = within(&mut lines[head..].iter().rev());
        format!(r"\A{}(?s:.*){}\z", lines[..head].join("\n"), lines[lines.len() - tail..].join("\n"))
    }

    fn loosened(&mut self, line: &str) -> String {
        static FORMS: LazyLock<[(Regex, &str); 3]> = LazyLock::new(|| {
            let form = |pattern: &str| Regex::new(pattern).expect("the pattern is well formed");
            [
                (form(r"^Chunk ID: [0-9a-f]+$"), r"Chunk ID: [0-9a-f]+"),
                (form(r"^Wall time: [0-9.]+ seconds$"), r"Wall time: [0-9.]+ seconds"),
                (form(r"^Original token count: [0-9]+$"), r"Original token count: [0-9]+"),
            ]
        });
        if let Some((_, loose)) = FORMS.iter().find(|(form, _)| form.is_match(line)) {
            return (*loose).to_owned();
        }
        if let Some(id) = line.strip_prefix("Process running with session ID ").and_then(|id| id.parse::<u64>().ok()) {
            return if self.sessions.insert(id) {
                format!("Process running with session ID (?<session_{id}>[0-9]+)")
            } else {
                "Process running with session ID [0-9]+".to_owned()
            };
        }
        regex::escape(line)
    }
}

fn output_of(item: &Item) -> Option<(&str, String)> {
    match item {
        Item::Output { call_id, parts, .. } => Some((call_id, text_of(parts))),
        _ => None,
    }
}

fn text_of(parts: &[Part]) -> String {
    let text = |part: &Part| match part {
        Part::Text { text } => text.clone(),
        Part::Image { media, .. } => format!("[image {media}]"),
    };
    parts.iter().map(text).collect::<Vec<_>>().join("\n")
}

/// Text in which nothing is taken for a capture.
fn escaped(text: &str) -> String {
    text.replace("${", "$${")
}

/// How a block ends when the text can stand in one.
fn block(text: &str) -> Option<&'static str> {
    let odd = |c: char| (c.is_control() && c != '\n') || matches!(c, '\u{feff}' | '\u{2028}' | '\u{2029}' | '\u{85}');
    let body = text.strip_suffix('\n').unwrap_or(text);
    let fits = body.contains('\n')
        && !text.contains(odd)
        && !body.starts_with([' ', '\n'])
        && !body.ends_with('\n')
        && body.lines().all(|line| line.is_empty() || !line.trim().is_empty());
    fits.then_some(if body.len() == text.len() { "-" } else { "" })
}

/// Text in quotes: single ones where they save escapes.
fn quoted(text: &str) -> String {
    if text.contains(['\\', '"']) && !text.contains(char::is_control) {
        return format!("'{}'", text.replace('\'', "''"));
    }
    Value::String(text.to_owned()).to_string()
}

/// A key that needs no quotes, or has them.
fn scalar_key(key: &str) -> String {
    let plain = key.starts_with(|c: char| c.is_ascii_alphabetic())
        && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
        && !matches!(key, "true" | "false" | "null" | "True" | "False" | "Null" | "TRUE" | "FALSE" | "NULL");
    if plain { key.to_owned() } else { quoted(key) }
}
