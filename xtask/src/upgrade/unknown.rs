//! A record of a kind that a program does not know, as a later one might write it: neither binary may fold the session without it,
//! nor do anything in it, and both go on with everything else. A message for it is kept, and its run stays queued.

use anyhow::{Context as _, Result, ensure};

use super::clients::{self, Held, operator};
use super::{Kit, Stage, Told};
use crate::crash::judge::{self, Case};
use crate::crash::life::Place;
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
    told.wrong = stage.strike(told.wrong);
    Ok(told)
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
    let run = format!("beside{name}");
    let answer = operator(stage, life.port).submit(LIGHT, &run).context("it died by itself")?;
    let id = serde_json::from_str::<serde_json::Value>(&answer.body)?["run_id"].as_str().context("no run")?.to_owned();
    let told = operator(stage, life.port).look_after(&run, &id).context("it died by itself")?;
    life.stop()?;
    let refused = place.records(&held.run).err().context("the log of an unknown kind was shown")?;
    ensure!(format!("{refused:#}").contains(CODE), "{refused:#}");
    Ok(Case { agent: LIGHT, run, told })
}
