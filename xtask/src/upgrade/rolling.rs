//! Both versions on one PostgreSQL: the new one comes, both work on the same sessions, the old one drains; then the way back.

use anyhow::{Context as _, Result, ensure};

use super::clients::{self, Doors, Held};
use super::{Kit, Stage, Told};
use crate::crash::judge::{self, Case};
use crate::crash::life::{Life, Start};
use crate::crash::project::{HELD, LIGHT};
use crate::postgres::Cluster;

/// With these an old program says that it leaves alone what a newer one wrote.
pub(super) const REFUSALS: [&str; 3] = ["journal_newer", "record_kind_unknown", "record_newer"];

const SCHEMA: &str = "SELECT max(version), max(min_reader) FROM public.topside_migrations";
/// What is driven or could be, and who could, but for the one that was killed; nothing of it may be left over when all has ended.
const LEFT: &str = "SELECT (SELECT count(*) FROM public.ready), (SELECT greatest(count(*), 1) - 1 FROM public.workers),
    (SELECT count(*) FROM public.run_index WHERE finished_ms IS NULL)";

/// A conversation in one session.
const TALK: &str = "talk";
const MESSAGES: usize = 6;

pub(super) fn side_by_side(kit: &Kit, cluster: &mut Cluster) -> Result<Told> {
    let mut stage = Stage::set(kit)?;
    let database = cluster.database()?;
    stage.share(&database);
    write_talk(&stage)?;
    let mut upgrade = Upgrade { stage: &stage, doors: Doors::default(), cases: Vec::new(), notes: Vec::new(), said: 0 };
    upgrade.there_and_back(|| Ok(cluster.ask(&database, SCHEMA)?.trim().replace('|', ", lived with from ")))?;
    let Upgrade { cases, mut notes, said, .. } = upgrade;
    let mut wrong = judge::judge(&stage.new, &stage.witness, &cases)?;
    let left = cluster.ask(&database, LEFT)?;
    if left.trim() != "0|0|0" {
        wrong.push(format!("sessions that are ready, workers, runs under way are left over: {}", left.trim()));
    }
    wrong.extend(conversation(&stage, said));
    let refused = cases.iter().filter_map(|case| chain(&stage, &case.run).transpose()).collect::<Result<Vec<_>>>();
    match refused {
        Ok(refused) if refused.is_empty() => notes.push("the old one verifies every chain".to_owned()),
        Ok(refused) => notes.push(format!("the old one leaves {} of {} logs alone", refused.len(), cases.len())),
        Err(error) => wrong.push(format!("the old one: {error:#}")),
    }
    Ok(Told { runs: cases.len() + said, wrong: stage.strike(wrong), notes })
}

struct Upgrade<'a> {
    stage: &'a Stage,
    doors: Doors,
    cases: Vec<Case>,
    notes: Vec<String>,
    /// Messages of the conversation that were answered.
    said: usize,
}

