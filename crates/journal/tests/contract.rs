//! The contract of a journal, run over every store.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test")]

mod support;

use domain::record::{self, ArtifactSaved, Event, Resumed};
use domain::{Cost, Digest, Id, RunStatus};
use futures::future::join_all;
use journal::hints::Told;
use journal::index::Change;
use journal::query::SessionCursor;
use journal::{
    Append, Appended, Content, ContentsMode, Existing, Fence, INLINE_BYTES_MAX, Idempotency, PreparedDraft, Release,
    RunFilter, SessionKey, Verified, WorkerSpec,
};
use std::sync::Arc;
use std::time::Duration;
use support::{
    Bench, NOW_MS, PRINCIPAL, assert_intact, benches, cancel, draft, effect, finished, input, keep, nothing, run,
    session, submitted, write,
};

const DAY_MS: u64 = 86_400_000;

#[tokio::test]
async fn positions_have_no_gaps_and_the_chain_links() {
    for Bench { name, journal, .. } in benches(ContentsMode::Sealed).await {
        let key = session(1);
        let first = write(&journal, input(&key, &cancel(run(1))).draft(&cancel(run(2)))).await;
        assert_eq!((first.first_position, first.last_position, first.commit_id), (0, 1, 1), "{name}");
        let second = write(&journal, input(&key, &cancel(run(3)))).await;
        assert_eq!((second.first_position, second.next_position(), second.commit_id), (2, 3, 2), "{name}");
        let other = write(&journal, input(&session(2), &cancel(run(4)))).await;
        assert_eq!(other.first_position, 0, "{name}: another session has its own positions");

        let records = journal.records(&key, 0, 100).await.unwrap();
        let mut previous = Digest::ZERO;
        for (position, stored) in records.iter().enumerate() {
            let head = stored.decode().unwrap().head;
            assert_eq!((stored.position, head.position), (position as u64, position as u64), "{name}");
            assert_eq!((head.previous, &*head.tenant, head.session), (previous, "default", key.session), "{name}");
            assert_eq!(record::hash(&stored.bytes), stored.hash, "{name}");
            previous = stored.hash;
        }
        assert_eq!((records.len(), previous), (3, second.head_hash), "{name}");
        assert_eq!(journal.records(&key, 1, 1).await.unwrap(), records[1..2], "{name}");
        assert_eq!(journal.records(&key, 3, 10).await.unwrap(), [], "{name}");
        assert_eq!(journal.records(&key, u64::MAX, 10).await.unwrap(), [], "{name}");
        assert_intact(&journal, &key, 3).await;
        assert_intact(&journal, &session(3), 0).await;
        let other_tenant = SessionKey::new("other", key.session);
        assert_eq!(journal.head(&other_tenant).await.unwrap().position, 0, "{name}: tenants share nothing");
    }
}

#[tokio::test]
async fn effects_are_fenced_and_see_the_news() {
    // What is tried at a log of two records whose driver has epoch 7.
    for (epoch, expect, wanted) in [
        (7, 2, "ok"),
        (9, 2, "ok"),
        (6, 2, "journal_fenced"),
        (0, 2, "journal_fenced"),
        (6, 9, "journal_fenced"),
        (7, 1, "journal_moved"),
        (7, 3, "journal_moved"),
        (9, 0, "journal_moved"),
        (u64::MAX, 2, "journal_invalid"),
    ] {
        for Bench { name, journal, .. } in benches(ContentsMode::Sealed).await {
            let key = session(1);
            write(&journal, effect(&key, 7, 0, &cancel(run(1)))).await;
            write(&journal, input(&key, &cancel(run(2)))).await;
            let code = match journal.append(effect(&key, epoch, expect, &cancel(run(3)))).await {
                Ok(_) => "ok",
                Err(error) => error.code(),
            };
            assert_eq!(code, wanted, "{name}: epoch {epoch}, expect {expect}");
            let head = journal.head(&key).await.unwrap();
            let stored = if wanted == "ok" { (3, epoch) } else { (2, 7) };
            assert_eq!((head.position, head.epoch), stored, "{name}: epoch {epoch}, expect {expect}");
            assert_intact(&journal, &key, stored.0).await;
        }
    }
}

