CREATE FUNCTION durable_notify.plan_archive(topic text, max_messages integer DEFAULT 50000, OUT from_id bigint, OUT below bigint)
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
SET lock_timeout = '1s' SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
DECLARE
    policy durable_notify.topic_retention := durable_notify._retention_for(topic);
    planned bigint;
    max_id bigint;
BEGIN
    -- Which messages of a topic are to be archived next: those with ids from from_id on, below below;
    -- NULL: none. They are those that its retention would remove if they were archived; 50,000 or 256
    -- MB at most.
    --
    -- A plan stays until advance_archive() says that it is done. A call meanwhile, or after a crash,
    -- returns the same plan, and the same messages: nothing can appear below what _advance_watermark()
    -- has recorded, and nothing is removed before it is archived.
    IF NOT COALESCE(policy.archive, false) THEN
        RETURN;
    END IF;
    INSERT INTO durable_notify.maintenance_progress (topic) VALUES (plan_archive.topic) ON CONFLICT DO NOTHING;
    SELECT p.archived_below, p.archiving_below INTO STRICT from_id, planned
      FROM durable_notify.maintenance_progress p WHERE p.topic = plan_archive.topic FOR UPDATE;
    IF planned IS NULL THEN
        max_id := CASE WHEN policy.compact THEN 9223372036854775807 ELSE durable_notify._due_watermark(topic, policy) END;
        max_id := LEAST(max_id, durable_notify._watermark());
        max_id := durable_notify._all_settled_watermark(topic, max_id);
        planned := (
            SELECT pg_catalog.max(n.id) + 1 FROM (
                SELECT o.id, pg_catalog.sum(COALESCE(pg_catalog.pg_column_size(o.payload), 0)
                                            + COALESCE(pg_catalog.pg_column_size(o.data), 0)) OVER (ORDER BY o.id) AS so_far,
                       pg_catalog.row_number() OVER (ORDER BY o.id) AS ord
                  FROM (SELECT x.id, x.payload, x.data FROM durable_notify.outbox x
                         WHERE x.topic = plan_archive.topic AND x.id >= from_id AND x.id < max_id
                         ORDER BY x.id LIMIT max_messages) AS o) AS n
             WHERE n.so_far <= 268435456 OR n.ord = 1);
        UPDATE durable_notify.maintenance_progress p SET archiving_below = planned WHERE p.topic = plan_archive.topic;
    END IF;
    below := planned;
    IF below IS NULL THEN
        from_id := NULL;
    END IF;
END
$function$;
