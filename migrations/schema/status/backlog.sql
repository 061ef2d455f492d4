CREATE FUNCTION durable_notify.backlog(most integer DEFAULT 10000) RETURNS TABLE (
    topic text, group_name text, waiting bigint, is_exact boolean, oldest_seconds double precision,
    deferred bigint, leases bigint, leased bigint, dead bigint
)
LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET jit = off
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
BEGIN
    -- How far each group is behind in each of its topics, for metrics and for scaling: as status(), at a
    -- cost that is bounded by most, however much waits.
    --
    -- waiting: committed and never handed out; counted where they are fewer than most (is_exact), else
    -- estimated, from how dense the ids of the first are. oldest_seconds: the age of the oldest of these,
    -- 0 where none waits. deferred and dead are counted up to most. leases and leased: batches and
    -- messages that consumers hold now.
    IF NOT durable_notify._is_owner() THEN
        RETURN QUERY SELECT * FROM durable_notify._backlog_granted(most);
        RETURN;
    END IF;
    IF most IS NULL OR most NOT BETWEEN 1 AND 1000000 THEN
        RAISE EXCEPTION 'most is 1 to 1000000, not %', most USING ERRCODE = '22023';
    END IF;
    RETURN QUERY
    SELECT s.topic, g.name,
           CASE WHEN behind.messages < backlog.most THEN behind.messages
                ELSE behind.messages + GREATEST(0, (
                     (durable_notify.last_id(s.topic) - behind.last)::numeric
                     * behind.messages / (behind.last - behind.first + 1)))::bigint END,
           behind.messages < backlog.most,
           COALESCE(GREATEST(0, EXTRACT(epoch FROM pg_catalog.clock_timestamp() - behind.oldest)), 0)::double precision,
           apart.deferred, held.leases, held.messages, apart.dead
      FROM durable_notify.subscription s
      JOIN durable_notify.consumer_group g ON g.id = s.group_id
     CROSS JOIN LATERAL (
           SELECT pg_catalog.count(*) AS messages, pg_catalog.min(u.created_at) AS oldest,
                  pg_catalog.min(u.id) AS first, pg_catalog.max(u.id) AS last
             FROM durable_notify._unread(s.id, backlog.most) u) AS behind
     CROSS JOIN LATERAL (
           SELECT (SELECT pg_catalog.count(*) FROM (
                       SELECT FROM durable_notify.deferred d WHERE d.subscription_id = s.id LIMIT backlog.most) few) AS deferred,
                  (SELECT pg_catalog.count(*) FROM (
                       SELECT FROM durable_notify.dead_letter x WHERE x.subscription_id = s.id LIMIT backlog.most) few) AS dead) AS apart
     CROSS JOIN LATERAL (
           SELECT pg_catalog.count(*) AS leases,
                  COALESCE(pg_catalog.sum(pg_catalog.cardinality(l.ids) - (
                      SELECT pg_catalog.count(*) FROM durable_notify.settlement x WHERE x.token = l.token)), 0)::bigint
                  AS messages
             FROM durable_notify.lease l WHERE l.subscription_id = s.id) AS held
     ORDER BY 1, 2;
END
$function$;

CALL durable_notify._grantable('backlog', '{observe,consume}', $$_require_observe()$$,
    visible => $$_can_observe(f.group_name, f.topic)$$);
