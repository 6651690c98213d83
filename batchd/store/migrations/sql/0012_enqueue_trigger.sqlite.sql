CREATE TRIGGER batchd_enqueue_insert INSTEAD OF INSERT ON batchd_enqueue
BEGIN
    SELECT CASE
        WHEN NEW.name IS NULL THEN RAISE(ABORT, 'batchd_enqueue: name is missing: a job or a kind')
        WHEN NOT EXISTS (SELECT 1 FROM batchd_schedules WHERE id = NEW.name AND removed_at IS NULL)
            AND EXISTS (SELECT 1 FROM batchd_catalog WHERE sort = 'kind')
            AND NOT EXISTS (SELECT 1 FROM batchd_catalog WHERE sort = 'kind' AND name = NEW.name)
            THEN RAISE(ABORT, 'batchd_enqueue: there is no job and no kind of that name')
        WHEN NEW.queue IS NOT NULL
            AND EXISTS (SELECT 1 FROM batchd_catalog WHERE sort = 'queue')
            AND NOT EXISTS (SELECT 1 FROM batchd_catalog WHERE sort = 'queue' AND name = NEW.queue)
            THEN RAISE(ABORT, 'batchd_enqueue: there is no queue of that name')
        WHEN NOT json_valid(coalesce(NEW.params, '{}')) OR json_type(coalesce(NEW.params, '{}')) <> 'object'
            THEN RAISE(ABORT, 'batchd_enqueue: params must be a JSON object')
        WHEN NEW.retry IS NOT NULL AND (NOT json_valid(NEW.retry) OR json_type(NEW.retry) <> 'object')
            THEN RAISE(ABORT, 'batchd_enqueue: retry must be a JSON object')
        WHEN NEW.tags IS NOT NULL AND (NOT json_valid(NEW.tags) OR json_type(NEW.tags) <> 'array')
            THEN RAISE(ABORT, 'batchd_enqueue: tags must be a JSON list of texts')
        WHEN NEW.metadata IS NOT NULL AND (NOT json_valid(NEW.metadata) OR json_type(NEW.metadata) <> 'object')
            THEN RAISE(ABORT, 'batchd_enqueue: metadata must be a JSON object')
        WHEN NEW.at IS NOT NULL AND (strftime('%s', NEW.at) IS NULL OR NEW.delay_seconds IS NOT NULL)
            THEN RAISE(ABORT, 'batchd_enqueue: at must be a moment in UTC, and not beside delay_seconds')
        WHEN NOT coalesce(NEW.priority, 0) BETWEEN -1000 AND 1000
            THEN RAISE(ABORT, 'batchd_enqueue: priority must be between -1000 and 1000')
        WHEN NOT coalesce(NEW.max_attempts, 1) BETWEEN 1 AND 1000
            THEN RAISE(ABORT, 'batchd_enqueue: max_attempts must be between 1 and 1000')
        WHEN coalesce(NEW.delay_seconds, 0) < 0 OR coalesce(NEW.timeout_seconds, 1) <= 0
            THEN RAISE(ABORT, 'batchd_enqueue: delay_seconds and timeout_seconds must be positive')
        WHEN NOT length(coalesce(NEW.unique_key, 'x')) BETWEEN 1 AND 200
            THEN RAISE(ABORT, 'batchd_enqueue: unique_key must have 1 to 200 characters')
        WHEN NEW.unique_key IS NULL AND NEW.unique_period_seconds IS NOT NULL
            THEN RAISE(ABORT, 'batchd_enqueue: unique_period_seconds needs a unique_key')
    END;
    SELECT RAISE(ABORT, 'batchd_enqueue: the kind does not take one of the params, needs another, or keeps it secret')
    FROM batchd_catalog AS c
    LEFT JOIN batchd_schedules AS s ON s.id = NEW.name AND s.removed_at IS NULL
    WHERE c.sort = 'kind' AND c.name = coalesce(s.kind, NEW.name) AND (
        EXISTS (
            SELECT 1 FROM json_each(coalesce(NEW.params, '{}')) AS p
            WHERE json_type(c.params, '$.known') = 'array'
                AND p.key NOT IN (SELECT value FROM json_each(c.params, '$.known'))
        )
        OR EXISTS (
            SELECT 1 FROM json_each(coalesce(NEW.params, '{}')) AS p
            WHERE p.key IN (SELECT value FROM json_each(c.params, '$.secret'))
        )
        OR s.id IS NULL AND EXISTS (
            SELECT 1 FROM json_each(c.params, '$.required') AS r
            WHERE r.value NOT IN (SELECT key FROM json_each(coalesce(NEW.params, '{}')))
        )
    );
    INSERT INTO batchd_runs (
        schedule_id, kind, queue, priority, params, available_at, timeout_seconds, retry, state, max_attempts,
        created_at, created_by, unique_key, tags, metadata, mutex, limit_key
    )
    SELECT
        s.id, coalesce(s.kind, NEW.name), coalesce(NEW.queue, s.queue, 'default'),
        coalesce(NEW.priority, s.priority, 0),
        -- The job's params with those of the row in their place; json_each tells booleans and texts apart by type.
        (
            SELECT json_group_object(merged.key, json(CASE merged.type
                WHEN 'true' THEN 'true' WHEN 'false' THEN 'false' WHEN 'null' THEN 'null'
                WHEN 'object' THEN merged.value WHEN 'array' THEN merged.value
                ELSE json_quote(merged.value) END))
            FROM (
                SELECT key, value, type FROM json_each(coalesce(s.params, '{}'))
                WHERE key NOT IN (SELECT key FROM json_each(coalesce(NEW.params, '{}')))
                UNION ALL SELECT key, value, type FROM json_each(coalesce(NEW.params, '{}'))
            ) AS merged
        ),
        CASE
            WHEN NEW.at IS NULL
            THEN strftime('%Y-%m-%dT%H:%M:%f', 'now', coalesce(NEW.delay_seconds, 0) || ' seconds') || '000Z'
            ELSE strftime('%Y-%m-%dT%H:%M:%f', NEW.at) || '000Z'
        END,
        coalesce(NEW.timeout_seconds, CASE WHEN s.id IS NULL THEN 3600.0 ELSE s.timeout_seconds END),
        json_patch(
            coalesce(s.retry, '{"backoff": "exponential", "delay_seconds": 10.0, "max_delay_seconds": 3600.0, "jitter": 0.1}'),
            coalesce(NEW.retry, '{}')
        ),
        'queued', coalesce(NEW.max_attempts, s.max_attempts, 3), strftime('%Y-%m-%dT%H:%M:%f', 'now') || '000Z', 'sql',
        NEW.unique_key, NEW.tags, NEW.metadata, s.mutex,
        -- The job's template, with each {param}, or {path.into.one}, filled in from the left.
        (
            WITH RECURSIVE fill (done, rest) AS (
                SELECT '', s.limit_key
                UNION ALL
                SELECT
                    done || substr(rest, 1, instr(rest, '{') - 1) || coalesce(
                        json_extract(
                            (
                                SELECT json_group_object(key, json(CASE type
                                    WHEN 'object' THEN value WHEN 'array' THEN value ELSE json_quote(value) END))
                                FROM (
                                    SELECT key, value, type FROM json_each(coalesce(s.params, '{}'))
                                    WHERE key NOT IN (SELECT key FROM json_each(coalesce(NEW.params, '{}')))
                                    UNION ALL SELECT key, value, type FROM json_each(coalesce(NEW.params, '{}'))
                                )
                            ),
                            '$."' || replace(
                                substr(rest, instr(rest, '{') + 1, instr(rest, '}') - instr(rest, '{') - 1), '.', '"."'
                            ) || '"'
                        ),
                        ''
                    ),
                    substr(rest, instr(rest, '}') + 1)
                FROM fill WHERE instr(rest, '{') > 0
            )
            SELECT substr(done || rest, 1, 200) FROM fill WHERE instr(rest, '{') = 0
        )
    FROM (SELECT 1) LEFT JOIN batchd_schedules AS s ON s.id = NEW.name AND s.removed_at IS NULL
    WHERE NEW.unique_key IS NULL OR NOT EXISTS (
        SELECT 1 FROM batchd_runs AS run
        WHERE run.unique_key = NEW.unique_key AND run.state IN ('queued', 'running')
    ) AND NOT EXISTS (
        SELECT 1 FROM batchd_runs AS run
        WHERE run.unique_key = NEW.unique_key AND run.state = 'succeeded' AND run.created_at
            > strftime('%Y-%m-%dT%H:%M:%f', 'now', -coalesce(NEW.unique_period_seconds, 0) || ' seconds') || '000Z'
    );
END
