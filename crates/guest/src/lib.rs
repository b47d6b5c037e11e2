//! PID 1 inside a sandbox: executes, streams, opens terminals, moves files, reaps. It never starts a sandbox and raises no
//! wall: whoever forks it has done so. It is single-threaded, allocates only bounded buffers, and trusts neither the
//! programs it runs nor, beyond the wire's bounds, the other side of its socket.
//!
//! Program and PID 1 run as the same user. What protects PID 1 from the programs is the kernel: signals to PID 1 from inside
//! its namespace are ignored, and it is not dumpable, so neither its memory nor its descriptors can be reached.

mod account;
mod apply;
mod command;
mod compare;
pub mod control;
mod dial;
mod export;
mod files;
mod halt;
mod hold;
mod holes;
mod import;
mod line;
pub mod mirror;
mod output;
mod readable;
mod requests;
mod score;
mod serve;
mod spawn;
pub mod sys;
mod tar;
mod tree;
mod watch;

pub use account::{Account, Accounts, ROOT_CAPABILITIES, ROOT_NAME, SEEING_GROUP, SETPCAP};
pub use score::Score;
use std::os::fd::OwnedFd;
pub use sys::{Filter, Instruction};

/// Where the workspace stands inside.
pub const WORKSPACE: &str = "/workspace";
/// The user that everything inside runs as.
pub const USER_ID: u32 = 1_000;
/// That user's name.
pub const USER_NAME: &str = "agent";
/// Where programs are looked up.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What PID 1 needs to know.
#[derive(Debug)]
pub struct Config {
    /// The first stream to the harness.
    pub stream: Option<OwnedFd>,
    /// Where the launcher hands in another one ([`control`]); its end is the end of everything inside.
    pub control: OwnedFd,
    /// Output of named commands that is kept for who has not taken it, of all together, in bytes of cost. One window for each
    /// command comes on top.
    pub kept_bytes_max: usize,
    /// Whether buckets are shown inside, for which whoever starts a program there may have to wait.
    pub mounts: bool,
    /// Environment of every command, besides PATH, HOME, LANG, USER and LOGNAME.
    pub environment: Vec<(String, String)>,
    /// Commands alive at once.
    pub commands_max: usize,
    /// The epoch of the lease the sandbox was made under.
    pub epoch: u64,
    /// Whether it is nobody's until the launcher says whose it is, with another epoch and other variables.
    pub ahead: bool,
    /// Where the workspace is kept when it lives in memory.
    pub layer: Option<Layer>,
    /// PID 1's own, so that commands go before it when memory is full.
    pub score: Option<Score>,
    /// Who programs may run as; `None`: everything inside is the one user that PID 1 is.
    pub accounts: Option<Accounts>,
    /// What programs may not call, beside what PID 1 itself may not.
    pub filter: Option<Filter>,
}

/// A directory that a workspace in memory is saved to after each command and at the end.
#[derive(Debug)]
pub struct Layer {
    /// The directory, open; nothing else inside can reach it.
    pub directory: OwnedFd,
    /// What may be saved at most.
    pub budget: mirror::Budget,
    /// Where there are several users, the one that every sandbox has, and its group: files keep their owners then.
    pub own: Option<(u32, u32)>,
}

/// Serves until the launcher lets go of the control socket; then kills everything else inside, saves the layer, and returns
/// the exit code of PID 1. A harness that closes its stream, or breaks the wire's rules on it, only loses that stream.
pub fn run(config: Config) -> i32 {
    match serve::Serve::new(config) {
        Ok(mut serve) => serve.run(),
        Err(_) => 1,
    }
}
