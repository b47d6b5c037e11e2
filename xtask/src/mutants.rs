//! Proves that the simulation sees: takes one wall out of a scratch copy of the code that ships, and expects a seed to be red, and
//! red again when it is replayed. A wall whose text is not found exactly once is red, too: the proof must follow the code.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};

use crate::clock::Stopwatch;
use crate::context::Context;
use crate::report::{Finding, Outcome};
use crate::sim;

/// Seeds within which a missing wall must be seen.
const SEEDS_MAX: u64 = 2_000;

/// A wall, and the edit that takes it out.
struct Wall {
    name: &'static str,
    file: &'static str,
    stands: &'static str,
    gone: &'static str,
}

const WALLS: &[Wall] = &[
    Wall {
        name: "the fence: an append of a driver that was followed by another is refused",
        file: "crates/journal/src/link.rs",
        stands: "Fence::Effect { epoch, .. } if *epoch < head.epoch =>",
        gone: "Fence::Effect { epoch, .. } if *epoch < head.epoch && head.position == u64::MAX =>",
    },
    Wall {
        name: "the claim: it fences whoever held the session before it is told to hold",
        file: "crates/journal/src/claims.rs",
        stands: "        store.fence(key, epoch).await?;\n",
        gone: "        if epoch == u64::MAX {\n            store.fence(key, epoch).await?;\n        }\n",
    },
    Wall {
        name: "the intent: a call is on record before it is performed",
        file: "crates/engine/src/driver.rs",
        stands: "self.pending.iter().chain(&self.derived).for_each(|fact| fact.add_to(&mut append));",
        gone: "self.pending.iter().chain(&self.derived).filter(|fact| !matches!(fact.event, Event::Began(_)))
            .for_each(|fact| fact.add_to(&mut append));",
    },
    Wall {
        name: "the lease: a worker looks at it right before the deed",
        file: "crates/engine/src/perform.rs",
        stands: "if !inner.may_act() {",
        gone: "if inner.may_act() && !inner.may_act() {",
    },
];

/// Takes out one wall after the other.
pub(crate) fn prove(context: &Context) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let scratch = context.scratch("mutants")?;
    let lock = fs::File::create(scratch.join("lock"))?;
    lock.try_lock().context("another proof is running")?;
    for wall in WALLS {
        let watch = Stopwatch::start();
        let seen = without(context, wall, &scratch);
        match seen {
            Ok(seed) => {
                outcome.passed += 1;
                println!("   walls: seed {seed} is red without {}, {:.0} s", wall.name, watch.seconds());
                let told = format!("without {}: seed {seed} is red, and red again when replayed", wall.name);
                outcome = outcome.note(format!("{told} ({:.0} s)", watch.seconds()));
            }
            Err(error) => {
                println!("   walls: nothing is seen without {}, {:.0} s", wall.name, watch.seconds());
                outcome.failed += 1;
                outcome.findings.push(Finding::new(wall.file, format!("without {}: {error:#}", wall.name)));
            }
        }
    }
    Ok(outcome)
}

/// The first seed that is red without the wall.
fn without(context: &Context, wall: &Wall, scratch: &Path) -> Result<u64> {
    let tree = copy(context, scratch)?;
    let file = tree.join(wall.file);
    let text = fs::read_to_string(&file)?;
    let found = text.matches(wall.stands).count();
    ensure!(found == 1, "`{}` stands {found} times in {}, not once", wall.stands, wall.file);
    fs::write(&file, text.replace(wall.stands, wall.gone))?;
    let binary = sim::build(&tree, &scratch.join("target"))?;
    let said = sim::live(&binary, &(0..SEEDS_MAX))?;
    if said.status.success() {
        bail!("{SEEDS_MAX} seeds are green: the simulation does not see it");
    }
    let (seed, first) = red(&said.text).with_context(|| format!("no seed was told: {}", said.tail(5)))?;
    let again = sim::live(&binary, &(seed..seed + 1))?;
    ensure!(red(&again.text) == Some((seed, first)), "seed {seed} is red and its replay is not: {}", again.tail(5));
    Ok(seed)
}

/// The red seed that a program told of, and why.
fn red(text: &str) -> Option<(u64, &str)> {
    text.lines().find_map(|line| {
        let (seed, why) = line.strip_prefix("seed ")?.split_once(" is red: ")?;
        Some((seed.parse().ok()?, why))
    })
}

/// Copies the project's files; those that are as they were keep their times, so that nothing is built again for them.
fn copy(context: &Context, scratch: &Path) -> Result<PathBuf> {
    let tree = scratch.join("tree");
    for name in context.files()? {
        let (from, to) = (context.root.join(name), tree.join(name));
        let bytes = fs::read(&from).with_context(|| format!("cannot read {name}"))?;
        if fs::read(&to).is_ok_and(|there| there == bytes) {
            continue;
        }
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&to, bytes)?;
    }
    Ok(tree)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wall_stands_once() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for wall in WALLS {
            let text = fs::read_to_string(root.join(wall.file)).expect("the file is there");
            assert_eq!(text.matches(wall.stands).count(), 1, "{}", wall.name);
        }
    }

    #[test]
    fn the_red_seed_is_read() {
        let said = "      12 record\nseed 17 is red: a deed was done twice\nreplay it: cargo run\n";
        assert_eq!(red(said), Some((17, "a deed was done twice")));
        assert_eq!(red("2 seeds are green: 4 crashes"), None);
    }
}
