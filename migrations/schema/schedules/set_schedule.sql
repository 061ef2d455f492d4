CREATE FUNCTION durable_notify.set_schedule(
    name text, topic text, payload jsonb, cron text, every interval, time_zone text, next_at timestamptz,
    key text DEFAULT NULL, headers jsonb DEFAULT NULL, missed text DEFAULT 'once', max_missed integer DEFAULT 100,
    program text DEFAULT NULL
) RETURNS boolean
LANGUAGE plpgsql
SET lock_timeout = '5s' SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_variable
DECLARE
    old durable_notify.schedule;
BEGIN
    -- Publish a message again and again: by cron or every so often, from next_at on. A schedule of this
    -- name is replaced; if nothing of it changes, its next tick stays as well, and this returns false. If
    -- only the message changes, its next tick stays. A pause stays in any case.
    --
    -- The caller computes the ticks; see publish_ticks(). program: whose code declares the schedule.
    IF NOT durable_notify._is_owner() THEN
        RETURN durable_notify._set_schedule_granted(
            name, topic, payload, cron, every, time_zone, next_at, key, headers, missed, max_missed, program);
    END IF;
    headers := COALESCE(headers, '{}');
    -- The row's lock: two at once set one after the other.
    SELECT s.* INTO old FROM durable_notify.schedule s WHERE s.name = name FOR UPDATE;
    IF FOUND AND (old.topic, old.payload, old.key, old.headers, old.cron, old.every, old.time_zone, old.missed, old.max_missed, old.program)
       IS NOT DISTINCT FROM (topic, payload, key, headers, cron, every, time_zone, missed, max_missed, program) THEN
        RETURN false;
    END IF;
    PERFORM durable_notify._validate_message((NULL, topic, key, payload, NULL, headers, NULL, NULL, NULL, 0)::durable_notify.outbox);
    INSERT INTO durable_notify.schedule AS s
           (name, topic, payload, key, headers, cron, every, time_zone, next_at, missed, max_missed, program)
    VALUES (name, topic, payload, key, headers, cron, every, time_zone, next_at, missed, max_missed, program)
    ON CONFLICT ON CONSTRAINT schedule_pkey DO UPDATE
       SET topic = EXCLUDED.topic, payload = EXCLUDED.payload, key = EXCLUDED.key, headers = EXCLUDED.headers,
           cron = EXCLUDED.cron, every = EXCLUDED.every, time_zone = EXCLUDED.time_zone, missed = EXCLUDED.missed,
           max_missed = EXCLUDED.max_missed, program = EXCLUDED.program,
           next_at = CASE WHEN (s.cron, s.every, s.time_zone) IS NOT DISTINCT FROM (EXCLUDED.cron, EXCLUDED.every, EXCLUDED.time_zone)
                          THEN s.next_at ELSE EXCLUDED.next_at END,
           set_at = pg_catalog.clock_timestamp(), set_by = SESSION_USER
     WHERE old.name IS NOT NULL;
    IF NOT FOUND THEN
        -- Trap: not to replace it. Whether this role may was decided before it existed.
        RAISE EXCEPTION 'another session has just set schedule "%"', name
            USING ERRCODE = '55P03', HINT = 'Nothing was changed. Try again.';
    END IF;
    PERFORM durable_notify._record_audit('set schedule', '', pg_catalog.jsonb_build_object('schedule', name), topic);
    RETURN true;
EXCEPTION WHEN check_violation OR not_null_violation THEN
    RAISE EXCEPTION 'invalid schedule "%": %', name, SQLERRM USING ERRCODE = '22023', HINT = 'Nothing was changed.';
END
$function$;

CREATE FUNCTION durable_notify._topic_of_schedule(name text) RETURNS text[]
LANGUAGE sql STABLE AS $function$
    -- The topic of a schedule, for the check of what a role may; NULL: there is none, which is refused alike.
    SELECT ARRAY[(SELECT s.topic FROM durable_notify.schedule s WHERE s.name = _topic_of_schedule.name)]
$function$;

CALL durable_notify._grantable('set_schedule', '{publish}', $$_require('publish', ARRAY[topic] || CASE WHEN EXISTS (
        SELECT FROM durable_notify.schedule s WHERE s.name = name) THEN durable_notify._topic_of_schedule(name) ELSE '{}' END)$$);
