//! What a run that has not ended has come to so far: turns, calls, tokens, cost, attempts. What a run that ended came to is in its
//! last record and in the index.

use crate::Error;
use crate::engine::Inner;
use crate::fold::{self, Steps};
use domain::{Cost, Event, Id, Usage, id};
use journal::{RunRow, SessionKey};
use machine::Session;
use parking_lot::Mutex;
use std::collections::HashMap;

/// Runs whose totals are remembered; beyond it all are forgotten and read again.
const KNOWN_MAX: usize = 4_096;

/// How often a run was tried: once, and once more for each time that something in it failed for a passing reason, or that a
/// process took it up that another had left in its middle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attempts {
    count: u32,
    waits: bool,
}

impl Default for Attempts {
    fn default() -> Self {
        Self { count: 1, waits: false }
    }
}

impl Attempts {
    /// Takes notice of a record of the run.
    pub(crate) fn see(&mut self, event: &Event) {
        match event {
            Event::Deferred(_) => self.count = self.count.saturating_add(1),
            Event::Parked(_) | Event::InDoubt(_) => self.waits = true,
            // Going on after a wait is no new attempt.
            Event::Resumed(_) if self.waits => self.waits = false,
            Event::Resumed(_) => self.count = self.count.saturating_add(1),
            _ => {}
        }
    }

    pub(crate) const fn count(self) -> u32 {
        self.count
    }
}

/// What a run has come to so far.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Totals {
    pub(crate) run: Id<id::Run>,
    pub(crate) turns: u32,
    pub(crate) tool_calls: u32,
    pub(crate) usage: Usage,
    pub(crate) cost: Cost,
    pub(crate) used_sandbox: bool,
    pub(crate) attempts: Option<u32>,
}

impl Totals {
    pub(crate) fn of(run: &machine::Run, attempts: Option<u32>) -> Self {
        let root = run.root();
        Self {
            run: run.id,
            turns: root.turn,
            tool_calls: root.tool_calls,
            usage: root.usage,
            cost: root.cost,
            used_sandbox: run.used_sandbox,
            attempts,
        }
    }
}

/// The totals of runs that are not driven here, with the position up to which their logs were read.
#[derive(Debug, Default)]
pub(crate) struct Known(Mutex<HashMap<Id<id::Run>, (u64, Totals)>>);

impl Inner {
    /// What a run that has not ended has come to; `None` when its log knows nothing of it any more.
    pub(crate) async fn totals(&self, row: &RunRow) -> Result<Option<Totals>, Error> {
        let key = SessionKey::new(row.tenant.clone(), row.session);
        let driven = self.pulses.of(&key).and_then(|pulse| pulse.totals());
        if let Some(totals) = driven.filter(|totals| totals.run == row.run && totals.attempts.is_some()) {
            return Ok(Some(totals));
        }
        let journal = &self.parts.journal;
        let head = journal.head(&key).await?.position;
        if let Some((at, totals)) = self.known.0.lock().get(&row.run)
            && *at == head
        {
            return Ok(Some(totals.clone()));
        }
        let (mut state, mut attempts) = (Session::default(), Attempts::default());
        let mut steps = Steps::new(journal, &key, 0);
        while let Some(step) = steps.next().await? {
            fold::fold_one(&mut state, &step.record)?;
            if step.record.event.run() == row.run {
                attempts.see(&step.record.event);
            }
        }
        let Some(totals) = state.run_of(row.run).map(|run| Totals::of(run, Some(attempts.count()))) else {
            return Ok(None);
        };
        let mut known = self.known.0.lock();
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(row.run, (state.position, totals.clone()));
        Ok(Some(totals))
    }

    /// How often a run that ended was tried.
    pub(crate) async fn attempts(&self, row: &RunRow) -> Result<u32, Error> {
        let key = SessionKey::new(row.tenant.clone(), row.session);
        let mut attempts = Attempts::default();
        let mut steps = Steps::new(&self.parts.journal, &key, row.submitted_position);
        while let Some(step) = steps.next().await? {
            if step.record.event.run() == row.run {
                attempts.see(&step.record.event);
            }
            if row.finished_position == Some(step.record.head.position) {
                break;
            }
        }
        Ok(attempts.count())
    }
}
