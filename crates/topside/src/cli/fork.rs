//! `topside checkpoints`, `fork`, `replay` and `diff`: sessions and runs beside each other.

use super::Session;
use super::arguments::{Diff, Fork, OfRun, OfSession};
use super::clean::clean;
use super::console::Console;
use super::ending::{Ending, Trouble};
use super::log::time;
use super::run::{Show, Shown, finish, watch};
use super::service::{Purpose, Service};
use super::signals::Signals;
use api::ForkSession;
use client::{Client, Once};
use journal::Backend;

pub(crate) async fn checkpoints(session: Session, arguments: OfSession) -> Result<Ending, Trouble> {
    let (console, service) = Service::reach(session, &arguments.target, Purpose::Look).await?;
    let listed = service.client().checkpoints(&arguments.session).await.map_err(Trouble::from).map(|checkpoints| {
        for checkpoint in checkpoints {
            let files = checkpoint.checkpoint_id.map_or_else(|| "no files".to_owned(), |id| id.to_string());
            let api::Checkpoint { at, run_id, turn, at_ms, .. } = checkpoint;
            console.data_line(&format!("{at:>6}  {}  {run_id} turn {turn}  {files}", time(at_ms)));
        }
        Ending::Done
    });
    service.end(listed).await
}

pub(crate) async fn fork(session: Session, arguments: Fork) -> Result<Ending, Trouble> {
    let mut signals = Signals::new()?;
    let (console, service) = Service::reach(session, &arguments.target, Purpose::Act).await?;
    let forked = forked(&console, service.client(), &arguments).await;
    match (service, forked) {
        (Service::Here(app), Ok(api::Fork { run_id: Some(run), .. }))
            if app.engine().journal().backend() != Backend::Postgres =>
        {
            let shown = watch(&console, &app, run, 0, Show::People, &mut signals).await;
            finish(*app, shown).await
        }
        (Service::Here(app), forked) => finish(*app, forked.map(|_| Shown::Settled(Ending::Done))).await,
        (Service::There(_), forked) => forked.map(|_| Ending::Done),
    }
}

async fn forked(console: &Console, client: &Client, arguments: &Fork) -> Result<api::Fork, Trouble> {
    let wanted = ForkSession {
        at: arguments.at,
        session: arguments.name.clone(),
        agent: arguments.agent.clone(),
        model: arguments.model.clone(),
        provider: arguments.provider.clone(),
        message: arguments.message.clone(),
    };
    let fork = client.fork(&arguments.session, &wanted, Once::default()).await?;
    for effect in &fork.outside_effects {
        let status = effect.status.map_or("nobody has said how it ended", domain::CallStatus::name);
        let (tool, position) = (clean(&effect.tool), effect.position);
        console.talk_line(&format!("done outside before, and stays done: {tool} at {position} ({status})"));
    }
    console.data_line(&clean(&fork.session));
    Ok(fork)
}

pub(crate) async fn replay(session: Session, arguments: OfRun) -> Result<Ending, Trouble> {
    let (console, service) = Service::reach(session, &arguments.target, Purpose::Look).await?;
    let replayed =
        service.client().replay(arguments.run).await.map_err(Trouble::from).map(|replay| match &replay.difference {
            None => {
                console.data_line(&format!("{} records replay as they were written", replay.records));
                Ending::Done
            }
            Some(api::ReplayDifference { position, expected, found }) => {
                console.data_line(&format!("differs at position {position}"));
                console.data_line(&format!("  expected: {}", clean(expected)));
                console.data_line(&format!("  found:    {}", clean(found)));
                Ending::Failed
            }
        });
    service.end(replayed).await
}

pub(crate) async fn diff(session: Session, arguments: Diff) -> Result<Ending, Trouble> {
    let (console, service) = Service::reach(session, &arguments.target, Purpose::Look).await?;
    let compared = service.client().diff(arguments.run, arguments.other).await.map_err(Trouble::from).map(|diff| {
        for difference in &diff.differences {
            console.data_line(&format!("turn {}: {}", difference.turn, clean(&difference.what)));
            for (sign, side) in [("-", &difference.a), ("+", &difference.b)] {
                for line in side.iter().flat_map(|text| text.lines()) {
                    console.data_line(&format!("  {sign} {}", clean(line)));
                }
            }
        }
        if diff.differences.is_empty() {
            console.talk_line("the runs do not differ");
        }
        Ending::Done
    });
    service.end(compared).await
}
