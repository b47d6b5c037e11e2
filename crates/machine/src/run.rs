//! One run: its scopes, its calls, its limits, how it stands and what it wants.

use crate::call::{Call, CallState};
use crate::effect::{Abort, Answer, Effect, ScopeId};
use crate::scope::{Limit, Phase, Reservation, Scope};
use domain::limits::Reached;
use domain::record::{Save, When};
use domain::{ContentRef, Digest, Failure, Id, Limits, RunStatus, Wait, id};
use indexmap::IndexMap;
use std::collections::VecDeque;

/// A wait for a retry that is shorter than this is no reason to let go of everything.
const SHORT_WAIT_MS: u64 = 15_000;

/// A run that was submitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Its id.
    pub id: Id<id::Run>,
    /// Who asked.
    pub principal: Id<id::Principal>,
    /// When it was asked for, in milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// What to keep when it ends.
    pub save: Save,
    /// Digest of the caller's idempotency key.
    pub idempotency: Option<Digest>,
    /// Its own agent, first, and the nested agents at work, in the order they were opened.
    pub scopes: IndexMap<ScopeId, Scope>,
    /// The calls of the turns that are under way, in the order they were made.
    pub calls: IndexMap<Id<id::Call>, Call>,
    /// Whether somebody asked for its end, and when.
    pub cancelled: Option<When>,
    /// Whether it begins nothing new.
    pub is_paused: bool,
    /// What the model is to be told besides, and has not been shown.
    pub steers: VecDeque<ContentRef>,
    /// How often somebody interrupted it.
    pub interrupts: u32,
    /// Whether what is under way is being ended for an interruption.
    pub(crate) is_interrupted: bool,
    /// What it waits for, once that is on record.
    pub parked: Option<Parked>,
    /// The checkpoint that the turn under way began from.
    pub turn_began_at: Option<Id<id::Checkpoint>>,
    /// Whether it had a sandbox.
    pub used_sandbox: bool,
    /// Running time up to `last_ms`.
    pub running_ms: u64,
    /// When the last record of this run was written.
    pub last_ms: u64,
}

/// What a run waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parked {
    /// What for.
    pub waits_for: Wait,
    /// When it goes on by itself.
    pub until_ms: Option<u64>,
}

impl Run {
    /// The run's own agent at work.
    #[expect(clippy::missing_panics_doc, reason = "a run is made with its root and never loses it")]
    #[expect(clippy::expect_used, reason = "a run is made with its root and never loses it")]
    pub fn root(&self) -> &Scope {
        self.scopes.get(&None).expect("a run has its root")
    }

    #[expect(clippy::expect_used, reason = "a run is made with its root and never loses it")]
    pub(crate) fn root_mut(&mut self) -> &mut Scope {
        self.scopes.get_mut(&None).expect("a run has its root")
    }

    /// The limits of the run.
    pub fn limits(&self) -> &Limits {
        &self.root().limits
    }

    /// How the run stands, for people.
    pub fn status(&self) -> RunStatus {
        self.parked.map_or(RunStatus::Running, |parked| parked.waits_for.status())
    }

    /// Running time at `now_ms`: time parked, queued or with no process alive is not in it.
    pub fn running_ms_at(&self, now_ms: u64) -> u64 {
        match self.parked {
            Some(_) => self.running_ms,
            None => self.running_ms.saturating_add(now_ms.saturating_sub(self.last_ms)),
        }
    }

    /// When its state will want something else by the mere passing of time.
    pub(crate) fn due_ms(&self) -> Option<u64> {
        if let Some(parked) = self.parked {
            return parked.until_ms;
        }
        let left = self.limits().running_seconds.saturating_mul(1_000).saturating_sub(self.running_ms);
        self.waits_until().into_iter().chain([self.last_ms.saturating_add(left)]).min()
    }

    /// What is wanted at `now_ms`; `changed`: the workspace may be another than at its checkpoint.
    pub(crate) fn wanted(&self, now_ms: u64, changed: bool) -> Vec<Effect> {
        let next = self.next(now_ms, changed);
        match self.parked {
            Some(_) if !next.is_empty() => vec![Effect::Resume { run: self.id }],
            parked if next.is_empty() => {
                let waits = self.waits(now_ms).filter(|waits| Some(*waits) != parked);
                let park = |Parked { waits_for, until_ms }| Effect::Park { run: self.id, waits_for, until_ms };
                waits.map(park).into_iter().collect()
            }
            _ => next,
        }
    }

