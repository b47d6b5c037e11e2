//! A command of an operator in a sandbox, over a WebSocket. It is on record before it is started, and ends with its connection.

use crate::app::{App, Asked, Told};
use crate::problem::No;
use crate::sandboxes::{self, Found};
use crate::tunnel::{self, Tunnel};
use api::{EXEC_DATA_BYTES_MAX, EXEC_STDERR, EXEC_STDOUT, ExecSays, ExecSize, ExecStart, ExecTold};
use bytes::{BufMut as _, Bytes, BytesMut};
use domain::record::Deed;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt as _, StreamExt as _};
use sandbox::{Chunk, Command, Input, Process, Sandbox, Stream};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

/// How long a client may take to say what it wants.
const START_MS_MAX: u64 = 10_000;
/// How often a client that says nothing is asked whether it lives.
const PING_MS: u64 = 30_000;
/// Wishes about a command that wait to be heeded.
const WISHES_MAX: usize = 16;
/// How long a client that was told the end may take to close the connection.
const CLOSING_MS_MAX: u64 = 1_000;

type Sender = SplitSink<WebSocketStream<Tunnel>, Message>;
type Receiver = SplitStream<WebSocketStream<Tunnel>>;

/// `GET /sandboxes/{sandbox_id}/exec`.
pub(crate) async fn exec(app: Arc<App>, mut asked: Asked) -> Result<Told, No> {
    let found = sandboxes::named(&app, &asked).await?;
    let accept = tunnel::websocket_accept(&asked.parts.headers)?;
    let sandbox = held(&found).await?;
    let place = app.tunnel_place()?;
    let upgrade = tunnel::upgrade(&mut asked.parts);
    let (service, session) = (app.clone(), Session { asked, found });
    app.tunnels.spawn(tunnel::until_drained(app.draining.clone(), async move {
        if let Ok(tunnel) = upgrade.await {
            session.serve(&service, tunnel, sandbox).await;
        }
        drop(place);
    }));
    Ok(tunnel::switching(&accept)?.into())
}

/// The sandbox itself, when this service has it.
pub(crate) async fn held(found: &Found) -> Result<Arc<dyn Sandbox>, No> {
    let id = found.living.id;
    found.provider.find(id).await.ok_or_else(|| No::sandbox_left(&id.to_string()))
}

/// Who wants something in which sandbox.
struct Session {
    asked: Asked,
    found: Found,
}

impl Session {
    async fn serve(self, app: &App, tunnel: Tunnel, sandbox: Arc<dyn Sandbox>) {
        let (mut sender, mut receiver) = tunnel::websocket(tunnel).await.split();
        let first = timeout(Duration::from_millis(START_MS_MAX), receiver.next()).await;
        let Ok(Some(Ok(Message::Text(text)))) = first else {
            let detail = "the first message says as text what to start".to_owned();
            return fail(&mut sender, "request_invalid", detail).await;
        };
        let start: ExecStart = match serde_json::from_str(&text) {
            Ok(start) => start,
            Err(error) => return fail(&mut sender, "request_invalid", format!("the first message: {error}")).await,
        };
        match self.start(app, &*sandbox, &start).await {
            Ok(process) => {
                // Whoever ends the sandbox does not wait for this command.
                drop(sandbox);
                converse(process, sender, receiver).await;
            }
            Err(no) => fail(&mut sender, &no.problem.code, no.problem.detail.clone()).await,
        }
    }

    /// Records the command, then starts it.
    async fn start(&self, app: &App, sandbox: &dyn Sandbox, start: &ExecStart) -> Result<Box<dyn Process>, No> {
        let workdir = if start.workdir.is_empty() { Ok(sandbox::RelPath::root()) } else { start.workdir.parse() }?;
        let argv = serde_json::to_string(&start.argv).map_err(|error| No::internal("internal", &error))?;
        sandboxes::operated(app, &self.asked, &self.found, Deed::Exec, Some(&argv)).await?;
        let command = Command {
            argv: start.argv.clone(),
            workdir,
            environment: Vec::new(),
            terminal: start.terminal.is_some(),
            stdin: true,
            epoch: self.found.living.epoch,
            name: None,
            user: None,
        };
        let mut process = sandbox.start(command).await?;
        if let Some(ExecSize { rows, columns }) = start.terminal {
            process.resize(rows, columns).await?;
        }
        Ok(process)
    }
}

async fn fail(sender: &mut Sender, code: &str, detail: String) {
    let failed = ExecTold::Failed { code: code.to_owned(), detail };
    // A client that is gone needs no telling.
    let _ = tell(sender, &failed).await;
    let _ = sender.close().await;
}

