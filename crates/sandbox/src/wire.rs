//! The guest's wire: what a provider and PID 1 inside a sandbox say to each other over one stream. Frames, their bounds and
//! the accounting of credit; no IO. Both sides treat the other's frames as hostile: anything out of bounds ends the stream.
//!
//! A frame is `length: u32, kind: u8, command: u32` (little-endian) and `length` bytes. Every command has its own credit in
//! both directions, so that a slow reader blocks only its own command. Small frames cost [`FRAME_COST_BYTES`] beside their
//! bytes, so that a window also bounds how many frames may wait.
//!
//! A stream may end without the sandbox: whoever holds the sandbox then hands the guest a new one. Commands that were given a
//! name go on meanwhile, and the guest keeps what they give until the other side says [`Kind::Taken`]; all others end with
//! the stream that started them. A position in a command's output counts the bytes of both its streams in the order in which
//! they came.

use crate::mount::Fault;
use crate::{ArchiveLimits, Error, Exit, KeptCommand, RelPath, Rule, Stat};
use serde::{Deserialize, Serialize};

/// Version of the wire; the guest says it in [`Kind::Ready`].
pub const VERSION: u32 = 4;
/// Bytes of a frame's head.
pub const HEAD_BYTES: usize = 9;
/// Bytes of one frame's payload at most.
pub const PAYLOAD_BYTES_MAX: usize = 256 << 10;
/// Bytes of output or input in one frame at most.
pub const DATA_BYTES_MAX: usize = 64 << 10;
/// What a side may send for one command, in one direction, before it gets credit.
pub const WINDOW_BYTES: usize = 1 << 20;
/// What a frame costs beside its bytes.
pub const FRAME_COST_BYTES: usize = 64;
/// Bytes of the list of changes of one `apply`, without their contents.
pub const CHANGES_BYTES_MAX: usize = 4 << 20;

/// Output of one named command, in bytes of cost, that the guest keeps for who has not read it yet; then the writer waits.
pub const KEPT_BYTES_MAX: usize = 8 << 20;
/// Named commands that a guest knows at once, those that ended and were not taken among them.
pub const NAMED_MAX: usize = 256;
/// Named commands that ended and were not taken; of more, those that ended first are forgotten.
pub const ENDED_MAX: usize = 64;

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
    /// To the guest: output was read; `u32` of credit is given back, and everything before a `u64` position was read.
    Credit = 6,
    /// To the guest: output before a `u64` position need not be kept any more. One beyond the last takes the end, too.
    Taken = 7,
    /// To the guest: an [`Attach`] to a named command that runs, or ended and was not taken.
    Attach = 8,
    /// To the guest: as [`Kind::Kill`], and nobody will ask for it again.
    Forget = 9,
    /// From the guest, first on every stream: ready, [`VERSION`] as `u32` and a [`Roll`].
    Ready = 16,
    /// From the guest: the command runs, or is attached.
    Started = 17,
    /// From the guest: the command was not started: a [`Refusal`]. Nothing follows.
    Refused = 18,
    /// From the guest: bytes of standard output, a terminal or a file operation.
    Stdout = 19,
    /// From the guest: bytes of standard error.
    Stderr = 20,
    /// From the guest: the end, `u8` (0 code, 1 signal) and `i32`. Nothing follows on this stream.
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
            7 => Self::Taken,
            8 => Self::Attach,
            9 => Self::Forget,
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

/// The payload of [`Kind::Credit`].
pub fn credit_bytes(credit: u32, read: u64) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[..4].copy_from_slice(&credit.to_le_bytes());
    bytes[4..].copy_from_slice(&read.to_le_bytes());
    bytes
}

/// Reads the payload of [`Kind::Credit`].
pub fn credit_from(payload: &[u8]) -> Option<(u32, u64)> {
    let (credit, read) = payload.split_at_checked(4)?;
    Some((number(credit)?, position(read)?))
}

/// Reads a `u64` payload.
pub fn position(payload: &[u8]) -> Option<u64> {
    payload.try_into().ok().map(u64::from_le_bytes)
}

/// The payload of [`Kind::Ready`].
pub fn ready_bytes(roll: &Roll) -> Vec<u8> {
    let mut bytes = VERSION.to_le_bytes().to_vec();
    bytes.extend(serde_json::to_vec(roll).unwrap_or_default());
    bytes
}

/// Reads the payload of [`Kind::Ready`]; `Err` names the rule it breaks.
pub fn ready_from(payload: &[u8]) -> Result<Roll, &'static str> {
    let (version, roll) = payload.split_at_checked(4).ok_or("a greeting that is none")?;
    if number(version) != Some(VERSION) {
        return Err("another version of the wire");
    }
    roll_from(roll)
}

/// Reads a [`Roll`]; `Err` names the rule it breaks.
pub fn roll_from(payload: &[u8]) -> Result<Roll, &'static str> {
    let roll: Roll = serde_json::from_slice(payload).map_err(|_| "a roll that is no JSON")?;
    let is_sound = roll.commands.len() <= NAMED_MAX
        && roll.commands.iter().all(|(number, command)| {
            *number < roll.next_command && command.from <= command.to && is_name(&command.name)
        });
    if is_sound { Ok(roll) } else { Err("a roll that contradicts itself") }
}

/// Bytes of a command's name at most.
pub const NAME_BYTES_MAX: usize = 128;

/// Characters of what a guest says of a failure that are shown.
const SHOWN_CHARACTERS_MAX: usize = 300;

