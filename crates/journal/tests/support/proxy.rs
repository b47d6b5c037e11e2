//! A way to the server that can be cut: right after a request was sent, or after its answer came and before it was handed on.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What happens to what passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Fate {
    /// It passes.
    Pass = 0,
    /// The next request reaches the server; its answer is swallowed and both ends are cut. Then all passes again.
    SwallowAnswer = 1,
    /// The next request is swallowed and both ends are cut. Then all passes again.
    SwallowRequest = 2,
    /// Nothing passes, and nobody gets in.
    Closed = 3,
}

/// The way.
#[derive(Clone, Debug)]
pub(crate) struct Proxy {
    pub(crate) port: u16,
    fate: Arc<AtomicU8>,
}

impl Proxy {
    /// To the server at `port`.
    pub(crate) async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Self { port: listener.local_addr().unwrap().port(), fate: Arc::default() };
        let fate = proxy.fate.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if is(&fate, Fate::Closed) {
                    continue;
                }
                tokio::spawn(pass(client, port, fate.clone()));
            }
        });
        proxy
    }

    /// Decides what happens next.
    pub(crate) fn set(&self, fate: Fate) {
        self.fate.store(fate as u8, Ordering::SeqCst);
    }

    /// Whether what was decided has happened.
    pub(crate) fn passes(&self) -> bool {
        is(&self.fate, Fate::Pass)
    }
}

fn is(fate: &AtomicU8, wanted: Fate) -> bool {
    fate.load(Ordering::SeqCst) == wanted as u8
}

fn take(fate: &AtomicU8, wanted: Fate) -> bool {
    fate.compare_exchange(wanted as u8, Fate::Pass as u8, Ordering::SeqCst, Ordering::SeqCst).is_ok()
}

#[expect(clippy::disallowed_methods, reason = "the test's own way to its server on loopback")]
async fn pass(mut client: TcpStream, port: u16, fate: Arc<AtomicU8>) {
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    let (mut request, mut answer) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        tokio::select! {
            read = client.read(&mut request) => {
                let Ok(bytes @ 1..) = read else { return };
                if is(&fate, Fate::Closed) || take(&fate, Fate::SwallowRequest) {
                    return;
                }
                if server.write_all(&request[..bytes]).await.is_err() {
                    return;
                }
                if is(&fate, Fate::SwallowAnswer) {
                    // It has done what it was asked once it answers.
                    let _ = server.read(&mut answer).await;
                    take(&fate, Fate::SwallowAnswer);
                    return;
                }
            }
            read = server.read(&mut answer) => {
                let Ok(bytes @ 1..) = read else { return };
                if is(&fate, Fate::Closed) || client.write_all(&answer[..bytes]).await.is_err() {
                    return;
                }
            }
        }
    }
}
