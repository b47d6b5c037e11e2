//! Walls that a test takes down, to see that what they hold works then. Only a build with the feature `walls_down` can, which no
//! manifest turns on, which does not compile without debug assertions, and which does so only on a machine whose kernel was
//! started with the words below: one that is thrown away afterwards.

#[cfg(all(feature = "walls_down", not(debug_assertions)))]
compile_error!("`walls_down` is for tests in a guest machine; no build that could be shipped may have it");

/// A wall, or a part of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wall {
    Capabilities,
    CgroupNamespace,
    CpuLimit,
    Dumpable,
    /// That no process below the launcher carries the harness's variables.
    Environment,
    IoLimit,
    IpcNamespace,
    Landlock,
    Masks,
    MemoryLimit,
    NetworkNamespace,
    /// That nothing of the host is shown but its tools.
    PrivateRoot,
    ProcessLimit,
    /// That `/` and `/dev` can't be written to.
    ReadOnly,
    /// That commands go before the first process when memory is full.
    Score,
    Seccomp,
    UserNamespaceLimit,
    UtsNamespace,
}

/// Whether a test has taken down the namespace of this flag.
pub(crate) fn is_namespace_down(flag: i32) -> bool {
    match flag {
        libc::CLONE_NEWNET => is_down(Wall::NetworkNamespace),
        libc::CLONE_NEWIPC => is_down(Wall::IpcNamespace),
        libc::CLONE_NEWUTS => is_down(Wall::UtsNamespace),
        libc::CLONE_NEWCGROUP => is_down(Wall::CgroupNamespace),
        _ => false,
    }
}

/// Whether a test has taken it down.
#[cfg(not(feature = "walls_down"))]
pub(crate) const fn is_down(_: Wall) -> bool {
    false
}

#[cfg(feature = "walls_down")]
pub(crate) use test_only::is_down;
#[cfg(feature = "walls_down")]
pub use test_only::take_down;

#[cfg(feature = "walls_down")]
mod test_only {
    use super::Wall;
    use std::sync::atomic::{AtomicU32, Ordering};

    const NAMES: [(&str, Wall); 18] = [
        ("capabilities", Wall::Capabilities),
        ("cgroup_namespace", Wall::CgroupNamespace),
        ("cpu_limit", Wall::CpuLimit),
        ("dumpable", Wall::Dumpable),
        ("environment", Wall::Environment),
        ("io_limit", Wall::IoLimit),
        ("ipc_namespace", Wall::IpcNamespace),
        ("landlock", Wall::Landlock),
        ("masks", Wall::Masks),
        ("memory_limit", Wall::MemoryLimit),
        ("network_namespace", Wall::NetworkNamespace),
        ("private_root", Wall::PrivateRoot),
        ("process_limit", Wall::ProcessLimit),
        ("read_only", Wall::ReadOnly),
        ("score", Wall::Score),
        ("seccomp", Wall::Seccomp),
        ("user_namespace_limit", Wall::UserNamespaceLimit),
        ("uts_namespace", Wall::UtsNamespace),
    ];

    /// The word of the kernel's command line without which every wall stays.
    const PERMITTED: &str = "topside.walls_down";

    /// One bit for each wall. Launcher and sandboxes are forked, so they see what stood here at the launch.
    static DOWN: AtomicU32 = AtomicU32::new(0);

    /// Takes walls down for every launcher that this process launches from now on.
    ///
    /// # Errors
    /// On any machine that was not started for it, and for a wall that is not known, in words.
    pub fn take_down(walls: &[&str]) -> Result<(), String> {
        let words = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
        if !words.split_ascii_whitespace().any(|word| word == PERMITTED) {
            return Err(format!("the kernel of this machine was not started with `{PERMITTED}`"));
        }
        for wall in walls {
            let found = NAMES.iter().find(|(name, _)| name == wall).ok_or_else(|| format!("no wall `{wall}`"))?;
            DOWN.fetch_or(1 << found.1 as u32, Ordering::SeqCst);
        }
        Ok(())
    }

    pub(crate) fn is_down(wall: Wall) -> bool {
        DOWN.load(Ordering::SeqCst) & (1 << wall as u32) != 0
    }
}
