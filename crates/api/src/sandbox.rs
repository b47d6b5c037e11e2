//! Sandboxes on the wire: what lives, what it is made of, commands of an operator in it, links to its ports.

use crate::schema;
use domain::{Id, id};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Seconds that a link to a port is good for when it is not said.
pub const PORT_LINK_SECONDS_DEFAULT: u64 = 3_600;
/// Seconds that a link to a port is good for at most.
pub const PORT_LINK_SECONDS_MAX: u64 = 7 * 24 * 3_600;
/// Bytes of one message of `…/exec` at most, in either direction.
pub const EXEC_MESSAGE_BYTES_MAX: usize = 256 << 10;
/// Bytes of output or input in one message of `…/exec` at most.
pub const EXEC_DATA_BYTES_MAX: usize = 32 << 10;
/// The first byte of a binary message from the service that holds standard output, or a terminal's.
pub const EXEC_STDOUT: u8 = 1;
/// The first byte of a binary message from the service that holds standard error.
pub const EXEC_STDERR: u8 = 2;

/// Answer of `GET /sandboxes`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SandboxList {
    /// Those of the caller's tenant that live, the oldest first.
    pub sandboxes: Vec<Sandbox>,
}

/// A sandbox that lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Sandbox {
    /// Its id.
    #[schemars(schema_with = "schema::sandbox")]
    pub sandbox_id: Id<id::Sandbox>,
    /// Whose workspace it has.
    #[schemars(schema_with = "schema::session")]
    pub session_id: Id<id::Session>,
    /// The session's last run, unless the journal does not know the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::run")]
    pub run_id: Option<Id<id::Run>>,
    /// How it stands.
    pub status: SandboxStatus,
    /// Milliseconds since it was made.
    pub age_ms: u64,
    /// The highest epoch that has had it.
    pub epoch: u64,
    /// The walls that stand.
    pub walls: Vec<String>,
    /// The walls that do not, which the configuration does without.
    pub missing: Vec<String>,
    /// What it uses.
    pub usage: SandboxUsage,
    /// What it may use at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<SandboxLimits>,
    /// Its commands that outlive a service; absent when that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commands: Option<Vec<SandboxCommand>>,
}

/// How a sandbox stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SandboxStatus {
    /// A run of this service has it.
    Held,
    /// It stands still until its session has something to do again, or its time is over.
    Idle,
    /// An earlier service left it, and nobody has taken it over yet.
    Left,
    /// It lives no more.
    Gone,
}

impl SandboxStatus {
    /// As on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Idle => "idle",
            Self::Left => "left",
            Self::Gone => "gone",
        }
    }
}

/// How a sandbox was come by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SandboxStart {
    /// `cold`: it was made from the ground; `warm`: one that was nobody's stood ready with its root; `taken_over`: an earlier
    /// process had left it alive; `woken`: it stood still while its session had nothing to do. Absent when its provider does
    /// not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub way: Option<String>,
    /// Its stages in their order; those that took nothing are left out.
    pub stages: Vec<SandboxStage>,
}

/// One stage of a start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SandboxStage {
    /// `claim`, `root`, `workspace`, `ready`, or `create` for all of these where the provider does not tell them apart; `restore`,
    /// `manifest`; `wake`, for one that stood still.
    pub stage: String,
    /// How long it took, in microseconds.
    pub duration_us: u64,
}

/// What a sandbox uses; what no group of the kernel counts is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SandboxUsage {
    /// Memory of its processes and in-memory files, and of its own files that the kernel caches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Processes and threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processes: Option<u64>,
    /// How often the memory limit killed something in it.
    pub memory_kills: u64,
}

/// What a sandbox may use at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "each says what it bounds, and its unit")]
pub struct SandboxLimits {
    pub memory_bytes_max: u64,
    pub processes_max: u64,
    pub cpu_milli_max: u64,
    pub workspace_bytes_max: u64,
    pub workspace_inodes_max: u64,
    pub tmp_bytes_max: u64,
    pub open_files_max: u64,
    pub commands_max: u64,
    /// Bytes read from the workspace's disk in a second, and as many written to it; 0: no limit.
    #[serde(default)]
    pub io_bytes_per_second_max: u64,
    /// Read operations on the workspace's disk in a second, and as many write operations; 0: no limit.
    #[serde(default)]
    pub io_operations_per_second_max: u64,
}

