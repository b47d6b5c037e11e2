//! Wake-ups between processes: hints that a log has grown, sent apart from the append and never waited for by it. A lost one
//! costs time, not truth: whoever follows a log reads it, and whoever listens is told when hints may have been lost.

use crate::hints::{Hint, Registry};
use crate::postgres::append::{self, Appender};
use crate::postgres::pool::{Dial, Pool, Sql};
use crate::{Error, SessionKey};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;
use stdx::{Backoff, Clock, Random};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio_postgres::AsyncMessage;
use tokio_postgres::types::Type;

/// Logs that wait to be told of; above that, everybody is told to look again.
const LOGS_MAX: usize = 4_096;
/// Pause between two batches: a notification is a commit of its own, whatever it carries.
const BATCH_GAP_MS: u64 = 10;
/// How often the database is looked after.
const TICK_MS: u64 = 1_000;
/// Ticks between two questions to a connection that only listens: a cut one says nothing.
const LISTENER_TICKS: u64 = 15;
/// Ticks between two sweeps of idempotency keys that are over.
const PRUNE_TICKS: u64 = 30;
/// Keys that one sweep takes out.
const PRUNE_ROWS_MAX: i64 = 5_000;
/// How long the listener waits before it connects again.
const RECONNECT: Backoff = Backoff { first_ms: 100, wait_ms_max: 5_000, attempts_max: u32::MAX };
/// Sent instead of a log's name: look again at everything.
const EVERYTHING: &str = "*";

const NOTIFY: Sql =
    Sql { text: "SELECT pg_notify('topside', payload) FROM unnest($1) AS payload", types: &[Type::TEXT_ARRAY] };
const PING: Sql = Sql { text: "SELECT 1", types: &[] };

/// Logs that have grown and of which other processes are to be told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Waker {
    grown: Arc<Mutex<Grown>>,
    news: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Grown {
    logs: HashMap<SessionKey, u64>,
    too_many: bool,
}

impl Waker {
    /// A log has grown to `next_position`.
    pub(crate) fn tell(&self, key: &SessionKey, next_position: u64) {
        let mut grown = self.grown.lock();
        if let Some(there) = grown.logs.get_mut(key) {
            *there = next_position.max(*there);
        } else if grown.logs.len() < LOGS_MAX {
            grown.logs.insert(key.clone(), next_position);
        } else {
            grown.too_many = true;
        }
        drop(grown);
        self.news.notify_one();
    }

    fn take(&self, origin: &str) -> Vec<String> {
        let Grown { logs, too_many } = std::mem::take(&mut *self.grown.lock());
        if too_many {
            return vec![format!("{EVERYTHING}/{origin}")];
        }
        logs.into_iter().map(|(key, position)| format!("{}/{}/{position}/{origin}", key.tenant, key.session)).collect()
    }
}

/// Sends what a [`Waker`] collects, until closed; then what is left.
pub(crate) async fn notify(waker: Waker, pool: Arc<Pool>, origin: String, mut closing: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            () = waker.news.notified() => {}
            _ = closing.wait_for(|closing| *closing) => {}
        }
        let payloads = waker.take(&origin);
        if !payloads.is_empty()
            && let Err(fault) = pool.once(NOTIFY, &[&payloads]).await
        {
            tracing::debug!(error = %Error::from(fault), "wake-ups were not sent");
        }
        if *closing.borrow() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(BATCH_GAP_MS)).await;
    }
}

/// What listens, and looks after the database from time to time.
#[derive(Debug)]
pub(crate) struct Keeper {
    pub(crate) pool: Arc<Pool>,
    /// The database itself; `None` when only its pooler is known, through which nobody can listen.
    pub(crate) direct: Option<Dial>,
    pub(crate) appender: Arc<Appender>,
    pub(crate) hints: Arc<Registry>,
    pub(crate) origin: String,
    pub(crate) clock: Clock,
    pub(crate) random: Random,
    pub(crate) connect_ms: u64,
}

impl Keeper {
    /// Runs until closed.
    pub(crate) async fn run(self, mut closing: watch::Receiver<bool>) {
        let keeper = Arc::new(self);
        let work = async {
            tokio::join!(keeper.tick(), keeper.listen());
        };
        tokio::select! {
            () = work => {}
            _ = closing.wait_for(|closing| *closing) => {}
        }
    }

