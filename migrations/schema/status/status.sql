CREATE FUNCTION durable_notify.status() RETURNS TABLE (
    topic text, group_name text, last_id bigint, waiting bigint, oldest_waiting timestamptz,
    deferred bigint, leases bigint, leased bigint, dead bigint
)
LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET jit = off
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
BEGIN
    -- How each group stands in each of its topics; topics nobody consumes have a NULL group.
    --
    -- waiting: committed and never handed out, as a retry or otherwise (it counts them: seconds
    -- where millions wait); oldest_waiting: when the oldest of those was published; deferred: wait
    -- for another attempt; leases and leased: batches and messages consumers hold now; dead: dead
    -- letters.
    IF NOT durable_notify._is_owner() THEN
        RETURN QUERY SELECT * FROM durable_notify._status_granted();
        RETURN;
    END IF;
    RETURN QUERY
    SELECT COALESCE(s.topic, t.topic), g.name, durable_notify.last_id(COALESCE(s.topic, t.topic)),
           behind.messages, behind.oldest, apart.deferred, held.leases, held.messages, apart.dead
      FROM durable_notify._topics() AS t (topic)
      FULL JOIN durable_notify.subscription s ON s.topic = t.topic
      LEFT JOIN durable_notify.consumer_group g ON g.id = s.group_id
      LEFT JOIN LATERAL (
           SELECT pg_catalog.count(*) AS messages, pg_catalog.min(u.created_at) AS oldest
             FROM durable_notify._unread(s.id) u) AS behind ON s.id IS NOT NULL
      LEFT JOIN LATERAL (
           SELECT (SELECT pg_catalog.count(*) FROM durable_notify.deferred d WHERE d.subscription_id = s.id)
                  AS deferred,
                  (SELECT pg_catalog.count(*) FROM durable_notify.dead_letter x WHERE x.subscription_id = s.id)
                  AS dead) AS apart ON s.id IS NOT NULL
      LEFT JOIN LATERAL (
           SELECT pg_catalog.count(*) AS leases,
                  COALESCE(pg_catalog.sum(pg_catalog.cardinality(l.ids) - (
                      SELECT pg_catalog.count(*) FROM durable_notify.settlement x WHERE x.token = l.token)), 0)::bigint
                  AS messages
             FROM durable_notify.lease l WHERE l.subscription_id = s.id) AS held ON s.id IS NOT NULL
     ORDER BY 1, 2;
END
$function$;

CALL durable_notify._grantable('status', '{observe,consume}', $$_require_observe()$$,
    visible => $$_can_observe(f.group_name, f.topic)$$);
