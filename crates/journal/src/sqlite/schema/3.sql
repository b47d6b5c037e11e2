-- What waits for somebody outside: calls for approval, and what is to be told to others.

ALTER TABLE run_index ADD COLUMN waits_for TEXT;
ALTER TABLE run_index ADD COLUMN waits_until_ms INTEGER;

CREATE TABLE held_index(
    tenant TEXT NOT NULL, call BLOB NOT NULL, run BLOB NOT NULL, session BLOB NOT NULL,
    since_ms INTEGER NOT NULL, expires_ms INTEGER NOT NULL, is_open INTEGER NOT NULL,
    PRIMARY KEY(tenant, call)
) STRICT, WITHOUT ROWID;
CREATE INDEX held_open ON held_index(tenant, since_ms, call) WHERE is_open = 1;
CREATE INDEX held_by_run ON held_index(tenant, run) WHERE is_open = 1;
CREATE INDEX held_by_session ON held_index(tenant, session);

-- Runs of which others are told. Not made anew from the records, and neither is what was told of them.
CREATE TABLE announced(
    tenant TEXT NOT NULL, session BLOB NOT NULL, run BLOB NOT NULL,
    PRIMARY KEY(tenant, session, run)
) STRICT, WITHOUT ROWID;

CREATE TABLE outbox(
    tenant TEXT NOT NULL, session BLOB NOT NULL, position INTEGER NOT NULL, target TEXT NOT NULL,
    run BLOB NOT NULL, kind TEXT NOT NULL, at_ms INTEGER NOT NULL,
    state TEXT NOT NULL, next_ms INTEGER, version INTEGER NOT NULL,
    PRIMARY KEY(tenant, session, position, target)
) STRICT, WITHOUT ROWID;
CREATE INDEX outbox_by_time ON outbox(next_ms) WHERE next_ms IS NOT NULL;
CREATE INDEX outbox_by_run ON outbox(tenant, run);

DROP VIEW runs;
CREATE VIEW runs AS
SELECT tenant, 'run_' || lower(hex(run)) AS run, 'ses_' || lower(hex(session)) AS session, agent,
       'prn_' || lower(hex(principal)) AS principal,
       CASE WHEN finished_ms IS NULL AND EXISTS(
           SELECT 1 FROM run_index AS earlier WHERE earlier.tenant = r.tenant AND earlier.session = r.session
           AND earlier.submitted_position < r.submitted_position AND earlier.finished_ms IS NULL
       ) THEN 'queued' ELSE status END AS status,
       created_ms, updated_ms, finished_ms, submitted_position, finished_position, turns, tool_calls, model_calls,
       input_tokens, cached_tokens, output_tokens, reasoning_tokens, cost_micro_usd, cost_listed, used_sandbox,
       waits_for, waits_until_ms
FROM run_index AS r;
