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

const POLL: Duration = Duration::from_millis(2);
/// A run may take so long to come to rest.
const REST_SECONDS_MAX: f64 = 180.0;

/// Somebody who looks after runs of the service on a port.
#[derive(Clone, Copy, Debug)]
pub(super) struct Operator<'a> {
    pub(super) keys: &'a Keys,
    pub(super) witness: &'a Witness,
    pub(super) port: u16,
}

impl Operator<'_> {
    /// Asks for a run under a key of its own; nothing when the process died before it answered.
    pub(super) fn submit(&self, agent: Agent, run: &str) -> Option<Answer> {
        let body = format!(r#"{{"session":"{run}","agent":"{}","message":"Go {run}"}}"#, agent.name);
        self.ask(&self.keys.asker, "POST", "/runs", &[("Idempotency-Key", run), ("Prefer", "respond-async")], &body)
    }

    /// Looks after a run until it rests, or has had its time; nothing when the process died.
    pub(super) fn look_after(&self, run: &str, run_id: &str) -> Option<Value> {
        let watch = Stopwatch::start();
        loop {
            let told = self.told(&format!("/runs/{run_id}"))?;
            match told["status"].as_str()? {
                _ if watch.seconds() > REST_SECONDS_MAX => return Some(told),
                "queued" | "running" => {}
                "waiting" => self.approve(run_id)?,
                "needs_resolution" => self.resolve(run, run_id)?,
                _ => return Some(told),
            }
            pause(POLL);
        }
    }

    /// Approves of every call of the run that is held.
    fn approve(&self, run_id: &str) -> Option<()> {
        let list = self.told("/approvals")?;
        for approval in list["approvals"].as_array().into_iter().flatten().filter(|held| held["run_id"] == run_id) {
            let path = format!("/approvals/{}", approval["call_id"].as_str()?);
            // A vote that came before, or for a call that waits no more, is refused; the next look tells.
            self.ask(&self.keys.approver, "POST", &path, &[], r#"{"vote":"approve"}"#)?;
        }
        Some(())
    }

    /// Says of the call in doubt what the witness saw of it: only calls of `send` can be.
    fn resolve(&self, run: &str, run_id: &str) -> Option<()> {
        let page = self.told(&format!("/runs/{run_id}/events"))?;
        let doubt = page["records"].as_array()?.iter().rev().find(|record| record["kind"] == "in_doubt")?;
        let call = doubt["call"].as_str().or_else(|| doubt["body"]["call"].as_str())?;
        let happened = self.witness.deeds(run).iter().any(|deed| deed.tool == "send");
        let body = match happened {
            true => format!(r#"{{"call_id":"{call}","outcome":"happened","output":"done"}}"#),
            false => format!(r#"{{"call_id":"{call}","outcome":"did_not_happen"}}"#),
        };
        // One that was resolved before the process died is refused; the next look tells.
        self.ask(&self.keys.asker, "POST", &format!("/runs/{run_id}/resolve"), &[], &body).map(|_| ())
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
