CREATE FUNCTION durable_notify.pause(group_name text) RETURNS void
LANGUAGE plpgsql
SET lock_timeout = '5s' SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
DECLARE
    changed integer;
BEGIN
    -- Deliver nothing more to a group until resume(). What is leased can be settled.
    IF NOT durable_notify._is_owner() THEN
        PERFORM durable_notify._pause_granted(group_name);
        RETURN;
    END IF;
    changed := durable_notify._lock_group(group_name);
    UPDATE durable_notify.consumer_group g SET paused_at = pg_catalog.clock_timestamp()
     WHERE g.id = changed AND g.paused_at IS NULL;
    PERFORM durable_notify._record_audit('pause', group_name);
END
$function$;
