//! Behaviour 3: spinning on many threads. Wall: the group's share of the processors.

use crate::support::{World, children_named, command, until};
use sandbox::{Provider as _, Workspace};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) async fn a_processor_hog_is_slowed(world: Arc<World>) {
    let mut spec = world.spec(Workspace::Scratch);
    spec.limits.cpu_milli_max = 200;
    let sandbox = world.provider.create(spec).await.unwrap();
    let hog = sandbox
        .start(command(&["/bin/sh", "-c", "for i in 1 2 3 4; do while :; do :; done & done; wait"]))
        .await
        .unwrap();
    until("the limit was felt", || {
        let launcher = children_named("topside-launch")[0];
        let groups = directories_named(Path::new("/sys/fs/cgroup"), &format!("topside-{launcher}"), 6);
        let throttled = |text: String| {
            text.lines().any(|line| line.strip_prefix("nr_throttled ").is_some_and(|count| count != "0"))
        };
        let stats = groups.iter().flat_map(|group| std::fs::read_dir(group).into_iter().flatten().flatten());
        stats.filter_map(|group| std::fs::read_to_string(group.path().join("cpu.stat")).ok()).any(throttled)
    })
    .await;
    drop(hog);
    sandbox.close().await;
}

/// The directories of this name, at most so deep: where groups lie differs between versions of cgroups.
fn directories_named(below: &Path, name: &str, depth: usize) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(below).into_iter().flatten().flatten();
    let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let found = |path: PathBuf| match path.file_name().is_some_and(|found| found == name) {
        true => vec![path],
        false if depth > 0 => directories_named(&path, name, depth - 1),
        false => Vec::new(),
    };
    directories.flat_map(|entry| found(entry.path())).collect()
}
