//! Workers, their leases, takeover, fencing, fairness.

use crate::support::postgres::{connect, database};
use crate::support::{NOW_MS, assert_intact, cancel, effect, input, run, session, write};
use crate::{join, open};
use domain::Id;
use journal::{Error, Journal, Release, SessionKey, Worker};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use stdx::{Clock, Random};

fn held(error: &Error) -> &str {
    match error {
        Error::Held { by, .. } => by,
        other => panic!("{other}"),
    }
}

/// Lets a worker's lease run out now, by the only clock that counts.
async fn expire(url: &str, worker: &Worker) {
    let sql = format!("UPDATE public.workers SET until_ms = 0 WHERE id = {}", worker.id());
    connect(url).await.batch_execute(&sql).await.unwrap();
}

#[tokio::test]
async fn a_dead_workers_session_is_taken_and_its_late_append_refused() {
    let Some(url) = database().await else { return };
    // Clocks of the workers are days apart; only the database's decides.
    let (ahead, behind) = (Clock::manual(NOW_MS + 3 * 86_400_000), Clock::manual(1_000));
    let (first, second) = (open(&url, &ahead).await, open(&url, &behind).await);
    let key = session(1);
    write(&first, input(&key, &cancel(run(1)))).await;
    let (dying, heir) = (join(&first, "dying").await, join(&second, "heir").await);
    let epoch = first.claim(&key).await.unwrap().epoch;
    write(&first, effect(&key, epoch, 1, &cancel(run(2)))).await;
    assert_eq!(held(&second.claim(&key).await.unwrap_err()), "dying");
    assert_eq!(second.claimable(9, &[]).await.unwrap(), [], "what a live worker holds is not offered");
    assert!(dying.lease().is_good());

    // It is stopped for longer than its lease.
    expire(&url, &dying).await;
    ahead.advance(Duration::from_millis(60_000));
    let ready = second.claimable(9, &[]).await.unwrap();
    assert_eq!(ready.iter().map(|ready| &ready.key).collect::<Vec<_>>(), [&key]);
    let taken = second.claim(&key).await.unwrap().epoch;
    assert!(taken > epoch);
    assert!(!dying.lease().is_good(), "it sees that its time is over before it acts");
    assert_eq!(first.append(effect(&key, epoch, 2, &cancel(run(3)))).await.unwrap_err().code(), "journal_fenced");
    assert_eq!(first.beat(&dying).await.unwrap_err().code(), "worker_lost");
    assert_eq!(first.claim(&session(2)).await.unwrap_err().code(), "worker_lost");
    first.release(&key, Release { epoch, folded: 9, next_ms: None }).await.unwrap();
    write(&second, effect(&key, taken, 2, &cancel(run(4)))).await;
    assert_eq!(held(&claim_by_third(&url, &key).await), "heir", "a release of a claim that is over changes nothing");
    assert_intact(&second, &key, 3).await;

    // It comes back as another.
    let again = join(&first, "again").await;
    assert!(again.id() > heir.id() && again.lease().is_good());
    second.leave(&heir).await.unwrap();
    assert!(first.claim(&key).await.unwrap().epoch > taken);
}

async fn claim_by_third(url: &str, key: &SessionKey) -> Error {
    let third = open(url, &Clock::manual(NOW_MS)).await;
    join(&third, "third").await;
    third.claim(key).await.unwrap_err()
}

#[tokio::test]
async fn a_late_beat_saves_what_nobody_has_taken() {
    let Some(url) = database().await else { return };
    let clock = Clock::manual(NOW_MS);
    let journal = open(&url, &clock).await;
    let worker = join(&journal, "slow").await;
    let epoch = journal.claim(&session(1)).await.unwrap().epoch;
    expire(&url, &worker).await;
    clock.advance(Duration::from_millis(54_000));
    assert!(!worker.lease().is_good(), "a tenth before its end in the database");
    journal.beat(&worker).await.unwrap();
    assert!(worker.lease().is_good());
    write(&journal, effect(&session(1), epoch, 0, &cancel(run(1)))).await;
}

