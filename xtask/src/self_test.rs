//! `check --self-test`: proves that the check can fail. Each case breaks a scratch worktree of the last commit on purpose
//! and expects the step that should notice to go red, naming what was broken. The breaks themselves are in `cases`.

mod cases;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, anyhow, bail};

use crate::clock::Stopwatch;
use crate::context::{Context, Scope, git};
use crate::process;
use crate::report::{Tally, green, red};

use cases::{CASES, Case};

pub(crate) fn run(wanted: Option<&str>, binary: Option<PathBuf>) -> Result<bool> {
    let context = Context::here(true, Scope::Whole, binary)?;
    let cases: Vec<&Case> =
        CASES.iter().filter(|case| wanted.is_none_or(|wanted| case.name.contains(wanted))).collect();
    if cases.is_empty() {
        bail!(
            "there is no such case; hint: the cases are {}",
            CASES.iter().map(|case| case.name).collect::<Vec<_>>().join(", ")
        );
    }
    // Built from the real tree: the breaks touch what is run with it, never its code. A build that fails fails its cases.
    let binary = match cases.iter().any(|case| case.runs_product).then(|| context.binary()) {
        None => None,
        Some(Ok(binary)) => Some(binary),
        Some(Err(error)) => {
            println!("{} {error:#}", red("   ✗"));
            None
        }
    };
    let worktree = Worktree::of(&context)?;
    let mut tally = Tally::default();
    for case in cases {
        let stopwatch = Stopwatch::start();
        let result = if case.runs_product && binary.is_none() {
            Err(anyhow!("there is no product to run"))
        } else {
            prove(case, &worktree, &context.target, binary.as_deref())
        };
        worktree.restore()?;
        match result {
            Ok(()) => {
                tally.passed += 1;
                println!("   {} {} in {:.1} s", case.name, green("is noticed"), stopwatch.seconds());
            }
            Err(error) => {
                tally.failed += 1;
                println!("{} {}: {error:#}", red("   ✗"), case.name);
            }
        }
    }
    println!("{tally}");
    Ok(tally.failed == 0)
}

/// Breaks the tree and expects red that names the break, and that did not name it before.
fn prove(case: &Case, worktree: &Worktree, target: &Path, binary: Option<&Path>) -> Result<()> {
    let before = step(case, worktree, target, binary)?;
    let names = (case.apply)(&worktree.tree).context("the case cannot be set up")?;
    let after = step(case, worktree, target, binary)?;
    for name in &names {
        if before.text.contains(name.as_str()) {
            bail!("`{}` says `{name}` before anything was broken\n{}", case.step, before.tail(20));
        }
        if !after.text.contains(name.as_str()) {
            bail!("`{}` does not say `{name}`\n{}", case.step, after.tail(20));
        }
    }
    if after.status.success() {
        bail!("`{}` is green\n{}", case.step, after.tail(20));
    }
    Ok(())
}

/// Runs one step of this very program in the worktree. Objects are shared with the real tree, so that it is fast.
fn step(case: &Case, worktree: &Worktree, target: &Path, binary: Option<&Path>) -> Result<process::Captured> {
    let mut command = Command::new(std::env::current_exe().context("this program's own path is unknown")?);
    command.current_dir(&worktree.tree).env("CARGO_TARGET_DIR", target).args(["check", "--ci", "--only", case.step]);
    if let Some(binary) = binary {
        command.arg("--binary").arg(binary);
    }
    process::capture(&mut command)
}

/// A checkout of the last commit beside the real tree. It goes away when this is dropped.
#[derive(Debug)]
struct Worktree {
    root: PathBuf,
    tree: PathBuf,
    /// Held as long as the worktree is there, so that two self-tests do not undo each other.
    _lock: fs::File,
}

impl Worktree {
    fn of(context: &Context) -> Result<Self> {
        let directory = context.scratch("self-test")?;
        let lock = fs::File::create(directory.join("lock"))?;
        lock.try_lock().context("another self-test is running")?;
        let tree = directory.join("tree");
        // What a killed self-test left behind.
        remove(&context.root, &tree);
        let shown = tree.to_string_lossy();
        git(&context.root, &["worktree", "add", "--quiet", "--force", "--detach", &shown, "HEAD"])?;
        Ok(Self { root: context.root.clone(), tree, _lock: lock })
    }

    /// Takes back whatever a case did.
    fn restore(&self) -> Result<()> {
        git(&self.tree, &["checkout", "--quiet", "--force", "HEAD", "--", "."])?;
        git(&self.tree, &["clean", "-ffdxq"])?;
        Ok(())
    }
}

impl Drop for Worktree {
    fn drop(&mut self) {
        remove(&self.root, &self.tree);
    }
}

fn remove(root: &Path, tree: &Path) {
    if tree.exists() && git(root, &["worktree", "remove", "--force", &tree.to_string_lossy()]).is_err() {
        // Git no longer knows it; then it is only a folder.
        if let Err(error) = fs::remove_dir_all(tree) {
            eprintln!("{} cannot be removed: {error}", tree.display());
        }
    }
    if let Err(error) = git(root, &["worktree", "prune"]) {
        eprintln!("{error}");
    }
}
