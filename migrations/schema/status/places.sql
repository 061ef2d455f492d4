CREATE FUNCTION durable_notify._places(max_count bigint) RETURNS TABLE (
    topic text, ord bigint, last_id bigint, asleep bigint, id integer, group_id integer, delivered_id bigint,
    expired bigint, upto bigint, newer bigint, counted_from bigint, first_id bigint, late boolean
)
LANGUAGE plpgsql STABLE
SET enable_nestloop = off SET jit = off SET work_mem = '64MB' SET plan_cache_mode = force_custom_plan AS $function$
#variable_conflict use_column
BEGIN
    -- The topics, in order (ord), with each subscription's place in them.
    --
    -- upto: the id that it has read up to. newer: how many messages are above that, counted up to
    -- max_count, not if that is NULL; counted_from: the lowest of these, if there are more; first_id: if
    -- there are no more.
    -- late: there may be unread messages below upto too, stragglers. They were not visible in what it
    -- has read up to (seen): their transactions were running then (the list of xip), or began later
    -- (at or past xmax). So look whether a transaction of the list has committed into the topic, and for
    -- the lowest id of those past xmax. If it is above upto, they are no stragglers. A false alarm
    -- costs time, no more.
    RETURN QUERY
    WITH reads AS MATERIALIZED (
        SELECT s.id, s.topic, s.group_id, p.expired, GREATEST(p.h0, p.p) AS delivered_id, COALESCE(p.s1, p.s0) AS seen,
               COALESCE(GREATEST(p.h0, CASE WHEN p.s1 IS NOT NULL THEN p.p END), 0) AS upto,
               p.s1 IS NOT NULL AND p.p < p.h0 AS in_stragglers
          FROM durable_notify.subscription s
          LEFT JOIN (SELECT DISTINCT ON (q.subscription_id) q.* FROM durable_notify.position q
                      ORDER BY q.subscription_id, q.seq DESC) AS p ON p.subscription_id = s.id),
    published AS MATERIALIZED (
        SELECT t.topic, t.ord, n.last_id, n.ids, n.xids, n.first_ids, COALESCE(b.armed, 0) AS asleep
          FROM (SELECT topic, pg_catalog.row_number() OVER (ORDER BY topic) AS ord, r.lowest, r.since
                  FROM durable_notify._topics() AS o (topic)
                  FULL JOIN (SELECT r.topic, pg_catalog.min(r.upto) AS lowest, pg_catalog.min(
                                    CASE WHEN r.upto > 0 THEN pg_catalog.pg_snapshot_xmin(r.seen)::text::bigint END) AS since
                               FROM reads r GROUP BY 1) AS r USING (topic)) AS t
          LEFT JOIN durable_notify._bells() AS b ON b.key = pg_catalog.hashtext(t.topic)
         CROSS JOIN LATERAL durable_notify._newest(t.topic, t.lowest, t.since, max_count) AS n)
    SELECT t.topic, t.ord, t.last_id, t.asleep, r.id, r.group_id, r.delivered_id, r.expired, r.upto, x.newer,
           CASE WHEN x.newer = max_count THEN -t.ids[x.newer] END AS counted_from,
           CASE WHEN x.newer BETWEEN 1 AND max_count - 1 THEN -t.ids[x.newer] END AS first_id,
           r.in_stragglers OR r.upto > 0 AND r.upto >= durable_notify._closed_below(r.seen) AND (
               t.first_ids[x.later] <= r.upto OR max_count IS NULL AND x.later >= 1000000
               OR pg_catalog.pg_snapshot_xmin(r.seen) <> pg_catalog.pg_snapshot_xmax(r.seen)
                  AND EXISTS (SELECT FROM pg_catalog.pg_snapshot_xip(r.seen) AS ran (xid)
                               CROSS JOIN LATERAL (SELECT -ran.xid::text::bigint) AS k (xid)
                               CROSS JOIN LATERAL (SELECT pg_catalog.width_bucket(k.xid, t.xids)) AS n (later)
                               WHERE pg_catalog.pg_visible_in_snapshot(ran.xid, pg_catalog.pg_current_snapshot())
                                 AND (t.xids[n.later] = k.xid OR n.later >= LEAST(max_count, 1000000)))) AS late
      FROM published t
      LEFT JOIN reads r ON r.topic = t.topic
     CROSS JOIN LATERAL (
           SELECT pg_catalog.width_bucket(-1 - r.upto, t.ids)::bigint, CASE WHEN r.upto > 0
                  THEN pg_catalog.width_bucket(-pg_catalog.pg_snapshot_xmax(r.seen)::text::bigint, t.xids) END) AS x (newer, later);
END
$function$;

CREATE FUNCTION durable_notify._bells() RETURNS TABLE (key integer, armed bigint)
LANGUAGE sql STABLE AS $function$
    -- How many sessions have armed each doorbell, by its advisory lock.
    SELECT l.objid::bigint::bit(32)::integer, pg_catalog.count(*) FROM pg_catalog.pg_locks l
      JOIN pg_catalog.pg_database d ON d.oid = l.database AND d.datname = pg_catalog.current_database()
     WHERE l.locktype = 'advisory' AND l.classid = durable_notify._doorbell_class()::oid AND l.objsubid = 2
       AND l.mode = 'ShareLock' AND l.granted
     GROUP BY 1
