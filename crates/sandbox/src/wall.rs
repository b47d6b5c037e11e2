//! What each wall of a local sandbox holds back, and how it is known to stand: for who asks what a sandbox may do.

/// A wall, explained.
#[derive(Clone, Copy, Debug)]
pub struct Wall {
    /// Its name, as in [`crate::Walls`].
    pub name: &'static str,
    /// What it is for.
    pub holds: &'static str,
    /// What a program inside is refused by it, and how.
    pub refuses: &'static str,
    /// How a sandbox that says it has it knows that it stands.
    pub found: &'static str,
}

const BORN: &str = "its first process was born into a namespace of its own, or there would be no sandbox";

/// Every wall of a local sandbox, in the order in which they go up.
pub const WALLS: [Wall; 17] = [
    Wall {
        name: "user_namespace",
        holds: "nobody inside is root outside",
        refuses: "acting as any user of the host but its own one, which owns nothing there",
        found: BORN,
    },
    Wall {
        name: "mount_namespace",
        holds: "mounts of the host are out of sight, and mounts inside stay inside",
        refuses: "seeing or changing what is mounted on the host",
        found: BORN,
    },
    Wall {
        name: "pid_namespace",
        holds: "processes of the host and of other sandboxes are out of sight; all inside end with the first one",
        refuses: "seeing, signalling or tracing a process outside (ESRCH)",
        found: BORN,
    },
    Wall {
        name: "network_namespace",
        holds: "there is no network but a loopback of its own",
        refuses: "connecting anywhere but to itself (ENETUNREACH), sockets of the host among it",
        found: BORN,
    },
    Wall {
        name: "ipc_namespace",
        holds: "message queues, semaphores and shared memory of the host are out of reach",
        refuses: "System V and POSIX queues of others (ENOENT)",
        found: BORN,
    },
    Wall {
        name: "uts_namespace",
        holds: "host and domain name are its own",
        refuses: "learning or setting the host's name",
        found: BORN,
    },
    Wall {
        name: "cgroup_namespace",
        holds: "the tree of control groups is out of sight",
        refuses: "seeing which groups there are, and its own place in them",
        found: BORN,
    },
    Wall {
        name: "private_root",
        holds: "files of the host are out of sight but for what its root shows, read-only",
        refuses: "writing outside of /workspace, /tmp and /dev/shm (EROFS), and any file that is not shown (ENOENT)",
        found: "its first process mounted it, moved there, and let go of the old root; a failure ends the start",
    },
    Wall {
        name: "workspace_limit",
        holds: "the workspace has a size and a number of files of its own",
        refuses: "more bytes or files than the workspace may have (ENOSPC)",
        found: "the workspace is a file system of that size, mounted by the launcher or held in memory",
    },
    Wall {
        name: "memory_limit",
        holds: "memory of all processes and in-memory files together",
        refuses: "more memory: the kernel kills a command inside",
        found: "the kernel took the limit for the group that the first process was put into",
    },
    Wall {
        name: "process_limit",
        holds: "processes and threads together",
        refuses: "one more process (EAGAIN)",
        found: "the kernel took the limit for the group that the first process was put into",
    },
    Wall {
        name: "cpu_limit",
        holds: "processor time in each tenth of a second",
        refuses: "nothing: what wants more waits",
        found: "the kernel took the limit for the group that the first process was put into",
    },
    Wall {
        name: "io_limit",
        holds: "what is read from the workspace's disk and written to it in a second, where a limit is set",
        refuses: "nothing: what wants more waits",
        found: "the kernel took the limit for the workspace's device and the group that the first process was put into",
    },
    Wall {
        name: "no_new_privileges",
        holds: "no program gains rights by being executed",
        refuses: "the effect of set-user-id and file capabilities",
        found: "the first process set it on itself, which can't be taken back",
    },
    Wall {
        name: "landlock",
        holds: "a second word on which files may be read, run and written, and no signals or abstract sockets to the outside",
        refuses: "writing outside of the writable places (EACCES), devices' requests, abstract sockets of others (EPERM)",
        found: "the first process restricted itself, and the kernel said that it enforces it",
    },
    Wall {
        name: "capabilities",
        holds: "nobody inside has a capability, not even within the sandbox",
        refuses: "mounting, changing owners, raw sockets and the like (EPERM)",
        found: "the first process dropped all of them from all of its sets",
    },
    Wall {
        name: "seccomp",
        holds: "system calls that no ordinary tool needs, and other architectures' doors",
        refuses: "kernel modules, namespaces, mounts, tracing, keyrings, bpf and the like (EPERM, ENOSYS)",
        found: "the first process installed the filter on itself, which can't be taken back",
    },
];

impl Wall {
    /// The wall of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        WALLS.iter().find(|wall| wall.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wall_is_explained_once() {
        for (at, wall) in WALLS.iter().enumerate() {
            assert!(WALLS[..at].iter().all(|other| other.name != wall.name), "{}", wall.name);
            assert!(Wall::named(wall.name).is_some());
        }
        assert!(Wall::named("moat").is_none());
    }
}
