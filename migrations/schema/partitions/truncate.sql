CREATE FUNCTION durable_notify._truncate_partition() RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET lock_timeout = '40ms' SET jit = off
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
DECLARE
    partition record;
    messages bigint;
    topics text[];
    ids bigint[];
    xids xid8[];
BEGIN
    -- Empty a partition of the outbox that _mark_unwanted() has recorded; returns how many messages
    -- there were, at least 1; 0: there is none, or not now. Commit at once: readers of the whole outbox
    -- wait meanwhile.
    --
    -- TRUNCATE gives the disk space back. Trap: it removes the messages from older snapshots, too. A
    -- backup with such a snapshot would have positions that want messages, and not the messages. So
    -- wait until no such snapshot can exist, and leave what was recorded in this transaction for a
    -- later one.
    -- Under _lock_removal() no message is redelivered; a transaction that did so since the partition
    -- was recorded has left a row in lock_removals. Nothing appears in a closed partition.
    -- outbox_default is not closed: it is checked under its lock.
    -- Count before that lock: a partition may be large, and redelivery waits for the lock.
    IF NOT durable_notify._lock_partitions() THEN
        RETURN 0;
    END IF;
    -- Trap: commit would wait for a synchronous standby with the lock held.
    PERFORM pg_catalog.set_config('synchronous_commit', 'local', true);
    FOR partition IN
        SELECT u.first_id, u.seen, u.since, COALESCE(p.name, 'durable_notify.outbox_default'::regclass) AS name
          FROM durable_notify.unwanted_partition u LEFT JOIN durable_notify.partitions() p ON p.first_id = u.first_id
         WHERE (p.first_id IS NOT NULL OR u.first_id = 0) AND u.since <> pg_catalog.pg_current_xact_id()
         ORDER BY u.first_id = 0, u.first_id
    LOOP
        CONTINUE WHEN durable_notify._is_referenced(partition.name) OR EXISTS (SELECT FROM durable_notify._older_snapshots(partition.since));
        BEGIN
            EXECUTE pg_catalog.format('SELECT pg_catalog.count(*) FROM %s', partition.name) INTO messages;
            EXECUTE pg_catalog.format(
                'SELECT pg_catalog.array_agg(t.topic), pg_catalog.array_agg(t.last_id), pg_catalog.array_agg('
                '       (SELECT o.xid FROM %1$s o WHERE o.topic = t.topic ORDER BY o.xid DESC LIMIT 1))'
                '  FROM durable_notify._partition_topics(%1$L::regclass) t', partition.name) INTO topics, ids, xids;
            IF NOT durable_notify._lock_removal() THEN
                RETURN 0;
            END IF;
            -- Trap: not in one expression with the lock. It would see the rows of before the lock.
            IF EXISTS (SELECT FROM durable_notify.lock_removals) THEN
                RETURN 0;
            END IF;
            EXECUTE pg_catalog.format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', partition.name);
            PERFORM durable_notify.log_id();  -- after it: replication also writes to closed partitions
            CONTINUE WHEN partition.first_id = 0 AND durable_notify._has_appeared(partition.name, partition.seen);
            PERFORM durable_notify._record_removed(t.topic, t.last_id, t.last_xid)
               FROM ROWS FROM (pg_catalog.unnest(topics), pg_catalog.unnest(ids), pg_catalog.unnest(xids)) AS t (topic, last_id, last_xid)
              ORDER BY t.topic;
            EXECUTE pg_catalog.format('TRUNCATE %s', partition.name);
            DELETE FROM durable_notify.unwanted_partition u WHERE u.first_id = partition.first_id;
            RETURN GREATEST(messages, 1);
        EXCEPTION WHEN lock_not_available THEN
            CONTINUE;
        END;
    END LOOP;
    RETURN 0;
END
$function$;
