//! `arrows`: the manifests against the table of rooms in `ARCHITECTURE.md`, and against the list of libraries that only
//! some rooms may know. What a room does with what it may know is not looked at here.

mod libraries;
mod table;

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use cargo_metadata::{DependencyKind, Package, TargetKind};

use crate::context::Context;
use crate::report::{Finding, Outcome};
use crate::source::{Source, lines_with_word};

use table::Level;

/// Where the table of rooms stands.
const TABLE: &str = "ARCHITECTURE.md";
/// What every package is called, so that the rooms can be published; the product itself and this tool go without.
const PREFIX: &str = "topside-";

/// One room, as its manifest tells it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Room {
    /// Folder and import name.
    pub(crate) name: String,
    /// Relative to the root.
    pub(crate) manifest: String,
    /// Other rooms, for code, tests and build scripts alike.
    pub(crate) rooms: BTreeSet<String>,
    /// Outside libraries that the code or the build script uses. Libraries of tests are not held to the list.
    pub(crate) libraries: BTreeSet<String>,
}

pub(crate) fn run(context: &Context) -> Result<Outcome> {
    let table = table::parse(&context.read(TABLE)?);
    let mut findings = Vec::new();
    let mut rooms = Vec::new();
    for package in context.packages() {
        let room = room(context, package);
        findings.extend(names(context, package, &room));
        findings.extend(manifest(&room, &context.read(&room.manifest)?));
        findings.extend(unused(context, package, &room)?);
        findings.extend(walls_down(&room, package));
        rooms.push(room);
    }
    findings.extend(table.findings);
    findings.extend(levels(&table.levels, &rooms));
    findings.extend(libraries::check(&rooms));
    Ok(Outcome::of(findings).note(format!("{} rooms, {} rows in {TABLE}", rooms.len(), table.levels.len())))
}

/// Reads a package's manifest into a room.
fn room(context: &Context, package: &Package) -> Room {
    let folder = context.folder(package);
    let name = folder.rsplit('/').next().unwrap_or(&folder).to_owned();
    let mut room = Room { name, manifest: format!("{folder}/Cargo.toml"), ..Room::default() };
    for dependency in &package.dependencies {
        if let Some(path) = &dependency.path {
            room.rooms.insert(path.file_name().unwrap_or_default().to_owned());
        } else if dependency.kind != DependencyKind::Development {
            room.libraries.insert(dependency.name.clone());
        }
    }
    room
}

/// No manifest turns on the switch with which tests take walls of the jail down.
fn walls_down(room: &Room, package: &Package) -> Vec<Finding> {
    let by_dependency = package.dependencies.iter().any(|dependency| is_switch(&dependency.features));
    let by_feature = package.features.values().any(|turned_on| is_switch(turned_on));
    let message = "turns on `walls_down`, with which walls of the jail come down; only `cargo xtask machine` may";
    if by_dependency || by_feature { vec![Finding::new(&room.manifest, message)] } else { Vec::new() }
}

fn is_switch(features: &[String]) -> bool {
    features.iter().any(|feature| feature.rsplit('/').next() == Some("walls_down"))
}

/// Folder, package and import name must say the same.
fn names(context: &Context, package: &Package, room: &Room) -> Vec<Finding> {
    let mut findings = Vec::new();
    let folder = context.folder(package);
    let wanted = match room.name.as_str() {
        "topside" | "xtask" => room.name.clone(),
        name => format!("{PREFIX}{name}"),
    };
    if package.name.as_str() != wanted {
        findings.push(Finding::new(&room.manifest, format!("package is `{}`, expected `{wanted}`", package.name)));
    }
    if folder != format!("crates/{}", room.name) && folder != "xtask" {
        findings.push(Finding::new(&room.manifest, "rooms live in `crates/`, one folder deep"));
    }
    let library = package.targets.iter().find(|target| target.kind.contains(&TargetKind::Lib));
    if let Some(library) = library.filter(|library| library.name != room.name) {
        let message = format!("library is `{}`, expected `{}` as its folder", library.name, room.name);
        findings.push(Finding::new(&room.manifest, message));
    }
    findings
}

/// Every room takes the house's lints, and the versions that are set once at the root.
fn manifest(room: &Room, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut section = "";
    let mut lints = false;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.starts_with('[') {
            section = line;
        } else if line.is_empty() || line.starts_with('#') {
        } else if section == "[lints]" {
            lints |= line == "workspace = true";
        } else if section.ends_with("dependencies]") && !line.contains("workspace = true") {
            let place = format!("{}:{}", room.manifest, index + 1);
            let message =
                format!("`{line}`: versions are set once, in the root manifest; hint: `NAME.workspace = true`");
            findings.push(Finding::new(place, message));
        }
    }
    if !lints {
        findings
            .push(Finding::new(&room.manifest, "does not take the house's lints; hint: `[lints] workspace = true`"));
    }
    findings
}

