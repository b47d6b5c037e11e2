//! A kill at every listed point, each time that a run passes it, and one in the recovery from a kill.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};

use super::judge::Case;
use super::life::{Death, Start};
use super::operator::Operator;
use super::project::{Agent, LIGHT, WHOLE};
use super::{Kit, Stage, Told, has_sandbox};

/// Times that one point is killed at, at most: a run passes some of them at each of its turns.
const TIMES_MAX: u64 = 8;
/// Where the first life ends when the point lies in the recovery from a crash.
const FIRST_DEATH: &str = "deed.before:2";
const RUN: &str = "r1";

/// Kills at each point, or at one: each time that a run passes it, as far as three quarters of `kills_max` go, and once at
/// least.
pub(super) fn kill_at_each(kit: &Kit, kills_max: u64, only: Option<&str>) -> Result<Told> {
    let mut told = Told::default();
    let stage = Stage::set(kit)?;
    let agent = if has_sandbox(&stage.place)? { WHOLE } else { LIGHT };
    if agent == LIGHT {
        told.notes.push("SKIPPED sandbox points: this machine makes no sandboxes, see `topside doctor`".to_owned());
    }
    let reached = undisturbed(stage, agent)?;
    let kills = |times_max: u64| reached.values().map(|times| *times.min(&times_max)).sum::<u64>();
    let times_max = (2..=TIMES_MAX).take_while(|times| kills(*times) <= kills_max * 3 / 4).last().unwrap_or(1);
    for point in stdx::points::ALL.iter().filter(|point| only.is_none_or(|only| only == **point)) {
        let times = reached.get(*point).copied().unwrap_or(0);
        let kills_before = told.kills;
        for time in 1..=times.clamp(1, if only.is_some() { TIMES_MAX } else { times_max }) {
            let armed = format!("{point}:{time}");
            let deaths: &[&str] = if times == 0 { &[FIRST_DEATH, &armed] } else { &[&armed] };
            match die(Stage::set(kit)?, agent, deaths) {
                Ok(died) => told.add(died),
                Err(error) => told.wrong.push(format!("{armed}: {error:#}")),
            }
        }
        if told.kills == kills_before && (agent == WHOLE || !is_of_sandbox(point)) {
            told.wrong.push(format!("{point}: was not reached, so nobody knows what a death there does"));
        }
    }
    Ok(told)
}

fn is_of_sandbox(point: &str) -> bool {
    point.starts_with("sandbox.") || point.starts_with("checkpoint.")
}

/// How often a run that nothing disturbs passes each point.
fn undisturbed(stage: Stage, agent: Agent) -> Result<BTreeMap<String, u64>> {
    let log = stage.place.points_log()?;
    let start = stage.place.start(&[("TOPSIDE_POINTS_LOG", &log.to_string_lossy())])?;
    let Start::Serving(life) = start else { anyhow::bail!("the service did not start:\n{}", stage.place.said()) };
    let case = finish(&stage.operator(&life), agent)?;
    life.stop()?;
    let mut reached = BTreeMap::new();
    for point in std::fs::read_to_string(log)?.lines() {
        *reached.entry(point.to_owned()).or_default() += 1;
    }
    let wrong = stage.strike(&[case])?;
    ensure!(wrong.is_empty(), "a run that nothing disturbed is wrong: {}", wrong.join("\n"));
    Ok(reached)
}

/// Lives one life for each death, then one that nothing disturbs; judges the run.
fn die(stage: Stage, agent: Agent, deaths: &[&str]) -> Result<Told> {
    let mut told = Told { runs: 1, ..Told::default() };
    for (index, death) in deaths.iter().enumerate() {
        let died = match stage.place.start(&[("TOPSIDE_POINT", death)])? {
            Start::Died(death) => Some(death),
            Start::Serving(mut life) => {
                let operator = stage.operator(&life);
                let run_id = operator.submit(agent, RUN).and_then(|answer| id(&answer.body));
                let rested = run_id.and_then(|run_id| operator.look_after(RUN, &run_id));
                if rested.is_some() && life.lives()? {
                    life.stop()?;
                    None
                } else {
                    Some(life.death()?)
                }
            }
        };
        match died {
            Some(Death::Killed) => told.kills += 1,
            Some(Death::Otherwise) => told.wrong.push(format!("{death}: ended by itself:\n{}", stage.place.said())),
            // The first death of two is made at a point that has its own kills.
            None if index + 1 < deaths.len() => {}
            None => told.notes.push(format!("{death}: was not reached this time")),
        }
    }
    let life = stage.place.serve()?;
    let case = finish(&stage.operator(&life), agent)?;
    life.stop()?;
    let wrong = stage.strike(&[case])?;
    told.wrong.extend(wrong.into_iter().map(|problem| format!("{}: {problem}", deaths.join(", "))));
    Ok(told)
}

/// Asks for the run, again when it was asked for before, and waits until it rests.
fn finish(operator: &Operator<'_>, agent: Agent) -> Result<Case> {
    let answer = operator.submit(agent, RUN).context("the service died by itself")?;
    let run_id = id(&answer.body).with_context(|| format!("the run was refused: {}", answer.body))?;
    let told = operator.look_after(RUN, &run_id).context("the service died by itself")?;
    Ok(Case { agent, run: RUN.to_owned(), told })
}

/// The id of an acknowledged run.
pub(super) fn id(body: &str) -> Option<String> {
    let run: serde_json::Value = serde_json::from_str(body).ok()?;
    Some(run["run_id"].as_str()?.to_owned())
}
