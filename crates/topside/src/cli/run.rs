//! `topside run`: starts the service in this process, asks it over its own HTTP contract, and shows what happens.

use super::arguments::Run;
use super::clean::{clean, clean_json};
use super::ending::{Ending, Trouble};
use super::follow::{Ended, follow};
use super::keep::{Kept, keep};
use super::signals::Signals;
use super::view::View;
use super::{Console, Session, start, summary, waiting};
use api::{Event, PostRun};
use client::{PostOptions, Wait};
use domain::{Id, id};
use std::time::Duration;
use topside::{App, Drives};

/// What other runs of the data directory get to end when this one has.
pub(crate) const GRACE_MS: u64 = 3_000;

pub(crate) async fn run(session: Session, arguments: Run) -> Result<Ending, Trouble> {
    let Session { console, environment, launcher } = session;
    let mut signals = Signals::new()?;
    let app = start(&console, &environment, launcher, &arguments.place, Drives::All).await?;
    let shown = shown(&console, &app, &arguments, &mut signals).await;
    finish(app, shown).await
}

async fn shown(console: &Console, app: &App, arguments: &Run, signals: &mut Signals) -> Result<Shown, Trouble> {
    app.tend().await?;
    let others = app.recover().await?;
    if others > 0 {
        console.talk_line(&format!("{others} unfinished session(s) of an earlier process go on in the background"));
    }
    let body = PostRun {
        session: arguments.session.clone(),
        agent: Some(arguments.agent.clone()),
        message: arguments.task.clone(),
        ..PostRun::default()
    };
    let options = PostOptions { wait: Wait::No, ..PostOptions::default() };
    let taken = app.client().post_run(&body, &options).await?;
    let what = format!("{} · session {} · {}", clean(&taken.agent), clean(&taken.session), taken.run_id);
    console.talk_line(&console.paint.dim(&what));
    let show = if arguments.json { Show::Json } else { Show::People };
    watch(console, app, taken.run_id, 0, show, signals).await
}

/// How showing a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shown {
    /// The run has ended, or waits for somebody.
    Settled(Ending),
    /// SIGTERM: the run goes on at the next start.
    Terminated,
    /// The user wants the program to end now.
    AtOnce,
}

/// How a run is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Show {
    /// As lines for people, with the reply as data.
    People,
    /// As JSON data.
    Json,
}

/// Follows a run, then says what became of it. Records before `from` are not shown.
pub(crate) async fn watch(
    console: &Console,
    app: &App,
    run: Id<id::Run>,
    from: u64,
    show: Show,
    signals: &mut Signals,
) -> Result<Shown, Trouble> {
    let mut view = View::new(console.paint, from);
    let ended = follow(app, run, from, signals, console, |event| {
        let text = view.event(event);
        match (show, event) {
            (Show::People, _) => console.talk(&text),
            (Show::Json, Event::Record(record)) if record.position >= from => {
                json_line(console, &serde_json::json!({ "record": record }));
            }
            (Show::Json, _) => {}
        }
    })
    .await?;
    match ended {
        Ended::AtOnce | Ended::Terminated => {
            let data = summary::quoted(app.data().path());
            console.talk_line(&format!("\nthe run is not over; `topside resume --data {data}` goes on with it"));
            return Ok(if ended == Ended::AtOnce { Shown::AtOnce } else { Shown::Terminated });
        }
        Ended::Settled => {}
    }
    let run = app.client().run(run).await?;
    let kept = keep(app.client(), app.data(), &run).await;
    match show {
        Show::Json => {
            let path = |kept: &Kept| match kept {
                Kept::File(path) => Some(path.display().to_string()),
                Kept::Link { .. } | Kept::Lost { .. } => None,
            };
            let files: Vec<String> = kept.iter().filter_map(path).collect();
            json_line(console, &serde_json::json!({ "run": run, "files": files }));
        }
        Show::People => {
            let data = app.data().path();
            console.talk(&summary::summary(&run, &view, &app.catalog(), &kept, data, console.paint));
            console.talk(&waiting::waits_told(app, &run).await?);
            let seen = console.data_is_terminal && console.talk_is_terminal;
            if let Some(reply) = run.reply.as_deref().filter(|_| !seen) {
                console.data_line(clean(reply).trim_end());
            }
        }
    }
    Ok(Shown::Settled(Ending::of(&run)))
}

pub(crate) fn json_line(console: &Console, value: &serde_json::Value) {
    console.data_line(&clean_json(&value.to_string()));
}

/// Ends the service, unless the program is to end at once: then the journal is whole all the same, and what runs is
/// taken up at the next start.
pub(crate) async fn finish(app: App, shown: Result<Shown, Trouble>) -> Result<Ending, Trouble> {
    let ending = match shown {
        Ok(Shown::AtOnce) => return Ok(Ending::Cancelled),
        Ok(Shown::Terminated) => Ok(Ending::Terminated),
        Ok(Shown::Settled(ending)) => Ok(ending),
        Err(trouble) => Err(trouble),
    };
    let closed = app.close(Duration::from_millis(GRACE_MS)).await;
    let ending = ending?;
    closed?;
    Ok(ending)
}
