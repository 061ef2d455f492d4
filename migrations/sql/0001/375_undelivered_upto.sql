CREATE FUNCTION durable_notify.undelivered_upto(
    topic text, place durable_notify.position, seen pg_snapshot, last bigint
) RETURNS TABLE (id bigint, late boolean)
LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET jit = off SET plan_cache_mode = force_generic_plan AS $function$
#variable_conflict use_column
BEGIN
    -- The messages up to an id, visible in a snapshot, that were not handed over at a place, and whether each
    -- is past its expiry; see settled_below().
    RETURN QUERY
    SELECT o.id, COALESCE(o.expires_at <= pg_catalog.clock_timestamp(), false) FROM (
        SELECT durable_notify.stragglers(topic, place.s0, seen, 0, LEAST(place.h0, last), 9223372036854775807)
         WHERE place.s1 IS NULL
        UNION ALL
        SELECT durable_notify.stragglers(topic, place.s1, seen, 0, LEAST(place.p, last), 9223372036854775807)
         WHERE place.s1 IS NOT NULL
        UNION ALL
        SELECT durable_notify.stragglers(topic, place.s0, seen, place.p, LEAST(place.h0, last), 9223372036854775807)
         WHERE place.s1 IS NOT NULL AND place.p < LEAST(place.h0, last)) AS late (id)
     CROSS JOIN LATERAL durable_notify.message_of(undelivered_upto.topic, late.id, late.id, late.id) AS o;
    RETURN QUERY
    SELECT o.id, COALESCE(o.expires_at <= pg_catalog.clock_timestamp(), false) FROM durable_notify.outbox o
     WHERE o.topic = undelivered_upto.topic AND o.id <= last
       AND o.id > GREATEST(place.h0, CASE WHEN place.s1 IS NOT NULL THEN place.p END)
       AND pg_catalog.pg_visible_in_snapshot(o.xid, seen);
END
$function$;
