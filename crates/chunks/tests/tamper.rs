//! Whoever has the objects in hand can take an archive away, and never change it.

#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use domain::Digest;
use futures::stream;
use support::{BYTES_MAX, Bench, CONFIG, TENANT, get, key, noise, tar, tree};

/// Sets an object, tries to read the archive, puts the object back; what came out before the error is its true begin.
async fn check(bench: &Bench, name: &str, object: &str, bytes: Option<Vec<u8>>, archive: &[u8], codes: &[&str]) {
    let before = bench.store.bytes(object).await;
    match bytes {
        Some(bytes) => {
            assert_ne!(bytes, before, "{name}: nothing was changed");
            bench.store.set(object, bytes).await;
        }
        None => bench.store.remove(object).await,
    }
    match get(&bench.restarted(CONFIG), "ses/1", Digest::of(archive)).await {
        Ok(_) => panic!("{name}: {object} was changed, and nobody saw it"),
        Err((error, begin)) => {
            assert!(codes.contains(&error.code()), "{name}: {error}");
            assert!(archive.starts_with(&begin) && begin.len() < archive.len(), "{name}: wrong bytes came out");
            if object.starts_with("checkpoints") {
                assert!(begin.is_empty(), "{name}: a byte came out before the manifest was checked");
            }
        }
    }
    bench.store.set(object, before).await;
}

fn flipped(bytes: &[u8], at: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at] ^= 1;
    bytes
}

#[tokio::test]
async fn a_changed_object_is_found_out() {
    let bench = Bench::new(CONFIG);
    let archive = tar(&tree(1, 200));
    bench.put("ses/1", &[], &archive).await.unwrap();
    let other = tar(&tree(2, 200));
    bench.put("ses/2", &[], &other).await.unwrap();
    let theirs = "checkpoints/other/ses/1.chunks".parse().unwrap();
    let pieces = stream::iter([Ok(archive.clone().into())]);
    bench.chunks.put("other", &theirs, &[], pieces, BYTES_MAX).await.unwrap();

    let (manifest, damaged) = (key("ses/1").to_string(), ["chunks_damaged"]);
    let whole = bench.store.bytes(&manifest).await;
    for at in (0..whole.len()).step_by(7) {
        // A flipped bit in the version looks like a later version's.
        let codes = if at < 16 { ["chunks_damaged", "chunks_newer"] } else { ["chunks_damaged"; 2] };
        check(&bench, "flip", &manifest, Some(flipped(&whole, at)), &archive, &codes).await;
    }
    for length in [0, 1, 15, 16, 17, 48, 60, whole.len() - 1] {
        check(&bench, "cut", &manifest, Some(whole[..length].to_vec()), &archive, &damaged).await;
    }
    check(&bench, "longer", &manifest, Some([&whole[..], &[0]].concat()), &archive, &damaged).await;
    check(&bench, "large", &manifest, Some(vec![0; 9 << 20]), &archive, &damaged).await;
    check(&bench, "gone", &manifest, None, &archive, &["chunks_missing"]).await;
    let another = bench.store.bytes(key("ses/2").as_str()).await;
    check(&bench, "another archive's", &manifest, Some(another), &archive, &["chunks_mismatch"]).await;
    let foreign = bench.store.bytes(theirs.as_str()).await;
    check(&bench, "another tenant's", &manifest, Some(foreign), &archive, &damaged).await;
    let later = [b"topside chunks 2", &whole[16..]].concat();
    check(&bench, "a later form", &manifest, Some(later), &archive, &["chunks_newer"]).await;
}

#[tokio::test]
async fn a_changed_pack_is_found_out() {
    let bench = Bench::new(CONFIG);
    // Nothing but what this archive needs is in its packs.
    let archive = noise(1, 1_500_000);
    bench.put("ses/1", &[], &archive).await.unwrap();
    let packs = bench.store.keys("packs/default").await;
    assert!(packs.len() > 4);
    let pieces = stream::iter([Ok(archive.clone().into())]);
    let theirs = "checkpoints/other/ses/1.chunks".parse().unwrap();
    bench.chunks.put("other", &theirs, &[], pieces, BYTES_MAX).await.unwrap();
    let foreign = bench.store.keys("packs/other").await;
    let foreign = bench.store.bytes(&foreign[0]).await;
    let damaged = ["chunks_damaged"];
    for (n, pack) in packs.iter().enumerate() {
        let whole = bench.store.bytes(pack).await;
        // Behind the pieces stands the index, which nobody needs while they are where they should be.
        let pieces_end = whole.len() - 1_500;
        for at in (n..pieces_end).step_by(20_011) {
            check(&bench, "flip", pack, Some(flipped(&whole, at)), &archive, &damaged).await;
        }
        for length in [0, 1, whole.len() / 2] {
            check(&bench, "cut", pack, Some(whole[..length].to_vec()), &archive, &damaged).await;
        }
        check(&bench, "gone", pack, None, &archive, &["chunks_missing"]).await;
        check(&bench, "another tenant's", pack, Some(foreign.clone()), &archive, &damaged).await;
        let next = bench.store.bytes(&packs[(n + 1) % packs.len()]).await;
        check(&bench, "swapped", pack, Some(next), &archive, &damaged).await;
        let shifted = [&[0; 100][..], &whole].concat();
        // Its index still says where the pieces were: not here.
        check(&bench, "shifted", pack, Some(shifted), &archive, &damaged).await;
    }
    assert!(get(&bench.chunks, "ses/1", Digest::of(&archive)).await.unwrap() == archive, "it is whole again");
}

#[tokio::test]
async fn the_wrong_question_is_refused() {
    let bench = Bench::new(CONFIG);
    let stored = bench.put("ses/1", &[], &noise(1, 100_000)).await.unwrap();
    let (error, _) = get(&bench.chunks, "ses/1", Digest::of(b"something else")).await.unwrap_err();
    assert_eq!(error.code(), "chunks_mismatch");
    let error = bench.chunks.get("other", &key("ses/1"), stored.digest, BYTES_MAX).await.unwrap_err();
    assert_eq!(error.code(), "chunks_damaged", "under another tenant's key nothing opens");
    let (from, to) = (key("ses/1"), key("fork/1"));
    let error = bench.chunks.copy(TENANT, &from, &to, Digest::ZERO).await.unwrap_err();
    assert_eq!(error.code(), "chunks_mismatch");
    let error = bench.chunks.copy(TENANT, &key("ses/2"), &to, stored.digest).await.unwrap_err();
    assert_eq!(error.code(), "chunks_missing");
    assert_eq!(bench.store.keys("checkpoints").await, [from.to_string()]);
}
