//! What the journal told to be durable: every record with its hash, as an outside listener heard it. It is for ever.

use crate::trace::Trace;
use domain::record::Resolution;
use domain::{Digest, Event, Id, id};
use futures::FutureExt;
use journal::hints::Told as Said;
use journal::{Hints, Journal, SessionKey, StoredRecord};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::task::coop::unconstrained;

/// What was told. Cloning is cheap; clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Told(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    trace: Trace,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    hints: Option<Hints>,
    logs: BTreeMap<SessionKey, BTreeMap<u64, Digest>>,
    /// How often a call was told to begin, and under which epoch last.
    began: BTreeMap<Id<id::Call>, (u32, u64)>,
    /// Calls of which somebody was told to have said that they did not happen.
    denied: BTreeSet<Id<id::Call>>,
    /// What was heard that can't be.
    wrong: Vec<String>,
}

impl Told {
    pub(crate) fn new(trace: Trace) -> Self {
        Self(Arc::new(Inner { trace, state: Mutex::default() }))
    }

    /// Listens to the journal of a new life.
    pub(crate) fn listen(&self, journal: &Journal) {
        self.0.state.lock().hints = journal.subscribe_all();
    }

    /// Takes in what was told since the last time.
    pub(crate) fn hear(&self) {
        let mut state = self.0.state.lock();
        let Some(mut hints) = state.hints.take() else { return };
        // Unconstrained: what is there is heard now, however much the task has done in this turn.
        while let Some(Some(said)) = unconstrained(hints.next()).now_or_never() {
            match said {
                Said::Hint(hint) => hint.records.iter().for_each(|record| self.keep(&mut state, &hint.key, record)),
                Said::Lagged { hints } => state.wrong.push(format!("the listener lost {hints} hints")),
            }
        }
        state.hints = Some(hints);
    }

    /// A record that was read after a restart: it is as durable as one that was told.
    pub(crate) fn read(&self, key: &SessionKey, record: &StoredRecord) {
        let mut state = self.0.state.lock();
        if !state.logs.get(key).is_some_and(|log| log.contains_key(&record.position)) {
            self.keep(&mut state, key, record);
        }
    }

    fn keep(&self, state: &mut State, key: &SessionKey, record: &StoredRecord) {
        let position = record.position;
        let session = key.session;
        let decoded = match record.decode() {
            Ok(decoded) => decoded,
            Err(error) => return state.wrong.push(format!("{session} {position}: {error}")),
        };
        self.0.trace.say(format_args!("record {session} {position} {} {}", decoded.event.kind(), record.hash));
        match &decoded.event {
            Event::Began(body) => {
                let (times, epoch) = state.began.entry(body.call).or_default();
                (*times, *epoch) = (*times + 1, body.epoch);
            }
            Event::Resolved(body) if body.resolution == Resolution::DidNotHappen => {
                state.denied.insert(body.call);
            }
            _ => {}
        }
        let before = state.logs.entry(key.clone()).or_default().insert(position, record.hash);
        if before.is_some_and(|before| before != record.hash) {
            state.wrong.push(format!("{session} {position}: another record was told for the same place"));
        }
    }

    /// How often a call was told to begin, and under which epoch last.
    pub(crate) fn began(&self, call: Id<id::Call>) -> (u32, u64) {
        self.hear();
        self.0.state.lock().began.get(&call).copied().unwrap_or_default()
    }

    /// Whether somebody was told to have said that a call did not happen.
    pub(crate) fn is_denied(&self, call: Id<id::Call>) -> bool {
        self.0.state.lock().denied.contains(&call)
    }

    /// Every log with the hashes of its records.
    pub(crate) fn logs(&self) -> BTreeMap<SessionKey, BTreeMap<u64, Digest>> {
        self.0.state.lock().logs.clone()
    }

    /// What was heard that can't be.
    pub(crate) fn wrong(&self) -> Vec<String> {
        self.0.state.lock().wrong.clone()
    }

    /// Stops listening.
    pub(crate) fn end(&self) {
        self.0.state.lock().hints = None;
    }
}
