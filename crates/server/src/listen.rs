//! Where connections come from: a TCP socket, or streams within this process.

use std::io;
use std::net::SocketAddr;
use tokio::io::DuplexStream;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// Connections within the process that wait to be taken.
const MEMORY_WAITING_MAX: usize = 64;
/// Bytes that one side of such a connection may be ahead by.
const MEMORY_BYTES_MAX: usize = 64 << 10;

/// What the service listens on.
#[derive(Debug)]
pub enum Listener {
    /// A socket.
    Tcp(TcpListener),
    /// Streams within this process; made by [`memory`].
    Memory(MemoryListener),
}

/// The near end of [`memory`].
#[derive(Debug)]
pub struct MemoryListener(mpsc::Receiver<DuplexStream>);

/// Opens streams to a service in this process. Whoever holds it is principal `local`.
#[derive(Clone, Debug)]
pub struct MemoryConnector(mpsc::Sender<DuplexStream>);

impl MemoryConnector {
    /// Opens a stream.
    ///
    /// # Errors
    /// When the service has ended.
    pub async fn connect(&self) -> io::Result<DuplexStream> {
        let (near, far) = tokio::io::duplex(MEMORY_BYTES_MAX);
        match self.0.send(far).await {
            Ok(()) => Ok(near),
            Err(_) => Err(io::Error::new(io::ErrorKind::ConnectionRefused, "the service has ended")),
        }
    }
}

/// A listener that only this process can reach.
pub fn memory() -> (MemoryConnector, Listener) {
    let (sender, receiver) = mpsc::channel(MEMORY_WAITING_MAX);
    (MemoryConnector(sender), Listener::Memory(MemoryListener(receiver)))
}

/// How a request came in; what is asked of it depends on that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// From this process.
    Memory,
    /// Through a loopback address.
    Loopback,
    /// Through an address that others can reach.
    Public,
}

/// A connection.
#[derive(Debug)]
pub(crate) enum Connection {
    Tcp(TcpStream),
    Memory(DuplexStream),
}

impl Listener {
    /// The address, when there is one.
    pub(crate) fn address(&self) -> io::Result<Option<SocketAddr>> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(Some),
            Self::Memory(_) => Ok(None),
        }
    }

    /// The next connection; `None` once nobody can connect any more.
    pub(crate) async fn accept(&mut self) -> Option<io::Result<Connection>> {
        match self {
            Self::Tcp(listener) => Some(listener.accept().await.map(|(stream, _)| Connection::Tcp(stream))),
            Self::Memory(MemoryListener(receiver)) => {
                receiver.recv().await.map(|stream| Ok(Connection::Memory(stream)))
            }
        }
    }
}

impl Entry {
    pub(crate) fn of(address: Option<SocketAddr>) -> Self {
        match address {
            None => Self::Memory,
            Some(address) if address.ip().to_canonical().is_loopback() => Self::Loopback,
            Some(_) => Self::Public,
        }
    }
}
