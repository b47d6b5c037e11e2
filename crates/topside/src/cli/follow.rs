//! Follows one run to its end and hands each event to whoever shows it, while the user may wish it to end.

use super::Console;
use super::ending::Trouble;
use super::signals::{Signals, Wish};
use api::{Event, Happened};
use client::{Client, Follow};
use domain::{Id, id};
use tokio::sync::mpsc;

/// Events that may wait to be shown.
const EVENTS_MAX: usize = 256;

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

/// Follows a run.
pub(crate) async fn follow(
    client: &Client,
    run: Id<id::Run>,
    signals: &mut Signals,
    console: &Console,
    mut show: impl FnMut(&Event),
) -> Result<Ended, Trouble> {
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
                    if is_in_doubt(&event) {
                        break Ended::Settled;
                    }
                }
            },
            wish = signals.next() => match wish {
                Wish::Interrupt if asked => break Ended::AtOnce,
                Wish::Terminate => break Ended::Terminated,
                Wish::Interrupt => {
                    asked = true;
                    console.talk_line("\ncancelling the run (Ctrl-C again ends at once)");
                    client.cancel(run).await?;
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

fn is_in_doubt(event: &Event) -> bool {
    matches!(event, Event::Record(record) if matches!(record.happened, Happened::InDoubt { .. }))
}
