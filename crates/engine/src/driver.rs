//! Drives one session: folds its log, performs what is wanted, records what came of it, until nothing is wanted.
//!
//! Two states are kept: `base`, the fold of what is durable, and `state`, which also holds what is about to be. Whatever has an
//! effect outside starts from `base`; only the model is asked from `state`.

use crate::ask::Asked;
use crate::bench::Slot;
use crate::dispatch::{Job, Wake};
use crate::engine::Inner;
use crate::facts::{self, Fact, Given, Reason};
use crate::finish::Finishing;
use crate::prompt::Memory;
use crate::ready::Ready;
use crate::{Error, fold};
use domain::record::Resumed;
use domain::{Call, Event, Failure, FailureClass, Id, Usage, id};
use futures::StreamExt;
use futures::future::{AbortHandle, BoxFuture, abortable};
use futures::stream::FuturesUnordered;
use journal::{Append, Appended, Fence, Sealer, SessionKey};
use machine::{Effect, Session, Stamp};
use policy::Permit;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// How long a driver waits before it tries again to write what the journal did not take.
const STORE_RETRY_MS: u64 = 500;
/// Attempts to write before a driver gives up and leaves the run to the next process. An hour: a full disk may be seen to.
const STORE_ATTEMPTS_MAX: u32 = 7_200;

/// What is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Task {
    Ask { turn: u32 },
    Perform { call: Id<id::Call> },
    Open,
    Finish { run: Id<id::Run> },
}

/// What came of it.
pub(crate) enum Done {
    Asked(Box<Asked>),
    Performed { call: Id<id::Call>, given: Given },
    Opened(Result<crate::bench::Opened, sandbox::Error>),
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
    pub(crate) ready: Option<Arc<Ready>>,
    /// The calls of the current turn.
    pub(crate) calls: HashMap<Id<id::Call>, Call>,
    pub(crate) permits: HashMap<Id<id::Call>, Permit>,
    pub(crate) slot: Arc<Slot>,
    /// Why the current run must fail.
    pub(crate) doom: Option<Failure>,
    /// What asking used that gave no reply.
    pub(crate) spent: Usage,
    tasks: FuturesUnordered<BoxFuture<'static, Option<(Task, Done)>>>,
    under_way: HashMap<Task, AbortHandle>,
}

/// Drives a session until nothing is wanted of it.
pub(crate) async fn drive(inner: Arc<Inner>, job: Job) {
    let key = job.key.clone();
    let recovering = job.recovering;
    match Driver::start(inner.clone(), job).await {
        Ok(mut driver) => {
            if let Err(error) = driver.run(recovering).await {
                driver.slot.close().await;
                tracing::error!(session_id = %key.session, code = error.code(), %error, "the driver failed; the run goes on at the next start");
                inner.dispatch.forget(&key);
            }
        }
        Err(error) => {
            tracing::error!(session_id = %key.session, code = error.code(), %error, "the session can't be driven");
            inner.dispatch.forget(&key);
        }
    }
}

impl Driver {
    async fn start(inner: Arc<Inner>, job: Job) -> Result<Self, Error> {
        let Job { key, wake, seed, .. } = job;
        let heard = wake.count();
        let epoch = inner.parts.journal.claim(&key).await?.epoch;
        let sealer = inner.parts.journal.sealer(&key).await?;
        let (mut base, mut memory) = (Session::default(), Memory::default());
        match seed {
            Some(seed) => {
                base.apply(seed.stamp, &seed.event)?;
                let (content, text) = seed.message;
                memory.parts(&content, &[domain::Part::text(text)]);
            }
            None => fold::catch_up(&inner.parts.journal, &key, &mut base).await?,
        }
        Ok(Self {
            state: base.clone(),
            base,
            inner,
            key,
            wake,
            heard,
            epoch,
            pending: Vec::new(),
            derived: Vec::new(),
            memory,
            sealer,
            ready: None,
            calls: HashMap::new(),
            permits: HashMap::new(),
            slot: Arc::new(Slot::default()),
            doom: None,
            spent: Usage::default(),
            tasks: FuturesUnordered::new(),
            under_way: HashMap::new(),
        })
    }

    async fn run(&mut self, recovering: bool) -> Result<(), Error> {
        let touched = |run: &machine::Run| recovering || run.turn > 0 || run.used_sandbox;
        if let Some(run) = self.base.run.as_ref().filter(|run| touched(run)) {
            let event = Event::Resumed(Resumed { run: run.id, epoch: self.epoch });
            self.pending.push(Fact::bare(self.stamp(), event));
        }
        let mut linger: Option<Duration> = None;
        loop {
            self.settle().await?;
            let now = self.inner.parts.clock.monotonic();
            if self.must_write(linger.is_some_and(|until| now >= until)) {
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
                let parked = self.inner.dispatch.is_held();
                if parked || (self.rests() && self.inner.dispatch.retire(&self.key, self.heard)) {
                    self.slot.close().await;
                    return Ok(());
                }
            }
            self.wait(linger.map(|until| until.saturating_sub(now))).await?;
        }
    }

