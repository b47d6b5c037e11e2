//! What std lacks: the clock, randomness and backoff as values that are handed in, and the points at which a test kills
//! the process. No domain word lives here.

pub mod backoff;
pub mod clock;
pub mod points;
pub mod random;

pub use backoff::Backoff;
pub use clock::Clock;
pub use random::Random;
