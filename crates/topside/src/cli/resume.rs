//! `topside resume`: goes on with every unfinished run of a data directory, and shows one after the other; or with one run that
//! was paused.

use super::arguments::Resume;
use super::ending::{Ending, Trouble};
use super::run::{Show, Shown, finish, watch};
use super::signals::Signals;
use super::{Console, Session, act, start};
use topside::{App, Drives};

pub(crate) async fn resume(session: Session, arguments: Resume) -> Result<Ending, Trouble> {
    let Resume { run, target } = arguments;
    if let Some(run) = run {
        return act::resume(session, run, target).await;
    }
    if target.url.is_some() {
        // A service goes on with them by itself.
        return Err(Trouble::Unnamed);
    }
    let Session { console, environment, launcher } = session;
    let mut signals = Signals::new()?;
    let app = start(&console, &environment, launcher, &target.place, Drives::All).await?;
    let shown = all(&console, &app, &mut signals).await;
    finish(app, shown).await
}

/// Shows every run to its end; the first that does not complete decides how the program ends.
async fn all(console: &Console, app: &App, signals: &mut Signals) -> Result<Shown, Trouble> {
    let unfinished = app.unfinished().await?;
    if unfinished.is_empty() {
        console.talk_line("no unfinished run");
        return Ok(Shown::Settled(Ending::Done));
    }
    // What is on record already is not shown again.
    let mut heads = Vec::new();
    for run in &unfinished {
        heads.push(app.engine().journal().head(&run.key).await?.position);
    }
    app.tend().await?;
    app.recover().await?;
    let mut worst = Ending::Done;
    for (run, head) in unfinished.iter().zip(heads) {
        console.talk_line(&console.paint.dim(&format!("session {} · {}", run.key.session, run.run)));
        match watch(console, app, run.run, head, Show::People, signals).await? {
            Shown::Settled(ending) if worst == Ending::Done => worst = ending,
            Shown::Settled(_) => {}
            left @ (Shown::Terminated | Shown::AtOnce) => return Ok(left),
        }
    }
    Ok(Shown::Settled(worst))
}
