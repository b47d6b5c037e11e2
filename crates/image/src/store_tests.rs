//! The cache: whole or not at all, bounded, nothing in use ever goes.

use super::*;

fn store(directory: &Path, bytes_max: u64) -> Store {
    Store::open(directory.join("cache"), bytes_max, None).unwrap()
}

fn key(byte: u8) -> Key {
    Key::layer(Digest([byte; 32]))
}

fn fill(stage: &Stage, content: &str) {
    fs::write(stage.directory.join(TREE).join("file"), content).unwrap();
}

fn keep(store: &Store, key: &Key, bytes: u64) -> Held {
    let stage = store.stage().unwrap();
    fill(&stage, "content");
    store.keep(stage, key, Meta { bytes, ..Meta::default() }).unwrap()
}

fn count(directory: &Path, name: &str) -> usize {
    listed(&directory.join("cache").join(name)).len()
}

#[test]
fn a_layer_is_there_when_it_is_whole() {
    let home = tempfile::tempdir().unwrap();
    let store = store(home.path(), 1_000);
    assert!(store.hold(&key(1)).unwrap().is_none());
    let stage = store.stage().unwrap();
    fill(&stage, "half");
    assert!(store.hold(&key(1)).unwrap().is_none());
    drop(stage);
    assert_eq!((count(home.path(), STAGING), count(home.path(), TRASH)), (0, 0), "a given-up layer goes");
    let meta = Meta { bytes: 7, entries: 1, opaque: true };
    let stage = store.stage().unwrap();
    fill(&stage, "whole");
    drop(store.keep(stage, &key(1), meta).unwrap());
    assert_eq!(store.hold(&key(1)).unwrap().unwrap().meta, meta);
    assert_eq!(fs::metadata(home.path().join("cache")).unwrap().mode() & 0o777, 0o700);
}

#[test]
fn who_is_slower_uses_what_is_there() {
    let home = tempfile::tempdir().unwrap();
    let store = store(home.path(), 1_000);
    let slower = store.stage().unwrap();
    fill(&slower, "slower");
    let first = keep(&store, &key(1), 7);
    let second = store.keep(slower, &key(1), Meta { bytes: 9, ..Meta::default() }).unwrap();
    assert_eq!(second.meta, first.meta);
    assert_eq!(fs::read_to_string(store.place(&key(1)).join("tree/file")).unwrap(), "content");
    assert_eq!(count(home.path(), STAGING), 0);
}

#[test]
fn what_a_crash_left_goes_and_what_is_being_made_stays() {
    let home = tempfile::tempdir().unwrap();
    let cache = home.path().join("cache");
    for left in ["staging/1-0/tree/etc", "staging/2-0", "trash/old/tree"] {
        fs::create_dir_all(cache.join(left)).unwrap();
    }
    fs::create_dir_all(cache.join("staging/3-0/tree/shut/inner")).unwrap();
    fs::set_permissions(cache.join("staging/3-0/tree/shut"), fs::Permissions::from_mode(0o0)).unwrap();
    let first = store(home.path(), 1_000);
    assert_eq!((count(home.path(), STAGING), count(home.path(), TRASH)), (0, 0));
    let busy = first.stage().unwrap();
    let _second = store(home.path(), 1_000);
    assert_eq!(count(home.path(), STAGING), 1, "another process's work is left alone");
    drop(first.keep(busy, &key(1), Meta::default()).unwrap());
}

#[test]
fn the_least_used_goes_first_and_never_one_in_use() {
    let home = tempfile::tempdir().unwrap();
    let store = store(home.path(), 250);
    let used = |key: &Key, seconds: u64| {
        let file = fs::File::options().write(true).open(store.place(key).join(META)).unwrap();
        file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds)).unwrap();
    };
    let there = |byte| store.place(&key(byte)).exists();
    let held = keep(&store, &key(1), 100);
    used(&key(1), 1);
    drop(keep(&store, &key(2), 100));
    used(&key(2), 3);
    drop(keep(&store, &key(3), 50));
    used(&key(3), 2);
    assert_eq!(store.bytes(), 250);
    drop(keep(&store, &key(4), 40));
    assert_eq!([1, 2, 3, 4].map(there), [true, true, false, true], "3 was used before 2, and 1 is in use");
    // A copy of the descriptor keeps it as well.
    let copy = held.into_tree().try_clone().unwrap();
    drop(keep(&store, &key(5), 240));
    assert_eq!([1, 2, 4, 5].map(there), [true, false, false, true]);
    drop(copy);
    drop(keep(&store, &key(6), 10));
    assert_eq!([1, 5, 6].map(there), [false, true, true]);
}
