CREATE FUNCTION durable_notify.pause_schedule(name text) RETURNS void
LANGUAGE plpgsql
SET lock_timeout = '5s' SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_variable
BEGIN
    -- Publish no more ticks of a schedule until resume_schedule().
    IF NOT durable_notify._is_owner() THEN
        PERFORM durable_notify._pause_schedule_granted(name);
        RETURN;
    END IF;
    UPDATE durable_notify.schedule s SET paused_at = COALESCE(s.paused_at, pg_catalog.clock_timestamp()) WHERE s.name = name;
    IF NOT FOUND THEN
        PERFORM durable_notify._raise_no_schedule(name);
    END IF;
    PERFORM durable_notify._record_audit('pause schedule', '', pg_catalog.jsonb_build_object('schedule', name));
END
$function$;

CALL durable_notify._grantable('pause_schedule', '{publish}', $$_require('publish', durable_notify._topic_of_schedule(name))$$);
