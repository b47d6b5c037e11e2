//! A bounded number of connections that only read, opened when first needed, used on the blocking pool or, inline, by
//! the task that asks.

use crate::sqlite::schema::{self, Database};
use crate::sqlite::shared::Shared;
use crate::{Error, Threads};
use parking_lot::Mutex;
use rusqlite::Connection;
use std::fmt;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// The connections.
pub(crate) struct Readers {
    pool: Arc<Pool>,
    permits: Arc<Semaphore>,
    threads: Threads,
}

struct Pool {
    database: Database,
    /// Is told of damage.
    shared: Arc<Shared>,
    /// `None` once closed. The one used last is at the end, and comes first.
    idle: Mutex<Option<Vec<Idle>>>,
}

/// A connection that nobody uses now.
struct Idle {
    connection: Connection,
    /// Whether it was used since the pool was last told to let go.
    used: bool,
}

impl fmt::Debug for Readers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Readers({} free)", self.permits.available_permits())
    }
}

impl Readers {
    pub(crate) fn new(database: Database, shared: Arc<Shared>, readers_max: usize, threads: Threads) -> Self {
        let pool = Pool { database, shared, idle: Mutex::new(Some(Vec::new())) };
        Self { pool: Arc::new(pool), permits: Arc::new(Semaphore::new(readers_max.max(1))), threads }
    }

    /// Reads with a connection of its own. A statement sees one state of the log.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        if self.threads == Threads::Inline {
            return self.pool.read(read);
        }
        let permit = self.permits.clone().acquire_owned().await.map_err(|_| Error::Closed)?;
        let pool = self.pool.clone();
        let done = tokio::task::spawn_blocking(move || {
            let answer = pool.read(read);
            drop(permit);
            answer
        });
        done.await.map_err(Error::io)?
    }

    /// Closes the connections that were not used since it was last told so, with what they keep of the database.
    pub(crate) fn let_go(&self) {
        let mut idle = self.pool.idle.lock();
        let Some(there) = idle.as_mut() else { return };
        let (stay, go): (Vec<_>, Vec<_>) = there.drain(..).partition(|idle| idle.used);
        *there = stay.into_iter().map(|idle| Idle { used: false, ..idle }).collect();
        drop(idle);
        // Closed without the lock: whoever wants to read need not wait for it.
        drop(go);
    }

    /// How many connections are idle.
    pub(crate) fn idle_count(&self) -> usize {
        self.pool.idle.lock().as_ref().map_or(0, Vec::len)
    }

    /// Closes what is idle; what is in use is closed when it is done.
    pub(crate) fn close(&self) {
        self.permits.close();
        self.pool.idle.lock().take();
    }
}

impl Pool {
    fn read<T>(&self, read: impl FnOnce(&Connection) -> Result<T, Error>) -> Result<T, Error> {
        let connection = self.take()?;
        let answer = read(&connection);
        match &answer {
            Ok(_) => self.give_back(connection),
            // One that failed may be broken: it is closed instead.
            Err(error) => self.shared.note(None, error),
        }
        answer
    }

    fn take(&self) -> Result<Connection, Error> {
        let idle = match self.idle.lock().as_mut() {
            None => return Err(Error::Closed),
            Some(idle) => idle.pop().map(|idle| idle.connection),
        };
        idle.map_or_else(|| schema::connect_reader(&self.database), Ok)
    }

    fn give_back(&self, connection: Connection) {
        if let Some(idle) = self.idle.lock().as_mut() {
            idle.push(Idle { connection, used: true });
        }
    }
}
