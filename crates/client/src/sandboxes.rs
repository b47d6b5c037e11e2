//! Sandboxes: looked at, entered, ended, and links to their ports.

use crate::client::{json, json_headers};
use crate::transport::{Request, Stream};
use crate::{Client, Error};
use api::{
    EXEC_DATA_BYTES_MAX, EXEC_MESSAGE_BYTES_MAX, EXEC_STDERR, EXEC_STDOUT, ExecExit, ExecSays, ExecSize, ExecStart,
    ExecTold, LinkPort, PortLink, SandboxDetail, SandboxEnded, SandboxList,
};
use bytes::{Buf as _, Bytes};
use domain::{Id, id};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt as _, StreamExt as _};
use http::{HeaderMap, HeaderValue, Method, header};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

type Socket = WebSocketStream<Box<dyn Stream>>;

/// What a command in a sandbox gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Given {
    /// Standard output, or a terminal's.
    Stdout(Bytes),
    /// Standard error.
    Stderr(Bytes),
    /// It ended. Nothing follows.
    Exit(ExecExit),
}

/// A command in a sandbox. Dropping both of its halves kills it.
#[derive(Debug)]
pub struct Exec {
    /// What goes in.
    pub input: ExecInput,
    /// What comes out.
    pub output: ExecOutput,
}

/// What goes into a command.
pub struct ExecInput(SplitSink<Socket, Message>);

/// What comes out of a command.
pub struct ExecOutput(SplitStream<Socket>);

impl std::fmt::Debug for ExecInput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ExecInput")
    }
}

impl std::fmt::Debug for ExecOutput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ExecOutput")
    }
}

impl ExecInput {
    /// Writes to its standard input or terminal, waiting while it does not read.
    pub async fn write(&mut self, mut bytes: Bytes) -> Result<(), Error> {
        while !bytes.is_empty() {
            let part = bytes.split_to(bytes.len().min(EXEC_DATA_BYTES_MAX));
            self.0.send(Message::Binary(part)).await.map_err(|error| cut(&error))?;
        }
        Ok(())
    }

    /// There is no more input.
    pub async fn end(&mut self) -> Result<(), Error> {
        self.say(ExecSays::InputEnd).await
    }

    /// Its terminal has another size.
    pub async fn resize(&mut self, size: ExecSize) -> Result<(), Error> {
        self.say(ExecSays::Resize(size)).await
    }

    /// Kills it, with all it started.
    pub async fn kill(&mut self) -> Result<(), Error> {
        self.say(ExecSays::Kill).await
    }

    async fn say(&mut self, says: ExecSays) -> Result<(), Error> {
        let text = serde_json::to_string(&says)
            .map_err(|error| Error::Malformed { what: "the request", detail: error.to_string() })?;
        self.0.send(Message::text(text)).await.map_err(|error| cut(&error))
    }
}

impl ExecOutput {
    /// What it gives next. After [`Given::Exit`] there is nothing more.
    pub async fn next(&mut self) -> Result<Given, Error> {
        let malformed = |detail: String| Error::Malformed { what: "a message", detail };
        loop {
            let message = self.0.next().await.ok_or_else(|| cut(&"the connection ended before the command"))?;
            match message.map_err(|error| cut(&error))? {
                Message::Binary(mut bytes) => match bytes.first().copied() {
                    Some(mark @ (EXEC_STDOUT | EXEC_STDERR)) => {
                        bytes.advance(1);
                        return Ok(if mark == EXEC_STDOUT { Given::Stdout(bytes) } else { Given::Stderr(bytes) });
                    }
                    _ => return Err(malformed("output of no stream".into())),
                },
                Message::Text(text) => {
                    match serde_json::from_str(&text).map_err(|error| malformed(error.to_string()))? {
                        ExecTold::Started => {}
                        ExecTold::Exit(exit) => return Ok(Given::Exit(exit)),
                        ExecTold::Failed { code, detail } => return Err(Error::Exec { code, detail }),
                    }
                }
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
                Message::Close(_) => return Err(cut(&"the connection ended before the command")),
            }
        }
    }

