//! Hints that a log has grown. They may be lost (and then say so); whoever follows a log reads from the store up to the
//! hinted head, so that nothing is missed and nothing comes twice.

use crate::{SessionKey, StoredRecord};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::broadcast;

/// A log has grown.
#[derive(Clone, Debug)]
pub struct Hint {
    /// The session.
    pub key: SessionKey,
    /// Its next position now.
    pub next_position: u64,
    /// The records that were just made durable.
    pub records: Arc<[StoredRecord]>,
}

/// What a subscriber was told.
#[derive(Clone, Debug)]
pub enum Told {
    /// A log has grown.
    Hint(Hint),
    /// Hints were lost, because the subscriber was slow or the way from other processes was cut: read from the store.
    Lagged {
        /// How many, at least.
        hints: u64,
    },
}

/// A subscription; ends with the journal.
#[derive(Debug)]
pub struct Hints {
    receiver: broadcast::Receiver<Told>,
    // Drops after the receiver, so that the registry sees the count without it.
    _leave: Option<Leave>,
}

impl Hints {
    /// Waits for the next hint; `None` once the journal is closed.
    pub async fn next(&mut self) -> Option<Told> {
        match self.receiver.recv().await {
            Ok(told) => Some(told),
            Err(broadcast::error::RecvError::Lagged(hints)) => Some(Told::Lagged { hints }),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

#[derive(Debug)]
struct Leave {
    registry: Arc<Registry>,
    key: SessionKey,
}

impl Drop for Leave {
    fn drop(&mut self) {
        let mut sessions = self.registry.sessions.lock();
        if sessions.get(&self.key).is_some_and(|sender| sender.receiver_count() == 0) {
            sessions.remove(&self.key);
        }
        self.registry.listeners.fetch_sub(1, Ordering::Release);
    }
}

/// Who wants to know.
#[derive(Debug)]
pub(crate) struct Registry {
    all: Mutex<Option<broadcast::Sender<Told>>>,
    sessions: Mutex<HashMap<SessionKey, broadcast::Sender<Told>>>,
    listeners: AtomicUsize,
    hints_max: usize,
}

impl Registry {
    pub(crate) fn new(hints_max: usize) -> Arc<Self> {
        let all = broadcast::channel(hints_max.max(1)).0;
        Arc::new(Self {
            all: Mutex::new(Some(all)),
            sessions: Mutex::default(),
            listeners: AtomicUsize::new(0),
            hints_max: hints_max.max(1),
        })
    }

    /// Of every session; `None` once closed.
    pub(crate) fn subscribe_all(&self) -> Option<Hints> {
        let receiver = self.all.lock().as_ref()?.subscribe();
        Some(Hints { receiver, _leave: None })
    }

    /// Of one session; `None` once closed.
    pub(crate) fn subscribe(self: &Arc<Self>, key: &SessionKey) -> Option<Hints> {
        // Held over the insertion, so that `close` can't slip in between and leave a channel open for ever.
        let all = self.all.lock();
        all.as_ref()?;
        self.listeners.fetch_add(1, Ordering::Release);
        let mut sessions = self.sessions.lock();
        let sender = sessions.entry(key.clone()).or_insert_with(|| broadcast::channel(self.hints_max).0);
        let leave = Leave { registry: self.clone(), key: key.clone() };
        Some(Hints { receiver: sender.subscribe(), _leave: Some(leave) })
    }

    /// Whether anybody listens: records need not be kept for hints otherwise.
    pub(crate) fn wanted(&self) -> bool {
        self.listeners.load(Ordering::Acquire) > 0
            || self.all.lock().as_ref().is_some_and(|all| all.receiver_count() > 0)
    }

    /// How many sessions are listened to.
    pub(crate) fn count(&self) -> usize {
        self.sessions.lock().len()
    }

    pub(crate) fn tell(&self, hint: Hint) {
        if let Some(sender) = self.sessions.lock().get(&hint.key) {
            // No receiver is no fault: it left in this moment.
            let _ = sender.send(Told::Hint(hint.clone()));
        }
        if let Some(all) = self.all.lock().as_ref()
            && all.receiver_count() > 0
        {
            let _ = all.send(Told::Hint(hint));
        }
    }

    /// Tells everybody that hints may have been lost.
    pub(crate) fn tell_lagged(&self) {
        let lagged = Told::Lagged { hints: 1 };
        for sender in self.sessions.lock().values() {
            let _ = sender.send(lagged.clone());
        }
        if let Some(all) = self.all.lock().as_ref() {
            let _ = all.send(lagged);
        }
    }

    /// Ends every subscription.
    pub(crate) fn close(&self) {
        let mut all = self.all.lock();
        *all = None;
        self.sessions.lock().clear();
    }
}
