-- The log, its contents, its index, and who drives what. Ids are text as everywhere else; `COLLATE "C"` sorts them by their
-- bytes, whatever the database's language is. `tenant` leads every primary key.

CREATE SEQUENCE public.commit_ids AS bigint;
CREATE SEQUENCE public.boots AS bigint;

CREATE TABLE public.records (
    tenant text COLLATE "C" NOT NULL, session text COLLATE "C" NOT NULL, position bigint NOT NULL,
    hash bytea NOT NULL, bytes bytea NOT NULL, commit_id bigint NOT NULL,
    PRIMARY KEY (tenant, session, position)
);

-- One row per log, changed by every append. No index covers what changes, and pages keep room, so that a change stays on its
-- page (heap-only tuples) and touches no index.
CREATE TABLE public.heads (
    tenant text COLLATE "C" NOT NULL, session text COLLATE "C" NOT NULL,
    position bigint NOT NULL, hash bytea NOT NULL, epoch bigint NOT NULL,
    -- The worker that drives it; one that is not in `workers` is dead.
    holder bigint,
    -- Whether nothing may be appended; why is in `quarantine`.
    quarantined boolean NOT NULL DEFAULT false,
    -- How often its contents were erased: what was sealed before must not be stored after.
    erasures bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant, session)
) WITH (fillfactor = 70);

CREATE TABLE public.contents (
    tenant text COLLATE "C" NOT NULL, session text COLLATE "C" NOT NULL, id text COLLATE "C" NOT NULL,
    form smallint NOT NULL, item_key bytea, body bytea NOT NULL,
    PRIMARY KEY (tenant, session, id)
);
-- Sealed bytes do not compress.
ALTER TABLE public.contents ALTER COLUMN body SET STORAGE EXTERNAL;

CREATE TABLE public.data_keys (
    tenant text COLLATE "C" NOT NULL, session text COLLATE "C" NOT NULL, wrapped bytea NOT NULL,
    PRIMARY KEY (tenant, session)
);

CREATE TABLE public.idempotency (
    tenant text COLLATE "C" NOT NULL, key bytea NOT NULL, body bytea NOT NULL,
    session text COLLATE "C" NOT NULL, run text COLLATE "C" NOT NULL, position bigint NOT NULL, expires_ms bigint NOT NULL,
    PRIMARY KEY (tenant, key)
);
CREATE INDEX idempotency_by_expiry ON public.idempotency (expires_ms);

CREATE TABLE public.session_index (
    tenant text COLLATE "C" NOT NULL, session text COLLATE "C" NOT NULL,
    created_ms bigint NOT NULL, updated_ms bigint NOT NULL,
    runs bigint NOT NULL, last_run text COLLATE "C" NOT NULL, agent text NOT NULL, principal text COLLATE "C" NOT NULL,
    PRIMARY KEY (tenant, session)
);
CREATE INDEX sessions_by_age ON public.session_index (tenant, created_ms, session);

CREATE TABLE public.run_index (
    tenant text COLLATE "C" NOT NULL, run text COLLATE "C" NOT NULL, session text COLLATE "C" NOT NULL,
    agent text NOT NULL, principal text COLLATE "C" NOT NULL, status text NOT NULL,
    created_ms bigint NOT NULL, updated_ms bigint NOT NULL, finished_ms bigint,
    submitted_position bigint NOT NULL, finished_position bigint,
    turns bigint NOT NULL DEFAULT 0, tool_calls bigint NOT NULL DEFAULT 0,
    model_calls bigint NOT NULL DEFAULT 0, input_tokens bigint NOT NULL DEFAULT 0, cached_tokens bigint NOT NULL DEFAULT 0,
    output_tokens bigint NOT NULL DEFAULT 0, reasoning_tokens bigint NOT NULL DEFAULT 0,
    cost_micro_usd bigint NOT NULL DEFAULT 0, cost_listed boolean NOT NULL DEFAULT true,
    used_sandbox boolean NOT NULL DEFAULT false,
    PRIMARY KEY (tenant, run)
);
CREATE INDEX runs_by_session ON public.run_index (tenant, session, run);
CREATE INDEX runs_open ON public.run_index (tenant, session, submitted_position) WHERE finished_ms IS NULL;

CREATE TABLE public.artifact_index (
    tenant text COLLATE "C" NOT NULL, artifact text COLLATE "C" NOT NULL, run text COLLATE "C" NOT NULL,
    session text COLLATE "C" NOT NULL, position bigint NOT NULL, name text NOT NULL, media text NOT NULL,
    bytes bigint NOT NULL, object text NOT NULL, created_ms bigint NOT NULL,
    PRIMARY KEY (tenant, artifact)
);
CREATE INDEX artifacts_by_run ON public.artifact_index (tenant, run, position);

CREATE TABLE public.checkpoint_index (
    tenant text COLLATE "C" NOT NULL, session text COLLATE "C" NOT NULL, position bigint NOT NULL,
    checkpoint text COLLATE "C" NOT NULL, object text NOT NULL,
    PRIMARY KEY (tenant, session, position)
);
CREATE INDEX checkpoints_by_object ON public.checkpoint_index (tenant, object);