#[tokio::test]
async fn a_refused_entry_fails_alone() {
    for Bench { name, journal, .. } in benches(ContentsMode::Sealed).await {
        for n in 0..50 {
            write(&journal, effect(&session(n), 5, 0, &cancel(run(1)))).await;
        }
        // All at once: every third is fenced, every third has not seen the news, the others fit.
        let entries = (0..50).map(|n| match n % 3 {
            0 => effect(&session(n), 4, 1, &cancel(run(2))),
            1 => effect(&session(n), 5, 0, &cancel(run(2))),
            _ => effect(&session(n), 5, 1, &cancel(run(2))),
        });
        let answers = join_all(entries.map(|entry| journal.append(entry))).await;
        for (n, answer) in (0..50).zip(answers) {
            let code = answer.as_ref().map_or_else(|error| error.code(), |_| "ok");
            let wanted = ["journal_fenced", "journal_moved", "ok"][usize::from(n % 3)];
            assert_eq!(code, wanted, "{name}: session {n}");
            assert_intact(&journal, &session(n), if n % 3 == 2 { 2 } else { 1 }).await;
        }
    }
}

#[tokio::test]
async fn an_id_is_taken_once_and_harms_nobody_else() {
    for Bench { name, journal, .. } in benches(ContentsMode::Sealed).await {
        let key = session(1);
        write(&journal, input(&key, &submitted(run(1), 5, "maya", nothing()))).await;
        let (_, item) = journal.sealer(&key).await.unwrap().seal("text/plain", b"x").unwrap();
        write(&journal, input(&key, &cancel(run(1))).content(item.clone())).await;
        let same_item = input(&key, &cancel(run(1))).content(item);
        let same_run = input(&key, &submitted(run(1), 5, "maya", nothing()));
        // All in one group: the two fail alone.
        let others = (10..40).map(|n| input(&session(n), &cancel(run(1))));
        let answers =
            join_all([same_item, same_run].into_iter().chain(others).map(|entry| journal.append(entry))).await;
        for (n, answer) in answers.into_iter().enumerate() {
            let code = answer.map_or_else(|error| error.code(), |_| "ok");
            assert_eq!(code, if n < 2 { "journal_invalid" } else { "ok" }, "{name}: entry {n}");
        }
        assert!(journal.health().error.is_none(), "{name}");
        assert_intact(&journal, &key, 2).await;
        assert_intact(&journal, &session(39), 1).await;
    }
}

#[tokio::test]
async fn concurrent_inputs_of_one_session_all_get_a_place() {
    for Bench { name, journal, .. } in benches(ContentsMode::Sealed).await {
        let key = session(1);
        let answers = join_all((0..200).map(|n| journal.append(input(&key, &cancel(run(n)))))).await;
        let mut positions: Vec<_> =
            answers.into_iter().map(|answer| answer.unwrap().written().unwrap().first_position).collect();
        positions.sort_unstable();
        assert_eq!(positions, (0..200).collect::<Vec<_>>(), "{name}");
        assert_intact(&journal, &key, 200).await;
    }
}

fn keyed(key: &SessionKey, idempotency: (u8, u8), started: u16, expires_at_ms: u64) -> Append {
    let idempotency = Idempotency {
        key: Digest([idempotency.0; 32]),
        body: Digest([idempotency.1; 32]),
        run: run(started),
        expires_at_ms,
    };
    Append::new(key.clone(), Fence::Input(Some(idempotency))).draft(&cancel(run(started)))
}