    /// What comes next, whether the run is parked or not.
    pub(crate) fn next(&self, now_ms: u64, changed: bool) -> Vec<Effect> {
        let begun = || self.calls.iter().filter(|(_, call)| call.is_begun());
        if let Some((status, failure)) = self.end(now_ms) {
            let aborts: Vec<_> = begun().map(|(id, _)| Effect::Abort { call: *id, why: Abort::RunEnds }).collect();
            return match aborts.is_empty() {
                true if changed && status == RunStatus::Completed => {
                    vec![Effect::Checkpoint { turn: self.root().turn }]
                }
                true => vec![Effect::Finish { run: self.id, status, failure }],
                false => aborts,
            };
        }
        if self.is_paused {
            return begun().map(|(id, _)| Effect::Perform { call: *id }).collect();
        }
        if self.is_interrupted {
            let is_idle = |id| self.calls.values().all(|call| call.scope != Some(id) || call.is_returned());
            let supersede = |(id, call): (&Id<id::Call>, &Call)| call.superseded(*id).filter(|_| is_idle(*id));
            return self.calls.iter().filter_map(supersede).collect();
        }
        let checkpoints = changed && begun().next().is_none();
        let mut next: Vec<_> = self.scopes.keys().filter_map(|scope| self.scope_wants(*scope, now_ms)).collect();
        let overdrawn = |call: &Call| self.scopes.get(&call.scope).is_some_and(|scope| scope.phase == Phase::Overdrawn);
        for (id, call) in self.calls.iter().filter(|(_, call)| !overdrawn(call)) {
            let is_held_back =
                matches!(call.state, CallState::Allowed) && (checkpoints || self.batch_is_held(call.scope));
            next.extend(call.wanted(*id, now_ms).filter(|_| !is_held_back));
        }
        if checkpoints {
            next.push(Effect::Checkpoint { turn: self.root().turn });
        }
        next
    }

    fn batch_is_held(&self, scope: ScopeId) -> bool {
        self.calls.values().any(|call| call.scope == scope && call.holds_batch())
    }

    /// What a scope wants besides what its calls want.
    fn scope_wants(&self, id: ScopeId, now_ms: u64) -> Option<Effect> {
        let scope = self.scopes.get(&id)?;
        if let Some(call) = id {
            let answer = match (scope.phase, scope.reached()) {
                (Phase::Answered, _) => Some(Answer::Nested { reply: scope.reply.clone() }),
                (_, Some(limit)) => Some(Answer::NestedLimit { failure: limit.failure(&scope.limits) }),
                _ => None,
            };
            if let Some(answer) = answer {
                return Some(Effect::Answer { call, answer });
            }
        }
        let is_due = scope.deferred.is_none_or(|retry| retry.until_ms <= now_ms);
        // The run's own budget is looked at before anybody inside asks.
        if scope.phase != Phase::Thinking || !is_due || self.reached().is_some() {
            return None;
        }
        let (turn, interrupts) = (scope.turn + 1, self.interrupts);
        let ask = |share: Reservation| {
            let Reservation { tokens, cost_micro_usd } = share;
            Effect::Ask { scope: id, turn, interrupts, tokens, cost_micro_usd }
        };
        let Some(call) = id else { return Some(ask(self.left(None))) };
        if let Some(reserved) = scope.reserved {
            return Some(ask(reserved));
        }
        let Reservation { tokens, cost_micro_usd } = self.left(id);
        // When all is set aside for others, it waits for what they leave.
        (tokens > 0).then_some(Effect::Reserve { scope: call, turn, tokens, cost_micro_usd })
    }

    /// How many nested agents want to ask and have nothing set aside.
    fn unreserved(&self) -> u64 {
        let asking = |(id, scope): &(&ScopeId, &Scope)| {
            id.is_some() && scope.phase == Phase::Thinking && scope.reserved.is_none()
        };
        self.scopes.iter().filter(asking).count() as u64
    }

