//! Every chain of a database, verified one after the other in bounded memory.

use super::read;
use crate::query::{PAGE_ROWS_MAX, Verified};
use crate::{Error, SessionKey, link};
use rusqlite::Connection;

/// How much was verified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Chains {
    /// Sessions with records.
    pub(crate) sessions: u64,
    pub(crate) records: u64,
}

/// Verifies every session that has a head or a record; `each` is told the result and whether it is in quarantine.
pub(crate) fn verify(
    connection: &Connection,
    mut each: impl FnMut(&SessionKey, Verified, bool) -> Result<(), Error>,
) -> Result<Chains, Error> {
    let mut all = connection.prepare(
        "SELECT k.tenant, k.session, q.reason IS NOT NULL
         FROM (SELECT tenant, session FROM heads UNION SELECT tenant, session FROM records) AS k
         LEFT JOIN quarantine AS q ON q.tenant = k.tenant AND q.session = k.session",
    )?;
    let mut rows = all.query([])?;
    let mut chains = Chains::default();
    while let Some(row) = rows.next()? {
        let key = read::session_key(row)?;
        let (verified, records) = verify_one(connection, &key)?;
        chains.sessions += u64::from(records > 0);
        chains.records += records;
        each(&key, verified, row.get(2)?)?;
    }
    Ok(chains)
}

/// Verifies a chain up to its end, also beyond its head; gives the number of records that were looked at.
fn verify_one(connection: &Connection, key: &SessionKey) -> Result<(Verified, u64), Error> {
    let head = read::head(connection, key)?;
    let mut walk = link::Walk::new(key.clone());
    let mut looked_at = 0;
    loop {
        let page = read::records(connection, key, walk.position(), PAGE_ROWS_MAX)?;
        if page.is_empty() {
            return Ok((walk.end(&head), looked_at));
        }
        for record in &page {
            looked_at += 1;
            if let Err(broken) = walk.step(record) {
                return Ok((broken, looked_at));
            }
        }
    }
}
