//! The local Linux provider and its launcher. The launcher is forked before the harness has threads or secrets; it makes
//! sandboxes out of namespaces, cgroups, a private root, Landlock and seccomp, with no daemon and no image. What happens
//! inside is `guest`'s; what a sandbox is, `sandbox`'s.
//!
//! Decisions, with their reasons:
//! - **One user inside.** Everything inside runs as one user without capabilities, mapped to one host id: for a root launcher
//!   an id of its own per sandbox, never 0; for an ordinary user that user's id. No setuid helper is needed, and there is no
//!   root inside to confuse with one outside. Where users are declared a sandbox has a range of ids (see `ids`, `grant`).
//! - **The workspace's bound is the kernel's.** As root it is an ext4 image that we format ourselves (see `ext4`), mounted
//!   through a loop device that frees itself: 0.7 ms. As an ordinary user no such mount exists; the workspace then lives in
//!   bounded memory, and PID 1, which alone holds the directory, saves it there after each command and at the end.
//! - **Images share blocks.** They stand on a file system that can copy one in a moment (see `pool`): that is a checkpoint, and
//!   a fork. What all of them may take is promised before it is used (see `quota`).
//! - **Locks live as long as what they guard.** The lock on a workspace is on the very open file that the loop device, or
//!   PID 1, holds. So a harness that was killed and starts again waits exactly until the old sandbox is gone.
//! - **PID 1 is forked, not executed**, so no file of the host can stand in for it.
//! - **The launcher outlives the harness** when it has a home below the data directory: it is found there again by the socket
//!   that the harness has handed it, and the lock that it holds says whether it lives. PID 1 belongs to the launcher, which hands it
//!   a stream to each harness in turn; what it keeps for the next one is bounded.
//! - **A launcher that dies is followed by another.** A second process, the keeper, is forked beside it for this alone, since a
//!   harness with threads can fork none. What lived in the first is gone, as after a fall of the machine, and comes back from
//!   its workspace.

mod access;
mod ahead;
mod blank;
mod btrfs;
mod cgroup;
mod create;
mod decision;
mod dial;
mod door;
mod doors;
mod down;
mod export;
mod ext4;
mod filter;
mod fix;
mod gate;
mod grant;
mod harbour;
mod home;
mod ids;
mod image;
mod inside;
mod keeper;
mod launcher;
mod live;
mod lives;
mod mark;
mod mounting;
mod names;
mod outlives;
mod owners;
mod pool;
mod privileges;
mod probe;
mod provider;
mod quota;
mod rank;
mod raw;
mod root;
mod roots;
mod shown;
mod snapshot;
mod stack;
mod stem;
mod stock;
mod templates;
mod trees;
mod visit;
mod warmth;
mod wire;
mod worker;
mod workspaces;

#[cfg(feature = "walls_down")]
pub use down::take_down;
pub use launcher::{Launcher, launch};
pub use provider::Provider;
pub use visit::Visit;
pub use warmth::Warm;

/// Why there is no launcher.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The process has threads already, so its memory can't be forked safely.
    #[error(
        "the launcher must be forked before any thread starts; there are {threads}; hint: call jail::launch() first in main"
    )]
    Threads {
        /// How many.
        threads: usize,
    },
    /// The kernel gave no process, descriptor or thread.
    #[error("the launcher did not start: {detail}")]
    Fork {
        /// What the kernel said.
        detail: String,
    },
    /// The directory in which launchers are found again can't be used.
    #[error("the launcher's home {directory} can't be used: {detail}")]
    Home {
        /// Which one.
        directory: String,
        /// What was found.
        detail: String,
    },
}

impl Error {
    /// Stable code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Threads { .. } => "launcher_threads",
            Self::Fork { .. } => "launcher_fork",
            Self::Home { .. } => "launcher_home",
        }
    }
}
