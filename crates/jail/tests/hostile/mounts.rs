//! Behaviour 12: changing what is mounted where, as who one is and as root of namespaces of one's own. Walls: seccomp, Landlock
//! (which refuses every change of mounts), and no further user namespaces, without which there is no root to become.

use super::attempts::{Attempt, Control, hold, told};
use super::raw::{at, call_with, gain};
use crate::support::{World, sh};
use std::sync::Arc;

const WALLS: &[&str] = &["seccomp", "landlock", "user_namespace_limit"];
/// Landlock says nothing of these.
const UNSEEN: &[&str] = &["seccomp", "user_namespace_limit"];

const fn row(name: &'static str, act: fn(&[String]) -> String, walls: &'static [&'static str]) -> Attempt {
    Attempt { name, act, arguments: &[], held: "EPERM", walls, control: Control::Plain }
}

const TREE_CLONE: i64 = 1;
const CWD: i64 = libc::AT_FDCWD as i64;

fn mount_tmpfs() -> Result<i64, i32> {
    call_with(libc::SYS_mount, [at(c"none"), at(c"/tmp"), at(c"tmpfs"), 0, 0])
}

pub(crate) const ATTEMPTS: &[Attempt] = &[
    row(
        "mount",
        |_| {
            gain();
            told(mount_tmpfs())
        },
        WALLS,
    ),
    row(
        "umount2",
        |_| {
            gain();
            let _ = mount_tmpfs();
            told(call_with(libc::SYS_umount2, [at(c"/tmp"), i64::from(libc::MNT_DETACH)]))
        },
        WALLS,
    ),
    row(
        "bind",
        |_| {
            gain();
            told(call_with(
                libc::SYS_mount,
                [at(c"/usr"), at(c"/tmp"), 0, i64::try_from(libc::MS_BIND).unwrap_or(0), 0],
            ))
        },
        WALLS,
    ),
    row(
        "fsopen",
        |_| {
            gain();
            told(call_with(libc::SYS_fsopen, [at(c"tmpfs"), 0]))
        },
        UNSEEN,
    ),
    row(
        "open_tree",
        |_| {
            gain();
            told(call_with(libc::SYS_open_tree, [CWD, at(c"/usr"), TREE_CLONE]))
        },
        UNSEEN,
    ),
    row(
        "move_mount",
        |_| {
            gain();
            let tree = call_with(libc::SYS_open_tree, [CWD, at(c"/usr"), TREE_CLONE]).unwrap_or(-1);
            const EMPTY_PATH: i64 = 4;
            told(call_with(libc::SYS_move_mount, [tree, at(c""), CWD, at(c"/tmp"), EMPTY_PATH]))
        },
        WALLS,
    ),
    row(
        "mount_setattr",
        |_| {
            gain();
            let tree = call_with(libc::SYS_open_tree, [CWD, at(c"/usr"), TREE_CLONE]).unwrap_or(-1);
            let attributes = [8_u64, 0, 0, 0]; // MOUNT_ATTR_NOEXEC
            told(call_with(libc::SYS_mount_setattr, [tree, at(c""), 0x1000, at(&attributes), 32]))
        },
        UNSEEN,
    ),
    row(
        "pivot_root",
        |_| {
            gain();
            let _ = mount_tmpfs();
            let _ = std::env::set_current_dir("/tmp");
            told(call_with(libc::SYS_pivot_root, [at(c"."), at(c".")]))
        },
        WALLS,
    ),
    row(
        "chroot",
        |_| {
            gain();
            told(call_with(libc::SYS_chroot, [at(c"/tmp")]))
        },
        UNSEEN,
    ),
];

pub(crate) async fn nothing_can_be_mounted(world: Arc<World>) {
    hold(&world, ATTEMPTS, &[], &[]).await;
    // Walking up leads nowhere: the root is the root.
    let sandbox = world.sandbox().await;
    let walked =
        sh(&sandbox, "stat -c %d:%i /; cd /; for i in 1 2 3 4 5 6 7 8 9; do cd ..; done; stat -c %d:%i .").await.out;
    let lines: Vec<&str> = walked.lines().collect();
    assert_eq!(lines[0], lines[1]);
    sandbox.close().await;
}