#[tokio::test]
async fn of_many_who_claim_one_wins() {
    let Some(url) = database().await else { return };
    let mut journals = Vec::new();
    for n in 0..6 {
        let journal = open(&url, &Clock::manual(NOW_MS)).await;
        join(&journal, &format!("w{n}")).await;
        journals.push(journal);
    }
    for n in 0..20 {
        let key = session(n);
        let claims = futures::future::join_all(journals.iter().map(|journal| journal.claim(&key))).await;
        let codes: Vec<_> = claims.iter().filter_map(|claim| claim.as_ref().err()).map(Error::code).collect();
        assert_eq!(codes, ["session_held"; 5], "session {n}");
    }
}

/// Workers with short leases that pause at random, over few sessions: takeovers all the time. Each writes who wrote under
/// which epoch; at the end no log has a record of a lower epoch after one of a higher, and every chain verifies.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_stale_is_written_after_a_takeover() {
    const WORKERS: u64 = 6;
    const SESSIONS: u8 = 3;
    const LEASE_MS: u64 = 60;
    const APPENDS: usize = 120;
    let Some(url) = database().await else { return };
    let mut workers = tokio::task::JoinSet::new();
    for seed in 0..WORKERS {
        let journal = open(&url, &Clock::system()).await;
        workers.spawn(async move { race(journal, seed, SESSIONS, LEASE_MS, APPENDS).await });
    }
    let (mut written, mut fenced, mut takeovers) = (Vec::new(), 0, 0);
    for done in workers.join_all().await {
        written.extend(done.written);
        fenced += done.fenced;
        takeovers += done.claims;
    }
    let check = open(&url, &Clock::system()).await;
    for n in 0..SESSIONS {
        let key = session(n);
        let mut found: Vec<_> = written.iter().filter(|(of, ..)| *of == n).collect();
        found.sort_by_key(|(_, position, _)| *position);
        let positions: Vec<_> = found.iter().map(|(_, position, _)| *position).collect();
        assert_eq!(positions, (0..found.len() as u64).collect::<Vec<_>>(), "every acknowledged record, each once");
        assert!(found.is_sorted_by_key(|(.., epoch)| *epoch), "session {n}: a stale record after a takeover");
        assert_intact(&check, &key, found.len() as u64).await;
    }
    assert!(takeovers > SESSIONS.into() && fenced > 0, "{takeovers} claims, {fenced} fenced: nobody raced");
}

#[derive(Default)]
struct Raced {
    /// Session, position, epoch.
    written: Vec<(u8, u64, u64)>,
    fenced: u64,
    claims: u64,
}

async fn race(journal: Journal, seed: u64, sessions: u8, lease_ms: u64, appends: usize) -> Raced {
    let random = Random::seeded(seed);
    let spec = |n: u64| journal::WorkerSpec { name: format!("w{seed}-{n}"), lease_ms };
    let mut worker = journal.join(spec(0)).await.unwrap();
    let mut raced = Raced::default();
    let mut lives = 0;
    while raced.written.len() < appends {
        let n = random.below(sessions.into()) as u8;
        let key = session(n);
        let epoch = match journal.claim(&key).await {
            Ok(claim) => claim.epoch,
            Err(Error::Held { .. }) => {
                // Others find out when their time is over.
                journal.claimable(1, &[]).await.unwrap();
                continue;
            }
            Err(Error::WorkerLost) => {
                lives += 1;
                worker = journal.join(spec(lives)).await.unwrap();
                continue;
            }
            Err(error) => panic!("{error}"),
        };
        raced.claims += 1;
        let mut position = journal.head(&key).await.unwrap().position;
        for _ in 0..random.below(12) {
            if random.below(6) == 0 {
                // Stopped for longer than its lease, and not aware of it.
                tokio::time::sleep(Duration::from_millis(lease_ms + random.below(lease_ms))).await;
            } else if random.below(3) == 0 && journal.beat(&worker).await.is_err() {
                lives += 1;
                worker = journal.join(spec(lives)).await.unwrap();
            }
            match journal.append(effect(&key, epoch, position, &cancel(run(1)))).await {
                Ok(appended) => {
                    let written = appended.written().unwrap();
                    raced.written.push((n, written.first_position, epoch));
                    position = written.next_position();
                }
                Err(Error::Fenced { .. }) => {
                    raced.fenced += 1;
                    break;
                }
                Err(error) => panic!("{error}"),
            }
        }
        if random.below(2) == 0 {
            journal.release(&key, Release { epoch, folded: position, next_ms: None }).await.unwrap();
        }
    }
    raced
}

