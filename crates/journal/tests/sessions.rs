//! The contract about whole sessions, run over every store: deleted, put aside, over, taken up; and entries that are
//! handed in again.

#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use domain::record::{ArtifactSaved, Checkpointed, Event, Forked, Parked, Resumed, Snapshot};
use domain::{Digest, Id, RunStatus, Wait};
use journal::query::UnfinishedCursor;
use journal::{
    Append, Appended, Content, ContentsMode, Fence, INLINE_BYTES_MAX, Idempotency, Journal, RunFilter, SessionKey,
    Verified,
};
use std::sync::Arc;
use support::{
    Bench, NOW_MS, PRINCIPAL, assert_intact, benches, cancel, draft, effect, finished, input, keep, nothing, run,
    session, submitted, write,
};

fn snapshot(object: &str) -> Snapshot {
    Snapshot {
        checkpoint: Id::from_bytes([5; 16]),
        form: "tar".to_owned(),
        object: object.to_owned(),
        digest: Digest::ZERO,
        bytes: 1,
        entries: 1,
    }
}

fn checkpointed(n: u16, object: &str) -> domain::record::Draft {
    draft(
        NOW_MS,
        Event::Checkpointed(Checkpointed { run: run(n), turn: 1, snapshot: Some(snapshot(object)), reason: None }),
    )
}

fn forked(from: &SessionKey, n: u16, object: &str) -> domain::record::Draft {
    let forked = Forked {
        run: run(n),
        session: from.session,
        position: 3,
        head: Digest::ZERO,
        history: nothing(),
        agent: "maya".to_owned(),
        checkpoint: Some(snapshot(object)),
        session_name: None,
        model: None,
        provider: None,
    };
    draft(NOW_MS, Event::Forked(forked))
}

fn artifact(n: u8, object: &str) -> domain::record::Draft {
    let saved = ArtifactSaved {
        run: run(n.into()),
        artifact: Id::from_bytes([n; 16]),
        name: nothing(),
        media: "text/plain".to_owned(),
        bytes: 5,
        object: object.to_owned(),
    };
    draft(NOW_MS, Event::ArtifactSaved(saved))
}

/// A session with one of everything, its run at its end.
async fn whole_session(Bench { journal, objects, .. }: &Bench, n: u8) -> SessionKey {
    let key = session(n);
    let idempotency = Digest([n; 32]);
    let mut asked = submitted(run(n.into()), 10, "maya", nothing());
    if let Event::Submitted(body) = &mut asked.event {
        body.idempotency = Some(idempotency);
    }
    write(journal, keyed(&key, idempotency, n).draft(&asked)).await;
    keep(journal, &key, "text/plain", b"small").await;
    keep(journal, &key, "text/plain", &vec![1; INLINE_BYTES_MAX + 1]).await;
    write(journal, input(&key, &artifact(n, &format!("outputs/{n}")))).await;
    write(journal, input(&key, &checkpointed(n.into(), &format!("checkpoints/{n}")))).await;
    write(journal, effect(&key, 7, 5, &finished(run(n.into()), 60, RunStatus::Completed))).await;
    for name in [format!("outputs/{n}"), format!("checkpoints/{n}")] {
        journal::Objects::put(objects, &name, vec![1]).await.unwrap();
    }
    key
}

fn keyed(key: &SessionKey, idempotency: Digest, n: u8) -> Append {
    let body = Digest([0; 32]);
    let asked = Idempotency { key: idempotency, body, run: run(n.into()), expires_at_ms: NOW_MS * 2 };
    Append::new(key.clone(), Fence::Input(Some(asked)))
}