#[tokio::test]
async fn a_keyed_request_is_taken_once() {
    for Bench { name, journal, clock, .. } in benches(ContentsMode::Sealed).await {
        let key = session(1);
        write(&journal, input(&key, &cancel(run(1)))).await;
        write(&journal, keyed(&key, (1, 1), 2, NOW_MS + DAY_MS)).await;
        let existing = Appended::Existing(Existing { session: key.session, run: run(2), position: 1 });
        // The client's retry may name another session, when it asked for none.
        for retry in [keyed(&key, (1, 1), 3, NOW_MS + DAY_MS), keyed(&session(2), (1, 1), 3, NOW_MS + DAY_MS)] {
            assert_eq!(journal.append(retry).await.unwrap(), existing, "{name}");
        }
        let conflict = journal.append(keyed(&key, (1, 2), 3, NOW_MS + DAY_MS)).await.unwrap_err();
        assert_eq!(conflict.code(), "idempotency_conflict", "{name}");
        let elsewhere = SessionKey::new("other", key.session);
        write(&journal, keyed(&elsewhere, (1, 2), 4, NOW_MS + DAY_MS)).await;
        assert_intact(&journal, &key, 2).await;

        clock.advance(Duration::from_millis(DAY_MS - 1));
        assert_eq!(journal.append(keyed(&key, (1, 1), 5, 0)).await.unwrap(), existing, "{name}");
        clock.advance(Duration::from_millis(1));
        let later = NOW_MS + 2 * DAY_MS;
        write(&journal, keyed(&key, (1, 2), 6, later)).await;
        assert_eq!(journal.append(keyed(&key, (1, 1), 7, later)).await.unwrap_err().code(), "idempotency_conflict");
    }
}

#[tokio::test]
async fn of_equal_requests_in_flight_one_is_taken() {
    for Bench { name, journal, .. } in benches(ContentsMode::Sealed).await {
        let entries = (0..40).map(|n| keyed(&session(1), (1, u8::from(n % 4 == 3)), n, NOW_MS + DAY_MS));
        let answers = join_all(entries.map(|entry| journal.append(entry))).await;
        let written: Vec<_> = answers.iter().flatten().filter_map(Appended::written).collect();
        assert_eq!(written.len(), 1, "{name}");
        let conflicts = answers.iter().filter(|answer| answer.is_err()).count();
        assert!([10, 30].contains(&conflicts), "{name}: {conflicts} conflicts");
        assert_intact(&journal, &session(1), 1).await;
    }
}

#[tokio::test]
async fn what_can_not_be_meant_is_refused() {
    for Bench { name, journal, .. } in benches(ContentsMode::Sealed).await {
        let key = session(1);
        let (_, foreign) = journal.sealer(&session(2)).await.unwrap().seal("text/plain", b"x").unwrap();
        let mut many = Append::new(key.clone(), Fence::Input(None));
        many.drafts = vec![PreparedDraft::new(&cancel(run(1))); 257];
        for (entry, code) in [
            (Append::new(key.clone(), Fence::Input(None)), "journal_invalid"),
            (input(&key, &cancel(run(1))).content(foreign), "journal_invalid"),
            (many, "journal_too_large"),
        ] {
            assert_eq!(journal.append(entry).await.unwrap_err().code(), code, "{name}");
        }
        journal.close().await.unwrap();
        assert_eq!(journal.append(input(&key, &cancel(run(1)))).await.unwrap_err().code(), "journal_closed");
        assert_eq!(journal.head(&key).await.unwrap_err().code(), "journal_closed", "{name}");
        assert_eq!(journal.health().error.unwrap().code(), "journal_closed", "{name}");
        assert!(journal.subscribe(&key).is_none(), "{name}");
        journal.close().await.unwrap();
    }
}

