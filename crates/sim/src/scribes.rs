//! A world without an engine: scribes write to the journal as drivers and clients do, on a disk that fails often. What they were
//! told must be true: what is written stays, what was not told is written once or not at all, and nobody is moved by himself.

use crate::TENANT;
use crate::check::one_holder;
use crate::claims::Claimed;
use crate::disk::{BEHIND, Crash, Disk, Faults, Mounted};
use crate::objects::Contents;
use crate::power::{ENDLESS, Power};
use crate::report::{Figures, Report};
use crate::restart::{after_restart, log_of};
use crate::time::Time;
use crate::told::Told;
use crate::trace::Trace;
use domain::content::media;
use domain::record::{CancelRequested, Draft, Resumed, When};
use domain::{Digest, Event, Id, id};
use journal::{
    Append, Appended, Claimants, Config, Error, Fence, Idempotency, Journal, PlainWrap, SessionKey, WorkerSpec,
};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use stdx::Random;

/// Crashes of one world at most.
const CRASHES_MAX: u64 = 6;
/// Sessions that are driven.
const DRIVERS: u64 = 4;
/// How long a driver's claim is kept for it, in milliseconds.
const LEASE_MS: u64 = 400;
/// Bytes of a content that is kept among the objects.
const LARGE_BYTES: usize = 70_000;
/// How long an idempotency key is remembered, in milliseconds.
const KEY_MS: u64 = 48 * 60 * 60 * 1_000;

#[derive(Clone, Debug)]
struct Desk {
    random: Random,
    power: Power,
    time: Time,
    trace: Trace,
    told: Told,
    claimed: Claimed,
    inputs: Arc<Mutex<BTreeMap<Digest, Option<u64>>>>,
    wrong: Arc<Mutex<Vec<String>>>,
}

/// Lives a world of scribes.
pub(crate) fn run(seed: u64) -> Report {
    static WORLDS: AtomicU64 = AtomicU64::new(0);
    let stream = |salt: u64| Random::seeded(seed.wrapping_mul(0x9e37_79b9).wrapping_add(salt));
    let (power, time) = (Power::default(), Time::default());
    let trace = Trace::new(time.clone());
    let disk = Disk::new(power.clone(), stream(1), time.clone());
    let mounted = Mounted::new(format!("/scribes/{}", WORLDS.fetch_add(1, Ordering::Relaxed)), &disk);
    let told = Told::new(trace.clone());
    let (claimed, inputs, wrong) = (Claimed::default(), Arc::default(), Arc::default());
    let desk = Desk { random: stream(3), power, time, trace, told, claimed, inputs, wrong };
    let contents = Arc::new(Contents::new(desk.power.clone()));
    let mut wrong = Vec::new();
    let mut crashes = 0;
    for life in 0..=desk.random.below(CRASHES_MAX) + 1 {
        if let Err(told) = desk.life(life, &disk, &mounted, &contents) {
            wrong.push(told);
        }
        wrong.extend(desk.told.wrong());
        wrong.extend(desk.wrong.lock().drain(..));
        if !wrong.is_empty() {
            break;
        }
        crashes += 1;
    }
    let figures = Figures {
        crashes,
        records: desk.told.logs().values().map(|log| log.len() as u64).sum(),
        points: desk.power.points(),
        faults: disk.operations().faults,
        ..Figures::default()
    };
    Report { seed, wrong, trace: desk.trace.lines(), figures }
}

