//! The system calls that no program inside may make, one reason each. A deny list: whatever ordinary tools need goes through,
//! and the other walls do not rest on it. Two filters refuse what stands in the table, foreign call numbers, those that nobody here
//! has looked at, and `clone3`, whose flags no filter can see, and kill whoever calls through another architecture's door: the
//! large one while the sandbox is not anybody's yet, and what it needs to become somebody's in a small one after that. A third
//! is for programs alone: what PID 1 itself does to keep a workspace. What comes of every number stands in `tests/hostile/syscalls.x86_64.txt`.

use crate::decision::{self, ALLOW, Test, When, refusal};
use crate::down::{self, Wall};
use seccompiler::BpfProgram;
use std::collections::BTreeMap;

/// Built once by the launcher, installed by every PID 1.
#[derive(Debug)]
pub(crate) struct Filters {
    /// All but what a first process still calls when its root stands.
    early: BpfProgram,
    /// The rest.
    late: BpfProgram,
    /// What every program is restricted by before it runs.
    programs: guest::Filter,
}

/// A line of the table.
type Line = (libc::c_long, When, &'static str);

const KERNEL: &str = "changes or loads the kernel itself";
const MOUNTS: &str = "changes what is mounted where";
const SURFACE: &str = "large kernel surface that no tool here needs";
const OTHERS: &str = "reaches into another process";
const KEYS: &str = "kernel keyrings are shared between sandboxes of one user";
const NAMESPACES: &str = "makes or joins a namespace";
const HANDLES: &str = "opens files by handle, past every path check";
const CLOCKS: &str = "sets the clocks of the host";
const ACCOUNTS: &str = "host-wide accounting, quota or swap";
const DISKS: &str = "waits until whole file systems are on their disks, the host's and everybody's among them";
const LEGACY: &str = "obsolete, kept only for old programs, and a source of kernel bugs";

const NAMESPACE_FLAGS: [libc::c_int; 8] = [
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWCGROUP,
    0x80, // CLONE_NEWTIME
];

/// The table.
fn table() -> Vec<Line> {
    let mut table = always();
    table.extend(sometimes());
    table.extend(on_this_architecture());
    table
}

fn always() -> Vec<Line> {
    let groups: [(&str, &[libc::c_long]); 10] = [
        (
            KERNEL,
            &[
                libc::SYS_kexec_load,
                libc::SYS_init_module,
                libc::SYS_finit_module,
                libc::SYS_delete_module,
                libc::SYS_bpf,
            ],
        ),
        (KERNEL, &[libc::SYS_reboot, libc::SYS_syslog, libc::SYS_perf_event_open, libc::SYS_vhangup]),
        (
            MOUNTS,
            &[
                libc::SYS_mount,
                libc::SYS_umount2,
                libc::SYS_move_mount,
                libc::SYS_fsopen,
                libc::SYS_fsconfig,
                libc::SYS_fsmount,
            ],
        ),
        (
            MOUNTS,
            &[libc::SYS_fspick, libc::SYS_open_tree, libc::SYS_mount_setattr, libc::SYS_pivot_root, libc::SYS_chroot],
        ),
        (
            SURFACE,
            &[libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register, libc::SYS_userfaultfd],
        ),
        (
            SURFACE,
            &[
                libc::SYS_memfd_secret,
                libc::SYS_fanotify_init,
                libc::SYS_fanotify_mark,
                libc::SYS_vmsplice,
                libc::SYS_remap_file_pages,
            ],
        ),
        (
            OTHERS,
            &[libc::SYS_ptrace, libc::SYS_process_vm_readv, libc::SYS_process_vm_writev, libc::SYS_process_madvise],
        ),
        (
            OTHERS,
            &[
                libc::SYS_kcmp,
                libc::SYS_pidfd_getfd,
                libc::SYS_process_mrelease,
                libc::SYS_migrate_pages,
                libc::SYS_move_pages,
            ],
        ),
        (KEYS, &[libc::SYS_keyctl, libc::SYS_add_key, libc::SYS_request_key]),
        (ACCOUNTS, &[libc::SYS_swapon, libc::SYS_swapoff, libc::SYS_acct, libc::SYS_quotactl, libc::SYS_quotactl_fd]),
    ];
    let more: [(&str, &[libc::c_long]); 5] = [
        (NAMESPACES, &[libc::SYS_setns]),
        (HANDLES, &[libc::SYS_open_by_handle_at, libc::SYS_name_to_handle_at]),
        (CLOCKS, &[libc::SYS_settimeofday, libc::SYS_clock_settime, libc::SYS_clock_adjtime, libc::SYS_adjtimex]),
        (DISKS, &[libc::SYS_sync]),
        (LEGACY, &[libc::SYS_nfsservctl, libc::SYS_lookup_dcookie]),
    ];
    let lines =
        groups.iter().chain(&more).flat_map(|(reason, calls)| calls.iter().map(|call| (*call, When::Always, *reason)));
    lines.collect()
}

fn masked(argument: u8, mask: u32, value: u32) -> Vec<Test> {
    vec![Test::Masked { argument, mask, value }]
}

/// Cases in which an argument says that a device node is made.
fn device(argument: u8) -> When {
    When::Cases([libc::S_IFBLK, libc::S_IFCHR].map(|kind| masked(argument, libc::S_IFMT, kind)).to_vec())
}

fn sometimes() -> Vec<Line> {
    let bits = |argument: u8| -> When {
        let flags = NAMESPACE_FLAGS.map(i32::unsigned_abs);
        When::Cases(flags.map(|flag| masked(argument, flag, flag)).to_vec())
    };
    let unix = number(libc::AF_UNIX);
    let netlink = number(libc::AF_NETLINK);
    let families = [unix, number(libc::AF_INET), number(libc::AF_INET6), netlink];
    let kind = |value| Test::Masked { argument: 1, mask: 0xf, value };
    let sockets = vec![
        families.map(|family| Test::Differs(0, family)).to_vec(),
        vec![Test::Equal(0, netlink), Test::Differs(2, 0)],
        vec![Test::Differs(0, netlink), kind(number(libc::SOCK_RAW))],
        vec![kind(10)],
    ];
    let personalities = [0, 0x8, 0x2_0000, 0x2_0008, 0x4_0000, 0xffff_ffff];
    vec![
        (libc::SYS_clone, bits(0), NAMESPACES),
        (libc::SYS_unshare, bits(0), NAMESPACES),
        (libc::SYS_mknodat, device(2), "makes a device node"),
        (
            libc::SYS_socket,
            When::Cases(sockets),
            "families that the network namespace does not contain, and raw sockets",
        ),
        (libc::SYS_socketpair, When::Cases(vec![vec![Test::Differs(0, unix)]]), "only local pairs have a use"),
        (libc::SYS_ioctl, When::Cases(requests()), REQUESTS),
        (
            libc::SYS_personality,
            When::Cases(vec![personalities.map(|value| Test::Differs(0, value)).to_vec()]),
            "weakens memory protection",
        ),
        (libc::SYS_prlimit64, When::Cases(vec![vec![Test::Differs(0, 0), Test::Given(2)]]), "would starve PID 1"),
    ]
}

const REQUESTS: &str =
    "puts words into another program's terminal, loads a line discipline, or makes a subvolume that no quota counts";

/// The requests of `ioctl` that are refused.
fn requests() -> Vec<Vec<Test>> {
    // TIOCSTI types into a terminal, TIOCLINUX pastes into a console, TIOCCONS takes the console over, and TIOCSETD makes
    // the kernel load a line discipline: old drivers that nobody here needs.
    let terminals = [0x5412, 0x541c, 0x541d, 0x5423].map(|request| vec![Test::Equal(1, request)]);
    // Everything of btrfs but what all file systems share by its numbers: FICLONE, FICLONERANGE, FIDEDUPERANGE.
    let shared = [0x4004_9409, 0x4020_940d, 0xc018_9436].map(|request| Test::Differs(1, request));
    let btrfs = masked(1, 0xff00, 0x9400).into_iter().chain(shared).collect();
    terminals.into_iter().chain([btrfs]).collect()
}

fn number(value: libc::c_int) -> u32 {
    value.unsigned_abs()
}

#[cfg(target_arch = "x86_64")]
fn on_this_architecture() -> Vec<Line> {
    let always: [(libc::c_long, &str); 8] = [
        (libc::SYS_kexec_file_load, KERNEL),
        (libc::SYS_iopl, "reaches the machine's ports"),
        (libc::SYS_ioperm, "reaches the machine's ports"),
        (libc::SYS_modify_ldt, LEGACY),
        (libc::SYS_uselib, LEGACY),
        (libc::SYS__sysctl, LEGACY),
        (libc::SYS_ustat, LEGACY),
        (libc::SYS_sysfs, LEGACY),
    ];
    let mut lines: Vec<Line> = always.into_iter().map(|(call, reason)| (call, When::Always, reason)).collect();
    lines.push((libc::SYS_mknod, device(1), "makes a device node"));
    lines
}

#[cfg(not(target_arch = "x86_64"))]
fn on_this_architecture() -> Vec<Line> {
    vec![(libc::SYS_kexec_file_load, When::Always, KERNEL)]
}

impl Filters {
    /// Compiles the table. Refuses with `ENOSYS` the numbers beyond those that are known, with them the x32 interface's
    /// (bit 30), and `clone3`, so that the C library falls back to `clone`.
    pub(crate) fn build() -> Result<Self, String> {
        let foreign = |call: libc::c_long| format!("{call} is no number of a call");
        let (mut early, mut late) = (BTreeMap::new(), BTreeMap::new());
        for (call, when, reason) in table() {
            let rules = if reason == MOUNTS { &mut late } else { &mut early };
            rules.insert(u32::try_from(call).map_err(|_| foreign(call))?, (when, refusal(libc::EPERM)));
        }
        let clone3 = u32::try_from(libc::SYS_clone3).map_err(|_| foreign(libc::SYS_clone3))?;
        early.insert(clone3, (When::Always, refusal(libc::ENOSYS)));
        let assemble = |rules| decision::assemble(rules, NUMBER_MAX, refusal(libc::ENOSYS));
        Ok(Self { early: assemble(&early)?, late: assemble(&late)?, programs: guest::Filter::new(programs()) })
    }

    /// Installs both filters for this process and all it starts. `no_new_privileges` must be set.
    pub(crate) fn install(&self) -> Result<(), String> {
        self.install_early().and_then(|()| self.install_late())
    }

    /// Installs all that a first process can do with while it is not anybody's yet.
    pub(crate) fn install_early(&self) -> Result<(), String> {
        Self::apply(&self.early)
    }

    /// Installs what is left after [`Filters::install_early`].
    pub(crate) fn install_late(&self) -> Result<(), String> {
        Self::apply(&self.late)
    }

    fn apply(program: &BpfProgram) -> Result<(), String> {
        if down::is_down(Wall::Seccomp) {
            return Ok(());
        }
        seccompiler::apply_filter(program).map_err(|error| error.to_string())
    }

    /// What every program is restricted by before it runs.
    pub(crate) fn of_programs(&self) -> Option<guest::Filter> {
        (!down::is_down(Wall::Seccomp)).then(|| self.programs.clone())
    }
}

/// What PID 1 may do and no program: its reason stands in [`DISKS`].
const PROGRAMS: [libc::c_long; 1] = [libc::SYS_syncfs];

/// The last call that somebody has looked at (`mseal`). What kernels add after it is missing here until it is looked at, too:
/// programs then fall back to what they did before.
const NUMBER_MAX: u32 = 462;

const LOAD_NUMBER: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const IF_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

/// The filter of programs, as the kernel takes it. Other doors than this architecture's are shut by the other filters.
fn programs() -> Vec<guest::Instruction> {
    let line = |code, jt, jf, k| guest::Instruction { code, jt, jf, k };
    let refused = refusal(libc::EPERM);
    let mut lines = vec![line(LOAD_NUMBER, 0, 0, 0)];
    for call in PROGRAMS {
        lines.push(line(IF_EQUAL, 0, 1, u32::try_from(call).unwrap_or(u32::MAX)));
        lines.push(line(RETURN, 0, 0, refused));
    }
    lines.push(line(RETURN, 0, 0, ALLOW));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_is_refused_once_and_has_a_reason() {
        let mut seen = std::collections::BTreeSet::new();
        for (call, when, reason) in table() {
            assert!(seen.insert(call), "call {call} stands twice");
            assert!(!reason.is_empty(), "call {call} has no reason");
            if let When::Cases(cases) = when {
                assert!(cases.iter().all(|case| !case.is_empty()), "call {call} has an empty case");
            }
        }
        assert!(seen.len() >= 60, "{} calls", seen.len());
        Filters::build().unwrap();
    }

    /// The golden file says for every refused call why; it and the table can't drift apart.
    #[cfg(target_arch = "x86_64")]
    #[test]
    fn the_golden_file_tells_every_reason() {
        let golden = include_str!("../tests/hostile/syscalls.x86_64.txt");
        let told: BTreeMap<i64, (&str, &str)> = golden
            .lines()
            .filter(|line| !line.starts_with('#') && line.contains(" | "))
            .map(|line| {
                let (call, reason) = line.split_once(" | ").unwrap();
                let mut words = call.split_ascii_whitespace();
                let number = words.next().unwrap().parse().unwrap();
                (number, (words.nth(1).unwrap(), reason))
            })
            .collect();
        for (call, when, reason) in table() {
            let (verdict, told) = told.get(&call).unwrap_or_else(|| panic!("call {call} is not in the golden file"));
            assert_eq!(*told, reason, "call {call}");
            assert!(*verdict == "EPERM" || matches!(when, When::Cases(_)), "call {call} is refused with {verdict}");
        }
        for call in PROGRAMS {
            assert_eq!(told.get(&call), Some(&("EPERM", DISKS)), "call {call}");
        }
        let count = table().len() + PROGRAMS.len() + 1; // clone3
        assert_eq!(told.len(), count, "a reason for what is not refused");
    }
}
