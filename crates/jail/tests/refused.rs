//! What a kernel refuses: for each wall a sandbox is asked for where the kernel does not give it. By default nothing starts and the
//! wall is named; a policy that does without it gets a sandbox whose record says so, unless nothing could be built without it. The
//! kernel is made to refuse by a filter of system calls around the whole harness, or by a user namespace that may have no more of
//! a kind.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a test with a main of its own is a test"
)]
#![expect(unsafe_code, reason = "stepping down to another user and into a namespace has no safe wrapper")]

mod support;

use sandbox::{Error, Exit, Provider as _, Start};
use seccompiler::{
    SeccompAction, SeccompCmpArgLen as Length, SeccompCmpOp as Op, SeccompCondition, SeccompFilter, SeccompRule,
};
use std::process::ExitCode;
use std::sync::Arc;
use support::{World, new_id, sh};

/// Nobody on any machine this runs on.
const USER: u32 = 12_345;
const MODE: &str = "--refuse=";
const LEAST: &str = "--least";
const LIMITS: [&str; 3] = ["memory_limit", "process_limit", "cpu_limit"];

/// How the kernel is made to refuse.
#[derive(Clone, Copy)]
enum Refusal {
    /// These calls, each always or with this value of an argument.
    Calls(&'static [(libc::c_long, Option<(u8, u64)>)]),
    /// No more namespaces of this kind.
    Namespaces(&'static str),
    /// No group can be made: nothing was delegated.
    Groups,
}

/// What comes of it where the policy does without the wall.
#[derive(Clone, Copy)]
enum Then {
    Starts,
    /// This wall is still asked for.
    Refuses(&'static str),
}

use Refusal::{Calls, Groups, Namespaces};
use Then::{Refuses, Starts};

/// Every wall that a policy can name.
const ROWS: &[(&str, Refusal, Then)] = &[
    ("user_namespace", Namespaces("user"), Refuses("user_namespace")),
    ("mount_namespace", Namespaces("mnt"), Refuses("mount_namespace")),
    ("pid_namespace", Namespaces("pid"), Refuses("pid_namespace")),
    ("network_namespace", Namespaces("net"), Starts),
    ("ipc_namespace", Namespaces("ipc"), Starts),
    ("uts_namespace", Namespaces("uts"), Starts),
    ("cgroup_namespace", Namespaces("cgroup"), Starts),
    ("private_root", Calls(&[(libc::SYS_pivot_root, None)]), Refuses("private_root")),
    // The request that gives a loop device its file.
    ("workspace_limit", Calls(&[(libc::SYS_ioctl, Some((1, 0x4c0a)))]), Refuses("workspace_limit")),
    ("capabilities", Calls(&[(libc::SYS_capset, None)]), Starts),
    // Landlock asks for it again.
    ("no_new_privileges", Calls(&[(libc::SYS_prctl, Some((0, 38)))]), Refuses("landlock")),
    ("seccomp", Calls(&[(libc::SYS_seccomp, None), (libc::SYS_prctl, Some((0, 22)))]), Starts),
    ("landlock", Calls(&[(libc::SYS_landlock_create_ruleset, None)]), Starts),
    ("memory_limit", Groups, Starts),
    ("process_limit", Groups, Starts),
    ("cpu_limit", Groups, Starts),
    // Whose workspace is in memory has no device to limit.
    ("io_limit", Groups, Starts),
];

fn main() -> ExitCode {
    let wall = std::env::args().find_map(|argument| Some(argument.strip_prefix(MODE)?.to_owned()));
    if let Some(wall) = wall {
        let row = ROWS.iter().find(|(name, ..)| *name == wall).unwrap();
        let data = tempfile::tempdir().unwrap();
        refuse(row.1, data.path());
        let launcher = jail::launch().unwrap();
        return support::run(launcher, data.path(), cases![it_is_named_and_a_policy_can_do_without]);
    }
    if std::env::args().any(|argument| argument == LEAST) {
        let data = tempfile::tempdir().unwrap();
        let launcher = jail::launch().unwrap();
        return support::run(launcher, data.path(), cases![below_the_least_version_nothing_starts]);
    }
    if !rustix::process::geteuid().is_root() {
        support::skip("refused", "only root can make this kernel refuse each of them");
        return ExitCode::SUCCESS;
    }
    let mut all = ExitCode::SUCCESS;
    println!("below the least version of Landlock:");
    if support::again(&[LEAST], &[]) != ExitCode::SUCCESS {
        all = ExitCode::FAILURE;
    }
    for (wall, ..) in ROWS {
        println!("without {wall}:");
        if support::again(&[&format!("{MODE}{wall}")], &[]) != ExitCode::SUCCESS {
            all = ExitCode::FAILURE;
        }
    }
    all
}

/// Makes the kernel refuse for this process and all it starts.
fn refuse(refusal: Refusal, data: &std::path::Path) {
    if matches!(refusal, Namespaces(_) | Groups) {
        std::os::unix::fs::chown(data, Some(USER), Some(USER)).unwrap();
        step_down();
    }
    match refusal {
        Groups => {}
        Namespaces(kind) => {
            // SAFETY: this process has one thread, and a namespace of its own touches no memory.
            assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWUSER) }, 0, "a user namespace");
            std::fs::write("/proc/self/setgroups", "deny").unwrap();
            for map in ["uid_map", "gid_map"] {
                std::fs::write(format!("/proc/self/{map}"), format!("{USER} {USER} 1")).unwrap();
            }
            std::fs::write(format!("/proc/sys/user/max_{kind}_namespaces"), "0").unwrap();
        }
        Calls(calls) => {
            let rule = |at: &Option<(u8, u64)>| {
                at.iter()
                    .map(|(argument, value)| {
                        let is_it = SeccompCondition::new(*argument, Length::Dword, Op::Eq, *value).unwrap();
                        SeccompRule::new(vec![is_it]).unwrap()
                    })
                    .collect::<Vec<_>>()
            };
            let rules = calls.iter().map(|(call, at)| (*call, rule(at))).collect();
            let refused = SeccompAction::Errno(u32::try_from(libc::EPERM).unwrap());
            let arch = std::env::consts::ARCH.try_into().unwrap();
            let filter = SeccompFilter::new(rules, SeccompAction::Allow, refused, arch).unwrap();
            let filter: seccompiler::BpfProgram = filter.try_into().unwrap();
            seccompiler::apply_filter(&filter).unwrap();
        }
    }
}

