//! The live processes of one session's sandbox: started by one call, read and written by later ones. A task per process
//! reads what it writes, so that it never blocks on an unread pipe; what is held of it is bounded.

use crate::bench::{Bench, Progress};
use crate::feed::{Fed, PIECE_BYTES_MAX, feed};
use crate::output::{Capture, WHOLE_BYTES_MAX};
use bytes::Bytes;
use domain::{Id, id};
use parking_lot::Mutex;
use sandbox::{Chunk, Exit, KeptCommand, Process, Sandbox, Stream};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use stdx::Random;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

/// Live processes of a session at most; a further one takes the place of the one that was idle longest.
pub const TERMINALS_MAX: usize = 64;
/// Of those, so many of the last used are never taken away.
const PROTECTED: usize = 8;
/// Output of one process kept at most while nobody waits for it.
const IDLE_BYTES_MAX: u64 = 256 * 1024;
/// Live output on its way to a watcher at most; older pieces are dropped first.
const LIVE_BYTES_MAX: usize = 64 * 1024;
const LIVE_PIECES_MAX: usize = 1_024;

/// The live processes of one session's sandbox. They survive turns and runs; closing the sandbox ends them, and so does
/// dropping this.
#[derive(Debug, Default)]
pub struct Terminals {
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    slots: HashMap<u32, Slot>,
    /// Counts uses, to know which slot was used last.
    uses: u64,
    /// What calls gave whose results are not on record yet.
    given: HashMap<Id<id::Call>, (Arc<Terminal>, u64)>,
}

#[derive(Debug)]
struct Slot {
    terminal: Arc<Terminal>,
    used: u64,
}

impl Held {
    fn make_room(&mut self) {
        while self.slots.len() >= TERMINALS_MAX {
            let mut order: Vec<(bool, u64, u32)> =
                self.slots.iter().map(|(id, slot)| (!slot.terminal.has_ended(), slot.used, *id)).collect();
            order.sort_by_key(|(_, used, _)| *used);
            order.truncate(order.len().saturating_sub(PROTECTED));
            let Some((_, _, id)) = order.into_iter().min() else { return };
            self.slots.remove(&id);
        }
    }
}

impl Terminals {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many are held, those that ended and were not asked for since included.
    pub fn count(&self) -> usize {
        self.held.lock().slots.len()
    }

    /// How many of them still run.
    pub fn running(&self) -> usize {
        self.held.lock().slots.values().filter(|slot| !slot.terminal.has_ended()).count()
    }

    /// Kills all and waits until their readers have ended.
    pub async fn close(&self) {
        let terminals: Vec<_> = {
            let Held { slots, given, .. } = &mut *self.held.lock();
            slots
                .drain()
                .map(|(_, slot)| slot.terminal)
                .chain(given.drain().map(|(_, (terminal, _))| terminal))
                .collect()
        };
        for terminal in terminals {
            terminal.reader.abort();
            let task = terminal.task.lock().take();
            if let Some(task) = task {
                // It was aborted, so the only news is that.
                let _ = task.await;
            }
        }
    }

    /// Makes sure that one more fits: those that ended go first, then the one idle longest.
    pub(crate) fn make_room(&self) {
        self.held.lock().make_room();
    }

    /// A number that no process has.
    pub(crate) fn free_number(&self, random: &Random) -> u32 {
        let held = self.held.lock();
        loop {
            let id = 1_000 + u32::try_from(random.below(99_000)).unwrap_or_default();
            if !held.slots.contains_key(&id) {
                return id;
            }
        }
    }

    /// Keeps a process that outlived its call, under a number the model can name.
    pub(crate) fn keep(&self, id: u32, terminal: Arc<Terminal>) {
        let mut held = self.held.lock();
        // Calls of one turn start at once; each found room before the others took it.
        held.make_room();
        held.uses += 1;
        let used = held.uses;
        held.slots.insert(id, Slot { terminal, used });
    }

