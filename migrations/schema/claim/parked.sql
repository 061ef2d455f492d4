CREATE FUNCTION durable_notify._unpark(
    subscription_id integer, lease_tokens bigint[], max_messages integer, order_by text
) RETURNS bigint[]
LANGUAGE plpgsql
SET enable_seqscan = off SET jit = off SET enable_sort = on AS $function$
#variable_conflict use_column
DECLARE
    now_time timestamptz := pg_catalog.clock_timestamp();
    waiting text[];
    busy text[];
BEGIN
    -- The deferred messages that hold back their key and can go: the first of each key, and those after
    -- it up to one that is not due, if no live lease has the key.
    waiting := ARRAY(SELECT h.key FROM durable_notify._parked_heads(subscription_id) h
                      WHERE h.due_at <= now_time ORDER BY h.message_id);
    IF pg_catalog.cardinality(waiting) = 0 OR max_messages <= 0 THEN
        RETURN '{}';
    END IF;
    -- Trap: leases first, deferred after: the statement below reads what waits once more. A retry
    -- settled in between is either seen there, or its lease was seen here.
    busy := durable_notify._keys_in_flight(lease_tokens, waiting, order_by);
    RETURN ARRAY(SELECT f.message_id FROM (
        SELECT m.message_id
          FROM pg_catalog.unnest(waiting) WITH ORDINALITY AS w (key, ord)
         CROSS JOIN LATERAL (
               SELECT n.message_id, pg_catalog.bool_and(n.due_at <= now_time) OVER (ORDER BY n.message_id) AS goes
                 FROM (SELECT DISTINCT ON (e.message_id) e.message_id, e.due_at FROM durable_notify.deferred e
                        WHERE e.subscription_id = _unpark.subscription_id AND e.key = w.key
                        ORDER BY e.message_id, e.due_at LIMIT max_messages) AS n) AS m
         WHERE w.key <> ALL (busy) AND m.goes
         ORDER BY w.ord, m.message_id
         LIMIT max_messages) AS f ORDER BY f.message_id);
END
$function$;

CREATE FUNCTION durable_notify._parked_heads(subscription_id integer) RETURNS TABLE (key text, message_id bigint, due_at timestamptz)
LANGUAGE plpgsql STABLE STRICT
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off AS $function$
#variable_conflict use_column
BEGIN
    -- The first deferred message of each key that waits, and when it is due by its earliest row. A
    -- loose index scan: one probe a key, however many messages wait for it.
    RETURN QUERY
    WITH RECURSIVE first AS (
        (SELECT d.key, d.message_id, d.due_at FROM durable_notify.deferred d
          WHERE d.subscription_id = _parked_heads.subscription_id AND d.key IS NOT NULL
          ORDER BY d.key, d.message_id, d.due_at LIMIT 1)
        UNION ALL
        SELECT n.key, n.message_id, n.due_at FROM first f
         CROSS JOIN LATERAL (
               SELECT d.key, d.message_id, d.due_at FROM durable_notify.deferred d
                WHERE d.subscription_id = _parked_heads.subscription_id AND d.key > f.key
                ORDER BY d.key, d.message_id, d.due_at LIMIT 1) AS n)
    SELECT f.key, f.message_id, f.due_at FROM first f;
END
$function$;

CREATE FUNCTION durable_notify._keys_in_flight(lease_tokens bigint[], keys text[], order_by text) RETURNS text[]
LANGUAGE plpgsql STABLE STRICT
SET enable_hashjoin = on SET enable_sort = on SET enable_seqscan = on SET jit = off AS $function$
#variable_conflict use_column
BEGIN
    -- The keys of which a live lease holds a message that is not settled. VOLATILE callers look here
    -- first and at deferred after: a message settled in between is in both, and not missing from both.
    RETURN ARRAY(
        SELECT DISTINCT m.key
          FROM durable_notify.lease l
         CROSS JOIN LATERAL ROWS FROM (
               pg_catalog.unnest(l.ids), pg_catalog.unnest(durable_notify._lease_keys(l, _keys_in_flight.order_by))) AS m (id, key)
          JOIN (SELECT DISTINCT pg_catalog.unnest(_keys_in_flight.keys)) AS k (key) ON k.key = m.key
         WHERE l.token = ANY (lease_tokens)
           AND NOT EXISTS (SELECT FROM durable_notify.settlement t WHERE t.token = l.token AND t.message_id = m.id));
END
$function$;
