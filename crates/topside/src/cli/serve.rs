//! `topside serve` and `topside worker`: the service on a socket, until it is told to stop.

use super::arguments::{Place, Serve, Worker};
use super::ending::{Ending, Trouble};
use super::signals::{Signals, Wish};
use super::{Console, Session, start_with};
use journal::Backend;
use server::{Config, Surface};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use topside::{App, Builder, Drives};

pub(crate) async fn serve(session: Session, arguments: Serve) -> Result<Ending, Trouble> {
    let Serve { listen, drain_seconds, host, origin, public_url, api_only, place } = arguments;
    let drives = if api_only { Drives::Nothing } else { Drives::All };
    let config = Config {
        hosts_allowed: host,
        origins_allowed: origin,
        public_url,
        surface: Surface::Whole,
        ..Config::default()
    };
    let what = if api_only { "a service that drives nothing" } else { "a service" };
    serve_as(session, Role { listen, drain_seconds, place, drives, config, what }).await
}

/// `topside worker`.
pub(crate) async fn work(session: Session, arguments: Worker) -> Result<Ending, Trouble> {
    let Worker { listen, drain_seconds, place } = arguments;
    let config = Config { surface: Surface::Upkeep, ..Config::default() };
    serve_as(session, Role { listen, drain_seconds, place, drives: Drives::All, config, what: "a worker" }).await
}

/// What a process that serves does.
#[derive(Debug)]
struct Role {
    listen: SocketAddr,
    drain_seconds: u64,
    place: Place,
    drives: Drives,
    config: Config,
    /// How it is called where it can't be.
    what: &'static str,
}

impl Role {
    /// Whether it is of no use without others on the same journal.
    fn needs_others(&self) -> bool {
        self.drives == Drives::Nothing || self.config.surface == Surface::Upkeep
    }
}

/// Empty workspaces that are kept on the disk for sessions that begin together: some 120 KiB each.
const WORKSPACES_FORMATTED: usize = 128;

async fn serve_as(session: Session, role: Role) -> Result<Ending, Trouble> {
    let Session { console, environment, launcher } = session;
    let mut signals = Signals::new()?;
    // First the socket: whoever asks while the rest is opened waits for an answer instead of being refused.
    let address = role.listen;
    let refused = |error| Trouble::Listen { address, error };
    let listener = TcpListener::bind(address).await.map_err(refused)?;
    let builder = Builder::new(&role.place.project).drives(role.drives).workspaces_formatted(WORKSPACES_FORMATTED);
    let app = start_with(builder, &console, &environment, launcher, &role.place).await?;
    let grace = Duration::from_secs(role.drain_seconds);
    if role.needs_others() && app.engine().journal().backend() != Backend::Postgres {
        app.close(Duration::ZERO).await?;
        return Err(Trouble::NotShared { what: role.what });
    }
    let served = until_told(&console, &app, listener, role, &mut signals).await;
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
    role: Role,
    signals: &mut Signals,
) -> Result<AtOnce, Trouble> {
    let Role { listen, drain_seconds, config, .. } = role;
    let own = app.config();
    let config = Config { keys: own.keys, link_key: own.link_key, ..config };
    let is_worker = config.surface == Surface::Upkeep;
    let refused = |error| Trouble::Listen { address: listen, error };
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
    if app.engine().journal().backend() != Backend::Postgres {
        // A directory that one process has is asked for there; one that several use is nobody's.
        app.data().announce(&url)?;
    }
    app.tend().await?;
    let agents = app.catalog().agents().count();
    tracing::info!(%url, data = %app.data().path().display(), agents, "{}", if is_worker { "working" } else { "serving" });
    for off in &app.catalog().switched_off {
        tracing::warn!("{off}");
    }
    // While it serves: there may be many runs to look at, and nobody's question waits for that.
    let recovering = async {
        match app.recover().await {
            Ok(sessions) => tracing::info!(sessions, "took up what had not ended"),
            Err(error) => return error,
        }
        std::future::pending().await
    };
    let told = async {
        // The service answers already; whoever reads the line finds the health as it is.
        let _ = tokio::time::timeout(Duration::from_millis(PROBE_MS_MAX), app.probe_sandboxes()).await;
        console.data_line(&url);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = told => return Ok(AtOnce::No),
        failed = recovering => return Err(failed.into()),
        ended = &mut serving => return ended.map(|()| AtOnce::No).map_err(Trouble::from),
        wish = signals.next() => {
            let what = match wish {
                Wish::Interrupt => "Ctrl-C",
                Wish::Terminate => "SIGTERM",
            };
            tracing::info!(seconds = drain_seconds, "{what}: draining; again to end at once");
        }
    }
    // An error would mean that the service has ended.
    let _ = stop.send(true);
    tokio::select! {
        ended = &mut serving => ended.map(|()| AtOnce::No).map_err(Trouble::from),
        _ = signals.next() => Ok(AtOnce::Yes),
    }
}