    /// Waits until it runs.
    async fn started(&mut self) -> Result<(), Error> {
        match self.0.next().await {
            Some(Ok(Message::Text(text))) => match serde_json::from_str(&text) {
                Ok(ExecTold::Started) => Ok(()),
                Ok(ExecTold::Failed { code, detail }) => Err(Error::Exec { code, detail }),
                Ok(ExecTold::Exit(_)) | Err(_) => {
                    Err(Error::Malformed { what: "a message", detail: "the first one says nothing of a start".into() })
                }
            },
            Some(Err(error)) => Err(cut(&error)),
            Some(Ok(_)) | None => Err(cut(&"the connection ended before the command")),
        }
    }
}

fn cut(error: &dyn std::fmt::Display) -> Error {
    Error::Memory { detail: error.to_string() }
}

impl Client {
    /// The sandboxes that live, the oldest first.
    pub async fn sandboxes(&self) -> Result<SandboxList, Error> {
        self.get("/sandboxes").await
    }

    /// What a sandbox may do and what it may not, or why it is no more.
    pub async fn sandbox(&self, sandbox: Id<id::Sandbox>) -> Result<SandboxDetail, Error> {
        self.get(&api::sandbox_path(sandbox)).await
    }

    /// Ends a sandbox.
    pub async fn end_sandbox(&self, sandbox: Id<id::Sandbox>) -> Result<SandboxEnded, Error> {
        self.read(self.request(Method::DELETE, api::sandbox_path(sandbox), HeaderMap::new())).await
    }

    /// A link to a port in a sandbox.
    pub async fn link_port(&self, sandbox: Id<id::Sandbox>, port: u16, link: &LinkPort) -> Result<PortLink, Error> {
        let path = format!("{}/ports/{port}/links", api::sandbox_path(sandbox));
        let mut request = self.request(Method::POST, path, json_headers());
        request.body = json(link)?;
        self.read(request).await
    }

    /// Runs a command in a sandbox; when this returns, it runs.
    pub async fn exec(&self, sandbox: Id<id::Sandbox>, start: &ExecStart) -> Result<Exec, Error> {
        let key = generate_key();
        let path = format!("{}/exec", api::sandbox_path(sandbox));
        let mut request = self.request(Method::GET, path, websocket_headers(&key)?);
        request.endless = true;
        let (headers, stream) = self.upgraded(request).await?;
        let accept = headers.get(header::SEC_WEBSOCKET_ACCEPT).map(HeaderValue::as_bytes).unwrap_or_default();
        if accept != derive_accept_key(key.as_bytes()).as_bytes() {
            return Err(Error::Malformed { what: "the answer", detail: "it accepts another WebSocket".into() });
        }
        let bytes_max = Some(EXEC_MESSAGE_BYTES_MAX);
        let config = WebSocketConfig::default().max_message_size(bytes_max).max_frame_size(bytes_max);
        let socket = WebSocketStream::from_raw_socket(stream, Role::Client, Some(config)).await;
        let (sink, stream) = socket.split();
        let (mut input, mut output) = (ExecInput(sink), ExecOutput(stream));
        let text = serde_json::to_string(start)
            .map_err(|error| Error::Malformed { what: "the request", detail: error.to_string() })?;
        input.0.send(Message::text(text)).await.map_err(|error| cut(&error))?;
        output.started().await?;
        Ok(Exec { input, output })
    }

    async fn upgraded(&self, request: Request) -> Result<(HeaderMap, Box<dyn Stream>), Error> {
        match Box::pin(self.switch(request)).await? {
            Ok(switched) => Ok(switched),
            Err(answer) => match self.refused(answer).await {
                Err(error) => Err(error),
                Ok(_) => Err(Error::Malformed { what: "the answer", detail: "it switches no protocol".into() }),
            },
        }
    }
}

fn websocket_headers(key: &str) -> Result<HeaderMap, Error> {
    let key = HeaderValue::from_str(key).map_err(|error| cut(&error))?;
    Ok(HeaderMap::from_iter([
        (header::CONNECTION, HeaderValue::from_static("upgrade")),
        (header::UPGRADE, HeaderValue::from_static("websocket")),
        (header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13")),
        (header::SEC_WEBSOCKET_KEY, key),
    ]))
}
