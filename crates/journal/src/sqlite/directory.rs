//! The data directory: its lock, its modes, its database file.

use crate::Error;
use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError, set_permissions};
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The database's name in its directory.
pub(crate) const DATABASE: &str = "journal.db";

/// What is read and written at once.
const REWRITE_BYTES: usize = 1 << 20;

/// Where a repair that is under way keeps the damaged files.
pub(crate) const REPAIR: &str = "repair";

/// A held lock on a data directory; given back when it is dropped or the process dies.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "held, not used")] File);

/// Makes the directory (0700) when it is not there and takes its lock.
pub(crate) fn lock(directory: &Path) -> Result<Lock, Error> {
    let named = |error: std::io::Error| Error::io(format_args!("{}: {error}", directory.display()));
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(named)?;
    set_permissions(directory, Permissions::from_mode(0o700)).map_err(named)?;
    let mut file = open(&directory.join("lock"))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::Error(error)) => return Err(named(error)),
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // Whoever holds it may not have written its number yet; 0 says so.
            let _ = file.take(32).read_to_string(&mut holder);
            let directory = directory.display().to_string().into();
            return Err(Error::Locked { directory, pid: holder.trim().parse().unwrap_or(0) });
        }
    }
    let written = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
    written.map_err(named)?;
    Ok(Lock(file))
}

/// The database file, made (0600) when it is not there, and its name durable. Refused while a repair is not finished: what
/// lies there then may be half of something.
pub(crate) fn database_file(directory: &Path) -> Result<PathBuf, Error> {
    if directory.join(REPAIR).exists() {
        return Err(Error::Unrepaired { directory: directory.display().to_string().into() });
    }
    let path = directory.join(DATABASE);
    let missing = path.metadata().is_err_and(|error| error.kind() == ErrorKind::NotFound);
    make(&path)?;
    if missing {
        sync(directory)?;
    }
    Ok(path)
}

/// Makes a file (0600) when it is not there.
pub(crate) fn make(path: &Path) -> Result<(), Error> {
    open(path)?.set_permissions(Permissions::from_mode(0o600)).map_err(Error::io)
}

/// Writes the bytes of a file once more, where they are, and syncs them; leaves alone what is not there.
pub(crate) fn rewrite(path: &Path) -> std::io::Result<()> {
    let file = match OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut piece = vec![0; REWRITE_BYTES];
    let mut at = 0;
    loop {
        let length = file.read_at(&mut piece, at)?;
        if length == 0 {
            break;
        }
        file.write_all_at(&piece[..length], at)?;
        at += length as u64;
    }
    if at > 0 { file.sync_all() } else { Ok(()) }
}

/// Makes the names in a directory durable.
pub(crate) fn sync(directory: &Path) -> Result<(), Error> {
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(|error| Error::io(format_args!("{}: {error}", directory.display())))
}

fn open(path: &Path) -> Result<File, Error> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.open(path).map_err(|error| Error::io(format_args!("{}: {error}", path.display())))
}
