//! What the records of a run's course do to it.

use crate::call::{Call, CallState, Service};
use crate::effect::ScopeId;
use crate::run::{Parked, Run};
use crate::scope::{Phase, Reservation, Retry, Scope};
use crate::session::{Entry, Stamp};
use crate::vote::Held;
use domain::record::{
    Began, CallAdded, Deferred, Judged, Purpose, Replied, Reserved, Resolution, Returned, ScopeOpened, When,
};
use domain::{CallStatus, ContentRef, Id, Limits, Verdict, Wait, id};
use std::sync::Arc;

/// What an event contradicts.
type Why = &'static str;

const NO_CALL: Why = "there is no such call";

impl Run {
    fn call(&mut self, id: Id<id::Call>) -> Result<&mut Call, Why> {
        self.calls.get_mut(&id).ok_or(NO_CALL)
    }

    /// Another process, or a later driver, took the run up, and goes on with the `attached` calls. Gives whether the workspace
    /// must go back to its checkpoint.
    pub(crate) fn resumed(&mut self, attached: &[Id<id::Call>]) -> bool {
        self.parked = None;
        // Every call, not the first that rolls back.
        let left = self.calls.iter_mut().filter(|(id, call)| !(call.is_begun() && attached.contains(id)));
        left.map(|(_, call)| call.after_crash()).fold(false, |any, rolls_back| any | rolls_back)
    }

    pub(crate) fn raised(&mut self, limits: Limits) {
        let root = self.root_mut();
        root.limits = limits;
        let total = root.tool_calls.saturating_add(root.wanted_calls);
        if root.phase == Phase::Overdrawn && total <= limits.tool_calls {
            root.tool_calls = total;
            root.phase = Phase::Acting;
        }
    }

    pub(crate) fn steered(&mut self, message: &ContentRef, when: When) {
        self.steers.push_back(message.clone());
        if when == When::Now {
            self.interrupts += 1;
            self.is_interrupted = self.root().phase == Phase::Acting;
        }
        self.hear();
    }

    /// An answer that did not hear what was said meanwhile is not the last word.
    fn hear(&mut self) {
        if !self.steers.is_empty() && self.root().phase == Phase::Answered {
            let root = self.root_mut();
            root.phase = Phase::Thinking;
            root.reply = None;
        }
    }

    pub(crate) fn resolved(&mut self, call: Id<id::Call>, resolution: &Resolution) {
        if let Some(call) = self.calls.get_mut(&call)
            && matches!(call.state, CallState::InDoubt { .. })
        {
            call.state = CallState::Resolved(resolution.clone());
        }
    }

    /// Gives the messages that the model was shown with this turn.
    pub(crate) fn replied(&mut self, body: &Replied) -> Result<Vec<ContentRef>, Why> {
        let path = self.path(body.scope);
        let scope = self.scopes.get(&body.scope).ok_or("there is no such scope")?;
        if scope.phase != Phase::Thinking {
            return Err("the model was not asked");
        }
        if body.turn != scope.turn + 1 {
            return Err("it is not of the next turn");
        }
        if body.steers as usize > self.steers.len() || (body.scope.is_some() && body.steers > 0) {
            return Err("it saw messages that are not there");
        }
        let heard = self.steers.drain(..body.steers as usize).collect();
        let wanted = u32::try_from(body.calls.len()).unwrap_or(u32::MAX);
        // The batch's budget is reserved before its first call begins: none of it is performed when it is too large.
        let fits = path
            .iter()
            .filter_map(|id| self.scopes.get(id))
            .all(|scope| scope.tool_calls.saturating_add(wanted) <= scope.limits.tool_calls);
        for id in &path {
            let Some(scope) = self.scopes.get_mut(id) else { continue };
            scope.usage = scope.usage.plus(body.usage);
            scope.cost = scope.cost.plus(body.cost);
            if fits {
                scope.tool_calls = scope.tool_calls.saturating_add(wanted);
            }
        }
        if let Some(scope) = self.scopes.get_mut(&body.scope) {
            scope.turn = body.turn;
            scope.deferred = None;
            scope.reserved = None;
            scope.wanted_calls = wanted;
            scope.phase = match wanted {
                0 => Phase::Answered,
                _ if fits => Phase::Acting,
                _ => Phase::Overdrawn,
            };
            scope.reply = (wanted == 0).then(|| body.items.clone());
        }
        self.enter_calls(body)?;
        self.hear();
        Ok(heard)
    }

