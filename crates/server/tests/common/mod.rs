//! A house for tests: a project in a temporary folder, a real SQLite journal, a scripted model, Rust functions as tools, and
//! the service over it on a loopback socket or within the process.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part of the house")]
#![allow(clippy::unwrap_used, reason = "a house that cannot be built is a failed test")]

pub mod shelf;

use api::Scope;
use blob::{Blobs, Links};
use catalog::Catalog;
use client::Client;
use domain::record::Save;
use domain::{Digest, Id, RunStatus, TENANT_DEFAULT};
use engine::{Engine, Limits, Parts, SessionName, Submission};
use journal::{Journal, MemoryObjects, PlainWrap, RunFilter};
use net::{HeaderMap, HeaderName, HeaderValue, Method, Origin, Request, Url};
use server::{Config, Key, KeyHash, Listener, MemoryConnector};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use stdx::{Clock, Random};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinHandle;
use tools::{Context, Functions};

/// What the model says to what.
const TRANSCRIPT: &str = r#"
title: script-1
steps:
- expect: {user: 'Hello'}
  reply:
  - text: "Hello, how can I help?"
- expect: {user: 'Look'}
  reply:
  - text: "I will look, and then I will look again, to be sure of what there is to be seen."
  - call: {id: c1, tool: look, arguments: {n: 1}}
  - call: {id: c2, tool: look, arguments: {n: 2}}
- expect: {outputs: {c1: 'seen 1', c2: 'seen 2'}}
  reply:
  - text: "Both were seen, the first one before the second, and nothing else was there to be seen."
- expect: {user: 'Hold'}
  reply:
  - call: {id: c1, tool: hold, arguments: {}}
- expect: {outputs: {c1: 'released'}}
  reply:
  - text: "Released."
- expect: {user: 'Pay'}
  reply:
  - text: "I will pay."
  - call: {id: c1, tool: pay, arguments: {n: 3}}
- expect: {outputs: {c1: '(?s)(?<what>paid 3|Not today)'}}
  reply:
  - text: "Told: ${what}."
- expect: {user: 'Launch'}
  reply:
  - call: {id: c1, tool: launch, arguments: {}}
- expect: {outputs: {c1: 'went through'}}
  reply:
  - text: "Launched."
- expect: {user: 'Briefly'}
  reply:
  - text: "Yes."
- expect: {user: 'Fail'}
  reply:
  - call: {id: c1, tool: look, arguments: {n: 1}}
- expect: {outputs: {c1: 'never this'}}
  reply:
  - text: "Not reached."
"#;

/// Paying wants an approval, launching none.
const POLICY: &str = r#"
@id("house.inside")
permit (principal, action in [Action::"read", Action::"write"], resource);
@id("house.pay") @approval("always")
permit (principal, action == Action::"external", resource == Tool::"pay");
@id("house.launch")
permit (principal, action == Action::"external", resource == Tool::"launch");
"#;

/// The parts that a test can reach into.
pub struct House {
    pub folder: TempDir,
    pub engine: Engine,
    /// The sandboxes that live.
    pub shelf: Arc<shelf::Shelf>,
    /// Each permit lets one held call go on.
    pub release: Arc<Semaphore>,
    /// Told when a call is held.
    pub held: Arc<Notify>,
}

impl House {
    pub fn new() -> Self {
        Self::over(project())
    }

    /// A house with some files of the project written otherwise.
    pub fn with(files: &[(&str, &str)]) -> Self {
        let folder = project();
        for (path, text) in files {
            fs::write(folder.path().join(path), text).unwrap();
        }
        Self::over(folder)
    }

    fn over(folder: TempDir) -> Self {
        let (release, held) = (Arc::new(Semaphore::new(0)), Arc::new(Notify::new()));
        let shelf = Arc::new(shelf::Shelf::default());
        let engine = engine(folder.path(), functions(&release, &held), &shelf);
        Self { folder, engine, shelf, release, held }
    }

