//! Reads a session's log into its state.

use crate::Error;
use domain::Record;
use journal::{Journal, SessionKey};
use machine::{Session, Stamp};

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
