//! The one statement of an append, for an entry alone and for a group of entries of several sessions. Which parts it has
//! follows from the entries, so there are a few dozen texts in all, each made once; every text of a kind takes the same
//! parameters, and what it does not need is NULL or empty. Who goes with whom, `group` says.
//!
//! The first part moves the heads that still stand where their entries were linked to; every other part selects from it, so
//! that nothing is written of an entry whose head does not. Conditions that come after (an idempotency key, a session's data
//! key) divide by zero when they do not hold: the statement fails and leaves nothing, of a group too.

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

    /// What groups have together or not at all, so that there are few texts of them: what begins a run, what ends one, what
    /// comes seldom. Contents nearly every entry has.
    const TOGETHER: [u16; 3] = [
        Self::INPUT.0 | Self::DATA_KEY.0 | Self::KEY_CHECKED.0 | Self::SUBMITTED.0,
        Self::RUNS.0 | Self::HELD.0 | Self::TIMERS.0 | Self::TOLD.0,
        Self::KEPT.0,
    ];

    pub(crate) const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(crate) const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// The parts of a group whose entries have these.
    fn rounded(self) -> Self {
        let wanted = Self::TOGETHER.into_iter().filter(|bits| self.0 & bits != 0);
        wanted.fold(Self::CONTENTS, |parts, bits| parts.with(Self(bits)))
    }
}

/// How the index parts of a text name what they need of an entry.
struct Names {
    session: &'static str,
    rows: &'static str,
    /// After the name of a table: its rows of the session. With what stands for itself, so that an index leads to them
    /// whatever the planner takes the tables' sizes for.
    same: fn(&str) -> String,
}

impl Names {
    fn say(&self, template: &str) -> String {
        let mut text = template.replace("{session}", self.session).replace("{rows}", self.rows);
        for table in ["a", "d", "h"] {
            text = text.replace(&format!("{{same {table}}}"), &(self.same)(table));
        }
        text
    }
}

const ALONE: Names = Names { session: "$2", rows: "$21::jsonb", same: |table| format!("{table}.session = $2") };
const ANEW: Names = Names { session: "$2", rows: "$3::jsonb", same: |table| format!("{table}.session = $2") };
const GROUPED: Names = Names {
    session: "head.session",
    rows: "head.rows",
    same: |table| format!("{table}.session = head.session AND {table}.session = ANY ($2)"),
};

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
                text.push_str(&ANEW.say(sql));
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
            text.push_str(&ALONE.say(sql));
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

/// Types of the parameters of a group, in their order. There is one element for each entry, each record or each content.
const GROUP_TYPES: &[Type] = &[
    Type::TEXT,        // $1 tenant
    Type::TEXT_ARRAY,  // $2 sessions, in their order
    Type::INT8_ARRAY,  // $3 positions the entries were linked to
    Type::BYTEA_ARRAY, // $4 hashes there
    Type::INT8_ARRAY,  // $5 erasures there
    Type::INT8_ARRAY,  // $6 epochs of the drivers; NULL: from outside
    Type::INT8_ARRAY,  // $7 next positions
    Type::BYTEA_ARRAY, // $8 hashes of the last records
    Type::BYTEA_ARRAY, // $9 data keys to be checked, wrapped
    Type::BOOL_ARRAY,  // $10 whether the entry brings its data key
    Type::TEXT_ARRAY,  // $11 index rows, JSON
    Type::INT8_ARRAY,  // $12 the records' entries, from 1
    Type::INT8_ARRAY,  // $13 their positions
    Type::BYTEA_ARRAY, // $14 their hashes
    Type::BYTEA_ARRAY, // $15 their bytes
    Type::INT8_ARRAY,  // $16 the contents' entries, from 1
    Type::TEXT_ARRAY,  // $17 their ids
    Type::INT2_ARRAY,  // $18 their forms
    Type::BYTEA_ARRAY, // $19 their keys
    Type::BYTEA_ARRAY, // $20 their bodies
];

