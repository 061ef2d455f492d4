CREATE FUNCTION durable_notify.resume(group_name text) RETURNS void
LANGUAGE plpgsql
SET lock_timeout = '5s' SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
DECLARE
    changed integer;
BEGIN
    -- Deliver messages to a paused group again, from where it was; it has lost nothing meanwhile.
    IF NOT durable_notify._is_owner() THEN
        PERFORM durable_notify._resume_granted(group_name);
        RETURN;
    END IF;
    changed := durable_notify._lock_group(group_name);
    UPDATE durable_notify.consumer_group g SET paused_at = NULL
     WHERE g.id = changed AND g.paused_at IS NOT NULL;
    PERFORM durable_notify._record_audit('resume', group_name);
    PERFORM durable_notify._ring_group(changed);
END
$function$;
