CREATE FUNCTION durable_notify.prune_inbox(before timestamptz, max_messages integer DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql
SET enable_seqscan = off SET jit = off
SET lock_timeout = '1s' SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
DECLARE
    pruned bigint;
BEGIN
    -- Delete what was done once before a time, so many at most (NULL: all); returns how many. A message
    -- that is redelivered after that counts as new. By the index: usually nothing is that old.
    DELETE FROM durable_notify.processed_message i WHERE i.ctid = ANY (ARRAY(
        SELECT o.ctid FROM durable_notify.processed_message o WHERE o.created_at < before LIMIT max_messages FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS pruned = ROW_COUNT;
    RETURN pruned;
END
$function$;
