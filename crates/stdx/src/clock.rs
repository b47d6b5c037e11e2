//! The one place that reads time. Everything else takes a [`Clock`].

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Reads wall and monotonic time. Cloning is cheap; clones of a manual clock move together.
#[derive(Clone, Debug)]
pub struct Clock(Source);

/// A clock that somebody else turns, such as a simulation whose timers and clocks are one.
pub trait Hands: Send + Sync + fmt::Debug {
    /// Milliseconds since the Unix epoch.
    fn wall_ms(&self) -> u64;
    /// Time that only grows, and goes on while the machine sleeps.
    fn monotonic(&self) -> Duration;
}

#[derive(Clone, Debug)]
enum Source {
    System { origin: Instant },
    Manual(Arc<AtomicU64>),
    Given(Arc<dyn Hands>),
}

impl Clock {
    /// The machine's clocks.
    #[expect(clippy::disallowed_methods, reason = "this is the one door to the machine's clock")]
    pub fn system() -> Self {
        Self(Source::System { origin: Instant::now() })
    }

    /// A clock that stands still at `at_ms` until [`Clock::advance`] moves it.
    pub fn manual(at_ms: u64) -> Self {
        Self(Source::Manual(Arc::new(AtomicU64::new(at_ms))))
    }

    /// A clock that shows what `hands` show.
    pub fn given(hands: Arc<dyn Hands>) -> Self {
        Self(Source::Given(hands))
    }

    /// Milliseconds since the Unix epoch.
    #[expect(clippy::disallowed_methods, reason = "this is the one door to the machine's clock")]
    pub fn wall_ms(&self) -> u64 {
        match &self.0 {
            Source::System { .. } => {
                SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| whole_ms(since.as_millis()))
            }
            Source::Manual(at) => at.load(Ordering::Relaxed),
            Source::Given(hands) => hands.wall_ms(),
        }
    }

    /// Milliseconds that only grow, since this clock was made. Not comparable between processes.
    pub fn monotonic_ms(&self) -> u64 {
        match &self.0 {
            Source::System { origin } => whole_ms(origin.elapsed().as_millis()),
            Source::Manual(at) => at.load(Ordering::Relaxed),
            Source::Given(hands) => whole_ms(hands.monotonic().as_millis()),
        }
    }

    /// Time that only grows, since this clock was made, at the clock's full resolution.
    pub fn monotonic(&self) -> Duration {
        match &self.0 {
            Source::System { origin } => origin.elapsed(),
            Source::Manual(at) => Duration::from_millis(at.load(Ordering::Relaxed)),
            Source::Given(hands) => hands.monotonic(),
        }
    }

    /// Time that only grows, that goes on while the machine sleeps, and that no process can set: what a lease is measured by.
    /// Its origin is the machine's start, so it is comparable between processes of one machine.
    #[cfg(target_os = "linux")]
    pub fn boottime(&self) -> Duration {
        match &self.0 {
            Source::System { .. } => {
                let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
                // The kernel gives neither part below zero.
                Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
            }
            Source::Manual(at) => Duration::from_millis(at.load(Ordering::Relaxed)),
            Source::Given(hands) => hands.monotonic(),
        }
    }

    /// Moves a manual clock; the machine's clock is left alone.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual(at) = &self.0 {
            at.fetch_add(whole_ms(by.as_millis()), Ordering::Relaxed);
        }
    }
}

fn whole_ms(ms: u128) -> u64 {
    u64::try_from(ms).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let clock = Clock::manual(1_000);
        let twin = clock.clone();
        assert_eq!(clock.wall_ms(), 1_000);
        twin.advance(Duration::from_millis(5));
        assert_eq!((clock.wall_ms(), clock.monotonic_ms()), (1_005, 1_005));
        assert_eq!(clock.boottime(), Duration::from_millis(1_005));
    }

    #[test]
    fn a_given_clock_shows_what_its_hands_show() {
        #[derive(Debug)]
        struct Still;
        impl Hands for Still {
            fn wall_ms(&self) -> u64 {
                7
            }
            fn monotonic(&self) -> Duration {
                Duration::from_micros(2_500)
            }
        }
        let clock = Clock::given(Arc::new(Still));
        clock.advance(Duration::from_secs(1));
        assert_eq!((clock.wall_ms(), clock.monotonic_ms()), (7, 2));
        assert_eq!((clock.monotonic(), clock.boottime()), (Duration::from_micros(2_500), Duration::from_micros(2_500)));
    }

    #[test]
    fn the_machine_counts_from_its_start() {
        let clock = Clock::system();
        let before = clock.boottime();
        assert!(before > Duration::ZERO && clock.boottime() >= before);
    }
}
