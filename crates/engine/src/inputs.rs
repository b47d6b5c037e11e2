//! Wishes about runs that are under way: end, pause, go on, say something else, raise limits, settle what is in doubt. Each is
//! looked at against the log as it stands, so that a wish that makes no sense is refused with its reason, and is then recorded.
//! What it comes to is decided by the fold (`machine`); approvals are in `approvals`.

use crate::engine::{Engine, Inner};
use crate::fold;
use crate::submit::{KEY_MS, check_message, finish};
use crate::{Error, IdempotencyKey, RunView};
use domain::content::media;
use domain::contract::Rollback;
use domain::record::{
    CancelRequested, Draft, PauseRequested, Raised, Resolution, Resolved, ResumeRequested, Steered, When,
};
use domain::{ContentRef, Event, Id, Limits, Part, Wait, id};
use journal::{Append, Appended, Fence, Idempotency, RunRow, SealedItem, SessionKey, Written};
use machine::{CallState, Run, Session, Stamp};
use std::sync::Arc;

/// Messages that may wait to be told to a run.
pub const STEERS_MAX: usize = 64;

/// Other limits for a run; what is `None` stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LimitChange {
    /// Model replies.
    pub turns: Option<u32>,
    /// Tool calls.
    pub tool_calls: Option<u32>,
    /// Tokens in and out, over all turns.
    pub tokens: Option<u64>,
    /// Seconds of running.
    pub running_seconds: Option<u64>,
    /// Millionths of a US dollar.
    pub cost_micro_usd: Option<u64>,
}

/// What somebody says became of a call in doubt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// It took effect.
    Happened {
        /// What it gave, as the model is told.
        output: String,
    },
    /// It took no effect.
    DidNotHappen,
    /// It is to be undone by the tool that its contract names.
    Compensate,
}

/// A run and its session as they stand.
pub(crate) struct Standing {
    pub(crate) row: RunRow,
    pub(crate) key: SessionKey,
    pub(crate) state: Session,
}

impl Standing {
    /// The run, unless it has ended.
    pub(crate) fn run(&self) -> Result<&Run, Error> {
        self.state.run_of(self.row.run).ok_or(Error::RunEnded { run: self.row.run })
    }

    /// The run, unless it has ended or is about to.
    fn going_on(&self) -> Result<&Run, Error> {
        let run = self.run()?;
        match run.cancelled {
            Some(When::Now) => Err(Error::RunEnding { run: run.id }),
            Some(When::AfterTurn) | None => Ok(run),
        }
    }
}

/// Who asks for something about a run, and under which key.
#[derive(Clone, Copy, Debug)]
struct By<'a> {
    tenant: &'a str,
    run: Id<id::Run>,
    principal: Id<id::Principal>,
    idempotency: Option<IdempotencyKey>,
}

/// What a wish comes to.
#[derive(Debug)]
struct Said {
    event: Event,
    contents: Vec<SealedItem>,
}

impl Said {
    const fn bare(event: Event) -> Self {
        Self { event, contents: Vec::new() }
    }
}

/// A wish that is about to be recorded.
pub(crate) struct Wish {
    pub(crate) principal: Id<id::Principal>,
    pub(crate) event: Event,
    pub(crate) contents: Vec<SealedItem>,
    pub(crate) idempotency: Option<IdempotencyKey>,
}

impl Engine {
    /// Asks for the end of a run. When this returns, the wish is durable; the run ends as soon as its calls are dead, or when its
    /// turn has ended. Of a run that has ended, nothing changes.
    pub async fn cancel(
        &self,
        tenant: &str,
        run: Id<id::Run>,
        principal: Id<id::Principal>,
        when: When,
        idempotency: Option<IdempotencyKey>,
    ) -> Result<RunView, Error> {
        let by = By { tenant, run, principal, idempotency };
        self.wished(by, async |standing| {
            // Of a run that has ended, or is about to in this way or a sooner one, nothing changes.
            let Ok(current) = standing.run() else { return Ok(None) };
            let is_known = current.cancelled == Some(When::Now) || current.cancelled == Some(when);
            Ok((!is_known).then(|| Said::bare(Event::CancelRequested(CancelRequested { run, when }))))
        })
        .await
    }

