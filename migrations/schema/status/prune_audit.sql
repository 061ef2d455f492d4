CREATE FUNCTION durable_notify.prune_audit(before timestamptz) RETURNS bigint
LANGUAGE plpgsql
SET lock_timeout = '1s' SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
DECLARE
    pruned bigint := 0;
    removed bigint;
BEGIN
    -- Delete what was recorded before a time, some 10,000 rows at most of each: the audit, losses, and
    -- replays that have ended; returns how many. NULL: nothing.
    DELETE FROM durable_notify.audit a WHERE a.id IN (
        SELECT o.id FROM durable_notify.audit o WHERE o.at < before ORDER BY o.id LIMIT 10000);
    GET DIAGNOSTICS removed = ROW_COUNT;
    pruned := pruned + removed;
    DELETE FROM durable_notify.lost_message l WHERE l.id IN (
        SELECT o.id FROM durable_notify.lost_message o WHERE o.at < before ORDER BY o.id LIMIT 10000);
    GET DIAGNOSTICS removed = ROW_COUNT;
    pruned := pruned + removed;
    DELETE FROM durable_notify.replay_job j WHERE j.ended_at < before;
    GET DIAGNOSTICS removed = ROW_COUNT;
    RETURN pruned + removed;
END
$function$;