/// The statement for a group of entries of one tenant, each of another session. It answers with the number and the commit of
/// each entry that was written.
pub(crate) fn group(parts: Parts) -> Sql {
    static TEXTS: [OnceLock<String>; Parts::COUNT] = [const { OnceLock::new() }; Parts::COUNT];
    let parts = parts.rounded();
    Sql { text: TEXTS[usize::from(parts.0) % Parts::COUNT].get_or_init(|| group_text(parts)), types: GROUP_TYPES }
}

fn group_text(parts: Parts) -> String {
    let mut text = GROUP.to_owned();
    let own = [(Parts::INPUT, GROUP_READY), (Parts::CONTENTS, GROUP_CONTENTS), (Parts::DATA_KEY, GROUP_DATA_KEY)];
    for (part, sql) in own.into_iter().chain(INDEX) {
        if parts.has(part) {
            text.push_str(", ");
            text.push_str(&GROUPED.say(sql));
        }
    }
    let conditions = if parts.has(Parts::KEY_CHECKED) { GROUP_KEY_CHECK } else { "" };
    format!("{text} SELECT head.n, head.commit_id{conditions} FROM head")
}

/// Heads are found by the conflict, which needs no plan: a join would read the whole table while the planner takes it for
/// small. A head that is inserted where one was expected divides by zero: `quarantined` is what tells it from the others.
const GROUP: &str = "WITH entry AS (
    SELECT e.* FROM unnest($2, $3, $4, $5, $6, $7, $8, $9, $10, $11) WITH ORDINALITY
        AS e(session, position, previous, erasures, epoch, next, last, wrapped, brings_key, rows, n)),
moved AS (
    INSERT INTO public.heads AS h (tenant, session, position, hash, epoch, quarantined)
    SELECT $1, e.session, e.next, e.last, coalesce(e.epoch, 0), e.position > 0 FROM entry AS e
    ON CONFLICT (tenant, session) DO UPDATE SET position = excluded.position, hash = excluded.hash,
        epoch = greatest(h.epoch, excluded.epoch)
    WHERE NOT h.quarantined AND EXISTS (
        SELECT 1 FROM entry AS e WHERE e.session = h.session AND e.position = h.position AND e.previous = h.hash
        AND e.erasures = h.erasures AND (e.epoch IS NULL OR h.epoch <= e.epoch))
    RETURNING h.session, nextval('public.commit_ids') AS commit_id, 1 / (CASE WHEN h.quarantined THEN 0 ELSE 1 END)),
head AS (
    SELECT e.n, e.session, e.epoch, e.next, e.wrapped, e.brings_key, e.rows::jsonb AS rows, m.commit_id
    FROM moved AS m JOIN entry AS e ON e.session = m.session),
records AS (
    INSERT INTO public.records (tenant, session, position, hash, bytes, commit_id)
    SELECT $1, head.session, r.position, r.hash, r.bytes, head.commit_id
    FROM head, unnest($12, $13, $14, $15) AS r(n, position, hash, bytes) WHERE r.n = head.n)";

const GROUP_READY: &str = concat!(
    "ready AS (INSERT INTO public.ready AS r (tenant, session, at_ms, position) SELECT $1, head.session, ",
    now_ms!(),
    ", head.next FROM head WHERE head.epoch IS NULL ON CONFLICT (tenant, session) DO UPDATE
      SET at_ms = least(r.at_ms, excluded.at_ms), position = excluded.position)"
);

const GROUP_CONTENTS: &str = "contents AS (
    INSERT INTO public.contents (tenant, session, id, form, item_key, body)
    SELECT $1, head.session, c.id, c.form, c.item_key, c.body
    FROM head, unnest($16, $17, $18, $19, $20) AS c(n, id, form, item_key, body) WHERE c.n = head.n)";

const GROUP_DATA_KEY: &str = "data_key AS (
    INSERT INTO public.data_keys (tenant, session, wrapped)
    SELECT $1, head.session, head.wrapped FROM head WHERE head.brings_key
    ON CONFLICT (tenant, session) DO NOTHING RETURNING session)";