    /// Asks a database that was in trouble whether it is well again, takes old idempotency keys out, and stands in for
    /// wake-ups where nobody can listen.
    async fn tick(&self) {
        for tick in 1u64.. {
            tokio::time::sleep(Duration::from_millis(TICK_MS)).await;
            if self.pool.error().is_some() {
                // Notes what it finds.
                let _ = self.pool.once(PING, &[]).await;
            }
            if self.direct.is_none() && self.hints.wanted() {
                self.hints.tell_lagged();
            }
            if tick.is_multiple_of(PRUNE_TICKS)
                && let Err(error) = append::prune(&self.pool, &self.clock, PRUNE_ROWS_MAX).await
            {
                tracing::debug!(%error, "old idempotency keys were not taken out");
            }
        }
    }

    /// Listens, and connects again when it was cut off.
    async fn listen(self: &Arc<Self>) {
        let Some(dial) = &self.direct else {
            return;
        };
        let mut attempt = 0;
        loop {
            match self.listen_once(dial).await {
                Ok(()) => attempt = 0,
                Err(error) => tracing::warn!(%error, "cannot listen for wake-ups"),
            }
            attempt += 1;
            let wait = RECONNECT.after(attempt, None, &self.random).unwrap_or(Duration::from_millis(TICK_MS));
            tokio::time::sleep(wait).await;
        }
    }

    /// `Ok` when it had listened for a while.
    async fn listen_once(self: &Arc<Self>, dial: &Dial) -> Result<(), Error> {
        let (client, mut wire) = dial.connect().await?;
        let mut polled = JoinSet::new();
        let keeper = self.clone();
        polled.spawn(async move {
            while let Some(Ok(message)) = poll_fn(|context| wire.poll_message(context)).await {
                if let AsyncMessage::Notification(notification) = message {
                    keeper.hear(notification.payload());
                }
            }
        });
        let within = Duration::from_millis(self.connect_ms);
        let lost = |reason: String| Error::Unreachable { reason: reason.into() };
        let listened = tokio::time::timeout(within, client.batch_execute("LISTEN topside")).await;
        listened.map_err(|_| lost("no answer to LISTEN".to_owned()))?.map_err(|error| lost(error.to_string()))?;
        // Whatever came before was not heard.
        self.hints.tell_lagged();
        loop {
            let check = async {
                tokio::time::sleep(Duration::from_millis(TICK_MS * LISTENER_TICKS)).await;
                tokio::time::timeout(within, client.batch_execute("SELECT 1")).await
            };
            let good = tokio::select! {
                _ = polled.join_next() => false,
                checked = check => matches!(checked, Ok(Ok(()))),
            };
            if !good {
                self.hints.tell_lagged();
                return Ok(());
            }
        }
    }

    fn hear(&self, payload: &str) {
        let Some((what, origin)) = payload.rsplit_once('/') else {
            return;
        };
        if origin == self.origin {
            return;
        }
        if what == EVERYTHING {
            self.hints.tell_lagged();
            return;
        }
        let Some(hint) = heard(what) else {
            return;
        };
        self.appender.forget(&hint.key);
        if self.hints.wanted() {
            self.hints.tell(hint);
        }
    }
}

/// `tenant/session/position`.
fn heard(what: &str) -> Option<Hint> {
    let mut parts = what.rsplitn(3, '/');
    let next_position = parts.next()?.parse().ok()?;
    let session = parts.next()?.parse().ok()?;
    let key = SessionKey::new(parts.next()?, session);
    Some(Hint { key, next_position, records: Arc::new([]) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::Id;

    fn key(n: u16) -> SessionKey {
        let [high, low] = n.to_be_bytes();
        SessionKey::new("default", Id::from_bytes([high, low, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]))
    }

    #[test]
    fn what_is_sent_is_heard_once_per_log() {
        let waker = Waker::default();
        for position in [3, 7, 5] {
            waker.tell(&key(1), position);
        }
        let sent = waker.take("me");
        assert_eq!(sent.len(), 1);
        let (what, origin) = sent[0].rsplit_once('/').unwrap();
        let hint = heard(what).unwrap();
        assert_eq!((origin, hint.key, hint.next_position), ("me", key(1), 7));
        assert_eq!(waker.take("me"), Vec::<String>::new());
        for wrong in ["", "default", "default/ses_1/2", "default/ses_01010101010101010101010101010101/x"] {
            assert!(heard(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn too_many_logs_become_one_call_to_look_again() {
        let waker = Waker::default();
        for n in 0..=4_096 {
            waker.tell(&key(n), 1);
        }
        assert_eq!(waker.take("me"), ["*/me"]);
    }
}
