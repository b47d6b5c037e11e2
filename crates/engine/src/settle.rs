//! What follows at once from what happened: checks, judgements, beginnings, answers, and ends that need no work.

use crate::driver::Driver;
use crate::facts::{self, Fact, Given, Reason};
use crate::ready::Ready;
use crate::{Error, finish};
use domain::contract::{Idempotency, Repeat};
use domain::record::{AfterCrash, Began, InDoubt, Judged};
use domain::{Call, CallStatus, Contract, Digest, Event, Id, Item, Usage, Verdict, id};
use machine::{Answer, Effect, Entry, Run};
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
                for fact in self.follow(effect)? {
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

    /// Brings in what the current run needs: its agent, and its calls when another process recorded them.
    async fn prepare(&mut self) -> Result<(), Error> {
        let Some(run) = &self.state.run else { return Ok(()) };
        let digest = run.closure;
        if self.ready.as_ref().is_none_or(|ready| ready.closure.digest() != digest) {
            match self.inner.pinned(digest).await {
                Ok(ready) => self.ready = Some(ready),
                Err(error) => {
                    let class = domain::FailureClass::Harness;
                    self.fail(domain::Failure::new(class, error.code(), error.to_string()));
                    return Ok(());
                }
            }
        }
        if run.calls.keys().all(|call| self.calls.contains_key(call)) {
            return Ok(());
        }
        let replies = self.state.history.iter().rev();
        let last = replies.filter(|entry| matches!(&***entry, Entry::Reply { .. })).map(Arc::clone).next();
        let Some(Entry::Reply { content, calls, run, .. }) = last.as_deref() else { return Ok(()) };
        let items = self.memory.items_of(&self.inner.parts.journal, &self.key, content).await?;
        for (call, index) in calls {
            if let Some(item) = items.get(*index as usize) {
                self.remember(*run, *call, item);
            }
        }
        Ok(())
    }

    /// Remembers a call of the current turn.
    pub(crate) fn remember(&mut self, run: Id<id::Run>, id: Id<id::Call>, item: &Item) {
        if let Item::Call { name, arguments, custom, .. } = item {
            let (session, tenant) = (self.key.session, self.key.tenant.to_string());
            let (tool, arguments, custom) = (name.clone(), arguments.clone(), *custom);
            self.calls.insert(id, Call { id, run, session, tenant, tool, arguments, custom });
        }
    }

    /// The facts that an effect comes to at once; none for an effect that takes time.
    fn follow(&mut self, effect: Effect) -> Result<Vec<Fact>, Error> {
        let Some((run, ready)) = self.state.run.clone().zip(self.ready.clone()) else {
            return self.follow_end(effect);
        };
        let event = match effect {
            Effect::Judge { call } => return self.judge(&run, &ready, call),
            Effect::Begin { call, attempt, key } => Event::Began(self.beginning(&run, &ready, call, attempt, key)),
            Effect::Abort { call } => {
                let given = self.abort(call);
                return Ok(vec![self.answered(&run, call, &given)?]);
            }
            Effect::Answer { call, answer } => {
                let given = self.answer(&ready, call, answer);
                return Ok(vec![self.answered(&run, call, &given)?]);
            }
            Effect::Doubt { call } => Event::InDoubt(InDoubt { run: run.id, call }),
            Effect::Finish { .. } => return self.follow_end(effect),
            Effect::Ask { .. } | Effect::Perform { .. } => return Ok(Vec::new()),
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

    fn judge(&mut self, run: &Run, ready: &Ready, id: Id<id::Call>) -> Result<Vec<Fact>, Error> {
        let Some(call) = self.calls.get(&id).cloned() else {
            let text = "The call can't be read any more, because its content was erased.";
            return Ok(vec![self.answered(run, id, &Given::because(Reason::Erased, text))?]);
        };
        if let Err(rejection) = ready.toolbox.check(&call) {
            let given = Given::told(CallStatus::Invalid, rejection.code, rejection.text);
            return Ok(vec![self.answered(run, id, &given)?]);
        }
        let Some(contract) = ready.toolbox.contract(&call.tool) else {
            let given = self.answer(ready, id, Answer::UnknownTool);
            return Ok(vec![self.answered(run, id, &given)?]);
        };
        let decision = self.decide(run, contract, &call);
        let judgement = decision.judgement().clone();
        let denied = judgement.verdict == Verdict::Deny;
        let told = denied.then(|| denial(&judgement));
        if let Decision::Allow(_, permit) = decision {
            self.permits.insert(id, permit);
        }
        let judged = Fact::bare(self.stamp(), Event::Judged(Judged { run: run.id, call: id, judgement }));
        let mut facts = vec![judged];
        if let Some(text) = told {
            // Told at once, so that the two are in one append.
            facts.push(self.answered(run, id, &Given::because(Reason::Denied, text))?);
        }
        Ok(facts)
    }

    /// Asks the policies in force now about a call.
    pub(crate) fn decide(&self, run: &Run, contract: &Contract, call: &Call) -> Decision {
        let pack = (self.inner.parts.catalog)().pack.clone();
        let in_turn = u32::try_from(run.calls.len()).unwrap_or(u32::MAX);
        let request = Request {
            call,
            agent: &run.agent,
            principal: run.principal,
            contract,
            turn: run.turn,
            tool_calls: run.tool_calls.saturating_sub(in_turn),
            epoch: self.epoch,
        };
        pack.decide(&request, self.inner.parts.clock.monotonic())
    }

    fn beginning(&self, run: &Run, ready: &Ready, id: Id<id::Call>, attempt: u32, key: Option<String>) -> Began {
        let call = self.calls.get(&id);
        let contract = call.and_then(|call| ready.toolbox.contract(&call.tool));
        let key = key.or_else(|| call.zip(contract).and_then(|(call, contract)| key_of(run, call, contract)));
        let after_crash = contract.map_or(AfterCrash::Interrupted, after_crash);
        Began { run: run.id, call: id, attempt, epoch: self.epoch, key, after_crash }
    }

    fn answer(&self, ready: &Ready, id: Id<id::Call>, answer: Answer) -> Given {
        match answer {
            Answer::UnknownTool => {
                let name = self.calls.get(&id).map_or("", |call| call.tool.as_str());
                let rejection = ready.toolbox.unknown(name);
                Given::told(CallStatus::Invalid, rejection.code, rejection.text)
            }
            Answer::Denied => Given::because(Reason::Denied, "The policy does not allow this call."),
            Answer::Interrupted => Given::because(
                Reason::Interrupted,
                "The harness was restarted while this call ran, and the call was ended. What it had changed in the workspace until then may be there. \
                 Look before you repeat it.",
            ),
        }
    }

    fn answered(&mut self, run: &Run, call: Id<id::Call>, given: &Given) -> Result<Fact, Error> {
        let (fact, content) = facts::returned(self.stamp(), &self.sealer, run.id, call, given)?;
        self.memory.parts(&content, &given.parts);
        Ok(fact)
    }
}

fn denial(judgement: &domain::Judgement) -> String {
    let by = match judgement.policies.as_slice() {
        [] => "no policy permits it".to_owned(),
        policies => format!("decided by {}", policies.join(", ")),
    };
    format!("The policy does not allow this call ({}: {by}; pack {}).", judgement.reason, judgement.pack)
}

/// The key under which the other side knows a repetition of this call.
fn key_of(run: &Run, call: &Call, contract: &Contract) -> Option<String> {
    match (contract.idempotency, run.idempotency) {
        (Idempotency::None, _) => None,
        (Idempotency::Arguments, _) => Some(call.digest().to_string()),
        (Idempotency::Caller, Some(given)) => Some(Digest::of_parts(&[&given.0, &call.digest().0]).to_string()),
        // A caller without a key can't repeat the run either, so the call's own id is as good.
        (Idempotency::Call, _) | (Idempotency::Caller, None) => Some(call.id.to_string()),
    }
}

/// What a crash in the middle of a call allows.
fn after_crash(contract: &Contract) -> AfterCrash {
    if contract.repeat == Repeat::Safe || contract.idempotency != Idempotency::None {
        AfterCrash::Repeat
    } else if contract.in_doubt_after_crash() {
        AfterCrash::Resolve
    } else {
        AfterCrash::Interrupted
    }
}