    /// A call gave the output up to `position`. Until that is on record, the sandbox must not let go of it.
    pub(crate) fn gave(&self, call: Id<id::Call>, terminal: &Arc<Terminal>, position: u64) {
        self.held.lock().given.insert(call, (terminal.clone(), position));
    }

    /// What a call gave is on record: the sandbox need not keep it any longer.
    pub async fn recorded(&self, call: Id<id::Call>) {
        let given = self.held.lock().given.remove(&call);
        if let Some((terminal, position)) = given {
            terminal.taken(position).await;
        }
    }

    /// Holds the processes again that an earlier harness held in this sandbox, under the same numbers; those of the calls that
    /// are gone on with are left to them.
    ///
    /// # Errors
    /// The sandbox does not say what runs in it. A process that can't be had is left out.
    pub async fn restore(&self, sandbox: &dyn Sandbox, attached: &[Id<id::Call>]) -> Result<(), sandbox::Error> {
        for kept in sandbox.commands().await? {
            let Some((call, id)) = numbered(&kept.name).filter(|(call, _)| !attached.contains(call)) else { continue };
            match sandbox.attach(&kept.name, kept.from).await {
                Ok(process) => self.keep(id, Arc::new(Terminal::new(process, kept.terminal))),
                Err(error) => tracing::warn!(call_id = %call, %error, "a process can't be held again"),
            }
        }
        Ok(())
    }

    /// The process of this number.
    pub(crate) fn get(&self, id: u64) -> Option<Arc<Terminal>> {
        let mut held = self.held.lock();
        held.uses += 1;
        let used = held.uses;
        let slot = held.slots.get_mut(&u32::try_from(id).ok()?)?;
        slot.used = used;
        Some(Arc::clone(&slot.terminal))
    }

    /// Forgets a process whose end was told.
    pub(crate) fn forget(&self, id: u64) {
        if let Ok(id) = u32::try_from(id) {
            self.held.lock().slots.remove(&id);
        }
    }
}

/// The name under which the sandbox keeps the process of a call.
pub(crate) fn name_of(call: Id<id::Call>, id: u32) -> String {
    format!("{call}.{id}")
}

/// The call and the number of a process, by the name that the sandbox keeps it under; `None` for a name of others.
pub(crate) fn numbered(name: &str) -> Option<(Id<id::Call>, u32)> {
    let (call, id) = name.split_once('.')?;
    Some((call.parse().ok()?, id.parse().ok()?))
}

/// The calls whose processes a sandbox keeps.
pub fn calls_in(kept: &[KeptCommand]) -> Vec<Id<id::Call>> {
    kept.iter().filter_map(|kept| numbered(&kept.name)).map(|(call, _)| call).collect()
}

/// One live process. Dropping it kills the process.
#[derive(Debug)]
pub(crate) struct Terminal {
    shared: Arc<Shared>,
    input: mpsc::Sender<Input>,
    reader: Abort,
    task: Mutex<Option<JoinHandle<()>>>,
    /// One watcher at a time.
    turn: tokio::sync::Mutex<()>,
    /// Whether it has a terminal, and so takes input.
    pub(crate) tty: bool,
}

/// Ends the reader, which drops the process, which kills it.
#[derive(Debug)]
struct Abort(tokio::task::AbortHandle);

impl Abort {
    fn abort(&self) {
        self.0.abort();
    }
}

impl Drop for Abort {
    fn drop(&mut self) {
        self.abort();
    }
}

#[derive(Debug)]
enum Input {
    Write(Bytes, oneshot::Sender<Result<(), Unread>>),
    Taken(u64),
    Kill,
}

/// Why input did not arrive.
#[derive(Clone, Debug)]
pub(crate) enum Unread {
    /// The process does not read.
    Stuck,
    /// It ended.
    Ended,
    /// The sandbox said no.
    Sandbox(sandbox::Error),
}

