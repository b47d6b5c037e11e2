//! The bare fenced statement: as many connections as writers, one prepared statement for each append, which checks position
//! and epoch on the head and writes the rows of the measured runs. It neither seals nor hashes; the rows are copies of those
//! that the journal wrote for one session.

use crate::{Measured, open_postgres, run};
use std::sync::Arc;
use std::time::Duration;
use stdx::{Clock, Random};
use tokio_postgres::{Client, NoTls, Statement};

/// Tables whose rows per session must come out as the journal's.
const TABLES: [&str; 7] = ["records", "contents", "data_keys", "heads", "session_index", "run_index", "ready"];

/// The head of a new log.
const FIRST: &str = "WITH head AS (
    INSERT INTO public.heads (tenant, session, position, hash, epoch) SELECT 'default', $1, $3, $4, $5 WHERE $2 = 0::bigint
    RETURNING nextval('public.commit_ids') AS commit_id),
key AS (INSERT INTO public.data_keys (tenant, session, wrapped) SELECT 'default', $1, $14 FROM head)";

/// Moves the head when epoch and position are those expected; everything else hangs on that.
const MOVE: &str = "WITH head AS (
    UPDATE public.heads SET position = $3, hash = $4 WHERE tenant = 'default' AND session = $1 AND position = $2
    AND epoch <= $5 RETURNING nextval('public.commit_ids') AS commit_id)";

const ROWS: &str = ", records AS (INSERT INTO public.records (tenant, session, position, hash, bytes, commit_id)
    SELECT 'default', $1, $2 + r.n - 1, r.hash, r.bytes, head.commit_id
    FROM head, unnest($6::bytea[], $7::bytea[]) WITH ORDINALITY AS r(hash, bytes, n)),
contents AS (INSERT INTO public.contents (tenant, session, id, form, item_key, body)
    SELECT 'default', $1, c.id, c.form, c.item_key, c.body
    FROM head, unnest($8::text[], $9::smallint[], $10::bytea[], $11::bytea[]) AS c(id, form, item_key, body))";

/// What the beginning of a run adds.
const BEGIN: &str = ", ready AS (INSERT INTO public.ready (tenant, session, at_ms, position)
    SELECT 'default', $1, $13, $3 FROM head ON CONFLICT (tenant, session) DO UPDATE SET position = excluded.position),
session AS (INSERT INTO public.session_index (tenant, session, created_ms, updated_ms, runs, last_run, agent, principal)
    SELECT 'default', $1, $13, $13, 1, $12, 'maya', 'prn_0' FROM head
    ON CONFLICT (tenant, session) DO UPDATE SET updated_ms = excluded.updated_ms, last_run = excluded.last_run),
run AS (INSERT INTO public.run_index (tenant, run, session, agent, principal, status, created_ms, updated_ms,
    submitted_position) SELECT 'default', $12, $1, 'maya', 'prn_0', 'running', $13, $13, $2 FROM head)";

/// What its end changes.
const END: &str = ", run AS (UPDATE public.run_index SET status = 'completed', updated_ms = $13, finished_ms = $13,
    finished_position = $3 - 1, turns = 3, tool_calls = 2 FROM head WHERE tenant = 'default' AND run = $12)";

/// Every statement takes the same parameters, so each must name all of them with their types.
const ANSWER: &str = " SELECT head.commit_id FROM head WHERE ($12::text IS NULL OR $13::bigint IS NULL OR $14::bytea IS NULL) IS NOT NULL";

/// The rows of one session.
#[derive(Debug, Default)]
struct Template {
    hashes: Vec<Vec<u8>>,
    bytes: Vec<Vec<u8>>,
    ids: Vec<String>,
    forms: Vec<i16>,
    keys: Vec<Option<Vec<u8>>>,
    bodies: Vec<Vec<u8>>,
    data_key: Vec<u8>,
}

