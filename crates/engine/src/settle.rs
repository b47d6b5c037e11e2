//! What follows at once from what happened: checks, judgements, beginnings, answers, and ends that need no work.

use crate::driver::Driver;
use crate::facts::{self, Fact, Given, Reason};
use crate::ready::Ready;
use crate::{Error, finish};
use domain::content::media;
use domain::contract::{Idempotency, Repeat, Rollback};
use domain::record::{
    AfterCrash, Began, CallAdded, InDoubt, Judged, Parked, Purpose, Reserved, Resumed, Returned, ScopeOpened,
};
use domain::{Call, CallStatus, Contract, Digest, Event, Id, Item, Obligation, Usage, Verdict, id};
use machine::{Answer, CallState, Effect, Entry, Run, Scope, ScopeId};
use policy::{Decision, Request};
use std::sync::Arc;

impl Driver {
    /// Works out `state` from `base`, what is pending, and what follows.
    pub(crate) async fn settle(&mut self) -> Result<(), Error> {
        self.state = self.base.clone();
        self.derived.clear();
        for fact in &self.pending {
            self.state.apply(fact.stamp, &fact.event)?;
        }
        self.prepare().await?;
        loop {
            let mut moved = false;
            for effect in self.wanted(&self.state) {
                // What came before in this list may have changed what is wanted: a call's end can end the run.
                if moved && !self.wanted(&self.state).contains(&effect) {
                    continue;
                }
                for fact in Box::pin(self.follow(effect)).await? {
                    self.state.apply(fact.stamp, &fact.event)?;
                    self.derived.push(fact);
                    moved = true;
                }
            }
            if !moved {
                return Ok(());
            }
        }
    }

    /// Brings in what the current run needs: its agents, and its calls when another process recorded them.
    pub(crate) async fn prepare(&mut self) -> Result<(), Error> {
        let Some(run) = &self.state.run else { return Ok(()) };
        let scopes: Vec<_> = run.scopes.iter().map(|(id, scope)| (*id, scope.agent.clone(), scope.closure)).collect();
        for (id, agent, digest) in scopes {
            if self.ready.contains_key(&digest) {
                continue;
            }
            match self.agent(id, &agent, digest).await {
                Ok(ready) => _ = self.ready.insert(digest, ready),
                Err(error) => {
                    let class = domain::FailureClass::Harness;
                    self.fail(domain::Failure::new(class, error.code(), error.to_string()));
                    return Ok(());
                }
            }
        }
        self.recall().await
    }

    /// The agent of a scope: pinned by the run, or nested in the agent of the scope around it.
    async fn agent(&mut self, scope: ScopeId, agent: &str, digest: Digest) -> Result<Arc<Ready>, Error> {
        let Some(call) = scope else { return self.inner.pinned(digest).await };
        let gone = || Error::Closure { agent: agent.to_owned(), detail: "the agent around it does not have it".into() };
        let run = self.state.run.as_ref().ok_or_else(gone)?;
        let around = run.calls.get(&call).ok_or_else(gone)?.scope;
        let closure = self.ready_of(around).and_then(|ready| ready.closure.nested(agent)).ok_or_else(gone)?;
        if closure.digest() != digest {
            return Err(gone());
        }
        self.inner.ready(&closure).await
    }

    /// The calls that are under way, from the log.
    async fn recall(&mut self) -> Result<(), Error> {
        let Some(run) = &self.state.run else { return Ok(()) };
        if run.calls.keys().all(|call| self.calls.contains_key(call)) {
            return Ok(());
        }
        let missing: Vec<_> = run.calls.iter().filter(|(id, _)| !self.calls.contains_key(*id)).collect();
        let added: Vec<_> = missing
            .iter()
            .filter_map(|(id, call)| Some((**id, call.tool.clone()?, call.serves.clone()?.arguments)))
            .collect();
        let scopes =
            run.scopes.iter().map(|(id, scope)| if id.is_none() { &self.state.history } else { &scope.history });
        let replies: Vec<_> = scopes
            .filter_map(|history| history.iter().rev().find(|entry| matches!(&***entry, Entry::Reply { .. })))
            .map(Arc::clone)
            .collect();
        let run = run.id;
        for entry in replies {
            let Entry::Reply { content, calls, .. } = &*entry else { continue };
            let items = self.memory.items_of(&self.inner.parts.journal, &self.key, content).await?;
            for (call, index) in calls {
                if let Some(item) = items.get(*index as usize) {
                    self.remember(run, *call, item);
                }
            }
        }
        for (id, tool, content) in added {
            if let Some(arguments) = self.inner.text(&self.key, &content).await? {
                self.remember_added(run, id, tool, arguments);
            }
        }
        Ok(())
    }

