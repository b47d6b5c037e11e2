//! Behaviours 4 and 5: filling the disk with bytes, holes, promises and files. Walls: the workspace's own file system, whose size
//! and inodes are fixed when it is made, or its budget in memory; the bounds of the others in memory.

use super::attempts::{inside, io};
use crate::support::{KEPT, World, new_id, path, pool, sh};
use bytes::Bytes;
use sandbox::{Change, Provider as _, Start};
use std::sync::Arc;

/// Reserves bytes without writing them.
fn reserve(arguments: &[String]) -> String {
    let file = std::fs::File::create("reserved").unwrap();
    let bytes: u64 = arguments[0].parse().unwrap();
    let flags = rustix::fs::FallocateFlags::empty();
    io(rustix::fs::fallocate(&file, flags, 0, bytes).map_err(Into::into))
}

/// Makes empty files until no more can be made, and says how many and why.
fn make_files(arguments: &[String]) -> String {
    let most: u64 = arguments[0].parse().unwrap();
    for made in 0..most {
        if let Err(error) = std::fs::File::create(format!("f{made}")) {
            return format!("{made} {}", io(Err::<(), _>(error)));
        }
    }
    format!("{most} files")
}

pub(crate) const ACTS: &[super::Act] = &[("reserve bytes", reserve), ("make files", make_files)];

/// More than the workspace holds is refused as more, whichever way it is asked for; what fits is given.
pub(crate) async fn promises_count(world: Arc<World>) {
    let sandbox = world.sandbox().await;
    let limit = 64 << 20;
    assert_eq!(inside(&sandbox, "reserve bytes", &[&(limit * 2).to_string()]).await, "ENOSPC");
    sh(&sandbox, "rm -f reserved").await;
    assert_eq!(inside(&sandbox, "reserve bytes", &[&(limit / 2).to_string()]).await, "worked");
    sandbox.close().await;
}

pub(crate) async fn files_are_counted(world: Arc<World>) {
    for limit in [1_000, 2_000] {
        let mut spec = world.spec(world.session(Start::Fresh, new_id()));
        spec.limits.workspace_inodes_max = limit;
        let sandbox = world.provider.create(spec).await.unwrap();
        let got = inside(&sandbox, "make files", &["100000"]).await;
        let (made, why) = got.split_once(' ').unwrap();
        assert_eq!(why, "ENOSPC");
        let made: u64 = made.parse().unwrap();
        // A file system rounds up to a group of inodes.
        assert!((limit * 9 / 10..=limit * 5 / 4 + 200).contains(&made), "{made} files, of {limit}");
        let more = sandbox.apply(vec![Change::Write { path: path("more"), bytes: Bytes::new(), mode: None }]);
        assert!(more.await.is_err());
        sandbox.close().await;
    }
}

/// Bytes that everything below a directory takes on the disk.
fn disk_bytes(directory: &std::path::Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => disk_bytes(&entry.path()),
            Ok(metadata) => metadata.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}

/// What a data directory takes on the disk once all of the pool is written out.
fn written_bytes(data: &std::path::Path) -> u64 {
    if let Some(pool) = pool() {
        rustix::fs::syncfs(std::fs::File::open(pool).unwrap()).unwrap();
    }
    disk_bytes(data)
}

/// What a pool may write of its own beside a workspace's 64 MiB.
const POOL_OWN_BYTES_MAX: u64 = 16 << 20;

pub(crate) async fn a_full_disk_is_ones_own(world: Arc<World>) {
    let session = new_id::<domain::id::Session>();
    // The pool is made for the first workspace.
    world.sandbox().await.close().await;
    let before = written_bytes(&world.data);
    let sandbox = world.provider.create(world.spec(world.session(Start::Fresh, session))).await.unwrap();
    let got = sh(&sandbox, "dd if=/dev/zero of=fill bs=1M; echo full; stat -c %s fill").await;
    assert!(got.err.contains("No space left on device"), "{}", got.err);
    let bytes: u64 = got.out.lines().nth(1).unwrap().parse().unwrap();
    assert!((40 << 20..=64 << 20).contains(&bytes), "{bytes} bytes fit");
    let full =
        sandbox.apply(vec![Change::Write { path: path("more"), bytes: Bytes::from(vec![1; 1 << 20]), mode: None }]);
    assert!(full.await.unwrap_err().to_string().contains("full"));
    sandbox.close().await;
    // Where images stand in a pool, it is the pool that takes the host's disk for them.
    let images = pool().unwrap_or_else(|| world.data.join("workspaces"));
    let kept = disk_bytes(&images.join("default").join(session.to_string()));
    assert!((40 << 20..=66 << 20).contains(&kept), "{kept} bytes for one workspace");
    let taken = written_bytes(&world.data).saturating_sub(before);
    assert!((40 << 20..=POOL_OWN_BYTES_MAX + (66 << 20)).contains(&taken), "{taken} bytes of the host's disk");
    let sandbox = world.provider.create(world.spec(world.session(KEPT, session))).await.unwrap();
    assert_eq!(sh(&sandbox, "rm fill; until echo room > again; do :; done; cat again").await.out, "room\n");
    sandbox.close().await;
}

pub(crate) async fn full_memory_file_systems(world: Arc<World>) {
    let sandbox = world.sandbox().await;
    for directory in ["/tmp", "/dev/shm"] {
        let got = sh(&sandbox, &format!("dd if=/dev/zero of={directory}/fill bs=1M; rm {directory}/fill")).await;
        assert!(got.err.contains("No space left on device"), "{directory}: {}", got.err);
    }
    assert_eq!(sh(&sandbox, "echo fine").await.out, "fine\n");
    sandbox.close().await;
}
