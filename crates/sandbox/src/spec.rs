//! What is asked of a provider, and what it got.

use crate::manifest::{Group, User};
use domain::{Id, Root, id};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A sandbox to make.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Its id.
    pub id: Id<id::Sandbox>,
    /// Its workspace.
    pub workspace: Workspace,
    /// Environment of every command, besides PATH, HOME, LANG.
    pub environment: Vec<(String, String)>,
    /// What stands at `/`. Only what the operator wrote gets here.
    pub root: Root,
    /// Host files and directories shown read-only. Only what the operator wrote gets here.
    pub binds: Vec<Bind>,
    /// Buckets shown in the workspace, read-only.
    pub mounts: Vec<crate::Mount>,
    /// Users and groups inside, besides the one user that every sandbox has.
    pub accounts: Accounts,
    /// What stays out of exports and checkpoints, with everything below it: the mounts, and what is laid again.
    pub left_out: Vec<crate::RelPath>,
    /// Its limits.
    pub limits: Limits,
    /// Walls it may do without; empty: every wall must stand.
    pub walls_optional: Vec<String>,
    /// The least version of Landlock that must hold, whatever it may do without; 0: whichever there is.
    pub landlock_version_min: u32,
    /// The epoch of the lease it is made under.
    pub epoch: u64,
}

/// Users and groups of a sandbox. Where none are declared, everything inside runs as one user, who is the only one there is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accounts {
    /// Users, each with a home directory of its own.
    #[serde(default)]
    pub users: Vec<User>,
    /// Groups.
    #[serde(default)]
    pub groups: Vec<Group>,
    /// Who commands run as that do not say it, and whose the workspace is: one of `users`, `root`, which is nobody on the host,
    /// or, unless it is said, the one that every sandbox has.
    #[serde(default)]
    pub user: Option<String>,
}

impl Accounts {
    /// Whether there is more than the one user that every sandbox has.
    pub fn are_declared(&self) -> bool {
        *self != Self::default()
    }
}

impl Spec {
    /// A sandbox with nothing in it but its workspace, on the host's own tools, with every wall.
    pub fn plain(id: Id<id::Sandbox>, workspace: Workspace, limits: Limits) -> Self {
        Self {
            id,
            workspace,
            environment: Vec::new(),
            root: Root::default(),
            binds: Vec::new(),
            mounts: Vec::new(),
            accounts: Accounts::default(),
            left_out: Vec::new(),
            limits,
            walls_optional: Vec::new(),
            landlock_version_min: 0,
            epoch: 0,
        }
    }
}

/// Whose files are shown at `/workspace`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Workspace {
    /// A session's: its layer outlives the sandbox.
    Session {
        /// The tenant.
        tenant: String,
        /// The session.
        session: Id<id::Session>,
        /// What it begins with.
        start: Start,
    },
    /// Nobody's: gone with the sandbox.
    Scratch,
}

/// What a session's workspace begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Nothing: an empty layer is made, in the place of an older one.
    Fresh,
    /// What the last sandbox left: the layer must be there, or [`crate::Error::WorkspaceLost`], and in this generation, or
    /// [`crate::Error::WorkspaceStale`].
    Kept {
        /// The epoch under which the log says that it was opened last; 0, which fits any, when the log does not say it: the
        /// workspace was opened before generations were on record.
        generation: u64,
    },
    /// A copy of what another session of the same tenant had at a checkpoint that is kept here, or
    /// [`crate::Error::WorkspaceLost`]: it is then to be restored.
    Forked {
        /// Whose workspace it was.
        session: Id<id::Session>,
        /// Which moment.
        checkpoint: Id<id::Checkpoint>,
    },
    /// An archive: an empty layer is made as for `Fresh`, and counts as lost until [`crate::Sandbox::import`] has ended well.
    Restored,
}

/// A read-only view of a host path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    /// Absolute host path.
    pub host: PathBuf,
    /// Absolute path inside.
    pub inside: String,
}

/// A sandbox's limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Memory of all processes and in-memory files.
    pub memory_bytes_max: u64,
    /// Processes and threads.
    pub processes_max: u64,
    /// Processor time per second of wall time, in thousandths of one processor.
    pub cpu_milli_max: u64,
    /// What the workspace may hold.
    pub workspace_bytes_max: u64,
    /// Files and directories of the workspace.
    pub workspace_inodes_max: u64,
    /// What `/tmp` may hold; counts as memory too.
    pub tmp_bytes_max: u64,
    /// Open files of one process.
    pub open_files_max: u64,
    /// Commands alive at once.
    pub commands_max: usize,
    /// Bytes that are read from the disk of the workspace, and as many that are written to it, in a second; 0: no limit.
    #[serde(skip_serializing_if = "is_none")]
    pub io_bytes_per_second_max: u64,
    /// Read operations on the disk of the workspace, and as many write operations, in a second; 0: no limit.
    #[serde(skip_serializing_if = "is_none")]
    pub io_operations_per_second_max: u64,
}

/// What is not asked for is not sent either: a launcher from before there were such limits then still understands the rest.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "the form that serde asks for")]
const fn is_none(limit: &u64) -> bool {
    *limit == 0
}

impl Limits {
    /// Whether reading and writing are limited.
    pub const fn limits_io(&self) -> bool {
        self.io_bytes_per_second_max > 0 || self.io_operations_per_second_max > 0
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes_max: 1 << 30,
            processes_max: 256,
            cpu_milli_max: 2_000,
            workspace_bytes_max: 1 << 30,
            workspace_inodes_max: 200_000,
            tmp_bytes_max: 256 << 20,
            open_files_max: 1_024,
            commands_max: 64,
            io_bytes_per_second_max: 0,
            io_operations_per_second_max: 0,
        }
    }
}

/// The walls a sandbox got. Names: `user_namespace`, `mount_namespace`, `pid_namespace`, `network_namespace`,
/// `ipc_namespace`, `uts_namespace`, `cgroup_namespace`, `private_root`, `workspace_limit`, `capabilities`,
/// `no_new_privileges`, `seccomp`, `landlock`, `memory_limit`, `process_limit`, `cpu_limit`, and `io_limit` where the spec asks
/// for one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Walls {
    /// Those that stand.
    pub standing: Vec<String>,
    /// Those that do not and that the spec did without.
    pub missing: Vec<String>,
    /// The version of Landlock that is enforced; 0 where that wall does not stand. Before 3 it says nothing of truncation,
    /// before 6 nothing of abstract sockets and signals.
    #[serde(default)]
    pub landlock_version: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_before_are_understood_and_sent() {
        let before = r#"{"memory_bytes_max":1,"processes_max":2,"cpu_milli_max":3,"workspace_bytes_max":4,"workspace_inodes_max":5,"tmp_bytes_max":6,"open_files_max":7,"commands_max":8}"#;
        let limits: Limits = serde_json::from_str(before).unwrap();
        assert!(!limits.limits_io());
        assert_eq!(serde_json::to_string(&limits).unwrap(), before);
        let asked = Limits { io_operations_per_second_max: 9, ..limits };
        let sent = serde_json::to_string(&asked).unwrap();
        assert!(asked.limits_io() && sent.ends_with(r#""io_operations_per_second_max":9}"#), "{sent}");
        assert_eq!(serde_json::from_str::<Limits>(&sent).unwrap(), asked);
    }
}
