//! `upgrade`: an earlier version of the real binary and the present one, on one PostgreSQL side by side and on one data directory
//! one after the other, there and back. What must hold of each run, `crash::judge` says, from outside.

mod build;
mod clients;
mod rolling;
mod taken_over;
mod unknown;

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::clock::Stopwatch;
use crate::context::{Context, Scope};
use crate::crash::life::Place;
use crate::crash::project;
use crate::crash::witness::Witness;
use crate::keys::Keys;
use crate::postgres::Cluster;
use crate::report::{Finding, Outcome};

/// The commits that an upgrade is tried from.
const FROM: &str = include_str!("upgrade/from.txt");

/// What `cargo xtask upgrade` is told.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// The commit whose binary is the old one, instead of those in xtask/src/upgrade/from.txt
    #[arg(long)]
    from: Option<String>,
    /// An old `topside` that was built already, instead of building one
    #[arg(long, conflicts_with = "from")]
    old: Option<PathBuf>,
    /// A present `topside` that was built already
    #[arg(long)]
    binary: Option<PathBuf>,
}

/// Two binaries, and who asks them.
#[derive(Debug)]
struct Kit {
    old: PathBuf,
    new: PathBuf,
    keys: Keys,
}

/// A project and a data directory, for both binaries.
#[derive(Debug)]
struct Stage {
    folder: tempfile::TempDir,
    witness: Witness,
    keys: Keys,
    old: Place,
    new: Place,
}

impl Stage {
    fn set(kit: &Kit) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let witness = Witness::open()?;
        let project = project::write(folder.path(), witness.port)?;
        let place = |binary: &PathBuf, log: &str| Place {
            binary: binary.clone(),
            project: project.clone(),
            data: folder.path().join("data"),
            log: folder.path().join(log),
            variables: Vec::new(),
        };
        let (old, new) = (place(&kit.old, "old.log"), place(&kit.new, "new.log"));
        kit.keys.declare(&new.data)?;
        if !build::knows(&kit.old, "worker")? {
            leave_out(&new)?;
        }
        Ok(Self { witness, keys: kit.keys.clone(), old, new, folder })
    }

    /// Keeps the journal in this database.
    fn share(&mut self, database: &str) {
        for place in [&mut self.old, &mut self.new] {
            place.variables.push(("DATABASE_URL".to_owned(), database.to_owned()));
        }
    }

    /// What is red stays, to be looked at.
    fn strike(self, mut wrong: Vec<String>) -> Vec<String> {
        if !wrong.is_empty() {
            wrong.push(format!("the project, its data and its logs are kept in {}", self.folder.keep().display()));
        }
        wrong
    }
}

/// What the first versions don't know, they refuse: it is left out for both.
fn leave_out(place: &Place) -> Result<()> {
    std::fs::write(place.project.join("topside.yaml"), "default_agent: light\n")?;
    let keys = place.data.join("keys.yaml");
    let text = std::fs::read_to_string(&keys)?;
    let asker: Vec<&str> = text.split_inclusive("- principal").take(2).collect();
    Ok(std::fs::write(&keys, asker.concat().trim_end_matches("- principal"))?)
}

/// What came of an upgrade.
#[derive(Debug, Default)]
struct Told {
    runs: usize,
    wrong: Vec<String>,
    notes: Vec<String>,
}

impl Told {
    fn add(&mut self, other: Self) {
        self.runs += other.runs;
        self.wrong.extend(other.wrong);
        self.notes.extend(other.notes);
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<bool> {
    let context = Context::here(false, Scope::Whole, arguments.binary.clone())?;
    let outcome = tried(&context, arguments)?;
    outcome.notes.iter().for_each(|note| println!("{note}"));
    outcome.findings.iter().for_each(|finding| println!("{finding}"));
    Ok(outcome.is_green())
}

/// The part of `proof`: from every commit that is named.
pub(crate) fn prove(context: &Context) -> Result<Outcome> {
    tried(context, &Arguments { from: None, old: None, binary: None })
}

fn tried(context: &Context, arguments: &Arguments) -> Result<Outcome> {
    let watch = Stopwatch::start();
    let new = build::present(context)?;
    let keys = Keys::make(&new)?;
    let olds = match (&arguments.old, &arguments.from) {
        (Some(old), _) => vec![("the given binary".to_owned(), std::path::absolute(old)?)],
        (None, Some(commit)) => vec![(commit.clone(), build::earlier(context, commit)?)],
        (None, None) => {
            let commits = FROM.lines().filter_map(|line| line.split_whitespace().next()).filter(|word| *word != "#");
            commits.map(|commit| Ok((commit.to_owned(), build::earlier(context, commit)?))).collect::<Result<_>>()?
        }
    };
    let mut told = Told::default();
    for (name, old) in olds {
        let kit = Kit { old, new: new.clone(), keys: keys.clone() };
        let came = from(&kit).with_context(|| format!("from {name}"))?;
        told.wrong.extend(came.wrong.into_iter().map(|problem| format!("from {name}: {problem}")));
        told.notes.extend(came.notes.into_iter().map(|note| format!("from {name}: {note}")));
        told.runs += came.runs;
    }
    let mut outcome = Outcome::of(told.wrong.into_iter().map(|problem| Finding::new("upgrade", problem)).collect());
    outcome.notes = told.notes;
    outcome.notes.push(format!("{} runs, {:.0} s", told.runs, watch.seconds()));
    Ok(outcome)
}

/// All that is tried from one old binary.
fn from(kit: &Kit) -> Result<Told> {
    let mut told = taken_over::one_after_the_other(kit)?;
    if !build::knows(&kit.old, "worker")? {
        told.notes.push("it knows no PostgreSQL: only its data directory is taken over".to_owned());
        return Ok(told);
    }
    let Some(mut cluster) = Cluster::start()? else {
        told.notes.push("SKIPPED two versions side by side: there is no PostgreSQL server".to_owned());
        return Ok(told);
    };
    told.add(rolling::side_by_side(kit, &mut cluster)?);
    told.add(unknown::left_alone(kit, &mut cluster)?);
    Ok(told)
}
