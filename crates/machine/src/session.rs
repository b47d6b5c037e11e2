//! A session: its run, those that wait behind it, and what the model has seen.

use crate::effect::Effect;
use crate::run::{CallState, Phase, Run};
use domain::record::{Began, Finished, Judged, Replied, Returned, Submitted};
use domain::{ContentRef, Cost, Event, Id, RunStatus, Usage, Verdict, id};
use indexmap::IndexMap;
use std::collections::VecDeque;
use std::sync::Arc;

/// When an event was written and on whose authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// On whose authority.
    pub principal: Id<id::Principal>,
}

/// The fold of a session's records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Session {
    /// Records folded: the position of the next.
    pub position: u64,
    /// The run that is driven, if any.
    pub run: Option<Run>,
    /// Runs that wait behind it, in order.
    pub queue: VecDeque<Run>,
    /// What the model has seen, in order.
    pub history: Vec<Arc<Entry>>,
    /// The name that the client gave the session.
    pub name: Option<ContentRef>,
    /// The live sandbox.
    pub sandbox: Option<Id<id::Sandbox>>,
    /// Whether the session ever had a workspace.
    pub workspace: bool,
    /// Their messages.
    waiting: VecDeque<Arc<Entry>>,
    /// The tools that calls of the current turn name, for calls that are judged again.
    tools: IndexMap<Id<id::Call>, Option<String>>,
}

/// Something the model has seen. Content is pointed to, never held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// What the user said.
    Message {
        /// The run it began.
        run: Id<id::Run>,
        /// Text.
        content: ContentRef,
    },
    /// What the model answered.
    Reply {
        /// The run.
        run: Id<id::Run>,
        /// Items.
        content: ContentRef,
        /// The calls among them and where they stand.
        calls: Vec<(Id<id::Call>, u32)>,
    },
    /// What a call gave.
    Output {
        /// The call.
        call: Id<id::Call>,
        /// Parts.
        content: ContentRef,
        /// The whole output, when the model was told less.
        whole: Option<ContentRef>,
    },
}

/// An event that can't have happened in this state: the log is of another program, or the driver is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{kind}` at position {position} does not follow: {why}")]
pub struct Refused {
    /// The event's kind.
    pub kind: &'static str,
    /// Where it would stand.
    pub position: u64,
    /// What it contradicts.
    pub why: &'static str,
}

impl Refused {
    /// Stable code.
    pub const fn code(&self) -> &'static str {
        "history_refused"
    }
}

impl Session {
    /// What is wanted at `now_ms`; nothing when there is no run or it is parked.
    pub fn wanted(&self, now_ms: u64) -> Vec<Effect> {
        let status = RunStatus::Cancelled;
        let waiting = self.queue.iter().filter(|run| run.cancelled);
        let mut wanted: Vec<_> = waiting.map(|run| Effect::Finish { run: run.id, status, failure: None }).collect();
        wanted.extend(self.run.iter().flat_map(|run| run.wanted(now_ms)));
        wanted
    }

    /// When the state will want something else by the mere passing of time: the current run's limit of running time.
    pub fn due_ms(&self) -> Option<u64> {
        let run = self.run.as_ref().filter(|run| run.status() == RunStatus::Running)?;
        let left = run.limits.running_seconds.saturating_mul(1_000).saturating_sub(run.running_ms);
        Some(run.last_ms.saturating_add(left))
    }

    /// Folds one event.
    pub fn apply(&mut self, stamp: Stamp, event: &Event) -> Result<(), Refused> {
        let position = self.position;
        let refuse = |why| Refused { kind: event.kind(), position, why };
        match event {
            Event::Submitted(body) => self.submitted(stamp, body),
            Event::CancelRequested(body) => {
                // A run that has ended can't be cancelled any more; the wish stands in the log all the same.
                let waiting = self.queue.iter_mut().chain(&mut self.run);
                waiting.filter(|run| run.id == body.run).for_each(|run| run.cancelled = true);
            }
            Event::Finished(body) => self.finished(stamp, body).map_err(refuse)?,
            _ => {
                let run = self.run.as_mut().filter(|run| run.id == event.run());
                let run = run.ok_or_else(|| refuse("its run is not the one that is driven"))?;
                run.tick(stamp.at_ms, event);
                self.driven(event).map_err(refuse)?;
            }
        }
        self.position += 1;
        Ok(())
    }

    fn submitted(&mut self, stamp: Stamp, body: &Submitted) {
        let run = Run {
            id: body.run,
            agent: body.agent.clone(),
            closure: body.closure,
            principal: stamp.principal,
            created_ms: stamp.at_ms,
            limits: body.limits,
            save: body.save.clone(),
            idempotency: body.idempotency,
            turn: 0,
            tool_calls: 0,
            usage: Usage::default(),
            cost: Cost::default(),
            calls: IndexMap::new(),
            phase: Phase::Thinking,
            cancelled: false,
            used_sandbox: false,
            reply: None,
            running_ms: 0,
            last_ms: stamp.at_ms,
        };
        if self.position == 0 {
            self.name = body.session_name.clone();
        }
        let message = Arc::new(Entry::Message { run: body.run, content: body.message.clone() });
        match self.run {
            None => {
                self.history.push(message);
                self.run = Some(run);
            }
            Some(_) => {
                self.queue.push_back(run);
                self.waiting.push_back(message);
            }
        }
    }

