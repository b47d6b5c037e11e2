-- What waits for somebody outside: calls for approval, and what is to be told to others.

ALTER TABLE public.run_index ADD COLUMN waits_for text;
ALTER TABLE public.run_index ADD COLUMN waits_until_ms bigint;

CREATE TABLE public.held_index (
    tenant text COLLATE "C" NOT NULL, call text COLLATE "C" NOT NULL, run text COLLATE "C" NOT NULL,
    session text COLLATE "C" NOT NULL, since_ms bigint NOT NULL, expires_ms bigint NOT NULL, is_open boolean NOT NULL,
    PRIMARY KEY (tenant, call)
);
CREATE INDEX held_open ON public.held_index (tenant, since_ms, call) WHERE is_open;
CREATE INDEX held_by_run ON public.held_index (tenant, run) WHERE is_open;
CREATE INDEX held_by_session ON public.held_index (tenant, session);

-- Runs of which others are told. Not made anew from the records, and neither is what was told of them.
CREATE TABLE public.announced (
    tenant text COLLATE "C" NOT NULL, session text COLLATE "C" NOT NULL, run text COLLATE "C" NOT NULL,
    PRIMARY KEY (tenant, session, run)
);

CREATE TABLE public.outbox (
    tenant text COLLATE "C" NOT NULL, session text COLLATE "C" NOT NULL, position bigint NOT NULL,
    target text COLLATE "C" NOT NULL, run text COLLATE "C" NOT NULL, kind text NOT NULL, at_ms bigint NOT NULL,
    state text NOT NULL, next_ms bigint, version bigint NOT NULL,
    PRIMARY KEY (tenant, session, position, target)
);
CREATE INDEX outbox_by_time ON public.outbox (next_ms) WHERE next_ms IS NOT NULL;
CREATE INDEX outbox_by_run ON public.outbox (tenant, run);

CREATE OR REPLACE VIEW public.runs AS
SELECT tenant, run, session, agent, principal,
       CASE WHEN finished_ms IS NULL AND EXISTS (
           SELECT 1 FROM public.run_index AS earlier WHERE earlier.tenant = r.tenant AND earlier.session = r.session
           AND earlier.submitted_position < r.submitted_position AND earlier.finished_ms IS NULL
       ) THEN 'queued' ELSE status END AS status,
       created_ms, updated_ms, finished_ms, submitted_position, finished_position, turns, tool_calls, model_calls,
       input_tokens, cached_tokens, output_tokens, reasoning_tokens, cost_micro_usd, cost_listed, used_sandbox,
       waits_for, waits_until_ms
FROM public.run_index AS r;
