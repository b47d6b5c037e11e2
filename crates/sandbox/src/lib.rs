//! What a sandbox is to the rest of the house: manifest, spec, lease, commands, terminals, files. Providers implement
//! [`Provider`] and [`Sandbox`]; nothing here starts anything. Everything that comes back from a sandbox is hostile input.
#![warn(missing_docs)]

pub mod archive;
pub mod checkpoint;
pub mod command;
pub mod files;
pub mod living;
pub mod manifest;
pub mod mount;
pub mod path;
pub mod port;
pub mod report;
pub mod spec;
pub mod wall;
pub mod wire;

pub use archive::{Archive, ArchiveLimits, Export, Rule, Totals};
pub use checkpoint::Checkpoint;
pub use command::{Chunk, Command, Exit, Input, KeptCommand, Process, Stream};
pub use files::{Change, Depth, FileKind, Replace, Stat, Watch};
pub use living::{About, Living, Shown, Usage};
pub use manifest::{Entry, Manifest};
pub use mount::{Credential, Mount, OnMissing};
pub use path::RelPath;
pub use port::{Duplex, Port};
pub use report::Report;
pub use spec::{Accounts, Bind, Limits, Spec, Start, Walls, Workspace};
pub use wall::{WALLS, Wall};

use async_trait::async_trait;
use bytes::Bytes;
pub use domain::Root;
use domain::{Id, id};
use std::sync::Arc;

/// Makes sandboxes.
#[async_trait]
pub trait Provider: Send + Sync + std::fmt::Debug {
    /// The name agents use: `local`.
    fn name(&self) -> &'static str;

    /// Why sandboxes of this provider have no users and groups but the one user that each has; `None`: they have what their
    /// [`Accounts`] say.
    async fn accounts_missing(&self) -> Option<String> {
        Some(
            "everything inside runs as one user, so further ones would separate nothing; hint: leave them out"
                .to_owned(),
        )
    }

    /// Whether sandboxes can be made, so far as is known without trying.
    fn is_ready(&self) -> bool {
        true
    }

    /// What this provider can give on this machine, without making a sandbox for anybody.
    async fn probe(&self) -> Probe;

    /// Why it can't show buckets as mounts; `None`: it can.
    async fn mounts_missing(&self) -> Option<String> {
        Some("it has no mounts".to_owned())
    }

    /// Makes a sandbox and waits until it can take commands. A session's workspace is marked, durably and before anything
    /// runs in it, with the epoch it was opened under: its generation from now on.
    ///
    /// # Errors
    /// [`Error::WorkspaceLost`] when a kept workspace is not there, or its import never ended; [`Error::WorkspaceStale`] when
    /// it is there in another generation; [`Error::StaleEpoch`] when a later lease has had it. Any other when there is no
    /// sandbox to be had.
    async fn create(&self, spec: Spec) -> Result<Arc<dyn Sandbox>, Error>;

    /// Whether the session's workspace is there, whole, from an earlier run; whichever its generation.
    async fn workspace_exists(&self, workspace: &Workspace) -> Result<bool, Error>;

    /// Removes a workspace and all its files.
    async fn workspace_remove(&self, workspace: &Workspace) -> Result<(), Error>;

    /// The sandboxes that live, those among them that an earlier harness left and nobody has taken over yet.
    async fn living(&self) -> Result<Vec<Living>, Error> {
        Ok(Vec::new())
    }

    /// A sandbox that this harness holds; `None`: it lives no more, or nobody here has it.
    async fn find(&self, id: Id<id::Sandbox>) -> Option<Arc<dyn Sandbox>> {
        let _ = id;
        None
    }

    /// Ends a sandbox, whoever made it, and waits until nothing of it is left but the workspace. Who uses it is told that it
    /// is gone, and `why`.
    ///
    /// # Errors
    /// [`Error::Gone`] when no such sandbox lives; [`Error::Unsupported`].
    async fn end(&self, id: Id<id::Sandbox>, why: &str) -> Result<(), Error> {
        let _ = (id, why);
        Err(unsupported("ends from outside"))
    }

    /// The harness ends in order: nothing of it is to live on. Without this word a provider whose sandboxes outlive a harness
    /// keeps them for the next one, for a while.
    async fn farewell(&self) {}
}

/// What a provider can give.
#[derive(Clone, Debug)]
pub struct Probe {
    /// Whether a sandbox with every wall can be made.
    pub ready: bool,
    /// Each wall: its name and what was found.
    pub walls: Vec<Finding>,
    /// What else is worth knowing and is no wall: a sandbox is as safe without it. `outlives_harness`: whether sandboxes live
    /// on when the harness dies.
    pub remarks: Vec<Finding>,
}

