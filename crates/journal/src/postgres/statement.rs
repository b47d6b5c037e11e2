//! The one statement of an append. Which parts it has follows from the entry, so there are a few dozen texts in all, each
//! made once; every text takes the same parameters, and what it does not need is NULL.
//!
//! The first part moves the head, if it still stands where the entry was linked to; every other part selects from it, so
//! that nothing is written when it does not. Conditions that come after (an idempotency key, the session's data key) divide
//! by zero when they do not hold: the statement fails and leaves nothing.

use crate::postgres::pool::Sql;
use std::sync::OnceLock;
use tokio_postgres::types::Type;

/// The time by the database's clock, in milliseconds since the Unix epoch. It alone decides about leases and readiness.
macro_rules! now_ms {
    () => {
        "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"
    };
}
pub(crate) use now_ms;

/// The parts of a statement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Parts(u16);

impl Parts {
    /// The log may have no head yet.
    pub(crate) const FIRST: Self = Self(1);
    /// From outside: makes the session ready; without it, the driver's epoch is checked and kept.
    pub(crate) const INPUT: Self = Self(1 << 1);
    /// Is taken once.
    pub(crate) const KEYED: Self = Self(1 << 2);
    /// Has contents.
    pub(crate) const CONTENTS: Self = Self(1 << 3);
    /// Brings the session's data key.
    pub(crate) const DATA_KEY: Self = Self(1 << 4);
    /// Asks for runs.
    pub(crate) const SUBMITTED: Self = Self(1 << 5);
    /// Changes runs.
    pub(crate) const RUNS: Self = Self(1 << 6);
    /// Keeps files or workspaces.
    pub(crate) const KEPT: Self = Self(1 << 7);
    /// Sets or ends timers.
    pub(crate) const TIMERS: Self = Self(1 << 8);

    /// Holds calls, or ends their being held.
    pub(crate) const HELD: Self = Self(1 << 9);
    /// Tells others of runs.
    pub(crate) const TOLD: Self = Self(1 << 10);
    /// Checks that the session's data key is the one that the contents were sealed under.
    pub(crate) const KEY_CHECKED: Self = Self(1 << 11);

    const COUNT: usize = 1 << 12;

