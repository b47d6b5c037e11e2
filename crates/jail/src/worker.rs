//! The process that looks into an image or unpacks a layer: it has no privilege, no network and no memory but its own, may read
//! the image and write below one directory, and ends when it has said what came of it. The launcher forks and ends it, as it does
//! those that change whose files are (see `owners`).

use crate::ids::{self, Extent};
use crate::raw::Cloned;
use crate::stack::{OWNER_ID, OWNERS_FIRST};
use crate::{owners, privileges, raw};
use guest::sys::Forked;
use landlock::{
    ABI, Access as _, AccessFs, CompatLevel, Compatible as _, PathBeneath, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, RulesetStatus,
};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Length, SeccompCmpOp as Op, SeccompCondition as Condition,
    SeccompFilter, SeccompRule as Rule,
};
use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

/// Workers alive at once.
const WORKERS_MAX: usize = 4;
/// Wall time of one task; the process is then killed.
pub(crate) const TASK_SECONDS_MAX: u32 = 900;
/// Memory of one worker.
const MEMORY_BYTES_MAX: u64 = 1 << 30;
const OPEN_FILES_MAX: u64 = 64;

/// Those that work.
#[derive(Debug, Default)]
pub(crate) struct Workers(Vec<i32>);

impl Workers {
    /// Starts one. `fds` are the image, the directory to unpack into when the task has one, and where the result goes.
    pub(crate) fn start(&mut self, task: &::image::Task, fds: Vec<OwnedFd>, root: bool) -> Result<i32, String> {
        self.0.retain(|pid| !has_ended(*pid));
        if self.0.len() >= WORKERS_MAX {
            return Err(format!("workers_max = {WORKERS_MAX}"));
        }
        let mut fds = fds.into_iter();
        let ends = match task {
            ::image::Task::Look => (fds.next(), None, fds.next()),
            ::image::Task::Unpack { .. } => (fds.next(), fds.next(), fds.next()),
        };
        let (Some(source), into, Some(result)) = ends else { return Err("descriptors are missing".to_owned()) };
        if let ::image::Task::Unpack { owners: ::image::Owners::Several, .. } = task {
            return self.start_giving(task, source, into, &result);
        }
        match guest::sys::fork().map_err(|errno| errno.to_string())? {
            Forked::Child => raw::in_child(|| work(task, source, into, &result, Power::of(root))),
            Forked::Parent(pid) => {
                let pid = pid.as_raw_nonzero().get();
                self.0.push(pid);
                Ok(pid)
            }
        }
    }

    /// Starts one that gives files away: in a user namespace with the ids that layers with owners have on the host.
    fn start_giving(
        &mut self,
        task: &::image::Task,
        source: OwnedFd,
        into: Option<OwnedFd>,
        result: &OwnedFd,
    ) -> Result<i32, String> {
        let said = |errno: Errno| errno.to_string();
        let (waits, go) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(said)?;
        let pid = match raw::clone_child(u64::from(libc::CLONE_NEWUSER.unsigned_abs())).map_err(said)? {
            Cloned::Child => raw::in_child(|| {
                drop(go);
                match rustix::io::read(&waits, &mut [0; 1][..]) {
                    Ok(1) => work(task, source, into, result, Power::Giving),
                    _ => 1,
                }
            }),
            Cloned::Parent(pid) => pid,
        };
        self.0.push(pid);
        let line = ids::lines(&[Extent { from: 0, to: OWNERS_FIRST, count: ids::RANGE_IDS }]);
        let mapped =
            ["uid_map", "gid_map"].iter().try_for_each(|map| std::fs::write(format!("/proc/{pid}/{map}"), &line));
        let mapped =
            mapped.map_err(|error| error.to_string()).and_then(|()| rustix::io::write(&go, b".").map_err(said));
        if mapped.is_err() {
            self.end(pid);
        }
        mapped.map(|_| pid)
    }

    /// Starts one that changes whose the files of a tree are. `fds` are the tree and where the result goes.
    pub(crate) fn own(&mut self, task: owners::Task, fds: Vec<OwnedFd>) -> Result<i32, String> {
        self.0.retain(|pid| !has_ended(*pid));
        if self.0.len() >= WORKERS_MAX {
            return Err(format!("workers_max = {WORKERS_MAX}"));
        }
        let mut fds = fds.into_iter();
        let (Some(tree), Some(result)) = (fds.next(), fds.next()) else {
            return Err("descriptors are missing".to_owned());
        };
        match guest::sys::fork().map_err(|errno| errno.to_string())? {
            Forked::Child => raw::in_child(|| owners::work(task, &tree, &result)),
            Forked::Parent(pid) => {
                let pid = pid.as_raw_nonzero().get();
                self.0.push(pid);
                Ok(pid)
            }
        }
    }

