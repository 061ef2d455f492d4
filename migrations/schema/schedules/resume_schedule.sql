CREATE FUNCTION durable_notify.resume_schedule(name text, next_at timestamptz) RETURNS void
LANGUAGE plpgsql
SET lock_timeout = '5s' SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_variable
BEGIN
    -- Continue a paused schedule with a tick: the first that is later than now, unless what was missed in
    -- the pause is to be made up for.
    IF NOT durable_notify._is_owner() THEN
        PERFORM durable_notify._resume_schedule_granted(name, next_at);
        RETURN;
    END IF;
    UPDATE durable_notify.schedule s
       SET paused_at = NULL, next_at = CASE WHEN s.paused_at IS NULL THEN s.next_at ELSE GREATEST(s.next_at, resume_schedule.next_at) END
     WHERE s.name = name;
    IF NOT FOUND THEN
        PERFORM durable_notify._raise_no_schedule(name);
    END IF;
    PERFORM durable_notify._record_audit('resume schedule', '', pg_catalog.jsonb_build_object('schedule', name));
END
$function$;

CALL durable_notify._grantable('resume_schedule', '{publish}', $$_require('publish', durable_notify._topic_of_schedule(name))$$);
