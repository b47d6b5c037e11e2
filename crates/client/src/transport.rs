//! How bytes reach the service: over the network through `net`, or over a stream within this process.

use crate::Error;
use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use http::{HeaderMap, Method, header};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Bytes of an answer that is no stream at most; artifacts included.
pub(crate) const ANSWER_BYTES_MAX: usize = 256 << 20;

pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

type Connect = dyn Fn() -> BoxFuture<'static, io::Result<Box<dyn Stream>>> + Send + Sync;

/// The way to the service.
#[derive(Clone)]
pub(crate) enum Transport {
    Memory(Arc<Connect>),
    Http {
        /// Without a slash at its end.
        base: String,
        net: net::Client,
    },
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory(_) => f.write_str("Memory"),
            Self::Http { base, .. } => write!(f, "Http({base})"),
        }
    }
}

/// A request.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) method: Method,
    /// With the query.
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// Until the answer begins.
    pub(crate) first_byte_ms: u64,
    /// Between two pieces of the answer.
    pub(crate) idle_ms: u64,
    /// Whether the answer may go on without end.
    pub(crate) endless: bool,
}

/// An answer whose body is still to be read.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Body,
}

/// The rest of an answer.
#[derive(Debug)]
pub(crate) enum Body {
    Memory {
        incoming: hyper::body::Incoming,
        idle_ms: u64,
        /// Drives the connection; it ends with the answer.
        _connection: Connection,
    },
    Http(Box<net::Response>),
}

/// A connection's task, ended when its owner goes.
#[derive(Debug)]
pub(crate) struct Connection(JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn broken(error: &dyn fmt::Display) -> Error {
    Error::Memory { detail: error.to_string() }
}

impl Transport {
    pub(crate) async fn send(&self, request: Request) -> Result<Answer, Error> {
        match self {
            Self::Memory(connect) => {
                let ms = request.first_byte_ms;
                let exchange = Box::pin(over_memory(connect, request));
                timeout(Duration::from_millis(ms), exchange).await.map_err(|_| Error::Timeout { ms })?
            }
            Self::Http { base, net } => over_network(base, net, request).await,
        }
    }
}

impl Transport {
    /// Asks for another protocol: the connection itself with the headers of the answer, or the answer of a service that does not
    /// switch.
    pub(crate) async fn switch(&self, request: Request) -> Result<Result<Switched, Answer>, Error> {
        let ms = request.first_byte_ms;
        let late = |_| Error::Timeout { ms };
        match self {
            Self::Memory(connect) => {
                let switching = Box::pin(switch_over_memory(connect, request));
                timeout(Duration::from_millis(ms), switching).await.map_err(late)?
            }
            Self::Http { base, net } => match net.upgrade(message(base, request)?).await? {
                net::Upgraded::Stream { headers, stream } => Ok(Ok((headers, Box::new(stream) as Box<dyn Stream>))),
                net::Upgraded::Answer(response) => {
                    Ok(Err(Answer { status: response.status(), body: Body::Http(response) }))
                }
            },
        }
    }
}

/// A connection that stopped being HTTP, and the headers of the answer that says so.
pub(crate) type Switched = (HeaderMap, Box<dyn Stream>);

async fn switch_over_memory(connect: &Arc<Connect>, request: Request) -> Result<Result<Switched, Answer>, Error> {
    let stream = connect().await.map_err(|error| broken(&error))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
    let idle_ms = request.idle_ms;
    // A failure of the connection is seen by the exchange itself; one that is handed over ends this.
    let driving = Connection(tokio::spawn(async move { drop(connection.with_upgrades().await) }));
    let mut response = sender.send_request(carried(request)?).await.map_err(|error| broken(&error))?;
    if response.status() == http::StatusCode::SWITCHING_PROTOCOLS {
        let headers = response.headers().clone();
        let upgraded = hyper::upgrade::on(&mut response).await.map_err(|error| broken(&error))?;
        return Ok(Ok((headers, Box::new(TokioIo::new(upgraded)))));
    }
    let (parts, incoming) = response.into_parts();
    let body = Body::Memory { incoming, idle_ms, _connection: driving };
    Ok(Err(Answer { status: parts.status.as_u16(), body }))
}

/// A request as it goes over a stream within this process.
fn carried(request: Request) -> Result<http::Request<Full<Bytes>>, Error> {
    let mut message = http::Request::new(Full::new(request.body));
    *message.method_mut() = request.method;
    *message.uri_mut() = request.path.parse().map_err(|error| broken(&error))?;
    *message.headers_mut() = request.headers;
    message.headers_mut().insert(header::HOST, http::HeaderValue::from_static("localhost"));
    Ok(message)
}

async fn over_memory(connect: &Arc<Connect>, request: Request) -> Result<Answer, Error> {
    let stream = connect().await.map_err(|error| broken(&error))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
    // A failure of the connection is seen by the exchange itself.
    let connection = Connection(tokio::spawn(async move { drop(connection.await) }));
    let idle_ms = request.idle_ms;
    let answered = sender.send_request(carried(request)?).await;
    let (parts, incoming) = answered.map_err(|error| broken(&error))?.into_parts();
    let body = Body::Memory { incoming, idle_ms, _connection: connection };
    Ok(Answer { status: parts.status.as_u16(), body })
}

async fn over_network(base: &str, net: &net::Client, request: Request) -> Result<Answer, Error> {
    let response = net.send(message(base, request)?).await?;
    Ok(Answer { status: response.status(), body: Body::Http(Box::new(response)) })
}

/// A request as it goes over the network.
fn message(base: &str, request: Request) -> Result<net::Request, Error> {
    let url = net::Url::parse(&format!("{base}{}", request.path))
        .map_err(|error| Error::Settings { what: "the service's address", detail: error.to_string() })?;
    let mut message = net::Request::new(request.method, url, net::Origin::Operator);
    message.headers = request.headers;
    message.body = request.body;
    message.timeouts.first_byte_ms = request.first_byte_ms;
    message.timeouts.idle_ms = request.idle_ms;
    message.timeouts.total_ms = if request.endless { u64::from(u32::MAX) } else { request.first_byte_ms * 10 };
    message.response_bytes_max = if request.endless { u64::MAX } else { ANSWER_BYTES_MAX as u64 };
    Ok(message)
}

impl Body {
    /// The next piece; `None` at the end.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        match self {
            Self::Http(response) => Ok(response.chunk().await?),
            Self::Memory { incoming, idle_ms, .. } => loop {
                let ms = *idle_ms;
                let frame =
                    timeout(Duration::from_millis(ms), incoming.frame()).await.map_err(|_| Error::Timeout { ms })?;
                match frame {
                    None => return Ok(None),
                    Some(Err(error)) => return Err(broken(&error)),
                    Some(Ok(frame)) => {
                        if let Ok(bytes) = frame.into_data() {
                            return Ok(Some(bytes));
                        }
                    }
                }
            },
        }
    }

    /// The whole body.
    pub(crate) async fn bytes(mut self) -> Result<Bytes, Error> {
        let mut whole = BytesMut::new();
        while let Some(piece) = self.chunk().await? {
            if whole.len() + piece.len() > ANSWER_BYTES_MAX {
                return Err(Error::TooLarge { what: "the answer", bytes_max: ANSWER_BYTES_MAX });
            }
            whole.extend_from_slice(&piece);
        }
        Ok(whole.freeze())
    }
}