    fn remember_added(&mut self, run: Id<id::Run>, id: Id<id::Call>, tool: String, arguments: String) {
        let (session, tenant) = (self.key.session, self.key.tenant.to_string());
        self.calls.insert(id, Call { id, run, session, tenant, tool, arguments, custom: false });
    }

    /// Remembers a call of a reply.
    pub(crate) fn remember(&mut self, run: Id<id::Run>, id: Id<id::Call>, item: &Item) {
        if let Item::Call { name, arguments, custom, .. } = item {
            let (session, tenant) = (self.key.session, self.key.tenant.to_string());
            let (tool, arguments, custom) = (name.clone(), arguments.clone(), *custom);
            self.calls.insert(id, Call { id, run, session, tenant, tool, arguments, custom });
        }
    }

    /// The facts that an effect comes to at once; none for an effect that takes time.
    async fn follow(&mut self, effect: Effect) -> Result<Vec<Fact>, Error> {
        let Some(run) = self.state.run.clone() else { return self.follow_end(effect) };
        let event = match effect {
            Effect::Resume { run } => Event::Resumed(Resumed { run, epoch: self.epoch, attached: vec![] }),
            Effect::Park { run, waits_for, until_ms } => Event::Parked(Parked { run, waits_for, until_ms }),
            Effect::Reserve { scope, turn, tokens, cost_micro_usd } => {
                Event::Reserved(Reserved { run: run.id, scope, turn, tokens, cost_micro_usd })
            }
            Effect::Judge { call } => return self.judge(&run, call),
            Effect::Begin { call, attempt, key } => return self.begins(&run, call, attempt, key).await,
            Effect::Compensate { call } => return self.compensates(&run, call),
            Effect::Abort { call, why } => {
                let given = self.abort(call, why);
                return Ok(vec![self.answered(&run, call, given)?]);
            }
            Effect::Answer { call, answer: Answer::Happened { output } } => {
                // It is in the log already, sealed when somebody said so.
                return Ok(vec![Fact::bare(self.stamp(), Event::Returned(happened(&run, call, output)))]);
            }
            Effect::Answer { call, answer } => {
                let given = self.answer(&run, call, answer).await?;
                return Ok(vec![self.answered(&run, call, given)?]);
            }
            Effect::Doubt { call } => Event::InDoubt(InDoubt { run: run.id, call }),
            Effect::Finish { .. } => return self.follow_end(effect),
            Effect::Ask { .. } | Effect::Perform { .. } | Effect::Checkpoint { .. } => return Ok(Vec::new()),
        };
        Ok(vec![Fact::bare(self.stamp(), event)])
    }

    /// Ends a run that has nothing to clear away.
    fn follow_end(&mut self, effect: Effect) -> Result<Vec<Fact>, Error> {
        let Effect::Finish { run: id, status, failure } = effect else { return Ok(Vec::new()) };
        let waiting = self.state.queue.iter().find(|run| run.id == id);
        let Some(run) = waiting.or(self.state.run.as_ref().filter(|run| run.id == id)) else {
            return Ok(Vec::new());
        };
        let is_current = waiting.is_none();
        if is_current && self.has_to_clear(run) {
            return Ok(Vec::new());
        }
        let spent = if is_current { self.spent } else { Usage::default() };
        let event = Event::Finished(finish::finished(run, spent, status, failure));
        Ok(vec![Fact::bare(self.stamp(), event)])
    }

    fn judge(&mut self, run: &Run, id: Id<id::Call>) -> Result<Vec<Fact>, Error> {
        let Some(state) = run.calls.get(&id) else { return Ok(Vec::new()) };
        let (Some(ready), Some(scope)) = (self.ready_of(state.scope), run.scopes.get(&state.scope)) else {
            return Ok(Vec::new());
        };
        let Some(call) = self.calls.get(&id).cloned() else {
            let text = "The call can't be read any more, because its content was erased.";
            return Ok(vec![self.answered(run, id, Given::because(Reason::Erased, text))?]);
        };
        if let Err(rejection) = ready.toolbox.check(&call) {
            let given = Given::told(CallStatus::Invalid, rejection.code, rejection.text);
            return Ok(vec![self.answered(run, id, given)?]);
        }
        let Some(contract) = ready.toolbox.contract(&call.tool) else {
            let given = unknown(&ready, &call.tool);
            return Ok(vec![self.answered(run, id, given)?]);
        };
        let decision = self.decide(run, scope, state, contract, &call);
        let judgement = decision.judgement().clone();
        let told = (judgement.verdict == Verdict::Deny).then(|| denial(&judgement));
        let held = matches!(state.state, CallState::Held(_));
        let mut obligation = None;
        match decision {
            Decision::Allow(_, permit) => _ = self.permits.insert(id, permit),
            Decision::Hold(_, asked) => obligation = Some(asked_again(state, asked)),
            Decision::Deny(_) => {}
        }
        let judged = Judged { run: run.id, call: id, judgement, obligation, held };
        let mut facts = vec![Fact::bare(self.stamp(), Event::Judged(judged))];
        if let Some(text) = told {
            // Told at once, so that the two are in one append.
            facts.push(self.answered(run, id, Given::because(Reason::Denied, text))?);
        }
        Ok(facts)
    }

