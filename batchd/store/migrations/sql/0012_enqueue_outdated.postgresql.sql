-- The first batchd_enqueue_rows returned fewer columns, which CREATE OR REPLACE cannot change. Nobody but the others calls it.
DO $batchd$
BEGIN
    IF pg_get_function_result(to_regprocedure('batchd_enqueue_rows(jsonb)')) NOT LIKE '%, limit_key text,%' THEN
        DROP FUNCTION batchd_enqueue_rows(jsonb);
    END IF;
END
$batchd$
