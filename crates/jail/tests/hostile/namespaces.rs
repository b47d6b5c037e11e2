//! Behaviours 13 and 14: making namespaces of one's own, in which one would be root, and joining those of others. Walls:
//! seccomp, and no further user namespaces; PID 1 shows its namespaces to nobody.

use super::attempts::{Attempt, Control, hold, io, told};
use super::raw::{self, at, call, call_with, gain};
use crate::support::{World, sh};
use std::sync::Arc;

const WALLS: &[&str] = &["seccomp", "user_namespace_limit"];

fn unshare(arguments: &[String]) -> String {
    let flag: i64 = arguments[0].parse().unwrap();
    told(call_with(libc::SYS_unshare, [flag | i64::from(libc::CLONE_NEWUSER)]))
}

const fn made(name: &'static str, arguments: &'static [&'static str]) -> Attempt {
    Attempt { name, act: unshare, arguments, held: "EPERM", walls: WALLS, control: Control::Plain }
}

/// Forks by a call of its own; the child ends at once.
fn cloned(got: raw::Got) -> String {
    if got == Ok(0) {
        raw::leave();
    }
    told(got)
}

pub(crate) const ATTEMPTS: &[Attempt] = &[
    made("unshare user", &["0"]),
    made("unshare mount", &["131072"]),
    made("unshare process", &["536870912"]),
    made("unshare network", &["1073741824"]),
    made("unshare ipc", &["134217728"]),
    made("unshare host name", &["67108864"]),
    made("unshare cgroup", &["33554432"]),
    made("unshare time", &["128"]),
    Attempt {
        name: "clone user",
        act: |_| {
            let flags = i64::from(libc::CLONE_NEWUSER | libc::SIGCHLD);
            cloned(call(libc::SYS_clone, [flags, 0, 0, 0, 0, 0]))
        },
        arguments: &[],
        held: "EPERM",
        walls: WALLS,
        control: Control::Plain,
    },
    Attempt {
        name: "clone3 user",
        act: |_| {
            let mut arguments = [0_u64; 11];
            arguments[0] = u64::from(libc::CLONE_NEWUSER.unsigned_abs());
            arguments[4] = u64::from(libc::SIGCHLD.unsigned_abs());
            cloned(call_with(libc::SYS_clone3, [at(&arguments), 88]))
        },
        arguments: &[],
        held: "ENOSYS",
        walls: WALLS,
        control: Control::Plain,
    },
    Attempt {
        name: "setns",
        act: |_| {
            gain();
            let own = std::fs::File::open("/proc/self/ns/uts").unwrap();
            let fd = i64::from(std::os::fd::AsRawFd::as_raw_fd(&own));
            told(call_with(libc::SYS_setns, [fd, 0]))
        },
        arguments: &[],
        held: "EPERM",
        walls: WALLS,
        control: Control::Plain,
    },
    Attempt {
        name: "sethostname",
        act: |_| {
            gain();
            told(call_with(libc::SYS_sethostname, [at(c"taken"), 5]))
        },
        arguments: &[],
        held: "EPERM",
        walls: WALLS,
        control: Control::Plain,
    },
];

/// The namespaces of another process; its number comes from outside.
pub(crate) const OTHERS: &[Attempt] = &[Attempt {
    name: "namespaces of another",
    act: |arguments| io(std::fs::File::open(format!("/proc/{}/ns/mnt", arguments[0]))),
    arguments: &[],
    held: "ENOENT",
    walls: &[],
    control: Control::Plain,
}];

pub(crate) async fn no_namespace_is_made_or_joined(world: Arc<World>) {
    hold(&world, ATTEMPTS, &[], &[]).await;
    let mut other = super::Other::start();
    hold(&world, OTHERS, &["1"], &[&other.id()]).await;
    other.end();
    let sandbox = world.sandbox().await;
    assert_eq!(sh(&sandbox, "cat /proc/sys/user/max_user_namespaces").await.out, "0\n");
    assert_eq!(sh(&sandbox, "ls /proc/self/fd | wc -l").await.out, "4\n", "0, 1, 2 and the listing's own");
    sandbox.close().await;
}
