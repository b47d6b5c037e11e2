//! Tries every wall for real, in children that are thrown away, and says what was found and what mends it.

use crate::cgroup::Groups;
use crate::create::{self, NAMESPACES};
use crate::door::{Create, Failure, Found, Keep, Label};
use crate::filter::Filters;
use crate::rank::Rank;
use crate::stem::Stems;
use sandbox::Limits;
use std::fs;

/// The walls that only a whole sandbox shows.
const WHOLE: [&str; 5] = ["private_root", "capabilities", "no_new_privileges", "landlock", "seccomp"];

/// Tries everything.
pub(crate) fn probe(stems: &mut Stems, groups: &Groups, filters: &Result<Filters, String>) -> Vec<Found> {
    let mut found: Vec<Found> = NAMESPACES.iter().map(|(wall, flag)| namespace(wall, *flag)).collect();
    found.extend(whole(stems, groups, filters));
    for (controller, place) in groups.findings() {
        found.push(match place {
            Ok(detail) => holds(controller.wall(), detail),
            Err(detail) => fails(controller.wall(), detail),
        });
    }
    found.push(workspace());
    found
}

fn holds(wall: &str, detail: impl Into<String>) -> Found {
    Found { wall: wall.to_owned(), holds: true, detail: detail.into(), fix: None }
}

fn fails(wall: &str, detail: impl Into<String>) -> Found {
    Found { wall: wall.to_owned(), holds: false, detail: detail.into(), fix: crate::fix::of(wall) }
}

fn namespace(wall: &str, flag: i32) -> Found {
    let settings = || {
        let read = |name: &str| {
            Some(format!(
                "{name} = {}",
                fs::read_to_string(format!("/proc/sys/{}", name.replace('.', "/"))).ok()?.trim()
            ))
        };
        let names = [
            "user.max_user_namespaces",
            "kernel.unprivileged_userns_clone",
            "kernel.apparmor_restrict_unprivileged_userns",
        ];
        names.into_iter().filter_map(read).collect::<Vec<_>>().join(", ")
    };
    match create::try_namespace(flag) {
        Ok(()) if wall == "user_namespace" => holds(wall, settings()),
        Ok(()) => holds(wall, "made one"),
        Err(errno) => fails(wall, format!("{errno}; {}; {}", settings(), surroundings())),
    }
}

/// What stands around this process that usually explains a refusal.
fn surroundings() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mode = status.lines().find_map(|line| line.strip_prefix("Seccomp:")).map_or("?", str::trim);
    let container =
        if fs::exists("/.dockerenv").unwrap_or(false) { "in a Docker container" } else { "not in a Docker container" };
    format!("seccomp mode {mode} on this process, {container}")
}

/// Makes a whole sandbox with nothing optional but the limits, which are looked at apart.
fn whole(stems: &mut Stems, groups: &Groups, filters: &Result<Filters, String>) -> Vec<Found> {
    let filters = match filters {
        Ok(filters) => filters,
        Err(detail) => return vec![fails("seccomp", detail.clone())],
    };
    let limits = ["memory_limit", "process_limit", "cpu_limit"].map(str::to_owned);
    let ask = Create {
        environment: Vec::new(),
        binds: Vec::new(),
        limits: Limits::default(),
        walls_optional: limits.into(),
        landlock_version_min: 0,
        epoch: 0,
        workspace: Keep::Nowhere,
        mounts: Vec::new(),
        label: Label::default(),
        shape: String::new(),
        root: crate::stack::Wanted::default(),
        ahead: false,
    };
    match create::create(stems, &ask, groups, filters) {
        Ok(made) => {
            guest::sys::kill(made.pid);
            crate::raw::reap(made.pid);
            groups.discard(made.group);
            WHOLE.iter().map(|wall| holds(wall, raised(wall))).collect()
        }
        Err(Failure::Wall { wall, detail, .. }) => {
            let failed = fails(&wall, format!("{detail}; {}", surroundings()));
            let others = WHOLE.iter().filter(|other| **other != wall);
            std::iter::once(failed)
                .chain(others.map(|other| fails(other, format!("not tried: `{wall}` does not hold"))))
                .collect()
        }
        Err(Failure::Stage { stage, detail }) => {
            WHOLE.iter().map(|wall| fails(wall, format!("not reached: {}: {detail}", stage.name()))).collect()
        }
        Err(Failure::Stale { .. }) => Vec::new(),
    }
}

fn raised(wall: &str) -> String {
    let raised = "raised in a sandbox made for this probe";
    if wall == "landlock" { format!("version {}; {raised}", crate::raw::landlock_version()) } else { raised.to_owned() }
}

/// How workspaces are bounded here.
fn workspace() -> Found {
    if !Rank::own().is_root() {
        return holds("workspace_limit", "in bounded memory, saved to the data directory");
    }
    match crate::image::try_device() {
        Ok(()) => holds("workspace_limit", "ext4 images through loop devices"),
        Err(errno) => fails("workspace_limit", format!("loop device: {errno}; {}", surroundings())),
    }
}
