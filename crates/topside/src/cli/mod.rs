//! The command line: one file per command, and what they share. Nothing outside the binary knows it.

mod act;
mod arguments;
mod call;
mod clean;
mod console;
mod doctor;
mod ending;
mod follow;
mod fork;
mod keep;
mod key;
mod log;
mod logging;
mod new;
mod project;
mod record;
mod resume;
mod run;
mod sandbox;
mod serve;
mod service;
mod sessions;
mod signals;
mod stores;
mod summary;
mod view;
mod waiting;
mod workspace;

pub(crate) use console::Console;
pub(crate) use ending::Ending;

use arguments::{Command, KeyCommand, Place};
use domain::record::Vote;
use ending::Trouble;
use std::time::Duration;
use topside::{App, Builder, Drives, Environment, Launcher};

/// Worker threads at most: beyond them, one database and one network are what a run waits for.
const WORKERS_MAX: usize = 8;
/// How long a thread for what blocks, such as a read of the database, waits for more. What a service at rest asks itself every
/// second goes round among the threads there are: with a long wait none of them would ever end.
const BLOCKING_IDLE_MS: u64 = 1_500;

/// What every command may use.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) console: Console,
    pub(crate) environment: Environment,
    /// Forked first of all; or why there is none.
    pub(crate) launcher: Result<Launcher, jail::Error>,
}

/// Reads the command line and does what it says.
pub(crate) fn main(launcher: Result<Launcher, jail::Error>) -> Ending {
    let environment = Environment::of_process();
    let console = Console::new(environment.get("NO_COLOR").is_some());
    let arguments = match arguments::read() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help that was asked for is no error; clap sends each to its stream.
            let _ = error.print();
            return if error.use_stderr() { Ending::Usage } else { Ending::Done };
        }
    };
    let session = Session { console, environment, launcher };
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(WORKERS_MAX);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .thread_keep_alive(Duration::from_millis(BLOCKING_IDLE_MS))
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            session.console.talk_line(&format!("error: no runtime: {error}"));
            return Ending::Failed;
        }
    };
    let console = Console::new(session.environment.get("NO_COLOR").is_some());
    let ending = runtime.block_on(Box::pin(dispatch(session, arguments.command)));
    // Whatever still runs was asked to end already, or is to end at once.
    runtime.shutdown_background();
    ending.unwrap_or_else(|trouble| {
        console.talk(&trouble.told());
        trouble.ending()
    })
}

async fn dispatch(session: Session, command: Command) -> Result<Ending, Trouble> {
    logging::start(&command, &session)?;
    match command {
        Command::Run(arguments) => run::run(session, arguments).await,
        Command::Serve(arguments) => serve::serve(session, arguments).await,
        Command::Worker(arguments) => serve::work(session, arguments).await,
        Command::Resume(arguments) => resume::resume(session, arguments).await,
        Command::Approvals(arguments) => waiting::approvals(session, arguments).await,
        Command::Approve(arguments) => act::vote(session, arguments, Vote::Approve).await,
        Command::Reject(arguments) => act::vote(session, arguments, Vote::Reject).await,
        Command::Pause(arguments) => act::pause(session, arguments).await,
        Command::Cancel(arguments) => act::cancel(session, arguments).await,
        Command::Steer(arguments) => act::steer(session, arguments).await,
        Command::Raise(arguments) => act::raise(session, arguments).await,
        Command::Resolve(arguments) => act::resolve(session, arguments).await,
        Command::Checkpoints(arguments) => fork::checkpoints(session, arguments).await,
        Command::Fork(arguments) => fork::fork(session, arguments).await,
        Command::Replay(arguments) => fork::replay(session, arguments).await,
        Command::Diff(arguments) => fork::diff(session, arguments).await,
        Command::Session(arguments) => sessions::sessions(session, arguments.command).await,
        Command::Workspace(arguments) => workspace::workspace(session, arguments.command).await,
        Command::Sandbox(arguments) => sandbox::sandbox(session, arguments.command).await,
        Command::Backup(arguments) => stores::backup(&session, &arguments),
        Command::Restore(arguments) => stores::restore(&session, &arguments),
        Command::Repair(arguments) => stores::repair(&session, &arguments),
        Command::Log(arguments) => log::log(session, arguments).await,
        Command::New(arguments) => new::new(&session, &arguments.directory),
        Command::Check(place) => project::check(&session, &place),
        Command::Doctor(place) => doctor::doctor(session, place).await,
        Command::Schema(arguments) => Ok(project::schema(&session, arguments.kind.as_deref())),
        Command::Record(arguments) => record::record(session, arguments).await,
        Command::Key(arguments) => match arguments.command {
            KeyCommand::New { name, scope } => Ok(key::new(&session, &name, scope)),
        },
        Command::Version => {
            session.console.data_line(concat!("topside ", env!("CARGO_PKG_VERSION")));
            Ok(Ending::Done)
        }
    }
}

/// Starts the service of a project in this process.
pub(crate) async fn start(
    console: &Console,
    environment: &Environment,
    launcher: Result<Launcher, jail::Error>,
    place: &Place,
    drives: Drives,
) -> Result<App, Trouble> {
    let builder = Builder::new(&place.project).drives(drives);
    start_with(builder, console, environment, launcher, place).await
}

/// Starts the service that is being built in this process.
pub(crate) async fn start_with(
    builder: Builder,
    console: &Console,
    environment: &Environment,
    launcher: Result<Launcher, jail::Error>,
    place: &Place,
) -> Result<App, Trouble> {
    let mut builder = builder.environment(environment.clone());
    if let Some(data) = &place.data {
        builder = builder.data(data);
    }
    match launcher {
        Ok(launcher) => builder = builder.launcher(launcher),
        Err(error) => console.talk_line(&format!("warning: no sandboxes: {error}")),
    }
    let data = builder.data_directory();
    builder.start().await.map_err(|error| match (&error, data.announced()) {
        (topside::Error::Journal(journal::Error::Locked { directory, pid }), Some(url)) => {
            Trouble::Served { directory: directory.to_string(), pid: *pid, url }
        }
        _ => error.into(),
    })
}
