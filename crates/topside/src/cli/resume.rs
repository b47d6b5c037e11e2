//! `topside resume`: goes on with every unfinished run of a data directory, and shows one after the other.

use super::arguments::Resume;
use super::ending::{Ending, Trouble};
use super::run::{Show, Shown, finish, watch};
use super::signals::Signals;
use super::{Console, Session, start};
use topside::App;

pub(crate) async fn resume(session: Session, arguments: Resume) -> Result<Ending, Trouble> {
    let Session { console, environment, launcher } = session;
    let mut signals = Signals::new()?;
    let app = start(&console, &environment, launcher, &arguments.place).await?;
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
