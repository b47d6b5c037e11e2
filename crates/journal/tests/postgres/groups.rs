//! Entries that wait at one instant go to the server together: what is written is what each alone would have written, each
//! is told what became of it, and nobody pays for another.

use crate::proxy::{Fate, Proxy};
use crate::support::postgres::{connect, database};
use crate::support::{
    NOW_MS, PRINCIPAL, assert_intact, cancel, effect, input, nothing, run, session, submitted, write,
};
use crate::{open, port};
use domain::record::ArtifactSaved;
use domain::{Event, Id, RunStatus, Wait};
use journal::{Append, Appended, Change, Error, Journal, PreparedDraft, SessionKey};
use stdx::Clock;
use tokio::task::JoinHandle;
use tokio_postgres::Client;

/// Sessions of the entries that go together.
const SESSIONS: u8 = 12;
/// Statements that a journal with four connections has under way.
const GATES: [u8; 2] = [250, 251];

/// Statements for what waits behind the gates: when both open at once, the second passes its turn on too, to one entry.
/// One that comes late adds another.
const TOGETHER: i64 = 4;

type Told = JoinHandle<Result<Appended, Error>>;

/// Statements of the journal that can't end: what is appended meanwhile waits for them.
struct Gate {
    admin: Client,
    told: Vec<Told>,
}

impl Gate {
    async fn close(journal: &Journal, url: &str) -> Self {
        for n in GATES {
            // Its head is known then.
            write(journal, input(&session(n), &cancel(run(1)))).await;
        }
        let admin = connect(url).await;
        let gates = GATES.map(|n| format!("'{}'", session(n).session)).join(", ");
        let lock = format!("BEGIN; SELECT FROM public.heads WHERE session IN ({gates}) FOR UPDATE");
        admin.batch_execute(&lock).await.unwrap();
        let told = GATES.map(|n| begin(journal, input(&session(n), &cancel(run(1))))).into();
        until_blocked(&admin, GATES.len()).await;
        Self { admin, told }
    }

    /// Hands entries in, and comes back when all of them wait.
    async fn wait_for(&self, journal: &Journal, entries: Vec<Append>) -> Vec<Told> {
        let all = self.told.len() + entries.len();
        let told = entries.into_iter().map(|entry| begin(journal, entry)).collect();
        while journal.health().queued_entries < all {
            tokio::task::yield_now().await;
        }
        // An entry whose log is not known yet looks there first.
        let busy = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                    AND application_name = 'topside' AND state <> 'idle' AND wait_event_type IS DISTINCT FROM 'Lock'";
        let mut quiet = 0;
        while quiet < 20 {
            look_again(&self.admin).await;
            let busy: i64 = self.admin.query_one(busy, &[]).await.unwrap().get(0);
            quiet = if busy == 0 { quiet + 1 } else { 0 };
        }
        told
    }

    async fn open(self) {
        self.admin.batch_execute("COMMIT").await.unwrap();
        for told in self.told {
            told.await.unwrap().unwrap();
        }
    }
}

fn begin(journal: &Journal, entry: Append) -> Told {
    let journal = journal.clone();
    tokio::spawn(async move { journal.append(entry).await })
}

/// Within a transaction the server shows what its processes did at the first look.
async fn look_again(admin: &Client) {
    admin.batch_execute("SELECT pg_stat_clear_snapshot()").await.unwrap();
}

async fn until_blocked(admin: &Client, statements: usize) -> Vec<i32> {
    let blocked = "SELECT pid FROM pg_stat_activity WHERE datname = current_database()
                   AND application_name = 'topside' AND wait_event_type = 'Lock'";
    loop {
        look_again(admin).await;
        let rows = admin.query(blocked, &[]).await.unwrap();
        if rows.len() >= statements {
            return rows.iter().map(|row| row.get(0)).collect();
        }
    }
}

/// How many transactions wrote the last records of these sessions.
async fn transactions(admin: &Client, sessions: impl Iterator<Item = u8>) -> i64 {
    let sessions: Vec<_> = sessions.map(|n| session(n).session.to_string()).collect();
    let sql = "SELECT count(DISTINCT r.xmin::text) FROM public.records AS r JOIN public.heads AS h
               ON h.session = r.session AND h.position = r.position + 1 WHERE r.session = ANY ($1)";
    admin.query_one(sql, &[&sessions]).await.unwrap().get(0)
}

