//! What is in sight at all: no file, no variable, no user of the host; nothing to write but one's own.

use crate::support::{CANARY, World, children_named, descendants, sh};
use sandbox::Exit;
use std::sync::Arc;

pub(crate) async fn who_and_where_it_is(world: Arc<World>) {
    let sandbox = world.sandbox().await;
    assert_eq!(sh(&sandbox, "id").await.out, "uid=1000(agent) gid=1000(agent) groups=1000(agent)\n");
    assert_eq!(sh(&sandbox, "cut -d: -f1 /etc/passwd").await.out, "agent\nnobody\n");
    let root = sh(&sandbox, "ls -A /").await.out;
    let known = [
        "attack",
        "bin",
        "dev",
        "etc",
        "lib",
        "lib32",
        "lib64",
        "libx32",
        "proc",
        "run",
        "sbin",
        "tmp",
        "usr",
        "var",
        "workspace",
    ];
    assert!(root.lines().all(|name| known.contains(&name)), "{root}");
    let settings = sh(&sandbox, "ls -A /etc").await.out;
    let known = ["alternatives", "group", "hostname", "hosts", "ld.so.cache", "machine-id", "nsswitch.conf", "passwd"];
    assert!(settings.lines().all(|name| known.contains(&name)), "{settings}");
    assert_eq!(sh(&sandbox, "cat /proc/self/uid_map | tr -s ' ' | cut -d' ' -f2,4").await.out, "1000 1\n");
    let name = "/proc/sys/kernel/hostname";
    assert_ne!(sh(&sandbox, &format!("cat {name}")).await.out, std::fs::read_to_string(name).unwrap());
    sandbox.close().await;
}

pub(crate) async fn no_file_of_the_host(world: Arc<World>) {
    let canary = world.data.join("canary");
    std::fs::write(&canary, CANARY.1).unwrap();
    let sandbox = world.sandbox().await;
    let files = [
        "/etc/shadow",
        "/etc/ssh",
        "/root",
        "/home",
        "/var/lib",
        "/var/log",
        "/sys/kernel",
        "/boot",
        "/.dockerenv",
        "/opt",
    ];
    for file in files {
        assert_eq!(sh(&sandbox, &format!("ls {file}")).await.exit, Exit::Code(2), "{file}");
    }
    let seen = sh(&sandbox, &format!("cat {}", canary.display())).await;
    assert!(!seen.out.contains(CANARY.1));
    let scan = "grep -rsl canary-5b1c9f72e0 / --exclude-dir=usr --exclude-dir=attack --exclude-dir=proc";
    // The scanner finds what is there to find.
    sh(&sandbox, "echo canary-5b1c9f72e0 > /workspace/own").await;
    assert_eq!(sh(&sandbox, scan).await.out, "/workspace/own\n");
    assert_eq!(
        sh(&sandbox, "for p in ../../../..; do cd $p; done; ls -A /../../ | grep -c workspace").await.out,
        "1\n"
    );
    sandbox.close().await;
}

pub(crate) async fn no_variable_of_the_host(world: Arc<World>) {
    // The canary is in this process, where the launcher was forked from.
    let own = std::fs::read("/proc/self/environ").unwrap();
    assert!(String::from_utf8_lossy(&own).contains(CANARY.1), "the canary is planted");
    let sandbox = world.sandbox().await;
    if world.root {
        let mut looked = 0;
        for process in children_named("topside-init").into_iter().chain(children_named("topside-launch")) {
            let environment = match std::fs::read(format!("/proc/{process}/environ")) {
                Ok(environment) => environment,
                // One of an earlier case may end at this moment; who lives is looked at.
                Err(error) => {
                    let lives = descendants(std::process::id()).iter().any(|(living, _)| *living == process);
                    assert!(!lives, "process {process}: {error}");
                    continue;
                }
            };
            looked += 1;
            assert!(!String::from_utf8_lossy(&environment).contains(CANARY.1), "process {process} carries it");
        }
        assert!(looked >= 2, "a launcher and a first process were there to be looked at");
    }
    let seen = sh(&sandbox, "env; cat /proc/1/environ /proc/self/environ; tr '\\0' ' ' < /proc/1/cmdline").await.out;
    assert!(!seen.contains(CANARY.0) && !seen.contains(CANARY.1), "{seen}");
    sandbox.close().await;
}

pub(crate) async fn nothing_is_writable_but_its_own(world: Arc<World>) {
    let sandbox = world.sandbox().await;
    let found = sh(&sandbox, "for d in / /usr /usr/bin /etc /proc /run /var /dev /lib /usr/local /run/empty; do touch $d/x 2>/dev/null && echo $d; done").await;
    assert_eq!(found.out, "");
    let own = "for d in /workspace /tmp /dev/shm /var/tmp; do touch $d/x && echo $d; done; cp /usr/bin/true /tmp/t && /tmp/t && echo ran";
    assert_eq!(sh(&sandbox, own).await.out, "/workspace\n/tmp\n/dev/shm\n/var/tmp\nran\n");
    assert_eq!(
        sh(&sandbox, "mkdir /tmp/a /tmp/b; touch /tmp/a/f; mv /tmp/a/f /tmp/b/ && echo moved").await.out,
        "moved\n"
    );
    sandbox.close().await;
}
