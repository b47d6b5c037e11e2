//! What no manifest needs goes, what one needs stays, whatever happens in between.

#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use chunks::{Config, PUT_MS_MAX, Swept};
use domain::Digest;
use std::sync::Arc;
use std::time::Duration;
use support::{Bench, CONFIG, Fate, TENANT, get, key, noise, put, tar, tree};

const GRACE: Duration = Duration::from_millis(CONFIG.grace_ms);

/// Two sweeps, a grace apart.
async fn sweep(bench: &Bench) -> Swept {
    let first = bench.chunks.sweep().await.unwrap();
    assert_eq!(first.deleted_packs + first.rewritten_packs, 0, "nothing goes at first sight");
    bench.clock.advance(GRACE);
    bench.chunks.sweep().await.unwrap()
}

async fn whole(bench: &Bench, name: &str, archive: &[u8]) {
    let back = get(&bench.restarted(CONFIG), name, Digest::of(archive)).await;
    assert!(back.unwrap_or_else(|(error, _)| panic!("{name}: {error}")) == archive, "{name}");
}

#[tokio::test]
async fn a_deleted_session_frees_its_packs_and_a_fork_keeps_them() {
    let bench = Bench::new(CONFIG);
    let archive = tar(&tree(1, 300));
    let stored = bench.put("parent/1", &[], &archive).await.unwrap();
    bench.chunks.copy(TENANT, &key("parent/1"), &key("fork/1"), stored.digest).await.unwrap();
    let packs = bench.store.keys("packs").await;
    bench.store.remove(key("parent/1").as_str()).await;
    let swept = sweep(&bench).await;
    assert_eq!((swept.deleted_packs, swept.manifests), (0, 1));
    whole(&bench, "fork/1", &archive).await;
    bench.store.remove(key("fork/1").as_str()).await;
    assert_eq!(bench.chunks.sweep().await.unwrap().deleted_packs, 0);
    bench.clock.advance(GRACE.checked_sub(Duration::from_millis(1)).unwrap());
    assert_eq!(bench.chunks.sweep().await.unwrap().deleted_packs, 0, "before the grace is over");
    bench.clock.advance(Duration::from_millis(1));
    let swept = bench.chunks.sweep().await.unwrap();
    assert_eq!(swept.deleted_packs, packs.len() as u64);
    assert!(bench.store.keys("packs").await.is_empty());
    assert_eq!(bench.chunks.sweep().await.unwrap(), Swept::default());
}

#[tokio::test]
async fn what_lies_beside_manifests_is_let_alone() {
    let bench = Bench::new(CONFIG);
    let archive = tar(&tree(1, 50));
    bench.put("ses/1", &[], &archive).await.unwrap();
    bench.store.set("checkpoints/default/ses/2", vec![0; 10_000]).await;
    bench.store.set("packs/default/no_pack", vec![0; 10_000]).await;
    bench.store.set("packs/default/deep/0123456789abcdef0123456789abcdef", vec![0; 10]).await;
    let swept = sweep(&bench).await;
    assert_eq!((swept.failed_tenants, swept.deleted_packs), (0, 0));
    assert_eq!(bench.store.keys("checkpoints").await.len(), 2);
    assert!(bench.store.keys("packs").await.len() > 2);
}

#[tokio::test]
async fn a_manifest_that_can_t_be_read_keeps_everything_of_its_tenant() {
    let bench = Bench::new(CONFIG);
    bench.put("ses/1", &[], &noise(1, 500_000)).await.unwrap();
    let manifest = bench.store.bytes(key("ses/1").as_str()).await;
    bench.store.set(key("ses/1").as_str(), manifest[..100].to_vec()).await;
    let packs = bench.store.keys("packs").await;
    let swept = sweep(&bench).await;
    assert_eq!((swept.failed_tenants, swept.deleted_packs), (1, 0));
    assert_eq!(bench.store.keys("packs").await, packs);
}

