-- The functions find batchd's tables whatever the caller's search_path is.
DO $batchd$
DECLARE
    home text := (SELECT quote_ident(nspname) FROM pg_namespace
        WHERE oid = (SELECT relnamespace FROM pg_class WHERE oid = CAST('batchd_runs' AS regclass)));
    named text;
BEGIN
    FOREACH named IN ARRAY ARRAY[
        'batchd_enqueue_many(jsonb, text)',
        'batchd_enqueue(text, jsonb, text, integer, timestamptz, interval, integer, text, interval, interval, float8, '
        'interval, text, interval, text, text[], jsonb)'
    ] LOOP
        EXECUTE 'ALTER FUNCTION ' || named || ' SET search_path = ' || home || ', pg_temp';
    END LOOP;
END
$batchd$
