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

/// Pieces of input that wait to be sent.
const PIECES_MAX: usize = 2;

/// How output is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Show {
    /// As it comes.
    Bytes,
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
    let (resized, show) = (terminal.then_some(resized), if json { Show::Json } else { Show::Bytes });
    let done = tokio::select! {
        done = speak(output, &console, show, raw.is_some()) => done,
        failed = listen(input, resized, &mut signals) => Err(failed),
    };
    // Before anything else is said on it.
    drop(raw);
    told(&console, done?, show)
}

fn told(console: &Console, exit: ExecExit, show: Show) -> Result<Ending, Trouble> {
    if show == Show::Json {
        json_line(console, &serde_json::json!({ "exit": exit }));
    }
    Ok(match exit {
        ExecExit::Code(code) => Ending::Inside(u8::try_from(code).unwrap_or(u8::MAX)),
        ExecExit::Signal(signal) => {
            if show == Show::Bytes {
                console.talk_line(&format!("ended by signal {signal}"));
            }
            Ending::Inside(u8::try_from(signal.saturating_add(128)).unwrap_or(u8::MAX))
        }
    })
}

/// Shows what the command gives until it ends.
async fn speak(mut output: ExecOutput, console: &Console, show: Show, is_raw: bool) -> Result<ExecExit, Error> {
    loop {
        match output.next().await? {
            Given::Stdout(bytes) if show == Show::Json => piece(console, "stdout", &bytes),
            Given::Stderr(bytes) if show == Show::Json => piece(console, "stderr", &bytes),
            // Who asked for a terminal wants all of it; who did not is shown text.
            Given::Stdout(bytes) if console.data_is_terminal && !is_raw => {
                console.data(&clean(&String::from_utf8_lossy(&bytes)));
            }
            Given::Stderr(bytes) if console.talk_is_terminal && !is_raw => {
                console.talk(&clean(&String::from_utf8_lossy(&bytes)));
            }
            Given::Stdout(bytes) => console.data_bytes(&bytes),
            Given::Stderr(bytes) => console.talk_bytes(&bytes),
            Given::Exit(exit) => return Ok(exit),
        }
    }
}

fn piece(console: &Console, stream: &str, bytes: &Bytes) {
    json_line(console, &serde_json::json!({ stream: String::from_utf8_lossy(bytes) }));
}

/// Gives the command what comes in, and tells it of signals; gives why that is not possible any more.
async fn listen(mut input: ExecInput, mut resized: Option<Signal>, signals: &mut Signals) -> Error {
    let mut pieces = Some(stdin());
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
            _ = signals.next() => input.kill().await,
        };
        if let Err(error) = said {
            return error;
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
