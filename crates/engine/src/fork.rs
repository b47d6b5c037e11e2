//! Sessions that go on from a position of another: which positions can be gone on from, and the new session itself. What was
//! done outside before that position stays done, so it is told; approvals are not inherited.

use crate::engine::{Engine, Inner};
use crate::error::FilesThere;
use crate::fold::{self, Steps};
use crate::prompt::Memory;
use crate::submit::{check_message, finish};
use crate::{Error, IdempotencyKey, SessionName};
use catalog::Closure;
use domain::content::media;
use domain::record::{Draft, Forked, Save, Snapshot, Submitted};
use domain::{CallStatus, Digest, Effect, Event, Id, Item, Record, id};
use futures::TryStreamExt;
use indexmap::IndexMap;
use journal::{Append, Appended, Fence, PreparedDraft, Release, SealedItem, SessionKey};
use machine::{Files, Phase, Session};
use sandbox::archive::ArchiveLimits;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Positions that a list of them gives at most: the last ones.
pub const CHECKPOINTS_MAX: usize = 10_000;
/// Sessions that are looked at for a checkpoint that is kept: beyond them it comes from the objects.
const LINEAGE_MAX: usize = 8;
/// Effects outside that a fork tells of at most: the last ones.
pub const OUTSIDE_EFFECTS_MAX: usize = 1_000;

/// A position that another session can go on from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointView {
    /// How many records stand before it.
    pub at: u64,
    /// The run that stood last.
    pub run: Id<id::Run>,
    /// The turn of that run that it follows.
    pub turn: u32,
    /// The files as they were kept; `None`: the session had none.
    pub checkpoint: Option<Id<id::Checkpoint>>,
    /// When the last record before it was written, in milliseconds since the Unix epoch.
    pub at_ms: u64,
}

/// A session that is to go on from another.
#[derive(Clone, Debug)]
pub struct Fork {
    /// The tenant.
    pub tenant: String,
    /// Who asks.
    pub principal: Id<id::Principal>,
    /// The session that it goes on from.
    pub session: Id<id::Session>,
    /// How many of that one's records it goes on from.
    pub at: u64,
    /// The agent, as it is declared now; `None`: the one that stood last, as it was then.
    pub agent: Option<String>,
    /// The alias of another model, which every run of the new session asks instead of its agent's own.
    pub model: Option<String>,
    /// Another provider of sandboxes, for every run of the new session.
    pub provider: Option<String>,
    /// What the user says. Without it, a session that is forked in the middle of a run goes on with what that one had to do, and
    /// one that is forked at the end of a run waits.
    pub message: Option<String>,
    /// A name for the new session, which must not be there yet.
    pub session_name: Option<String>,
    /// Key and body digest of an idempotent request.
    pub idempotency: Option<IdempotencyKey>,
}

/// A session that goes on from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForkView {
    /// The new session.
    pub session: Id<id::Session>,
    /// The name that the client gave it.
    pub session_name: Option<String>,
    /// Its run, when one goes on.
    pub run: Option<Id<id::Run>>,
    /// How many records of the other it goes on from.
    pub at: u64,
    /// The checkpoint that its files come from.
    pub checkpoint: Option<Id<id::Checkpoint>>,
    /// The model that its runs ask instead of their agents' own.
    pub model: Option<String>,
    /// The provider of sandboxes that its runs use instead of their agents' own.
    pub provider: Option<String>,
    /// What was done outside before, oldest first.
    pub outside_effects: Vec<OutsideEffect>,
}

/// A call that reached outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutsideEffect {
    /// Its run.
    pub run: Id<id::Run>,
    /// The call.
    pub call: Id<id::Call>,
    /// The tool.
    pub tool: String,
    /// What its contract says.
    pub effect: Effect,
    /// Where it began first.
    pub position: u64,
    /// How it ended; `None`: nobody has said.
    pub status: Option<CallStatus>,
}

/// What holds for every run of a session instead of what its agents declare.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Chosen {
    model: Option<String>,
    provider: Option<String>,
}

impl Chosen {
    fn of(body: &Forked) -> Self {
        Self { model: body.model.clone(), provider: body.provider.clone() }
    }
}

