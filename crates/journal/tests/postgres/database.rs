//! Old and new programs on one database, its settings, and what people read there.

use crate::pooler::pooler;
use crate::support::postgres::{connect, database};
use crate::support::{NOW_MS, assert_intact, cancel, effect, finished, input, keep, run, session, submitted, write};
use crate::{join, open, port, try_open};
use domain::RunStatus;
use futures::future::join_all;
use journal::{Backend, Journal, PostgresSettings, Release, SessionKey};
use stdx::Clock;

#[tokio::test]
async fn an_older_program_goes_on_while_an_upgrade_rolls() {
    let Some(url) = database().await else { return };
    let clock = Clock::manual(NOW_MS);
    let old = open(&url, &clock).await;
    write(&old, input(&session(1), &cancel(run(1)))).await;
    let admin = connect(&url).await;
    // What the next version's migration would do.
    admin
        .batch_execute(
            "BEGIN;
             ALTER TABLE public.heads ADD COLUMN colour text NOT NULL DEFAULT 'none';
             ALTER TABLE public.run_index ADD COLUMN weight bigint;
             CREATE TABLE public.next_things (id bigint PRIMARY KEY);
             INSERT INTO public.topside_migrations (version, name, min_reader) VALUES (1000, 'next', 1);
             COMMIT",
        )
        .await
        .unwrap();
    write(&old, input(&session(1), &submitted(run(2), 5, "maya", crate::support::nothing()))).await;
    // The old one started anew, beside the new one.
    let older = open(&url, &clock).await;
    assert!(older.boot() > old.boot());
    join(&older, "older").await;
    let epoch = older.claim(&session(1)).await.unwrap().epoch;
    write(&older, effect(&session(1), epoch, 2, &finished(run(2), 6, RunStatus::Completed))).await;
    assert_intact(&older, &session(1), 3).await;

    // The one after takes something away, and says so.
    admin
        .batch_execute("INSERT INTO public.topside_migrations (version, name, min_reader) VALUES (1001, 'later', 1000)")
        .await
        .unwrap();
    let refused = try_open(&PostgresSettings::new(url), &clock).await.unwrap_err();
    assert_eq!(refused.code(), "journal_newer", "{refused}");
}

#[tokio::test]
async fn many_who_open_an_empty_database_at_once_make_it_once() {
    let Some(url) = database().await else { return };
    let clock = Clock::manual(NOW_MS);
    let journals = join_all((0..6).map(|_| open(&url, &clock))).await;
    let mut boots: Vec<_> = journals.iter().map(Journal::boot).collect();
    boots.sort_unstable();
    assert_eq!(boots, [1, 2, 3, 4, 5, 6]);
    assert!(journals.iter().all(|journal| journal.backend() == Backend::Postgres));
}

#[tokio::test]
async fn a_database_that_would_lose_what_it_acknowledged_is_refused() {
    for (setting, code) in [("synchronous_commit = off", "database_unsafe"), ("synchronous_commit = local", "ok")] {
        let Some(url) = database().await else { return };
        let name = url.rsplit('/').next().unwrap();
        connect(&url).await.batch_execute(&format!("ALTER DATABASE {name} SET {setting}")).await.unwrap();
        let opened = try_open(&PostgresSettings::new(url), &Clock::manual(NOW_MS)).await;
        assert_eq!(opened.err().map_or("ok", |error| error.code()), code, "{setting}");
    }
}

#[tokio::test]
async fn what_can_not_be_reached_is_said_plainly() {
    let Some(url) = database().await else { return };
    let clock = Clock::manual(NOW_MS);
    let (base, _) = url.rsplit_once('/').unwrap();
    for (url, code, part) in [
        (format!("{base}/nowhere"), "database_unreachable", "does not exist"),
        ("postgres://u:hunter2@127.0.0.1:1/d".to_owned(), "database_unreachable", "refused"),
        ("mysql://u:hunter2@127.0.0.1/d".to_owned(), "database_url", "postgres://"),
    ] {
        let refused = try_open(&PostgresSettings::new(url), &clock).await.unwrap_err();
        let told = refused.to_string();
        assert!(refused.code() == code && told.contains(part) && !told.contains("hunter2"), "{told}");
    }
}

