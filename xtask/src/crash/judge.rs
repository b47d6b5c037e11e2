//! What must hold of a run after any number of crashes, told from outside: by the witness, the store and the log.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use serde_json::Value;

use super::life::Place;
use super::project::{Agent, STORE};
use super::witness::Witness;
use crate::process;

/// A run that was acknowledged, as the service tells it at the end.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) agent: Agent,
    /// Its name, its session's and its key's.
    pub(crate) run: String,
    pub(crate) told: Value,
}

/// What is wrong with the runs; nobody serves the data directory meanwhile.
pub(crate) fn judge(place: &Place, witness: &Witness, cases: &[Case]) -> Result<Vec<String>> {
    let notes = notes(&place.project)?;
    let mut wrong = Vec::new();
    for case in cases {
        let run = &case.run;
        let mut add = |problem: String| wrong.push(format!("{run} ({}): {problem}", case.agent.name));
        let status = case.told["status"].as_str().unwrap_or("unknown");
        let records = match place.records(run) {
            Ok(records) => records,
            Err(error) => {
                add(format!("{error:#}"));
                continue;
            }
        };
        log(&records, status, &mut add);
        match status {
            "completed" => reply(case, &mut add),
            other => add(format!("rests as {other}: {}", case.told)),
        }
        let done = status == "completed";
        let count = |tool: &str| witness.deeds(run).iter().filter(|deed| deed.tool == tool).count();
        let unsent = records.iter().any(|line| line["record"]["kind"] == "resolved");
        let (look, send, note) = (count("look"), count("send"), notes.get(run).copied().unwrap_or(0));
        if case.agent.has_approval() && done && count("publish") == 0 {
            add("is done, and what was approved of never happened".to_owned());
        }
        let keys: BTreeSet<_> =
            witness.deeds(run).into_iter().filter(|deed| deed.tool == "charge").map(|deed| deed.key).collect();
        if send > 1 || note > 1 {
            add(format!("what must happen once happened more often: send {send} times, note {note} times"));
        }
        if keys.len() > 1 || keys.contains(&None) {
            add(format!("one call came with other keys than one: {keys:?}"));
        }
        if done && (look == 0 || keys.is_empty() || (send == 0 && !unsent)) {
            add(format!("is done, but look happened {look} times, charge with {} keys, send {send} times", keys.len()));
        }
    }
    Ok(wrong)
}

/// The reply of a run that ended well, and what its sandbox counted.
fn reply(case: &Case, add: &mut impl FnMut(String)) {
    let reply = case.told["reply"].as_str().unwrap_or_default();
    let expected = case.agent.reply(&case.run);
    if !reply.starts_with(&expected) {
        add(format!("says {reply:?} instead of {expected:?}"));
    }
    let counted =
        reply.split_once("deeds=").map(|(_, rest)| rest.lines().next().unwrap_or_default().trim_end_matches('.'));
    if counted.is_some_and(|counted| !["0", "1"].contains(&counted)) {
        add(format!("what must happen once in the sandbox happened more often: {reply:?}"));
    }
}

/// The records of a run: each call ends once, and the run.
fn log(records: &[Value], status: &str, add: &mut impl FnMut(String)) {
    let kind = |line: &Value| line["record"]["kind"].as_str().unwrap_or_default().to_owned();
    let calls = |wanted: &str| {
        let mut calls: BTreeMap<String, usize> = BTreeMap::new();
        for line in records.iter().filter(|line| kind(line) == wanted) {
            *calls.entry(line["record"]["body"]["call"].to_string()).or_default() += 1;
        }
        calls
    };
    let (began, returned) = (calls("began"), calls("returned"));
    if let Some((call, times)) = returned.iter().find(|(_, times)| **times > 1) {
        add(format!("call {call} returned {times} times"));
    }
    let finished = records.iter().filter(|line| kind(line) == "finished").count();
    if finished != usize::from(status == "completed") {
        add(format!("is {status}, and the log says {finished} times that it ended"));
    }
    if status == "completed"
        && let Some(call) = began.keys().find(|call| !returned.contains_key(*call))
    {
        add(format!("is done, and call {call} never returned"));
    }
}

/// How often each run left its deed in the declared store.
fn notes(project: &Path) -> Result<BTreeMap<String, u64>> {
    let text = sql(&project.join(STORE), "select run, count(*) from deeds group by run")?;
    let rows = text.lines().filter_map(|line| line.split_once('|'));
    Ok(rows.filter_map(|(run, count)| Some((run.to_owned(), count.parse().ok()?))).collect())
}

/// What `sqlite3` says to a statement.
pub(crate) fn sql(database: &Path, statement: &str) -> Result<String> {
    let said = process::capture(Command::new("sqlite3").arg(database).arg(statement))?;
    ensure!(said.status.success(), "sqlite3: {}", said.tail(3));
    Ok(said.text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_call_that_returns_twice_or_never_is_told() {
        let record = |kind: &str, call: &str| json!({"record": {"kind": kind, "body": {"call": call}}});
        let check = |records: &[Value], status: &str, expected: &[&str]| {
            let mut told = Vec::new();
            log(records, status, &mut |problem| told.push(problem));
            assert_eq!(told.len(), expected.len(), "{told:?}");
            assert!(told.iter().zip(expected).all(|(told, part)| told.contains(part)), "{told:?}");
        };
        let (began, returned, finished) = (record("began", "a"), record("returned", "a"), record("finished", "-"));
        check(&[began.clone(), returned.clone(), finished.clone()], "completed", &[]);
        check(std::slice::from_ref(&began), "needs_resolution", &[]);
        check(
            &[began.clone(), returned.clone(), returned.clone(), finished.clone()],
            "completed",
            &["returned 2 times"],
        );
        check(&[began.clone(), finished], "completed", &["never returned"]);
        check(&[began, returned], "completed", &["0 times that it ended"]);
    }
}
