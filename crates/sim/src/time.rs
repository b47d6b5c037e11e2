//! The world's time: the runtime's paused clock, carried on from life to life, and a wall clock that may be wrong.

use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use stdx::Clock;
use stdx::clock::Hands;
use tokio::runtime::Handle;
use tokio::time::Instant;

/// When the world begins, in milliseconds since the Unix epoch.
const BEGIN_MS: u64 = 1_750_000_000_000;

/// The time. It moves only when every task waits. Cloning is cheap; clones are the same time.
#[derive(Clone, Debug, Default)]
pub struct Time(Arc<Hours>);

#[derive(Debug, Default)]
struct Hours(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// When this life began, by the runtime's clock; `None` between lives.
    life: Option<Instant>,
    /// What the lives before took.
    before: Duration,
    /// What the machine slept through: no timer of the runtime knows of it.
    slept: Duration,
    /// How far the wall clock is ahead.
    ahead_ms: i64,
}

impl Time {
    /// The clock that is handed to what is simulated.
    pub fn clock(&self) -> Clock {
        Clock::given(self.0.clone())
    }

    /// Begins a life; to be called in its runtime.
    pub fn begin(&self) {
        self.0.0.lock().life = Some(Instant::now());
    }

    /// Ends a life; to be called in its runtime.
    pub fn end(&self) {
        let mut state = self.0.0.lock();
        if let Some(life) = state.life.take() {
            state.before += life.elapsed();
        }
    }

    /// Sets how far the wall clock is ahead of the world's time; below zero: behind.
    pub fn skew(&self, ahead_ms: i64) {
        self.0.0.lock().ahead_ms = ahead_ms;
    }

    /// The machine sleeps for so long, between two instructions of whoever is running: clocks go on, timers stand still.
    pub fn sleep(&self, ms: u64) {
        self.0.0.lock().slept += Duration::from_millis(ms);
    }

    /// How long the machine has slept so far.
    pub fn slept(&self) -> Duration {
        self.0.0.lock().slept
    }

    /// Milliseconds since the world began.
    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.0.monotonic().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Hands for Hours {
    fn wall_ms(&self) -> u64 {
        let elapsed_ms = u64::try_from(self.monotonic().as_millis()).unwrap_or(u64::MAX);
        (BEGIN_MS + elapsed_ms).saturating_add_signed(self.0.lock().ahead_ms)
    }

    fn monotonic(&self) -> Duration {
        let state = self.0.lock();
        // Outside of a runtime the clock is the machine's; there the world stands still.
        match state.life.filter(|_| Handle::try_current().is_ok()) {
            Some(life) => state.before + life.elapsed() + state.slept,
            None => state.before + state.slept,
        }
    }
}
