//! One run: its calls, its limits, how it stands.

use crate::effect::{Answer, Effect};
use domain::record::{AfterCrash, Save};
use domain::{ContentRef, Cost, Digest, Failure, FailureClass, Id, Limits, RunStatus, Usage, id};
use indexmap::IndexMap;

/// A run that was submitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Its id.
    pub id: Id<id::Run>,
    /// The agent's name.
    pub agent: String,
    /// Digest of the agent's closure.
    pub closure: Digest,
    /// Who asked.
    pub principal: Id<id::Principal>,
    /// When it was asked for, in milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// Its limits.
    pub limits: Limits,
    /// What to keep when it ends.
    pub save: Save,
    /// Digest of the caller's idempotency key.
    pub idempotency: Option<Digest>,
    /// Turns taken: replies recorded.
    pub turn: u32,
    /// Calls that were begun or refused, and those about to be.
    pub tool_calls: u32,
    /// Tokens so far.
    pub usage: Usage,
    /// Cost so far.
    pub cost: Cost,
    /// The calls of this turn, in the order the model made them.
    pub calls: IndexMap<Id<id::Call>, CallState>,
    /// How it stands.
    pub phase: Phase,
    /// Whether somebody asked for its end.
    pub cancelled: bool,
    /// Whether it had a sandbox.
    pub used_sandbox: bool,
    /// The items of the last reply, when it held no call.
    pub reply: Option<ContentRef>,
    /// Running time up to `last_ms`.
    pub running_ms: u64,
    /// When the last record of this run was written.
    pub last_ms: u64,
}

/// How a run stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The model is to be asked.
    Thinking,
    /// Calls are judged and performed.
    Acting,
    /// The model answered without a call.
    Answered,
    /// The model wants more calls than the run may make.
    Overdrawn,
}

/// How a call stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallState {
    /// To be judged. The number is the next attempt, from 1; the key that of an earlier attempt.
    Asked { tool: Option<String>, attempt: u32, key: Option<String> },
    /// Allowed, not begun.
    Allowed { attempt: u32, key: Option<String> },
    /// Denied, the model not told yet.
    Denied,
    /// About to be, or being performed.
    Began { attempt: u32, key: Option<String>, after_crash: AfterCrash },
    /// Its process died, the model not told yet.
    Interrupted,
    /// Its process died and nobody knows; not recorded yet.
    Doubtful,
    /// Recorded as in doubt: the run is parked.
    InDoubt,
    /// It ended.
    Returned,
}

impl Run {
    /// How the run stands, for people.
    pub fn status(&self) -> RunStatus {
        let parked = self.calls.values().any(|call| matches!(call, CallState::InDoubt));
        if parked { RunStatus::NeedsResolution } else { RunStatus::Running }
    }

    /// Running time at `now_ms`: time parked, queued or with no process alive is not in it.
    pub fn running_ms_at(&self, now_ms: u64) -> u64 {
        match self.status() {
            RunStatus::NeedsResolution => self.running_ms,
            _ => self.running_ms.saturating_add(now_ms.saturating_sub(self.last_ms)),
        }
    }

    /// What is wanted at `now_ms`.
    pub(crate) fn wanted(&self, now_ms: u64) -> Vec<Effect> {
        if let Some((status, failure)) = self.end(now_ms) {
            let began = self.calls.iter().filter(|(_, state)| matches!(state, CallState::Began { .. }));
            let aborts: Vec<_> = began.map(|(call, _)| Effect::Abort { call: *call }).collect();
            return match aborts.is_empty() {
                true => vec![Effect::Finish { run: self.id, status, failure }],
                false => aborts,
            };
        }
        match self.phase {
            Phase::Thinking => vec![Effect::Ask { turn: self.turn + 1 }],
            _ => self.calls.iter().filter_map(|(call, state)| state.wanted(*call)).collect(),
        }
    }

    /// How the run ends, if it ends now.
    fn end(&self, now_ms: u64) -> Option<(RunStatus, Option<Failure>)> {
        if self.cancelled {
            return Some((RunStatus::Cancelled, None));
        }
        if self.phase == Phase::Answered {
            return Some((RunStatus::Completed, None));
        }
        if self.status() == RunStatus::NeedsResolution {
            return None;
        }
        let limits = &self.limits;
        if self.running_ms_at(now_ms) >= limits.running_seconds.saturating_mul(1_000) {
            return Some((RunStatus::TimedOut, Some(Limit::RunningSeconds.failure(limits))));
        }
        let limit = match self.phase {
            Phase::Overdrawn => Limit::ToolCalls,
            Phase::Thinking if self.turn >= limits.turns => Limit::Turns,
            Phase::Thinking if self.usage.total_tokens() >= limits.tokens => Limit::Tokens,
            Phase::Thinking => match limits.cost_micro_usd {
                Some(most) if self.cost.micro_usd() >= most => Limit::Cost,
                Some(_) if matches!(self.cost, Cost::Unlisted { .. }) => Limit::CostUnknown,
                _ => return None,
            },
            Phase::Acting | Phase::Answered => return None,
        };
        let failure = limit.failure(limits);
        Some((RunStatus::BudgetExhausted, Some(failure)))
    }
}

/// A limit that a run has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Limit {
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

    fn failure(self, limits: &Limits) -> Failure {
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

impl CallState {
    fn wanted(&self, call: Id<id::Call>) -> Option<Effect> {
        Some(match self {
            Self::Asked { tool: None, .. } => Effect::Answer { call, answer: Answer::UnknownTool },
            Self::Asked { tool: Some(_), .. } => Effect::Judge { call },
            Self::Allowed { attempt, key } => Effect::Begin { call, attempt: *attempt, key: key.clone() },
            Self::Denied => Effect::Answer { call, answer: Answer::Denied },
            Self::Began { .. } => Effect::Perform { call },
            Self::Interrupted => Effect::Answer { call, answer: Answer::Interrupted },
            Self::Doubtful => Effect::Doubt { call },
            Self::InDoubt | Self::Returned => return None,
        })
    }

    /// What becomes of the call when the process that drove it is gone.
    pub(crate) fn after_crash(&mut self, tool: &mut Option<String>) {
        let next = match self {
            Self::Allowed { attempt, key } => {
                // Its permit died with the process: it is judged again.
                Self::Asked { tool: tool.take(), attempt: *attempt, key: key.take() }
            }
            Self::Began { attempt, key, after_crash } => match after_crash {
                AfterCrash::Repeat => Self::Asked { tool: tool.take(), attempt: *attempt + 1, key: key.take() },
                AfterCrash::Interrupted => Self::Interrupted,
                AfterCrash::Resolve => Self::Doubtful,
            },
            _ => return,
        };
        *self = next;
    }
}
