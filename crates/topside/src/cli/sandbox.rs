//! `topside sandbox`: what is done with sandboxes themselves, beside any run.

pub(crate) mod bench;

use super::Session;
use super::arguments::SandboxCommand;
use super::ending::{Ending, Trouble};

pub(crate) async fn sandbox(session: Session, command: SandboxCommand) -> Result<Ending, Trouble> {
    match command {
        SandboxCommand::Bench(arguments) => bench::bench(session, arguments).await,
    }
}
