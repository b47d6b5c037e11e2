//! A small house for tests: a project in a temporary folder, a real SQLite journal, a scripted model, Rust functions as tools.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "test support: each test file uses its part, and a failure is a panic"
)]

pub mod cells;

use blob::{Blobs, Links};
use catalog::Catalog;
use domain::record::Save;
use domain::{Id, Record, id};
use engine::{Engine, LimitChange, Limits, Parts, SessionName, Submission};
use journal::{Config, Content, ContentsMode, Journal, MemoryObjects, PlainWrap, SessionKey};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use stdx::clock::Hands;
use stdx::{Clock, Random};
use tempfile::TempDir;
use tools::Functions;

pub const TENANT: &str = "default";

/// A project whose only agent is `maya`, with tools that run Rust functions.
pub struct Project {
    pub folder: TempDir,
}

/// A tool: its name, its effect, and further lines of its declaration.
pub type ToolLines<'a> = (&'a str, &'a str, &'a str);

impl Project {
    pub fn new(limits: &str, tools: &[ToolLines<'_>], transcript: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let names: Vec<_> = tools.iter().map(|(name, ..)| *name).collect();
        write("topside.yaml", "default_agent: maya\n");
        let front = format!("model: main\ntools: [{}]\nlimits: {{{limits}}}", names.join(", "));
        write("agents/maya.md", &format!("---\n{front}\n---\nYou are Maya.\n"));
        write("models/main.yaml", "main: {provider: script, transcript: script.yaml}\n");
        write("script.yaml", transcript);
        for (name, effect, more) in tools {
            let text = format!(
                "description: Does {name}.\ninput_schema: {{type: object, properties: {{n: {{type: integer}}}}}}\neffect: {effect}\n{more}run: {{function: {{}}}}\n"
            );
            write(&format!("tools/{name}.yaml"), &text);
        }
        Self { folder }
    }

    pub fn write(&self, path: &str, text: &str) {
        let path = self.folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// What is declared now.
    pub fn catalog(&self) -> Arc<Catalog> {
        Arc::new(Catalog::load(self.folder.path(), &|_| None).unwrap_or_else(|problems| panic!("{problems}")))
    }

    pub fn data(&self) -> std::path::PathBuf {
        self.folder.path().join("data")
    }

    pub fn engine(&self, functions: Functions) -> Engine {
        self.engine_with(functions, Vec::new())
    }

    pub fn engine_with(&self, functions: Functions, providers: Vec<Arc<dyn sandbox::Provider>>) -> Engine {
        let catalog = self.catalog();
        open(&self.data(), Arc::new(move || catalog.clone()), functions, providers)
    }

    pub fn engine_in(&self, world: World) -> Engine {
        self.engine_among(world, Vec::new())
    }

    pub fn engine_among(&self, world: World, providers: Vec<Arc<dyn sandbox::Provider>>) -> Engine {
        let environment = world.environment.clone();
        let catalog = Catalog::load(self.folder.path(), &|name| environment.get(name).cloned());
        let catalog = Arc::new(catalog.unwrap_or_else(|problems| panic!("{problems}")));
        open_in(&self.data(), Arc::new(move || catalog.clone()), world, providers)
    }
}

/// What an engine of a test finds around it.
#[derive(Default)]
pub struct World {
    pub secrets: BTreeMap<String, String>,
    pub environment: BTreeMap<String, String>,
    /// Variables that a test changes while its engine runs; they come before the others.
    pub variables: Arc<Mutex<BTreeMap<String, String>>>,
    /// Where untrusted hosts may lead besides public addresses.
    pub networks: Vec<net::Network>,
    pub contents: ContentsMode,
    pub functions: Functions,
    pub limits: Limits,
    /// How far the clock is ahead of the machine's, in milliseconds.
    pub ahead_ms: Arc<AtomicU64>,
}

/// The machine's clock, put forward.
#[derive(Debug)]
struct Ahead(Clock, Arc<AtomicU64>);

impl Hands for Ahead {
    fn wall_ms(&self) -> u64 {
        self.0.wall_ms() + self.1.load(Ordering::SeqCst)
    }

    fn monotonic(&self) -> Duration {
        self.0.monotonic() + Duration::from_millis(self.1.load(Ordering::SeqCst))
    }
}

pub fn open(
    data: &Path,
    catalog: Arc<dyn Fn() -> Arc<Catalog> + Send + Sync>,
    functions: Functions,
    providers: Vec<Arc<dyn sandbox::Provider>>,
) -> Engine {
    open_in(data, catalog, World { functions, ..World::default() }, providers)
}

pub fn open_in(
    data: &Path,
    catalog: Arc<dyn Fn() -> Arc<Catalog> + Send + Sync>,
    world: World,
    providers: Vec<Arc<dyn sandbox::Provider>>,
) -> Engine {
    let World {
        secrets,
        environment,
        variables,
        networks: untrusted_networks_allowed,
        contents,
        functions,
        limits,
        ahead_ms,
    } = world;
    let (clock, random) = (Clock::given(Arc::new(Ahead(Clock::system(), ahead_ms))), Random::system());
    let objects = data.join("objects");
    fs::create_dir_all(&objects).unwrap();
    let parts = journal::Parts {
        clock: clock.clone(),
        random: random.clone(),
        wrap: Arc::new(PlainWrap),
        objects: Arc::new(MemoryObjects::default()),
    };
    let journal = Journal::open(data, parts, Config { contents, ..Config::default() }).unwrap();
    let blobs = Blobs::local(&objects, Links::new(&[7; 32], clock.clone())).unwrap();
    let (keys, config) = (Arc::new(chunks::SameKey([8; 32])), chunks::Config::default());
    let kept = chunks::Parts { blobs: blobs.clone(), keys, clock: clock.clone(), random: random.clone() };
    Engine::new(Parts {
        blobs,
        chunks: chunks::Chunks::new(kept, config),
        journal,
        catalog,
        providers,
        net: net::Client::new(net::Settings { untrusted_networks_allowed, ..net::Settings::default() }).unwrap(),
        environment: Arc::new(move |name| variables.lock().get(name).or_else(|| environment.get(name)).cloned()),
        secrets: vault::Secrets::new(secrets),
        functions,
        limits,
        clock,
        random,
    })
}

pub fn ask(message: &str) -> Submission {
    Submission {
        tenant: TENANT.into(),
        principal: Id::from_name(TENANT, "local"),
        session: SessionName::New,
        agent: None,
        message: message.into(),
        save: Save::Declared,
        limits: LimitChange::default(),
        callback: None,
        idempotency: None,
    }
}

/// The session's records.
pub async fn records(engine: &Engine, session: Id<id::Session>) -> Vec<Record> {
    let key = SessionKey::new(TENANT, session);
    let stored = engine.journal().records(&key, 0, 1_000).await.unwrap();
    stored.iter().map(|record| record.decode().unwrap()).collect()
}

/// The kinds of the session's records, in order.
pub async fn kinds(engine: &Engine, session: Id<id::Session>) -> String {
    let records = records(engine, session).await;
    records.iter().map(|record| record.event.kind()).collect::<Vec<_>>().join(" ")
}

/// Waits until the kinds of the session's records are as wanted; gives them.
pub async fn until(engine: &Engine, session: Id<id::Session>, wanted: impl Fn(&str) -> bool) -> String {
    let key = SessionKey::new(TENANT, session);
    let mut hints = engine.journal().subscribe(&key).unwrap();
    loop {
        let kinds = kinds(engine, session).await;
        if wanted(&kinds) {
            return kinds;
        }
        let hint = tokio::time::timeout(Duration::from_secs(60), hints.next()).await;
        assert!(hint.is_ok(), "nothing comes after: {kinds}");
    }
}

/// Somebody.
pub fn principal(name: &str) -> Id<id::Principal> {
    Id::from_name(TENANT, name)
}

/// Text of a content item.
pub async fn text(engine: &Engine, session: Id<id::Session>, content: &domain::ContentRef) -> String {
    let key = SessionKey::new(TENANT, session);
    match engine.journal().content(&key, content).await.unwrap() {
        Content::Bytes(bytes) => String::from_utf8(bytes).unwrap(),
        Content::Erased => "[erased]".into(),
    }
}