    /// A house after a crash: session `dock` has a call of which nobody knows whether it took effect.
    pub async fn in_doubt() -> Self {
        let folder = project();
        let path = folder.path().to_owned();
        // A process is played by a runtime: shutting it down drops every task where it stands.
        let journal = std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            let journal = runtime.block_on(async {
                let (release, held) = (Arc::new(Semaphore::new(0)), Arc::new(Notify::new()));
                let engine = engine(&path, functions(&release, &held), &Arc::default());
                let submission = Submission {
                    tenant: TENANT_DEFAULT.to_owned(),
                    principal: Id::from_name(TENANT_DEFAULT, "local"),
                    session: SessionName::Named("dock".into()),
                    agent: None,
                    message: "Launch".into(),
                    save: Save::Declared,
                    limits: engine::LimitChange::default(),
                    callback: None,
                    idempotency: None,
                };
                engine.submit(submission).await.unwrap();
                held.notified().await;
                engine.journal().clone()
            });
            runtime.shutdown_timeout(Duration::from_secs(10));
            journal
        });
        journal.join().unwrap().close().await.unwrap();
        let house = Self::over(folder);
        house.engine.recover().await.unwrap();
        let run = house.engine.runs(TENANT_DEFAULT, RunFilter::default(), None, 1).await.unwrap().rows[0].run;
        let view = house.engine.wait(TENANT_DEFAULT, run, Duration::from_secs(60)).await.unwrap();
        assert_eq!(view.status, RunStatus::NeedsResolution);
        house
    }

    /// Serves on a loopback socket.
    pub async fn serve(&self, config: Config) -> Served {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        Served::start(Listener::Tcp(listener), config, self.engine.clone(), base)
    }

    /// A client within the process.
    pub fn memory_client(connector: &MemoryConnector) -> Client {
        let connector = connector.clone();
        Client::memory(move || {
            let connector = connector.clone();
            async move { connector.connect().await }
        })
    }

    /// Serves within the process.
    pub fn serve_memory(&self, config: Config) -> (MemoryConnector, Served) {
        let (connector, listener) = server::memory();
        (connector, Served::start(listener, config, self.engine.clone(), String::new()))
    }
}

