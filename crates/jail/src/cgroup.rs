//! Limits on memory, processes and processor time, through cgroups v1, v2 or both at once; on reading and writing: `throttle`.
//! Groups are made below the group that the launcher itself stands in, so that what was delegated to it is all it needs.

mod throttle;

pub(crate) use self::throttle::throttle;
use crate::down::{self, Wall};
use crate::rank::Rank;
use rustix::event::Timespec;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use sandbox::{Limits, Usage};
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::fs;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// The scheduler's accounting period.
const CPU_PERIOD_US: u64 = 100_000;
/// What PID 1 and its saving child add to the processes of a sandbox.
const OWN_PROCESSES: u64 = 2;
/// Processes that are moved to a leaf so that v2 lets controllers through, at most.
const MOVED_MAX: usize = 64;
const PREFIX: &str = "topside-";
/// How often groups that should be empty are tried to be removed, and the pause in between where nothing else is to be done.
const REMOVALS_MAX: usize = 400;
const REMOVAL_PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Controller {
    Memory,
    Pids,
    Cpu,
    /// Only where it is asked for.
    Io,
}

impl Controller {
    /// What limits every sandbox.
    pub(crate) const ALWAYS: [Self; 3] = [Self::Memory, Self::Pids, Self::Cpu];

    const fn name(self, version: Version) -> &'static str {
        match (self, version) {
            (Self::Memory, _) => "memory",
            (Self::Pids, _) => "pids",
            (Self::Cpu, _) => "cpu",
            (Self::Io, Version::One) => "blkio",
            (Self::Io, Version::Two) => "io",
        }
    }

    pub(crate) const fn wall(self) -> &'static str {
        match self {
            Self::Memory => "memory_limit",
            Self::Pids => "process_limit",
            Self::Cpu => "cpu_limit",
            Self::Io => "io_limit",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// Where groups of one controller are made.
#[derive(Clone, Debug)]
struct Place {
    base: PathBuf,
    version: Version,
}

/// Where groups can be made, found once.
#[derive(Debug)]
pub(crate) struct Groups {
    places: Vec<(Controller, Result<Place, String>)>,
    io: Result<Place, String>,
    /// Removed when the launcher ends.
    bases: Vec<PathBuf>,
    /// Groups of sandboxes that ended, in which the kernel still counted something.
    stale: RefCell<Vec<Group>>,
    /// Bases of launchers that are no more, in which something was still dying, and how often they are still tried.
    orphaned: RefCell<Vec<(PathBuf, usize)>>,
}

impl Groups {
    /// Looks up the launcher's own groups and makes one base below each. What is not possible is remembered with its reason.
    pub(crate) fn discover() -> Self {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let mut groups = Self {
            places: Vec::new(),
            io: Err("workspaces of an ordinary user are in memory, on no device".to_owned()),
            bases: Vec::new(),
            stale: RefCell::default(),
            orphaned: RefCell::default(),
        };
        for controller in Controller::ALWAYS {
            let place = groups.place(controller, &own, &mounts);
            groups.places.push((controller, place));
        }
        if Rank::own().is_root() {
            groups.io = groups.place(Controller::Io, &own, &mounts).and_then(throttle::check);
        }
        groups
    }

    fn place(&mut self, controller: Controller, own: &str, mounts: &str) -> Result<Place, String> {
        let (parent, version) = find(controller, own, mounts)?;
        let parent = if version == Version::Two { let_through(&parent, controller)? } else { parent };
        self.orphaned.get_mut().extend(sweep(&parent).into_iter().map(|base| (base, REMOVALS_MAX)));
        let base = parent.join(format!("{PREFIX}{}", std::process::id()));
        match fs::create_dir(&base) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(format!("{}: {error}", base.display()));
            }
            _ => {}
        }
        if !self.bases.contains(&base) {
            self.bases.push(base.clone());
        }
        if version == Version::Two && controller != Controller::Io {
            enable(&base, controller).map_err(|error| format!("{}: {error}", base.display()))?;
        }
        Ok(Place { base, version })
    }

    /// For each controller, where its groups are or why there are none.
    pub(crate) fn findings(&self) -> Vec<(Controller, Result<String, String>)> {
        let say = |place: &Place| {
            let version = if place.version == Version::One { "v1" } else { "v2" };
            format!("cgroup {version}, {}", place.base.display())
        };
        let places = self.places.iter().map(|(controller, place)| (*controller, place));
        let places = places.chain([(Controller::Io, &self.io)]);
        places.map(|(controller, place)| (controller, place.as_ref().map(say).map_err(Clone::clone))).collect()
    }

    /// Makes the groups of a sandbox. What can't be limited comes back with its reason.
    pub(crate) fn make(&self, slot: u64) -> (Group, Vec<(Controller, String)>) {
        let (mut group, mut missing) = (Group { parts: Vec::new() }, Vec::new());
        for (controller, place) in &self.places {
            let made = place.clone().and_then(|place| {
                let part = Part {
                    controller: *controller,
                    directory: place.base.join(slot.to_string()),
                    version: place.version,
                };
                part.make().map(|()| part).map_err(|error| error.to_string())
            });
            match made {
                Ok(part) => group.parts.push(part),
                Err(detail) => missing.push((*controller, detail)),
            }
        }
        (group, missing)
    }

    /// Removes the groups of a sandbox that ended, now or at the next [`Groups::retry`].
    pub(crate) fn discard(&self, group: Group) {
        if !group.remove() {
            self.stale.borrow_mut().push(group);
        }
    }

    /// Tries again what could not be removed yet; whether something is left.
    pub(crate) fn retry(&self) -> bool {
        let mut stale = self.stale.borrow_mut();
        stale.retain(|group| !group.remove());
        let mut orphaned = self.orphaned.borrow_mut();
        orphaned.retain_mut(|(base, tries)| {
            *tries -= 1;
            *tries > 0 && !remove_base(base)
        });
        !stale.is_empty() || !orphaned.is_empty()
    }

    /// Removes the bases. A process that was reaped may still be counted until its processor has gone on to another: that is
    /// waited for. What is busy even then is left to the next launcher's sweep.
    pub(crate) fn remove(&self) {
        for _ in 0..REMOVALS_MAX {
            self.retry();
            if self.stale.borrow().is_empty() {
                break;
            }
            let _ = rustix::event::poll(&mut [], Some(&REMOVAL_PAUSE));
        }
        for base in &self.bases {
            let _ = fs::remove_dir(base);
        }
    }
}

