//! Behaviour 3: spinning on many threads. Wall: the group's share of the processors.

use crate::support::{World, children_named, command, directories_named};
use sandbox::{Chunk, Provider as _, Workspace};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How long a look waits for the hog's end.
const LOOK: Duration = Duration::from_millis(5);
/// Four loops that take some seconds of a fifth of a processor, and then end.
const HOG: &str = "for i in 1 2 3 4; do (n=0; while [ $n -lt 300000 ]; do n=$((n+1)); done) & done; wait";

/// Whether a group of a sandbox had to wait for its share.
fn is_throttled() -> bool {
    let launcher = children_named("topside-launch")[0];
    let groups = directories_named(Path::new("/sys/fs/cgroup"), &format!("topside-{launcher}"), 6);
    let throttled =
        |text: String| text.lines().any(|line| line.strip_prefix("nr_throttled ").is_some_and(|count| count != "0"));
    let stats = groups.iter().flat_map(|group| std::fs::read_dir(group).into_iter().flatten().flatten());
    stats.filter_map(|group| std::fs::read_to_string(group.path().join("cpu.stat")).ok()).any(throttled)
}

pub(crate) async fn a_processor_hog_is_slowed(world: Arc<World>) {
    let mut spec = world.spec(Workspace::Scratch);
    spec.limits.cpu_milli_max = 200;
    let sandbox = world.provider.create(spec).await.unwrap();
    let mut hog = sandbox.start(command(&["/bin/sh", "-c", HOG])).await.unwrap();
    let mut has_ended = false;
    let felt = loop {
        if is_throttled() || has_ended {
            break is_throttled();
        }
        has_ended = matches!(tokio::time::timeout(LOOK, hog.next()).await, Ok(Ok(Chunk::Exit(_)) | Err(_)));
    };
    assert!(felt, "the hog ended before it felt a limit");
    drop(hog);
    sandbox.close().await;
}