const GROUP_KEY_CHECK: &str = ", CASE WHEN head.wrapped IS NOT NULL THEN 1 / (
    (SELECT count(*) FROM data_key AS d WHERE d.session = head.session)
    + (SELECT count(*) FROM public.data_keys AS k
       WHERE k.tenant = $1 AND k.session = head.session AND k.wrapped = head.wrapped)) END";

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
    SELECT $1, x.run, {session}, x.agent, x.principal, x.status, x.created_ms, x.updated_ms, x.finished_ms,
        x.submitted_position, x.finished_position, coalesce(x.turns, 0), coalesce(x.tool_calls, 0),
        coalesce(x.model_calls, 0), coalesce(x.input_tokens, 0), coalesce(x.cached_tokens, 0),
        coalesce(x.output_tokens, 0), coalesce(x.reasoning_tokens, 0), coalesce(x.cost_micro_usd, 0),
        coalesce(x.cost_listed, true), coalesce(x.used_sandbox, false), x.waits_for, x.waits_until_ms
    FROM head, jsonb_to_recordset({rows} -> 'submitted') AS x(run text, agent text, principal text, status text,
        created_ms bigint, updated_ms bigint, finished_ms bigint, submitted_position bigint, finished_position bigint,
        turns bigint, tool_calls bigint, model_calls bigint, input_tokens bigint, cached_tokens bigint,
        output_tokens bigint, reasoning_tokens bigint, cost_micro_usd bigint, cost_listed boolean,
        used_sandbox boolean, waits_for text, waits_until_ms bigint)),
session AS (
    INSERT INTO public.session_index AS s
        (tenant, session, created_ms, updated_ms, runs, last_run, agent, principal)
    SELECT $1, {session}, x.created_ms, x.updated_ms, x.runs, x.last_run, x.agent, x.principal
    FROM head, jsonb_to_recordset({rows} -> 'sessions') AS x(created_ms bigint, updated_ms bigint, runs bigint,
        last_run text, agent text, principal text)
    ON CONFLICT (tenant, session) DO UPDATE SET updated_ms = excluded.updated_ms, runs = s.runs + excluded.runs,
        last_run = excluded.last_run, agent = excluded.agent)";

/// What is there is found row by row by its key, and changed by the conflict. The planner takes a JSON list for a hundred rows,
/// and a table that it has no statistics of for small: an UPDATE that joins the two reads every run of the tenant.
const RUNS: &str = "runs AS (
    INSERT INTO public.run_index (tenant, run, session, agent, principal, status, created_ms, updated_ms, finished_ms,
        submitted_position, finished_position, turns, tool_calls, model_calls, input_tokens, cached_tokens,
        output_tokens, reasoning_tokens, cost_micro_usd, cost_listed, used_sandbox, waits_for, waits_until_ms)
    SELECT $1, t.run, t.session, t.agent, t.principal, x.status, t.created_ms, x.updated_ms,
        coalesce(x.finished_ms, t.finished_ms), t.submitted_position,
        coalesce(x.finished_position, t.finished_position), coalesce(x.turns, t.turns),
        coalesce(x.tool_calls, t.tool_calls), coalesce(x.model_calls, t.model_calls),
        coalesce(x.input_tokens, t.input_tokens), coalesce(x.cached_tokens, t.cached_tokens),
        coalesce(x.output_tokens, t.output_tokens), coalesce(x.reasoning_tokens, t.reasoning_tokens),
        coalesce(x.cost_micro_usd, t.cost_micro_usd), coalesce(x.cost_listed, t.cost_listed),
        coalesce(x.used_sandbox, t.used_sandbox), x.waits_for, x.waits_until_ms
    FROM head, jsonb_to_recordset({rows} -> 'runs') AS x(run text, status text, updated_ms bigint,
        finished_ms bigint, finished_position bigint, turns bigint, tool_calls bigint, model_calls bigint,
        input_tokens bigint, cached_tokens bigint, output_tokens bigint, reasoning_tokens bigint,
        cost_micro_usd bigint, cost_listed boolean, used_sandbox boolean, waits_for text, waits_until_ms bigint),
        LATERAL (SELECT * FROM public.run_index WHERE tenant = $1 AND run = x.run OFFSET 0) AS t
    ON CONFLICT (tenant, run) DO UPDATE SET status = excluded.status, updated_ms = excluded.updated_ms,
        finished_ms = excluded.finished_ms, finished_position = excluded.finished_position, turns = excluded.turns,
        tool_calls = excluded.tool_calls, model_calls = excluded.model_calls, input_tokens = excluded.input_tokens,
        cached_tokens = excluded.cached_tokens, output_tokens = excluded.output_tokens,
        reasoning_tokens = excluded.reasoning_tokens, cost_micro_usd = excluded.cost_micro_usd,
        cost_listed = excluded.cost_listed, used_sandbox = excluded.used_sandbox, waits_for = excluded.waits_for,
        waits_until_ms = excluded.waits_until_ms)";

