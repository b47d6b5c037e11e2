//! What the database or the way to it did, sorted by what may be done about it.

use crate::Error;
use crate::error::ID_TAKEN;
use std::error::Error as _;
use tokio_postgres::error::{DbError, SqlState};

/// A statement that was not answered with rows.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// Nothing was sent.
    Unsent(String),
    /// It was sent, and nobody knows what became of it.
    Lost(String),
    /// The database did nothing of it and may do it when asked again.
    Again(String),
    /// One of our own conditions did not hold (they divide by zero), and nothing of it was done.
    Condition,
    /// The database did nothing of it, for good.
    Refused(Error),
}

impl Fault {
    /// What became of a statement that was sent.
    pub(crate) fn of(error: &tokio_postgres::Error) -> Self {
        let Some(database) = error.as_db_error() else {
            if error.is_closed() {
                return Self::Lost("the connection was closed".to_owned());
            }
            return Self::Lost(chain(error));
        };
        let (code, text) = (database.code(), describe(database));
        let class = &code.code()[..2];
        match code {
            // Ended, shut down or read-only (a standby after a failover): the connection is of no more use.
            _ if class == "08" || code.code().starts_with("57P") || *code == SqlState::READ_ONLY_SQL_TRANSACTION => {
                Self::Lost(text)
            }
            _ if class == "40" || *code == SqlState::QUERY_CANCELED || *code == SqlState::LOCK_NOT_AVAILABLE => {
                Self::Again(text)
            }
            _ if *code == SqlState::DIVISION_BY_ZERO => Self::Condition,
            _ if *code == SqlState::UNIQUE_VIOLATION => Self::Refused(match database.constraint() {
                Some("records_pkey") => Error::corrupt("there are records beyond the head of their log"),
                _ => ID_TAKEN,
            }),
            _ if *code == SqlState::DISK_FULL => Self::Refused(Error::Full),
            _ if ["XX001", "XX002"].contains(&code.code()) => Self::Refused(Error::corrupt(text)),
            _ if class == "53" => Self::Again(text),
            _ => Self::Refused(Error::io(text)),
        }
    }

    /// What came of trying to connect.
    pub(crate) fn of_connect(error: &tokio_postgres::Error) -> Self {
        Self::Unsent(error.as_db_error().map_or_else(|| chain(error), describe))
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Unsent(reason) | Fault::Lost(reason) => Self::Unreachable { reason: reason.into() },
            Fault::Again(reason) => Self::io(reason),
            Fault::Condition => Self::io("a condition did not hold"),
            Fault::Refused(error) => error,
        }
    }
}

fn describe(error: &DbError) -> String {
    format!("{} ({})", error.message(), error.code().code())
}

/// The driver says what it did; why it failed is in its sources.
fn chain(error: &tokio_postgres::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