#[tokio::test]
async fn contents_open_until_they_are_erased() {
    for mode in [ContentsMode::Sealed, ContentsMode::Plain] {
        for Bench { name, journal, objects, .. } in benches(mode).await {
            let key = session(1);
            let large = vec![7; INLINE_BYTES_MAX + 1];
            let mut kept = Vec::new();
            for (media, plain) in
                [("text/plain", &b"hello"[..]), ("application/json", b""), ("a/b", &large), ("a/b", &large[1..])]
            {
                let content = keep(&journal, &key, media, plain).await;
                assert_eq!((content.bytes, &*content.media), (plain.len() as u64, media), "{name}");
                let opened = journal.content(&key, &content).await.unwrap();
                assert!(opened == Content::Bytes(plain.to_vec()), "{name} {mode:?}");
                kept.push(content);
            }
            assert_eq!(objects.keys().len(), 1, "{name}: only the large one is an object");
            for wrong in [
                domain::ContentRef { media: "text/html".into(), ..kept[0].clone() },
                domain::ContentRef { bytes: 4, ..kept[0].clone() },
                domain::ContentRef { mac: Digest([1; 32]), ..kept[0].clone() },
            ] {
                let opened = journal.content(&key, &wrong).await;
                // An unsealed item is not bound to its media type, which the record's hash protects.
                if mode == ContentsMode::Sealed || wrong.media == kept[0].media {
                    assert_eq!(opened.unwrap_err().code(), "journal_corrupt", "{name} {mode:?}");
                }
            }
            let elsewhere = journal.content(&session(2), &kept[0]).await.unwrap();
            assert!(elsewhere == Content::Erased, "{name}: not of this session");

            for content in &kept[..3] {
                journal.erase_item(&key, content.id).await.unwrap();
                journal.erase_item(&key, content.id).await.unwrap();
                assert!(journal.content(&key, content).await.unwrap() == Content::Erased, "{name}");
            }
            assert!(journal.content(&key, &kept[3]).await.unwrap() != Content::Erased, "{name}");
            assert_eq!(objects.keys(), Vec::<String>::new(), "{name}");
            assert_intact(&journal, &key, 4).await;
        }
    }
}

#[tokio::test]
async fn an_erased_session_takes_new_contents_but_nothing_sealed_before() {
    for Bench { name, journal, objects, .. } in benches(ContentsMode::Sealed).await {
        let key = session(1);
        let small = keep(&journal, &key, "text/plain", b"before").await;
        let large = keep(&journal, &key, "text/plain", &vec![1; INLINE_BYTES_MAX + 1]).await;
        let sealer = journal.sealer(&key).await.unwrap();
        journal.erase_session(&key).await.unwrap();
        for content in [&small, &large] {
            assert!(journal.content(&key, content).await.unwrap() == Content::Erased, "{name}");
        }
        assert_eq!(objects.keys(), Vec::<String>::new(), "{name}");
        let (_, stale) = sealer.seal("text/plain", b"stale").unwrap();
        let refused = journal.append(input(&key, &cancel(run(1))).content(stale)).await.unwrap_err();
        assert_eq!(refused.code(), "journal_data_key_changed", "{name}");
        let after = keep(&journal, &key, "text/plain", b"after").await;
        assert!(journal.content(&key, &after).await.unwrap() == Content::Bytes(b"after".to_vec()), "{name}");
        assert_intact(&journal, &key, 3).await;
    }
}

#[tokio::test]
async fn first_contents_in_flight_share_one_data_key() {
    for Bench { name, journal, .. } in benches(ContentsMode::Sealed).await {
        let key = session(1);
        let contents = join_all((0..32u8).map(|n| {
            let (journal, key) = (journal.clone(), key.clone());
            async move { (n, keep(&journal, &key, "text/plain", &[n]).await) }
        }));
        for (n, content) in contents.await {
            assert!(journal.content(&key, &content).await.unwrap() == Content::Bytes(vec![n]), "{name}");
        }
    }
}

