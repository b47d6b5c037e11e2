//! One world: it lives, crashes, lives again, and is judged. Everything that outlives a crash is here; everything else is made
//! anew for each life and dropped where it stands.

use crate::check;
use crate::client::Client;
use crate::disk::{BEHIND, Crash, Disk, Faults, Mounted};
use crate::hooks::Hooks;
use crate::ledger::Ledger;
use crate::network::Network;
use crate::objects::{Contents, Storage};
use crate::power::{ENDLESS, Power};
use crate::project;
use crate::reached::Reached;
use crate::report::{Figures, Report};
use crate::restart::after_restart;
use crate::time::Time;
use crate::told::Told;
use crate::trace::Trace;
use crate::wishes::Operator;
use crate::witness::Witness;
use crate::workspace::Workspaces;
use blob::{Blobs, Links};
use catalog::Catalog;
use engine::{Engine, Parts, Tending};
use journal::{Claimants, Config, Journal, PlainWrap, WorkerSpec};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use stdx::Random;
use tokio::task::JoinHandle;

/// Crashes of one world at most.
const CRASHES_MAX: u64 = 5;
/// How often a world that nothing troubles any more is helped until it must be at rest, and the seconds in between.
const REST_ROUNDS_MAX: u64 = 600;
const REST_SECONDS: u64 = 30;
/// A worker's lease.
const LEASE_MS: u64 = 3_000;

/// Lives a world.
pub(crate) fn run(seed: u64) -> Report {
    match World::new(seed) {
        Ok(world) => world.run(),
        Err(error) => Report { seed, wrong: vec![error], trace: Vec::new(), figures: Figures::default() },
    }
}

#[derive(Debug)]
struct World {
    seed: u64,
    random: Random,
    power: Power,
    time: Time,
    disk: Disk,
    mounted: Mounted,
    contents: Arc<Contents>,
    storage: Arc<Storage>,
    catalog: Arc<Catalog>,
    told: Told,
    trace: Trace,
    ledger: Ledger,
    witness: Witness,
    workspaces: Workspaces,
    hooks: Hooks,
    network: Network,
    reached: Reached,
    figures: Figures,
    wrong: Vec<String>,
}

/// How a life goes.
#[derive(Clone, Copy, Debug)]
struct Fate {
    end: End,
    faults: Faults,
    crash: Crash,
    clients: u64,
    requests: u64,
    drivers_max: usize,
    /// Whether two workers share the journal, each with a lease.
    is_shared: bool,
}

/// How a life ends.
#[derive(Clone, Copy, Debug)]
enum End {
    /// At a point: a call into the world, or an operation of the disk.
    AtPoint(u64),
    /// When so much time is over, in milliseconds.
    AtTime(u64),
    /// When the runtime has gone round so often: between any two polls of tasks.
    AtTurn(u64),
    /// As it should: drained and closed.
    Drained,
    /// Never: the last life goes on until everything rests.
    AtRest,
}

impl Fate {
    /// Whether the disk fails, so that a request may be answered with that.
    fn is_troubled(self) -> bool {
        self.faults != Faults::default()
    }
}

impl World {
    fn new(seed: u64) -> Result<Self, String> {
        static WORLDS: AtomicU64 = AtomicU64::new(0);
        let stream = |salt: u64| Random::seeded(seed.wrapping_mul(0x9e37_79b9).wrapping_add(salt));
        let (power, time) = (Power::default(), Time::default());
        let trace = Trace::new(time.clone());
        let disk = Disk::new(power.clone(), stream(1), time.clone());
        let mounted = Mounted::new(format!("/sim/{}", WORLDS.fetch_add(1, Ordering::Relaxed)), &disk);
        let told = Told::new(trace.clone());
        let database = format!("{}/journal.db", mounted.directory());
        let witness = Witness::new(stream(2), disk.clone(), database, told.clone(), time.clone(), trace.clone());
        let reached = Reached::default();
        let hooks = Hooks::new(power.clone(), trace.clone(), reached.clone());
        let network = Network::new(power.clone(), stream(5), trace.clone(), reached.clone(), hooks.clone());
        Ok(Self {
            seed,
            hooks,
            network,
            reached,
            random: stream(3),
            contents: Arc::new(Contents::new(power.clone())),
            storage: Arc::new(Storage::new(power.clone())),
            catalog: project::catalog(seed)?,
            ledger: Ledger::new(trace.clone()),
            workspaces: Workspaces::new(power.clone(), stream(4), trace.clone()),
            figures: Figures::default(),
            wrong: Vec::new(),
            power,
            time,
            disk,
            mounted,
            told,
            trace,
            witness,
        })
    }

    fn run(mut self) -> Report {
        for life in 0..=self.random.below(CRASHES_MAX + 1) {
            let fate = self.fate();
            self.life(life, fate);
            if !self.wrong.is_empty() {
                return self.report();
            }
        }
        let rest = Fate { end: End::AtRest, faults: Faults::default(), clients: 0, ..self.fate() };
        self.life(u64::MAX, rest);
        self.report()
    }

