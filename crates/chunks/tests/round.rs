//! Archives come back byte for byte, and what is there already is not stored again.

#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use blob::Blobs;
use bytes::Bytes;
use chunks::{Config, Threads};
use domain::Digest;
use futures::{StreamExt, stream};
use stdx::{Clock, Random};
use support::{BYTES_MAX, Bench, CONFIG, TENANT, get, key, links, noise, over, put, tar, tree};

#[tokio::test]
async fn random_trees_come_back_as_they_were() {
    let directory = tempfile::tempdir().unwrap();
    let (bench, clock) = (Bench::new(CONFIG), Clock::manual(0));
    let local = over(Blobs::local(directory.path(), links()).unwrap(), &clock, CONFIG);
    let inline = bench.restarted(Config { threads: Threads::Inline, ..CONFIG });
    let random = Random::seeded(5);
    for seed in 0..12 {
        let (mut files, mut before) = (tree(seed, random.below(300)), Vec::new());
        for round in 0..4 {
            let archive = tar(&files);
            let name = format!("ses{seed}/{round}");
            let bases: Vec<_> = before.iter().map(String::as_str).collect();
            for (chunks, where_) in [(&bench.chunks, "memory"), (&local, "directory")] {
                put(chunks, &name, &bases, &archive).await.unwrap();
                let back = get(chunks, &name, Digest::of(&archive)).await.unwrap();
                assert!(back == archive, "seed {seed}, round {round}, in a {where_}");
            }
            assert!(get(&inline, &name, Digest::of(&archive)).await.unwrap() == archive, "inline");
            before = vec![name];
            // Some files change, one goes, one comes.
            for (n, data) in files.values_mut().enumerate() {
                if random.below(20) == 0 {
                    *data = noise(n as u64 + seed, usize::try_from(random.below(20_000)).unwrap());
                }
            }
            files.pop_first();
            files.insert(format!("d3/new{round}"), noise(round, 3_000));
        }
    }
}

#[tokio::test]
async fn odd_archives_come_back_too() {
    let bench = Bench::new(CONFIG);
    let text = "the same line again and again\n".repeat(100_000);
    for (name, archive) in [
        ("empty", Vec::new()),
        ("one byte", vec![7]),
        ("an empty tree", tar(&support::Tree::new())),
        ("no archive", noise(1, 3_000_000)),
        ("text", text.into_bytes()),
        ("the same file many times", tar(&(0..50).map(|n| (format!("f{n}"), noise(1, 100_000))).collect())),
    ] {
        let place = name.replace(' ', "_");
        let stored = bench.put(&place, &[], &archive).await.unwrap();
        assert!(get(&bench.chunks, &place, stored.digest).await.unwrap() == archive, "{name}");
        assert!(stored.added_bytes < archive.len() as u64 + 20_000, "{name}: {stored:?}");
    }
    let keys = bench.store.keys("packs").await;
    assert!(keys.iter().all(|key| key.starts_with("packs/default/")), "{keys:?}");
    let again = bench.put("again", &[], &tar(&(0..50).map(|n| (format!("f{n}"), noise(1, 100_000))).collect())).await;
    assert!(again.unwrap().added_bytes < 1_000);
}

#[tokio::test]
async fn a_gibibyte_of_zeros_costs_next_to_nothing() {
    let bench = Bench::new(CONFIG);
    let zeros = Bytes::from(vec![0; 1 << 20]);
    let pieces = stream::iter((0..1 << 10).map(|_| Ok(zeros.clone())));
    let stored = bench.chunks.put(TENANT, &key("zeros"), &[], pieces, BYTES_MAX).await.unwrap();
    assert_eq!((stored.bytes, stored.added_chunks), (1 << 30, 1));
    assert!(stored.added_bytes < 20_000, "{stored:?}");
    let mut archive = bench.chunks.get(TENANT, &key("zeros"), stored.digest, BYTES_MAX).await.unwrap();
    let mut bytes = 0;
    while let Some(piece) = archive.pieces.next().await {
        let piece = piece.unwrap();
        assert!(piece.iter().all(|byte| *byte == 0));
        bytes += piece.len();
    }
    assert_eq!(bytes, 1 << 30);
}

