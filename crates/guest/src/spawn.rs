//! Starts a program or a file operation in a child of PID 1: pipes or a terminal, a session of its own, nothing inherited.

use crate::account::Account;
use crate::command::{Command, Source};
use crate::output::Output;
use crate::sys::{self, Forked, Pointers};
use crate::{Config, Layer, Score, files};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;
use sandbox::wire::{self, Kind, Work};
use std::collections::VecDeque;
use std::ffi::CString;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::OnceLock;

/// Bytes of arguments and environment at most (the kernel's own bound for one string is 128 KiB).
const ARGUMENT_BYTES_MAX: usize = 192 << 10;

/// What a program may write before it waits for PID 1 to read: with less they would wake each other for every few pages.
const PIPE_BYTES: usize = 4 * wire::DATA_BYTES_MAX;

/// What a child executes.
struct Program {
    argv: Vec<CString>,
    environment: Vec<CString>,
    /// Where the program may be found, in order.
    candidates: Vec<CString>,
    workdir: CString,
    /// Who it runs as, when that is another user than PID 1.
    account: Option<Account>,
}

/// The child's ends, and ours.
struct Ends {
    child: [OwnedFd; 3],
    sources: Vec<Source>,
    input: Option<OwnedFd>,
    terminal: Option<OwnedFd>,
}

/// Starts `work`. `Err` says why not, in words for the asker.
pub(crate) fn start(config: &Config, work: Work) -> Result<Command, String> {
    match work {
        Work::Program { argv, workdir, environment, terminal, stdin, user } => {
            let account = account(config, user.as_deref())?;
            let program = program(config, &argv, workdir.as_str(), &environment, terminal, account)?;
            let ends = if terminal { terminal_ends() } else { pipe_ends(stdin) };
            let ends = ends.map_err(|error| format!("no descriptors: {error}"))?;
            start_program(config, &program, ends)
        }
        Work::Dial { port } => crate::dial::start(port),
        work => {
            let ends = pipe_ends(true).map_err(|error| format!("no descriptors: {error}"))?;
            start_operation(config, work, ends)
        }
    }
}

/// Who a program runs as.
fn account<'a>(config: &'a Config, user: Option<&str>) -> Result<Option<&'a Account>, String> {
    match (&config.accounts, user) {
        (Some(accounts), user) => accounts.of(user).map(Some),
        (None, None | Some(crate::USER_NAME)) => Ok(None),
        (None, Some(user)) => {
            let hint = "hint: declare `users`, or run it as nobody in particular";
            Err(format!("this sandbox has one user, and it is not `{user}`; {hint}"))
        }
    }
}

fn program(
    config: &Config,
    argv: &[String],
    workdir: &str,
    environment: &[(String, String)],
    terminal: bool,
    account: Option<&Account>,
) -> Result<Program, String> {
    let name = argv.first().filter(|name| !name.is_empty()).ok_or("no program is named")?;
    let (user, home) =
        account.map_or((crate::USER_NAME, crate::WORKSPACE), |account| (account.name.as_str(), account.home.as_str()));
    let mut variables: Vec<(&str, &str)> =
        vec![("PATH", crate::PATH), ("HOME", home), ("LANG", "C.UTF-8"), ("USER", user), ("LOGNAME", user)];
    if terminal {
        variables.push(("TERM", "xterm-256color"));
    }
    for (key, value) in config.environment.iter().chain(environment) {
        variables.retain(|(known, _)| known != key);
        variables.push((key, value));
    }
    let path = variables.iter().find(|(key, _)| *key == "PATH").map_or(crate::PATH, |(_, value)| value);
    let candidates: Vec<String> = if name.contains('/') {
        vec![name.clone()]
    } else {
        path.split(':')
            .filter(|directory| !directory.is_empty())
            .map(|directory| format!("{directory}/{name}"))
            .collect()
    };
    let strings = |texts: Vec<String>| -> Result<Vec<CString>, String> {
        texts.into_iter().map(|text| CString::new(text).map_err(|_| "a zero byte in an argument".to_owned())).collect()
    };
    let variables: Vec<String> = variables.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let bytes: usize = argv.iter().chain(&variables).map(|text| text.len() + 1).sum();
    if bytes > ARGUMENT_BYTES_MAX {
        return Err(format!("arguments and environment have {bytes} bytes; argument_bytes_max = {ARGUMENT_BYTES_MAX}"));
    }
    Ok(Program {
        argv: strings(argv.to_vec())?,
        environment: strings(variables)?,
        candidates: strings(candidates)?,
        workdir: strings(vec![format!("{}/{workdir}", crate::WORKSPACE)])?.remove(0),
        account: account.cloned(),
    })
}

