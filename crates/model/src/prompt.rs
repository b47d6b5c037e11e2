//! What a model is asked and what it says, in no vendor's form.

use domain::{Item, ToolSpec, Usage};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::sync::mpsc;

/// What a model is asked. Cloning is cheap, and so is extending the clone for the next turn.
#[derive(Clone, Debug)]
pub struct Prompt {
    /// What the agent is told.
    pub instructions: Arc<str>,
    /// The conversation.
    pub items: Vec<Arc<Item>>,
    /// The tools on offer.
    pub tools: Arc<[ToolSpec]>,
    /// Names the conversation to the vendor's prompt cache, where it has one.
    pub cache_key: Option<String>,
    /// Tokens of this reply at most, when that is less than the model's own limit.
    pub output_tokens_max: Option<u64>,
}

/// What a model said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The items in the order in which the model gave them; at least one.
    pub items: Vec<Item>,
    /// Tokens, and the calls made for them, failed attempts included.
    pub usage: Usage,
    /// The model that answered, as it names itself.
    pub model: String,
    /// Why it ended.
    pub finish: Finish,
    /// Attempts made, the last included.
    pub attempts: u32,
}

/// Why a reply ended. A reply that was cut, filtered or refused is a [`crate::Failure`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model has said all.
    Stop,
    /// It waits for the outputs of its calls.
    ToolCalls,
}

impl Finish {
    /// What a reply of these items means.
    pub(crate) fn of(items: &[Item]) -> Self {
        if items.iter().any(|item| matches!(item, Item::Call { .. })) { Self::ToolCalls } else { Self::Stop }
    }
}

/// A piece of a reply while it comes in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delta {
    /// Text.
    Text(String),
    /// What the vendor shows of the reasoning.
    Reasoning(String),
    /// A call begins.
    CallStarted {
        /// The tool.
        name: String,
    },
    /// A piece of the arguments of the call that began last.
    CallArguments(String),
}

/// Where deltas go: a bounded channel, or nowhere. A full channel loses deltas and never holds up the reply.
#[derive(Debug, Default)]
pub struct Deltas {
    sender: Option<mpsc::Sender<Delta>>,
    emitted: AtomicBool,
    /// Counts the attempts and the events of their answers.
    events: Option<Arc<AtomicU64>>,
    /// Hears which tools are called.
    hearer: Option<Hearer>,
}

/// Hears the name of a tool as soon as the model has said it.
#[derive(Clone)]
struct Hearer(Arc<dyn Fn(&str) + Send + Sync>);

impl fmt::Debug for Hearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hearer")
    }
}

impl Deltas {
    /// Nobody watches.
    pub fn none() -> Self {
        Self::default()
    }

    /// To this channel.
    pub fn to(sender: mpsc::Sender<Delta>) -> Self {
        Self { sender: Some(sender), ..Self::default() }
    }

    /// The same, to this channel.
    pub fn sent(self, sender: mpsc::Sender<Delta>) -> Self {
        Self { sender: Some(sender), ..self }
    }

    /// The same, with every attempt and every event of an answer counted, watched or not: signs that the model is alive.
    pub fn counted(self, events: Arc<AtomicU64>) -> Self {
        Self { events: Some(events), ..self }
    }

    /// The same, with `hears` told of every tool that is called, before its arguments are there, watched or not. Nothing is given
    /// out by that: an attempt that fails is made again as ever.
    pub fn heard(self, hears: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self { hearer: Some(Hearer(Arc::new(hears))), ..self }
    }

    /// Whether somebody wants to hear which tools are called.
    pub(crate) fn are_heard(&self) -> bool {
        self.hearer.is_some()
    }

    /// The model gave a sign of life, or is asked once more.
    pub(crate) fn count(&self) {
        if let Some(events) = &self.events {
            events.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether anybody watches; when nobody does, deltas need not be made.
    pub fn watched(&self) -> bool {
        self.sender.is_some()
    }

    /// Whether a piece of the present reply was given out. From then on an attempt can't be taken back.
    pub fn emitted(&self) -> bool {
        self.emitted.load(Ordering::Relaxed)
    }

    /// A new reply begins, of which nothing was given out yet.
    pub(crate) fn begin(&self) {
        self.emitted.store(false, Ordering::Relaxed);
    }

    /// Gives out a piece; loses it when the channel is full or closed.
    pub fn offer(&self, delta: Delta) {
        if let (Some(Hearer(hears)), Delta::CallStarted { name }) = (&self.hearer, &delta) {
            hears(name);
        }
        if let Some(sender) = &self.sender {
            self.emitted.store(true, Ordering::Relaxed);
            // A watcher that is slow or gone misses pieces; the whole reply is recorded anyway.
            let _lost = sender.try_send(delta);
        }
    }
}