impl Desk {
    /// One life of the process.
    fn life(&self, number: u64, disk: &Disk, mounted: &Mounted, contents: &Arc<Contents>) -> Result<(), String> {
        let random = &self.random;
        let faults = match random.below(4) {
            0 => Faults::default(),
            _ => Faults::drawn(random, disk.used_bytes()),
        };
        let points = random.below(1 << random.below(11));
        let crash = if random.below(3) == 0 { Crash::Process } else { Crash::Power };
        self.trace.say(format_args!("life {number} {faults:?}, to {points} points, {crash:?}"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.map_err(|error| format!("there is no runtime: {error}"))?;
        self.power.cut_after(points);
        let lived = runtime.block_on(async {
            self.time.begin();
            let lived = tokio::select! {
                biased;
                () = self.power.gone() => Ok(()),
                lived = self.day(disk, faults, mounted, contents) => lived,
            };
            self.told.hear();
            self.time.end();
            lived
        });
        self.power.cut("the end of the day");
        drop(runtime);
        self.told.end();
        self.trace.say(format_args!("the end: {}", self.power.at()));
        let is_endless = self.power.at() == ENDLESS;
        disk.set_faults(Faults::default());
        disk.restart(crash);
        self.power.on();
        if is_endless {
            return Err("something goes round in circles and never waits".into());
        }
        lived
    }

    async fn day(
        &self,
        disk: &Disk,
        faults: Faults,
        mounted: &Mounted,
        contents: &Arc<Contents>,
    ) -> Result<(), String> {
        let parts = journal::Parts {
            clock: self.time.clock(),
            random: self.random.clone(),
            wrap: Arc::new(PlainWrap),
            objects: contents.clone(),
        };
        let mut config =
            Config { disk: journal::Disk::Vfs(BEHIND), threads: journal::Threads::Inline, ..Config::default() };
        // The listener hears everything.
        config.limits.hints_max = 1 << 16;
        let is_shared = self.random.below(2) == 0;
        if is_shared {
            config.claimants = Claimants::Fellows;
        }
        let journal = match Journal::open(mounted.directory().as_ref(), parts, config) {
            Ok(journal) => journal,
            Err(_) if self.power.is_off() => return Ok(()),
            Err(error) => return Err(format!("the start failed: {error}")),
        };
        self.told.listen(&journal);
        match self.is_as_told(&journal).await {
            Err(_) if self.power.is_off() => return Ok(()),
            checked => checked?,
        }
        disk.set_faults(faults);
        let drivers = (0..DRIVERS * 2).map(|number| {
            let desk = self.clone();
            let journal = if is_shared { journal.fellow() } else { journal.clone() };
            tokio::spawn(async move { desk.drive(journal, number).await })
        });
        let clients = (0..2).map(|_| {
            let (desk, journal) = (self.clone(), journal.clone());
            tokio::spawn(async move { desk.ask(journal).await })
        });
        let all: Vec<_> = drivers.chain(clients).collect();
        for scribe in all {
            scribe.await.map_err(|error| format!("a scribe broke down: {error}"))?;
        }
        disk.set_faults(Faults::default());
        self.told.hear();
        self.goes_on(&journal).await?;
        self.is_as_told(&journal).await.or_else(|wrong| match self.power.is_off() {
            true => Ok(()),
            false => Err(wrong),
        })
    }

    /// What was told to be durable is there, and whoever was followed by another wrote no more.
    async fn is_as_told(&self, journal: &Journal) -> Result<(), String> {
        after_restart(journal, &self.told).await?;
        for key in self.claimed.keys() {
            let log = log_of(journal, &key).await?;
            let records = log.iter().map(|stored| stored.decode().map_err(|error| error.to_string()));
            let records = records.collect::<Result<Vec<_>, _>>()?;
            one_holder(&key, &records)?;
            self.claimed.hold(&key, &records)?;
        }
        Ok(())
    }

    /// A journal whose disk is well again takes records by itself.
    async fn goes_on(&self, journal: &Journal) -> Result<(), String> {
        let key = key_of("afterwards");
        self.join(journal, "afterwards").await?;
        for _ in 0..60 {
            let head = match journal.head(&key).await {
                Ok(head) => head,
                Err(_) if self.power.is_off() => return Ok(()),
                Err(error) => return Err(format!("a disk that is well can't be read: {error}")),
            };
            let claim = journal.claim(&key).await.map_err(|error| error.to_string())?;
            let entry = self.effect(&key, claim.epoch, head.position);
            match journal.append(entry).await {
                _ if self.power.is_off() => return Ok(()),
                Ok(_) if journal.health().error.is_none() => return Ok(()),
                Ok(_) => return Err(format!("it takes records and says {:?}", journal.health().error)),
                Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
            }
        }
        Err(format!("a minute after the disk is well no record is taken: {:?}", journal.health().error))
    }

    fn effect(&self, key: &SessionKey, epoch: u64, expect: u64) -> Append {
        let mut entry = Append::new(key.clone(), Fence::Effect { epoch, expect });
        for _ in 0..=self.random.below(3) {
            let event = Event::Resumed(Resumed { run: Id::new(0, self.random.bytes()), epoch, attached: vec![] });
            entry = entry.draft(&self.draft(event));
        }
        entry
    }

    fn draft(&self, event: Event) -> Draft {
        Draft { at_ms: self.time.now_ms(), principal: Id::from_name(TENANT, "scribe"), event }
    }

    async fn join(&self, journal: &Journal, name: &str) -> Result<(), String> {
        let spec = WorkerSpec { name: name.to_owned(), lease_ms: LEASE_MS };
        journal.join(spec).await.map(drop).map_err(|error| format!("{name} can't join: {error}"))
    }

    /// Claims a session, when nobody alive holds it any more; gives the epoch and the next position.
    async fn claim(&self, journal: &Journal, key: &SessionKey) -> Option<(u64, u64)> {
        self.claimed.ask(key);
        for _ in 0..10 {
            match journal.claim(key).await {
                Ok(claim) => {
                    let head = journal.head(key).await.ok()?;
                    self.claimed.note(key, claim.epoch, head.position);
                    return Some((claim.epoch, head.position));
                }
                Err(Error::Held { .. } | Error::Io { .. } | Error::Full) => {
                    tokio::time::sleep(Duration::from_millis(LEASE_MS / 4)).await;
                }
                Err(_) => return None,
            }
        }
        None
    }

    /// Writes one session as its driver does: what was refused for a time is handed in again as it was. Each session has two
    /// drivers, of whom one follows the other, and neither has a heart beat: what the first still hands in is refused, even when
    /// it goes on where the log stands.
    async fn drive(&self, journal: Journal, number: u64) {
        let key = key_of(&format!("driven-{}", number % DRIVERS));
        if number >= DRIVERS {
            tokio::time::sleep(Duration::from_millis(self.random.below(1_000))).await;
        }
        if self.join(&journal, &format!("driver-{number}")).await.is_err() {
            return;
        }
        let Some((epoch, mut expect)) = self.claim(&journal, &key).await else { return };
        for _ in 0..self.random.below(30) {
            tokio::time::sleep(Duration::from_millis(self.random.below(50))).await;
            let mut entry = self.effect(&key, epoch, expect);
            if self.random.below(3) == 0 {
                let length = if self.random.below(8) == 0 { LARGE_BYTES } else { 100 };
                let Ok(sealer) = journal.sealer(&key).await else { continue };
                let Ok((_, item)) = sealer.seal(media::TEXT, &vec![b'x'; length]) else { continue };
                entry = entry.content(item);
            }
            expect = match self.hand_in(&journal, entry, expect).await {
                Some(next) => next,
                None if self.claimed.is_contested(&key) => match journal.head(&key).await {
                    Ok(head) => head.position,
                    Err(_) => return,
                },
                None => return,
            };
        }
    }

    /// Hands an entry in until it is taken; gives the next position.
    async fn hand_in(&self, journal: &Journal, entry: Append, expect: u64) -> Option<u64> {
        let session = entry.key.session;
        for _ in 0..40 {
            match journal.append(entry.clone()).await {
                _ if self.power.is_off() => return None,
                Ok(Appended::Written(written)) if written.first_position == expect => {
                    return Some(written.next_position());
                }
                Ok(other) => self.say_wrong(format!("{session} expected {expect} and was told {other:?}")),
                Err(Error::Io { .. } | Error::Full | Error::Objects { .. }) => {
                    tokio::time::sleep(Duration::from_millis(500)).await;
                    continue;
                }
                Err(Error::DataKeyChanged) => return None,
                // Whoever is followed is fenced before the other holds the session, and so is never moved.
                Err(Error::Fenced { .. }) if self.claimed.is_contested(&entry.key) => return None,
                Err(error) => self.say_wrong(format!("{session} expected {expect} and was refused: {error}")),
            }
            return None;
        }
        None
    }

    /// Sends requests with keys, each until it is answered, some of them again.
    async fn ask(&self, journal: Journal) {
        for _ in 0..self.random.below(15) {
            tokio::time::sleep(Duration::from_millis(self.random.below(80))).await;
            let known: Vec<_> = self.inputs.lock().keys().copied().collect();
            let place = usize::try_from(self.random.below(known.len() as u64 * 2 + 1)).unwrap_or(0);
            let digest = known.get(place).copied().unwrap_or_else(|| Digest(self.random.bytes()));
            self.inputs.lock().entry(digest).or_default();
            // What the key leads to is the same each time.
            let mut bytes = [0; 16];
            bytes.copy_from_slice(&digest.0[..16]);
            let run: Id<id::Run> = Id::from_bytes(bytes);
            let key = key_of(&format!("asked-{}", digest.0[0] % 3));
            let expires_at_ms = self.time.clock().wall_ms() + KEY_MS;
            let asked = Idempotency { key: digest, body: digest, run, expires_at_ms };
            let event = Event::CancelRequested(CancelRequested { run, when: When::Now });
            let entry = Append::new(key, Fence::Input(Some(asked))).draft(&self.draft(event));
            for _ in 0..10 {
                let answer = journal.append(entry.clone()).await;
                if self.power.is_off() {
                    return;
                }
                let position = match answer {
                    Ok(Appended::Written(written)) => written.first_position,
                    Ok(Appended::Existing(existing)) => existing.position,
                    Err(Error::Io { .. } | Error::Full) => {
                        tokio::time::sleep(Duration::from_millis(300)).await;
                        continue;
                    }
                    Err(error) => return self.say_wrong(format!("a request was refused: {error}")),
                };
                let before = self.inputs.lock().insert(digest, Some(position)).flatten();
                if before.is_some_and(|before| before != position) {
                    self.say_wrong(format!("a request stands at {before:?} and at {position}"));
                }
                break;
            }
        }
    }

    fn say_wrong(&self, what: String) {
        self.trace.say(format_args!("WRONG {what}"));
        self.wrong.lock().push(what);
    }
}

fn key_of(name: &str) -> SessionKey {
    SessionKey::new(TENANT, Id::from_name(TENANT, name))
}
