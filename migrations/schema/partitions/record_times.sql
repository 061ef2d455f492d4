CREATE FUNCTION durable_notify._record_times() RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
DECLARE
    partition record;
BEGIN
    -- Record when the messages of a closed partition were published, in a hundred stretches; returns 1,
    -- or 0: nothing to do. The partition is read once, without blocking others.
    --
    -- Every message that it will ever have is visible by now: see _close_partitions(). What replication
    -- brings later is accounted for by _mark_replicated().
    -- The lock comes first, so that a TRUNCATE, which may have the ids drawn again, comes before or
    -- after; it deletes what was recorded (_reset_maintenance()).
    LOCK TABLE ONLY durable_notify.outbox IN ACCESS SHARE MODE;
    SELECT p.first_id, p.next_id, (p.next_id - p.first_id + 99) / 100 AS width INTO partition
      FROM durable_notify.partitions() p
     WHERE p.next_id <= (SELECT l.closed_below FROM durable_notify.partition_settings l)
       AND NOT EXISTS (SELECT FROM durable_notify.stretch_time t WHERE t.first_id = p.first_id)
     ORDER BY p.first_id LIMIT 1;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    INSERT INTO durable_notify.stretch_time (first_id, next_id, latest)
    SELECT s.first_id, LEAST(s.first_id + partition.width, partition.next_id), COALESCE(m.latest, '-infinity')
      FROM pg_catalog.generate_series(partition.first_id, partition.next_id - 1, partition.width) AS s (first_id)
      LEFT JOIN (SELECT (o.id - partition.first_id) / partition.width AS number, pg_catalog.max(o.created_at) AS latest
                   FROM durable_notify.outbox o
                  WHERE o.id >= partition.first_id AND o.id < partition.next_id
                  GROUP BY 1) AS m ON m.number = (s.first_id - partition.first_id) / partition.width
    ON CONFLICT DO NOTHING;  -- recorded by another session meanwhile
    RETURN 1;
END
$function$;
