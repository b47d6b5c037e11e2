//! Connections of one thread to SQLite files, kept open with their prepared statements, fenced by an authorizer.

use super::Failure;
use crate::reason::Reason;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::limits::Limit;
use rusqlite::{Connection, OpenFlags};
use std::cell::RefCell;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Connections that a thread keeps open.
const CONNECTIONS_MAX: usize = 8;
/// Prepared statements that a connection keeps.
const STATEMENTS_MAX: usize = 32;
/// Virtual machine steps between two looks at whether the call was given up.
const STEPS_PER_LOOK: i32 = 1_000;
/// Pages of a file that a connection caches, in KiB.
const CACHE_KIB_MAX: i32 = 1_024;
/// A lock of another process is waited for in steps of this length, until the call's time is over.
const LOCK_WAIT_MS: u64 = 5;
/// Bytes of one value or row at most.
const VALUE_BYTES_MAX: i32 = 8 * 1024 * 1024;
/// Functions that reach beyond the database.
const FUNCTIONS_DENIED: [&str; 6] = ["edit", "fts3_tokenizer", "load_extension", "readfile", "sqlite_log", "writefile"];

thread_local! {
    /// Whether the call that this thread works for was given up.
    static GIVEN_UP: RefCell<Option<Arc<AtomicBool>>> = const { RefCell::new(None) };
}

/// Says for which call this thread works from now on.
pub(super) fn work_for(call: Option<Arc<AtomicBool>>) {
    GIVEN_UP.set(call);
}

fn is_given_up() -> bool {
    GIVEN_UP.with_borrow(|call| call.as_ref().is_some_and(|given_up| given_up.load(Ordering::Relaxed)))
}

/// Called by SQLite while another process holds a lock; `false` gives up.
#[expect(
    clippy::disallowed_methods,
    reason = "a file lock of another process can only be polled, and this thread is SQLite's own"
)]
fn wait_for_lock(_attempts: i32) -> bool {
    if is_given_up() {
        return false;
    }
    std::thread::sleep(Duration::from_millis(LOCK_WAIT_MS));
    true
}

/// The open connections of one thread, the last used at the end.
#[derive(Default)]
pub(super) struct Connections {
    open: Vec<Open>,
}

struct Open {
    file: PathBuf,
    writes: bool,
    /// Device and inode: a file that was replaced is opened anew.
    identity: (u64, u64),
    connection: Connection,
}

impl Connections {
    /// The connection to a file, opened when there is none.
    pub(super) fn get(&mut self, file: &Path, writes: bool) -> Result<&Connection, Failure> {
        let failed = |detail: String| {
            Failure::new(Reason::SqlDatabase.code(), format!("the database can't be opened: {detail}"))
        };
        let metadata = std::fs::metadata(file).map_err(|error| failed(error.to_string()))?;
        let identity = (metadata.dev(), metadata.ino());
        self.open.retain(|open| open.file != file || open.identity == identity);
        let held = match self.open.iter().position(|open| open.file == file && open.writes == writes) {
            Some(at) => self.open.remove(at),
            None => {
                let connection = open(file, writes).map_err(|error| failed(error.to_string()))?;
                Open { file: file.to_owned(), writes, identity, connection }
            }
        };
        if self.open.len() >= CONNECTIONS_MAX {
            self.open.remove(0);
        }
        self.open.push(held);
        self.open.last().map(|open| &open.connection).ok_or_else(|| failed("no connection".into()))
    }
}

fn open(file: &Path, writes: bool) -> rusqlite::Result<Connection> {
    let mode = if writes { OpenFlags::SQLITE_OPEN_READ_WRITE } else { OpenFlags::SQLITE_OPEN_READ_ONLY };
    // No URI names: a file is a file.
    let connection = Connection::open_with_flags(file, mode | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    connection.pragma_update(None, "cache_size", -CACHE_KIB_MAX)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "query_only", !writes)?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.set_limit(Limit::SQLITE_LIMIT_ATTACHED, 0)?;
    connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, VALUE_BYTES_MAX)?;
    connection.busy_handler(Some(wait_for_lock))?;
    connection.progress_handler(STEPS_PER_LOOK, Some(is_given_up));
    // Last, since it refuses pragmas.
    connection.authorizer(Some(move |context: AuthContext<'_>| judge(&context.action, writes)));
    Ok(connection)
}

/// Whether a statement may do this. Reading is allowed by name; everything else only to statements that may write, and
/// other files, settings and transactions to none.
fn judge(action: &AuthAction<'_>, writes: bool) -> Authorization {
    match action {
        AuthAction::Select | AuthAction::Read { .. } | AuthAction::Recursive => Authorization::Allow,
        AuthAction::Function { function_name } => {
            let denied = FUNCTIONS_DENIED.iter().any(|name| name.eq_ignore_ascii_case(function_name));
            if denied { Authorization::Deny } else { Authorization::Allow }
        }
        AuthAction::Attach { .. }
        | AuthAction::Detach { .. }
        | AuthAction::Pragma { .. }
        | AuthAction::Transaction { .. }
        | AuthAction::Savepoint { .. }
        | AuthAction::CreateVtable { .. }
        | AuthAction::Unknown { .. } => Authorization::Deny,
        _ if writes => Authorization::Allow,
        _ => Authorization::Deny,
    }
}