/// How a process ended.
#[derive(Clone, Debug)]
pub(crate) enum End {
    Exit(Exit),
    Lost(sandbox::Error),
}

/// What a process gave while it was watched and before.
#[derive(Debug)]
pub(crate) struct Report {
    /// Standard output, then standard error.
    pub(crate) output: Vec<u8>,
    /// Bytes of output that came, kept or not.
    pub(crate) total_bytes: u64,
    /// Up to which position of its output this goes.
    pub(crate) position: u64,
    /// How it ended, if it did.
    pub(crate) end: Option<End>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    captures: Captures,
    /// The position up to which `captures` go.
    position: u64,
    live: VecDeque<Progress>,
    live_bytes: usize,
    watched: bool,
    end: Option<End>,
}

#[derive(Debug)]
struct Captures {
    stdout: Capture,
    stderr: Capture,
}

impl Captures {
    /// Three quarters are kept for standard output.
    fn new(bytes_max: u64) -> Self {
        Self { stdout: Capture::new(bytes_max / 4 * 3), stderr: Capture::new(bytes_max / 4) }
    }

    fn of(&mut self, stream: Stream) -> &mut Capture {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }
}

impl Terminal {
    /// Takes over a process that just started.
    pub(crate) fn new(process: Box<dyn Process>, tty: bool) -> Self {
        let state = State {
            captures: Captures::new(IDLE_BYTES_MAX),
            position: process.position(),
            live: VecDeque::new(),
            live_bytes: 0,
            watched: false,
            end: None,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Notify::new() });
        let (input, inputs) = mpsc::channel(1);
        let task = tokio::spawn(read(process, Arc::clone(&shared), inputs));
        let reader = Abort(task.abort_handle());
        Self { shared, input, reader, task: Mutex::new(Some(task)), turn: tokio::sync::Mutex::default(), tty }
    }

    fn has_ended(&self) -> bool {
        self.shared.state.lock().end.is_some()
    }

    /// Passes live output on until the process ends or `until` comes, and gives all that came since it was last watched.
    pub(crate) async fn watch(&self, bench: &dyn Bench, until: Instant) -> Report {
        let _turn = self.turn.lock().await;
        let mut before = {
            let mut state = self.shared.state.lock();
            state.watched = true;
            std::mem::replace(&mut state.captures, Captures::new(WHOLE_BYTES_MAX - IDLE_BYTES_MAX))
        };
        loop {
            let (live, ended) = {
                let mut state = self.shared.state.lock();
                state.live_bytes = 0;
                (std::mem::take(&mut state.live), state.end.is_some())
            };
            live.into_iter().for_each(|piece| bench.progress(piece));
            if ended || timeout_at(until, self.shared.changed.notified()).await.is_err() {
                break;
            }
        }
        let (mut since, position, end) = {
            let mut state = self.shared.state.lock();
            state.watched = false;
            let since = std::mem::replace(&mut state.captures, Captures::new(IDLE_BYTES_MAX));
            (since, state.position, state.end.clone())
        };
        let total_bytes = [&before.stdout, &before.stderr, &since.stdout, &since.stderr]
            .iter()
            .fold(0, |sum: u64, capture| sum.saturating_add(capture.total_bytes()));
        let mut output = before.stdout.take();
        append(&mut output, since.stdout.take());
        let mut errors = before.stderr.take();
        append(&mut errors, since.stderr.take());
        if !output.is_empty() && !errors.is_empty() && !output.ends_with(b"\n") {
            output.push(b'\n');
        }
        append(&mut output, errors);
        Report { output, total_bytes, position, end }
    }

    /// Writes to the process; gives up when it does not read.
    pub(crate) async fn write(&self, bytes: Bytes) -> Result<(), Unread> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let piece = rest.split_to(rest.len().min(PIECE_BYTES_MAX));
            let (done, written) = oneshot::channel();
            self.input.send(Input::Write(piece, done)).await.map_err(|_| Unread::Ended)?;
            written.await.map_err(|_| Unread::Ended)??;
        }
        Ok(())
    }

    /// Says that its output up to `position` is on record.
    async fn taken(&self, position: u64) {
        // A reader that is gone has let go of everything.
        let _ = self.input.send(Input::Taken(position)).await;
    }

    /// Asks for the end of the process; [`Terminal::watch`] tells of it.
    pub(crate) async fn kill(&self) {
        // A reader that is gone has nothing left to kill.
        let _ = self.input.send(Input::Kill).await;
    }
}