const KEPT: &str = "artifacts AS (
    INSERT INTO public.artifact_index (tenant, artifact, run, session, position, name, media, bytes, object, created_ms)
    SELECT $1, x.artifact, x.run, {session}, x.position, x.name, x.media, x.bytes, x.object, x.created_ms
    FROM head, jsonb_to_recordset({rows} -> 'artifacts') AS x(artifact text, run text, position bigint, name text,
        media text, bytes bigint, object text, created_ms bigint)),
checkpoints AS (
    INSERT INTO public.checkpoint_index (tenant, session, position, checkpoint, object)
    SELECT $1, {session}, x.position, x.checkpoint, x.object
    FROM head, jsonb_to_recordset({rows} -> 'checkpoints') AS x(position bigint, checkpoint text, object text))";

const TIMERS: &str = "due AS (
    INSERT INTO public.due (tenant, session, run, kind, at_ms) SELECT $1, {session}, x.run, x.kind, x.at_ms
    FROM head, jsonb_to_recordset({rows} -> 'due') AS x(run text, kind text, at_ms bigint)
    ON CONFLICT (tenant, session, run, kind) DO UPDATE SET at_ms = excluded.at_ms),
over AS (
    DELETE FROM public.due AS d USING head, jsonb_to_recordset({rows} -> 'over') AS x(run text, kind text)
    WHERE d.tenant = $1 AND {same d} AND d.run = x.run AND d.kind = x.kind)";

/// A row that is added or changed here is left alone by what ends the others.
const HELD: &str = "held AS (
    INSERT INTO public.held_index (tenant, call, run, session, since_ms, expires_ms, is_open)
    SELECT $1, x.call, x.run, {session}, x.since_ms, x.expires_ms, x.is_open
    FROM head, jsonb_to_recordset({rows} -> 'held') AS x(call text, run text, since_ms bigint, expires_ms bigint,
        is_open boolean)
    ON CONFLICT (tenant, call) DO UPDATE SET expires_ms = excluded.expires_ms, is_open = excluded.is_open),
unheld AS (
    UPDATE public.held_index AS h SET is_open = false FROM head
    WHERE h.tenant = $1 AND {same h} AND h.is_open
        AND (h.call IN (SELECT jsonb_array_elements_text({rows} -> 'unheld'))
            OR h.run IN (SELECT jsonb_array_elements_text({rows} -> 'ended')))
        AND h.call NOT IN (SELECT x.call FROM jsonb_to_recordset({rows} -> 'held') AS x(call text)))";

const TOLD: &str = "announced AS (
    INSERT INTO public.announced (tenant, session, run) SELECT $1, {session}, x.run
    FROM head, jsonb_array_elements_text({rows} -> 'announced') AS x(run) ON CONFLICT DO NOTHING),
told AS (
    INSERT INTO public.outbox (tenant, session, position, target, run, kind, at_ms, state, next_ms, version)
    SELECT $1, {session}, x.position, '', x.run, x.kind, x.at_ms, '', x.at_ms, 0
    FROM head, jsonb_to_recordset({rows} -> 'told') AS x(position bigint, run text, kind text, at_ms bigint,
        announced boolean)
    WHERE x.announced OR EXISTS (
        SELECT 1 FROM public.announced AS a WHERE a.tenant = $1 AND {same a} AND a.run = x.run))";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_is_made_once_and_qualified() {
        for bits in (0..Parts::COUNT).filter_map(|bits| u16::try_from(bits).ok()) {
            let sql = append(Parts(bits));
            assert_eq!(sql.text.as_ptr(), append(Parts(bits)).text.as_ptr());
            assert_eq!(group(Parts(bits)).text.as_ptr(), group(Parts(bits)).text.as_ptr());
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
