//! Holds the workspace still from outside of it: what was written is on its file system, and no program writes, until whoever
//! asked lets go. Runs in a child of PID 1, which has told everything inside to stand still.

use crate::files::{Failure, Name};
use crate::halt::{self, Waiting};
use crate::readable::Readable;
use rustix::event::{PollFd, PollFlags};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use std::io::Write as _;
use std::os::fd::AsFd as _;

/// Writes out what the programs wrote; they go on meanwhile.
pub(crate) fn sync() -> Result<(), Failure> {
    write_out("sync")
}

/// Waits until every program stands still and what they wrote is out, says so with one byte, and holds on until nobody wants
/// it any more.
pub(crate) fn hold() -> Result<(), Failure> {
    if !halt::await_halt(Waiting::IsNoHalt) {
        return Err(failed("hold", None, "the programs inside did not come to a halt"));
    }
    write_out("hold")?;
    let mut out = std::io::stdout();
    let said = out.write_all(b".").and_then(|()| out.flush());
    said.map_err(|error| failed("hold", Errno::from_io_error(&error), "saying so"))?;
    let input = std::io::stdin();
    loop {
        // Input never comes, only its end; output that nobody reads any more says the same.
        let mut polled = [PollFd::new(&input, PollFlags::IN), PollFd::new(&out, PollFlags::empty())];
        match rustix::event::poll(&mut polled, None) {
            Err(Errno::INTR) => {}
            _ => return Ok(()),
        }
    }
}

fn write_out(operation: &'static str) -> Result<(), Failure> {
    let told = |errno| failed(operation, Some(errno), "the workspace");
    let root =
        rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(told)?;
    let name = Name::new(crate::WORKSPACE.trim_start_matches('/')).unwrap_or_default();
    let stat = rustix::fs::statat(&root, name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW).map_err(told)?;
    let opened = Readable::open(root.as_fd(), &name, &stat).map_err(told)?.put_back();
    rustix::fs::syncfs(&opened).map_err(told)
}

fn failed(operation: &'static str, errno: Option<Errno>, what: &str) -> Failure {
    let detail = errno.map_or_else(|| what.to_owned(), |errno| format!("{what}: {errno}"));
    Failure { operation, path: ".".to_owned(), errno, detail, refused: None }
}
