//! Drives one session: folds its log, performs what is wanted, records what came of it, until nothing is wanted.
//!
//! Two states are kept: `base`, the fold of what is durable, and `state`, which also holds what is about to be. Whatever has an
//! effect outside starts from `base`; only the model is asked from `state`.

use crate::ask::Asked;
use crate::dispatch::{Job, Wake};
use crate::engine::Inner;
use crate::facts::{self, Fact, Given, Reason};
use crate::finish::Finishing;
use crate::liveness::{self, Attended, Pulse};
use crate::prompt::Memory;
use crate::ready::Ready;
use crate::slot::Slot;
use crate::totals::{Attempts, Totals};
use crate::{Error, fold, retry};
use domain::record::{Deferred, When};
use domain::{Call, Digest, Event, Failure, FailureClass, Id, Usage, Wait, id};
use futures::future::{AbortHandle, BoxFuture, abortable};
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use indexmap::IndexMap;
use journal::{Append, Appended, Fence, Release, Sealer, SessionKey};
use machine::{Effect, ScopeId, Session, Stamp};
use parking_lot::Mutex;
use policy::Permit;
use std::collections::{BTreeSet, HashMap};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

/// How long a driver waits before it tries again to write what the journal did not take.
const STORE_RETRY_MS: u64 = 500;
/// Attempts to write before a driver gives up and leaves the run to the next process. An hour: a full disk may be seen to.
const STORE_ATTEMPTS_MAX: u32 = 7_200;
/// When a session whose driver failed is driven again.
const FAILED_RETRY_MS: u64 = 5_000;

/// How a driver leaves its session.
enum Rest {
    /// Nothing is wanted of it.
    Done,
    /// This process ends; another one goes on.
    Held,
}

/// What is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Task {
    Ask {
        scope: ScopeId,
        turn: u32,
        interrupts: u32,
    },
    Perform {
        call: Id<id::Call>,
    },
    Open,
    /// Not told apart by its turn: the model may answer while the workspace is kept.
    Checkpoint,
    Finish {
        run: Id<id::Run>,
    },
}

/// What came of it.
pub(crate) enum Done {
    Asked(Box<Asked>),
    Performed {
        call: Id<id::Call>,
        given: Given,
    },
    /// The lease ended before the deed; nothing was done.
    LeaseLost,
    Opened(Result<crate::bench::Opened, sandbox::Error>),
    Kept(crate::keep::Kept),
    Finished(Box<Finishing>),
}

pub(crate) struct Driver {
    pub(crate) inner: Arc<Inner>,
    pub(crate) key: SessionKey,
    wake: Wake,
    heard: u64,
    pub(crate) epoch: u64,
    /// The fold of what is durable.
    pub(crate) base: Session,
    /// The same with `pending` and what follows from it.
    pub(crate) state: Session,
    /// What happened and is not durable yet.
    pub(crate) pending: Vec<Fact>,
    /// What follows from it at once, such as judgements.
    pub(crate) derived: Vec<Fact>,
    pub(crate) memory: Memory,
    pub(crate) sealer: Sealer,
    /// The agents at work, by the digests of their closures.
    pub(crate) ready: HashMap<Digest, Arc<Ready>>,
    /// The calls of the turns under way.
    pub(crate) calls: HashMap<Id<id::Call>, Call>,
    pub(crate) permits: HashMap<Id<id::Call>, Permit>,
    /// Calls whose programs an earlier driver started, and that are to be gone on with.
    pub(crate) attached: BTreeSet<Id<id::Call>>,
    pub(crate) slot: Arc<Slot>,
    /// The same, for who clears up when this driver hangs.
    pub(crate) held: Arc<Mutex<Arc<Slot>>>,
    /// Why the current run must fail.
    pub(crate) doom: Option<Failure>,
    /// What asking used that gave no reply.
    pub(crate) spent: Usage,
    /// What tells that this driver gets on.
    pub(crate) pulse: Arc<Pulse>,
    /// How often the current run was tried, when this driver saw all of it.
    pub(crate) attempts: Option<Attempts>,
    tasks: FuturesUnordered<BoxFuture<'static, Option<(Task, Done)>>>,
    under_way: IndexMap<Task, AbortHandle>,
    /// Replies that came while the workspace was kept: the log tells of a turn's files before it tells of the next turn.
    early: Vec<(Task, Box<Asked>)>,
}

