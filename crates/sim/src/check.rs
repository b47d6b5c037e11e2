//! The judges of a world that has come to rest. They look at the log, at what was told outside, and at the deeds; never into the
//! engine. What must hold after every restart is in `restart`.

use crate::TENANT;
use crate::claims::epoch_of;
use crate::hooks::{EVENTS, Hooks, Place};
use crate::ledger::Ledger;
use crate::project::TOOLS;
use crate::reached::{Kind, Reached};
use crate::restart::{after_restart, log_of};
use crate::told::Told;
use crate::witness::{Deed, Witness};
use crate::workspace::{Files, Workspaces};
use domain::record::{Finished, Vote};
use domain::{CallStatus, Digest, Event, Id, Record, RunStatus, Usage, id};
use engine::{Engine, Replay};
use journal::{SessionKey, StoredRecord, Verified};
use machine::{Session, Stamp};
use std::collections::{BTreeMap, BTreeSet};

/// Who saw from outside what happened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outside<'a> {
    pub(crate) told: &'a Told,
    pub(crate) ledger: &'a Ledger,
    pub(crate) witness: &'a Witness,
    pub(crate) workspaces: &'a Workspaces,
    pub(crate) hooks: &'a Hooks,
}

/// What is wrong with a world that has come to rest.
pub(crate) async fn at_rest(engine: &Engine, outside: Outside<'_>, reached: &Reached) -> Result<(), String> {
    let Outside { told, ledger, witness, workspaces, hooks } = outside;
    let (times, deeds) = (witness.times(), witness.deeds());
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
        let (records, session) = folded(&key, &stored)?;
        one_holder(&key, &records)?;
        done_as_told(&records, &times)?;
        approved(&records, &deeds)?;
        if let Some(files) = workspaces.files(key.session) {
            workspaces_are_told(files, &records)?;
        }
        for run in ended(&records, &session)? {
            shown_as_folded(engine, &run).await?;
            replays(engine, run.run).await?;
            reached.note(Kind::Replayed);
        }
        reached.log(&records);
        logs.insert(key.session, (stored, records));
    }
    nothing_lost(&logs, ledger)?;
    others_are_told(&logs, &hooks.all())?;
    streams_are_logs(&logs, ledger)
}

/// The records of a log, and what they fold to.
pub(crate) fn folded(key: &SessionKey, stored: &[StoredRecord]) -> Result<(Vec<Record>, Session), String> {
    let mut session = Session::default();
    let mut records = Vec::with_capacity(stored.len());
    for stored in stored {
        let record = stored.decode().map_err(|error| error.to_string())?;
        let stamp = Stamp { at_ms: record.head.at_ms, principal: record.head.principal };
        let refused = session.apply(stamp, &record.event);
        refused.map_err(|refused| format!("the log of {} does not fold: {refused}", key.session))?;
        records.push(record);
    }
    Ok((records, session))
}

/// Epochs only grow along a log: whoever was followed by another holder writes no more.
pub(crate) fn one_holder(key: &SessionKey, records: &[Record]) -> Result<(), String> {
    let mut highest = 0;
    for Record { head, event } in records {
        let Some(epoch) = epoch_of(event) else { continue };
        if epoch < highest {
            let (position, session) = (head.position, key.session);
            return Err(format!("record {position} of {session} is of epoch {epoch}, after one of epoch {highest}"));
        }
        highest = epoch;
    }
    Ok(())
}

