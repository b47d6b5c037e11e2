//! Servers and resolvers for the tests.

use async_trait::async_trait;
use axum::Router;
use axum::serve::ListenerExt;
use net::{Client, Lookup, Method, Network, Origin, Request, Settings, Url};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Serves `app`; gives its address and the number of connections it has taken.
pub(crate) async fn serve(app: Router) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let taken = Arc::new(AtomicUsize::new(0));
    let count = taken.clone();
    let listener = listener.tap_io(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
    });
    tokio::spawn(async move { axum::serve(listener, app).await });
    (address, taken)
}

/// Takes connections, reads one head from each, and lets `answer` do the rest.
pub(crate) async fn raw<F, R>(answer: F) -> SocketAddr
where
    F: Fn(TcpStream, String) -> R + Send + Sync + 'static,
    R: Future<Output = io::Result<()>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let head = head(&mut stream).await?;
                answer(stream, head).await
            });
        }
    });
    address
}

/// Reads up to the empty line after the headers.
pub(crate) async fn head<S: AsyncReadExt + Unpin>(stream: &mut S) -> io::Result<String> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        bytes.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8(bytes).unwrap())
}

/// Writes an answer with this body and closes.
pub(crate) async fn answer<S: AsyncWriteExt + Unpin>(stream: &mut S, body: &str) -> io::Result<()> {
    let text = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await
}

/// A resolver that knows what it is told: the answers to one name in order, the last one again and again.
#[derive(Debug, Default)]
pub(crate) struct Names {
    answers: Mutex<HashMap<String, VecDeque<Vec<IpAddr>>>>,
    pub(crate) asked: AtomicUsize,
}

impl Names {
    pub(crate) fn of(rows: &[(&str, &[&str])]) -> Arc<Self> {
        let names = Self::default();
        for (name, addresses) in rows {
            let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
            names.answers.lock().unwrap().entry((*name).to_owned()).or_default().push_back(addresses);
        }
        Arc::new(names)
    }
}

#[async_trait]
impl Lookup for Names {
    async fn lookup(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let mut answers = self.answers.lock().unwrap();
        let answers = answers.get_mut(name).ok_or_else(|| io::Error::other("no such name"))?;
        Ok(if answers.len() > 1 { answers.pop_front().unwrap() } else { answers[0].clone() })
    }
}

/// A client for which untrusted hosts may lead to this machine.
pub(crate) fn lenient(names: Arc<Names>) -> Client {
    Client::with_lookup(Settings { untrusted_networks_allowed: vec![loopback()], ..Settings::default() }, names)
        .unwrap()
}

pub(crate) fn loopback() -> Network {
    "127.0.0.0/8".parse().unwrap()
}

pub(crate) fn get(url: &str, origin: Origin) -> Request {
    Request::new(Method::GET, Url::parse(url).unwrap(), origin)
}

/// The body of the answer, or the code of the error.
pub(crate) async fn outcome(client: &Client, request: Request) -> String {
    let response = match client.send(request).await {
        Ok(response) => response,
        Err(error) => return error.code().to_owned(),
    };
    match response.bytes().await {
        Ok(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
        Err(error) => error.code().to_owned(),
    }
}
