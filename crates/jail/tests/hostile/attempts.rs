//! Attempts: what an attacker tries inside, as rows. Each says exactly what it gets where the walls stand, which walls those
//! are, and where it is shown to work when they are not: an attack that works nowhere would prove nothing.

use crate::support::{World, command, finish};
use sandbox::Sandbox;
use std::process::{Command, Stdio};
use std::sync::Arc;

/// Where the attacking program stands inside.
pub(crate) const PROGRAM: &str = "/attack/program";
/// The argument that makes a test program an attacker; the attempt's name follows.
pub(crate) const MODE: &str = "--attack=";
/// What an attempt says that did what it wanted.
pub(crate) const WORKED: &str = "worked";

/// Something that is tried inside.
#[derive(Clone, Copy)]
pub(crate) struct Attempt {
    pub(crate) name: &'static str,
    /// Tries it and says what came of it. The row's arguments come first, then those of whoever runs it.
    pub(crate) act: fn(&[String]) -> String,
    pub(crate) arguments: &'static [&'static str],
    /// What it says where the walls stand.
    pub(crate) held: &'static str,
    /// What stops it: with all of these down it works, which is tried in the guest machine. The names of `sandbox::Walls`,
    /// and of what they are made of.
    pub(crate) walls: &'static [&'static str],
    pub(crate) control: Control,
}

impl Attempt {
    /// What the kernel says that knows no such thing.
    pub(crate) fn unknown(&self) -> Option<&'static str> {
        if let Control::PlainOr(error) = self.control { Some(error) } else { None }
    }
}

/// Where else it is shown to work.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Control {
    /// In any child of this program, in which no wall of ours is.
    Plain,
    /// In a child of this program when that is root.
    Root,
    /// As `Plain`, where the kernel knows such a thing; elsewhere a plain child is told so by another error than ours.
    PlainOr(&'static str),
    /// Only where its walls are taken down: in the guest machine.
    Machine,
}

/// What came of a call, in the words of the rows.
pub(crate) fn told<T>(got: Result<T, i32>) -> String {
    match got {
        Ok(_) => WORKED.to_owned(),
        Err(errno) => errno_name(errno),
    }
}

/// The same of the standard library.
pub(crate) fn io<T>(got: std::io::Result<T>) -> String {
    told(got.map_err(|error| error.raw_os_error().unwrap_or(0)))
}

/// The kernel's name of an error.
pub(crate) fn errno_name(errno: i32) -> String {
    const NAMES: [(i32, &str); 38] = [
        (libc::EPERM, "EPERM"),
        (libc::ENOENT, "ENOENT"),
        (libc::ESRCH, "ESRCH"),
        (libc::EINTR, "EINTR"),
        (libc::EIO, "EIO"),
        (libc::ENXIO, "ENXIO"),
        (libc::E2BIG, "E2BIG"),
        (libc::ENOEXEC, "ENOEXEC"),
        (libc::EBADF, "EBADF"),
        (libc::ECHILD, "ECHILD"),
        (libc::EAGAIN, "EAGAIN"),
        (libc::ENOMEM, "ENOMEM"),
        (libc::EACCES, "EACCES"),
        (libc::EFAULT, "EFAULT"),
        (libc::EBUSY, "EBUSY"),
        (libc::EEXIST, "EEXIST"),
        (libc::EXDEV, "EXDEV"),
        (libc::ENODEV, "ENODEV"),
        (libc::ENOTDIR, "ENOTDIR"),
        (libc::EISDIR, "EISDIR"),
        (libc::EINVAL, "EINVAL"),
        (libc::EMFILE, "EMFILE"),
        (libc::ENOTTY, "ENOTTY"),
        (libc::ETXTBSY, "ETXTBSY"),
        (libc::EFBIG, "EFBIG"),
        (libc::ENOSPC, "ENOSPC"),
        (libc::EROFS, "EROFS"),
        (libc::ENAMETOOLONG, "ENAMETOOLONG"),
        (libc::ENOSYS, "ENOSYS"),
        (libc::ELOOP, "ELOOP"),
        (libc::ENOPROTOOPT, "ENOPROTOOPT"),
        (libc::EPROTONOSUPPORT, "EPROTONOSUPPORT"),
        (libc::ESOCKTNOSUPPORT, "ESOCKTNOSUPPORT"),
        (libc::EOPNOTSUPP, "EOPNOTSUPP"),
        (libc::EAFNOSUPPORT, "EAFNOSUPPORT"),
        (libc::ENETUNREACH, "ENETUNREACH"),
        (libc::ECONNREFUSED, "ECONNREFUSED"),
        (libc::EDQUOT, "EDQUOT"),
    ];
    NAMES
        .iter()
        .find(|(number, _)| *number == errno)
        .map_or_else(|| format!("errno {errno}"), |(_, name)| (*name).into())
}

/// Is an attacker, if that was asked for: tries one thing, says what came of it, and ends.
pub(crate) fn attacker() -> Option<std::process::ExitCode> {
    let arguments: Vec<String> = std::env::args().collect();
    let at = arguments.iter().position(|argument| argument.starts_with(MODE))?;
    let name = arguments[at].strip_prefix(MODE)?;
    let rest = arguments[at + 1..].iter().cloned();
    let said = if let Some(attempt) = super::attempts().into_iter().find(|attempt| attempt.name == name) {
        (attempt.act)(&attempt.arguments.iter().map(ToString::to_string).chain(rest).collect::<Vec<_>>())
    } else {
        let act = super::acts().into_iter().find(|(known, _)| *known == name);
        act.unwrap_or_else(|| panic!("there is no attack `{name}`")).1(&rest.collect::<Vec<_>>())
    };
    println!("{said}");
    Some(std::process::ExitCode::SUCCESS)
}

/// Runs an attack inside and gives what it says.
pub(crate) async fn inside(sandbox: &Arc<dyn Sandbox>, name: &str, arguments: &[&str]) -> String {
    let mode = format!("{MODE}{name}");
    let argv: Vec<&str> = [PROGRAM, &mode].into_iter().chain(arguments.iter().copied()).collect();
    let mut process = sandbox.start(command(&argv)).await.unwrap();
    let outcome = finish(process.as_mut()).await.unwrap();
    if outcome.err.is_empty() {
        outcome.out.trim_end().to_owned()
    } else {
        format!("{}{} {:?}", outcome.out, outcome.err, outcome.exit)
    }
}

/// Runs an attack outside, where no wall of ours is.
pub(crate) fn outside(name: &str, arguments: &[&str]) -> String {
    let directory = tempfile::tempdir().unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .arg(format!("{MODE}{name}"))
        .args(arguments)
        .current_dir(directory.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
        .trim_end()
        .to_owned()
}

/// Tries every row inside a fresh sandbox, and then where it must work. Each side has its own further arguments.
pub(crate) async fn hold(world: &Arc<World>, rows: &[Attempt], further: &[&str], further_outside: &[&str]) {
    let sandbox = world.sandbox().await;
    let mut wrong = Vec::new();
    for row in rows {
        let got = inside(&sandbox, row.name, further).await;
        if got != row.held {
            wrong.push(format!("{}: {got}, not {}", row.name, row.held));
        }
    }
    sandbox.close().await;
    for row in rows {
        let expected = match row.control {
            Control::Plain | Control::PlainOr(_) => WORKED,
            Control::Root if world.root => WORKED,
            Control::Root | Control::Machine => continue,
        };
        let got = outside(row.name, further_outside);
        if got != expected && row.unknown() != Some(&got) {
            wrong.push(format!("{}, without its walls ({:?}): {got}, not {expected}", row.name, row.control));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