    /// Asks the policies in force now about a call.
    pub(crate) fn decide(
        &self,
        run: &Run,
        scope: &Scope,
        state: &machine::Call,
        contract: &Contract,
        call: &Call,
    ) -> Decision {
        let pack = (self.inner.parts.catalog)().pack.clone();
        let in_turn = u32::try_from(run.calls.values().filter(|other| other.scope == state.scope).count());
        let approvals = match &state.state {
            CallState::Held(held) => held.approvals.len(),
            _ => state.approvals as usize,
        };
        let request = Request {
            call,
            agent: &scope.agent,
            principal: run.principal,
            contract,
            turn: scope.turn,
            tool_calls: scope.tool_calls.saturating_sub(in_turn.unwrap_or(u32::MAX)),
            epoch: self.epoch,
            approvals: u8::try_from(approvals).unwrap_or(u8::MAX),
            binding: binding(call, scope, run),
            now_ms: self.inner.parts.clock.wall_ms(),
        };
        pack.decide(&request, self.inner.parts.clock.monotonic())
    }

    /// An allowed call begins: with the call that tells whether its next precondition is met, with a nested agent, or itself.
    async fn begins(
        &mut self,
        run: &Run,
        id: Id<id::Call>,
        attempt: u32,
        key: Option<String>,
    ) -> Result<Vec<Fact>, Error> {
        let Some(state) = run.calls.get(&id) else { return Ok(Vec::new()) };
        let (Some(ready), Some(call)) = (self.ready_of(state.scope), self.calls.get(&id).cloned()) else {
            return Ok(Vec::new());
        };
        if let Some(needed) = ready.toolbox.preconditions(&call).into_iter().nth(state.met as usize) {
            return Ok(vec![self.add_call(run, id, Purpose::Precondition, needed)?]);
        }
        if let Some(agent) = ready.toolbox.nested(&call.tool) {
            return self.opens_scope(run, &ready, &call, agent).await;
        }
        let contract = ready.toolbox.contract(&call.tool);
        let key = key.or_else(|| contract.and_then(|contract| key_of(run, &call, contract)));
        let after_crash = contract.map_or(AfterCrash::Interrupted, after_crash);
        let began = Began { run: run.id, call: id, attempt, epoch: self.epoch, key, after_crash };
        Ok(vec![Fact::bare(self.stamp(), Event::Began(began))])
    }

    async fn opens_scope(&mut self, run: &Run, ready: &Ready, call: &Call, agent: &str) -> Result<Vec<Fact>, Error> {
        let Some(closure) = ready.closure.nested(agent) else {
            return Ok(vec![self.answered(run, call.id, unknown(ready, &call.tool))?]);
        };
        let (message, item) = self.sealer.seal(media::TEXT, tools::nested_message(call).as_bytes())?;
        let event = Event::ScopeOpened(ScopeOpened {
            run: run.id,
            call: call.id,
            agent: agent.to_owned(),
            closure: closure.digest(),
            message,
            limits: closure.agent.limits,
        });
        // Made ready before anything is wanted of it, and pinned for whoever looks at its calls without the agent around it.
        // Whatever is wrong with it ends the call, not the run.
        match self.inner.ready(&closure).await {
            Ok(nested) => _ = self.ready.insert(closure.digest(), nested),
            Err(error) => {
                let given = Given::told(CallStatus::Error, error.code(), error.to_string());
                return Ok(vec![self.answered(run, call.id, given)?]);
            }
        }
        Ok(vec![Fact { stamp: self.stamp(), event, contents: vec![item], may_linger: false }])
    }

    /// The call that undoes another.
    fn compensates(&mut self, run: &Run, id: Id<id::Call>) -> Result<Vec<Fact>, Error> {
        let scope = run.calls.get(&id).map(|call| call.scope);
        let ready = scope.and_then(|scope| self.ready_of(scope));
        let needed = ready.zip(self.calls.get(&id)).and_then(|(ready, call)| ready.toolbox.compensation(call));
        match needed {
            Some(needed) => Ok(vec![self.add_call(run, id, Purpose::Compensation, needed)?]),
            None => {
                let text = "The call can't be undone: its contract names no tool for it any more.";
                Ok(vec![self.answered(run, id, Given::because(Reason::NoCompensation, text))?])
            }
        }
    }

