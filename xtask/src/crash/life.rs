//! One life of the real binary: from its start to the signal that ends it. Nothing here knows what is asked of it.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::clock::Stopwatch;
use crate::process;

const POLL: Duration = Duration::from_millis(2);
/// A process may take so long to end.
const END_SECONDS_MAX: f64 = 60.0;

/// Where lives are lived: the binary, a project and its data.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) binary: PathBuf,
    pub(crate) project: PathBuf,
    pub(crate) data: PathBuf,
    /// What the processes say on standard error, one after the other.
    pub(crate) log: PathBuf,
    /// What every process finds in its environment.
    pub(crate) variables: Vec<(String, String)>,
}

/// A process that serves. Killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Life {
    child: Child,
    pub(crate) port: u16,
    _stdout: BufReader<ChildStdout>,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Death {
    /// By SIGKILL.
    Killed,
    /// In another way.
    Otherwise,
}

/// What became of a start.
#[derive(Debug)]
pub(crate) enum Start {
    Serving(Life),
    /// It ended before it served.
    Died(Death),
}

impl Place {
    /// The binary with these arguments, in a clean environment.
    pub(crate) fn command(&self, arguments: &[&str]) -> Result<Command> {
        let log = OpenOptions::new().create(true).append(true).open(&self.log)?;
        let mut command = Command::new(&self.binary);
        command.args(arguments).current_dir(&self.project).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stderr(log);
        Ok(command)
    }

    /// Starts the service with these variables.
    pub(crate) fn start(&self, variables: &[(&str, &str)]) -> Result<Start> {
        self.start_as(&["serve", "--listen", "127.0.0.1:0"], variables)
    }

    /// Starts one of the processes that go on until they are told to end.
    pub(crate) fn start_as(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Result<Start> {
        let mut command = self.command(arguments)?;
        command.arg("--data").arg(&self.data);
        let mut child = command.envs(variables.iter().copied()).stdout(Stdio::piped()).spawn()?;
        let mut stdout = BufReader::new(child.stdout.take().context("no stdout")?);
        let mut url = String::new();
        stdout.read_line(&mut url)?;
        if url.is_empty() {
            return Ok(Start::Died(death(&mut child)?));
        }
        let port = url.trim_end().rsplit(':').next().and_then(|port| port.parse().ok()).context("no port")?;
        Ok(Start::Serving(Life { child, port, _stdout: stdout }))
    }

    /// Starts the service; it must come up.
    pub(crate) fn serve(&self) -> Result<Life> {
        match self.start(&[])? {
            Start::Serving(life) => Ok(life),
            Start::Died(_) => bail!("the service did not start:\n{}", self.said()),
        }
    }

    /// What the processes said last.
    pub(crate) fn said(&self) -> String {
        process::tail(&std::fs::read_to_string(&self.log).unwrap_or_default(), 15)
    }

    /// The log of a session as lines of JSON, or why it can't be had or does not verify.
    pub(crate) fn records(&self, session: &str) -> Result<Vec<Value>> {
        let data = self.data.to_string_lossy();
        let mut command = self.command(&["log", session, "--json", "--verify", "--data", &data])?;
        let output = command.stdout(Stdio::piped()).output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            bail!("`topside log {session} --verify` ended with {}\n{}", output.status, self.said());
        }
        text.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
    }

    /// An empty file for lines of the points that are reached.
    pub(crate) fn points_log(&self) -> Result<PathBuf> {
        let path = self.log.with_extension("points");
        File::create(&path)?;
        Ok(path)
    }
}

impl Life {
    /// Ends it with SIGKILL.
    pub(crate) fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Ends it in an orderly way.
    pub(crate) fn stop(mut self) -> Result<()> {
        Command::new("kill").arg(self.child.id().to_string()).status()?;
        death(&mut self.child)?;
        Ok(())
    }

    /// How it ended; waits for that.
    pub(crate) fn death(mut self) -> Result<Death> {
        death(&mut self.child)
    }

    /// Whether it was stopped and has not gone on.
    pub(crate) fn stands_still(&mut self) -> Result<bool> {
        ensure!(self.lives()?, "the process ended instead of standing still");
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        Ok(stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T')))
    }

    /// Lets it go on.
    pub(crate) fn go_on(&self) -> Result<()> {
        Command::new("kill").args(["-CONT", &self.child.id().to_string()]).status()?;
        Ok(())
    }

    /// Whether it has not ended.
    pub(crate) fn lives(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Lets the others go on.
#[expect(
    clippy::disallowed_methods,
    reason = "another process can only be asked again, and a random kill is a random wait"
)]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}

fn death(child: &mut Child) -> Result<Death> {
    use std::os::unix::process::ExitStatusExt as _;
    let watch = Stopwatch::start();
    while watch.seconds() < END_SECONDS_MAX {
        if let Some(status) = child.try_wait()? {
            return Ok(if status.signal() == Some(9) { Death::Killed } else { Death::Otherwise });
        }
        pause(POLL);
    }
    bail!("the process neither answered nor ended in {END_SECONDS_MAX} s")
}
