//! Reads a session's log into its state.

use crate::Error;
use domain::{Digest, Record};
use journal::{Journal, SessionKey, StoredRecord};
use machine::{Session, Stamp};
use std::vec::IntoIter;

/// Records read at once.
const PAGE_RECORDS: usize = 512;

/// Folds a record into the state.
pub(crate) fn fold_one(state: &mut Session, record: &Record) -> Result<(), Error> {
    let stamp = Stamp { at_ms: record.head.at_ms, principal: record.head.principal };
    Ok(state.apply(stamp, &record.event)?)
}

/// Folds what the log holds beyond the state.
pub(crate) async fn catch_up(journal: &Journal, key: &SessionKey, state: &mut Session) -> Result<(), Error> {
    loop {
        let page = journal.records(key, state.position, PAGE_RECORDS).await?;
        if page.is_empty() {
            return Ok(());
        }
        for stored in &page {
            fold_one(state, &stored.decode()?)?;
        }
    }
}

/// One record of a log that is read step by step.
pub(crate) struct Step {
    pub(crate) record: Record,
    pub(crate) hash: Digest,
}

/// Reads a log record by record, a page at a time.
pub(crate) struct Steps<'a> {
    journal: &'a Journal,
    key: &'a SessionKey,
    at: u64,
    page: IntoIter<StoredRecord>,
}

impl<'a> Steps<'a> {
    pub(crate) fn new(journal: &'a Journal, key: &'a SessionKey, from: u64) -> Self {
        Self { journal, key, at: from, page: Vec::new().into_iter() }
    }

    /// The next record; `None` at the end of the log.
    pub(crate) async fn next(&mut self) -> Result<Option<Step>, Error> {
        let stored = match self.page.next() {
            Some(stored) => stored,
            None => {
                self.page = self.journal.records(self.key, self.at, PAGE_RECORDS).await?.into_iter();
                match self.page.next() {
                    Some(stored) => stored,
                    None => return Ok(None),
                }
            }
        };
        self.at = stored.position + 1;
        Ok(Some(Step { record: stored.decode()?, hash: stored.hash }))
    }
}
