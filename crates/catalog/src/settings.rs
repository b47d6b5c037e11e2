//! What `topside.yaml` sets, as data. What is done with it is the engine's and the wiring's.

use domain::contract::Retry;
use std::collections::BTreeMap;

/// What `topside.yaml` sets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// How contents are stored.
    pub contents: Contents,
    /// What holds for every sandbox.
    pub sandbox: SandboxSettings,
    /// How many runs are driven at once.
    pub concurrency: Concurrency,
    /// How often what failed for a passing reason is tried again.
    pub retries: Retries,
    /// When a part that keeps failing is left alone.
    pub breaker: Breaker,
    /// Who is called when something happens to a run; without those that are switched off.
    pub webhooks: Vec<Webhook>,
    /// How long sessions are kept.
    pub retention: Retention,
    /// The PostgreSQL database, if one is named and switched on.
    pub database: Option<Database>,
    /// What holds for processes that drive runs together.
    pub worker: Worker,
}

/// How contents are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Contents {
    /// Encrypted under a data key for each session.
    #[default]
    Sealed,
    /// As they are, for those who want to read them with SQL.
    Plain,
}

/// What holds for every sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SandboxSettings {
    /// Its limits.
    pub limits: sandbox::Limits,
    /// Walls it may do without where the kernel refuses them, by the names in [`sandbox::Walls`].
    pub walls_optional: Vec<String>,
    /// The least version of Landlock that must hold, whatever it may do without; 0: whichever there is.
    pub landlock_version_min: u32,
    /// The directories of the host that are shown where a root is the host's own; none: the usual ones.
    pub host_directories: Vec<std::path::PathBuf>,
    /// What all workspaces kept on this machine may take together, in bytes; `None`: what the provider allows by itself.
    pub workspaces_bytes_max: Option<u64>,
    /// How many sandboxes stand ready at least, once one was asked for.
    pub warm_min: usize,
    /// How many at most, as they are asked for; 0: none.
    pub warm_max: usize,
    /// How long the sandbox of a run that waits for somebody stands still before it is closed, in milliseconds; 0: not at all.
    pub keep_parked_ms: u64,
    /// The same for the sandbox of a run that ended, for the session's next one.
    pub keep_idle_ms: u64,
    /// How many sandboxes stand still at once at most; of more the first goes.
    pub idle_max: usize,
}

/// Sandboxes that stand ready unless `topside.yaml` says otherwise.
pub(crate) const WARM_MIN: usize = 1;
/// And at most.
pub(crate) const WARM_MAX: usize = 4;
/// How long sandboxes stand still unless `topside.yaml` says otherwise: while a run waits for somebody who is at hand.
pub(crate) const KEEP_PARKED_MS: u64 = 180_000;
/// And how many.
pub(crate) const IDLE_MAX: usize = 16;

impl Default for SandboxSettings {
    fn default() -> Self {
        Self {
            limits: sandbox::Limits::default(),
            walls_optional: Vec::new(),
            landlock_version_min: 0,
            host_directories: Vec::new(),
            workspaces_bytes_max: None,
            warm_min: WARM_MIN,
            warm_max: WARM_MAX,
            keep_parked_ms: KEEP_PARKED_MS,
            keep_idle_ms: 0,
            idle_max: IDLE_MAX,
        }
    }
}

/// How many runs are driven at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Concurrency {
    /// Runs of one tenant; `None`: no limit.
    pub per_tenant: Option<u32>,
    /// Questions that runs ask a model at once, by its alias; no limit for one that is not here.
    pub per_model: BTreeMap<String, u32>,
}

/// How often asking a model is tried again, after what is tried at once.
pub const RETRY_MODEL: Retry = Retry { attempts: 4, backoff_ms: 5_000, backoff_ms_max: 60_000, total_ms: 600_000 };
/// How often a service that can't be reached is tried again.
pub const RETRY_DEPENDENCY: Retry =
    Retry { attempts: 20, backoff_ms: 5_000, backoff_ms_max: 120_000, total_ms: 3_600_000 };
/// How often making a sandbox is tried again.
pub const RETRY_SANDBOX: Retry = Retry { attempts: 3, backoff_ms: 1_000, backoff_ms_max: 60_000, total_ms: 600_000 };

/// How often what failed for a passing reason is tried again, by the part that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retries {
    /// Asking a model.
    pub model: Retry,
    /// A service that is configured.
    pub dependency: Retry,
    /// Making a sandbox.
    pub sandbox: Retry,
}

impl Default for Retries {
    fn default() -> Self {
        Self { model: RETRY_MODEL, dependency: RETRY_DEPENDENCY, sandbox: RETRY_SANDBOX }
    }
}

/// When a part that keeps failing is left alone for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Breaker {
    /// Failures in a row after which it is.
    pub failures: u32,
    /// How long it is, in seconds, before one attempt is let through.
    pub open_seconds: u32,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { failures: 5, open_seconds: 30 }
    }
}

/// Who is called when something happens to a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// Where the event is sent, unexpanded.
    pub url: String,
    /// What it is signed with, unexpanded.
    pub secret: String,
    /// The kinds of records that are sent, as [`domain::Event::kind`] names them.
    pub events: Vec<String>,
}

/// The events that a webhook is sent when it names none.
pub const WEBHOOK_EVENTS_DEFAULT: [&str; 3] = ["parked", "in_doubt", "finished"];

/// How long sessions are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Days after its last record that a session is removed; `None`: never.
    pub sessions_days: Option<u32>,
}

/// The PostgreSQL database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Database {
    /// Its URL, unexpanded; may lead to a pool of connections.
    pub url: String,
    /// The URL of the database itself, unexpanded, when `url` leads to a pool.
    pub direct_url: Option<String>,
}

/// Seconds after which the sessions of a process that is not heard of are taken over, unless the project says otherwise.
pub const LEASE_SECONDS_DEFAULT: u32 = 15;

/// Seconds without any progress after which a run's driver is stopped, unless the project says otherwise: beyond the longest
/// silence of a model.
const NO_PROGRESS_SECONDS_MAX_DEFAULT: u32 = 1_800;

/// What holds for processes that drive runs together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Worker {
    /// Seconds after which the sessions of a process that is not heard of are taken over.
    pub lease_seconds: u32,
    /// Seconds without any progress after which a run's driver is stopped and its session given back. While something with a
    /// time limit is under way, twice that limit holds when it is longer.
    pub no_progress_seconds_max: u32,
}

impl Default for Worker {
    fn default() -> Self {
        Self { lease_seconds: LEASE_SECONDS_DEFAULT, no_progress_seconds_max: NO_PROGRESS_SECONDS_MAX_DEFAULT }
    }
}
