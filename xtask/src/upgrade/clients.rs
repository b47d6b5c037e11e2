//! Clients that ask for runs at whichever process serves, and again at another one when it goes away. What must come of a run is
//! not theirs to say.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use serde_json::Value;

use super::Stage;
use crate::clock::Stopwatch;
use crate::crash::judge::Case;
use crate::crash::life::pause;
use crate::crash::operator::Operator;
use crate::crash::project::{Agent, HELD};
use crate::server::{self, Answer};

const CLIENTS: usize = 3;
const POLL: Duration = Duration::from_millis(20);
/// A run's end must be known by then.
const KNOWN_SECONDS_MAX: f64 = 120.0;

/// The ports of those that serve now.
#[derive(Debug, Default)]
pub(super) struct Doors(Mutex<Vec<u16>>);

impl Doors {
    pub(super) fn set(&self, ports: &[u16]) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = ports.to_vec();
    }

    /// One of them: each in its turn.
    fn pick(&self, turn: usize) -> Option<u16> {
        let ports = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ports.get(turn % ports.len().max(1)).copied()
    }
}

/// A run that waits for approval.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) run: String,
    pub(super) id: String,
    call: String,
}

/// Does something while clients ask for runs of these agents; gives what it gave, and the runs, each at its end.
pub(super) fn under_load<T>(
    stage: &Stage,
    name: &str,
    agents: &[Agent],
    doors: &Doors,
    during: impl FnOnce() -> Result<T>,
) -> Result<(T, Vec<Case>)> {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let client = |number: usize| {
            let over = &over;
            scope.spawn(move || {
                let mut cases = Vec::new();
                for turn in 0.. {
                    let agent = agents[turn % agents.len()];
                    let run = format!("{name}{number}n{turn}");
                    let told = until_known(stage, agent, &run, doors).with_context(|| run.clone())?;
                    cases.push(Case { agent, run, told });
                    if over.load(Ordering::Relaxed) {
                        break;
                    }
                }
                anyhow::Ok(cases)
            })
        };
        let clients: Vec<_> = (0..CLIENTS).map(client).collect();
        let done = during();
        over.store(true, Ordering::Relaxed);
        let mut cases = Vec::new();
        for client in clients {
            cases.extend(client.join().map_err(|_| anyhow!("a client panicked"))??);
        }
        Ok((done?, cases))
    })
}

/// Asks until the run's end is known: for it at one process, after it at another, again at the next when one is gone.
fn until_known(stage: &Stage, agent: Agent, run: &str, doors: &Doors) -> Result<Value> {
    let watch = Stopwatch::start();
    let mut acknowledged: Option<String> = None;
    let mut last = String::new();
    for turn in 0.. {
        ensure!(
            watch.seconds() < KNOWN_SECONDS_MAX,
            "nobody knows what became of it, acknowledged as {acknowledged:?}, last answered {last}\nold: {}\nnew: {}",
            stage.old.said(),
            stage.new.said()
        );
        let (Some(first), Some(second)) = (doors.pick(turn), doors.pick(turn + 1)) else {
            pause(POLL);
            continue;
        };
        // Refused by one that ends or is just being replaced: asked again elsewhere.
        let answer = operator(stage, first).submit(agent, run);
        last = format!("{answer:?}");
        let Some(answer) = answer.filter(|answer| answer.status < 500) else {
            pause(POLL);
            continue;
        };
        let id = id(&answer).with_context(|| format!("refused: {} {}", answer.status, answer.body))?;
        let before = acknowledged.get_or_insert_with(|| id.clone());
        ensure!(*before == id, "acknowledged as {before} and then as {id}");
        if let Some(told) = operator(stage, second).look_after(run, &id) {
            return Ok(told);
        }
        pause(POLL);
    }
    bail!("nobody asked")
}

/// Asks a process for runs and waits until each waits for approval.
pub(super) fn hold(stage: &Stage, port: u16, name: &str, count: usize) -> Result<Vec<Held>> {
    let held = |at: usize| {
        let run = format!("{name}{at}");
        let answer = operator(stage, port).submit(HELD, &run).context("it died by itself")?;
        let id = id(&answer).with_context(|| format!("refused: {}", answer.body))?;
        let watch = Stopwatch::start();
        loop {
            let told = told(stage, port, &id)?;
            if let (Some("waiting"), Some(call)) = (told["status"].as_str(), told["approvals"][0].as_str()) {
                return Ok(Held { run, id, call: call.to_owned() });
            }
            ensure!(watch.seconds() < KNOWN_SECONDS_MAX, "{run} was never held: {told}");
            pause(POLL);
        }
    };
    (0..count).map(held).collect()
}

/// Approves of what is held, through this process.
pub(super) fn approve(stage: &Stage, port: u16, held: &Held) -> Result<Answer> {
    let key = format!("Bearer {}", stage.keys.approver);
    let path = format!("/approvals/{}", held.call);
    let answer = server::send(port, "POST", &path, &[("Authorization", &key)], r#"{"vote":"approve"}"#);
    answer.context("it died by itself")
}

/// Approves of what is held and looks after it, through this process; nothing when it is refused with one of these codes.
pub(super) fn finish(stage: &Stage, port: u16, held: Held, refusals: &[&str]) -> Result<Result<Case, (Held, String)>> {
    let answer = approve(stage, port, &held)?;
    if let Some(code) = refusals.iter().find(|code| answer.body.contains(&format!("\"{code}\""))) {
        return Ok(Err((held, (*code).to_owned())));
    }
    ensure!(answer.status == 200, "the vote for {} was refused: {}", held.run, answer.body);
    let told = operator(stage, port).look_after(&held.run, &held.id).context("it died by itself")?;
    Ok(Ok(Case { agent: HELD, run: held.run, told }))
}

pub(super) fn operator(stage: &Stage, port: u16) -> Operator<'_> {
    Operator { keys: &stage.keys, witness: &stage.witness, port }
}

/// Asks on behalf of the one who asks for runs.
pub(super) fn ask(stage: &Stage, port: u16, method: &str, path: &str, body: &str) -> Result<Answer> {
    let key = format!("Bearer {}", stage.keys.asker);
    server::send(port, method, path, &[("Authorization", &key)], body).context("it died by itself")
}

fn told(stage: &Stage, port: u16, id: &str) -> Result<Value> {
    Ok(serde_json::from_str(&ask(stage, port, "GET", &format!("/runs/{id}"), "")?.body)?)
}

fn id(answer: &Answer) -> Option<String> {
    Some(serde_json::from_str::<Value>(&answer.body).ok()?["run_id"].as_str()?.to_owned())
}
