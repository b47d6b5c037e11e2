//! Who claimed which session, and where its log stood then: from there on nobody whose claim came before may have written.

use domain::{Event, Record};
use journal::SessionKey;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The claims that were asked for, and those that were told to hold. Cloning is cheap; clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Claimed(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    asked: BTreeMap<SessionKey, u32>,
    held: Vec<Claim>,
}

#[derive(Clone, Debug)]
struct Claim {
    key: SessionKey,
    epoch: u64,
    /// The next position of the log, as it was read after the claim.
    position: u64,
}

impl Claimed {
    /// Somebody asks for a session.
    pub(crate) fn ask(&self, key: &SessionKey) {
        *self.0.lock().asked.entry(key.clone()).or_default() += 1;
    }

    /// A claim holds; the log was read after it.
    pub(crate) fn note(&self, key: &SessionKey, epoch: u64, position: u64) {
        self.0.lock().held.push(Claim { key: key.clone(), epoch, position });
    }

    /// Whether more than one has asked for the session.
    pub(crate) fn is_contested(&self, key: &SessionKey) -> bool {
        self.0.lock().asked.get(key).is_some_and(|asked| *asked > 1)
    }

    /// The sessions that somebody asked for.
    pub(crate) fn keys(&self) -> Vec<SessionKey> {
        self.0.lock().asked.keys().cloned().collect()
    }

    /// Nobody wrote after somebody else's claim.
    pub(crate) fn hold(&self, key: &SessionKey, records: &[Record]) -> Result<(), String> {
        for claim in self.0.lock().held.iter().filter(|claim| claim.key == *key) {
            let since = records.iter().filter(|record| record.head.position >= claim.position);
            for Record { head, event } in since {
                if let Some(epoch) = epoch_of(event).filter(|epoch| *epoch < claim.epoch) {
                    let (position, session, later) = (head.position, key.session, claim.epoch);
                    return Err(format!(
                        "record {position} of {session} is of epoch {epoch}, and {later} had claimed it before"
                    ));
                }
            }
        }
        Ok(())
    }
}

/// The epoch of whoever wrote a record, where it says so.
pub(crate) const fn epoch_of(event: &Event) -> Option<u64> {
    match event {
        Event::Began(body) => Some(body.epoch),
        Event::Resumed(body) => Some(body.epoch),
        _ => None,
    }
}
