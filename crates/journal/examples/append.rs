//! Measures durable appends: `cargo run --release -p topside-journal --example append [seconds]`.
//!
//! Each writer drives sessions of its own through what a run of three model calls and two `sql` calls writes: 11 records
//! and 7 contents in 6 appends, one after the other.

use domain::record::{AfterCrash, Began, CallHead, Draft, Event, Finished, Judged, Replied, Returned, Save, Submitted};
use domain::{CallStatus, ContentRef, Cost, Digest, Id, Judgement, Limits, RunStatus, Usage, Verdict};
use journal::{Append, Config, Error, Fence, Journal, MemoryObjects, Parts, PlainWrap, SealedItem, Sealer, SessionKey};
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;
use stdx::{Clock, Random};

const SECONDS: u64 = 3;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let seconds = std::env::args().nth(1).map_or(Ok(SECONDS), |text| text.parse())?;
    let mut out = std::io::stdout();
    writeln!(out, "{:>8} {:>10} {:>12} {:>12} {:>12}", "writers", "runs/s", "appends/s", "commits/s", "writer µs/run")?;
    for writers in [1, 16, 64] {
        let directory = tempfile::tempdir()?;
        let parts = Parts {
            clock: Clock::system(),
            random: Random::system(),
            wrap: Arc::new(PlainWrap),
            objects: Arc::new(MemoryObjects::default()),
        };
        let journal = Journal::open(directory.path(), parts, Config::default())?;
        let clock = Clock::system();
        let tasks: Vec<_> = (0..writers)
            .map(|_| tokio::spawn(drive(journal.clone(), clock.clone(), Duration::from_secs(seconds))))
            .collect();
        let mut runs = 0;
        for task in tasks {
            runs += task.await??;
        }
        let elapsed = clock.monotonic().as_secs_f64();
        let commits = journal.health().commit_id;
        let writer_seconds = thread_seconds("journal").unwrap_or_default();
        journal.close().await?;
        let rate = f64::from(runs) / elapsed;
        let commits = f64::from(u32::try_from(commits)?) / elapsed;
        let writer_us = writer_seconds * 1e6 / f64::from(runs.max(1));
        writeln!(out, "{writers:>8} {rate:>10.0} {:>12.0} {commits:>12.0} {writer_us:>12.0}", rate * 6.0)?;
    }
    Ok(())
}

/// Runs until the time is over; gives their number.
async fn drive(journal: Journal, clock: Clock, time: Duration) -> Result<u32, Error> {
    let random = Random::system();
    let mut runs = 0;
    while clock.monotonic() < time {
        one_run(&journal, &clock, &random).await?;
        runs += 1;
    }
    Ok(runs)
}

/// One run of the measured kind.
struct Run<'a> {
    journal: &'a Journal,
    sealer: Sealer,
    random: &'a Random,
    at_ms: u64,
    run: Id<domain::id::Run>,
    epoch: u64,
    expect: u64,
}

async fn one_run(journal: &Journal, clock: &Clock, random: &Random) -> Result<(), Error> {
    let at_ms = clock.wall_ms();
    let key = SessionKey::new("default", Id::new(at_ms, random.bytes()));
    let sealer = journal.sealer(&key).await?;
    let epoch = journal.claim(&key).await?;
    let mut run = Run { journal, sealer, random, at_ms, run: Id::new(at_ms, random.bytes()), epoch, expect: 1 };
    run.submit().await?;
    run.call(1).await?;
    run.call(2).await?;
    run.finish().await
}

impl Run<'_> {
    fn draft(&self, event: Event) -> Draft {
        Draft { at_ms: self.at_ms, principal: Id::from_bytes([9; 16]), event }
    }

    fn seal(&self, bytes: usize) -> Result<(ContentRef, SealedItem), Error> {
        self.sealer.seal(domain::content::media::TEXT, &vec![b'x'; bytes])
    }

    fn effect(&self) -> Append {
        let fence = Fence::Effect { epoch: self.epoch, expect: self.expect };
        Append::new(self.sealer.session().clone(), fence)
    }

    async fn append(&mut self, entry: Append) -> Result<(), Error> {
        self.expect = self.journal.append(entry).await?.written().map_or(0, journal::Written::next_position);
        Ok(())
    }

    async fn submit(&mut self) -> Result<(), Error> {
        let (message, item) = self.seal(120)?;
        let submitted = Submitted {
            run: self.run,
            agent: "maya".to_owned(),
            closure: Digest::ZERO,
            message,
            session_name: None,
            idempotency: None,
            limits: Limits::default(),
            save: Save::default(),
        };
        let entry = Append::new(self.sealer.session().clone(), Fence::Input(None)).content(item);
        self.append(entry.draft(&self.draft(Event::Submitted(submitted)))).await
    }

    fn replied(&self, turn: u32, calls: Vec<CallHead>) -> Result<(Draft, SealedItem), Error> {
        let (items, item) = self.seal(600)?;
        let model = "gpt-5.4-mini".to_owned();
        let (usage, cost) = (Usage::default(), Cost::default());
        let replied = Replied { run: self.run, turn, items, calls, model, usage, cost, duration_ms: 3 };
        Ok((self.draft(Event::Replied(replied)), item))
    }

    /// A turn with one call; its end is an entry of its own, as for a call that takes a while.
    async fn call(&mut self, turn: u32) -> Result<(), Error> {
        let (run, epoch) = (self.run, self.epoch);
        let call = Id::new(self.at_ms, self.random.bytes());
        let head = CallHead { call, index: 0, tool: Some("lookup_account".to_owned()) };
        let (replied, item) = self.replied(turn, vec![head])?;
        let judgement = Judgement {
            verdict: Verdict::Allow,
            policies: vec!["dev.cedar:12 reads".to_owned()],
            reason: "allowed".to_owned(),
            pack: "dev".to_owned(),
        };
        let began = Began { run, call, attempt: 1, epoch, key: None, after_crash: AfterCrash::Repeat };
        let entry = self.effect().content(item).draft(&replied);
        let entry = entry.draft(&self.draft(Event::Judged(Judged { run, call, judgement })));
        self.append(entry.draft(&self.draft(Event::Began(began)))).await?;
        let (output, item) = self.seal(300)?;
        let returned = Returned { run, call, status: CallStatus::Ok, output, whole: None, code: None, duration_ms: 1 };
        self.append(self.effect().content(item).draft(&self.draft(Event::Returned(returned)))).await
    }

    async fn finish(&mut self) -> Result<(), Error> {
        let (replied, item) = self.replied(3, Vec::new())?;
        let (reply, reply_item) = self.seal(400)?;
        let finished = Finished {
            run: self.run,
            status: RunStatus::Completed,
            reply: Some(reply),
            failure: None,
            turns: 3,
            tool_calls: 2,
            usage: Usage::default(),
            cost: Cost::default(),
            used_sandbox: false,
        };
        let entry = self.effect().content(item).content(reply_item).draft(&replied);
        self.append(entry.draft(&self.draft(Event::Finished(finished)))).await
    }
}

/// Processor time that the newest thread of this name has used, from the kernel's count in clock ticks.
fn thread_seconds(name: &str) -> Option<f64> {
    let mut newest = None;
    for task in std::fs::read_dir("/proc/self/task").ok()?.flatten() {
        let read = |file| std::fs::read_to_string(task.path().join(file)).unwrap_or_default();
        if read("comm").trim() != name {
            continue;
        }
        let stat = read("stat");
        let fields: Vec<&str> = stat.rsplit(") ").next()?.split(' ').collect();
        let ticks: f64 = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
        newest = Some(ticks / 100.0);
    }
    newest
}
