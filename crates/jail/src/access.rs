//! Landlock: a second, independent word on which files may be read, run and written, and no signals or abstract sockets to
//! the outside. It holds even where a mount was made wrongly.

use landlock::{
    ABI, Access as _, AccessFs, BitFlags, CompatLevel, Compatible as _, PathBeneath, PathFd, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, RulesetStatus, Scope,
};
use std::os::fd::BorrowedFd;

/// Below this a rename across directories would be impossible; older kernels do without the wall or are refused.
const NEEDED: ABI = ABI::V2;
/// The newest that is made use of where the kernel has it.
const NEWEST: ABI = ABI::V6;

/// Restricts this process and all it starts. `layer` is a directory outside of the root that PID 1 alone holds open.
pub(crate) fn restrict(layer: Option<BorrowedFd<'_>>) -> Result<(), String> {
    let read = AccessFs::from_read(NEWEST);
    let all = AccessFs::from_all(NEWEST);
    let devices = read | AccessFs::WriteFile | AccessFs::IoctlDev | AccessFs::Truncate;
    let restricted = || -> Result<RulesetStatus, Box<dyn std::error::Error>> {
        let mut rules = Ruleset::default()
            .set_compatibility(CompatLevel::HardRequirement)
            .handle_access(AccessFs::from_all(NEEDED))?
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(all)?
            .scope(Scope::AbstractUnixSocket | Scope::Signal)?
            .create()?;
        for (path, access) in paths(read, devices, all) {
            rules = rules.add_rule(PathBeneath::new(PathFd::new(path)?, access))?;
        }
        if let Some(layer) = layer {
            rules = rules.add_rule(PathBeneath::new(layer, all))?;
        }
        Ok(rules.restrict_self()?.ruleset)
    };
    match restricted() {
        Ok(RulesetStatus::NotEnforced) => Err("the kernel enforced nothing".to_owned()),
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

fn paths(
    read: BitFlags<AccessFs>,
    devices: BitFlags<AccessFs>,
    all: BitFlags<AccessFs>,
) -> [(&'static str, BitFlags<AccessFs>); 7] {
    [
        ("/", read),
        ("/dev", devices),
        ("/dev/pts", devices),
        ("/dev/shm", all),
        ("/proc", read | AccessFs::WriteFile | AccessFs::Truncate),
        ("/tmp", all),
        (guest::WORKSPACE, all),
    ]
}
