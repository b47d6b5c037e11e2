//! What waits for somebody outside, over every store: calls for approval, what a run waits for, what is to be told to others.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test")]

mod support;

use domain::record::{Draft, Event, Judged, Parked, Returned};
use domain::{CallStatus, Digest, Hold, Id, Judgement, Obligation, RunStatus, Verdict, Wait, id};
use journal::{Append, Change, ContentsMode, Error, Fence, Idempotency, Journal, OutboxRow, PreparedDraft, SessionKey};
use std::sync::Arc;
use support::{
    Bench, NOW_MS, PRINCIPAL, benches, cancel, draft, finished, input, nothing, run, session, submitted, write,
};

fn call(n: u8) -> Id<id::Call> {
    Id::from_bytes([n; 16])
}

fn judged(n: u8, at_ms: u64, expires_ms: Option<u64>) -> Draft {
    let (verdict, reason) = (Verdict::Hold, "approval_needed".to_owned());
    let judgement = Judgement { verdict, policies: Vec::new(), reason, pack: "dev".to_owned() };
    let (quorum, binding, hold) = (1, Digest::ZERO, Hold::Call);
    let obligation = expires_ms.map(|expires_ms| Obligation { quorum, expires_ms, binding, hold });
    let held = obligation.is_none();
    draft(at_ms, Event::Judged(Judged { run: run(1), call: call(n), judgement, obligation, held }))
}

fn returned(n: u8, held: bool) -> Draft {
    let (status, output) = (CallStatus::Rejected, nothing());
    let (whole, code, duration_ms, changed_workspace) = (None, None, 0, false);
    let call = call(n);
    let event = Returned { run: run(1), call, status, output, whole, code, duration_ms, changed_workspace, held };
    draft(NOW_MS, Event::Returned(event))
}

async fn open_calls(journal: &Journal) -> Vec<u8> {
    let (tenant, mut found, mut after) = (Arc::from("default"), Vec::new(), None);
    loop {
        let page = journal.held(&tenant, after, 2).await.unwrap();
        found.extend(page.rows.iter().map(|row| row.call.as_bytes()[0]));
        after = page.next;
        if after.is_none() {
            return found;
        }
    }
}

#[tokio::test]
async fn held_calls_are_listed_oldest_first_until_they_are_decided() {
    for Bench { name, journal, .. } in benches(ContentsMode::Sealed).await {
        let (key, tenant): (_, Arc<str>) = (session(1), "default".into());
        write(&journal, input(&key, &submitted(run(1), 1, "maya", nothing()))).await;
        for (n, at_ms) in [(3, 30), (1, 10), (2, 20), (4, 40), (5, 50)] {
            write(&journal, input(&key, &judged(n, at_ms, Some(100)))).await;
        }
        assert_eq!(open_calls(&journal).await, [1, 2, 3, 4, 5], "{name}");
        // Judged again: until another time, but since the same.
        write(&journal, input(&key, &judged(2, 60, Some(200)))).await;
        let again = journal.held_call(&tenant, call(2)).await.unwrap().unwrap();
        assert_eq!((again.since_ms, again.expires_ms, again.is_open), (20, 200, true), "{name}");
        assert_eq!((again.run, &again.key), (run(1), &key), "{name}");
        // Decided by a judgement, by an answer, and held and decided in one entry.
        write(&journal, input(&key, &judged(1, 70, None))).await;
        write(&journal, input(&key, &returned(3, true)).draft(&returned(9, false))).await;
        write(&journal, input(&key, &judged(6, 80, Some(90))).draft(&judged(6, 80, None))).await;
        assert_eq!(open_calls(&journal).await, [2, 4, 5], "{name}");
        assert!(!journal.held_call(&tenant, call(6)).await.unwrap().unwrap().is_open, "{name}");
        assert_eq!(journal.held_of(&tenant, run(1)).await.unwrap().len(), 3, "{name}");
        assert_eq!(journal.held_of(&tenant, run(2)).await.unwrap(), [], "{name}");
        assert_eq!(journal.held(&"other".into(), None, 10).await.unwrap().rows, [], "{name}");
        let before = journal.held(&tenant, None, 10).await.unwrap();
        journal.rebuild_index().await.unwrap();
        assert_eq!(journal.held(&tenant, None, 10).await.unwrap(), before, "{name}: made anew from the records");
        let end = finished(run(1), 90, RunStatus::Cancelled);
        write(&journal, input(&key, &judged(7, 85, Some(90))).draft(&end)).await;
        assert_eq!(open_calls(&journal).await, [0; 0], "{name}: a run that ended waits for nobody");
        journal.purge(&key, PRINCIPAL).await.unwrap();
        assert_eq!(journal.held_call(&tenant, call(2)).await.unwrap(), None, "{name}");
    }
}