#[tokio::test]
async fn a_deleted_session_leaves_a_tombstone_and_nothing_else() {
    for bench in benches(ContentsMode::Sealed).await {
        let Bench { name, journal, objects, .. } = &bench;
        let (key, other, tenant): (_, _, Arc<str>) =
            (whole_session(&bench, 1).await, whole_session(&bench, 2).await, "default".into());
        // A fork goes on from the first one's checkpoint.
        write(journal, input(&session(3), &forked(&key, 1, "checkpoints/1"))).await;
        let content = keep(journal, &key, "text/plain", b"late").await;
        let head = journal.head(&key).await.unwrap();

        let tombstone = journal.purge(&key, PRINCIPAL).await.unwrap().unwrap();
        assert_eq!((tombstone.records, tombstone.head_hash), (head.position, head.hash), "{name}");
        assert_eq!((tombstone.purged_ms, tombstone.principal), (NOW_MS, PRINCIPAL), "{name}");
        assert_eq!(
            journal.tombstones(&tenant, None, 9).await.unwrap().rows,
            std::slice::from_ref(&tombstone),
            "{name}"
        );
        assert_eq!(journal.purge(&key, PRINCIPAL).await.unwrap(), None, "{name}: twice");
        assert_eq!(journal.records(&key, 0, 9).await.unwrap(), [], "{name}");
        assert!(journal.content(&key, &content).await.unwrap() == Content::Erased, "{name}");
        assert_eq!(journal.session(&key).await.unwrap(), None, "{name}");
        assert_eq!(journal.run(&tenant, run(1)).await.unwrap(), None, "{name}");
        assert_eq!(journal.artifacts(&tenant, run(1)).await.unwrap(), [], "{name}");
        let kept: Vec<_> = objects.keys().into_iter().filter(|key| !key.starts_with("contents/")).collect();
        assert_eq!(kept, ["checkpoints/1", "checkpoints/2", "outputs/2"], "{name}: the fork's checkpoint stays");
        assert_eq!(objects.keys().len(), 4, "{name}: the other session's large content stays");
        assert_intact(journal, &other, 6).await;

        // Whoever drove it is fenced, whatever it expects; the key of its request is free, and so is its name.
        for expect in [0, head.position] {
            let late = journal.append(effect(&key, 7, expect, &cancel(run(1)))).await.unwrap_err();
            assert_eq!(late.code(), "journal_fenced", "{name}");
        }
        let again = keyed(&key, Digest([1; 32]), 4).draft(&submitted(run(4), 80, "maya", nothing()));
        assert_eq!(write(journal, again).await.first_position, 0, "{name}");
        let epoch = tombstone.epoch;
        write(journal, effect(&key, epoch, 1, &finished(run(4), 90, RunStatus::Failed))).await;
        assert_intact(journal, &key, 2).await;

        journal.purge(&session(3), PRINCIPAL).await.unwrap().unwrap();
        assert!(!objects.keys().contains(&"checkpoints/1".to_owned()), "{name}: nobody goes on from it any more");
        let second = journal.purge(&key, PRINCIPAL).await.unwrap().unwrap();
        assert!(second.epoch > epoch, "{name}");
        let all = journal.tombstones(&tenant, None, 2).await.unwrap();
        let rest = journal.tombstones(&tenant, all.next, 2).await.unwrap();
        let sessions: Vec<_> = all.rows.iter().chain(&rest.rows).map(|row| row.key.session).collect();
        assert_eq!(sessions, [key.session, key.session, session(3).session], "{name}");
        assert_eq!(journal.sweep().await.unwrap(), 0, "{name}");
    }
}

#[tokio::test]
async fn a_session_with_a_run_under_way_is_not_deleted() {
    for Bench { name, journal, .. } in benches(ContentsMode::Sealed).await {
        let key = session(1);
        write(&journal, input(&key, &submitted(run(1), 10, "maya", nothing()))).await;
        assert_eq!(journal.purge(&key, PRINCIPAL).await.unwrap_err().code(), "session_unended", "{name}");
        assert_intact(&journal, &key, 1).await;
        let parked = Parked { run: run(1), waits_for: Wait::Retry, until_ms: Some(50) };
        write(&journal, effect(&key, 1, 1, &draft(20, Event::Parked(parked)))).await;
        let found =
            async || (journal.unfinished(None, 9).await.unwrap().rows.len(), journal.due(50, 9).await.unwrap().len());
        assert_eq!(found().await, (1, 1), "{name}");
        journal.quarantine(&key, "stuck", PRINCIPAL).await.unwrap();
        assert_eq!(found().await, (0, 0), "{name}: nobody takes it up");
        assert!(journal.purge(&key, PRINCIPAL).await.unwrap().is_some(), "{name}");
        assert_eq!(journal.quarantined(&key).await.unwrap(), None, "{name}");
        assert_eq!(journal.unfinished(None, 9).await.unwrap().rows, [], "{name}");
    }
}

