//! A wall that the kernel refuses: the run is refused too, and the wall is named.

use crate::kit::{Project, Said, has_sandbox};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::Path;

/// A user of this machine that nobody is, and to whom nothing was delegated.
const NOBODY: u32 = 54_321;

/// Gives a folder and all in it to that user.
fn give(path: &Path) {
    chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    if path.is_dir() {
        for entry in path.read_dir().unwrap() {
            give(&entry.unwrap().path());
        }
    }
}

fn as_nobody(project: &Project, program: &Path, arguments: &[&str]) -> Said {
    let mut command = std::process::Command::new(program);
    command.args(arguments).current_dir(project.path()).env_clear().env("PATH", "/usr/bin:/bin");
    Said::of(command.uid(NOBODY).gid(NOBODY).output().unwrap())
}

#[test]
fn without_delegation_the_run_is_refused_by_wall() {
    let test = "without_delegation_the_run_is_refused_by_wall";
    if !has_sandbox(test) {
        return;
    }
    let project = Project::playing(
        "title: one\nsteps:\n- reply:\n  - call: {id: a, tool: exec_command, arguments: {cmd: id}}\n",
        &[],
    );
    // The build's folders may be closed to others; the program itself needs nothing of them.
    let program = project.path().join("topside");
    std::fs::copy(env!("CARGO_BIN_EXE_topside"), &program).unwrap();
    if chown(project.path(), Some(NOBODY), None).is_err() {
        eprintln!("SKIPPED {test}: only root can become another user");
        return;
    }
    give(project.path());
    let doctor = as_nobody(&project, &program, &["doctor"]).ended(1);
    assert!(doctor.data.contains("sandbox: not ready"), "{}", doctor.data);
    assert!(doctor.data.contains("NO  memory_limit"), "{}", doctor.data);
    assert!(doctor.data.contains("fix: "), "{}", doctor.data);
    let run = as_nobody(&project, &program, &["run", "worker", "Go."]).ended(5);
    assert!(run.talk.contains("sandbox_wall: the wall `"), "{}", run.talk);
}
