//! Outside libraries that only some rooms may know, and why. A library that is not listed is free for every room.

use std::collections::BTreeSet;

use super::Room;
use crate::report::Finding;

/// Rooms that stand apart and never ship: every library is free for them, as for tests.
const APART: [&str; 2] = ["sim", "xtask"];

/// A library with the only rooms that may use it.
struct Only {
    library: &'static str,
    rooms: &'static [&'static str],
    reason: &'static str,
}

const ONLY: &[Only] = &[
    Only { library: "anyhow", rooms: &["topside"], reason: "a room has one typed error; only the rim may blur it" },
    Only { library: "axum", rooms: &["server"], reason: "only `server` handles requests" },
    Only {
        library: "blake3",
        rooms: &["chunks"],
        reason: "digests that others see are SHA-256; this one names chunks",
    },
    Only { library: "cedar-policy", rooms: &["policy"], reason: "only `policy` decides" },
    Only { library: "clap", rooms: &["topside"], reason: "only the binary reads a command line" },
    Only { library: "fastcdc", rooms: &["chunks"], reason: "only `chunks` cuts archives" },
    Only { library: "getrandom", rooms: &["stdx"], reason: "randomness enters by constructor" },
    Only {
        library: "hyper",
        rooms: &["client", "net", "server"],
        reason: "only the two ends of the service and the door speak HTTP themselves",
    },
    Only { library: "hyper-util", rooms: &["client", "net", "server"], reason: "as `hyper`" },
    Only {
        library: "jsonschema",
        rooms: &["catalog", "tools"],
        reason: "a schema is checked where it is declared, arguments where they are used",
    },
    Only { library: "landlock", rooms: &["jail"], reason: "the walls are built in one place" },
    Only { library: "libc", rooms: &["guest", "jail"], reason: "the kernel is spoken to where the walls are" },
    Only { library: "object_store", rooms: &["blob"], reason: "only `blob` knows where objects lie" },
    Only { library: "quick-xml", rooms: &["blob"], reason: "only object storage speaks XML" },
    Only { library: "reqwest", rooms: &["net"], reason: "only `net` opens a socket outward" },
    Only {
        library: "rusqlite",
        rooms: &["journal", "tools"],
        reason: "the journal's store, and the `sql` tool on a project's own file",
    },
    Only {
        library: "rustix",
        rooms: &["guest", "image", "jail", "mounts", "stdx", "topside"],
        reason: "the kernel is spoken to where the walls are, where hostile archives become files, where buckets are shown, where time is read, and where a person sits at a terminal",
    },
    Only { library: "rustls", rooms: &["net"], reason: "only `net` opens a socket outward" },
    Only {
        library: "saphyr",
        rooms: &["catalog", "model", "topside"],
        reason: "people write declarations, transcripts, keys and secrets; everything else is JSON",
    },
    Only { library: "seccompiler", rooms: &["jail"], reason: "the walls are built in one place" },
    Only { library: "tikv-jemalloc-ctl", rooms: &["topside"], reason: "the binary chooses how memory is given" },
    Only { library: "tikv-jemallocator", rooms: &["topside"], reason: "the binary chooses how memory is given" },
    Only {
        library: "tokio-postgres",
        rooms: &["journal"],
        reason: "the journal's store; it dials what the operator named, with the trust that `net` configures",
    },
    Only { library: "tokio-postgres-rustls", rooms: &["journal"], reason: "as `tokio-postgres`" },
    Only {
        library: "tokio-tungstenite",
        rooms: &["client", "server"],
        reason: "only the two ends of the service speak WebSocket; what a sandbox speaks is carried, not read",
    },
    Only { library: "tracing-subscriber", rooms: &["topside"], reason: "only the binary decides where logs go" },
];

/// A room that stays pure: neither it nor any room below it may know one of these libraries.
struct Never {
    room: &'static str,
    libraries: &'static [&'static str],
    reason: &'static str,
}

