//! Behaviours 21 and 22: every system call number there may be, by the door of 64-bit programs, of x32 and of i386. What comes
//! of each stands in `syscalls.x86_64.txt`, for refused ones with the reason. Other architectures have no golden file yet.

use super::attempts::{errno_name, inside};
use super::raw::{self, End, NOTHING};
use crate::support::{World, skip};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Beyond every number that any kernel has.
const NUMBERS: i64 = 1_024;
/// How long a call may take before it is said to wait.
const CALL_WAIT_MAX: Duration = Duration::from_millis(500);
const GOLDEN: &str = include_str!("syscalls.x86_64.txt");
/// Bit 30 of a number asks for the x32 interface.
const X32: i64 = 0x4000_0000;

pub(crate) const ACTS: &[super::Act] = &[("every_syscall", every_syscall)];

/// Tries every number and says one line for each. Every argument is -1: no descriptor, no address, no process, no flag.
fn every_syscall(arguments: &[String]) -> String {
    let door = arguments.first().map_or("", String::as_str);
    let mut lines = String::new();
    for number in 0..NUMBERS {
        let end = raw::apart(CALL_WAIT_MAX, || match door {
            #[cfg(target_arch = "x86_64")]
            "i386" => raw::call_i386(number, NOTHING),
            // As a raw call it would come back on the stack that its parent waits for; it forks like 57.
            #[cfg(target_arch = "x86_64")]
            "x86_64" if number == libc::SYS_vfork => raw::call(libc::SYS_fork, [NOTHING; 6]),
            "x32" => raw::call(number | X32, [NOTHING; 6]),
            _ => raw::call(number, [NOTHING; 6]),
        });
        lines.push_str(&format!("{number} {}\n", said(&end)));
    }
    lines.trim_end().to_owned()
}

fn said(end: &End) -> String {
    match end {
        End::Got(Ok(_)) => "worked".to_owned(),
        End::Got(Err(errno)) => errno_name(*errno),
        End::Ended => "ends".to_owned(),
        End::Waits => "waits".to_owned(),
        End::Signal(libc::SIGSYS) => "SIGSYS".to_owned(),
        End::Signal(libc::SIGSEGV) => "SIGSEGV".to_owned(),
        End::Signal(libc::SIGILL) => "SIGILL".to_owned(),
        End::Signal(number) => format!("signal {number}"),
    }
}

/// What the golden file says of a number: its name, what comes of it, and why where it is refused.
struct Line<'a> {
    name: &'a str,
    verdicts: Vec<&'a str>,
    refused: bool,
}

fn golden() -> BTreeMap<i64, Line<'static>> {
    let lines = GOLDEN.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines
        .map(|line| {
            let (call, reason) = line.split_once(" | ").map_or((line, None), |(call, reason)| (call, Some(reason)));
            let words: Vec<&str> = call.split_ascii_whitespace().collect();
            let verdicts = words[2].split('/').collect();
            (words[0].parse().unwrap(), Line { name: words[1], verdicts, refused: reason.is_some() })
        })
        .collect()
}

fn parsed(text: &str) -> BTreeMap<i64, String> {
    let line = |line: &str| {
        let (number, said) = line.split_once(' ').unwrap_or_else(|| panic!("{line}"));
        (number.parse().unwrap_or_else(|_| panic!("{line}")), said.to_owned())
    };
    text.lines().map(line).collect()
}

pub(crate) async fn every_syscall_gives_what_the_golden_file_says(world: Arc<World>) {
    if cfg!(not(target_arch = "x86_64")) {
        return skip("every_syscall", "there is a golden file for x86_64 only");
    }
    let sandbox = world.sandbox().await;
    let native = parsed(&inside(&sandbox, "every_syscall", &["x86_64"]).await);
    let golden = golden();
    let mut wrong = Vec::new();
    for number in 0..NUMBERS {
        let got = native.get(&number).map_or("nothing", String::as_str);
        let right = match golden.get(&number) {
            // What this kernel has not got can't be let through.
            Some(line) => line.verdicts.contains(&got) || (!line.refused && got == "ENOSYS"),
            None => got == "ENOSYS",
        };
        if !right {
            let (name, verdicts) =
                golden.get(&number).map_or(("-", vec!["ENOSYS"]), |line| (line.name, line.verdicts.clone()));
            wrong.push(format!("{number} {name} {got}, not {}", verdicts.join("/")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // The other doors are shut for every number, whatever is asked for.
    for (door, expected) in [("x32", "ENOSYS"), ("i386", "SIGSYS")] {
        let got = parsed(&inside(&sandbox, "every_syscall", &[door]).await);
        let wrong: Vec<_> = got.iter().filter(|(_, said)| *said != expected).collect();
        assert!(got.len() == usize::try_from(NUMBERS).unwrap() && wrong.is_empty(), "{door}: {wrong:?}");
    }
    sandbox.close().await;
}

pub(crate) const ATTEMPTS: &[super::Attempt] = &[super::Attempt {
    name: "a call of a 32-bit program",
    act: |_| said(&raw::apart(CALL_WAIT_MAX, i386_getpid)),
    arguments: &[],
    held: "SIGSYS",
    walls: &["seccomp"],
    control: super::Control::Plain,
}];

#[cfg(target_arch = "x86_64")]
fn i386_getpid() -> raw::Got {
    raw::call_i386(20, 0)
}

#[cfg(not(target_arch = "x86_64"))]
fn i386_getpid() -> raw::Got {
    Err(libc::ENOSYS)
}

/// The other door is there where the wall is not: else its being shut would say nothing.
pub(crate) async fn the_door_of_32_bit_programs_is_shut(world: Arc<World>) {
    if cfg!(not(target_arch = "x86_64")) {
        return skip("the_door_of_32_bit_programs_is_shut", "this architecture has none");
    }
    super::attempts::hold(&world, ATTEMPTS, &[], &[]).await;
}
