//! How two runs differ, turn by turn: what was asked, what the models said and called, what came of it, which files it changed.

use crate::engine::{Engine, Inner};
use crate::fold::{self, Steps};
use crate::{Error, prompt};
use domain::record::FileChange;
use domain::{ContentRef, Event, Id, Item, Part, Usage, id};
use indexmap::IndexMap;
use journal::SessionKey;
use machine::Session;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Differences that are told at most.
pub const DIFFERENCES_MAX: usize = 1_000;
/// Bytes of each side of a difference.
pub const SIDE_BYTES_MAX: usize = 4_096;

/// One difference between two runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The turn, from 1; 0 for what is of the whole run.
    pub turn: u32,
    /// What differs.
    pub what: Differing,
    /// The first run's; `None`: it has none. Cut to [`SIDE_BYTES_MAX`].
    pub a: Option<String>,
    /// The other's.
    pub b: Option<String>,
}

/// What differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Differing {
    /// The agent, or its closure.
    Agent,
    /// What the user said.
    Message,
    /// What the model said.
    Reply,
    /// A call: its tool or its arguments.
    Call,
    /// How a call ended, or what it gave.
    Outcome,
    /// The tokens that a turn used.
    Usage,
    /// A file that was changed.
    File,
    /// How the run ended.
    Status,
}

impl Differing {
    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Message => "message",
            Self::Reply => "reply",
            Self::Call => "call",
            Self::Outcome => "outcome",
            Self::Usage => "usage",
            Self::File => "files",
            Self::Status => "status",
        }
    }
}

/// A run in outline.
#[derive(Default)]
struct Outline {
    agent: String,
    message: Option<String>,
    /// Those of the run's own agent, then of nested ones, in the order of their replies.
    turns: Vec<Turn>,
    files: BTreeMap<String, String>,
    status: Option<String>,
}

#[derive(Default)]
struct Turn {
    number: u32,
    reply: String,
    usage: Usage,
    /// Call and outcome of each.
    calls: IndexMap<Id<id::Call>, (String, Option<String>)>,
}

impl Engine {
    /// How two runs of a tenant differ, at most [`DIFFERENCES_MAX`] differences.
    pub async fn diff(&self, tenant: &str, a: Id<id::Run>, b: Id<id::Run>) -> Result<Vec<Difference>, Error> {
        let (a, b) = (self.0.outline(tenant, a).await?, self.0.outline(tenant, b).await?);
        let mut found = Found(Vec::new());
        found.pair(0, Differing::Agent, Some(&a.agent), Some(&b.agent));
        found.pair(0, Differing::Message, a.message.as_ref(), b.message.as_ref());
        for at in 0..a.turns.len().max(b.turns.len()) {
            found.turn(a.turns.get(at), b.turns.get(at));
        }
        let mut paths: Vec<_> = a.files.keys().chain(b.files.keys()).collect();
        paths.sort();
        paths.dedup();
        for path in paths {
            let side = |files: &BTreeMap<String, String>| files.get(path).map(|change| format!("{path}: {change}"));
            found.pair(0, Differing::File, side(&a.files).as_ref(), side(&b.files).as_ref());
        }
        found.pair(0, Differing::Status, a.status.as_ref(), b.status.as_ref());
        Ok(found.0)
    }
}

struct Found(Vec<Difference>);

impl Found {
    fn pair(&mut self, turn: u32, what: Differing, a: Option<&String>, b: Option<&String>) {
        if a != b && self.0.len() < DIFFERENCES_MAX {
            self.0.push(Difference { turn, what, a: a.map(|a| cut(a)), b: b.map(|b| cut(b)) });
        }
    }

    fn turn(&mut self, a: Option<&Turn>, b: Option<&Turn>) {
        let Some(number) = a.or(b).map(|turn| turn.number) else { return };
        self.pair(number, Differing::Reply, a.map(|turn| &turn.reply), b.map(|turn| &turn.reply));
        let calls = |turn: Option<&Turn>| turn.map(|turn| turn.calls.values().cloned().collect::<Vec<_>>());
        let (left, right) = (calls(a).unwrap_or_default(), calls(b).unwrap_or_default());
        for at in 0..left.len().max(right.len()) {
            let (one, other) = (left.get(at), right.get(at));
            self.pair(number, Differing::Call, one.map(|(call, _)| call), other.map(|(call, _)| call));
            let outcome = |side: Option<&(String, Option<String>)>| side.and_then(|(_, outcome)| outcome.clone());
            self.pair(number, Differing::Outcome, outcome(one).as_ref(), outcome(other).as_ref());
        }
        let usage = |turn: Option<&Turn>| turn.map(|turn| turn.usage).map(used);
        self.pair(number, Differing::Usage, usage(a).as_ref(), usage(b).as_ref());
    }
}

