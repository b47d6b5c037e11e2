//! Why a service can't be put together, or did not do what was asked.

use std::path::PathBuf;

/// What [`crate::Builder`] and [`crate::App`] say no with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The project is wrong; every problem with its place.
    #[error(transparent)]
    Project(#[from] catalog::Problems),
    /// The journal can't be had; [`journal::Error::Locked`] when another process has the data directory.
    #[error(transparent)]
    Journal(#[from] journal::Error),
    /// The tenants' keys can't be had.
    #[error(transparent)]
    Vault(#[from] vault::Error),
    /// The objects can't be had.
    #[error(transparent)]
    Objects(#[from] blob::Error),
    /// The way out can't be opened.
    #[error(transparent)]
    Net(#[from] net::Error),
    /// The engine refused.
    #[error(transparent)]
    Engine(#[from] engine::Error),
    /// The service refused to start, or stopped.
    #[error(transparent)]
    Serve(#[from] server::Error),
    /// The service in this process did not answer.
    #[error(transparent)]
    Client(#[from] client::Error),
    /// A variable of the environment has a value that can't be used.
    #[error("the environment variable {name} {reason}")]
    Variable {
        /// The variable.
        name: String,
        /// What is wrong, with what was expected; never its value.
        reason: String,
    },
    /// A setting of the project can't be used.
    #[error("`{setting}` of topside.yaml can't be used: {reason}")]
    Setting {
        /// The setting.
        setting: &'static str,
        /// What is wrong; never its value.
        reason: String,
    },
    /// A file of the data directory is not what it should be.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong, with what was expected.
        reason: String,
    },
    /// A file that holds secrets is open to others.
    #[error("{path} has mode {mode:o}; hint: chmod 600 {path}")]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Sandboxes can't be launched.
    #[error(transparent)]
    Jail(#[from] jail::Error),
    /// There is no data directory where one was named.
    #[error(
        "there is no journal in {path}; hint: name the directory that `topside run` or `topside serve` wrote with --data"
    )]
    NoData {
        /// The directory.
        path: PathBuf,
    },
}

impl Error {
    /// Stable code, with a page under `docs/errors/`.
    pub fn code(&self) -> &str {
        match self {
            Self::Project(problems) => problems.code(),
            Self::Journal(error) => error.code(),
            Self::Vault(error) => error.code(),
            Self::Objects(error) => error.code(),
            Self::Net(error) => error.code(),
            Self::Engine(error) => error.code(),
            Self::Serve(error) => error.code(),
            Self::Client(error) => error.code(),
            Self::Jail(error) => error.code(),
            Self::Variable { .. } => "variable_unusable",
            Self::Setting { .. } => "setting_unusable",
            Self::File { .. } => "data_file_unusable",
            Self::Exposed { .. } => "data_file_exposed",
            Self::NoData { .. } => "data_missing",
        }
    }
}
