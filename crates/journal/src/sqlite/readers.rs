//! A bounded number of connections that only read, opened when first needed, used on the blocking pool.

use crate::Error;
use crate::sqlite::schema;
use parking_lot::Mutex;
use rusqlite::Connection;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// The connections.
pub(crate) struct Readers {
    pool: Arc<Pool>,
    permits: Arc<Semaphore>,
}

struct Pool {
    file: PathBuf,
    /// `None` once closed.
    idle: Mutex<Option<Vec<Connection>>>,
}

impl fmt::Debug for Readers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Readers({} free)", self.permits.available_permits())
    }
}

impl Readers {
    pub(crate) fn new(file: PathBuf, readers_max: usize) -> Self {
        let pool = Pool { file, idle: Mutex::new(Some(Vec::new())) };
        Self { pool: Arc::new(pool), permits: Arc::new(Semaphore::new(readers_max.max(1))) }
    }

    /// Reads with a connection of its own. A statement sees one state of the log.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let permit = self.permits.clone().acquire_owned().await.map_err(|_| Error::Closed)?;
        let pool = self.pool.clone();
        let done = tokio::task::spawn_blocking(move || {
            let connection = pool.take()?;
            let answer = read(&connection);
            // One that failed may be broken: it is closed instead.
            if answer.is_ok() {
                pool.give_back(connection);
            }
            drop(permit);
            answer
        });
        done.await.map_err(Error::io)?
    }

    /// Closes what is idle; what is in use is closed when it is done.
    pub(crate) fn close(&self) {
        self.permits.close();
        self.pool.idle.lock().take();
    }
}

impl Pool {
    fn take(&self) -> Result<Connection, Error> {
        let idle = match self.idle.lock().as_mut() {
            None => return Err(Error::Closed),
            Some(idle) => idle.pop(),
        };
        idle.map_or_else(|| schema::connect_reader(&self.file), Ok)
    }

    fn give_back(&self, connection: Connection) {
        if let Some(idle) = self.idle.lock().as_mut() {
            idle.push(connection);
        }
    }
}
