CREATE FUNCTION durable_notify.pause(group_name text) RETURNS void
LANGUAGE plpgsql
SET lock_timeout = '5s' SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
DECLARE
    changed integer;
BEGIN
    -- Hand out nothing more to a group until resume(). What is leased can be settled.
    IF NOT durable_notify.has_own_rights() THEN
        PERFORM durable_notify.pause_granted(group_name);
        RETURN;
    END IF;
    changed := durable_notify.group_lock(group_name);
    UPDATE durable_notify.consumer_group g SET paused_at = pg_catalog.clock_timestamp()
     WHERE g.id = changed AND g.paused_at IS NULL;
    PERFORM durable_notify.note_audit('pause', group_name);
END
$function$;
