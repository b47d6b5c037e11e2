//! The proof that a call was judged. It can't be copied, stored or made elsewhere; performing a call consumes it.

use domain::{Call, Digest};
use std::time::Duration;

/// A permit is good for this long; later the call is judged again.
pub const PERMIT_MS_MAX: u64 = 1_000;

/// Allows one call, once, under one lease, until it expires.
#[derive(Debug)]
pub struct Permit {
    call: Call,
    digest: Digest,
    epoch: u64,
    expires: Duration,
}

impl Permit {
    pub(crate) fn new(call: Call, epoch: u64, now: Duration) -> Self {
        let digest = call.digest();
        Self { call, digest, epoch, expires: now + Duration::from_millis(PERMIT_MS_MAX) }
    }

    /// The call it allows.
    pub const fn call(&self) -> &Call {
        &self.call
    }

    /// Digest of the tool and the arguments that were judged.
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// The epoch of the lease it is good under.
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether it is still good at `now`, by the clock that `Pack::decide` was given.
    pub fn is_good_at(&self, now: Duration) -> bool {
        now <= self.expires
    }
}
