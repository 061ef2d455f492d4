CREATE FUNCTION durable_notify.remove_rows(topic text, most integer DEFAULT 1000) RETURNS bigint
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET jit = off SET lock_timeout = '1s'
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
DECLARE
    below bigint;
    removed bigint;
BEGIN
    -- Remove the next messages of a topic that may go; returns how many.
    IF (durable_notify.retention_of(topic)).pattern IS NULL OR NOT durable_notify.hold_removing() THEN
        RETURN 0;
    END IF;
    below := durable_notify.removable_below(topic);
    DELETE FROM durable_notify.outbox o USING (
        SELECT x.id FROM durable_notify.outbox x
         WHERE x.topic = remove_rows.topic AND x.id < below ORDER BY x.id LIMIT most) AS old
     WHERE o.topic = remove_rows.topic AND o.id = old.id;
    GET DIAGNOSTICS removed = ROW_COUNT;
    RETURN removed;
END
$function$;
