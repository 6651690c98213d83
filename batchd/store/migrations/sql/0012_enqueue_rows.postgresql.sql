-- What each wanted run comes to: its job's settings, its own, and what is wrong with it (complaint), if anything is.
-- In PL/pgSQL, since that keeps the plan for the session: to make it costs far more than to enqueue one run.
CREATE OR REPLACE FUNCTION batchd_enqueue_rows(wanted jsonb)
RETURNS TABLE (
    place bigint, schedule_id text, kind text, queue text, priority integer, params jsonb, at timestamptz, delay float8,
    timeout_seconds float8, retry jsonb, max_attempts integer, unique_key text, unique_period float8, on_conflict text,
    tags jsonb, metadata jsonb, mutex text, limit_key text, complaint text
)
LANGUAGE plpgsql STABLE AS $batchd$
#variable_conflict use_column
BEGIN
RETURN QUERY
WITH given AS (
    SELECT
        g.*,
        CAST(s.id AS text) AS schedule_id,
        CAST(COALESCE(s.kind, g.kind, g.name) AS text) AS run_kind,
        CAST(COALESCE(g.queue, s.queue, 'default') AS text) AS run_queue,
        COALESCE(g.priority, s.priority, 0) AS run_priority,
        COALESCE(g.params, CAST('{}' AS jsonb)) AS own_params,
        COALESCE(s.params, CAST('{}' AS jsonb)) AS job_params,
        COALESCE(g.timeout, CASE WHEN s.id IS NULL THEN 3600 ELSE s.timeout_seconds END) AS run_timeout,
        COALESCE(s.retry, CAST(
            '{"backoff": "exponential", "delay_seconds": 10.0, "max_delay_seconds": 3600.0, "jitter": 0.1}' AS jsonb
        )) AS job_retry,
        COALESCE(g.max_attempts, s.max_attempts, 3) AS run_attempts,
        CAST(COALESCE(g.mutex, s.mutex) AS text) AS run_mutex,
        s.limit_key AS job_limit_key,
        c.params AS takes,
        c.name IS NOT NULL AS is_known_kind
    FROM ROWS FROM (jsonb_to_recordset(wanted) AS (
        name text, job text, kind text, params jsonb, queue text, priority integer, at timestamptz, delay float8,
        timeout float8, retry jsonb, max_attempts integer, unique_key text, unique_period float8, on_conflict text,
        tags jsonb, metadata jsonb, mutex text, limit_key text
    )) WITH ORDINALITY AS g (
        name, job, kind, params, queue, priority, at, delay,
        timeout, retry, max_attempts, unique_key, unique_period, on_conflict, tags, metadata,
        mutex, limit_key, place
    )
    LEFT JOIN batchd_schedules s ON s.id = COALESCE(g.job, g.name) AND g.kind IS NULL AND s.removed_at IS NULL
    LEFT JOIN batchd_catalog c ON c.sort = 'kind' AND c.name = COALESCE(s.kind, g.kind, g.name)
), known AS MATERIALIZED (
    SELECT
        EXISTS (SELECT FROM batchd_catalog WHERE sort = 'kind') AS kinds,
        EXISTS (SELECT FROM batchd_catalog WHERE sort = 'queue') AS queues
)
SELECT
    place, schedule_id, run_kind, run_queue, run_priority,
    CASE WHEN jsonb_typeof(own_params) = 'object' THEN job_params || own_params END,
    at, delay, run_timeout, job_retry || COALESCE(retry, CAST('{}' AS jsonb)), run_attempts,
    unique_key, unique_period, COALESCE(on_conflict, 'keep'), tags, metadata, run_mutex,
    -- The job's template, whose every second part is the name of a param, or a path into one.
    CASE WHEN limit_key IS NOT NULL OR job_limit_key IS NULL THEN limit_key ELSE (
        SELECT left(string_agg(
            CASE
                WHEN mod(n, 2) = 0 THEN COALESCE((job_params || own_params) #>> string_to_array(part, '.'), '')
                ELSE part
            END, '' ORDER BY n
        ), 200)
        FROM regexp_split_to_table(job_limit_key, '[{}]') WITH ORDINALITY AS parts (part, n)
    ) END,
    CASE
        WHEN COALESCE(job, kind, name) IS NULL THEN 'names neither a job nor a kind'
        WHEN schedule_id IS NULL AND job IS NOT NULL THEN 'there is no job ' || quote_literal(job)
        WHEN schedule_id IS NULL AND known.kinds AND NOT is_known_kind AND kind IS NOT NULL
            THEN 'there is no kind ' || quote_literal(kind)
        WHEN schedule_id IS NULL AND known.kinds AND NOT is_known_kind
            THEN 'there is no job and no kind ' || quote_literal(name)
        WHEN known.queues AND NOT EXISTS (SELECT FROM batchd_catalog q WHERE q.sort = 'queue' AND q.name = run_queue)
            THEN 'there is no queue ' || quote_literal(run_queue)
        WHEN jsonb_typeof(own_params) <> 'object' THEN 'params must be a JSON object'
        WHEN EXISTS (
            SELECT FROM jsonb_object_keys(own_params) AS key
            WHERE jsonb_typeof(takes->'known') = 'array' AND NOT takes->'known' ? key
        ) THEN (
            SELECT 'kind ' || quote_literal(run_kind) || ' takes no parameter ' || quote_literal(min(key)) || CASE
                WHEN takes->'known' ? 'arguments' THEN '; what its function takes goes into ''arguments'''
                ELSE ''
            END
            FROM jsonb_object_keys(own_params) AS key WHERE NOT takes->'known' ? key
        )
        WHEN EXISTS (SELECT FROM jsonb_object_keys(own_params) AS key WHERE takes->'secret' ? key) THEN (
            SELECT 'parameter ' || quote_literal(min(key)) || ' is a secret, and a run''s params are stored; '
                'set it in the config'
            FROM jsonb_object_keys(own_params) AS key WHERE takes->'secret' ? key
        )
        WHEN schedule_id IS NULL AND EXISTS (
            SELECT FROM jsonb_array_elements_text(takes->'required') AS needed WHERE NOT own_params ? needed
        ) THEN (
            SELECT 'kind ' || quote_literal(run_kind) || ' needs the parameter ' || quote_literal(min(needed))
            FROM jsonb_array_elements_text(takes->'required') AS needed WHERE NOT own_params ? needed
        )
        WHEN run_priority NOT BETWEEN -1000 AND 1000 THEN 'priority must be between -1000 and 1000'
        WHEN run_attempts NOT BETWEEN 1 AND 1000 THEN 'max_attempts must be between 1 and 1000'
        WHEN at IS NOT NULL AND delay IS NOT NULL THEN 'give either at or delay, not both'
        WHEN at >= '9000-01-01' THEN 'at is beyond the calendar'
        WHEN delay NOT BETWEEN 0 AND 315360000 THEN 'delay must not be negative, nor longer than 10 years'
        WHEN timeout <= 0 OR timeout > 315360000 THEN 'timeout must be longer than nothing, and not than 10 years'
        WHEN unique_key IS NOT NULL AND length(unique_key) NOT BETWEEN 1 AND 200
            THEN 'unique_key must have 1 to 200 characters'
        WHEN unique_key IS NULL AND (unique_period IS NOT NULL OR on_conflict IS NOT NULL)
            THEN 'unique_period and on_conflict need a unique_key'
        WHEN unique_period <= 0 OR unique_period > 315360000
            THEN 'unique_period must be longer than nothing, and not than 10 years'
        WHEN on_conflict NOT IN ('keep', 'replace') THEN 'on_conflict must be keep or replace'
        WHEN retry->>'backoff' NOT IN ('exponential', 'linear', 'fixed')
            THEN 'backoff must be exponential, linear or fixed'
        WHEN CAST(retry->>'delay_seconds' AS float8) < 0 OR CAST(retry->>'max_delay_seconds' AS float8) < 0
            THEN 'retry_delay and max_retry_delay must not be negative'
        WHEN CAST(retry->>'jitter' AS float8) NOT BETWEEN 0 AND 1 THEN 'jitter must be between 0 and 1'
        WHEN tags IS NOT NULL AND (
            jsonb_typeof(tags) <> 'array' OR jsonb_path_exists(tags, '$[*] ? (@.type() <> "string")')
        ) THEN 'tags must be a list of texts'
        WHEN metadata IS NOT NULL AND jsonb_typeof(metadata) <> 'object' THEN 'metadata must be a JSON object'
    END
FROM given CROSS JOIN known;
END
$batchd$
