//! Connections: how they are made, lent and let go. A connection is lent to one statement or one transaction at a time and
//! carries no state of the session from one to the next, so that a pooler may stand in between.

use crate::Error;
use crate::postgres::fault::Fault;
use crate::postgres::settings::{PostgresSettings, Statements};
use crate::postgres::url::Target;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Config, Row, Statement};
use tokio_postgres_rustls::MakeRustlsConnect;

/// How often a question is asked when the connection is lost over it.
const READ_ATTEMPTS_MAX: u32 = 2;

/// A statement: text that lives as long as the program, and the types of its parameters, so that it can be sent without
/// asking the server about it first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sql {
    pub(crate) text: &'static str,
    pub(crate) types: &'static [Type],
}

/// A parameter.
pub(crate) type Param<'a> = &'a (dyn ToSql + Sync);

/// How a connection is made.
#[derive(Clone)]
pub(crate) struct Dial {
    config: Config,
    tls: MakeRustlsConnect,
    connect_ms: u64,
}

impl Dial {
    pub(crate) fn new(target: &Target, settings: &PostgresSettings) -> Result<Self, Error> {
        let url = |reason: String| Error::Url { reason: reason.into() };
        let mut roots = settings.ca_pem.clone().unwrap_or_default();
        if let Some(file) = &target.root_certificates {
            let more =
                std::fs::read(file).map_err(|error| url(format!("`sslrootcert` names {}: {error}", file.display())))?;
            roots.extend_from_slice(b"\n");
            roots.extend_from_slice(&more);
        }
        let tls = net::tls((!roots.is_empty()).then_some(&*roots)).map_err(|error| url(error.to_string()))?;
        Ok(Self { config: target.config.clone(), tls: MakeRustlsConnect::new(tls), connect_ms: settings.connect_ms })
    }

    /// A connection in two halves: what asks, and what must be polled for anything to move.
    pub(crate) async fn connect(&self) -> Result<(Client, Wire), Fault> {
        let connect = self.config.connect(self.tls.clone());
        match tokio::time::timeout(Duration::from_millis(self.connect_ms), connect).await {
            Ok(connected) => connected.map_err(|error| Fault::of_connect(&error)),
            Err(_) => Err(Fault::Unsent(format!("no connection within {} ms", self.connect_ms))),
        }
    }
}

// What it dials with holds a password.
impl fmt::Debug for Dial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dial").finish_non_exhaustive()
    }
}

/// The half of a connection that must be polled.
pub(crate) type Wire = tokio_postgres::Connection<
    tokio_postgres::Socket,
    <MakeRustlsConnect as MakeTlsConnect<tokio_postgres::Socket>>::Stream,
>;

/// The pool.
#[derive(Debug)]
pub(crate) struct Pool {
    dial: Dial,
    statements: Statements,
    statement_ms: u64,
    connections_max: usize,
    room: Arc<Semaphore>,
    idle: Mutex<Vec<Open>>,
    /// The polled halves; they end when the asking halves are dropped.
    wires: Mutex<JoinSet<()>>,
    error: Mutex<Option<Error>>,
}

struct Open {
    client: Client,
    prepared: HashMap<usize, Statement>,
}

impl fmt::Debug for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Open").field("closed", &self.client.is_closed()).finish_non_exhaustive()
    }
}

impl Pool {
    /// An empty pool; `statements` is not [`Statements::Auto`] any more.
    pub(crate) fn new(dial: Dial, statements: Statements, settings: &PostgresSettings) -> Self {
        let connections_max = settings.connections_max.max(1);
        Self {
            dial,
            statements,
            statement_ms: settings.statement_ms,
            connections_max,
            room: Arc::new(Semaphore::new(connections_max)),
            idle: Mutex::default(),
            wires: Mutex::default(),
            error: Mutex::default(),
        }
    }

    pub(crate) const fn connections_max(&self) -> usize {
        self.connections_max
    }

    /// What went wrong with the last statement, when it was the database or the way to it.
    pub(crate) fn error(&self) -> Option<Error> {
        self.error.lock().clone()
    }

