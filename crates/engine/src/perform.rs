//! Performs a call that was judged and whose beginning is on record.

use crate::bench::CallBench;
use crate::driver::{Done, Driver};
use crate::facts::{Given, Reason};
use crate::live::LiveKind;
use domain::contract::Repeat;
use domain::{CallStatus, Id, Part, id};
use futures::future::BoxFuture;
use machine::CallState;
use policy::Decision;

/// A call that took longer is recorded at once, even when it is safe to repeat.
const QUICK_MS_MAX: u64 = 50;

impl Driver {
    /// A future that performs a call.
    pub(crate) fn perform(&mut self, id: Id<id::Call>) -> BoxFuture<'static, Done> {
        let never =
            |given| -> BoxFuture<'static, Done> { Box::pin(std::future::ready(Done::Performed { call: id, given })) };
        let (Some(ready), Some(run), Some(call)) = (self.ready.clone(), self.base.run.as_ref(), self.calls.get(&id))
        else {
            return never(Given::because(Reason::Erased, "The call can't be read any more."));
        };
        let Some(contract) = ready.toolbox.contract(&call.tool) else {
            let rejection = ready.toolbox.unknown(&call.tool);
            return never(Given::told(CallStatus::Invalid, rejection.code, rejection.text));
        };
        let permit = self.permits.remove(&id).filter(|permit| permit.is_good_at(self.inner.parts.clock.monotonic()));
        let permit = match permit {
            Some(permit) => permit,
            // It took too long to get here: the call is judged again, by what is in force now.
            None => match self.decide(run, contract, call) {
                Decision::Allow(_, permit) => permit,
                Decision::Deny(_) => {
                    return never(Given::because(Reason::Denied, "The policy does not allow this call any more."));
                }
            },
        };
        let idempotency_key = match run.calls.get(&id) {
            Some(CallState::Began { key, .. }) => key.clone(),
            _ => None,
        };
        let bench = CallBench {
            inner: self.inner.clone(),
            key: self.key.clone(),
            run: run.id,
            call: id,
            slot: self.slot.clone(),
            project: (self.inner.parts.catalog)().root.clone(),
            idempotency_key,
            history: self.base.history.clone(),
        };
        let repeatable = contract.repeat == Repeat::Safe;
        let (tool, arguments) = (call.tool.clone(), call.arguments.clone());
        Box::pin(async move {
            let CallBench { inner, key, run, .. } = &bench;
            let began = || LiveKind::Performing { call: id, tool, arguments };
            inner.channels.tell(&key.tenant, key.session, *run, began);
            let started = inner.parts.clock.monotonic();
            let outcome = tools::execute(permit, &ready.toolbox, &bench).await;
            let took = inner.parts.clock.monotonic().saturating_sub(started);
            let duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
            let redactor = inner.parts.secrets.redactor();
            let parts = outcome.parts.into_iter().map(|part| match part {
                Part::Text { text } => Part::Text { text: redactor.text(&text).into_owned() },
                image @ Part::Image { .. } => image,
            });
            let given = Given {
                status: outcome.status,
                parts: parts.collect(),
                whole: outcome.whole.map(|whole| redactor.bytes(&whole).into_owned()),
                code: outcome.code.map(str::to_owned),
                duration_ms,
                may_linger: repeatable && duration_ms <= QUICK_MS_MAX,
            };
            Done::Performed { call: id, given }
        })
    }
}
