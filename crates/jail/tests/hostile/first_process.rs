//! Behaviour 10: reading and writing the first process, which alone speaks with the harness. Walls: it is not dumpable, so that
//! nobody of its user sees into it; seccomp refuses every way into another process.

use super::attempts::{Attempt, Control, WORKED, hold, io, told};
use super::raw::{at, call, call_with};
use crate::support::{World, sh};
use std::sync::Arc;

const WALLS: &[&str] = &["seccomp", "dumpable"];

fn target(arguments: &[String]) -> i64 {
    arguments.last().and_then(|target| target.parse().ok()).unwrap_or(1)
}

const fn row(name: &'static str, act: fn(&[String]) -> String) -> Attempt {
    Attempt { name, act, arguments: &[], held: "EPERM", walls: WALLS, control: Control::Plain }
}

fn file(arguments: &[String]) -> String {
    let path = format!("/proc/{}/{}", target(arguments), arguments[0]);
    io(std::fs::File::open(path))
}

const fn seen(name: &'static str, arguments: &'static [&'static str]) -> Attempt {
    Attempt { name, act: file, arguments, held: "ENOENT", walls: &["dumpable"], control: Control::Plain }
}

pub(crate) const ATTEMPTS: &[Attempt] = &[
    row("ptrace", |arguments| {
        const SEIZE: i64 = 0x4206;
        told(call_with(libc::SYS_ptrace, [SEIZE, target(arguments), 0, 0]))
    }),
    row("process_vm_readv", |arguments| {
        // Permission is looked at before addresses: nothing stands at this one.
        let (byte, nowhere) = (0_u8, 0x1000_u64);
        let local = [at(&byte).cast_unsigned(), 1];
        let remote = [nowhere, 1];
        let got = call(libc::SYS_process_vm_readv, [target(arguments), at(&local), 1, at(&remote), 1, 0]);
        if got == Err(libc::EFAULT) { WORKED.to_owned() } else { told(got) }
    }),
    row("process_vm_writev", |arguments| {
        let (byte, nowhere) = (0_u8, 0x1000_u64);
        let local = [at(&byte).cast_unsigned(), 1];
        let remote = [nowhere, 1];
        let got = call(libc::SYS_process_vm_writev, [target(arguments), at(&local), 1, at(&remote), 1, 0]);
        if got == Err(libc::EFAULT) { WORKED.to_owned() } else { told(got) }
    }),
    row("pidfd_getfd", |arguments| {
        let process = call_with(libc::SYS_pidfd_open, [target(arguments), 0]).unwrap_or(-1);
        told(call_with(libc::SYS_pidfd_getfd, [process, 0, 0]))
    }),
    row("kcmp", |arguments| {
        let own = i64::from(std::process::id());
        told(call_with(libc::SYS_kcmp, [own, target(arguments), 1, 0, 0]))
    }),
    Attempt {
        name: "its limits",
        act: |arguments| {
            let limit = [1_024_u64, 1_024];
            told(call_with(libc::SYS_prlimit64, [target(arguments), i64::from(libc::RLIMIT_NOFILE), at(&limit), 0]))
        },
        arguments: &[],
        held: "EPERM",
        walls: &["seccomp"],
        control: Control::Plain,
    },
    seen("its memory", &["mem"]),
    seen("its environment", &["environ"]),
    seen("its addresses", &["maps"]),
    Attempt {
        name: "its program",
        act: file,
        arguments: &["exe"],
        held: "ENOENT",
        walls: &["dumpable", "landlock"],
        control: Control::Plain,
    },
];

pub(crate) async fn the_first_process_is_out_of_reach(world: Arc<World>) {
    let mut other = super::Other::start();
    hold(&world, ATTEMPTS, &["1"], &[&other.id()]).await;
    other.end();
    let sandbox = world.sandbox().await;
    for signal in ["KILL", "STOP", "TERM", "SEGV", "INT", "HUP", "USR1"] {
        sh(&sandbox, &format!("kill -{signal} 1")).await;
    }
    assert_eq!(sh(&sandbox, "echo serves").await.out, "serves\n");
    sandbox.close().await;
}