const IO: &[&str] =
    &["tokio", "hyper", "reqwest", "rusqlite", "object_store", "libc", "rustix", "getrandom", "async-trait"];

const NEVER: &[Never] = &[
    Never { room: "api", libraries: IO, reason: "the contract is plain data" },
    Never { room: "domain", libraries: IO, reason: "nouns are plain data" },
    Never { room: "machine", libraries: IO, reason: "the step is pure: no IO, no clock, no randomness, no async" },
    Never { room: "policy", libraries: IO, reason: "a verdict is pure: no IO, no clock, no randomness, no async" },
];

pub(super) fn check(rooms: &[Room]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for room in rooms.iter().filter(|room| !APART.contains(&room.name.as_str())) {
        for rule in ONLY.iter().filter(|rule| room.libraries.contains(rule.library)) {
            if !rule.rooms.contains(&room.name.as_str()) {
                let message = format!(
                    "`{}` depends on `{}`, which only {} may: {}",
                    room.name,
                    rule.library,
                    rule.rooms.join(", "),
                    rule.reason
                );
                findings.push(Finding::new(&room.manifest, message));
            }
        }
    }
    for rule in NEVER {
        for room in below(rooms, rule.room) {
            for library in rule.libraries.iter().filter(|library| room.libraries.contains(**library)) {
                let through = if room.name == rule.room { String::new() } else { format!(" through `{}`", room.name) };
                let message = format!("`{}` depends on `{library}`{through}: {}", rule.room, rule.reason);
                findings.push(Finding::new(&room.manifest, message));
            }
        }
    }
    findings
}

/// A room and every room that it reaches.
fn below<'rooms>(rooms: &'rooms [Room], name: &str) -> Vec<&'rooms Room> {
    let mut reached = BTreeSet::new();
    let mut open = vec![name.to_owned()];
    let mut found = Vec::new();
    while let Some(name) = open.pop() {
        if !reached.insert(name.clone()) {
            continue;
        }
        if let Some(room) = rooms.iter().find(|room| room.name == name) {
            open.extend(room.rooms.iter().cloned());
            found.push(room);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(name: &str, rooms: &[&str], libraries: &[&str]) -> Room {
        Room {
            name: name.to_owned(),
            manifest: format!("crates/{name}/Cargo.toml"),
            rooms: rooms.iter().map(ToString::to_string).collect(),
            libraries: libraries.iter().map(ToString::to_string).collect(),
        }
    }

    fn check_rooms(rooms: &[Room], expected: &[&str]) {
        let told: Vec<String> = check(rooms).iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), expected.len(), "{told:?}");
        for (finding, part) in told.iter().zip(expected) {
            assert!(finding.contains(part), "{finding}");
        }
    }

    #[test]
    fn a_library_stays_in_its_rooms() {
        check_rooms(&[room("net", &[], &["reqwest", "serde"]), room("xtask", &[], &["anyhow", "libc"])], &[]);
        check_rooms(&[room("tools", &[], &["reqwest"])], &["`tools` depends on `reqwest`, which only net may"]);
        check_rooms(&[room("server", &[], &["libc", "clap"])], &["clap", "libc"]);
    }

    #[test]
    fn a_pure_room_stays_pure_all_the_way_down() {
        check_rooms(&[room("machine", &["domain"], &["serde"]), room("domain", &[], &["serde"])], &[]);
        check_rooms(&[room("machine", &[], &["tokio"])], &["`machine` depends on `tokio`:"]);
        check_rooms(
            &[room("machine", &["stdx"], &[]), room("stdx", &[], &["tokio"])],
            &["`machine` depends on `tokio` through `stdx`"],
        );
    }

    #[test]
    fn every_rule_has_a_reason_and_the_list_is_in_order() {
        assert!(ONLY.iter().all(|rule| !rule.reason.is_empty() && !rule.rooms.is_empty()));
        assert!(NEVER.iter().all(|rule| !rule.reason.is_empty() && !rule.libraries.is_empty()));
        assert!(ONLY.is_sorted_by_key(|rule| rule.library));
    }
}
