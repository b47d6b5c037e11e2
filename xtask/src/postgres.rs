//! A PostgreSQL server of this command's own: in a directory of its own, on loopback, gone with it. It keeps the server's
//! own defaults, so what is acknowledged is on disk.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::process;
use crate::server::free_port;

/// Runs the server until its standard input is closed: the script of the journal's tests.
const GUARD: &str = include_str!("../../crates/journal/tests/support/postgres.sh");

/// The server; ended and taken away when it is dropped.
#[derive(Debug)]
pub(crate) struct Cluster {
    binaries: PathBuf,
    port: u16,
    guard: Child,
    databases: u32,
}

impl Cluster {
    /// Starts a server; nothing when none is installed.
    pub(crate) fn start() -> Result<Option<Self>> {
        let Some(initdb) = process::postgres_program("initdb") else { return Ok(None) };
        let binaries = initdb.parent().context("a folder")?.to_owned();
        let folder = tempfile::Builder::new().prefix("topside-postgres-").tempdir()?.keep();
        let port = free_port()?;
        let mut command = as_somebody(&folder)?;
        command.args(["-c", GUARD]).env("BIN", &binaries).env("DIR", &folder).env("PORT", port.to_string());
        command.current_dir("/").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut guard = command.spawn()?;
        let mut line = String::new();
        BufReader::new(guard.stdout.take().context("no stdout")?).read_line(&mut line)?;
        let said = || std::fs::read_to_string(folder.join("log")).unwrap_or_default();
        ensure!(line == "started\n", "PostgreSQL did not start: {}", process::tail(&said(), 10));
        Ok(Some(Self { binaries, port, guard, databases: 0 }))
    }

    /// The URL of a new, empty database.
    pub(crate) fn database(&mut self) -> Result<String> {
        self.databases += 1;
        let name = format!("d{}", self.databases);
        let mut create = Command::new(self.binaries.join("createdb"));
        let port = self.port.to_string();
        let said = process::capture(create.args(["-h", "127.0.0.1", "-p", &port, "-U", "topside", &name]))?;
        ensure!(said.status.success(), "createdb: {}", said.tail(3));
        Ok(format!("postgres://topside@127.0.0.1:{port}/{name}"))
    }

    /// What `psql` says to a statement, without ornaments.
    pub(crate) fn ask(&self, url: &str, statement: &str) -> Result<String> {
        let mut psql = Command::new(self.binaries.join("psql"));
        let said = process::capture(psql.args(["-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", statement, url]))?;
        ensure!(said.status.success(), "psql: {}", said.tail(3));
        Ok(said.text)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        // It may have ended by itself.
        let _ = self.guard.wait();
    }
}

/// A shell; the server refuses to run as root.
fn as_somebody(folder: &Path) -> Result<Command> {
    use std::os::unix::fs::MetadataExt as _;
    if std::fs::metadata("/proc/self")?.uid() != 0 {
        return Ok(Command::new("sh"));
    }
    let given = process::capture(Command::new("chown").args(["-R", "postgres"]).arg(folder))?;
    ensure!(given.status.success(), "root needs a user `postgres` to run the server as: {}", given.tail(1));
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "sh"]);
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_answers_and_is_gone_afterwards() {
        let Some(mut cluster) = Cluster::start().expect("an installed server starts") else {
            assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "there is no PostgreSQL server");
            eprintln!("SKIPPED a_server_answers_and_is_gone_afterwards: there is no PostgreSQL server");
            return;
        };
        let url = cluster.database().expect("a database is made");
        assert_eq!(cluster.ask(&url, "show synchronous_commit").expect("it answers"), "on\n");
        assert_eq!(cluster.ask(&url, "show fsync").expect("it answers"), "on\n");
        let port = cluster.port;
        drop(cluster);
        assert!(std::net::TcpListener::bind(("127.0.0.1", port)).is_ok());
    }
}
