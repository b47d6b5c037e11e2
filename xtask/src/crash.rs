//! `crash`: the real binary, killed with SIGKILL at every listed point around a step and then at random under load. A
//! witness in another process says what was done, and `judge` what must hold. A point that was never reached is red.

pub(crate) mod judge;
mod lanes;
pub(crate) mod life;
pub(crate) mod operator;
mod points;
pub(crate) mod project;
mod random;
pub(crate) mod witness;
mod workers;

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::clock::Stopwatch;
use crate::context::{AS_TESTED, Context, Scope, TOPSIDE_TEST};
use crate::keys::Keys;
use crate::postgres::Cluster;
use crate::process;
use crate::report::{Finding, Outcome};
use life::{Life, Place};
use operator::Operator;
use witness::Witness;

/// Kills when nobody says how many.
const KILLS: u64 = 50;
const SEED: u64 = 1;
/// What `--point` names besides points.
const WORKERS: &str = "workers";

/// What `cargo xtask crash` is told.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// Kills in all: each point first, the rest at random
    #[arg(long, default_value_t = KILLS)]
    kills: u64,
    /// Where the random waits begin
    #[arg(long, default_value_t = SEED)]
    seed: u64,
    /// Only this point, each time that it is reached; `workers` for the two on one database
    #[arg(long)]
    point: Option<String>,
    /// A `topside` that was built with the feature `points`, instead of building one
    #[arg(long)]
    binary: Option<PathBuf>,
}

/// What came of the kills.
#[derive(Debug, Default)]
struct Told {
    kills: u64,
    runs: usize,
    wrong: Vec<String>,
    notes: Vec<String>,
}

impl Told {
    fn add(&mut self, other: Self) {
        self.kills += other.kills;
        self.runs += other.runs;
        self.wrong.extend(other.wrong);
        self.notes.extend(other.notes);
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<bool> {
    let context = Context::here(false, Scope::Whole, None)?;
    let outcome = kill(&context, arguments)?;
    outcome.notes.iter().for_each(|note| println!("{note}"));
    outcome.findings.iter().for_each(|finding| println!("{finding}"));
    Ok(outcome.is_green())
}

/// The step of `check`.
pub(crate) fn check(context: &Context) -> Result<Outcome> {
    kill(context, &Arguments { kills: KILLS, seed: SEED, point: None, binary: None })
}

/// Kills so often; used by `proof`.
pub(crate) fn kills(context: &Context, kills: u64, seed: u64) -> Result<Outcome> {
    kill(context, &Arguments { kills, seed, point: None, binary: None })
}

fn kill(context: &Context, arguments: &Arguments) -> Result<Outcome> {
    let watch = Stopwatch::start();
    let binary = match &arguments.binary {
        Some(binary) => std::path::absolute(binary)?,
        None => build(context)?,
    };
    let kit = Kit { keys: Keys::make(&binary)?, binary };
    let only = arguments.point.as_deref();
    let mut told = Told::default();
    // A database for each of the two workers' stages; it outlives them all.
    let mut cluster = None;
    let mut jobs = Vec::new();
    if only.is_none_or(|only| only == WORKERS) {
        cluster = Cluster::start()?;
        match &mut cluster {
            Some(cluster) => jobs.extend(workers::jobs(&kit, cluster)?),
            None => told.notes.push("SKIPPED two workers: there is no PostgreSQL server".to_owned()),
        }
    }
    if only != Some(WORKERS) {
        let plan = points::plan(&kit, arguments.kills, only)?;
        told.notes.extend(plan.note.clone());
        jobs.extend(points::jobs(&kit, &plan));
        let done = lanes::side_by_side("points", jobs);
        told.wrong.extend(points::unreached(&plan, &done));
        done.into_iter().for_each(|(_, done)| told.add(done));
    } else {
        lanes::side_by_side(WORKERS, jobs).into_iter().for_each(|(_, done)| told.add(done));
    }
    drop(cluster);
    if only.is_none() {
        let left = arguments.kills.saturating_sub(told.kills);
        let at_random = lanes::side_by_side("at random", random::jobs(&kit, left, arguments.seed)?);
        at_random.into_iter().for_each(|(_, done)| told.add(done));
    }
    let findings = told.wrong.into_iter().map(|problem| Finding::new("crash", problem)).collect();
    let mut outcome = Outcome::of(findings);
    outcome.notes.push(format!(
        "{} kills, {} runs, {:.0} s, seed {}",
        told.kills,
        told.runs,
        watch.seconds(),
        arguments.seed
    ));
    outcome.notes.extend(told.notes);
    Ok(outcome)
}

/// The binary with its points, apart from the one that everything else uses.
fn build(context: &Context) -> Result<PathBuf> {
    let mut command = context.cargo(&AS_TESTED);
    let built = process::capture(command.args(["--test", TOPSIDE_TEST, "--features", "topside/points"]))?;
    ensure!(built.status.success(), "{command:?}: {}", built.tail(20));
    let binary = context.scratch("crash")?.join("topside");
    // A process may still run the old one, so it is replaced, not overwritten.
    let fresh = binary.with_extension("new");
    std::fs::copy(context.target.join("debug/topside"), &fresh)?;
    std::fs::rename(&fresh, &binary)?;
    Ok(binary)
}

/// What every stage is set with.
#[derive(Debug)]
struct Kit {
    binary: PathBuf,
    keys: Keys,
}

/// A project and a data directory of their own.
#[derive(Debug)]
struct Stage {
    folder: tempfile::TempDir,
    keys: Keys,
    witness: Witness,
    place: Place,
}

impl Stage {
    fn set(kit: &Kit) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let witness = Witness::open()?;
        let project = project::write(folder.path(), witness.port)?;
        let place = Place {
            binary: kit.binary.clone(),
            project,
            data: folder.path().join("data"),
            log: folder.path().join("serve.log"),
            variables: Vec::new(),
        };
        kit.keys.declare(&place.data)?;
        Ok(Self { folder, keys: kit.keys.clone(), witness, place })
    }

    /// Somebody who asks this life.
    fn operator(&self, life: &Life) -> Operator<'_> {
        Operator { keys: &self.keys, witness: &self.witness, port: life.port }
    }

    /// What is wrong with these runs. What is red stays, to be looked at.
    fn strike(self, cases: &[judge::Case]) -> Result<Vec<String>> {
        let mut wrong = judge::judge(&self.place, &self.witness, cases)?;
        if !wrong.is_empty() {
            wrong.push(format!("the project, its data and its log are kept in {}", self.folder.keep().display()));
        }
        Ok(wrong)
    }
}

/// Whether this machine makes sandboxes.
fn has_sandbox(place: &Place) -> Result<bool> {
    let mut doctor: Command = place.command(&["doctor"])?;
    Ok(doctor.stdout(std::process::Stdio::null()).status().context("doctor")?.success())
}
