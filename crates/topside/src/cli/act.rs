//! What is said of a run that waits or is under way: `approve`, `reject`, `pause`, `resume RUN`, `cancel`, `steer`, `raise`,
//! `resolve`. A service is told and answers; in a data directory the run then goes on here, as far as it gets.

use super::Session;
use super::arguments::{Cancel, OfCall, OfRun, Raise, Resolve, Steer, Target};
use super::clean::clean;
use super::console::Console;
use super::ending::{Ending, Trouble};
use super::run::{Show, Shown, finish, watch};
use super::service::{Purpose, Service};
use super::signals::Signals;
use super::waiting;
use api::{LimitChange, Outcome, PostApproval, ResolveCall, SteerRun};
use client::{Client, Once};
use domain::record::{Vote, When};
use domain::{Id, id};
use journal::{Backend, SessionKey};
use std::sync::Arc;
use topside::App;

/// Something that is said of a run.
#[derive(Debug)]
enum Wish {
    Vote { call: Id<id::Call>, vote: Vote, reason: Option<String> },
    Pause,
    Resume,
    Cancel(When),
    Steer(SteerRun),
    Raise(LimitChange),
    Resolve(ResolveCall),
}

pub(crate) async fn vote(session: Session, arguments: OfCall, vote: Vote) -> Result<Ending, Trouble> {
    let OfCall { call, reason, target } = arguments;
    act(session, target, None, Wish::Vote { call, vote, reason }).await
}

pub(crate) async fn pause(session: Session, arguments: OfRun) -> Result<Ending, Trouble> {
    act(session, arguments.target, Some(arguments.run), Wish::Pause).await
}

pub(crate) async fn resume(session: Session, run: Id<id::Run>, target: Target) -> Result<Ending, Trouble> {
    act(session, target, Some(run), Wish::Resume).await
}

pub(crate) async fn cancel(session: Session, arguments: Cancel) -> Result<Ending, Trouble> {
    let when = if arguments.after_turn { When::AfterTurn } else { When::Now };
    act(session, arguments.target, Some(arguments.run), Wish::Cancel(when)).await
}

pub(crate) async fn steer(session: Session, arguments: Steer) -> Result<Ending, Trouble> {
    let when = if arguments.interrupt { api::Steer::Interrupt } else { api::Steer::Queue };
    let steer = SteerRun { message: arguments.message, when };
    act(session, arguments.target, Some(arguments.run), Wish::Steer(steer)).await
}

pub(crate) async fn raise(session: Session, arguments: Raise) -> Result<Ending, Trouble> {
    let given = arguments.limits;
    let limits = LimitChange {
        turns: given.turns,
        tool_calls: given.tool_calls,
        tokens: given.tokens,
        running_seconds: given.running_seconds,
        cost_micro_usd: given.cost_micro_usd,
    };
    act(session, arguments.target, Some(arguments.run), Wish::Raise(limits)).await
}

pub(crate) async fn resolve(session: Session, arguments: Resolve) -> Result<Ending, Trouble> {
    let given = arguments.outcome;
    let outcome = match (&given.happened, given.compensate) {
        (Some(_), _) => Outcome::Happened,
        (None, true) => Outcome::Compensate,
        (None, false) => Outcome::DidNotHappen,
    };
    let resolve = ResolveCall { call_id: arguments.call, outcome, output: given.happened };
    act(session, arguments.target, Some(arguments.run), Wish::Resolve(resolve)).await
}

async fn act(session: Session, target: Target, run: Option<Id<id::Run>>, wish: Wish) -> Result<Ending, Trouble> {
    let mut signals = Signals::new()?;
    let (console, service) = Service::reach(session, &target, Purpose::Act).await?;
    match service {
        Service::Here(app) if app.engine().journal().backend() != Backend::Postgres => {
            let asked_for = wish.asks_for();
            let shown = here(&console, &app, run, wish, &mut signals).await;
            let ending = finish(*app, shown).await?;
            Ok(if Some(ending) == asked_for { Ending::Done } else { ending })
        }
        service => {
            let said = there(&console, service.client(), run, wish).await;
            service.end(said).await
        }
    }
}

/// Says it, and tells how the run stands. Others drive it.
async fn there(console: &Console, client: &Client, run: Option<Id<id::Run>>, wish: Wish) -> Result<Ending, Trouble> {
    let run = wish.run(client, run).await?;
    wish.say(console, client, run).await?;
    let run = client.run(run).await?;
    console.data_line(&format!("{} {}", run.run_id, run.status));
    Ok(Ending::Done)
}

/// Says it, and shows how the run goes on in this process.
async fn here(
    console: &Console,
    app: &App,
    run: Option<Id<id::Run>>,
    wish: Wish,
    signals: &mut Signals,
) -> Result<Shown, Trouble> {
    let run = wish.run(app.client(), run).await?;
    let journal = app.engine().journal();
    let row = journal.run(&Arc::from(domain::TENANT_DEFAULT), run).await?;
    let row = row.ok_or(engine::Error::NoSuchRun { run })?;
    let from = journal.head(&SessionKey::new(row.tenant, row.session)).await?.position;
    wish.say(console, app.client(), run).await?;
    watch(console, app, run, from, Show::People, signals).await
}

impl Wish {
    /// How a run's end looks that is nothing but what was asked for.
    const fn asks_for(&self) -> Option<Ending> {
        match self {
            Self::Pause => Some(Ending::Waits),
            Self::Cancel(_) => Some(Ending::Cancelled),
            Self::Vote { .. } | Self::Resume | Self::Steer(_) | Self::Raise(_) | Self::Resolve(_) => None,
        }
    }

    /// The run that it is about.
    async fn run(&self, client: &Client, named: Option<Id<id::Run>>) -> Result<Id<id::Run>, Trouble> {
        match (self, named) {
            (_, Some(run)) => Ok(run),
            (Self::Vote { call, .. }, None) => Ok(client.approval(*call).await?.run_id),
            (_, None) => Err(Trouble::Unnamed),
        }
    }

    async fn say(self, console: &Console, client: &Client, run: Id<id::Run>) -> Result<(), Trouble> {
        let once = Once::default();
        match self {
            Self::Vote { call, vote, reason } => {
                let shown = client.approval(call).await?;
                let what = match vote {
                    Vote::Approve => "approved",
                    Vote::Reject => "rejected",
                };
                let told = waiting::call_told(&shown);
                let ballot = PostApproval { vote, reason, binding: Some(shown.binding) };
                let voted = client.vote(call, &ballot, once).await?;
                console.talk_line(&format!("{what}: {told}"));
                let missing = usize::from(voted.quorum).saturating_sub(voted.approvals.len());
                if vote == Vote::Approve && missing > 0 {
                    console.talk_line(&format!("{missing} more must approve"));
                }
            }
            Self::Pause => drop(client.pause(run).await?),
            Self::Resume => drop(client.resume(run).await?),
            Self::Cancel(when) => drop(client.cancel(run, when).await?),
            Self::Steer(steer) => {
                client.steer(run, &steer, once).await?;
                console.talk_line(&format!("> {}", clean(&steer.message)));
            }
            Self::Raise(limits) => drop(client.raise(run, &limits, once).await?),
            Self::Resolve(resolve) => drop(client.resolve(run, &resolve, once).await?),
        }
        Ok(())
    }
}
