CREATE FUNCTION durable_notify.status(max_count integer DEFAULT 10000) RETURNS TABLE (
    topic text, group_name text, last_id bigint, unread bigint, oldest_unread timestamptz,
    deferred bigint, leases bigint, leased bigint, dead bigint,
    is_exact boolean, delivered_id bigint, expired bigint, asleep bigint, retrying bigint, parked bigint,
    oldest_unsettled timestamptz
)
LANGUAGE plpgsql STABLE
SET enable_nestloop = off SET enable_mergejoin = off SET jit = off SET work_mem = '64MB' SET plan_cache_mode = force_custom_plan
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
BEGIN
    -- How far each group is behind, and has come, in each of its topics; a topic that no group reads
    -- has a row with a NULL group. For people, metrics and scaling: the cost is bounded by max_count,
    -- however much is unread.
    --
    -- last_id: the topic's highest id. unread: messages committed and never delivered; counted if they
    -- are fewer than max_count (is_exact), else estimated from how dense the ids of the newest are.
    -- oldest_unread: when the first of those was published. deferred and dead: messages that wait for
    -- another attempt, and dead letters, counted up to max_count. leases and leased: batches and
    -- messages that consumers hold now.
    -- delivered_id: the highest id that was delivered to the group, lower after a replay: with
    -- messages_between() two calls show how fast it reads. expired: how many messages were past their
    -- expires_at. asleep: sessions, of any group, that have armed the topic's doorbell: they read again
    -- when it rings.
    -- retrying and parked: of the deferred ones, those that failed and wait for their next attempt, and
    -- those that wait for an earlier one of their key. oldest_unsettled: since when the oldest message
    -- waits that the group has not settled, unread, leased, retrying or parked: since it was published,
    -- or for its deliver_at. Without those of a replay.
    -- NULL for max_count counts all, which takes seconds if millions are unread.
    --
    -- The outbox is read once a topic, whatever the number of groups; each subscription then finds its
    -- place in that: see _places().
    -- Trap: no table is joined by nested loops here, and nothing here reads the outbox. A plan made by
    -- old statistics would take hours. Functions with settings of their own read it.
    IF NOT durable_notify._is_owner() THEN
        RETURN QUERY SELECT * FROM durable_notify._status_granted(max_count);
        RETURN;
    END IF;
    IF max_count NOT BETWEEN 1 AND 1000000 THEN
        RAISE EXCEPTION 'max_count is 1 to 1000000, or NULL to count all, not %', max_count USING ERRCODE = '22023';
    END IF;
    RETURN QUERY
    WITH places AS MATERIALIZED (SELECT * FROM durable_notify._places(max_count)),
    first AS MATERIALIZED (
        SELECT f.* FROM (SELECT pg_catalog.array_agg(d.topic), pg_catalog.array_agg(d.ord), pg_catalog.array_agg(d.upto)
                           FROM (SELECT p.ord, p.upto, pg_catalog.min(p.topic) AS topic FROM places p
                                  WHERE p.newer = max_count OR max_count IS NULL AND p.upto < p.last_id
                                  GROUP BY 1, 2) AS d) AS d (topics, ords, ids)
         CROSS JOIN LATERAL durable_notify._first_after(d.topics, d.ords, d.ids, max_count IS NULL) AS f),
    known AS MATERIALIZED (
        SELECT k.* FROM (SELECT p.topic, pg_catalog.array_agg(p.first_id) FROM places p
                          WHERE p.first_id IS NOT NULL GROUP BY 1) AS d (topic, ids)
         CROSS JOIN LATERAL durable_notify._published_at(d.topic, d.ids) AS k),
    late AS MATERIALIZED (
        SELECT p.id, c.stragglers, c.first_id, c.oldest FROM places p
         CROSS JOIN LATERAL durable_notify._count_stragglers(p.topic, p.id, max_count) AS c WHERE p.late)
    SELECT p.topic, g.name, p.last_id, u.unread + COALESCE(
               ((p.counted_from - f.id)::numeric * p.newer / (p.last_id - p.counted_from + 1))::bigint, 0),
           u.oldest, u.zero + COALESCE(a.deferred, 0), u.zero + COALESCE(a.leases, 0), u.zero + COALESCE(a.leased, 0),
           u.zero + COALESCE(a.dead, 0), u.unread < max_count OR max_count IS NULL AND p.id IS NOT NULL,
           p.delivered_id, p.expired, p.asleep, u.zero + COALESCE(a.retrying, 0), u.zero + COALESCE(a.parked, 0),
           LEAST(u.oldest, a.oldest)
      FROM places p
      LEFT JOIN (SELECT c.id, c.name, pg_catalog.row_number() OVER (ORDER BY c.name) AS ord
                   FROM durable_notify.consumer_group c) AS g ON g.id = p.group_id
      LEFT JOIN first f ON f.ord = p.ord AND f.upto = p.upto
      LEFT JOIN known k ON k.id = p.first_id
      LEFT JOIN late l ON l.id = p.id
      LEFT JOIN durable_notify._count_apart(max_count) AS a ON a.id = p.id
     CROSS JOIN LATERAL (
           SELECT p.newer * 0, COALESCE(l.stragglers, 0) + CASE WHEN max_count IS NULL THEN COALESCE(f.newer, p.newer) ELSE p.newer END,
                  CASE WHEN l.first_id < COALESCE(k.id, f.id) OR k.id IS NULL AND f.id IS NULL THEN l.oldest ELSE COALESCE(k.published_at, f.published_at) END) AS u (zero, unread, oldest)
     ORDER BY (p.ord << 32) + COALESCE(g.ord, 0);  -- numbers sort faster than texts
END
$function$;

CALL durable_notify._grantable('status', '{observe,consume}', $$_require_observe()$$,
    visible => $$_can_observe(f.group_name, f.topic)$$);
