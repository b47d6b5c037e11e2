//! Journals over one store whose workers contest each other's claims: a lease that is over is taken, one that runs is not.

#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

use domain::record::{Draft, Resumed};
use domain::{Event, Id};
use journal::{
    Append, Claimants, Config, Error, Fence, Journal, MemoryObjects, Parts, PlainWrap, Release, SessionKey, WorkerSpec,
};
use std::sync::Arc;
use std::time::Duration;
use stdx::{Clock, Random};

const LEASE_MS: u64 = 3_000;

fn journal(clock: &Clock) -> Journal {
    let parts = Parts {
        clock: clock.clone(),
        random: Random::seeded(1),
        wrap: Arc::new(PlainWrap),
        objects: Arc::new(MemoryObjects::default()),
    };
    Journal::memory(parts, Config { claimants: Claimants::Fellows, ..Config::default() })
}

fn spec(name: &str) -> WorkerSpec {
    WorkerSpec { name: name.into(), lease_ms: LEASE_MS }
}

async fn append(journal: &Journal, key: &SessionKey, epoch: u64, expect: u64) -> Result<(), Error> {
    let event = Event::Resumed(Resumed { run: Id::from_bytes([1; 16]), epoch, attached: vec![] });
    let draft = Draft { at_ms: 0, principal: Id::from_bytes([2; 16]), event };
    let entry = Append::new(key.clone(), Fence::Effect { epoch, expect }).draft(&draft);
    journal.append(entry).await.map(drop)
}

#[tokio::test]
async fn what_a_live_worker_holds_is_its_own_and_what_a_dead_one_held_is_taken() {
    let clock = Clock::manual(1_000_000);
    let (one, key) = (journal(&clock), SessionKey::new("default", Id::from_bytes([7; 16])));
    let other = one.fellow();
    assert!(one.is_shared());
    assert!(matches!(one.claim(&key).await, Err(Error::Invalid { .. })), "a claim by no worker");
    let (first, second) = (one.join(spec("first")).await.unwrap(), other.join(spec("second")).await.unwrap());
    let claim = one.claim(&key).await.unwrap();
    append(&one, &key, claim.epoch, 0).await.unwrap();
    assert!(matches!(other.claim(&key).await, Err(Error::Held { by, .. }) if &*by == "first"));
    assert_eq!((one.holds(&key, claim.epoch), other.claimable(9, &[]).await.unwrap().len()), (Some(true), 0));

    clock.advance(Duration::from_millis(LEASE_MS - 1));
    other.beat(&second).await.unwrap();
    assert!(!first.lease().is_good(), "a worker trusts its lease less than who keeps it");
    assert!(matches!(other.claim(&key).await, Err(Error::Held { .. })));
    clock.advance(Duration::from_millis(1));
    assert_eq!(one.holds(&key, claim.epoch), Some(false));
    assert_eq!(other.claimable(9, &[]).await.unwrap().len(), 1, "what its driver left is found");
    let taken = other.claim(&key).await.unwrap();
    assert!(taken.epoch > claim.epoch);
    append(&other, &key, taken.epoch, 1).await.unwrap();
    assert!(matches!(append(&one, &key, claim.epoch, 1).await, Err(Error::Fenced { .. })));
    assert!(matches!(one.beat(&first).await, Err(Error::WorkerLost)));

    other.release(&key, Release { epoch: taken.epoch, folded: 2, next_ms: None }).await.unwrap();
    assert!(other.claimable(9, &[]).await.unwrap().is_empty(), "nothing is to do");
}
