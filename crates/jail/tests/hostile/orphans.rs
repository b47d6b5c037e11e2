//! Behaviours 8 and 9: programs that leave their session, close everything and stay, or wait for a time to come. Wall: a process
//! list of its own, which ends with the sandbox.

use super::attempts::inside;
use super::raw;
use crate::support::{World, children_named, sh, until};
use std::sync::Arc;

/// Forks twice, leaves the session, and stays with what it was told to keep open, as `topside-orphan`.
fn orphan(arguments: &[String]) -> String {
    let keeps = arguments.first().is_some_and(|first| first == "keep");
    let first = raw::child(|| {
        let _ = rustix::process::setsid();
        raw::child(|| {
            let _ = rustix::thread::set_name(c"topside-orphan");
            if !keeps {
                let _ = raw::call_with(libc::SYS_close_range, [0, i64::from(u32::MAX), 0]);
            }
            // An alarm in an hour, and a sleep on the clock that goes on while the machine sleeps.
            let hour = [0_i64, 0, 3_600, 0];
            let _ = raw::call_with(libc::SYS_setitimer, [i64::from(libc::ITIMER_REAL), raw::at(&hour), 0]);
            loop {
                let time = [3_600_i64, 0];
                let clock = i64::from(libc::CLOCK_BOOTTIME);
                let _ = raw::call_with(libc::SYS_clock_nanosleep, [clock, 0, raw::at(&time), 0]);
            }
        });
        0
    });
    raw::wait(first);
    "away".to_owned()
}

pub(crate) const ACTS: &[super::Act] = &[("leave an orphan", orphan)];

pub(crate) async fn an_orphan_dies_with_it(world: Arc<World>) {
    for keeps in ["close", "keep"] {
        let sandbox = world.sandbox().await;
        // The command's end is its own process's, whoever else still holds its output.
        assert_eq!(inside(&sandbox, ACTS[0].0, &[keeps]).await, "away");
        assert_eq!(sh(&sandbox, "pgrep -c topside-orphan").await.out, "1\n", "{keeps}: it lives on inside");
        assert!(!children_named("topside-orphan").is_empty());
        sandbox.close().await;
        until("the orphan is gone", || children_named("topside-orphan").is_empty()).await;
    }
}
