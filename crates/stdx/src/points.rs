//! Named places at which a process can be told to die, for tests that kill the real binary. Without the feature `points`
//! [`reach`] is nothing. What a place means, its neighbours know; who kills there, `cargo xtask crash` does.
//!
//! With the feature, the environment arms it: `TOPSIDE_POINT=NAME` or `NAME:N` ends the process with SIGKILL (nothing is
//! flushed, nothing is dropped) when the point is reached for the Nth time, or, with `TOPSIDE_POINT_SIGNAL=STOP`, lets it
//! stand still until somebody sends SIGCONT; `TOPSIDE_POINTS_LOG=FILE` gets one line for each point that is reached.

/// Every point, in the order in which a run passes them. One that no crash reaches is red.
pub const ALL: &[&str] = &[
    "submit.before_append",
    "writer.before_begin",
    "writer.before_commit",
    "writer.after_commit",
    "submit.after_append",
    "reply.before_append",
    "reply.after_append",
    "began.after_append",
    "sandbox.opened",
    "sandbox.recorded",
    "deed.before",
    "deed.after",
    "returned.after_append",
    "parked.after_append",
    "wish.after_append",
    "checkpoint.put",
    "checkpoint.recorded",
    "finished.before_append",
    "finished.after_append",
    "resumed.after_append",
];

/// Says that the process is at a point of [`ALL`].
#[inline]
pub fn reach(point: &'static str) {
    #[cfg(feature = "points")]
    armed::reach(point);
    #[cfg(not(feature = "points"))]
    let _ = point;
}

#[cfg(feature = "points")]
mod armed {
    use super::ALL;
    use parking_lot::Mutex;
    use rustix::process::{Signal, getpid, kill_process};
    use rustix::thread::{Timespec, nanosleep};
    use std::fs::{File, OpenOptions};
    use std::io::Write as _;
    use std::sync::LazyLock;

    /// How long a signal to oneself may take on a machine that is busy.
    const TAKEN_WITHIN: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

    /// What the environment asked for.
    #[derive(Debug)]
    struct Armed {
        /// The point and how often it must still be reached.
        deadly: Option<(String, u64)>,
        signal: Signal,
        log: Option<File>,
    }

    static ARMED: LazyLock<Mutex<Armed>> = LazyLock::new(|| Mutex::new(of_process()));

    #[expect(clippy::disallowed_methods, reason = "the points of a test build are armed from outside, past every room")]
    fn of_process() -> Armed {
        let deadly = std::env::var("TOPSIDE_POINT").ok().filter(|text| !text.is_empty()).map(|text| {
            let (name, times) = text.split_once(':').unwrap_or((&text, "1"));
            assert!(ALL.contains(&name), "`{name}` is no point; the points are {}", ALL.join(", "));
            (name.to_owned(), times.parse().unwrap_or(1))
        });
        let stops = std::env::var("TOPSIDE_POINT_SIGNAL").is_ok_and(|signal| signal == "STOP");
        let signal = if stops { Signal::STOP } else { Signal::KILL };
        let log = std::env::var("TOPSIDE_POINTS_LOG").ok();
        let log = log.and_then(|path| OpenOptions::new().create(true).append(true).open(path).ok());
        Armed { deadly, signal, log }
    }

    pub(super) fn reach(point: &'static str) {
        assert!(ALL.contains(&point), "`{point}` is not among the points");
        let mut armed = ARMED.lock();
        if let Some(log) = &mut armed.log {
            // One write of one line: lines of several processes do not mix.
            let _ = log.write_all(format!("{point}\n").as_bytes());
        }
        let Some((name, times)) = &mut armed.deadly else { return };
        if name != point {
            return;
        }
        *times = times.saturating_sub(1);
        if *times == 0 {
            armed.deadly = None;
            let signal = armed.signal;
            // That it can't be sent is no case of its own.
            let _ = kill_process(getpid(), signal);
            // Any thread may be the one that takes it, so this one goes no further until one has had the time to.
            let _ = nanosleep(&TAKEN_WITHIN);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_point_is_named_once() {
        let mut names = ALL.to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
        ALL.iter().for_each(|point| reach(point));
    }
}