    /// The calls of a reply take the place of those of the scope's turn before.
    fn enter_calls(&mut self, body: &Replied) -> Result<(), Why> {
        self.calls.retain(|_, call| call.scope != body.scope);
        for head in &body.calls {
            let call = Call {
                tool: head.tool.clone(),
                scope: body.scope,
                attempt: 1,
                key: None,
                serves: None,
                met: 0,
                first_began_ms: None,
                approvals: 0,
                state: CallState::Asked,
            };
            if self.calls.insert(head.call, call).is_some() {
                return Err("two calls have one id");
            }
        }
        Ok(())
    }

    pub(crate) fn judged(&mut self, stamp: Stamp, body: &Judged) -> Result<(), Why> {
        let requester = self.principal;
        let call = self.call(body.call)?;
        let held = match &call.state {
            CallState::Asked | CallState::Deferred { .. } => None,
            CallState::Held(held) => Some(held.clone()),
            _ => return Err("the call was not to be judged"),
        };
        if let Some(held) = &held {
            call.approvals = u32::try_from(held.approvals.len()).unwrap_or(u32::MAX);
        }
        call.state = match (body.judgement.verdict, &body.obligation) {
            (Verdict::Allow, _) => CallState::Allowed,
            (Verdict::Deny, _) => CallState::Denied,
            (Verdict::Hold, None) => return Err("it is held for nothing"),
            (Verdict::Hold, Some(obligation)) => CallState::Held(match held {
                Some(held) => held.renewed(obligation.clone()),
                None => {
                    let obligation = obligation.clone();
                    Held { obligation, since_ms: stamp.at_ms, requester, approvals: Vec::new() }
                }
            }),
        };
        Ok(())
    }

    pub(crate) fn began(&mut self, stamp: Stamp, body: &Began) -> Result<(), Why> {
        let call = self.call(body.call)?;
        match call.state {
            CallState::Allowed if call.attempt == body.attempt => {}
            CallState::Allowed => return Err("it is another attempt than the one allowed"),
            _ => return Err("the call was not allowed"),
        }
        call.key.clone_from(&body.key);
        call.first_began_ms.get_or_insert(stamp.at_ms);

        call.state = CallState::Began { after_crash: body.after_crash, at_ms: stamp.at_ms };
        Ok(())
    }

    pub(crate) fn deferred(&mut self, stamp: Stamp, body: &Deferred) -> Result<(), Why> {
        let Some(id) = body.call else {
            for around in self.path(body.scope) {
                if let Some(scope) = self.scopes.get_mut(&around) {
                    scope.usage = scope.usage.plus(body.usage);
                }
            }
            let scope = self.scopes.get_mut(&body.scope).ok_or("there is no such scope")?;
            if scope.phase != Phase::Thinking {
                return Err("the model was not asked");
            }
            let since_ms = scope.deferred.map_or(stamp.at_ms, |retry| retry.since_ms);
            scope.deferred = Some(Retry { attempt: body.attempt, since_ms, until_ms: body.until_ms });
            scope.reserved = None;
            return Ok(());
        };
        let call = self.call(id)?;
        if !call.is_begun() || call.attempt != body.attempt {
            return Err("that attempt has not begun");
        }
        call.attempt += 1;
        call.met = 0;
        call.state = CallState::Deferred { until_ms: body.until_ms };
        Ok(())
    }

    pub(crate) fn call_added(&mut self, body: &CallAdded) -> Result<(), Why> {
        let served = self.call(body.serves)?;
        let scope = served.scope;
        served.state = match (&served.state, body.purpose) {
            (CallState::Allowed, Purpose::Precondition) => CallState::Checking,
            (CallState::Resolved(Resolution::Compensate), Purpose::Compensation) => {
                CallState::Compensating { began_ms: 0 }
            }
            _ => return Err("the call it serves does not want it"),
        };
        let call = Call {
            tool: Some(body.tool.clone()),
            scope,
            attempt: 1,
            key: None,
            serves: Some(Service { call: body.serves, purpose: body.purpose, arguments: body.arguments.clone() }),
            met: 0,
            first_began_ms: None,
            approvals: 0,
            state: CallState::Asked,
        };
        match self.calls.insert(body.call, call) {
            None => Ok(()),
            Some(_) => Err("two calls have one id"),
        }
    }