fn call(n: u8) -> Id<domain::id::Call> {
    Id::from_bytes([n; 16])
}

/// A cancel with other changes to the index than its own, which has none.
fn changing(mut entry: Append, changes: Vec<Change>) -> Append {
    let draft = changes.into_iter().fold(PreparedDraft::new(&cancel(run(1))), PreparedDraft::with);
    entry.drafts.push(draft);
    entry
}

/// One entry of a session's life: together they have every kind of change.
fn chapter(n: u8, chapter: u64) -> Append {
    let (key, id) = (session(n), run(n.into()));
    let next = || effect(&key, 3, chapter * 2, &cancel(run(1)));
    let (at_ms, kind) = (10 * chapter, "park".to_owned());
    let (waits_for, waits_until_ms) = (Some(Wait::Retry), Some(90));
    let told = Change::Told { run: id, kind: "parked", at_ms };
    let unheld = Change::Unheld { call: call(n) };
    match chapter {
        0 => {
            let announced = if n.is_multiple_of(2) { vec![Change::Announced { run: id, at_ms }] } else { Vec::new() };
            changing(input(&key, &submitted(id, 1, "maya", nothing())), announced)
        }
        1 => changing(next(), vec![Change::Held { call: call(n), run: id, expires_ms: 50, at_ms }]),
        2 => {
            let status = Change::Status { run: id, status: RunStatus::Waiting, waits_for, waits_until_ms, at_ms };
            changing(next(), vec![status, Change::Due { run: id, kind, at_ms: 90 }, told])
        }
        3 => changing(input(&key, &cancel(id)), Vec::new()),
        4 => {
            let (artifact, object) = (Id::from_bytes([n; 16]), format!("objects/{n}"));
            let (name, media, bytes) = (nothing(), "text/plain".to_owned(), 7);
            let saved = ArtifactSaved { run: id, artifact, name, media, bytes, object: object.clone() };
            let kept = Change::Checkpoint { checkpoint: Id::from_bytes([n; 16]), object };
            let saved = crate::support::draft(at_ms, Event::ArtifactSaved(saved));
            changing(effect(&key, 3, chapter * 2, &saved), vec![kept, unheld, Change::NotDue { run: id, kind }])
        }
        _ => changing(
            effect(&key, 3, chapter * 2, &crate::support::finished(id, at_ms, RunStatus::Completed)),
            vec![told],
        ),
    }
}

/// Everything in the database that does not differ by chance.
async fn dump(admin: &Client, without: &[u8]) -> Vec<String> {
    let without: Vec<_> = without.iter().map(|n| session(*n).session.to_string()).collect();
    let mut lines = Vec::new();
    for table in [
        "records",
        "heads",
        "session_index",
        "run_index",
        "artifact_index",
        "checkpoint_index",
        "due",
        "held_index",
        "announced",
        "outbox",
        "ready",
        "idempotency",
    ] {
        // When it became ready, the server's clock says.
        let chance = if table == "ready" { "{at_ms}" } else { "{commit_id}" };
        let sql = format!(
            "SELECT '{table} ' || (to_jsonb(t) - '{chance}'::text[])::text FROM public.{table} AS t
             WHERE session <> ALL ($1) ORDER BY 1"
        );
        lines.extend(admin.query(&sql, &[&without]).await.unwrap().iter().map(|row| row.get::<_, String>(0)));
    }
    lines
}

#[tokio::test]
async fn what_goes_together_is_written_as_if_each_went_alone() {
    let (Some(url), Some(alone_url)) = (database().await, database().await) else { return };
    let clock = Clock::manual(NOW_MS);
    let (journal, alone) = (open(&url, &clock).await, open(&alone_url, &clock).await);
    let (admin, alone_admin) = (connect(&url).await, connect(&alone_url).await);
    for n in 0..6 {
        let gate = Gate::close(&journal, &url).await;
        let told = gate.wait_for(&journal, (1..=SESSIONS).map(|of| chapter(of, n)).collect()).await;
        gate.open().await;
        for (told, of) in told.into_iter().zip(1..) {
            let written = told.await.unwrap().unwrap().written().unwrap().clone();
            let mut expected = write(&alone, chapter(of, n)).await;
            assert!(written.commit_id > 0);
            expected.commit_id = written.commit_id;
            assert_eq!(written, expected, "session {of}, chapter {n}");
        }
        assert!(transactions(&admin, 1..=SESSIONS).await <= TOGETHER, "chapter {n} did not go together");
        let (mine, theirs) = (dump(&admin, &GATES).await, dump(&alone_admin, &GATES).await);
        assert_eq!(mine, theirs, "chapter {n}");
    }
    assert!(dump(&admin, &GATES).await.len() > 200);
    let artifacts = journal.artifacts(&"default".into(), run(3)).await.unwrap();
    assert_eq!(artifacts.len(), 1);
    for n in 1..=SESSIONS {
        assert_intact(&journal, &session(n), 12).await;
    }
}

