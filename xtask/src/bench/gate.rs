//! A service on loopback that keeps every request waiting until it is opened: what a tool that takes its time looks like.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use anyhow::Result;

/// The stack of a thread that only waits.
const STACK_BYTES: usize = 64 * 1024;

/// The service; its threads end with the process that asks.
#[derive(Clone, Debug)]
pub(super) struct Gate {
    pub(super) port: u16,
    state: Arc<(Mutex<State>, Condvar)>,
}

#[derive(Debug, Default)]
struct State {
    is_open: bool,
    waiting: usize,
}

impl Gate {
    /// A gate that is closed.
    pub(super) fn new() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let gate = Self { port: listener.local_addr()?.port(), state: Arc::default() };
        let shared = gate.clone();
        std::thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                let shared = shared.clone();
                let waiter = std::thread::Builder::new().stack_size(STACK_BYTES);
                // Without a thread the request fails, and whoever asked says so.
                drop(waiter.spawn(move || shared.pass(connection)));
            }
        });
        Ok(gate)
    }

    /// Lets everybody pass, now and later.
    pub(super) fn open(&self) {
        self.state.0.lock().unwrap_or_else(PoisonError::into_inner).is_open = true;
        self.state.1.notify_all();
    }

    /// Waits until so many wait.
    pub(super) fn wait_for(&self, waiting: usize) {
        let state = self.state.0.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.state.1.wait_while(state, |state| state.waiting < waiting));
    }

    fn pass(&self, mut connection: TcpStream) {
        let mut request = [0; 4096];
        if connection.read(&mut request).is_err() {
            return;
        }
        let mut state = self.state.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.waiting += 1;
        self.state.1.notify_all();
        drop(self.state.1.wait_while(state, |state| !state.is_open));
        // Whoever asked may have died meanwhile.
        let _ = connection.write_all(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 4\r\nconnection: close\r\n\r\ndone",
        );
    }
}
