CREATE FUNCTION durable_notify.next_due(group_name text, topics text[]) RETURNS double precision
LANGUAGE plpgsql AS $function$
#variable_conflict use_column
DECLARE
    due timestamptz;
BEGIN
    -- Seconds until something of these topics comes back by the clock alone: a retry that falls
    -- due, a lease that runs out. NULL: nothing will. Not below 0.
    SELECT pg_catalog.min(t.due_at) INTO due
      FROM durable_notify.consumer_group g
      JOIN durable_notify.subscription s ON s.group_id = g.id AND s.topic = ANY (topics)
     CROSS JOIN LATERAL (
           (SELECT d.due_at FROM durable_notify.deferred d
             WHERE d.subscription_id = s.id ORDER BY d.due_at LIMIT 1)
           UNION ALL
           (SELECT COALESCE(h.deadline, l.deadline)
              FROM (SELECT p.live FROM durable_notify.position p
                     WHERE p.subscription_id = s.id ORDER BY p.seq DESC LIMIT 1) AS newest
             CROSS JOIN LATERAL pg_catalog.unnest(newest.live) AS held (token)
              JOIN durable_notify.lease l ON l.token = held.token
              LEFT JOIN durable_notify.heartbeat h ON h.token = held.token)
           ) AS t (due_at)
     WHERE g.name = group_name;
    -- GREATEST would make 0 of NULL.
    RETURN CASE WHEN due IS NOT NULL THEN GREATEST(0, EXTRACT(epoch FROM due - pg_catalog.clock_timestamp())) END;
END
$function$;