fn step_down() {
    // SAFETY: this process has one thread, and changing its credentials touches no memory.
    let done = unsafe {
        libc::setgroups(0, std::ptr::null()) | libc::setresgid(USER, USER, USER) | libc::setresuid(USER, USER, USER)
    };
    assert_eq!(done, 0, "stepping down");
    // Who starts as this user is dumpable; who steps down to it must say so.
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::Dumpable).unwrap();
}

async fn it_is_named_and_a_policy_can_do_without(world: Arc<World>) {
    let wall = std::env::args().find_map(|argument| Some(argument.strip_prefix(MODE)?.to_owned())).unwrap();
    let (_, refusal, then) = ROWS.iter().find(|(name, ..)| *name == wall).unwrap();
    let optional = |more: Option<&str>| {
        // Where nothing was delegated the other limits are missing, too.
        let limits = LIMITS.into_iter().filter(|limit| !matches!(refusal, Calls(_)) && *limit != wall);
        limits.chain(more).map(str::to_owned).collect::<Vec<_>>()
    };
    let mut spec = world.spec(world.session(Start::Fresh, new_id()));
    spec.walls_optional = optional(None);
    if wall == "io_limit" {
        spec.limits.io_bytes_per_second_max = 1 << 20;
    }
    let refused = world.provider.create(spec.clone()).await;
    assert!(matches!(&refused, Err(Error::Wall { wall: named, .. }) if *named == wall), "{wall}: {refused:?}");
    spec.workspace = world.session(Start::Fresh, new_id());
    spec.walls_optional = optional(Some(&wall));
    // Who may do without Landlock but asks for a version of it does not do without it.
    if wall == "landlock" {
        let least = sandbox::Spec { landlock_version_min: 2, ..spec.clone() };
        let refused = world.provider.create(least).await.unwrap_err();
        assert!(refused.code() == "sandbox_wall" && refused.to_string().contains("version 0 of Landlock"), "{refused}");
    }
    match (then, world.provider.create(spec).await) {
        (Starts, Ok(sandbox)) => {
            let walls = sandbox.walls();
            assert!(walls.missing.contains(&wall) && !walls.standing.contains(&wall), "{wall}: {walls:?}");
            assert_eq!(walls.landlock_version == 0, wall == "landlock", "{walls:?}");
            assert_eq!(sh(&sandbox, "true").await.exit, Exit::Code(0), "{wall}");
            sandbox.close().await;
        }
        (Refuses(by), Err(Error::Wall { wall: named, .. })) if named == *by => {}
        (_, got) => panic!("{wall}, done without: {got:?}"),
    }
}

/// A policy may ask for more than this kernel has; there is no older one at hand.
async fn below_the_least_version_nothing_starts(world: Arc<World>) {
    let mut spec = world.spec(world.session(Start::Fresh, new_id()));
    let sandbox = world.provider.create(spec.clone()).await.unwrap();
    let found = sandbox.walls().landlock_version;
    sandbox.close().await;
    for optional in [&[][..], &["landlock"]] {
        spec.walls_optional = optional.iter().map(|&wall| wall.to_owned()).collect();
        for (min, starts) in [(0, true), (1, true), (found, true), (found + 1, false), (u32::MAX, false)] {
            spec.workspace = world.session(Start::Fresh, new_id());
            spec.landlock_version_min = min;
            match world.provider.create(spec.clone()).await {
                Ok(sandbox) => {
                    assert!(starts, "{min} where {found} is found");
                    assert_eq!(sandbox.walls().landlock_version, found);
                    sandbox.close().await;
                }
                Err(Error::Wall { wall, detail, .. }) => {
                    let told = format!("version {found} of Landlock is found, landlock_version_min = {min}");
                    assert!(!starts && wall == "landlock" && detail == told, "{min}: {detail}");
                }
                Err(error) => panic!("{min}: {error}"),
            }
        }
    }
}
