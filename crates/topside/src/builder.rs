//! Puts a service together: reads what it is told, opens what it needs, joins the rooms. Nothing is guessed silently: what
//! is configured and can't be had is an error.

use crate::adapters::{Contents, Sealing, Wrapping};
use crate::app::{App, Service};
use crate::provider::Watched;
use crate::{DATA_DIRECTORY, Data, Environment, Error, keys, secrets, settings};
use blob::{Blobs, Links};
use catalog::Live;
use chunks::Chunks;
use domain::TENANT_DEFAULT;
use engine::{Engine, Parts};
use journal::{Config, ContentsMode, Journal, PostgresSettings};
use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use stdx::{Clock, Random};
use tools::{Context, Functions, Reply};

/// How long the sandboxes of a process that died wait for the next one.
const OWNER_GRACE_MS: u64 = 60_000;

/// What a service is made of. See the crate's example.
#[derive(Debug)]
pub struct Builder {
    project: PathBuf,
    data: Option<PathBuf>,
    environment: Option<Environment>,
    functions: Functions,
    launcher: Option<jail::Launcher>,
    providers: Vec<Arc<dyn sandbox::Provider>>,
    limits: engine::Limits,
    drives: Drives,
    workspaces_formatted: usize,
}

/// Which runs a service drives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Drives {
    /// All that are ready.
    #[default]
    All,
    /// All that are ready, unless other processes share the journal and drive them.
    UnlessShared,
    /// None: other processes drive them.
    Nothing,
}

impl Builder {
    /// A service of the project in this folder.
    pub fn new(project: impl Into<PathBuf>) -> Self {
        Self {
            project: project.into(),
            data: None,
            environment: None,
            functions: Functions::new(),
            launcher: None,
            providers: Vec::new(),
            limits: engine::Limits::default(),
            drives: Drives::default(),
            workspaces_formatted: 0,
        }
    }

    /// Keeps journal, objects and keys in this directory; otherwise in `.topside` of the project.
    #[must_use]
    pub fn data(mut self, directory: impl Into<PathBuf>) -> Self {
        self.data = Some(directory.into());
        self
    }

    /// Uses these variables instead of those of the process.
    #[must_use]
    pub fn environment(mut self, environment: Environment) -> Self {
        self.environment = Some(environment);
        self
    }

    /// Registers what the tool `name` of kind `function` runs.
    #[must_use]
    pub fn function<F, Answer, Good, Bad>(mut self, name: impl Into<String>, function: F) -> Self
    where
        F: Fn(serde_json::Value, Context) -> Answer + Send + Sync + 'static,
        Answer: Future<Output = Result<Good, Bad>> + Send + 'static,
        Good: Into<Reply>,
        Bad: fmt::Display,
    {
        self.functions.add(name, function);
        self
    }

    /// Makes local sandboxes through this launcher, which [`crate::launch`] forked first of all in `main`. Without one,
    /// agents with a sandbox can't run.
    #[must_use]
    pub fn launcher(mut self, launcher: jail::Launcher) -> Self {
        self.launcher = Some(launcher);
        self
    }

    /// Makes sandboxes with a provider of the caller's own.
    #[must_use]
    pub fn provider(mut self, provider: Arc<dyn sandbox::Provider>) -> Self {
        self.providers.push(provider);
        self
    }

