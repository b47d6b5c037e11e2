//! Backups of a journal on SQLite: a directory with a copy of the database and a manifest, and the way back.
//!
//! Only the database is here. Objects and tenants' keys are kept elsewhere and are copied by whoever keeps them.

use crate::query::Verified;
use crate::sqlite::chains::{self, Chains};
use crate::sqlite::directory::{self, DATABASE};
use crate::sqlite::schema::{self, Database, SCHEMA};
use crate::sqlite::upkeep::insert_quarantine;
use crate::upkeep::Quarantine;
use crate::{Disk, Error};
use domain::{Digest, Id, id};
use ring::digest::{Context, SHA256};
use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};
use serde::{Deserialize, Serialize};
use std::fs::{DirBuilder, File, OpenOptions, rename};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// The manifest's name in the directory of a backup. It is written last: without it there is no backup.
pub const MANIFEST: &str = "manifest.json";
/// The form of the manifest that this program writes.
const FORM: u32 = 1;
/// How many openings a journal that was restored or repaired is ahead of what its copy says: more than were counted since
/// the copy was made, so that every epoch is above all that were ever given.
pub(crate) const BOOTS_AHEAD: u64 = 1 << 16;
/// Openings that epochs have room for.
const BOOTS_MAX: u64 = 1 << 27;
/// Pages that are copied in one step.
const STEP_PAGES: i32 = 1_024;
const MANIFEST_BYTES_MAX: u64 = 64 << 10;
/// On whose authority the harness itself puts sessions aside.
pub(crate) const HARNESS: Id<id::Principal> = Id::from_bytes([0; 16]);

/// What a backup is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of this form.
    pub topside_backup: u32,
    /// Schema of the database.
    pub schema: u32,
    /// How often the journal had been opened.
    pub boot: u64,
    /// Number of the last commit in it.
    pub commit_id: u64,
    /// When it was made, in milliseconds since the Unix epoch.
    pub made_ms: u64,
    /// Sessions with records; the chain of each was verified in the copy.
    pub sessions: u64,
    /// Sessions in quarantine whose chain is broken; they are in the copy as they are.
    pub broken: u64,
    /// Records.
    pub records: u64,
    /// Length of the copy in bytes.
    pub bytes: u64,
    /// SHA-256 of the copy.
    pub sha256: Digest,
}

/// What a restored journal is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// What it was restored from.
    pub manifest: Manifest,
    /// From which opening it goes on to count.
    pub boot: u64,
    /// Sessions with a run that had not ended when the backup was made. They are in quarantine: what their runs did since
    /// is not known, so none of it may be done again before somebody has looked.
    pub quarantined: u64,
}

fn refused(reason: impl std::fmt::Display) -> Error {
    Error::Backup { reason: reason.to_string().into() }
}

fn at(path: &Path) -> impl Fn(std::io::Error) -> Error {
    move |error| Error::io(format_args!("{}: {error}", path.display()))
}

/// Makes a backup of a data directory's journal, as [`crate::Journal::backup`] does, whether or not a process has it open.
/// Blocks. Nothing is written to the directory.
pub fn of_directory(directory: &Path, to: &Path, made_ms: u64) -> Result<Manifest, Error> {
    make(&Database { file: directory.join(DATABASE), disk: Disk::System }, to, made_ms)
}

/// Copies a database that may be in use, verifies the copy and writes its manifest.
pub(crate) fn make(database: &Database, to: &Path, made_ms: u64) -> Result<Manifest, Error> {
    DirBuilder::new().recursive(true).mode(0o700).create(to).map_err(at(to))?;
    let file = to.join(DATABASE);
    let mut options = OpenOptions::new();
    let made = options.write(true).create_new(true).mode(0o600).open(&file);
    made.map_err(|error| {
        refused(format_args!("{}: {error}; hint: name a directory that is not there", file.display()))
    })?;
    let copied = copy(database, &file).and_then(|()| describe(&file, made_ms));
    let manifest = match copied {
        Ok(manifest) => manifest,
        Err(error) => {
            // Half a copy is of no use to anybody; should it stay, it has no manifest.
            let _ = std::fs::remove_file(&file);
            return Err(error);
        }
    };
    let text = serde_json::to_string_pretty(&manifest).map_err(Error::io)?;
    let partial = to.join("manifest.partial");
    let written = options.open(&partial).and_then(|mut partial| {
        partial.write_all(text.as_bytes())?;
        partial.write_all(b"\n")?;
        partial.sync_all()
    });
    written.and_then(|()| rename(&partial, to.join(MANIFEST))).map_err(at(&partial))?;
    directory::sync(to)?;
    Ok(manifest)
}

/// One read transaction over all steps: the copy is of one moment, and the writer goes on beside it.
fn copy(database: &Database, file: &Path) -> Result<(), Error> {
    let source = schema::connect_reader(database)?;
    source.execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema;")?;
    let mut target = Connection::open(file)?;
    {
        let backup = Backup::new(&source, &mut target)?;
        loop {
            match backup.step(STEP_PAGES)? {
                StepResult::Done => break,
                StepResult::More => {}
                // Nobody else has the copy, and a snapshot waits for nobody.
                _ => return Err(Error::io("the copy is locked")),
            }
        }
    }
    // A file of its own, without a write-ahead log beside it.
    target.query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(()))?;
    target.close().map_err(|(_, error)| error)?;
    File::open(file).and_then(|file| file.sync_all()).map_err(at(file))
}