$function$;

CREATE FUNCTION durable_notify._newest(
    topic text, lowest bigint, since bigint, max_count bigint,
    OUT last_id bigint, OUT ids bigint[], OUT xids bigint[], OUT first_ids bigint[]
)
LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off
SET plan_cache_mode = force_generic_plan AS $function$
#variable_conflict use_variable
BEGIN
    -- What status() needs of a topic, from its indexes alone, max_count rows of each at most: its last
    -- id; its newest ids, above lowest; its newest transactions, from since on, and for each place in
    -- them the lowest id up to there. Negative numbers, because width_bucket() searches what ascends:
    -- it returns how many are as new as a number.
    last_id := durable_notify.last_id(topic);
    ids := ARRAY(SELECT -o.id FROM durable_notify.outbox o
                  WHERE o.topic = _newest.topic AND o.id > lowest AND max_count IS NOT NULL ORDER BY o.id DESC LIMIT max_count);
    SELECT COALESCE(pg_catalog.array_agg(n.xid), '{}'), pg_catalog.array_agg(n.first_id) INTO xids, first_ids
      FROM (SELECT -o.xid::text::bigint AS xid,
                   pg_catalog.min(o.id) OVER (ORDER BY o.xid DESC, o.id DESC ROWS UNBOUNDED PRECEDING) AS first_id
              FROM durable_notify.outbox o
             WHERE o.topic = _newest.topic AND o.xid >= since::text::xid8
             ORDER BY o.xid DESC, o.id DESC LIMIT LEAST(max_count, 1000000)) AS n;
END
$function$;

CREATE FUNCTION durable_notify._first_after(topics text[], ords bigint[], ids bigint[], counted boolean) RETURNS TABLE (
    ord bigint, upto bigint, id bigint, published_at timestamptz, newer bigint
)
LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET enable_sort = off SET jit = off AS $function$
#variable_conflict use_column
DECLARE
    starts bigint[];
    names text[];
    run record;
BEGIN
    -- The first message after each of some ids, each of a topic, and if wanted how many there are.
    -- Trap: outbox_default may hold any id, so a probe of the outbox merges all partitions, which takes ten
    -- times as long. What the partition of the next id has is the first, because no other may hold such
    -- an id. Only if it has nothing, the whole outbox is asked.
    SELECT pg_catalog.array_agg(p.first_id ORDER BY p.first_id), pg_catalog.array_agg(p.name::text ORDER BY p.first_id)
      INTO starts, names FROM durable_notify.partitions() AS p;
    FOR run IN
        SELECT COALESCE(names[a.part], 'durable_notify.outbox') AS source, pg_catalog.array_agg(a.topic) AS topics,
               pg_catalog.array_agg(a.ord) AS ords, pg_catalog.array_agg(a.id) AS ids
          FROM (SELECT u.topic, u.ord, u.id, pg_catalog.width_bucket(u.id + 1, starts) AS part
                  FROM ROWS FROM (pg_catalog.unnest(topics), pg_catalog.unnest(ords), pg_catalog.unnest(ids)) AS u (topic, ord, id)) AS a
         GROUP BY a.part
    LOOP
        RETURN QUERY EXECUTE pg_catalog.format(
            'SELECT a.ord, a.id, COALESCE(p.id, o.id), COALESCE(p.created_at, o.created_at), CASE WHEN $4 THEN ('
            '           SELECT pg_catalog.count(*) FROM durable_notify.outbox n WHERE n.topic = a.topic AND n.id > a.id) END'
            '  FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3)) AS a (topic, ord, id)'
            '  LEFT JOIN LATERAL ('
            '       SELECT f.id, f.created_at FROM %s f'
            '        WHERE f.topic = a.topic AND f.id > a.id ORDER BY f.id LIMIT 1) AS p ON true'
            '  LEFT JOIN LATERAL ('
            '       SELECT f.id, f.created_at FROM durable_notify.outbox f'
            '        WHERE p.id IS NULL AND f.topic = a.topic AND f.id > a.id ORDER BY f.id LIMIT 1) AS o ON true'
            ' WHERE COALESCE(p.id, o.id) IS NOT NULL', run.source)
        USING run.topics, run.ords, run.ids, counted;
    END LOOP;
END
$function$;

CREATE FUNCTION durable_notify._published_at(topic text, ids bigint[]) RETURNS TABLE (id bigint, published_at timestamptz)
LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off
SET plan_cache_mode = force_generic_plan AS $function$
#variable_conflict use_column
BEGIN
    -- When messages of a topic were published. Trap: one scan for all of them; a probe for each, of
    -- 300,000, took ten times as long.
    RETURN QUERY
    SELECT o.id, o.created_at FROM durable_notify.outbox o WHERE o.topic = _published_at.topic AND o.id = ANY (ids);
END
$function$;
