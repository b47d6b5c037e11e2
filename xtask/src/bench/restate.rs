//! Durable steps beside Restate's server on one node: sessions beside objects, a call that happens once beside `ctx.run`.
//! Both write to disk with fsync; the peer's service and its client live in `xtask/peers/restate`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};
use serde_json::Value;

use super::Arguments;
use super::figures::{Figure, Page};
use super::journal::fields;
use crate::process;

/// The server's package, at the version that the peer's library is made for.
const PACKAGE: &str = "@restatedev/restate-server@1.7.12";
const PROGRAM: &str = "node_modules/@restatedev/restate-server-linux-x64/bin/restate-server";
const SESSIONS: [&str; 2] = ["64", "1"];
const STEPS: &str = "20";
/// Where the peer runs, nothing but loopback is there: it looks for a newer version of itself otherwise.
const APART: &str = "ip link set lo up && exec \"$@\"";

pub(crate) fn measure(root: &Path, built: &Path, arguments: &Arguments, page: &mut Page) -> Result<()> {
    let Some(server) = server(root, arguments)? else {
        page.skipped("durable steps", "neither --restate nor npm is there, so there is no peer");
        return Ok(());
    };
    let peer = build(root)?;
    let seconds = arguments.seconds.to_string();
    for sessions in SESSIONS {
        let mut mine = (Figure::default(), Figure::default());
        let mut theirs = (Figure::default(), Figure::default());
        for _ in 0..arguments.pairs {
            let mut steps = Command::new(built.join("examples/steps"));
            add(&mut mine, &fields(steps.args([&seconds, sessions, STEPS]))?);
            let folder = tempfile::tempdir()?;
            let mut apart = Command::new("unshare");
            apart.args(["--user", "--map-root-user", "--net", "--kill-child", "sh", "-c", APART, "sh"]);
            apart.arg(&peer).arg(&server).arg(folder.path());
            add(&mut theirs, &fields(apart.args([&seconds, sessions, STEPS]))?);
        }
        if sessions == "1" {
            page.beside("a step that happens once, 1 session, p50 in ms", &mine.1, "Restate, `ctx.run`", &theirs.1);
        } else {
            let name = format!("steps per second that happen once, {sessions} sessions");
            page.beside(&name, &mine.0, &format!("Restate, `ctx.run`, {sessions} objects"), &theirs.0);
        }
    }
    Ok(())
}

fn add((rate, p50_ms): &mut (Figure, Figure), told: &Value) {
    rate.add(told["steps_per_second"].as_f64().unwrap_or(f64::NAN));
    p50_ms.add(told["step_p50_ms"].as_f64().unwrap_or(f64::NAN));
}

/// The server that was named, else the one that npm brings under the target directory.
fn server(root: &Path, arguments: &Arguments) -> Result<Option<PathBuf>> {
    if arguments.restate.is_some() || !process::is_present("npm") {
        return Ok(arguments.restate.clone());
    }
    let folder = root.join("target/peers/restate-server");
    let program = folder.join(PROGRAM);
    if !program.is_file() {
        std::fs::create_dir_all(&folder)?;
        let mut npm = Command::new("npm");
        npm.args(["install", "--no-audit", "--no-fund", "--ignore-scripts", PACKAGE]).current_dir(&folder);
        let said = process::capture(&mut npm)?;
        ensure!(said.status.success() && program.is_file(), "npm install {PACKAGE}: {}", said.tail(10));
    }
    Ok(Some(program))
}

fn build(root: &Path) -> Result<PathBuf> {
    let target = root.join("target/peers/restate");
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--release", "--locked", "--quiet", "--target-dir"]).arg(&target);
    let said = process::capture(cargo.current_dir(root.join("xtask/peers/restate")))?;
    ensure!(said.status.success(), "the peer beside Restate: {}", said.tail(20));
    Ok(target.join("release/peer-restate"))
}
