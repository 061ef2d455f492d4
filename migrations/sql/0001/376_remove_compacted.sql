CREATE FUNCTION durable_notify.remove_compacted(topic text, ids bigint[]) RETURNS bigint
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET jit = off AS $function$
#variable_conflict use_column
DECLARE
    removed bigint;
BEGIN
    -- Remove messages amid a topic, and take them off what was measured; returns how many were there.
    WITH gone AS (
        DELETE FROM durable_notify.outbox o WHERE o.topic = remove_compacted.topic AND o.id = ANY (ids)
        RETURNING o.id, pg_catalog.pg_column_size(o.payload) AS bytes),
    less AS (
        UPDATE durable_notify.topic_extent e
           SET messages = e.messages - s.messages, bytes = GREATEST(0, e.bytes - s.bytes)
          FROM (SELECT x.upto_id, pg_catalog.count(*) AS messages, pg_catalog.sum(200 + COALESCE(g.bytes, 0)) AS bytes
                  FROM gone g CROSS JOIN LATERAL (
                       SELECT t.upto_id FROM durable_notify.topic_extent t
                        WHERE t.topic = remove_compacted.topic AND t.upto_id >= g.id ORDER BY t.upto_id LIMIT 1) AS x
                 GROUP BY x.upto_id) AS s
         WHERE e.topic = remove_compacted.topic AND e.upto_id = s.upto_id)
    SELECT pg_catalog.count(*) INTO removed FROM gone;
    RETURN removed;
END
$function$;
