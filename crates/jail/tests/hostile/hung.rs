//! Behaviours 7 and 11: processes that stand still, hear nothing, or kill all they reach. Wall: a process list of its own, whose
//! first process nobody inside can end.

use super::attempts::{MODE, PROGRAM};
use super::raw;
use crate::support::{World, children_named, command, finish, sh};
use sandbox::{Chunk, Exit};
use std::sync::Arc;
use std::time::Duration;

/// Ignores every signal that can be ignored, says so and stays.
fn deaf(_: &[String]) -> String {
    let all = u64::MAX;
    // Blocked signals are not even remembered as reasons to end.
    raw::call_with(libc::SYS_rt_sigprocmask, [i64::from(libc::SIG_SETMASK), raw::at(&all), 0, 8]).unwrap();
    println!("deaf");
    raw::stay()
}

/// Kills a child of its own by killing everything.
fn kill_all(_: &[String]) -> String {
    let child = raw::child(|| raw::stay());
    let _ = raw::call_with(libc::SYS_kill, [-1, i64::from(libc::SIGKILL)]);
    format!("its child ended by {}", raw::wait(child) & 0x7f)
}

/// Stops everything but itself and the first process, over and over.
fn stop_all(_: &[String]) -> String {
    println!("on");
    loop {
        let _ = raw::call_with(libc::SYS_kill, [-1, i64::from(libc::SIGSTOP)]);
    }
}

pub(crate) const ACTS: &[super::Act] =
    &[("be deaf", deaf), ("kill everything", kill_all), ("stop everything", stop_all)];

pub(crate) async fn who_hears_nothing_is_killed(world: Arc<World>) {
    let sandbox = world.sandbox().await;
    let mut process = sandbox.start(command(&[PROGRAM, &format!("{MODE}be deaf")])).await.unwrap();
    assert!(matches!(process.next().await.unwrap(), Chunk::Output(..)));
    sh(&sandbox, "pkill -TERM -f be.deaf; pkill -INT -f be.deaf").await;
    assert_eq!(sh(&sandbox, "pgrep -c -f '[b]e deaf'").await.out, "1\n", "it is still there");
    assert_eq!(process.kill().await.unwrap(), Exit::Signal(9));
    assert_eq!(sh(&sandbox, "pgrep -c -f '[b]e deaf'").await.out, "0\n");
    sandbox.close().await;
}

pub(crate) async fn stopped_processes_do_not_hang(world: Arc<World>) {
    let sandbox = world.sandbox().await;
    let mut stopped = sandbox.start(command(&["/bin/sh", "-c", "echo up; kill -STOP $$; echo never"])).await.unwrap();
    assert!(matches!(stopped.next().await.unwrap(), Chunk::Output(..)));
    assert_eq!(stopped.kill().await.unwrap(), Exit::Signal(9));
    sandbox.start(command(&["/bin/sh", "-c", "kill -STOP $$"])).await.unwrap();
    sandbox.close().await;
}

/// The first process stands still while it starts a program that shares its memory, so none may be stopped then.
pub(crate) async fn what_is_stopped_before_it_runs_holds_up_nobody(world: Arc<World>) {
    const STARTS: usize = 3;
    const START_MAX: Duration = Duration::from_millis(500);
    const ANSWER_MAX: Duration = Duration::from_secs(20);
    let sandbox = world.sandbox().await;
    let mut hostile = sandbox.start(command(&[PROGRAM, &format!("{MODE}stop everything")])).await.unwrap();
    assert!(matches!(hostile.next().await.unwrap(), Chunk::Output(..)));
    let mut stopped = 0;
    for _ in 0..STARTS {
        // It is dropped, and killed, when it does not run by then.
        let started = tokio::time::timeout(START_MAX, sandbox.start(command(&["/bin/true"]))).await;
        stopped += usize::from(started.is_err());
    }
    println!("{stopped} of {STARTS} programs were stopped before they ran");
    let killed = tokio::time::timeout(ANSWER_MAX, hostile.kill()).await.expect("the first process serves");
    assert_eq!(killed.unwrap(), Exit::Signal(9));
    assert_eq!(sh(&sandbox, "echo lives").await.out, "lives\n");
    sandbox.close().await;
}

pub(crate) async fn kill_everything(world: Arc<World>) {
    let neighbour = world.sandbox().await;
    let sandbox = world.sandbox().await;
    let mut victim = sandbox.start(command(&["sleep", "1000"])).await.unwrap();
    let killer = super::attempts::inside(&sandbox, "kill everything", &[]).await;
    assert_eq!(killer, "its child ended by 9", "it reaches what is its own");
    assert_eq!(finish(victim.as_mut()).await.unwrap().exit, Exit::Signal(9));
    for alive in [&sandbox, &neighbour] {
        assert_eq!(sh(alive, "echo lives").await.out, "lives\n");
    }
    assert_eq!(children_named("topside-launch").len(), 1);
    sandbox.close().await;
    neighbour.close().await;
}
