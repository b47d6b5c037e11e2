//! A limit on what a sandbox reads from the disk of its workspace and writes to it in a second. The device is its own, so
//! nobody else ever waits for a request that is held back here; what lies below that device is shared, and is not limited.
//!
//! A group is made for it only where a limit was asked for: all others start as if there were none.

use super::{Controller, Group, Groups, Part, Place, Version, enable, set};
use crate::door::{Create, Failure};
use crate::down::{self, Wall};
use crate::root::Workspace;
use crate::stem::Stem;
use sandbox::{Limits, Walls};
use std::fs;
use std::io;
use std::path::Path;

/// Version 1 has a file for each direction and measure.
const READ_BYTES: &str = "blkio.throttle.read_bps_device";
const WRITE_BYTES: &str = "blkio.throttle.write_bps_device";
const READ_OPERATIONS: &str = "blkio.throttle.read_iops_device";
const WRITE_OPERATIONS: &str = "blkio.throttle.write_iops_device";
/// Version 2 has one for all.
const ALL: &str = "io.max";
/// What the kernel counts operations with.
const OPERATIONS_MAX: u64 = u32::MAX as u64;

/// Sets the limit, where one was asked for, on a first process that still waits at its door and has no child; says whether
/// the wall stands.
pub(crate) fn throttle(
    groups: &Groups,
    stem: &mut Stem,
    workspace: &Workspace,
    ask: &Create,
    walls: &mut Walls,
) -> Result<(), Failure> {
    if !ask.limits.limits_io() {
        return Ok(());
    }
    let wall = Controller::Io.wall().to_owned();
    match device(workspace).and_then(|device| groups.throttle(stem, &device, &ask.limits)) {
        Ok(()) => walls.standing.push(wall),
        Err(_refused) if ask.walls_optional.contains(&wall) => walls.missing.push(wall),
        Err(detail) => return Err(Failure::wall(&wall, detail)),
    }
    Ok(())
}

/// The device that a workspace is on, as the kernel wants it named.
fn device(workspace: &Workspace) -> Result<String, String> {
    let Workspace::Mounted(mount) = workspace else {
        return Err("the workspace is in memory, on no device".to_owned());
    };
    let device = rustix::fs::fstat(mount).map_err(|errno| format!("the workspace's device: {errno}"))?.st_dev;
    match (rustix::fs::major(device), rustix::fs::minor(device)) {
        (0, _) => Err("the workspace is on no device of its own".to_owned()),
        (major, minor) => Ok(format!("{major}:{minor}")),
    }
}

/// Looks whether the kernel limits reading and writing in groups that are made here: it may have been built without.
pub(super) fn check(place: Place) -> Result<Place, String> {
    let file = place.base.join(if place.version == Version::One { WRITE_BYTES } else { ALL });
    match file.exists() {
        true => Ok(place),
        false => Err(format!("there is no {}", file.display())),
    }
}

impl Groups {
    fn throttle(&self, stem: &mut Stem, device: &str, limits: &Limits) -> Result<(), String> {
        let place = self.io.as_ref().map_err(Clone::clone)?;
        let pid = stem.pid().ok_or("the first process ended early")?;
        let directory = place.base.join(stem.slot.to_string());
        let refused = |error: io::Error| format!("{}: {error}", directory.display());
        if place.version == Version::Two {
            // Not before: it costs every group that is made from then on.
            enable(&place.base, Controller::Io).map_err(refused)?;
        }
        let part = Part { controller: Controller::Io, directory: directory.clone(), version: place.version };
        // Version 2 has one group for all controllers, in which the process was born.
        let is_in = stem.group.parts.iter().any(|other| other.directory == directory);
        part.make().map_err(refused)?;
        stem.group.parts.push(part);
        if !down::is_down(Wall::IoLimit) {
            limit(&directory, place.version, device, limits).map_err(refused)?;
        }
        if !is_in {
            let members = if place.version == Version::One { "tasks" } else { "cgroup.procs" };
            set(&directory, members, &pid.to_string()).map_err(refused)?;
        }
        Ok(())
    }
}