/// A crash at every put: what was there before comes back, and the sweep leaves nothing of the attempt.
#[tokio::test]
async fn a_crash_leaves_only_what_a_sweep_takes_away() {
    let first = tar(&tree(1, 200));
    let second = [&tar(&tree(2, 150))[..], &first].concat();
    let mut puts = 1;
    loop {
        let mut over = 0;
        for fate in [Fate::Refused, Fate::Unanswered] {
            let bench = Bench::new(CONFIG);
            bench.put("ses/1", &[], &first).await.unwrap();
            let before = bench.store.keys("packs").await;
            let is_unanswered = matches!(fate, Fate::Unanswered);
            bench.store.fail(puts, fate);
            match bench.put("ses/2", &["ses/1"], &second).await {
                Ok(_) => over += 1,
                Err(error) => assert_eq!(error.code(), "blob_storage"),
            }
            whole(&bench, "ses/1", &first).await;
            let manifests = bench.store.keys("checkpoints").await;
            if manifests.len() == 2 {
                assert!(is_unanswered || over > 0);
                whole(&bench, "ses/2", &second).await;
                bench.store.remove(key("ses/2").as_str()).await;
            }
            // The process died: another one sweeps.
            let other = bench.restarted(CONFIG);
            other.sweep().await.unwrap();
            bench.clock.advance(GRACE);
            other.sweep().await.unwrap();
            assert_eq!(bench.store.keys("packs").await, before, "after a crash at put {puts}");
            whole(&bench, "ses/1", &first).await;
        }
        if over == 2 {
            break;
        }
        puts += 1;
    }
    assert!(puts > 4, "only {puts} puts were tried");
}

/// Sweeps after every object that a running checkpoint puts, with all the time in between that it may take.
#[tokio::test]
async fn a_sweep_in_the_middle_of_a_checkpoint_takes_nothing_of_it() {
    let bench = Bench::new(Config { grace_ms: 2 * PUT_MS_MAX, ..CONFIG });
    let first = tar(&tree(1, 200));
    bench.put("ses/1", &[], &first).await.unwrap();
    let second = [&tar(&tree(2, 150))[..], &first].concat();
    let (sweeper, clock) = (bench.restarted(CONFIG), bench.clock.clone());
    let hook = move |_: String| {
        let (sweeper, clock) = (sweeper.clone(), clock.clone());
        let sweeping: futures::future::BoxFuture<'static, ()> = Box::pin(async move {
            sweeper.sweep().await.unwrap();
            clock.advance(Duration::from_millis(PUT_MS_MAX / 20));
        });
        sweeping
    };
    *bench.store.after_put.lock().unwrap() = Some(Arc::new(Box::new(hook)));
    let stored = bench.put("ses/2", &["ses/1"], &second).await.unwrap();
    *bench.store.after_put.lock().unwrap() = None;
    assert!(stored.added_objects > 4, "{stored:?}");
    sweep(&bench).await;
    whole(&bench, "ses/1", &first).await;
    whole(&bench, "ses/2", &second).await;
}

#[tokio::test]
async fn a_checkpoint_that_takes_too_long_is_none() {
    let bench = Bench::new(CONFIG);
    let clock = bench.clock.clone();
    let hook = move |_: String| {
        clock.advance(Duration::from_millis(PUT_MS_MAX / 2));
        let nothing: futures::future::BoxFuture<'static, ()> = Box::pin(std::future::ready(()));
        nothing
    };
    *bench.store.after_put.lock().unwrap() = Some(Arc::new(Box::new(hook)));
    for (name, archive) in [("before its manifest", noise(1, 2_000_000)), ("with its manifest", noise(2, 600_000))] {
        let refused = bench.put("ses/1", &[], &archive).await.unwrap_err();
        assert_eq!(refused.code(), "chunks_too_slow", "{name}");
        assert!(bench.store.keys("checkpoints").await.is_empty(), "{name}");
    }
}

