CREATE FUNCTION durable_notify.undelivered(
    subscription_id integer, most bigint DEFAULT 9223372036854775807
) RETURNS TABLE (id bigint, created_at timestamptz)
LANGUAGE plpgsql STABLE STRICT
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET enable_sort = off SET jit = off SET plan_cache_mode = force_generic_plan AS $function$
#variable_conflict use_column
DECLARE
    place durable_notify.position;
    source text;
    now_snapshot pg_snapshot := pg_catalog.pg_current_snapshot();
BEGIN
    -- The messages of the log, committed by now, that a subscription has not been handed yet.
    -- Leased and deferred ones have been handed over: they are not among them. Each part by id, and no more
    -- than that many of it.
    SELECT * INTO STRICT place FROM durable_notify.position p
     WHERE p.subscription_id = undelivered.subscription_id ORDER BY p.seq DESC LIMIT 1;
    SELECT s.topic INTO STRICT source FROM durable_notify.subscription s WHERE s.id = undelivered.subscription_id;
    IF place.s1 IS NOT NULL THEN
        RETURN QUERY
        SELECT o.id, o.created_at
          FROM durable_notify.stragglers(source, place.s0, place.s1, GREATEST(place.p, durable_notify.closed_below(place.s0) - 1),
                                         place.h0, most) AS late (id)
         CROSS JOIN LATERAL durable_notify.message_of(source, late.id, 0, place.h0) AS o;
        place.s0 := place.s1;
        place.h0 := GREATEST(place.h0, place.p);
    END IF;
    RETURN QUERY
    SELECT o.id, o.created_at
      FROM durable_notify.stragglers(source, place.s0, now_snapshot, GREATEST(0, durable_notify.closed_below(place.s0) - 1),
                                     place.h0, most) AS late (id)
     CROSS JOIN LATERAL durable_notify.message_of(source, late.id, 0, place.h0) AS o;
    RETURN QUERY
    SELECT o.id, o.created_at FROM durable_notify.outbox o WHERE o.topic = source AND o.id > place.h0
     ORDER BY o.id LIMIT most;
END
$function$;