    /// Ends one, whether it is done or not.
    pub(crate) fn end(&mut self, worker: i32) {
        if let Some(index) = self.0.iter().position(|pid| *pid == worker) {
            self.0.swap_remove(index);
            guest::sys::kill(worker);
            raw::reap(worker);
        }
    }

    /// Ends all of them.
    pub(crate) fn end_all(&mut self) {
        for worker in std::mem::take(&mut self.0) {
            guest::sys::kill(worker);
            raw::reap(worker);
        }
    }
}

fn has_ended(pid: i32) -> bool {
    let Some(pid) = rustix::process::Pid::from_raw(pid) else { return true };
    !matches!(rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::NOHANG), Ok(None))
}

/// What a worker may do beside reading and writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Power {
    /// Nothing; and it becomes somebody who is nobody.
    Nobodys,
    /// Nothing; it stays the ordinary user that it is.
    Own,
    /// It gives files away within its user namespace, in which it is root.
    Giving,
}

/// The capabilities of who gives files away, over nothing but what is in its namespace: CHOWN, DAC_OVERRIDE, FOWNER.
const GIVING: u64 = 1 | 1 << 1 | 1 << 3;

impl Power {
    const fn of(root: bool) -> Self {
        if root { Self::Nobodys } else { Self::Own }
    }
}

/// A worker's life.
fn work(task: &::image::Task, source: OwnedFd, into: Option<OwnedFd>, result: &OwnedFd, power: Power) -> i32 {
    let done = restrict(&source, into.as_ref(), result, power)
        .map_err(|detail| ::image::Error::Unpack { detail: format!("its process could not be restricted: {detail}") })
        .and_then(|()| ::image::perform(task, source, into.as_ref().map(|into| into.as_fd())));
    let text = serde_json::to_vec(&done).unwrap_or_default();
    let mut left = &text[..];
    while !left.is_empty() {
        match rustix::io::write(result, left) {
            Ok(written) => left = &left[written..],
            Err(Errno::INTR) => {}
            Err(_) => return 1,
        }
    }
    0
}

/// Gives up all that unpacking does not need.
fn restrict(source: &OwnedFd, into: Option<&OwnedFd>, result: &OwnedFd, power: Power) -> Result<(), String> {
    let said = |errno: Errno| errno.to_string();
    let null = rustix::fs::open("/dev/null", rustix::fs::OFlags::RDWR, rustix::fs::Mode::empty()).map_err(said)?;
    for number in 0..3 {
        guest::sys::install(null.as_fd(), number).map_err(said)?;
    }
    let mut kept = vec![0, 1, 2, null.as_raw_fd(), source.as_raw_fd(), result.as_raw_fd()];
    kept.extend(into.map(|into| into.as_raw_fd()));
    raw::close_inherited(&kept).map_err(said)?;
    privileges::name_process(c"topside-unpack");
    match power {
        Power::Nobodys => raw::become_user(OWNER_ID, OWNER_ID, true).map_err(said)?,
        Power::Giving => raw::become_user(0, 0, true).map_err(said)?,
        Power::Own => {}
    }
    privileges::die_with_parent().map_err(said)?;
    guest::sys::reset_signals();
    raw::alarm(TASK_SECONDS_MAX);
    for (resource, bound) in [
        (Resource::As, MEMORY_BYTES_MAX),
        (Resource::Nofile, OPEN_FILES_MAX),
        (Resource::Cpu, u64::from(TASK_SECONDS_MAX)),
        (Resource::Nproc, 0),
        // As for every sandbox: only this value keeps the kernel from starting the host's handler of core dumps.
        (Resource::Core, 1),
    ] {
        let allowed = rustix::process::getrlimit(resource).maximum.unwrap_or(u64::MAX);
        let bound = Some(bound.min(allowed));
        rustix::process::setrlimit(resource, Rlimit { current: bound, maximum: bound }).map_err(said)?;
    }
    privileges::no_new_privileges().map_err(said)?;
    match power {
        Power::Giving => privileges::bound_capabilities(GIVING).and_then(|()| privileges::keep_capabilities(GIVING)),
        Power::Nobodys | Power::Own => raw::drop_capabilities(),
    }
    .map_err(said)?;
    privileges::hide().map_err(said)?;
    confine(source.as_fd(), into.map(|into| into.as_fd())).map_err(|error| format!("landlock: {error}"))?;
    seccompiler::apply_filter(&filter(power)?).map_err(|error| format!("seccomp: {error}"))
}

