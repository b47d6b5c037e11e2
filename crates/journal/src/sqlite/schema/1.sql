-- The first schema: the log, its contents, and an index of it.

CREATE TABLE meta(key TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;

CREATE TABLE records(
    tenant TEXT NOT NULL, session BLOB NOT NULL, position INTEGER NOT NULL,
    hash BLOB NOT NULL, bytes BLOB NOT NULL, commit_id INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX records_by_place ON records(tenant, session, position);

CREATE TABLE heads(
    tenant TEXT NOT NULL, session BLOB NOT NULL,
    position INTEGER NOT NULL, hash BLOB NOT NULL, epoch INTEGER NOT NULL,
    PRIMARY KEY(tenant, session)
) STRICT, WITHOUT ROWID;

CREATE TABLE contents(
    tenant TEXT NOT NULL, session BLOB NOT NULL, id BLOB NOT NULL,
    form INTEGER NOT NULL, item_key BLOB, body BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX contents_by_id ON contents(tenant, session, id);

CREATE TABLE data_keys(
    tenant TEXT NOT NULL, session BLOB NOT NULL, wrapped BLOB NOT NULL,
    PRIMARY KEY(tenant, session)
) STRICT, WITHOUT ROWID;

CREATE TABLE idempotency(
    tenant TEXT NOT NULL, key BLOB NOT NULL, body BLOB NOT NULL,
    session BLOB NOT NULL, run BLOB NOT NULL, position INTEGER NOT NULL, expires_ms INTEGER NOT NULL,
    PRIMARY KEY(tenant, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_by_expiry ON idempotency(expires_ms);

CREATE TABLE sessions(
    tenant TEXT NOT NULL, session BLOB NOT NULL,
    created_ms INTEGER NOT NULL, updated_ms INTEGER NOT NULL,
    runs INTEGER NOT NULL, last_run BLOB NOT NULL, agent TEXT NOT NULL, principal BLOB NOT NULL,
    PRIMARY KEY(tenant, session)
) STRICT, WITHOUT ROWID;
CREATE INDEX sessions_by_age ON sessions(tenant, created_ms, session);

CREATE TABLE runs(
    tenant TEXT NOT NULL, run BLOB NOT NULL, session BLOB NOT NULL,
    agent TEXT NOT NULL, principal BLOB NOT NULL, status TEXT NOT NULL,
    created_ms INTEGER NOT NULL, updated_ms INTEGER NOT NULL, finished_ms INTEGER,
    submitted_position INTEGER NOT NULL, finished_position INTEGER,
    turns INTEGER NOT NULL DEFAULT 0, tool_calls INTEGER NOT NULL DEFAULT 0,
    model_calls INTEGER NOT NULL DEFAULT 0, input_tokens INTEGER NOT NULL DEFAULT 0,
    cached_tokens INTEGER NOT NULL DEFAULT 0, output_tokens INTEGER NOT NULL DEFAULT 0,
    reasoning_tokens INTEGER NOT NULL DEFAULT 0,
    cost_micro_usd INTEGER NOT NULL DEFAULT 0, cost_listed INTEGER NOT NULL DEFAULT 1,
    used_sandbox INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY(tenant, run)
) STRICT, WITHOUT ROWID;
CREATE INDEX runs_by_session ON runs(tenant, session, run);
CREATE INDEX runs_open ON runs(tenant, session, submitted_position) WHERE finished_ms IS NULL;

CREATE TABLE artifacts(
    tenant TEXT NOT NULL, artifact BLOB NOT NULL, run BLOB NOT NULL, session BLOB NOT NULL,
    position INTEGER NOT NULL, name TEXT NOT NULL, media TEXT NOT NULL, bytes INTEGER NOT NULL,
    object TEXT NOT NULL, created_ms INTEGER NOT NULL,
    PRIMARY KEY(tenant, artifact)
) STRICT, WITHOUT ROWID;
CREATE INDEX artifacts_by_run ON artifacts(tenant, run, position);

CREATE TABLE due(
    tenant TEXT NOT NULL, session BLOB NOT NULL, run BLOB NOT NULL, kind TEXT NOT NULL, at_ms INTEGER NOT NULL,
    PRIMARY KEY(tenant, session, run, kind)
) STRICT, WITHOUT ROWID;
CREATE INDEX due_by_time ON due(at_ms);

-- For people with a sqlite3 shell.
CREATE VIEW log AS
SELECT tenant, 'ses_' || lower(hex(session)) AS session, position,
       CAST(bytes AS TEXT) ->> '$.kind' AS kind, CAST(bytes AS TEXT) AS record, commit_id
FROM records;
