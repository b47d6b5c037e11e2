//! `topside resume`: goes on with every unfinished run of a data directory, and shows one after the other.

use super::arguments::Resume;
use super::ending::{Ending, Trouble};
use super::run::{Show, finish, watch};
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
async fn all(console: &Console, app: &App, signals: &mut Signals) -> Result<Ending, Trouble> {
    let unfinished = app.unfinished().await?;
    if unfinished.is_empty() {
        console.talk_line("no unfinished run");
        return Ok(Ending::Done);
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
        let ending = watch(console, app, run.run, head, Show::People, signals).await?;
        match ending {
            Ending::Done => {}
            Ending::Terminated => return Ok(ending),
            // The run was left as it is: the program is to end.
            Ending::Cancelled if !app.client().run(run.run).await?.status.is_end() => return Ok(ending),
            _ if worst == Ending::Done => worst = ending,
            _ => {}
        }
    }
    Ok(worst)
}
