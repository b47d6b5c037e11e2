//! `topside sandbox exec`: a command in a sandbox, with its input, output and exit code.

use super::reach::Reach;
use super::terminal::{self, Raw};
use crate::cli::arguments::SandboxExec;
use crate::cli::clean::clean;
use crate::cli::ending::{Ending, Trouble};
use crate::cli::run::json_line;
use crate::cli::signals::Signals;
use crate::cli::{Console, Session};
use api::{EXEC_DATA_BYTES_MAX, ExecExit, ExecStart};
use bytes::Bytes;
use client::{Error, Exec, ExecInput, ExecOutput, Given};
use std::io::{IsTerminal as _, Read as _};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinError;

/// Pieces of input that wait to be sent, or of output to be shown.
const PIECES_MAX: usize = 2;

/// How output is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Show {
    /// As it comes; on a terminal, made harmless.
    Bytes,
    /// As it comes: the terminal is the command's.
    All,
    /// One JSON object for each piece.
    Json,
}

pub(crate) async fn exec(session: Session, arguments: SandboxExec) -> Result<Ending, Trouble> {
    let SandboxExec { sandbox, terminal, workdir, json, argv, target } = arguments;
    let (console, reach) = Reach::find(session, &target).await?;
    let client = reach.service()?;
    let mut signals = Signals::new()?;
    let resized = signal(SignalKind::window_change()).map_err(|error| Trouble::Signals { error })?;
    let start = ExecStart { argv, terminal: terminal.then(terminal::size), workdir: workdir.unwrap_or_default() };
    let Exec { input, output } = client.exec(sandbox, &start).await?;
    let raw = if terminal && std::io::stdin().is_terminal() {
        Some(Raw::begin().map_err(|errno| Trouble::Terminal { error: errno.into() })?)
    } else {
        None
    };
    let resized = terminal.then_some(resized);
    let show = match (json, raw.is_some()) {
        (true, _) => Show::Json,
        (false, true) => Show::All,
        (false, false) => Show::Bytes,
    };
    let (pieces, given) = mpsc::channel(PIECES_MAX);
    // Whoever reads it may wait for a person, so it has a thread of its own: a signal is heard all the same.
    let showing = tokio::task::spawn_blocking(move || {
        show_all(&console, given, show);
        console
    });
    let done = tokio::select! {
        done = async {
            let exit = speak(output, pieces).await?;
            Ok(showing.await.map(|console| (console, exit)))
        } => done,
        () = listen(input, resized, &mut signals) => return Ok(Ending::Cancelled),
    };
    // Before anything else is said on it.
    drop(raw);
    let shown: Result<Result<(Console, ExecExit), JoinError>, Error> = done;
    match shown? {
        Ok((console, exit)) => Ok(told(&console, exit, show)),
        Err(error) => Err(Trouble::Terminal { error: error.into() }),
    }
}

fn told(console: &Console, exit: ExecExit, show: Show) -> Ending {
    if show == Show::Json {
        json_line(console, &serde_json::json!({ "exit": exit }));
    }
    match exit {
        ExecExit::Code(code) => Ending::Inside(u8::try_from(code).unwrap_or(u8::MAX)),
        ExecExit::Signal(signal) => {
            if show != Show::Json {
                console.talk_line(&format!("ended by signal {signal}"));
            }
            Ending::Inside(u8::try_from(signal.saturating_add(128)).unwrap_or(u8::MAX))
        }
    }
}

/// Takes what the command gives until it ends.
async fn speak(mut output: ExecOutput, pieces: mpsc::Sender<Given>) -> Result<ExecExit, Error> {
    loop {
        match output.next().await? {
            Given::Exit(exit) => return Ok(exit),
            // Who shows it is there as long as this is.
            given => drop(pieces.send(given).await),
        }
    }
}

/// Shows what the command gives, piece by piece.
fn show_all(console: &Console, mut given: mpsc::Receiver<Given>, show: Show) {
    while let Some(given) = given.blocking_recv() {
        match given {
            Given::Stdout(bytes) if show == Show::Json => piece(console, "stdout", &bytes),
            Given::Stderr(bytes) if show == Show::Json => piece(console, "stderr", &bytes),
            // Who asked for a terminal wants all of it; who did not is shown text.
            Given::Stdout(bytes) if console.data_is_terminal && show == Show::Bytes => {
                console.data(&clean(&String::from_utf8_lossy(&bytes)));
            }
            Given::Stderr(bytes) if console.talk_is_terminal && show == Show::Bytes => {
                console.talk(&clean(&String::from_utf8_lossy(&bytes)));
            }
            Given::Stdout(bytes) => console.data_bytes(&bytes),
            Given::Stderr(bytes) => console.talk_bytes(&bytes),
            Given::Exit(_) => return,
        }
    }
}

fn piece(console: &Console, stream: &str, bytes: &Bytes) {
    json_line(console, &serde_json::json!({ stream: String::from_utf8_lossy(bytes) }));
}

/// Gives the command what comes in, and tells it of signals; ends with the second one. What it takes no more of is dropped: how it
/// ended, its output tells.
async fn listen(mut input: ExecInput, mut resized: Option<Signal>, signals: &mut Signals) {
    let (mut pieces, mut is_killed) = (Some(stdin()), false);
    loop {
        let said = tokio::select! {
            piece = next_piece(&mut pieces) => match piece {
                Some(bytes) => input.write(bytes).await,
                None => {
                    pieces = None;
                    input.end().await
                }
            },
            () = next(&mut resized) => input.resize(terminal::size()).await,
            _ = signals.next() => match std::mem::replace(&mut is_killed, true) {
                false => input.kill().await,
                true => return,
            },
        };
        if said.is_err() {
            pieces = None;
        }
    }
}

/// What comes in, in pieces. Whoever reads it may wait for a person, so it has a thread of its own, which nobody waits for.
fn stdin() -> mpsc::Receiver<Bytes> {
    let (sender, pieces) = mpsc::channel(PIECES_MAX);
    tokio::task::spawn_blocking(move || {
        let mut stdin = std::io::stdin().lock();
        let mut piece = vec![0; EXEC_DATA_BYTES_MAX];
        while let Ok(length @ 1..) = stdin.read(&mut piece) {
            if sender.blocking_send(Bytes::copy_from_slice(&piece[..length])).is_err() {
                return;
            }
        }
    });
    pieces
}

/// The next piece; `None` at the end. Afterwards it waits for ever.
async fn next_piece(pieces: &mut Option<mpsc::Receiver<Bytes>>) -> Option<Bytes> {
    match pieces {
        Some(pieces) => pieces.recv().await,
        None => std::future::pending().await,
    }
}

async fn next(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}
