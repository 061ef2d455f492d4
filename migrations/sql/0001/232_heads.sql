CREATE FUNCTION durable_notify.heads(subscription_id integer) RETURNS TABLE (key text, message_id bigint, due_at timestamptz)
LANGUAGE plpgsql STABLE STRICT
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off AS $function$
#variable_conflict use_column
BEGIN
    -- Of each key that waits in deferred, the first message, and when it is due by its earliest row. A loose index scan: one probe a key,
    -- however many messages wait for it.
    RETURN QUERY
    WITH RECURSIVE first AS (
        (SELECT d.key, d.message_id, d.due_at FROM durable_notify.deferred d
          WHERE d.subscription_id = heads.subscription_id AND d.key IS NOT NULL
          ORDER BY d.key, d.message_id, d.due_at LIMIT 1)
        UNION ALL
        SELECT n.key, n.message_id, n.due_at FROM first f
         CROSS JOIN LATERAL (
               SELECT d.key, d.message_id, d.due_at FROM durable_notify.deferred d
                WHERE d.subscription_id = heads.subscription_id AND d.key > f.key
                ORDER BY d.key, d.message_id, d.due_at LIMIT 1) AS n)
    SELECT f.key, f.message_id, f.due_at FROM first f;
END
$function$;
