//! What the start of a sandbox costs, beside `bwrap` and the floor in C.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::Arguments;
use super::figures::{Figure, Page};
use crate::process;

const ROUNDS: &str = "60";

pub(crate) fn measure(built: &Path, arguments: &Arguments, page: &mut Page) -> Result<()> {
    let (mut start, mut command, mut bwrap, mut floor) =
        (Figure::default(), Figure::default(), Figure::default(), Figure::default());
    let folder = tempfile::tempdir()?;
    let floor_program = arguments.peers.as_deref().map(|peers| compile(peers, folder.path())).transpose()?;
    for _ in 0..arguments.pairs {
        let mut bench = Command::new(built.join("examples/start_bench"));
        let told = process::capture(bench.arg(ROUNDS))?;
        ensure!(told.status.success(), "start_bench: {}", told.tail(5));
        let text = told.tail(20);
        start.add(median_of(&text, "create").context("no figure for the start")?);
        command.add(median_of(&text, "one more command").context("no figure for a command")?);
        if let Some(ms) = median_of(&text, "bwrap") {
            bwrap.add(ms);
        }
        if let Some(program) = &floor_program {
            let told = process::capture(Command::new(program).arg(folder.path().join("floor.d")))?;
            floor.add(median_of(&told.tail(20), "full setup userns +netns overlay +cgroup2 -> exec").context("floor")?);
        }
    }
    page.beside("sandbox: create → first output, ms", &start, "bwrap --unshare-all", &bwrap);
    match floor_program {
        Some(_) => page.beside("sandbox: create → first output, ms", &start, "the floor in C, to the exec", &floor),
        None => page.skipped("the floor in C", "no --peers folder was given"),
    }
    page.alone("sandbox: one more command → first output, ms", &command);
    Ok(())
}

fn compile(peers: &Path, folder: &Path) -> Result<std::path::PathBuf> {
    let program = folder.join("floor");
    let mut cc = Command::new("cc");
    let built = process::capture(cc.arg("-O2").arg(peers.join("floor.c")).arg("-o").arg(&program))?;
    ensure!(built.status.success(), "floor.c: {}", built.tail(5));
    Ok(program)
}

/// The number after `median` or `median=` on the line that begins with `name`, in milliseconds.
fn median_of(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.trim_start().starts_with(name))?;
    let rest = line.split_once("median")?.1.trim_start_matches(['=', ' ', ':']);
    rest.split(|character: char| character.is_whitespace()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_found_on_its_line() {
        let text = "create → first output   median 4.21 ms\nbwrap x  n=3 median=2.500 ms p95=1";
        assert_eq!(
            (median_of(text, "create"), median_of(text, "bwrap"), median_of(text, "gone")),
            (Some(4.21), Some(2.5), None)
        );
    }
}