/// Drives a session until nothing is wanted of it.
pub(crate) async fn drive(inner: Arc<Inner>, job: Job) {
    let key = job.key.clone();
    let recovering = job.recovering;
    let mut driver = match Driver::start(inner.clone(), job).await {
        Ok(driver) => driver,
        Err(error) => {
            inner.dispatch.forget(&key);
            // Another worker has it: that one is told by the log itself.
            if !matches!(error, Error::Journal(journal::Error::Held { .. })) {
                tracing::error!(session_id = %key.session, code = error.code(), %error, "the session can't be driven");
            }
            return;
        }
    };
    let (epoch, held, pulse) = (driver.epoch, driver.held.clone(), driver.pulse.clone());
    // A driver that panics, or that hangs, must not take its place, or its session, with it.
    let attended = liveness::attend(&pulse, async move {
        let driven = AssertUnwindSafe(driver.run(recovering)).catch_unwind().await;
        driver.slot.close().await;
        (driven, driver.base.position)
    });
    let (folded, next_ms) = match attended.await {
        Attended::Ended(Ok((Ok(Ok(Rest::Done)), folded))) => (folded, None),
        Attended::Ended(Ok((Ok(Ok(Rest::Held)), folded))) => (folded, Some(inner.parts.clock.wall_ms())),
        Attended::Ended(Ok((Ok(Err(error)), folded))) => {
            tracing::error!(session_id = %key.session, code = error.code(), %error, "the driver failed; another one takes the session up");
            inner.dispatch.forget(&key);
            (folded, Some(inner.parts.clock.wall_ms() + FAILED_RETRY_MS))
        }
        Attended::Ended(Ok((Err(_), _)) | Err(_)) => {
            tracing::error!(session_id = %key.session, code = "driver_panicked", "the driver panicked; another one takes the session up");
            inner.dispatch.forget(&key);
            (u64::MAX, Some(inner.parts.clock.wall_ms() + FAILED_RETRY_MS))
        }
        Attended::Stopped { let_go } => {
            // Not the one that it began with: that may be another driver's by now.
            let slot = held.lock().clone();
            slot.close().await;
            inner.dispatch.forget(&key);
            (u64::MAX, Some(inner.parts.clock.wall_ms() + inner.tally.stuck(let_go, FAILED_RETRY_MS)))
        }
    };
    inner.pulses.end(&key, &pulse);
    if let Err(error) = inner.parts.journal.release(&key, Release { epoch, folded, next_ms }).await {
        // The lease ends by itself.
        tracing::warn!(session_id = %key.session, code = error.code(), %error, "the session could not be given back");
    }
}

impl Driver {
    async fn start(inner: Arc<Inner>, job: Job) -> Result<Self, Error> {
        let Job { key, wake, seed, .. } = job;
        let heard = wake.count();
        let epoch = inner.parts.journal.claim(&key).await?.epoch;
        match Self::fold(inner.clone(), key.clone(), wake, heard, epoch, seed).await {
            Ok(driver) => Ok(driver),
            Err(error) => {
                let next_ms = Some(inner.parts.clock.wall_ms() + FAILED_RETRY_MS);
                // Whatever input may have come: what can't be folded now is looked at again after a while. Whatever comes of it, the first error
                // is the one to tell.
                let _ = inner.parts.journal.release(&key, Release { epoch, folded: u64::MAX, next_ms }).await;
                Err(error)
            }
        }
    }

    async fn fold(
        inner: Arc<Inner>,
        key: SessionKey,
        wake: Wake,
        heard: u64,
        epoch: u64,
        seed: Option<Box<crate::dispatch::Seed>>,
    ) -> Result<Self, Error> {
        let sealer = inner.parts.journal.sealer(&key).await?;
        let (mut base, mut memory) = (Session::default(), Memory::default());
        let is_new = seed.is_some();
        match seed {
            Some(seed) => {
                base.apply(seed.stamp, &seed.event)?;
                let (content, text) = seed.message;
                memory.parts(&content, &[domain::Part::text(text)]);
            }
            None => fold::catch_up(&inner.parts.journal, &key, &mut base).await?,
        }
        let pulse = inner.pulses.begin(&key);
        let attempts = is_new.then(Attempts::default);
        let slot = inner.idle.take(&key, epoch).unwrap_or_default();
        Ok(Self {
            state: base.clone(),
            base,
            pulse,
            attempts,
            inner,
            key,
            wake,
            heard,
            epoch,
            pending: Vec::new(),
            derived: Vec::new(),
            memory,
            sealer,
            ready: HashMap::new(),
            calls: HashMap::new(),
            permits: HashMap::new(),
            attached: BTreeSet::new(),
            held: Arc::new(Mutex::new(slot.clone())),
            slot,
            doom: None,
            spent: Usage::default(),
            tasks: FuturesUnordered::new(),
            under_way: IndexMap::new(),
            early: Vec::new(),
        })
    }