/// One line of a [`Probe`].
#[derive(Clone, Debug)]
pub struct Finding {
    /// The wall, as named in [`Walls`].
    pub wall: String,
    /// Whether it stands.
    pub holds: bool,
    /// What was found: versions, limits, or the kernel's refusal.
    pub detail: String,
    /// The exact commands or settings that mend it, when it does not hold.
    pub fix: Option<String>,
}

/// A live sandbox. Dropping the last handle closes it; [`Sandbox::close`] also waits until nothing of it is left.
#[async_trait]
pub trait Sandbox: Send + Sync + std::fmt::Debug {
    /// Its id.
    fn id(&self) -> Id<id::Sandbox>;

    /// The walls it got.
    fn walls(&self) -> &Walls;

    /// How its start went, by stages; nothing is known of one that was taken over.
    fn started(&self) -> Report {
        Report::none()
    }

    /// Starts a command. It runs until it ends, is killed, or the sandbox closes; dropping the handle kills it.
    async fn start(&self, command: Command) -> Result<Box<dyn Process>, Error>;

    /// Connects to a TCP port on the sandbox's own loopback, from inside. What a program inside sends ends the connection; what
    /// was written and not sent by then is lost.
    ///
    /// # Errors
    /// [`Error::Port`] when nothing there takes the connection; [`Error::Limit`] when as many are open as may be;
    /// [`Error::Unsupported`].
    async fn dial(&self, port: Port) -> Result<Box<dyn Duplex>, Error> {
        let _ = port;
        Err(unsupported("ports"))
    }

    /// The named commands that run, or ended and were not taken.
    async fn commands(&self) -> Result<Vec<KeptCommand>, Error> {
        Ok(Vec::new())
    }

    /// Goes on with a named command that an earlier harness started, its output from `position` on. What is read, written,
    /// killed and dropped then is as with a command of one's own.
    ///
    /// # Errors
    /// [`Error::NoProcess`] when there is no such command, or somebody here has it; [`Error::OutputGone`] when output from
    /// there on is not kept any more.
    async fn attach(&self, name: &str, position: u64) -> Result<Box<dyn Process>, Error> {
        let _ = (name, position);
        Err(Error::NoProcess)
    }

    /// Reads up to `bytes_max` of a regular file from `offset`; never follows a link out of the workspace.
    async fn read(&self, path: &RelPath, offset: u64, bytes_max: u64) -> Result<Bytes, Error>;

    /// What stands at `path`, not following a link at its end.
    async fn stat(&self, path: &RelPath) -> Result<Stat, Error>;

    /// The entries of a directory, by name, at most `entries_max`.
    async fn list(&self, path: &RelPath, entries_max: usize) -> Result<Vec<(String, Stat)>, Error>;

    /// Applies all changes or none: each is staged beside its target first, then renamed into place; when one
    /// fails, what was renamed is put back.
    async fn apply(&self, changes: Vec<Change>) -> Result<(), Error>;

    /// Gives a file or directory another name; links are moved, not followed.
    ///
    /// # Errors
    /// [`Error::File`]; [`Error::Unsupported`].
    async fn rename(&self, from: &RelPath, to: &RelPath, replace: Replace) -> Result<(), Error> {
        let _ = (from, to, replace);
        Err(unsupported("moves"))
    }

    /// Removes a file, or a directory with everything in it, at most `entries_max`; gives how many.
    ///
    /// # Errors
    /// [`Error::File`], also when there are more, of which some are gone then; [`Error::Unsupported`].
    async fn remove(&self, path: &RelPath, entries_max: u64) -> Result<u64, Error> {
        let _ = (path, entries_max);
        Err(unsupported("removals of trees"))
    }

    /// Watches a directory. The first event says that the watch stands.
    ///
    /// # Errors
    /// [`Error::Unsupported`]; what else goes wrong comes from the watch.
    async fn watch(&self, path: &RelPath, depth: Depth) -> Result<Box<dyn Watch>, Error> {
        let _ = (path, depth);
        Err(unsupported("watches"))
    }

    /// A directory as an archive, in the form of [`Sandbox::export`], while the programs inside go on.
    ///
    /// # Errors
    /// As [`Sandbox::export`]; a file that changes while it is read ends it. [`Error::Unsupported`].
    async fn download(&self, path: &RelPath, limits: ArchiveLimits) -> Result<Box<dyn Export>, Error> {
        let _ = (path, limits);
        Err(unsupported("downloads of trees"))
    }