/// The statements of a connection.
struct Prepared {
    first: Statement,
    begin: Statement,
    middle: Statement,
    end: Statement,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

pub(crate) async fn measure(url: &str, time: Duration, writers: u32) -> Result<Measured, Box<dyn std::error::Error>> {
    let journal = open_postgres(url).await?;
    run::one_session(&journal, &Clock::system(), &Random::system()).await?;
    journal.close().await?;
    let client = connect(url).await.map_err(|error| error.to_string())?;
    let before = counts(&client).await?;
    let template = Arc::new(template(&client).await?);
    let mut connections = Vec::new();
    for _ in 0..writers {
        let client = connect(url).await.map_err(|error| error.to_string())?;
        let prepared = prepare(&client).await?;
        connections.push((client, prepared));
    }
    let clock = Clock::system();
    let tasks = connections
        .into_iter()
        .map(|(client, prepared)| tokio::spawn(drive(client, prepared, template.clone(), clock.clone(), time)));
    let tasks: Vec<_> = tasks.collect();
    let mut sessions = 0;
    for task in tasks {
        sessions += task.await?.map_err(|error| error.to_string())?;
    }
    let seconds = clock.monotonic().as_secs_f64();
    for (table, (before, after)) in TABLES.iter().zip(before.iter().zip(counts(&client).await?)) {
        if after != before * (i64::try_from(sessions)? + 1) {
            return Err(format!("{table}: {after} rows after {sessions} sessions, the journal's has {before}").into());
        }
    }
    let commits = sessions * (run::RUNS * run::APPENDS) as u64;
    Ok(Measured { sessions, commits, seconds, writer_seconds: 0.0 })
}

async fn connect(url: &str) -> Result<Client, Failure> {
    let (client, wire) = tokio_postgres::connect(url, NoTls).await?;
    // It ends with the client; what went wrong, the client is told too.
    tokio::spawn(wire);
    Ok(client)
}

async fn prepare(client: &Client) -> Result<Prepared, tokio_postgres::Error> {
    Ok(Prepared {
        first: client.prepare(&[FIRST, ROWS, BEGIN, ANSWER].concat()).await?,
        begin: client.prepare(&[MOVE, ROWS, BEGIN, ANSWER].concat()).await?,
        middle: client.prepare(&[MOVE, ROWS, ANSWER].concat()).await?,
        end: client.prepare(&[MOVE, ROWS, END, ANSWER].concat()).await?,
    })
}

async fn counts(client: &Client) -> Result<Vec<i64>, tokio_postgres::Error> {
    let mut counts = Vec::new();
    for table in TABLES {
        counts.push(client.query_one(&format!("SELECT count(*) FROM public.{table}"), &[]).await?.get(0));
    }
    Ok(counts)
}

async fn template(client: &Client) -> Result<Template, tokio_postgres::Error> {
    let mut template = Template::default();
    for row in client.query("SELECT hash, bytes FROM public.records ORDER BY position", &[]).await? {
        template.hashes.push(row.get(0));
        template.bytes.push(row.get(1));
    }
    for row in client.query("SELECT id, form, item_key, body FROM public.contents ORDER BY id", &[]).await? {
        template.ids.push(row.get(0));
        template.forms.push(row.get(1));
        template.keys.push(row.get(2));
        template.bodies.push(row.get(3));
    }
    template.data_key = client.query_one("SELECT wrapped FROM public.data_keys", &[]).await?.get(0);
    Ok(template)
}

/// Makes sessions until the time is over; gives their number.
async fn drive(
    client: Client,
    prepared: Prepared,
    template: Arc<Template>,
    clock: Clock,
    time: Duration,
) -> Result<u64, Failure> {
    let random = Random::system();
    let mut sessions = 0;
    while clock.monotonic() < time {
        let at_ms = clock.wall_ms();
        let session = domain::Id::<domain::id::Session>::new(at_ms, random.bytes()).to_string();
        let mut run_id = String::new();
        for run::Step { records, contents, index } in run::steps() {
            if index == 0 {
                run_id = domain::Id::<domain::id::Run>::new(at_ms, random.bytes()).to_string();
            }
            let statement = match index {
                0 if records.start == 0 => &prepared.first,
                0 => &prepared.begin,
                _ if index + 1 == run::APPENDS => &prepared.end,
                _ => &prepared.middle,
            };
            let (position, next) = (i64::try_from(records.start)?, i64::try_from(records.end)?);
            let rows = client
                .query(
                    statement,
                    &[
                        &session,
                        &position,
                        &next,
                        &template.hashes[records.end - 1],
                        &1_i64,
                        &&template.hashes[records.clone()],
                        &&template.bytes[records],
                        &&template.ids[contents.clone()],
                        &&template.forms[contents.clone()],
                        &&template.keys[contents.clone()],
                        &&template.bodies[contents],
                        &run_id,
                        &i64::try_from(at_ms)?,
                        &template.data_key,
                    ],
                )
                .await?;
            if rows.len() != 1 {
                return Err("an append was refused".into());
            }
        }
        sessions += 1;
    }
    Ok(sessions)
}
