//! Connections to ports on the sandbox's own loopback. PID 1 makes them itself: no process is forked for one, so that a sandbox
//! that may have no more processes can still be reached, and none of them waits.

use crate::command::{Command, Source};
use crate::output::Output;
use crate::serve::now_ms;
use rustix::io::Errno;
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, sockopt};
use sandbox::Port;
use sandbox::port::CONNECT_MS_MAX;
use sandbox::wire::{self, Kind};
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

/// A connection as PID 1 keeps it.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) socket: OwnedFd,
    /// While nothing has taken it.
    pub(crate) pending: Option<Pending>,
    /// Whether it ended by anything but the other side's end.
    pub(crate) is_reset: bool,
}

/// What is tried until something takes a connection.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) deadline_ms: u64,
    /// What is tried next.
    rest: VecDeque<SocketAddr>,
}

impl Connection {
    /// No more is written to it.
    pub(crate) fn end_writing(&self) {
        // One that is gone already is told by the next read.
        let _ = rustix::net::shutdown(&self.socket, Shutdown::Write);
    }
}

/// Begins a connection. `Err` says why there is none.
pub(crate) fn start(port: Port) -> Result<Command, String> {
    let loopbacks = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    let rest = loopbacks.map(|address| SocketAddr::new(address, port.number())).into();
    let pending = Pending { deadline_ms: now_ms().saturating_add(CONNECT_MS_MAX), rest };
    go_on(pending, Errno::CONNREFUSED)
}

/// Looks what came of a connection that was pending; `Err` says why there is none.
pub(crate) fn learn(connection: Connection) -> Result<Command, String> {
    let Connection { socket, pending, .. } = connection;
    match sockopt::socket_error(&socket) {
        Ok(Ok(())) => open(socket).map_err(said),
        Ok(Err(errno)) | Err(errno) => match pending {
            Some(pending) => go_on(pending, errno),
            None => Err(said(errno)),
        },
    }
}

/// Why a connection that nobody took in time is given up.
pub(crate) fn late() -> String {
    format!("nothing took the connection: connect_ms_max = {CONNECT_MS_MAX}")
}

fn said(errno: Errno) -> String {
    if errno == Errno::CONNREFUSED { "nothing listens there".to_owned() } else { errno.to_string() }
}

/// Tries one address after the other; what was said of the one before counts more than that there is no loopback of a kind.
fn go_on(mut pending: Pending, mut why: Errno) -> Result<Command, String> {
    while let Some(address) = pending.rest.pop_front() {
        match connect(address) {
            Ok((socket, true)) => return open(socket).map_err(said),
            Ok((socket, false)) => {
                let pending = Some(pending);
                return Ok(command(Connection { socket, pending, is_reset: false }, Vec::new(), None));
            }
            Err(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL | Errno::NETUNREACH) => {}
            Err(errno) => why = errno,
        }
    }
    Err(said(why))
}

/// Begins to connect; whether it is done.
fn connect(address: SocketAddr) -> Result<(OwnedFd, bool), Errno> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&socket, &address) {
        Ok(()) => Ok((socket, true)),
        Err(Errno::INPROGRESS) => Ok((socket, false)),
        Err(errno) => Err(errno),
    }
}

fn open(socket: OwnedFd) -> Result<Command, Errno> {
    // Small pieces are not to wait for acknowledgements.
    let _ = sockopt::set_tcp_nodelay(&socket, true);
    let copy = || rustix::io::fcntl_dupfd_cloexec(&socket, 3);
    let (source, input) = (Source::new(copy()?, Kind::Stdout), copy()?);
    Ok(command(Connection { socket, pending: None, is_reset: false }, vec![source], Some(input)))
}

fn command(connection: Connection, sources: Vec<Source>, input: Option<OwnedFd>) -> Command {
    Command {
        pid: None,
        connection: Some(connection),
        start_errors: None,
        sources,
        input,
        input_queue: VecDeque::new(),
        input_ended: false,
        input_own: 0,
        terminal: None,
        credit: wire::WINDOW_BYTES,
        exit: None,
        ended_ms: None,
        writes: false,
        export: None,
        name: None,
        output: Output::default(),
        is_attached: true,
        is_told: false,
        is_given_up: false,
    }
}
