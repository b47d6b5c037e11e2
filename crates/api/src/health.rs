//! How the service does.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Answer of `GET /health`: what is wired, as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Health {
    /// `ok` while the service takes runs, else `degraded`.
    pub status: String,
    /// The name of the default agent's model, as its vendor knows it.
    pub model: String,
    /// Which backends are in use.
    pub backends: Backends,
    /// Why it is degraded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Declared parts that are switched off, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub switched_off: Vec<String>,
    /// The program's version.
    pub version: String,
}

/// Which backends are in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Backends {
    /// The journal lies in PostgreSQL.
    pub postgres: bool,
    /// Agents can get a sandbox.
    pub sandbox: bool,
    /// Objects lie in storage that speaks S3.
    pub r2: bool,
}

/// Answer of `GET /healthz` and `GET /readyz`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Ready {
    /// `ok`.
    pub status: String,
}
