//! Commands and terminals inside a sandbox.

use crate::{Error, RelPath};
use async_trait::async_trait;
use bytes::Bytes;

/// A command to start.
#[derive(Clone, Debug)]
pub struct Command {
    /// Program and arguments; the program is looked up on the sandbox's PATH.
    pub argv: Vec<String>,
    /// Where it starts.
    pub workdir: RelPath,
    /// Set on top of the sandbox's environment.
    pub environment: Vec<(String, String)>,
    /// Whether it gets a terminal (24 × 80) instead of pipes.
    pub terminal: bool,
    /// Whether stdin stays open for [`Process::write`]; a terminal's always does.
    pub stdin: bool,
    /// Which fenced lease asks; the guest refuses a lower epoch than it has seen.
    pub epoch: u64,
}

/// A started command. Output is delivered in order and bounded: a reader that does not read blocks the writer inside.
#[async_trait]
pub trait Process: Send + std::fmt::Debug {
    /// The next output, or the end. After [`Chunk::Exit`] there is nothing more. Safe to cancel: what was not returned is not lost.
    async fn next(&mut self) -> Result<Chunk, Error>;

    /// Writes to its stdin or terminal, waiting while it does not read.
    async fn write(&mut self, bytes: Bytes) -> Result<(), Error>;

    /// Closes its stdin; on a terminal sends end-of-file (Ctrl-D).
    async fn close_stdin(&mut self) -> Result<(), Error>;

    /// Resizes its terminal.
    async fn resize(&mut self, rows: u16, columns: u16) -> Result<(), Error>;

    /// Kills it and all it started (its whole process group and session), and waits for the end.
    async fn kill(&mut self) -> Result<Exit, Error>;
}

/// What a command gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chunk {
    /// Output.
    Output(Stream, Bytes),
    /// It ended, and all its output was delivered.
    Exit(Exit),
}

/// Where output came from. A terminal gives everything as `Stdout`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By itself.
    Code(i32),
    /// By a signal.
    Signal(i32),
}

impl Exit {
    /// The code a shell would show: 128 + signal for a signal.
    pub const fn shell_code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }
}
