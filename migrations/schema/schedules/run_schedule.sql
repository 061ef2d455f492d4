CREATE FUNCTION durable_notify.run_schedule(name text) RETURNS bigint
LANGUAGE plpgsql
SET lock_timeout = '5s' SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_variable
DECLARE
    chosen durable_notify.schedule;
BEGIN
    -- Publish the message of a schedule now, beside its ticks, also if it is paused; returns its id.
    IF NOT durable_notify._is_owner() THEN
        RETURN durable_notify._run_schedule_granted(name);
    END IF;
    SELECT s.* INTO chosen FROM durable_notify.schedule s WHERE s.name = name;
    IF NOT FOUND THEN
        PERFORM durable_notify._raise_no_schedule(name);
    END IF;
    PERFORM durable_notify._record_audit('run schedule', '', pg_catalog.jsonb_build_object('schedule', name), chosen.topic);
    RETURN durable_notify._publish_tick(chosen, pg_catalog.clock_timestamp());
END
$function$;

CREATE FUNCTION durable_notify._raise_no_schedule(name text) RETURNS void
LANGUAGE plpgsql AS $function$
BEGIN
    RAISE EXCEPTION 'there is no schedule "%"', name
        USING ERRCODE = '22023', HINT = 'durable_notify.schedules() lists them. Nothing was changed.';
END
$function$;

CALL durable_notify._grantable('run_schedule', '{publish}', $$_require('publish', durable_notify._topic_of_schedule(name))$$);