/// Landlock: nothing can be opened but below the image, to be read, and below the directory.
fn confine(source: BorrowedFd<'_>, into: Option<BorrowedFd<'_>>) -> Result<(), Box<dyn std::error::Error>> {
    let write = AccessFs::from_read(ABI::V2)
        | AccessFs::WriteFile
        | AccessFs::MakeDir
        | AccessFs::MakeReg
        | AccessFs::MakeSym
        // Only ever the device 0:0, a whiteout: the filter sees to it.
        | AccessFs::MakeChar
        | AccessFs::RemoveFile
        | AccessFs::RemoveDir
        | AccessFs::Refer;
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V2))?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ABI::V6))?
        .create()?;
    let is_directory =
        rustix::fs::fstat(source).is_ok_and(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir());
    let read = if is_directory { AccessFs::ReadFile | AccessFs::ReadDir } else { AccessFs::ReadFile.into() };
    rules = rules.add_rule(PathBeneath::new(source, read))?;
    if let Some(into) = into {
        rules = rules.add_rule(PathBeneath::new(into, write))?;
    }
    match rules.restrict_self()?.ruleset {
        RulesetStatus::NotEnforced => Err("the kernel enforced nothing".into()),
        RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced => Ok(()),
    }
}

/// The calls that unpacking makes, each with its reason; every other one fails.
const ALLOWED: &[(&str, &[libc::c_long])] = &[
    (
        "the image and the files",
        &[libc::SYS_read, libc::SYS_pread64, libc::SYS_write, libc::SYS_close, libc::SYS_lseek],
    ),
    ("opening below the directory", &[libc::SYS_openat, libc::SYS_openat2]),
    ("what stands there", &[libc::SYS_fstat, libc::SYS_newfstatat, libc::SYS_statx]),
    ("making entries", &[libc::SYS_mkdirat, libc::SYS_symlinkat, libc::SYS_linkat, libc::SYS_unlinkat]),
    ("their modes, times and marks", &[libc::SYS_fchmod, libc::SYS_utimensat, libc::SYS_fsetxattr]),
    ("keeping them", &[libc::SYS_syncfs]),
    ("copies of descriptors", &[libc::SYS_fcntl]),
    ("memory", &[libc::SYS_mmap, libc::SYS_munmap, libc::SYS_mremap, libc::SYS_madvise, libc::SYS_brk]),
    ("the allocator's locks and seeds", &[libc::SYS_futex, libc::SYS_getrandom, libc::SYS_sched_yield]),
    ("ending", &[libc::SYS_exit, libc::SYS_exit_group, libc::SYS_rt_sigreturn, libc::SYS_restart_syscall]),
];

fn filter(power: Power) -> Result<BpfProgram, String> {
    let mut rules: BTreeMap<i64, Vec<Rule>> = BTreeMap::new();
    for call in ALLOWED.iter().flat_map(|(_, calls)| *calls) {
        rules.insert(*call, Vec::new());
    }
    if power == Power::Giving {
        rules.extend([libc::SYS_fchown, libc::SYS_fchownat].map(|call| (call, Vec::new())));
    }
    let failed = |error: seccompiler::BackendError| error.to_string();
    let on = |argument, length, operation, value| Condition::new(argument, length, operation, value).map_err(failed);
    // A whiteout, and no other device.
    let whiteout = vec![
        on(2, Length::Dword, Op::MaskedEq(u64::from(libc::S_IFMT)), u64::from(libc::S_IFCHR))?,
        on(3, Length::Qword, Op::Eq, 0)?,
    ];
    rules.insert(libc::SYS_mknodat, vec![Rule::new(whiteout).map_err(failed)?]);
    // Memory is never made executable.
    let execute = u64::try_from(libc::PROT_EXEC).unwrap_or(4);
    let data = |argument| {
        Ok::<_, String>(vec![Rule::new(vec![on(argument, Length::Dword, Op::MaskedEq(execute), 0)?]).map_err(failed)?])
    };
    rules.insert(libc::SYS_mmap, data(2)?);
    rules.insert(libc::SYS_mprotect, data(2)?);
    let refuse = SeccompAction::Errno(u32::try_from(libc::EPERM).unwrap_or(1));
    let arch = std::env::consts::ARCH.try_into().map_err(|_| "no filter for this architecture".to_owned())?;
    let filter = SeccompFilter::new(rules, refuse, SeccompAction::Allow, arch).map_err(failed)?;
    filter.try_into().map_err(failed)
}
