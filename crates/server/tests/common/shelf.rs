//! A provider whose sandboxes are played within the process: commands that say what they were asked, and ports on which any
//! bytes at all are answered. What a kernel does is tested where the kernel is.

use async_trait::async_trait;
use bytes::Bytes;
use domain::{Id, id};
use parking_lot::Mutex;
use sandbox::{
    Archive, ArchiveLimits, Change, Chunk, Command, Duplex, Error, Exit, Export, Input, Limits, Living, Port, Probe,
    Process, Provider, RelPath, Sandbox, Spec, Stat, Stream, Totals, Usage, Walls, Workspace,
};
use std::collections::HashMap;
use std::sync::Arc;
use stdx::{Clock, Random};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::sync::mpsc;

/// On this port the request's head and body are answered, as text.
pub const MIRROR: u16 = 8_000;
/// On this one a WebSocket is, which gives back whatever comes.
pub const SOCKET: u16 = 8_001;

/// The sandboxes that live.
#[derive(Debug, Default)]
pub struct Shelf {
    lives: Mutex<Vec<Arc<Played>>>,
    /// What is answered on other ports, whatever is asked.
    answers: Arc<Mutex<HashMap<u16, Vec<u8>>>>,
}

#[derive(Debug)]
pub struct Played {
    id: Id<id::Sandbox>,
    tenant: String,
    session: Id<id::Session>,
    walls: Walls,
    answers: Arc<Mutex<HashMap<u16, Vec<u8>>>>,
}

impl Shelf {
    /// A sandbox of a session.
    pub fn put(&self, tenant: &str, session: &str) -> Id<id::Sandbox> {
        let id = Id::new(Clock::system().wall_ms(), Random::system().bytes());
        let (tenant, session) = (tenant.to_owned(), Id::from_name(tenant, session));
        let walls = Walls { standing: vec!["seccomp".into()], missing: vec!["landlock".into()], landlock_version: 0 };
        self.lives.lock().push(Arc::new(Played { id, tenant, session, walls, answers: self.answers.clone() }));
        id
    }

    /// What is answered on a port from now on.
    pub fn answer(&self, port: u16, bytes: impl Into<Vec<u8>>) {
        self.answers.lock().insert(port, bytes.into());
    }

    pub fn lives(&self) -> usize {
        self.lives.lock().len()
    }
}

fn none<T>() -> Result<T, Error> {
    Err(Error::Unsupported { provider: "shelf".into(), what: "such things", detail: "it is played".into() })
}

#[async_trait]
impl Provider for Shelf {
    fn name(&self) -> &'static str {
        "shelf"
    }

    fn is_ready(&self) -> bool {
        false
    }

    async fn probe(&self) -> Probe {
        Probe { ready: false, walls: Vec::new(), remarks: Vec::new() }
    }

    async fn create(&self, _: Spec) -> Result<Arc<dyn Sandbox>, Error> {
        none()
    }

    async fn workspace_exists(&self, _: &Workspace) -> Result<bool, Error> {
        Ok(false)
    }

    async fn workspace_remove(&self, _: &Workspace) -> Result<(), Error> {
        Ok(())
    }

    async fn living(&self) -> Result<Vec<Living>, Error> {
        let told = |played: &Arc<Played>| Living {
            id: played.id,
            workspace: Some((played.tenant.clone(), played.session)),
            epoch: 1,
            walls: played.walls.clone(),
            age_ms: 7,
            is_held: true,
            is_paused: false,
            usage: Usage { memory_bytes: Some(1 << 20), processes: Some(2), memory_kills: 0 },
            limits: Some(Limits::default()),
            about: None,
            commands: Some(Vec::new()),
        };
        Ok(self.lives.lock().iter().map(told).collect())
    }

    async fn find(&self, id: Id<id::Sandbox>) -> Option<Arc<dyn Sandbox>> {
        let played = self.lives.lock().iter().find(|played| played.id == id).cloned()?;
        Some(played)
    }

    async fn end(&self, id: Id<id::Sandbox>, _: &str) -> Result<(), Error> {
        self.lives.lock().retain(|played| played.id != id);
        Ok(())
    }
}

#[async_trait]
impl Sandbox for Played {
    fn id(&self) -> Id<id::Sandbox> {
        self.id
    }

    fn walls(&self) -> &Walls {
        &self.walls
    }

    async fn start(&self, command: Command) -> Result<Box<dyn Process>, Error> {
        if command.argv == ["missing"] {
            return Err(Error::Command { detail: "`missing`: no such program".into() });
        }
        let (sender, given) = mpsc::channel(4);
        Ok(Box::new(Echo { argv: command.argv, greeted: false, sender: Some(sender), given }))
    }

    async fn dial(&self, port: Port) -> Result<Box<dyn Duplex>, Error> {
        let (near, far) = tokio::io::duplex(64 << 10);
        let raw = self.answers.lock().get(&port.number()).cloned();
        match (port.number(), raw) {
            (MIRROR, _) => drop(tokio::spawn(mirror(far))),
            (SOCKET, _) => drop(tokio::spawn(socket(far))),
            (_, Some(raw)) => drop(tokio::spawn(answer(far, raw))),
            (number, None) => return Err(Error::Port { port: number, detail: "nothing listens there".into() }),
        }
        Ok(Box::new(near))
    }

