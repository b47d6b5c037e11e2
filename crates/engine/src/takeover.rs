//! Goes on in a sandbox that outlived the process that drove the session: with its programs, terminals and files as they are.

use crate::bench::Opened;
use crate::driver::{Done, Driver};
use crate::engine::Inner;
use crate::facts::Fact;
use domain::record::Resumed;
use domain::{Event, Id, id};
use journal::SessionKey;
use machine::Files;
use sandbox::Sandbox;
use std::sync::Arc;

/// A sandbox that was taken over.
struct Found {
    opened: Opened,
    sandbox: Arc<dyn Sandbox>,
    /// The calls under way whose programs are in it.
    attached: Vec<Id<id::Call>>,
}

impl Driver {
    /// Takes up a run that another driver left in its middle.
    pub(crate) async fn take_up(&mut self, run: Id<id::Run>) {
        let found = self.left_alive().await;
        let attached = found.as_ref().map(|found| found.attached.clone()).unwrap_or_default();
        self.attached.extend(&attached);
        let event = Event::Resumed(Resumed { run, epoch: self.epoch, attached });
        self.pending.push(Fact::bare(self.stamp(), event));
        if let Some(Found { opened, sandbox, .. }) = found {
            self.slot.take_over(sandbox);
            self.opened(Ok(opened));
        }
    }

    /// The session's sandbox, when it lives and can be had. When not, the next call that wants one gets one as ever.
    async fn left_alive(&mut self) -> Option<Found> {
        if !matches!(self.base.files, Files::Kept { .. }) || !is_left_alive(&self.inner, &self.key).await {
            return None;
        }
        if let Err(error) = self.prepare().await {
            tracing::warn!(session_id = %self.key.session, %error, "the run can't be read yet");
            return None;
        }
        let Done::Opened(Ok(opened)) = self.open().await else { return None };
        let sandbox = opened.sandbox();
        let kept = sandbox.commands().await.unwrap_or_default();
        let calls = self.base.run.as_ref().map(|run| &run.calls)?;
        let is_begun = |call: &Id<id::Call>| calls.get(call).is_some_and(machine::Call::is_begun);
        let attached: Vec<_> = tools::calls_in(&kept).into_iter().filter(is_begun).collect();
        if let Err(error) = self.slot.terminals().restore(sandbox.as_ref(), &attached).await {
            tracing::warn!(session_id = %self.key.session, code = error.code(), %error, "its terminals can't be held again");
        }
        Some(Found { opened, sandbox, attached })
    }
}

/// Whether a sandbox lives that has the session's workspace.
async fn is_left_alive(inner: &Inner, key: &SessionKey) -> bool {
    for provider in &inner.parts.providers {
        let living = provider.living().await.unwrap_or_default();
        let is_ours =
            |(tenant, session): &(String, Id<id::Session>)| **tenant == *key.tenant && *session == key.session;
        if living.iter().any(|living| living.workspace.as_ref().is_some_and(is_ours)) {
            return true;
        }
    }
    false
}