fn pipe_ends(stdin: bool) -> Result<Ends, Errno> {
    let (out, child_out) = pipe_with(PipeFlags::CLOEXEC)?;
    // Where the user has had its part of pipes already, it stays as it is.
    let _ = rustix::pipe::fcntl_setpipe_size(&out, PIPE_BYTES);
    let (err, child_err) = pipe_with(PipeFlags::CLOEXEC)?;
    for fd in [&out, &err] {
        rustix::io::ioctl_fionbio(fd, true)?;
    }
    let (child_in, input) = if stdin {
        let (child_in, input) = pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&input, true)?;
        (child_in, Some(input))
    } else {
        (nothing()?, None)
    };
    let sources = vec![Source::new(out, Kind::Stdout), Source::new(err, Kind::Stderr)];
    Ok(Ends { child: [child_in, child_out, child_err], sources, input, terminal: None })
}

/// The input of a program that has none, opened once.
fn nothing() -> Result<OwnedFd, Errno> {
    static NOTHING: OnceLock<OwnedFd> = OnceLock::new();
    let nothing = match NOTHING.get() {
        Some(nothing) => nothing,
        None => {
            let opened = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
            NOTHING.get_or_init(|| opened)
        }
    };
    rustix::io::fcntl_dupfd_cloexec(nothing, 3)
}

fn terminal_ends() -> Result<Ends, Errno> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = rustix::pty::openpt(flags)?;
    rustix::pty::unlockpt(&master)?;
    rustix::termios::tcsetwinsize(&master, Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 })?;
    rustix::io::ioctl_fionbio(&master, true)?;
    let peer = sys::terminal_peer(master.as_fd())?;
    let copy = |fd: &OwnedFd| rustix::io::fcntl_dupfd_cloexec(fd, 3);
    let child = [copy(&peer)?, copy(&peer)?, peer];
    let sources = vec![Source::new(copy(&master)?, Kind::Stdout)];
    Ok(Ends { child, sources, input: Some(copy(&master)?), terminal: Some(master) })
}

fn start_program(config: &Config, program: &Program, ends: Ends) -> Result<Command, String> {
    let terminal = ends.terminal.is_some();
    let (errors, child_errors) = pipe_with(PipeFlags::CLOEXEC).map_err(|error| format!("no descriptors: {error}"))?;
    let (argv, environment) = (Pointers::to(&program.argv), Pointers::to(&program.environment));
    let execute = || execute(config, program, &ends.child, terminal, [&argv, &environment]);
    // Who becomes somebody else, waits for a mount, or could be stopped by a program that runs already, does so in memory of its
    // own, and nobody waits for it.
    let shares = !terminal && !config.mounts && program.account.is_none() && sys::is_alone();
    let forked = match shares {
        true => Score::fork(config.score.as_ref(), || share(&execute, &child_errors)),
        false => Score::fork(config.score.as_ref(), sys::fork_to_execute),
    };
    match forked {
        Ok(Forked::Child) => {
            let failure = execute();
            let _ = rustix::io::write(&child_errors, failure.as_bytes());
            sys::exit_now(127)
        }
        Ok(Forked::Parent(pid)) => {
            let _ = rustix::io::ioctl_fionbio(&errors, true);
            Ok(command(pid, ends, Some(errors), true))
        }
        Err(error) => Err(fork_failure(error)),
    }
}

