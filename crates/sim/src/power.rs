//! The switch of the world: counts the points at which a process can die, and dies at the one that was chosen. From then on
//! nothing that anybody does has an effect, until the world is started again.

use parking_lot::Mutex;
use std::sync::Arc;
use tokio::sync::Notify;

/// Steps of one life after which it goes round in circles: ordinary ones take some ten thousand.
const STEPS_MAX: u64 = 1_000_000;
/// Where the power goes then.
pub(crate) const ENDLESS: &str = "in a circle";

/// The power is off: whatever was asked did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the power is off")]
pub struct Off;

/// The switch. Cloning is cheap; clones are the same switch.
#[derive(Clone, Debug, Default)]
pub struct Power(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    cut: Notify,
}

#[derive(Debug, Default)]
struct State {
    points: u64,
    /// Points and lesser steps of this life.
    steps: u64,
    /// The point at which the power goes, counted from the first start.
    cut_at: Option<u64>,
    is_off: bool,
    /// Where it went.
    at: &'static str,
}

impl Power {
    /// Orders a crash: the power goes `points` points from now, before what is asked there happens. 0 is the next one.
    pub fn cut_after(&self, points: u64) {
        let mut state = self.0.state.lock();
        state.cut_at = Some(state.points + points);
    }

    /// Takes an order back.
    pub fn keep(&self) {
        self.0.state.lock().cut_at = None;
    }

    /// A point at which the process can die.
    ///
    /// # Errors
    /// When it is dead.
    pub fn point(&self, at: &'static str) -> Result<(), Off> {
        self.step()?;
        let mut state = self.0.state.lock();
        if state.cut_at.is_some_and(|cut_at| state.points >= cut_at) {
            state.is_off = true;
            state.cut_at = None;
            state.at = at;
            self.0.cut.notify_one();
            return Err(Off);
        }
        state.points += 1;
        Ok(())
    }

    /// A step that changes nothing in the world, so that nobody need die there. It is counted, because a process that goes round in
    /// circles without ever waiting can be stopped at nothing else.
    ///
    /// # Errors
    /// When the process is dead.
    pub fn step(&self) -> Result<(), Off> {
        let mut state = self.0.state.lock();
        state.steps += 1;
        if state.steps > STEPS_MAX && !state.is_off {
            (state.is_off, state.at, state.cut_at) = (true, ENDLESS, None);
            self.0.cut.notify_one();
        }
        if state.is_off { Err(Off) } else { Ok(()) }
    }

    /// Cuts the power now.
    pub fn cut(&self, at: &'static str) {
        let mut state = self.0.state.lock();
        if !state.is_off {
            (state.is_off, state.at, state.cut_at) = (true, at, None);
            self.0.cut.notify_one();
        }
    }

    /// Waits until the power goes.
    pub async fn gone(&self) {
        while !self.is_off() {
            self.0.cut.notified().await;
        }
    }

    /// Whether it is off.
    pub fn is_off(&self) -> bool {
        self.0.state.lock().is_off
    }

    /// Where it went off last.
    pub fn at(&self) -> &'static str {
        self.0.state.lock().at
    }

    /// Points passed since the first start.
    pub fn points(&self) -> u64 {
        self.0.state.lock().points
    }

    /// Switches it on again.
    pub fn on(&self) {
        let mut state = self.0.state.lock();
        (state.is_off, state.at, state.cut_at, state.steps) = (false, "", None, 0);
    }
}
