//! What a journal keeps in memory for sessions: nothing once they rest, and everything works as before when they wake.

#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use journal::{Backend, Content, ContentsMode, Kept, Release};
use support::{Bench, NOW_MS, benches, draft, effect, finished, input, keep, nothing, run, session, submitted, write};

const SESSIONS: u8 = 50;

#[tokio::test]
async fn what_rests_is_let_go_and_wakes_as_it_was() {
    for Bench { name, journal, .. } in benches(ContentsMode::Sealed).await {
        let mut kept = Vec::new();
        for n in 1..=SESSIONS {
            let key = session(n);
            write(&journal, input(&key, &submitted(run(u16::from(n)), NOW_MS, "maya", nothing()))).await;
            kept.push(keep(&journal, &key, "text/plain", b"what was said").await);
            let epoch = journal.claim(&key).await.unwrap().epoch;
            let folded = journal.head(&key).await.unwrap().position;
            journal.release(&key, Release { epoch, folded, next_ms: None }).await.unwrap();
        }
        let busy = journal.kept();
        assert_eq!((busy.data_keys, busy.claimed), (usize::from(SESSIONS), 0), "{name}");
        assert_eq!(busy.connections > 0, journal.backend() == Backend::Sqlite, "{name}: {busy:?}");

        // What was used since the last time stays once.
        journal.let_go();
        assert_eq!(journal.kept().data_keys, usize::from(SESSIONS), "{name}");
        journal.let_go();
        assert_eq!(journal.kept(), Kept::default(), "{name}");

        let keys: Vec<_> = (0..=SESSIONS).map(session).collect();
        let last = journal.last_records(keys.clone()).await.unwrap();
        for (key, (last, n)) in keys.iter().zip(last.iter().zip(0..)) {
            let position = journal.head(key).await.unwrap().position;
            assert_eq!(last.as_ref().map(|last| last.position + 1), (position > 0).then_some(position), "{name}: {n}");
        }
        for (n, content) in (1..=SESSIONS).zip(&kept) {
            let key = session(n);
            let said = journal.content(&key, content).await.unwrap();
            assert_eq!(said, Content::Bytes(b"what was said".to_vec()), "{name}");
            let epoch = journal.claim(&key).await.unwrap().epoch;
            let position = journal.head(&key).await.unwrap().position;
            let ended = finished(run(u16::from(n)), NOW_MS, domain::RunStatus::Completed);
            write(&journal, effect(&key, epoch, position, &draft(NOW_MS, ended.event))).await;
        }
        journal.close().await.unwrap();
    }
}
