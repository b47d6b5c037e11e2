//! A run once more on its recorded results: no model, tool, sandbox or network is touched. Every record is held against what the
//! machine wanted before it, every content against its authentication code, every prompt is put together again. What the
//! policies of today would say is not asked.

use crate::engine::{Engine, Inner};
use crate::fold::{self, Steps};
use crate::prompt::Memory;
use crate::ready::Ready;
use crate::{Error, settle};
use domain::record::{Began, Replied, Resolution};
use domain::{Call, ContentRef, Digest, Event, Id, Item, Record, id};
use journal::{SessionKey, Verified};
use machine::{Effect, ScopeId, Session};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

/// What a replay came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replay {
    /// The record is what the harness would do again.
    Same {
        /// Records that were replayed, from the session's first on.
        records: u64,
        /// Prompts that were put together.
        prompts: u64,
    },
    /// Something differs.
    Differs {
        /// Position of the first record that does.
        position: u64,
        /// What would follow.
        expected: String,
        /// What stands there.
        found: String,
    },
}

/// The first difference.
struct Differs {
    expected: String,
    found: String,
}

type Checked = Result<Result<(), Differs>, Error>;

fn differs(expected: impl fmt::Display, found: impl fmt::Display) -> Result<(), Differs> {
    Err(Differs { expected: expected.to_string(), found: found.to_string() })
}

/// What the machine wanted, as far as a record answers it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Want {
    Resume(Id<id::Run>),
    Reserve(Id<id::Call>, u32),
    Ask(ScopeId, u32),
    Judge(Id<id::Call>),
    Begin(Id<id::Call>, u32),
    Perform(Id<id::Call>),
    Answer(Id<id::Call>),
    Doubt(Id<id::Call>),
    Compensate(Id<id::Call>),
    Checkpoint(u32),
    Park(Id<id::Run>),
    Finish(Id<id::Run>),
}

impl Want {
    fn of(effect: &Effect) -> Self {
        match effect {
            Effect::Resume { run } => Self::Resume(*run),
            Effect::Reserve { scope, turn, .. } => Self::Reserve(*scope, *turn),
            Effect::Ask { scope, turn, .. } => Self::Ask(*scope, *turn),
            Effect::Judge { call } => Self::Judge(*call),
            Effect::Begin { call, attempt, .. } => Self::Begin(*call, *attempt),
            Effect::Perform { call } => Self::Perform(*call),
            Effect::Abort { call, .. } | Effect::Answer { call, .. } => Self::Answer(*call),
            Effect::Doubt { call } => Self::Doubt(*call),
            Effect::Compensate { call } => Self::Compensate(*call),
            Effect::Checkpoint { turn } => Self::Checkpoint(*turn),
            Effect::Park { run, .. } => Self::Park(*run),
            Effect::Finish { run, .. } => Self::Finish(*run),
        }
    }
}

impl Want {
    /// Whether a driver begins it and hears of it later, so that what comes from outside meanwhile may stand before its end.
    const fn takes_time(&self) -> bool {
        matches!(self, Self::Ask(..) | Self::Perform(_) | Self::Checkpoint(_) | Self::Finish(_))
    }
}

impl fmt::Display for Want {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resume(run) => write!(f, "{run} is taken up"),
            Self::Reserve(scope, turn) => {
                write!(f, "a share of the budget for turn {turn} of the agent that {scope} opened")
            }
            Self::Ask(None, turn) => write!(f, "the model's reply of turn {turn}"),
            Self::Ask(Some(scope), turn) => write!(f, "the reply of turn {turn} of the agent that {scope} opened"),
            Self::Judge(call) => write!(f, "{call} is judged"),
            Self::Begin(call, attempt) => write!(f, "attempt {attempt} of {call} begins"),
            Self::Perform(call) => write!(f, "{call} returns"),
            Self::Answer(call) => write!(f, "{call} is ended or answered"),
            Self::Doubt(call) => write!(f, "{call} is in doubt"),
            Self::Compensate(call) => write!(f, "{call} is undone"),
            Self::Checkpoint(turn) => write!(f, "the workspace is kept after turn {turn}"),
            Self::Park(run) => write!(f, "{run} waits"),
            Self::Finish(run) => write!(f, "{run} ends"),
        }
    }
}

/// A session that is replayed.
struct Replaying<'a> {
    inner: &'a Inner,
    key: SessionKey,
    state: Session,
    memory: Memory,
    /// What is wanted now.
    wanted: Vec<Want>,
    /// What was begun and has not ended, as far as the record can tell: it may end after it is wanted no more.
    under_way: HashSet<Want>,
    ready: HashMap<Digest, Arc<Ready>>,
    calls: HashMap<Id<id::Call>, Call>,
    prompts: u64,
}

