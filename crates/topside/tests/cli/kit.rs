//! What the tests share: a project in a folder of its own, and the binary run on it.

use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// A project and its data directory, gone with the test.
pub(crate) struct Project {
    folder: tempfile::TempDir,
}

impl Project {
    /// A project of these files.
    pub(crate) fn of(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        Self { folder }
    }

    /// An agent `worker` with a sandbox and these tools, which plays a transcript.
    pub(crate) fn playing(transcript: &str, tools: &[(&str, &str)]) -> Self {
        let names: Vec<&str> = tools.iter().map(|(name, _)| *name).collect();
        let agent = format!("---\nmodel: main\nsandbox: local\ntools: [{}]\n---\nYou work.\n", names.join(", "));
        let project = Self::of(&[
            ("topside.yaml", "default_agent: worker\n"),
            ("agents/worker.md", &agent),
            ("models/main.yaml", "main: {provider: script, transcript: main.yaml}\n"),
            ("main.yaml", transcript),
        ]);
        for (name, text) in tools {
            let path = project.path().join("tools").join(format!("{name}.yaml"));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        project
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.path().join(".topside")
    }

    /// The binary with these arguments, in the project's folder and in a clean environment.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_topside"));
        command.args(arguments).current_dir(self.path()).env_clear().env("PATH", "/usr/bin:/bin").stdin(Stdio::null());
        command
    }

    /// Runs the binary to its end.
    pub(crate) fn topside(&self, arguments: &[&str]) -> Said {
        Said::of(self.command(arguments).output().unwrap())
    }

    /// Starts the binary; its stdout is read line by line.
    pub(crate) fn start(&self, arguments: &[&str]) -> Running {
        let mut command = self.command(arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Running { child, lines }
    }
}

/// What the binary said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) data: String,
    pub(crate) talk: String,
}

impl Said {
    pub(crate) fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), data: text(output.stdout), talk: text(output.stderr) }
    }

    /// The same, when it ended so.
    #[track_caller]
    pub(crate) fn ended(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.data, self.talk);
        self
    }

    /// Every line of stdout as JSON.
    pub(crate) fn json(&self) -> Vec<Value> {
        self.data.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// The binary while it runs. Killed when the test fails.
pub(crate) struct Running {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Running {
    /// The next line of stdout.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Reads JSON lines up to the first record that fits; gives it.
    pub(crate) fn until(&mut self, fits: impl Fn(&Value) -> bool) -> Value {
        loop {
            let line = self.line();
            assert!(!line.is_empty(), "the output ended before the record came");
            let value: Value = serde_json::from_str(&line).unwrap();
            if fits(&value["record"]) {
                return value["record"].clone();
            }
        }
    }

    /// Sends a signal, such as `-INT`.
    pub(crate) fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }

    /// Kills the process and its launcher, as the end of their container does.
    pub(crate) fn kill_all(&self) {
        let process = self.process().to_string();
        let children = std::fs::read_to_string(format!("/proc/{process}/task/{process}/children")).unwrap();
        let is_launcher = |child: &&str| {
            std::fs::read_to_string(format!("/proc/{child}/comm")).is_ok_and(|name| name.trim() == "topside-launch")
        };
        let launcher = children.split_whitespace().find(is_launcher).expect("it has a launcher");
        assert!(Command::new("kill").args(["-KILL", &process, launcher]).status().unwrap().success());
    }

    /// Waits for the end.
    pub(crate) fn wait(mut self) -> Said {
        use std::io::Read;
        let (mut data, mut talk) = (String::new(), String::new());
        self.lines.read_to_string(&mut data).unwrap();
        self.child.stderr.take().unwrap().read_to_string(&mut talk).unwrap();
        let code = self.child.wait().unwrap().code();
        Said { code, data, talk }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // An error means that it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether this machine makes sandboxes; a missing one is told, and is an error in CI.
pub(crate) fn has_sandbox(test: &str) -> bool {
    let doctor = Project::of(&[]).topside(&["doctor"]);
    if doctor.code == Some(0) {
        return true;
    }
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{test} needs a sandbox:\n{}", doctor.data);
    #[expect(clippy::print_stderr, reason = "a test that is left out is told by name")]
    {
        eprintln!("SKIPPED {test}: this machine makes no sandboxes, see `topside doctor`");
    }
    false
}

/// Whether a record is of this kind.
pub(crate) fn kind(record: &Value) -> &str {
    record["kind"].as_str().unwrap_or_default()
}
