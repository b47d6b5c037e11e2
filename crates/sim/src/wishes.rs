//! What people wish of runs that are under way: end, pause, go on, something else said, higher limits, votes, words on what became
//! of a call in doubt, another session from here. At random while the world is troubled; until everything has ended when it rests.

use crate::TENANT;
use crate::check;
use crate::ledger::Ledger;
use crate::power::Power;
use crate::project::PLANS;
use crate::restart::log_of;
use domain::record::{Vote, When};
use domain::{Id, RunStatus, id};
use engine::{Ballot, Engine, Error, Fork, LimitChange, Settlement, Ticket};
use journal::SessionKey;
use machine::CallState;
use stdx::Random;

/// Somebody who may wish.
#[derive(Clone, Debug)]
pub(crate) struct Operator {
    pub(crate) engine: Engine,
    pub(crate) random: Random,
    pub(crate) power: Power,
    pub(crate) ledger: Ledger,
    pub(crate) is_troubled: bool,
}

impl Operator {
    fn principal(&self) -> Id<id::Principal> {
        Id::from_name(TENANT, &format!("operator-{}", self.random.below(4)))
    }

    fn when(&self) -> When {
        if self.random.below(2) == 0 { When::Now } else { When::AfterTurn }
    }

    /// One wish about some run.
    pub(crate) async fn wish(&self) {
        let Some(ticket) = self.ledger.some(&self.random) else { return };
        let (engine, run, principal) = (&self.engine, ticket.run, self.principal());
        let answer = match self.random.below(10) {
            0 | 1 => {
                let cancelled = engine.cancel(TENANT, run, principal, self.when(), None).await.map(drop);
                if cancelled.is_ok() && !self.power.is_off() {
                    self.ledger.cancelled(run);
                }
                cancelled
            }
            2 => engine.pause(TENANT, run, principal, None).await.map(drop),
            3 => engine.resume(TENANT, run, principal, None).await.map(drop),
            4 => {
                let message = format!("plan-{} instead", self.random.below(PLANS));
                engine.steer(TENANT, run, principal, message, self.when(), None).await.map(drop)
            }
            5 => self.raise(run).await,
            6 | 7 => self.vote().await,
            8 => self.settle(ticket).await,
            _ => self.fork(ticket).await,
        };
        if let Err(error) = answer
            && !self.power.is_off()
            && !self.may_be(&error)
        {
            self.ledger.wrong(format!("a wish about {run} was refused: {}: {error}", error.code()));
        }
    }

    async fn raise(&self, run: Id<id::Run>) -> Result<(), Error> {
        let raise = LimitChange { turns: Some(20), tool_calls: Some(60), ..LimitChange::default() };
        self.engine.raise(TENANT, run, self.principal(), raise, None).await.map(drop)
    }

    /// A vote on some call that waits for one.
    async fn vote(&self) -> Result<(), Error> {
        let page = self.engine.approvals(TENANT, None, 50).await?;
        let place = usize::try_from(self.random.below(page.rows.len() as u64)).unwrap_or(0);
        let Some(view) = page.rows.get(place) else { return Ok(()) };
        let vote = if self.random.below(5) == 0 { Vote::Reject } else { Vote::Approve };
        let ballot = Ballot { vote, reason: None, binding: Some(view.binding) };
        let (call, principal) = (view.call, self.principal());
        self.engine.vote(TENANT, call, principal, ballot, None).await?;
        if !self.power.is_off() {
            self.ledger.voted(call, principal, vote);
        }
        Ok(())
    }

    /// Says what became of the calls of a run that are in doubt.
    async fn settle(&self, ticket: Ticket) -> Result<(), Error> {
        let key = SessionKey::new(TENANT, ticket.session);
        let Ok(log) = log_of(self.engine.journal(), &key).await else { return Ok(()) };
        let Ok((_, session)) = check::folded(&key, &log) else { return Ok(()) };
        let Some(run) = session.run.filter(|run| run.id == ticket.run) else { return Ok(()) };
        for (call, state) in run.calls {
            if !matches!(state.state, CallState::InDoubt { .. }) {
                continue;
            }
            let settlement = match self.random.below(3) {
                0 => Settlement::Happened { output: "It happened.".into() },
                1 if state.tool.as_deref() == Some("publish") => Settlement::Compensate,
                _ => Settlement::DidNotHappen,
            };
            let is_over = settlement == Settlement::DidNotHappen;
            let principal = self.principal();
            self.engine.resolve(TENANT, run.id, call, principal, settlement, None).await?;
            if is_over && !self.power.is_off() {
                self.ledger.did_not_happen(call);
            }
        }
        Ok(())
    }

    /// Another session from some position of this one.
    async fn fork(&self, ticket: Ticket) -> Result<(), Error> {
        let places = self.engine.checkpoints(TENANT, ticket.session).await?;
        let place = usize::try_from(self.random.below(places.len() as u64)).unwrap_or(0);
        let Some(place) = places.get(place) else { return Ok(()) };
        let message = (self.random.below(2) == 0).then(|| format!("plan-{} from here", self.random.below(PLANS)));
        let fork = Fork {
            tenant: TENANT.into(),
            principal: self.principal(),
            session: ticket.session,
            at: place.at,
            agent: None,
            model: None,
            provider: None,
            message,
            session_name: None,
            idempotency: None,
        };
        let view = self.engine.fork(fork).await?;
        if !self.power.is_off() {
            self.ledger.forked(view.session, view.run);
        }
        Ok(())
    }

    /// Whether a wish may be refused so.
    fn may_be(&self, error: &Error) -> bool {
        match error {
            Error::RunEnded { .. }
            | Error::RunEnding { .. }
            | Error::RunNotPaused { .. }
            | Error::RaiseTooLow { .. }
            | Error::SteersMax { .. }
            | Error::NoSuchCall { .. }
            | Error::NotInDoubt { .. }
            | Error::ResolveTooEarly { .. }
            | Error::NoSuchApproval { .. }
            | Error::Unheard(_)
            | Error::NotForkable { .. }
            | Error::Busy { .. }
            | Error::Draining => true,
            Error::Journal(error) => self.is_troubled && !matches!(error, journal::Error::Corrupt { .. }),
            Error::Objects { .. } => self.is_troubled,
            _ => false,
        }
    }

    /// Lets everything that waits go on. Gives how many runs have not ended.
    pub(crate) async fn help_all(&self) -> Result<usize, Error> {
        let mut open = 0;
        let mut before = None;
        loop {
            let page = self.engine.runs(TENANT, journal::RunFilter::default(), before, 200).await?;
            for view in page.rows.iter().filter(|view| !view.status.is_end()) {
                open += 1;
                let ticket = Ticket { run: view.run, session: view.session, existing: true };
                if let Err(error) = self.help(ticket, view.status).await
                    && !self.may_be(&error)
                {
                    return Err(error);
                }
            }
            match page.next {
                Some(next) => before = Some(next),
                None => return Ok(open),
            }
        }
    }

    async fn help(&self, ticket: Ticket, status: RunStatus) -> Result<(), Error> {
        match status {
            RunStatus::Paused => self.engine.resume(TENANT, ticket.run, self.principal(), None).await.map(drop),
            RunStatus::NeedsResolution => self.settle(ticket).await,
            RunStatus::Waiting => {
                self.vote().await.or_else(|error| if self.may_be(&error) { Ok(()) } else { Err(error) })?;
                self.raise(ticket.run).await
            }
            _ => Ok(()),
        }
    }
}
