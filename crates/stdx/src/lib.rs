//! What std lacks: the clock, randomness and backoff as values that are handed in. No domain word lives here.

pub mod backoff;
pub mod clock;
pub mod random;

pub use backoff::Backoff;
pub use clock::Clock;
pub use random::Random;
