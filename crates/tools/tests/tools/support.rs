//! A bench over a directory of the host, and what it takes to make a call.

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use domain::agent::{Caller, Capability};
use domain::template::{self, Source};
use domain::{Call, Contract, Digest, Effect, Id, Part, Tool, ToolRun, id};
use parking_lot::Mutex;
use policy::{Decision, Pack, Permit, Request};
use sandbox::{
    Archive, ArchiveLimits, Change, Chunk, Command, Error, Exit, Export, FileKind, Probe, Process, Provider, RelPath,
    Sandbox, Spec, Stat, Stream, Totals, Walls, Workspace,
};
use std::collections::HashMap;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use stdx::{Clock, Random};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tools::{Bench, Functions, Outcome, Progress, Terminals, Toolbox};

/// Processes and files in a directory of the host, without a wall.
#[derive(Debug)]
pub(crate) struct Directory {
    pub(crate) path: PathBuf,
    walls: Walls,
    /// Applications that went through.
    pub(crate) applied: AtomicUsize,
    _kept: Option<tempfile::TempDir>,
}

impl Directory {
    fn file_error(operation: &'static str, path: &RelPath, error: &std::io::Error) -> Error {
        let missing = error.kind() == std::io::ErrorKind::NotFound;
        Error::File { operation, path: path.to_string(), missing, detail: error.to_string() }
    }
}

#[async_trait]
impl Sandbox for Directory {
    fn id(&self) -> Id<id::Sandbox> {
        Id::from_bytes([9; 16])
    }

    fn walls(&self) -> &Walls {
        &self.walls
    }

