//! What came of a seed: what happened in its world, and what must never have happened.

use crate::reached::{Counts, KINDS};

/// What happened in a world.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Lives that ended in a crash.
    pub crashes: u64,
    /// Runs that clients were told of.
    pub runs: u64,
    /// Deeds of tools.
    pub deeds: u64,
    /// Records that were told to be durable.
    pub records: u64,
    /// Points at which the process could have died.
    pub points: u64,
    /// Faults of the disk.
    pub faults: u64,
    /// How often each kind of [`KINDS`] was reached.
    pub reached: Counts,
}

impl Figures {
    /// The sum of two.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let mut reached = self.reached;
        reached.iter_mut().zip(other.reached).for_each(|(sum, count)| *sum += count);
        Self {
            reached,
            crashes: self.crashes + other.crashes,
            runs: self.runs + other.runs,
            deeds: self.deeds + other.deeds,
            records: self.records + other.records,
            points: self.points + other.points,
            faults: self.faults + other.faults,
        }
    }

    /// The kinds that were never reached.
    pub fn unreached(&self) -> Vec<&'static str> {
        KINDS.iter().filter(|(kind, _)| self.reached[*kind as usize] == 0).map(|(_, name)| *name).collect()
    }
}

/// What came of a seed.
#[derive(Clone, Debug)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// What must never be and was; empty: the world is right.
    pub wrong: Vec<String>,
    /// The world's log.
    pub trace: Vec<String>,
    /// What happened.
    pub figures: Figures,
}
