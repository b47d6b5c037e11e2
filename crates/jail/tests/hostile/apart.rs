//! Behaviour 38, as far as there is: two sandboxes share nothing that can be written, seen or guessed.

use super::attempts::{inside, io};
use crate::support::{World, sh};
use std::sync::Arc;

/// Takes a System V segment by a key, and says whether somebody had made it. Where namespaces are down it stays: each case has
/// a key of its own.
fn segment(arguments: &[String]) -> String {
    let key: i64 = arguments[0].parse().unwrap();
    super::attempts::told(super::raw::call_with(libc::SYS_shmget, [key, 4_096, 0o1000 | 0o2000 | 0o666]))
}

/// Listens on a known abstract name and stays until it is killed.
fn listen(_: &[String]) -> String {
    use std::os::linux::net::SocketAddrExt as _;
    let address = std::os::unix::net::SocketAddr::from_abstract_name("known").unwrap();
    let listener = std::os::unix::net::UnixListener::bind_addr(&address);
    let said = io(listener.as_ref().map(drop).map_err(|error| std::io::Error::from(error.kind())));
    if listener.is_ok() {
        println!("{said}");
        super::raw::stay();
    }
    said
}

pub(crate) const ACTS: &[super::Act] = &[("make a segment", segment), ("listen", listen)];

pub(crate) async fn two_sandboxes_share_nothing(world: Arc<World>) {
    let (one, other) = (world.sandbox().await, world.sandbox().await);
    sh(&one, "echo mine > /workspace/f; echo mine > /tmp/f; echo mine > /dev/shm/f").await;
    let seen = sh(&other, "ls -A /workspace /tmp /dev/shm | grep -v :").await.out;
    assert_eq!(seen.trim(), "", "{seen}");
    // The same key and the same name are free in each: made by one, they are made anew by the other, and not in the same one.
    let mut held = Vec::new();
    for sandbox in [&one, &other] {
        assert_eq!(inside(sandbox, "make a segment", &["28853"]).await, "worked");
        assert_eq!(inside(sandbox, "make a segment", &["28853"]).await, "EEXIST");
        let mut listener =
            sandbox.start(crate::support::command(&[super::attempts::PROGRAM, "--attack=listen"])).await.unwrap();
        assert!(
            matches!(listener.next().await.unwrap(), sandbox::Chunk::Output(_, bytes) if &bytes[..] == b"worked\n")
        );
        held.push(listener);
    }
    drop(held);
    let random = "head -c 16 /dev/urandom | od -An -tx1";
    assert_ne!(sh(&one, random).await.out, sh(&other, random).await.out);
    one.close().await;
    other.close().await;
}
