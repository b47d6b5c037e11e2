//! The judges of a world that has come to rest. They look at the log, at what was told outside, and at the deeds; never into the
//! engine. What must hold after every restart is in `restart`.

use crate::TENANT;
use crate::ledger::Ledger;
use crate::restart::{after_restart, log_of};
use crate::told::Told;
use crate::witness::Witness;
use domain::{CallStatus, Digest, Event, Id, Record, RunStatus, Usage, id};
use engine::Engine;
use journal::{SessionKey, StoredRecord, Verified};
use machine::{Session, Stamp};
use std::collections::{BTreeMap, BTreeSet};

/// What is wrong with a world that has come to rest.
pub(crate) async fn at_rest(engine: &Engine, told: &Told, ledger: &Ledger, witness: &Witness) -> Result<(), String> {
    after_restart(engine.journal(), told).await?;
    let mut logs = BTreeMap::new();
    let sessions: BTreeSet<_> = told.logs().into_keys().collect();
    let ticketed = ledger.tickets().into_iter().map(|ticket| SessionKey::new(TENANT, ticket.session));
    for key in sessions.into_iter().chain(ticketed).collect::<BTreeSet<_>>() {
        let stored = log_of(engine.journal(), &key).await?;
        let verified = engine.journal().verify(&key).await.map_err(|error| error.to_string())?;
        if !matches!(verified, Verified::Intact { records, .. } if records == stored.len() as u64) {
            return Err(format!("the chain of {} does not hold: {verified:?}", key.session));
        }
        let records = stored.iter().map(StoredRecord::decode).collect::<Result<Vec<_>, _>>();
        let records = records.map_err(|error| error.to_string())?;
        let session = folded(&key, &records)?;
        one_holder(&key, &records)?;
        done_as_told(&records, witness)?;
        shown_as_folded(engine, &records, &session).await?;
        logs.insert(key.session, (stored, records));
    }
    nothing_lost(&logs, ledger)?;
    streams_are_logs(&logs, ledger)
}

/// The log folds.
fn folded(key: &SessionKey, records: &[Record]) -> Result<Session, String> {
    let mut session = Session::default();
    for Record { head, event } in records {
        let stamp = Stamp { at_ms: head.at_ms, principal: head.principal };
        session
            .apply(stamp, event)
            .map_err(|refused| format!("the log of {} does not fold: {refused}", key.session))?;
    }
    Ok(session)
}

/// Epochs only grow along a log: whoever was followed by another holder writes no more.
fn one_holder(key: &SessionKey, records: &[Record]) -> Result<(), String> {
    let mut highest = 0;
    for Record { head, event } in records {
        let epoch = match event {
            Event::Began(body) => body.epoch,
            Event::Resumed(body) => body.epoch,
            _ => continue,
        };
        if epoch < highest {
            let (position, session) = (head.position, key.session);
            return Err(format!("record {position} of {session} is of epoch {epoch}, after one of epoch {highest}"));
        }
        highest = epoch;
    }
    Ok(())
}

/// A call that is recorded to have gone well was done, and none more often than it began.
fn done_as_told(records: &[Record], witness: &Witness) -> Result<(), String> {
    let times = witness.times();
    let mut began: BTreeMap<Id<id::Call>, u32> = BTreeMap::new();
    let mut returned = BTreeSet::new();
    for Record { event, .. } in records {
        match event {
            Event::Began(body) => *began.entry(body.call).or_default() += 1,
            Event::Returned(body) => {
                if !returned.insert(body.call) {
                    return Err(format!("{} returned twice", body.call));
                }
                let done = times.get(&body.call).copied().unwrap_or(0);
                if body.status == CallStatus::Ok && done == 0 {
                    return Err(format!("{} is recorded to have gone well and was never done", body.call));
                }
                if matches!(body.status, CallStatus::Denied | CallStatus::Invalid) && done > 0 {
                    return Err(format!("{} is recorded not to have begun and was done", body.call));
                }
            }
            _ => {}
        }
    }
    match began.iter().find(|(call, began)| times.get(call).is_some_and(|done| done > began)) {
        Some((call, began)) => Err(format!("{call} began {began} times and was done more often")),
        None => Ok(()),
    }
}

