//! Commands and terminals inside a sandbox.

use crate::{Error, RelPath};
use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

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
    /// Under which name it outlives a harness that dies, so that the next one can [`crate::Sandbox::attach`] to it: at most
    /// 128 bytes, no control characters, no other command in the sandbox with the same. One without a name ends with the
    /// harness.
    pub name: Option<String>,
    /// Who it runs as: `root`, a user of [`crate::Accounts`], or the sandbox's own. `None`: whom the accounts say.
    pub user: Option<String>,
}

/// A named command that the sandbox knows: one that runs, or ended and was not taken yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptCommand {
    /// Its name.
    pub name: String,
    /// Whether it has a terminal.
    pub terminal: bool,
    /// From which position on its output is still there.
    pub from: u64,
    /// How much it has given so far: the position of what comes next.
    pub to: u64,
    /// How it ended, if it did.
    pub exit: Option<Exit>,
}

/// A started command. Output is delivered in order and bounded: a reader that does not read blocks the writer inside.
///
/// A position in its output counts the bytes of both streams in the order in which they were given; its end counts as one
/// more. Of a command with a name, what was not said to be [`Process::taken`] is there again after the harness died: all that
/// nobody has read, without exception, and of what was read as much as fits into 8 MiB with it. A command of which so much is
/// unread waits. Its end is there until it is taken, too, or until so many others ended later (64).
#[async_trait]
pub trait Process: Send + std::fmt::Debug {
    /// The next output, or the end. After [`Chunk::Exit`] there is nothing more. Safe to cancel: what was not returned is not lost.
    async fn next(&mut self) -> Result<Chunk, Error>;

    /// The position up to which [`Process::next`] has given.
    fn position(&self) -> u64 {
        0
    }

    /// Says that everything before `position` is kept elsewhere and will not be asked for again; after the end,
    /// [`Process::position`] takes the end, too. Of a command without a name nothing is kept that could be taken.
    async fn taken(&mut self, position: u64) -> Result<(), Error> {
        let _ = position;
        Ok(())
    }

    /// Writes to its stdin or terminal, waiting while it does not read. What was written when the harness dies arrives once
    /// or not at all.
    async fn write(&mut self, bytes: Bytes) -> Result<(), Error>;

    /// Its input as a handle of its own, for who writes while somebody reads; `None`: this provider has none.
    fn input(&mut self) -> Option<Box<dyn Input>> {
        None
    }

    /// Closes its stdin; on a terminal sends end-of-file (Ctrl-D).
    async fn close_stdin(&mut self) -> Result<(), Error>;

    /// Resizes its terminal.
    async fn resize(&mut self, rows: u16, columns: u16) -> Result<(), Error>;

    /// Kills it and all it started (its whole process group and session), and waits for the end.
    async fn kill(&mut self) -> Result<Exit, Error>;
}

/// A command's input, apart from its output. Dropping it changes nothing.
#[async_trait]
pub trait Input: Send + std::fmt::Debug {
    /// As [`Process::write`].
    async fn write(&mut self, bytes: Bytes) -> Result<(), Error>;

    /// As [`Process::close_stdin`].
    async fn close(&mut self) -> Result<(), Error>;
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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