    async fn run(&mut self, recovering: bool) -> Result<Rest, Error> {
        // A run that is parked is as its last driver left it; the machine says when it is to be taken up.
        let touched =
            |run: &machine::Run| run.parked.is_none() && (recovering || run.root().turn > 0 || run.used_sandbox);
        if let Some(run) = self.base.run.as_ref().filter(|run| touched(run)).map(|run| run.id) {
            self.take_up(run).await;
        }
        let mut linger: Option<Duration> = None;
        loop {
            self.settle().await?;
            if self.hear_early()? {
                // In one append with the checkpoint that it waited for.
                self.settle().await?;
            }
            let now = self.inner.parts.clock.monotonic();
            if self.must_write(linger.is_some_and(|until| now >= until)) {
                if self.is_joined().await? {
                    continue;
                }
                linger = None;
                self.write().await?;
                continue;
            }
            if self.pending.is_empty() {
                linger = None;
            } else {
                linger.get_or_insert(now + Duration::from_millis(self.inner.parts.limits.linger_ms_max));
            }
            self.launch().await?;
            if self.tasks.is_empty() && self.pending.is_empty() {
                if self.inner.dispatch.is_held() {
                    return Ok(if self.rests() { Rest::Done } else { Rest::Held });
                }
                if self.rests() {
                    self.lay_by().await;
                    if self.inner.dispatch.retire(&self.key, self.heard) {
                        return Ok(Rest::Done);
                    }
                    self.take_back();
                }
            }
            self.wait(linger.map(|until| until.saturating_sub(now))).await?;
        }
    }

    /// Whether nothing is wanted that this driver could do, nor will be soon.
    fn rests(&self) -> bool {
        let is_over = self.base.run.as_ref().is_none_or(|run| run.parked.is_some());
        is_over && self.base.wanted(self.inner.parts.clock.wall_ms()).is_empty()
    }