/// A command that outlives a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SandboxCommand {
    /// Its name: the call that started it.
    pub name: String,
    /// Whether it has a terminal.
    pub terminal: bool,
    /// How many bytes it has given.
    pub output_bytes: u64,
    /// How it ended, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<ExecExit>,
}

/// Answer of `GET /sandboxes/{sandbox_id}`: what it may do and what it may not, or why it is no more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SandboxDetail {
    /// Its id.
    #[schemars(schema_with = "schema::sandbox")]
    pub sandbox_id: Id<id::Sandbox>,
    /// How it stands.
    pub status: SandboxStatus,
    /// As `GET /sandboxes` tells it, while it lives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub living: Option<Sandbox>,
    /// What it is made of, while a run of this service has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<SandboxAbout>,
    /// Each of its walls.
    pub walls: Vec<SandboxWall>,
    /// Why it is no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<SandboxEnd>,
}

/// What a sandbox is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SandboxAbout {
    /// What stands at `/`.
    pub root: String,
    /// How its workspace is kept.
    pub store: String,
    /// The names of its environment's variables; their values are told nowhere.
    pub environment: Vec<String>,
    /// What is shown in it, read-only.
    pub shown: Vec<SandboxShown>,
}

/// Something that is shown in a sandbox, read-only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SandboxShown {
    /// Where, inside.
    pub inside: String,
    /// What.
    pub what: String,
}

/// A wall of a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SandboxWall {
    /// Its name.
    pub name: String,
    /// Whether it stands.
    pub stands: bool,
    /// What it is for.
    pub holds: String,
    /// What a program inside is refused by it, and how.
    pub refuses: String,
    /// How it is known to stand, or that the configuration does without it.
    pub found: String,
}

/// How a sandbox ended, as the log of its session tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SandboxEnd {
    /// Whose it was.
    #[schemars(schema_with = "schema::session")]
    pub session_id: Id<id::Session>,
    /// The run that had it last.
    #[schemars(schema_with = "schema::run")]
    pub run_id: Id<id::Run>,
    /// Why it was closed; absent when its end is not on record: the service ended with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The record that says so, or that says that it was opened.
    pub position: u64,
    /// When that was written, in milliseconds since the Unix epoch.
    pub at_ms: u64,
}

/// Answer of `DELETE /sandboxes/{sandbox_id}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SandboxEnded {
    /// Its id.
    #[schemars(schema_with = "schema::sandbox")]
    pub sandbox_id: Id<id::Sandbox>,
    /// `gone`.
    pub status: SandboxStatus,
}

/// The first message of `…/exec`, as text: what to start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExecStart {
    /// Program and arguments; the program is looked up on the sandbox's PATH.
    pub argv: Vec<String>,
    /// A terminal instead of pipes, of this size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal: Option<ExecSize>,
    /// Where it starts, below the workspace.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub workdir: String,
}

/// The size of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "they say what they are")]
pub struct ExecSize {
    pub rows: u16,
    pub columns: u16,
}

/// What a client says later, as text. Binary messages are input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ExecSays {
    /// There is no more input; on a terminal, Ctrl-D.
    InputEnd,
    /// The terminal has another size.
    Resize(ExecSize),
    /// It is to be killed, with all it started.
    Kill,
}

/// What the service says, as text. Binary messages are output behind a byte that says of which stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExecTold {
    /// It runs.
    Started,
    /// It ended, and all its output was sent. Nothing follows.
    Exit(ExecExit),
    /// It was not started, or was lost. Nothing follows.
    Failed {
        /// Stable code.
        code: String,
        /// What happened.
        detail: String,
    },
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExecExit {
    /// By itself.
    Code(i32),
    /// By a signal.
    Signal(i32),
}

/// Body of `POST /sandboxes/{sandbox_id}/ports/{port}/links`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LinkPort {
    /// For how long the link is good; an hour if not said, a week at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in_seconds: Option<u64>,
    /// The path and query to begin with, such as `/docs?page=2`. The link opens every other path of the port, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// A link to a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PortLink {
    /// Where everybody who has it reaches the port, by HTTP and WebSocket.
    pub url: String,
    /// Until when, in milliseconds since the Unix epoch.
    pub expires_ms: u64,
}
