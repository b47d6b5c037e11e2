//! Kills at random instants while clients ask for runs. Each client asks again, under the same key, until it knows how its
//! run ended.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::judge::Case;
use super::lanes::{Job, LANES};
use super::operator::Operator;
use super::points::id;
use super::project::{Agent, LIGHT, WHOLE};
use super::{Kit, Stage, Told, has_sandbox};

const CLIENTS: u64 = 6;
/// Every so manieth run uses a sandbox.
const SANDBOX_EVERY: u64 = 4;
/// A stage of its own is worth so many kills.
const STAGE_KILLS_MIN: u64 = 3;
/// A life lasts at least and at most so long.
const LIFE_MS: std::ops::Range<u64> = 20..260;

/// Who serves now, and whether a further run is wanted.
#[derive(Debug, Default)]
struct Now {
    port: Option<u16>,
    /// Counts lives, so that a client sees that the one it asked is gone.
    life: u64,
    is_over: bool,
}

/// What clients and killer share.
#[derive(Debug, Default)]
struct Shared {
    now: Mutex<Now>,
    changed: Condvar,
}

impl Shared {
    fn change(&self, change: impl FnOnce(&mut Now)) {
        change(&mut self.now.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }

    fn is_over(&self) -> bool {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).is_over
    }

    /// The port of a life after this one, its number, and whether it is the last.
    fn next(&self, after: u64) -> (u16, u64, bool) {
        let now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        let is_old = |now: &mut Now| now.port.is_none() || now.life <= after;
        let now = self.changed.wait_while(now, is_old).unwrap_or_else(PoisonError::into_inner);
        (now.port.unwrap_or_default(), now.life, now.is_over)
    }
}

/// Jobs that kill so often in all, each service with clients and waits of its own.
pub(super) fn jobs(kit: &Kit, kills: u64, seed: u64) -> Result<Vec<Job<'_>>> {
    let stages = (kills / STAGE_KILLS_MIN).clamp(1, LANES as u64);
    let has_sandbox = kills > 0 && has_sandbox(&Stage::set(kit)?.place)?;
    let shares = (0..stages).map(|stage| (stage, kills / stages + u64::from(stage < kills % stages)));
    let jobs = shares.filter(|(_, kills)| *kills > 0).map(|(stage, kills)| {
        let seed = seed.wrapping_add(stage << 32);
        Job::new(format!("at random, stage {stage}"), move || kill_under_load(kit, kills, seed, has_sandbox))
    });
    Ok(jobs.collect())
}

/// Kills one service so often.
fn kill_under_load(kit: &Kit, kills: u64, seed: u64, has_sandbox: bool) -> Result<Told> {
    let stage = Stage::set(kit)?;
    let shared = Shared::default();
    let (done, cases) = std::thread::scope(|scope| {
        let ask = |client| {
            let (stage, shared) = (&stage, &shared);
            scope.spawn(move || ask(stage, client, has_sandbox, shared))
        };
        let clients: Vec<_> = (0..CLIENTS).map(ask).collect();
        let done = lives(&stage, kills, seed, &shared);
        // Whatever went wrong, the clients must end.
        let last = stage.place.serve();
        shared.change(|now| {
            now.is_over = true;
            now.life += 1;
            now.port = Some(last.as_ref().map_or(0, |life| life.port));
        });
        let cases: Vec<_> = clients.into_iter().map(|client| client.join()).collect();
        (done.and(last), cases)
    });
    done?.stop()?;
    let mut told = Told { kills, ..Told::default() };
    let mut all = Vec::new();
    for asked in cases {
        let (cases, wrong) = asked.map_err(|_| anyhow::anyhow!("a client panicked"))?;
        all.extend(cases);
        told.wrong.extend(wrong);
    }
    told.runs = all.len();
    told.notes.push(format!("at random: {kills} kills, {} runs", all.len()));
    told.wrong.extend(stage.strike(&all)?);
    Ok(told)
}

fn lives(stage: &Stage, kills: u64, seed: u64, shared: &Shared) -> Result<()> {
    let mut random = Random(seed);
    for kill in 0..kills {
        let life = stage.place.serve().with_context(|| format!("after {kill} kills"))?;
        shared.change(|now| {
            now.port = Some(life.port);
            now.life += 1;
        });
        let span = LIFE_MS.end - LIFE_MS.start;
        super::life::pause(Duration::from_millis(LIFE_MS.start + random.next() % span));
        shared.change(|now| now.port = None);
        life.kill()?;
    }
    Ok(())
}

/// One client: one run after the other, each asked for until its end is known.
fn ask(stage: &Stage, client: u64, has_sandbox: bool, shared: &Shared) -> (Vec<Case>, Vec<String>) {
    let (mut cases, mut wrong) = (Vec::new(), Vec::new());
    for number in 1.. {
        let agent: Agent = if has_sandbox && number % SANDBOX_EVERY == 0 { WHOLE } else { LIGHT };
        let run = format!("c{client}r{number}");
        match until_known(stage, agent, &run, shared) {
            Ok(told) => cases.push(Case { agent, run, told }),
            Err(problem) => wrong.push(format!("{run} ({}): {problem}", agent.name)),
        }
        if shared.is_over() || !wrong.is_empty() {
            break;
        }
    }
    (cases, wrong)
}

/// Asks until the run's end is known; a life that answers no more is followed by the next.
fn until_known(stage: &Stage, agent: Agent, run: &str, shared: &Shared) -> Result<Value, String> {
    let mut acknowledged: Option<String> = None;
    let mut gone = 0;
    loop {
        let (port, life, is_last) = shared.next(gone);
        gone = life;
        let operator = Operator { keys: &stage.keys, witness: &stage.witness, port };
        let died = || if is_last { Err("the last service died by itself".to_owned()) } else { Ok(()) };
        let Some(answer) = operator.submit(agent, run) else {
            died()?;
            continue;
        };
        let Some(id) = id(&answer.body) else { return Err(format!("was refused: {} {}", answer.status, answer.body)) };
        if acknowledged.as_ref().is_some_and(|before| *before != id) {
            return Err(format!("was acknowledged as {acknowledged:?} and then as {id}"));
        }
        acknowledged = Some(id.clone());
        match operator.look_after(run, &id) {
            Some(told) => return Ok(told),
            None => died()?,
        }
    }
}

/// A small generator: the same seed waits the same times.
#[derive(Debug)]
struct Random(u64);

impl Random {
    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
