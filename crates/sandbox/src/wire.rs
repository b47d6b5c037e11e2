//! The guest's wire: what a provider and PID 1 inside a sandbox say to each other over one stream. Frames, their bounds and
//! the accounting of credit; no IO. Both sides treat the other's frames as hostile: anything out of bounds ends the stream.
//!
//! A frame is `length: u32, kind: u8, command: u32` (little-endian) and `length` bytes. Every command has its own credit in
//! both directions, so that a slow reader blocks only its own command. Small frames cost [`FRAME_COST_BYTES`] beside their
//! bytes, so that a window also bounds how many frames may wait.

use crate::{ArchiveLimits, Exit, RelPath, Rule, Stat};
use serde::{Deserialize, Serialize};

/// Version of the wire; the guest says it in [`Kind::Ready`].
pub const VERSION: u32 = 2;
/// Bytes of a frame's head.
pub const HEAD_BYTES: usize = 9;
/// Bytes of one frame's payload at most.
pub const PAYLOAD_BYTES_MAX: usize = 256 << 10;
/// Bytes of output or input in one frame at most.
pub const DATA_BYTES_MAX: usize = 32 << 10;
/// What a side may send for one command, in one direction, before it gets credit.
pub const WINDOW_BYTES: usize = 256 << 10;
/// What a frame costs beside its bytes.
pub const FRAME_COST_BYTES: usize = 64;
/// Bytes of the list of changes of one `apply`, without their contents.
pub const CHANGES_BYTES_MAX: usize = 4 << 20;

/// The credit that a data frame of `length` bytes takes.
pub const fn cost(length: usize) -> usize {
    length + FRAME_COST_BYTES
}

/// What a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// To the guest: a [`Start`].
    Start = 1,
    /// To the guest: bytes for stdin.
    Input = 2,
    /// To the guest: no more stdin.
    InputEnd = 3,
    /// To the guest: rows and columns of the terminal, two `u16`.
    Resize = 4,
    /// To the guest: kill it and all of its session, and forget what it wrote.
    Kill = 5,
    /// To the guest: output was taken; `u32` of credit is given back.
    Credit = 6,
    /// From the guest: ready, [`VERSION`] as `u32`.
    Ready = 16,
    /// From the guest: the command runs.
    Started = 17,
    /// From the guest: the command was not started: a [`Refusal`]. Nothing follows.
    Refused = 18,
    /// From the guest: bytes of standard output, a terminal or a file operation.
    Stdout = 19,
    /// From the guest: bytes of standard error.
    Stderr = 20,
    /// From the guest: the end, `u8` (0 code, 1 signal) and `i32`. Nothing follows.
    Exit = 21,
    /// From the guest: input was taken; `u32` of credit is given back.
    InputCredit = 22,
}

impl Kind {
    /// The kind written as `byte`.
    pub const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Start,
            2 => Self::Input,
            3 => Self::InputEnd,
            4 => Self::Resize,
            5 => Self::Kill,
            6 => Self::Credit,
            16 => Self::Ready,
            17 => Self::Started,
            18 => Self::Refused,
            19 => Self::Stdout,
            20 => Self::Stderr,
            21 => Self::Exit,
            22 => Self::InputCredit,
            _ => return None,
        })
    }
}

/// A frame's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Bytes that follow.
    pub length: usize,
    /// What they are.
    pub kind: Kind,
    /// Which command is meant.
    pub command: u32,
}

impl Head {
    /// As it is written.
    pub fn to_bytes(self) -> [u8; HEAD_BYTES] {
        let mut bytes = [0; HEAD_BYTES];
        bytes[..4].copy_from_slice(&u32::try_from(self.length).unwrap_or(u32::MAX).to_le_bytes());
        bytes[4] = self.kind as u8;
        bytes[5..].copy_from_slice(&self.command.to_le_bytes());
        bytes
    }

    /// Reads a head; `Err` names the rule it breaks.
    pub fn from_bytes(bytes: [u8; HEAD_BYTES]) -> Result<Self, &'static str> {
        let [a, b, c, d, kind, w, x, y, z] = bytes;
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        if length > PAYLOAD_BYTES_MAX {
            return Err("frame above payload_bytes_max");
        }
        let kind = Kind::from_byte(kind).ok_or("unknown kind of frame")?;
        Ok(Self { length, kind, command: u32::from_le_bytes([w, x, y, z]) })
    }
}

/// Appends a frame to `out`. `payload` is at most [`PAYLOAD_BYTES_MAX`]; who builds it checks.
pub fn put(out: &mut Vec<u8>, kind: Kind, command: u32, payload: &[u8]) {
    debug_assert!(payload.len() <= PAYLOAD_BYTES_MAX, "the frame is bounded by who builds it");
    out.extend_from_slice(&Head { length: payload.len(), kind, command }.to_bytes());
    out.extend_from_slice(payload);
}

