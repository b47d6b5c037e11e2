//! Fills and verifies data directories for measurements and audits:
//! `cargo run --release -p topside-journal --example store fill DIR SESSIONS`, `… store verify DIR`.
//!
//! `fill` writes sessions of one ended run each. `verify` recomputes every chain and counts the commits of every run; it prints
//! one line of JSON.

use domain::record::{Draft, Event, Finished, Save, Submitted};
use domain::{Cost, Digest, Id, Limits, RunStatus, Usage};
use journal::{Append, Config, Fence, Journal, MemoryObjects, Parts, PlainWrap, RunFilter, SessionKey, Verified};
use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use stdx::{Clock, Random};

const WRITERS: u64 = 64;
const PAGE: usize = 512;
const TENANT: &str = "default";

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let line = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["fill", directory, sessions] => fill(Path::new(directory), sessions.parse()?).await?,
        ["verify", directory] => verify(Path::new(directory)).await?,
        _ => return Err("usage: store fill DIR SESSIONS | store verify DIR".into()),
    };
    writeln!(std::io::stdout(), "{line}")?;
    Ok(())
}

fn open(directory: &Path) -> Result<Journal, journal::Error> {
    let parts = Parts {
        clock: Clock::system(),
        random: Random::system(),
        wrap: Arc::new(PlainWrap),
        objects: Arc::new(MemoryObjects::default()),
    };
    Journal::open(directory, parts, Config::default())
}

async fn fill(directory: &Path, sessions: u64) -> Result<String, Box<dyn std::error::Error>> {
    let journal = open(directory)?;
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let share = sessions / WRITERS + u64::from(writer < sessions % WRITERS);
            tokio::spawn(write(journal.clone(), share))
        })
        .collect();
    for writer in writers {
        writer.await??;
    }
    journal.close().await?;
    Ok(format!("{{\"sessions\":{sessions}}}"))
}

async fn write(journal: Journal, sessions: u64) -> Result<(), journal::Error> {
    let (clock, random) = (Clock::system(), Random::system());
    for _ in 0..sessions {
        let at_ms = clock.wall_ms();
        let key = SessionKey::new(TENANT, Id::new(at_ms, random.bytes()));
        let run = Id::new(at_ms, random.bytes());
        let sealer = journal.sealer(&key).await?;
        let (message, item) = sealer.seal(domain::content::media::TEXT, b"I cannot log in to my account a1")?;
        let draft = |event| Draft { at_ms, principal: Id::from_bytes([9; 16]), event };
        let submitted = Event::Submitted(Submitted {
            run,
            agent: "maya".to_owned(),
            closure: Digest::ZERO,
            message: Some(message),
            session_name: None,
            idempotency: None,
            limits: Limits::default(),
            save: Save::default(),
            callback: None,
        });
        let finished = Event::Finished(Finished {
            run,
            status: RunStatus::Completed,
            reply: None,
            failure: None,
            turns: 0,
            tool_calls: 0,
            usage: Usage::default(),
            cost: Cost::default(),
            used_sandbox: false,
        });
        let entry = Append::new(key, Fence::Input(None)).content(item).draft(&draft(submitted)).draft(&draft(finished));
        journal.append(entry).await?;
    }
    Ok(())
}

async fn verify(directory: &Path) -> Result<String, Box<dyn std::error::Error>> {
    let journal = open(directory)?;
    let tenant: Arc<str> = TENANT.into();
    let (mut runs, mut ended, mut records, mut broken, mut commits_max, mut commits_sum) =
        (0u64, 0u64, 0u64, 0u64, 0, 0);
    let mut verified = BTreeSet::new();
    let mut before = None;
    loop {
        let page = journal.runs(&tenant, RunFilter::default(), before, PAGE).await?;
        for run in &page.rows {
            runs += 1;
            ended += u64::from(run.status.is_end());
            let key = SessionKey::new(tenant.clone(), run.session);
            if verified.insert(run.session) {
                match journal.verify(&key).await? {
                    Verified::Intact { records: more, .. } => records += more,
                    Verified::Broken { .. } => broken += 1,
                }
            }
            let of_run = journal.run_records(run, 0, PAGE).await?;
            let commits = of_run.rows.iter().map(|record| record.commit_id).collect::<BTreeSet<_>>().len();
            commits_max = commits_max.max(commits);
            commits_sum += commits;
        }
        before = page.next;
        if before.is_none() {
            break;
        }
    }
    journal.close().await?;
    let sessions = verified.len();
    Ok(format!(
        "{{\"sessions\":{sessions},\"runs\":{runs},\"ended\":{ended},\"records\":{records},\"broken\":{broken},\"commits_max\":{commits_max},\"commits_sum\":{commits_sum}}}"
    ))
}
