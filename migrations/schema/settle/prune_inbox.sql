CREATE FUNCTION durable_notify.prune_inbox(before timestamptz) RETURNS bigint
LANGUAGE plpgsql
SET lock_timeout = '1s' SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
DECLARE
    pruned bigint;
BEGIN
    -- Delete what was done once before a time; returns how many. A message that is redelivered after
    -- that counts as new.
    DELETE FROM durable_notify.processed_message i WHERE i.created_at < before;
    GET DIAGNOSTICS pruned = ROW_COUNT;
    RETURN pruned;
END
$function$;