impl Upgrade<'_> {
    fn there_and_back(&mut self, schema: impl Fn() -> Result<String>) -> Result<()> {
        let stage = self.stage;
        let old = stage.old.serve()?;
        let before = schema()?;
        self.doors.set(&[old.port]);
        let from_old = clients::hold(stage, old.port, "oldheld", 2)?;
        self.say(old.port)?;
        let new = self.under_load("come", || stage.new.serve())?;
        self.notes.push(format!("schema {before}; with the new one {}", schema()?));
        self.both(&old, &new, from_old)?;
        // Whatever the old one drives at this moment, the new one must end.
        self.doors.set(&[old.port, new.port]);
        let last_of_old = clients::hold(stage, old.port, "lastheld", 1)?;
        let (agents, doors) = ([LIGHT, HELD], &self.doors);
        let ((), cases) = clients::under_load(stage, "drain", &agents, doors, || {
            old.stop()?;
            doors.set(&[new.port]);
            Ok(())
        })?;
        self.cases.extend(cases);
        for held in last_of_old {
            self.end(new.port, held, &[])?;
        }
        self.say(new.port)?;
        let from_new = clients::hold(stage, new.port, "newheld", 2)?;
        let left = self.back(new, from_new)?;
        let new = stage.new.serve()?;
        self.doors.set(&[new.port]);
        for held in left {
            self.end(new.port, held, &[])?;
        }
        self.say(new.port)?;
        new.stop()
    }

    /// Both serve: what one began, the other ends.
    fn both(&mut self, old: &Life, new: &Life, from_old: Vec<Held>) -> Result<()> {
        let stage = self.stage;
        self.doors.set(&[old.port, new.port]);
        let from_new = self.under_load("both", || clients::hold(stage, new.port, "held", 2))?;
        for held in from_old {
            self.end(new.port, held, &[])?;
        }
        let mut left = Vec::new();
        for held in from_new {
            left.extend(self.end(old.port, held, &REFUSALS)?);
        }
        for held in left {
            self.end(new.port, held, &[])?;
        }
        self.say(new.port)?;
        self.say(old.port)
    }

    /// The new one stops with runs under way, the old one goes on with what it left, or says that it can't; gives what it left.
    fn back(&mut self, new: Life, held: Vec<Held>) -> Result<Vec<Held>> {
        let stage = self.stage;
        // It dies in the middle: the old one finds runs that nobody drives and calls that are in doubt.
        let (started, cases) = clients::under_load(stage, "back", &[LIGHT], &self.doors, || {
            new.kill()?;
            self.doors.set(&[]);
            let started = stage.old.start(&[])?;
            if let Start::Serving(old) = &started {
                self.doors.set(&[old.port]);
                return Ok((started, None));
            }
            let again = stage.new.serve()?;
            self.doors.set(&[again.port]);
            Ok((started, Some(again)))
        })?;
        self.cases.extend(cases);
        let (Start::Serving(old), _) = started else {
            let said = stage.old.said();
            let code = REFUSALS.iter().find(|code| said.contains(*code));
            let code = code.with_context(|| format!("the old one did not start, and does not say why:\n{said}"))?;
            self.notes.push(format!("back: the old one refuses the database with `{code}`; nothing is lost"));
            if let Some(again) = started.1 {
                again.stop()?;
            }
            return Ok(held);
        };
        let (all, mut left) = (held.len(), Vec::new());
        for held in held {
            left.extend(self.end(old.port, held, &REFUSALS)?);
        }
        self.say(old.port)?;
        old.stop()?;
        self.notes.push(format!("back: the old one goes on, and ends {} of {all} runs that wait", all - left.len()));
        Ok(left)
    }

    /// Approves of a run and waits for its end, through one process; gives it back when it is refused with one of these codes.
    fn end(&mut self, port: u16, held: Held, refusals: &[&str]) -> Result<Option<Held>> {
        match clients::finish(self.stage, port, held, refusals)? {
            Ok(case) => self.cases.push(case),
            Err((held, code)) => {
                self.notes.push(format!("the old one leaves {} to the new one: {code}", held.run));
                return Ok(Some(held));
            }
        }
        Ok(None)
    }

    fn under_load<T>(&mut self, name: &str, during: impl FnOnce() -> Result<T>) -> Result<T> {
        let agents = [LIGHT, HELD];
        let (done, cases) = clients::under_load(self.stage, name, &agents, &self.doors, during)?;
        self.cases.extend(cases);
        Ok(done)
    }

    /// The next message of the conversation.
    fn say(&mut self, port: u16) -> Result<()> {
        let number = self.said;
        let body = format!(r#"{{"session":"{TALK}","agent":"{TALK}","message":"Say {number}"}}"#);
        let answer = clients::ask(self.stage, port, "POST", "/runs", &body)?;
        ensure!(answer.body.contains(&format!("\"said {number}\"")), "message {number}: {}", answer.body);
        self.said += 1;
        Ok(())
    }
}

/// An agent that answers one message after the other, with a deed for each.
fn write_talk(stage: &Stage) -> Result<()> {
    let mut transcript = format!("title: {TALK}\nsteps:\n");
    for number in 0..MESSAGES {
        transcript.push_str(&format!(
            "- expect: {{user: 'Say {number}'}}\n  reply:\n  - call: {{id: c{number}, tool: charge, arguments: {{run: {TALK}{number}}}}}\n\
             - expect: {{outputs: {{c{number}: '(?s).*'}}}}\n  reply:\n  - text: 'said {number}'\n"
        ));
    }
    for (name, text) in [
        ("agents/talk.md", format!("---\nmodel: {TALK}\ntools: [charge]\n---\nYou talk.\n")),
        ("models/talk.yaml", format!("{TALK}: {{provider: script, transcript: talk.yaml}}\n")),
        ("talk.yaml", transcript),
    ] {
        std::fs::write(stage.new.project.join(name), text)?;
    }
    Ok(())
}

/// What is wrong with the conversation: each message is one run, each with one deed.
fn conversation(stage: &Stage, said: usize) -> Vec<String> {
    let mut wrong = Vec::new();
    match stage.new.records(TALK) {
        Ok(records) => {
            let ended = records.iter().filter(|line| line["record"]["kind"] == "finished").count();
            if ended != said {
                wrong.push(format!("{TALK}: {said} messages were answered, and {ended} runs ended"));
            }
        }
        Err(error) => wrong.push(format!("{TALK}: {error:#}")),
    }
    for number in 0..said {
        let deeds = stage.witness.deeds(&format!("{TALK}{number}")).len();
        if deeds != 1 {
            wrong.push(format!("{TALK}: message {number} led to {deeds} deeds"));
        }
    }
    wrong
}

/// Has the old binary verify a log; gives the code with which it leaves it alone.
fn chain(stage: &Stage, session: &str) -> Result<Option<String>> {
    let Err(error) = stage.old.records(session) else { return Ok(None) };
    let said = format!("{error:#}");
    match REFUSALS.iter().find(|code| said.contains(*code)) {
        Some(code) => Ok(Some((*code).to_owned())),
        None => Err(error),
    }
}
