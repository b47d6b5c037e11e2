//! The stopwatch of a step. The product's clock is `stdx::clock`; a check of that product must not depend on it.

use std::time::Instant;

/// Measures how long a step took, for a person to read; nothing is ever decided by it.
#[derive(Debug)]
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    #[expect(clippy::disallowed_methods, reason = "the check must run when the product's own clock does not compile")]
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn seconds(&self) -> f64 {
        self.0.elapsed().as_secs_f64()
    }
}