#[tokio::test]
async fn nothing_is_appended_to_a_session_in_quarantine() {
    for Bench { name, journal, .. } in benches(ContentsMode::Sealed).await {
        let key = session(1);
        write(&journal, input(&key, &submitted(run(1), 10, "maya", nothing()))).await;
        write(&journal, effect(&key, 5, 1, &cancel(run(1)))).await;
        journal.quarantine(&key, &"ä".repeat(5_000), PRINCIPAL).await.unwrap();
        journal.quarantine(&key, "another reason", PRINCIPAL).await.unwrap();
        for entry in [
            input(&key, &cancel(run(1))),
            keyed(&key, Digest([1; 32]), 1).draft(&cancel(run(1))),
            effect(&key, 5, 2, &cancel(run(1))),
            effect(&key, 4, 2, &cancel(run(1))),
        ] {
            assert_eq!(journal.append(entry).await.unwrap_err().code(), "session_quarantined", "{name}");
        }
        write(&journal, input(&session(2), &cancel(run(2)))).await;
        assert!(journal.health().error.is_none(), "{name}: one session says nothing of the journal");
        assert_intact(&journal, &key, 2).await;
        assert_eq!(journal.records(&key, 0, 9).await.unwrap().len(), 2, "{name}: it can be read");
        let quarantine = journal.quarantined(&key).await.unwrap().unwrap();
        assert_eq!((&quarantine.key, quarantine.since_ms, quarantine.principal), (&key, NOW_MS, PRINCIPAL), "{name}");
        assert_eq!(quarantine.reason, "ä".repeat(512), "{name}: the first reason, cut");
        journal.quarantine(&session(2), "second", PRINCIPAL).await.unwrap();
        let first = journal.quarantines(None, 1).await.unwrap();
        assert_eq!(first.rows, [quarantine], "{name}");
        let rest = journal.quarantines(first.next.as_ref(), 1).await.unwrap();
        assert_eq!((rest.rows[0].key.clone(), rest.next), (session(2), None), "{name}");

        assert!(journal.release_quarantine(&key).await.unwrap(), "{name}");
        assert!(!journal.release_quarantine(&key).await.unwrap(), "{name}: twice");
        write(&journal, effect(&key, 5, 2, &cancel(run(1)))).await;
        assert_intact(&journal, &key, 3).await;
    }
}

async fn all_expired(journal: &Journal, before_ms: u64, rows_max: usize) -> Vec<SessionKey> {
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let page = journal.expired(before_ms, after.as_ref(), rows_max).await.unwrap();
        assert!(page.rows.len() <= rows_max);
        found.extend(page.rows);
        after = page.next;
        if after.is_none() {
            return found;
        }
    }
}

#[tokio::test]
async fn sessions_whose_time_is_over_are_found() {
    for Bench { name, journal, .. } in benches(ContentsMode::Sealed).await {
        // Session n ended at n × 100; one goes on, one is in quarantine.
        for n in 1..=9u8 {
            write(&journal, input(&session(n), &submitted(run(n.into()), 1, "maya", nothing()))).await;
            if n != 4 {
                let end = finished(run(n.into()), u64::from(n) * 100, RunStatus::Completed);
                write(&journal, effect(&session(n), 1, 1, &end)).await;
            }
        }
        write(&journal, input(&session(2), &submitted(run(20), 2, "maya", nothing()))).await;
        journal.quarantine(&session(3), "look at it", PRINCIPAL).await.unwrap();
        for (before_ms, wanted) in
            [(100, vec![]), (101, vec![1]), (600, vec![1, 5]), (u64::MAX, vec![1, 5, 6, 7, 8, 9])]
        {
            for rows_max in [1, 2, 100] {
                let wanted: Vec<_> = wanted.iter().copied().map(session).collect();
                assert_eq!(all_expired(&journal, before_ms, rows_max).await, wanted, "{name}: before {before_ms}");
            }
        }
    }
}

