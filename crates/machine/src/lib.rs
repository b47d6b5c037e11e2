//! A session as a state machine over its records: what they add up to, and what is wanted next. Pure: no IO, no clock, no
//! randomness, no async. The driver performs what is wanted and records what came of it.
//!
//! Wants are derived from the state, never queued: after a crash the fold of the log alone says what to do, and a driver that
//! performs one want twice is told apart by the state, not by luck.

mod call;
mod effect;
mod fold;
mod run;
mod scope;
mod session;
mod vote;

pub use call::{Call, CallState, Service};
pub use effect::{Abort, Answer, Effect, ScopeId};
pub use run::{Parked, Run};
pub use scope::{Phase, Reservation, Retry, Scope};
pub use session::{Entry, Files, Refused, Session, Stamp};
pub use vote::{Held, Unheard};

use domain::Event;

/// Folds one event into the state and says what is wanted at its time.
pub fn step(state: &mut Session, stamp: Stamp, event: &Event) -> Result<Vec<Effect>, Refused> {
    state.apply(stamp, event)?;
    Ok(state.wanted(stamp.at_ms))
}
