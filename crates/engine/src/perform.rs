//! Performs a call that was judged and whose beginning is on record.

use crate::bench::CallBench;
use crate::driver::{Done, Driver};
use crate::facts::{Given, Reason};
use crate::live::LiveKind;
use crate::ready::Ready;
use crate::retry::breaker_open;
use domain::agent::Checkpoint;
use domain::contract::{Effect, Repeat};
use domain::record::Purpose;
use domain::{CallStatus, Id, Part, id};
use futures::future::BoxFuture;
use machine::Run;
use policy::{Decision, Permit};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A call that took longer is recorded at once, even when it is safe to repeat.
const QUICK_MS_MAX: u64 = 50;

impl Driver {
    /// A future that performs a call.
    pub(crate) fn perform(&mut self, id: Id<id::Call>) -> BoxFuture<'static, Done> {
        let never =
            |given| -> BoxFuture<'static, Done> { Box::pin(std::future::ready(Done::Performed { call: id, given })) };
        let erased = || never(Given::because(Reason::Erased, "The call can't be read any more."));
        let Some((run, state)) = self.base.run.as_ref().and_then(|run| Some((run, run.calls.get(&id)?))) else {
            return erased();
        };
        let (Some(ready), Some(scope), Some(call)) =
            (self.ready_of(state.scope), run.scopes.get(&state.scope), self.calls.get(&id))
        else {
            return erased();
        };
        let Some(contract) = ready.toolbox.contract(&call.tool) else {
            let rejection = ready.toolbox.unknown(&call.tool);
            return never(Given::told(CallStatus::Invalid, rejection.code, rejection.text));
        };
        let permit = self.permits.remove(&id).filter(|permit| permit.is_good_at(self.inner.parts.clock.monotonic()));
        let permit = match permit {
            Some(permit) => permit,
            // It took too long to get here: the call is judged again, by what is in force now.
            None => match self.decide(run, scope, state, contract, call) {
                Decision::Allow(_, permit) => permit,
                Decision::Deny(_) | Decision::Hold(..) => {
                    return never(Given::because(Reason::Denied, "The policy does not allow this call any more."));
                }
            },
        };
        let expected = self.expected(run, state);
        let bench = CallBench {
            inner: self.inner.clone(),
            key: self.key.clone(),
            run: run.id,
            call: id,
            slot: self.slot.clone(),
            pulse: self.pulse.clone(),
            project: (self.inner.parts.catalog)().root.clone(),
            idempotency_key: state.key.clone(),
            history: self.base.history.clone(),
            took_sandbox: AtomicBool::new(false),
            is_attached: self.attached.remove(&id),
        };
        let is_repeatable = contract.repeat == Repeat::Safe;
        let keeps = ready.closure.agent.sandbox.as_ref().is_some_and(|sandbox| sandbox.checkpoint == Checkpoint::Turn);
        let may_change = keeps && contract.effect != Effect::Read;
        let timeout_ms = contract.timeout_ms;
        let deed = Deed { permit, ready, bench, expected, is_repeatable, may_change, timeout_ms };
        Box::pin(async move { deed.perform().await })
    }

    /// What a call that tells of a precondition must give.
    fn expected(&self, run: &Run, state: &machine::Call) -> Option<tools::Expected> {
        let service = state.serves.as_ref().filter(|service| service.purpose == Purpose::Precondition)?;
        let served = run.calls.get(&service.call)?;
        let ready = self.ready_of(served.scope)?;
        ready.toolbox.expected(self.calls.get(&service.call)?, served.met as usize)
    }
}

/// A call that is about to be performed.
struct Deed {
    permit: Permit,
    ready: Arc<Ready>,
    bench: CallBench,
    /// What it must give, when it tells of a precondition.
    expected: Option<tools::Expected>,
    is_repeatable: bool,
    /// Whether it changes the workspace when it takes the sandbox.
    may_change: bool,
    /// What its contract allows it.
    timeout_ms: u64,
}

impl Deed {
    async fn perform(self) -> Done {
        let Self { permit, ready, bench, expected, is_repeatable, may_change, timeout_ms } = self;
        let CallBench { inner, key, run, call, .. } = &bench;
        let call = *call;
        let began = || {
            let (tool, arguments) = (permit.call().tool.clone(), permit.call().arguments.clone());
            LiveKind::Performing { call, tool, arguments }
        };
        inner.channels.tell(&key.tenant, key.session, *run, began);
        let part = format!("tool `{}`", permit.call().tool);
        let breaker = (inner.parts.catalog)().settings.breaker;
        let now_ms = || inner.parts.clock.wall_ms();
        if let Err(until_ms) = inner.breakers.admit(&part, now_ms(), breaker) {
            let wait_ms = until_ms.saturating_sub(now_ms());
            let text = format!("The tool has failed several times in a row and is left alone for {wait_ms} ms.");
            let given = Given::told(CallStatus::Error, "breaker_open", text);
            return Done::Performed { call, given: Given { passes: Some(breaker_open(&part)), ..given } };
        }
        // The last look before the deed: a process that was stopped and goes on late must not act on an old claim.
        if !inner.may_act() {
            return Done::LeaseLost;
        }
        stdx::points::reach("deed.before");
        let started = inner.parts.clock.monotonic();
        let within = bench.pulse.within(timeout_ms);
        let outcome = tools::execute(permit, &ready.toolbox, &bench).await;
        drop(within);
        let took = inner.parts.clock.monotonic().saturating_sub(started);
        stdx::points::reach("deed.after");
        // What the tool itself says no to tells nothing of the health of what it talks to.
        inner.breakers.heard(&part, !outcome.transient, now_ms(), breaker);
        let outcome = match &expected {
            Some(expected) => tools::expect(expected, outcome),
            None => outcome,
        };
        let given = given(&bench, outcome, took);
        let may_linger = is_repeatable && given.duration_ms <= QUICK_MS_MAX;
        let changed_workspace = may_change && bench.took_sandbox.load(Ordering::Relaxed);
        Done::Performed { call, given: Given { may_linger, changed_workspace, ..given } }
    }
}

/// What a call gave, without any leased secret, and with what the model has to know of the workspace.
fn given(bench: &CallBench, outcome: tools::Outcome, took: Duration) -> Given {
    let redactor = bench.inner.parts.secrets.redactor();
    let parts = outcome.parts.into_iter().map(|part| match part {
        Part::Text { text } => Part::Text { text: redactor.text(&text).into_owned() },
        image @ Part::Image { .. } => image,
    });
    let took_sandbox = bench.took_sandbox.load(Ordering::Relaxed);
    let note = took_sandbox.then(|| bench.slot.take_note()).flatten().map(Part::text);
    let parts = note.into_iter().chain(parts).collect();
    Given {
        whole: outcome.whole.map(|whole| redactor.bytes(&whole).into_owned()),
        duration_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        passes: outcome.failure.filter(|_| outcome.transient),
        ..Given::of(outcome.status, parts, outcome.code.map(str::to_owned))
    }
}