/// Behind a pooler every statement may find another session of the server; what can't go through it goes around.
#[tokio::test]
async fn a_pooler_may_stand_in_between() {
    let Some(url) = database().await else { return };
    let Some(pooler) = pooler("a_pooler_may_stand_in_between", port(&url)) else { return };
    let clock = Clock::manual(NOW_MS);
    let through = url.replace(&port(&url).to_string(), &pooler.port.to_string());
    for (n, direct_url) in [Some(url.clone()), None].into_iter().enumerate() {
        let pooled = format!("{through}?pgbouncer=true");
        let settings = PostgresSettings { direct_url, ..PostgresSettings::new(pooled) };
        let journal = try_open(&settings, &clock).await.unwrap();
        let worker = join(&journal, "pooled").await;
        // More at once than the pooler has sessions, so that they are handed round.
        join_all((0..12).map(|at| drive(&journal, session(20 * n as u8 + at)))).await;
        journal.beat(&worker).await.unwrap();
        journal.erase_session(&session(0)).await.unwrap();
        journal.rebuild_index().await.unwrap();
        // News come: with a way around it at once, without one within a second.
        let mut hints = journal.subscribe(&session(0)).unwrap();
        let other = open(&url, &clock).await;
        write(&other, input(&session(0), &cancel(run(1)))).await;
        assert!(hints.next().await.is_some());
        journal.close().await.unwrap();
    }
}

async fn drive(journal: &Journal, key: SessionKey) {
    let content = keep(journal, &key, "text/plain", b"hello").await;
    let epoch = journal.claim(&key).await.unwrap().epoch;
    for position in 1..8 {
        write(journal, effect(&key, epoch, position, &cancel(run(1)))).await;
    }
    assert!(journal.content(&key, &content).await.unwrap().into_bytes().is_some());
    journal.release(&key, Release { epoch, folded: 8, next_ms: None }).await.unwrap();
    assert_intact(journal, &key, 8).await;
}

#[tokio::test]
async fn people_read_it_with_plain_sql() {
    let Some(url) = database().await else { return };
    let journal = open(&url, &Clock::manual(NOW_MS)).await;
    let key = session(1);
    write(&journal, input(&key, &submitted(run(1), 10, "maya", crate::support::nothing()))).await;
    write(&journal, input(&key, &submitted(run(2), 20, "theo", crate::support::nothing()))).await;
    write(&journal, effect(&key, 3, 2, &finished(run(1), 60, RunStatus::Completed))).await;
    let (session, first) = (key.session.to_string(), run(1).to_string());
    let database = connect(&url).await;
    let lines = async |sql: &str| -> Vec<String> {
        let rows = database.query(sql, &[]).await.unwrap();
        rows.iter().map(|row| row.get::<_, String>(0).replace(&session, "SES").replace(&first, "RUN1")).collect()
    };
    for (sql, expected) in [
        (
            "SELECT concat_ws(' ', tenant, session, runs, agent, next_position, epoch) FROM public.sessions",
            vec!["default SES 2 theo 3 3"],
        ),
        (
            "SELECT concat_ws(' ', agent, status, turns, cost_micro_usd) FROM public.runs ORDER BY run",
            vec!["maya completed 3 12", "theo running 0 0"],
        ),
        (
            "SELECT concat_ws(' ', position, kind, principal) FROM public.audit_log ORDER BY position",
            vec![
                "0 submitted prn_09090909090909090909090909090909",
                "1 submitted prn_09090909090909090909090909090909",
                "2 finished prn_09090909090909090909090909090909",
            ],
        ),
    ] {
        assert_eq!(lines(sql).await, expected, "{sql}");
    }
    let trace = format!(
        "SELECT concat_ws(' ', run, position, kind, at_ms) FROM public.traces WHERE run = '{first}' ORDER BY position"
    );
    assert_eq!(lines(&trace).await, ["RUN1 0 submitted 10", "RUN1 2 finished 60"]);
    assert_eq!(lines("SELECT artifact FROM public.artifacts").await, Vec::<String>::new());
    let head = journal.head(&key).await.unwrap().hash.to_string();
    assert_eq!(lines("SELECT hash FROM public.audit_log WHERE position = 2").await, [head]);
}