impl Engine {
    /// Replays a run with what its session did before it, up to its end or as far as it has come.
    pub async fn replay(&self, tenant: &str, run: Id<id::Run>) -> Result<Replay, Error> {
        let row = self.0.row(tenant, run).await?;
        let key = SessionKey::new(row.tenant.clone(), row.session);
        let journal = &self.0.parts.journal;
        if let Verified::Broken { position, reason } = journal.verify(&key).await? {
            let expected = "a record that links to the one before".to_owned();
            return Ok(Replay::Differs { position, expected, found: reason });
        }
        let mut replaying = Replaying::new(&self.0, key.clone());
        let mut steps = Steps::new(journal, &key, 0);
        while let Some(step) = steps.next().await? {
            let position = step.record.head.position;
            if let Err(Differs { expected, found }) = replaying.step(&step.record).await? {
                return Ok(Replay::Differs { position, expected, found });
            }
            if row.finished_position == Some(position) {
                break;
            }
        }
        Ok(Replay::Same { records: replaying.state.position, prompts: replaying.prompts })
    }
}

impl<'a> Replaying<'a> {
    fn new(inner: &'a Inner, key: SessionKey) -> Self {
        Self {
            inner,
            key,
            state: Session::default(),
            memory: Memory::default(),
            wanted: Vec::new(),
            under_way: HashSet::new(),
            ready: HashMap::new(),
            calls: HashMap::new(),
            prompts: 0,
        }
    }

    async fn step(&mut self, record: &Record) -> Checked {
        self.want(record.head.at_ms);
        if let Err(differs) = self.contents(&record.event).await? {
            return Ok(Err(differs));
        }
        if let Err(differs) = self.follows(&record.event).await? {
            return Ok(Err(differs));
        }
        if let Err(Error::History(refused)) = fold::fold_one(&mut self.state, record) {
            return Ok(differs("a record that follows", refused));
        }
        self.ends(&record.event);
        self.want(record.head.at_ms);
        Ok(Ok(()))
    }

    /// Works out what is wanted at a time. What takes time is under way from then on.
    fn want(&mut self, at_ms: u64) {
        self.wanted = self.state.wanted(at_ms).iter().map(Want::of).collect();
        self.under_way.extend(self.wanted.iter().filter(|want| want.takes_time()).cloned());
        self.under_way.extend(self.asks_let_end(at_ms));
    }

    /// Questions that somebody's wish found under way. The model may be asked over results that are not durable yet; a pause or a
    /// cancellation that comes in between stands before them in the log, and a reply that is there is kept all the same.
    fn asks_let_end(&self, at_ms: u64) -> Vec<Want> {
        let mut before = self.state.clone();
        let is_held_up = |run: &&mut machine::Run| run.is_paused || run.cancelled.is_some();
        let Some(run) = before.run.as_mut().filter(is_held_up) else { return Vec::new() };
        (run.is_paused, run.cancelled) = (false, None);
        before.wanted(at_ms).iter().map(Want::of).filter(|want| matches!(want, Want::Ask(..))).collect()
    }

    /// What a record ends is under way no more, and nothing is after a driver was lost or a run has ended.
    fn ends(&mut self, event: &Event) {
        match event {
            Event::Replied(body) => _ = self.under_way.remove(&Want::Ask(body.scope, body.turn)),
            Event::Deferred(body) => match body.call {
                Some(call) => _ = self.under_way.remove(&Want::Perform(call)),
                None => self.under_way.retain(|want| !matches!(want, Want::Ask(scope, _) if *scope == body.scope)),
            },
            Event::Returned(body) => _ = self.under_way.remove(&Want::Perform(body.call)),
            Event::InDoubt(body) => _ = self.under_way.remove(&Want::Perform(body.call)),
            Event::Checkpointed(body) => _ = self.under_way.remove(&Want::Checkpoint(body.turn)),
            Event::Resumed(body) => {
                self.under_way.retain(|want| matches!(want, Want::Perform(call) if body.attached.contains(call)));
            }
            Event::Finished(_) => self.under_way.clear(),
            _ => {}
        }
    }