/// The groups of one sandbox.
#[derive(Debug, Default)]
pub(crate) struct Group {
    parts: Vec<Part>,
}

#[derive(Debug)]
struct Part {
    controller: Controller,
    directory: PathBuf,
    version: Version,
}

impl Part {
    fn make(&self) -> io::Result<()> {
        match fs::create_dir(&self.directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        }
    }

    fn limit(&self, limits: &Limits) -> io::Result<()> {
        let wall = match self.controller {
            Controller::Memory => Wall::MemoryLimit,
            Controller::Pids => Wall::ProcessLimit,
            Controller::Cpu => Wall::CpuLimit,
            // Its device is not known yet.
            Controller::Io => return Ok(()),
        };
        if down::is_down(wall) {
            return Ok(());
        }
        let set = |file: &str, value: String| set(&self.directory, file, &value);
        let quota = limits.cpu_milli_max.saturating_mul(CPU_PERIOD_US) / 1_000;
        let memory = limits.memory_bytes_max.to_string();
        match (self.controller, self.version) {
            (Controller::Pids, _) => set("pids.max", (limits.processes_max + OWN_PROCESSES).to_string()),
            (Controller::Memory, Version::One) => {
                set("memory.limit_in_bytes", memory.clone())?;
                // Where swap is not counted there is no such file, and nothing to bound it by but its absence of use.
                let _ = set("memory.memsw.limit_in_bytes", memory);
                let _ = set("memory.swappiness", "0".to_owned());
                Ok(())
            }
            // No group-wide kill: PID 1 lives on and reports what the limit killed.
            (Controller::Memory, Version::Two) => {
                set("memory.max", memory)?;
                let _ = set("memory.swap.max", "0".to_owned());
                Ok(())
            }
            (Controller::Cpu, Version::One) => {
                set("cpu.cfs_period_us", CPU_PERIOD_US.to_string())?;
                set("cpu.cfs_quota_us", quota.max(1_000).to_string())
            }
            (Controller::Cpu, Version::Two) => set("cpu.max", format!("{} {CPU_PERIOD_US}", quota.max(1_000))),
            (Controller::Io, _) => Ok(()),
        }
    }
}

impl Group {
    /// The v2 group to be born into, when there is one.
    pub(crate) fn birthplace(&self) -> Result<Option<OwnedFd>, Errno> {
        let part = self.parts.iter().find(|part| part.version == Version::Two);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        part.map(|part| rustix::fs::open(&part.directory, flags, Mode::empty())).transpose()
    }

    /// Sets the limits.
    pub(crate) fn limit(&self, limits: &Limits) -> Result<(), (Controller, io::Error)> {
        self.parts.iter().try_for_each(|part| part.limit(limits).map_err(|error| (part.controller, error)))
    }