/// Verifies a copy.
fn describe(file: &Path, made_ms: u64) -> Result<Manifest, Error> {
    let copy = schema::connect_reader(&Database { file: file.to_owned(), disk: Disk::System })?;
    let found: String = copy.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if found != "ok" {
        return Err(Error::corrupt(format_args!("the copy: {found}")));
    }
    let mut broken = 0;
    let Chains { sessions, records } = chains::verify(&copy, |key, verified, quarantined| match verified {
        Verified::Broken { position, reason } if !quarantined => {
            Err(Error::corrupt(format_args!("record {position} of {}: {reason}", key.session)))
        }
        Verified::Broken { .. } => {
            broken += 1;
            Ok(())
        }
        Verified::Intact { .. } => Ok(()),
    })?;
    let meta = |key: &str| copy.query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get::<_, u64>(0));
    let (schema, boot) = (meta("schema")?, meta("boot")?);
    let commit_id = schema::last_commit(&copy)?;
    drop(copy);
    let (sha256, bytes) = hash(File::open(file).map_err(at(file))?, &mut std::io::sink()).map_err(at(file))?;
    let schema = u32::try_from(schema).map_err(Error::corrupt)?;
    Ok(Manifest { topside_backup: FORM, schema, boot, commit_id, made_ms, sessions, broken, records, bytes, sha256 })
}

/// Copies and hashes; gives the hash and the length.
fn hash(mut from: impl Read, to: &mut impl Write) -> std::io::Result<(Digest, u64)> {
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; 1 << 20];
    let mut bytes = 0;
    loop {
        let read = from.read(&mut buffer)?;
        if read == 0 {
            let mut digest = [0; 32];
            digest.copy_from_slice(context.finish().as_ref());
            return Ok((Digest(digest), bytes));
        }
        context.update(&buffer[..read]);
        to.write_all(&buffer[..read])?;
        bytes += read as u64;
    }
}

/// Reads a backup's manifest.
pub fn manifest(backup: &Path) -> Result<Manifest, Error> {
    let path = backup.join(MANIFEST);
    let missing =
        |error| refused(format_args!("{}: {error}; hint: name the directory of a finished backup", path.display()));
    let mut text = String::new();
    File::open(&path).and_then(|file| file.take(MANIFEST_BYTES_MAX).read_to_string(&mut text)).map_err(missing)?;
    let manifest: Manifest =
        serde_json::from_str(&text).map_err(|error| refused(format_args!("{}: {error}", path.display())))?;
    if manifest.topside_backup > FORM || manifest.schema > SCHEMA {
        return Err(Error::Newer { found: manifest.schema.max(manifest.topside_backup), known: SCHEMA });
    }
    Ok(manifest)
}

/// Makes the journal of a data directory from a backup. Blocks. Refused when the directory has a journal, or when the copy
/// is not what its manifest says. Epochs do not go back: openings are counted from far above the backup's. Sessions that
/// had a run which had not ended come up in quarantine, see [`Restored::quarantined`].
pub fn restore(backup: &Path, directory: &Path, at_ms: u64) -> Result<Restored, Error> {
    let manifest = manifest(backup)?;
    let _lock = directory::lock(directory)?;
    let target = directory.join(DATABASE);
    if target.exists() {
        return Err(refused(format_args!("{} is there; hint: restore into another directory", target.display())));
    }
    let partial = directory.join("journal.db.restoring");
    let source = backup.join(DATABASE);
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&partial).map_err(at(&partial))?;
    let (sha256, bytes) = hash(File::open(&source).map_err(at(&source))?, &mut file).map_err(at(&partial))?;
    drop(file);
    if (sha256, bytes) != (manifest.sha256, manifest.bytes) {
        return Err(refused(format_args!("{} is not what its manifest says", source.display())));
    }
    let mut connection = Connection::open(&partial)?;
    let transaction = connection.transaction()?;
    // An old backup comes to this program's schema first: there may be no quarantine in it.
    schema::create(&transaction)?;
    let boot = go_ahead(&transaction, manifest.boot)?;
    let quarantined = put_aside(&transaction, &manifest, at_ms)?;
    transaction.commit()?;
    connection.close().map_err(|(_, error)| error)?;
    File::open(&partial).and_then(|file| file.sync_all()).map_err(at(&partial))?;
    rename(&partial, &target).map_err(at(&target))?;
    directory::sync(directory)?;
    Ok(Restored { manifest, boot, quarantined })
}

/// Counts on from far above `boot`.
pub(crate) fn go_ahead(connection: &Connection, boot: u64) -> Result<u64, Error> {
    let boot = boot.saturating_add(BOOTS_AHEAD);
    if boot >= BOOTS_MAX {
        return Err(Error::corrupt(format_args!("the journal was opened {boot} times, which nobody can have done")));
    }
    let set = "INSERT INTO meta(key, value) VALUES ('boot', ?1) ON CONFLICT(key) DO UPDATE SET value = excluded.value";
    connection.execute(set, [boot])?;
    Ok(boot)
}

fn put_aside(connection: &Connection, manifest: &Manifest, at_ms: u64) -> Result<u64, Error> {
    let sql = "SELECT DISTINCT tenant, session FROM run_index WHERE finished_ms IS NULL";
    let mut open = connection.prepare(sql)?;
    let mut rows = open.query([])?;
    let reason = format!(
        "restored from a backup made at {} ms, when its run had not ended: what the run did since is not known",
        manifest.made_ms
    );
    let mut quarantined = 0;
    while let Some(row) = rows.next()? {
        let key = crate::sqlite::read::session_key(row)?;
        insert_quarantine(connection, &Quarantine::new(&key, at_ms, HARNESS, &reason))?;
        quarantined += 1;
    }
    Ok(quarantined)
}