fn used(usage: Usage) -> String {
    format!("{} tokens in, {} out", usage.input_tokens, usage.output_tokens)
}

fn cut(text: &str) -> String {
    if text.len() <= SIDE_BYTES_MAX {
        return text.to_owned();
    }
    let kept = &text[..text.floor_char_boundary(SIDE_BYTES_MAX)];
    format!("{kept} [{} bytes more]", text.len() - kept.len())
}

impl Inner {
    async fn outline(&self, tenant: &str, run: Id<id::Run>) -> Result<Outline, Error> {
        let row = self.row(tenant, run).await?;
        let key = SessionKey::new(row.tenant.clone(), row.session);
        let mut steps = Steps::new(&self.parts.journal, &key, 0);
        let (mut state, mut outline) = (Session::default(), Outline::default());
        while let Some(step) = steps.next().await? {
            fold::fold_one(&mut state, &step.record)?;
            if step.record.event.run() == run {
                self.outlined(&key, &mut outline, &step.record.event).await?;
            }
            if row.finished_position == Some(step.record.head.position) {
                break;
            }
        }
        Ok(outline)
    }

    async fn outlined(&self, key: &SessionKey, outline: &mut Outline, event: &Event) -> Result<(), Error> {
        match event {
            Event::Submitted(body) => {
                outline.agent = format!("{} {}", body.agent, body.closure);
                if let Some(message) = &body.message {
                    outline.message = self.text(key, message).await?;
                }
            }
            Event::Replied(body) => {
                let items: Vec<Arc<Item>> = match self.parts.journal.content(key, &body.items).await?.into_bytes() {
                    Some(bytes) => serde_json::from_slice(&bytes).map_err(domain::record::Error::Form)?,
                    None => Vec::new(),
                };
                let mut turn = Turn {
                    number: body.turn,
                    reply: prompt::text_of(&items),
                    usage: body.usage,
                    calls: IndexMap::new(),
                };
                for head in &body.calls {
                    let call = match items.get(head.index as usize).map(|item| &**item) {
                        Some(Item::Call { name, arguments, .. }) => format!("{name} {arguments}"),
                        _ => "[erased]".to_owned(),
                    };
                    turn.calls.insert(head.call, (call, None));
                }
                outline.turns.push(turn);
            }
            Event::CallAdded(body) => {
                let arguments = self.text(key, &body.arguments).await?.unwrap_or_else(|| "[erased]".to_owned());
                if let Some(turn) = outline.turns.last_mut() {
                    turn.calls.insert(body.call, (format!("{} {arguments}", body.tool), None));
                }
            }
            Event::Returned(body) => {
                let text = self.parts_text(key, &body.output).await?;
                let made = outline.turns.iter_mut().rev().find_map(|turn| turn.calls.get_mut(&body.call));
                if let Some((_, outcome)) = made {
                    *outcome = Some(format!("{}: {text}", body.status.name()));
                }
            }
            Event::WorkspaceChanged(body) => {
                let bytes = self.parts.journal.content(key, &body.files).await?.into_bytes().unwrap_or_default();
                let files: Vec<FileChange> = serde_json::from_slice(&bytes).unwrap_or_default();
                for FileChange { path, change, bytes } in files {
                    let change = format!("{change:?}").to_lowercase();
                    outline.files.insert(path, format!("{change}, {bytes} bytes"));
                }
            }
            Event::Finished(body) => {
                let code = body.failure.as_ref().map(|failure| format!(" ({})", failure.code)).unwrap_or_default();
                outline.status = Some(format!("{}{code}", body.status));
            }
            _ => {}
        }
        Ok(())
    }

    /// What a call gave, in one text; images by their types.
    async fn parts_text(&self, key: &SessionKey, content: &ContentRef) -> Result<String, Error> {
        let Some(bytes) = self.parts.journal.content(key, content).await?.into_bytes() else {
            return Ok("[erased]".to_owned());
        };
        let parts: Vec<Part> = serde_json::from_slice(&bytes).map_err(domain::record::Error::Form)?;
        let text = |part: Part| match part {
            Part::Text { text } => text,
            Part::Image { media, .. } => format!("[{media}]"),
        };
        Ok(parts.into_iter().map(text).collect::<Vec<_>>().join("\n"))
    }
}
