CREATE FUNCTION durable_notify._mark_unwanted() RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET jit = off
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
DECLARE
    partition record;
    recorded bigint := 0;
    before bigint[] := '{}';
    seen pg_snapshot;
BEGIN
    -- Find partitions of the outbox whose messages may all be removed, and record them; returns how
    -- many of them were not recorded before. _truncate_partition() empties them in a later transaction:
    -- once every snapshot has seen that no group wants the messages.
    --
    -- The check takes long if there are many topics and groups, and keeps no replay waiting.
    -- A replay leaves a row in lock_removals, by which _truncate_partition() knows that a record does
    -- not count. This removes that row, with the records, before it checks. Trap: not after. What is
    -- committed in between would be in neither.
    IF NOT durable_notify._lock_partitions() THEN
        RETURN 0;
    END IF;
    DELETE FROM durable_notify.lock_removals;
    IF FOUND THEN
        WITH gone AS (DELETE FROM durable_notify.unwanted_partition u RETURNING u.first_id)
        SELECT COALESCE(pg_catalog.array_agg(g.first_id), '{}') INTO before FROM gone g;
    END IF;
    DELETE FROM durable_notify.unwanted_partition u
     WHERE u.first_id > 0 AND NOT EXISTS (SELECT FROM durable_notify.partitions() p WHERE p.first_id = u.first_id)
        OR u.first_id = 0 AND durable_notify._has_appeared('durable_notify.outbox_default', u.seen);
    FOR partition IN
        SELECT p.name, p.first_id FROM durable_notify.partitions() p
         WHERE p.next_id <= (SELECT y.closed_below FROM durable_notify.partition_settings y)
         UNION ALL SELECT 'durable_notify.outbox_default'::regclass, 0
    LOOP
        CONTINUE WHEN EXISTS (SELECT FROM durable_notify.unwanted_partition u WHERE u.first_id = partition.first_id)
                      OR pg_catalog.pg_relation_size(partition.name) = 0;
        seen := durable_notify._committed_snapshot();
        CONTINUE WHEN NOT durable_notify._is_removable(partition.name);
        INSERT INTO durable_notify.unwanted_partition (first_id, seen, since)
        VALUES (partition.first_id, seen, pg_catalog.pg_current_xact_id());
        -- Trap: recording a partition again is no progress. If messages are redelivered all the time, a
        -- round of maintenance would never end, nor reach what is removed row by row.
        recorded := recorded + (partition.first_id <> ALL (before))::integer;
    END LOOP;
    RETURN recorded;
END
$function$;

CREATE FUNCTION durable_notify._is_removable(partition regclass) RETURNS boolean
LANGUAGE plpgsql VOLATILE AS $function$
#variable_conflict use_column
DECLARE
    latest record;
BEGIN
    -- Return whether every message of a partition may be removed.
    FOR latest IN SELECT t.topic, t.last_id FROM durable_notify._partition_topics(partition) t LOOP
        IF latest.last_id >= durable_notify.retention_watermark(latest.topic) THEN
            RETURN false;
        END IF;
    END LOOP;
    RETURN true;
END
$function$;

CREATE FUNCTION durable_notify._has_appeared(partition regclass, since pg_snapshot) RETURNS boolean
LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $function$
DECLARE
    appeared boolean;
BEGIN
    -- Return whether a partition has messages that a snapshot does not see; found by a few probes of
    -- the index for each topic.
    EXECUTE pg_catalog.format(
        'SELECT EXISTS ('
        ' SELECT FROM durable_notify._partition_topics(%1$L::regclass) t'
        '  CROSS JOIN (SELECT pg_catalog.pg_snapshot_xmax($1), NULL::xid8 UNION ALL SELECT x, x FROM pg_catalog.pg_snapshot_xip($1) x)'
        '     AS late (first, last)'
        '  CROSS JOIN LATERAL (SELECT FROM %1$s o WHERE o.topic = t.topic AND o.xid >= late.first'
        '     AND (late.last IS NULL OR o.xid <= late.last) ORDER BY o.xid LIMIT 1) AS o)', partition)
       INTO appeared USING since;
    RETURN appeared;
END
$function$;

CREATE FUNCTION durable_notify._partition_topics(partition regclass) RETURNS TABLE (topic text, last_id bigint)
LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off AS $function$
BEGIN
    -- The topics that have messages in a partition, each with its highest id there. A loose index scan.
    RETURN QUERY EXECUTE pg_catalog.format(
        'WITH RECURSIVE topics AS ('
        '   (SELECT o.topic FROM %1$s o ORDER BY o.topic LIMIT 1)'
        '    UNION ALL'
        '    SELECT (SELECT o.topic FROM %1$s o WHERE o.topic > t.topic ORDER BY o.topic LIMIT 1)'
        '      FROM topics t WHERE t.topic IS NOT NULL)'
        ' SELECT t.topic, (SELECT o.id FROM %1$s o WHERE o.topic = t.topic ORDER BY o.id DESC LIMIT 1)'
        '   FROM topics t WHERE t.topic IS NOT NULL', partition);
END
$function$;
