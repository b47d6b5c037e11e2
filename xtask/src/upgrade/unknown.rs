//! A record of a kind that a program does not know, as a later one might write it: neither binary may fold the session without it,
//! nor do anything in it, and both go on with everything else. A message for it is kept, and its run stays queued. And
//! tables of a later program, which says itself how old a program may be that goes on with them.

use anyhow::{Context as _, Result, ensure};

use super::clients::{self, Held, operator};
use super::{Kit, Stage, Told};
use crate::crash::judge::{self, Case};
use crate::crash::life::{Life, Place, Start};
use crate::crash::project::LIGHT;
use crate::postgres::Cluster;
use crate::server;

const CODE: &str = "record_kind_unknown";

/// Appends a record of a kind that nobody knows to the log of the only session: well linked, as its writer would.
const FORGE: &str = r#"
WITH last AS (SELECT *, convert_from(bytes, 'UTF8') AS text FROM public.records ORDER BY position DESC LIMIT 1),
next AS (SELECT tenant, session, position + 1 AS position, convert_to(
    regexp_replace(
        regexp_replace(text, '"position":\d+,"previous":"[0-9a-f]+"',
            format('"position":%s,"previous":"%s"', position + 1, encode(hash, 'hex'))),
        '"kind":.*$', '"kind":"later","body":{}}'), 'UTF8') AS bytes FROM last),
written AS (INSERT INTO public.records (tenant, session, position, hash, bytes, commit_id)
    SELECT tenant, session, position, sha256('\x00'::bytea || bytes), bytes, nextval('public.commit_ids') FROM next
    RETURNING session, position, hash)
UPDATE public.heads AS h SET position = w.position + 1, hash = w.hash FROM written AS w WHERE h.session = w.session"#;

/// Runs of later messages that have not ended: nobody began them.
const QUEUED: &str = "SELECT count(*) FROM public.run_index WHERE finished_ms IS NULL AND submitted_position > 0";

/// A migration that every program can live with, and one that none of today's can.
const NEXT: &str = "ALTER TABLE public.heads ADD COLUMN later text;
    INSERT INTO public.topside_migrations (version, name, min_reader) VALUES (1000, 'next', 1)";
const LATER: &str = "INSERT INTO public.topside_migrations (version, name, min_reader) VALUES (1001, 'later', 1001)";
const NEWER: &str = "journal_newer";

pub(super) fn left_alone(kit: &Kit, cluster: &mut Cluster) -> Result<Told> {
    let mut stage = Stage::set(kit)?;
    let database = cluster.database()?;
    stage.share(&database);
    let old = stage.old.serve()?;
    let held = clients::hold(&stage, old.port, "later", 1)?.pop().context("a run that waits")?;
    old.stop()?;
    cluster.ask(&database, FORGE)?;
    let session = cluster.ask(&database, "SELECT session FROM public.heads")?;
    let told_of = |what: &str| {
        let statement = format!(
            "SELECT count(*) FROM public.records
             WHERE session = '{}' AND convert_from(bytes, 'UTF8') NOT LIKE '%\"kind\":\"submitted\"%'",
            session.trim()
        );
        cluster.ask(&database, &statement).with_context(|| what.to_owned())
    };
    let (before, deeds) = (told_of("before")?, stage.witness.deeds(&held.run));
    let mut told = Told::default();
    for (name, place) in [("old", &stage.old), ("new", &stage.new)] {
        let case = meet(&stage, place, name, &held).with_context(|| format!("an unknown kind, the {name} one"))?;
        told.wrong.extend(judge::judge(&stage.new, &stage.witness, &[case])?);
        told.runs += 1;
        let queued = cluster.ask(&database, QUEUED)?;
        if queued.trim() != told.runs.to_string() {
            told.wrong.push(format!("the {name} one: {} messages are kept, not {}", queued.trim(), told.runs));
        }
        if told_of(name)? != before || stage.witness.deeds(&held.run) != deeds {
            told.wrong.push(format!("the {name} one did something in a session that it can't read"));
        }
    }
    told.notes.push(format!("a record of an unknown kind: neither touches the session (`{CODE}`)"));
    cluster.ask(&database, NEXT)?;
    for (name, place) in [("old", &stage.old), ("new", &stage.new)] {
        let life = place.serve().with_context(|| format!("the {name} one, on tables that it can live with"))?;
        let case = beside(&stage, &life, &format!("next{name}"))?;
        life.stop()?;
        told.wrong.extend(judge::judge(&stage.new, &stage.witness, &[case])?);
        told.runs += 1;
    }
    cluster.ask(&database, LATER)?;
    for (name, place) in [("old", &stage.old), ("new", &stage.new)] {
        if !matches!(place.start(&[])?, Start::Died(_)) || !place.said().contains(NEWER) {
            told.wrong
                .push(format!("the {name} one does not refuse tables that it can't live with:\n{}", place.said()));
        }
    }
    told.notes
        .push(format!("tables of a later program: both go on where it says so, and refuse otherwise (`{NEWER}`)"));
    told.wrong = stage.strike(told.wrong);
    Ok(told)
}

/// A run of another session, to its end.
fn beside(stage: &Stage, life: &Life, run: &str) -> Result<Case> {
    let operator = operator(stage, life.port);
    let answer = operator.submit(LIGHT, run).context("it died by itself")?;
    let id = serde_json::from_str::<serde_json::Value>(&answer.body)?["run_id"].as_str().context("no run")?.to_owned();
    let told = operator.look_after(run, &id).context("it died by itself")?;
    Ok(Case { agent: LIGHT, run: run.to_owned(), told })
}

/// One binary serves the database: it refuses the session by name, and goes on with another.
fn meet(stage: &Stage, place: &Place, name: &str, held: &Held) -> Result<Case> {
    let life = place.serve()?;
    let answer = clients::approve(stage, life.port, held)?;
    ensure!(answer.body.contains(CODE), "a vote was answered with {} {}", answer.status, answer.body);
    let body = format!(r#"{{"session":"{}","agent":"held","message":"Go on"}}"#, held.run);
    let key = format!("Bearer {}", stage.keys.asker);
    let headers = [("Authorization", key.as_str()), ("Prefer", "respond-async")];
    let answer = server::send(life.port, "POST", "/runs", &headers, &body).context("it died by itself")?;
    // An input is taken wherever a log stands; what it comes to is for a program that can read the log.
    ensure!(answer.status == 202, "a message was answered with {} {}", answer.status, answer.body);
    let case = beside(stage, &life, &format!("beside{name}"))?;
    life.stop()?;
    let refused = place.records(&held.run).err().context("the log of an unknown kind was shown")?;
    ensure!(format!("{refused:#}").contains(CODE), "{refused:#}");
    Ok(case)
}