/// Whether this may name a command: some text without control characters.
pub fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.chars().any(char::is_control)
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
    /// Under which name it can be attached to when this stream is lost; one without a name ends with the stream. Only
    /// programs have names, and no two that the guest knows have the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What to do.
    pub work: Work,
}

/// Which output of a named command is wanted from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attach {
    /// The asking lease; lower than one seen before is refused.
    pub epoch: u64,
    /// From which position on.
    pub from: u64,
}

/// What the guest knows of named commands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roll {
    /// The lowest number that no command has had yet.
    pub next_command: u32,
    /// Each with its number.
    pub commands: Vec<(u32, KeptCommand)>,
    /// How many ended ones were forgotten before anybody took them.
    pub forgotten: u64,
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
        /// Who it runs as; `None`: whom the sandbox's accounts say.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        user: Option<String>,
    },
    /// A [`Roll`] as JSON, of which only the names count. PID 1 tells it itself.
    Commands,
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
        /// What stays out of it, with everything below.
        #[serde(default)]
        left_out: Vec<RelPath>,
    },
    /// Writes what the programs wrote out to the workspace's file system. They go on meanwhile.
    Sync,
    /// Lets the programs stand still with everything written out, says so with one byte, and holds on until its input ends.
    Hold {
        /// How long at most.
        duration_ms_max: u64,
    },
    /// Unpacks the archive that comes as input into an empty workspace; gives a [`crate::Totals`] as JSON.
    Import {
        /// Its bounds.
        limits: ArchiveLimits,
    },
    /// Applies what comes as input: `u32` length, that many bytes of JSON (a list of [`ChangeHead`]), then the contents of
    /// the written files in their order.
    Apply,
    /// Works on whole trees of files.
    Tree(crate::files::TreeWork),
    /// Connects to a TCP port on the loopback inside. Input goes there, and what comes from there is standard output; its end
    /// is code 0, a reset is code 1. PID 1 does it itself.
    Dial {
        /// Which port.
        port: crate::Port,
    },
}

impl Work {
    /// For work that lets the programs stand still: how long at most.
    pub const fn halts_ms(&self) -> Option<u64> {
        match self {
            Self::Export { limits, .. } => Some(limits.duration_ms_max),
            Self::Hold { duration_ms_max } => Some(*duration_ms_max),
            _ => None,
        }
    }
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
    /// Gives a file or a directory its permission bits.
    Mode {
        /// Where.
        path: RelPath,
        /// The bits.
        mode: u32,
    },
    /// Gives a file or a directory to a group.
    Group {
        /// Where.
        path: RelPath,
        /// Its name.
        group: String,
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
    /// From where on output is still kept, when what was asked for is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_from: Option<u64>,
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
    /// Why the bucket that stands there did not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
}

impl FileFailure {
    /// The error to tell: of an archive that was refused, of a bucket that did not answer, or of a file. What the guest says is
    /// bounded, and without control characters.
    pub fn into_error(self, operation: &'static str) -> Error {
        let shown =
            |text: &str| text.chars().take(SHOWN_CHARACTERS_MAX).flat_map(char::escape_debug).collect::<String>();
        let (path, detail) = (shown(&self.path), shown(&self.detail));
        match (self.refused, self.fault) {
            (Some(rule), _) => Error::Archive { rule, entry: path },
            (None, Some(fault)) => {
                Error::Mount { path, code: fault.code().to_owned(), detail: fault.detail().to_owned() }
            }
            (None, None) => Error::File { operation, path, missing: self.missing, detail },
        }
    }
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
    fn a_roll_that_contradicts_itself_is_refused() {
        let kept = |name: &str, from, to| KeptCommand { name: name.to_owned(), terminal: false, from, to, exit: None };
        let roll = |number, command| Roll { next_command: 5, commands: vec![(number, command)], forgotten: 0 };
        let sound = roll(4, kept("call", 3, 9));
        assert_eq!(ready_from(&ready_bytes(&sound)), Ok(sound));
        let rows = [
            roll(5, kept("call", 3, 9)),
            roll(4, kept("call", 9, 3)),
            roll(4, kept("", 3, 9)),
            roll(4, kept("a\nb", 3, 9)),
            roll(4, kept(&"x".repeat(NAME_BYTES_MAX + 1), 3, 9)),
            Roll { commands: vec![(1, kept("call", 0, 0)); NAMED_MAX + 1], ..roll(4, kept("call", 0, 0)) },
        ];
        for row in rows {
            assert_eq!(ready_from(&ready_bytes(&row)), Err("a roll that contradicts itself"), "{row:?}");
        }
        assert_eq!(ready_from(b"x"), Err("a greeting that is none"));
        assert_eq!(ready_from(&[2, 0, 0, 0, b'{', b'}']), Err("another version of the wire"));
        assert_eq!(credit_from(&credit_bytes(7, u64::MAX)), Some((7, u64::MAX)));
        assert_eq!(credit_from(&[0; 11]), None);
    }

    #[test]
    fn hostile_heads_are_refused() {
        assert!(Head::from_bytes([255, 255, 255, 255, 19, 0, 0, 0, 0]).is_err());
        assert!(Head::from_bytes([0, 0, 0, 0, 99, 0, 0, 0, 0]).is_err());
        assert_eq!(exit_from(&[2, 0, 0, 0, 0]), None);
        assert_eq!(exit_from(&[0]), None);
    }
}
