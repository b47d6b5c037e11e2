//! Whether what kills the harness kills its launcher, too: a container that ends with its first process, a unit of the service
//! manager that takes all of its group down. Says what was found and what mends it.

use sandbox::Finding;
use std::fs;

/// The leaf group that the launcher may have moved this process to.
const LEAF: &str = "topside";
/// Where the service manager's units are described, the last word first.
const UNITS: [&str; 7] = [
    "/etc/systemd/system.control",
    "/run/systemd/system.control",
    "/run/systemd/transient",
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];
/// Bytes of a description that are looked at.
const UNIT_BYTES_MAX: u64 = 256 << 10;

/// What decides it.
struct Surroundings {
    process: u32,
    parent: i32,
    /// Whether this is a container, as far as its usual marks tell.
    contained: bool,
    /// The groups of this process, as the kernel tells them.
    groups: String,
}

/// What was found of this process.
pub(crate) fn finding() -> Finding {
    let marks = ["/.dockerenv", "/run/.containerenv"];
    let surroundings = Surroundings {
        process: std::process::id(),
        parent: rustix::process::getppid().map_or(0, |parent| parent.as_raw_nonzero().get()),
        contained: marks.iter().any(|mark| fs::exists(mark).unwrap_or(false)),
        groups: fs::read_to_string("/proc/self/cgroup").unwrap_or_default(),
    };
    judge(&surroundings, kill_mode)
}

fn judge(surroundings: &Surroundings, kill_mode: impl Fn(&str) -> Option<String>) -> Finding {
    let found = |holds, detail: String, fix| Finding { wall: "outlives_harness".to_owned(), holds, detail, fix };
    let Surroundings { process, parent, contained, groups } = surroundings;
    if *process == 1 || (*contained && *parent == 1) {
        let detail = "this process carries its container: when it dies, the kernel ends everything in it, and runs resume from their checkpoints";
        return found(false, detail.to_owned(), None);
    }
    let Some(unit) = groups.lines().find_map(unit) else {
        return found(true, "sandboxes wait for the next process when this one dies".to_owned(), None);
    };
    let mode = kill_mode(unit).unwrap_or_else(|| "control-group".to_owned());
    if matches!(mode.as_str(), "process" | "none") {
        return found(true, format!("{unit} has KillMode={mode}"), None);
    }
    let detail = format!(
        "{unit} has KillMode={mode}: when this process dies, all of the unit is killed, and runs resume from their checkpoints"
    );
    found(false, detail, Some(format!("systemctl edit {unit}    # and put in:\n[Service]\nKillMode=process")))
}

/// The service that a line of a process's groups says it belongs to.
fn unit(line: &str) -> Option<&str> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (controllers, path) = (fields.next()?, fields.next()?);
    // The manager's own tree: the unified one, or the named one of the older form.
    let path = Some(path).filter(|_| controllers.is_empty() || controllers == "name=systemd")?;
    let path = path.strip_suffix(LEAF).and_then(|path| path.strip_suffix('/')).unwrap_or(path);
    path.rsplit('/').next().filter(|name| name.ends_with(".service"))
}

/// What the unit's description and its additions say last; `None`: nothing.
fn kill_mode(unit: &str) -> Option<String> {
    let template = unit.split_once('@').map(|(name, _)| format!("{name}@.service"));
    let names: Vec<&str> = std::iter::once(unit).chain(template.as_deref()).collect();
    let read = |path: &str| {
        let small = fs::metadata(path).is_ok_and(|found| found.len() <= UNIT_BYTES_MAX);
        small.then(|| fs::read_to_string(path).ok()).flatten()
    };
    let mut additions: Vec<(String, String)> = Vec::new();
    for (directory, name) in UNITS.iter().flat_map(|directory| names.iter().map(move |name| (directory, name))) {
        let entries = fs::read_dir(format!("{directory}/{name}.d")).into_iter().flatten().flatten();
        for entry in entries {
            let file = entry.file_name().to_string_lossy().into_owned();
            if file.ends_with(".conf") && !additions.iter().any(|(known, _)| *known == file) {
                additions.push((file, entry.path().display().to_string()));
            }
        }
    }
    additions.sort();
    let of_additions = additions.iter().rev().find_map(|(_, path)| said(&read(path)?));
    let paths = names.iter().flat_map(|name| UNITS.iter().map(move |directory| format!("{directory}/{name}")));
    of_additions.or_else(|| paths.filter_map(|path| read(&path)).next().and_then(|text| said(&text)))
}

/// The last word of a description on it.
fn said(text: &str) -> Option<String> {
    let mut section = "";
    let mut mode = None;
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            section = line;
        } else if let Some(value) =
            line.strip_prefix("KillMode").map(str::trim_start).and_then(|rest| rest.strip_prefix('='))
        {
            mode = Some(value.trim().to_owned()).filter(|_| section == "[Service]").or(mode);
        }
    }
    mode
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(process: u32, parent: i32, contained: bool, groups: &str, mode: Option<&str>, expected: &str) {
        let surroundings = Surroundings { process, parent, contained, groups: groups.to_owned() };
        let found = judge(&surroundings, |_| mode.map(str::to_owned));
        let got = format!("{} {}", found.holds, found.detail);
        assert!(got.starts_with(expected), "{got}");
        assert_eq!(found.fix.is_some(), got.starts_with("false topside"), "{got}");
    }

    #[test]
    fn what_kills_the_harness_is_found() {
        let service = "0::/system.slice/topside.service";
        check(1, 0, false, "0::/", None, "false this process carries its container");
        check(7, 1, true, "0::/", None, "false this process carries its container");
        check(7, 3, true, "0::/", None, "true sandboxes wait");
        check(7, 1, false, "0::/user.slice/user-1000.slice/session-3.scope", None, "true sandboxes wait");
        check(7, 1, false, service, None, "false topside.service has KillMode=control-group");
        check(7, 1, false, &format!("{service}/topside"), Some("mixed"), "false topside.service has KillMode=mixed");
        check(7, 1, false, service, Some("process"), "true topside.service has KillMode=process");
        let named = "9:pids:/x.service\n1:name=systemd:/system.slice/topside.service";
        check(7, 1, false, named, None, "false topside.service has KillMode=control-group");
        check(7, 1, false, "9:pids:/system.slice/topside.service", None, "true sandboxes wait");
    }

    #[test]
    fn the_last_word_of_a_description_counts() {
        let rows = [
            ("[Service]\nKillMode=process\n", Some("process")),
            ("[Unit]\nKillMode=process\n[Service]\nExecStart=/x\n", None),
            ("[Service]\nKillMode = mixed\nKillMode=none\n[Install]\nKillMode=process", Some("none")),
            ("[Service]\n#KillMode=process\n", None),
        ];
        for (text, expected) in rows {
            assert_eq!(said(text).as_deref(), expected, "{text}");
        }
    }
}
