//! A session: its run, those that wait behind it, what the model has seen, and where its files are.

use crate::effect::Effect;
use crate::run::{Parked, Run};
use crate::scope::Scope;
use domain::record::{Deed, Finished, Forked, Operated, Raised, Resolved, Snapshot, Steered, Submitted, Voted, When};
use domain::{ContentRef, Event, Id, RunStatus, id};
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
    /// Where the session's files are.
    pub files: Files,
    /// The workspace as it was kept last.
    pub snapshot: Option<Snapshot>,
    /// Whether the workspace may be another than that.
    pub is_changed: bool,
    /// Whether somebody ran a command in a sandbox that stood still. No workspace is kept while none is open, so this counts from the
    /// next opening on.
    pub is_changed_by_hand: bool,
    /// Messages of the runs that wait.
    waiting: VecDeque<Option<Arc<Entry>>>,
}

/// Where a session's files are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Files {
    /// It never had any.
    #[default]
    None,
    /// A provider keeps them, under this generation.
    Kept {
        /// See [`domain::record::SandboxOpened::generation`].
        generation: u64,
    },
    /// They must be made from the snapshot before they are used.
    InSnapshot,
    /// They are gone.
    Lost,
}

/// Something the model has seen. Content is pointed to, never held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// What the session that this one was forked from had seen.
    Inherited {
        /// Items.
        content: ContentRef,
    },
    /// What the user said.
    Message {
        /// The run it belongs to.
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
        let waiting = self.queue.iter().filter(|run| run.cancelled.is_some());
        let mut wanted: Vec<_> = waiting.map(|run| Effect::Finish { run: run.id, status, failure: None }).collect();
        wanted.extend(self.run.iter().flat_map(|run| run.wanted(now_ms, self.has_to_keep())));
        wanted
    }

    /// When the state will want something else by the mere passing of time.
    pub fn due_ms(&self) -> Option<u64> {
        self.run.as_ref().and_then(Run::due_ms)
    }

    /// Whether its files may be another than in the snapshot, and are there to be kept. Workspaces that were opened before there
    /// were checkpoints have no generation and are left alone.
    const fn has_to_keep(&self) -> bool {
        self.is_changed && matches!(self.files, Files::Kept { generation: 1.. })
    }

    /// The run with this id, driven or waiting.
    pub fn run_of(&self, id: Id<id::Run>) -> Option<&Run> {
        self.run.iter().chain(&self.queue).find(|run| run.id == id)
    }

    /// Folds one event.
    pub fn apply(&mut self, stamp: Stamp, event: &Event) -> Result<(), Refused> {
        let position = self.position;
        let refuse = |why| Refused { kind: event.kind(), position, why };
        match event {
            Event::Submitted(body) => self.submitted(stamp, body),
            Event::Forked(body) => self.forked(body).map_err(refuse)?,
            // A wish about a run that has ended, or that its state does not hear, stands in the log without effect.
            Event::CancelRequested(body) => self.input(body.run, |run| run.cancel(body.when)),
            Event::PauseRequested(body) => self.input(body.run, |run| run.is_paused = true),
            Event::ResumeRequested(body) => self.input(body.run, |run| run.is_paused = false),
            Event::Raised(Raised { run, limits }) => self.input(*run, |run| run.raised(*limits)),
            Event::Steered(Steered { run, message, when }) => self.input(*run, |run| run.steered(message, *when)),
            Event::Voted(body) => self.input(body.run, |run| run.voted(stamp, body)),
            Event::Resolved(Resolved { run, call, resolution }) => {
                self.input(*run, |run| run.resolved(*call, resolution));
            }
            Event::Operated(body) => self.operated(body),
            Event::WorkspaceRestored(body) => self.restored(&body.snapshot),
            Event::Finished(body) => self.finished(stamp, body).map_err(refuse)?,
            _ => {
                let run = self.run.as_mut().filter(|run| run.id == event.run());
                let run = run.ok_or_else(|| refuse("its run is not the one that is driven"))?;
                run.tick(stamp.at_ms, event);
                self.driven(stamp, event).map_err(refuse)?;
            }
        }
        self.position += 1;
        Ok(())
    }

    fn input(&mut self, id: Id<id::Run>, take: impl FnOnce(&mut Run)) {
        if let Some(run) = self.run.iter_mut().chain(&mut self.queue).find(|run| run.id == id) {
            take(run);
        }
    }

    /// A command may change files that the next checkpoint is to keep.
    fn operated(&mut self, body: &Operated) {
        if body.deed != Deed::Exec {
            return;
        }
        match self.sandbox {
            Some(sandbox) => self.is_changed |= sandbox == body.sandbox,
            // Of one that stands still the log has no name: it has let go of it.
            None => self.is_changed_by_hand = true,
        }
    }

    fn forked(&mut self, body: &Forked) -> Result<(), &'static str> {
        if self.position != 0 {
            return Err("the session has begun already");
        }
        self.name = body.session_name.clone();
        self.history.push(Arc::new(Entry::Inherited { content: body.history.clone() }));
        self.snapshot = body.checkpoint.clone();
        if self.snapshot.is_some() {
            self.files = Files::InSnapshot;
        }
        Ok(())
    }

    /// Other files take the place of those that are there, unless a run works on them.
    fn restored(&mut self, snapshot: &Snapshot) {
        if self.run.is_none() {
            self.snapshot = Some(snapshot.clone());
            self.files = Files::InSnapshot;
            self.unchanged();
        }
    }

    /// What was changed is not there any more.
    const fn unchanged(&mut self) {
        self.is_changed = false;
        self.is_changed_by_hand = false;
    }

    fn submitted(&mut self, stamp: Stamp, body: &Submitted) {
        let run = Run::new(stamp, body);
        if self.position == 0 {
            self.name = body.session_name.clone();
        }
        let message = body.message.clone().map(|content| Arc::new(Entry::Message { run: body.run, content }));
        match self.run {
            None => {
                self.history.extend(message);
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
        if run.calls.values().any(crate::Call::is_begun) {
            return Err("a call of the run has not returned");
        }
        if !body.status.is_end() {
            return Err("its status is no end");
        }
        self.run = self.queue.pop_front();
        self.history.extend(self.waiting.pop_front().flatten());
        if let Some(run) = &mut self.run {
            // Time spent waiting behind another run is not running time.
            run.last_ms = stamp.at_ms;
        }
        Ok(())
    }

    fn driven(&mut self, stamp: Stamp, event: &Event) -> Result<(), &'static str> {
        let Some(run) = &mut self.run else { return Err("no run is driven") };
        match event {
            Event::Resumed(body) => {
                self.sandbox = None;
                // What was performed when the process died may have changed files.
                self.is_changed |= self.files != Files::None && run.calls.values().any(crate::Call::is_begun);
                if run.resumed(&body.attached) {
                    self.roll_back();
                }
            }
            Event::Parked(body) => {
                run.parked = Some(Parked { waits_for: body.waits_for, until_ms: body.until_ms });
                self.sandbox = None;
            }
            Event::SandboxOpened(_)
            | Event::SandboxClosed(_)
            | Event::WorkspaceLost(_)
            | Event::Checkpointed(_)
            | Event::WorkspaceChanged(_)
            | Event::ArtifactSaved(_) => self.files_told(event),
            Event::Replied(body) => {
                run.turn_began_at = self.snapshot.as_ref().map(|snapshot| snapshot.checkpoint);
                for steer in run.replied(body)? {
                    self.history.push(Arc::new(Entry::Message { run: body.run, content: steer }));
                }
                let calls = body.calls.iter().map(|head| (head.call, head.index)).collect();
                let entry = Entry::Reply { run: body.run, content: body.items.clone(), calls };
                self.remember(body.scope, entry);
            }
            Event::Returned(body) => {
                self.is_changed |= body.changed_workspace;
                let (call, content, whole) = (body.call, body.output.clone(), body.whole.clone());
                let (scope, is_shown) = run.returned(body)?;
                if is_shown {
                    self.remember(scope, Entry::Output { call, content, whole });
                }
            }
            Event::InDoubt(body) => {
                run.in_doubt(body.call)?;
                let has_to_keep = self.has_to_keep();
                if let Some(run) = &mut self.run {
                    run.park_in_doubt(stamp.at_ms, has_to_keep);
                }
            }
            Event::Judged(body) => run.judged(stamp, body)?,
            Event::Began(body) => run.began(stamp, body)?,
            Event::Deferred(body) => run.deferred(stamp, body)?,
            Event::CallAdded(body) => run.call_added(body)?,
            Event::ScopeOpened(body) => run.scope_opened(body)?,
            Event::Reserved(body) => run.reserved(body)?,
            Event::Submitted(_)
            | Event::Forked(_)
            | Event::CancelRequested(_)
            | Event::PauseRequested(_)
            | Event::ResumeRequested(_)
            | Event::Steered(_)
            | Event::Voted(_)
            | Event::Resolved(_)
            | Event::Raised(_)
            | Event::Operated(_)
            | Event::WorkspaceRestored(_)
            | Event::Finished(_) => return Err("it is not of a driven run"),
        }
        Ok(())
    }

    /// What is known of the session's sandbox and files.
    fn files_told(&mut self, event: &Event) {
        match event {
            Event::SandboxOpened(body) => {
                self.sandbox = Some(body.sandbox);
                // What a manifest laid down is kept like what a call wrote.
                self.is_changed |= self.files == Files::None && body.manifest.is_some();
                self.is_changed |= std::mem::take(&mut self.is_changed_by_hand);
                self.files = Files::Kept { generation: body.generation };
                self.run.iter_mut().for_each(|run| run.used_sandbox = true);
            }
            Event::SandboxClosed(body) if self.sandbox == Some(body.sandbox) => self.sandbox = None,
            Event::WorkspaceLost(_) => {
                self.files = Files::Lost;
                self.unchanged();
            }
            Event::Checkpointed(body) => {
                self.is_changed = false;
                if body.snapshot.is_some() {
                    self.snapshot.clone_from(&body.snapshot);
                }
            }
            _ => {}
        }
    }

    fn remember(&mut self, scope: crate::ScopeId, entry: Entry) {
        let entry = Arc::new(entry);
        match scope {
            None => self.history.push(entry),
            Some(_) => {
                let scope = self.run.as_mut().and_then(|run| run.scopes.get_mut(&scope));
                scope.into_iter().for_each(|scope: &mut Scope| scope.history.push(entry.clone()));
            }
        }
    }

    /// The workspace goes back to its checkpoint, where there is one; else it is kept as it stands.
    fn roll_back(&mut self) {
        if self.snapshot.is_some() && self.files != Files::Lost {
            self.files = Files::InSnapshot;
            self.unchanged();
        }
    }
}

