//! What ids an ordinary user has to give: the ranges of `/etc/subuid` and `/etc/subgid`, cut into parts of which each sandbox with
//! users has one; and how they get into a user namespace, through `newuidmap` and `newgidmap`, the only programs that a launcher
//! ever runs. No id of the user's own, of root or of anybody else is ever among them.

use crate::ids::{self, Extent};
use rustix::event::{PollFd, PollFlags};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::process::{Pid, PidfdFlags};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

/// Ids of one part.
pub(crate) const PART_IDS: u32 = 0x1000;
/// Ids inside, the highest ones, that are not counted from 0: the group that sees processes, nobody, and the last.
const HIGH_IDS: u32 = 3;
/// The lowest id inside that a part does not have.
pub(crate) const BELOW: u32 = PART_IDS - HIGH_IDS;
/// Bytes of a file of the system that are read.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Parts that are made use of.
const PARTS_MAX: usize = 1_024;
/// How long a helper may take. A launcher waits for it.
const HELPER_MS_MAX: u64 = 2_000;
/// What a helper says that is told on.
const SAID_BYTES_MAX: u64 = 512;
/// Where ranges begin that are proposed, as `useradd` does it, and how many ids.
const PROPOSED_FIRST: u32 = 100_000;
const PROPOSED_IDS: u32 = 0x1_0000;
/// Where the helpers are looked for.
const PLACES: [&str; 3] = ["/usr/bin", "/bin", "/run/wrappers/bin"];
const NOT_THERE: &str = "hint: install the package `uidmap` (`shadow-utils` elsewhere)";

/// One part: the host's user and group that ids inside count from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Part {
    pub(crate) user: u32,
    pub(crate) group: u32,
}

/// A part that one sandbox has, as long as the lock is held.
#[derive(Clone, Debug)]
pub(crate) struct Lent {
    pub(crate) part: Part,
    pub(crate) lock: Arc<OwnedFd>,
}

/// All that this user may give away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    parts: Vec<Part>,
    helpers: [PathBuf; 2],
}

impl Part {
    /// What ids inside are on the host.
    fn extents(first: u32) -> [Extent; 2] {
        let high = Extent { from: ids::RANGE_IDS - HIGH_IDS, to: first + BELOW, count: HIGH_IDS };
        [Extent { from: 0, to: first, count: BELOW }, high]
    }

    /// Gives them to a process in a new user namespace.
    pub(crate) fn write(self, pid: i32) -> Result<(), String> {
        let helpers = helpers()?;
        run(&helpers[0], pid, &Self::extents(self.user))?;
        run(&helpers[1], pid, &Self::extents(self.group))
    }
}

impl Grant {
    /// What this process's user has, or what is missing, in words.
    pub(crate) fn find() -> Result<Self, String> {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        if status.lines().any(|line| line.split_whitespace().eq(["NoNewPrivs:", "1"])) {
            return Err(
                "this process may gain no privileges, so that `newuidmap` gives none; hint: NoNewPrivileges=no"
                    .to_owned(),
            );
        }
        let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let passwd = read(Path::new("/etc/passwd"))?;
        let name = name_of(&passwd, user)
            .ok_or_else(|| format!("user {user} has no name in /etc/passwd, by which ids are given"))?;
        let asked = Asked { name: &name, user };
        let users = asked.firsts("/etc/subuid", &read(Path::new("/etc/subuid"))?, user, &passwd)?;
        let groups =
            asked.firsts("/etc/subgid", &read(Path::new("/etc/subgid"))?, group, &read(Path::new("/etc/group"))?)?;
        let parts = users.into_iter().zip(groups).take(PARTS_MAX).map(|(user, group)| Part { user, group });
        Ok(Self { parts: parts.collect(), helpers: helpers()? })
    }

    /// How many sandboxes may have users at once.
    pub(crate) const fn parts(&self) -> usize {
        self.parts.len()
    }

    /// Gives a part to a sandbox that none of this user's has, whichever launcher it is in; rather the one that ids on disk are of.
    /// `None`: all are in use.
    pub(crate) fn lend(&self, rather: Option<u32>) -> Result<Option<Lent>, String> {
        let directory = locks()?;
        let is_it = |part: &&Part| rather.is_some_and(|id| (part.user..part.user + PART_IDS).contains(&id));
        let first = self.parts.iter().filter(is_it);
        let others = self.parts.iter().filter(|part| !is_it(part));
        for part in first.chain(others) {
            let flags = OFlags::RDONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let lock = rustix::fs::openat(&directory, part.user.to_string(), flags, Mode::from_raw_mode(0o600))
                .map_err(|errno| format!("a lock on ids: {errno}"))?;
            if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
                return Ok(Some(Lent { part: *part, lock: Arc::new(lock) }));
            }
        }
        Ok(None)
    }

    /// What is a whole part's id inside of a namespace with [`Grant::write_all`], where 0 is this user itself.
    pub(crate) fn inside(&self, part: Part) -> Option<u32> {
        let index = self.parts.iter().position(|known| *known == part)?;
        Some(1 + u32::try_from(index).ok()? * PART_IDS)
    }

    /// Gives a process in a new user namespace this user as 0, and all parts from 1 on.
    pub(crate) fn write_all(&self, pid: i32) -> Result<(), String> {
        let own = [rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()];
        let firsts = [|part: &Part| part.user, |part: &Part| part.group];
        for ((helper, own), first) in self.helpers.iter().zip(own).zip(firsts) {
            let mut extents = vec![Extent::one(0, own)];
            for (from, part) in (1..).step_by(PART_IDS as usize).zip(&self.parts) {
                let last = extents.last_mut().filter(|last| last.from > 0 && last.to + last.count == first(part));
                match last {
                    Some(last) => last.count += PART_IDS,
                    None => extents.push(Extent { from, to: first(part), count: PART_IDS }),
                }
            }
            run(helper, pid, &extents)?;
        }
        Ok(())
    }
}

