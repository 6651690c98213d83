-- Queues one run in the caller's transaction and returns its id, or that of the run of its unique key that is kept.
CREATE OR REPLACE FUNCTION batchd_enqueue(
    name text,
    params jsonb DEFAULT '{}',
    queue text DEFAULT NULL,
    priority integer DEFAULT NULL,
    at timestamptz DEFAULT NULL,
    delay interval DEFAULT NULL,
    max_attempts integer DEFAULT NULL,
    backoff text DEFAULT NULL,
    retry_delay interval DEFAULT NULL,
    max_retry_delay interval DEFAULT NULL,
    jitter float8 DEFAULT NULL,
    timeout interval DEFAULT NULL,
    unique_key text DEFAULT NULL,
    unique_period interval DEFAULT NULL,
    on_conflict text DEFAULT NULL,
    tags text[] DEFAULT NULL,
    metadata jsonb DEFAULT NULL
)
RETURNS bigint
LANGUAGE plpgsql AS $batchd$
DECLARE
    own_retry jsonb := jsonb_strip_nulls(jsonb_build_object(
        'backoff', backoff,
        'delay_seconds', extract(epoch FROM retry_delay),
        'max_delay_seconds', extract(epoch FROM max_retry_delay),
        'jitter', jitter
    ));
    wanted jsonb := jsonb_strip_nulls(jsonb_build_object(
        'name', name,
        'queue', queue,
        'priority', priority,
        'at', at,
        'delay', extract(epoch FROM delay),
        'max_attempts', max_attempts,
        'timeout', extract(epoch FROM timeout),
        'unique_key', unique_key,
        'unique_period', extract(epoch FROM unique_period),
        'on_conflict', on_conflict,
        'tags', to_jsonb(tags)
    ));
    came_to record;
BEGIN
    wanted := wanted || jsonb_build_object('params', COALESCE(params, CAST('{}' AS jsonb)), 'retry', own_retry);
    IF metadata IS NOT NULL THEN
        wanted := wanted || jsonb_build_object('metadata', metadata);
    END IF;
    SELECT * INTO STRICT came_to FROM batchd_enqueue_many(jsonb_build_array(wanted));
    IF came_to.complaint IS NOT NULL THEN
        RAISE EXCEPTION USING
            ERRCODE = 'invalid_parameter_value',
            MESSAGE = 'batchd_enqueue: ' || came_to.complaint,
            HINT = 'SELECT id, kind, queue FROM batchd_schedules; SELECT sort, name, params FROM batchd_catalog;';
    END IF;
    RETURN came_to.run_id;
END
$batchd$
