//! Ports in a real sandbox: reached from inside, both ways, bounded, and gone with it. The programs that listen are the host's
//! own Python.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a test with a main of its own is a test"
)]

mod support;

use sandbox::port::CONNECTIONS_MAX;
use sandbox::{Chunk, Duplex, Error, Port, Process, Provider as _, Sandbox, Spec, Start, Stream};
use std::sync::Arc;
use support::{Case, World, command, new_id, sh, skip};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const PORT: u16 = 8_000;
/// What the slow reader is sent.
const LARGE_BYTES: usize = 100 << 20;
/// What this process may grow by meanwhile: all that is on its way, many times over.
const GROWTH_KIB_MAX: u64 = 24 << 10;

fn main() -> std::process::ExitCode {
    let cases: Vec<Case> = crate::cases![
        bytes_go_both_ways_and_end,
        a_port_that_nobody_has_is_refused,
        connections_are_counted,
        a_slow_reader_holds_up_its_writer_and_nobody_else,
        a_reset_is_no_end,
        the_end_of_a_sandbox_is_told,
        a_full_sandbox_can_still_be_reached,
        what_lives_is_told,
    ];
    support::head::main(cases)
}

fn port(number: u16) -> Port {
    Port::new(number).unwrap()
}

async fn fresh(world: &World) -> Arc<dyn Sandbox> {
    let spec = world.spec(world.session(Start::Fresh, new_id()));
    world.provider.create(Spec { binds: Vec::new(), ..spec }).await.unwrap()
}

/// A program that listens: `accepted` runs for each connection `c`, in a thread of its own. `None`: there is no Python here.
async fn listens(name: &str, sandbox: &Arc<dyn Sandbox>, address: &str, accepted: &str) -> Option<Box<dyn Process>> {
    if sh(sandbox, "python3 -c ''").await.exit != sandbox::Exit::Code(0) {
        skip(name, "the host has no python3 among its tools");
        return None;
    }
    let family = if address.contains(':') { "AF_INET6" } else { "AF_INET" };
    let body = accepted.lines().map(|line| format!("    {line}\n")).collect::<String>();
    let program = format!(
        "import socket, struct, threading\ns = socket.socket(socket.{family})\n\
         s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\ns.bind(('{address}', {PORT}))\ns.listen(64)\n\
         def serve(c):\n{body}\nprint('listens', flush=True)\n\
         while True:\n    c, _ = s.accept()\n    threading.Thread(target=serve, args=(c,), daemon=True).start()\n"
    );
    let mut process = sandbox.start(command(&["python3", "-c", &program])).await.unwrap();
    match process.next().await.unwrap() {
        Chunk::Output(Stream::Stdout, bytes) => assert_eq!(bytes, "listens\n"),
        other => panic!("{name}: {other:?}"),
    }
    Some(process)
}

const ECHO: &str =
    "while True:\n    b = c.recv(65536)\n    if not b: break\n    c.sendall(b)\nc.sendall(b'. That is all')\nc.close()";

async fn said(stream: &mut Box<dyn Duplex>, expected: &str) {
    let mut bytes = vec![0; expected.len()];
    stream.read_exact(&mut bytes).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&bytes), expected);
}

async fn bytes_go_both_ways_and_end(world: Arc<World>) {
    for address in ["127.0.0.1", "::1", "0.0.0.0"] {
        let sandbox = fresh(&world).await;
        let Some(_listens) = listens("bytes_go_both_ways_and_end", &sandbox, address, ECHO).await else { return };
        let mut stream = sandbox.dial(port(PORT)).await.unwrap();
        stream.write_all(b"hello").await.unwrap();
        said(&mut stream, "hello").await;
        stream.write_all(b" again").await.unwrap();
        // No more goes in; what is still to come out comes.
        stream.shutdown().await.unwrap();
        let mut rest = String::new();
        stream.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, " again. That is all", "{address}");
        sandbox.close().await;
    }
}

