//! News between processes, and what one process learns of another's doing.

use crate::open;
use crate::support::postgres::{connect, database};
use crate::support::{NOW_MS, cancel, input, keep, run, session, write};
use journal::Content;
use journal::hints::{Hints, Told};
use stdx::Clock;

/// The next hint; what may have been lost is skipped.
async fn hint(hints: &mut Hints) -> (journal::SessionKey, u64) {
    loop {
        match hints.next().await {
            Some(Told::Hint(hint)) => return (hint.key, hint.next_position),
            Some(Told::Lagged { .. }) => {}
            None => panic!("closed"),
        }
    }
}

async fn lagged(hints: &mut Hints) {
    while !matches!(hints.next().await, Some(Told::Lagged { .. })) {}
}

#[tokio::test]
async fn what_one_process_writes_another_hears() {
    let Some(url) = database().await else { return };
    let clock = Clock::manual(NOW_MS);
    let listening = open(&url, &clock).await;
    let (mut one, mut all) = (listening.subscribe(&session(1)).unwrap(), listening.subscribe_all().unwrap());
    // Told when it begins to listen: what was before may have been missed.
    lagged(&mut all).await;
    let writing = open(&url, &clock).await;
    write(&writing, input(&session(2), &cancel(run(1)))).await;
    assert_eq!(hint(&mut all).await, (session(2), 1));
    for n in 1..=3 {
        write(&writing, input(&session(1), &cancel(run(1)))).await;
        assert_eq!(hint(&mut one).await, (session(1), n));
    }
    // One's own writes are heard once, with their records.
    let mut own = writing.subscribe(&session(3)).unwrap();
    write(&writing, input(&session(3), &cancel(run(1)))).await;
    let Some(Told::Hint(first)) = own.next().await else { panic!("no hint") };
    assert_eq!((first.next_position, first.records.len()), (1, 1));
    while hint(&mut all).await.0 != session(3) {}

    // The listener is cut off: everybody is told to look, and then hears again.
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
               WHERE datname = current_database() AND query = 'LISTEN topside'";
    assert!(!connect(&url).await.query(cut, &[]).await.unwrap().is_empty());
    lagged(&mut one).await;
    lagged(&mut one).await;
    write(&writing, input(&session(1), &cancel(run(1)))).await;
    assert_eq!(hint(&mut one).await, (session(1), 4));
    listening.close().await.unwrap();
    assert!(one.next().await.is_none());
}

#[tokio::test]
async fn an_erasure_of_another_process_holds_here() {
    let Some(url) = database().await else { return };
    let clock = Clock::manual(NOW_MS);
    let (here, there) = (open(&url, &clock).await, open(&url, &clock).await);
    let key = session(1);
    let before = keep(&here, &key, "text/plain", b"before").await;
    assert!(there.content(&key, &before).await.unwrap() == Content::Bytes(b"before".to_vec()));
    let sealer = here.sealer(&key).await.unwrap();
    there.erase_session(&key).await.unwrap();
    assert!(here.content(&key, &before).await.unwrap() == Content::Erased);
    let (_, stale) = sealer.seal("text/plain", b"stale").unwrap();
    let refused = here.append(input(&key, &cancel(run(1))).content(stale)).await.unwrap_err();
    assert_eq!(refused.code(), "journal_data_key_changed");
    // Both go on under one new key.
    let after = keep(&there, &key, "text/plain", b"after").await;
    assert!(here.content(&key, &after).await.unwrap() == Content::Bytes(b"after".to_vec()));
    let more = keep(&here, &key, "text/plain", b"more").await;
    assert!(there.content(&key, &more).await.unwrap() == Content::Bytes(b"more".to_vec()));

    // One that still has the old key at hand finds the new one.
    there.erase_session(&key).await.unwrap();
    let last = keep(&there, &key, "text/plain", b"last").await;
    assert!(here.content(&key, &last).await.unwrap() == Content::Bytes(b"last".to_vec()));
}

#[tokio::test]
async fn first_contents_of_two_processes_share_one_data_key() {
    let Some(url) = database().await else { return };
    let clock = Clock::manual(NOW_MS);
    let (here, there) = (open(&url, &clock).await, open(&url, &clock).await);
    let key = session(1);
    let (ours, theirs) = (here.sealer(&key).await.unwrap(), there.sealer(&key).await.unwrap());
    let (kept, item) = ours.seal("text/plain", b"ours").unwrap();
    write(&here, input(&key, &cancel(run(1))).content(item)).await;
    let (_, item) = theirs.seal("text/plain", b"theirs").unwrap();
    let refused = there.append(input(&key, &cancel(run(1))).content(item)).await.unwrap_err();
    assert_eq!(refused.code(), "journal_data_key_changed");
    let theirs = keep(&there, &key, "text/plain", b"theirs").await;
    for (content, plain) in [(&kept, &b"ours"[..]), (&theirs, b"theirs")] {
        for journal in [&here, &there] {
            assert!(journal.content(&key, content).await.unwrap() == Content::Bytes(plain.to_vec()));
        }
    }
}

#[tokio::test]
async fn a_quarantine_of_another_process_holds_here() {
    let Some(url) = database().await else { return };
    let clock = Clock::manual(NOW_MS);
    let (here, there) = (open(&url, &clock).await, open(&url, &clock).await);
    let key = session(1);
    write(&here, input(&key, &cancel(run(1)))).await;
    there.quarantine(&key, "looked odd", crate::support::PRINCIPAL).await.unwrap();
    let refused = here.append(input(&key, &cancel(run(2)))).await.unwrap_err();
    assert!(refused.to_string().contains("looked odd"), "{refused}");
    assert_eq!(here.claimable(9, &[]).await.unwrap(), []);
    assert!(there.release_quarantine(&key).await.unwrap());
    write(&here, input(&key, &cancel(run(2)))).await;
    assert_eq!(here.claimable(9, &[]).await.unwrap().len(), 1);
}