/// A dependency that no source of the room names is weight without use.
fn unused(context: &Context, package: &Package, room: &Room) -> Result<Option<Finding>> {
    let folder = format!("{}/", context.folder(package));
    let mut code = String::new();
    for file in context.files()?.iter().filter(|file| file.starts_with(&folder) && file.ends_with(".rs")) {
        code.push_str(&Source::of(&context.read(file)?).code);
        code.push('\n');
    }
    let names = package.dependencies.iter().map(|dependency| dependency.rename.as_ref().unwrap_or(&dependency.name));
    let unused: BTreeSet<String> = names
        .filter(|name| lines_with_word(&code, &name.replace('-', "_")).is_empty())
        .map(|name| format!("`{name}`"))
        .collect();
    let message = format!("no source uses {}", unused.iter().cloned().collect::<Vec<_>>().join(", "));
    Ok((!unused.is_empty()).then(|| Finding::new(&room.manifest, message)))
}

/// Each room has its row, each row its room, and every arrow points down.
fn levels(levels: &BTreeMap<String, Level>, rooms: &[Room]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for room in rooms {
        let Some(level) = levels.get(&room.name) else {
            findings.push(Finding::new(&room.manifest, format!("room `{}` has no row in {TABLE}", room.name)));
            continue;
        };
        for other in &room.rooms {
            let message = match (level, levels.get(other)) {
                (_, None) => format!("`{}` depends on `{other}`, which has no row in {TABLE}", room.name),
                (Level::Apart, Some(_)) => continue,
                (Level::At(_), Some(Level::Apart)) => {
                    format!("`{}` depends on `{other}`, which stands apart: no room may know it", room.name)
                }
                (Level::At(own), Some(Level::At(below))) if below < own => continue,
                (Level::At(own), Some(Level::At(other_level))) => format!(
                    "`{}` (level {own}) depends on `{other}` (level {other_level}): arrows point to lower levels only",
                    room.name
                ),
            };
            findings.push(Finding::new(&room.manifest, message));
        }
    }
    for name in levels.keys().filter(|name| !rooms.iter().any(|room| room.name == **name)) {
        findings.push(Finding::new(TABLE, format!("row `{name}` has no room in the workspace")));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn a_room(name: &str, rooms: &[&str], libraries: &[&str]) -> Room {
        Room {
            name: name.to_owned(),
            manifest: format!("crates/{name}/Cargo.toml"),
            rooms: rooms.iter().map(ToString::to_string).collect(),
            libraries: libraries.iter().map(ToString::to_string).collect(),
        }
    }

    /// One row: who depends on whom, and what the finding must say; nothing when the arrow is right.
    fn check(from: &str, to: &str, expected: &str) {
        let table = table::parse(
            "| level | crate | is |\n|---|---|---|\n| 0 | `stdx` | x |\n| 2 | `journal` | x |\n| 2 | `machine` | x |\n\
             | 6 | `topside` | x |\n| – | `xtask` | x |\n",
        );
        let names = ["stdx", "journal", "machine", "topside", "xtask"];
        let rooms: Vec<Room> = names
            .iter()
            .map(|name| a_room(name, if *name == from { std::slice::from_ref(&to) } else { &[] }, &[]))
            .collect();
        let findings = levels(&table.levels, &rooms);
        if expected.is_empty() {
            assert_eq!(findings, [], "{from} → {to}");
        } else {
            assert_eq!(findings.len(), 1, "{from} → {to}");
            assert!(findings[0].to_string().contains(expected), "{from} → {to}: {}", findings[0]);
        }
    }

    #[test]
    fn arrows_point_down() {
        check("machine", "stdx", "");
        check("topside", "machine", "");
        check("machine", "journal", "`machine` (level 2) depends on `journal` (level 2)");
        check("stdx", "machine", "`stdx` (level 0) depends on `machine` (level 2)");
        check("xtask", "topside", "");
        check("topside", "xtask", "stands apart");
        check("machine", "ghost", "no row");
    }

    #[test]
    fn a_room_without_a_row_and_a_row_without_a_room_are_told() {
        let table = table::parse("| level | crate | is |\n|---|---|---|\n| 0 | `stdx` | x |\n");
        let findings = levels(&table.levels, &[a_room("machine", &[], &[])]);
        let told: Vec<String> = findings.iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), 2);
        assert!(told[0].contains("room `machine` has no row"), "{told:?}");
        assert!(told[1].contains("row `stdx` has no room"), "{told:?}");
    }

    #[test]
    fn a_manifest_takes_lints_and_versions_from_the_root() {
        let room = a_room("net", &[], &[]);
        let good = "[package]\nname = \"a\"\n[lints]\nworkspace = true\n[dependencies]\n# why\nserde.workspace = true\n\
                    tokio = { workspace = true, features = [\"net\"] }\n";
        assert_eq!(manifest(&room, good), []);
        assert_eq!(manifest(&room, &good.replace("[lints]\nworkspace = true\n", "")).len(), 1);
        let own = manifest(&room, &good.replace("serde.workspace = true", "serde = \"1\""));
        assert!(own[0].to_string().starts_with("crates/net/Cargo.toml:7: `serde = \"1\"`"), "{own:?}");
    }
}