/// A call that is recorded to have gone well was done, and none more often than it began.
fn done_as_told(records: &[Record], times: &BTreeMap<Id<id::Call>, u32>) -> Result<(), String> {
    let mut began: BTreeMap<Id<id::Call>, u32> = BTreeMap::new();
    let mut returned = BTreeSet::new();
    let mut deeds = BTreeSet::new();
    for Record { event, .. } in records {
        match event {
            Event::Replied(body) => {
                let is_deed = |tool: &String| TOOLS.iter().any(|deed| deed.name == tool);
                deeds.extend(
                    body.calls.iter().filter(|call| call.tool.as_ref().is_some_and(is_deed)).map(|call| call.call),
                );
            }
            Event::CallAdded(body) => {
                deeds.insert(body.call);
            }
            // Somebody says what nobody saw.
            Event::Resolved(body) => {
                deeds.remove(&body.call);
            }
            Event::Began(body) => *began.entry(body.call).or_default() += 1,
            Event::Returned(body) => {
                if !returned.insert(body.call) {
                    return Err(format!("{} returned twice", body.call));
                }
                let done = times.get(&body.call).copied().unwrap_or(0);
                if body.status == CallStatus::Ok && done == 0 && deeds.contains(&body.call) {
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

/// A run that has ended, by its log alone.
#[derive(Debug)]
struct Ended {
    run: Id<id::Run>,
    end: Finished,
}

/// The runs of a log. Each has ended, once; none is left in its middle.
fn ended(records: &[Record], session: &Session) -> Result<Vec<Ended>, String> {
    let mut used: BTreeMap<Id<id::Run>, Usage> = BTreeMap::new();
    let mut ends = BTreeMap::new();
    let mut runs = Vec::new();
    let mut add = |run, usage| {
        let used: &mut Usage = used.entry(run).or_default();
        *used = used.plus(usage);
    };
    for Record { event, .. } in records {
        match event {
            Event::Submitted(body) => runs.push(body.run),
            Event::Replied(body) => add(body.run, body.usage),
            Event::Deferred(body) => add(body.run, body.usage),
            Event::Finished(body) if ends.contains_key(&body.run) => return Err(format!("{} ended twice", body.run)),
            Event::Finished(body) => {
                ends.insert(body.run, body.clone());
            }
            _ => {}
        }
    }
    if let Some(run) = &session.run {
        return Err(format!("{} is not over: it is {}", run.id, run.status()));
    }
    let runs = runs.into_iter().map(|run| {
        let end = ends.remove(&run).ok_or_else(|| format!("{run} has not ended"))?;
        let used = used.get(&run).copied().unwrap_or_default();
        let adds_up = end.usage == used || (end.failure.is_some() && end.usage.total_tokens() >= used.total_tokens());
        match adds_up {
            true => Ok(Ended { run, end }),
            false => Err(format!("the replies of {run} used {used:?}, and its end says {:?}", end.usage)),
        }
    });
    runs.collect()
}

/// What the engine shows of a run is what the log says: how it stands, what it used.
async fn shown_as_folded(engine: &Engine, ended: &Ended) -> Result<(), String> {
    let run = ended.run;
    let view = engine.run(TENANT, run).await.map_err(|error| format!("{run} can't be shown: {error}"))?;
    is_shown((view.status, view.usage, view.turns), ended)
}

fn is_shown(view: (RunStatus, Usage, u32), Ended { run, end }: &Ended) -> Result<(), String> {
    match view == (end.status, end.usage, end.turns) {
        true => Ok(()),
        false => Err(format!("{run} is shown as {view:?}, and its end says {end:?}")),
    }
}

/// The harness would do the same again, by what the log says that it was given.
async fn replays(engine: &Engine, run: Id<id::Run>) -> Result<(), String> {
    let replay = engine.replay(TENANT, run).await.map_err(|error| format!("{run} can't be replayed: {error}"))?;
    is_same(run, &replay)
}

fn is_same(run: Id<id::Run>, replay: &Replay) -> Result<(), String> {
    match replay {
        Replay::Same { .. } => Ok(()),
        Replay::Differs { position, expected, found } => {
            Err(format!("the replay of {run} differs at {position}: expected {expected}, found {found}"))
        }
    }
}

/// Others were told of every record that they want to hear of, and of nothing that is not in the log.
fn others_are_told(logs: &Logs, told: &BTreeMap<Place, String>) -> Result<(), String> {
    let mut wanted = BTreeMap::new();
    for (session, (_, records)) in logs {
        for Record { head, event } in records.iter().filter(|record| EVENTS.contains(&record.event.kind())) {
            wanted.insert((*session, head.position), event.kind());
        }
    }
    if let Some(((session, position), kind)) = wanted.iter().find(|(place, _)| !told.contains_key(*place)) {
        return Err(format!("nobody was told of `{kind}`, record {position} of {session}"));
    }
    let is_told = |(place, kind): &(&Place, &String)| wanted.get(*place) == Some(&kind.as_str());
    match told.iter().find(|told| !is_told(told)) {
        Some(((session, position), kind)) => {
            Err(format!("others were told of `{kind}`, record {position} of {session}, which is not in the log"))
        }
        None => Ok(()),
    }
}

/// Nothing that people must approve of was done before enough others had.
fn approved(records: &[Record], deeds: &[Deed]) -> Result<(), String> {
    let mut requesters = BTreeMap::new();
    let mut votes: BTreeMap<Id<id::Call>, BTreeSet<Id<id::Principal>>> = BTreeMap::new();
    let mut at_begin = BTreeMap::new();
    for Record { head, event } in records {
        match event {
            Event::Submitted(body) => {
                requesters.insert(body.run, head.principal);
            }
            Event::Voted(body) if body.vote == Vote::Approve && requesters.get(&body.run) != Some(&head.principal) => {
                votes.entry(body.call).or_default().insert(head.principal);
            }
            Event::Began(body) => {
                at_begin.entry(body.call).or_insert_with(|| votes.get(&body.call).map_or(0, BTreeSet::len));
            }
            _ => {}
        }
    }
    let session = records.first().map(|record| record.head.session);
    for deed in deeds.iter().filter(|deed| Some(deed.session) == session) {
        let had = at_begin.get(&deed.call).copied().unwrap_or(0);
        if had < deed.approvals {
            return Err(format!(
                "`{}` was done for {} with {had} approvals of {}",
                deed.tool, deed.call, deed.approvals
            ));
        }
    }
    Ok(())
}

/// The files of a workspace are what the log says was done to them: no call is in them that did not begin, and nothing that was
/// put is missing, unless the log says that the workspace was lost, taken back or made from another's.
fn workspaces_are_told(files: Files, records: &[Record]) -> Result<(), String> {
    let (mut puts, mut began, mut is_other) = (BTreeSet::new(), 0, false);
    for Record { event, .. } in records {
        match event {
            Event::Replied(body) => {
                let shell = body.calls.iter().filter(|call| call.tool.as_deref() == Some("exec_command"));
                puts.extend(shell.map(|call| call.call));
            }
            Event::Began(body) if puts.contains(&body.call) => began += 1,
            Event::Forked(_) | Event::WorkspaceLost(_) => is_other = true,
            Event::SandboxOpened(body) => is_other |= body.restored.is_some(),
            _ => {}
        }
    }
    let Files { lines, put } = files;
    if !is_other && (lines > began || lines < put) {
        let session = records.first().map(|record| record.head.session.to_string()).unwrap_or_default();
        return Err(format!("the workspace of {session} has {lines} lines; {began} puts began, {put} were put"));
    }
    Ok(())
}

type Logs = BTreeMap<Id<id::Session>, (Vec<StoredRecord>, Vec<Record>)>;

/// Every run and every cancellation that a client was promised is in the log, and every idempotent request once.
fn nothing_lost(logs: &Logs, ledger: &Ledger) -> Result<(), String> {
    let mut keys: BTreeSet<Digest> = BTreeSet::new();
    let mut submitted = BTreeMap::new();
    let (mut over, mut votes, mut settled) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for (session, (_, records)) in logs {
        for Record { head, event } in records {
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
                Event::Voted(body) => {
                    votes.insert((body.call, head.principal));
                }
                Event::Resolved(body) => {
                    settled.insert(body.call);
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
    if let Some((call, by, _)) = ledger.votes().into_iter().find(|(call, by, _)| !votes.contains(&(*call, *by))) {
        return Err(format!("the vote of {by} on {call} was told to count and is not recorded"));
    }
    if let Some(call) = ledger.settled().into_iter().find(|call| !settled.contains(call)) {
        return Err(format!("a word on {call} was told to be durable and is not recorded"));
    }
    if let Some(session) = ledger.forks().into_iter().find(|session| !logs.contains_key(session)) {
        return Err(format!("{session} was promised to go on from another and is not there"));
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

#[cfg(test)]
mod tests;