CREATE TABLE public.due (
    tenant text COLLATE "C" NOT NULL, session text COLLATE "C" NOT NULL, run text COLLATE "C" NOT NULL,
    kind text COLLATE "C" NOT NULL, at_ms bigint NOT NULL,
    PRIMARY KEY (tenant, session, run, kind)
);
CREATE INDEX due_by_time ON public.due (at_ms);

-- Sessions in which there is, or at `at_ms` will be, something to do. `position`: up to where the inputs go that made it so.
CREATE TABLE public.ready (
    tenant text COLLATE "C" NOT NULL, session text COLLATE "C" NOT NULL, at_ms bigint NOT NULL, position bigint NOT NULL,
    PRIMARY KEY (tenant, session)
) WITH (fillfactor = 70);
CREATE INDEX ready_by_time ON public.ready (tenant, at_ms, session);

-- A row is deleted when its lease is over, and its number is never given again: that is what makes a takeover final.
CREATE TABLE public.workers (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL, lease_ms bigint NOT NULL, joined_ms bigint NOT NULL, until_ms bigint NOT NULL
) WITH (fillfactor = 50);

-- What is left of sessions that were deleted.
CREATE TABLE public.tombstones (
    tenant text COLLATE "C" NOT NULL, session text COLLATE "C" NOT NULL, epoch bigint NOT NULL,
    purged_ms bigint NOT NULL, principal text COLLATE "C" NOT NULL, records bigint NOT NULL, head_hash bytea NOT NULL,
    PRIMARY KEY (tenant, session, epoch)
);

CREATE TABLE public.quarantine (
    tenant text COLLATE "C" NOT NULL, session text COLLATE "C" NOT NULL,
    since_ms bigint NOT NULL, principal text COLLATE "C" NOT NULL, reason text NOT NULL,
    PRIMARY KEY (tenant, session)
);

-- Objects that nothing points to any more and that are still to be deleted.
CREATE TABLE public.garbage (object text COLLATE "C" PRIMARY KEY);

-- For people and their tools. No record holds content, so neither do these.

CREATE VIEW public.sessions AS
SELECT s.tenant, s.session, s.created_ms, s.updated_ms, s.runs, s.last_run, s.agent, s.principal,
       h.position AS next_position, encode(h.hash, 'hex') AS head_hash, h.epoch, q.reason AS quarantined
FROM public.session_index AS s
JOIN public.heads AS h ON h.tenant = s.tenant AND h.session = s.session
LEFT JOIN public.quarantine AS q ON q.tenant = s.tenant AND q.session = s.session;

CREATE VIEW public.runs AS
SELECT tenant, run, session, agent, principal,
       CASE WHEN finished_ms IS NULL AND EXISTS (
           SELECT 1 FROM public.run_index AS earlier WHERE earlier.tenant = r.tenant AND earlier.session = r.session
           AND earlier.submitted_position < r.submitted_position AND earlier.finished_ms IS NULL
       ) THEN 'queued' ELSE status END AS status,
       created_ms, updated_ms, finished_ms, submitted_position, finished_position, turns, tool_calls, model_calls,
       input_tokens, cached_tokens, output_tokens, reasoning_tokens, cost_micro_usd, cost_listed, used_sandbox
FROM public.run_index AS r;

CREATE VIEW public.artifacts AS
SELECT tenant, artifact, run, session, position, name, media, bytes, object, created_ms FROM public.artifact_index;

-- What a run did and how long it took, in order. By run, it reads that run's stretch of its log only.
CREATE VIEW public.traces AS
SELECT r.tenant, r.session, l.position, r.run, (read.record ->> 'at_ms')::bigint AS at_ms, read.record ->> 'kind' AS kind,
       read.record -> 'body' ->> 'call' AS call, (read.record -> 'body' ->> 'turn')::bigint AS turn,
       read.record -> 'body' ->> 'status' AS status, (read.record -> 'body' ->> 'duration_ms')::bigint AS duration_ms
FROM public.run_index AS r
JOIN public.records AS l ON l.tenant = r.tenant AND l.session = r.session AND l.position >= r.submitted_position
    AND l.position <= coalesce(r.finished_position, l.position)
CROSS JOIN LATERAL (SELECT convert_from(l.bytes, 'UTF8')::jsonb AS record) AS read
WHERE read.record -> 'body' ->> 'run' = r.run;

-- Every record: who, what, when, with its hash and the one that it links to.
CREATE VIEW public.audit_log AS
SELECT l.tenant, l.session, l.position, (read.record ->> 'at_ms')::bigint AS at_ms,
       read.record ->> 'principal' AS principal, read.record ->> 'kind' AS kind, read.record -> 'body' ->> 'run' AS run,
       encode(l.hash, 'hex') AS hash, read.record ->> 'previous' AS previous, l.commit_id, read.record AS record
FROM public.records AS l
CROSS JOIN LATERAL (SELECT convert_from(l.bytes, 'UTF8')::jsonb AS record) AS read;
