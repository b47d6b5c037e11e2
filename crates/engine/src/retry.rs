//! When something that failed is tried again, by the class of its failure, and when it is left alone for a while.

use catalog::Breaker;
use domain::contract::Retry;
use domain::{Failure, FailureClass};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use stdx::{Backoff, Random};

/// When the next attempt is due after `attempt` failed at `now_ms`, if there is to be one. `since_ms`: when it failed first.
/// `asked_ms`: the wait that the other side asked for.
pub(crate) fn next(
    retry: &Retry,
    attempt: u32,
    since_ms: u64,
    now_ms: u64,
    asked_ms: Option<u64>,
    random: &Random,
) -> Option<u64> {
    let Retry { attempts: attempts_max, backoff_ms: first_ms, backoff_ms_max: wait_ms_max, total_ms } = *retry;
    let backoff = Backoff { first_ms, wait_ms_max, attempts_max };
    let wait = backoff.after(attempt, asked_ms.map(Duration::from_millis), random)?;
    let until_ms = now_ms + u64::try_from(wait.as_millis()).unwrap_or(u64::MAX / 2);
    (until_ms.saturating_sub(since_ms) <= total_ms).then_some(until_ms)
}

/// A part as its breaker sees it.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    failures: u32,
    open_until_ms: u64,
}

/// Breakers of the parts that this process talks to, by name. Models and tools are few; a limit holds all the same.
#[derive(Debug, Default)]
pub(crate) struct Breakers {
    parts: Mutex<HashMap<String, Seen>>,
    opened: AtomicU64,
}

/// A part that keeps failing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BreakerView {
    /// Its name.
    pub part: String,
    /// Failures in a row.
    pub failures: u32,
    /// Whether it is left alone now; else the next attempt is let through, and tells.
    pub is_open: bool,
}

/// Parts that are remembered; beyond it all are forgotten, which closes their breakers.
const PARTS_MAX: usize = 1_024;

impl Breakers {
    /// Whether the part may be asked now; else when it may be.
    pub(crate) fn admit(&self, part: &str, now_ms: u64, settings: Breaker) -> Result<(), u64> {
        let mut parts = self.parts.lock();
        let Some(seen) = parts.get_mut(part).filter(|seen| seen.failures >= settings.failures) else {
            return Ok(());
        };
        if now_ms < seen.open_until_ms {
            return Err(seen.open_until_ms);
        }
        // One is let through; the others wait for what it finds.
        seen.open_until_ms = now_ms + u64::from(settings.open_seconds) * 1_000;
        Ok(())
    }

    /// What asking the part came to.
    pub(crate) fn heard(&self, part: &str, is_well: bool, now_ms: u64, settings: Breaker) {
        let mut parts = self.parts.lock();
        if is_well {
            parts.remove(part);
            return;
        }
        if parts.len() >= PARTS_MAX && !parts.contains_key(part) {
            parts.clear();
        }
        let seen = parts.entry(part.to_owned()).or_default();
        seen.failures = seen.failures.saturating_add(1);
        if seen.failures >= settings.failures {
            seen.open_until_ms = now_ms + u64::from(settings.open_seconds) * 1_000;
        }
        if seen.failures == settings.failures {
            self.opened.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(part, failures = seen.failures, "left alone for a while, because it keeps failing");
        }
    }

    /// How often a part was left alone that was not before.
    pub(crate) fn opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }

    /// The parts that keep failing, by name.
    pub(crate) fn views(&self, now_ms: u64, settings: Breaker) -> Vec<BreakerView> {
        let parts = self.parts.lock();
        let failing = parts.iter().filter(|(_, seen)| seen.failures >= settings.failures);
        let view = |(part, seen): (&String, &Seen)| {
            let (part, failures, is_open) = (part.clone(), seen.failures, now_ms < seen.open_until_ms);
            BreakerView { part, failures, is_open }
        };
        let mut views: Vec<_> = failing.map(view).collect();
        views.sort_by(|a, b| a.part.cmp(&b.part));
        views
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
        let retry = Retry { attempts: 4, backoff_ms: 1_000, backoff_ms_max: 3_000, total_ms: 60_000 };
        for (attempt, least, most) in [(1, 500, 1_000), (2, 1_000, 2_000), (3, 1_500, 3_000)] {
            let until_ms = next(&retry, attempt, 0, 10_000, None, &random).unwrap();
            assert!((10_000 + least..=10_000 + most).contains(&until_ms), "attempt {attempt}: {until_ms}");
        }
        assert_eq!(next(&retry, 4, 0, 10_000, None, &random), None, "no more attempts");
        assert_eq!(next(&retry, 1, 0, 59_900, None, &random), None, "no more time");
        assert_eq!(next(&retry, 1, 9_000, 10_000, Some(2_500), &random), Some(12_500), "the other side asked");
        assert_eq!(next(&Retry::NONE, 1, 0, 0, None, &random), None);
    }

    #[test]
    fn a_part_that_fails_is_left_alone_until_one_try_goes_well() {
        let (breakers, settings) = (Breakers::default(), Breaker { failures: 2, open_seconds: 1 });
        breakers.heard("m", false, 0, settings);
        assert_eq!(breakers.admit("m", 0, settings), Ok(()), "one failure is none");
        breakers.heard("m", false, 10, settings);
        assert_eq!(breakers.admit("m", 1_009, settings), Err(1_010));
        let view = |is_open| vec![BreakerView { part: "m".into(), failures: 2, is_open }];
        assert_eq!(breakers.views(1_009, settings), view(true));
        assert_eq!(breakers.views(1_010, settings), view(false));
        assert_eq!(breakers.admit("other", 1_009, settings), Ok(()));
        assert_eq!(breakers.admit("m", 1_010, settings), Ok(()), "one is let through");
        assert_eq!(breakers.admit("m", 1_010, settings), Err(2_010), "and no other");
        breakers.heard("m", true, 1_020, settings);
        assert_eq!(breakers.admit("m", 1_021, settings), Ok(()));
        assert_eq!((breakers.opened(), breakers.views(1_021, settings)), (1, Vec::new()));
    }
}