fn limit(directory: &Path, version: Version, device: &str, limits: &Limits) -> io::Result<()> {
    let (bytes, operations) = (limits.io_bytes_per_second_max, limits.io_operations_per_second_max.min(OPERATIONS_MAX));
    match version {
        Version::One => {
            let files = [
                (READ_BYTES, bytes),
                (WRITE_BYTES, bytes),
                (READ_OPERATIONS, operations),
                (WRITE_OPERATIONS, operations),
            ];
            let mut asked = files.iter().filter(|(_, max)| *max > 0);
            asked.try_for_each(|(file, max)| set(directory, file, &format!("{device} {max}")))
        }
        Version::Two => {
            let max = |max: u64| if max > 0 { max.to_string() } else { "max".to_owned() };
            let (bytes, operations) = (max(bytes), max(operations));
            let line = format!("{device} rbps={bytes} wbps={bytes} riops={operations} wiops={operations}");
            set(directory, ALL, &line)
        }
    }
}

impl Group {
    /// Takes the limit back before everything in it is killed: no signal ends a process while the kernel holds its requests
    /// back, and its workspace is not unmounted before they are written.
    pub(crate) fn lift(&self) {
        self.parts.iter().filter(|part| part.controller == Controller::Io).for_each(|part| lift(&part.directory));
    }
}

/// Takes back whatever a group is limited by.
pub(super) fn lift(directory: &Path) {
    for file in [READ_BYTES, WRITE_BYTES, READ_OPERATIONS, WRITE_OPERATIONS, ALL] {
        let Ok(text) = fs::read_to_string(directory.join(file)) else { continue };
        for device in text.lines().filter_map(|line| line.split(' ').next()) {
            let none = if file == ALL { "rbps=max wbps=max riops=max wiops=max" } else { "0" };
            if let Err(error) = set(directory, file, &format!("{device} {none}")) {
                tracing::debug!(%error, device, "a limit on reading and writing stays");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory with the files of one version, and what was written to each; the kernel's part is not in it.
    fn check(version: Version, (bytes, operations): (u64, u64), expected: &[(&str, &str)]) {
        let directory = std::env::temp_dir().join(format!("topside-throttle-{}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).unwrap();
        let files: &[&str] = match version {
            Version::One => &[READ_BYTES, WRITE_BYTES, READ_OPERATIONS, WRITE_OPERATIONS],
            Version::Two => &[ALL],
        };
        files.iter().for_each(|file| fs::write(directory.join(file), "").unwrap());
        let limits =
            Limits { io_bytes_per_second_max: bytes, io_operations_per_second_max: operations, ..Limits::default() };
        limit(&directory, version, "7:3", &limits).unwrap();
        let texts: Vec<String> = files.iter().map(|file| fs::read_to_string(directory.join(file)).unwrap()).collect();
        let told = files.iter().copied().zip(texts.iter().map(String::as_str));
        let written: Vec<(&str, &str)> = told.filter(|(_, text)| !text.is_empty()).collect();
        assert_eq!(written, expected);
        lift(&directory);
        for (file, _) in expected {
            let text = fs::read_to_string(directory.join(file)).unwrap();
            let none = if *file == ALL { "7:3 rbps=max wbps=max riops=max wiops=max" } else { "7:3 0" };
            assert!(text.starts_with(none), "{file}: {text}");
        }
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn each_version_is_told_in_its_own_words() {
        check(Version::One, (65_536, 0), &[(READ_BYTES, "7:3 65536"), (WRITE_BYTES, "7:3 65536")]);
        check(Version::One, (0, 20), &[(READ_OPERATIONS, "7:3 20"), (WRITE_OPERATIONS, "7:3 20")]);
        check(Version::Two, (65_536, 0), &[(ALL, "7:3 rbps=65536 wbps=65536 riops=max wiops=max")]);
        check(Version::Two, (0, u64::MAX), &[(ALL, "7:3 rbps=max wbps=max riops=4294967295 wiops=4294967295")]);
    }

    #[test]
    fn a_workspace_in_memory_has_no_device() {
        assert!(device(&Workspace::Memory { bytes_max: 1 }).unwrap_err().contains("in memory"));
        let tmpfs = rustix::fs::open("/dev/shm", rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
        assert!(device(&Workspace::Mounted(tmpfs)).unwrap_err().contains("no device of its own"));
    }
}
