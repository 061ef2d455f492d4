CREATE FUNCTION durable_notify.topic_storage() RETURNS TABLE (
    topic text, groups bigint, messages bigint, bytes bigint, oldest timestamptz, pattern text
)
LANGUAGE plpgsql STABLE
SET jit = off SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
DECLARE
    partition record;
    sizes jsonb := '{}';
BEGIN
    -- What each topic takes, the most first: how many groups read it, about how many messages and bytes
    -- it has, indexes included, when the oldest was published, and the pattern of its retention (NULL:
    -- there is none).
    --
    -- From a sample: 300 pages of each partition, so that it takes milliseconds, whatever there is. A
    -- partition's size is shared out by what the topics take of the sample. A small topic may be missed:
    -- then its bytes are 0.
    IF NOT durable_notify._is_owner() THEN
        RETURN QUERY SELECT * FROM durable_notify._topic_storage_granted();
        RETURN;
    END IF;
    FOR partition IN
        SELECT l.relid::regclass AS name, pg_catalog.pg_relation_size(l.relid) / 8192.0 AS pages
          FROM pg_catalog.pg_partition_tree('durable_notify.outbox'::regclass) l
         WHERE l.isleaf AND pg_catalog.pg_relation_size(l.relid) > 0
    LOOP
        sizes := durable_notify._add_sizes(sizes, partition.name, LEAST(1, 300 / partition.pages));
    END LOOP;
    RETURN QUERY
    SELECT t.name, (SELECT pg_catalog.count(*) FROM durable_notify.subscription s WHERE s.topic = t.name),
           COALESCE((sizes -> t.name ->> 0)::numeric::bigint, 0), COALESCE((sizes -> t.name ->> 1)::numeric::bigint, 0),
           (SELECT o.created_at FROM durable_notify.outbox o WHERE o.topic = t.name ORDER BY o.id LIMIT 1),
           (durable_notify._retention_for(t.name)).pattern
      FROM durable_notify._topics() AS t (name)
     ORDER BY 4 DESC, 1;
END
$function$;

CREATE FUNCTION durable_notify._add_sizes(sizes jsonb, partition regclass, share numeric) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $function$
DECLARE
    found jsonb;
BEGIN
    -- Add to what each topic has, as messages and bytes, what it has in a partition, of which a share is
    -- looked at. REPEATABLE: the same sample at each call.
    EXECUTE pg_catalog.format(
        'WITH sampled AS ('
        '   SELECT o.topic, pg_catalog.count(*) AS messages,'
        '          pg_catalog.sum(100 + COALESCE(pg_catalog.pg_column_size(o.payload), 0) + COALESCE(pg_catalog.pg_column_size(o.data), 0)'
        '                         + COALESCE(pg_catalog.pg_column_size(o.headers), 0)) AS bytes'
        '     FROM %1$s o TABLESAMPLE SYSTEM (%2$s) REPEATABLE (1) GROUP BY o.topic)'
        ' SELECT pg_catalog.jsonb_object_agg(s.topic, pg_catalog.jsonb_build_array('
        '            s.messages / %3$s + COALESCE(($1 -> s.topic ->> 0)::numeric, 0),'
        '            s.bytes / (SELECT pg_catalog.sum(a.bytes) FROM sampled a) * pg_catalog.pg_total_relation_size(%1$L::regclass)'
        '            + COALESCE(($1 -> s.topic ->> 1)::numeric, 0)))'
        '   FROM sampled s', partition, 100 * share, share)
       INTO found USING sizes;
    RETURN sizes || COALESCE(found, '{}');
END
$function$;

CALL durable_notify._grantable('topic_storage', '{observe,consume}', $$_require_observe()$$,
    visible => $$_has_grant('observe', NULL, NULL) OR durable_notify._has_grant('consume', f.topic, NULL)$$);
