//! Behaviour 34: links and pipes in the workspace against whoever reads and writes it from outside. Wall: files are opened
//! inside, beneath the workspace, by a process with the guest's rights only, and never wait.

use super::attempts::io;
use crate::support::{World, path, sh};
use bytes::Bytes;
use sandbox::Change;
use std::sync::Arc;

/// What leads out of the workspace, or nowhere.
const LINKS: [(&str, &str); 7] = [
    ("absolute", "/etc/passwd"),
    ("upward", "../etc/passwd"),
    ("root", "/proc/self/root/etc/passwd"),
    ("first", "/proc/1/root/etc/passwd"),
    ("directory", "/proc/self/cwd/../etc/passwd"),
    ("descriptor", "/proc/self/fd/0"),
    ("itself", "itself"),
];

pub(crate) async fn links_lead_nowhere(world: Arc<World>) {
    let sandbox = world.sandbox().await;
    for (name, target) in LINKS {
        assert!(
            std::os::unix::fs::symlink(target, world.data.join(name)).is_ok() || world.data.join(name).is_symlink()
        );
        assert_eq!(sh(&sandbox, &format!("ln -s {target} {name}; readlink {name}")).await.out, format!("{target}\n"));
        let read = sandbox.read(&path(name), 0, 4_096).await;
        assert!(read.is_err(), "{name}: {read:?}");
        let below = sandbox.list(&path(name), 10).await;
        assert!(below.is_err(), "{name}: {below:?}");
        let change = Change::Write { path: path(&format!("{name}/new")), bytes: Bytes::from_static(b"x"), mode: None };
        assert!(sandbox.apply(vec![change]).await.is_err(), "{name}");
        // The same link works for whoever simply opens it, outside.
        if name == "absolute" {
            assert_eq!(io(std::fs::read(world.data.join(name))), "worked");
        }
        let _ = std::fs::remove_file(world.data.join(name));
    }
    sandbox.close().await;
}

pub(crate) async fn a_pipe_blocks_nobody(world: Arc<World>) {
    let sandbox = world.sandbox().await;
    assert_eq!(sh(&sandbox, "mkfifo pipe; mkdir d; mkfifo d/pipe; echo made").await.out, "made\n");
    for name in ["pipe", "d/pipe"] {
        assert!(sandbox.read(&path(name), 0, 4_096).await.is_err(), "{name}");
        let change = Change::Write { path: path(name), bytes: Bytes::from_static(b"x"), mode: None };
        // A file may take the pipe's place; nobody waits for somebody who reads it.
        let _ = sandbox.apply(vec![change]).await;
    }
    assert!(sandbox.list(&path("d"), 10).await.is_ok());
    sandbox.close().await;
}