    /// Keeps the engine within these limits.
    #[must_use]
    pub fn limits(mut self, limits: engine::Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Drives these runs.
    #[must_use]
    pub fn drives(mut self, drives: Drives) -> Self {
        self.drives = drives;
        self
    }

    /// Keeps so many empty workspaces formatted on the disk, for sessions that begin together; none unless it is said.
    #[must_use]
    pub fn workspaces_formatted(mut self, workspaces: usize) -> Self {
        self.workspaces_formatted = workspaces;
        self
    }

    /// Where the service keeps what it keeps.
    pub fn data_directory(&self) -> Data {
        Data::at(self.data.clone().unwrap_or_else(|| self.project.join(DATA_DIRECTORY)))
    }

    /// Opens everything and serves this process. Runs that an earlier process left wait for [`App::recover`].
    ///
    /// # Errors
    /// Everything in [`Error`] but [`Error::NoData`]: the project is wrong, the data directory is taken, a configured part
    /// can't be had.
    pub async fn start(self) -> Result<App, Error> {
        let mut data = self.data_directory();
        let environment = self.environment.unwrap_or_else(Environment::of_process);
        let variables = environment.clone();
        let live = Live::open(&self.project, Arc::new(move |name: &str| variables.get(name).map(str::to_owned)))?;
        let live = Arc::new(live);
        data.make()?;
        let (clock, random) = (Clock::system(), Random::system());
        let net = net::Client::new(settings::net(&environment)?)?;
        let secrets = secrets::read(&data, &environment)?;
        let api_keys = keys::read(&data)?;
        let vault = Arc::new(vault::Keys::open(&data.keys(), random.clone())?);
        let blobs = objects(&data, &environment, &vault, &net, &clock)?;
        let link_key = server::LinkKey::new(vault.derive(TENANT_DEFAULT, "port-links")?);
        let database = settings::database(&environment, &secrets, &live.current().settings)?;
        let chunks = checkpoints(&vault, &blobs, &clock, &random);
        let parts = journal_parts(vault, blobs.clone(), clock.clone(), random.clone());
        let journal = open_journal(&data, &live, database.as_ref(), parts).await?;
        if database.is_some() && !blobs.is_remote() {
            tracing::warn!(
                objects = %data.objects().display(),
                "the journal is shared and the objects are not: workers on other machines can't read them; hint: set TOPSIDE_S3_*"
            );
        }
        if database.is_none() {
            // Nobody else serves this directory: what an earlier process announced is over.
            data.withdraw();
        }
        if blobs.is_remote() {
            blobs.probe().await?;
        }
        let mut providers = self.providers;
        if let Some(launcher) = self.launcher {
            let settings = live.current().settings.sandbox.clone();
            let warm = jail::Warm { min: settings.warm_min, max: settings.warm_max };
            let local = jail::Provider::at_home(launcher, data.path().to_owned(), random.clone(), OWNER_GRACE_MS);
            let mut local = local.await?.with_stock(self.workspaces_formatted).with_warm(warm);
            if let Some(bytes_max) = settings.workspaces_bytes_max {
                local = local.with_workspaces_bytes_max(bytes_max);
            }
            providers.push(Arc::new(local.with_network(settings::mounts(&environment)?)));
        }
        let watched = |provider| Arc::new(Watched::new(provider)) as Arc<dyn sandbox::Provider>;
        let providers: Vec<_> = providers.into_iter().map(watched).collect();
        let mut limits = self.limits;
        match self.drives {
            Drives::All => {}
            Drives::UnlessShared if database.is_none() => {}
            Drives::UnlessShared | Drives::Nothing => limits.drivers_max = 0,
        }
        let worker = settings::worker(&environment, &live.current().settings);
        let (project, has_own_data) = (self.project, self.data.is_none());
        let current = live.clone();
        let engine = Engine::new(Parts {
            clock,
            random,
            journal: journal.clone(),
            blobs,
            chunks,
            catalog: Arc::new(move || current.current()),
            providers: providers.clone(),
            net,
            environment: Arc::new(move |name: &str| environment.get(name).map(str::to_owned)),
            secrets,
            functions: self.functions,
            limits,
        });
        let service =
            Service { engine, journal, live, project, data, has_own_data, worker, api_keys, providers, link_key };
        Ok(App::start(service))
    }
}

fn objects(
    data: &Data,
    environment: &Environment,
    vault: &vault::Keys,
    net: &net::Client,
    clock: &Clock,
) -> Result<Blobs, Error> {
    let links = Links::new(&vault.derive(TENANT_DEFAULT, "links")?, clock.clone());
    Ok(match settings::s3(environment)? {
        Some(s3) => Blobs::s3(&s3, net.clone(), links)?,
        None => Blobs::local(&data.objects(), links)?,
    })
}

fn checkpoints(vault: &Arc<vault::Keys>, blobs: &Blobs, clock: &Clock, random: &Random) -> Chunks {
    let keys = Arc::new(Sealing(vault.clone()));
    let parts = chunks::Parts { blobs: blobs.clone(), keys, clock: clock.clone(), random: random.clone() };
    Chunks::new(parts, chunks::Config::default())
}

async fn open_journal(
    data: &Data,
    live: &Live,
    database: Option<&PostgresSettings>,
    parts: journal::Parts,
) -> Result<Journal, Error> {
    let contents = match live.current().settings.contents {
        catalog::Contents::Sealed => ContentsMode::Sealed,
        catalog::Contents::Plain => ContentsMode::Plain,
    };
    let config = Config { contents, ..Config::default() };
    Ok(match database {
        Some(settings) => Journal::open_postgres(settings, parts, config).await?,
        None => Journal::open(data.path(), parts, config)?,
    })
}

fn journal_parts(vault: Arc<vault::Keys>, blobs: Blobs, clock: Clock, random: Random) -> journal::Parts {
    journal::Parts { clock, random, wrap: Arc::new(Wrapping(vault)), objects: Arc::new(Contents(blobs)) }
}

/// The way out of this process, as the environment's variables say.
///
/// # Errors
/// When one of them can't be used.
pub fn network(environment: &Environment) -> Result<net::Client, Error> {
    Ok(net::Client::new(settings::net(environment)?)?)
}

/// Opens the journal of a data directory alone, for reading it when nothing serves it; with `DATABASE_URL`, the one there.
///
/// # Errors
/// [`Error::NoData`] when there is none; [`journal::Error::Locked`] when another process has it.
pub async fn read_journal(directory: &Path, environment: &Environment) -> Result<Journal, Error> {
    let data = Data::at(directory);
    let database = settings::database_of(environment);
    if database.is_none() && !data.has_journal() {
        return Err(Error::NoData { path: directory.to_owned() });
    }
    let (clock, random) = (Clock::system(), Random::system());
    let net = network(environment)?;
    let vault = Arc::new(vault::Keys::open(&data.keys(), random.clone())?);
    let blobs = objects(&data, environment, &vault, &net, &clock)?;
    let parts = journal_parts(vault, blobs, clock, random);
    Ok(match database {
        Some(settings) => Journal::open_postgres(&settings, parts, Config::default()).await?,
        None => Journal::open(data.path(), parts, Config::default())?,
    })
}