/// Contents are sealed by chance, so they are read back.
#[tokio::test]
async fn contents_go_together_with_their_keys() {
    let Some(url) = database().await else { return };
    let journal = open(&url, &Clock::manual(NOW_MS)).await;
    let admin = connect(&url).await;
    let mut kept = Vec::new();
    // The first of a session brings its data key, the second finds it.
    for text in ["the first", "the second"] {
        let mut entries = Vec::new();
        for n in 1..=SESSIONS {
            let key = session(n);
            let (content, item) =
                journal.sealer(&key).await.unwrap().seal("text/plain", format!("{text} of {n}").as_bytes()).unwrap();
            entries.push(input(&key, &cancel(run(1))).content(item));
            kept.push((key, content, format!("{text} of {n}")));
        }
        let gate = Gate::close(&journal, &url).await;
        let told = gate.wait_for(&journal, entries).await;
        gate.open().await;
        for told in told {
            assert!(told.await.unwrap().unwrap().written().is_some());
        }
        assert!(transactions(&admin, 1..=SESSIONS).await <= TOGETHER, "{text}");
    }
    let fresh = open(&url, &Clock::manual(NOW_MS)).await;
    for (key, content, text) in kept {
        let found = fresh.content(&key, &content).await.unwrap();
        assert_eq!(found.into_bytes().as_deref().map(Vec::from), Some(text.into_bytes()));
    }
}

/// One of a group meets something that the others do not.
#[tokio::test]
async fn nobody_in_a_group_pays_for_another() {
    const ODD: u8 = 5;
    const ALONE: i64 = SESSIONS as i64 - 1;
    let plain: fn(&SessionKey) -> Append = |key| effect(key, 5, 1, &cancel(run(1)));
    let wanted: fn(&SessionKey) -> Append = |key| input(key, &cancel(run(1)));
    let taken: fn(&SessionKey) -> Append = |key| input(key, &submitted(run(99), 1, "maya", nothing()));
    let empty = "DELETE FROM public.records WHERE session = $1; DELETE FROM public.heads WHERE session = $1";
    for (odd, meanwhile, code, transactions_of_others) in [
        (plain, "UPDATE public.heads SET epoch = 9 WHERE session = $1", "journal_fenced", TOGETHER),
        (plain, "UPDATE public.heads SET position = 7 WHERE session = $1", "journal_moved", TOGETHER),
        (plain, "UPDATE public.heads SET quarantined = true WHERE session = $1", "session_quarantined", TOGETHER),
        (wanted, "UPDATE public.heads SET erasures = 1 WHERE session = $1", "written", TOGETHER),
        // Over these the statement fails, and each is tried alone.
        (taken, "SELECT", "journal_invalid", ALONE),
        (plain, empty, "journal_moved", ALONE),
        (wanted, empty, "written", ALONE),
    ] {
        let Some(url) = database().await else { return };
        let journal = open(&url, &Clock::manual(NOW_MS)).await;
        write(&journal, input(&session(99), &submitted(run(99), 1, "maya", nothing()))).await;
        for n in 1..=SESSIONS {
            write(&journal, input(&session(n), &cancel(run(1)))).await;
        }
        let gate = Gate::close(&journal, &url).await;
        let entry = |n| if n == ODD { odd(&session(n)) } else { plain(&session(n)) };
        let told = gate.wait_for(&journal, (1..=SESSIONS).map(entry).collect()).await;
        let admin = connect(&url).await;
        admin.batch_execute(&meanwhile.replace("$1", &format!("'{}'", session(ODD).session))).await.unwrap();
        gate.open().await;
        for (told, n) in told.into_iter().zip(1..) {
            let became = told.await.unwrap().map_or_else(|error| error.code(), |_| "written");
            assert_eq!(became, if n == ODD { code } else { "written" }, "session {n}: {meanwhile}");
        }
        let others = (1..=SESSIONS).filter(|n| *n != ODD);
        let transactions = transactions(&admin, others.clone()).await;
        assert!(transactions <= transactions_of_others, "{meanwhile}: {transactions}");
        for n in others {
            assert_intact(&journal, &session(n), 2).await;
        }
    }
}

