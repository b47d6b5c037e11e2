//! What happens between two records, for those who watch: best effort, bounded, never waited for. Whoever falls behind is told so
//! and reads the records instead.

use bytes::Bytes;
use domain::{Id, id};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::broadcast;

/// Events a watcher may be behind by; older ones are dropped for it.
pub(crate) const WATCH_EVENTS_MAX: usize = 1_024;

/// Something that is happening in a run.
#[derive(Clone, Debug)]
pub struct Live {
    /// The run.
    pub run: Id<id::Run>,
    /// What happens.
    pub kind: LiveKind,
}

/// What happens.
#[derive(Clone, Debug)]
pub enum LiveKind {
    /// The model is asked.
    Asking {
        /// The turn.
        turn: u32,
    },
    /// The model says something.
    Text(String),
    /// The model shows a summary of its reasoning.
    Reasoning(String),
    /// A call is performed.
    Performing {
        /// The call.
        call: Id<id::Call>,
        /// The tool.
        tool: String,
        /// Its arguments as the model wrote them.
        arguments: String,
    },
    /// A call's output so far.
    Output {
        /// The call.
        call: Id<id::Call>,
        /// Raw bytes, of stdout and stderr as they came.
        bytes: Bytes,
    },
}

/// Receives what happens in a session.
pub type Watch = broadcast::Receiver<Arc<Live>>;

/// The channels of the sessions that somebody watches.
#[derive(Debug, Default)]
pub(crate) struct Channels(Mutex<HashMap<Watched, Sender>>);

type Watched = (Arc<str>, Id<id::Session>);
type Sender = broadcast::Sender<Arc<Live>>;

impl Channels {
    /// Watches a session from now on.
    pub(crate) fn watch(&self, tenant: &str, session: Id<id::Session>) -> Watch {
        let mut channels = self.0.lock();
        // Channels without a watcher go whenever a new one comes, so the map is bounded by the watchers alive.
        channels.retain(|_, sender| sender.receiver_count() > 0);
        channels.entry((tenant.into(), session)).or_insert_with(|| broadcast::channel(WATCH_EVENTS_MAX).0).subscribe()
    }

    /// How many sessions somebody watches.
    pub(crate) fn count(&self) -> usize {
        self.0.lock().values().filter(|sender| sender.receiver_count() > 0).count()
    }

    /// Whether anybody watches a session.
    pub(crate) fn is_watched(&self, tenant: &Arc<str>, session: Id<id::Session>) -> bool {
        let channels = self.0.lock();
        !channels.is_empty()
            && channels.get(&(tenant.clone(), session)).is_some_and(|sender| sender.receiver_count() > 0)
    }

    /// Tells the watchers of a session, if there are any.
    pub(crate) fn tell(
        &self,
        tenant: &Arc<str>,
        session: Id<id::Session>,
        run: Id<id::Run>,
        kind: impl FnOnce() -> LiveKind,
    ) {
        let channels = self.0.lock();
        if channels.is_empty() {
            return;
        }
        if let Some(sender) = channels.get(&(tenant.clone(), session)) {
            // An error means that the last watcher has just left.
            let _ = sender.send(Arc::new(Live { run, kind: kind() }));
        }
    }
}
