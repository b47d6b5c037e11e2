//! What the operator decides about a database, as data. Who reads it from environment or file is `topside`.

use std::fmt;

/// How statements are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Statements {
    /// Prepared, unless the URL looks like a pooler's.
    #[default]
    Auto,
    /// Prepared once for each connection.
    Prepared,
    /// Parsed anew each time: right behind every pooler.
    Unnamed,
}

/// Settings of a journal on PostgreSQL.
#[derive(Clone)]
pub struct PostgresSettings {
    /// The database, or its pooler (`DATABASE_URL`).
    pub url: String,
    /// The database itself, when `url` leads to a pooler (`DATABASE_URL_DIRECT`): for migrations and wake-ups.
    pub direct_url: Option<String>,
    /// Certificate authorities trusted besides the system's, PEM.
    pub ca_pem: Option<Vec<u8>>,
    /// How statements are sent.
    pub statements: Statements,
    /// Connections of the pool at most; one more listens for wake-ups.
    pub connections_max: usize,
    /// How long name, connection, handshake and login may take together.
    pub connect_ms: u64,
    /// How long a statement may take.
    pub statement_ms: u64,
}

impl PostgresSettings {
    /// Settings for a URL.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            direct_url: None,
            ca_pem: None,
            statements: Statements::Auto,
            connections_max: 16,
            connect_ms: 10_000,
            statement_ms: 30_000,
        }
    }
}

// A URL holds a password.
impl fmt::Debug for PostgresSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresSettings")
            .field("statements", &self.statements)
            .field("connections_max", &self.connections_max)
            .field("connect_ms", &self.connect_ms)
            .field("statement_ms", &self.statement_ms)
            .finish_non_exhaustive()
    }
}
