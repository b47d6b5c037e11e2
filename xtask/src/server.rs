//! Processes that serve on loopback: started, waited for, asked, looked at, ended.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::clock::Stopwatch;

const WAIT_SECONDS_MAX: f64 = 60.0;
const POLL: Duration = Duration::from_micros(500);

/// A process that serves on loopback; killed when it goes out of scope.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    pub(crate) port: u16,
    /// From its start to its first good answer.
    pub(crate) ready_ms: f64,
}

/// A port of loopback that is free now.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

impl Server {
    /// Starts a process and waits until `path` answers 200 on `port`.
    #[expect(clippy::disallowed_methods, reason = "a process that starts can't be waited for but by asking it again")]
    pub(crate) fn start(command: &mut Command, port: u16, path: &str) -> Result<Self> {
        let watch = Stopwatch::start();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut child = child.with_context(|| format!("{:?}", command.get_program()))?;
        loop {
            if get(port, path).is_some_and(|answer| answer.starts_with("HTTP/1.1 200")) {
                return Ok(Self { child, port, ready_ms: watch.seconds() * 1e3 });
            }
            if let Some(status) = child.try_wait()? {
                bail!("{:?} ended: {status}", command.get_program());
            }
            if watch.seconds() > WAIT_SECONDS_MAX {
                let _ = child.kill();
                bail!("{:?} did not answer {path} in {WAIT_SECONDS_MAX} s", command.get_program());
            }
            std::thread::sleep(POLL);
        }
    }

    /// Starts `topside serve`.
    pub(crate) fn topside(built: &Path, project: &Path, data: &Path) -> Result<Self> {
        let port = free_port()?;
        let mut command = Command::new(built.join("topside"));
        command.arg("serve").arg("--project").arg(project).arg("--data").arg(data);
        command.args(["--listen", &format!("127.0.0.1:{port}")]);
        Self::start(&mut command, port, "/health")
    }

    /// Resident memory in MiB.
    pub(crate) fn resident_mib(&self) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib / 1024.0)
    }

    /// Ends it in an orderly way.
    pub(crate) fn stop(mut self) -> Result<()> {
        Command::new("kill").arg(self.child.id().to_string()).status()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The answer to a GET, or nothing when there is none.
pub(crate) fn get(port: u16, path: &str) -> Option<String> {
    request(port, &head("GET", port, path, &[]))
}

/// The answer to a POST of JSON.
pub(crate) fn post(port: u16, path: &str, body: &str) -> Option<String> {
    request(port, &with_body(&head("POST", port, path, &[]), body))
}

/// An answer that came whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

/// Sends JSON with further headers; nothing when the other side died before its answer was whole.
pub(crate) fn send(port: u16, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Option<Answer> {
    let text = request(port, &with_body(&head(method, port, path, headers), body))?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let is_whole = length.is_none_or(|length: usize| length == body.len());
    is_whole.then(|| Answer { status, body: body.to_owned() })
}

fn head(method: &str, port: u16, path: &str, headers: &[(&str, &str)]) -> String {
    let mut text = format!("{method} {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nconnection: close\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    text
}

fn with_body(head: &str, body: &str) -> String {
    let head = head.trim_end();
    format!("{head}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

#[expect(clippy::disallowed_methods, reason = "it asks the process that this command has started on loopback")]
fn request(port: u16, text: &str) -> Option<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
    stream.write_all(text.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}