/// Where launchers of this user tell each other which parts they have: a directory that is this user's alone.
fn locks() -> Result<OwnedFd, String> {
    let user = rustix::process::geteuid().as_raw();
    let path = format!("/tmp/topside-ids-{user}");
    let failed = |detail: String| format!("{path}: {detail}");
    match rustix::fs::mkdir(&path, Mode::from_raw_mode(0o700)) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(errno) => return Err(failed(errno.to_string())),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = rustix::fs::open(&path, flags, Mode::empty()).map_err(|errno| failed(errno.to_string()))?;
    let stat = rustix::fs::fstat(&directory).map_err(|errno| failed(errno.to_string()))?;
    if stat.st_uid != user || stat.st_mode & 0o077 != 0 {
        return Err(failed("somebody else's; hint: have it removed".to_owned()));
    }
    Ok(directory)
}

fn read(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    match File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path) {
        Ok(file) => file
            .take(FILE_BYTES_MAX + 1)
            .read_to_string(&mut text)
            .map_err(|error| format!("{}: {error}", path.display()))?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
        Err(error) => return Err(format!("{}: {error}", path.display())),
    };
    // Who else has ids may stand in what is not read.
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("{}: longer than file_bytes_max = {FILE_BYTES_MAX}", path.display()));
    }
    Ok(text)
}

/// Lines of three fields and more: name, something, number.
fn numbered(text: &str) -> impl Iterator<Item = (&str, u32)> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        Some((name, fields.nth(1)?.parse().ok()?))
    })
}

fn name_of(passwd: &str, user: u32) -> Option<String> {
    numbered(passwd).find(|(_, number)| *number == user).map(|(name, _)| name.to_owned())
}

/// Who asks.
struct Asked<'a> {
    name: &'a str,
    user: u32,
}

/// A line of `/etc/subuid` or `/etc/subgid`.
struct Line<'a> {
    owner: &'a str,
    first: u32,
    count: u32,
}

impl Line<'_> {
    fn contains(&self, id: u32) -> bool {
        id >= self.first && id - self.first < self.count
    }

    fn meets(&self, other: &Self) -> bool {
        self.contains(other.first) || other.contains(self.first)
    }

    fn end(&self) -> u64 {
        u64::from(self.first) + u64::from(self.count)
    }
}

fn lines(text: &str) -> Vec<Line<'_>> {
    let line = |line| {
        let mut fields = str::split(line, ':');
        let (owner, first, count) = (fields.next()?, fields.next()?.parse().ok()?, fields.next()?.trim().parse().ok()?);
        Some(Line { owner, first, count })
    };
    text.lines().filter_map(line).filter(|line| line.count > 0).collect()
}

impl Asked<'_> {
    fn is(&self, owner: &str) -> bool {
        owner == self.name || owner.parse() == Ok(self.user)
    }

    /// The first ids of the parts of all ranges that are this user's, of which none may be anybody else's.
    fn firsts(&self, file: &str, text: &str, own: u32, known: &str) -> Result<Vec<u32>, String> {
        let all = lines(text);
        let name = self.name;
        let mut firsts = Vec::new();
        for (index, line) in all.iter().enumerate().filter(|(_, line)| self.is(line.owner)) {
            let Line { first, count, .. } = *line;
            let refused = |what: String| Err(format!("{file}: the range {first}:{count} of `{name}` {what}"));
            if line.end() > u64::from(u32::MAX) {
                return refused("goes beyond what there is".to_owned());
            }
            if line.contains(0) || line.contains(own) {
                return refused("contains root's id or the user's own; hint: another range".to_owned());
            }
            if let Some((other, id)) = numbered(known).find(|(_, id)| line.contains(*id)) {
                return refused(format!("contains {id}, which is `{other}`; hint: another range"));
            }
            let others = all.iter().enumerate().filter(|(other, _)| *other != index);
            if let Some((_, other)) = others.into_iter().find(|(_, other)| line.meets(other)) {
                return refused(format!("overlaps one of `{}`; hint: a range of its own", other.owner));
            }
            firsts.extend((0..count / PART_IDS).map(|part| first + part * PART_IDS));
        }
        if firsts.is_empty() {
            // Above all that is given away already.
            let first = all.iter().map(Line::end).max().unwrap_or(0).max(u64::from(PROPOSED_FIRST));
            return Err(format!(
                "{file} gives `{name}` no range of at least {PART_IDS} ids; hint: add the line `{name}:{first}:{PROPOSED_IDS}` to it"
            ));
        }
        Ok(firsts)
    }
}

