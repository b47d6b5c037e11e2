//! A scope: an agent at work inside a run, the run's own or one that a call opened.

use crate::session::Entry;
use domain::{ContentRef, Cost, Digest, Failure, FailureClass, Limits, Usage};
use std::sync::Arc;

/// An agent at work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// Its agent's name.
    pub agent: String,
    /// Digest of its agent's closure.
    pub closure: Digest,
    /// Its limits.
    pub limits: Limits,
    /// Turns taken: replies recorded.
    pub turn: u32,
    /// Calls that were begun or refused, and those about to be; with those of the scopes inside.
    pub tool_calls: u32,
    /// Tokens so far, with those of the scopes inside.
    pub usage: Usage,
    /// Cost so far, with that of the scopes inside.
    pub cost: Cost,
    /// How it stands.
    pub phase: Phase,
    /// The calls of its turn, reserved or not.
    pub(crate) wanted_calls: u32,
    /// The next attempt at asking the model, after one that failed.
    pub deferred: Option<Retry>,
    /// What is set aside for the turn that is under way.
    pub reserved: Option<Reservation>,
    /// What its model has seen; the run's own agent sees the session's history instead.
    pub history: Vec<Arc<Entry>>,
    /// The items of its last reply, when that held no call.
    pub reply: Option<ContentRef>,
}

/// How a scope stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The model is to be asked.
    Thinking,
    /// Calls are judged and performed.
    Acting,
    /// The model answered without a call.
    Answered,
    /// The model wants more calls than the limits allow.
    Overdrawn,
}

/// Something that failed and is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// How often it was tried.
    pub attempt: u32,
    /// When it failed first, in milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// When it is tried again.
    pub until_ms: u64,
}

/// A share of the budget that is set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// Tokens.
    pub tokens: u64,
    /// Millionths of a US dollar, when a limit is on cost.
    pub cost_micro_usd: Option<u64>,
}

impl Scope {
    pub(crate) fn new(agent: String, closure: Digest, limits: Limits) -> Self {
        Self {
            agent,
            closure,
            limits,
            turn: 0,
            tool_calls: 0,
            usage: Usage::default(),
            cost: Cost::default(),
            phase: Phase::Thinking,
            wanted_calls: 0,
            deferred: None,
            reserved: None,
            history: Vec::new(),
            reply: None,
        }
    }

    /// The limit that keeps its own next turn from beginning, if one does.
    pub(crate) fn reached(&self) -> Option<Limit> {
        match self.phase {
            Phase::Overdrawn => Some(Limit::ToolCalls),
            Phase::Thinking if self.turn >= self.limits.turns => Some(Limit::Turns),
            Phase::Thinking => self.spent(),
            Phase::Acting | Phase::Answered => None,
        }
    }

    /// The limit of tokens or cost that is used up, if one is.
    pub(crate) fn spent(&self) -> Option<Limit> {
        if self.usage.total_tokens() >= self.limits.tokens {
            return Some(Limit::Tokens);
        }
        match self.limits.cost_micro_usd {
            Some(most) if self.cost.micro_usd() >= most => Some(Limit::Cost),
            Some(_) if matches!(self.cost, Cost::Unlisted { .. }) => Some(Limit::CostUnknown),
            _ => None,
        }
    }

    /// What is left of its budget.
    pub(crate) fn left(&self) -> Reservation {
        Reservation {
            tokens: self.limits.tokens.saturating_sub(self.usage.total_tokens()),
            cost_micro_usd: self.limits.cost_micro_usd.map(|most| most.saturating_sub(self.cost.micro_usd())),
        }
    }
}

impl Reservation {
    /// The smaller of each.
    pub(crate) fn min(self, other: Self) -> Self {
        let cost_micro_usd = match (self.cost_micro_usd, other.cost_micro_usd) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        Self { tokens: self.tokens.min(other.tokens), cost_micro_usd }
    }

    /// What is left when another is taken away.
    pub(crate) fn less(self, other: Self) -> Self {
        let cost_micro_usd =
            self.cost_micro_usd.map(|cost| cost.saturating_sub(other.cost_micro_usd.unwrap_or_default()));
        Self { tokens: self.tokens.saturating_sub(other.tokens), cost_micro_usd }
    }

    /// One of `parts` equal parts.
    pub(crate) fn share(self, parts: u64) -> Self {
        let parts = parts.max(1);
        Self { tokens: self.tokens / parts, cost_micro_usd: self.cost_micro_usd.map(|cost| cost / parts) }
    }
}

/// A limit that was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    Turns,
    ToolCalls,
    Tokens,
    RunningSeconds,
    Cost,
    CostUnknown,
}

impl Limit {
    /// Stable code, with a page under `docs/errors/`.
    const fn code(self) -> &'static str {
        match self {
            Self::Turns => "limit_turns",
            Self::ToolCalls => "limit_tool_calls",
            Self::Tokens => "limit_tokens",
            Self::RunningSeconds => "limit_running_seconds",
            Self::Cost => "limit_cost",
            Self::CostUnknown => "limit_cost_unknown",
        }
    }

    pub(crate) fn failure(self, limits: &Limits) -> Failure {
        let most = match self {
            Self::Turns => format!("{} turns", limits.turns),
            Self::ToolCalls => format!("{} tool calls", limits.tool_calls),
            Self::Tokens => format!("{} tokens", limits.tokens),
            Self::RunningSeconds => format!("{} running seconds", limits.running_seconds),
            Self::Cost => format!("{} millionths of a US dollar", limits.cost_micro_usd.unwrap_or_default()),
            Self::CostUnknown => {
                let message =
                    "the run has a limit on cost, but its model has no price; hint: list the model in prices.yaml";
                return Failure::new(FailureClass::Budget, self.code(), message);
            }
        };
        let message = format!("the run reached its limit of {most}; hint: raise it under `limits` of the agent");
        Failure::new(FailureClass::Budget, self.code(), message)
    }
}