/// The server's side of a group's connection is ended in the middle of it, or its request gets lost.
#[tokio::test]
async fn a_group_whose_answer_got_lost_is_settled_entry_by_entry() {
    for fate in [Fate::Pass, Fate::SwallowRequest] {
        let Some(url) = database().await else { return };
        let proxy = Proxy::to(port(&url)).await;
        let through = url.replace(&port(&url).to_string(), &proxy.port.to_string());
        let journal = open(&through, &Clock::manual(NOW_MS)).await;
        for n in 1..=SESSIONS {
            write(&journal, input(&session(n), &cancel(run(1)))).await;
        }
        let gate = Gate::close(&journal, &url).await;
        let entries = (1..=SESSIONS).map(|n| match n.is_multiple_of(2) {
            true => effect(&session(n), 5, 1, &cancel(run(2))),
            false => input(&session(n), &cancel(run(2))),
        });
        let told = gate.wait_for(&journal, entries.collect()).await;
        let killer = connect(&url).await;
        if fate == Fate::Pass {
            let last =
                format!("BEGIN; SELECT FROM public.heads WHERE session = '{}' FOR UPDATE", session(SESSIONS).session);
            killer.batch_execute(&last).await.unwrap();
            gate.open().await;
            // The group has moved the heads before the last one.
            let pids = until_blocked(&killer, 1).await;
            killer.query_one("SELECT pg_terminate_backend($1)", &[&pids[0]]).await.unwrap();
            killer.batch_execute("COMMIT").await.unwrap();
        } else {
            proxy.set(fate);
            gate.open().await;
        }
        for told in told {
            let appended = told.await.unwrap().unwrap();
            assert_eq!(appended.written().unwrap().first_position, 1, "{fate:?}");
        }
        assert!(proxy.passes(), "{fate:?}: nothing was cut");
        for n in 1..=SESSIONS {
            assert_intact(&journal, &session(n), 2).await;
        }
    }
}

/// Two entries of one session never go together: the second is linked to the first.
#[tokio::test]
async fn entries_of_one_session_go_one_after_the_other() {
    let Some(url) = database().await else { return };
    let journal = open(&url, &Clock::manual(NOW_MS)).await;
    for n in 1..=SESSIONS {
        write(&journal, input(&session(n), &cancel(run(1)))).await;
    }
    let gate = Gate::close(&journal, &url).await;
    let entries = (1..=SESSIONS).flat_map(|n| [2, 3, 4].map(|of| input(&session(n), &cancel(run(of)))));
    let told = gate.wait_for(&journal, entries.collect()).await;
    gate.open().await;
    for (told, at) in told.into_iter().zip([1, 2, 3].into_iter().cycle()) {
        assert_eq!(told.await.unwrap().unwrap().written().unwrap().first_position, at);
    }
    for n in 1..=SESSIONS {
        assert_intact(&journal, &session(n), 4).await;
    }
    let principal = journal.records(&session(1), 3, 1).await.unwrap()[0].decode().unwrap().head.principal;
    assert_eq!(principal, PRINCIPAL);
}

/// A tenant's entries wait for their own; nobody is left behind.
#[tokio::test]
async fn every_tenant_has_groups_of_its_own() {
    let Some(url) = database().await else { return };
    let journal = open(&url, &Clock::manual(NOW_MS)).await;
    let key = |n: u8| SessionKey::new(["acme", "globex", "initech"][usize::from(n % 3)], session(n).session);
    for n in 1..=SESSIONS {
        write(&journal, input(&key(n), &cancel(run(1)))).await;
    }
    let gate = Gate::close(&journal, &url).await;
    let told = gate.wait_for(&journal, (1..=SESSIONS).map(|n| input(&key(n), &cancel(run(2)))).collect()).await;
    gate.open().await;
    for told in told {
        assert_eq!(told.await.unwrap().unwrap().written().unwrap().first_position, 1);
    }
    let admin = connect(&url).await;
    assert!(transactions(&admin, 1..=SESSIONS).await <= 2 + TOGETHER);
    for n in 1..=SESSIONS {
        assert_intact(&journal, &key(n), 2).await;
    }
}