impl Fork {
    /// What is chosen for the new session: what was chosen for the other one holds on, unless another agent goes on.
    fn chosen(&self, parent: &Parent) -> Chosen {
        let before = if self.agent.is_none() { parent.course.chosen.clone() } else { Chosen::default() };
        Chosen { model: self.model.clone().or(before.model), provider: self.provider.clone().or(before.provider) }
    }
}

/// How a session stands at a position that can be gone on from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    /// No run is under way.
    Idle,
    /// Its run's own agent is about to ask its model.
    Thinking,
}

/// A call that began.
struct Begun {
    run: Id<id::Run>,
    tool: String,
    closure: Digest,
    position: u64,
    status: Option<CallStatus>,
}

/// A session up to a position.
struct Course {
    state: Session,
    /// Hash of the last record, and when it was written.
    head: Digest,
    at_ms: u64,
    /// The run that stood last, its agent and that one's closure, unless that was another session's.
    last: Option<(Id<id::Run>, String, Option<Digest>)>,
    /// Turns of that run.
    turn: u32,
    /// Whether the workspace could not be kept when it was to be.
    is_unkept: bool,
    chosen: Chosen,
    began: IndexMap<Id<id::Call>, Begun>,
}

impl Course {
    fn new() -> Self {
        let (state, head, began) = (Session::default(), Digest::ZERO, IndexMap::new());
        let chosen = Chosen::default();
        Self { state, head, at_ms: 0, last: None, turn: 0, is_unkept: false, chosen, began }
    }

    fn see(&mut self, record: &Record, hash: Digest) -> Result<(), Error> {
        if let Event::Began(body) = &record.event
            && let Some(run) = self.state.run_of(body.run)
            && let Some(call) = run.calls.get(&body.call)
            && let Some(scope) = run.scopes.get(&call.scope)
        {
            let (tool, position) = (call.tool.clone().unwrap_or_default(), record.head.position);
            let begun = Begun { run: body.run, tool, closure: scope.closure, position, status: None };
            self.began.entry(body.call).or_insert(begun);
        }
        fold::fold_one(&mut self.state, record)?;
        match &record.event {
            Event::Returned(body) => {
                if let Some(begun) = self.began.get_mut(&body.call) {
                    begun.status = Some(body.status);
                }
            }
            Event::Forked(body) => {
                self.last = Some((body.run, body.agent.clone(), None));
                self.chosen = Chosen::of(body);
            }
            Event::Checkpointed(body) => self.is_unkept = body.snapshot.is_none(),
            Event::WorkspaceRestored(_) if self.state.run.is_none() => self.is_unkept = false,
            Event::Replied(body) if body.scope.is_none() => self.turn = body.turn,
            _ => {}
        }
        if let Some(run) = &self.state.run
            && self.last.as_ref().is_none_or(|(last, ..)| *last != run.id)
        {
            self.last = Some((run.id, run.root().agent.clone(), Some(run.root().closure)));
            self.turn = 0;
        }
        (self.head, self.at_ms) = (hash, record.head.at_ms);
        Ok(())
    }

    /// Whether another session can go on from here.
    fn rest(&self) -> Option<Rest> {
        let state = &self.state;
        let is_kept = match state.files {
            Files::None => true,
            Files::Kept { .. } | Files::InSnapshot => !state.is_changed && !self.is_unkept,
            Files::Lost => false,
        };
        // What a command did in a sandbox that stood still is kept by the next run that uses it, and not before.
        if !is_kept || state.is_changed_by_hand || self.last.is_none() {
            return None;
        }
        let Some(run) = &state.run else { return Some(Rest::Idle) };
        match run.root().phase {
            Phase::Thinking if run.scopes.len() == 1 => Some(Rest::Thinking),
            Phase::Answered if run.scopes.len() == 1 => Some(Rest::Idle),
            Phase::Thinking | Phase::Answered | Phase::Acting | Phase::Overdrawn => None,
        }
    }

    fn view(&self) -> Option<CheckpointView> {
        let (run, ..) = self.last.as_ref()?;
        let checkpoint = self.state.snapshot.as_ref().map(|snapshot| snapshot.checkpoint);
        let (at, turn, at_ms) = (self.state.position, self.turn, self.at_ms);
        Some(CheckpointView { at, run: *run, turn, checkpoint, at_ms })
    }
}

