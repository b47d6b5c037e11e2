//! What can go wrong between the client and the service.

use api::Problem;

/// Why a request got no good answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The service said no.
    #[error("{}", told(.0))]
    Problem(Box<Problem>),
    /// The network did not carry it.
    #[error(transparent)]
    Net(#[from] net::Error),
    /// The service in this process did not answer.
    #[error("the service in this process does not answer: {detail}")]
    Memory {
        /// What happened.
        detail: String,
    },
    /// The service did not answer in time.
    #[error("no answer within {ms} ms")]
    Timeout {
        /// The limit.
        ms: u64,
    },
    /// A command in a sandbox was not started, or was lost.
    #[error("the command: {detail}")]
    Exec {
        /// The service's code.
        code: String,
        /// What happened.
        detail: String,
    },
    /// The answer is not what the contract says.
    #[error("{what} is not what the contract says: {detail}; hint: is the service of another version?")]
    Malformed {
        /// What is not.
        what: &'static str,
        /// Why.
        detail: String,
    },
    /// The answer is longer than the client takes.
    #[error("{what} has more than {bytes_max} bytes")]
    TooLarge {
        /// What has.
        what: &'static str,
        /// The limit.
        bytes_max: usize,
    },
    /// The service's address or key can't be used.
    #[error("{what} can't be used: {detail}")]
    Settings {
        /// What can't.
        what: &'static str,
        /// Why.
        detail: String,
    },
}

impl Error {
    /// Stable code: the service's own, or the client's.
    pub fn code(&self) -> &str {
        match self {
            Self::Problem(problem) => &problem.code,
            Self::Exec { code, .. } => code,
            Self::Net(error) => error.code(),
            Self::Memory { .. } => "client_memory",
            Self::Timeout { .. } => "client_timeout",
            Self::Malformed { .. } => "client_malformed",
            Self::TooLarge { .. } => "client_too_large",
            Self::Settings { .. } => "client_settings",
        }
    }

    /// Whether the same request may meet a better moment.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Problem(problem) => matches!(problem.status, 408 | 429 | 500..),
            Self::Net(_) | Self::Memory { .. } | Self::Timeout { .. } => true,
            Self::Exec { .. } | Self::Malformed { .. } | Self::TooLarge { .. } | Self::Settings { .. } => false,
        }
    }
}

fn told(problem: &Problem) -> String {
    match &problem.hint {
        Some(hint) => format!("{}; hint: {hint}", problem.detail),
        None => problem.detail.clone(),
    }
}