    /// Has a run begin nothing new. Calls that have begun end, and what the model is saying is kept.
    pub async fn pause(
        &self,
        tenant: &str,
        run: Id<id::Run>,
        principal: Id<id::Principal>,
        idempotency: Option<IdempotencyKey>,
    ) -> Result<RunView, Error> {
        let by = By { tenant, run, principal, idempotency };
        self.wished(by, async |standing| {
            let is_paused = standing.going_on()?.is_paused;
            Ok((!is_paused).then(|| Said::bare(Event::PauseRequested(PauseRequested { run }))))
        })
        .await
    }

    /// Has a run that was paused go on.
    pub async fn resume(
        &self,
        tenant: &str,
        run: Id<id::Run>,
        principal: Id<id::Principal>,
        idempotency: Option<IdempotencyKey>,
    ) -> Result<RunView, Error> {
        let by = By { tenant, run, principal, idempotency };
        self.wished(by, async |standing| {
            if !standing.going_on()?.is_paused {
                return Err(Error::RunNotPaused { run });
            }
            Ok(Some(Said::bare(Event::ResumeRequested(ResumeRequested { run }))))
        })
        .await
    }

    /// Has the model told something in the middle of a run: after the turn that is under way, or at once. At once, calls that
    /// have begun are killed and those that have not are not made.
    pub async fn steer(
        &self,
        tenant: &str,
        run: Id<id::Run>,
        principal: Id<id::Principal>,
        message: String,
        when: When,
        idempotency: Option<IdempotencyKey>,
    ) -> Result<RunView, Error> {
        check_message(&message)?;
        let by = By { tenant, run, principal, idempotency };
        self.wished(by, async |standing| {
            if standing.going_on()?.steers.len() >= STEERS_MAX {
                return Err(Error::SteersMax { waiting: STEERS_MAX });
            }
            let (message, item) = self.0.seal_text(&standing.key, media::TEXT, message.as_bytes()).await?;
            Ok(Some(Said { event: Event::Steered(Steered { run, message, when }), contents: vec![item] }))
        })
        .await
    }

    /// Raises limits of a run. One that waits because it reached a limit goes on.
    pub async fn raise(
        &self,
        tenant: &str,
        run: Id<id::Run>,
        principal: Id<id::Principal>,
        raise: LimitChange,
        idempotency: Option<IdempotencyKey>,
    ) -> Result<RunView, Error> {
        let by = By { tenant, run, principal, idempotency };
        self.wished(by, async |standing| {
            let limits = raise.raised(*standing.going_on()?.limits())?;
            let event = Event::Raised(Raised { run, limits });
            self.0.has_effect(standing, principal, &event)?;
            Ok(Some(Said::bare(event)))
        })
        .await
    }

    /// Says what became of a call in doubt. On a journal that processes share, not before whoever performed it can't any more:
    /// its timeout and a lease after it began.
    pub async fn resolve(
        &self,
        tenant: &str,
        run: Id<id::Run>,
        call: Id<id::Call>,
        principal: Id<id::Principal>,
        settlement: Settlement,
        idempotency: Option<IdempotencyKey>,
    ) -> Result<RunView, Error> {
        if let Settlement::Happened { output } = &settlement
            && output.len() > crate::MESSAGE_BYTES_MAX
        {
            return Err(Error::MessageTooLarge { bytes: output.len(), bytes_max: crate::MESSAGE_BYTES_MAX });
        }
        let by = By { tenant, run, principal, idempotency };
        self.wished(by, async |standing| {
            self.0.may_resolve(standing, call, &settlement).await?;
            let mut contents = Vec::new();
            let resolution = match &settlement {
                Settlement::Happened { output } => {
                    let parts = [Part::text(self.0.parts.secrets.redactor().text(output))];
                    let json = serde_json::to_vec(&parts).map_err(domain::record::Error::Form)?;
                    let (output, item) = self.0.parts.journal.sealer(&standing.key).await?.seal(media::PARTS, &json)?;
                    contents.push(item);
                    Resolution::Happened { output }
                }
                Settlement::DidNotHappen => Resolution::DidNotHappen,
                Settlement::Compensate => Resolution::Compensate,
            };
            Ok(Some(Said { event: Event::Resolved(Resolved { run, call, resolution }), contents }))
        })
        .await
    }

