CREATE FUNCTION durable_notify._drop_partition() RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET lock_timeout = '40ms'
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
DECLARE
    partition record;
    used boolean;
BEGIN
    -- Drop a partition that is empty and gets no more messages; returns 1, or 0: there is none, or not
    -- now. It needs a moment in which no session has a lock on the outbox; until then empty partitions
    -- do no harm.
    --
    -- Empty means emptied by _truncate_partition(). If a table refers to the outbox, TRUNCATE is not
    -- possible, and the messages were removed row by row, which keeps the disk space. No group wanted
    -- them, which is as good once all snapshots see that.
    IF NOT durable_notify._lock_partitions() THEN
        RETURN 0;
    END IF;
    PERFORM pg_catalog.set_config('synchronous_commit', 'local', true);  -- see _truncate_partition()
    FOR partition IN
        SELECT p.*, u.since FROM durable_notify.partitions() p
          LEFT JOIN durable_notify.unwanted_partition u ON u.first_id = p.first_id
         WHERE p.next_id <= (SELECT y.closed_below FROM durable_notify.partition_settings y)
    LOOP
        IF pg_catalog.pg_relation_size(partition.name) > 0 THEN
            CONTINUE WHEN partition.since IS NULL OR NOT durable_notify._is_referenced(partition.name)
                          OR EXISTS (SELECT FROM durable_notify._older_snapshots(partition.since));
            EXECUTE pg_catalog.format('SELECT EXISTS (SELECT FROM %s)', partition.name) INTO used;
            CONTINUE WHEN used;
        END IF;
        PERFORM durable_notify._lock_outbox_exclusive(partition.name);
        EXECUTE pg_catalog.format('ALTER TABLE durable_notify.outbox DETACH PARTITION %s', partition.name);
        EXECUTE pg_catalog.format('DROP TABLE %s', partition.name);
        DELETE FROM durable_notify.stretch_time t WHERE t.first_id >= partition.first_id AND t.next_id <= partition.next_id;
        RETURN 1;
    END LOOP;
    RETURN 0;
EXCEPTION WHEN lock_not_available THEN
    RETURN 0;
END
$function$;
