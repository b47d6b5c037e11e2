//! The writer's transactions, and what is known after one failed.
//!
//! When `COMMIT` itself fails, what it wrote to the write-ahead log may or may not be there after the next crash: the
//! last frame may have reached the disk although the operating system said that it did not. Nothing more is taken then
//! until the writer has settled it: one small commit over the same place in the log. When that is durable, what failed
//! can never come back. Only then it is looked up and the callers are told what became of their entries.

use super::writer::Writer;
use crate::Error;
use rusqlite::params;
use stdx::points;

/// Room that there must be before a disk that was full counts as one with room, in bytes.
const ROOM_BYTES: usize = 256 << 10;

/// What is known of a transaction that failed.
#[derive(Debug)]
pub(crate) enum Failed {
    /// Nothing of it was written.
    Before(Error),
    /// Its `COMMIT` failed.
    InCommit(Error),
}

impl Failed {
    pub(crate) fn into_error(self) -> Error {
        match self {
            Self::Before(error) | Self::InCommit(error) => error,
        }
    }
}

impl Writer {
    /// One transaction, after whatever was in doubt is settled.
    pub(crate) fn transaction<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Failed> {
        self.settle().map_err(Failed::Before)?;
        self.bare_transaction(work).inspect_err(|failed| {
            // Nothing that was cached in it is known to be stored.
            self.heads.clear();
            let (Failed::Before(error) | Failed::InCommit(error)) = failed;
            self.shared.note(None, error);
        })
    }

    fn bare_transaction<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Failed> {
        if let Some(damage) = self.shared.damage() {
            return Err(Failed::Before(damage));
        }
        points::reach("writer.before_begin");
        let begun = self.connection.prepare_cached("BEGIN IMMEDIATE").and_then(|mut begin| begin.execute([]));
        let done = begun.map_err(Error::from).and_then(|_| work(self)).map_err(Failed::Before).and_then(|done| {
            points::reach("writer.before_commit");
            let committed = self.connection.prepare_cached("COMMIT").and_then(|mut commit| commit.execute([]));
            committed.map_err(|error| {
                // Still in the transaction: it never got to the log.
                let in_commit = self.connection.is_autocommit();
                if in_commit { Failed::InCommit(error.into()) } else { Failed::Before(error.into()) }
            })?;
            points::reach("writer.after_commit");
            Ok(done)
        });
        if let Err(failed) = &done {
            self.unsettled |= matches!(failed, Failed::InCommit(_));
            self.roll_back();
        }
        done
    }

    /// Leaves the transaction. A connection that can't is given up for a new one.
    fn roll_back(&mut self) {
        if self.connection.is_autocommit() || self.connection.execute_batch("ROLLBACK").is_ok() {
            return;
        }
        match super::schema::connect(&self.database) {
            Ok(connection) => self.connection = connection,
            // The next transaction says that there is one already, and comes here again.
            Err(error) => tracing::error!(code = error.code(), %error, "the database does not open again"),
        }
    }

    /// Makes sure that no commit that failed can come back; an error when that is not known yet.
    pub(crate) fn settle(&mut self) -> Result<(), Error> {
        if !self.unsettled {
            return Ok(());
        }
        let settled = self.bare_transaction(|writer| {
            writer.connection.execute("UPDATE meta SET value = value + 1 WHERE key = 'settled'", [])?;
            Ok(())
        });
        if let Err(failed) = settled {
            let error = failed.into_error();
            self.shared.note(None, &error);
            return Err(match error {
                Error::Io { reason } => {
                    Error::io(format_args!("{reason}; it is not known yet whether the last entries were written"))
                }
                other => other,
            });
        }
        self.unsettled = false;
        tracing::warn!("a commit that failed is settled");
        Ok(())
    }

    /// Looks whether the journal can write again, with as much as a commit may need.
    pub(crate) fn probe(&mut self) {
        let filled = self.transaction(|writer| {
            writer.connection.execute("INSERT INTO room(body) VALUES (zeroblob(?1))", params![ROOM_BYTES])?;
            Ok(())
        });
        let emptied = filled.and_then(|()| {
            self.transaction(|writer| {
                writer.connection.execute("DELETE FROM room", [])?;
                Ok(())
            })
        });
        self.shared.set_error(emptied.err().map(Failed::into_error));
        self.shared.end_probe();
    }
}
