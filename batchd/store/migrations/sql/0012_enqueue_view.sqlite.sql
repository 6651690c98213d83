CREATE VIEW batchd_enqueue (
    name, params, queue, priority, at, delay_seconds, max_attempts, retry, timeout_seconds, unique_key,
    unique_period_seconds, tags, metadata
) AS SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL WHERE 0
