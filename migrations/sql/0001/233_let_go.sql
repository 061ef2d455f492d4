CREATE FUNCTION durable_notify.let_go(
    subscription_id integer, live bigint[], max_messages integer, order_by text
) RETURNS bigint[]
LANGUAGE plpgsql
SET enable_seqscan = off SET jit = off SET enable_sort = on AS $function$
#variable_conflict use_column
DECLARE
    now_time timestamptz := pg_catalog.clock_timestamp();
    waiting text[];
    busy text[];
BEGIN
    -- Messages in deferred that hold back their key and can go: its first, and those after it up to one
    -- that is not due, if no live lease has the key.
    waiting := ARRAY(SELECT h.key FROM durable_notify.heads(subscription_id) h
                      WHERE h.due_at <= now_time ORDER BY h.message_id);
    IF pg_catalog.cardinality(waiting) = 0 OR max_messages <= 0 THEN
        RETURN '{}';
    END IF;
    -- Trap: leases first, deferred after: the statement below reads what waits once more. A retry
    -- settled in between is either seen there, or its lease was seen here.
    busy := durable_notify.busy_keys(live, waiting, order_by);
    RETURN ARRAY(SELECT f.message_id FROM (
        SELECT m.message_id
          FROM pg_catalog.unnest(waiting) WITH ORDINALITY AS w (key, place)
         CROSS JOIN LATERAL (
               SELECT n.message_id, pg_catalog.bool_and(n.due_at <= now_time) OVER (ORDER BY n.message_id) AS goes
                 FROM (SELECT DISTINCT ON (e.message_id) e.message_id, e.due_at FROM durable_notify.deferred e
                        WHERE e.subscription_id = let_go.subscription_id AND e.key = w.key
                        ORDER BY e.message_id, e.due_at LIMIT max_messages) AS n) AS m
         WHERE w.key <> ALL (busy) AND m.goes
         ORDER BY w.place, m.message_id
         LIMIT max_messages) AS f ORDER BY f.message_id);
END
$function$;
