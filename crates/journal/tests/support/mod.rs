//! What the journal's tests share: journals over every store, drafts, and a walk over what was written.

#![allow(dead_code, reason = "each test binary uses its part")]

pub(crate) mod postgres;

pub(crate) mod child;

use domain::record::{Draft, Event, Finished, Submitted};
use domain::{ContentRef, Cost, Digest, Id, Limits, RunStatus, Usage, id};
use journal::{
    Append, Appended, Config, ContentsMode, Error, Fence, Journal, MemoryObjects, Parts, PlainWrap, PostgresSettings,
    SealedItem, SessionKey, Threads, Verified, WorkerSpec, Written,
};
use std::path::Path;
use std::sync::Arc;
use stdx::{Clock, Random};

/// The wall clock of the tests, until one moves it.
pub(crate) const NOW_MS: u64 = 1_700_000_000_000;

/// A journal and what it stands on.
pub(crate) struct Bench {
    pub(crate) name: &'static str,
    pub(crate) journal: Journal,
    pub(crate) clock: Clock,
    pub(crate) objects: MemoryObjects,
    pub(crate) directory: Option<tempfile::TempDir>,
}

pub(crate) fn parts(clock: &Clock, objects: &MemoryObjects) -> Parts {
    Parts {
        clock: clock.clone(),
        random: Random::system(),
        wrap: Arc::new(PlainWrap),
        objects: Arc::new(objects.clone()),
    }
}

/// One journal over each store: the contract holds for all of them.
pub(crate) async fn benches(contents: ContentsMode) -> Vec<Bench> {
    let config = Config { contents, ..Config::default() };
    let (clock, objects) = (Clock::manual(NOW_MS), MemoryObjects::default());
    let memory = Journal::memory(parts(&clock, &objects), config);
    let memory = Bench { name: "memory", journal: memory, clock, objects, directory: None };
    let (clock, objects) = (Clock::manual(NOW_MS), MemoryObjects::default());
    let directory = tempfile::tempdir().unwrap();
    let sqlite = Journal::open(directory.path(), parts(&clock, &objects), config).unwrap();
    let sqlite = Bench { name: "sqlite", journal: sqlite, clock, objects, directory: Some(directory) };
    let (clock, objects) = (Clock::manual(NOW_MS), MemoryObjects::default());
    let directory = tempfile::tempdir().unwrap();
    let inline = Config { threads: Threads::Inline, ..config };
    let inline = Journal::open(directory.path(), parts(&clock, &objects), inline).unwrap();
    let inline = Bench { name: "sqlite inline", journal: inline, clock, objects, directory: Some(directory) };
    let mut benches = vec![memory, sqlite, inline];
    if let Some(url) = postgres::database().await {
        let (clock, objects) = (Clock::manual(NOW_MS), MemoryObjects::default());
        let settings = PostgresSettings { connections_max: 8, ..PostgresSettings::new(url) };
        let journal = Journal::open_postgres(&settings, parts(&clock, &objects), config).await.unwrap();
        // Claims need a worker.
        journal.join(WorkerSpec { name: "contract".to_owned(), lease_ms: 60_000 }).await.unwrap();
        benches.push(Bench { name: "postgres", journal, clock, objects, directory: None });
    }
    benches
}

pub(crate) fn open(directory: &Path) -> Result<Journal, Error> {
    let (clock, objects) = (Clock::manual(NOW_MS), MemoryObjects::default());
    Journal::open(directory, parts(&clock, &objects), Config::default())
}

pub(crate) fn session(n: u8) -> SessionKey {
    SessionKey::new("default", Id::from_bytes([n; 16]))
}

/// Runs sort by their number.
pub(crate) fn run(n: u16) -> Id<id::Run> {
    let [high, low] = n.to_be_bytes();
    Id::from_bytes([0, 0, 0, high, low, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1])
}

pub(crate) const PRINCIPAL: Id<id::Principal> = Id::from_bytes([9; 16]);

pub(crate) fn draft(at_ms: u64, event: Event) -> Draft {
    Draft { at_ms, principal: PRINCIPAL, event }
}

pub(crate) fn submitted(run: Id<id::Run>, at_ms: u64, agent: &str, message: ContentRef) -> Draft {
    let event = Submitted {
        run,
        agent: agent.to_owned(),
        closure: Digest::of(b"closure"),
        message: Some(message),
        session_name: None,
        idempotency: None,
        limits: Limits::default(),
        save: domain::record::Save::default(),
        callback: None,
    };
    draft(at_ms, Event::Submitted(event))
}

/// A pointer to nothing, for tests that are not about contents.
pub(crate) fn nothing() -> ContentRef {
    ContentRef { id: Id::from_bytes([0; 16]), bytes: 0, media: "text/plain".to_owned(), mac: Digest::ZERO }
}

pub(crate) fn cancel(run: Id<id::Run>) -> Draft {
    draft(NOW_MS, Event::CancelRequested(domain::record::CancelRequested { run, when: domain::record::When::Now }))
}

pub(crate) fn finished(run: Id<id::Run>, at_ms: u64, status: RunStatus) -> Draft {
    let event = Finished {
        run,
        status,
        reply: None,
        failure: None,
        turns: 3,
        tool_calls: 2,
        usage: Usage { model_calls: 3, input_tokens: 70, cached_tokens: 20, output_tokens: 30, reasoning_tokens: 5 },
        cost: Cost::Unlisted { micro_usd: 12 },
        used_sandbox: true,
    };
    draft(at_ms, Event::Finished(event))
}

pub(crate) fn input(key: &SessionKey, draft: &Draft) -> Append {
    Append::new(key.clone(), Fence::Input(None)).draft(draft)
}

pub(crate) fn effect(key: &SessionKey, epoch: u64, expect: u64, draft: &Draft) -> Append {
    Append::new(key.clone(), Fence::Effect { epoch, expect }).draft(draft)
}

/// Appends what must be written.
pub(crate) async fn write(journal: &Journal, entry: Append) -> Written {
    match journal.append(entry).await.unwrap() {
        Appended::Written(written) => written,
        Appended::Existing(existing) => panic!("existing {existing:?}"),
    }
}

/// Seals and appends one item with a cancel that carries it.
pub(crate) async fn keep(journal: &Journal, key: &SessionKey, media: &str, plain: &[u8]) -> ContentRef {
    let (content, item) = journal.sealer(key).await.unwrap().seal(media, plain).unwrap();
    write(journal, with(input(key, &cancel(run(1))), item)).await;
    content
}

pub(crate) fn with(entry: Append, item: SealedItem) -> Append {
    entry.content(item)
}

pub(crate) async fn assert_intact(journal: &Journal, key: &SessionKey, records: u64) {
    let head = journal.head(key).await.unwrap();
    let intact = Verified::Intact { records, head_hash: head.hash };
    assert_eq!((journal.verify(key).await.unwrap(), head.position), (intact, records));
}
