//! What a host would keep of a launcher and its sandboxes.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often something is looked for again, and the pause in between: a minute.
const LOOKS_MAX: u32 = 12_000;
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

/// A process, told from a later one of the same number by when it began.
#[derive(Clone, Debug)]
pub(crate) struct Kin {
    pub(crate) process: u32,
    pub(crate) name: String,
    began_ticks: u64,
}

impl Kin {
    pub(crate) fn is_alive(&self) -> bool {
        stat(self.process).is_some_and(|(_, now)| now.began_ticks == self.began_ticks)
    }
}

/// A process's parent and itself, while it is not dead.
fn stat(process: u32) -> Option<(u32, Kin)> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let (head, tail) = stat.rsplit_once(')')?;
    let tail: Vec<&str> = tail.split_ascii_whitespace().collect();
    let alive = !matches!(*tail.first()?, "Z" | "X");
    let name = head.split_once('(').map_or(String::new(), |(_, name)| name.to_owned());
    let kin = Kin { process, name, began_ticks: tail.get(19)?.parse().ok()? };
    alive.then_some((tail.get(1)?.parse().ok()?, kin))
}

/// Everything below a process, and itself, first.
pub(crate) fn family(of: u32) -> Vec<Kin> {
    let all: Vec<(u32, Kin)> = names("/proc").filter_map(|name| stat(name.parse().ok()?)).collect();
    let mut found: Vec<Kin> = all.iter().map(|(_, kin)| kin).filter(|kin| kin.process == of).cloned().collect();
    let mut next = 0;
    while let Some(parent) = found.get(next).map(|kin| kin.process) {
        found.extend(all.iter().filter(|(of, _)| *of == parent).map(|(_, kin)| kin.clone()));
        next += 1;
    }
    found
}

/// Whether a program of this name runs below a process.
pub(crate) fn runs(below: u32, name: &str) -> bool {
    family(below).iter().any(|kin| kin.name == name)
}

/// The launcher of a harness: its own child, or the one that took it over from another.
pub(crate) fn launcher_of(harness: u32) -> Kin {
    let own = family(harness).into_iter().find(|kin| kin.name == "topside-launch");
    own.expect("a launcher")
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
pub(crate) fn all_gone(family: &[Kin]) {
    for kin in family {
        until(&format!("{kin:?} is gone"), || !kin.is_alive());
    }
}

/// Nothing of a launcher and its family is left but what the next one sweeps.
pub(crate) fn nothing_left(data: &Path, family: &[Kin]) {
    all_gone(family);
    until("no loop device", || loops(data) == 0);
    assert_eq!(mounts(data), 0);
}