async fn a_port_that_nobody_has_is_refused(world: Arc<World>) {
    let sandbox = fresh(&world).await;
    let error = sandbox.dial(port(PORT)).await.unwrap_err();
    assert_eq!((error.code(), error.to_string().contains("nothing listens there")), ("port_refused", true), "{error}");
    // What the host listens on is no port of the sandbox.
    let host = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let error = sandbox.dial(port(host.local_addr().unwrap().port())).await.unwrap_err();
    assert_eq!(error.code(), "port_refused");
    // A program that takes nothing is not waited for: its queue is full after some.
    let full = "import socket, time\ns = socket.socket()\ns.bind(('127.0.0.1', 8000))\ns.listen(0)\nprint('listens', flush=True)\ntime.sleep(1000)";
    if sh(&sandbox, "python3 -c ''").await.exit == sandbox::Exit::Code(0) {
        let mut process = sandbox.start(command(&["python3", "-c", full])).await.unwrap();
        assert!(matches!(process.next().await.unwrap(), Chunk::Output(..)));
        let (mut taken, mut refused) = (Vec::new(), None);
        while refused.is_none() && taken.len() < 8 {
            match sandbox.dial(port(PORT)).await {
                Ok(stream) => taken.push(stream),
                Err(error) => refused = Some(error),
            }
        }
        let error = refused.expect("the queue is full at some time");
        assert!(error.to_string().contains("connect_ms_max"), "{error}");
    }
    sandbox.close().await;
    assert_eq!(sandbox.dial(port(PORT)).await.unwrap_err().code(), "sandbox_gone");
}

async fn connections_are_counted(world: Arc<World>) {
    let sandbox = fresh(&world).await;
    let Some(_listens) = listens("connections_are_counted", &sandbox, "127.0.0.1", ECHO).await else { return };
    let mut streams = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        streams.push(sandbox.dial(port(PORT)).await.unwrap());
    }
    let error = sandbox.dial(port(PORT)).await.unwrap_err();
    assert_eq!((error.code(), error.to_string().contains("connections_max = 32")), ("sandbox_limit", true), "{error}");
    // Commands have places of their own.
    assert_eq!(sh(&sandbox, "echo fine").await.out, "fine\n");
    let mut last = streams.pop().unwrap();
    last.shutdown().await.unwrap();
    let mut rest = Vec::new();
    last.read_to_end(&mut rest).await.unwrap();
    drop(last);
    // The place is free once its task has ended, which its last byte came before.
    let mut again = loop {
        match sandbox.dial(port(PORT)).await {
            Ok(stream) => break stream,
            Err(Error::Limit { .. }) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    };
    again.write_all(b"x").await.unwrap();
    said(&mut again, "x").await;
    sandbox.close().await;
}

/// The most memory that this process has had, in KiB.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

async fn a_slow_reader_holds_up_its_writer_and_nobody_else(world: Arc<World>) {
    let name = "a_slow_reader_holds_up_its_writer_and_nobody_else";
    let sandbox = fresh(&world).await;
    let gives =
        format!("b = b'x' * (1 << 20)\nq = c.recv(1)\nfor _ in range({}): c.sendall(b)\nc.close()", LARGE_BYTES >> 20);
    let Some(_listens) = listens(name, &sandbox, "127.0.0.1", &gives).await else { return };
    let mut slow = sandbox.dial(port(PORT)).await.unwrap();
    slow.write_all(b"q").await.unwrap();
    let mut first = [0; 1];
    slow.read_exact(&mut first).await.unwrap();
    let before = peak_kib();
    // Nobody reads the first one while a second one, and a command, get everything.
    let mut quick = sandbox.dial(port(PORT)).await.unwrap();
    quick.write_all(b"q").await.unwrap();
    let (mut buffer, mut bytes) = (vec![0; 64 << 10], 0);
    loop {
        match quick.read(&mut buffer).await.unwrap() {
            0 => break,
            length => bytes += length,
        }
    }
    assert_eq!(bytes, LARGE_BYTES);
    assert_eq!(sh(&sandbox, "echo fine").await.out, "fine\n");
    let grown = peak_kib().saturating_sub(before);
    assert!(grown < GROWTH_KIB_MAX, "{grown} KiB more for a stream of {LARGE_BYTES} bytes");
    // The first one lost nothing by waiting.
    let mut bytes = 1;
    loop {
        match slow.read(&mut buffer).await.unwrap() {
            0 => break,
            length => bytes += length,
        }
    }
    assert_eq!(bytes, LARGE_BYTES);
    sandbox.close().await;
}

