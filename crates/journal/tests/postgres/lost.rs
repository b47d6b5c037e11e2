//! Answers that get lost: what was acknowledged is there, what is there is there once, and what is told is true.

use crate::proxy::{Fate, Proxy};
use crate::support::postgres::{connect, database};
use crate::support::{NOW_MS, assert_intact, cancel, effect, input, run, session, write};
use crate::{open, port};
use domain::Digest;
use futures::future::join_all;
use journal::{Append, Appended, Fence, Idempotency, Journal, SessionKey};
use std::collections::BTreeMap;
use stdx::Clock;

fn keyed(key: &SessionKey, n: u8) -> Append {
    let idempotency = Idempotency { key: Digest([n; 32]), body: Digest([1; 32]), run: run(9), expires_at_ms: u64::MAX };
    Append::new(key.clone(), Fence::Input(Some(idempotency))).draft(&cancel(run(9)))
}

/// How often each run's cancel is in the log.
async fn counts(journal: &Journal, key: &SessionKey) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    let mut from = 0;
    loop {
        let records = journal.records(key, from, 1_000).await.unwrap();
        let Some(last) = records.last() else { return counts };
        from = last.position + 1;
        for record in &records {
            *counts.entry(record.decode().unwrap().event.run().to_string()).or_default() += 1;
        }
    }
}

#[tokio::test]
async fn an_append_whose_answer_got_lost_is_written_once() {
    let Some(url) = database().await else { return };
    let proxy = Proxy::to(port(&url)).await;
    let through = url.replace(&port(&url).to_string(), &proxy.port.to_string());
    let journal = open(&through, &Clock::manual(NOW_MS)).await;
    let key = session(1);
    write(&journal, input(&key, &cancel(run(1)))).await;
    let mut next = 1;
    for (n, fate) in [Fate::SwallowAnswer, Fate::SwallowRequest, Fate::SwallowAnswer].into_iter().enumerate() {
        let entries = [
            input(&key, &cancel(run(7))).draft(&cancel(run(8))),
            effect(&key, 5, next + 2, &cancel(run(6))),
            keyed(&key, n as u8),
        ];
        for entry in entries {
            // What is sent next is the append itself: its statement is prepared, its head is known.
            let warm = entry.clone();
            let length = warm.drafts.len() as u64;
            journal.health();
            proxy.set(fate);
            let appended = journal.append(entry).await.unwrap();
            assert!(proxy.passes(), "{fate:?}: nothing was cut");
            let written = appended.written().unwrap_or_else(|| panic!("{fate:?}: {appended:?}"));
            assert_eq!((written.first_position, written.next_position()), (next, next + length), "{fate:?}");
            assert!(written.commit_id > 0);
            next += length;
        }
        let again = journal.append(keyed(&key, n as u8)).await.unwrap();
        assert!(matches!(again, Appended::Existing(_)), "{again:?}");
        assert_intact(&journal, &key, next).await;
    }
    assert!(journal.health().error.is_none());
}

#[tokio::test]
async fn a_driver_that_was_told_nothing_hands_its_entry_in_again() {
    let Some(url) = database().await else { return };
    let (journal, other) = (open(&url, &Clock::manual(NOW_MS)).await, open(&url, &Clock::manual(NOW_MS)).await);
    let key = session(1);
    let entry = || effect(&key, 5, 0, &cancel(run(1))).draft(&cancel(run(2)));
    let first = write(&journal, entry()).await;
    write(&other, input(&key, &cancel(run(3)))).await;
    assert_eq!(write(&journal, entry()).await, first);
    assert_eq!(write(&other, entry()).await, first);
    let another = effect(&key, 5, 0, &cancel(run(4)));
    assert_eq!(journal.append(another).await.unwrap_err().code(), "journal_moved");
    let stale = effect(&key, 4, 0, &cancel(run(1))).draft(&cancel(run(2)));
    assert_eq!(journal.append(stale).await.unwrap_err().code(), "journal_fenced");
    assert_intact(&journal, &key, 3).await;
}

/// The server's side of every connection is killed again and again while entries are appended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_connections_lose_and_repeat_nothing() {
    const WRITERS: u16 = 8;
    const ENTRIES: u16 = 40;
    let Some(url) = database().await else { return };
    let journal = open(&url, &Clock::manual(NOW_MS)).await;
    let admin = connect(&url).await;
    let killer = tokio::spawn(async move {
        let mut killed = 0i64;
        loop {
            let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                       WHERE datname = current_database() AND application_name = 'topside' AND state = 'active'";
            killed += admin.query_one(sql, &[]).await.unwrap().get::<_, i64>(0);
            if killed >= 60 {
                return killed;
            }
        }
    });
    let writers = (0..WRITERS).map(|writer| {
        let journal = journal.clone();
        async move {
            // Two writers to a session.
            let key = session((writer / 2) as u8);
            let mut acknowledged = Vec::new();
            for n in 0..ENTRIES {
                let id = run(1_000 * writer + n);
                if journal.append(input(&key, &cancel(id))).await.is_ok() {
                    acknowledged.push((key.clone(), id.to_string()));
                }
            }
            acknowledged
        }
    });
    let acknowledged: Vec<_> = join_all(writers).await.into_iter().flatten().collect();
    killer.abort();
    let killed = killer.await;
    assert!(acknowledged.len() > usize::from(WRITERS * ENTRIES) / 2, "{} got through, {killed:?}", acknowledged.len());
    let check = open(&url, &Clock::manual(NOW_MS)).await;
    for n in 0..WRITERS / 2 {
        let key = session(n as u8);
        let counts = counts(&check, &key).await;
        assert!(counts.values().all(|count| *count == 1), "session {n}: something is there twice: {counts:?}");
        for (_, id) in acknowledged.iter().filter(|(of, _)| *of == key) {
            assert!(counts.contains_key(id), "session {n}: {id} was acknowledged and is not there");
        }
        assert_intact(&check, &key, counts.len() as u64).await;
    }
}

#[tokio::test]
async fn a_database_that_is_away_is_told_and_found_again() {
    let Some(url) = database().await else { return };
    let proxy = Proxy::to(port(&url)).await;
    let through = url.replace(&port(&url).to_string(), &proxy.port.to_string());
    let journal = open(&through, &Clock::manual(NOW_MS)).await;
    let key = session(1);
    write(&journal, input(&key, &cancel(run(1)))).await;
    proxy.set(Fate::Closed);
    assert_eq!(journal.head(&key).await.unwrap_err().code(), "database_unreachable");
    assert_eq!(journal.health().error.unwrap().code(), "database_unreachable");
    // An entry waits for it for a while.
    let waiting = journal.append(input(&key, &cancel(run(2))));
    let back = async {
        while journal.health().queued_entries == 0 {
            tokio::task::yield_now().await;
        }
        proxy.set(Fate::Pass);
    };
    let (appended, ()) = tokio::join!(waiting, back);
    assert_eq!(appended.unwrap().written().unwrap().first_position, 1);
    assert!(journal.health().error.is_none());

    // Without any traffic, it is looked after.
    proxy.set(Fate::Closed);
    journal.head(&key).await.unwrap_err();
    proxy.set(Fate::Pass);
    let mut ticks = tokio::time::interval(std::time::Duration::from_millis(20));
    while journal.health().error.is_some() {
        ticks.tick().await;
    }
    assert_intact(&journal, &key, 2).await;
}
