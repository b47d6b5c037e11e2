//! Makes the programs inside stand still while the workspace is read, and lets them go on: every one by a signal that none
//! can refuse. Who stood still before stays so. What a program hides from the list of processes is halted and goes on like
//! the others; only that it has come to a halt can't be seen.

use crate::sys;
use rustix::event::{PollFd, PollFlags};
use rustix::thread::NanosleepRelativeResult;
use rustix::time::Timespec;
use std::collections::BTreeSet;

/// How often it is looked whether all have come to a halt, and the pause in between.
const LOOKS_MAX: u32 = 10_000;
const PAUSE_NS: i64 = 200_000;
/// After so many looks a thread that waits in the kernel and can't be stopped there counts as halted: one that waits for a
/// halted child does so for ever, and one that waits for a disk comes to a halt before its next call.
const LOOKS_WAITING: u32 = 250;
/// Process numbers that are tried one by one when some stood still before.
const NUMBERS_MAX: i32 = 1 << 16;

/// The programs that are halted, by those that are not to go on.
#[derive(Debug)]
pub(crate) struct Halt {
    /// Processes, and their threads, that stood still before.
    still: BTreeSet<i32>,
}

/// The states of a process's threads, with their numbers.
fn threads(process: i32) -> Vec<(i32, char)> {
    let Ok(entries) = std::fs::read_dir(format!("/proc/{process}/task")) else { return Vec::new() };
    let numbers = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let state = |thread: i32| {
        let stat = std::fs::read_to_string(format!("/proc/{process}/task/{thread}/stat")).ok()?;
        // The name in parentheses may hold anything, so count from its end.
        stat.rsplit_once(')')?.1.trim_start().chars().next().map(|state| (thread, state))
    };
    numbers.filter_map(state).collect()
}

/// Every process inside that can be seen but PID 1 and the caller.
fn processes() -> Vec<i32> {
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let numbers = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    numbers.filter(|pid| *pid > 1 && *pid != own).collect()
}

const fn stands(state: char) -> bool {
    matches!(state, 'T' | 't' | 'Z' | 'X' | 'x')
}

impl Halt {
    /// Tells everything inside but the caller, which must be PID 1, to stand still.
    pub(crate) fn begin() -> Self {
        let mut still = BTreeSet::new();
        for process in processes() {
            let threads = threads(process);
            if threads.iter().any(|(_, state)| *state == 'T') && threads.iter().all(|(_, state)| stands(*state)) {
                still.extend(threads.into_iter().map(|(thread, _)| thread));
            }
        }
        sys::stop(-1);
        Self { still }
    }

    /// Lets all go on that did before: the youngest first, so that no parent sees a child that stands still.
    pub(crate) fn end(&self) {
        let mut seen = processes();
        seen.sort_unstable();
        for process in seen.iter().rev().filter(|process| !self.still.contains(process)) {
            sys::go_on(*process);
        }
        if self.still.is_empty() {
            sys::go_on(-1);
            return;
        }
        // Those that can't be seen have numbers below the newest's, as long as numbers were not handed out anew.
        let highest = seen.last().copied().unwrap_or(0).saturating_add(64).min(NUMBERS_MAX);
        for process in (2..=highest).rev().filter(|process| !self.still.contains(process)) {
            sys::go_on(process);
        }
    }
}

/// Whether nobody reads standard output any more.
fn is_given_up() -> bool {
    let out = std::io::stdout();
    let mut polled = [PollFd::new(&out, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut polled, Some(&now)).is_ok_and(|ready| ready > 0)
}

/// What a thread counts as that waits in the kernel and can't be stopped there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waiting {
    /// As halted, after a while: it waits for a halted child for ever, or ends the write it is in.
    IsAHalt,
    /// As running: it may be in the middle of a write.
    IsNoHalt,
}

/// Waits until everything inside that can be seen stands still; `false`: something does not, or nobody wants it any more. The
/// caller is a child of PID 1 that was forked after [`Halt::begin`].
pub(crate) fn await_halt(waiting: Waiting) -> bool {
    let looks = if waiting == Waiting::IsAHalt { LOOKS_MAX } else { LOOKS_WAITING };
    for look in 0..looks {
        if is_given_up() {
            return false;
        }
        let mut all = true;
        for process in processes() {
            let runs = |state: char| !(stands(state) || (state == 'D' && look >= LOOKS_WAITING));
            if threads(process).iter().any(|(_, state)| runs(*state)) {
                all = false;
                // Another may have made it go on before that one stood still itself.
                sys::stop(process);
            }
        }
        if all {
            return true;
        }
        let pause = Timespec { tv_sec: 0, tv_nsec: PAUSE_NS };
        // A signal only shortens it.
        let (NanosleepRelativeResult::Ok | NanosleepRelativeResult::Interrupted(_) | NanosleepRelativeResult::Err(_)) =
            rustix::thread::nanosleep(&pause);
    }
    false
}