async fn a_reset_is_no_end(world: Arc<World>) {
    let sandbox = fresh(&world).await;
    let resets = "c.recv(1)\nc.sendall(b'half')\nc.recv(1)\nc.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))\nc.close()";
    let Some(_listens) = listens("a_reset_is_no_end", &sandbox, "127.0.0.1", resets).await else { return };
    let mut stream = sandbox.dial(port(PORT)).await.unwrap();
    stream.write_all(b"q").await.unwrap();
    said(&mut stream, "half").await;
    stream.write_all(b"q").await.unwrap();
    let error = stream.read(&mut [0; 16]).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
    sandbox.close().await;
}

async fn the_end_of_a_sandbox_is_told(world: Arc<World>) {
    let sandbox = fresh(&world).await;
    let Some(_listens) = listens("the_end_of_a_sandbox_is_told", &sandbox, "127.0.0.1", ECHO).await else { return };
    let mut stream = sandbox.dial(port(PORT)).await.unwrap();
    stream.write_all(b"hello").await.unwrap();
    said(&mut stream, "hello").await;
    let mut busy = sandbox.start(command(&["sleep", "1000"])).await.unwrap();
    world.provider.end(sandbox.id(), "ended by the test").await.unwrap();
    let error = stream.read(&mut [0; 16]).await.unwrap_err();
    assert!(error.to_string().contains("ended by the test"), "{error}");
    let error = busy.next().await.unwrap_err();
    assert_eq!((error.code(), error.to_string().contains("ended by the test")), ("sandbox_gone", true), "{error}");
    assert_eq!(world.provider.end(sandbox.id(), "again").await.map_err(|error| error.code()), Ok(()));
    drop(sandbox);
    assert_eq!(world.provider.end(new_id(), "nobody").await.unwrap_err().code(), "sandbox_gone");
}

async fn a_full_sandbox_can_still_be_reached(world: Arc<World>) {
    let sandbox = fresh(&world).await;
    let alone = "c.sendall(b'here')\nc.close()";
    let Some(_listens) = listens("a_full_sandbox_can_still_be_reached", &sandbox, "127.0.0.1", alone).await else {
        return;
    };
    let fill = "import os, time\nwhile True:\n    try: child = os.fork()\n    except OSError: break\n    if not child: time.sleep(1000)\nprint('full', flush=True)\ntime.sleep(1000)";
    let mut filling = sandbox.start(command(&["python3", "-c", fill])).await.unwrap();
    let full = filling.next().await.unwrap();
    assert!(matches!(full, Chunk::Output(Stream::Stdout, _)), "{full:?}");
    let error = sandbox.start(command(&["true"])).await.unwrap_err();
    assert!(error.to_string().contains("process limit"), "a command needs a process: {error}");
    // What takes it may have no thread to serve with; that it is taken is what counts.
    drop(sandbox.dial(port(PORT)).await.unwrap());
    sandbox.close().await;
}

async fn what_lives_is_told(world: Arc<World>) {
    let spec = world.spec(world.session(Start::Fresh, new_id()));
    let environment = vec![("GREETING".to_owned(), "a-value-nobody-is-told".to_owned())];
    let sandbox = world.provider.create(Spec { environment, ..spec }).await.unwrap();
    let mut busy = sandbox.start(command(&["sh", "-c", "echo up; sleep 1000"])).await.unwrap();
    assert!(matches!(busy.next().await.unwrap(), Chunk::Output(..)));
    let living = world.provider.living().await.unwrap();
    let one = living.iter().find(|one| one.id == sandbox.id()).unwrap();
    assert!(one.is_held && one.walls == *sandbox.walls());
    assert_eq!(one.limits.unwrap().memory_bytes_max, 512 << 20);
    let about = one.about.clone().unwrap();
    assert!(about.environment.contains(&"GREETING".to_owned()), "{about:?}");
    assert!(!format!("{one:?}").contains("a-value-nobody-is-told"), "values are nobody's business");
    let host = std::env::current_exe().unwrap().display().to_string();
    assert!(!format!("{one:?}").contains(&host) && about.shown.len() == 1, "{about:?}");
    if one.walls.standing.iter().any(|wall| wall == "process_limit") {
        assert!(one.usage.processes.is_some_and(|count| count >= 3), "{:?}", one.usage);
        assert!(one.usage.memory_bytes.is_some_and(|bytes| bytes > 0), "{:?}", one.usage);
    }
    assert_eq!(world.provider.find(sandbox.id()).await.unwrap().id(), sandbox.id());
    sandbox.close().await;
    let living = world.provider.living().await.unwrap();
    assert!(living.iter().all(|one| one.id != sandbox.id()));
}
