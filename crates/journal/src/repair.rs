//! Repairs the database of a data directory: what can be read of it goes into a new one, the index is made anew from the
//! records, and a session whose log is not whole is put aside. Nothing is deleted: the damaged files are kept beside.

use crate::backup::{HARNESS, go_ahead};
use crate::claims::CLAIM_BITS;
use crate::query::{PAGE_ROWS_MAX, Verified};
use crate::sqlite::directory::{self, DATABASE, REPAIR};
use crate::sqlite::salvage::{self, Salvaged, TABLES};
use crate::sqlite::schema::{self, SCHEMA};
use crate::sqlite::upkeep::insert_quarantine;
use crate::sqlite::{apply, chains, read};
use crate::upkeep::Quarantine;
use crate::{Error, SessionKey};
use domain::{Id, id};
use rusqlite::{Connection, OptionalExtension, params};
use std::collections::HashMap;
use std::fs::{DirBuilder, File, rename};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Findings of the integrity check that a report holds.
const FINDINGS_MAX: usize = 100;
/// Quarantined sessions that a report names.
pub const QUARANTINED_MAX: usize = 1_000;
/// The files that hold a database.
const FILES: [&str; 2] = [DATABASE, "journal.db-wal"];

/// What a repair found and did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repaired {
    /// Where the damaged files are kept.
    pub kept: PathBuf,
    /// What the database's own check says of them; empty when it finds nothing. At most 100.
    pub findings: Vec<String>,
    /// What was read of each table.
    pub tables: Vec<Salvaged>,
    /// Sessions with records.
    pub sessions: u64,
    /// Records in their logs.
    pub records: u64,
    /// How many sessions were put aside.
    pub quarantined: u64,
    /// Which and why, at most [`QUARANTINED_MAX`].
    pub quarantines: Vec<Quarantine>,
    /// From which opening the journal goes on to count: every epoch is above all that were ever given.
    pub boot: u64,
}

/// Repairs the journal of a data directory that no process has open. Blocks. Needs room for two more copies of the database.
/// A repair that is interrupted is taken up by the next one; until then the journal does not open.
pub fn repair(directory: &Path, at_ms: u64) -> Result<Repaired, Error> {
    let _lock = directory::lock(directory)?;
    let kept = keep(directory)?;
    let path = directory.join(DATABASE);
    let source = Connection::open(&path)?;
    let findings = findings(&source)?;
    let new = directory.join("journal.db.repaired");
    remove(&new)?;
    directory::make(&new)?;
    let mut target = Connection::open(&new)?;
    let transaction = target.transaction()?;
    schema::create(&transaction)?;
    let tables = TABLES.iter().map(|table| salvage::table(&source, &transaction, table));
    let tables = tables.collect::<Result<Vec<_>, _>>()?;
    let boot = count_on(&source, &transaction)?;
    // Whoever closes the damaged database may not be able to write to it.
    drop(source);
    let mut repaired =
        Repaired { kept, findings, tables, sessions: 0, records: 0, quarantined: 0, quarantines: Vec::new(), boot };
    let whole = check_chains(&transaction, &mut repaired, at_ms)?;
    check_contents(&transaction, &mut repaired, at_ms)?;
    apply::rebuild_index(&transaction, |key, position| whole.get(key).is_none_or(|end| position < *end))?;
    transaction.commit()?;
    let found: String = target.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    if found != "ok" {
        return Err(Error::corrupt(format_args!("the repaired database: {found}")));
    }
    target.close().map_err(|(_, error)| error)?;
    put_in_place(directory, &new, &mut repaired, at_ms)?;
    Ok(repaired)
}

fn at(path: &Path) -> impl Fn(std::io::Error) -> Error {
    move |error| Error::io(format_args!("{}: {error}", path.display()))
}

fn remove(path: &Path) -> Result<(), Error> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(at(path)(error)),
        _ => Ok(()),
    }
}

fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    match std::fs::copy(from, to) {
        // A database that was closed has no write-ahead log.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(at(from)(error)),
        Ok(_) => File::open(to).and_then(|file| file.sync_all()).map_err(at(to)),
    }
}

/// Keeps a copy of the files as they are, or puts the copy that an interrupted repair kept back in their place.
fn keep(directory: &Path) -> Result<PathBuf, Error> {
    let kept = directory.join(REPAIR);
    if kept.exists() {
        for name in FILES {
            remove(&directory.join(name))?;
            copy(&kept.join(name), &directory.join(name))?;
        }
        remove(&directory.join("journal.db-shm"))?;
        return Ok(kept);
    }
    let path = directory.join(DATABASE);
    if !path.exists() {
        return Err(Error::Backup { reason: format!("{} is not there", path.display()).into() });
    }
    let partial = directory.join("repair.copying");
    match std::fs::remove_dir_all(&partial) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(at(&partial)(error)),
        _ => {}
    }
    DirBuilder::new().mode(0o700).create(&partial).map_err(at(&partial))?;
    for name in FILES {
        copy(&directory.join(name), &partial.join(name))?;
    }
    directory::sync(&partial)?;
    rename(&partial, &kept).map_err(at(&partial))?;
    directory::sync(directory)?;
    Ok(kept)
}

/// The new database becomes the journal's. The old write-ahead log goes first, since it would be read into the new one.
fn put_in_place(directory: &Path, new: &Path, repaired: &mut Repaired, at_ms: u64) -> Result<(), Error> {
    File::open(new).and_then(|file| file.sync_all()).map_err(at(new))?;
    for name in ["journal.db-wal", "journal.db-shm"] {
        remove(&directory.join(name))?;
    }
    directory::sync(directory)?;
    rename(new, directory.join(DATABASE)).map_err(at(new))?;
    directory::sync(directory)?;
    let damaged = directory.join(format!("damaged-{at_ms}"));
    rename(&repaired.kept, &damaged).map_err(at(&damaged))?;
    repaired.kept = damaged;
    directory::sync(directory)
}

