//! What must hold after every restart: whatever was told to be durable is there.

use crate::told::Told;
use journal::{Journal, SessionKey, StoredRecord};

/// Reads a whole log.
pub(crate) async fn log_of(journal: &Journal, key: &SessionKey) -> Result<Vec<StoredRecord>, String> {
    let mut log: Vec<StoredRecord> = Vec::new();
    loop {
        let page = journal.records(key, log.len() as u64, 100).await;
        let page = page.map_err(|error| format!("{} can't be read: {error}", key.session))?;
        if page.is_empty() {
            return Ok(log);
        }
        log.extend(page);
    }
}

/// Whatever was told to be durable is there, at its place, with its hash; what else is there is durable from now on.
pub(crate) async fn after_restart(journal: &Journal, told: &Told) -> Result<(), String> {
    for (key, hashes) in told.logs() {
        let log = log_of(journal, &key).await?;
        for (position, hash) in &hashes {
            let there = usize::try_from(*position).ok().and_then(|place| log.get(place));
            if there.is_none_or(|record| record.hash != *hash) {
                let session = key.session;
                return Err(format!(
                    "record {position} of {session} was told to be durable and is not there as it was"
                ));
            }
        }
        log.iter().for_each(|record| told.read(&key, record));
    }
    Ok(())
}