    fn finished(&mut self, stamp: Stamp, body: &Finished) -> Result<(), &'static str> {
        if let Some(index) = self.queue.iter().position(|run| run.id == body.run) {
            self.queue.remove(index);
            self.waiting.remove(index);
            return Ok(());
        }
        let run = self.run.as_ref().filter(|run| run.id == body.run).ok_or("its run is not alive")?;
        if run.calls.values().any(|call| matches!(call, CallState::Began { .. })) {
            return Err("a call of the run has not returned");
        }
        if !body.status.is_end() {
            return Err("its status is no end");
        }
        self.tools.clear();
        self.run = self.queue.pop_front();
        self.history.extend(self.waiting.pop_front());
        if let Some(run) = &mut self.run {
            // Time spent waiting behind another run is not running time.
            run.last_ms = stamp.at_ms;
        }
        Ok(())
    }

    fn driven(&mut self, event: &Event) -> Result<(), &'static str> {
        let Some(run) = &mut self.run else { return Err("no run is driven") };
        match event {
            Event::Resumed(_) => {
                self.sandbox = None;
                for (call, state) in &mut run.calls {
                    let mut tool = self.tools.get(call).cloned().flatten();
                    state.after_crash(&mut tool);
                }
            }
            Event::SandboxOpened(body) => {
                self.sandbox = Some(body.sandbox);
                self.workspace = true;
                run.used_sandbox = true;
            }
            Event::SandboxClosed(body) => {
                if self.sandbox == Some(body.sandbox) {
                    self.sandbox = None;
                }
            }
            Event::Replied(body) => {
                run.replied(body)?;
                self.tools = body.calls.iter().map(|head| (head.call, head.tool.clone())).collect();
                let calls = body.calls.iter().map(|head| (head.call, head.index)).collect();
                self.history.push(Arc::new(Entry::Reply { run: body.run, content: body.items.clone(), calls }));
            }
            Event::Judged(body) => run.judged(body)?,
            Event::Began(body) => run.began(body)?,
            Event::Returned(body) => {
                run.returned(body)?;
                let (call, content, whole) = (body.call, body.output.clone(), body.whole.clone());
                self.history.push(Arc::new(Entry::Output { call, content, whole }));
            }
            Event::InDoubt(body) => {
                let state = run.calls.get_mut(&body.call).ok_or("there is no such call")?;
                if *state != CallState::Doubtful {
                    return Err("the call is not in doubt");
                }
                *state = CallState::InDoubt;
            }
            Event::WorkspaceChanged(_) | Event::ArtifactSaved(_) => {}
            Event::Submitted(_) | Event::CancelRequested(_) | Event::Finished(_) => {
                return Err("it is not of a driven run");
            }
        }
        Ok(())
    }
}

impl Run {
    /// Counts the time since the run's last record, unless nobody was driving it meanwhile.
    fn tick(&mut self, at_ms: u64, event: &Event) {
        if !matches!(event, Event::Resumed(_)) {
            self.running_ms = self.running_ms_at(at_ms);
        }
        self.last_ms = self.last_ms.max(at_ms);
    }

    fn replied(&mut self, body: &Replied) -> Result<(), &'static str> {
        if self.phase != Phase::Thinking {
            return Err("the model was not asked");
        }
        if body.turn != self.turn + 1 {
            return Err("it is not of the next turn");
        }
        self.turn = body.turn;
        self.usage = self.usage.plus(body.usage);
        self.cost = self.cost.plus(body.cost);
        self.calls = body
            .calls
            .iter()
            .map(|head| (head.call, CallState::Asked { tool: head.tool.clone(), attempt: 1, key: None }))
            .collect();
        if self.calls.len() != body.calls.len() {
            return Err("two calls have one id");
        }
        let wanted = u32::try_from(body.calls.len()).unwrap_or(u32::MAX);
        let total = self.tool_calls.saturating_add(wanted);
        self.phase = match wanted {
            0 => Phase::Answered,
            // The batch's budget is reserved before its first call begins: none of it is performed when it is too large.
            _ if total > self.limits.tool_calls => Phase::Overdrawn,
            _ => Phase::Acting,
        };
        match self.phase {
            Phase::Answered => self.reply = Some(body.items.clone()),
            Phase::Acting => self.tool_calls = total,
            Phase::Thinking | Phase::Overdrawn => {}
        }
        Ok(())
    }

    fn judged(&mut self, body: &Judged) -> Result<(), &'static str> {
        let state = self.calls.get_mut(&body.call).ok_or("there is no such call")?;
        let CallState::Asked { attempt, key, .. } = state else { return Err("the call was not to be judged") };
        *state = match body.judgement.verdict {
            Verdict::Allow => CallState::Allowed { attempt: *attempt, key: key.take() },
            Verdict::Deny => CallState::Denied,
            Verdict::Hold => return Err("holding a call is not known yet"),
        };
        Ok(())
    }

    fn began(&mut self, body: &Began) -> Result<(), &'static str> {
        let state = self.calls.get_mut(&body.call).ok_or("there is no such call")?;
        match state {
            CallState::Allowed { attempt, .. } if *attempt == body.attempt => {}
            CallState::Allowed { .. } => return Err("it is another attempt than the one allowed"),
            _ => return Err("the call was not allowed"),
        }
        *state = CallState::Began { attempt: body.attempt, key: body.key.clone(), after_crash: body.after_crash };
        Ok(())
    }

    fn returned(&mut self, body: &Returned) -> Result<(), &'static str> {
        let state = self.calls.get_mut(&body.call).ok_or("there is no such call")?;
        match state {
            CallState::Returned => return Err("the call has returned already"),
            CallState::InDoubt | CallState::Doubtful => return Err("the call is in doubt"),
            CallState::Allowed { .. } => return Err("the call has not begun"),
            CallState::Asked { .. } | CallState::Denied | CallState::Began { .. } | CallState::Interrupted => {}
        }
        *state = CallState::Returned;
        if self.calls.values().all(|call| *call == CallState::Returned) {
            self.phase = Phase::Thinking;
        }
        Ok(())
    }
}