fn findings(source: &Connection) -> Result<Vec<String>, Error> {
    let mut check = source.prepare(&format!("PRAGMA integrity_check({FINDINGS_MAX})"))?;
    let mut rows = check.query([])?;
    let mut findings = Vec::new();
    while findings.len() < FINDINGS_MAX {
        match rows.next() {
            Ok(Some(row)) => findings.push(row.get(0)?),
            Ok(None) => break,
            Err(error) => {
                findings.push(error.to_string());
                break;
            }
        }
    }
    findings.retain(|finding| finding != "ok");
    Ok(findings)
}

/// Sets the number of openings above all that the damaged database knows of.
fn count_on(source: &Connection, target: &Connection) -> Result<u64, Error> {
    let meta = |key: &str| {
        let found = source.query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get::<_, u64>(0));
        found.optional().ok().flatten()
    };
    if let Some(found) = meta("schema").filter(|found| *found > u64::from(SCHEMA)) {
        return Err(Error::Newer { found: u32::try_from(found).unwrap_or(u32::MAX), known: SCHEMA });
    }
    let epoch: u64 = target.query_row("SELECT coalesce(max(epoch), 0) FROM heads", [], |row| row.get(0))?;
    go_ahead(target, meta("boot").unwrap_or(0).max(epoch >> CLAIM_BITS))
}

/// Puts sessions aside whose chain is not whole; gives where each of them breaks.
fn check_chains(target: &Connection, repaired: &mut Repaired, at_ms: u64) -> Result<HashMap<SessionKey, u64>, Error> {
    let mut broken = HashMap::new();
    let mut found = Vec::new();
    let chains = chains::verify(target, |key, verified, _| {
        if let Verified::Broken { position, reason } = verified {
            found.push((key.clone(), position, reason));
        }
        Ok(())
    })?;
    (repaired.sessions, repaired.records) = (chains.sessions, chains.records);
    for (key, position, reason) in found {
        put_aside(target, repaired, &key, at_ms, &format!("record {position}: {reason}"))?;
        broken.insert(key, position);
    }
    // A log without a head would begin anew over its own records.
    let headless = "INSERT INTO heads(tenant, session, position, hash, epoch)
        SELECT tenant, session, position + 1, hash, 0 FROM records AS r WHERE NOT EXISTS(
            SELECT 1 FROM heads AS h WHERE h.tenant = r.tenant AND h.session = r.session)
        AND position = (SELECT max(position) FROM records AS o WHERE o.tenant = r.tenant AND o.session = r.session)";
    target.execute(headless, [])?;
    Ok(broken)
}

fn put_aside(
    target: &Connection,
    repaired: &mut Repaired,
    key: &SessionKey,
    at_ms: u64,
    reason: &str,
) -> Result<(), Error> {
    let quarantine = Quarantine::new(key, at_ms, HARNESS, &format!("repaired, and not whole: {reason}"));
    insert_quarantine(target, &quarantine)?;
    if target.changes() > 0 {
        repaired.quarantined += 1;
        if repaired.quarantines.len() < QUARANTINED_MAX {
            repaired.quarantines.push(quarantine);
        }
    }
    Ok(())
}

/// When contents or their keys could not be read: a session that points to what is not there is put aside, since what was
/// lost can't be told from what was erased.
fn check_contents(target: &Connection, repaired: &mut Repaired, at_ms: u64) -> Result<(), Error> {
    let gaps = |name: &str| repaired.tables.iter().any(|table| table.table == name && table.gaps > 0);
    if !gaps("contents") && !gaps("data_keys") {
        return Ok(());
    }
    let mut sessions = target.prepare("SELECT tenant, session FROM heads WHERE position > 0")?;
    let mut rows = sessions.query([])?;
    while let Some(row) = rows.next()? {
        let key = read::session_key(row)?;
        if let Some(reason) = first_missing(target, &key)? {
            put_aside(target, repaired, &key, at_ms, &reason)?;
        }
    }
    Ok(())
}

fn first_missing(target: &Connection, key: &SessionKey) -> Result<Option<String>, Error> {
    let of_session = params![&*key.tenant, key.session.as_bytes()];
    let sealed = "SELECT EXISTS(SELECT 1 FROM contents WHERE tenant = ?1 AND session = ?2 AND form IN (0, 1))";
    if target.query_row(sealed, of_session, |row| row.get(0))? && read::data_key(target, key)?.is_none() {
        return Ok(Some("its data key is lost, and its contents with it".to_owned()));
    }
    let mut from = 0;
    loop {
        let page = read::records(target, key, from, PAGE_ROWS_MAX)?;
        let Some(last) = page.last() else {
            return Ok(None);
        };
        from = last.position + 1;
        for record in &page {
            for item in contents_named(&record.bytes) {
                if read::content(target, key, item)?.is_none() {
                    let position = record.position;
                    return Ok(Some(format!("content {item} of record {position} was erased before, or is lost")));
                }
            }
        }
    }
}

/// The content items that the bytes of a record name.
fn contents_named(bytes: &[u8]) -> impl Iterator<Item = Id<id::Content>> {
    const ID_BYTES: usize = 36;
    bytes
        .windows(ID_BYTES)
        .filter(|window| window.starts_with(b"con_"))
        .filter_map(|window| std::str::from_utf8(window).ok()?.parse().ok())
}
