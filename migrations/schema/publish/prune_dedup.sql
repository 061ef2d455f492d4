CREATE FUNCTION durable_notify.prune_dedup(max_keys integer DEFAULT 10000) RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
DECLARE
    pruned bigint;
BEGIN
    -- Delete dedup keys whose window is over, so many at most; returns how many. Keys that a
    -- transaction uses are skipped. Nothing but the table's size depends on it.
    DELETE FROM durable_notify.dedup d USING (
        SELECT o.topic, o.dedup_key FROM durable_notify.dedup o
         WHERE o.until <= pg_catalog.clock_timestamp() ORDER BY o.until LIMIT max_keys FOR UPDATE SKIP LOCKED) AS old
     WHERE d.topic = old.topic AND d.dedup_key = old.dedup_key;
    GET DIAGNOSTICS pruned = ROW_COUNT;
    RETURN pruned;
END
$function$;
