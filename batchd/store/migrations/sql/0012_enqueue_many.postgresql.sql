-- Queues the runs of a JSON list in the caller's transaction. One row for each: its id, and whether it is queued now,
-- or an earlier run of its unique key was kept or replaced. Where anything is wrong, only rows with a complaint.
CREATE OR REPLACE FUNCTION batchd_enqueue_many(wanted jsonb, created_by text DEFAULT 'sql')
RETURNS TABLE (place bigint, run_id bigint, outcome text, complaint text)
LANGUAGE plpgsql AS $batchd$
#variable_conflict use_column
DECLARE
    asked_by text := created_by;
    wants record;
    found_id bigint;
    came_to text;
    bad_places bigint[];
    complaints text[];
    places bigint[];
    ids bigint[];
    has_keys boolean;
    lock_class constant integer := 1651794792;
BEGIN
    -- One pass over the list, for it may be long: either the complaints, or the runs without a unique key.
    WITH rows AS MATERIALIZED (
        SELECT r.* FROM batchd_enqueue_rows(wanted) AS r
    ), bad AS MATERIALIZED (
        SELECT rows.place, rows.complaint FROM rows WHERE rows.complaint IS NOT NULL ORDER BY rows.place LIMIT 20
    ), added AS (
        INSERT INTO batchd_runs AS run (
            schedule_id, kind, queue, priority, params, available_at, timeout_seconds, retry, state,
            max_attempts, created_at, created_by, tags, metadata, mutex, limit_key
        )
        SELECT
            schedule_id, kind, queue, priority, params,
            COALESCE(at, clock_timestamp() + make_interval(secs => COALESCE(delay, 0))),
            timeout_seconds, retry, 'queued', max_attempts, clock_timestamp(), asked_by, tags, metadata,
            mutex, limit_key
        FROM rows WHERE unique_key IS NULL AND NOT EXISTS (SELECT FROM bad) ORDER BY place
        RETURNING run.id
    )
    SELECT
        (SELECT array_agg(bad.place ORDER BY bad.place) FROM bad),
        (SELECT array_agg(bad.complaint ORDER BY bad.place) FROM bad),
        (SELECT array_agg(rows.place ORDER BY rows.place) FROM rows WHERE rows.unique_key IS NULL),
        (SELECT array_agg(added.id ORDER BY added.id) FROM added),
        EXISTS (SELECT FROM rows WHERE rows.unique_key IS NOT NULL)
    INTO bad_places, complaints, places, ids, has_keys;
    IF bad_places IS NOT NULL THEN
        RETURN QUERY SELECT u.place, CAST(NULL AS bigint), CAST(NULL AS text), u.complaint
            FROM unnest(bad_places, complaints) AS u (place, complaint);
        RETURN;
    END IF;
    -- Side by side, not joined: a planner that expects a hundred rows would compare each with each.
    RETURN QUERY SELECT u.place, u.id, 'queued', CAST(NULL AS text) FROM unnest(places, ids) AS u (place, id);
    PERFORM pg_notify('batchd_runs', '');
    IF NOT has_keys THEN
        RETURN;
    END IF;

    -- Two periods of one key must not be looked at side by side. So many keys that their locks would not fit into the
    -- server's lock table share one lock with everybody's.
    IF (SELECT count(*) > 1000 FROM jsonb_array_elements(wanted) AS w WHERE w ? 'unique_period') THEN
        PERFORM pg_advisory_xact_lock(lock_class, 0);
    ELSIF (SELECT bool_or(w ? 'unique_period') FROM jsonb_array_elements(wanted) AS w) THEN
        PERFORM pg_advisory_xact_lock_shared(lock_class, 0);
        PERFORM pg_advisory_xact_lock(lock_class, key) FROM (
            SELECT DISTINCT greatest(hashtext(w->>'unique_key') & 2147483647, 1) AS key
            FROM jsonb_array_elements(wanted) AS w WHERE w ? 'unique_period' ORDER BY key
        ) AS keys;
    END IF;

    FOR wants IN
        SELECT r.* FROM batchd_enqueue_rows(wanted) AS r
        WHERE r.unique_key IS NOT NULL ORDER BY r.unique_key, r.place
    LOOP
        FOR turn IN 1..100 LOOP
            -- Both in one look: a run that is just succeeding is either unfinished or succeeded, never neither.
            SELECT run.id, 'kept' INTO found_id, came_to FROM batchd_runs AS run
            WHERE run.unique_key = wants.unique_key AND run.state IN ('queued', 'running')
            UNION ALL
            SELECT run.id, 'kept' FROM batchd_runs AS run
            WHERE run.unique_key = wants.unique_key AND run.state = 'succeeded'
                AND run.created_at > clock_timestamp() - make_interval(secs => wants.unique_period)
            LIMIT 1;
            IF found_id IS NULL THEN
                INSERT INTO batchd_runs AS run (
                    schedule_id, kind, queue, priority, params, available_at, timeout_seconds, retry, state,
                    max_attempts, created_at, created_by, unique_key, tags, metadata, mutex, limit_key
                )
                VALUES (
                    wants.schedule_id, wants.kind, wants.queue, wants.priority, wants.params,
                    COALESCE(wants.at, clock_timestamp() + make_interval(secs => COALESCE(wants.delay, 0))),
                    wants.timeout_seconds, wants.retry, 'queued', wants.max_attempts, clock_timestamp(), asked_by,
                    wants.unique_key, wants.tags, wants.metadata, wants.mutex, wants.limit_key
                )
                ON CONFLICT (unique_key) WHERE state IN ('queued', 'running') AND unique_key IS NOT NULL DO NOTHING
                RETURNING run.id, 'queued' INTO found_id, came_to;
            ELSIF wants.on_conflict = 'replace' THEN
                UPDATE batchd_runs AS run SET
                    queue = wants.queue, priority = wants.priority, params = wants.params,
                    available_at = COALESCE(wants.at, clock_timestamp() + make_interval(secs => COALESCE(wants.delay, 0))),
                    timeout_seconds = wants.timeout_seconds, retry = wants.retry, max_attempts = wants.max_attempts,
                    tags = wants.tags, metadata = wants.metadata, mutex = wants.mutex, limit_key = wants.limit_key,
                    waits_for = NULL
                WHERE run.id = found_id AND run.state = 'queued' AND run.fence = 0
                    AND run.kind = wants.kind AND run.schedule_id IS NOT DISTINCT FROM wants.schedule_id;
                IF FOUND THEN
                    came_to := 'replaced';
                END IF;
            END IF;
            EXIT WHEN found_id IS NOT NULL;
        END LOOP;
        IF found_id IS NULL THEN
            RAISE EXCEPTION USING ERRCODE = '40001',
                MESSAGE = 'batchd: runs of the unique key ' || quote_literal(wants.unique_key) || ' come and go too fast';
        END IF;
        place := wants.place;
        run_id := found_id;
        outcome := came_to;
        complaint := NULL;
        RETURN NEXT;
    END LOOP;
END
$batchd$
