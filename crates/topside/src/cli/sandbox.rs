//! `topside sandbox`: what is done with sandboxes themselves, beside any run.

pub(crate) mod bench;
mod exec;
mod explain;
mod kill;
mod link;
mod list;
mod reach;
mod terminal;

use super::Session;
use super::arguments::SandboxCommand;
use super::ending::{Ending, Trouble};

pub(crate) async fn sandbox(session: Session, command: SandboxCommand) -> Result<Ending, Trouble> {
    match command {
        SandboxCommand::Bench(arguments) => bench::bench(session, arguments).await,
        SandboxCommand::List(arguments) => list::list(session, arguments).await,
        SandboxCommand::Exec(arguments) => exec::exec(session, arguments).await,
        SandboxCommand::Kill(arguments) => kill::kill(session, arguments).await,
        SandboxCommand::Explain(arguments) => explain::explain(session, arguments).await,
        SandboxCommand::Link(arguments) => link::link(session, arguments).await,
    }
}