#[tokio::test]
async fn what_is_there_is_not_stored_again() {
    let bench = Bench::new(CONFIG);
    let mut files = tree(7, 2_000);
    let first = bench.put("ses/1", &[], &tar(&files)).await.unwrap();
    assert!(first.added_bytes > first.bytes / 2 && first.added_bytes < first.bytes, "{first:?}");
    let same = bench.put("ses/2", &["ses/1"], &tar(&files)).await.unwrap();
    assert_eq!((same.added_chunks, same.added_objects), (0, 1));
    let mut changed = 0;
    for (n, data) in files.values_mut().filter(|data| data.len() < 9_000).enumerate() {
        if n % 200 == 0 {
            *data = noise(n as u64, 5_000);
            changed += 5_000;
        }
    }
    let archive = tar(&files);
    // Another process finds out from the objects what is there.
    for (name, chunks) in [("known", bench.chunks.clone()), ("not known", bench.restarted(CONFIG))] {
        let place = format!("ses/{}", name.replace(' ', "_"));
        let next = put(&chunks, &place, &["ses/2"], &archive).await.unwrap();
        assert!(next.added_bytes > changed && next.added_bytes < 40 * changed, "{name}: {next:?} for {changed}");
        assert!(next.added_bytes < first.added_bytes / 5, "{name}: {next:?} beside {first:?}");
        assert!(get(&chunks, &place, next.digest).await.unwrap() == archive);
        bench.store.remove(key(&place).as_str()).await;
    }
    // A session of the same tenant shares without being told; one of another tenant never does.
    let shared = bench.put("another/1", &[], &tar(&tree(7, 2_000))).await.unwrap();
    assert_eq!(shared.added_chunks, 0);
    let archive = tar(&tree(7, 200));
    let pieces = stream::iter([Ok(Bytes::from(archive.clone()))]);
    let place = "checkpoints/other/ses/1.chunks".parse().unwrap();
    let theirs = bench.chunks.put("other", &place, &[key("ses/1")], pieces, BYTES_MAX).await.unwrap();
    assert_eq!(theirs.added_chunks, theirs.chunks);
}

#[tokio::test]
async fn a_base_that_is_gone_or_damaged_is_left_aside() {
    let bench = Bench::new(CONFIG);
    let archive = tar(&tree(3, 100));
    let first = bench.put("ses/1", &[], &archive).await.unwrap();
    for (name, damage) in [("gone", None), ("damaged", Some(b"nothing".to_vec()))] {
        match damage {
            None => bench.store.remove(key("ses/1").as_str()).await,
            Some(bytes) => bench.store.set(key("ses/1").as_str(), bytes).await,
        }
        let other = bench.restarted(CONFIG);
        let stored = put(&other, "ses/2", &["ses/1"], &archive).await.unwrap();
        assert_eq!(stored.added_chunks, first.added_chunks, "{name}");
        assert!(get(&other, "ses/2", first.digest).await.unwrap() == archive, "{name}");
    }
}

#[tokio::test]
async fn limits_and_sources_that_fail_leave_no_manifest() {
    let bench = Bench::new(CONFIG);
    let archive = Bytes::from(noise(1, 1_000_000));
    let place = key("ses/1");
    let put = async |pieces: Vec<std::io::Result<Bytes>>, bytes_max| {
        bench.chunks.put(TENANT, &place, &[], stream::iter(pieces), bytes_max).await
    };
    let refused = put(vec![Ok(archive.clone())], 999_999).await.unwrap_err();
    assert_eq!(refused.code(), "chunks_too_large");
    let broken = std::io::Error::other("the sandbox is gone");
    let refused = put(vec![Ok(archive.clone()), Err(broken)], BYTES_MAX).await.unwrap_err();
    assert_eq!(refused.code(), "chunks_source");
    assert!(bench.store.keys("checkpoints").await.is_empty());
    let stored = put(vec![Ok(archive.clone())], 1_000_000).await.unwrap();
    let described = bench.chunks.describe(TENANT, &place).await.unwrap();
    assert_eq!((described.bytes, described.digest, described.chunks), (1_000_000, stored.digest, stored.chunks));
    assert!(described.packs > 1 && described.packed_bytes > 1_000_000, "{described:?}");
    let too_large = bench.chunks.get(TENANT, &place, stored.digest, 999_999).await.unwrap_err();
    assert_eq!(too_large.code(), "chunks_too_large");
    let nobody = bench.chunks.put("nobody", &place, &[], stream::iter([]), BYTES_MAX).await.unwrap_err();
    assert_eq!(nobody.code(), "chunks_key");
}
