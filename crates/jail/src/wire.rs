//! The harness's end of a guest's stream: frames out through one bounded queue, frames in to the command they name. Whatever
//! the guest sends beyond its credit or the wire's rules ends the stream; nothing it sends is believed further than that.

use bytes::{Buf as _, Bytes, BytesMut};
use rustix::net::Shutdown;
use sandbox::port::CONNECTIONS_MAX;
use sandbox::wire::{self, FRAME_COST_BYTES, HEAD_BYTES, Head, Kind, Refusal, Roll, WINDOW_BYTES};
use sandbox::{Error, Exit, Stream};
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::timeout;

/// Frames waiting to be written.
const OUTGOING_FRAMES_MAX: usize = 256;
/// Events that may wait for one command: a full window of the smallest frames, and its start and end.
const EVENTS_MAX: usize = WINDOW_BYTES / FRAME_COST_BYTES + 4;

/// How long a guest that was given this stream may take to greet.
const GREETING_WAIT_MAX: Duration = Duration::from_secs(30);

/// What is said of a sandbox that was closed in the course of things.
pub(crate) const CLOSED: &str = "closed";
/// What is known when the guest's end closes by itself.
pub(crate) const ENDED: &str = "its first process ended";

/// A frame to write.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: Kind,
    pub(crate) command: u32,
    pub(crate) payload: Bytes,
}

/// What happened to a command.
#[derive(Debug)]
pub(crate) enum Event {
    Started,
    Refused(Refusal),
    Output(Stream, Bytes),
    Exit(Exit),
}

/// What reader and command share.
#[derive(Debug)]
pub(crate) struct Account {
    /// Cost of the output that was received and not yet credited back.
    pub(crate) received: AtomicUsize,
    /// Credit for input.
    pub(crate) input: Semaphore,
}

#[derive(Debug)]
struct Entry {
    events: mpsc::Sender<Event>,
    account: Arc<Account>,
}

#[derive(Debug, Default)]
struct Commands {
    entries: HashMap<u32, Entry>,
    /// Why the stream ended.
    gone: Option<Error>,
    /// Who waits for the guest's greeting.
    greeting: Option<oneshot::Sender<Roll>>,
}

/// A guest's stream.
#[derive(Debug)]
pub(crate) struct Wire {
    outgoing: mpsc::Sender<Frame>,
    commands: Arc<Mutex<Commands>>,
    next: AtomicU32,
    tasks: [AbortHandle; 2],
    socket: OwnedFd,
    greeting: Mutex<Option<oneshot::Receiver<Roll>>>,
    /// Places for connections to ports inside.
    pub(crate) connections: Arc<Semaphore>,
}

/// A command's place on the wire.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) id: u32,
    pub(crate) events: mpsc::Receiver<Event>,
    pub(crate) account: Arc<Account>,
    /// Kept free for its kill, so that dropping never waits.
    pub(crate) kill: Option<mpsc::OwnedPermit<Frame>>,
}

