//! The outside witness: a service on loopback that notes every deed which reaches it, in a process that no crash touches.
//! What the deeds must look like, `judge` says.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context as _, Result};
use serde_json::Value;

/// The longest body of a deed.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// Something that was done outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Deed {
    /// The tool that did it.
    pub(crate) tool: String,
    /// The run that asked for it.
    pub(crate) run: String,
    /// The key it came with.
    pub(crate) key: Option<String>,
}

/// The service; ended when it is dropped.
#[derive(Debug)]
pub(crate) struct Witness {
    pub(crate) port: u16,
    noted: Arc<Mutex<Noted>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Noted {
    deeds: Vec<Deed>,
    closed: bool,
}

impl Witness {
    pub(crate) fn open() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let noted = Arc::new(Mutex::new(Noted::default()));
        let shared = noted.clone();
        let thread = std::thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                if lock(&shared).closed {
                    return;
                }
                let shared = shared.clone();
                // Whoever does a deed may die in the middle of it; the next one must not wait for that.
                std::thread::spawn(move || note(connection, &shared));
            }
        });
        Ok(Self { port, noted, thread: Some(thread) })
    }

    /// What a run has done.
    pub(crate) fn deeds(&self, run: &str) -> Vec<Deed> {
        lock(&self.noted).deeds.iter().filter(|deed| deed.run == run).cloned().collect()
    }
}

impl Drop for Witness {
    #[expect(clippy::disallowed_methods, reason = "it wakes the witness's own thread")]
    fn drop(&mut self) {
        lock(&self.noted).closed = true;
        // The connection only wakes the thread.
        drop(TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)));
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has told so.
            let _ = thread.join();
        }
    }
}

fn lock(noted: &Mutex<Noted>) -> MutexGuard<'_, Noted> {
    noted.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Notes one request and answers it. One that never came whole is no deed.
fn note(connection: TcpStream, noted: &Mutex<Noted>) {
    let Ok((deed, mut connection)) = read(connection) else { return };
    lock(noted).deeds.push(deed);
    // Whoever asked may have died meanwhile.
    let _ = connection.write_all(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 4\r\nconnection: close\r\n\r\ndone",
    );
}

fn read(connection: TcpStream) -> Result<(Deed, TcpStream)> {
    let mut reader = BufReader::new(connection);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let path = line.split(' ').nth(1).context("no path")?.to_owned();
    let (mut key, mut length) = (None, 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "idempotency-key" => key = Some(value.to_owned()),
            "content-length" => length = value.parse::<usize>()?.min(BODY_BYTES_MAX),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let mut path = path.trim_start_matches('/').split('/').map(str::to_owned);
    let tool = path.next().context("no tool")?;
    let run = match path.next() {
        Some(run) => run,
        None => serde_json::from_slice::<Value>(&body)?["run"].as_str().context("no run")?.to_owned(),
    };
    Ok((Deed { tool, run, key }, reader.into_inner()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server;

    #[test]
    fn deeds_are_noted_with_their_key() {
        let witness = Witness::open().expect("loopback is there");
        assert!(server::get(witness.port, "/look/r1").is_some_and(|answer| answer.ends_with("done")));
        let posted = server::send(witness.port, "POST", "/charge", &[("Idempotency-Key", "k")], r#"{"run":"r1"}"#);
        assert_eq!(posted.map(|answer| answer.status), Some(200));
        let expected = [("look", None), ("charge", Some("k"))].map(|(tool, key)| Deed {
            tool: tool.into(),
            run: "r1".into(),
            key: key.map(str::to_owned),
        });
        assert_eq!(witness.deeds("r1"), expected);
        assert_eq!(witness.deeds("r2"), []);
    }
}