    async fn start(&self, command: Command) -> Result<Box<dyn Process>, Error> {
        let mut argv = command.argv.clone();
        if command.terminal {
            // `script` gives what it runs a terminal.
            let line =
                argv.iter().map(|word| format!("'{}'", word.replace('\'', r"'\''"))).collect::<Vec<_>>().join(" ");
            argv = ["script", "-qefc", &line, "/dev/null"].map(str::to_owned).into();
        }
        // A jail has the program's directory at /tool.
        let argv: Vec<String> =
            argv.iter().map(|word| word.replacen("/tool/", &format!("{}/.tool/", self.path.display()), 1)).collect();
        let mut child = tokio::process::Command::new(&argv[0])
            .args(&argv[1..])
            .current_dir(self.path.join(command.workdir.as_str()))
            .envs(command.environment)
            .env("PS1", "")
            .stdin(if command.stdin || command.terminal { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(|error| Error::Command { detail: error.to_string() })?;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        Ok(Box::new(Running { child, stdin, stdout, stderr }))
    }

    async fn read(&self, path: &RelPath, offset: u64, bytes_max: u64) -> Result<Bytes, Error> {
        let bytes =
            std::fs::read(self.path.join(path.as_str())).map_err(|error| Self::file_error("read", path, &error))?;
        let from = usize::try_from(offset).unwrap().min(bytes.len());
        let to = from + usize::try_from(bytes_max.min(1 << 16)).unwrap().min(bytes.len() - from);
        Ok(Bytes::copy_from_slice(&bytes[from..to]))
    }

    async fn stat(&self, path: &RelPath) -> Result<Stat, Error> {
        let stat = std::fs::symlink_metadata(self.path.join(path.as_str()))
            .map_err(|error| Self::file_error("stat", path, &error))?;
        let kind = match stat.file_type() {
            kind if kind.is_file() => FileKind::File,
            kind if kind.is_dir() => FileKind::Directory,
            kind if kind.is_symlink() => FileKind::Link,
            _ => FileKind::Other,
        };
        Ok(Stat { kind, bytes: stat.len(), mode: stat.mode() & 0o7777, modified_ms: 0 })
    }

    async fn list(&self, _: &RelPath, _: usize) -> Result<Vec<(String, Stat)>, Error> {
        Ok(vec![])
    }

    /// Fails before it writes when one target is a directory.
    async fn apply(&self, changes: Vec<Change>) -> Result<(), Error> {
        let full = |path: &RelPath| self.path.join(path.as_str());
        let written: Vec<_> = changes
            .iter()
            .filter_map(|change| if let Change::Write { path, .. } = change { Some(path.clone()) } else { None })
            .collect();
        for path in &written {
            let parent = path.parent().is_some_and(|parent| full(&parent).is_file() || written.contains(&parent));
            if full(path).is_dir() || parent {
                let detail = "a directory and a file meet".to_owned();
                return Err(Error::File { operation: "write", path: path.to_string(), missing: false, detail });
            }
        }
        for change in changes {
            match change {
                Change::Write { path, bytes, mode } => {
                    std::fs::create_dir_all(full(&path).parent().unwrap()).unwrap();
                    std::fs::write(full(&path), bytes).unwrap();
                    if let Some(mode) = mode {
                        std::fs::set_permissions(full(&path), std::fs::Permissions::from_mode(mode)).unwrap();
                    }
                }
                Change::MakeDir { path } => std::fs::create_dir_all(full(&path)).unwrap(),
                Change::Mode { path, mode } => {
                    let mode: std::fs::Permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
                    std::fs::set_permissions(full(&path), mode).unwrap();
                }
                Change::Group { path, .. } => assert!(full(&path).exists(), "its group is the sandbox's matter"),
                Change::Remove { path } => std::fs::remove_file(full(&path)).unwrap(),
            }
        }
        self.applied.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    async fn changed(&self, _: usize) -> Result<Vec<(RelPath, Stat)>, Error> {
        Ok(vec![])
    }

    async fn export(&self, _: ArchiveLimits) -> Result<Box<dyn Export>, Error> {
        Err(Error::Protocol { detail: "a directory of the host has no archive".to_owned() })
    }

    async fn import(&self, _: Archive, _: ArchiveLimits) -> Result<Totals, Error> {
        Err(Error::Protocol { detail: "a directory of the host has no archive".to_owned() })
    }

    async fn close(&self) {}
}

#[derive(Debug)]
struct Running {
    child: tokio::process::Child,
    stdin: Option<tokio::process::ChildStdin>,
    stdout: Option<tokio::process::ChildStdout>,
    stderr: Option<tokio::process::ChildStderr>,
}

#[async_trait]
impl Process for Running {
    async fn next(&mut self) -> Result<Chunk, Error> {
        let gone = |error: std::io::Error| Error::Gone { detail: error.to_string() };
        while self.stdout.is_some() || self.stderr.is_some() {
            let (mut out, mut err) = (BytesMut::with_capacity(1 << 16), BytesMut::with_capacity(1 << 16));
            tokio::select! {
                read = async { self.stdout.as_mut().unwrap().read_buf(&mut out).await }, if self.stdout.is_some() => {
                    if read.map_err(gone)? > 0 { return Ok(Chunk::Output(Stream::Stdout, out.freeze())); }
                    self.stdout = None;
                }
                read = async { self.stderr.as_mut().unwrap().read_buf(&mut err).await }, if self.stderr.is_some() => {
                    if read.map_err(gone)? > 0 { return Ok(Chunk::Output(Stream::Stderr, err.freeze())); }
                    self.stderr = None;
                }
            }
        }
        let status = self.child.wait().await.map_err(gone)?;
        Ok(Chunk::Exit(status.code().map_or_else(|| Exit::Signal(status.signal().unwrap_or(0)), Exit::Code)))
    }

    async fn write(&mut self, bytes: Bytes) -> Result<(), Error> {
        let broken = |error: std::io::Error| Error::Command { detail: error.to_string() };
        let stdin = self.stdin.as_mut().ok_or(Error::NoProcess)?;
        stdin.write_all(&bytes).await.map_err(broken)?;
        stdin.flush().await.map_err(broken)
    }

    async fn close_stdin(&mut self) -> Result<(), Error> {
        self.stdin = None;
        Ok(())
    }

    async fn resize(&mut self, _: u16, _: u16) -> Result<(), Error> {
        Ok(())
    }

    async fn kill(&mut self) -> Result<Exit, Error> {
        kill(&self.child);
        let status = self.child.wait().await.map_err(|error| Error::Gone { detail: error.to_string() })?;
        Ok(status.signal().map_or(Exit::Code(0), Exit::Signal))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        kill(&self.child);
    }
}

fn kill(child: &tokio::process::Child) {
    // One that was waited for has no id any more.
    if let Some(group) = child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
}

/// Makes [`Directory`]s; shows binds by links below `.tool`.
#[derive(Debug)]
pub(crate) struct Host;

#[async_trait]
impl Provider for Host {
    fn name(&self) -> &'static str {
        "host"
    }

    async fn probe(&self) -> Probe {
        Probe { ready: true, walls: vec![], remarks: vec![] }
    }

    async fn create(&self, spec: Spec) -> Result<Arc<dyn Sandbox>, Error> {
        let kept = tempfile::tempdir().unwrap();
        assert_eq!(spec.workspace, Workspace::Scratch);
        for bind in &spec.binds {
            let link = kept.path().join(bind.inside.replacen("/tool/", ".tool/", 1));
            std::fs::create_dir_all(link.parent().unwrap()).unwrap();
            std::os::unix::fs::symlink(&bind.host, link).unwrap();
        }
        Ok(Arc::new(Directory {
            path: kept.path().to_owned(),
            walls: Walls::default(),
            applied: AtomicUsize::new(0),
            _kept: Some(kept),
        }))
    }

    async fn workspace_exists(&self, _: &Workspace) -> Result<bool, Error> {
        Ok(false)
    }

    async fn workspace_remove(&self, _: &Workspace) -> Result<(), Error> {
        Ok(())
    }
}

/// One session's bench, and a toolbox.
pub(crate) struct World {
    pub(crate) project: tempfile::TempDir,
    pub(crate) workspace: Arc<Directory>,
    pub(crate) terminals: Terminals,
    pub(crate) toolbox: Toolbox,
    pub(crate) progress: Mutex<Vec<Progress>>,
    pub(crate) wholes: Mutex<HashMap<Id<id::Call>, Bytes>>,
    pub(crate) values: HashMap<(Source, String), String>,
    pub(crate) key: Option<String>,
    pub(crate) helper: Option<Arc<dyn Provider>>,
    pub(crate) clock: Clock,
    net: net::Client,
    random: Random,
    calls: AtomicUsize,
}

impl World {
    pub(crate) fn new(tools: &[Tool]) -> Self {
        Self::with(tools, &Functions::new())
    }

    pub(crate) fn with(tools: &[Tool], functions: &Functions) -> Self {
        let project = tempfile::tempdir().unwrap();
        let path = project.path().join("workspace");
        std::fs::create_dir(&path).unwrap();
        let (walls, applied) = (Walls::default(), AtomicUsize::new(0));
        Self {
            project,
            workspace: Arc::new(Directory { path, walls, applied, _kept: None }),
            terminals: Terminals::new(),
            toolbox: Toolbox::new(tools, &[Capability::Filesystem, Capability::Shell], functions).unwrap(),
            progress: Mutex::default(),
            wholes: Mutex::default(),
            values: HashMap::new(),
            key: None,
            helper: Some(Arc::new(Host)),
            clock: Clock::system(),
            net: net::Client::new(net::Settings::default()).unwrap(),
            random: Random::seeded(7),
            calls: AtomicUsize::new(1),
        }
    }

    pub(crate) fn secret(mut self, name: &str, value: &str) -> Self {
        self.values.insert((Source::Secret, name.into()), value.into());
        self
    }

    pub(crate) fn put(&self, path: &str, text: impl AsRef<[u8]>) {
        let path = self.workspace.path.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    pub(crate) fn call_of(&self, tool: &str, arguments: &str) -> Call {
        let number = u8::try_from(self.calls.fetch_add(1, Ordering::Relaxed) % 250).unwrap();
        Call {
            id: Id::from_bytes([number; 16]),
            run: Id::from_bytes([2; 16]),
            session: Id::from_bytes([3; 16]),
            tenant: "default".into(),
            tool: tool.into(),
            arguments: arguments.into(),
            custom: false,
        }
    }

    pub(crate) fn permit(&self, call: &Call) -> Permit {
        permit(call, self.clock.monotonic())
    }

    pub(crate) async fn call(&self, tool: &str, arguments: &str) -> Outcome {
        self.perform(&self.call_of(tool, arguments)).await
    }

    pub(crate) async fn perform(&self, call: &Call) -> Outcome {
        let outcome = tools::execute(self.permit(call), &self.toolbox, self).await;
        if let Some(whole) = &outcome.whole {
            self.wholes.lock().insert(call.id, whole.clone());
        }
        outcome
    }

    /// Whether a running process has this word among its arguments.
    pub(crate) fn runs(word: &str) -> bool {
        std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            line.split(|byte| *byte == 0).any(|argument| argument == word.as_bytes())
        })
    }

    /// Waits until no process has this word among its arguments: a kill needs the kernel's moment.
    pub(crate) async fn until_gone(word: &str) {
        let gone = async {
            while Self::runs(word) {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(20), gone).await.expect("the process is killed");
    }
}

pub(crate) fn permit(call: &Call, now: std::time::Duration) -> Permit {
    static PACK: LazyLock<Pack> = LazyLock::new(|| {
        let source = policy::Source { file: "open.cedar".into(), text: "permit (principal, action, resource);".into() };
        Pack::new("open", &[source]).unwrap()
    });
    let contract = Contract::of(Effect::Read);
    let principal = Id::from_name("default", "local");
    let request = Request {
        call,
        agent: "maya",
        principal,
        contract: &contract,
        turn: 1,
        tool_calls: 0,
        epoch: 7,
        approvals: 0,
        binding: Digest::ZERO,
        now_ms: 0,
    };
    match PACK.decide(&request, now) {
        Decision::Allow(_, permit) => permit,
        Decision::Deny(judgement) | Decision::Hold(judgement, _) => panic!("{judgement:?}"),
    }
}

#[async_trait]
impl Bench for World {
    async fn sandbox(&self) -> Result<Arc<dyn Sandbox>, Error> {
        Ok(Arc::clone(&self.workspace) as Arc<dyn Sandbox>)
    }

    fn terminals(&self) -> &Terminals {
        &self.terminals
    }

    fn progress(&self, chunk: Progress) {
        // Best effort, as it is for a real reader.
        let mut shown = self.progress.lock();
        if shown.len() < 100 {
            shown.push(chunk);
        }
    }

    async fn whole(&self, call: Id<id::Call>, offset: u64, bytes_max: u64) -> Option<(Vec<u8>, u64)> {
        let whole = self.wholes.lock().get(&call)?.clone();
        let from = usize::try_from(offset).unwrap().min(whole.len());
        let to = from + usize::try_from(bytes_max).unwrap_or(usize::MAX).min(whole.len() - from);
        Some((whole[from..to].to_vec(), u64::try_from(whole.len()).unwrap()))
    }

    fn project(&self) -> &Path {
        self.project.path()
    }

    fn expand(&self, text: &str) -> Result<String, template::Error> {
        template::expand(text, |source, name| self.values.get(&(source, name.to_owned())).cloned())
    }

    fn net(&self) -> &net::Client {
        &self.net
    }

    fn helper(&self) -> Option<&Arc<dyn Provider>> {
        self.helper.as_ref()
    }

    fn clock(&self) -> &Clock {
        &self.clock
    }

    fn random(&self) -> &Random {
        &self.random
    }

    fn idempotency_key(&self) -> Option<&str> {
        self.key.as_deref()
    }
}

pub(crate) fn tool(name: &str, effect: Effect, input_schema: &str, run: ToolRun) -> Tool {
    let (name, input_schema) = (name.to_owned(), input_schema.to_owned());
    Tool {
        name,
        description: "A tool.".into(),
        input_schema,
        contract: Contract::of(effect),
        run,
        caller: Caller::Model,
    }
}

/// The one text a call gave.
pub(crate) fn text(outcome: &Outcome) -> &str {
    match outcome.parts.as_slice() {
        [Part::Text { text }] => text,
        other => panic!("{other:?}"),
    }
}

/// The text after `Output:`.
pub(crate) fn output(outcome: &Outcome) -> &str {
    text(outcome).split_once("Output:\n").map(|(_, output)| output).unwrap_or_else(|| panic!("{outcome:?}"))
}

/// The text with what differs from call to call replaced: chunk id, wall time, session number.
pub(crate) fn steady(outcome: &Outcome) -> String {
    let line = |line: &str| match line.split_once(": ") {
        Some(("Chunk ID", id)) => {
            assert!(id.len() == 6 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{line}");
            "Chunk ID: ######".to_owned()
        }
        Some(("Wall time", time)) => {
            let (_, decimals) = time.strip_suffix(" seconds").unwrap().split_once('.').unwrap();
            assert_eq!(decimals.len(), 4, "{line}");
            "Wall time: #.#### seconds".to_owned()
        }
        _ if line.starts_with("Process running with session ID ") => {
            let id: u32 = line.rsplit(' ').next().unwrap().parse().unwrap();
            assert!((1_000..=99_999).contains(&id), "{line}");
            "Process running with session ID #####".to_owned()
        }
        _ => line.to_owned(),
    };
    text(outcome).split('\n').map(line).collect::<Vec<_>>().join("\n")
}