/// Moves without copying where there is nothing yet.
fn append(whole: &mut Vec<u8>, piece: Vec<u8>) {
    if whole.is_empty() {
        *whole = piece;
    } else {
        whole.extend_from_slice(&piece);
    }
}

impl Shared {
    fn push(&self, stream: Stream, bytes: Bytes) {
        let mut state = self.state.lock();
        state.captures.of(stream).push(&bytes);
        state.position += bytes.len() as u64;
        if state.watched {
            state.live_bytes += bytes.len();
            // A copy, so that a small piece does not keep a large buffer.
            state.live.push_back(Progress { stream, bytes: Bytes::copy_from_slice(&bytes) });
            while (state.live_bytes > LIVE_BYTES_MAX || state.live.len() > LIVE_PIECES_MAX) && state.live.len() > 1 {
                let oldest = state.live.pop_front().map_or(0, |piece| piece.bytes.len());
                state.live_bytes -= oldest;
            }
        }
        drop(state);
        self.changed.notify_one();
    }

    fn end(&self, end: End) {
        let mut state = self.state.lock();
        // The end counts as one.
        state.position += u64::from(matches!(end, End::Exit(_)));
        state.end = Some(end);
        drop(state);
        self.changed.notify_one();
    }
}

/// Owns the process: reads its output and writes its input until it ends. The handle is held beyond that, for what is not on
/// record yet, until this is ended.
async fn read(mut process: Box<dyn Process>, shared: Arc<Shared>, mut inputs: mpsc::Receiver<Input>) {
    let mut take = |chunk| match chunk {
        Chunk::Output(stream, bytes) => shared.push(stream, bytes),
        Chunk::Exit(exit) => shared.end(End::Exit(exit)),
    };
    while shared.state.lock().end.is_none() {
        tokio::select! {
            // What somebody wants of it comes before what it says.
            biased;
            Some(input) = inputs.recv() => match input {
                Input::Write(bytes, done) => {
                    // Who no longer waits for the answer does not need it.
                    let _ = done.send(match feed(&mut *process, bytes, &mut take).await {
                        Ok(Fed::Written) => Ok(()),
                        Ok(Fed::Ended) => Err(Unread::Ended),
                        Ok(Fed::Stuck) => Err(Unread::Stuck),
                        Err(error) => Err(Unread::Sandbox(error)),
                    });
                }
                Input::Taken(position) => take_away(&mut *process, position).await,
                Input::Kill => shared.end(match process.kill().await {
                    Ok(exit) => End::Exit(exit),
                    Err(error) => End::Lost(error),
                }),
            },
            chunk = process.next() => match chunk {
                Ok(chunk) => take(chunk),
                Err(error) => shared.end(End::Lost(error)),
            },
        }
    }
    while let Some(input) = inputs.recv().await {
        match input {
            Input::Write(_, done) => _ = done.send(Err(Unread::Ended)),
            Input::Taken(position) => take_away(&mut *process, position).await,
            Input::Kill => {}
        }
    }
}

/// Lets go of output that is on record.
async fn take_away(process: &mut dyn Process, position: u64) {
    if let Err(error) = process.taken(position).await {
        // It is kept longer than it need be, and goes with the sandbox.
        tracing::debug!(%error, position, "output that is on record is still kept");
    }
}
