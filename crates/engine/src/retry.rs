//! When something that failed is tried again, by the class of its failure, and when it is left alone for a while.

use domain::{Failure, FailureClass};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::Duration;
use stdx::{Backoff, Random};

/// How often, and how long, something is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Attempts in all, the first included.
    pub attempts_max: u32,
    /// The wait before the second attempt; doubled with each.
    pub backoff_ms: u64,
    /// The longest wait.
    pub backoff_ms_max: u64,
    /// Time from the first failure after which nothing is tried any more.
    pub total_ms: u64,
}

impl Retry {
    /// Never again.
    pub const NONE: Self = Self { attempts_max: 1, backoff_ms: 0, backoff_ms_max: 0, total_ms: 0 };

    /// When the next attempt is due after `attempt` failed at `now_ms`, if there is to be one. `since_ms`: when it failed first.
    /// `asked_ms`: the wait that the other side asked for.
    pub(crate) fn next(
        &self,
        attempt: u32,
        since_ms: u64,
        now_ms: u64,
        asked_ms: Option<u64>,
        random: &Random,
    ) -> Option<u64> {
        let Self { attempts_max, backoff_ms, backoff_ms_max, total_ms } = *self;
        let backoff = Backoff { first_ms: backoff_ms, wait_ms_max: backoff_ms_max, attempts_max };
        let wait = backoff.after(attempt, asked_ms.map(Duration::from_millis), random)?;
        let until_ms = now_ms + u64::try_from(wait.as_millis()).unwrap_or(u64::MAX / 2);
        (until_ms.saturating_sub(since_ms) <= total_ms).then_some(until_ms)
    }
}

/// The retries of each class that has its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retries {
    /// The model, beyond what its own wire has tried.
    pub model: Retry,
    /// A service that was configured: the objects, a breaker that is open.
    pub dependency: Retry,
    /// The sandbox's start.
    pub sandbox: Retry,
}

impl Default for Retries {
    fn default() -> Self {
        let minute = Retry { attempts_max: 4, backoff_ms: 5_000, backoff_ms_max: 60_000, total_ms: 600_000 };
        Self {
            model: minute,
            dependency: Retry { attempts_max: 20, backoff_ms_max: 120_000, total_ms: 3_600_000, ..minute },
            sandbox: Retry { attempts_max: 3, backoff_ms: 1_000, ..minute },
        }
    }
}

/// When a part that fails is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Breaker {
    /// Failures in a row after which it is.
    pub failures_max: u32,
    /// How long it is left alone before one is let through to try.
    pub open_ms: u64,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { failures_max: 5, open_ms: 30_000 }
    }
}

/// A part as its breaker sees it.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    failures: u32,
    open_until_ms: u64,
}

/// Breakers of the parts that this process talks to, by name. Models and tools are few; a limit holds all the same.
#[derive(Debug, Default)]
pub(crate) struct Breakers(Mutex<HashMap<String, Seen>>);

/// Parts that are remembered; beyond it all are forgotten, which closes their breakers.
const PARTS_MAX: usize = 1_024;

impl Breakers {
    /// Whether the part may be asked now; else when it may be.
    pub(crate) fn admit(&self, part: &str, now_ms: u64, settings: Breaker) -> Result<(), u64> {
        let mut parts = self.0.lock();
        let Some(seen) = parts.get_mut(part).filter(|seen| seen.failures >= settings.failures_max) else {
            return Ok(());
        };
        if now_ms < seen.open_until_ms {
            return Err(seen.open_until_ms);
        }
        // One is let through; the others wait for what it finds.
        seen.open_until_ms = now_ms + settings.open_ms;
        Ok(())
    }

    /// What asking the part came to.
    pub(crate) fn heard(&self, part: &str, is_well: bool, now_ms: u64, settings: Breaker) {
        let mut parts = self.0.lock();
        if is_well {
            parts.remove(part);
            return;
        }
        if parts.len() >= PARTS_MAX && !parts.contains_key(part) {
            parts.clear();
        }
        let seen = parts.entry(part.to_owned()).or_default();
        seen.failures += 1;
        if seen.failures >= settings.failures_max {
            seen.open_until_ms = now_ms + settings.open_ms;
        }
    }
}

/// The failure of a part that is left alone.
pub(crate) fn breaker_open(part: &str) -> Failure {
    let message = format!("{part} failed several times in a row and is left alone for a while");
    Failure::new(FailureClass::Dependency, "breaker_open", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_end() {
        let random = Random::seeded(1);
        let retry = Retry { attempts_max: 4, backoff_ms: 1_000, backoff_ms_max: 3_000, total_ms: 60_000 };
        for (attempt, least, most) in [(1, 500, 1_000), (2, 1_000, 2_000), (3, 1_500, 3_000)] {
            let until_ms = retry.next(attempt, 0, 10_000, None, &random).unwrap();
            assert!((10_000 + least..=10_000 + most).contains(&until_ms), "attempt {attempt}: {until_ms}");
        }
        assert_eq!(retry.next(4, 0, 10_000, None, &random), None, "no more attempts");
        assert_eq!(retry.next(1, 0, 59_900, None, &random), None, "no more time");
        assert_eq!(retry.next(1, 9_000, 10_000, Some(2_500), &random), Some(12_500), "the other side asked");
        assert_eq!(Retry::NONE.next(1, 0, 0, None, &random), None);
    }

    #[test]
    fn a_part_that_fails_is_left_alone_until_one_try_goes_well() {
        let (breakers, settings) = (Breakers::default(), Breaker { failures_max: 2, open_ms: 100 });
        breakers.heard("m", false, 0, settings);
        assert_eq!(breakers.admit("m", 0, settings), Ok(()), "one failure is none");
        breakers.heard("m", false, 10, settings);
        assert_eq!(breakers.admit("m", 109, settings), Err(110));
        assert_eq!(breakers.admit("other", 109, settings), Ok(()));
        assert_eq!(breakers.admit("m", 110, settings), Ok(()), "one is let through");
        assert_eq!(breakers.admit("m", 110, settings), Err(210), "and no other");
        breakers.heard("m", true, 120, settings);
        assert_eq!(breakers.admit("m", 121, settings), Ok(()));
    }
}