    /// Moves the caller, which has one thread, into its v1 groups. As a thread, not as a process: that waits for nobody, where
    /// the other waits for every processor of the machine (8 to 19 ms).
    pub(crate) fn enter(&self) -> Result<(), (Controller, io::Error)> {
        let parts = self.parts.iter().filter(|part| part.version == Version::One);
        for part in parts {
            set(&part.directory, "tasks", "0").map_err(|error| (part.controller, error))?;
        }
        Ok(())
    }

    /// How often the memory limit killed a process of it.
    pub(crate) fn kills(&self) -> u64 {
        let memory = self.parts.iter().find(|part| part.controller == Controller::Memory);
        let count = memory.and_then(|part| {
            let file = if part.version == Version::One { "memory.oom_control" } else { "memory.events" };
            let text = fs::read_to_string(part.directory.join(file)).ok()?;
            text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
        });
        count.unwrap_or(0)
    }

    /// What it uses now.
    pub(crate) fn usage(&self) -> Usage {
        let count = |controller: Controller, one: &str, two: &str| {
            let part = self.parts.iter().find(|part| part.controller == controller)?;
            let file = if part.version == Version::One { one } else { two };
            fs::read_to_string(part.directory.join(file)).ok()?.trim().parse().ok()
        };
        Usage {
            memory_bytes: count(Controller::Memory, "memory.usage_in_bytes", "memory.current"),
            processes: count(Controller::Pids, "pids.current", "pids.current"),
            memory_kills: self.kills(),
        }
    }

    /// Removes the groups; `false` while the kernel still counts something in them.
    fn remove(&self) -> bool {
        let mut all = true;
        for part in &self.parts {
            all &= match fs::remove_dir(&part.directory) {
                Err(error) => error.kind() == io::ErrorKind::NotFound,
                Ok(()) => true,
            };
        }
        all
    }
}

/// Writes a control file in one write, as the kernel wants it.
fn set(directory: &Path, file: &str, value: &str) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).open(directory.join(file))?;
    file.write_all(value.as_bytes())
}

/// The directory of the launcher's own group for a controller.
fn find(controller: Controller, own: &str, mounts: &str) -> Result<(PathBuf, Version), String> {
    let of_list = |list: &str| list.split(',').any(|item| item == controller.name(Version::One));
    let name = controller.name(Version::Two);
    let mut reason = format!("no cgroup controller `{name}` is mounted");
    for mount in mounts.lines() {
        let Some((before, after)) = mount.split_once(" - ") else { continue };
        let mut before = before.split(' ');
        let (Some(root), Some(point)) = (before.nth(3), before.next()) else { continue };
        let mut after = after.split(' ');
        let (kind, options) = (after.next().unwrap_or_default(), after.nth(1).unwrap_or_default());
        let (path, version) = match kind {
            "cgroup" if of_list(options) => (own_path(own, |id, list| id != "0" && of_list(list)), Version::One),
            "cgroup2" => (own_path(own, |id, _| id == "0"), Version::Two),
            _ => continue,
        };
        let Some(below) = path.and_then(|path| strip(path, root)) else {
            reason = format!("{point}: this process stands outside of what is mounted");
            continue;
        };
        let directory = Path::new(point).join(below);
        if version == Version::Two {
            let offered = fs::read_to_string(directory.join("cgroup.controllers")).unwrap_or_default();
            if !offered.split_ascii_whitespace().any(|offered| offered == name) {
                continue;
            }
        }
        return Ok((directory, version));
    }
    Err(reason)
}

fn own_path(own: &str, wanted: impl Fn(&str, &str) -> bool) -> Option<&str> {
    own.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (id, list, path) = (fields.next()?, fields.next()?, fields.next()?);
        wanted(id, list).then_some(path)
    })
}

/// `path` below a mount's root, relative.
fn strip<'a>(path: &'a str, root: &str) -> Option<&'a str> {
    if path.starts_with("/..") {
        return None;
    }
    let rest = if root == "/" { path } else { path.strip_prefix(root)? };
    Some(rest.trim_start_matches('/'))
}

/// The leaf that processes are moved to so that v2 lets controllers through to their siblings.
const LEAF: &str = "topside";

/// Lets a v2 controller through to groups below `own`, moving the processes that stand in it to a leaf if need be. A
/// launcher that starts in such a leaf uses the group above it. Returns the group to work in.
fn let_through(own: &Path, controller: Controller) -> Result<PathBuf, String> {
    let above = own.parent().filter(|_| own.file_name().is_some_and(|name| name == LEAF));
    let parent = above.unwrap_or(own);
    let refused = |error: io::Error| format!("{}: {error}", parent.display());
    match enable(parent, controller) {
        Err(error) if error.raw_os_error() == Some(Errno::BUSY.raw_os_error()) => {}
        done => return done.map(|()| parent.to_owned()).map_err(refused),
    }
    let leaf = parent.join(LEAF);
    match fs::create_dir(&leaf) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(refused(error)),
        _ => {}
    }
    let members = fs::read_to_string(parent.join("cgroup.procs")).map_err(refused)?;
    for member in members.lines().take(MOVED_MAX) {
        let _ = set(&leaf, "cgroup.procs", member);
    }
    enable(parent, controller).map(|()| parent.to_owned()).map_err(refused)
}

