//! What a sandbox is called from inside: its host name, its machine's id, its boot's id. All follow from the sandbox's own id, so
//! that no two sandboxes share one, whatever their files were copied from, and the kernel's own id of the boot, which would tell
//! two sandboxes that they stand on one machine, is out of sight.

use crate::raw;
use crate::root::{self, Failed, READ_ONLY, at, attach, file};
use domain::Digest;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::os::fd::AsFd as _;
use std::path::Path;

/// What the kernel says of this boot.
const BOOT: &str = "proc/sys/kernel/random/boot_id";
/// Where the other one is written before it is shown there.
const BOOT_NEW: &str = "dev/boot_id";

/// The names of one sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Names {
    /// For `uname`, `/etc/hostname` and `/etc/hosts`.
    host: String,
    /// For `/etc/machine-id`: 32 hexadecimal digits.
    machine: String,
    /// For the kernel's settings: a UUID.
    boot: String,
}

impl Names {
    /// The names of the sandbox with this id.
    pub(crate) fn of(id: &str) -> Self {
        let derived = |what: &str| {
            let Digest(bytes) = Digest::of(format!("topside {what}\0{id}").as_bytes());
            let hex: String = bytes.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
            hex
        };
        let boot = derived("boot id");
        // A UUID says in two places that it is random.
        let boot = format!("{}-{}-4{}-a{}-{}", &boot[..8], &boot[8..12], &boot[13..16], &boot[17..20], &boot[20..]);
        Self { host: format!("sandbox-{}", &derived("host name")[..12]), machine: derived("machine id"), boot }
    }

    /// Gives this UTS namespace its host name.
    pub(crate) fn set(&self) -> Result<(), Errno> {
        rustix::system::sethostname(self.host.as_bytes())
    }

    /// Writes what stands in `etc` below the current directory.
    pub(crate) fn place(&self) -> Result<(), Failed> {
        let Self { host, machine, .. } = self;
        for (path, content) in [
            ("etc/hostname", format!("{host}\n")),
            ("etc/hosts", format!("127.0.0.1 localhost {host}\n::1 localhost\n")),
            ("etc/machine-id", format!("{machine}\n")),
        ] {
            file(path, &content).map_err(at(path))?;
        }
        Ok(())
    }

    /// Shows the boot's id below the current directory, where `dev` and `proc` stand already.
    pub(crate) fn place_boot(&self) -> Result<(), Failed> {
        file(BOOT_NEW, &format!("{}\n", self.boot)).map_err(at(BOOT))?;
        let shown = root::tree(Path::new(BOOT_NEW)).map_err(at(BOOT))?;
        raw::mount_add(shown.as_fd(), READ_ONLY | raw::MOUNT_NO_EXEC).map_err(at(BOOT))?;
        attach(shown.as_fd(), BOOT).map_err(at(BOOT))?;
        rustix::fs::unlink(BOOT_NEW).map_err(at(BOOT))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_ones_own_and_stay() {
        let (one, other) = (Names::of("sbx_1"), Names::of("sbx_2"));
        assert_eq!(one, Names::of("sbx_1"));
        assert!(one.host != other.host && one.machine != other.machine && one.boot != other.boot);
        assert_eq!((one.host.len(), one.machine.len(), one.boot.len()), (20, 32, 36));
        let shape: Vec<usize> = one.boot.split('-').map(str::len).collect();
        assert_eq!(shape, [8, 4, 4, 4, 12]);
    }
}