    pub(crate) const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(crate) const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// Types of the parameters, in their order.
const TYPES: &[Type] = &[
    Type::TEXT,        // $1 tenant
    Type::TEXT,        // $2 session
    Type::INT8,        // $3 position the entry was linked to
    Type::BYTEA,       // $4 hash there
    Type::INT8,        // $5 erasures there
    Type::INT8,        // $6 epoch of the driver
    Type::INT8,        // $7 next position
    Type::BYTEA,       // $8 hash of the last record
    Type::BYTEA_ARRAY, // $9 hashes of the records
    Type::BYTEA_ARRAY, // $10 their bytes
    Type::TEXT_ARRAY,  // $11 ids of the contents
    Type::INT2_ARRAY,  // $12 their forms
    Type::BYTEA_ARRAY, // $13 their keys
    Type::BYTEA_ARRAY, // $14 their bodies
    Type::BYTEA,       // $15 the session's data key, wrapped
    Type::BYTEA,       // $16 idempotency key
    Type::BYTEA,       // $17 digest of the request
    Type::TEXT,        // $18 its run
    Type::INT8,        // $19 until when it is remembered
    Type::INT8,        // $20 now, by the clock of whoever appends
    Type::TEXT,        // $21 index rows, JSON
];

/// The statement for these parts.
pub(crate) fn append(parts: Parts) -> Sql {
    static TEXTS: [OnceLock<String>; Parts::COUNT] = [const { OnceLock::new() }; Parts::COUNT];
    Sql { text: TEXTS[usize::from(parts.0) % Parts::COUNT].get_or_init(|| text(parts)), types: TYPES }
}

/// The index rows alone, for a log that is there: tenant, session, index.
pub(crate) fn index(parts: Parts) -> Sql {
    static TEXTS: [OnceLock<String>; Parts::COUNT] = [const { OnceLock::new() }; Parts::COUNT];
    let text = || {
        let mut text = "WITH head AS (SELECT 1)".to_owned();
        for (part, sql) in INDEX {
            if parts.has(part) {
                text.push_str(", ");
                text.push_str(&sql.replace("$21", "$3"));
            }
        }
        text + " SELECT 1"
    };
    let text = TEXTS[usize::from(parts.0) % Parts::COUNT].get_or_init(text);
    Sql { text, types: &[Type::TEXT, Type::TEXT, Type::TEXT] }
}

const INDEX: [(Parts, &str); 6] = [
    (Parts::SUBMITTED, SUBMITTED),
    (Parts::RUNS, RUNS),
    (Parts::KEPT, KEPT),
    (Parts::TIMERS, TIMERS),
    (Parts::HELD, HELD),
    (Parts::TOLD, TOLD),
];

fn text(parts: Parts) -> String {
    let mut text = format!("WITH head AS ({})", head(parts));
    let mut conditions = String::new();
    text.push_str(
        ", records AS (INSERT INTO public.records (tenant, session, position, hash, bytes, commit_id)
          SELECT $1, $2, $3 + r.n - 1, r.hash, r.bytes, head.commit_id
          FROM head, unnest($9, $10) WITH ORDINALITY AS r(hash, bytes, n))",
    );
    let own = [(Parts::INPUT, READY), (Parts::KEYED, KEYED), (Parts::CONTENTS, CONTENTS), (Parts::DATA_KEY, DATA_KEY)];
    for (part, sql) in own.into_iter().chain(INDEX) {
        if parts.has(part) {
            text.push_str(", ");
            text.push_str(sql);
        }
    }
    if parts.has(Parts::KEYED) {
        conditions.push_str(", 1 / (SELECT count(*) FROM taken)");
    }
    if parts.has(Parts::KEY_CHECKED) {
        let made = if parts.has(Parts::DATA_KEY) { "(SELECT count(*) FROM data_key) + " } else { "" };
        conditions.push_str(", 1 / (");
        conditions.push_str(made);
        conditions
            .push_str("(SELECT count(*) FROM public.data_keys WHERE tenant = $1 AND session = $2 AND wrapped = $15))");
    }
    format!("{text} SELECT head.commit_id{conditions} FROM head")
}

fn head(parts: Parts) -> String {
    let (epoch, fence) = match parts.has(Parts::INPUT) {
        true => ("", ""),
        false => (", epoch = $6", " AND h.epoch <= $6"),
    };
    let here = "h.position = $3 AND h.hash = $4 AND h.erasures = $5 AND NOT h.quarantined";
    let commit = "RETURNING nextval('public.commit_ids') AS commit_id";
    if !parts.has(Parts::FIRST) {
        return format!(
            "UPDATE public.heads AS h SET position = $7, hash = $8{epoch}
             WHERE h.tenant = $1 AND h.session = $2 AND {here}{fence} {commit}"
        );
    }
    format!(
        "INSERT INTO public.heads AS h (tenant, session, position, hash, epoch) VALUES ($1, $2, $7, $8, coalesce($6, 0))
         ON CONFLICT (tenant, session) DO UPDATE SET position = $7, hash = $8{epoch} WHERE {here}{fence} {commit}"
    )
}

/// The time stays when it was earlier, so that only the position changes, which no index covers.
const READY: &str = concat!(
    "ready AS (INSERT INTO public.ready AS r (tenant, session, at_ms, position) SELECT $1, $2, ",
    now_ms!(),
    ", $7 FROM head ON CONFLICT (tenant, session) DO UPDATE
      SET at_ms = least(r.at_ms, excluded.at_ms), position = excluded.position)"
);

const KEYED: &str = "taken AS (
    INSERT INTO public.idempotency AS i (tenant, key, body, session, run, position, expires_ms)
    SELECT $1, $16, $17, $2, $18, $3, $19 FROM head
    ON CONFLICT (tenant, key) DO UPDATE SET body = excluded.body, session = excluded.session, run = excluded.run,
        position = excluded.position, expires_ms = excluded.expires_ms
    WHERE i.expires_ms <= $20 RETURNING 1)";

const CONTENTS: &str = "contents AS (
    INSERT INTO public.contents (tenant, session, id, form, item_key, body)
    SELECT $1, $2, c.id, c.form, c.item_key, c.body
    FROM head, unnest($11, $12, $13, $14) AS c(id, form, item_key, body))";

