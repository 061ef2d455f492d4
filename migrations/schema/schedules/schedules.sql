CREATE FUNCTION durable_notify.schedules() RETURNS TABLE (
    name text, topic text, payload jsonb, key text, headers jsonb, cron text, every double precision, time_zone text,
    missed text, max_missed integer, program text, next_at timestamptz, last_at timestamptz, last_id bigint,
    paused_at timestamptz, seconds double precision
)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
BEGIN
    -- The schedules for topics that the caller may publish to, the next one first; paused ones last.
    -- every: in seconds; seconds: until the next tick, negative if it is late.
    IF NOT durable_notify._is_owner() THEN
        RETURN QUERY SELECT * FROM durable_notify._schedules_granted();
        RETURN;
    END IF;
    RETURN QUERY
    SELECT s.name, s.topic, s.payload, s.key, s.headers, s.cron, EXTRACT(epoch FROM s.every)::double precision, s.time_zone,
           s.missed, s.max_missed, s.program, s.next_at, s.last_at, s.last_id, s.paused_at,
           CASE WHEN s.paused_at IS NULL THEN EXTRACT(epoch FROM s.next_at - pg_catalog.clock_timestamp())::double precision END
      FROM durable_notify.schedule s
     ORDER BY s.paused_at IS NOT NULL, s.next_at, s.name;
END
$function$;

CALL durable_notify._grantable('schedules', '{publish}', $$_require('publish')$$,
    visible => $$_has_grant('publish', f.topic, NULL)$$);
