//! A kill at every listed point, each time that a run passes it, and one in the recovery from a kill.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};

use super::judge::Case;
use super::lanes::Job;
use super::life::{Death, Start};
use super::operator::Operator;
use super::project::{Agent, LIGHT, WHOLE};
use super::{Kit, Stage, Told, has_sandbox};

/// Times that one point is killed at, at most: a run passes some of them at each of its turns.
const TIMES_MAX: u64 = 8;
/// Where the first life ends when the point lies in the recovery from a crash.
const FIRST_DEATH: &str = "deed.before:2";
const RUN: &str = "r1";

/// Which points are killed at, and how often.
#[derive(Debug)]
pub(super) struct Plan {
    agent: Agent,
    /// Each point with the times that an undisturbed run passes it, and the times that it is killed at.
    points: Vec<(&'static str, u64, u64)>,
    /// What is left out, and why.
    pub(super) note: Option<String>,
}

/// Plans kills at each point, or at one: each time that a run passes it, as far as three quarters of `kills_max` go, and once
/// at least.
pub(super) fn plan(kit: &Kit, kills_max: u64, only: Option<&str>) -> Result<Plan> {
    let stage = Stage::set(kit)?;
    let agent = if has_sandbox(&stage.place)? { WHOLE } else { LIGHT };
    let note = (agent == LIGHT)
        .then(|| "SKIPPED sandbox points: this machine makes no sandboxes, see `topside doctor`".to_owned());
    let reached = undisturbed(stage, agent)?;
    let kills = |times_max: u64| reached.values().map(|times| *times.min(&times_max)).sum::<u64>();
    let shared_out = (2..=TIMES_MAX).take_while(|times| kills(*times) <= kills_max * 3 / 4).last().unwrap_or(1);
    let times_max = if only.is_some() { TIMES_MAX } else { shared_out };
    let points = stdx::points::ALL.iter().filter(|point| only.is_none_or(|only| only == **point));
    let points = points.map(|point| {
        let passed = reached.get(*point).copied().unwrap_or(0);
        (*point, passed, passed.clamp(1, times_max))
    });
    Ok(Plan { agent, points: points.collect(), note })
}

/// A job for each kill of the plan, named by its point.
pub(super) fn jobs<'a>(kit: &'a Kit, plan: &Plan) -> Vec<Job<'a>> {
    let (agent, mut jobs) = (plan.agent, Vec::new());
    for (point, passed, times) in &plan.points {
        for time in 1..=*times {
            let armed = format!("{point}:{time}");
            // A point that only a recovery passes is armed in the second life.
            let deaths = if *passed == 0 { vec![FIRST_DEATH.to_owned(), armed] } else { vec![armed] };
            jobs.push(Job::new(*point, move || {
                let told = die(Stage::set(kit)?, agent, &deaths);
                told.with_context(|| deaths.join(", "))
            }));
        }
    }
    jobs
}

/// The points at which nothing was killed.
pub(super) fn unreached(plan: &Plan, done: &[(String, Told)]) -> Vec<String> {
    let needed = plan.points.iter().filter(|(point, ..)| plan.agent == WHOLE || !is_of_sandbox(point));
    // A recovery is preceded by a kill of its own, elsewhere.
    let missing = needed.filter(|(point, passed, _)| {
        let kills = done.iter().filter(|(name, _)| name == point).map(|(_, told)| told.kills).sum::<u64>();
        kills <= u64::from(*passed == 0)
    });
    missing.map(|(point, ..)| format!("{point}: was not reached, so nobody knows what a death there does")).collect()
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
fn die(stage: Stage, agent: Agent, deaths: &[String]) -> Result<Told> {
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