/// A session that is gone on from, with all that is needed of it.
struct Parent {
    key: SessionKey,
    course: Course,
    rest: Rest,
    run: Id<id::Run>,
    agent: String,
    closure: Option<Digest>,
}

impl Engine {
    /// The positions of a session that another can go on from, in order: of each turn, and of each run's end, the last one.
    pub async fn checkpoints(&self, tenant: &str, session: Id<id::Session>) -> Result<Vec<CheckpointView>, Error> {
        let key = SessionKey::new(tenant, session);
        let journal = &self.0.parts.journal;
        let mut steps = Steps::new(journal, &key, 0);
        let mut course = Course::new();
        let mut found: VecDeque<(Rest, CheckpointView)> = VecDeque::new();
        while let Some(step) = steps.next().await? {
            course.see(&step.record, step.hash)?;
            let Some((rest, view)) = course.rest().zip(course.view()) else { continue };
            let same = |(before, there): &(Rest, CheckpointView)| {
                let place = |view: &CheckpointView| (view.run, view.turn, view.checkpoint);
                *before == rest && place(there) == place(&view)
            };
            if found.back().is_some_and(same) || found.len() == CHECKPOINTS_MAX {
                let _ = if found.back().is_some_and(same) { found.pop_back() } else { found.pop_front() };
            }
            found.push_back((rest, view));
        }
        if course.state.position == 0 {
            return Err(Error::NoSuchSession { session });
        }
        Ok(found.into_iter().map(|(_, view)| view).collect())
    }

    /// Makes a session that goes on from a position of another. When this returns, it is durable with a copy of the files.
    pub async fn fork(&self, fork: Fork) -> Result<ForkView, Error> {
        let inner = &self.0;
        if inner.dispatch.is_draining() {
            return Err(Error::Draining);
        }
        if let Some(message) = &fork.message {
            check_message(message)?;
        }
        let parent = inner.parent(&fork).await?;
        let outside_effects = inner.outside_effects(&parent).await?;
        let checkpoint = parent.course.state.snapshot.as_ref().map(|snapshot| snapshot.checkpoint);
        let chosen = fork.chosen(&parent);
        let view = |session, run| ForkView {
            model: chosen.model.clone(),
            provider: chosen.provider.clone(),
            session,
            session_name: fork.session_name.clone(),
            run,
            at: fork.at,
            checkpoint,
            outside_effects: outside_effects.clone(),
        };
        if let Some((session, run)) = inner.forked_before(&fork, &parent).await? {
            return Ok(view(session, run));
        }
        let goes_on = fork.message.is_some() || parent.rest == Rest::Thinking;
        let closure = inner.closure_of(&fork, &parent).await?;
        inner.ready(&closure).await?;
        let session = match &fork.session_name {
            Some(name) => Id::from_name(&fork.tenant, name),
            None => inner.id(),
        };
        let (session, run) =
            inner.make(&fork, &parent, &closure, SessionKey::new(fork.tenant.as_str(), session)).await?;
        Ok(view(session, run.filter(|_| goes_on)))
    }
}

/// A session and those that it goes on from, nearest first: in whose workspaces its checkpoint may be kept.
pub(crate) async fn lineage(inner: &Inner, key: &SessionKey) -> Result<Vec<Id<id::Session>>, sandbox::Error> {
    let unread = |detail: String| sandbox::Error::Start { stage: "workspace", detail };
    let mut sessions = vec![key.session];
    while let Some(session) = sessions.last().copied().filter(|_| sessions.len() < LINEAGE_MAX) {
        let key = SessionKey::new(key.tenant.clone(), session);
        let records = inner.parts.journal.records(&key, 0, 1).await.map_err(|error| unread(error.to_string()))?;
        let first = records.first().map(journal::StoredRecord::decode).transpose();
        match first.map_err(|error| unread(error.to_string()))?.map(|record| record.event) {
            Some(Event::Forked(body)) => sessions.push(body.session),
            // One that was deleted took its checkpoints with it.
            _ => break,
        }
    }
    Ok(sessions)
}

