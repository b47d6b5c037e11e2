//! A service that runs in this process: its engine, a client of it, and its end.

use crate::{Data, Error};
use api::PostRun;
use catalog::{Catalog, Live};
use client::{Client, Follow, PostOptions, Wait};
use domain::{Id, id};
use engine::{Engine, Tending};
use journal::query::Unfinished;
use journal::{Backend, Journal, WorkerSpec};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OnceCell, watch};
use tokio::task::JoinHandle;

/// Unfinished runs that are looked at, at most.
const UNFINISHED_MAX: usize = 10_000;

/// What [`crate::Builder`] put together.
pub(crate) struct Service {
    pub(crate) engine: Engine,
    pub(crate) journal: Journal,
    pub(crate) live: Arc<Live>,
    pub(crate) project: PathBuf,
    pub(crate) data: Data,
    /// Whether the data directory is the one that the project has when none is named.
    pub(crate) has_own_data: bool,
    pub(crate) worker: WorkerSpec,
    pub(crate) api_keys: Vec<server::Key>,
    pub(crate) providers: Vec<Arc<dyn sandbox::Provider>>,
    pub(crate) link_key: server::LinkKey,
}

/// A running service. [`App::close`] ends it; when it is dropped instead, its runs go on at the next start.
pub struct App {
    service: Service,
    client: Client,
    stop: watch::Sender<bool>,
    tending: OnceCell<Tending>,
    /// The service on memory, and the look at the project's files.
    tasks: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("App").field("data", &self.service.data).finish_non_exhaustive()
    }
}

impl App {
    pub(crate) fn start(service: Service) -> Self {
        let (stop, stopped) = watch::channel(false);
        let (connector, listener) = server::memory();
        let serving = {
            let (engine, stopped) = (service.engine.clone(), stopped.clone());
            let config = server::Config { link_key: Some(service.link_key.clone()), ..server::Config::default() };
            tokio::spawn(async move {
                if let Err(error) = server::serve(listener, config, engine, told(stopped)).await {
                    tracing::error!(code = error.code(), %error, "the service of this process ended");
                }
            })
        };
        let looking = tokio::spawn(service.live.clone().watch(told(stopped)));
        let client = Client::memory(move || {
            let connector = connector.clone();
            async move { connector.connect().await }
        });
        Self { service, client, stop, tending: OnceCell::new(), tasks: vec![serving, looking] }
    }

    /// A client of this service, over memory; it asks as principal `local`.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// What drives the runs.
    pub fn engine(&self) -> &Engine {
        &self.service.engine
    }

    /// The declarations in force.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.service.live.current()
    }

    /// The project's folder, as it was named.
    pub fn project(&self) -> &Path {
        &self.service.project
    }

    /// Whether the data directory is the one that the project has when none is named.
    pub const fn has_own_data(&self) -> bool {
        self.service.has_own_data
    }

    /// Begins to drive what is ready by itself: timers that are due and, where processes share the journal, what nobody drives.
    /// Once is enough.
    ///
    /// # Errors
    /// When the journal can't be reached.
    pub async fn tend(&self) -> Result<(), Error> {
        let tending = || self.service.engine.tend(self.service.worker.clone());
        self.tending.get_or_try_init(tending).await?;
        Ok(())
    }

    /// The data directory.
    pub fn data(&self) -> &Data {
        &self.service.data
    }

    /// Runs that have not ended, oldest first: after the start, those that an earlier process left.
    ///
    /// # Errors
    /// When the journal can't be read.
    pub async fn unfinished(&self) -> Result<Vec<Unfinished>, Error> {
        let mut rows = Vec::new();
        let mut after = None;
        while rows.len() < UNFINISHED_MAX {
            let page = self.service.journal.unfinished(after.as_ref(), UNFINISHED_MAX - rows.len()).await?;
            rows.extend(page.rows);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        Ok(rows)
    }

    /// Takes up every run that an earlier process left; gives the number of their sessions. They go on in the background. Where
    /// processes share the journal there is nothing to take up: [`App::tend`] drives what nobody drives.
    ///
    /// # Errors
    /// When the journal can't be read.
    pub async fn recover(&self) -> Result<usize, Error> {
        if self.service.journal.backend() == Backend::Postgres {
            return Ok(0);
        }
        Ok(self.service.engine.recover().await?)
    }

    /// Tries whether sandboxes can be made, so that the service's health knows before the first one is wanted.
    pub async fn probe_sandboxes(&self) {
        for provider in &self.service.providers {
            let probe = provider.probe().await;
            for finding in probe.walls.iter().filter(|finding| !finding.holds) {
                let fix = finding.fix.as_deref().unwrap_or_default();
                tracing::warn!(
                    provider = provider.name(),
                    wall = finding.wall,
                    detail = finding.detail,
                    fix,
                    "a wall does not hold"
                );
            }
        }
    }

    /// Runs an agent in a new session and waits for the end.
    ///
    /// # Errors
    /// When the run is not taken. A run that ends badly is no error; its status says so.
    pub async fn run(&self, agent: &str, message: &str) -> Result<api::Run, Error> {
        let run = PostRun { agent: Some(agent.to_owned()), message: message.to_owned(), ..PostRun::default() };
        let posted = self.client.post_run(&run, &PostOptions { wait: Wait::No, ..PostOptions::default() }).await?;
        self.wait(posted.run_id).await
    }

    /// A run at its end.
    ///
    /// # Errors
    /// When there is no such run, or its events can't be read.
    pub async fn wait(&self, run: Id<id::Run>) -> Result<api::Run, Error> {
        let mut events = self.client.events(Follow::Run(run), None);
        while let Some(event) = events.next().await {
            event?;
        }
        Ok(self.client.run(run).await?)
    }

    /// How the service may be reached from outside, with the keys that `keys.yaml` declares.
    pub fn config(&self) -> server::Config {
        let (keys, link_key) = (self.service.api_keys.clone(), Some(self.service.link_key.clone()));
        server::Config { keys, link_key, ..server::Config::default() }
    }

    /// Serves on a socket until `shutdown` is done.
    ///
    /// # Errors
    /// When the configuration may not serve there, or the socket fails.
    pub async fn serve(
        &self,
        listener: tokio::net::TcpListener,
        config: server::Config,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<(), Error> {
        let listener = server::Listener::Tcp(listener);
        Ok(server::serve(listener, config, self.service.engine.clone(), shutdown).await?)
    }

    /// Takes no new runs, gives those under way `grace` to end and as long again to reach the end of a turn, then closes
    /// the journal. What has not ended goes on at the next start.
    ///
    /// # Errors
    /// When the journal can't be closed well; nothing that was acknowledged is lost by it.
    pub async fn close(self, grace: Duration) -> Result<(), Error> {
        self.service.engine.drain(grace).await;
        // An error would mean that both tasks are gone already.
        let _ = self.stop.send(true);
        for task in self.tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "a task of the service failed");
            }
        }
        if let Some(tending) = self.tending.into_inner() {
            tending.end().await;
        }
        if self.service.journal.backend() != Backend::Postgres {
            self.service.data.withdraw();
        }
        let closed = self.service.journal.close().await;
        // Last: a call whose sandbox ends under it would go on record as one that returned.
        for provider in &self.service.providers {
            provider.farewell().await;
        }
        Ok(closed?)
    }
}

async fn told(mut stopped: watch::Receiver<bool>) {
    // An error means that the sender is gone, which is the end too.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}
