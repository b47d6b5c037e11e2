//! Behaviours 20 and 21: the kernel's large and rarely used doors, with arguments that would work. Wall: seccomp.

use super::attempts::{Attempt, Control, WORKED, hold, told};
use super::raw::{at, call, call_with};
use crate::support::World;
use std::sync::Arc;

const WALL: &[&str] = &["seccomp"];
const CWD: i64 = libc::AT_FDCWD as i64;
const SESSION_KEYRING: i64 = -3;

const fn row(name: &'static str, act: fn(&[String]) -> String, control: Control) -> Attempt {
    // What takes a capability, too, does not work for a guest only because this wall is down.
    let walls = match control {
        Control::Plain | Control::PlainOr(_) => WALL,
        Control::Root | Control::Machine => &[],
    };
    Attempt { name, act, arguments: &[], held: "EPERM", walls, control }
}

/// That a call went so far as to look at what it was given.
fn reached(got: Result<i64, i32>, by: i32) -> String {
    if got == Err(by) { WORKED.to_owned() } else { told(got) }
}

pub(crate) const ATTEMPTS: &[Attempt] = &[
    row(
        "io_uring_setup",
        |_| {
            let parameters = [0_u64; 15];
            told(call_with(libc::SYS_io_uring_setup, [4, at(&parameters)]))
        },
        Control::Plain,
    ),
    row("userfaultfd", |_| told(call_with(libc::SYS_userfaultfd, [1])), Control::Plain),
    row("keyctl", |_| told(call_with(libc::SYS_keyctl, [0, SESSION_KEYRING, 1])), Control::Plain),
    row("add_key", |_| told(call_with(libc::SYS_add_key, [at(c"user"), at(c"x"), at(c"y"), 1, -1])), Control::Plain),
    row(
        "request_key",
        |_| {
            const NO_KEY: i32 = 126;
            reached(call_with(libc::SYS_request_key, [at(c"user"), at(c"none"), 0, -1]), NO_KEY)
        },
        Control::Plain,
    ),
    row("ptrace me", |_| told(call_with(libc::SYS_ptrace, [0, 0, 0, 0])), Control::Plain),
    row("personality", |_| told(call_with(libc::SYS_personality, [0x40_0000])), Control::Plain),
    row("memfd_secret", |_| told(call_with(libc::SYS_memfd_secret, [0])), Control::PlainOr("ENOSYS")),
    row("fanotify_init", |_| told(call_with(libc::SYS_fanotify_init, [0x200, 0])), Control::Plain),
    row(
        "name_to_handle_at",
        |_| {
            // A handle of no room: the kernel says how much it needs.
            let (handle, mount) = ([0_u32; 2], 0_i32);
            let got = call_with(libc::SYS_name_to_handle_at, [CWD, at(c"/tmp"), at(&handle), at(&mount), 0]);
            reached(got, libc::EOVERFLOW)
        },
        Control::Plain,
    ),
    row(
        "process_madvise",
        |_| {
            let own = call_with(libc::SYS_pidfd_open, [i64::from(std::process::id()), 0]).unwrap_or(-1);
            let page = [0_u64; 2];
            told(call_with(libc::SYS_process_madvise, [own, at(&page), 0, i64::from(libc::MADV_COLD), 0]))
        },
        Control::Root,
    ),
    row("migrate_pages", |_| reached(call_with(libc::SYS_migrate_pages, [0, 0, 0, 0]), libc::EINVAL), Control::Plain),
    row("vmsplice", |_| reached(call_with(libc::SYS_vmsplice, [-1, 0, 1, 0]), libc::EBADF), Control::Plain),
    row(
        "remap_file_pages",
        |_| reached(call_with(libc::SYS_remap_file_pages, [0, 0, 0, 0, 0]), libc::EINVAL),
        Control::Plain,
    ),
    row(
        "perf_event_open",
        |_| {
            // A software counter of this process, without the kernel.
            let mut attributes = [0_u64; 16];
            attributes[0] = 1 | (128 << 32);
            attributes[5] = 1 << 5 | 1 << 6;
            told(call_with(libc::SYS_perf_event_open, [at(&attributes), 0, -1, -1, 0]))
        },
        Control::Root,
    ),
    row(
        "bpf",
        |_| {
            let map = [2_u32, 4, 8, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            told(call_with(libc::SYS_bpf, [0, at(&map), 64]))
        },
        Control::Root,
    ),
    row("syslog", |_| told(call_with(libc::SYS_syslog, [10, 0, 0])), Control::Root),
    row("acct", |_| reached(call_with(libc::SYS_acct, [at(c"/no/such/file")]), libc::ENOENT), Control::Root),
    row("swapon", |_| reached(call_with(libc::SYS_swapon, [at(c"/no/such/file"), 0]), libc::ENOENT), Control::Root),
    row(
        "quotactl",
        |_| reached(call_with(libc::SYS_quotactl, [0, at(c"/no/such/file"), 0, 0]), libc::ENOENT),
        Control::Machine,
    ),
    row(
        "init_module",
        |_| reached(call_with(libc::SYS_init_module, [at(c"x"), 1, at(c"")]), libc::ENOEXEC),
        Control::Machine,
    ),
    row("kexec_load", |_| told(call(libc::SYS_kexec_load, [0; 6])), Control::Machine),
    row("settimeofday", |_| reached(call_with(libc::SYS_settimeofday, [-1, 0]), libc::EFAULT), Control::Plain),
    row(
        "adjtimex",
        |_| {
            // Sets nothing: it only asks.
            let state = [0_u64; 26];
            told(call_with(libc::SYS_adjtimex, [at(&state)]))
        },
        Control::Plain,
    ),
];

#[cfg(target_arch = "x86_64")]
pub(crate) const OF_THIS_ARCHITECTURE: &[Attempt] = &[
    row(
        "modify_ldt",
        |_| {
            let room = [0_u64; 8];
            told(call_with(libc::SYS_modify_ldt, [0, at(&room), 64]))
        },
        Control::Plain,
    ),
    row("ustat", |_| reached(call_with(libc::SYS_ustat, [-1, 0]), libc::EINVAL), Control::Plain),
];

#[cfg(not(target_arch = "x86_64"))]
pub(crate) const OF_THIS_ARCHITECTURE: &[Attempt] = &[];

pub(crate) async fn the_kernels_large_doors_are_shut(world: Arc<World>) {
    hold(&world, ATTEMPTS, &[], &[]).await;
    hold(&world, OF_THIS_ARCHITECTURE, &[], &[]).await;
}