impl Inner {
    /// The session that is gone on from, at its position.
    async fn parent(&self, fork: &Fork) -> Result<Parent, Error> {
        let key = SessionKey::new(fork.tenant.as_str(), fork.session);
        let mut steps = Steps::new(&self.parts.journal, &key, 0);
        let mut course = Course::new();
        let mut before = None;
        while course.state.position < fork.at {
            let Some(step) = steps.next().await? else { break };
            if course.rest().is_some() {
                before = Some(course.state.position);
            }
            course.see(&step.record, step.hash)?;
        }
        if course.state.position == 0 && fork.at > 0 {
            return Err(Error::NoSuchSession { session: fork.session });
        }
        let rest = course.rest().filter(|_| course.state.position == fork.at);
        if let Some((rest, (run, agent, closure))) = rest.zip(course.last.clone()) {
            return Ok(Parent { key: key.clone(), course, rest, run, agent, closure });
        }
        let files = match course.state.is_changed_by_hand {
            true => FilesThere::ChangedByHand,
            false => FilesThere::InTurn,
        };
        if course.state.position < fork.at && course.rest().is_some() {
            before = Some(course.state.position);
        }
        let mut after = None;
        while let Some(step) = steps.next().await? {
            course.see(&step.record, step.hash)?;
            if course.rest().is_some() {
                after = Some(course.state.position);
                break;
            }
        }
        if course.state.position == 0 {
            return Err(Error::NoSuchSession { session: fork.session });
        }
        Err(Error::NotForkable { at: fork.at, files, before, after })
    }

    /// Calls of the prefix that reached outside.
    async fn outside_effects(&self, parent: &Parent) -> Result<Vec<OutsideEffect>, Error> {
        let mut contracts: HashMap<Digest, Arc<crate::ready::Ready>> = HashMap::new();
        let mut effects = VecDeque::new();
        for (call, begun) in &parent.course.began {
            let ready = match contracts.get(&begun.closure) {
                Some(ready) => ready.clone(),
                None => contracts.entry(begun.closure).or_insert(self.pinned(begun.closure).await?).clone(),
            };
            let effect = ready.toolbox.contract(&begun.tool).map(|contract| contract.effect);
            let Some(effect @ (Effect::External | Effect::Destructive)) = effect else { continue };
            if effects.len() == OUTSIDE_EFFECTS_MAX {
                effects.pop_front();
            }
            let Begun { run, tool, position, status, .. } = begun;
            let (run, tool, position, status) = (*run, tool.clone(), *position, *status);
            effects.push_back(OutsideEffect { run, call: *call, tool, effect, position, status });
        }
        Ok(effects.into())
    }

    /// The session that the same request made before.
    async fn forked_before(
        &self,
        fork: &Fork,
        parent: &Parent,
    ) -> Result<Option<(Id<id::Session>, Option<Id<id::Run>>)>, Error> {
        let mut there = None;
        if let Some(asked) = self.keyed(parent.run, fork.idempotency) {
            match self.parts.journal.taken(&parent.key.tenant, &asked).await {
                Ok(taken) => there = taken.map(|taken| taken.session),
                Err(journal::Error::IdempotencyConflict { .. }) => return Err(Error::IdempotencyConflict),
                Err(error) => return Err(error.into()),
            }
        }
        if there.is_none()
            && let Some(name) = &fork.session_name
        {
            if SessionName::parse(name).is_none_or(|name| matches!(name, SessionName::Id(_))) {
                return Err(Error::SessionExists { session: Id::from_name(&fork.tenant, name) });
            }
            there = Some(Id::from_name(&fork.tenant, name));
        }
        let Some(session) = there else { return Ok(None) };
        let key = SessionKey::new(parent.key.tenant.clone(), session);
        let records = self.parts.journal.records(&key, 0, 2).await?;
        let mut events = Vec::new();
        for record in &records {
            events.push(record.decode()?.event);
        }
        match events.as_slice() {
            [] => Ok(None),
            [Event::Forked(first), rest @ ..] if first.session == fork.session && first.position == fork.at => {
                let run = rest.iter().find_map(|event| match event {
                    Event::Submitted(body) => Some(body.run),
                    _ => None,
                });
                Ok(Some((session, run)))
            }
            _ => Err(Error::SessionExists { session }),
        }
    }