fn hold(commands: &Mutex<Commands>) -> MutexGuard<'_, Commands> {
    // No code panics while it holds this lock, and the map is whole at every moment.
    commands.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Wire {
    /// Takes over the stream of a guest that is ready.
    pub(crate) fn new(stream: OwnedFd, commands_max: usize) -> Result<Self, Error> {
        Self::over(stream, commands_max).map_err(|error| Error::Start { stage: "ready", detail: error.to_string() })
    }

    fn over(stream: OwnedFd, commands_max: usize) -> std::io::Result<Self> {
        let socket = stream.try_clone()?;
        let stream = std::os::unix::net::UnixStream::from(stream);
        stream.set_nonblocking(true)?;
        let (read, write) = UnixStream::from_std(stream)?.into_split();
        // Room for every command's and every connection's kill, kept aside, on top of what is under way.
        let (outgoing, queue) = mpsc::channel(OUTGOING_FRAMES_MAX + commands_max + CONNECTIONS_MAX);
        let (greeted, greeting) = oneshot::channel();
        let commands = Commands { greeting: Some(greeted), ..Commands::default() };
        let commands = Arc::new(Mutex::new(commands));
        let reader = tokio::spawn(receive(read, Arc::clone(&commands))).abort_handle();
        let writer = tokio::spawn(transmit(write, queue)).abort_handle();
        let greeting = Mutex::new(Some(greeting));
        let (next, connections) = (AtomicU32::new(1), Arc::new(Semaphore::new(CONNECTIONS_MAX)));
        Ok(Self { outgoing, commands, next, tasks: [reader, writer], socket, greeting, connections })
    }

    /// Waits for the greeting of a guest that lived before this stream, and numbers new commands after its own.
    pub(crate) async fn greeted(&self) -> Result<(), Error> {
        let greeting = self.greeting.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(greeting) = greeting else { return Ok(()) };
        match timeout(GREETING_WAIT_MAX, greeting).await {
            Ok(Ok(roll)) => {
                self.next.fetch_max(roll.next_command, Ordering::Relaxed);
                Ok(())
            }
            Ok(Err(_)) => Err(self.gone()),
            Err(_) => {
                let detail = format!("no greeting for {} s", GREETING_WAIT_MAX.as_secs());
                Err(Error::Protocol { detail })
            }
        }
    }

    /// Opens a line for a new command.
    pub(crate) async fn open(&self) -> Result<Line, Error> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.line(id, WINDOW_BYTES).await
    }

    /// Opens a line to a command that the guest has already; it says what input it takes. [`Error::NoProcess`]: somebody has
    /// a line to it.
    pub(crate) async fn reopen(&self, id: u32) -> Result<Line, Error> {
        self.line(id, 0).await
    }

    async fn line(&self, id: u32, input: usize) -> Result<Line, Error> {
        let kill = self.outgoing.clone().reserve_owned().await.map_err(|_| self.gone())?;
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let account = Arc::new(Account { received: AtomicUsize::new(0), input: Semaphore::new(input) });
        let mut commands = hold(&self.commands);
        if let Some(gone) = &commands.gone {
            return Err(gone.clone());
        }
        if commands.entries.contains_key(&id) {
            return Err(Error::NoProcess);
        }
        commands.entries.insert(id, Entry { events: sender, account: Arc::clone(&account) });
        Ok(Line { id, events, account, kill: Some(kill) })
    }

    /// Forgets a command that was never sent.
    pub(crate) fn forget(&self, id: u32) {
        hold(&self.commands).entries.remove(&id);
    }

    /// Waits for a place in the queue; what is then sent is never lost to a cancelled future.
    pub(crate) async fn place(&self) -> Result<mpsc::Permit<'_, Frame>, Error> {
        self.outgoing.reserve().await.map_err(|_| self.gone())
    }

    /// Whether the stream is there.
    pub(crate) fn check(&self) -> Result<(), Error> {
        hold(&self.commands).gone.clone().map_or(Ok(()), Err)
    }

    /// Why the stream ended.
    pub(crate) fn gone(&self) -> Error {
        hold(&self.commands).gone.clone().unwrap_or_else(|| Error::Gone { detail: CLOSED.to_owned() })
    }

    /// Ends the stream: the guest sees its end and stops. Whoever uses it is told why.
    pub(crate) fn end(&self, why: &str) {
        // First why: who reads the stream would find only that it has ended.
        finish(&self.commands, Error::Gone { detail: why.to_owned() });
        for task in &self.tasks {
            task.abort();
        }
        let _ = rustix::net::shutdown(&self.socket, Shutdown::Both);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.end(CLOSED);
    }
}

async fn transmit(mut write: OwnedWriteHalf, mut queue: mpsc::Receiver<Frame>) {
    while let Some(frame) = queue.recv().await {
        let head = Head { length: frame.payload.len(), kind: frame.kind, command: frame.command }.to_bytes();
        let mut bytes = Vec::with_capacity(HEAD_BYTES + frame.payload.len());
        bytes.extend_from_slice(&head);
        bytes.extend_from_slice(&frame.payload);
        if write.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

/// What is read from the stream at once.
const READ_BYTES: usize = 256 << 10;
/// What is shorter is copied, so that little of it keeps no large buffer.
const COPIED_BYTES_MAX: usize = 4 << 10;

async fn receive(mut read: OwnedReadHalf, commands: Arc<Mutex<Commands>>) {
    let mut buffer = BytesMut::with_capacity(READ_BYTES);
    let why = loop {
        match frames(&mut buffer, &commands) {
            Ok(()) => {}
            Err(detail) => break Error::Protocol { detail: detail.to_owned() },
        }
        // A frame that has begun is at most as long as what is read at once.
        buffer.reserve(READ_BYTES);
        match read.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => break Error::Gone { detail: ENDED.to_owned() },
            Ok(_) => {}
        }
    };
    finish(&commands, why);
}

/// Hands on every frame that is there whole.
fn frames(buffer: &mut BytesMut, commands: &Mutex<Commands>) -> Result<(), &'static str> {
    while let Some((head, _)) = buffer.split_first_chunk::<HEAD_BYTES>() {
        let head = Head::from_bytes(*head)?;
        if buffer.len() < HEAD_BYTES + head.length {
            return Ok(());
        }
        buffer.advance(HEAD_BYTES);
        let payload = if head.length <= COPIED_BYTES_MAX {
            let payload = Bytes::copy_from_slice(&buffer[..head.length]);
            buffer.advance(head.length);
            payload
        } else {
            buffer.split_to(head.length).freeze()
        };
        dispatch(&mut hold(commands), head, payload)?;
    }
    Ok(())
}

/// Every command learns that there is nothing more.
fn finish(commands: &Mutex<Commands>, why: Error) {
    let mut commands = hold(commands);
    commands.gone.get_or_insert(why);
    commands.greeting = None;
    for (_, entry) in commands.entries.drain() {
        entry.account.input.close();
    }
}

