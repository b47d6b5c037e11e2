//! The same as an ordinary user: with groups that were delegated everything holds; without them the start is refused by the
//! name of the wall, unless the spec does without it. Root makes the groups and steps down; others skip.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a test with a main of its own is a test"
)]

mod support;

use sandbox::{Error, Provider as _, Workspace};
use std::process::ExitCode;
use std::sync::Arc;
use support::{World, sh};

/// Nobody on any machine this runs on.
const USER: u32 = 12_345;
const MODE: &str = "--as-ordinary=";

fn main() -> ExitCode {
    if let Some(code) = support::head::part() {
        return code;
    }
    match support::head::argument(MODE).as_deref().and_then(|mode| mode.split_once(':')) {
        Some((mode, data)) => step_down_and_run(mode, data.as_ref()),
        None if rustix::process::geteuid().is_root() => run_both(),
        None => {
            support::skip("ordinary", "only root can delegate groups to another user");
            ExitCode::SUCCESS
        }
    }
}

fn run_both() -> ExitCode {
    let data = support::hostile::data();
    std::os::unix::fs::chown(data.path(), Some(USER), Some(USER)).unwrap();
    let mut all = ExitCode::SUCCESS;
    for mode in ["bare", "delegated"] {
        println!("as user {USER}, {mode}:");
        let outer = (mode == "delegated").then(|| support::Outer::enter("ordinary", Some(USER)));
        let code = support::again(&[&format!("{MODE}{mode}:{}", data.path().display())], &[support::CANARY]);
        drop(outer);
        if code != ExitCode::SUCCESS {
            all = code;
        }
    }
    all
}

fn step_down_and_run(mode: &str, data: &std::path::Path) -> ExitCode {
    support::user::become_user(USER);
    let launcher = jail::launch().unwrap();
    let cases: Vec<support::Case> = if mode == "bare" {
        cases![refused_by_name, done_without_where_told, the_probe_says_what_is_missing]
    } else {
        let mut cases = support::conformance::cases();
        cases.extend(support::hostile::cases());
        cases
    };
    support::run(launcher, data, cases)
}

const LIMITS: [&str; 3] = ["memory_limit", "process_limit", "cpu_limit"];

async fn refused_by_name(world: Arc<World>) {
    for optional in 0..LIMITS.len() {
        let mut spec = world.spec(Workspace::Scratch);
        spec.walls_optional = LIMITS[..optional].iter().map(|&wall| wall.to_owned()).collect();
        let Err(Error::Wall { wall, fix, .. }) = world.provider.create(spec).await else { panic!("it was made") };
        assert_eq!(wall, LIMITS[optional]);
        assert!(fix.unwrap().contains("Delegate=yes"));
    }
}

async fn done_without_where_told(world: Arc<World>) {
    let mut spec = world.spec(Workspace::Scratch);
    spec.walls_optional = LIMITS.map(str::to_owned).into();
    let sandbox = world.provider.create(spec).await.unwrap();
    assert_eq!(sandbox.walls().missing, LIMITS);
    assert_eq!(sh(&sandbox, "id -u").await.out, "1000\n");
    sandbox.close().await;
}

async fn the_probe_says_what_is_missing(world: Arc<World>) {
    let probe = world.provider.probe().await;
    assert!(!probe.ready);
    let missing: Vec<&str> = probe.walls.iter().filter(|wall| !wall.holds).map(|wall| wall.wall.as_str()).collect();
    assert_eq!(missing, LIMITS, "{probe:?}");
    assert!(probe.walls.iter().all(|wall| wall.holds || wall.fix.is_some()), "{probe:?}");
}
