//! Behaviour 23: putting words into a terminal that somebody else reads from. Wall: seccomp, by the request's number.

use super::attempts::{Attempt, Control, WORKED, hold, told};
use super::raw::{at, call_with};
use crate::support::{World, command, finish};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;

const WALL: &[&str] = &["seccomp"];
const TIOCSCTTY: i64 = 0x540e;

/// Takes a terminal of its own as the controlling one and makes a request on it.
fn request(number: i64, argument: i64) -> Result<i64, i32> {
    let flags = rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY;
    let master = rustix::pty::openpt(flags).unwrap();
    rustix::pty::unlockpt(&master).unwrap();
    let name = rustix::pty::ptsname(&master, Vec::new()).unwrap();
    // Who leads a group already can't begin a session.
    let _ = rustix::process::setsid();
    let terminal = std::fs::OpenOptions::new().read(true).write(true).open(name.to_str().unwrap()).unwrap();
    let fd = i64::from(terminal.as_raw_fd());
    let _ = call_with(libc::SYS_ioctl, [fd, TIOCSCTTY, 0]);
    // Its end would hang this process up before it has told anything.
    std::mem::forget(master);
    call_with(libc::SYS_ioctl, [fd, number, argument])
}

const fn row(name: &'static str, act: fn(&[String]) -> String, control: Control) -> Attempt {
    Attempt { name, act, arguments: &[], held: "EPERM", walls: WALL, control }
}

pub(crate) const ATTEMPTS: &[Attempt] = &[
    row("type into a terminal (TIOCSTI)", |_| told(request(0x5412, at(&b'x'))), Control::Plain),
    row(
        "paste into a console (TIOCLINUX)",
        |_| {
            // Pseudo-terminals have no such thing: that it was asked is what counts.
            let got = request(0x541c, at(&[3_u8; 16]));
            if got == Err(libc::ENOTTY) || got == Err(libc::EINVAL) { WORKED.to_owned() } else { told(got) }
        },
        Control::Plain,
    ),
    row("load a line discipline (TIOCSETD)", |_| told(request(0x5423, at(&0_i32))), Control::Plain),
    Attempt {
        name: "the high half of a request counts for nothing",
        act: |_| told(request(0x1_0000_5412, at(&b'x'))),
        arguments: &[],
        held: "EPERM",
        walls: WALL,
        control: Control::Plain,
    },
    row(
        "make a subvolume",
        |_| {
            const SUBVOL_CREATE: i64 = 0x5000_940e;
            let here = std::fs::File::open(".").unwrap();
            let got = call_with(libc::SYS_ioctl, [i64::from(here.as_raw_fd()), SUBVOL_CREATE, at(&[0_u64; 512])]);
            if matches!(got, Err(libc::ENOTTY | libc::EINVAL | libc::EEXIST)) { WORKED.to_owned() } else { told(got) }
        },
        Control::Plain,
    ),
];

pub(crate) async fn nobody_types_for_somebody_else(world: Arc<World>) {
    hold(&world, ATTEMPTS, &[], &[]).await;
    // The terminal that it shares with whoever reads it, outside.
    let sandbox = world.sandbox().await;
    let mode = format!("{}{}", super::attempts::MODE, OWN.0);
    let mut asked = command(&[super::attempts::PROGRAM, &mode]);
    asked.terminal = true;
    let mut process = sandbox.start(asked).await.unwrap();
    assert_eq!(finish(process.as_mut()).await.unwrap().out, "EPERM\r\n");
    sandbox.close().await;
}

/// Types into its standard input.
const OWN: super::Act = ("type into its own terminal", |_| told(call_with(libc::SYS_ioctl, [0, 0x5412, at(&b'x')])));
pub(crate) const ACTS: &[super::Act] = &[OWN];