/// The session whose chunks are shared is deleted while the new manifest is on its way.
#[tokio::test]
async fn a_base_that_goes_meanwhile_is_noticed() {
    let bench = Bench::new(CONFIG);
    let archive = tar(&tree(1, 200));
    bench.put("ses/1", &[], &archive).await.unwrap();
    let store = bench.store.clone();
    let hook = move |put: String| {
        let store = store.clone();
        let deleting: futures::future::BoxFuture<'static, ()> = Box::pin(async move {
            if put.starts_with("checkpoints") {
                store.remove(key("ses/1").as_str()).await;
            }
        });
        deleting
    };
    *bench.store.after_put.lock().unwrap() = Some(Arc::new(Box::new(hook)));
    let refused = bench.put("another/1", &[], &archive).await.unwrap_err();
    assert_eq!(refused.code(), "chunks_base_gone");
    assert!(bench.store.keys("checkpoints").await.is_empty());
    // Asked again, it stores all, and whatever is swept now, it has its own.
    let stored = bench.put("another/1", &[], &archive).await.unwrap();
    assert_eq!(stored.added_chunks, stored.chunks);
    *bench.store.after_put.lock().unwrap() = None;
    assert!(sweep(&bench).await.deleted_packs > 0);
    whole(&bench, "another/1", &archive).await;
}

#[tokio::test]
async fn a_pack_that_is_mostly_dead_is_rewritten_and_still_read() {
    let config = Config { pack_bytes: 4 << 20, ..CONFIG };
    let bench = Bench::new(config);
    let (kept, dead) = (noise(1, 600_000), noise(2, 3_000_000));
    // The kept one lies behind the dead one: it moves.
    let both = tar(&[("a".to_owned(), dead), ("b".to_owned(), kept.clone())].into());
    let first = bench.put("ses/1", &[], &both).await.unwrap();
    let few = tar(&[("b".to_owned(), kept)].into());
    let second = bench.put("ses/2", &["ses/1"], &few).await.unwrap();
    assert!(second.added_bytes < 10_000, "{second:?}");
    assert_eq!(sweep(&bench).await.rewritten_packs, 0, "all is needed");
    bench.store.remove(key("ses/1").as_str()).await;

    let mut reading = bench.chunks.get(TENANT, &key("ses/2"), second.digest, support::BYTES_MAX).await.unwrap();
    let swept = sweep(&bench).await;
    assert_eq!((swept.rewritten_packs, swept.deleted_packs), (1, 0), "{swept:?}");
    assert!(swept.freed_bytes > 2_900_000, "{swept:?}");
    // Whoever had the manifest in hand reads on, whoever comes later too.
    let mut back = Vec::new();
    while let Some(piece) = futures::StreamExt::next(&mut reading.pieces).await {
        back.extend_from_slice(&piece.unwrap());
    }
    assert!(back == few);
    whole(&bench, "ses/2", &few).await;
    assert_eq!(get(&bench.chunks, "ses/1", first.digest).await.unwrap_err().0.code(), "chunks_missing");
    // And so does whoever shares with it.
    let third = put(&bench.restarted(config), "ses/3", &["ses/2"], &few).await.unwrap();
    assert_eq!(third.added_chunks, 0);
    whole(&bench, "ses/3", &few).await;
    assert_eq!(sweep(&bench).await.rewritten_packs, 0, "nothing more is dead in it");
    // Changed where it was rewritten, it is found out.
    let packs = bench.store.keys("packs").await;
    for pack in packs {
        let mut bytes = bench.store.bytes(&pack).await;
        bytes.iter_mut().step_by(1_000).for_each(|byte| *byte ^= 1);
        bench.store.set(&pack, bytes).await;
    }
    let (error, begin) = get(&bench.restarted(CONFIG), "ses/2", Digest::of(&few)).await.unwrap_err();
    assert_eq!(error.code(), "chunks_damaged");
    assert!(begin.is_empty());
}
