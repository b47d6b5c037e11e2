//! Behaviour 15: programs that make whoever runs them somebody else. Walls: no new privileges, mounts that honour no set-uid
//! bit, and a user namespace in which root is nobody.

use super::attempts::{Attempt, Control, hold, told};
use super::raw::{at, call_with};
use crate::support::{World, command, finish, sh};
use sandbox::{Bind, Provider as _, Workspace};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt as _;
use std::sync::Arc;

pub(crate) const ATTEMPTS: &[Attempt] = &[
    Attempt {
        name: "give a file capabilities",
        act: |_| {
            std::fs::write("program", "").unwrap();
            let capabilities = [0x0200_0001_u32, u32::MAX, 0, 0x1ff, 0];
            told(call_with(libc::SYS_setxattr, [at(c"program"), at(c"security.capability"), at(&capabilities), 20, 0]))
        },
        arguments: &[],
        held: "EPERM",
        walls: &[],
        control: Control::Root,
    },
    Attempt {
        name: "become root",
        act: |_| told(call_with(libc::SYS_setuid, [0])),
        arguments: &[],
        held: "EINVAL",
        walls: &[],
        control: Control::Root,
    },
    Attempt {
        name: "give a file away",
        act: |_| {
            std::fs::write("gift", "").unwrap();
            told(call_with(libc::SYS_fchownat, [i64::from(libc::AT_FDCWD), at(c"gift"), 0, 0, 0]))
        },
        arguments: &[],
        held: "EINVAL",
        walls: &[],
        control: Control::Root,
    },
];

pub(crate) async fn nobody_becomes_somebody_else(world: Arc<World>) {
    hold(&world, ATTEMPTS, &[], &[]).await;
    let sandbox = world.sandbox().await;
    let status = sh(&sandbox, "grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status | tr -s '\\t ' ' '").await.out;
    let none = "0000000000000000";
    let expected = format!(
        "CapInh: {none}\nCapPrm: {none}\nCapEff: {none}\nCapBnd: {none}\nCapAmb: {none}\nNoNewPrivs: 1\nSeccomp: 2\n"
    );
    assert_eq!(status, expected);
    // What is set-uid outside is ordinary here.
    let got = sh(&sandbox, "su -c id; sudo -n id; ping -c1 127.0.0.1").await;
    assert!(!got.out.contains("uid=0"), "{}", got.out);
    for (limit, value) in [("c", "0"), ("n", "1024")] {
        assert_eq!(sh(&sandbox, &format!("ulimit -H -{limit}")).await.out.trim(), value);
    }
    let walls = sandbox.walls();
    assert!(walls.missing.is_empty(), "{walls:?}");
    assert_eq!(walls.standing.len(), 16, "{walls:?}");
    const VERSION: i64 = 1;
    let version = call_with(libc::SYS_landlock_create_ruleset, [0, 0, VERSION]).unwrap();
    assert_eq!(i64::from(walls.landlock_version), version.min(6), "the newest that is made use of");
    sandbox.close().await;
}

/// A program that is set-uid root outside, shown inside.
pub(crate) async fn a_program_of_roots_is_an_ordinary_one(world: Arc<World>) {
    if !world.root {
        // Only root can make one; root's run of this suite does.
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let program = directory.path().join("id");
    std::fs::copy("/usr/bin/id", &program).unwrap();
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o4755)).unwrap();
    let outside = std::process::Command::new(&program).arg("-u").uid(12_346).gid(12_346).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&outside.stdout), "0\n", "it makes root of anybody outside");
    let mut spec = world.spec(Workspace::Scratch);
    spec.binds.push(Bind { host: program, inside: "/attack/id".to_owned() });
    let sandbox = world.provider.create(spec).await.unwrap();
    let mut process = sandbox.start(command(&["/attack/id", "-u"])).await.unwrap();
    assert_eq!(finish(process.as_mut()).await.unwrap().out, "1000\n");
    sandbox.close().await;
}