    /// What goes on: the closure that stood last, or the one that is declared now, with what is chosen instead.
    async fn closure_of(&self, fork: &Fork, parent: &Parent) -> Result<Arc<Closure>, Error> {
        let own = Chosen { model: fork.model.clone(), provider: fork.provider.clone() };
        match (&fork.agent, parent.closure) {
            (Some(agent), _) => self.with_chosen((self.parts.catalog)().agent(Some(agent))?, &own),
            // What was chosen for the other session is in it already.
            (None, Some(closure)) => self.with_chosen(self.pinned(closure).await?.closure.clone(), &own),
            (None, None) => {
                let closure = (self.parts.catalog)().agent(Some(&parent.agent))?;
                self.with_chosen(closure, &fork.chosen(parent))
            }
        }
    }

    /// What was chosen for every run of a session; nothing, unless it goes on from another.
    pub(crate) async fn chosen(&self, key: &SessionKey) -> Result<Chosen, Error> {
        let records = self.parts.journal.records(key, 0, 1).await?;
        let first = records.first().map(journal::StoredRecord::decode).transpose()?;
        Ok(match first.map(|record| record.event) {
            Some(Event::Forked(body)) => Chosen::of(&body),
            _ => Chosen::default(),
        })
    }

    /// An agent with what was chosen instead of its own.
    pub(crate) fn with_chosen(&self, mut closure: Arc<Closure>, chosen: &Chosen) -> Result<Arc<Closure>, Error> {
        let agent = closure.agent.name.clone();
        let unusable = |error: catalog::BadClosure| Error::Closure { agent: agent.clone(), detail: error.to_string() };
        if let Some(alias) = &chosen.model {
            let catalog = (self.parts.catalog)();
            let model = catalog.model(alias).ok_or_else(|| Error::ModelUnknown { asked: alias.clone() })?;
            closure = Arc::new(closure.with_model(model.clone()).map_err(unusable)?);
        }
        if let Some(provider) = &chosen.provider {
            if !self.parts.providers.iter().any(|there| there.name() == provider) {
                let detail = format!("this process has no provider `{provider}`; hint: see `topside doctor`");
                return Err(sandbox::Error::Start { stage: "claim", detail }.into());
            }
            closure = Arc::new(closure.with_provider(provider).map_err(unusable)?);
        }
        Ok(closure)
    }

    /// Writes the new session's first records, and has it driven.
    async fn make(
        self: &Arc<Self>,
        fork: &Fork,
        parent: &Parent,
        closure: &Closure,
        key: SessionKey,
    ) -> Result<(Id<id::Session>, Option<Id<id::Run>>), Error> {
        let mut contents = Vec::new();
        let forked = self.forked(fork, parent, closure, &key, &mut contents).await?;
        let at_ms = self.parts.clock.wall_ms();
        let draft = |event| Draft { at_ms, principal: fork.principal, event };
        let mut drafts = vec![PreparedDraft::new(&draft(Event::Forked(forked)))];
        let mut run = None;
        if fork.message.is_some() || parent.rest == Rest::Thinking {
            let id = self.id();
            let mut message = None;
            if let Some(text) = &fork.message {
                let (content, item) = self.seal_text(&key, media::TEXT, text.as_bytes()).await?;
                contents.push(item);
                message = Some(content);
            }
            let submitted = Submitted {
                run: id,
                agent: closure.agent.name.clone(),
                closure: closure.digest(),
                message,
                session_name: None,
                idempotency: fork.idempotency.map(|idempotency| idempotency.key),
                limits: closure.agent.limits,
                save: Save::Declared,
                callback: None,
            };
            drafts.push(self.announced(PreparedDraft::new(&draft(Event::Submitted(submitted))), id, at_ms));
            run = Some(id);
        }
        let keyed = self.keyed(run.unwrap_or(parent.run), fork.idempotency);
        let is_named = fork.session_name.is_some();
        let (inner, at) = (self.clone(), fork.at);
        finish(async move {
            let written = match is_named {
                true => inner.append_first(&key, drafts, contents).await?,
                false => {
                    let append = Append { key: key.clone(), fence: Fence::Input(keyed), drafts, contents };
                    inner.parts.journal.append(append).await?
                }
            };
            if run.is_some() {
                inner.tally.submitted();
            }
            tracing::info!(session_id = %key.session, at, "a session goes on from another");
            match written {
                Appended::Existing(existing) => Ok((existing.session, Some(existing.run))),
                Appended::Written(_) => {
                    inner.clone().start(inner.dispatch.grown(&key, false, None));
                    Ok((key.session, run))
                }
            }
        })
        .await
    }