    /// Whether a record answers what the machine wants at this very point, or what is under way.
    async fn follows(&mut self, event: &Event) -> Checked {
        let any = match event {
            Event::Parked(body) => vec![Want::Park(body.run)],
            Event::Reserved(body) => vec![Want::Reserve(body.scope, body.turn)],
            Event::Replied(body) => {
                if let Err(differs) = self.replied(body).await? {
                    return Ok(Err(differs));
                }
                vec![Want::Ask(body.scope, body.turn)]
            }
            Event::Deferred(body) => match body.call {
                Some(call) => vec![Want::Perform(call)],
                None => {
                    let run = self.state.run.as_ref();
                    let turn = run.and_then(|run| run.scopes.get(&body.scope)).map_or(0, |scope| scope.turn);
                    vec![Want::Ask(body.scope, turn + 1)]
                }
            },
            Event::Judged(body) => vec![Want::Judge(body.call)],
            Event::Began(body) => {
                if let Err(differs) = self.began(body).await? {
                    return Ok(Err(differs));
                }
                vec![Want::Begin(body.call, body.attempt)]
            }
            Event::ScopeOpened(body) => vec![Want::Begin(body.call, self.attempt_of(body.call))],
            Event::CallAdded(body) => {
                vec![Want::Begin(body.serves, self.attempt_of(body.serves)), Want::Compensate(body.serves)]
            }
            Event::Returned(body) => {
                let attempt = self.attempt_of(body.call);
                let call = body.call;
                vec![
                    Want::Perform(call),
                    Want::Answer(call),
                    Want::Judge(call),
                    Want::Begin(call, attempt),
                    Want::Compensate(call),
                ]
            }
            Event::InDoubt(body) => vec![Want::Doubt(body.call)],
            Event::Checkpointed(body) => vec![Want::Checkpoint(body.turn)],
            Event::Finished(body) => {
                if let Err(differs) = self.finished(body) {
                    return Ok(Err(differs));
                }
                // A run that fails does so without the machine's wanting it.
                if body.status == domain::RunStatus::Failed {
                    return Ok(Ok(()));
                }
                vec![Want::Finish(body.run)]
            }
            // From outside, or the harness's own doings about sandboxes: nothing asks for them.
            _ => return Ok(Ok(())),
        };
        if any.iter().any(|want| self.wanted.contains(want) || self.under_way.contains(want)) {
            return Ok(Ok(()));
        }
        let expected = self.wanted.first().map_or_else(|| "nothing but an input".to_owned(), ToString::to_string);
        Ok(differs(expected, format_args!("`{}`: {}", event.kind(), any[0])))
    }

    fn attempt_of(&self, call: Id<id::Call>) -> u32 {
        let run = self.state.run.as_ref();
        run.and_then(|run| run.calls.get(&call)).map_or(1, |call| call.attempt)
    }

