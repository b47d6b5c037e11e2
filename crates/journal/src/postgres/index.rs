//! The index rows of an entry, folded: what several records of one entry do to one row is one change, since one statement
//! can touch a row only once.

use crate::Error;
use crate::error::ID_TAKEN;
use crate::index::{ArtifactChange, Change, Finish};
use crate::postgres::read::milliseconds;
use crate::postgres::statement::Parts;
use domain::{Cost, Id, Wait, id};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Changes to the index of one session.
#[derive(Debug, Default)]
pub(crate) struct Folded {
    session: Option<Session>,
    submitted: BTreeMap<Id<id::Run>, Map<String, Value>>,
    runs: BTreeMap<Id<id::Run>, Map<String, Value>>,
    artifacts: Vec<Value>,
    checkpoints: Vec<Value>,
    timers: BTreeMap<(Id<id::Run>, String), Option<u64>>,
    waiting: Waiting,
}

#[derive(Debug)]
struct Session {
    created_ms: u64,
    updated_ms: u64,
    runs: u64,
    last_run: Id<id::Run>,
    agent: String,
    principal: Id<id::Principal>,
}

impl Folded {
    /// Takes what a record changes.
    pub(crate) fn take(&mut self, position: u64, change: &Change) -> Result<(), Error> {
        match change {
            Change::Submitted { run, agent, principal, at_ms } => {
                self.submit(position, *run, agent, *principal, *at_ms)?;
            }
            Change::Forked { run, agent, principal, at_ms } => {
                self.session.get_or_insert_with(|| Session::new(*run, agent, *principal, *at_ms));
            }
            Change::Status { run, status, waits_for, waits_until_ms, at_ms } => {
                let row = self.row(*run);
                row.insert("status".to_owned(), status.name().into());
                row.insert("waits_for".to_owned(), waits_for.map(Wait::name).into());
                row.insert("waits_until_ms".to_owned(), waits_until_ms.map(milliseconds).into());
                row.insert("updated_ms".to_owned(), milliseconds(*at_ms).into());
            }
            Change::Finished(finish) => {
                self.finish(position, finish);
                self.waiting.end(finish.run);
            }
            Change::Artifact(kept) => self.artifacts.push(artifact(position, kept)?),
            Change::Checkpoint { checkpoint, object } => {
                self.checkpoints.push(json!({"position": position, "checkpoint": checkpoint, "object": object}));
            }
            Change::Due { run, kind, at_ms } => {
                self.timers.insert((*run, kind.clone()), Some(*at_ms));
            }
            Change::NotDue { run, kind } => {
                self.timers.insert((*run, kind.clone()), None);
            }
            Change::Held { call, run, expires_ms, at_ms } => self.waiting.hold(*call, *run, *at_ms, *expires_ms),
            Change::Unheld { call } => self.waiting.unhold(*call),
            Change::Announced { run, at_ms } => self.waiting.announce(position, *run, *at_ms),
            Change::Told { run, kind, at_ms } => self.waiting.tell(position, *run, kind, *at_ms),
        }
        Ok(())
    }

    fn submit(
        &mut self,
        position: u64,
        run: Id<id::Run>,
        agent: &str,
        principal: Id<id::Principal>,
        at_ms: u64,
    ) -> Result<(), Error> {
        let at = milliseconds(at_ms);
        let row = json!({
            "run": run, "agent": agent, "principal": principal, "status": "running", "created_ms": at,
            "updated_ms": at, "submitted_position": position,
        });
        let Value::Object(row) = row else {
            return Err(Error::Invalid { reason: "an index row that is none" });
        };
        if self.submitted.insert(run, row).is_some() {
            return Err(ID_TAKEN);
        }
        let session = self.session.get_or_insert_with(|| Session::new(run, agent, principal, at_ms));
        session.updated_ms = at_ms;
        session.runs += 1;
        session.last_run = run;
        agent.clone_into(&mut session.agent);
        Ok(())
    }

    /// The row of a run: the one that this entry adds, or a change to one that is there.
    fn row(&mut self, run: Id<id::Run>) -> &mut Map<String, Value> {
        if let Some(row) = self.submitted.get_mut(&run) {
            return row;
        }
        self.runs.entry(run).or_insert_with(|| Map::from_iter([("run".to_owned(), run.to_string().into())]))
    }

    fn finish(&mut self, position: u64, finish: &Finish) {
        let Finish { run, status, at_ms, turns, tool_calls, usage, cost, used_sandbox } = *finish;
        let (micro_usd, listed) = match cost {
            Cost::Priced { micro_usd } => (micro_usd, true),
            Cost::Unlisted { micro_usd } => (micro_usd, false),
        };
        let row = self.row(run);
        for (name, value) in [
            ("status", Value::from(status.name())),
            ("updated_ms", milliseconds(at_ms).into()),
            ("finished_ms", milliseconds(at_ms).into()),
            ("finished_position", position.into()),
            ("turns", turns.into()),
            ("tool_calls", tool_calls.into()),
            ("model_calls", milliseconds(usage.model_calls).into()),
            ("input_tokens", milliseconds(usage.input_tokens).into()),
            ("cached_tokens", milliseconds(usage.cached_tokens).into()),
            ("output_tokens", milliseconds(usage.output_tokens).into()),
            ("reasoning_tokens", milliseconds(usage.reasoning_tokens).into()),
            ("cost_micro_usd", milliseconds(micro_usd).into()),
            ("cost_listed", listed.into()),
            ("used_sandbox", used_sandbox.into()),
            ("waits_for", Value::Null),
            ("waits_until_ms", Value::Null),
        ] {
            row.insert(name.to_owned(), value);
        }
    }