const DATA_KEY: &str = "data_key AS (
    INSERT INTO public.data_keys (tenant, session, wrapped) SELECT $1, $2, $15 FROM head
    ON CONFLICT (tenant, session) DO NOTHING RETURNING 1)";

const SUBMITTED: &str = "submitted AS (
    INSERT INTO public.run_index (tenant, run, session, agent, principal, status, created_ms, updated_ms, finished_ms,
        submitted_position, finished_position, turns, tool_calls, model_calls, input_tokens, cached_tokens,
        output_tokens, reasoning_tokens, cost_micro_usd, cost_listed, used_sandbox, waits_for, waits_until_ms)
    SELECT $1, x.run, $2, x.agent, x.principal, x.status, x.created_ms, x.updated_ms, x.finished_ms,
        x.submitted_position, x.finished_position, coalesce(x.turns, 0), coalesce(x.tool_calls, 0),
        coalesce(x.model_calls, 0), coalesce(x.input_tokens, 0), coalesce(x.cached_tokens, 0),
        coalesce(x.output_tokens, 0), coalesce(x.reasoning_tokens, 0), coalesce(x.cost_micro_usd, 0),
        coalesce(x.cost_listed, true), coalesce(x.used_sandbox, false), x.waits_for, x.waits_until_ms
    FROM head, jsonb_to_recordset($21::jsonb -> 'submitted') AS x(run text, agent text, principal text, status text,
        created_ms bigint, updated_ms bigint, finished_ms bigint, submitted_position bigint, finished_position bigint,
        turns bigint, tool_calls bigint, model_calls bigint, input_tokens bigint, cached_tokens bigint,
        output_tokens bigint, reasoning_tokens bigint, cost_micro_usd bigint, cost_listed boolean,
        used_sandbox boolean, waits_for text, waits_until_ms bigint)),
session AS (
    INSERT INTO public.session_index AS s
        (tenant, session, created_ms, updated_ms, runs, last_run, agent, principal)
    SELECT $1, $2, x.created_ms, x.updated_ms, x.runs, x.last_run, x.agent, x.principal
    FROM head, jsonb_to_record($21::jsonb -> 'session') AS x(created_ms bigint, updated_ms bigint, runs bigint,
        last_run text, agent text, principal text)
    ON CONFLICT (tenant, session) DO UPDATE SET updated_ms = excluded.updated_ms, runs = s.runs + excluded.runs,
        last_run = excluded.last_run, agent = excluded.agent)";

/// The planner takes a JSON list for a hundred rows and would read the whole table to join it; the array of its runs leads
/// it to the primary key.
const RUNS: &str = "runs AS (
    UPDATE public.run_index AS r SET status = x.status, updated_ms = x.updated_ms,
        finished_ms = coalesce(x.finished_ms, r.finished_ms),
        finished_position = coalesce(x.finished_position, r.finished_position),
        turns = coalesce(x.turns, r.turns), tool_calls = coalesce(x.tool_calls, r.tool_calls),
        model_calls = coalesce(x.model_calls, r.model_calls),
        input_tokens = coalesce(x.input_tokens, r.input_tokens),
        cached_tokens = coalesce(x.cached_tokens, r.cached_tokens),
        output_tokens = coalesce(x.output_tokens, r.output_tokens),
        reasoning_tokens = coalesce(x.reasoning_tokens, r.reasoning_tokens),
        cost_micro_usd = coalesce(x.cost_micro_usd, r.cost_micro_usd),
        cost_listed = coalesce(x.cost_listed, r.cost_listed),
        used_sandbox = coalesce(x.used_sandbox, r.used_sandbox), waits_for = x.waits_for,
        waits_until_ms = x.waits_until_ms
    FROM head, jsonb_to_recordset($21::jsonb -> 'runs') AS x(run text, status text, updated_ms bigint,
        finished_ms bigint, finished_position bigint, turns bigint, tool_calls bigint, model_calls bigint,
        input_tokens bigint, cached_tokens bigint, output_tokens bigint, reasoning_tokens bigint,
        cost_micro_usd bigint, cost_listed boolean, used_sandbox boolean, waits_for text, waits_until_ms bigint)
    WHERE r.tenant = $1 AND r.run = x.run
    AND r.run = ANY (ARRAY(SELECT e ->> 'run' FROM jsonb_array_elements($21::jsonb -> 'runs') AS e)))";

