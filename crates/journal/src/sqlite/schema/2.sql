-- The index becomes tables of its own names, so that `sessions`, `runs` and `artifacts` are what people read; sessions can be
-- deleted and put aside; checkpoints are counted, so that their objects go when nobody goes on from them.

ALTER TABLE sessions RENAME TO session_index;
ALTER TABLE runs RENAME TO run_index;
ALTER TABLE artifacts RENAME TO artifact_index;

CREATE TABLE checkpoint_index(
    tenant TEXT NOT NULL, session BLOB NOT NULL, position INTEGER NOT NULL,
    checkpoint BLOB NOT NULL, object TEXT NOT NULL,
    PRIMARY KEY(tenant, session, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX checkpoints_by_object ON checkpoint_index(tenant, object);

CREATE TABLE tombstones(
    tenant TEXT NOT NULL, session BLOB NOT NULL, epoch INTEGER NOT NULL,
    purged_ms INTEGER NOT NULL, principal BLOB NOT NULL, records INTEGER NOT NULL, head_hash BLOB NOT NULL,
    PRIMARY KEY(tenant, session, epoch)
) STRICT, WITHOUT ROWID;

CREATE TABLE quarantine(
    tenant TEXT NOT NULL, session BLOB NOT NULL,
    since_ms INTEGER NOT NULL, principal BLOB NOT NULL, reason TEXT NOT NULL,
    PRIMARY KEY(tenant, session)
) STRICT, WITHOUT ROWID;

-- Objects that nothing points to any more and that are still to be deleted.
CREATE TABLE garbage(object TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;

-- Whether there is room again after the disk was full is tried here.
CREATE TABLE room(body BLOB NOT NULL) STRICT;

INSERT INTO meta(key, value) VALUES ('settled', 0);

-- For people with SQL. Ids are text here.

CREATE VIEW sessions AS
SELECT s.tenant, 'ses_' || lower(hex(s.session)) AS session, s.created_ms, s.updated_ms, s.runs,
       'run_' || lower(hex(s.last_run)) AS last_run, s.agent, 'prn_' || lower(hex(s.principal)) AS principal,
       h.position AS next_position, lower(hex(h.hash)) AS head_hash, h.epoch, q.reason AS quarantined
FROM session_index AS s
JOIN heads AS h ON h.tenant = s.tenant AND h.session = s.session
LEFT JOIN quarantine AS q ON q.tenant = s.tenant AND q.session = s.session;

CREATE VIEW runs AS
SELECT tenant, 'run_' || lower(hex(run)) AS run, 'ses_' || lower(hex(session)) AS session, agent,
       'prn_' || lower(hex(principal)) AS principal,
       CASE WHEN finished_ms IS NULL AND EXISTS(
           SELECT 1 FROM run_index AS earlier WHERE earlier.tenant = r.tenant AND earlier.session = r.session
           AND earlier.submitted_position < r.submitted_position AND earlier.finished_ms IS NULL
       ) THEN 'queued' ELSE status END AS status,
       created_ms, updated_ms, finished_ms, submitted_position, finished_position, turns, tool_calls, model_calls,
       input_tokens, cached_tokens, output_tokens, reasoning_tokens, cost_micro_usd, cost_listed, used_sandbox
FROM run_index AS r;

CREATE VIEW artifacts AS
SELECT tenant, 'art_' || lower(hex(artifact)) AS artifact, 'run_' || lower(hex(run)) AS run,
       'ses_' || lower(hex(session)) AS session, position, name, media, bytes, object, created_ms
FROM artifact_index;

-- What a run did and how long it took, in order.
CREATE VIEW traces AS
SELECT tenant, 'ses_' || lower(hex(session)) AS session, position,
       CAST(bytes AS TEXT) ->> '$.body.run' AS run, CAST(bytes AS TEXT) ->> '$.at_ms' AS at_ms,
       CAST(bytes AS TEXT) ->> '$.kind' AS kind, CAST(bytes AS TEXT) ->> '$.body.call' AS call,
       CAST(bytes AS TEXT) ->> '$.body.turn' AS turn, CAST(bytes AS TEXT) ->> '$.body.status' AS status,
       CAST(bytes AS TEXT) ->> '$.body.duration_ms' AS duration_ms
FROM records;

-- Every record: who, what, when, with its hash and the one that it links to. No content.
CREATE VIEW audit_log AS
SELECT tenant, 'ses_' || lower(hex(session)) AS session, position,
       CAST(bytes AS TEXT) ->> '$.at_ms' AS at_ms, CAST(bytes AS TEXT) ->> '$.principal' AS principal,
       CAST(bytes AS TEXT) ->> '$.kind' AS kind, CAST(bytes AS TEXT) ->> '$.body.run' AS run,
       lower(hex(hash)) AS hash, CAST(bytes AS TEXT) ->> '$.previous' AS previous, commit_id,
       CAST(bytes AS TEXT) AS record
FROM records;
