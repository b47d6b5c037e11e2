//! What a call may do: Cedar policies in, a verdict out. The only mint of [`Permit`]. Pure: no IO, no clock, no randomness.

mod approval;
mod pack;
mod permit;
mod question;
mod split;

pub use approval::{APPROVAL_SECONDS_DEFAULT, APPROVAL_SECONDS_MAX, QUORUM_MAX};
pub use pack::{Error, Pack, Source};
pub use permit::{PERMIT_MS_MAX, Permit};

use domain::{Call, Contract, Digest, Id, Judgement, Obligation, id};

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The call.
    pub call: &'a Call,
    /// The agent that makes it.
    pub agent: &'a str,
    /// On whose behalf.
    pub principal: Id<id::Principal>,
    /// The tool's contract.
    pub contract: &'a Contract,
    /// The turn, from 1.
    pub turn: u32,
    /// Calls of this run before this one.
    pub tool_calls: u32,
    /// The epoch of the lease under which it would be performed.
    pub epoch: u64,
    /// How many approvals count so far.
    pub approvals: u8,
    /// What an approval is bound to, see [`Obligation::binding`].
    pub binding: Digest,
    /// Wall time in milliseconds since the Unix epoch, from which an approval's expiry is counted.
    pub now_ms: u64,
}

/// What is answered.
#[derive(Debug)]
pub enum Decision {
    /// Go on, once, soon.
    Allow(Judgement, Permit),
    /// Never.
    Deny(Judgement),
    /// Not before what is asked for is met; then the call is judged again.
    Hold(Judgement, Obligation),
}

impl Decision {
    /// The verdict with its reasons.
    pub const fn judgement(&self) -> &Judgement {
        match self {
            Self::Allow(judgement, _) | Self::Deny(judgement) | Self::Hold(judgement, _) => judgement,
        }
    }
}