    fn add_call(
        &mut self,
        run: &Run,
        serves: Id<id::Call>,
        purpose: Purpose,
        needed: tools::Needed,
    ) -> Result<Fact, Error> {
        let call = self.inner.id();
        let tools::Needed { tool, arguments } = needed;
        let (content, item) = self.sealer.seal(media::JSON, arguments.as_bytes())?;
        self.remember_added(run.id, call, tool.clone(), arguments);
        let event = Event::CallAdded(CallAdded { run: run.id, call, serves, purpose, tool, arguments: content });
        Ok(Fact { stamp: self.stamp(), event, contents: vec![item], may_linger: false })
    }

    fn answered(&mut self, run: &Run, call: Id<id::Call>, given: Given) -> Result<Fact, Error> {
        let state = run.calls.get(&call).map(|call| &call.state);
        let held = matches!(state, Some(CallState::Held(_) | CallState::Rejected { .. }));
        let given = Given { held, ..given };
        let (fact, content) = facts::returned(self.stamp(), &self.sealer, run.id, call, &given)?;
        self.memory.parts(&content, &given.parts);
        Ok(fact)
    }
}

fn unknown(ready: &Ready, tool: &str) -> Given {
    let rejection = ready.toolbox.unknown(tool);
    Given::told(CallStatus::Invalid, rejection.code, rejection.text)
}

/// A call of which somebody said that it took effect, and what it gave.
fn happened(run: &Run, call: Id<id::Call>, output: domain::ContentRef) -> Returned {
    Returned {
        run: run.id,
        call,
        status: CallStatus::Ok,
        output,
        whole: None,
        code: Some("call_resolved".into()),
        duration_ms: 0,
        changed_workspace: false,
        held: false,
    }
}

/// What an approval of a call is bound to: the tool, the arguments, the agent as it was pinned, and the workspace that its turn
/// began from.
pub(crate) fn binding(call: &Call, scope: &Scope, run: &Run) -> Digest {
    let checkpoint = run.turn_began_at.map_or([0; 16], |checkpoint| *checkpoint.as_bytes());
    Digest::of_parts(&[&call.digest().0, &scope.closure.0, &checkpoint])
}

/// What is asked for when a call is judged that somebody may have been shown before. Who was shown less has said nothing of what is
/// asked for now: more is bound to something else, so that an older vote is known for stale.
fn asked_again(call: &machine::Call, asked: Obligation) -> Obligation {
    let superseded = |shown: &Digest| Digest::of_parts(&[b"superseded", &shown.0]);
    let binding = match &call.state {
        CallState::Held(held) if asked.quorum > held.obligation.quorum => superseded(&held.obligation.binding),
        CallState::Held(held) => held.obligation.binding,
        _ if call.approvals > 0 => superseded(&asked.binding),
        _ => asked.binding,
    };
    Obligation { binding, ..asked }
}

fn denial(judgement: &domain::Judgement) -> String {
    let by = match judgement.policies.as_slice() {
        [] => "no policy permits it".to_owned(),
        policies => format!("decided by {}", policies.join(", ")),
    };
    format!("The policy does not allow this call ({}: {by}; pack {}).", judgement.reason, judgement.pack)
}

/// The key under which the other side knows a repetition of this call.
pub(crate) fn key_of(run: &Run, call: &Call, contract: &Contract) -> Option<String> {
    match (contract.idempotency, run.idempotency) {
        (Idempotency::None, _) => None,
        (Idempotency::Arguments, _) => Some(call.digest().to_string()),
        (Idempotency::Caller, Some(given)) => Some(Digest::of_parts(&[&given.0, &call.digest().0]).to_string()),
        // A caller without a key can't repeat the run either, so the call's own id is as good.
        (Idempotency::Call, _) | (Idempotency::Caller, None) => Some(call.id.to_string()),
    }
}

/// What a crash in the middle of a call allows.
pub(crate) fn after_crash(contract: &Contract) -> AfterCrash {
    if contract.repeat == Repeat::Safe || contract.idempotency != Idempotency::None {
        AfterCrash::Repeat
    } else if contract.in_doubt_after_crash() {
        AfterCrash::Resolve
    } else if contract.rollback == Rollback::Checkpoint {
        AfterCrash::RollBack
    } else {
        AfterCrash::Interrupted
    }
}