    /// Lends a connection; waits for one when all are lent, for as long as a statement may take.
    pub(crate) async fn take(&self) -> Result<Lent<'_>, Fault> {
        let waited = tokio::time::timeout(Duration::from_millis(self.statement_ms), self.room.clone().acquire_owned());
        let room = match waited.await {
            Ok(room) => room.map_err(|_| Fault::Refused(Error::Closed))?,
            Err(_) => return Err(self.note(Fault::Unsent("every connection is busy".to_owned()))),
        };
        let idle = {
            let mut idle = self.idle.lock();
            idle.retain(|open| !open.client.is_closed());
            // The one used last: those that are never needed stay untouched and may be closed by whoever stands between.
            idle.pop()
        };
        let open = match idle {
            Some(open) => open,
            None => self.open().await.map_err(|fault| self.note(fault))?,
        };
        Ok(Lent { pool: self, open: Some(open), clean: true, _room: room })
    }

    async fn open(&self) -> Result<Open, Fault> {
        let (client, wire) = self.dial.connect().await?;
        let mut wires = self.wires.lock();
        while wires.try_join_next().is_some() {}
        wires.spawn(async move {
            // Whoever asks is told what went wrong.
            let _ = wire.await;
        });
        Ok(Open { client, prepared: HashMap::new() })
    }

    /// One statement, asked once.
    pub(crate) async fn once(&self, sql: Sql, params: &[Param<'_>]) -> Result<Vec<Row>, Fault> {
        self.take().await?.query(sql, params).await
    }

    /// A question: asked again on another connection when this one was lost over it.
    pub(crate) async fn ask(&self, sql: Sql, params: &[Param<'_>]) -> Result<Vec<Row>, Error> {
        let mut attempt = 1;
        loop {
            match self.once(sql, params).await {
                Err(Fault::Lost(_) | Fault::Again(_)) if attempt < READ_ATTEMPTS_MAX => attempt += 1,
                answer => return Ok(answer?),
            }
        }
    }

    /// Remembers how the database does.
    pub(crate) fn note(&self, fault: Fault) -> Fault {
        match &fault {
            Fault::Unsent(_) | Fault::Lost(_) => *self.error.lock() = Some(fault.clone().into()),
            Fault::Refused(error @ (Error::Full | Error::Corrupt { .. })) => *self.error.lock() = Some(error.clone()),
            Fault::Refused(_) | Fault::Again(_) | Fault::Condition => *self.error.lock() = None,
        }
        fault
    }

    /// Lends nothing any more, and ends what is not lent. Whoever holds a connection ends it by giving it back.
    pub(crate) async fn close(&self) {
        self.room.close();
        self.idle.lock().clear();
        let mut wires = std::mem::take(&mut *self.wires.lock());
        while wires.join_next().await.is_some() {}
    }
}

/// A connection that is lent. Given back when it is dropped, unless something was begun on it that did not end.
#[derive(Debug)]
pub(crate) struct Lent<'a> {
    pool: &'a Pool,
    open: Option<Open>,
    clean: bool,
    _room: OwnedSemaphorePermit,
}

impl Lent<'_> {
    /// One statement.
    pub(crate) async fn query(&mut self, sql: Sql, params: &[Param<'_>]) -> Result<Vec<Row>, Fault> {
        let pool = self.pool;
        let within = Duration::from_millis(pool.statement_ms);
        let was_clean = std::mem::replace(&mut self.clean, false);
        let asked = tokio::time::timeout(within, self.send(sql, params)).await;
        let answer = match asked {
            Ok(Ok(rows)) => {
                *pool.error.lock() = None;
                Ok(rows)
            }
            Ok(Err(fault)) => Err(pool.note(fault)),
            Err(_) => Err(pool.note(Fault::Lost(format!("no answer within {} ms", pool.statement_ms)))),
        };
        // After an error of the statement alone the connection is as good as before; a transaction is not.
        self.clean = was_clean && !matches!(answer, Err(Fault::Lost(_)));
        answer
    }

    async fn send(&mut self, sql: Sql, params: &[Param<'_>]) -> Result<Vec<Row>, Fault> {
        let Some(open) = &mut self.open else {
            return Err(Fault::Unsent("the connection was given back".to_owned()));
        };
        if self.pool.statements == Statements::Unnamed {
            let typed: Vec<_> = params.iter().copied().zip(sql.types.iter().cloned()).collect();
            return open.client.query_typed(sql.text, &typed).await.map_err(|error| Fault::of(&error));
        }
        // Texts live as long as the program, so the place of one tells it from every other.
        let place = sql.text.as_ptr() as usize;
        if !open.prepared.contains_key(&place) {
            let prepared = open.client.prepare_typed(sql.text, sql.types).await.map_err(|error| Fault::of(&error))?;
            open.prepared.insert(place, prepared);
        }
        let Some(prepared) = open.prepared.get(&place) else {
            return Err(Fault::Unsent("the statement was not prepared".to_owned()));
        };
        open.client.query(prepared, params).await.map_err(|error| Fault::of(&error))
    }

    /// Begins a transaction; the connection is given up when it is dropped before [`Lent::commit`].
    pub(crate) async fn begin(&mut self) -> Result<(), Fault> {
        self.clean = false;
        self.batch("BEGIN").await
    }

    /// Ends it.
    pub(crate) async fn commit(mut self) -> Result<(), Fault> {
        self.batch("COMMIT").await?;
        self.clean = true;
        Ok(())
    }

    /// Statements without parameters and without answers.
    pub(crate) async fn batch(&mut self, text: &str) -> Result<(), Fault> {
        let pool = self.pool;
        let Some(open) = &mut self.open else {
            return Err(Fault::Unsent("the connection was given back".to_owned()));
        };
        let within = Duration::from_millis(pool.statement_ms);
        match tokio::time::timeout(within, open.client.batch_execute(text)).await {
            Ok(done) => done.map_err(|error| pool.note(Fault::of(&error))),
            Err(_) => Err(pool.note(Fault::Lost(format!("no answer within {} ms", pool.statement_ms)))),
        }
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        if let Some(open) = self.open.take()
            && self.clean
            && !self.pool.room.is_closed()
        {
            self.pool.idle.lock().push(open);
        }
    }
}