    /// Records what `said` makes of a run as it stands, unless that is nothing or the same request was taken before; gives the run
    /// as it stands then.
    async fn wished(
        &self,
        by: By<'_>,
        said: impl AsyncFnOnce(&Standing) -> Result<Option<Said>, Error>,
    ) -> Result<RunView, Error> {
        let By { tenant, run, principal, idempotency } = by;
        if let Some(standing) = self.0.standing(tenant, run, idempotency).await?
            && let Some(Said { event, contents }) = said(&standing).await?
        {
            self.0.wish(standing.key, Wish { principal, event, contents, idempotency }).await?;
        }
        self.run(tenant, run).await
    }
}

impl Inner {
    /// A run and its session as they stand; `None` when this very request was taken before.
    pub(crate) async fn standing(
        &self,
        tenant: &str,
        run: Id<id::Run>,
        idempotency: Option<IdempotencyKey>,
    ) -> Result<Option<Standing>, Error> {
        let row = self.row(tenant, run).await?;
        if self.was_taken(&row.tenant, run, idempotency).await? {
            return Ok(None);
        }
        let key = SessionKey::new(row.tenant.clone(), row.session);
        let mut state = Session::default();
        fold::catch_up(&self.parts.journal, &key, &mut state).await?;
        Ok(Some(Standing { row, key, state }))
    }