/// What the engine shows of a run is what the log says: how it stands, what it used. No run is left in its middle.
async fn shown_as_folded(engine: &Engine, records: &[Record], session: &Session) -> Result<(), String> {
    let mut used: BTreeMap<Id<id::Run>, Usage> = BTreeMap::new();
    let mut ends = BTreeMap::new();
    let mut runs = Vec::new();
    for Record { event, .. } in records {
        match event {
            Event::Submitted(body) => runs.push(body.run),
            Event::Replied(body) => {
                let used = used.entry(body.run).or_default();
                *used = used.plus(body.usage);
            }
            Event::Finished(body) => {
                if ends.insert(body.run, body.clone()).is_some() {
                    return Err(format!("{} ended twice", body.run));
                }
            }
            _ => {}
        }
    }
    for run in runs {
        let view = engine.run(TENANT, run).await.map_err(|error| format!("{run} can't be shown: {error}"))?;
        let Some(end) = ends.get(&run) else {
            rests(run, view.status, session)?;
            continue;
        };
        let sum = used.get(&run).copied().unwrap_or_default();
        let adds_up = end.usage == sum || (end.failure.is_some() && end.usage.total_tokens() >= sum.total_tokens());
        if view.status != end.status || view.usage != end.usage || view.turns != end.turns || !adds_up {
            return Err(format!("{run} is shown as {view:?}, its replies used {sum:?}, and its end says {end:?}"));
        }
    }
    Ok(())
}

/// A run that has not ended waits for a reason.
fn rests(run: Id<id::Run>, shown: RunStatus, session: &Session) -> Result<(), String> {
    let current = session.run.as_ref().ok_or_else(|| format!("{run} has not ended, and nobody drives it"))?;
    let status = current.status();
    if status != RunStatus::NeedsResolution {
        return Err(format!("{run} has not ended: {} is {status} although nothing is wrong", current.id));
    }
    if current.id == run && shown != status {
        return Err(format!("{run} is shown as {shown} and is {status}"));
    }
    Ok(())
}

type Logs = BTreeMap<Id<id::Session>, (Vec<StoredRecord>, Vec<Record>)>;

/// Every run and every cancellation that a client was promised is in the log, and every idempotent request once.
fn nothing_lost(logs: &Logs, ledger: &Ledger) -> Result<(), String> {
    let mut keys: BTreeSet<Digest> = BTreeSet::new();
    let mut submitted = BTreeMap::new();
    let mut over = BTreeSet::new();
    for (session, (_, records)) in logs {
        for Record { event, .. } in records {
            match event {
                Event::Submitted(body) => {
                    submitted.insert(body.run, *session);
                    if body.idempotency.is_some_and(|key| !keys.insert(key)) {
                        return Err(format!("{} was submitted under a key that had given another run", body.run));
                    }
                }
                Event::CancelRequested(body) => {
                    over.insert(body.run);
                }
                Event::Finished(body) => {
                    over.insert(body.run);
                }
                _ => {}
            }
        }
    }
    for ticket in ledger.tickets() {
        if submitted.get(&ticket.run) != Some(&ticket.session) {
            return Err(format!("{} was promised in {} and is not there", ticket.run, ticket.session));
        }
    }
    match ledger.cancels().into_iter().find(|run| !over.contains(run)) {
        Some(run) => Err(format!("the end of {run} was promised and nothing is recorded")),
        None => Ok(()),
    }
}

/// What a reader was given is the log from where it began.
fn streams_are_logs(logs: &Logs, ledger: &Ledger) -> Result<(), String> {
    for reading in ledger.readings() {
        let log = logs.get(&reading.session).map_or(&[][..], |(stored, _)| stored.as_slice());
        let from = usize::try_from(reading.from).unwrap_or(usize::MAX);
        let there = log.get(from..).unwrap_or_default().iter().map(|record| record.hash);
        if !there.take(reading.hashes.len()).eq(reading.hashes.iter().copied()) {
            return Err(format!("a reader of {} from {} was given something else than its log", reading.session, from));
        }
    }
    Ok(())
}
