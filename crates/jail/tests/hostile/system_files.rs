//! Behaviours 17 to 19: what the kernel tells and takes through files: `/proc`, `/sys`, groups. Walls: a process list of its
//! own with masks over what tells of the host, `/proc/sys` read-only, no `/sys` at all; one's own program is read-only.

use super::attempts::{Attempt, Control, WORKED, hold, inside, io, outside, told};
use super::raw::{at, call_with, gain};
use crate::support::{World, children_named, sh};
use std::io::Read as _;
use std::sync::Arc;

/// Reads something; an empty file tells nothing.
fn read(arguments: &[String]) -> String {
    let mut bytes = [0; 16];
    match std::fs::File::open(&arguments[0]).and_then(|mut file| file.read(&mut bytes)) {
        Ok(0) => "empty".to_owned(),
        got => io(got),
    }
}

/// Opens for writing, and writes nothing.
fn write(arguments: &[String]) -> String {
    io(std::fs::OpenOptions::new().write(true).open(&arguments[0]))
}

const fn masked(name: &'static str, arguments: &'static [&'static str], control: Control) -> Attempt {
    let walls: &[&str] = if matches!(control, Control::Machine) { &[] } else { &["masks"] };
    Attempt { name, act: read, arguments, held: "empty", walls, control }
}

const fn absent(name: &'static str, arguments: &'static [&'static str], control: Control) -> Attempt {
    Attempt { name, act: read, arguments, held: "ENOENT", walls: &[], control }
}

const fn written(name: &'static str, arguments: &'static [&'static str], control: Control) -> Attempt {
    Attempt { name, act: write, arguments, held: "EACCES", walls: &[], control }
}

pub(crate) const ATTEMPTS: &[Attempt] = &[
    masked("the kernel's command line", &["/proc/cmdline"], Control::Plain),
    masked("the kernel's symbols", &["/proc/kallsyms"], Control::Plain),
    masked("partitions", &["/proc/partitions"], Control::PlainOr("empty")),
    masked("disks", &["/proc/diskstats"], Control::Plain),
    masked("interrupts", &["/proc/interrupts"], Control::Plain),
    masked("locks of others", &["/proc/locks"], Control::Machine),
    masked("keys", &["/proc/keys"], Control::Machine),
    masked("input and output ports", &["/proc/ioports"], Control::Plain),
    masked("memory of the machine", &["/proc/iomem"], Control::Plain),
    masked("drivers", &["/proc/devices"], Control::Plain),
    absent("the system tree", &["/sys/kernel/uevent_seqnum"], Control::Plain),
    absent("groups", &["/sys/fs/cgroup/pids/tasks"], Control::Machine),
    absent("the debug tree", &["/sys/kernel/debug"], Control::Machine),
    absent("file systems of the kernel", &["/proc/fs/ext4"], Control::Machine),
    written("core_pattern", &["/proc/sys/kernel/core_pattern"], Control::Root),
    written("modprobe", &["/proc/sys/kernel/randomize_va_space"], Control::Root),
    written("overcommit", &["/proc/sys/vm/overcommit_memory"], Control::Root),
    written("host name", &["/proc/sys/kernel/hostname"], Control::Root),
    written("user namespaces", &["/proc/sys/user/max_user_namespaces"], Control::Machine),
    Attempt {
        name: "groups of one's own",
        act: |_| {
            gain();
            told(call_with(libc::SYS_mount, [at(c"none"), at(c"/tmp"), at(c"cgroup2"), 0, 0]))
        },
        arguments: &[],
        held: "EPERM",
        walls: &["seccomp", "landlock", "user_namespace_limit"],
        control: Control::Plain,
    },
];

/// A process outside; its number comes from outside, too.
pub(crate) const OUTSIDERS: &[Attempt] = &[
    Attempt {
        name: "signal an outsider",
        act: |arguments| {
            let outsider: i64 = arguments[0].parse().unwrap();
            told(call_with(libc::SYS_kill, [outsider, 0]))
        },
        arguments: &[],
        held: "ESRCH",
        walls: &[],
        control: Control::Plain,
    },
    Attempt {
        name: "look at an outsider",
        act: |arguments| io(std::fs::metadata(format!("/proc/{}", arguments[0]))),
        arguments: &[],
        held: "ENOENT",
        walls: &[],
        control: Control::Plain,
    },
];

/// A file that stands outside and is shown inside; its path comes from outside.
pub(crate) const SHOWN: &[Attempt] = &[Attempt {
    name: "write what is shown",
    act: write,
    arguments: &[],
    held: "EROFS",
    walls: &[],
    control: Control::Plain,
}];

pub(crate) async fn the_kernels_files_tell_and_take_nothing(world: Arc<World>) {
    hold(&world, ATTEMPTS, &[], &[]).await;
    let mut other = super::Other::start();
    hold(&world, OUTSIDERS, &[&other.id()], &[&other.id()]).await;
    other.end();
    let sandbox = world.sandbox().await;
    let seen = sh(&sandbox, "ls /proc | grep -E '^[0-9]+$' | wc -l").await.out;
    assert!(seen.trim().parse::<u32>().unwrap() < 8, "{seen}");
    // The pressed key would only reach the null device, where the kernel has it at all.
    let key = sh(&sandbox, "stat -c %t:%T /proc/sysrq-trigger 2>/dev/null").await.out;
    assert!(key == "1:3\n" || !std::path::Path::new("/proc/sysrq-trigger").exists(), "{key}");
    assert_eq!(sh(&sandbox, "cut -d: -f3 /proc/self/cgroup | sort -u").await.out, "/\n");
    sandbox.close().await;
}

/// Overwriting the program that runs it (as CVE-2019-5736 did), by its path and by the kernel's link to it.
pub(crate) async fn no_program_of_the_host_is_changed(world: Arc<World>) {
    let own = std::env::current_exe().unwrap();
    let digest = |bytes: Vec<u8>| {
        bytes.iter().fold((0_u64, 0_u64), |(sum, mixed), byte| {
            let sum = sum.wrapping_add(u64::from(*byte));
            (sum, mixed.wrapping_mul(31).wrapping_add(sum))
        })
    };
    let before = digest(std::fs::read(&own).unwrap());
    let sandbox = world.sandbox().await;
    for path in [super::attempts::PROGRAM, "/proc/self/exe", "/usr/bin/id", "/etc/passwd"] {
        let got = inside(&sandbox, SHOWN[0].name, &[path]).await;
        // Whoever runs is busy before it is read-only; what root owns is refused before either is looked at.
        assert!(["EROFS", "ETXTBSY", "EACCES"].contains(&got.as_str()), "{path}: {got}");
    }
    sandbox.close().await;
    assert_eq!(before, digest(std::fs::read(&own).unwrap()));
    let planted = world.data.join("planted");
    std::fs::write(&planted, "text").unwrap();
    assert_eq!(outside(SHOWN[0].name, &[planted.to_str().unwrap()]), WORKED);
    assert_eq!(children_named("topside-launch").len(), 1);
}
