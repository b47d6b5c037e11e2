//! A sync that failed leaves what only the system's cache has, and a process that starts then reads it as if it were written. The
//! journal writes it once more before it goes on from there; without that, the next loss of power takes acknowledged records.

#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

use domain::record::{CancelRequested, Draft, When};
use domain::{Event, Id};
use journal::{Append, Config, Fence, Journal, MemoryObjects, Parts, PlainWrap, SessionKey, Threads, Verified};
use sim::disk::{BEHIND, Crash, Disk, Faults, Mounted};
use sim::{Power, Time};
use std::sync::Arc;
use stdx::Random;

/// Every sync fails.
const SYNCS_FAIL: Faults =
    Faults { reads_failed: 0, writes_failed: 0, syncs_failed: 100_000, syncs_slept: 0, bytes_max: None, lies: false };

fn open(mounted: &Mounted, seed: u64) -> Journal {
    let parts = Parts {
        clock: Time::default().clock(),
        random: Random::seeded(seed),
        wrap: Arc::new(PlainWrap),
        objects: Arc::new(MemoryObjects::default()),
    };
    let config = Config { disk: journal::Disk::Vfs(BEHIND), threads: Threads::Inline, ..Config::default() };
    Journal::open(mounted.directory().as_ref(), parts, config).unwrap()
}

/// Appends entries; gives how many were acknowledged.
async fn append(journal: &Journal, key: &SessionKey, entries: u64) -> u64 {
    let mut acknowledged = 0;
    for n in 0..entries {
        let event = Event::CancelRequested(CancelRequested { run: Id::from_bytes([1; 16]), when: When::Now });
        let draft = Draft { at_ms: n, principal: Id::from_bytes([2; 16]), event };
        let entry = Append::new(key.clone(), Fence::Input(None)).draft(&draft);
        acknowledged += u64::from(journal.append(entry).await.is_ok());
    }
    acknowledged
}

#[tokio::test]
async fn what_only_the_cache_has_is_written_again_before_anything_follows_it() {
    let key = SessionKey::new("default", Id::from_bytes([7; 16]));
    let mut was_in_cache = 0;
    for seed in 0..200 {
        let disk = Disk::new(Power::default(), Random::seeded(seed), Time::default());
        let mounted = Mounted::new(format!("/cache/{seed}"), &disk);
        let journal = open(&mounted, seed);
        assert_eq!(append(&journal, &key, 5).await, 5);
        disk.set_faults(SYNCS_FAIL);
        assert_eq!(append(&journal, &key, 1).await, 0);
        disk.restart(Crash::Process);
        drop(journal);
        disk.set_faults(Faults::default());
        was_in_cache += u64::from(disk.used_bytes() > disk.image().used_bytes());

        let journal = open(&mounted, seed + 1_000);
        let found = journal.head(&key).await.unwrap().position;
        assert_eq!(append(&journal, &key, 5).await, 5);
        if seed % 2 == 0 {
            // Moves the log into the database, and cuts it.
            journal.close().await.unwrap();
        }
        disk.restart(Crash::Power);
        drop(journal);

        let journal = open(&mounted, seed + 2_000);
        let verified = journal.verify(&key).await.unwrap();
        let intact = matches!(verified, Verified::Intact { records, .. } if records == found + 5);
        assert!(intact, "seed {seed}: {found} were there, five more were acknowledged, and now: {verified:?}");
    }
    assert!(was_in_cache > 0, "the cache had what the medium had not");
}