    /// What is left for a scope within every scope around it, without what is set aside for others; those that want to ask at the
    /// same time share alike.
    fn left(&self, id: ScopeId) -> Reservation {
        let sharers = self.unreserved();
        let mut left = Reservation { tokens: u64::MAX, cost_micro_usd: None };
        for around in self.path(id) {
            let Some(scope) = self.scopes.get(&around) else { continue };
            let inside = self.scopes.iter().filter(|(other, _)| self.path(**other).contains(&around));
            let set_aside = inside.filter_map(|(_, scope)| scope.reserved);
            let rest = set_aside.fold(scope.left(), Reservation::less);
            left = left.min(if around == id { rest } else { rest.share(sharers) });
        }
        left
    }

    /// A scope and those around it, innermost first.
    pub(crate) fn path(&self, id: ScopeId) -> Vec<ScopeId> {
        let mut path = vec![id];
        let mut at = id;
        while let Some(call) = at {
            at = self.calls.get(&call).and_then(|call| call.scope);
            path.push(at);
        }
        path
    }

    /// The limit of the whole run that keeps somebody's next turn from beginning.
    fn reached(&self) -> Option<Limit> {
        let root = self.root();
        let somebody_asks = self.scopes.values().any(|scope| scope.phase == Phase::Thinking);
        root.reached().or_else(|| root.spent().filter(|_| somebody_asks))
    }

    /// How the run ends, if it ends now.
    fn end(&self, now_ms: u64) -> Option<(RunStatus, Option<Failure>)> {
        let root = self.root();
        if self.cancelled == Some(When::Now) {
            return Some((RunStatus::Cancelled, None));
        }
        if root.phase == Phase::Answered {
            return Some((RunStatus::Completed, None));
        }
        if self.cancelled == Some(When::AfterTurn) && !self.moves() {
            return Some((RunStatus::Cancelled, None));
        }
        let limits = &root.limits;
        if self.parked.is_none() && self.running_ms_at(now_ms) >= limits.running_seconds.saturating_mul(1_000) {
            return Some((RunStatus::TimedOut, Some(Limit::RunningSeconds.failure(limits))));
        }
        let limit = self.reached().filter(|_| limits.reached == Reached::Stop)?;
        Some((RunStatus::BudgetExhausted, Some(limit.failure(limits))))
    }

    /// Whether the turn that is under way gets on without anybody's help.
    fn moves(&self) -> bool {
        let moves = |call: &Call| match call.state {
            CallState::Began { .. } => true,
            CallState::Asked | CallState::Allowed | CallState::Checking | CallState::Nested => !self.is_paused,
            _ => false,
        };
        self.root().phase == Phase::Acting && self.calls.values().any(moves)
    }

    /// What the run waits for when nothing is wanted of it; `None` too for a retry that comes soon.
    fn waits(&self, now_ms: u64) -> Option<Parked> {
        let waits_for = |waits_for, until_ms| Some(Parked { waits_for, until_ms });
        let any = |test: fn(&CallState) -> bool| self.calls.values().any(|call| test(&call.state));
        if self.is_paused {
            waits_for(Wait::Resume, None)
        } else if any(|state| matches!(state, CallState::InDoubt { .. })) {
            waits_for(Wait::Resolution, None)
        } else if any(|state| matches!(state, CallState::Held(_))) {
            waits_for(Wait::Approval, self.waits_until())
        } else if self.reached().is_some() {
            waits_for(Wait::Budget, None)
        } else {
            let until_ms = self.waits_until().filter(|until_ms| *until_ms >= now_ms.saturating_add(SHORT_WAIT_MS))?;
            waits_for(Wait::Retry, Some(until_ms))
        }
    }

    /// The earliest time that something in it waits for.
    fn waits_until(&self) -> Option<u64> {
        let of_call = |call: &Call| match &call.state {
            CallState::Held(held) => Some(held.obligation.expires_ms),
            CallState::Deferred { until_ms } => Some(*until_ms),
            _ => None,
        };
        let scopes = self.scopes.values().filter(|scope| scope.phase == Phase::Thinking);
        let retries = scopes.filter_map(|scope| scope.deferred.map(|retry| retry.until_ms));
        self.calls.values().filter_map(of_call).chain(retries).min()
    }
}
