//! How long to wait before the next attempt: exponential with full jitter, bounded in count and time.

use crate::Random;
use std::time::Duration;

/// A bounded schedule of waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The first wait's upper bound.
    pub first_ms: u64,
    /// No wait is longer than this.
    pub wait_ms_max: u64,
    /// Attempts in all, the first included.
    pub attempts_max: u32,
}

impl Backoff {
    /// The wait after failed attempt number `attempt` (from 1), or `None` when no attempt is left. `asked` is what
    /// the other side asked for (`Retry-After`); it is honoured up to `wait_ms_max`.
    pub fn after(&self, attempt: u32, asked: Option<Duration>, random: &Random) -> Option<Duration> {
        if attempt >= self.attempts_max {
            return None;
        }
        let cap = self.wait_ms_max;
        if let Some(asked) = asked {
            return Some(asked.min(Duration::from_millis(cap)));
        }
        let bound = self.first_ms.saturating_mul(1 << attempt.saturating_sub(1).min(20)).min(cap);
        // Half fixed, half random: spreads a crowd without ever retrying at once.
        Some(Duration::from_millis(bound / 2 + random.below(bound / 2 + 1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_stay_bounded_and_end() {
        let backoff = Backoff { first_ms: 100, wait_ms_max: 300, attempts_max: 4 };
        let random = Random::seeded(1);
        for (attempt, low, high) in [(1, 50, 100), (2, 100, 200), (3, 150, 300)] {
            let wait = backoff.after(attempt, None, &random).unwrap().as_millis();
            assert!((low..=high).contains(&wait), "attempt {attempt} waits {wait} ms");
        }
        assert_eq!(backoff.after(4, None, &random), None);
        assert_eq!(backoff.after(1, Some(Duration::from_secs(9)), &random), Some(Duration::from_millis(300)));
    }
}