/// Starts a program from memory that is shared until it runs: copying it takes longer than all else.
fn share(execute: &dyn Fn() -> String, errors: &OwnedFd) -> Result<Forked, Errno> {
    let mut failure = None;
    let pid = sys::spawn(&mut || failure = Some(execute()))?;
    // It was the child's, which is gone, and is this process's to let go of.
    if let Some(failure) = failure {
        let _ = rustix::io::write(errors, failure.as_bytes());
    }
    Ok(Forked::Parent(pid))
}

fn start_operation(config: &Config, work: Work, ends: Ends) -> Result<Command, String> {
    let writes = matches!(work, Work::Apply | Work::Import { .. } | Work::Tree(_));
    let layer = config.layer.as_ref().filter(|_| matches!(work, Work::Import { .. }));
    let kind = layer.map(|layer| (layer.budget, layer.own));
    let kept = layer.map(|layer| rustix::io::fcntl_dupfd_cloexec(&layer.directory, 3)).transpose();
    let kept = kept.map_err(|error| format!("no descriptors: {error}"))?;
    match Score::fork(config.score.as_ref(), sys::fork) {
        Ok(Forked::Child) => {
            let _ = rustix::process::setsid();
            let accounts = config.accounts.clone();
            sys::run_alone(ends.child, kept, |kept| {
                let layer = kept.zip(kind).map(|(directory, (budget, own))| Layer { directory, budget, own });
                files::perform(work, layer.as_ref(), accounts.as_ref())
            })
        }
        Ok(Forked::Parent(pid)) => Ok(command(pid, ends, None, writes)),
        Err(error) => Err(fork_failure(error)),
    }
}

fn fork_failure(error: Errno) -> String {
    if error == Errno::AGAIN {
        "the process limit of the sandbox is reached".to_owned()
    } else {
        format!("fork: {error}")
    }
}

fn command(pid: rustix::process::Pid, ends: Ends, start_errors: Option<OwnedFd>, writes: bool) -> Command {
    Command {
        pid: Some(pid),
        connection: None,
        start_errors,
        sources: ends.sources,
        input: ends.input,
        input_queue: VecDeque::new(),
        input_ended: false,
        input_own: 0,
        terminal: ends.terminal,
        credit: wire::WINDOW_BYTES,
        exit: None,
        ended_ms: None,
        writes,
        export: None,
        name: None,
        output: Output::default(),
        is_attached: true,
        is_told: false,
        is_given_up: false,
    }
}

/// In the child: becomes the program. Returns only on failure, with its words.
fn execute(
    config: &Config,
    program: &Program,
    ends: &[OwnedFd; 3],
    terminal: bool,
    [argv, environment]: [&Pointers<'_>; 2],
) -> String {
    let prepared = || -> Result<(), Errno> {
        rustix::process::setsid()?;
        if terminal {
            sys::take_terminal(ends[0].as_fd())?;
        }
        for (fd, number) in ends.iter().zip(0..) {
            sys::install(fd.as_fd(), number)?;
        }
        sys::close_on_exec_from(3)?;
        config.filter.as_ref().map_or(Ok(()), sys::Filter::install)
    };
    if let Err(error) = prepared() {
        return format!("preparing the process: {error}");
    }
    if let Some(account) = &program.account {
        // A terminal is whose program it is for.
        let given = if terminal { sys::give(ends[0].as_fd(), account.user) } else { Ok(()) };
        if let Err(error) = given.and_then(|()| account.become_it()) {
            return format!("becoming `{}`: {error}", account.name);
        }
    }
    if let Err(error) = rustix::process::chdir(program.workdir.as_c_str()) {
        return format!("workdir `{}`: {error}", program.workdir.to_string_lossy());
    }
    sys::reset_signals();
    let mut found = Errno::NOENT;
    for candidate in &program.candidates {
        match sys::execute(candidate, argv, environment) {
            Errno::NOENT | Errno::NOTDIR => {}
            error => found = error,
        }
    }
    let name = program.argv.first().map(|name| name.to_string_lossy()).unwrap_or_default();
    if found == Errno::NOENT { format!("`{name}`: no such program") } else { format!("`{name}`: {found}") }
}
