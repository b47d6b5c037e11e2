//! What clients asked and what they were answered, over all lives of the world.

use crate::trace::Trace;
use domain::record::Vote;
use domain::{Digest, Id, id};
use engine::{SessionName, Ticket};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use stdx::Random;

/// A request that a client may send more than once.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) client: u64,
    pub(crate) message: String,
    pub(crate) session: SessionName,
    pub(crate) agent: Option<&'static str>,
    pub(crate) save_reply: bool,
    /// Digest of its idempotency key, if it has one.
    pub(crate) key: Option<Digest>,
}

/// What clients know. Cloning is cheap; clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Ledger {
    trace: Trace,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    requests: Vec<Request>,
    tickets: BTreeMap<Id<id::Run>, Ticket>,
    /// Runs that were given as new ones.
    fresh: BTreeSet<Id<id::Run>>,
    by_key: BTreeMap<Digest, Ticket>,
    cancelled: Vec<Id<id::Run>>,
    votes: Vec<(Id<id::Call>, Id<id::Principal>, Vote)>,
    settled: Vec<Id<id::Call>>,
    forked: Vec<(Id<id::Session>, Option<Id<id::Run>>)>,
    /// What readers were given of a session, by reader.
    read: Vec<Reading>,
    wrong: Vec<String>,
}

/// What one reader was given of a session.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    pub(crate) session: Id<id::Session>,
    pub(crate) from: u64,
    pub(crate) hashes: Vec<Digest>,
}

impl Ledger {
    pub(crate) fn new(trace: Trace) -> Self {
        Self { trace, state: Arc::default() }
    }

    /// Remembers a request that is about to be sent.
    pub(crate) fn ask(&self, request: Request) {
        self.state.lock().requests.push(request);
    }

    /// A request that was sent before and has a key.
    pub(crate) fn earlier(&self, random: &Random) -> Option<Request> {
        let state = self.state.lock();
        let keyed: Vec<_> = state.requests.iter().filter(|request| request.key.is_some()).collect();
        pick(&keyed, random).map(|request| (*request).clone())
    }

    /// A run that some client was told of.
    pub(crate) fn some(&self, random: &Random) -> Option<Ticket> {
        let state = self.state.lock();
        let tickets: Vec<_> = state.tickets.values().copied().collect();
        pick(&tickets, random).copied()
    }

    /// A client was told of a run.
    pub(crate) fn answered(&self, request: &Request, ticket: Ticket) {
        self.trace.say(format_args!("ticket {} {} existing={}", ticket.run, ticket.session, ticket.existing));
        let mut state = self.state.lock();
        state.tickets.insert(ticket.run, ticket);
        if !ticket.existing && !state.fresh.insert(ticket.run) {
            state.wrong.push(format!("{} was given for two requests", ticket.run));
        }
        if let Some(key) = request.key
            && let Some(before) = state.by_key.insert(key, ticket)
            && before.run != ticket.run
        {
            state.wrong.push(format!("one idempotency key gave {} and {}", before.run, ticket.run));
        }
    }

    /// A client was told that its wish for a run's end is durable.
    pub(crate) fn cancelled(&self, run: Id<id::Run>) {
        self.trace.say(format_args!("cancelled {run}"));
        self.state.lock().cancelled.push(run);
    }

    /// Somebody was told that a vote counts.
    pub(crate) fn voted(&self, call: Id<id::Call>, by: Id<id::Principal>, vote: Vote) {
        self.trace.say(format_args!("voted {call} {by} {vote:?}"));
        self.state.lock().votes.push((call, by, vote));
    }

    /// Somebody was told that his word on a call is durable: it did not happen.
    pub(crate) fn did_not_happen(&self, call: Id<id::Call>) {
        self.trace.say(format_args!("settled {call}"));
        self.state.lock().settled.push(call);
    }

    /// Somebody was told of a session that goes on from another.
    pub(crate) fn forked(&self, session: Id<id::Session>, run: Option<Id<id::Run>>) {
        self.trace.say(format_args!("forked {session} {run:?}"));
        let mut state = self.state.lock();
        state.forked.push((session, run));
        if let Some(run) = run {
            state.tickets.insert(run, Ticket { run, session, existing: false });
        }
    }

    /// A reader was given this of a session.
    pub(crate) fn read(&self, reading: Reading) {
        self.state.lock().read.push(reading);
    }

    /// Something was answered that must never be.
    pub(crate) fn wrong(&self, what: String) {
        self.trace.say(format_args!("WRONG {what}"));
        self.state.lock().wrong.push(what);
    }

    /// Every run that a client was told of.
    pub(crate) fn tickets(&self) -> Vec<Ticket> {
        self.state.lock().tickets.values().copied().collect()
    }

    /// Runs whose end a client was promised.
    pub(crate) fn cancels(&self) -> Vec<Id<id::Run>> {
        self.state.lock().cancelled.clone()
    }

    /// Votes that somebody was told to count.
    pub(crate) fn votes(&self) -> Vec<(Id<id::Call>, Id<id::Principal>, Vote)> {
        self.state.lock().votes.clone()
    }

    /// Calls of which somebody was told to have said that they did not happen.
    pub(crate) fn settled(&self) -> Vec<Id<id::Call>> {
        self.state.lock().settled.clone()
    }

    /// Sessions that go on from another, as somebody was told.
    pub(crate) fn forks(&self) -> Vec<Id<id::Session>> {
        self.state.lock().forked.iter().map(|(session, _)| *session).collect()
    }

    /// What readers were given.
    pub(crate) fn readings(&self) -> Vec<Reading> {
        self.state.lock().read.clone()
    }

    /// What was answered that must never be.
    pub(crate) fn wrongs(&self) -> Vec<String> {
        self.state.lock().wrong.clone()
    }
}

fn pick<'a, T>(all: &'a [T], random: &Random) -> Option<&'a T> {
    let place = random.below(all.len() as u64);
    all.get(usize::try_from(place).ok()?)
}
