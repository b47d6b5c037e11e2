//! `topside backup`, `restore` and `repair`: data directories as a whole, each for a person at a prompt.

use super::Session;
use super::arguments::{Backup, Repair, Restore};
use super::clean::clean;
use super::ending::{Ending, Trouble};
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use stdx::Clock;
use topside::Data;

/// Where a backup keeps the objects.
const OBJECTS: &str = "objects";
/// Folders within folders at most; objects lie less deep.
const DEPTH_MAX: usize = 16;

/// The journal first: what its records point to is among the objects already, and stays while the session does.
pub(crate) fn backup(session: &Session, arguments: &Backup) -> Result<Ending, Trouble> {
    let console = &session.console;
    let data = there(&arguments.at.data)?;
    let manifest = journal::backup::of_directory(data.path(), &arguments.directory, Clock::system().wall_ms())?;
    console.data_line(&format!("journal: {} sessions, {} records", manifest.sessions, manifest.records));
    if manifest.broken > 0 {
        console.talk_line(&format!(
            "{} sessions in quarantine have a broken chain and were copied as they are",
            manifest.broken
        ));
    }
    if data.objects().is_dir() {
        let files = copy(&data.objects(), &arguments.directory.join(OBJECTS))?;
        console.data_line(&format!("objects: {files} files"));
    }
    match &arguments.keys {
        Some(keys) => {
            let files = copy(&data.keys(), keys)?;
            console.data_line(&format!("keys: {files} files in {}", clean(&keys.display().to_string())));
        }
        None => console.talk_line(
            "the tenants' keys are not in it, and without them it opens nothing; hint: keep them apart, see --keys",
        ),
    }
    Ok(Ending::Done)
}

pub(crate) fn restore(session: &Session, arguments: &Restore) -> Result<Ending, Trouble> {
    let console = &session.console;
    let data = Data::at(&arguments.at.data);
    make(data.path())?;
    let restored = journal::restore(&arguments.directory, data.path(), Clock::system().wall_ms())?;
    let manifest = &restored.manifest;
    console.data_line(&format!("journal: {} sessions, {} records", manifest.sessions, manifest.records));
    let objects = arguments.directory.join(OBJECTS);
    if objects.is_dir() {
        console.data_line(&format!("objects: {} files", copy(&objects, &data.objects())?));
    }
    match &arguments.keys {
        Some(keys) => console.data_line(&format!("keys: {} files", copy(keys, &data.keys())?)),
        None => console.talk_line("put the tenants' keys into `keys` of the data directory before it is used"),
    }
    if restored.quarantined > 0 {
        console.talk_line(&format!(
            "{} sessions had a run under way and are in quarantine: what their runs did since is not known; hint: look at each, \
             then topside session release or purge it",
            restored.quarantined
        ));
    }
    Ok(Ending::Done)
}

pub(crate) fn repair(session: &Session, arguments: &Repair) -> Result<Ending, Trouble> {
    let console = &session.console;
    let data = there(&arguments.at.data)?;
    let repaired = journal::repair(data.path(), Clock::system().wall_ms())?;
    console.data_line(&format!("saved: {} sessions, {} records", repaired.sessions, repaired.records));
    for finding in &repaired.findings {
        console.talk_line(&format!("found: {}", clean(finding)));
    }
    for quarantine in &repaired.quarantines {
        let reason = clean(&quarantine.reason).into_owned();
        console.data_line(&format!("quarantine: {} {reason}", quarantine.key.session));
    }
    let kept = repaired.kept.display().to_string();
    console.talk_line(&format!("the files as they were are in {}", clean(&kept)));
    Ok(if repaired.quarantined == 0 { Ending::Done } else { Ending::Failed })
}

fn there(directory: &Path) -> Result<Data, Trouble> {
    let data = Data::at(directory);
    match data.has_journal() {
        true => Ok(data),
        false => Err(topside::Error::NoData { path: directory.to_owned() }.into()),
    }
}

/// Copies a folder with what is in it, for its owner's eyes; gives the number of files.
fn copy(from: &Path, to: &Path) -> Result<u64, Trouble> {
    copy_within(from, to, DEPTH_MAX)
}

fn copy_within(from: &Path, to: &Path, depth: usize) -> Result<u64, Trouble> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |error: io::Error| Trouble::File { path, error }
    };
    let deeper = depth.checked_sub(1).ok_or_else(|| at(from)(io::Error::other("folders lie too deep")))?;
    make(to)?;
    let mut files = 0;
    for entry in from.read_dir().map_err(at(from))? {
        let entry = entry.map_err(at(from))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().map_err(at(&source))?;
        if kind.is_dir() {
            files += copy_within(&source, &target, deeper)?;
        } else if kind.is_file() {
            match std::fs::copy(&source, &target) {
                Ok(_) => files += 1,
                // What was deleted meanwhile belongs to nobody any more.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(at(&target)(error)),
            }
        }
    }
    Ok(files)
}

fn make(directory: &Path) -> Result<(), Trouble> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.map_err(|error| Trouble::File { path: directory.to_owned(), error })
}
