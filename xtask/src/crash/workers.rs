//! Two workers on one PostgreSQL: the one that drives is killed, or stands still between the record of a call's begin and its
//! deed until its lease is over and another has taken the run; then it goes on.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::judge::Case;
use super::lanes::Job;
use super::life::{Death, Life, Start, pause};
use super::points::id;
use super::project::LIGHT;
use super::{Kit, Stage, Told};
use crate::clock::Stopwatch;
use crate::postgres::Cluster;

/// Where the worker that drives is killed.
const DEATHS: [&str; 6] = [
    "reply.after_append:2",
    "began.after_append:3",
    "deed.before:4",
    "deed.after:3",
    "deed.after:4",
    "finished.after_append",
];
/// Where it stands still: before the deed of each tool with an effect outside.
const STANDS: [&str; 2] = ["began.after_append:3", "began.after_append:4"];
const RUN: &str = "r1";
const POLL: Duration = Duration::from_millis(2);
const STOP_SECONDS_MAX: f64 = 30.0;

const SERVE: [&str; 4] = ["serve", "--api-only", "--listen", "127.0.0.1:0"];
const WORK: [&str; 3] = ["worker", "--listen", "127.0.0.1:0"];

/// A job for each place where the worker that drives is killed or stopped, on a database of its own.
pub(super) fn jobs<'a>(kit: &'a Kit, cluster: &mut Cluster) -> Result<Vec<Job<'a>>> {
    let signals = DEATHS.map(|point| (point, "KILL")).into_iter().chain(STANDS.map(|point| (point, "STOP")));
    let jobs = signals.map(|(point, signal)| {
        let database = cluster.database()?;
        Ok(Job::new(format!("two workers, {signal} at {point}"), move || {
            let mut stage = Stage::set(kit)?;
            stage.place.variables.push(("DATABASE_URL".to_owned(), database));
            take_over(stage, point, signal)
        }))
    });
    jobs.collect()
}

/// One run: begun by a worker that is struck at a point, ended by another.
fn take_over(stage: Stage, point: &str, signal: &str) -> Result<Told> {
    let mut told = Told { runs: 1, ..Told::default() };
    let service = serving(stage.place.start_as(&SERVE, &[])?)?;
    let operator = stage.operator(&service);
    let mut first =
        serving(stage.place.start_as(&WORK, &[("TOPSIDE_POINT", point), ("TOPSIDE_POINT_SIGNAL", signal)])?)?;
    let answer = operator.submit(LIGHT, RUN).context("the service died by itself")?;
    let run_id = id(&answer.body).with_context(|| format!("the run was refused: {}", answer.body))?;
    let stopped = match signal {
        "KILL" => {
            ensure!(first.death()? == Death::Killed, "{point}: the worker was not killed there");
            told.kills += 1;
            None
        }
        _ => {
            until_stopped(&mut first)?;
            Some(first)
        }
    };
    let second = serving(stage.place.start_as(&WORK, &[])?)?;
    let case = operator.look_after(RUN, &run_id).context("the service died by itself")?;
    if let Some(late) = stopped {
        let before = stage.witness.deeds(RUN);
        late.go_on()?;
        // It is ended in an orderly way: whatever it still wants to do, it has done or given up then.
        late.stop()?;
        let after = stage.witness.deeds(RUN);
        if after != before {
            told.wrong.push(format!("{point}: a worker whose lease was over did a deed: {before:?}, then {after:?}"));
        }
        if operator.look_after(RUN, &run_id).as_ref() != Some(&case) {
            told.wrong.push(format!("{point}: a worker whose lease was over changed a run that had ended"));
        }
    }
    second.stop()?;
    service.stop()?;
    let wrong = stage.strike(&[Case { agent: LIGHT, run: RUN.to_owned(), told: case }])?;
    told.wrong.extend(wrong.into_iter().map(|problem| format!("two workers, {signal} at {point}: {problem}")));
    Ok(told)
}

fn serving(start: Start) -> Result<Life> {
    match start {
        Start::Serving(life) => Ok(life),
        Start::Died(death) => anyhow::bail!("a process ended before it served: {death:?}"),
    }
}

/// Waits until the process stands still.
fn until_stopped(life: &mut Life) -> Result<()> {
    let watch = Stopwatch::start();
    while watch.seconds() < STOP_SECONDS_MAX {
        if life.stands_still()? {
            return Ok(());
        }
        pause(POLL);
    }
    anyhow::bail!("the worker did not reach the point in {STOP_SECONDS_MAX} s")
}