#[tokio::test]
async fn a_run_says_what_it_waits_for() {
    for Bench { name, journal, .. } in benches(ContentsMode::Sealed).await {
        let (key, tenant): (_, Arc<str>) = (session(1), "default".into());
        let row = async || journal.run(&tenant, run(1)).await.unwrap().unwrap();
        let parked = |waits_for, until_ms| draft(5, Event::Parked(Parked { run: run(1), waits_for, until_ms }));
        let first = submitted(run(1), 1, "maya", nothing());
        write(&journal, input(&key, &first).draft(&parked(Wait::Retry, Some(9)))).await;
        let waits = row().await;
        assert_eq!((waits.status, waits.waits_for), (RunStatus::Waiting, Some(Wait::Retry)), "{name}");
        assert_eq!(waits.waits_until_ms, Some(9), "{name}");
        write(&journal, input(&key, &parked(Wait::Resume, None))).await;
        let waits = row().await;
        assert_eq!((waits.status, waits.waits_for), (RunStatus::Paused, Some(Wait::Resume)), "{name}");
        assert_eq!(waits.waits_until_ms, None, "{name}");
        journal.rebuild_index().await.unwrap();
        assert_eq!(row().await, waits, "{name}");
        write(&journal, input(&key, &finished(run(1), 9, RunStatus::Cancelled))).await;
        assert_eq!(row().await.waits_for, None, "{name}");
    }
}

#[tokio::test]
async fn a_key_is_found_before_it_is_used_again() {
    for Bench { name, journal, .. } in benches(ContentsMode::Sealed).await {
        let tenant: Arc<str> = "default".into();
        let asked = |body: &[u8]| Idempotency {
            key: Digest::of(b"key"),
            body: Digest::of(body),
            run: run(1),
            expires_at_ms: NOW_MS + 86_400_000,
        };
        assert_eq!(journal.taken(&tenant, &asked(b"one")).await.unwrap(), None, "{name}");
        let entry = Append::new(session(1), Fence::Input(Some(asked(b"one"))));
        write(&journal, entry.draft(&submitted(run(1), 1, "maya", nothing()))).await;
        let taken = journal.taken(&tenant, &asked(b"one")).await.unwrap().unwrap();
        assert_eq!((taken.session, taken.run, taken.position), (session(1).session, run(1), 0), "{name}");
        let other = journal.taken(&tenant, &asked(b"two")).await;
        assert!(matches!(other, Err(Error::IdempotencyConflict { .. })), "{name}");
        assert_eq!(journal.taken(&"other".into(), &asked(b"one")).await.unwrap(), None, "{name}");
    }
}

/// The rows of a run, by what they tell.
async fn rows(journal: &Journal, key: &SessionKey, n: u16) -> Vec<OutboxRow> {
    journal.outbox_of(&key.tenant, run(n)).await.unwrap()
}

#[tokio::test]
async fn what_is_to_be_told_of_a_run_is_written_with_its_records() {
    for Bench { name, journal, .. } in benches(ContentsMode::Sealed).await {
        let key = session(1);
        for n in [1, 2] {
            let prepared = PreparedDraft::new(&submitted(run(n), u64::from(n), "maya", nothing()));
            let mut entry = Append::new(key.clone(), Fence::Input(None));
            // Others are told of the second only, whose end is in the same entry as its beginning.
            entry.drafts.push(if n == 1 {
                prepared
            } else {
                prepared.with(Change::Announced { run: run(2), at_ms: 2 })
            });
            write(&journal, entry.draft(&cancel(run(n))).draft(&finished(run(n), 50, RunStatus::Cancelled))).await;
        }
        assert_eq!(rows(&journal, &key, 1).await, [], "{name}");
        let told = rows(&journal, &key, 2).await;
        let kinds: Vec<_> =
            told.iter().map(|row| (row.position, row.kind.as_str(), row.next_ms, &*row.target)).collect();
        assert_eq!(kinds, [(3, "submitted", Some(2), ""), (5, "finished", Some(50), "")], "{name}");
        let due = async |until_ms| journal.outbox(until_ms, 10).await.unwrap().len();
        assert_eq!((due(1).await, due(2).await, due(50).await), (0, 1, 2), "{name}");

        // One becomes two; whoever read it before can't change it any more.
        let to =
            |target: &str, next_ms| OutboxRow { target: target.into(), next_ms, state: "{}".into(), ..told[0].clone() };
        assert!(journal.outbox_put(&told[0], vec![to("a", Some(7)), to("b", None)]).await.unwrap(), "{name}");
        assert!(!journal.outbox_put(&told[0], vec![to("c", Some(7))]).await.unwrap(), "{name}");
        assert_eq!((due(6).await, due(7).await), (0, 1), "{name}");
        let spread = rows(&journal, &key, 2).await;
        let targets: Vec<_> = spread.iter().map(|row| (row.position, &*row.target, &*row.state, row.version)).collect();
        assert_eq!(targets, [(3, "a", "{}", 1), (3, "b", "{}", 1), (5, "", "", 0)], "{name}");
        // A change in place, of two that race.
        let done = || vec![OutboxRow { next_ms: None, ..spread[0].clone() }];
        let (one, other) = tokio::join!(journal.outbox_put(&spread[0], done()), journal.outbox_put(&spread[0], done()));
        assert_ne!(one.unwrap(), other.unwrap(), "{name}");
        let elsewhere = OutboxRow { position: 9, ..spread[0].clone() };
        assert!(matches!(journal.outbox_put(&spread[0], vec![elsewhere]).await, Err(Error::Invalid { .. })), "{name}");

        journal.rebuild_index().await.unwrap();
        assert_eq!(rows(&journal, &key, 2).await.len(), 3, "{name}: what was told is not told again");
        journal.purge(&key, PRINCIPAL).await.unwrap();
        assert_eq!((rows(&journal, &key, 2).await.len(), due(u64::MAX).await), (0, 0), "{name}");
    }
}