impl Run {
    fn new(stamp: Stamp, body: &Submitted) -> Self {
        let root = Scope::new(body.agent.clone(), body.closure, body.limits);
        Self {
            id: body.run,
            principal: stamp.principal,
            created_ms: stamp.at_ms,
            save: body.save.clone(),
            idempotency: body.idempotency,
            scopes: IndexMap::from([(None, root)]),
            calls: IndexMap::new(),
            cancelled: None,
            is_paused: false,
            steers: VecDeque::new(),
            interrupts: 0,
            is_interrupted: false,
            parked: None,
            turn_began_at: None,
            used_sandbox: false,
            running_ms: 0,
            last_ms: stamp.at_ms,
        }
    }

    fn cancel(&mut self, when: When) {
        // A wish for a later end does not weaken one for an end now.
        if self.cancelled != Some(When::Now) {
            self.cancelled = Some(when);
        }
    }

    /// Counts the time since the run's last record, unless nobody was driving it meanwhile.
    fn tick(&mut self, at_ms: u64, event: &Event) {
        if !matches!(event, Event::Resumed(_)) {
            self.running_ms = self.running_ms_at(at_ms);
        }
        self.last_ms = self.last_ms.max(at_ms);
    }

    fn voted(&mut self, stamp: Stamp, body: &Voted) {
        let Some(call) = self.calls.get_mut(&body.call) else { return };
        let crate::CallState::Held(held) = &mut call.state else { return };
        if held.weigh(stamp.principal, body.vote, body.binding, stamp.at_ms).is_ok() && held.take(stamp.principal, body)
        {
            call.state = crate::CallState::Rejected { reason: body.reason.clone() };
        }
    }
}