    /// Waits for whatever comes first.
    async fn wait(&mut self, linger: Option<Duration>) -> Result<(), Error> {
        let finishing = self.under_way.keys().any(|task| matches!(task, Task::Finish { .. }));
        let due = self
            .base
            .due_ms()
            .filter(|_| !finishing)
            .map(|at| at.saturating_sub(self.inner.parts.clock.wall_ms()).max(1));
        let due = due.map(Duration::from_millis);
        let soonest = [linger, due].into_iter().flatten().min();
        let timer = async {
            match soonest {
                Some(wait) => tokio::time::sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        let slot = self.slot.clone();
        // With nothing under way it waits for somebody, or for a time.
        let _rests = self.tasks.is_empty().then(|| self.pulse.excused());
        let done = tokio::select! {
            // Always in this order, so that what a driver does is a function of what happened: news from outside first.
            biased;
            () = self.wake.told() => {
                self.heard = self.wake.count();
                fold::hear(&self.inner.parts.journal, &self.key, &mut self.base).await?;
                None
            }
            done = self.tasks.next(), if !self.tasks.is_empty() => done.flatten(),
            () = slot.asked() => None,
            () = timer => None,
        };
        match done {
            Some((task, done)) => self.ended(task, done),
            None => Ok(()),
        }
    }

    /// Takes what came of a task.
    fn ended(&mut self, task: Task, done: Done) -> Result<(), Error> {
        self.under_way.shift_remove(&task);
        match done {
            Done::Asked(asked) if self.keeps() => {
                // Still under way, so that nobody asks again.
                self.under_way.insert(task, AbortHandle::new_pair().0);
                self.early.push((task, asked));
                Ok(())
            }
            done => self.done(done),
        }
    }

    /// Whether something that is there already can be written with the results that are to be written now. Results wait for
    /// nothing; but the model is asked first, and what gives its answer at its first poll (a transcript, a second call that
    /// ended too) saves them a commit of their own.
    async fn is_joined(&mut self) -> Result<bool, Error> {
        let are_results = self.pending.iter().all(|fact| matches!(fact.event, Event::Returned(_)));
        // Else the conversation would be read first.
        if !are_results || !self.derived.is_empty() || !self.memory.is_whole() {
            return Ok(false);
        }
        self.launch().await?;
        match self.tasks.next().now_or_never() {
            Some(Some(Some((task, done)))) => self.ended(task, done).map(|()| true),
            Some(Some(None)) => Ok(true),
            Some(None) | None => Ok(false),
        }
    }

    /// Whether the workspace is being kept, or about to be.
    fn keeps(&self) -> bool {
        self.wanted(&self.state).iter().any(|effect| matches!(effect, Effect::Checkpoint { .. }))
    }

    /// Takes the replies that came while the workspace was kept, but for those that nobody wants any more. Gives whether there
    /// were any.
    fn hear_early(&mut self) -> Result<bool, Error> {
        if self.early.is_empty() || self.keeps() {
            return Ok(false);
        }
        for (task, asked) in std::mem::take(&mut self.early) {
            if self.under_way.shift_remove(&task).is_some() {
                self.asked(*asked)?;
            }
        }
        Ok(true)
    }

    fn done(&mut self, done: Done) -> Result<(), Error> {
        match done {
            Done::Asked(asked) => self.asked(*asked),
            Done::Performed { call, given } => self.returned(call, &given),
            Done::LeaseLost => Err(Error::LeaseLost),
            Done::Opened(opened) => {
                self.opened(opened);
                Ok(())
            }
            Done::Kept(kept) => {
                self.kept(kept);
                Ok(())
            }
            Done::Finished(finishing) => self.finished(*finishing),
        }
    }

    /// Whether what is pending must be written before anything else happens.
    fn must_write(&self, lingered: bool) -> bool {
        !self.derived.is_empty()
            || self.pending.iter().any(|fact| !fact.may_linger)
            || (lingered && !self.pending.is_empty())
    }

    /// Writes what is pending and what follows from it, in one append.
    async fn write(&mut self) -> Result<(), Error> {
        let fence = Fence::Effect { epoch: self.epoch, expect: self.base.position };
        let mut append = Append::new(self.key.clone(), fence);
        self.pending.iter().chain(&self.derived).for_each(|fact| fact.add_to(&mut append));
        crate::points::before_append(self.pending.iter().chain(&self.derived));
        for attempt in 1.. {
            match self.inner.parts.journal.append(append.clone()).await {
                Ok(Appended::Written(_) | Appended::Existing(_)) => break,
                Err(journal::Error::Moved { .. }) => {
                    // Something came from outside: fold it and see whether this is still what is to happen.
                    self.derived.clear();
                    return fold::hear(&self.inner.parts.journal, &self.key, &mut self.base).await;
                }
                Err(error) if may_pass(&error) && attempt < STORE_ATTEMPTS_MAX => {
                    let session_id = self.key.session;
                    tracing::error!(%session_id, code = error.code(), %error, attempt, "the journal does not take records; trying again");
                    let _waits = self.pulse.excused();
                    tokio::time::sleep(Duration::from_millis(STORE_RETRY_MS)).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.written().await;
        Ok(())
    }

    /// What was pending is durable.
    async fn written(&mut self) {
        let before = std::mem::replace(&mut self.base, self.state.clone());
        let facts: Vec<Fact> = self.pending.drain(..).chain(self.derived.drain(..)).collect();
        crate::points::after_append(facts.iter());
        for fact in facts {
            if let Some(attempts) = &mut self.attempts {
                attempts.see(&fact.event);
            }
            match &fact.event {
                Event::SandboxOpened(_) => self.slot.recorded(),
                // What stood still while the run waited goes on with it.
                Event::Resumed(_) if self.slot.has_programs() => self.slot.want(),
                Event::Returned(body) => self.slot.terminals().recorded(body.call).await,
                Event::Parked(body) if body.waits_for != Wait::Retry => self.tell_parked(body.run).await,
                // With nothing else to do, a doubt parks the run without a record of its own.
                Event::InDoubt(body) if self.base.run.as_ref().is_some_and(|run| run.parked.is_some()) => {
                    self.tell_parked(body.run).await;
                }
                Event::Finished(body) => {
                    self.doom = None;
                    self.spent = Usage::default();
                    self.calls.clear();
                    self.permits.clear();
                    self.ready.clear();
                    self.tell_end(&before, fact.stamp, body).await;
                    self.attempts = Some(Attempts::default());
                }
                _ => {}
            }
        }
        let attempts = self.attempts.map(Attempts::count);
        self.pulse.wrote(self.base.run.as_ref().map(|run| Totals::of(run, attempts)));
    }

    /// Starts what is wanted and not under way, and ends what is under way and no longer wanted.
    async fn launch(&mut self) -> Result<(), Error> {
        let wanted = self.wanted(&self.state);
        let mut keep: Vec<Task> = wanted.iter().filter_map(task_of).collect();
        keep.extend(self.asks_let_end(&self.state));
        let opening = self.slot.is_wanted();
        self.under_way.retain(|task, handle| {
            let kept = keep.contains(task) || (*task == Task::Open && opening);
            if !kept {
                handle.abort();
            }
            kept
        });
        if opening && !self.under_way.contains_key(&Task::Open) {
            let future = self.open();
            self.begin(Task::Open, future);
        }
        for effect in wanted {
            let Some(task) = task_of(&effect).filter(|task| !self.under_way.contains_key(task)) else {
                continue;
            };
            match effect {
                Effect::Ask { scope, turn, tokens, .. } if !self.inner.dispatch.is_held() => {
                    let future = self.ask(scope, turn, tokens).await?;
                    self.begin(task, future);
                }
                Effect::Checkpoint { turn } if self.pending.is_empty() => {
                    let future = self.keep(turn);
                    self.begin(task, future);
                }
                Effect::Perform { call } if self.is_durably_begun(call) => {
                    let future = self.perform(call);
                    self.begin(task, future);
                }
                Effect::Finish { run, status, failure } => {
                    let future = self.finish(run, status, failure);
                    self.begin(task, future);
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn begin(&mut self, task: Task, future: BoxFuture<'static, Done>) {
        let (future, handle) = abortable(future);
        self.under_way.insert(task, handle);
        self.tasks.push(Box::pin(async move { future.await.ok().map(|done| (task, done)) }));
    }

    /// What is wanted of this driver, its own troubles included.
    pub(crate) fn wanted(&self, state: &Session) -> Vec<Effect> {
        let mut wanted = state.wanted(self.inner.parts.clock.wall_ms());
        if !self.asks_let_end(state).is_empty() {
            // The turn that the model is asked for is let end first.
            let ends = |effect: &Effect| matches!(effect, Effect::Finish { run, .. } if state.run.as_ref().is_some_and(|current| current.id == *run));
            wanted.retain(|effect| !ends(effect) && !matches!(effect, Effect::Park { .. }));
        }
        let Some((failure, run)) = self.doom.clone().zip(state.run.as_ref()) else { return wanted };
        if wanted.iter().any(|effect| matches!(effect, Effect::Finish { run: ends, .. } if *ends == run.id)) {
            return wanted;
        }
        let begun = run.calls.iter().filter(|(_, call)| call.is_begun());
        let why = machine::Abort::RunEnds;
        let aborts: Vec<_> = begun.map(|(call, _)| Effect::Abort { call: *call, why }).collect();
        if aborts.is_empty() {
            let status = domain::RunStatus::Failed;
            return vec![Effect::Finish { run: run.id, status, failure: Some(failure) }];
        }
        aborts
    }

    /// Questions under way that nobody wants any more but that are let end: a run that is paused, or ends after its turn, keeps
    /// what its model is saying.
    fn asks_let_end(&self, state: &Session) -> Vec<Task> {
        let Some(run) = &state.run else { return Vec::new() };
        let is_gentle = run.is_paused || run.cancelled == Some(When::AfterTurn);
        if !is_gentle || run.cancelled == Some(When::Now) {
            return Vec::new();
        }
        let current = |task: &&Task| matches!(task, Task::Ask { interrupts, .. } if *interrupts == run.interrupts);
        self.under_way.keys().filter(current).copied().collect()
    }

    /// Whether a call's `began` is durable.
    fn is_durably_begun(&self, call: Id<id::Call>) -> bool {
        let run = self.base.run.as_ref();
        run.and_then(|run| run.calls.get(&call)).is_some_and(machine::Call::is_begun)
    }

    /// Records what a call gave, once; or that it is to be made again later.
    fn returned(&mut self, call: Id<id::Call>, given: &Given) -> Result<(), Error> {
        let Some(run) = self.base.run.as_ref().map(|run| run.id) else { return Ok(()) };
        if given.code.as_deref() == Some("sandbox_gone") {
            self.sandbox_gone(run);
        }
        if let Some(deferred) = self.tried_again(call, given) {
            self.pending.push(Fact::bare(self.stamp(), Event::Deferred(deferred)));
            return Ok(());
        }
        let (fact, content) = facts::returned(self.stamp(), &self.sealer, run, call, given)?;
        self.memory.parts(&content, &given.parts);
        self.pending.push(fact);
        Ok(())
    }

    /// When a call that failed for a passing reason is made again, by its contract.
    fn tried_again(&self, id: Id<id::Call>, given: &Given) -> Option<Deferred> {
        let failure = given.passes.clone()?;
        let run = self.base.run.as_ref()?;
        let state = run.calls.get(&id)?;
        let ready = self.ready_of(state.scope)?;
        let contract = ready.toolbox.contract(&self.calls.get(&id)?.tool)?;
        let now_ms = self.inner.parts.clock.wall_ms();
        let since_ms = state.first_began_ms.unwrap_or(now_ms);
        let until_ms = retry::next(&contract.retry, state.attempt, since_ms, now_ms, None, &self.inner.parts.random)?;
        let (scope, usage) = (state.scope, Usage::default());
        Some(Deferred { run: run.id, scope, call: Some(id), failure, attempt: state.attempt, until_ms, usage })
    }

    /// Ends a call that is under way, and says so in the record.
    pub(crate) fn abort(&mut self, call: Id<id::Call>, why: machine::Abort) -> Given {
        if let Some(handle) = self.under_way.shift_remove(&Task::Perform { call }) {
            handle.abort();
        }
        let text = match why {
            machine::Abort::RunEnds => "The call was ended because the run ended.",
            machine::Abort::Steered => "The call was ended because the user had something else to say.",
        };
        Given { changed_workspace: self.slot.ready().is_some(), ..Given::because(Reason::Cancelled, text) }
    }

    /// The agent at work in a scope, ready.
    pub(crate) fn ready_of(&self, scope: ScopeId) -> Option<Arc<Ready>> {
        let digest = self.state.run.as_ref()?.scopes.get(&scope)?.closure;
        self.ready.get(&digest).cloned()
    }

    /// Now, on the authority of the engine itself.
    pub(crate) fn stamp(&self) -> Stamp {
        Stamp { at_ms: self.inner.parts.clock.wall_ms(), principal: engine_principal(&self.key.tenant) }
    }

    /// The current run fails.
    pub(crate) fn fail(&mut self, failure: Failure) {
        self.doom.get_or_insert(failure);
    }

    /// The current run fails because of the sandbox.
    pub(crate) fn fail_sandbox(&mut self, error: &sandbox::Error) {
        self.fail(Failure::new(FailureClass::Sandbox, error.code(), error.to_string()));
    }
}

/// On whose authority the engine records what came of a run.
pub(crate) fn engine_principal(tenant: &str) -> Id<id::Principal> {
    Id::from_name(tenant, "engine")
}

/// Whether the journal may take the same append later.
const fn may_pass(error: &journal::Error) -> bool {
    matches!(error, journal::Error::Full | journal::Error::Io { .. } | journal::Error::Objects { .. })
}

fn task_of(effect: &Effect) -> Option<Task> {
    Some(match effect {
        Effect::Ask { scope, turn, interrupts, .. } => {
            Task::Ask { scope: *scope, turn: *turn, interrupts: *interrupts }
        }
        Effect::Perform { call } => Task::Perform { call: *call },
        Effect::Finish { run, .. } => Task::Finish { run: *run },
        Effect::Checkpoint { .. } => Task::Checkpoint,
        Effect::Resume { .. }
        | Effect::Park { .. }
        | Effect::Reserve { .. }
        | Effect::Compensate { .. }
        | Effect::Judge { .. }
        | Effect::Begin { .. }
        | Effect::Abort { .. }
        | Effect::Answer { .. }
        | Effect::Doubt { .. } => return None,
    })
}
