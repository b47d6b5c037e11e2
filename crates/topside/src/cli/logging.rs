//! Where logs go: stderr, for people when they watch, else as JSON, one object per line.

use super::Session;
use super::arguments::Command;
use super::ending::Trouble;
use std::io;
use tracing_subscriber::EnvFilter;

/// Starts logging. A service logs what happens; other commands show it themselves, and log only what is wrong.
pub(crate) fn start(command: &Command, session: &Session) -> Result<(), Trouble> {
    let serves = matches!(command, Command::Serve(_) | Command::Worker(_));
    let default = if serves { "info" } else { "error" };
    let wanted = session.environment.get("TOPSIDE_LOG").unwrap_or(default);
    let filter = EnvFilter::try_new(wanted).map_err(|error| topside::Error::Variable {
        name: "TOPSIDE_LOG".to_owned(),
        reason: format!("is no filter: {error}"),
    })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(false);
    // An error would mean that logging has started already.
    let _ = if session.console.talk_is_terminal || !serves {
        builder.with_target(false).try_init()
    } else {
        builder.json().flatten_event(true).try_init()
    };
    Ok(())
}
