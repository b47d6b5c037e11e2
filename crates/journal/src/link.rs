//! Gives drafts their place: position, previous hash, hash, exact bytes. Pure; every store links by this.

use crate::append::{Append, Fence, PreparedDraft, SessionKey};
use crate::query::{Head, StoredRecord, Verified};
use crate::{Error, Written};
use domain::{Digest, record};
use std::sync::Arc;

/// Whether an entry may be appended at this head. Says nothing of idempotency.
pub(crate) fn admit(fence: &Fence, head: &Head) -> Result<(), Error> {
    match fence {
        Fence::Input(_) => Ok(()),
        Fence::Effect { epoch, .. } if *epoch < head.epoch => Err(Error::Fenced { epoch: head.epoch }),
        Fence::Effect { expect, .. } if *expect != head.position => Err(Error::Moved { position: head.position }),
        Fence::Effect { .. } => Ok(()),
    }
}

/// Links drafts to a head and moves it.
pub(crate) fn link(
    key: &SessionKey,
    fence: &Fence,
    drafts: &[PreparedDraft],
    head: &mut Head,
    commit_id: u64,
) -> (Vec<StoredRecord>, Written) {
    let first_position = head.position;
    let mut records = Vec::with_capacity(drafts.len());
    for draft in drafts {
        let place = record::Head {
            tenant: key.tenant.to_string(),
            session: key.session,
            position: head.position,
            previous: head.hash,
            at_ms: draft.at_ms,
            principal: draft.principal,
        };
        let bytes: Arc<[u8]> = record::encode(&place, &draft.event).into();
        head.hash = record::hash(&bytes);
        records.push(StoredRecord { position: head.position, hash: head.hash, bytes, commit_id });
        head.position += 1;
    }
    if let Fence::Effect { epoch, .. } = fence {
        head.epoch = *epoch;
    }
    let last_position = head.position.saturating_sub(1);
    (records, Written { first_position, last_position, head_hash: head.hash, commit_id })
}

/// Where in the log an entry, refused so, may stand already: the position of the record before its first, as an index.
/// A driver that was not told whether its entry was written hands it in again.
pub(crate) fn stands(entry: &Append, refused: &Error) -> Option<usize> {
    match (&entry.fence, refused) {
        (Fence::Effect { expect, .. }, Error::Moved { position }) if expect < position => {
            usize::try_from(expect.saturating_sub(1)).ok()
        }
        _ => None,
    }
}

/// What the answer was when this very entry was written before; `None`: something else stands in its place. `stored` begins
/// with the record before the entry's first, or with its first at the beginning of the log.
pub(crate) fn repeated(entry: &Append, stored: &[StoredRecord]) -> Option<Written> {
    let Append { key, fence: Fence::Effect { epoch, expect }, drafts, .. } = entry else {
        return None;
    };
    let (hash, stored) = match expect {
        0 => (Digest::ZERO, stored),
        _ => (stored.first()?.hash, stored.get(1..)?),
    };
    let mut head = Head { position: *expect, hash, epoch: *epoch };
    let commit_id = stored.get(drafts.len() - 1)?.commit_id;
    let (records, written) = link(key, &entry.fence, drafts, &mut head, commit_id);
    records.iter().zip(stored).all(|(wanted, found)| wanted.hash == found.hash).then_some(written)
}

/// Checks records of one log that were read in one piece: each has the hash of its bytes, stands at its place, and links to
/// the one before.
pub(crate) fn check(key: &SessionKey, from: u64, records: &[StoredRecord]) -> Result<(), Error> {
    let mut previous = (from == 0).then_some(Digest::ZERO);
    for (found, position) in records.iter().zip(from..) {
        let broken = |what| Err(Error::corrupt(format_args!("record {position} of {}: {what}", key.session)));
        if found.position != position {
            return broken("missing");
        }
        if record::hash(&found.bytes) != found.hash {
            return broken("its bytes do not have its hash");
        }
        if !names(&found.bytes, key, position, previous) {
            return broken("its bytes name another place");
        }
        previous = Some(found.hash);
    }
    Ok(())
}

/// Whether the bytes of a record begin with this place, so that the whole need not be read. A record of another version is
/// left to whoever reads it.
fn names(bytes: &[u8], key: &SessionKey, position: u64, previous: Option<Digest>) -> bool {
    let version = format!("{{\"v\":{},", record::VERSION);
    let Some(rest) = bytes.strip_prefix(version.as_bytes()) else {
        return true;
    };
    let tenant = serde_json::Value::from(&*key.tenant);
    let mut place =
        format!("\"tenant\":{tenant},\"session\":\"{}\",\"position\":{position},\"previous\":\"", key.session);
    if let Some(previous) = previous {
        place = format!("{place}{previous}\",");
    }
    rest.starts_with(place.as_bytes())
}

/// Walks a chain from its first record.
#[derive(Debug)]
pub(crate) struct Walk {
    key: SessionKey,
    at: Head,
}

impl Walk {
    pub(crate) const fn new(key: SessionKey) -> Self {
        Self { key, at: Head::EMPTY }
    }

    /// Takes the next record; `Err` says what does not fit.
    pub(crate) fn step(&mut self, found: &StoredRecord) -> Result<(), Verified> {
        let position = self.at.position;
        let broken = |reason: String| Err(Verified::Broken { position, reason });
        if found.position != position {
            return broken(format!("missing; the next one stored is {}", found.position));
        }
        if record::hash(&found.bytes) != found.hash {
            return broken("its bytes do not have its hash".to_owned());
        }
        let head = match record::decode(&found.bytes) {
            Ok(record) => record.head,
            Err(error) => return broken(error.to_string()),
        };
        if (head.tenant.as_str(), head.session, head.position) != (&*self.key.tenant, self.key.session, position) {
            return broken("its bytes name another place".to_owned());
        }
        if head.previous != self.at.hash {
            return broken("it does not link to the record before".to_owned());
        }
        self.at.position += 1;
        self.at.hash = found.hash;
        Ok(())
    }

    /// The position that the next record must have.
    pub(crate) const fn position(&self) -> u64 {
        self.at.position
    }

    /// Compares the end of the chain with the stored head.
    pub(crate) fn end(self, head: &Head) -> Verified {
        if (self.at.position, self.at.hash) == (head.position, head.hash) {
            return Verified::Intact { records: self.at.position, head_hash: self.at.hash };
        }
        let position = self.at.position.min(head.position);
        Verified::Broken { position, reason: format!("the log ends here, its head says {}", head.position) }
    }
}