#[tokio::test]
async fn a_flood_of_one_tenant_does_not_starve_another() {
    let Some(url) = database().await else { return };
    let journal = open(&url, &Clock::manual(NOW_MS)).await;
    let key = |tenant: &str, n: u8| SessionKey::new(tenant, Id::from_bytes([n; 16]));
    for n in 0..40 {
        write(&journal, input(&key("flood", n), &cancel(run(1)))).await;
    }
    for n in 0..2 {
        write(&journal, input(&key("calm", n), &cancel(run(1)))).await;
        write(&journal, input(&key("third", n), &cancel(run(1)))).await;
    }
    let tenants = async |rows_max, busy: &[&str]| {
        let busy: Vec<Arc<str>> = busy.iter().map(|tenant| (*tenant).into()).collect();
        let mut of: BTreeMap<String, usize> = BTreeMap::new();
        for ready in journal.claimable(rows_max, &busy).await.unwrap() {
            *of.entry(ready.key.tenant.to_string()).or_default() += 1;
        }
        of.into_iter().map(|(tenant, count)| format!("{tenant} {count}")).collect::<Vec<_>>().join(", ")
    };
    for (rows_max, busy, expected) in [
        (3, &[][..], "calm 1, flood 1, third 1"),
        (6, &[], "calm 2, flood 2, third 2"),
        (10, &[], "calm 2, flood 6, third 2"),
        (100, &[], "calm 2, flood 40, third 2"),
        (5, &["flood"], "calm 2, third 2"),
        (5, &["flood", "calm", "third"], ""),
        (0, &[], ""),
    ] {
        assert_eq!(tenants(rows_max, busy).await, expected, "{rows_max} without {busy:?}");
    }
    // Among one tenant's, who has waited longest comes first.
    let sessions: Vec<_> = journal.claimable(5, &["calm".into(), "third".into()]).await.unwrap();
    assert_eq!(
        sessions.into_iter().map(|ready| ready.key).collect::<Vec<_>>(),
        (0..5).map(|n| key("flood", n)).collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn what_is_claimed_is_found_again_when_its_driver_dies() {
    let Some(url) = database().await else { return };
    let journal = open(&url, &Clock::manual(NOW_MS)).await;
    let worker = join(&journal, "w").await;
    // Nobody asked for anything: claimed by hand.
    let key = session(1);
    journal.claim(&key).await.unwrap();
    journal.leave(&worker).await.unwrap();
    assert_eq!(journal.claimable(9, &[]).await.unwrap()[0].key, key);
    assert_eq!(journal.claim(&key).await.unwrap_err().code(), "journal_invalid", "nobody has joined");
}

#[tokio::test]
async fn a_failed_driver_is_followed_when_it_said_by_whatever_clock() {
    let Some(url) = database().await else { return };
    // This process's clock is years behind the database's.
    let journal = open(&url, &Clock::manual(NOW_MS)).await;
    join(&journal, "behind").await;
    let key = session(1);
    write(&journal, input(&key, &cancel(run(1)))).await;
    for (next_ms, ready) in [(NOW_MS, true), (NOW_MS + 3_600_000, false)] {
        let epoch = journal.claim(&key).await.unwrap().epoch;
        journal.release(&key, Release { epoch, folded: u64::MAX, next_ms: Some(next_ms) }).await.unwrap();
        assert_eq!(!journal.claimable(1, &[]).await.unwrap().is_empty(), ready, "{next_ms}");
    }
    // What comes then is not made to wait.
    write(&journal, input(&key, &cancel(run(2)))).await;
    assert_eq!(journal.claimable(1, &[]).await.unwrap().len(), 1);
    let epoch = journal.claim(&key).await.unwrap().epoch;
    journal.release(&key, Release { epoch, folded: 2, next_ms: None }).await.unwrap();
    assert!(journal.claimable(1, &[]).await.unwrap().is_empty());
}