#[tokio::test]
async fn runs_are_indexed_with_their_records() {
    for Bench { name, journal, .. } in benches(ContentsMode::Sealed).await {
        let (key, tenant): (_, Arc<str>) = (session(1), "default".into());
        write(&journal, input(&key, &submitted(run(1), 10, "maya", nothing()))).await;
        write(&journal, input(&key, &submitted(run(2), 20, "theo", nothing()))).await;
        write(&journal, input(&session(2), &submitted(run(3), 30, "maya", nothing()))).await;
        let status = async |n| journal.run(&tenant, run(n)).await.unwrap().unwrap().status;
        assert_eq!((status(1).await, status(2).await), (RunStatus::Running, RunStatus::Queued), "{name}");
        let unfinished: Vec<_> =
            journal.unfinished(None, 10).await.unwrap().rows.into_iter().map(|row| row.run).collect();
        assert_eq!(unfinished, [run(1), run(2), run(3)], "{name}");

        let doubt = domain::record::InDoubt { run: run(1), call: Id::from_bytes([1; 16]) };
        write(&journal, effect(&key, 1, 2, &draft(40, Event::InDoubt(doubt)))).await;
        assert_eq!(status(1).await, RunStatus::NeedsResolution, "{name}");
        write(
            &journal,
            effect(&key, 1, 3, &draft(50, Event::Resumed(Resumed { run: run(1), epoch: 1, attached: vec![] }))),
        )
        .await;
        assert_eq!(status(1).await, RunStatus::Running, "{name}");
        write(&journal, effect(&key, 1, 4, &finished(run(1), 60, RunStatus::Completed))).await;
        assert_eq!((status(1).await, status(2).await), (RunStatus::Completed, RunStatus::Running), "{name}");

        let row = journal.run(&tenant, run(1)).await.unwrap().unwrap();
        assert_eq!((row.created_ms, row.updated_ms, row.finished_ms), (10, 60, Some(60)), "{name}");
        assert_eq!((row.submitted_position, row.finished_position), (0, Some(4)), "{name}");
        assert_eq!((row.turns, row.tool_calls, row.used_sandbox), (3, 2, true), "{name}");
        assert_eq!((row.usage.input_tokens, row.cost), (70, Cost::Unlisted { micro_usd: 12 }), "{name}");
        let of_run = journal.run_records(&row, 0, 100).await.unwrap();
        let positions: Vec<_> = of_run.rows.iter().map(|row| row.position).collect();
        assert_eq!((positions, of_run.next), (vec![0, 2, 3, 4], None), "{name}: the other run's input is left out");
        let part = journal.run_records(&row, 1, 2).await.unwrap();
        assert_eq!((part.rows.len(), part.next), (1, Some(3)), "{name}");
        let open = journal.run(&tenant, run(2)).await.unwrap().unwrap();
        assert_eq!(journal.run_records(&open, 0, 100).await.unwrap().next, Some(5), "{name}");

        let row = journal.session(&key).await.unwrap().unwrap();
        assert_eq!((row.created_ms, row.updated_ms, row.runs, row.last_run), (10, 20, 2, run(2)), "{name}");
        assert_eq!((&*row.agent, row.next_position), ("theo", 5), "{name}");
        assert_eq!(journal.run(&tenant, run(9)).await.unwrap(), None, "{name}");
        assert_eq!(journal.run(&"other".into(), run(1)).await.unwrap(), None, "{name}");
        assert_eq!(journal.session(&session(9)).await.unwrap(), None, "{name}");
    }
}

#[tokio::test]
async fn lists_page_newest_first() {
    for Bench { name, journal, .. } in benches(ContentsMode::Sealed).await {
        let tenant: Arc<str> = "default".into();
        for n in 0..23u16 {
            let agent = if n % 2 == 0 { "even" } else { "odd" };
            let key = session((n % 5) as u8);
            write(&journal, input(&key, &submitted(run(n), u64::from(n), agent, nothing()))).await;
        }
        for (filter, wanted) in [
            (RunFilter::default(), (0..23).rev().collect::<Vec<u16>>()),
            (
                RunFilter { agent: Some("odd".into()), ..RunFilter::default() },
                (0..23).rev().filter(|n| n % 2 == 1).collect(),
            ),
            (
                RunFilter { session: Some(session(2).session), ..RunFilter::default() },
                (0..23).rev().filter(|n| n % 5 == 2).collect(),
            ),
            (RunFilter { status: Some(RunStatus::Running), ..RunFilter::default() }, (0..5).rev().collect()),
            (RunFilter { status: Some(RunStatus::Failed), ..RunFilter::default() }, vec![]),
        ] {
            for size in [1, 4, 100] {
                let mut found = Vec::new();
                let mut before = None;
                loop {
                    let page = journal.runs(&tenant, filter.clone(), before, size).await.unwrap();
                    assert!(page.rows.len() <= size, "{name}");
                    found.extend(page.rows.into_iter().map(|row| row.run));
                    before = page.next;
                    if before.is_none() {
                        break;
                    }
                }
                let wanted: Vec<_> = wanted.iter().copied().map(run).collect();
                assert_eq!(found, wanted, "{name}: {filter:?} by {size}");
            }
        }
        let mut found = Vec::new();
        let mut before: Option<SessionCursor> = None;
        loop {
            let page = journal.sessions(&tenant, before, 2).await.unwrap();
            found.extend(page.rows.into_iter().map(|row| row.session));
            before = page.next;
            if before.is_none() {
                break;
            }
        }
        assert_eq!(found, [4, 3, 2, 1, 0].map(|n| session(n).session), "{name}");
    }
}

