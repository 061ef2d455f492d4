CREATE FUNCTION durable_notify.pause(group_name text) RETURNS void
LANGUAGE plpgsql AS $function$
#variable_conflict use_column
DECLARE
    changed integer := durable_notify.group_lock(group_name);
BEGIN
    -- Hand out nothing more to a group until resume(). What is leased can be settled.
    UPDATE durable_notify.consumer_group g SET paused_at = pg_catalog.clock_timestamp()
     WHERE g.id = changed AND g.paused_at IS NULL;
    PERFORM durable_notify.note_audit('pause', group_name);
END
$function$;