    /// Whether a request was taken before.
    pub(crate) async fn was_taken(
        &self,
        tenant: &Arc<str>,
        run: Id<id::Run>,
        idempotency: Option<IdempotencyKey>,
    ) -> Result<bool, Error> {
        let Some(asked) = self.keyed(run, idempotency) else { return Ok(false) };
        match self.parts.journal.taken(tenant, &asked).await {
            Ok(taken) => Ok(taken.is_some()),
            Err(journal::Error::IdempotencyConflict { .. }) => Err(Error::IdempotencyConflict),
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) fn keyed(&self, run: Id<id::Run>, idempotency: Option<IdempotencyKey>) -> Option<Idempotency> {
        let IdempotencyKey { key, body } = idempotency?;
        Some(Idempotency { key, body, run, expires_at_ms: self.parts.clock.wall_ms() + KEY_MS })
    }

    /// Seals what a person or a program said; whatever it holds of a leased secret is taken out.
    pub(crate) async fn seal_text(
        &self,
        key: &SessionKey,
        media: &str,
        text: &[u8],
    ) -> Result<(ContentRef, SealedItem), Error> {
        let redactor = self.parts.secrets.redactor();
        Ok(self.parts.journal.sealer(key).await?.seal(media, &redactor.bytes(text))?)
    }

    /// Records a wish and has the session driven; `None`: the same request was recorded by somebody else meanwhile.
    pub(crate) async fn wish(self: &Arc<Self>, key: SessionKey, wish: Wish) -> Result<Option<Written>, Error> {
        let Wish { principal, event, contents, idempotency } = wish;
        let fence = Fence::Input(self.keyed(event.run(), idempotency));
        let draft = Draft { at_ms: self.parts.clock.wall_ms(), principal, event };
        let mut append = Append::new(key.clone(), fence).draft(&draft);
        append.contents = contents;
        let inner = self.clone();
        finish(async move {
            match inner.parts.journal.append(append).await {
                Ok(Appended::Existing(_)) => Ok(None),
                Ok(Appended::Written(written)) => {
                    stdx::points::reach("wish.after_append");
                    inner.clone().start(inner.dispatch.grown(&key, false, None));
                    Ok(Some(written))
                }
                Err(journal::Error::IdempotencyConflict { .. }) => Err(Error::IdempotencyConflict),
                Err(error) => Err(error.into()),
            }
        })
        .await
    }

    /// Whether a run that waits for its budget would go on with these limits.
    fn has_effect(&self, standing: &Standing, principal: Id<id::Principal>, event: &Event) -> Result<(), Error> {
        let waits = |run: &Run| run.parked.is_some_and(|parked| parked.waits_for == Wait::Budget);
        if !standing.state.run.as_ref().is_some_and(|run| run.id == event.run() && waits(run)) {
            return Ok(());
        }
        let at_ms = self.parts.clock.wall_ms();
        let mut state = standing.state.clone();
        state.apply(Stamp { at_ms, principal }, event)?;
        if state.wanted(at_ms).is_empty() {
            let detail = "the run has used more than that already".to_owned();
            return Err(Error::RaiseTooLow { detail });
        }
        Ok(())
    }

    /// Refuses to settle a call that is not in doubt, that may still be under way, or that can't be undone.
    async fn may_resolve(&self, standing: &Standing, id: Id<id::Call>, settlement: &Settlement) -> Result<(), Error> {
        let run = standing.going_on()?;
        let call = run.calls.get(&id).ok_or(Error::NoSuchCall { call: id })?;
        let CallState::InDoubt { began_ms } = call.state else { return Err(Error::NotInDoubt { call: id }) };
        let closure = run.scopes.get(&call.scope).map(|scope| scope.closure).ok_or(Error::NoSuchCall { call: id })?;
        let tool = call.tool.as_deref().unwrap_or_default();
        let ready = self.pinned(closure).await?;
        let contract = ready.toolbox.contract(tool);
        if self.parts.journal.is_shared() {
            // A process that drives nothing has no lease; the project's is that of those who drive.
            let declared_ms = || u64::from((self.parts.catalog)().settings.worker.lease_seconds) * 1_000;
            let lease_ms = self.parts.journal.worker().map_or_else(declared_ms, |worker| worker.lease_ms());
            let timeout_ms = contract.map_or(0, |contract| contract.timeout_ms);
            let opens_ms = began_ms.saturating_add(timeout_ms).saturating_add(lease_ms);
            let now_ms = self.parts.clock.wall_ms();
            if now_ms < opens_ms {
                return Err(Error::ResolveTooEarly { call: id, retry_after_ms: opens_ms - now_ms });
            }
        }
        if *settlement == Settlement::Compensate {
            let with = contract.and_then(|contract| match &contract.rollback {
                Rollback::Compensate { with } => ready.toolbox.contract(with),
                Rollback::None | Rollback::Checkpoint => None,
            });
            if with.is_none() {
                return Err(Error::NoCompensation { tool: tool.to_owned() });
            }
        }
        Ok(())
    }
}

impl LimitChange {
    /// Limits with what is raised; none may be lower than it is.
    fn raised(&self, now: Limits) -> Result<Limits, Error> {
        self.changed(now, |what, asked, is| {
            (asked >= is).then_some(()).ok_or_else(|| {
                let detail = format!("{what} is {is} already, and {asked} is less");
                Error::RaiseTooLow { detail }
            })
        })
    }

    /// Limits with what is lowered; none may be higher than it is.
    pub(crate) fn lowered(&self, now: Limits) -> Result<Limits, Error> {
        self.changed(now, |what, asked, most| {
            (asked <= most).then_some(()).ok_or(Error::LimitsHigher { what, asked, most })
        })
    }

    fn changed(
        &self,
        now: Limits,
        check: impl Fn(&'static str, u64, u64) -> Result<(), Error>,
    ) -> Result<Limits, Error> {
        let mut limits = now;
        if let Some(turns) = self.turns {
            check("turns", turns.into(), now.turns.into())?;
            limits.turns = turns;
        }
        if let Some(tool_calls) = self.tool_calls {
            check("tool_calls", tool_calls.into(), now.tool_calls.into())?;
            limits.tool_calls = tool_calls;
        }
        if let Some(tokens) = self.tokens {
            check("tokens", tokens, now.tokens)?;
            limits.tokens = tokens;
        }
        if let Some(seconds) = self.running_seconds {
            check("running_seconds", seconds, now.running_seconds)?;
            limits.running_seconds = seconds;
        }
        if let Some(cost) = self.cost_micro_usd {
            // No limit on cost is the highest.
            check("cost_micro_usd", cost, now.cost_micro_usd.unwrap_or(u64::MAX))?;
            limits.cost_micro_usd = Some(cost);
        }
        Ok(limits)
    }
}