#[tokio::test]
async fn artifacts_and_timers_are_indexed() {
    for Bench { name, journal, .. } in benches(ContentsMode::Sealed).await {
        let (key, tenant): (_, Arc<str>) = (session(1), "default".into());
        for n in [2u8, 1] {
            let saved = ArtifactSaved {
                run: run(1),
                artifact: Id::from_bytes([n; 16]),
                name: nothing(),
                media: "text/markdown".to_owned(),
                bytes: 5,
                object: format!("outputs/{n}"),
            };
            write(&journal, input(&key, &draft(7, Event::ArtifactSaved(saved)))).await;
        }
        let rows = journal.artifacts(&tenant, run(1)).await.unwrap();
        let objects: Vec<_> = rows.iter().map(|row| (row.position, &*row.object)).collect();
        assert_eq!(objects, [(0, "outputs/2"), (1, "outputs/1")], "{name}");
        let one = journal.artifact(&tenant, Id::from_bytes([1; 16])).await.unwrap().unwrap();
        assert_eq!((&one, &one.name, &*one.media), (&rows[1], &nothing(), "text/markdown"), "{name}");
        assert_eq!(journal.artifacts(&tenant, run(2)).await.unwrap(), [], "{name}");

        let timer = |kind: &str, at_ms| {
            let due = Change::Due { run: run(1), kind: kind.to_owned(), at_ms };
            let mut entry = Append::new(key.clone(), Fence::Input(None));
            entry.drafts.push(PreparedDraft::new(&cancel(run(1))).with(due));
            entry
        };
        for (kind, at_ms) in [("late", 300), ("early", 100), ("never", u64::MAX), ("late", 200)] {
            write(&journal, timer(kind, at_ms)).await;
        }
        let due = async |until_ms| -> Vec<_> {
            let rows = journal.due(until_ms, 10).await.unwrap();
            rows.into_iter().map(|row| (row.kind, row.at_ms)).collect()
        };
        assert_eq!(due(99).await, [], "{name}");
        assert_eq!(due(250).await, [("early".to_owned(), 100), ("late".to_owned(), 200)], "{name}");
        let mut done = Append::new(key.clone(), Fence::Input(None));
        let over = Change::NotDue { run: run(1), kind: "early".to_owned() };
        done.drafts.push(PreparedDraft::new(&cancel(run(1))).with(over));
        write(&journal, done).await;
        assert_eq!(due(250).await, [("late".to_owned(), 200)], "{name}");
    }
}

#[tokio::test]
async fn the_index_can_be_made_anew_from_the_records() {
    for Bench { name, journal, directory, .. } in benches(ContentsMode::Sealed).await {
        let tenant: Arc<str> = "default".into();
        for n in 0..12u16 {
            let key = session((n % 3) as u8);
            write(&journal, input(&key, &submitted(run(n), u64::from(n), "maya", nothing()))).await;
            if n % 2 == 0 {
                let saved = ArtifactSaved {
                    run: run(n),
                    artifact: Id::from_bytes([n as u8; 16]),
                    name: nothing(),
                    media: "text/markdown".to_owned(),
                    bytes: 5,
                    object: format!("outputs/{n}"),
                };
                write(&journal, input(&key, &draft(50, Event::ArtifactSaved(saved)))).await;
                write(&journal, input(&key, &finished(run(n), 60, RunStatus::Failed))).await;
            }
        }
        let lists = async || {
            let runs = journal.runs(&tenant, RunFilter::default(), None, 100).await.unwrap();
            let sessions = journal.sessions(&tenant, None, 100).await.unwrap();
            (
                runs,
                sessions,
                journal.unfinished(None, 100).await.unwrap(),
                journal.artifacts(&tenant, run(4)).await.unwrap(),
            )
        };
        let before = lists().await;
        assert_eq!((before.0.rows.len(), before.1.rows.len(), before.3.len()), (12, 3, 1), "{name}");
        if let Some(directory) = &directory {
            let database = rusqlite::Connection::open(directory.path().join("journal.db")).unwrap();
            database
                .execute_batch("DELETE FROM run_index; UPDATE session_index SET runs = 0; DELETE FROM artifact_index")
                .unwrap();
            assert_ne!(lists().await, before, "{name}");
        }
        assert_eq!(journal.rebuild_index().await.unwrap(), 24, "{name}");
        assert_eq!(lists().await, before, "{name}");
    }
}

