CREATE FUNCTION durable_notify.due_in_topic(
    part durable_notify.subscription, options durable_notify.consumer_group, look boolean
) RETURNS timestamptz
LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET enable_sort = off SET jit = off SET plan_cache_mode = force_generic_plan AS $function$
#variable_conflict use_column
DECLARE
    now_time timestamptz := pg_catalog.clock_timestamp();
    place durable_notify.position;
    due timestamptz;
    heads timestamptz;
    silent boolean;
    busy text[];
BEGIN
    -- When something of a topic comes back to a group by the clock alone. look: now, where the log
    -- has something to read, since what kept a claim from reading may be over.
    SELECT * INTO STRICT place FROM durable_notify.position p
     WHERE p.subscription_id = part.id ORDER BY p.seq DESC LIMIT 1;
    SELECT pg_catalog.min(COALESCE(h.deadline, l.deadline)), pg_catalog.bool_or(l.rings IS NULL AND l.order_by <> options.order_by)
      INTO due, silent
      FROM pg_catalog.unnest(place.live) AS held (token)
      JOIN durable_notify.lease l ON l.token = held.token
      LEFT JOIN durable_notify.heartbeat h ON h.token = held.token;
    IF silent THEN
        -- It was handed out under another order, and rings for nothing when it is settled.
        due := LEAST(due, now_time + interval '0.5 seconds');
    END IF;
    IF options.order_by = 'strict' AND due IS NOT NULL THEN
        RETURN due;  -- until then, or until a settle that rings
    END IF;
    due := LEAST(due, (
        SELECT d.due_at FROM durable_notify.deferred d
         WHERE d.subscription_id = part.id AND d.key IS NULL ORDER BY d.due_at LIMIT 1));
    IF EXISTS (SELECT FROM durable_notify.deferred d WHERE d.subscription_id = part.id AND d.key IS NOT NULL) THEN
        busy := durable_notify.busy_keys(place.live, ARRAY(
            SELECT w.key FROM durable_notify.heads(part.id) w WHERE w.due_at <= now_time), options.order_by);
        SELECT pg_catalog.min(w.due_at) INTO heads
          FROM durable_notify.heads(part.id) w WHERE w.due_at > now_time OR w.key <> ALL (busy);
        due := LEAST(due, heads);
    END IF;
    IF (look OR place.s1 IS NOT NULL AND options.order_by <> 'strict')
       AND durable_notify.room_to_read(part.id, options, 1) > 0
       AND (SELECT pg_catalog.cardinality(r.ids) FROM durable_notify.read_window(
                part.topic, place, 1, pg_catalog.pg_current_snapshot(), NULL) AS r) > 0 THEN
        RETURN now_time;
    END IF;
    RETURN due;
END
$function$;
