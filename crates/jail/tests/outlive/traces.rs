//! What a host would keep of a launcher and its sandboxes.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often something is looked for again, and the pause in between: half a minute.
const LOOKS_MAX: u32 = 6_000;
const PAUSE: Duration = Duration::from_millis(5);

/// Waits until something holds, looking again and again.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..LOOKS_MAX {
        if holds() {
            return;
        }
        std::thread::sleep(PAUSE);
    }
    panic!("never: {what}");
}

fn names(directory: &str) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned())
}

/// A process's parent and name, while it is not dead.
fn stat(process: u32) -> Option<(u32, String)> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let (head, tail) = stat.rsplit_once(')')?;
    let mut tail = tail.split_ascii_whitespace();
    let alive = !matches!(tail.next(), Some("Z" | "X"));
    let parent = tail.next()?.parse().ok()?;
    alive.then(|| (parent, head.split_once('(').map_or(String::new(), |(_, name)| name.to_owned())))
}

/// Everything below a process, and itself.
pub(crate) fn family(of: u32) -> Vec<(u32, String)> {
    let all: Vec<(u32, u32, String)> = names("/proc")
        .filter_map(|name| {
            let process: u32 = name.parse().ok()?;
            let (parent, name) = stat(process)?;
            Some((process, parent, name))
        })
        .collect();
    let (mut found, mut next) = (Vec::new(), vec![of]);
    while let Some(parent) = next.pop() {
        for (process, of, name) in &all {
            if *process == parent && found.is_empty() {
                found.push((*process, name.clone()));
            }
            if *of == parent {
                next.push(*process);
                found.push((*process, name.clone()));
            }
        }
    }
    found
}

pub(crate) fn is_alive(process: u32) -> bool {
    stat(process).is_some()
}

/// The launcher of a harness: its own child, or the one that took it over from another.
pub(crate) fn launcher_of(harness: u32) -> u32 {
    let own = family(harness).into_iter().find(|(_, name)| name == "topside-launch");
    own.expect("a launcher").0
}

pub(crate) fn descriptors(process: u32) -> BTreeSet<String> {
    names(&format!("/proc/{process}/fd")).collect()
}

/// Loop devices whose image lies below `data`.
pub(crate) fn loops(data: &Path) -> usize {
    let data = data.display().to_string();
    let loops = names("/sys/block").filter(|name| name.starts_with("loop"));
    let backing = loops.filter_map(|name| fs::read_to_string(format!("/sys/block/{name}/loop/backing_file")).ok());
    backing.filter(|file| file.starts_with(&data)).count()
}

/// Groups that a launcher made, wherever.
pub(crate) fn groups(launcher: u32) -> Vec<PathBuf> {
    directories(Path::new("/sys/fs/cgroup"), &format!("topside-{launcher}"), 6)
}

fn directories(below: &Path, name: &str, depth: usize) -> Vec<PathBuf> {
    let entries = fs::read_dir(below).into_iter().flatten().flatten();
    let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let found = |path: PathBuf| match path.file_name().is_some_and(|found| found == name) {
        true => vec![path],
        false if depth > 0 => self::directories(&path, name, depth - 1),
        false => Vec::new(),
    };
    directories.flat_map(|entry| found(entry.path())).collect()
}

/// Mounts of this process that name something below `data`.
pub(crate) fn mounts(data: &Path) -> usize {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    text.lines().filter(|line| line.contains(&data.display().to_string())).count()
}

/// All of a family has ended.
pub(crate) fn all_gone(family: &[(u32, String)]) {
    for (process, name) in family {
        until(&format!("{name} ({process}) is gone"), || !is_alive(*process));
    }
}

/// Nothing of a launcher and its family is left but what the next one sweeps.
pub(crate) fn nothing_left(data: &Path, family: &[(u32, String)]) {
    all_gone(family);
    until("no loop device", || loops(data) == 0);
    assert_eq!(mounts(data), 0);
}
