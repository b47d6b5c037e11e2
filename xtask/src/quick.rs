//! What `check --quick` looks at: the files that differ from a commit, and the crates and documents they belong to.

use std::collections::BTreeSet;

use anyhow::Result;

use crate::context::Context;

/// A change of one of these can change every crate.
const OF_EVERY_CRATE: [&str; 5] =
    ["Cargo.toml", "Cargo.lock", "clippy.toml", "rust-toolchain.toml", ".cargo/config.toml"];

/// What changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Changed {
    pub(crate) files: Vec<String>,
    /// Packages with a changed file: their tests are run.
    pub(crate) packages: BTreeSet<String>,
    /// These and whoever depends on them directly: clippy reads them.
    pub(crate) packages_and_dependents: BTreeSet<String>,
}

impl Changed {
    /// Committed, staged, unstaged and new files alike.
    pub(crate) fn since(context: &Context, revision: &str) -> Result<Self> {
        let differing = context.git(&["diff", "--name-only", "--no-renames", "-z", revision])?;
        let new = context.git(&["ls-files", "--others", "--exclude-standard", "-z"])?;
        let files = differing.split('\0').chain(new.split('\0')).filter(|name| !name.is_empty());
        let rooms: Vec<Room> = context
            .packages()
            .iter()
            .map(|package| Room {
                package: package.name.to_string(),
                folder: context.folder(package),
                knows: package.dependencies.iter().map(|dependency| dependency.name.clone()).collect(),
            })
            .collect();
        Ok(Self::of(files.map(str::to_owned).collect(), &rooms))
    }

    fn of(files: Vec<String>, rooms: &[Room]) -> Self {
        let is_changed = |room: &&Room| files.iter().any(|file| file.starts_with(&format!("{}/", room.folder)));
        let packages: BTreeSet<String> = rooms.iter().filter(is_changed).map(|room| room.package.clone()).collect();
        let everything = files.iter().any(|file| OF_EVERY_CRATE.contains(&file.as_str()));
        let is_looked_at =
            |room: &&Room| everything || packages.contains(&room.package) || !packages.is_disjoint(&room.knows);
        let packages_and_dependents = rooms.iter().filter(is_looked_at).map(|room| room.package.clone()).collect();
        Self { files, packages, packages_and_dependents }
    }
}

struct Room {
    package: String,
    folder: String,
    knows: BTreeSet<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(files: &[&str], packages: &[&str], with_dependents: &[&str]) {
        let room = |package: &str, knows: &[&str]| Room {
            package: package.to_owned(),
            folder: format!("crates/{package}"),
            knows: knows.iter().map(ToString::to_string).collect(),
        };
        let rooms = [room("a", &[]), room("ab", &["a"]), room("c", &["ab"])];
        let changed = Changed::of(files.iter().map(ToString::to_string).collect(), &rooms);
        assert_eq!(changed.packages.iter().collect::<Vec<_>>(), packages, "{files:?}");
        assert_eq!(changed.packages_and_dependents.iter().collect::<Vec<_>>(), with_dependents, "{files:?}");
    }

    #[test]
    fn a_changed_file_means_its_crate_and_its_direct_dependents() {
        check(&[], &[], &[]);
        check(&["README.md", "crates/README.md"], &[], &[]);
        check(&["crates/a/src/lib.rs"], &["a"], &["a", "ab"]);
        check(&["crates/ab/Cargo.toml"], &["ab"], &["ab", "c"]);
        check(&["Cargo.lock"], &[], &["a", "ab", "c"]);
    }
}