#[tokio::test]
async fn unfinished_runs_are_listed_in_pages() {
    for Bench { name, journal, .. } in benches(ContentsMode::Sealed).await {
        for n in 0..30u16 {
            let key = session(u8::try_from(n % 4).unwrap());
            write(&journal, input(&key, &submitted(run(n), u64::from(n), "maya", nothing()))).await;
        }
        write(&journal, input(&session(1), &finished(run(5), 60, RunStatus::Failed))).await;
        let mut wanted: Vec<_> = (0..30).filter(|n| *n != 5).map(|n| (n % 4, n)).collect();
        wanted.sort_unstable();
        let wanted: Vec<_> = wanted.into_iter().map(|(_, n)| run(n)).collect();
        for rows_max in [1, 7, 29, 100] {
            let mut found = Vec::new();
            let mut after: Option<UnfinishedCursor> = None;
            loop {
                let page = journal.unfinished(after.as_ref(), rows_max).await.unwrap();
                assert!(page.rows.len() <= rows_max, "{name}");
                found.extend(page.rows.into_iter().map(|row| row.run));
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            assert_eq!(found, wanted, "{name}: by {rows_max}");
        }
    }
}

#[tokio::test]
async fn an_entry_that_is_handed_in_again_gets_its_first_answer() {
    for Bench { name, journal, .. } in benches(ContentsMode::Sealed).await {
        let key = session(1);
        let first = effect(&key, 5, 0, &cancel(run(1))).draft(&cancel(run(2)));
        let (_, item) = journal.sealer(&key).await.unwrap().seal("text/plain", b"x").unwrap();
        let second = effect(&key, 5, 2, &cancel(run(3))).content(item);
        let first_answer = journal.append(first.clone()).await.unwrap();
        assert_eq!(journal.append(first.clone()).await.unwrap(), first_answer, "{name}: at the end of the log");
        let second_answer = journal.append(second.clone()).await.unwrap();
        write(&journal, input(&key, &cancel(run(4)))).await;
        assert_eq!(journal.append(first).await.unwrap(), first_answer, "{name}");
        assert_eq!(journal.append(second.clone()).await.unwrap(), second_answer, "{name}");
        // Another entry in its place, a longer one, and one by a driver whose time is over.
        let longer = second.clone().draft(&cancel(run(5)));
        for (entry, code) in [
            (effect(&key, 5, 2, &cancel(run(9))), "journal_moved"),
            (longer, "journal_moved"),
            (effect(&key, 5, 1, &cancel(run(3))), "journal_moved"),
            (effect(&key, 4, 2, &cancel(run(3))), "journal_fenced"),
        ] {
            assert_eq!(journal.append(entry).await.unwrap_err().code(), code, "{name}");
        }
        assert_intact(&journal, &key, 4).await;
        write(&journal, effect(&key, 6, 4, &cancel(run(6)))).await;
        assert_eq!(journal.append(second).await.unwrap_err().code(), "journal_fenced", "{name}");
    }
}

#[tokio::test]
async fn timers_of_parked_runs_come_back_with_the_index() {
    for Bench { name, journal, .. } in benches(ContentsMode::Sealed).await {
        let parked = |n, waits_for, until_ms| draft(20, Event::Parked(Parked { run: run(n), waits_for, until_ms }));
        for n in 1..=4u8 {
            let (key, n) = (session(n), u16::from(n));
            write(&journal, input(&key, &submitted(run(n), 10, "maya", nothing()))).await;
            write(&journal, effect(&key, 1, 1, &parked(n, Wait::Retry, Some(100 + u64::from(n))))).await;
        }
        let resumed = draft(30, Event::Resumed(Resumed { run: run(2), epoch: 1, attached: vec![] }));
        write(&journal, effect(&session(2), 1, 2, &resumed)).await;
        write(&journal, effect(&session(3), 1, 2, &parked(3, Wait::Approval, None))).await;
        write(&journal, effect(&session(4), 1, 2, &finished(run(4), 40, RunStatus::Cancelled))).await;
        let statuses = async || {
            let runs = journal.runs(&"default".into(), RunFilter::default(), None, 9).await.unwrap();
            runs.rows.into_iter().map(|row| row.status).collect::<Vec<_>>()
        };
        for round in ["written", "made anew"] {
            let due: Vec<_> =
                journal.due(u64::MAX, 9).await.unwrap().into_iter().map(|row| (row.run, row.at_ms)).collect();
            assert_eq!(due, [(run(1), 101)], "{name}: {round}");
            let wanted = [RunStatus::Cancelled, RunStatus::Waiting, RunStatus::Running, RunStatus::Waiting];
            assert_eq!(statuses().await, wanted, "{name}: {round}");
            assert_eq!(journal.rebuild_index().await.unwrap(), 11, "{name}");
        }
        assert!(matches!(journal.verify(&session(4)).await.unwrap(), Verified::Intact { records: 3, .. }), "{name}");
        assert!(matches!(journal.append(input(&session(4), &cancel(run(4)))).await.unwrap(), Appended::Written(_)));
    }
}
