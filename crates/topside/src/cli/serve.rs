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
    let listener = TcpListener::bind(address).await.map_err(|error| {
        let message =
            format!("can't listen on {address}: {error}; hint: another program may, choose a port with --listen");
        Trouble::new(Ending::Failed, "listen_failed", message)
    })?;
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
    let address =
        listener.local_addr().map_err(|error| Trouble::new(Ending::Failed, "listen_failed", error.to_string()))?;
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
    console.data_line(&url);
    tokio::select! {
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
