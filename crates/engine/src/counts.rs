//! What this process has done so far, in numbers that only grow. The record of it is the journal; these are for metrics.

use domain::record::Finished;
use domain::{RunStatus, Usage};
use parking_lot::Mutex;
use std::time::Duration;

/// How often the wait after a driver that held on to its thread is doubled.
const DOUBLED_MAX: u64 = 9;

/// What this process has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Runs taken.
    pub submitted: u64,
    /// Runs that completed.
    pub completed: u64,
    /// Runs that failed.
    pub failed: u64,
    /// Runs that were cancelled.
    pub cancelled: u64,
    /// Runs that ended at their limit of running time.
    pub timed_out: u64,
    /// Runs that ended at another limit.
    pub budget_exhausted: u64,
    /// Drivers that were stopped because they made no progress.
    pub drivers_stopped: u64,
    /// Of those, the ones that held on to their thread.
    pub threads_lost: u64,
    /// Times that a part was left alone because it kept failing.
    pub breakers_opened: u64,
    /// Workspaces that were copied in a moment, and read from the copy.
    pub workspaces_copied: Halts,
    /// Workspaces that were exported while the programs inside stood still.
    pub workspaces_exported: Halts,
    /// Workspaces that were made as copies of a checkpoint that was still there.
    pub workspaces_forked: u64,
    /// Workspaces that were made of a checkpoint's chunks.
    pub workspaces_restored: u64,
    /// Turns of the runs that ended.
    pub turns: u64,
    /// Calls of the runs that ended.
    pub tool_calls: u64,
    /// Tokens of the runs that ended.
    pub usage: Usage,
    /// What is known of their cost, in millionths of a US dollar.
    pub micro_usd: u64,
}

/// Workspaces that were kept in one way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Halts {
    /// How many.
    pub count: u64,
    /// For how long the programs inside stood still for it, together, in microseconds.
    pub paused_micros: u64,
}

/// How a workspace was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Copied,
    Exported,
}

/// Counts while runs come and go.
#[derive(Debug, Default)]
pub(crate) struct Tally(Mutex<Counts>);

impl Tally {
    pub(crate) fn counts(&self) -> Counts {
        *self.0.lock()
    }

    pub(crate) fn submitted(&self) {
        self.0.lock().submitted += 1;
    }

    /// A workspace was kept, and the programs inside stood still for so long.
    pub(crate) fn kept(&self, way: Way, paused: Duration) {
        let mut counts = self.0.lock();
        let halts = match way {
            Way::Copied => &mut counts.workspaces_copied,
            Way::Exported => &mut counts.workspaces_exported,
        };
        halts.count += 1;
        halts.paused_micros = halts.paused_micros.saturating_add(u64::try_from(paused.as_micros()).unwrap_or(u64::MAX));
    }

    /// A workspace was made as a copy of a checkpoint.
    pub(crate) fn forked(&self) {
        self.0.lock().workspaces_forked += 1;
    }

    /// A workspace was made of a checkpoint's chunks.
    pub(crate) fn restored(&self) {
        self.0.lock().workspaces_restored += 1;
    }

    pub(crate) fn stopped(&self) {
        self.0.lock().drivers_stopped += 1;
    }

    /// A driver was stopped and let go, or not; gives the wait until its session is driven again. Each one that held on to its
    /// thread doubles it, so that a call that is repeated can't take every thread of the process.
    pub(crate) fn stuck(&self, let_go: bool, wait_ms: u64) -> u64 {
        if let_go {
            return wait_ms;
        }
        let mut counts = self.0.lock();
        counts.threads_lost += 1;
        tracing::error!(
            code = "driver_stuck",
            threads_lost = counts.threads_lost,
            "what was stopped holds on to its thread; hint: a function that a tool runs must not block; start the process again"
        );
        wait_ms << counts.threads_lost.saturating_sub(1).min(DOUBLED_MAX)
    }

    pub(crate) fn ended(&self, body: &Finished) {
        let mut counts = self.0.lock();
        match body.status {
            RunStatus::Completed => counts.completed += 1,
            RunStatus::Failed => counts.failed += 1,
            RunStatus::Cancelled => counts.cancelled += 1,
            RunStatus::TimedOut => counts.timed_out += 1,
            RunStatus::BudgetExhausted => counts.budget_exhausted += 1,
            // No run ends so.
            RunStatus::Queued
            | RunStatus::Running
            | RunStatus::Waiting
            | RunStatus::Paused
            | RunStatus::NeedsResolution => {}
        }
        counts.turns += u64::from(body.turns);
        counts.tool_calls += u64::from(body.tool_calls);
        counts.usage = counts.usage.plus(body.usage);
        counts.micro_usd = counts.micro_usd.saturating_add(body.cost.micro_usd());
    }
}