    /// Unpacks an archive into a directory that is there: directories that stand in it stay, anything else is replaced, what the
    /// archive does not name stays. What was unpacked before an error stays, too.
    ///
    /// # Errors
    /// [`Error::Archive`] names the rule that an archive broke; [`Error::File`], [`Error::Unsupported`].
    async fn upload(&self, path: &RelPath, archive: Archive, limits: ArchiveLimits) -> Result<Totals, Error> {
        let _ = (path, archive, limits);
        Err(unsupported("uploads of trees"))
    }

    /// Compares two directories with all that is in them; times do not count. Only what differs leaves the sandbox.
    ///
    /// # Errors
    /// [`Error::File`], also for what is too deep to be compared; [`Error::Unsupported`].
    async fn compare(
        &self,
        before: &RelPath,
        after: &RelPath,
        differences_max: usize,
    ) -> Result<files::Comparison, Error> {
        let _ = (before, after, differences_max);
        Err(unsupported("comparisons"))
    }

    /// Every path that the workspace's layer holds with its state, at most `entries_max`; for showing what changed.
    async fn changed(&self, entries_max: usize) -> Result<Vec<(RelPath, Stat)>, Error>;

    /// Begins an export of the whole workspace: a tar with sorted paths, exact modes and times, the guest's user as owner,
    /// hard links kept, holes kept, sockets, FIFOs and devices left out. Two exports of one content are the same bytes. From
    /// now on until it ends the programs inside stand still, and new ones wait.
    ///
    /// # Errors
    /// [`Error::Gone`], [`Error::Command`] when it can't begin. What goes wrong later comes from the export.
    async fn export(&self, limits: ArchiveLimits) -> Result<Box<dyn Export>, Error>;

    /// Takes the workspace as it stands now, to be read and forked later: the programs inside stand still only for the taking.
    /// `None`: this sandbox can't, or not now (its programs do not come to a halt, or there is no room for it); then
    /// [`Sandbox::export`] keeps it.
    ///
    /// # Errors
    /// [`Error::Gone`], [`Error::Command`] when nothing can be done in the sandbox; [`Error::Start`] when the host's files fail.
    async fn checkpoint(&self, id: Id<id::Checkpoint>) -> Result<Option<Arc<dyn Checkpoint>>, Error> {
        let _ = id;
        Ok(None)
    }

    /// Has the programs inside stand still, so that they take no processor time, until [`Sandbox::resume`], until something new
    /// begins inside, or until so long has passed. Their memory, terminals and connections stay as they are. `false`: this
    /// sandbox can't, or not now; then they go on.
    ///
    /// # Errors
    /// [`Error::Gone`], [`Error::Command`] when nothing can be done in the sandbox.
    async fn pause(&self, duration_ms_max: u64) -> Result<bool, Error> {
        let _ = duration_ms_max;
        Ok(false)
    }

