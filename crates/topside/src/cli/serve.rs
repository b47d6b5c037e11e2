//! `topside serve`: the service on a socket, until it is told to stop.

use super::arguments::Serve;
use super::ending::{Ending, Trouble};
use super::signals::{Signals, Wish};
use super::{Console, Session, start};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use topside::App;

pub(crate) async fn serve(session: Session, arguments: Serve) -> Result<Ending, Trouble> {
    let Session { console, environment, launcher } = session;
    let mut signals = Signals::new()?;
    // First the socket: whoever asks while the rest is opened waits for an answer instead of being refused.
    let address = arguments.listen;
    let refused = |error| Trouble::Listen { address, error };
    let listener = TcpListener::bind(address).await.map_err(refused)?;
    let app = start(&console, &environment, launcher, &arguments.place).await?;
    let served = until_told(&console, &app, listener, &arguments, &mut signals).await;
    let grace = Duration::from_secs(arguments.drain_seconds);
    let at_once = matches!(served, Ok(AtOnce::Yes));
    if at_once {
        app.data().withdraw();
        return Ok(Ending::Cancelled);
    }
    let closed = tokio::select! {
        closed = app.close(grace) => closed,
        _ = signals.next() => return Ok(Ending::Cancelled),
    };
    served?;
    closed?;
    tracing::info!("ended");
    Ok(Ending::Done)
}

/// How long the line that says that the service is up waits for the sandbox to be tried.
const PROBE_MS_MAX: u64 = 2_000;

/// Whether the user was in a hurry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AtOnce {
    Yes,
    No,
}

async fn until_told(
    console: &Console,
    app: &App,
    listener: TcpListener,
    arguments: &Serve,
    signals: &mut Signals,
) -> Result<AtOnce, Trouble> {
    let mut config = app.config();
    config.hosts_allowed.clone_from(&arguments.host);
    config.origins_allowed.clone_from(&arguments.origin);
    config.public_url.clone_from(&arguments.public_url);
    let refused = |error| Trouble::Listen { address: arguments.listen, error };
    let address = listener.local_addr().map_err(refused)?;
    config.check(address).map_err(topside::Error::from)?;
    let url = format!("http://{address}");
    let (stop, mut stopped) = watch::channel(false);
    let shutdown = async move {
        // An error means that the sender is gone, which is the end too.
        let _ = stopped.wait_for(|stopped| *stopped).await;
    };
    let serving = app.serve(listener, config, shutdown);
    tokio::pin!(serving);
    app.data().announce(&url)?;
    let sessions = app.recover().await?;
    let agents = app.catalog().agents().count();
    tracing::info!(%url, data = %app.data().path().display(), agents, recovered_sessions = sessions, "serving");
    for off in &app.catalog().switched_off {
        tracing::warn!("{off}");
    }
    let told = async {
        // The service answers already; whoever reads the line finds the health as it is.
        let _ = tokio::time::timeout(Duration::from_millis(PROBE_MS_MAX), app.probe_sandboxes()).await;
        console.data_line(&url);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = told => return Ok(AtOnce::No),
        ended = &mut serving => return ended.map(|()| AtOnce::No).map_err(Trouble::from),
        wish = signals.next() => {
            let what = match wish {
                Wish::Interrupt => "Ctrl-C",
                Wish::Terminate => "SIGTERM",
            };
            tracing::info!(seconds = arguments.drain_seconds, "{what}: draining; again to end at once");
        }
    }
    // An error would mean that the service has ended.
    let _ = stop.send(true);
    tokio::select! {
        ended = &mut serving => ended.map(|()| AtOnce::No).map_err(Trouble::from),
        _ = signals.next() => Ok(AtOnce::Yes),
    }
}
