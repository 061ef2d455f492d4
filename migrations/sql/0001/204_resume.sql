CREATE FUNCTION durable_notify.resume(group_name text) RETURNS void
LANGUAGE plpgsql AS $function$
#variable_conflict use_column
DECLARE
    changed integer := durable_notify.group_lock(group_name);
BEGIN
    -- Hand out messages to a paused group again: where it was, with nothing lost meanwhile.
    UPDATE durable_notify.consumer_group g SET paused_at = NULL
     WHERE g.id = changed AND g.paused_at IS NOT NULL;
    PERFORM durable_notify.note_audit('resume', group_name);
    PERFORM durable_notify.ring_group(changed);
END
$function$;
