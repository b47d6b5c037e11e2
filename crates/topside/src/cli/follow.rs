//! Follows one run to its end and hands each event to whoever shows it, while the user may wish it to end.

use super::Console;
use super::ending::Trouble;
use super::signals::{Signals, Wish};
use api::{Event, Happened};
use client::Follow;
use domain::record::When;
use domain::{Id, RunStatus, Wait, id};
use std::time::Duration;
use tokio::sync::mpsc;
use topside::App;

/// Events that may wait to be shown.
const EVENTS_MAX: usize = 256;
/// How often it is looked whether the run rests without having said so: a wish may change nothing.
const LOOK_MS: u64 = 200;

/// How following a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The run has ended, or waits for somebody.
    Settled,
    /// The user wants the program to end now.
    AtOnce,
    /// The system wants the program to end; the run goes on at the next start.
    Terminated,
}

/// Follows a run until it has ended or waits for somebody. Records before `from` say nothing of how it stands now.
pub(crate) async fn follow(
    app: &App,
    run: Id<id::Run>,
    from: u64,
    signals: &mut Signals,
    console: &Console,
    mut show: impl FnMut(&Event),
) -> Result<Ended, Trouble> {
    let client = app.client();
    let (sender, mut events) = mpsc::channel(EVENTS_MAX);
    let mut stream = client.events(Follow::Run(run), None);
    let reader = tokio::spawn(async move {
        while let Some(event) = stream.next().await {
            if sender.send(event).await.is_err() {
                return;
            }
        }
    });
    let mut asked = false;
    let ended = loop {
        tokio::select! {
            event = events.recv() => match event {
                None => break Ended::Settled,
                Some(event) => {
                    let event = event?;
                    show(&event);
                    if is_halt(&event, from) && rests(app, run).await? {
                        break Ended::Settled;
                    }
                }
            },
            () = tokio::time::sleep(Duration::from_millis(LOOK_MS)) => {
                let health = app.engine().health();
                if health.active == 0 && health.waiting == 0 && events.is_empty() && rests(app, run).await? {
                    break Ended::Settled;
                }
            }
            wish = signals.next() => match wish {
                Wish::Interrupt if asked => break Ended::AtOnce,
                Wish::Terminate => break Ended::Terminated,
                Wish::Interrupt => {
                    asked = true;
                    console.talk_line("\ncancelling the run (Ctrl-C again ends at once)");
                    client.cancel(run, When::Now).await?;
                }
            },
        }
    };
    // The reader ends with its channel; it waits on nothing else that matters any more.
    drop(events);
    reader.abort();
    let _ = reader.await;
    Ok(ended)
}

/// Whether the run may rest after this.
fn is_halt(event: &Event, from: u64) -> bool {
    match event {
        Event::Record(record) => {
            let halts = matches!(record.happened, Happened::Parked { .. } | Happened::InDoubt { .. });
            halts && record.position >= from
        }
        Event::Delta(_) | Event::Resync(_) => false,
    }
}

/// Whether the run waits for somebody; one that waits to try again goes on by itself.
async fn rests(app: &App, run: Id<id::Run>) -> Result<bool, Trouble> {
    let run = app.client().run(run).await?;
    Ok(match run.status {
        RunStatus::Waiting => run.waits_for != Some(Wait::Retry),
        RunStatus::Paused | RunStatus::NeedsResolution => true,
        // Its last record ends the stream.
        _ => false,
    })
}
