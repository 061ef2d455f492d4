CREATE FUNCTION durable_notify.status(max_count integer DEFAULT 10000) RETURNS TABLE (
    topic text, group_name text, last_id bigint, unread bigint, oldest_unread timestamptz,
    deferred bigint, leases bigint, leased bigint, dead bigint,
    is_exact boolean, delivered_id bigint, expired bigint, asleep bigint, retrying bigint, parked bigint,
    oldest_unsettled timestamptz
)
LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET jit = off
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
BEGIN
    -- How far each group is behind, and has come, in each of its topics; a topic that no group reads
    -- has a row with a NULL group. For people, metrics and scaling: the cost is bounded by max_count,
    -- however much is unread.
    --
    -- last_id: the topic's highest id. unread: messages committed and never delivered; counted if they
    -- are fewer than max_count (is_exact), else estimated from how dense the ids of the first are.
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
    IF NOT durable_notify._is_owner() THEN
        RETURN QUERY SELECT * FROM durable_notify._status_granted(max_count);
        RETURN;
    END IF;
    IF max_count NOT BETWEEN 1 AND 1000000 THEN
        RAISE EXCEPTION 'max_count is 1 to 1000000, or NULL to count all, not %', max_count USING ERRCODE = '22023';
    END IF;
    RETURN QUERY
    WITH bells AS MATERIALIZED (
        SELECT l.objid, pg_catalog.count(*) AS armed FROM pg_catalog.pg_locks l
          JOIN pg_catalog.pg_database d ON d.oid = l.database AND d.datname = pg_catalog.current_database()
         WHERE l.locktype = 'advisory' AND l.classid = durable_notify._doorbell_class()::oid AND l.objsubid = 2
           AND l.mode = 'ShareLock' AND l.granted
         GROUP BY 1),
    held AS MATERIALIZED (
        SELECT l.subscription_id, pg_catalog.count(*) AS leases,
               pg_catalog.min((SELECT pg_catalog.min(m.id) FROM pg_catalog.unnest(l.ids) AS m (id)
                                WHERE NOT EXISTS (SELECT FROM durable_notify.settlement x
                                                   WHERE x.token = l.token AND x.message_id = m.id))) AS first_id,
               pg_catalog.sum(pg_catalog.cardinality(l.ids) - (
                   SELECT pg_catalog.count(*) FROM durable_notify.settlement x WHERE x.token = l.token))::bigint AS messages
          FROM durable_notify.lease l GROUP BY 1),
    published AS MATERIALIZED (
        SELECT t.topic, durable_notify.last_id(t.topic) AS last_id,
               COALESCE((SELECT b.armed FROM bells b WHERE b.objid
                          = (pg_catalog.hashtext(t.topic)::bigint & 4294967295)::oid), 0) AS asleep
          FROM (SELECT t.topic FROM durable_notify._topics() AS t (topic)
                 UNION SELECT s.topic FROM durable_notify.subscription s) AS t)
    SELECT p.topic, g.name, p.last_id,
           CASE WHEN counted.unread >= max_count THEN counted.unread + GREATEST(0, (
                     (p.last_id - counted.last_id)::numeric * counted.unread / (counted.last_id - counted.first_id + 1)))::bigint
                ELSE counted.unread END,
           counted.oldest, apart.deferred, CASE WHEN s.id IS NOT NULL THEN COALESCE(h.leases, 0) END,
           CASE WHEN s.id IS NOT NULL THEN COALESCE(h.messages, 0) END, apart.dead,
           CASE WHEN s.id IS NOT NULL THEN COALESCE(counted.unread < max_count, true) END,
           GREATEST(pos.h0, pos.p), pos.expired, p.asleep, apart.retrying, apart.parked,
           LEAST(counted.oldest, (
               SELECT pg_catalog.min(GREATEST(o.created_at, o.deliver_at))
                 FROM (VALUES (apart.first_id), (h.first_id)) AS m (id)
                CROSS JOIN LATERAL durable_notify._message(p.topic, m.id, m.id, m.id) AS o))
      FROM published p
      LEFT JOIN durable_notify.subscription s ON s.topic = p.topic
      LEFT JOIN durable_notify.consumer_group g ON g.id = s.group_id
      LEFT JOIN LATERAL (
           SELECT q AS whole, q.h0, q.p, q.expired FROM durable_notify.position q
            WHERE q.subscription_id = s.id ORDER BY q.seq DESC LIMIT 1) AS pos ON s.id IS NOT NULL
      LEFT JOIN LATERAL durable_notify._count_unread(
           p.topic, pos.whole, COALESCE(max_count, 9223372036854775807)) AS counted ON s.id IS NOT NULL
      LEFT JOIN LATERAL (
           SELECT few.deferred, few.retrying, few.parked, few.first_id,
                  (SELECT pg_catalog.count(*) FROM (
                       SELECT FROM durable_notify.dead_letter x WHERE x.subscription_id = s.id LIMIT max_count) few) AS dead
             FROM (SELECT pg_catalog.count(*) AS deferred,
                          pg_catalog.count(*) FILTER (WHERE d.reason = 'retry') AS retrying,
                          pg_catalog.count(*) FILTER (WHERE d.reason = 'key') AS parked,
                          pg_catalog.min(d.message_id) FILTER (WHERE d.reason IN ('retry', 'key')) AS first_id
                     FROM (SELECT w.message_id, w.reason FROM durable_notify.deferred w
                            WHERE w.subscription_id = s.id ORDER BY w.message_id LIMIT max_count) AS d) AS few) AS apart
           ON s.id IS NOT NULL
      LEFT JOIN held h ON h.subscription_id = s.id
     ORDER BY 1, 2;
END
$function$;

CALL durable_notify._grantable('status', '{observe,consume}', $$_require_observe()$$,
    visible => $$_can_observe(f.group_name, f.topic)$$);
