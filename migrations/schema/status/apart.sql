CREATE FUNCTION durable_notify._count_apart(max_count bigint) RETURNS TABLE (
    id integer, deferred bigint, retrying bigint, parked bigint, leases bigint, leased bigint, dead bigint, oldest timestamptz
)
LANGUAGE sql STABLE AS $function$
    -- What is not in the outbox of the subscriptions that have some: see status(). Each number is
    -- counted up to max_count.
    SELECT a.id, pg_catalog.sum(a.deferred)::bigint, pg_catalog.sum(a.retrying)::bigint, pg_catalog.sum(a.parked)::bigint,
           pg_catalog.sum(a.leases)::bigint, pg_catalog.sum(a.leased)::bigint, pg_catalog.sum(a.dead)::bigint, pg_catalog.min(a.oldest)
      FROM (SELECT d.id, d.deferred, d.retrying, d.parked, NULL::bigint AS leases, NULL::bigint AS leased, NULL::bigint AS dead, d.oldest
              FROM durable_notify._count_deferred(max_count) AS d
             UNION ALL
            SELECT l.id, NULL, NULL, NULL, l.leases, l.messages, NULL, l.oldest FROM durable_notify._count_leased() AS l
             UNION ALL
            SELECT x.id, NULL, NULL, NULL, NULL, NULL, x.dead, NULL FROM durable_notify._count_dead(max_count) AS x) AS a
     GROUP BY 1
$function$;

CREATE FUNCTION durable_notify._count_deferred(max_count bigint) RETURNS TABLE (
    id integer, deferred bigint, retrying bigint, parked bigint, oldest timestamptz
)
LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET enable_sort = off SET jit = off AS $function$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT c.id, LEAST(c.deferred, max_count), LEAST(c.retrying, max_count), LEAST(c.parked, max_count), GREATEST(o.created_at, o.deliver_at)
      FROM durable_notify._runs('durable_notify.deferred', max_count) AS r
     CROSS JOIN LATERAL (
           SELECT few.id, pg_catalog.count(*) AS deferred,
                  pg_catalog.count(*) FILTER (WHERE few.reason = 'retry') AS retrying,
                  pg_catalog.count(*) FILTER (WHERE few.reason = 'key') AS parked,
                  pg_catalog.min(few.message_id) FILTER (WHERE few.reason IN ('retry', 'key')) AS first_id
             FROM (SELECT d.subscription_id AS id, d.message_id, d.reason FROM durable_notify.deferred d
                    WHERE d.subscription_id > r.after AND d.subscription_id <= r.upto
                    ORDER BY d.subscription_id, d.message_id LIMIT r.size) AS few
            GROUP BY few.id) AS c
      LEFT JOIN durable_notify.subscription s ON s.id = c.id
      LEFT JOIN LATERAL durable_notify._message(s.topic, c.first_id, c.first_id, c.first_id) AS o ON true;
END
$function$;

CREATE FUNCTION durable_notify._count_dead(max_count bigint) RETURNS TABLE (id integer, dead bigint)
LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET enable_sort = off SET jit = off AS $function$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT c.id, LEAST(c.dead, max_count)
      FROM durable_notify._runs('durable_notify.dead_letter', max_count) AS r
     CROSS JOIN LATERAL (
           SELECT few.id, pg_catalog.count(*) AS dead
             FROM (SELECT d.subscription_id AS id FROM durable_notify.dead_letter d
                    WHERE d.subscription_id > r.after AND d.subscription_id <= r.upto
                    ORDER BY d.subscription_id, d.message_id LIMIT r.size) AS few
            GROUP BY few.id) AS c;
END
$function$;

CREATE FUNCTION durable_notify._runs(source regclass, max_count bigint) RETURNS TABLE (after integer, upto integer, size bigint)
LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off AS $function$
#variable_conflict use_variable
DECLARE
    lowest integer;
    rows bigint;
BEGIN
    -- Runs of subscriptions with rows in a table, so that size rows of each are all that is to be read:
    -- of a subscription with more than that, alone in its run, max_count are enough. However many rows
    -- there are, status() reads about max_count of each subscription; and a thousand that have one each
    -- are one run.
    size := GREATEST(max_count, CASE WHEN max_count IS NOT NULL THEN 10000 END);
    after := 0;
    LOOP
        EXECUTE pg_catalog.format(
            'SELECT count(*), min(id), max(id) FROM (SELECT subscription_id AS id FROM %s WHERE subscription_id > $1'
            ' ORDER BY subscription_id, message_id LIMIT $2) AS few', source)
           INTO rows, lowest, upto USING after, size;
        EXIT WHEN rows = 0;
        IF rows = size AND lowest < upto THEN
            upto := upto - 1;  -- of the last one there may be more
        END IF;
        RETURN NEXT;
        EXIT WHEN (rows = size) IS NOT TRUE;
        after := upto;
    END LOOP;
END
$function$;

CREATE FUNCTION durable_notify._count_leased() RETURNS TABLE (id integer, leases bigint, messages bigint, oldest timestamptz)
LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off AS $function$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT h.subscription_id, h.leases, h.messages, GREATEST(o.created_at, o.deliver_at)
      FROM (SELECT l.subscription_id, pg_catalog.count(*) AS leases,
                   pg_catalog.min((SELECT pg_catalog.min(m.id) FROM pg_catalog.unnest(l.ids) AS m (id)
                                    WHERE NOT EXISTS (SELECT FROM durable_notify.settlement x
                                                       WHERE x.token = l.token AND x.message_id = m.id))) AS first_id,
                   pg_catalog.sum(pg_catalog.cardinality(l.ids) - (
                       SELECT pg_catalog.count(*) FROM durable_notify.settlement x WHERE x.token = l.token))::bigint AS messages
              FROM durable_notify.lease l GROUP BY 1) AS h
      LEFT JOIN durable_notify.subscription s ON s.id = h.subscription_id
      LEFT JOIN LATERAL durable_notify._message(s.topic, h.first_id, h.first_id, h.first_id) AS o ON true;
END
$function$;
