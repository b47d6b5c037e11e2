//! Behaviour 16: device nodes, made or found. Walls: seccomp refuses making them, Landlock too, and nobody inside has the
//! capability; `/dev` holds harmless ones only.

use super::attempts::{Attempt, Control, hold, io, told};
use super::raw::{at, call_with};
use crate::support::{World, sh};
use sandbox::Exit;
use std::sync::Arc;

const CWD: i64 = libc::AT_FDCWD as i64;

fn node(arguments: &[String]) -> String {
    let (kind, device): (i64, i64) = (arguments[0].parse().unwrap(), arguments[1].parse().unwrap());
    told(call_with(libc::SYS_mknodat, [CWD, at(c"node"), kind | 0o600, device]))
}

fn open(arguments: &[String]) -> String {
    io(std::fs::File::open(&arguments[0]))
}

const fn made(name: &'static str, arguments: &'static [&'static str]) -> Attempt {
    Attempt { name, act: node, arguments, held: "EPERM", walls: &[], control: Control::Root }
}

const fn found(name: &'static str, arguments: &'static [&'static str], control: Control) -> Attempt {
    Attempt { name, act: open, arguments, held: "ENOENT", walls: &[], control }
}

pub(crate) const ATTEMPTS: &[Attempt] = &[
    // S_IFCHR and 1:3, the null device; S_IFBLK and 7:0, the first loop device.
    made("make a character device", &["8192", "259"]),
    made("make a block device", &["24576", "1792"]),
    Attempt {
        name: "make a FIFO",
        act: node,
        arguments: &["4096", "0"],
        held: super::attempts::WORKED,
        walls: &[],
        control: Control::Plain,
    },
    found("open the kernel's log", &["/dev/kmsg"], Control::Root),
    found("open loop devices", &["/dev/loop-control"], Control::Root),
    found("open memory", &["/dev/mem"], Control::Machine),
    found("open virtual machines", &["/dev/kvm"], Control::Machine),
    found("open FUSE", &["/dev/fuse"], Control::Machine),
    found("open tunnels", &["/dev/net/tun"], Control::Machine),
    found("open the disk", &["/dev/vda"], Control::Machine),
    found("open the console", &["/dev/console"], Control::Machine),
];

pub(crate) async fn only_harmless_devices(world: Arc<World>) {
    hold(&world, ATTEMPTS, &[], &[]).await;
    let sandbox = world.sandbox().await;
    let devices = sh(&sandbox, "for f in /dev/* /dev/pts/*; do [ -L $f ] || printf '%s ' $f; done").await.out;
    assert_eq!(
        devices,
        "/dev/full /dev/null /dev/pts /dev/random /dev/shm /dev/tty /dev/urandom /dev/zero /dev/pts/ptmx "
    );
    assert_ne!(sh(&sandbox, "touch /dev/new").await.exit, Exit::Code(0));
    assert_eq!(sh(&sandbox, "echo x > /dev/full").await.exit, Exit::Code(1));
    sandbox.close().await;
}
