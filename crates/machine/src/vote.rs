//! Approvals: who may vote on a call that is held, and when there are enough votes.

use domain::record::{Vote, Voted};
use domain::{Digest, Id, Obligation, id};

/// A call that waits for approval.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// What must be met.
    pub obligation: Obligation,
    /// Since when, in milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// On whose behalf the call is made: that one has no vote.
    pub requester: Id<id::Principal>,
    /// Who approved so far, in order.
    pub approvals: Vec<Id<id::Principal>>,
}

/// Why a vote does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unheard {
    /// The call does not wait for approval, or not any more.
    #[error("the call does not wait for approval")]
    NotHeld,
    /// Enough have approved already.
    #[error("enough have approved already")]
    Decided,
    /// The time for it is over.
    #[error("the time for approving is over")]
    Expired,
    /// What is asked for now is not what the voter was shown.
    #[error("what is to be approved has changed since it was shown; hint: read it again")]
    Stale,
    /// The same principal has voted already.
    #[error("this principal has voted already")]
    Twice,
    /// The call is made on the voter's own behalf.
    #[error("the one on whose behalf a call is made can't approve of it")]
    Requester,
}

impl Unheard {
    /// Stable code, with a page under `docs/errors/`.
    pub const fn code(self) -> &'static str {
        match self {
            Self::NotHeld => "approval_not_held",
            Self::Decided => "approval_decided",
            Self::Expired => "approval_expired",
            Self::Stale => "approval_stale",
            Self::Twice => "approval_twice",
            Self::Requester => "approval_requester",
        }
    }
}

impl Held {
    /// Whether enough have approved.
    pub fn is_approved(&self) -> bool {
        self.approvals.len() >= usize::from(self.obligation.quorum)
    }

    /// Whether the time for approving is over.
    pub const fn is_expired(&self, now_ms: u64) -> bool {
        now_ms >= self.obligation.expires_ms
    }

    /// Whether a vote counts that is cast now. The requester may reject, but not approve.
    pub fn weigh(&self, principal: Id<id::Principal>, vote: Vote, binding: Digest, now_ms: u64) -> Result<(), Unheard> {
        if self.is_approved() {
            Err(Unheard::Decided)
        } else if self.is_expired(now_ms) {
            Err(Unheard::Expired)
        } else if binding != self.obligation.binding {
            Err(Unheard::Stale)
        } else if vote == Vote::Approve && principal == self.requester {
            Err(Unheard::Requester)
        } else if self.approvals.contains(&principal) {
            Err(Unheard::Twice)
        } else {
            Ok(())
        }
    }

    /// Takes a vote that counts; gives whether the call is rejected.
    pub(crate) fn take(&mut self, principal: Id<id::Principal>, body: &Voted) -> bool {
        match body.vote {
            Vote::Approve => self.approvals.push(principal),
            Vote::Reject => return true,
        }
        false
    }

    /// The call was judged again and is still held. Votes stay when the same or less is asked for; when more is, they are void.
    pub(crate) fn renewed(self, obligation: Obligation) -> Self {
        let approvals =
            match obligation.quorum > self.obligation.quorum || obligation.binding != self.obligation.binding {
                true => Vec::new(),
                false => self.approvals,
            };
        Self { obligation, approvals, ..self }
    }
}
