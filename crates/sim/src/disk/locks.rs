//! Who holds which lock of a file: SQLite's five levels on the file, and its eight slots in the shared memory.

use std::collections::BTreeMap;

/// Slots of the shared memory.
pub(super) const SLOTS: usize = 8;

/// A level of the lock on a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    #[default]
    None,
    Shared,
    Reserved,
    Pending,
    Exclusive,
}

/// How a slot is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hold {
    Shared,
    Exclusive,
}

/// Somebody else is in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Busy;

#[derive(Debug, Default)]
struct Held {
    level: Level,
    slots: [Option<Hold>; SLOTS],
}

/// The locks of one file, by handle.
#[derive(Debug, Default)]
pub(super) struct Locks(BTreeMap<u64, Held>);

impl Locks {
    /// Raises a handle's level.
    pub(super) fn raise(&mut self, handle: u64, to: Level) -> Result<(), Busy> {
        let others = |at_least| self.0.iter().any(|(other, held)| *other != handle && held.level >= at_least);
        let now = self.0.get(&handle).map_or(Level::None, |held| held.level);
        if now >= to {
            return Ok(());
        }
        let busy = match to {
            Level::None => false,
            Level::Shared => others(Level::Pending),
            Level::Reserved => others(Level::Reserved),
            Level::Pending | Level::Exclusive => others(Level::Reserved),
        };
        if busy {
            return Err(Busy);
        }
        if to == Level::Exclusive && others(Level::Shared) {
            // Nobody new comes in; those who are in may leave.
            self.0.entry(handle).or_default().level = Level::Pending;
            return Err(Busy);
        }
        self.0.entry(handle).or_default().level = to;
        Ok(())
    }

    /// Lowers a handle's level.
    pub(super) fn lower(&mut self, handle: u64, to: Level) {
        if let Some(held) = self.0.get_mut(&handle) {
            held.level = held.level.min(to);
        }
    }

    /// Whether anybody means to write.
    pub(super) fn is_reserved(&self) -> bool {
        self.0.values().any(|held| held.level >= Level::Reserved)
    }

    /// Takes slots, all or none.
    pub(super) fn take(&mut self, handle: u64, slots: std::ops::Range<usize>, hold: Hold) -> Result<(), Busy> {
        let in_the_way = |held: &Held| {
            held.slots[slots.clone()].iter().any(|slot| match hold {
                Hold::Shared => *slot == Some(Hold::Exclusive),
                Hold::Exclusive => slot.is_some(),
            })
        };
        if self.0.iter().any(|(other, held)| *other != handle && in_the_way(held)) {
            return Err(Busy);
        }
        self.0.entry(handle).or_default().slots[slots].fill(Some(hold));
        Ok(())
    }

    /// Gives slots back.
    pub(super) fn release(&mut self, handle: u64, slots: std::ops::Range<usize>) {
        if let Some(held) = self.0.get_mut(&handle) {
            held.slots[slots].fill(None);
        }
    }

    /// Forgets a handle's slots.
    pub(super) fn release_slots(&mut self, handle: u64) {
        self.release(handle, 0..SLOTS);
    }

    /// Forgets a handle.
    pub(super) fn leave(&mut self, handle: u64) {
        self.0.remove(&handle);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_writer_waits_for_readers_and_keeps_new_ones_out() {
        let mut locks = Locks::default();
        assert_eq!(locks.raise(1, Level::Shared), Ok(()));
        assert_eq!(locks.raise(2, Level::Shared), Ok(()));
        assert_eq!(locks.raise(1, Level::Reserved), Ok(()));
        assert_eq!(locks.raise(2, Level::Reserved), Err(Busy));
        assert_eq!(locks.raise(1, Level::Exclusive), Err(Busy));
        assert_eq!(locks.raise(3, Level::Shared), Err(Busy));
        locks.leave(2);
        assert_eq!(locks.raise(1, Level::Exclusive), Ok(()));
        locks.lower(1, Level::None);
        assert_eq!(locks.raise(3, Level::Shared), Ok(()));
        assert!(!locks.is_reserved());
    }

    #[test]
    fn slots_are_shared_or_exclusive() {
        let mut locks = Locks::default();
        assert_eq!(locks.take(1, 3..4, Hold::Shared), Ok(()));
        assert_eq!(locks.take(2, 3..4, Hold::Shared), Ok(()));
        assert_eq!(locks.take(2, 2..5, Hold::Exclusive), Err(Busy));
        locks.release(1, 3..4);
        assert_eq!(locks.take(2, 2..5, Hold::Exclusive), Ok(()));
        assert_eq!(locks.take(1, 4..5, Hold::Shared), Err(Busy));
        locks.release_slots(2);
        assert_eq!(locks.take(1, 4..5, Hold::Shared), Ok(()));
    }
}