    /// Which parts of a statement the rows need.
    pub(crate) fn parts(&self) -> Parts {
        let mut parts = Parts::default();
        for (wanted, part) in [
            (!self.submitted.is_empty() || self.session.is_some(), Parts::SUBMITTED),
            (!self.runs.is_empty(), Parts::RUNS),
            (!self.artifacts.is_empty() || !self.checkpoints.is_empty(), Parts::KEPT),
            (!self.timers.is_empty(), Parts::TIMERS),
            (self.waiting.holds(), Parts::HELD),
            (self.waiting.tells(), Parts::TOLD),
        ] {
            if wanted {
                parts = parts.with(part);
            }
        }
        parts
    }

    /// The rows as the statement takes them; `None` when there are none.
    pub(crate) fn json(&self) -> Option<String> {
        if self.parts() == Parts::default() {
            return None;
        }
        let session = self.session.as_ref().map(|session| {
            json!({
                "created_ms": milliseconds(session.created_ms), "updated_ms": milliseconds(session.updated_ms),
                "runs": session.runs, "last_run": session.last_run, "agent": session.agent,
                "principal": session.principal,
            })
        });
        let timer = |((run, kind), at_ms): (&(Id<id::Run>, String), &Option<u64>)| match at_ms {
            Some(at_ms) => json!({"run": run, "kind": kind, "at_ms": milliseconds(*at_ms)}),
            None => json!({"run": run, "kind": kind}),
        };
        let (due, over): (Vec<_>, Vec<_>) = self.timers.iter().partition(|(_, at_ms)| at_ms.is_some());
        let mut rows = json!({
            "sessions": session.into_iter().collect::<Vec<_>>(),
            "submitted": self.submitted.values().collect::<Vec<_>>(),
            "runs": self.runs.values().collect::<Vec<_>>(),
            "artifacts": self.artifacts,
            "checkpoints": self.checkpoints,
            "due": due.into_iter().map(timer).collect::<Vec<_>>(),
            "over": over.into_iter().map(timer).collect::<Vec<_>>(),
        });
        self.waiting.add_to(&mut rows);
        Some(rows.to_string())
    }
}

impl Session {
    /// One that has had no run yet.
    fn new(last_run: Id<id::Run>, agent: &str, principal: Id<id::Principal>, at_ms: u64) -> Self {
        Self { created_ms: at_ms, updated_ms: at_ms, runs: 0, last_run, agent: agent.to_owned(), principal }
    }
}

/// What waits for somebody outside.
#[derive(Debug, Default)]
struct Waiting {
    /// Calls that are held, and whether they still are at the entry's end.
    held: BTreeMap<Id<id::Call>, (Id<id::Run>, Value, bool)>,
    unheld: Vec<Id<id::Call>>,
    /// Runs that ended.
    ended: Vec<Id<id::Run>>,
    announced: Vec<Id<id::Run>>,
    told: Vec<Value>,
}

impl Waiting {
    fn hold(&mut self, call: Id<id::Call>, run: Id<id::Run>, since_ms: u64, expires_ms: u64) {
        self.unheld.retain(|there| *there != call);
        let since = self.held.get(&call).map_or(milliseconds(since_ms).into(), |(_, row, _)| row["since_ms"].clone());
        let row = json!({"call": call, "run": run, "since_ms": since, "expires_ms": milliseconds(expires_ms)});
        self.held.insert(call, (run, row, true));
    }

    fn unhold(&mut self, call: Id<id::Call>) {
        match self.held.get_mut(&call) {
            Some((_, _, is_open)) => *is_open = false,
            None => self.unheld.push(call),
        }
    }

    fn end(&mut self, run: Id<id::Run>) {
        self.held.values_mut().filter(|(of, ..)| *of == run).for_each(|(_, _, is_open)| *is_open = false);
        self.ended.push(run);
    }

    fn announce(&mut self, position: u64, run: Id<id::Run>, at_ms: u64) {
        self.announced.push(run);
        self.tell(position, run, "submitted", at_ms);
    }

    fn tell(&mut self, position: u64, run: Id<id::Run>, kind: &str, at_ms: u64) {
        // A statement does not see the rows that it adds itself.
        let is_announced = self.announced.contains(&run);
        let at = milliseconds(at_ms);
        let row = json!({"position": position, "run": run, "kind": kind, "at_ms": at, "announced": is_announced});
        self.told.push(row);
    }

    fn holds(&self) -> bool {
        !(self.held.is_empty() && self.unheld.is_empty() && self.ended.is_empty())
    }

    const fn tells(&self) -> bool {
        !self.told.is_empty()
    }

    fn add_to(&self, rows: &mut Value) {
        if self.holds() {
            let held = self.held.values().map(|(_, row, is_open)| {
                let mut row = row.clone();
                row["is_open"] = (*is_open).into();
                row
            });
            rows["held"] = held.collect();
            rows["unheld"] = json!(self.unheld);
            rows["ended"] = json!(self.ended);
        }
        if self.tells() {
            rows["announced"] = json!(self.announced);
            rows["told"] = self.told.as_slice().into();
        }
    }
}

fn artifact(position: u64, kept: &ArtifactChange) -> Result<Value, Error> {
    let ArtifactChange { artifact, run, name, media, bytes, object, at_ms } = kept;
    // As text: it is read back as it was written.
    let name = serde_json::to_string(name).map_err(|_| Error::Invalid { reason: "an artifact's name" })?;
    Ok(json!({
        "artifact": artifact, "run": run, "position": position, "name": name, "media": media,
        "bytes": milliseconds(*bytes), "object": object, "created_ms": milliseconds(*at_ms),
    }))
}