async fn tell(sender: &mut Sender, told: &ExecTold) -> Result<(), ()> {
    let text = serde_json::to_string(told).map_err(|_| ())?;
    sender.send(Message::text(text)).await.map_err(|_| ())
}

/// What a client wants of a command that runs.
enum Wish {
    Resize(ExecSize),
    Kill,
}

/// Carries output and input until one side ends. Dropping the process kills it.
async fn converse(mut process: Box<dyn Process>, mut sender: Sender, mut receiver: Receiver) {
    if tell(&mut sender, &ExecTold::Started).await.is_err() {
        return;
    }
    let Some(input) = process.input() else {
        return fail(&mut sender, "sandbox_unsupported", "this provider takes no input".to_owned()).await;
    };
    let (wishes, heard) = mpsc::channel(WISHES_MAX);
    tokio::select! {
        () = listen(&mut receiver, input, wishes) => return,
        () = speak(process, sender, heard) => {}
    }
    // A client that still writes would see its connection break before it has read the end (RFC 6455, section 7.1.1).
    let closing = async { while let Some(Ok(_)) = receiver.next().await {} };
    let _ = tokio::time::timeout(Duration::from_millis(CLOSING_MS_MAX), closing).await;
}

/// Takes what the client says; ends with the connection.
async fn listen(receiver: &mut Receiver, mut input: Box<dyn Input>, wishes: mpsc::Sender<Wish>) {
    while let Some(Ok(message)) = receiver.next().await {
        let taken = match message {
            // A command that takes no input any more may still have something to say.
            Message::Binary(bytes) => input.write(bytes).await.or_else(gone_quietly),
            Message::Text(text) => match serde_json::from_str(&text) {
                Ok(ExecSays::InputEnd) => input.close().await.or_else(gone_quietly),
                Ok(ExecSays::Resize(size)) => wishes.send(Wish::Resize(size)).await.map_err(drop),
                Ok(ExecSays::Kill) => wishes.send(Wish::Kill).await.map_err(drop),
                Err(_) => Err(()),
            },
            Message::Ping(_) | Message::Pong(_) => Ok(()),
            Message::Close(_) | Message::Frame(_) => Err(()),
        };
        if taken.is_err() {
            return;
        }
    }
}

fn gone_quietly(error: sandbox::Error) -> Result<(), ()> {
    if matches!(error, sandbox::Error::NoProcess) { Ok(()) } else { Err(()) }
}

/// Says what the command gives; ends with it, or when the client takes no more.
async fn speak(mut process: Box<dyn Process>, mut sender: Sender, mut wishes: mpsc::Receiver<Wish>) {
    let mut pings = interval(Duration::from_millis(PING_MS));
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let chunk = tokio::select! {
            chunk = process.next() => chunk,
            wish = wishes.recv() => match wish {
                Some(Wish::Resize(ExecSize { rows, columns })) => match process.resize(rows, columns).await {
                    Ok(()) | Err(sandbox::Error::NoProcess) => continue,
                    Err(error) => Err(error),
                },
                Some(Wish::Kill) => process.kill().await.map(Chunk::Exit),
                None => return,
            },
            _ = pings.tick() => match sender.send(Message::Ping(Bytes::new())).await {
                Ok(()) => continue,
                Err(_) => return,
            },
        };
        let last = match chunk {
            Ok(Chunk::Output(stream, bytes)) => match send_output(&mut sender, stream, bytes).await {
                Ok(()) => continue,
                Err(()) => return,
            },
            Ok(Chunk::Exit(exit)) => ExecTold::Exit(sandboxes::shown_exit(exit)),
            Err(error) => ExecTold::Failed { code: error.code().to_owned(), detail: error.to_string() },
        };
        let _ = tell(&mut sender, &last).await;
        let _ = sender.close().await;
        return;
    }
}

async fn send_output(sender: &mut Sender, stream: Stream, mut bytes: Bytes) -> Result<(), ()> {
    let mark = match stream {
        Stream::Stdout => EXEC_STDOUT,
        Stream::Stderr => EXEC_STDERR,
    };
    while !bytes.is_empty() {
        let part = bytes.split_to(bytes.len().min(EXEC_DATA_BYTES_MAX));
        let mut message = BytesMut::with_capacity(1 + part.len());
        message.put_u8(mark);
        message.extend_from_slice(&part);
        sender.send(Message::Binary(message.freeze())).await.map_err(|_| ())?;
    }
    Ok(())
}
