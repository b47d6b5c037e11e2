//! Reads a session's log into its state.

use crate::Error;
use domain::{Digest, Event, Record};
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
    fold_on(journal, key, state, |_| true).await
}

/// Folds what came from outside since. Whatever else stands there, the driver whose claim came before wrote: nobody may go
/// on from it as from work of their own.
pub(crate) async fn hear(journal: &Journal, key: &SessionKey, state: &mut Session) -> Result<(), Error> {
    fold_on(journal, key, state, Event::is_input).await
}

/// Folds on from the state; stops before a record that may not stand there.
async fn fold_on(
    journal: &Journal,
    key: &SessionKey,
    state: &mut Session,
    may_stand: fn(&Event) -> bool,
) -> Result<(), Error> {
    loop {
        let page = journal.records(key, state.position, PAGE_RECORDS).await?;
        if page.is_empty() {
            return Ok(());
        }
        for stored in &page {
            let record = stored.decode()?;
            if !may_stand(&record.event) {
                return Err(Error::Overtaken { position: stored.position });
            }
            fold_one(state, &record)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use domain::Id;
    use domain::record::{CancelRequested, Draft, Resumed, When};
    use journal::{Append, Config, Fence, MemoryObjects, Parts, PlainWrap};
    use std::sync::Arc;
    use stdx::{Clock, Random};

    #[tokio::test]
    async fn a_driver_hears_what_comes_from_outside_and_never_goes_on_from_anothers_work() {
        let (clock, random) = (Clock::manual(1_000), Random::seeded(1));
        let objects = Arc::new(MemoryObjects::default());
        let journal = Journal::memory(Parts { clock, random, wrap: Arc::new(PlainWrap), objects }, Config::default());
        let key = SessionKey::new("default", Id::from_bytes([1; 16]));
        let (run, principal) = (Id::from_bytes([2; 16]), Id::from_bytes([3; 16]));
        let write = async |fence, event| {
            let draft = Draft { at_ms: 1_000, principal, event };
            journal.append(Append::new(key.clone(), fence).draft(&draft)).await.unwrap();
        };
        let cancel = || Event::CancelRequested(CancelRequested { run, when: When::Now });
        write(Fence::Input(None), cancel()).await;
        let epoch = journal.claim(&key).await.unwrap().epoch;
        let mut mine = Session::default();
        catch_up(&journal, &key, &mut mine).await.unwrap();
        write(Fence::Input(None), cancel()).await;
        hear(&journal, &key, &mut mine).await.unwrap();
        assert_eq!(mine.position, 2);
        // Somebody whose claim came before has not been fenced yet.
        write(Fence::Effect { epoch, expect: 2 }, Event::Resumed(Resumed { run, epoch, attached: vec![] })).await;
        let heard = hear(&journal, &key, &mut mine).await;
        assert!(matches!(heard, Err(Error::Overtaken { position: 2 })), "{heard:?}");
        assert_eq!(mine.position, 2, "nothing of it was folded");
    }
}