/// The two helpers: root's, nobody else's to change, and with the power that they need.
fn helpers() -> Result<[PathBuf; 2], String> {
    let find = |name: &str| {
        let found = PLACES.iter().map(|place| Path::new(place).join(name)).find(|path| path.exists());
        let path = found.ok_or_else(|| format!("there is no `{name}`; {NOT_THERE}"))?;
        let metadata = fs::metadata(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        if !metadata.is_file() || metadata.uid() != 0 || metadata.mode() & 0o022 != 0 {
            return Err(format!("{}: not root's alone to change", path.display()));
        }
        let mut capabilities = [0_u8; 64];
        let has_some = rustix::fs::getxattr(&path, "security.capability", &mut capabilities).is_ok();
        if metadata.mode() & 0o4000 == 0 && !has_some {
            return Err(format!("{}: neither setuid nor with capabilities; {NOT_THERE}", path.display()));
        }
        Ok(path)
    };
    Ok([find("newuidmap")?, find("newgidmap")?])
}

/// Runs a helper with nothing but numbers, no variable and no file but what it says.
fn run(helper: &Path, pid: i32, extents: &[Extent]) -> Result<(), String> {
    let failed = |detail: &str| format!("{}: {detail}", helper.display());
    let numbers = extents.iter().flat_map(|Extent { from, to, count }| [*from, *to, *count]);
    let mut command = Command::new(helper);
    command.arg(pid.to_string()).args(numbers.map(|number| number.to_string())).env_clear().current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| failed(&error.to_string()))?;
    let ended = i32::try_from(child.id()).ok().and_then(Pid::from_raw).and_then(|pid| {
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok()?;
        let timeout = crate::launcher::timespec(HELPER_MS_MAX);
        rustix::event::poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)).ok()
    });
    if ended != Some(1) {
        // It is setuid: where it can't be ended it ends by itself, and nobody waits for it.
        if child.kill().is_ok() {
            let _ = child.wait();
        }
        return Err(failed(&format!("did not end within {HELPER_MS_MAX} ms")));
    }
    let status = child.wait().map_err(|error| failed(&error.to_string()))?;
    if status.success() {
        return Ok(());
    }
    let mut said = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        // Whatever could be read.
        let _ = stderr.take(SAID_BYTES_MAX).read_to_end(&mut said);
    }
    Err(failed(String::from_utf8_lossy(&said).trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &str = "root:x:0:0::/root:/bin/sh\nada:x:1000:1000::/home/ada:/bin/sh\ngrace:x:300000:1::/:/bin/sh\n";

    fn check(text: &str, expected: Result<(u32, usize), &str>) {
        let got = Asked { name: "ada", user: 1_000 }.firsts("/etc/subuid", text, 1_000, KNOWN);
        match (got, expected) {
            (Ok(firsts), Ok((first, count))) => assert_eq!((firsts[0], firsts.len()), (first, count), "{text}"),
            (Err(told), Err(part)) => assert!(told.contains(part), "{text}: {told}"),
            (got, expected) => panic!("{text}: {got:?}, not {expected:?}"),
        }
    }

    #[test]
    fn only_a_range_that_is_nobodys_is_given_away() {
        check("ada:100000:65536\n", Ok((100_000, 16)));
        check("1000:100000:65536\n", Ok((100_000, 16)));
        check("bob:165536:65536\nada:100000:8191\nada:400000:4096\nbroken\nada:x:1\n", Ok((100_000, 2)));
        check("", Err("hint: add the line `ada:100000:65536`"));
        check("bob:100000:65536\n", Err("hint: add the line `ada:165536:65536`"));
        check("ada:100000:4095\n", Err("no range of at least 4096"));
        check("ada:0:65536\n", Err("contains root's id"));
        check("ada:500:65536\n", Err("or the user's own"));
        check("ada:299000:65536\n", Err("contains 300000, which is `grace`"));
        check("ada:100000:65536\nbob:165535:65536\n", Err("overlaps one of `bob`"));
        check("bob:90000:300000\nada:100000:65536\n", Err("overlaps one of `bob`"));
        check("ada:100000:65536\nada:100000:65536\n", Err("overlaps one of `ada`"));
        check("ada:4294900000:65536\nada:4294967290:65536\n", Err("beyond what there is"));
    }

    #[test]
    fn a_part_holds_all_that_it_says() {
        let [low, high] = Part::extents(100_000);
        assert_eq!((low.from, low.to, low.count), (0, 100_000, 4_093));
        assert_eq!((high.from, high.to, high.count), (65_533, 104_093, 3));
        assert_eq!(high.from, guest::SEEING_GROUP);
        assert_eq!(low.count + high.count, PART_IDS);
    }
}