fn enable(directory: &Path, controller: Controller) -> io::Result<()> {
    set(directory, "cgroup.subtree_control", &format!("+{}", controller.name(Version::Two)))
}

/// Removes what launchers left behind that are no more; gives the bases in which something is still dying.
fn sweep(parent: &Path) -> Vec<PathBuf> {
    let mut left = Vec::new();
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(PREFIX)).and_then(|pid| pid.parse::<u32>().ok());
        let Some(pid) = pid.filter(|pid| !Path::new(&format!("/proc/{pid}")).exists()) else { continue };
        tracing::debug!(pid, "removing the cgroups of a launcher that is no more");
        if !remove_base(&entry.path()) {
            left.push(entry.path());
        }
    }
    left
}

/// Removes a base with the groups in it; `false` while the kernel still counts something in one.
fn remove_base(base: &Path) -> bool {
    let below = fs::read_dir(base).into_iter().flatten().flatten();
    for group in below.filter(|below| below.file_type().is_ok_and(|kind| kind.is_dir())) {
        throttle::lift(&group.path());
        let _ = fs::remove_dir(group.path());
    }
    fs::remove_dir(base).is_ok() || !base.exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
        39 31 0:36 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids\n\
        32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct\n\
        42 31 0:39 / /sys/fs/cgroup/blkio rw,relatime - cgroup cgroup rw,blkio\n";

    fn check(controller: Controller, own: &str, mounts: &str, expected: &str) {
        let got = match find(controller, own, mounts) {
            Ok((directory, version)) => format!("{version:?} {}", directory.display()),
            Err(reason) => format!("! {reason}"),
        };
        assert_eq!(got, expected);
    }

    #[test]
    fn own_groups_are_found() {
        check(Controller::Memory, "4:memory:/a/b\n0::/", HYBRID, "One /sys/fs/cgroup/memory/a/b");
        check(Controller::Cpu, "1:cpu,cpuacct:/\n0::/", HYBRID, "One /sys/fs/cgroup/cpu/");
        check(Controller::Io, "7:blkio:/b\n0::/", HYBRID, "One /sys/fs/cgroup/blkio/b");
        check(Controller::Pids, "4:memory:/a", "", "! no cgroup controller `pids` is mounted");
        check(Controller::Io, "4:memory:/a", "", "! no cgroup controller `io` is mounted");
        let contained = "35 31 0:32 /docker/x /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory";
        check(Controller::Memory, "4:memory:/docker/x", contained, "One /sys/fs/cgroup/memory/");
        let outside = "! /sys/fs/cgroup/memory: this process stands outside of what is mounted";
        check(Controller::Memory, "4:memory:/../..", contained, outside);
        check(Controller::Memory, "4:memory:/elsewhere", contained, outside);
    }

    /// A directory that looks like a delegated v2 group to file operations; the kernel's part is not in it.
    fn delegated() -> PathBuf {
        let directory = std::env::temp_dir().join(format!("topside-cgroup-{}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        for group in ["own", "own/topside"] {
            fs::create_dir_all(directory.join(group)).unwrap();
            for (file, text) in [("cgroup.controllers", "cpu io memory pids\n"), ("cgroup.subtree_control", "")] {
                fs::write(directory.join(group).join(file), text).unwrap();
            }
        }
        directory
    }

    #[test]
    fn version_two_is_used_where_its_controllers_are_offered() {
        let directory = delegated();
        let point = directory.display().to_string();
        let mounts = format!("{HYBRID}41 31 0:38 / {point} rw,relatime - cgroup2 cgroup2 rw\n");
        check(Controller::Pids, "0::/own", &mounts, &format!("Two {point}/own"));
        let unified = format!("41 31 0:38 / {point} rw,relatime - cgroup2 cgroup2 rw\n");
        check(Controller::Io, "0::/own", &unified, &format!("Two {point}/own"));
        // Where both offer a controller, the one this process stands in counts; v1 comes first in the list of mounts here.
        check(Controller::Memory, "4:memory:/a\n0::/own", &mounts, "One /sys/fs/cgroup/memory/a");
        let own = directory.join("own");
        for start in [own.clone(), own.join("topside")] {
            assert_eq!(let_through(&start, Controller::Pids), Ok(own.clone()));
            assert_eq!(fs::read_to_string(own.join("cgroup.subtree_control")).unwrap(), "+pids");
        }
        fs::remove_dir_all(directory).unwrap();
    }
}