/// A project in a folder of its own.
fn project() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let tool = |name: &str, effect: &str| {
        format!(
            "description: Does {name}.\ninput_schema: {{type: object, properties: {{n: {{type: integer}}}}}}\neffect: {effect}\nrun: {{function: {{}}}}\n"
        )
    };
    for (path, text) in [
        ("topside.yaml", "default_agent: maya\n".to_owned()),
        ("agents/maya.md", "---\nmodel: main\ntools: [look, hold, pay, launch]\n---\nYou are Maya.\n".to_owned()),
        ("models/main.yaml", "main: {provider: script, transcript: script.yaml}\n".to_owned()),
        ("script.yaml", TRANSCRIPT.to_owned()),
        ("tools/look.yaml", tool("look", "read")),
        ("tools/hold.yaml", tool("hold", "read")),
        ("tools/pay.yaml", tool("pay", "external")),
        ("tools/launch.yaml", tool("launch", "external")),
        ("policies/house.cedar", POLICY.to_owned()),
    ] {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

fn functions(release: &Arc<Semaphore>, held: &Arc<Notify>) -> Functions {
    let mut functions = Functions::new();
    functions.add("look", |arguments: serde_json::Value, _: Context| async move {
        Ok::<_, String>(format!("seen {}", arguments["n"]))
    });
    functions.add("pay", |arguments: serde_json::Value, _: Context| async move {
        Ok::<_, String>(format!("paid {}", arguments["n"]))
    });
    let told = held.clone();
    functions.add("launch", move |_: serde_json::Value, _: Context| {
        let told = told.clone();
        async move {
            told.notify_one();
            std::future::pending::<()>().await;
            Ok::<_, String>("launched".to_owned())
        }
    });
    let (release, held) = (release.clone(), held.clone());
    functions.add("hold", move |_: serde_json::Value, _: Context| {
        let (release, held) = (release.clone(), held.clone());
        async move {
            held.notify_one();
            release.acquire().await.map_err(|error| error.to_string())?.forget();
            Ok::<_, String>("released".to_owned())
        }
    });
    functions
}

fn engine(root: &Path, functions: Functions, shelf: &Arc<shelf::Shelf>) -> Engine {
    let catalog = Arc::new(Catalog::load(root, &|_| None).unwrap_or_else(|problems| panic!("{problems}")));
    let (clock, random) = (Clock::system(), Random::system());
    let data = root.join("data");
    let objects = data.join("objects");
    fs::create_dir_all(&objects).unwrap();
    let parts = journal::Parts {
        clock: clock.clone(),
        random: random.clone(),
        wrap: Arc::new(PlainWrap),
        objects: Arc::new(MemoryObjects::default()),
    };
    let blobs = Blobs::local(&objects, Links::new(&[7; 32], clock.clone())).unwrap();
    let (keys, config) = (Arc::new(chunks::SameKey([8; 32])), chunks::Config::default());
    let kept = chunks::Parts { blobs: blobs.clone(), keys, clock: clock.clone(), random: random.clone() };
    Engine::new(Parts {
        blobs,
        chunks: chunks::Chunks::new(kept, config),
        journal: Journal::open(&data, parts, journal::Config::default()).unwrap(),
        catalog: Arc::new(move || catalog.clone()),
        providers: vec![shelf.clone()],
        net: net::Client::new(net::Settings::default()).unwrap(),
        environment: Arc::new(|_| None),
        secrets: vault::Secrets::new(BTreeMap::new()),
        functions,
        limits: Limits::default(),
        clock,
        random,
    })
}

/// A service that runs.
pub struct Served {
    pub base: String,
    pub net: net::Client,
    stop: Arc<Notify>,
    task: JoinHandle<Result<(), server::Error>>,
}

impl Served {
    fn start(listener: Listener, config: Config, engine: Engine, base: String) -> Self {
        let stop = Arc::new(Notify::new());
        let told = stop.clone();
        let shutdown = async move { told.notified().await };
        let task = tokio::spawn(server::serve(listener, config, engine, shutdown));
        Self { base, net: net::Client::new(net::Settings::default()).unwrap(), stop, task }
    }

    /// Tells it to stop and waits until it has.
    pub async fn stop(self) {
        self.stop.notify_one();
        self.task.await.unwrap().unwrap();
    }

    /// Tells it to stop.
    pub fn tell_to_stop(&self) {
        self.stop.notify_one();
    }

    pub fn client(&self, key: Option<&str>) -> Client {
        Client::http(&self.base, key, self.net.clone()).unwrap()
    }

    /// Sends a request; headers as `name: value`.
    pub async fn send(&self, method: &str, path: &str, headers: &[&str], body: &str) -> Answer {
        let url = Url::parse(&format!("{}{path}", self.base)).unwrap();
        let mut request = Request::new(Method::from_bytes(method.as_bytes()).unwrap(), url, Origin::Operator);
        for line in headers {
            let (name, value) = line.split_once(": ").unwrap();
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            request.headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        request.body = body.to_owned().into();
        let response = self.net.send(request).await.unwrap_or_else(|error| panic!("{method} {path}: {error}"));
        let (status, headers) = (response.status(), response.headers().clone());
        let body = String::from_utf8(response.bytes().await.unwrap().to_vec()).unwrap();
        Answer { status, headers, body }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], "").await
    }

    /// Sends a JSON body.
    pub async fn post(&self, path: &str, headers: &[&str], body: &str) -> Answer {
        self.send("POST", path, &[&["content-type: application/json"], headers].concat(), body).await
    }

    pub async fn post_run(&self, headers: &[&str], body: &str) -> Answer {
        self.send("POST", "/runs", &[&["content-type: application/json"], headers].concat(), body).await
    }
}

/// An answer, whole.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// A member as text.
    pub fn text(&self, name: &str) -> String {
        match &self.json()[name] {
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        }
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Checks a problem in full and gives its code.
    pub fn code(&self) -> String {
        assert_eq!(self.header("content-type"), api::PROBLEM_MEDIA, "{self:?}");
        let problem: api::Problem = serde_json::from_str(&self.body).unwrap();
        assert_eq!(problem.status, self.status, "{problem:?}");
        assert_eq!(problem.page, format!("/docs/errors/{}", problem.code));
        assert!(!problem.title.is_empty() && !problem.detail.is_empty(), "{problem:?}");
        problem.code
    }
}

pub fn key(principal: &str, tenant: &str, plain: &str, scopes: &[Scope]) -> Key {
    let hash = KeyHash::Sha256(Digest::of(plain.as_bytes()));
    Key { principal: principal.into(), tenant: tenant.into(), scopes: scopes.to_vec(), hash }
}