#[tokio::test]
async fn who_follows_a_log_misses_nothing() {
    for Bench { name, journal, .. } in benches(ContentsMode::Sealed).await {
        let key = session(1);
        let mut one = journal.subscribe(&key).unwrap();
        let mut all = journal.subscribe_all().unwrap();
        write(&journal, input(&session(2), &cancel(run(9)))).await;
        let writer = {
            let (journal, key) = (journal.clone(), key.clone());
            tokio::spawn(async move {
                for n in 0..500 {
                    write(&journal, input(&key, &cancel(run(n)))).await;
                }
            })
        };
        let Some(Told::Hint(hint)) = all.next().await else { panic!("{name}: no hint") };
        assert_eq!((hint.key, hint.next_position, hint.records.len()), (session(2), 1, 1), "{name}");
        let mut seen = 0;
        while seen < 500 {
            // A hint or its loss, either way the store has what came.
            assert!(one.next().await.is_some(), "{name}");
            for record in journal.records(&key, seen, 64).await.unwrap() {
                assert_eq!(record.position, seen, "{name}");
                seen += 1;
            }
        }
        writer.await.unwrap();
        drop(one);
        journal.close().await.unwrap();
        loop {
            match all.next().await {
                Some(Told::Hint(_)) => {}
                Some(Told::Lagged { hints }) => assert!(hints > 0, "{name}"),
                None => break,
            }
        }
    }
}

#[tokio::test]
async fn claims_only_grow() {
    for Bench { name, journal, .. } in benches(ContentsMode::Sealed).await {
        let key = session(1);
        let mut last = 0;
        for _ in 0..100 {
            let epoch = journal.claim(&key).await.unwrap().epoch;
            assert!(epoch > last, "{name}");
            last = epoch;
        }
        write(&journal, effect(&key, last, 0, &cancel(run(1)))).await;
        assert!(matches!(journal.verify(&key).await.unwrap(), Verified::Intact { records: 1, .. }), "{name}");
    }
}

#[tokio::test]
async fn a_claim_fences_whoever_held_the_session_at_once() {
    for Bench { name, journal, .. } in benches(ContentsMode::Sealed).await {
        let key = session(1);
        let former = journal.claim(&key).await.unwrap().epoch;
        write(&journal, effect(&key, former, 0, &cancel(run(1)))).await;
        let holder = journal.claim(&key).await.unwrap().epoch;
        // The new holder has written nothing yet.
        let late = journal.append(effect(&key, former, 1, &cancel(run(2)))).await;
        assert!(matches!(late, Err(journal::Error::Fenced { epoch }) if epoch == holder), "{name}: {late:?}");
        assert_eq!(journal.head(&key).await.unwrap().position, 1, "{name}");
        write(&journal, effect(&key, holder, 1, &cancel(run(2)))).await;
        // What nobody has ever written to is fenced as well.
        let empty = session(2);
        let former = journal.claim(&empty).await.unwrap().epoch;
        journal.claim(&empty).await.unwrap();
        let late = journal.append(effect(&empty, former, 0, &cancel(run(3)))).await;
        assert!(matches!(late, Err(journal::Error::Fenced { .. })), "{name}: {late:?}");
        assert!(matches!(journal.verify(&empty).await.unwrap(), Verified::Intact { records: 0, .. }), "{name}");
    }
}

