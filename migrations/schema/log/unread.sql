CREATE FUNCTION durable_notify._unread(subscription_id integer) RETURNS TABLE (id bigint)
LANGUAGE plpgsql STABLE STRICT
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET enable_sort = off SET jit = off SET plan_cache_mode = force_generic_plan AS $function$
#variable_conflict use_column
DECLARE
    pos durable_notify.position;
    source text;
BEGIN
    -- The messages of the outbox, committed by now, that were not delivered to a subscription yet.
    -- Leased and deferred ones were delivered: they are not among them.
    SELECT * INTO STRICT pos FROM durable_notify.position p
     WHERE p.subscription_id = _unread.subscription_id ORDER BY p.seq DESC LIMIT 1;
    SELECT s.topic INTO STRICT source FROM durable_notify.subscription s WHERE s.id = _unread.subscription_id;
    RETURN QUERY SELECT late.id FROM durable_notify._unread_stragglers(source, pos, 9223372036854775807) AS late (id);
    RETURN QUERY SELECT o.id FROM durable_notify.outbox o
                  WHERE o.topic = source AND o.id > GREATEST(pos.h0, CASE WHEN pos.s1 IS NOT NULL THEN pos.p END);
END
$function$;

CREATE FUNCTION durable_notify._count_stragglers(
    source text, subscription_id integer, max_count bigint,
    OUT stragglers bigint, OUT first_id bigint, OUT oldest timestamptz
)
LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET enable_sort = off SET jit = off SET plan_cache_mode = force_generic_plan AS $function$
#variable_conflict use_column
DECLARE
    pos durable_notify.position;
BEGIN
    -- How many of the messages of _unread() are stragglers, counted up to max_count in each of their
    -- parts; the first of them, and when that was published.
    SELECT * INTO STRICT pos FROM durable_notify.position p
     WHERE p.subscription_id = _count_stragglers.subscription_id ORDER BY p.seq DESC LIMIT 1;
    SELECT pg_catalog.count(*), pg_catalog.min(s.id) INTO stragglers, first_id
      FROM durable_notify._unread_stragglers(source, pos, COALESCE(max_count, 9223372036854775807)) AS s (id);
    oldest := (SELECT o.created_at FROM durable_notify._message(source, first_id, first_id, first_id) AS o);
END
$function$;

CREATE FUNCTION durable_notify._unread_stragglers(
    source text, pos durable_notify.position, max_ids bigint
) RETURNS SETOF bigint
LANGUAGE plpgsql STABLE AS $function$
BEGIN
    -- The unread ids below those that a position has read up to, in two parts, each in id order with at
    -- most max_ids ids: from the open window, and from what has committed since.
    IF pos.s1 IS NOT NULL THEN
        RETURN QUERY SELECT durable_notify._stragglers(
            source, pos.s0, pos.s1, GREATEST(pos.p, durable_notify._closed_below(pos.s0) - 1), pos.h0, max_ids);
        pos.s0 := pos.s1;
        pos.h0 := GREATEST(pos.h0, pos.p);
    END IF;
    RETURN QUERY SELECT durable_notify._stragglers(
        source, pos.s0, pg_catalog.pg_current_snapshot(), GREATEST(0, durable_notify._closed_below(pos.s0) - 1), pos.h0, max_ids);
END
$function$;

CREATE FUNCTION durable_notify._unread_upto(
    topic text, pos durable_notify.position, seen pg_snapshot, last bigint
) RETURNS TABLE (id bigint, late boolean)
LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET jit = off SET plan_cache_mode = force_generic_plan AS $function$
#variable_conflict use_column
BEGIN
    -- The messages up to an id, visible in a snapshot, that were not delivered at a position, and
    -- whether each is past its expiry; see _settled_watermark().
    RETURN QUERY
    SELECT o.id, COALESCE(o.expires_at <= pg_catalog.clock_timestamp(), false) FROM (
        SELECT durable_notify._stragglers(topic, pos.s0, seen, 0, LEAST(pos.h0, last), 9223372036854775807)
         WHERE pos.s1 IS NULL
        UNION ALL
        SELECT durable_notify._stragglers(topic, pos.s1, seen, 0, LEAST(pos.p, last), 9223372036854775807)
         WHERE pos.s1 IS NOT NULL
        UNION ALL
        SELECT durable_notify._stragglers(topic, pos.s0, seen, pos.p, LEAST(pos.h0, last), 9223372036854775807)
         WHERE pos.s1 IS NOT NULL AND pos.p < LEAST(pos.h0, last)) AS late (id)
     CROSS JOIN LATERAL durable_notify._message(_unread_upto.topic, late.id, late.id, late.id) AS o;
    RETURN QUERY
    SELECT o.id, COALESCE(o.expires_at <= pg_catalog.clock_timestamp(), false) FROM durable_notify.outbox o
     WHERE o.topic = _unread_upto.topic AND o.id <= last
       AND o.id > GREATEST(pos.h0, CASE WHEN pos.s1 IS NOT NULL THEN pos.p END)
       AND pg_catalog.pg_visible_in_snapshot(o.xid, seen);
END
$function$;