    /// The first record of the new session, with its contents.
    async fn forked(
        &self,
        fork: &Fork,
        parent: &Parent,
        closure: &Closure,
        key: &SessionKey,
        contents: &mut Vec<SealedItem>,
    ) -> Result<Forked, Error> {
        let state = &parent.course.state;
        let journal = &self.parts.journal;
        // What somebody said meanwhile and the model was not shown is not forgotten.
        let steers: Vec<_> = state.run.iter().flat_map(|run| run.steers.iter().cloned()).collect();
        let mut memory = Memory::default();
        let items: Vec<Arc<Item>> = memory.conversation(journal, &parent.key, &state.history, &steers).await?;
        let json = serde_json::to_vec(&items).map_err(domain::record::Error::Form)?;
        let sealer = journal.sealer(key).await?;
        let (history, item) = sealer.seal(media::ITEMS, &json)?;
        contents.push(item);
        let mut session_name = None;
        if let Some(name) = &fork.session_name {
            let (content, item) = sealer.seal(media::TEXT, name.as_bytes())?;
            contents.push(item);
            session_name = Some(content);
        }
        let checkpoint = match &state.snapshot {
            Some(snapshot) => Some(self.copy(snapshot, key).await?),
            None => None,
        };
        let Chosen { model, provider } = fork.chosen(parent);
        Ok(Forked {
            model,
            provider,
            run: parent.run,
            session: parent.key.session,
            position: fork.at,
            head: parent.course.head,
            history,
            agent: closure.agent.name.clone(),
            checkpoint,
            session_name,
        })
    }

    /// Gives the new session the checkpoint, so that deleting the other one does not take it away: of chunks a manifest of its
    /// own, of an earlier form a copy.
    async fn copy(&self, snapshot: &Snapshot, key: &SessionKey) -> Result<Snapshot, Error> {
        let blobs = &self.parts.blobs;
        let object = crate::keep::object_of(key, snapshot.checkpoint, &snapshot.form);
        let (from, to) = (snapshot.object.parse(), object.parse());
        let (from, to) = (from.map_err(crate::ready::objects)?, to.map_err(crate::ready::objects)?);
        if crate::keep::is_chunks(&snapshot.form) {
            let copied = self.parts.chunks.copy(&key.tenant, &from, &to, snapshot.digest).await;
            copied.map_err(|error| match error {
                chunks::Error::Damaged { .. } | chunks::Error::Mismatch { .. } => Error::CheckpointDamaged,
                error => Error::Objects { code: error.code(), detail: error.to_string() },
            })?;
            return Ok(Snapshot { object, ..snapshot.clone() });
        }
        let (_, pieces) = blobs.get_stream(&from).await.map_err(crate::ready::objects)?;
        let pieces = pieces.map_err(std::io::Error::other);
        let bytes_max = ArchiveLimits::default().bytes_max;
        let stored = blobs.put_stream(&to, pieces, bytes_max).await.map_err(crate::ready::objects)?;
        if stored.digest != snapshot.digest {
            blobs.delete(&to).await.map_err(crate::ready::objects)?;
            return Err(Error::CheckpointDamaged);
        }
        Ok(Snapshot { object, ..snapshot.clone() })
    }

    /// Writes the first records of a session that has a name: nobody else may have made it meanwhile. Then it is given back, to
    /// be driven by whoever is quickest.
    async fn append_first(
        &self,
        key: &SessionKey,
        drafts: Vec<PreparedDraft>,
        contents: Vec<SealedItem>,
    ) -> Result<Appended, Error> {
        let exists = || Error::SessionExists { session: key.session };
        let journal = &self.parts.journal;
        let epoch = match journal.claim(key).await {
            Ok(claim) => claim.epoch,
            Err(journal::Error::Held { .. }) => return Err(exists()),
            Err(error) => return Err(error.into()),
        };
        let append = Append { key: key.clone(), fence: Fence::Effect { epoch, expect: 0 }, drafts, contents };
        let written = journal.append(append).await;
        let next_ms = Some(self.parts.clock.wall_ms());
        journal.release(key, Release { epoch, folded: 0, next_ms }).await?;
        match written {
            Ok(written) => Ok(written),
            Err(journal::Error::Moved { .. } | journal::Error::Fenced { .. }) => Err(exists()),
            Err(error) => Err(error.into()),
        }
    }
}