const KEPT: &str = "artifacts AS (
    INSERT INTO public.artifact_index (tenant, artifact, run, session, position, name, media, bytes, object, created_ms)
    SELECT $1, x.artifact, x.run, $2, x.position, x.name, x.media, x.bytes, x.object, x.created_ms
    FROM head, jsonb_to_recordset($21::jsonb -> 'artifacts') AS x(artifact text, run text, position bigint, name text,
        media text, bytes bigint, object text, created_ms bigint)),
checkpoints AS (
    INSERT INTO public.checkpoint_index (tenant, session, position, checkpoint, object)
    SELECT $1, $2, x.position, x.checkpoint, x.object
    FROM head, jsonb_to_recordset($21::jsonb -> 'checkpoints') AS x(position bigint, checkpoint text, object text))";

const TIMERS: &str = "due AS (
    INSERT INTO public.due (tenant, session, run, kind, at_ms) SELECT $1, $2, x.run, x.kind, x.at_ms
    FROM head, jsonb_to_recordset($21::jsonb -> 'due') AS x(run text, kind text, at_ms bigint)
    ON CONFLICT (tenant, session, run, kind) DO UPDATE SET at_ms = excluded.at_ms),
over AS (
    DELETE FROM public.due AS d USING head, jsonb_to_recordset($21::jsonb -> 'over') AS x(run text, kind text)
    WHERE d.tenant = $1 AND d.session = $2 AND d.run = x.run AND d.kind = x.kind)";

/// A row that is added or changed here is left alone by what ends the others.
const HELD: &str = "held AS (
    INSERT INTO public.held_index (tenant, call, run, session, since_ms, expires_ms, is_open)
    SELECT $1, x.call, x.run, $2, x.since_ms, x.expires_ms, x.is_open
    FROM head, jsonb_to_recordset($21::jsonb -> 'held') AS x(call text, run text, since_ms bigint, expires_ms bigint,
        is_open boolean)
    ON CONFLICT (tenant, call) DO UPDATE SET expires_ms = excluded.expires_ms, is_open = excluded.is_open),
unheld AS (
    UPDATE public.held_index AS h SET is_open = false FROM head
    WHERE h.tenant = $1 AND h.is_open
        AND (h.call IN (SELECT jsonb_array_elements_text($21::jsonb -> 'unheld'))
            OR h.run IN (SELECT jsonb_array_elements_text($21::jsonb -> 'ended')))
        AND h.call NOT IN (SELECT x.call FROM jsonb_to_recordset($21::jsonb -> 'held') AS x(call text)))";

const TOLD: &str = "announced AS (
    INSERT INTO public.announced (tenant, session, run) SELECT $1, $2, x.run
    FROM head, jsonb_array_elements_text($21::jsonb -> 'announced') AS x(run) ON CONFLICT DO NOTHING),
told AS (
    INSERT INTO public.outbox (tenant, session, position, target, run, kind, at_ms, state, next_ms, version)
    SELECT $1, $2, x.position, '', x.run, x.kind, x.at_ms, '', x.at_ms, 0
    FROM head, jsonb_to_recordset($21::jsonb -> 'told') AS x(position bigint, run text, kind text, at_ms bigint,
        announced boolean)
    WHERE x.announced OR EXISTS (
        SELECT 1 FROM public.announced AS a WHERE a.tenant = $1 AND a.session = $2 AND a.run = x.run))";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_is_made_once_and_qualified() {
        for bits in (0..Parts::COUNT).filter_map(|bits| u16::try_from(bits).ok()) {
            let sql = append(Parts(bits));
            assert_eq!(sql.text.as_ptr(), append(Parts(bits)).text.as_ptr());
            for word in ["INTO ", "UPDATE ", "DELETE FROM "] {
                for (at, _) in sql.text.match_indices(word) {
                    let rest = &sql.text[at + word.len()..];
                    assert!(rest.starts_with("public.") || rest.starts_with("SET") || rest.starts_with("\n"), "{rest}");
                }
            }
            assert_eq!(sql.text.contains("h.epoch <= $6"), !Parts(bits).has(Parts::INPUT));
        }
    }
}