#[tokio::test]
async fn what_has_something_to_do_is_offered_until_it_was_done() {
    for Bench { name, journal, .. } in benches(ContentsMode::Sealed).await {
        let key = session(1);
        let offered =
            async || journal.claimable(10, &[]).await.unwrap().into_iter().map(|ready| ready.key).collect::<Vec<_>>();
        let nobody: Vec<SessionKey> = Vec::new();
        let only: Vec<SessionKey> = vec![key.clone()];
        assert_eq!(offered().await, nobody, "{name}");
        write(&journal, input(&key, &cancel(run(1)))).await;
        assert_eq!(offered().await, only, "{name}: an input came");

        // What the driver does next makes nothing ready; what comes meanwhile does.
        for (folded, next_ms, input_meanwhile, expected) in [
            (2, None, false, &nobody),
            (4, Some(0), false, &only),
            (6, Some(1 << 50), false, &nobody),
            (8, None, true, &only),
            (11, Some(1 << 50), true, &only),
            (14, None, false, &nobody),
        ] {
            let epoch = journal.claim(&key).await.unwrap().epoch;
            assert_eq!(offered().await, nobody, "{name}: it is held");
            let mut position = journal.head(&key).await.unwrap().position;
            while position < folded {
                write(&journal, effect(&key, epoch, position, &cancel(run(1)))).await;
                position += 1;
            }
            if input_meanwhile {
                write(&journal, input(&key, &cancel(run(2)))).await;
            }
            let release = Release { epoch, folded, next_ms };
            journal.release(&key, Release { epoch: epoch - 1, ..release }).await.unwrap();
            assert_eq!(offered().await, nobody, "{name}: a release of another claim changes nothing");
            journal.release(&key, release).await.unwrap();
            assert_eq!(offered().await, *expected, "{name}: {release:?}");
        }
        write(&journal, input(&key, &cancel(run(1)))).await;
        journal.quarantine(&key, "looked odd", PRINCIPAL).await.unwrap();
        assert_eq!(offered().await, nobody, "{name}: it is in quarantine");
        journal.release_quarantine(&key).await.unwrap();
        assert_eq!(offered().await, only, "{name}");
    }
}

#[tokio::test]
async fn a_timer_that_is_due_makes_its_session_ready() {
    for Bench { name, journal, .. } in benches(ContentsMode::Sealed).await {
        for (n, at_ms, expected) in [(1, 5, true), (2, 1 << 50, false)] {
            let key = session(n);
            let epoch = journal.claim(&key).await.unwrap().epoch;
            let mut entry = Append::new(key.clone(), Fence::Effect { epoch, expect: 0 });
            let timer = Change::Due { run: run(1), kind: "later".to_owned(), at_ms };
            entry.drafts.push(PreparedDraft::new(&cancel(run(1))).with(timer));
            write(&journal, entry).await;
            journal.release(&key, Release { epoch, folded: 1, next_ms: None }).await.unwrap();
            let ready = journal.claimable(10, &[]).await.unwrap();
            assert_eq!(ready.iter().any(|ready| ready.key == key), expected, "{name}: due at {at_ms}");
        }
    }
}

#[tokio::test]
async fn a_worker_that_leaves_gives_back_what_it_holds() {
    for Bench { name, journal, .. } in benches(ContentsMode::Sealed).await {
        let spec = WorkerSpec { name: "w".to_owned(), lease_ms: 60_000 };
        let worker = journal.join(spec.clone()).await.unwrap();
        assert!(worker.lease().is_good() && worker.name() == "w", "{name}");
        let key = session(1);
        write(&journal, input(&key, &cancel(run(1)))).await;
        let epoch = journal.claim(&key).await.unwrap().epoch;
        journal.beat(&worker).await.unwrap();
        journal.leave(&worker).await.unwrap();
        assert_eq!(journal.claimable(10, &[]).await.unwrap().len(), 1, "{name}");
        let again = journal.join(spec).await.unwrap();
        assert!(again.id() > worker.id(), "{name}");
        assert!(journal.claim(&key).await.unwrap().epoch > epoch, "{name}");
    }
}
