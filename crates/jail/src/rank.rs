//! Who this process is to the kernel: the machine's root, with what that allows, or somebody who has only what was
//! delegated. Being user 0 of a container's user namespace makes nobody root here.

use std::fs;
use std::sync::OnceLock;

const CAP_SYS_ADMIN: u32 = 21;

/// What a process may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rank {
    /// User 0 of the machine, with the capability to mount.
    Root,
    /// Anybody else.
    Ordinary,
    /// User 0 of the machine without that capability, or by another name in a user namespace: a guest of such a launcher
    /// would be user 0, too, which no sandbox may.
    PowerlessRoot,
}

impl Rank {
    /// This process's, which stays what it was.
    pub(crate) fn own() -> Self {
        static OWN: OnceLock<Rank> = OnceLock::new();
        *OWN.get_or_init(Self::find)
    }

    fn find() -> Self {
        let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        Self::of(rustix::process::geteuid().as_raw(), &map, &status)
    }

    fn of(user: u32, map: &str, status: &str) -> Self {
        let initial = map.split_ascii_whitespace().eq(["0", "0", "4294967295"]);
        let effective =
            status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("CapEff:")?.trim(), 16).ok());
        let mounts = effective.is_some_and(|effective| effective & (1 << CAP_SYS_ADMIN) != 0);
        match outside(user, map) {
            Some(0) if initial && mounts => Self::Root,
            Some(0) => Self::PowerlessRoot,
            _ => Self::Ordinary,
        }
    }

    pub(crate) fn is_root(self) -> bool {
        self == Self::Root
    }
}

/// What a user of this namespace is outside of it.
fn outside(user: u32, map: &str) -> Option<u32> {
    map.lines().find_map(|line| {
        let mut numbers = line.split_ascii_whitespace().filter_map(|number| number.parse::<u32>().ok());
        let (inside, outside, count) = (numbers.next()?, numbers.next()?, numbers.next()?);
        user.checked_sub(inside).filter(|offset| *offset < count).and_then(|offset| outside.checked_add(offset))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_only_who_has_the_machine() {
        let (whole, part) = ("         0          0 4294967295\n", "         0     100000      65536\n");
        let (all, none) = ("CapEff:\t000001ffffffffff\n", "CapEff:\t00000000a80425fb\n");
        assert_eq!(Rank::of(0, whole, all), Rank::Root);
        assert_eq!(Rank::of(0, whole, none), Rank::PowerlessRoot);
        assert_eq!(Rank::of(0, part, all), Rank::Ordinary);
        assert_eq!(Rank::of(1_000, whole, none), Rank::Ordinary);
        assert_eq!(Rank::of(0, "0 0 1", all), Rank::PowerlessRoot);
        assert_eq!(Rank::of(0, "0 1000 1\n1 100000 65536", all), Rank::Ordinary);
        assert_eq!(Rank::of(65_534, part, none), Rank::Ordinary);
    }
}