    async fn read(&self, _: &RelPath, _: u64, _: u64) -> Result<Bytes, Error> {
        none()
    }

    async fn stat(&self, _: &RelPath) -> Result<Stat, Error> {
        none()
    }

    async fn list(&self, _: &RelPath, _: usize) -> Result<Vec<(String, Stat)>, Error> {
        none()
    }

    async fn apply(&self, _: Vec<Change>) -> Result<(), Error> {
        none()
    }

    async fn changed(&self, _: usize) -> Result<Vec<(RelPath, Stat)>, Error> {
        none()
    }

    async fn export(&self, _: ArchiveLimits) -> Result<Box<dyn Export>, Error> {
        none()
    }

    async fn import(&self, _: Archive, _: ArchiveLimits) -> Result<Totals, Error> {
        none()
    }

    async fn close(&self) {}
}

/// Reads a request: its head, and its body as far as its length or its last chunk says.
async fn request(stream: &mut DuplexStream) -> Vec<u8> {
    let mut seen = Vec::new();
    let mut buffer = [0; 4_096];
    loop {
        let text = String::from_utf8_lossy(&seen).to_ascii_lowercase();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
            let chunked = head.contains("transfer-encoding: chunked");
            if (chunked && body.ends_with("0\r\n\r\n")) || (!chunked && body.len() >= length.unwrap_or(0)) {
                return seen;
            }
        }
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return seen,
            Ok(length) => seen.extend_from_slice(&buffer[..length]),
        }
    }
}

async fn mirror(mut stream: DuplexStream) {
    let seen = request(&mut stream).await;
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nset-cookie: console=evil\r\nservice-worker-allowed: /\r\n\
         clear-site-data: \"*\"\r\ncontent-length: {}\r\n\r\n",
        seen.len()
    );
    let _ = stream.write_all(head.as_bytes()).await;
    let _ = stream.write_all(&seen).await;
}

async fn answer(mut stream: DuplexStream, raw: Vec<u8>) {
    request(&mut stream).await;
    let _ = stream.write_all(&raw).await;
}

async fn socket(mut stream: DuplexStream) {
    let seen = String::from_utf8(request(&mut stream).await).unwrap_or_default();
    let key = seen.lines().find_map(|line| line.strip_prefix("sec-websocket-key: ")).unwrap_or_default();
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: of {key}\r\n\
         set-cookie: console=evil\r\n\r\n"
    );
    let _ = stream.write_all(head.as_bytes()).await;
    let (mut read, mut write) = tokio::io::split(stream);
    let _ = tokio::io::copy(&mut read, &mut write).await;
}

/// A command that says what it was asked to do, gives back its input, and ends with it; `signal N` is killed by one.
#[derive(Debug)]
struct Echo {
    argv: Vec<String>,
    greeted: bool,
    sender: Option<mpsc::Sender<Bytes>>,
    given: mpsc::Receiver<Bytes>,
}

#[derive(Debug)]
struct EchoInput(Option<mpsc::Sender<Bytes>>);

#[async_trait]
impl Input for EchoInput {
    async fn write(&mut self, bytes: Bytes) -> Result<(), Error> {
        match &self.0 {
            Some(sender) => sender.send(bytes).await.map_err(|_| Error::NoProcess),
            None => Err(Error::NoProcess),
        }
    }

    async fn close(&mut self) -> Result<(), Error> {
        self.0 = None;
        Ok(())
    }
}

#[async_trait]
impl Process for Echo {
    async fn next(&mut self) -> Result<Chunk, Error> {
        if !self.greeted {
            self.greeted = true;
            return Ok(Chunk::Output(Stream::Stderr, self.argv.join(" ").into()));
        }
        match self.given.recv().await {
            Some(bytes) => Ok(Chunk::Output(Stream::Stdout, bytes)),
            None => Ok(Chunk::Exit(match self.argv.as_slice() {
                [how, number] if how == "signal" => Exit::Signal(number.parse().unwrap_or(0)),
                [how, number] if how == "exit" => Exit::Code(number.parse().unwrap_or(0)),
                _ => Exit::Code(0),
            })),
        }
    }

    fn input(&mut self) -> Option<Box<dyn Input>> {
        Some(Box::new(EchoInput(self.sender.take())))
    }

    async fn write(&mut self, _: Bytes) -> Result<(), Error> {
        none()
    }

    async fn close_stdin(&mut self) -> Result<(), Error> {
        none()
    }

    async fn resize(&mut self, rows: u16, columns: u16) -> Result<(), Error> {
        self.argv.push(format!("{rows}x{columns}"));
        Ok(())
    }

    async fn kill(&mut self) -> Result<Exit, Error> {
        Ok(Exit::Signal(9))
    }
}