    pub(crate) fn scope_opened(&mut self, body: &ScopeOpened) -> Result<(), Why> {
        let call = self.call(body.call)?;
        if call.state != CallState::Allowed {
            return Err("the call was not allowed");
        }
        call.state = CallState::Nested;
        let mut scope = Scope::new(body.agent.clone(), body.closure, body.limits);
        scope.history.push(Arc::new(Entry::Message { run: body.run, content: body.message.clone() }));
        self.scopes.insert(Some(body.call), scope);
        Ok(())
    }

    pub(crate) fn reserved(&mut self, body: &Reserved) -> Result<(), Why> {
        let scope = self.scopes.get_mut(&Some(body.scope)).ok_or("there is no such scope")?;
        if scope.phase != Phase::Thinking || body.turn != scope.turn + 1 {
            return Err("it is not of the next turn");
        }
        scope.reserved = Some(Reservation { tokens: body.tokens, cost_micro_usd: body.cost_micro_usd });
        Ok(())
    }

    /// Gives the call's scope, and whether the model is shown what it gave.
    pub(crate) fn returned(&mut self, body: &Returned) -> Result<(ScopeId, bool), Why> {
        let call = self.call(body.call)?;
        match call.state {
            CallState::Returned { .. } => return Err("the call has returned already"),
            CallState::InDoubt { .. } | CallState::Doubtful { .. } => return Err("the call is in doubt"),
            CallState::Allowed if !body.status.is_refusal() => return Err("the call has not begun"),
            _ => {}
        }
        call.state = CallState::Returned { status: body.status, output: body.output.clone() };
        let (scope, serves) = (call.scope, call.serves.clone());
        if let Some(Service { call: served, purpose, .. }) = serves {
            self.served(served, purpose, body);
        }
        self.close_scope(body.call);
        if self.calls.values().filter(|call| call.scope == scope).all(Call::is_returned) {
            if let Some(scope) = self.scopes.get_mut(&scope)
                && scope.phase == Phase::Acting
            {
                scope.phase = Phase::Thinking;
            }
            if scope.is_none() {
                self.is_interrupted = false;
            }
        }
        Ok((scope, serves.is_none()))
    }

    /// A call that the harness made for another has returned.
    fn served(&mut self, served: Id<id::Call>, purpose: Purpose, body: &Returned) {
        let Some(call) = self.calls.get_mut(&served) else { return };
        let by = body.call;
        call.state = match (purpose, body.status) {
            (Purpose::Precondition, CallStatus::Ok) => {
                call.met += 1;
                CallState::Allowed
            }
            (Purpose::Precondition, _) => CallState::Unmet { by, output: Some(body.output.clone()) },
            (Purpose::Compensation, CallStatus::Ok) => CallState::Compensated { by },
            // What could not be undone stays in doubt.
            (Purpose::Compensation, _) => CallState::InDoubt { began_ms: 0 },
        };
    }

    /// A nested agent's call has returned: nothing of the agent is left.
    fn close_scope(&mut self, id: Id<id::Call>) {
        if self.scopes.shift_remove(&Some(id)).is_none() {
            return;
        }
        let inside: Vec<_> =
            self.calls.iter().filter(|(_, call)| call.scope == Some(id)).map(|(inner, _)| *inner).collect();
        for inner in inside {
            self.close_scope(inner);
            self.calls.shift_remove(&inner);
        }
    }

    pub(crate) fn in_doubt(&mut self, id: Id<id::Call>) -> Result<(), Why> {
        let call = self.call(id)?;
        let CallState::Doubtful { began_ms } = call.state else { return Err("the call is not in doubt") };
        call.state = CallState::InDoubt { began_ms };
        Ok(())
    }

    /// A call in doubt parks the run when nothing else is wanted of it.
    pub(crate) fn park_in_doubt(&mut self, now_ms: u64, changed: bool) {
        if self.next(now_ms, changed).is_empty() {
            self.parked = Some(Parked { waits_for: Wait::Resolution, until_ms: None });
        }
    }
}
