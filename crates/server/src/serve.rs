//! Takes connections until it is told to stop, then lets what is under way end.

use crate::app::App;
use crate::config::{Config, Error};
use crate::listen::{Connection, Entry, Listener};
use engine::Engine;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

/// How long to wait when the system can open no more files.
const ACCEPT_RETRY_MS: u64 = 100;
/// Bytes of a request's headers that are held at most.
const HEADERS_BYTES_MAX: usize = 64 << 10;

/// Serves until `shutdown` is done, then takes no more connections, ends event streams, answers waiting clients with how
/// their runs stand, and gives what is under way `drain_ms_max` to end. The engine is drained by its owner.
///
/// # Errors
/// When the configuration may not serve on this listener, or the listener fails.
pub async fn serve(
    mut listener: Listener,
    config: Config,
    engine: Engine,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), Error> {
    let address = listener.address()?;
    match address {
        Some(address) => config.check(address)?,
        None => config.check_keys()?,
    }
    let limits = config.limits;
    let (drain, draining) = watch::channel(false);
    let app = Arc::new(App::new(config, engine, draining.clone()));
    let tunnels = app.tunnels.clone();
    let entry = Entry::of(address);
    let places = Arc::new(Semaphore::new(limits.connections_max));
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let place = tokio::select! {
            () = &mut shutdown => break,
            place = places.clone().acquire_owned() => place,
        };
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            None => break,
            Some(Err(error)) => {
                tracing::warn!(%error, "a connection could not be taken");
                tokio::time::sleep(Duration::from_millis(ACCEPT_RETRY_MS)).await;
            }
            Some(Ok(connection)) => {
                let (app, draining) = (app.clone(), draining.clone());
                connections.spawn(async move {
                    match connection {
                        Connection::Tcp(stream) => {
                            // Without it, small answers wait for acknowledgements.
                            let _ = stream.set_nodelay(true);
                            converse(stream, app, entry, draining).await;
                        }
                        Connection::Memory(stream) => converse(stream, app, entry, draining).await,
                    }
                    drop(place);
                });
            }
        }
    }
    drop(listener);
    // An error would mean that nobody listens, and then there is nobody to drain.
    let _ = drain.send(true);
    tunnels.close();
    let ended = async {
        while connections.join_next().await.is_some() {}
        tunnels.wait().await;
    };
    if tokio::time::timeout(Duration::from_millis(limits.drain_ms_max), ended).await.is_err() {
        tracing::warn!(connections = connections.len(), "connections are cut: they did not end in time");
        connections.shutdown().await;
    }
    Ok(())
}

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    app: Arc<App>,
    entry: Entry,
    mut draining: watch::Receiver<bool>,
) {
    let headers_ms_max = app.config.limits.headers_ms_max;
    let service = service_fn(move |request| app.clone().answer(entry, request));
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(headers_ms_max))
        .max_buf_size(HEADERS_BYTES_MAX);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service).with_upgrades());
    let drained = async {
        // An error means that the service is gone, which is the end too.
        let _ = draining.wait_for(|draining| *draining).await;
    };
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = drained => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    // A client that went away is no event; what it missed is in the record.
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}
