//! Connections to ports inside, as the harness holds them: one command of the guest's wire each, shown as a stream of bytes. No
//! socket outside leads to a sandbox.

use crate::live::{Live, Running};
use crate::wire::{Account, Frame, Wire};
use async_trait::async_trait;
use bytes::Bytes;
use sandbox::port::{CONNECTIONS_MAX, Duplex, IDLE_MS_MAX, Port};
use sandbox::wire::{self, Kind, Work};
use sandbox::{Chunk, Error, Exit, Process as _};
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Bytes that may wait on this side for whoever reads, and as many for the wire.
const WAITING_BYTES_MAX: usize = 64 << 10;

/// Connects to a port inside.
pub(crate) async fn dial(live: &Live, port: Port) -> Result<Box<dyn Duplex>, Error> {
    let place = Arc::clone(&live.wire.connections).try_acquire_owned();
    let place = place.map_err(|_| Error::Limit { limit: format!("connections_max = {CONNECTIONS_MAX}") })?;
    let pass = live.gate.pass().await?;
    let asked = live.run(live.epoch.load(Ordering::Acquire), Work::Dial { port }).await;
    drop(pass);
    let running = asked.map_err(|error| match error {
        Error::Command { detail } => Error::Port { port: port.number(), detail },
        error => error,
    })?;
    let (stream, far) = tokio::io::duplex(WAITING_BYTES_MAX);
    let cut = Arc::new(OnceLock::new());
    let told = Arc::clone(&cut);
    let task = tokio::spawn(async move {
        if let Err(why) = carry(running, far, &told).await {
            // Only the first reason counts; the reader is told of it at the end.
            let _ = told.set(why);
        }
        drop(place);
    });
    Ok(Box::new(Connection { stream, cut, task }))
}

/// A connection. Dropping it closes the one inside.
#[derive(Debug)]
struct Connection {
    stream: DuplexStream,
    /// Why it ended, when that was not the other side's end.
    cut: Arc<OnceLock<String>>,
    task: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Carries bytes both ways until the program inside has sent its last; `Err`: why it did not come so far.
async fn carry(mut running: Running, far: DuplexStream, cut: &OnceLock<String>) -> Result<(), String> {
    let (mut read, mut write) = tokio::io::split(far);
    let (wire, account, id) = running.channel();
    let clock = Idle::new();
    let inward = async {
        loop {
            let mut piece = bytes::BytesMut::with_capacity(wire::DATA_BYTES_MAX);
            match read.read_buf(&mut piece).await {
                Ok(0) | Err(_) => break,
                Ok(_) => clock.moved(),
            }
            // Whoever does not take it any more has ended, which is told below.
            if send(&wire, &account, id, piece.freeze()).await.is_err() {
                break;
            }
        }
        if let Ok(place) = wire.place().await {
            place.send(Frame { kind: Kind::InputEnd, command: id, payload: Bytes::new() });
        }
        std::future::pending::<()>().await;
    };
    let outward = async {
        loop {
            match running.next().await.map_err(|error| error.to_string())? {
                Chunk::Output(_, bytes) => {
                    clock.moved();
                    if write.write_all(&bytes).await.is_err() {
                        return Ok(());
                    }
                }
                Chunk::Exit(Exit::Code(0)) => return Ok(()),
                Chunk::Exit(_) => return Err("the program inside broke it off".to_owned()),
            }
        }
    };
    let ended = tokio::select! {
        () = inward => Ok(()),
        ended = outward => ended,
        () = clock.passed() => Err(format!("nothing moved: idle_ms_max = {IDLE_MS_MAX}")),
    };
    if let Err(why) = &ended {
        // Before the reader sees the end.
        let _ = cut.set(why.clone());
    }
    ended
}

/// A command's input, beside whoever reads its output.
#[derive(Debug)]
pub(crate) struct Input {
    pub(crate) wire: Arc<Wire>,
    pub(crate) account: Arc<Account>,
    pub(crate) id: u32,
}

#[async_trait]
impl sandbox::Input for Input {
    async fn write(&mut self, bytes: Bytes) -> Result<(), Error> {
        send(&self.wire, &self.account, self.id, bytes).await
    }

    async fn close(&mut self) -> Result<(), Error> {
        let place = self.wire.place().await?;
        place.send(Frame { kind: Kind::InputEnd, command: self.id, payload: Bytes::new() });
        Ok(())
    }
}

/// Gives the guest input for a command, waiting for its credit.
pub(crate) async fn send(wire: &Wire, account: &Account, id: u32, bytes: Bytes) -> Result<(), Error> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let part = rest.split_to(rest.len().min(wire::DATA_BYTES_MAX));
        let cost = u32::try_from(wire::cost(part.len())).unwrap_or(u32::MAX);
        let credit = account.input.acquire_many(cost).await.map_err(|_| Error::NoProcess)?;
        let place = wire.place().await?;
        credit.forget();
        place.send(Frame { kind: Kind::Input, command: id, payload: part });
    }
    Ok(())
}

/// When something moved last.
struct Idle {
    since: Instant,
    moved_ms: AtomicU64,
}

impl Idle {
    fn new() -> Self {
        Self { since: Instant::now(), moved_ms: AtomicU64::new(0) }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn moved(&self) {
        self.moved_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    /// Waits until nothing has moved for too long.
    async fn passed(&self) {
        loop {
            let ends_ms = self.moved_ms.load(Ordering::Relaxed).saturating_add(IDLE_MS_MAX);
            if self.now_ms() >= ends_ms {
                return;
            }
            tokio::time::sleep_until(self.since + Duration::from_millis(ends_ms)).await;
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, into);
        match (&read, self.cut.get()) {
            // A stream that was cut is not one that came to its end.
            (Poll::Ready(Ok(())), Some(why)) if into.filled().len() == before && into.remaining() > 0 => {
                Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionReset, why.clone())))
            }
            _ => read,
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