/// Reads a `u32` payload.
pub fn number(payload: &[u8]) -> Option<u32> {
    payload.try_into().ok().map(u32::from_le_bytes)
}

/// The payload of [`Kind::Exit`].
pub fn exit_bytes(exit: Exit) -> [u8; 5] {
    let (kind, value) = match exit {
        Exit::Code(code) => (0, code),
        Exit::Signal(signal) => (1, signal),
    };
    let [a, b, c, d] = value.to_le_bytes();
    [kind, a, b, c, d]
}

/// Reads the payload of [`Kind::Exit`].
pub fn exit_from(payload: &[u8]) -> Option<Exit> {
    let [kind, rest @ ..]: [u8; 5] = payload.try_into().ok()?;
    match kind {
        0 => Some(Exit::Code(i32::from_le_bytes(rest))),
        1 => Some(Exit::Signal(i32::from_le_bytes(rest))),
        _ => None,
    }
}

/// What the guest is asked to start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// The asking lease; lower than one seen before is refused.
    pub epoch: u64,
    /// What to do.
    pub work: Work,
}

/// A program, or an operation on files that the guest performs itself in a child of PID 1. An operation's result comes as
/// its standard output; when it fails, a [`FileFailure`] comes as standard error and the exit code is 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// Executes a program.
    Program {
        /// Program and arguments.
        argv: Vec<String>,
        /// Where it starts.
        workdir: RelPath,
        /// Set on top of the sandbox's environment.
        environment: Vec<(String, String)>,
        /// A terminal instead of pipes.
        terminal: bool,
        /// Whether stdin stays open.
        stdin: bool,
    },
    /// Raw bytes of a regular file.
    Read {
        /// Which.
        path: RelPath,
        /// From where.
        offset: u64,
        /// At most.
        bytes_max: u64,
    },
    /// A [`Stat`] as JSON.
    Stat {
        /// Of what.
        path: RelPath,
    },
    /// A JSON list of `(name, Stat)`.
    List {
        /// Of which directory.
        path: RelPath,
        /// At most.
        entries_max: usize,
    },
    /// A JSON list of `(path, Stat)`: all that the workspace's layer holds.
    Changed {
        /// At most.
        entries_max: usize,
    },
    /// The workspace as an archive. The other programs stand still meanwhile. At its end a [`crate::Totals`] comes as JSON
    /// on standard error.
    Export {
        /// Its bounds.
        limits: ArchiveLimits,
    },
    /// Unpacks the archive that comes as input into an empty workspace; gives a [`crate::Totals`] as JSON.
    Import {
        /// Its bounds.
        limits: ArchiveLimits,
    },
    /// Applies what comes as input: `u32` length, that many bytes of JSON (a list of [`ChangeHead`]), then the contents of
    /// the written files in their order.
    Apply,
}

/// One change of an `apply`, its content following apart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeHead {
    /// Writes a whole file.
    Write {
        /// Where.
        path: RelPath,
        /// Bytes of its content.
        bytes: u64,
        /// Permission bits.
        mode: Option<u32>,
    },
    /// Makes a directory and its parents.
    MakeDir {
        /// Where.
        path: RelPath,
    },
    /// Removes a file.
    Remove {
        /// Where.
        path: RelPath,
    },
}

/// Why a command was not started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// What happened.
    pub detail: String,
}

/// Why a file operation failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileFailure {
    /// `read`, `write` …
    pub operation: String,
    /// The path inside.
    pub path: String,
    /// Whether there was simply nothing.
    pub missing: bool,
    /// What happened.
    pub detail: String,
    /// The rule that an archive broke.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Rule>,
}

/// An entry of a listing.
pub type Listed = (String, Stat);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_as_written() {
        let mut out = Vec::new();
        put(&mut out, Kind::Stdout, 7, b"hi");
        let head = Head::from_bytes(out[..HEAD_BYTES].try_into().unwrap()).unwrap();
        assert_eq!(head, Head { length: 2, kind: Kind::Stdout, command: 7 });
        for exit in [Exit::Code(-1), Exit::Signal(9)] {
            assert_eq!(exit_from(&exit_bytes(exit)), Some(exit));
        }
        for byte in 0..=u8::MAX {
            assert!(Kind::from_byte(byte).is_none_or(|kind| kind as u8 == byte));
        }
    }

    #[test]
    fn hostile_heads_are_refused() {
        assert!(Head::from_bytes([255, 255, 255, 255, 19, 0, 0, 0, 0]).is_err());
        assert!(Head::from_bytes([0, 0, 0, 0, 99, 0, 0, 0, 0]).is_err());
        assert_eq!(exit_from(&[2, 0, 0, 0, 0]), None);
        assert_eq!(exit_from(&[0]), None);
    }
}
