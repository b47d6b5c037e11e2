//! Behaviour 40: what sandboxes leave behind, however they and their harness end.

use crate::support::{HEIR, KEPT, VICTIM, World, command, descendants, new_id, sh, traces, until};
use sandbox::{Error, Limits, Provider as _, Start, Workspace};
use std::sync::Arc;

pub(crate) async fn a_flood_of_starts(world: Arc<World>) {
    let sandbox = world.sandbox().await;
    let tasks: Vec<_> = (0..200)
        .map(|_| {
            let sandbox = Arc::clone(&sandbox);
            tokio::spawn(async move { sandbox.start(command(&["sleep", "1000"])).await })
        })
        .collect();
    let mut held = Vec::new();
    for task in tasks {
        match task.await.unwrap() {
            Ok(process) => held.push(process),
            Err(error) => assert_eq!(error.code(), "sandbox_command", "{error}"),
        }
    }
    assert!(held.len() <= Limits::default().commands_max);
    drop(held);
    sandbox.close().await;
}

pub(crate) async fn a_killed_harness_leaves_nothing(world: Arc<World>) {
    use std::io::{BufRead as _, BufReader};
    let session: domain::Id<domain::id::Session> = new_id();
    // One harness at a time has a data directory: the one that is killed has its own, and so has the one after it.
    let data = world.data.join("victim");
    std::fs::create_dir(&data).unwrap();
    let given = data.clone();
    let again = move |mode: &str| {
        let mut harness = std::process::Command::new(std::env::current_exe().unwrap());
        harness.args([format!("{mode}={}", given.display()), session.to_string()]).stdout(std::process::Stdio::piped());
        harness
    };
    let mut harness = again(VICTIM).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(harness.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    let family = descendants(harness.id());
    assert!(family.iter().any(|(_, name)| name == "sleep"), "{family:?}");
    harness.kill().unwrap();
    harness.wait().unwrap();
    // Waits until the old sandbox is gone, as a harness that starts again does.
    let heir = tokio::task::spawn_blocking(move || again(HEIR).output().unwrap()).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&heir.stdout), "before\n0\n", "{}", String::from_utf8_lossy(&heir.stderr));
    until("its launcher and all below are gone", || {
        family.iter().all(|(pid, _)| !std::path::Path::new(&format!("/proc/{pid}")).exists())
    })
    .await;
    until("nothing has its data directory", || {
        let left = traces(&data);
        left.loops + left.pools == 0
    })
    .await;
}

pub(crate) async fn nothing_is_left(world: Arc<World>) {
    // The pool is made for the first workspace, and stays.
    world.sandbox().await.close().await;
    // Sandboxes of earlier cases that were only dropped may still be on their way out.
    until("earlier sandboxes are gone", || traces(&world.data).processes == 0 && traces(&world.data).loops == 0).await;
    let before = traces(&world.data);
    for round in 0..50 {
        let workspace = if round % 3 == 0 { Workspace::Scratch } else { world.session(Start::Fresh, new_id()) };
        let mut spec = world.spec(workspace.clone());
        if round % 5 == 0 {
            // A group more, where there can be one.
            spec.limits.io_bytes_per_second_max = 1 << 30;
            spec.walls_optional.push("io_limit".to_owned());
        }
        let sandbox = world.provider.create(spec).await.unwrap();
        // With no hold on the command's output, whose end would be waited for.
        sh(&sandbox, "setsid sleep 1000 > /dev/null 2>&1 & mkdir d; echo x > d/f").await;
        let held = sandbox.start(command(&["sleep", "1000"])).await;
        if round % 2 == 0 {
            sandbox.close().await;
        }
        drop(held);
        drop(sandbox);
        world.provider.workspace_remove(&workspace).await.unwrap();
    }
    until("everything is as before", || traces(&world.data) == before).await;
    assert!(matches!(
        world.provider.create(world.spec(world.session(KEPT, new_id()))).await,
        Err(Error::WorkspaceLost)
    ));
}