    fn fate(&self) -> Fate {
        let random = &self.random;
        let end = match random.below(8) {
            0..=3 => End::AtPoint(random.below(1 << random.below(12))),
            4 | 5 => End::AtTime(random.below(8_000)),
            6 => End::AtTurn(random.below(1 << random.below(11))),
            _ => End::Drained,
        };
        let faults = match random.below(4) {
            0 => Faults::drawn(random, self.disk.used_bytes()),
            _ => Faults::default(),
        };
        let faults = Faults { syncs_slept: if random.below(3) == 0 { random.below(4_000) } else { 0 }, ..faults };
        Fate {
            end,
            faults,
            crash: if random.below(3) == 0 { Crash::Process } else { Crash::Power },
            clients: 1 + random.below(4),
            requests: 1 + random.below(8),
            drivers_max: 1 + usize::try_from(random.below(4)).unwrap_or(0),
            is_shared: random.below(3) == 0,
        }
    }

    /// One life of the process, from its start to its end.
    fn life(&mut self, number: u64, fate: Fate) {
        self.trace.say(format_args!("life {number} {fate:?}"));
        self.time.skew(i64::try_from(self.random.below(7_200_000)).unwrap_or(0) - 3_600_000);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => return self.wrong.push(format!("there is no runtime: {error}")),
        };
        let lived = runtime.block_on(async {
            self.time.begin();
            let lived = tokio::select! {
                biased;
                () = self.power.gone() => Ok(()),
                lived = self.day(fate) => lived,
            };
            self.told.hear();
            self.time.end();
            lived
        });
        self.power.cut("the end of the day");
        drop(runtime);
        self.told.end();
        self.witness.ask(None);
        self.trace.say(format_args!("the end: {}", self.power.at()));
        if let Err(wrong) = lived {
            self.wrong.push(wrong);
        }
        if self.power.at() == ENDLESS {
            self.wrong.push("something goes round in circles and never waits".into());
        }
        self.wrong.extend(self.told.wrong());
        self.wrong.extend(self.ledger.wrongs());
        self.wrong.extend(self.witness.wrongs());
        self.wrong.extend(self.hooks.wrongs());
        self.figures.crashes += 1;
        self.disk.set_faults(Faults::default());
        self.disk.restart(fate.crash);
        self.workspaces.restart(fate.crash);
        self.power.on();
    }

    async fn day(&self, fate: Fate) -> Result<(), String> {
        match fate.end {
            End::AtPoint(points) => self.power.cut_after(points),
            End::AtTime(ms) => self.cut_when(tokio::time::sleep(Duration::from_millis(ms))),
            End::AtTurn(turns) => self.cut_when(async move {
                for _ in 0..turns {
                    tokio::task::yield_now().await;
                }
            }),
            End::Drained | End::AtRest => {}
        }
        let Some(journal) = self.opened(self.open_journal(fate.is_shared))? else { return Ok(()) };
        self.told.listen(&journal);
        if let Err(wrong) = after_restart(&journal, &self.told).await {
            // A dead disk can't be read.
            return if self.power.is_off() { Ok(()) } else { Err(wrong) };
        }
        self.witness.ask(Some(journal.clone()));
        self.disk.set_faults(fate.faults);
        let engines = match fate.is_shared {
            true => vec![self.engine(journal.clone(), fate)?, self.engine(journal.fellow(), fate)?],
            false => vec![self.engine(journal, fate)?],
        };
        let Some(tendings) = self.started(&engines, fate).await? else { return Ok(()) };
        for client in self.clients(&engines, fate) {
            client.await.map_err(|error| format!("a client broke down: {error}"))?;
        }
        match fate.end {
            End::AtPoint(_) | End::AtTime(_) | End::AtTurn(_) => {
                tokio::time::sleep(Duration::from_millis(self.random.below(10_000))).await;
            }
            End::Drained => {
                let grace = Duration::from_secs(self.random.below(10));
                for (engine, tending) in engines.iter().zip(tendings) {
                    engine.drain(grace).await;
                    tending.end().await;
                }
                for engine in &engines {
                    // What could not be written is told by health; the log says the rest at the next start.
                    let _ = engine.journal().close().await;
                }
            }
            End::AtRest => self.rest(&engines).await?,
        }
        Ok(())
    }

    /// Joins the workers and takes up what the life before left; nothing when the power went meanwhile.
    async fn started(&self, engines: &[Engine], fate: Fate) -> Result<Option<Vec<Tending>>, String> {
        let mut tendings = Vec::new();
        for (number, engine) in engines.iter().enumerate() {
            let spec = WorkerSpec { name: format!("worker-{number}"), lease_ms: LEASE_MS };
            let joined = engine.tend(spec).await;
            let taken_up = engine.recover().await;
            if fate.is_troubled() {
                // What could not be read now is taken up at the next start.
                tendings.extend(joined.ok());
                continue;
            }
            let (Some(tending), Some(_)) = (self.opened(joined)?, self.opened(taken_up)?) else { return Ok(None) };
            tendings.push(tending);
        }
        Ok(Some(tendings))
    }

    fn clients(&self, engines: &[Engine], fate: Fate) -> Vec<JoinHandle<()>> {
        let mut clients = Vec::new();
        for (number, engine) in (0..fate.clients).zip(engines.iter().cycle()) {
            let (random, power, ledger) = (self.random.clone(), self.power.clone(), self.ledger.clone());
            let is_troubled = fate.is_troubled();
            let client = Client { number, engine: engine.clone(), random, power, ledger, is_troubled };
            clients.push(tokio::spawn(client.live(fate.requests)));
        }
        clients
    }

    /// What a start gave; nothing when the power went meanwhile.
    fn opened<T, E: std::fmt::Display>(&self, opened: Result<T, E>) -> Result<Option<T>, String> {
        match opened {
            Ok(opened) => Ok(Some(opened)),
            Err(_) if self.power.is_off() => Ok(None),
            Err(error) => Err(format!("the start failed: {error}")),
        }
    }

    /// Helps everything to its end, and judges.
    async fn rest(&self, engines: &[Engine]) -> Result<(), String> {
        let operators: Vec<_> = engines
            .iter()
            .map(|engine| {
                let (random, power, ledger) = (self.random.clone(), self.power.clone(), self.ledger.clone());
                Operator { engine: engine.clone(), random, power, ledger, is_troubled: false }
            })
            .collect();
        let mut open = 0;
        for _ in 0..REST_ROUNDS_MAX {
            tokio::time::sleep(Duration::from_secs(REST_SECONDS)).await;
            open = 0;
            for operator in &operators {
                open = operator.help_all().await.map_err(|error| format!("nobody can help: {error}"))?;
            }
            let is_idle = engines.iter().all(|engine| (engine.health().active, engine.health().waiting) == (0, 0));
            let untold = self.opened(engines[0].journal().outbox(u64::MAX, 1).await)?;
            if open == 0 && is_idle && untold.is_none_or(|rows| rows.is_empty()) {
                self.told.hear();
                let engine = &engines[0];
                let (told, ledger, witness) = (&self.told, &self.ledger, &self.witness);
                let outside =
                    check::Outside { told, ledger, witness, workspaces: &self.workspaces, hooks: &self.hooks };
                return check::at_rest(engine, outside, &self.reached).await;
            }
        }
        let health: Vec<_> = engines.iter().map(|engine| engine.health().active).collect();
        Err(format!("{open} runs have not ended although nothing is wrong; driven are {health:?}"))
    }

    fn cut_when(&self, over: impl Future<Output = ()> + Send + 'static) {
        let power = self.power.clone();
        tokio::spawn(async move {
            over.await;
            power.cut("at its time");
        });
    }

    fn open_journal(&self, is_shared: bool) -> Result<Journal, journal::Error> {
        let parts = journal::Parts {
            clock: self.time.clock(),
            random: self.random.clone(),
            wrap: Arc::new(PlainWrap),
            objects: self.contents.clone(),
        };
        let mut config =
            Config { disk: journal::Disk::Vfs(BEHIND), threads: journal::Threads::Inline, ..Config::default() };
        if is_shared {
            config.claimants = Claimants::Fellows;
        }
        // The listener hears everything.
        config.limits.hints_max = 1 << 16;
        Journal::open(self.mounted.directory().as_ref(), parts, config)
    }

    fn engine(&self, journal: Journal, fate: Fate) -> Result<Engine, String> {
        static NET: LazyLock<Result<net::Client, String>> = LazyLock::new(|| {
            net::Client::new(net::Settings::default()).map_err(|error| format!("there is no way out: {error}"))
        });
        let (clock, catalog) = (self.time.clock(), self.catalog.clone());
        let blobs = Blobs::over(self.storage.clone(), Links::new(&[7; 32], clock.clone()));
        let (keys, random) = (Arc::new(chunks::SameKey([8; 32])), self.random.clone());
        let kept = chunks::Parts { blobs: blobs.clone(), keys, clock: clock.clone(), random };
        let config = chunks::Config { threads: chunks::Threads::Inline, ..chunks::Config::default() };
        Ok(Engine::new(Parts {
            blobs,
            chunks: chunks::Chunks::new(kept, config),
            journal,
            catalog: Arc::new(move || catalog.clone()),
            providers: vec![Arc::new(self.workspaces.clone())],
            net: NET.clone()?.over(Arc::new(self.network.clone())),
            environment: Arc::new(project::environment),
            secrets: vault::Secrets::new(BTreeMap::new()),
            functions: self.witness.functions(),
            limits: engine::Limits { drivers_max: fate.drivers_max, ..engine::Limits::default() },
            clock,
            random: self.random.clone(),
        }))
    }

    fn report(self) -> Report {
        let records = self.told.logs().values().map(|log| log.len() as u64).sum();
        let figures = Figures {
            crashes: self.figures.crashes.saturating_sub(1),
            runs: self.ledger.tickets().len() as u64,
            deeds: self.witness.deeds().len() as u64,
            records,
            points: self.power.points(),
            faults: self.disk.operations().faults,
            reached: self.reached.counts(),
        };
        Report { seed: self.seed, wrong: self.wrong, trace: self.trace.lines(), figures }
    }
}
