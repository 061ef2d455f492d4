CREATE FUNCTION durable_notify.busy_keys(live bigint[], keys text[], order_by text) RETURNS text[]
LANGUAGE plpgsql STABLE STRICT
SET enable_hashjoin = on SET enable_sort = on SET enable_seqscan = on SET jit = off AS $function$
#variable_conflict use_column
BEGIN
    -- Those of some keys of which a live lease holds a message that is not settled. VOLATILE callers
    -- look here first and at deferred after: a settle in between shows a message in both, not in none.
    RETURN ARRAY(
        SELECT DISTINCT m.key
          FROM durable_notify.lease l
         CROSS JOIN LATERAL ROWS FROM (
               pg_catalog.unnest(l.ids), pg_catalog.unnest(durable_notify.keys_of(l, busy_keys.order_by))) AS m (id, key)
          JOIN (SELECT DISTINCT pg_catalog.unnest(busy_keys.keys)) AS k (key) ON k.key = m.key
         WHERE l.token = ANY (live)
           AND NOT EXISTS (SELECT FROM durable_notify.settlement t WHERE t.token = l.token AND t.message_id = m.id));
END
$function$;
