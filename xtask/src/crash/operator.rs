//! Who asks for the killed runs and looks after them, as people would: asks again under the same key, approves of what is
//! held, and says of a call in doubt what the witness saw.

use std::time::Duration;

use serde_json::Value;

use super::life::pause;
use super::project::Agent;
use super::witness::Witness;
use crate::clock::Stopwatch;
use crate::keys::Keys;
use crate::server::{self, Answer};

/// Rare enough that the service has the processor for its runs.
const POLL: Duration = Duration::from_millis(10);
/// A run may take so long to come to rest.
const REST_SECONDS_MAX: f64 = 180.0;

/// Somebody who looks after runs of the service on a port.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operator<'a> {
    pub(crate) keys: &'a Keys,
    pub(crate) witness: &'a Witness,
    pub(crate) port: u16,
}

impl Operator<'_> {
    /// Asks for a run under a key of its own; nothing when the process died before it answered.
    pub(crate) fn submit(&self, agent: Agent, run: &str) -> Option<Answer> {
        let body = format!(r#"{{"session":"{run}","agent":"{}","message":"Go {run}"}}"#, agent.name);
        self.ask(&self.keys.asker, "POST", "/runs", &[("Idempotency-Key", run), ("Prefer", "respond-async")], &body)
    }

    /// Looks after a run until it rests, or has had its time; nothing when the process died.
    pub(crate) fn look_after(&self, run: &str, run_id: &str) -> Option<Value> {
        let watch = Stopwatch::start();
        loop {
            let told = self.told(&format!("/runs/{run_id}"))?;
            match told["status"].as_str()? {
                _ if watch.seconds() > REST_SECONDS_MAX => return Some(told),
                "queued" | "running" => {}
                "waiting" => self.approve(&told)?,
                "needs_resolution" => self.resolve(run, &told)?,
                _ => return Some(told),
            }
            pause(POLL);
        }
    }

    /// Approves of every call that is held.
    fn approve(&self, run: &Value) -> Option<()> {
        for call in run["approvals"].as_array().into_iter().flatten() {
            // A vote that came before, or for a call that waits no more, is refused; the next look tells.
            let path = format!("/approvals/{}", call.as_str()?);
            self.ask(&self.keys.approver, "POST", &path, &[], r#"{"vote":"approve"}"#)?;
        }
        Some(())
    }

    /// Says of the calls in doubt what the witness saw: only those of `send` can be.
    fn resolve(&self, name: &str, run: &Value) -> Option<()> {
        let happened = self.witness.deeds(name).iter().any(|deed| deed.tool == "send");
        for call in run["in_doubt"].as_array().into_iter().flatten() {
            let body = match happened {
                true => format!(r#"{{"call_id":{call},"outcome":"happened","output":"done"}}"#),
                false => format!(r#"{{"call_id":{call},"outcome":"did_not_happen"}}"#),
            };
            // One that was resolved before the process died is refused; the next look tells.
            let path = format!("/runs/{}/resolve", run["run_id"].as_str()?);
            self.ask(&self.keys.asker, "POST", &path, &[], &body)?;
        }
        Some(())
    }

    fn told(&self, path: &str) -> Option<Value> {
        serde_json::from_str(&self.ask(&self.keys.asker, "GET", path, &[], "")?.body).ok()
    }

    fn ask(&self, key: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Option<Answer> {
        let key = format!("Bearer {key}");
        let headers: Vec<_> = headers.iter().copied().chain([("Authorization", key.as_str())]).collect();
        server::send(self.port, method, path, &headers, body)
    }
}
