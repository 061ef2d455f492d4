CREATE FUNCTION durable_notify._id_before(topic text, since timestamptz) RETURNS bigint
LANGUAGE plpgsql STABLE STRICT
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
DECLARE
    gap record;
    first_since bigint;
BEGIN
    -- The highest id after which every message published at or after a time is found.
    --
    -- Ids and times need not run in step, so a few earlier messages may follow it, but a later one
    -- never precedes it. If nothing was published since, it is the topic's last id.
    -- It reads the topic in order of id up to the first such message, without the stretches of closed
    -- partitions that are known to have none. That is right whatever the clock did.
    FOR gap IN
        SELECT s.next_id AS low, pg_catalog.lead(s.first_id, 1, 9223372036854775807) OVER (ORDER BY s.first_id) AS high
          FROM (SELECT (-9223372036854775808)::bigint AS first_id, (-9223372036854775808)::bigint AS next_id
                 UNION ALL
                SELECT t.first_id, t.next_id FROM durable_notify.stretch_time t WHERE t.latest < since) AS s
         ORDER BY s.first_id
    LOOP
        CONTINUE WHEN gap.low = gap.high;
        first_since := (
            SELECT o.id FROM durable_notify.outbox o
             WHERE o.topic = _id_before.topic AND o.id >= gap.low AND o.id < gap.high AND o.created_at >= _id_before.since
             ORDER BY o.id LIMIT 1);
        IF first_since IS NOT NULL THEN
            RETURN first_since - 1;
        END IF;
    END LOOP;
    RETURN durable_notify.last_id(topic);
END
$function$;