    /// Whether nothing is wanted that this driver could do.
    fn rests(&self) -> bool {
        self.base.wanted(self.inner.parts.clock.wall_ms()).is_empty()
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
        let done = tokio::select! {
            // Always in this order, so that what a driver does is a function of what happened: news from outside first.
            biased;
            () = self.wake.told() => {
                self.heard = self.wake.count();
                fold::catch_up(&self.inner.parts.journal, &self.key, &mut self.base).await?;
                None
            }
            done = self.tasks.next(), if !self.tasks.is_empty() => done.flatten(),
            () = slot.asked() => None,
            () = timer => None,
        };
        match done {
            Some((task, done)) => {
                self.under_way.remove(&task);
                self.done(done)
            }
            None => Ok(()),
        }
    }

    fn done(&mut self, done: Done) -> Result<(), Error> {
        match done {
            Done::Asked(asked) => self.asked(*asked),
            Done::Performed { call, given } => self.returned(call, &given),
            Done::Opened(opened) => {
                self.opened(opened);
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
        for attempt in 1.. {
            match self.inner.parts.journal.append(append.clone()).await {
                Ok(Appended::Written(_) | Appended::Existing(_)) => break,
                Err(journal::Error::Moved { .. }) => {
                    // Something came from outside: fold it and see whether this is still what is to happen.
                    self.derived.clear();
                    return fold::catch_up(&self.inner.parts.journal, &self.key, &mut self.base).await;
                }
                Err(error) if may_pass(&error) && attempt < STORE_ATTEMPTS_MAX => {
                    let session_id = self.key.session;
                    tracing::error!(%session_id, code = error.code(), %error, attempt, "the journal does not take records; trying again");
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
        for fact in facts {
            match &fact.event {
                Event::SandboxOpened(_) => self.slot.recorded(),
                Event::Finished(body) => {
                    self.doom = None;
                    self.spent = Usage::default();
                    self.calls.clear();
                    self.permits.clear();
                    self.ready = None;
                    self.tell_end(&before, fact.stamp, body).await;
                }
                _ => {}
            }
        }
    }

    /// Starts what is wanted and not under way, and ends what is under way and no longer wanted.
    async fn launch(&mut self) -> Result<(), Error> {
        let wanted = self.wanted(&self.state);
        let keep: Vec<Task> = wanted.iter().filter_map(task_of).collect();
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
                Effect::Ask { turn } if !self.inner.dispatch.is_held() => {
                    let future = self.ask(turn).await?;
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
        let wanted = state.wanted(self.inner.parts.clock.wall_ms());
        let Some((failure, run)) = self.doom.clone().zip(state.run.as_ref()) else { return wanted };
        if wanted.iter().any(|effect| matches!(effect, Effect::Finish { run: ends, .. } if *ends == run.id)) {
            return wanted;
        }
        let began = |(call, state): (&Id<id::Call>, &machine::CallState)| {
            matches!(state, machine::CallState::Began { .. }).then_some(Effect::Abort { call: *call })
        };
        let aborts: Vec<_> = run.calls.iter().filter_map(began).collect();
        if aborts.is_empty() {
            let status = domain::RunStatus::Failed;
            return vec![Effect::Finish { run: run.id, status, failure: Some(failure) }];
        }
        aborts
    }

    /// Whether a call's `began` is durable.
    fn is_durably_begun(&self, call: Id<id::Call>) -> bool {
        let run = self.base.run.as_ref();
        matches!(run.and_then(|run| run.calls.get(&call)), Some(machine::CallState::Began { .. }))
    }

    /// Records what a call gave, once.
    fn returned(&mut self, call: Id<id::Call>, given: &Given) -> Result<(), Error> {
        let Some(run) = self.base.run.as_ref().map(|run| run.id) else { return Ok(()) };
        let (fact, content) = facts::returned(self.stamp(), &self.sealer, run, call, given)?;
        self.memory.parts(&content, &given.parts);
        self.pending.push(fact);
        Ok(())
    }

    /// Ends a call that is under way, and says so in the record.
    pub(crate) fn abort(&mut self, call: Id<id::Call>) -> Given {
        if let Some(handle) = self.under_way.remove(&Task::Perform { call }) {
            handle.abort();
        }
        Given::because(Reason::Cancelled, "The call was ended because the run ended.")
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
        Effect::Ask { turn } => Task::Ask { turn: *turn },
        Effect::Perform { call } => Task::Perform { call: *call },
        Effect::Finish { run, .. } => Task::Finish { run: *run },
        Effect::Judge { .. }
        | Effect::Begin { .. }
        | Effect::Abort { .. }
        | Effect::Answer { .. }
        | Effect::Doubt { .. } => return None,
    })
}