    /// Lets the programs go on where they stood; nothing where they do.
    ///
    /// # Errors
    /// [`Error::Gone`]: it ended meanwhile.
    async fn resume(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Unpacks an archive into the workspace of a sandbox that was made with [`Start::Restored`], inside. When it returns,
    /// the files are durable and the workspace counts as whole; until then nothing else can be done in it.
    ///
    /// # Errors
    /// [`Error::Archive`] names the rule that an archive broke. After any error close the sandbox: its workspace is lost.
    async fn import(&self, archive: Archive, limits: ArchiveLimits) -> Result<Totals, Error>;

    /// Kills everything inside and waits until nothing of it is left but the workspace.
    async fn close(&self);
}

/// What a provider or a sandbox says no with.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// A wall that the policy asks for does not stand.
    #[error("the wall `{wall}` does not hold: {detail}{}", hint(.fix.as_deref()))]
    Wall {
        /// Which one.
        wall: String,
        /// What the kernel said.
        detail: String,
        /// What mends it.
        fix: Option<String>,
    },
    /// The start failed at a stage.
    #[error("the sandbox did not start: {stage}: {detail}")]
    Start {
        /// `claim`, `root`, `workspace`, `manifest`, `ready`.
        stage: &'static str,
        /// What happened.
        detail: String,
    },
    /// A path that is absolute, climbs, or is no path.
    #[error("bad path `{path}`: {reason}")]
    Path {
        /// As it was given.
        path: String,
        /// `absolute`, `escape_root`, `empty`, `too_long`, `nul`.
        reason: &'static str,
    },
    /// An operation on a file failed.
    #[error("{operation} `{path}`: {detail}")]
    File {
        /// `read`, `write`, `list` …
        operation: &'static str,
        /// The path inside.
        path: String,
        /// Whether there was simply nothing.
        missing: bool,
        /// What happened.
        detail: String,
    },
    /// A command could not be started.
    #[error("the command did not start: {detail}")]
    Command {
        /// What happened.
        detail: String,
    },
    /// There is no such command any more.
    #[error("no such process")]
    NoProcess,
    /// Output that was asked for again is not kept any more.
    #[error("output is kept from position {kept_from} on")]
    OutputGone {
        /// From where on it is.
        kept_from: u64,
    },
    /// The workspace that should be there is gone.
    #[error("the workspace of this session is gone; hint: only a checkpoint can bring its files back")]
    WorkspaceLost,
    /// The workspace that is here was not the last one that the session had.
    #[error(
        "the workspace that is kept here is of generation {found}, not {expected}; hint: restore it from its checkpoint"
    )]
    WorkspaceStale {
        /// What the log says.
        expected: u64,
        /// What the workspace is marked with.
        found: u64,
    },
    /// A later lease has had the workspace.
    #[error("stale epoch: epoch {epoch} came after epoch {seen}")]
    StaleEpoch {
        /// Under which it was asked.
        epoch: u64,
        /// The highest that was served.
        seen: u64,
    },
    /// An archive that is not unpacked.
    #[error("the archive was refused at `{entry}`: {rule}")]
    Archive {
        /// Which rule it broke.
        rule: Rule,
        /// Where, as far as it can be told; control characters escaped.
        entry: String,
    },
    /// A manifest that is not laid.
    #[error("the manifest was refused at `{at}`: {rule}")]
    Manifest {
        /// Where, as far as it can be told; control characters escaped.
        at: String,
        /// Which rule it broke.
        rule: manifest::Refusal,
    },
    /// What was asked for is beyond this provider.
    #[error("the provider `{provider}` has no {what}: {detail}")]
    Unsupported {
        /// Which provider.
        provider: String,
        /// What was asked for.
        what: &'static str,
        /// Why not, and what mends it.
        detail: String,
    },
    /// A mount can't be had.
    #[error("the mount at `{path}` ({code}): {detail}")]
    Mount {
        /// Where.
        path: String,
        /// The code of what went wrong.
        code: String,
        /// What went wrong.
        detail: String,
    },
    /// Nothing inside takes a connection on a port.
    #[error("nothing in the sandbox answers on port {port}: {detail}")]
    Port {
        /// Which one.
        port: u16,
        /// What the kernel said.
        detail: String,
    },
    /// The sandbox is gone.
    #[error("the sandbox is gone: {detail}")]
    Gone {
        /// `closed`, `out_of_memory`, or what the provider saw.
        detail: String,
    },
    /// The guest broke the protocol, or a limit of it.
    #[error("the sandbox broke the protocol: {detail}")]
    Protocol {
        /// Which rule.
        detail: String,
    },
    /// A limit on this side was reached.
    #[error("limit reached: {limit}")]
    Limit {
        /// Its name, with its unit and value.
        limit: String,
    },
}

fn unsupported(what: &'static str) -> Error {
    Error::Unsupported { provider: "of this sandbox".to_owned(), what, detail: "it was not made for that".to_owned() }
}

fn hint(fix: Option<&str>) -> String {
    fix.map(|fix| format!("; hint: {fix}")).unwrap_or_default()
}

impl Error {
    /// Stable code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Wall { .. } => "sandbox_wall",
            Self::Start { .. } => "sandbox_start",
            Self::Path { .. } => "sandbox_path",
            Self::File { .. } => "sandbox_file",
            Self::Command { .. } => "sandbox_command",
            Self::NoProcess => "sandbox_no_process",
            Self::OutputGone { .. } => "sandbox_output_gone",
            Self::WorkspaceLost => "workspace_lost",
            Self::WorkspaceStale { .. } => "workspace_stale",
            Self::StaleEpoch { .. } => "sandbox_stale_epoch",
            Self::Archive { .. } => "archive_refused",
            Self::Manifest { .. } => "manifest_refused",
            Self::Unsupported { .. } => "sandbox_unsupported",
            Self::Mount { .. } => "sandbox_mount",
            Self::Port { .. } => "port_refused",
            Self::Gone { .. } => "sandbox_gone",
            Self::Protocol { .. } => "sandbox_protocol",
            Self::Limit { .. } => "sandbox_limit",
        }
    }
}