    /// Reads every content that a record points to: what was changed since does not open.
    async fn contents(&mut self, event: &Event) -> Checked {
        for content in pointed_to(event) {
            match self.inner.parts.journal.content(&self.key, content).await {
                Ok(_) => {}
                Err(error @ (journal::Error::Corrupt { .. } | journal::Error::Key { .. })) => {
                    return Ok(differs(format_args!("{} as it was recorded", content.id), error));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Ok(()))
    }

    /// Puts the prompt together that a reply answers, and holds its calls against its items.
    async fn replied(&mut self, body: &Replied) -> Checked {
        let Some(run) = self.state.run.clone().filter(|run| run.id == body.run) else { return Ok(Ok(())) };
        let Some(scope) = run.scopes.get(&body.scope) else { return Ok(Ok(())) };
        let journal = &self.inner.parts.journal;
        let steers: Vec<ContentRef> = run.steers.iter().take(body.steers as usize).cloned().collect();
        let (history, steers) = match body.scope {
            None => (&self.state.history, steers.as_slice()),
            Some(_) => (&scope.history, &[][..]),
        };
        self.memory.conversation(journal, &self.key, history, steers).await?;
        self.prompts += 1;
        let ready = self.ready(scope.closure).await?;
        let items = self.memory.items_of(journal, &self.key, &body.items).await?;
        for head in &body.calls {
            let Some(Item::Call { name, arguments, custom, .. }) = items.get(head.index as usize).map(|item| &**item)
            else {
                // Erased with its reply.
                continue;
            };
            let tool = ready.toolbox.contract(name).map(|_| name);
            if tool != head.tool.as_ref() {
                let told =
                    |tool: Option<&String>| tool.map_or("no declared tool".to_owned(), |tool| format!("`{tool}`"));
                let expected = format!("{} names {}", head.call, told(tool));
                return Ok(differs(expected, format!("it names {}", told(head.tool.as_ref()))));
            }
            let (tenant, session) = (self.key.tenant.to_string(), self.key.session);
            let (tool, arguments, custom) = (name.clone(), arguments.clone(), *custom);
            let call = Call { id: head.call, run: run.id, session, tenant, tool, arguments, custom };
            self.calls.insert(head.call, call);
        }
        Ok(Ok(()))
    }

    /// Holds what a beginning says of the contract against the contract.
    async fn began(&mut self, body: &Began) -> Checked {
        let Some(run) = self.state.run.clone() else { return Ok(Ok(())) };
        let Some(state) = run.calls.get(&body.call) else { return Ok(Ok(())) };
        let Some(scope) = run.scopes.get(&state.scope) else { return Ok(Ok(())) };
        let ready = self.ready(scope.closure).await?;
        let Some((call, contract)) = self.calls.get(&body.call).and_then(|call| {
            let contract = ready.toolbox.contract(&call.tool)?;
            Some((call, contract))
        }) else {
            return Ok(Ok(()));
        };
        let key = state.key.clone().or_else(|| settle::key_of(&run, call, contract));
        if key != body.key {
            let told = |key: &Option<String>| key.clone().unwrap_or_else(|| "none".to_owned());
            let expected = format!("{} begins under the key {}", body.call, told(&key));
            return Ok(differs(expected, format!("the key {}", told(&body.key))));
        }
        let after_crash = settle::after_crash(contract);
        if after_crash != body.after_crash {
            let expected = format!("after a crash, {} is to `{after_crash:?}`", body.call);
            return Ok(differs(expected, format!("`{:?}`", body.after_crash)));
        }
        Ok(Ok(()))
    }

    /// Holds the last word on a run against what it came to.
    fn finished(&self, body: &domain::record::Finished) -> Result<(), Differs> {
        let Some(run) = self.state.run_of(body.run) else { return Ok(()) };
        let root = run.root();
        let reply = |content: &Option<ContentRef>| content.as_ref().map(|content| content.id.to_string());
        let came_to = (root.turn, root.tool_calls, run.used_sandbox);
        let told = (body.turns, body.tool_calls, body.used_sandbox);
        if came_to != told {
            let said = |(turns, calls, sandbox)| format!("{turns} turns, {calls} calls, a sandbox: {sandbox}");
            return differs(said(came_to), said(told));
        }
        let is_completed = body.status == domain::RunStatus::Completed;
        let given = root.reply.clone().filter(|_| is_completed);
        if reply(&given) != reply(&body.reply) {
            return differs(format_args!("the reply {:?}", reply(&given)), format_args!("{:?}", reply(&body.reply)));
        }
        Ok(())
    }

    async fn ready(&mut self, closure: Digest) -> Result<Arc<Ready>, Error> {
        if let Some(ready) = self.ready.get(&closure) {
            return Ok(ready.clone());
        }
        let ready = self.inner.pinned(closure).await?;
        self.ready.insert(closure, ready.clone());
        Ok(ready)
    }
}

/// The contents that a record points to.
fn pointed_to(event: &Event) -> Vec<&ContentRef> {
    match event {
        Event::Submitted(body) => body.message.iter().chain(&body.session_name).chain(&body.callback).collect(),
        Event::Forked(body) => std::iter::once(&body.history).chain(&body.session_name).collect(),
        Event::Steered(body) => vec![&body.message],
        Event::Operated(body) => body.detail.iter().collect(),
        Event::Voted(body) => body.reason.iter().collect(),
        Event::Resolved(body) => match &body.resolution {
            Resolution::Happened { output } => vec![output],
            Resolution::DidNotHappen | Resolution::Compensate => Vec::new(),
        },
        Event::Replied(body) => vec![&body.items],
        Event::ScopeOpened(body) => vec![&body.message],
        Event::CallAdded(body) => vec![&body.arguments],
        Event::Returned(body) => std::iter::once(&body.output).chain(&body.whole).collect(),
        Event::WorkspaceChanged(body) => vec![&body.files],
        Event::ArtifactSaved(body) => vec![&body.name],
        Event::Finished(body) => body.reply.iter().collect(),
        Event::CancelRequested(_)
        | Event::PauseRequested(_)
        | Event::ResumeRequested(_)
        | Event::Raised(_)
        | Event::WorkspaceRestored(_)
        | Event::Parked(_)
        | Event::Resumed(_)
        | Event::SandboxOpened(_)
        | Event::SandboxClosed(_)
        | Event::WorkspaceLost(_)
        | Event::Deferred(_)
        | Event::Reserved(_)
        | Event::Judged(_)
        | Event::Began(_)
        | Event::InDoubt(_)
        | Event::Checkpointed(_) => Vec::new(),
    }
}