fn dispatch(commands: &mut Commands, head: Head, payload: Bytes) -> Result<(), &'static str> {
    if head.kind == Kind::Ready {
        let roll = wire::ready_from(&payload)?;
        let greeting = commands.greeting.take().ok_or("a second greeting")?;
        // A guest that was made for this stream has nothing to tell; nobody waits for it then.
        let _ = greeting.send(roll);
        return Ok(());
    }
    let entry = commands.entries.get(&head.command).ok_or("a frame for a command that does not exist")?;
    let event = match head.kind {
        Kind::Started => Event::Started,
        Kind::Refused => {
            let refusal: Refusal = serde_json::from_slice(&payload).map_err(|_| "a refusal that is no JSON")?;
            Event::Refused(refusal)
        }
        Kind::Stdout | Kind::Stderr => {
            let cost = wire::cost(payload.len());
            if entry.account.received.fetch_add(cost, Ordering::AcqRel) + cost > WINDOW_BYTES {
                return Err("output beyond its credit");
            }
            let stream = if head.kind == Kind::Stdout { Stream::Stdout } else { Stream::Stderr };
            Event::Output(stream, payload)
        }
        Kind::Exit => Event::Exit(wire::exit_from(&payload).ok_or("an exit that is none")?),
        Kind::InputCredit => {
            let credit = wire::number(&payload).ok_or("credit that is no number")? as usize;
            if entry.account.input.available_permits().saturating_add(credit) > WINDOW_BYTES {
                return Err("more credit than a window");
            }
            entry.account.input.add_permits(credit);
            return Ok(());
        }
        _ => return Err("a frame that only the harness sends"),
    };
    let last = matches!(event, Event::Refused(_) | Event::Exit(_));
    if last {
        entry.account.input.close();
    }
    match entry.events.try_send(event) {
        // A command whose handle was dropped: it was killed, its end is still awaited here.
        Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => {}
        Err(mpsc::error::TrySendError::Full(_)) => return Err("more events than a window holds"),
    }
    if last {
        commands.entries.remove(&head.command);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commands() -> (Commands, mpsc::Receiver<Event>) {
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let account = Arc::new(Account { received: AtomicUsize::new(0), input: Semaphore::new(WINDOW_BYTES) });
        let mut commands = Commands::default();
        commands.entries.insert(1, Entry { events: sender, account });
        (commands, events)
    }

    /// What is said to frames of one guest, the last one's verdict.
    fn check(frames: &[(Kind, u32, &[u8])], expected: Result<(), &str>) {
        let (mut commands, _events) = commands();
        let said = frames.iter().map(|(kind, command, payload)| {
            let head = Head { length: payload.len(), kind: *kind, command: *command };
            dispatch(&mut commands, head, Bytes::copy_from_slice(payload))
        });
        assert_eq!(said.last().unwrap(), expected);
    }

    #[test]
    fn a_hostile_guest_gets_no_further_than_its_credit() {
        let full = vec![0; wire::DATA_BYTES_MAX];
        let frames = WINDOW_BYTES / wire::DATA_BYTES_MAX;
        let window: Vec<_> = (1..frames).map(|_| (Kind::Stdout, 1, full.as_slice())).collect();
        check(&window, Ok(()));
        let beyond: Vec<_> = (0..frames).map(|_| (Kind::Stdout, 1, full.as_slice())).collect();
        check(&beyond, Err("output beyond its credit"));
        let dust: Vec<_> = (0..WINDOW_BYTES / FRAME_COST_BYTES).map(|_| (Kind::Stderr, 1, b"x".as_slice())).collect();
        check(&dust, Err("output beyond its credit"));
        check(&[(Kind::InputCredit, 1, &1_u32.to_le_bytes())], Err("more credit than a window"));
        check(&[(Kind::InputCredit, 1, &u32::MAX.to_le_bytes())], Err("more credit than a window"));
    }

    #[test]
    fn a_hostile_guest_breaks_no_rule_unseen() {
        check(&[(Kind::Stdout, 2, b"x")], Err("a frame for a command that does not exist"));
        check(&[(Kind::Exit, 1, &[0; 5]), (Kind::Stdout, 1, b"x")], Err("a frame for a command that does not exist"));
        check(&[(Kind::Exit, 1, b"")], Err("an exit that is none"));
        check(&[(Kind::Refused, 1, b"{")], Err("a refusal that is no JSON"));
        check(&[(Kind::Start, 1, b"{}")], Err("a frame that only the harness sends"));
        check(&[(Kind::InputCredit, 1, b"1")], Err("credit that is no number"));
        check(&[(Kind::Ready, 0, &9_u32.to_le_bytes())], Err("another version of the wire"));
        let flood: Vec<_> = (0..=EVENTS_MAX).map(|_| (Kind::Started, 1, b"".as_slice())).collect();
        check(&flood, Err("more events than a window holds"));
    }
}
